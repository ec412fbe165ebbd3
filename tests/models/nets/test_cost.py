"""Multiply-accumulates: our formula against torch's counter, and against a published figure."""

from __future__ import annotations

import pytest

from duotrack.nets.cost import block_macs, count_macs, macs
from duotrack.nets.models import MODELS, ModelConfig, build_model
from duotrack.nets.student import StudentConfig
from duotrack.nets.teacher import TeacherConfig

TINY: dict[str, ModelConfig] = {
    "isolated": StudentConfig(width=48, depth=3, heads=3, head_channels=16),
    "joint": StudentConfig(width=48, depth=2, heads=3, head_channels=16, template_attention="joint"),
    "other crops": StudentConfig(width=32, depth=2, heads=2, head_channels=8, template_size=64, search_size=192),
    "teacher": TeacherConfig(width=48, depth=3, heads=3, head_channels=16),
    "weighing": TeacherConfig(width=48, depth=2, heads=3, head_channels=16, weighing=True),
}


@pytest.mark.parametrize("name", TINY)
def test_the_formula_is_what_torch_counts(name: str) -> None:
    assert macs(TINY[name]) == count_macs(build_model(TINY[name]).eval())


def test_one_block_by_hand() -> None:
    """A block more of an isolated student, term by term: 256 search tokens see 64 + 256."""
    shallow, deep = (macs(StudentConfig(width=48, depth=depth, heads=3)) for depth in (1, 2))
    linear = 256 * 48 * (3 * 48 + 48 + 4 * 48 + 4 * 48)
    attention = 2 * 256 * 320 * 48
    assert deep.search - shallow.search == linear + attention
    assert deep.template - shallow.template == 64 * 48 * 12 * 48 + 2 * 64 * 64 * 48


def test_a_vit_b_costs_what_is_published() -> None:
    """ViT-B/16 on 224 × 224 pixels, 196 patches and a class token: 17.6 G (DeiT-B, Touvron et al. 2021)."""
    assert 196 * 16 * 16 * 3 * 768 + 12 * block_macs(768, 197, 197) == pytest.approx(17.6e9, rel=0.005)


def test_a_teacher_costs_over_twice_its_student() -> None:
    """Two streams through the same blocks, and the prompters between them."""
    ratio = macs(MODELS["teacher-b"]).search / macs(MODELS["student-b"]).search
    assert 2 < ratio < 2.2
