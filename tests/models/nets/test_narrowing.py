"""Narrow students from wide ones: the same function wherever the width allows it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.head import CenterHead
from duotrack.nets.narrowing import TOWERS, Basis, Crops, folded, narrow
from duotrack.nets.student import Student
from duotrack.nets.vit import Block, LayerScale

MakeStudent = Callable[..., Student]
KINDS: dict[str, dict[str, Any]] = {
    "isolated": {},
    "joint": {"template_attention": "joint", "layer_scale": False},
}
NARROW: dict[str, Any] = {"width": 32, "heads": 2, "head_channels": 8}


@pytest.fixture
def make_uneven(make_student: MakeStudent) -> MakeStudent:
    """Lively students whose norms and LayerScales differ from channel to channel, as a trained one's do."""

    def make(seed: int, **changes: Any) -> Student:
        student = make_student(seed, **changes)
        generator = torch.Generator().manual_seed(seed)
        for module in student.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1, 0.3, generator)
                nn.init.normal_(module.bias, 0, 0.3, generator)
            elif isinstance(module, LayerScale):
                nn.init.uniform_(module.gamma, 0.5, 2, generator)
        return student

    return make


@torch.no_grad()
def difference(first: Student, second: Student, crops: Crops) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first(*crops), second(*crops), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_folding_changes_nothing(make_uneven: MakeStudent, crops: Crops, kind: str) -> None:
    source = make_uneven(0, **KINDS[kind])
    plain = folded(source)
    assert difference(plain, source, crops) < 1e-4
    for module in plain.backbone.blocks.modules():
        if isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones(48))
            assert not module.bias.any()
        elif isinstance(module, LayerScale):
            assert torch.equal(module.gamma, torch.ones(48))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_width_is_the_same_function(make_uneven: MakeStudent, crops: Crops, kind: str) -> None:
    source = make_uneven(1, **KINDS[kind])
    found = narrow(source, source.config, [crops])
    assert difference(found, source, crops) < 1e-4
    assert found.config == source.config


@pytest.mark.parametrize("layer_scale", [True, False])
def test_layer_scale_comes_and_goes(make_uneven: MakeStudent, crops: Crops, layer_scale: bool) -> None:
    """It is folded in where the new student has none; where it has, it starts as loud as the source's is on average."""
    source = make_uneven(2, layer_scale=not layer_scale)
    found = narrow(source, replace(source.config, layer_scale=layer_scale), [crops])
    assert difference(found, source, crops) < 1e-4
    scaled = make_uneven(3)
    gains = [
        module.gamma for module in narrow(scaled, scaled.config, [crops]).modules() if isinstance(module, LayerScale)
    ]
    before = [module.gamma.mean() for module in scaled.modules() if isinstance(module, LayerScale)]
    assert len(gains) == 4
    assert all(torch.allclose(gain, mean.expand(48)) for gain, mean in zip(gains, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrow_network_hidden_in_a_wide_one_is_found(make_uneven: MakeStudent, crops: Crops, kind: str) -> None:
    """The wide stream lies in 31 random directions; a further head, hidden units and channels lead to nothing."""
    hidden = make_uneven(4, **NARROW, **KINDS[kind])
    wide = widened(hidden, make_uneven(5, **KINDS[kind]))
    assert difference(wide, hidden, crops) < 1e-3
    found = narrow(wide, hidden.config, [crops])
    assert difference(found, hidden, crops) < 1e-3


@torch.no_grad()
def test_what_is_lost_is_small_where_little_lies_outside(make_uneven: MakeStudent, crops: Crops) -> None:
    """Noise of 1 % in the writing layers of such a network moves the outputs little."""
    hidden = make_uneven(4, **NARROW)
    wide = widened(hidden, make_uneven(5))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wide.named_parameters():
        if name.endswith(("proj.weight", "fc2.weight")):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.01 * parameter.std() * noise
    found = narrow(wide, hidden.config, [crops])
    assert difference(found, wide, crops) < 0.1 * float(wide(*crops).score_logits.std())


def test_the_head_is_the_same_in_training(make_uneven: MakeStudent, crops: Crops) -> None:
    """Its BatchNorms hold the statistics of what the narrow network gives them."""
    found = narrow(make_uneven(6), make_uneven(6, **NARROW).config, [crops])
    training = copy.deepcopy(found)
    training.box_head.train()
    assert difference(training, found, crops) < 0.01


def test_the_source_stays_as_it_was(make_uneven: MakeStudent, crops: Crops) -> None:
    source = make_uneven(7).train()
    before = copy.deepcopy(source.state_dict())
    found = narrow(source, make_uneven(7, **NARROW).config, [crops, crops])
    assert source.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())
    assert not found.training
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_a_basis_goes_down_and_up() -> None:
    """Down keeps a token's mean square where it lies in the kept directions, and has no mean; up undoes it."""
    rows = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(12, 0, -1) ** 2
    rows -= rows.mean(1, keepdim=True)
    basis = Basis.of(rows.T @ rows, 6)
    assert torch.allclose(basis.down.sum(0), torch.zeros(12), atol=1e-5)
    inside = rows @ basis.down.T @ basis.up.T
    assert torch.allclose(inside @ basis.down.T @ basis.up.T, inside, atol=1e-3)
    assert torch.allclose((inside @ basis.down.T).square().mean(1), inside.square().mean(1), rtol=1e-4)
    # Of all projections to five dimensions the principal one loses least (Eckart and Young).
    lost = torch.linalg.svdvals(rows)[5:].square().sum()
    assert math.isclose(float((rows - inside).square().sum()), float(lost), rel_tol=1e-3)
    assert torch.allclose(basis.up @ torch.ones(6), torch.ones(12), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 64, "heads": 4}, "cannot add width: the source has 48, got 64"),
        ({"width": 32, "heads": 4}, "cannot add heads: the source has 3, got 4"),
        ({"head_channels": 32}, "cannot add head_channels: the source has 16, got 32"),
        ({"width": 32, "heads": 1}, "heads whole: the source's are 16 wide, got 1 in a width of 32"),
        ({"depth": 1}, "keeps depth: the source's is 2, got 1"),
        ({"template_attention": "joint"}, "keeps template_attention: the source's is isolated, got joint"),
        ({"search_size": 128}, "keeps search_size: the source's is 256, got 128"),
    ],
)
def test_what_cannot_be_is_refused(
    make_student: MakeStudent, crops: Crops, changes: dict[str, Any], message: str
) -> None:
    source = make_student(0)
    with pytest.raises(ModelError, match=message):
        narrow(source, replace(source.config, **changes), [crops])


