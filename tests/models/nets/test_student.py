"""The student: what may influence what, and that its two halves are the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from duotrack.nets.network import TorchNetwork
from duotrack.nets.student import CHANNEL_MEAN, CHANNEL_STD, STUDENTS, Student, StudentConfig, box_coverage

if TYPE_CHECKING:
    from conftest import ExportedModel, NetworkInput

MakeStudent = Callable[..., Student]
KINDS: dict[str, dict[str, Any]] = {
    "isolated": {},
    "joint": {"template_attention": "joint", "layer_scale": False},
}


@pytest.fixture
def tensors(network_input: NetworkInput) -> dict[str, Tensor]:
    template = network_input.template
    return {
        "template": torch.from_numpy(template.crop),
        "template_present": torch.from_numpy(template.present),
        "template_box": torch.from_numpy(template.box),
        "search": torch.from_numpy(network_input.search),
        "search_present": torch.from_numpy(network_input.present),
    }


def difference(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_encode_and_search_are_forward(make_student: MakeStudent, tensors: dict[str, Tensor], kind: str) -> None:
    student = make_student(1, **KINDS[kind])
    whole = student(**tensors)
    features = student.encode(tensors["template"], tensors["template_present"], tensors["template_box"])
    halves = student.search(tensors["search"], tensors["search_present"], features)
    assert difference(whole, halves) == 0
    assert whole.score_logits.shape == (3, 16, 16)
    assert whole.box_map.shape == (3, 4, 16, 16)
    assert whole.presence_logit.shape == (3,)
    assert features.shape == ((3, 2, 2, 3, 64, 16) if kind == "isolated" else (3, 64, 48))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["template", "template_box", "search"])
@torch.no_grad()
def test_every_input_matters(make_student: MakeStudent, tensors: dict[str, Tensor], kind: str, name: str) -> None:
    student = make_student(1, **KINDS[kind])
    other = tensors[name] * 0.5 if name == "template_box" else 255 - tensors[name]
    assert difference(student(**tensors), student(**tensors | {name: other})) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_sessions_of_a_batch_do_not_mix(make_student: MakeStudent, tensors: dict[str, Tensor], kind: str) -> None:
    student = make_student(1, **KINDS[kind])
    together = student(**tensors)
    for session in range(3):
        alone = student(**{name: tensor[session : session + 1] for name, tensor in tensors.items()})
        assert difference(tuple(part[session : session + 1] for part in together), alone) < 1e-4


@torch.no_grad()
def test_an_isolated_template_never_sees_the_search_crop(make_student: MakeStudent, tensors: dict[str, Tensor]) -> None:
    """Run by hand as one sequence of tokens with a mask that keeps template queries from search keys."""
    student = make_student(2)
    backbone = student.backbone
    z = backbone.embed_template(tensors["template"], tensors["template_present"], tensors["template_box"])
    x = backbone.embed_search(tensors["search"], tensors["search_present"])
    count = z.shape[1]
    allowed = torch.ones(count + x.shape[1], count + x.shape[1], dtype=torch.bool)
    allowed[:count, count:] = False
    tokens = torch.cat((z, x), 1)
    for block in backbone.blocks:
        attn = block.attn
        batch, total, width = tokens.shape
        qkv = attn.qkv(block.norm1(tokens)).reshape(batch, total, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
        logits = qkv[0] @ qkv[1].transpose(-1, -2) / (width / attn.heads) ** 0.5
        mixed = logits.masked_fill(~allowed, -torch.inf).softmax(-1) @ qkv[2]
        tokens = tokens + block.ls1(attn.proj(mixed.transpose(1, 2).reshape(batch, total, width)))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    logits, box_map = student.box_head(backbone.norm(tokens)[:, count:])
    output = student(**tensors)
    assert torch.allclose(output.score_logits, logits, atol=1e-4)
    assert torch.allclose(output.box_map, box_map, atol=1e-4)


@torch.no_grad()
def test_joint_attention_runs_over_all_tokens(make_student: MakeStudent, tensors: dict[str, Tensor]) -> None:
    student = make_student(2, **KINDS["joint"])
    backbone = student.backbone
    tokens = torch.cat(
        (
            backbone.embed_template(tensors["template"], tensors["template_present"], tensors["template_box"]),
            backbone.embed_search(tensors["search"], tensors["search_present"]),
        ),
        1,
    )
    for block in backbone.blocks:
        tokens, _ = block(tokens)
    logits, box_map = student.box_head(backbone.norm(tokens)[:, 64:])
    output = student(**tensors)
    assert difference((output.score_logits, output.box_map), (logits, box_map)) < 1e-5


@pytest.mark.parametrize("absent", ["colour", "thermal"])
@torch.no_grad()
def test_pixels_of_an_absent_modality_do_not_matter(
    make_student: MakeStudent, tensors: dict[str, Tensor], absent: str
) -> None:
    student = make_student(3)
    channels = np.s_[..., :3] if absent == "colour" else np.s_[..., 3:]
    present = torch.tensor([[0.0, 1.0]] * 3 if absent == "colour" else [[1.0, 0.0]] * 3)
    gone = tensors | {"template_present": present, "search_present": present}
    noisy = {name: tensor.clone() for name, tensor in gone.items()}
    generator = torch.Generator().manual_seed(0)
    for name in ("template", "search"):
        noisy[name][channels] = torch.randint(
            0, 256, noisy[name][channels].shape, dtype=torch.uint8, generator=generator
        )
    assert difference(student(**gone), student(**noisy)) == 0
    assert difference(student(**gone), student(**tensors)) > 1e-2


@torch.no_grad()
def test_an_absent_modality_is_its_mask(make_student: MakeStudent) -> None:
    """With both absent, every token is the embedding's bias and both masks; with one, that one's mask."""
    student = make_student(3)
    backbone = student.backbone
    crop = torch.randint(0, 256, (2, 128, 128, 4), dtype=torch.uint8)
    bias = backbone.patch_embed.proj.bias
    neither = backbone.embed(crop, torch.zeros(2, 2))
    assert torch.allclose(neither, (bias + backbone.modality_mask.sum(0)).expand_as(neither), atol=1e-5)
    thermal_only = backbone.embed(crop, torch.tensor([[0.0, 1.0]] * 2))
    weight = backbone.patch_embed.proj.weight.reshape(48, 16, 16, 4)[..., 3]
    patch = (crop[0, :16, :16, 3].float() / 255 - CHANNEL_MEAN[3]) / CHANNEL_STD[3]
    expected = (weight * patch).sum((1, 2)) + bias + backbone.modality_mask[0]
    assert torch.allclose(thermal_only[0, 0], expected, atol=1e-4)


@torch.no_grad()
def test_pixels_are_normalised_by_the_published_statistics(make_student: MakeStudent) -> None:
    """A crop that has every channel at its mean gives the bias alone; one deviation more, the sum of its kernel."""
    backbone = make_student(4).backbone
    assert CHANNEL_MEAN[:3] == (0.485, 0.456, 0.406)  # ImageNet
    assert CHANNEL_STD[:3] == (0.229, 0.224, 0.225)
    mean = (torch.tensor(CHANNEL_MEAN) * 255).expand(1, 128, 128, 4)
    bias = backbone.patch_embed.proj.bias
    both = torch.ones(1, 2)
    assert torch.allclose(backbone.embed(mean, both), bias.expand(1, 64, 48), atol=1e-5)
    for channel in range(4):
        raised = mean.clone()
        raised[..., channel] += 255 * CHANNEL_STD[channel]
        kernel_sum = backbone.patch_embed.proj.weight.reshape(48, 256, 4)[..., channel].sum(1)
        assert torch.allclose(backbone.embed(raised, both)[0, 5], bias + kernel_sum, atol=1e-4)


centers = st.floats(-0.25, 1.25, width=32)
lengths = st.floats(2**-6, 1.5, width=32)


@given(st.lists(st.tuples(centers, centers, lengths, lengths), min_size=1))
def test_box_coverage_counts_fine_pixels(boxes: list[tuple[float, float, float, float]]) -> None:
    grid, fine = 8, 40
    coverage = box_coverage(torch.tensor(boxes), grid)
    assert coverage.shape == (len(boxes), grid**2)
    places = (np.arange(grid * fine) + 0.5) / (grid * fine)
    for (cx, cy, w, h), found in zip(boxes, coverage.numpy(), strict=True):
        inside_x = (abs(places - cx) <= w / 2).reshape(grid, fine).mean(1)
        inside_y = (abs(places - cy) <= h / 2).reshape(grid, fine).mean(1)
        assert np.abs(found.reshape(grid, grid) - np.outer(inside_y, inside_x)).max() < 2.5 / fine


def test_box_coverage_is_rows_first() -> None:
    """A box over the upper right quarter of a 2 × 2 grid."""
    assert box_coverage(torch.tensor([[0.75, 0.25, 0.5, 0.5]]), 2).tolist() == [[0, 1, 0, 0]]


@torch.no_grad()
def test_template_types_follow_the_box(make_student: MakeStudent) -> None:
    """A box over all of the crop marks every token as target, a box beside it none."""
    backbone = make_student(5).backbone
    crop, both = torch.zeros(1, 128, 128, 4, dtype=torch.uint8), torch.ones(1, 2)
    plain = backbone.embed(crop, both) + backbone.pos_embed_z
    over_all = backbone.embed_template(crop, both, torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    beside = backbone.embed_template(crop, both, torch.tensor([[5.0, 5.0, 1.0, 1.0]]))
    assert torch.allclose(over_all - plain, backbone.target_type.expand_as(plain), atol=1e-5)
    assert torch.allclose(beside - plain, backbone.context_type.expand_as(plain), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("student-s", 12.8), ("student-b", 92.6)],
)
def test_sizes_are_those_of_the_design(name: str, millions: float) -> None:
    """Parameters as measured for these widths and depths in the architecture notes, to a twentieth."""
    with torch.device("meta"):
        student = Student(STUDENTS[name])
    assert sum(parameter.numel() for parameter in student.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


def test_grids_follow_from_sizes() -> None:
    config = StudentConfig(template_size=96, search_size=192)
    assert (config.template_grid, config.search_grid) == (6, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_torch_network_in_bf16_agrees_with_fp32(
    make_student: MakeStudent, network_input: NetworkInput, kind: str
) -> None:
    """The trap in ``test_vit`` seen from outside: boxes agree to part of a pixel; other crops' differ by several."""
    student = make_student(11, **KINDS[kind])
    exact, rounded = TorchNetwork(student), TorchNetwork(student, bf16=True)
    features = exact.encode(network_input.template)
    expected = exact.search(network_input.search, network_input.present, features)
    found = rounded.search(network_input.search, network_input.present, rounded.encode(network_input.template))
    for output in (found.score_map, found.box_map, found.presence):
        assert output.dtype == np.float32
    assert np.abs(found.score_map - expected.score_map).max() < 0.03
    assert np.abs(found.box_map - expected.box_map).mean() * 256 < 0.5
    assert np.abs(expected.box_map[0] - expected.box_map[1]).mean() * 256 > 2
    assert np.abs(found.presence - expected.presence).max() < 0.01


