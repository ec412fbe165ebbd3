"""The teacher: which stream hears what and when, what the head reads, and what learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duotrack.nets.head import HeadOutput
from duotrack.nets.student import CHANNEL_MEAN, CHANNEL_STD, Student, StudentConfig
from duotrack.nets.teacher import TEACHERS, Teacher, TeacherConfig
from duotrack.training.losses import LossTerms, LossWeights, tracking_loss

if TYPE_CHECKING:
    from conftest import NetworkInput

TINY = TeacherConfig(width=48, depth=2, heads=3, head_channels=16)
MPLT = {"layer_scale": False}
KINDS: dict[str, dict[str, Any]] = {"plain": {}, "weighing": {"weighing": True}, "as MPLT": MPLT}
# What MPLT's files hold and its code never asks: the first of each prompter, and the third channel attention.
UNUSED = (
    "backbone.prompt_blocks.0.",
    "backbone.prompt_blocks_rev.0.",
    "backbone.prompt_blocks.1.spatialattention2.",
    "backbone.prompt_blocks_rev.1.spatialattention2.",
)


def lively_teacher(seed: int, **changes: Any) -> Teacher:
    """A random teacher whose outputs really depend on its inputs, as a trained one's do; see ``lively_student``."""
    torch.manual_seed(seed)
    teacher = Teacher(replace(TINY, **changes))
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if name.startswith("backbone.pos_embed") or name.endswith(("_type", "modality_mask")):
                parameter.normal_(0, 0.5)
            elif "prompt_norms" in name or ".weighing." in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif name.startswith("box_head.conv5") and name.endswith("weight"):
                parameter.normal_(0, 0.6)
            elif name == "box_head.conv5_ctr.bias":
                parameter.zero_()
            elif ".0.weight" in name and name.startswith(("box_head", "mplt_fuse_search")):
                parameter.mul_(2)
        for name, buffer in teacher.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return teacher.eval()


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


