"""Parameter groups and learning rates by hand."""

from __future__ import annotations

import math

import pytest
import torch

from duotrack.nets.student import Student, StudentConfig
from duotrack.training.config import Optimizer, Schedule
from duotrack.training.optimizer import learning_rate_share, parameter_groups


def test_the_cosine_by_hand() -> None:
    schedule = Schedule(warmup=100)
    expected = {0: 0.01, 49: 0.5, 99: 1, 100: 1, 600: 0.01 + 0.99 / 2, 350: 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2}
    for step, share in (expected | {1100: 0.01, 5000: 0.01}).items():
        assert learning_rate_share(step, 1100, schedule) == pytest.approx(share), step


def test_the_steps_by_hand() -> None:
    schedule = Schedule(kind="step", warmup=10, drops=(0.5, 0.8), factor=0.1)
    for step, share in {0: 0.1, 9: 1, 10: 1, 499: 1, 500: 0.1, 799: 0.1, 800: 0.01, 999: 0.01}.items():
        assert learning_rate_share(step, 1000, schedule) == pytest.approx(share), step


def test_each_block_below_learns_more_slowly() -> None:
    torch.manual_seed(0)
    student = Student(StudentConfig(width=48, depth=3, heads=3, head_channels=16))
    pretrained = {name for name, _ in student.named_parameters() if name.startswith("backbone.")}
    config = Optimizer(new_lr=1e-3, pretrained_lr=1e-4, layer_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(student, pretrained, config)
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(rates) == len(list(student.parameters()))

    def rate(name: str) -> float:
        return float(rates[id(student.get_parameter(name))])

    assert rate("backbone.blocks.2.attn.qkv.weight") == pytest.approx(1e-4)
    assert rate("backbone.blocks.1.attn.qkv.weight") == pytest.approx(0.5e-4)
    assert rate("backbone.blocks.0.norm1.bias") == pytest.approx(0.25e-4)
    assert rate("backbone.patch_embed.proj.weight") == pytest.approx(0.125e-4)
    assert rate("backbone.pos_embed_x") == pytest.approx(0.125e-4)
    assert rate("backbone.norm.weight") == pytest.approx(1e-4)
    assert rate("box_head.conv1_ctr.0.weight") == pytest.approx(1e-3)
    assert decays[id(student.get_parameter("backbone.blocks.0.attn.qkv.weight"))] == 0.1
    assert decays[id(student.get_parameter("backbone.blocks.0.attn.qkv.bias"))] == 0
    assert decays[id(student.get_parameter("backbone.norm.weight"))] == 0


def test_what_is_frozen_is_left_out() -> None:
    student = Student(StudentConfig(width=48, depth=1, heads=3, head_channels=16))
    student.backbone.requires_grad_(False)
    groups = parameter_groups(student, set(), Optimizer())
    held = {id(parameter) for group in groups for parameter in group["params"]}
    assert held == {
        id(parameter) for parameter in (*student.box_head.parameters(), *student.presence_head.parameters())
    }