def test_no_batches_are_refused(make_student: MakeStudent) -> None:
    source = make_student(0)
    with pytest.raises(ModelError, match="at least one batch, got none"):
        narrow(source, source.config, [])


@torch.no_grad()
def widened(narrow_student: Student, wide: Student) -> Student:
    """``wide`` with the function of a narrow student, whose parts lie among ones that lead to nothing."""
    small, big = narrow_student.config.width, wide.config.width
    plain, ratio = folded(narrow_student), math.sqrt(big / small)
    wide = folded(wide)
    inner = _without_mean(small, seed=0)
    outer = _without_mean(big, seed=1)
    up = ratio * outer @ inner.T
    down = inner @ outer.T / ratio + torch.full((small, big), 1 / big)
    theirs, own = plain.backbone, wide.backbone
    own.patch_embed.proj.weight.copy_(up @ theirs.patch_embed.proj.weight)
    own.patch_embed.proj.bias.copy_(up @ theirs.patch_embed.proj.bias)
    for name in ("modality_mask", "pos_embed_z", "pos_embed_x", "target_type", "context_type"):
        own.get_parameter(name).copy_(theirs.get_parameter(name) @ up.T)
    for block, target in zip(theirs.blocks, own.blocks, strict=True):
        assert isinstance(block, Block)
        assert isinstance(target, Block)
        heads = torch.cat((torch.arange(16), torch.arange(32, 48)))  # the second of three leads to nothing
        rows = torch.cat([heads + 48 * part for part in range(3)])
        _place(target.attn.qkv, block.attn.qkv.weight @ down, block.attn.qkv.bias, rows)
        _lead(target.attn.proj, up @ block.attn.proj.weight, up @ block.attn.proj.bias, heads)
        units = torch.randperm(4 * big, generator=torch.Generator().manual_seed(2))[: 4 * small]
        _place(target.mlp.fc1, block.mlp.fc1.weight @ down, block.mlp.fc1.bias, units)
        _lead(target.mlp.fc2, up @ block.mlp.fc2.weight, up @ block.mlp.fc2.bias, units)
    for tower in TOWERS:
        _widen_tower(plain.box_head, wide.box_head, tower, down)
    fc1, weight = wide.presence_head.fc1, plain.presence_head.fc1.weight
    fc1.weight.copy_(torch.cat((weight[:, :small] @ down, weight[:, small:-1] @ down, weight[:, -1:]), 1))
    fc1.bias.copy_(plain.presence_head.fc1.bias)
    wide.presence_head.fc2.load_state_dict(plain.presence_head.fc2.state_dict())
    return wide


def _widen_tower(head: CenterHead, wide: CenterHead, tower: str, down: Tensor) -> None:
    places: Tensor | None = None
    for number in range(1, 6):
        layer, target = (part.get_submodule(f"conv{number}_{tower}") for part in (head, wide))
        conv, into = (part[0] if isinstance(part, nn.Sequential) else part for part in (layer, target))
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(into, nn.Conv2d)
        count = conv.out_channels
        # Every second channel leads to nothing; those of the last layer are the outputs.
        rows = torch.arange(count) if number == 5 else torch.arange(count) * 2
        if places is None:
            into.weight[rows] = torch.einsum("oikl,in->onkl", conv.weight, down)
        else:
            into.weight.zero_()
            into.weight[rows[:, None], places] = conv.weight
        assert conv.bias is not None
        assert into.bias is not None
        into.bias[rows] = conv.bias
        if isinstance(layer, nn.Sequential) and isinstance(target, nn.Sequential):
            own = target[1].state_dict()
            for name, tensor in layer[1].state_dict().items():
                if tensor.ndim:
                    own[name][rows] = tensor
        places = rows


def _place(layer: nn.Linear, weight: Tensor, bias: Tensor, rows: Tensor) -> None:
    layer.weight[rows] = weight
    layer.bias[rows] = bias


def _lead(layer: nn.Linear, weight: Tensor, bias: Tensor, columns: Tensor) -> None:
    layer.weight.zero_()
    layer.weight[:, columns] = weight
    layer.bias.copy_(bias)


def _without_mean(width: int, seed: int) -> Tensor:
    """31 orthonormal columns (width, 31), each with a mean of zero."""
    columns = torch.randn(width, 31, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(columns - columns.mean(0)).Q