def embedded(
    teacher: Teacher, tensors: dict[str, Tensor]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Tokens of the template and of the search crop, for colour and thermal, and the template's types."""
    backbone = teacher.backbone
    return (
        backbone.embed(tensors["template"], tensors["template_present"]),
        backbone.embed(tensors["search"], tensors["search_present"]),
        backbone.template_types(tensors["template_box"]),
    )


def difference(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_encode_and_search_are_forward(tensors: dict[str, Tensor], kind: str) -> None:
    teacher = lively_teacher(1, **KINDS[kind])
    whole = teacher(**tensors)
    features = teacher.encode(tensors["template"], tensors["template_present"], tensors["template_box"])
    halves = teacher.search(tensors["search"], tensors["search_present"], features)
    assert difference(whole, halves) == 0
    assert features.shape == (3, 3, 64, 48)
    assert whole.score_logits.shape == (3, 16, 16)
    assert whole.box_map.shape == (3, 4, 16, 16)
    assert whole.presence_logit.shape == (3,)


@pytest.mark.parametrize("channels", [slice(3), slice(3, 4)], ids=["colour", "thermal"])
@pytest.mark.parametrize("name", ["template", "search"])
@torch.no_grad()
def test_every_crop_matters(tensors: dict[str, Tensor], name: str, channels: slice) -> None:
    teacher = lively_teacher(1)
    other = tensors[name].clone()
    other[..., channels] = 255 - other[..., channels]
    assert difference(teacher(**tensors), teacher(**tensors | {name: other})) > 1e-3


@torch.no_grad()
def test_the_templates_box_matters(tensors: dict[str, Tensor]) -> None:
    teacher = lively_teacher(1)
    other = tensors | {"template_box": tensors["template_box"] * 0.5}
    assert difference(teacher(**tensors), teacher(**other)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_sessions_of_a_batch_do_not_mix(tensors: dict[str, Tensor], kind: str) -> None:
    teacher = lively_teacher(1, **KINDS[kind])
    together = teacher(**tensors)
    for session in range(3):
        alone = teacher(**{name: tensor[session : session + 1] for name, tensor in tensors.items()})
        assert difference(tuple(part[session : session + 1] for part in together), alone) < 1e-4


@pytest.mark.parametrize("absent", ["colour", "thermal"])
@torch.no_grad()
def test_pixels_of_an_absent_modality_do_not_matter(tensors: dict[str, Tensor], absent: str) -> None:
    teacher = lively_teacher(3)
    channels = np.s_[..., :3] if absent == "colour" else np.s_[..., 3:]
    present = torch.tensor([[0.0, 1.0]] * 3 if absent == "colour" else [[1.0, 0.0]] * 3)
    gone = tensors | {"template_present": present, "search_present": present}
    noisy = {name: tensor.clone() for name, tensor in gone.items()}
    for name in ("template", "search"):
        noisy[name][channels] = 255 - noisy[name][channels]
    assert difference(teacher(**gone), teacher(**noisy)) == 0
    assert difference(teacher(**gone), teacher(**tensors)) > 1e-2


@torch.no_grad()
def test_each_modality_has_tokens_of_its_own() -> None:
    """Both through one embedding, each by its own statistics; thermal in all three channels; a mask where absent."""
    backbone = lively_teacher(4).backbone
    crop = torch.randint(0, 256, (2, 128, 128, 4), dtype=torch.uint8)
    weight, bias = backbone.patch_embed.proj.weight.reshape(48, 16, 16, 3), backbone.patch_embed.proj.bias
    normalised = (crop[1, 16:32, :16].float() / 255 - torch.tensor(CHANNEL_MEAN)) / torch.tensor(CHANNEL_STD)
    rgb, thermal = backbone.embed(crop, torch.ones(2, 2))
    assert rgb.shape == thermal.shape == (2, 64, 48)
    assert torch.allclose(rgb[1, 8], (weight * normalised[..., :3]).sum((1, 2, 3)) + bias, atol=1e-4)
    assert torch.allclose(thermal[1, 8], (weight * normalised[..., 3:]).sum((1, 2, 3)) + bias, atol=1e-4)
    absent = backbone.embed(crop, torch.zeros(2, 2))
    for index in range(2):
        assert torch.allclose(absent[index], (bias + backbone.modality_mask[index]).expand(2, 64, 48), atol=1e-5)
    mixed = backbone.embed(crop, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert difference((mixed[0][0], mixed[1][1]), (rgb[0], thermal[1])) == 0
    assert difference((mixed[0][1], mixed[1][0]), (absent[0][1], absent[1][0])) == 0


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_streams_prompt_each_other_as_mplts_do(tensors: dict[str, Tensor], kind: str) -> None:
    """The forward pass by hand, one stream and one part at a time, from what is known of MPLT's code."""
    teacher = lively_teacher(5, depth=3, **KINDS[kind])
    net = teacher.backbone
    template, search, types = embedded(teacher, tensors)

    def prompted(prompter: nn.Module, *inputs: Tensor) -> Tensor:
        return torch.cat((prompter(*(x[:, :64] for x in inputs)), prompter(*(x[:, 64:] for x in inputs))), 1)

    rgb, thermal = (torch.cat((template[index], search[index]), 1) for index in range(2))
    first = net.prompt_norms[0](rgb), net.prompt_norms[0](thermal)
    prompt_rgb = prompted(net.prompt_blocks_init, first[0], first[1])
    prompt_thermal = prompted(net.prompt_blocks_init_rev, first[1], first[0])
    positions = torch.cat((net.pos_embed_z + types, net.pos_embed_x.expand(3, -1, -1)), 1)
    rgb, thermal = rgb + prompt_rgb + positions, thermal + prompt_thermal + positions
    expected = []
    for index, block in enumerate(net.blocks):
        if index:
            own, other = net.prompt_norms[index - 1](rgb), net.prompt_norms_rev[index - 1](thermal)
            before = net.prompt_norms[index](prompt_rgb), net.prompt_norms_rev[index](prompt_thermal)
            prompt_rgb = prompted(net.prompt_blocks[index], own, before[0], other)
            prompt_thermal = prompted(net.prompt_blocks_rev[index], other, before[1], own)
            rgb, thermal = rgb + prompt_rgb, thermal + prompt_thermal
        rgb, thermal = block(rgb)[0], block(thermal)[0]
        expected.append(torch.stack((rgb, thermal), 1))
    expected.append(torch.stack((net.norm(rgb), net.norm(thermal)), 1))
    assert difference(teacher.trace(**tensors).layers, tuple(expected)) < 1e-4


@torch.no_grad()
def test_without_prompts_it_is_two_transformers(tensors: dict[str, Tensor]) -> None:
    """Prompts of zero leave each stream by itself: plain blocks over its own tokens."""

    class Silent(nn.Module):
        def forward(self, own: Tensor, *_: Tensor) -> Tensor:
            return torch.zeros_like(own)

    teacher = lively_teacher(6)
    net = teacher.backbone
    for index in range(2):
        net.prompt_blocks[index] = net.prompt_blocks_rev[index] = Silent()
    net.prompt_blocks_init = net.prompt_blocks_init_rev = Silent()
    template, search, types = embedded(teacher, tensors)
    trace = teacher.trace(**tensors)
    for stream in range(2):
        stream_tokens = torch.cat((template[stream] + types + net.pos_embed_z, search[stream] + net.pos_embed_x), 1)
        for index, block in enumerate(net.blocks):
            stream_tokens, _ = block(stream_tokens)
            assert torch.allclose(trace.layers[index][:, stream], stream_tokens, atol=1e-5)


@torch.no_grad()
def test_swapped_modalities_with_swapped_prompters_are_swapped_streams(tensors: dict[str, Tensor]) -> None:
    """Nothing but the prompters, their norms and the fusion's halves tells one stream from the other."""
    teacher, mirror = lively_teacher(7), lively_teacher(7)
    state = teacher.state_dict()
    # The first norm of colour serves both streams' first prompts: the one thing that is not symmetric.
    for kind in ("weight", "bias"):
        state[f"backbone.prompt_norms_rev.0.{kind}"] = state[f"backbone.prompt_norms.0.{kind}"]
    teacher.load_state_dict(state)
    swapped = {}
    for name, value in state.items():
        group, dot, rest = name.removeprefix("backbone.").partition(".")
        if group.startswith("prompt_"):
            group = group.removesuffix("_rev") if group.endswith("_rev") else f"{group}_rev"
        swapped[f"backbone.{group}{dot}{rest}" if name.startswith("backbone.") else name] = value
    fusion = "mplt_fuse_search.0.weight"
    swapped[fusion] = torch.cat((state[fusion][:, 48:], state[fusion][:, :48]), 1)
    mirror.load_state_dict(swapped)
    template, search, types = embedded(teacher, tensors)
    trace = teacher.trace_tokens(template, search, types)
    mirrored = mirror.trace_tokens((template[1], template[0]), (search[1], search[0]), types)
    assert difference(mirrored.layers, tuple(layer.flip(1) for layer in trace.layers)) < 1e-5
    assert difference(mirrored.output, trace.output) < 1e-4
    unswapped = teacher.trace_tokens((template[1], template[0]), (search[1], search[0]), types)
    assert difference(unswapped.layers, tuple(layer.flip(1) for layer in trace.layers)) > 1e-2


@torch.no_grad()
def test_template_and_search_are_prompted_apart(tensors: dict[str, Tensor]) -> None:
    """With attention switched off nothing is left that could carry a search pixel to the template, or back.

    With attention on, both hear of each other; and with it off the streams still do.
    """
    teacher = lively_teacher(8)
    inverted = {name: tensors | {name: 255 - tensors[name]} for name in ("template", "search")}
    mixed = teacher.trace(**tensors).layers
    parts = {"template": slice(64), "search": slice(64, None)}
    other = {"template": "search", "search": "template"}
    for changed, with_change in inverted.items():
        kept = parts[other[changed]]
        layers = teacher.trace(**with_change).layers
        assert all(float((a - b)[:, :, kept].abs().max()) > 1e-4 for a, b in zip(mixed, layers, strict=True))
    for block in teacher.backbone.blocks:
        block.attn.proj.weight.zero_()
    apart = teacher.trace(**tensors).layers
    for changed, with_change in inverted.items():
        kept, moved = parts[other[changed]], parts[changed]
        for before, after in zip(apart, teacher.trace(**with_change).layers, strict=True):
            assert torch.equal(before[:, :, kept], after[:, :, kept])
            assert float((before - after)[:, :, moved].abs().max()) > 1e-2
    thermal = tensors["template"].clone()
    thermal[..., 3] = 255 - thermal[..., 3]
    both = {"template_present": torch.ones(3, 2), "search_present": torch.ones(3, 2)}
    first = teacher.trace(**tensors | both).layers[0]
    second = teacher.trace(**tensors | both | {"template": thermal}).layers[0]
    assert float((first - second)[:, 0, :64].abs().max()) > 1e-3  # colour's template tokens hear of it


@torch.no_grad()
def test_a_trace_is_the_forward_pass_with_its_tokens(tensors: dict[str, Tensor]) -> None:
    teacher = lively_teacher(9, depth=3)
    trace = teacher.trace(**tensors)
    assert difference(trace.output, teacher(**tensors)) == 0
    assert [tuple(layer.shape) for layer in trace.layers] == [(3, 2, 320, 48)] * 4
    assert torch.allclose(trace.layers[-1], teacher.backbone.norm(trace.layers[-2]), atol=1e-6)
    assert trace.fused.shape == (3, 256, 48)


@torch.no_grad()
def test_the_head_reads_the_fusion_of_both_search_regions(tensors: dict[str, Tensor]) -> None:
    teacher = lively_teacher(10)
    trace = teacher.trace(**tensors)
    maps = trace.layers[-1][:, :, 64:].permute(0, 1, 3, 2).reshape(3, 96, 16, 16)
    state = {name.removeprefix("mplt_fuse_search."): value for name, value in teacher.state_dict().items()}
    fused = F.conv2d(maps, state["0.weight"], state["0.bias"], padding=1)
    gain = state["1.weight"] / (state["1.running_var"] + 1e-5).sqrt()
    fused = (fused - state["1.running_mean"][:, None, None]) * gain[:, None, None] + state["1.bias"][:, None, None]
    fused = fused.clamp(min=0).flatten(2).transpose(1, 2)
    assert torch.allclose(trace.fused, fused, atol=1e-4)
    logits, box_map = teacher.box_head(trace.fused)
    presence = teacher.presence_head(trace.fused, logits)
    assert difference(trace.output, (logits, box_map, presence)) < 1e-5


def loss_of(output: HeadOutput) -> LossTerms:
    boxes = torch.tensor([[0.5, 0.5, 0.3, 0.2], [0.3, 0.6, 0.2, 0.4], [0.7, 0.4, 0.25, 0.25]])
    return tracking_loss(output, boxes, torch.tensor([1.0, 1.0, 0.0]), LossWeights())


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_asks_for_gradients_gets_them(tensors: dict[str, Tensor], kind: str) -> None:
    """And what never takes part does not ask: it is exactly what MPLT's code never uses."""
    teacher = lively_teacher(11, **KINDS[kind]).train()
    loss_of(teacher(**tensors)).total.backward()
    frozen = {name for name, parameter in teacher.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in teacher.named_parameters() if name.startswith(UNUSED)}
    for name, parameter in teacher.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        if not name.endswith(".0.bias"):  # a bias before batch normalisation is subtracted again
            assert float(parameter.grad.abs().max()) > 0, name


@torch.no_grad()
def test_what_does_not_learn_does_not_matter(tensors: dict[str, Tensor]) -> None:
    teacher = lively_teacher(11)
    before = teacher(**tensors)
    for parameter in teacher.parameters():
        if not parameter.requires_grad:
            parameter.fill_(torch.nan)
    assert difference(teacher(**tensors), before) == 0


@pytest.mark.parametrize("attention", ["isolated", "joint"])
def test_every_parameter_of_a_student_gets_a_gradient(tensors: dict[str, Tensor], attention: Any) -> None:
    """Isolated template tokens end as keys and values, and still no parameter is theirs alone."""
    torch.manual_seed(0)
    student = Student(StudentConfig(width=48, depth=2, heads=3, head_channels=16, template_attention=attention))
    loss_of(student(**tensors)).total.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith(".0.bias"):
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_the_mask_of_what_is_there_gets_a_gradient_of_zero(tensors: dict[str, Tensor], network: str) -> None:
    """Not none, for which distributed training would wait."""
    model = lively_teacher(12).train() if network == "teacher" else Student(StudentConfig(48, 2, 3, head_channels=16))
    both = {"template_present": torch.ones(3, 2), "search_present": torch.ones(3, 2)}
    loss_of(model(**tensors | both)).total.backward()
    mask = model.get_parameter("backbone.modality_mask").grad
    assert mask is not None
    assert not mask.any()


@pytest.mark.parametrize("weighing", [False, True])
def test_a_tiny_teacher_learns_a_few_pairs_by_heart(weighing: bool) -> None:
    """Each target's centre to a tenth of the crop, from noise; without looking, the middle of all errs by 0.22."""
    generator = torch.Generator().manual_seed(0)
    template = torch.randint(0, 256, (4, 64, 64, 4), dtype=torch.uint8, generator=generator)
    search = torch.randint(0, 256, (4, 128, 128, 4), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.7, 0.4, 0.3, 0.2], [0.5, 0.7, 0.2, 0.2], [0.6, 0.6, 0.4, 0.3]])
    there, both = torch.ones(4), torch.ones(4, 2)
    torch.manual_seed(0)
    teacher = Teacher(replace(TINY, weighing=weighing, head_channels=32, template_size=64, search_size=128)).train()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=8e-3)
    totals = []
    for _ in range(25):
        optimizer.zero_grad()
        output = teacher(template, both, torch.full((4, 4), 0.5), search, both)
        loss = tracking_loss(output, boxes, there, LossWeights()).total
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < totals[0] / 3
    best = output.score_logits.detach().flatten(1).argmax(1)
    found = output.box_map.detach().flatten(2)[torch.arange(4), :, best]
    assert float((found - boxes)[:, :2].abs().max()) < 0.1


@torch.no_grad()
def test_bf16_agrees_with_fp32(tensors: dict[str, Tensor]) -> None:
    teacher = lively_teacher(13)
    exact = teacher(**tensors)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = teacher(**tensors)
    assert float((rounded.score_map - exact.score_map).abs().max()) < 0.05
    assert float((rounded.box_map.float() - exact.box_map).abs().mean()) * 256 < 0.5
    assert float((exact.box_map[0] - exact.box_map[1]).abs().mean()) * 256 > 2
    assert float((rounded.presence_logit.float().sigmoid() - exact.presence_logit.sigmoid()).abs().max()) < 0.01


@pytest.mark.parametrize(("name", "width", "depth", "heads"), [("teacher-s", 384, 12, 6), ("teacher-b", 768, 12, 12)])
def test_sizes_are_those_of_the_design(name: str, width: int, depth: int, heads: int) -> None:
    """The transformer's own parameters as counted for a ViT: 12 C² + 13 C in each block, 2 C more with LayerScale."""
    config = TEACHERS[name]
    assert (config.width, config.depth, config.heads) == (width, depth, heads)
    with torch.device("meta"):
        teacher = Teacher(config)
    per_block = 12 * width**2 + (15 if config.layer_scale else 13) * width
    assert sum(parameter.numel() for parameter in teacher.backbone.blocks.parameters()) == depth * per_block
    assert not config.weighing