def test_the_torch_network_describes_its_student(exported: ExportedModel) -> None:
    spec = exported.network.spec
    assert (spec.name, spec.template_size, spec.search_size, spec.grid) == ("tiny", 128, 256, 16)


def test_both_crops_show_the_target_at_one_scale() -> None:
    """Pixels of either crop for a side of the target; the paper's sizes are OSTrack's 128 at 2 and 256 at 4."""
    for name, config in STUDENTS.items():
        scales = config.search_size / config.search_factor, config.template_size / config.template_factor
        assert scales[0] == pytest.approx(scales[1]), name
        assert config.search_size % config.patch == 0
    assert (STUDENTS["student-b"].search_size, STUDENTS["student-b"].search_factor) == (256, 4.0)
    assert (STUDENTS["student-s"].search_size, STUDENTS["student-s"].search_factor) == (224, 3.5)
    assert (STUDENTS["student-t"].search_size, STUDENTS["student-t"].search_factor) == (224, pytest.approx(2.8))
    network = TorchNetwork(Student(StudentConfig(width=48, heads=3, depth=1, search_size=96, template_size=64)))
    assert (network.spec.search_size, network.spec.search_factor, network.spec.grid) == (96, 3.0, 6)
    config = StudentConfig(width=48, heads=3, depth=1, search_size=224, template_factor=1.6, widening=1.4)
    spec = TorchNetwork(Student(config)).spec
    assert (spec.template_factor, spec.search_factor, spec.widening) == (1.6, pytest.approx(2.8), 1.4)
