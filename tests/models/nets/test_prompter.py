"""Prompts against their formulas, written out in float64 and one number at a time, and against plain convolutions."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from duotrack.nets.prompter import (
    ChannelAttention,
    Fovea,
    InitialPrompter,
    ModalityWeighing,
    Prompter,
    SpatialAttention,
    maximum,
)

Array = NDArray[np.float64]
Module = TypeVar("Module", bound=nn.Module)
WIDTH = 16


def lively(module: Module) -> Module:
    """With weights so large that the gains, the softmax and the weighing are far from their middle."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("smooth"):
                parameter.fill_(1.7)
            else:
                parameter.normal_(0, 0.5)
    return module


def tokens(seed: int, side: int = 5) -> Tensor:
    return torch.randn(2, side**2, WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.2


def numbers(module: nn.Module, prefix: str = "") -> dict[str, Array]:
    state = module.state_dict().items()
    return {name.removeprefix(prefix): value.double().numpy() for name, value in state if name.startswith(prefix)}


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def channel_gains(places: Array, state: dict[str, Array]) -> Array:
    """Of one session's (N, C): sigmoid of fc2 relu fc1 of the mean plus the same of the maximum."""
    logits = np.zeros(WIDTH)
    for pooled in (places.sum(0) / len(places), np.array([max(channel) for channel in places.T])):
        hidden = [max(0.0, float(row @ pooled)) for row in state["fc1.weight"][:, :, 0, 0]]
        logits += state["fc2.weight"][:, :, 0, 0] @ np.array(hidden)
    return np.array([sigmoid(logit) for logit in logits])


def place_gains(places: Array, kernel: Array) -> Array:
    """Of one session's (N, C), rows first: a 7 × 7 correlation with the maps of mean and maximum, zeros outside."""
    side = round(len(places) ** 0.5)
    maps = np.array([[sum(place) / WIDTH for place in places], [max(place) for place in places]])
    maps = maps.reshape(2, side, side)
    gains = []
    for row in range(side):
        for column in range(side):
            logit = 0.0
            for kind in range(2):
                for down in range(-3, 4):
                    for right in range(-3, 4):
                        if 0 <= row + down < side and 0 <= column + right < side:
                            weight = kernel[0, kind, down + 3, right + 3]
                            logit += weight * maps[kind, row + down, column + right]
            gains.append(sigmoid(logit))
    return np.array(gains)


def foveal(places: Array, smooth: float) -> Array:
    out = np.empty_like(places)
    for channel in range(WIDTH):
        column = places[:, channel]
        shares = np.exp(column * smooth) / sum(np.exp(column * smooth))
        out[:, channel] = shares * column
    return out


def attend(places: Array, prompter: nn.Module, channels: int, spatial: int) -> Array:
    places = places * channel_gains(places, numbers(prompter, f"spatialattention{channels}."))
    return places * place_gains(places, numbers(prompter, f"tokenattention{spatial}.")["conv1.weight"])[:, None]


def weigh(own: Array, other: Array, weighing: ModalityWeighing) -> Array:
    state = numbers(weighing)
    pooled = np.concatenate((own.mean(0), other.mean(0)))
    hidden = np.maximum(state["fc1.weight"] @ pooled + state["fc1.bias"], 0)
    first, second = state["fc2.weight"] @ hidden + state["fc2.bias"]
    return 2 * np.array([sigmoid(first - second), sigmoid(second - first)])


def agree(found: Tensor, expected: list[Array]) -> None:
    expected_all = np.stack(expected)
    assert found.shape == expected_all.shape
    assert expected_all.std() > 1e-2
    assert np.abs(found.numpy() - expected_all).max() < 1e-5


@torch.no_grad()
def test_channel_attention_follows_the_formula() -> None:
    attention, given = lively(ChannelAttention(WIDTH)), tokens(1)
    expected = [channel_gains(places, numbers(attention))[None] for places in given.double().numpy()]
    agree(attention(given), expected)


@pytest.mark.parametrize("side", [3, 5, 8])
@torch.no_grad()
def test_spatial_attention_follows_the_formula(side: int) -> None:
    attention, given = lively(SpatialAttention()), tokens(2, side)
    kernel = numbers(attention)["conv1.weight"]
    agree(attention(given), [place_gains(places, kernel)[:, None] for places in given.double().numpy()])


@torch.no_grad()
def test_the_fovea_follows_the_formula() -> None:
    fovea, given = lively(Fovea()), tokens(3)
    agree(fovea(given), [foveal(places, float(fovea.smooth)) for places in given.double().numpy()])


@torch.no_grad()
def test_a_fresh_fovea_looks_at_the_peak() -> None:
    """At a temperature of 10 a place 0.5 above all others keeps 1 / (1 + 24 e⁻⁵) of itself; a level map, 1 / N."""
    fovea = Fovea()
    assert float(fovea.smooth) == 10
    flat = torch.full((1, 25, 3), 2.0)
    assert torch.allclose(fovea(flat), flat / 25)
    peaked = flat.clone()
    peaked[0, 7, 1] += 0.5
    assert float(fovea(peaked)[0, 7, 1]) == pytest.approx(2.5 / (1 + 24 * np.exp(-5)), rel=1e-5)


@torch.no_grad()
def test_weighing_follows_the_formula() -> None:
    weighing, own, other = lively(ModalityWeighing(WIDTH)), tokens(4), tokens(5)
    gains = weighing(own, other)
    pairs = zip(own.double().numpy(), other.double().numpy(), strict=True)
    agree(gains, [weigh(mine, theirs, weighing) for mine, theirs in pairs])
    assert torch.allclose(gains.sum(1), torch.tensor(2.0))


def test_weighing_starts_as_nothing_and_learns_whom_to_trust() -> None:
    """From gains of one and one it comes to prefer whichever modality is the louder, from examples of both."""
    torch.manual_seed(0)
    weighing = ModalityWeighing(WIDTH)
    loud, quiet = tokens(6).abs() * 2, tokens(7).abs() * 0.1
    assert torch.equal(weighing(loud, quiet), torch.ones(2, 2))
    optimizer = torch.optim.Adam(weighing.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (weighing(loud, quiet)[:, 0] - 1.8).square().mean() + (weighing(quiet, loud)[:, 0] - 0.2).square().mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float(weighing(loud, quiet)[:, 0].min()) > 1.6
        assert float(weighing(quiet, loud)[:, 0].max()) < 0.4


@torch.no_grad()
def test_the_initial_prompt_follows_the_formula() -> None:
    prompter, own, other = lively(InitialPrompter(WIDTH)), tokens(8), tokens(9)
    expected = [
        foveal(attend(mine, prompter, 0, 0), 1.7) + attend(theirs, prompter, 1, 1)
        for mine, theirs in zip(own.double().numpy(), other.double().numpy(), strict=True)
    ]
    agree(prompter(own, other), expected)


@pytest.mark.parametrize("weighing", [False, True])
@torch.no_grad()
def test_a_prompt_follows_the_formula(weighing: bool) -> None:
    """As read from MPLT's code: the third input goes through channel attention 1 and spatial attention 2."""
    prompter = lively(Prompter(WIDTH, weighing=weighing))
    own, previous, other = tokens(10), tokens(11), tokens(12)
    expected = []
    for session in range(2):
        mine, before, theirs = (part[session].double().numpy() for part in (own, previous, other))
        if prompter.weighing is not None:
            gains = weigh(mine, theirs, prompter.weighing)
            assert abs(gains[0] - gains[1]) > 0.05
            mine, theirs = mine * gains[0], theirs * gains[1]
        prompt = foveal(attend(mine, prompter, 0, 0), 1.7) + attend(before, prompter, 1, 1)
        expected.append(prompt + attend(theirs, prompter, 1, 2))
    agree(prompter(own, previous, other), expected)


@torch.no_grad()
def test_fresh_weighing_changes_no_prompt() -> None:
    plain, weighed = Prompter(WIDTH), Prompter(WIDTH, weighing=True)
    weighed.load_state_dict(plain.state_dict(), strict=False)
    given = tokens(13), tokens(14), tokens(15)
    assert torch.equal(plain(*given), weighed(*given))


@pytest.mark.parametrize(
    ("part", "heard_by"),
    [
        ("spatialattention0", {"own"}),
        ("tokenattention0", {"own"}),
        ("spatialattention1", {"previous", "other"}),
        ("tokenattention1", {"previous"}),
        ("spatialattention2", set()),
        ("tokenattention2", {"other"}),
        ("fovea", {"own"}),
    ],
)
@torch.no_grad()
def test_which_part_acts_on_which_input(part: str, heard_by: set[str]) -> None:
    """An input of zeros stays zero whatever its gains, so a part's change shows through the inputs that are not."""
    names = ("own", "previous", "other")
    heard = set()
    for index, name in enumerate(names):
        prompter = lively(Prompter(WIDTH))
        given = [torch.zeros(2, 25, WIDTH)] * index + [tokens(16)] + [torch.zeros(2, 25, WIDTH)] * (2 - index)
        before = prompter(*given)
        for parameter in prompter.get_submodule(part).parameters():
            parameter.add_(torch.randn_like(parameter))
        if not torch.equal(prompter(*given), before):
            heard.add(name)
    assert heard == heard_by


def on_maps(prompter: Prompter, inputs: list[Tensor]) -> Tensor:
    """The same on maps (B, C, H, W) with convolutions and pooling layers, as the paper draws it."""
    parts = []
    for index, (channels, places) in enumerate(((0, 0), (1, 1), (1, 2))):
        maps = inputs[index].transpose(1, 2).unflatten(2, (5, 5))
        fc1 = prompter.get_parameter(f"spatialattention{channels}.fc1.weight")
        fc2 = prompter.get_parameter(f"spatialattention{channels}.fc2.weight")
        pools = F.adaptive_avg_pool2d(maps, 1), F.adaptive_max_pool2d(maps, 1)
        logits = [F.conv2d(F.conv2d(pooled, fc1).relu(), fc2) for pooled in pools]
        maps = maps * (logits[0] + logits[1]).sigmoid()
        pooled = torch.cat((maps.mean(1, keepdim=True), maps.max(1, keepdim=True).values), 1)
        kernel = prompter.get_parameter(f"tokenattention{places}.conv1.weight")
        maps = maps * F.conv2d(pooled, kernel, padding=3).sigmoid()
        parts.append(maps)
    shares = (parts[0].flatten(2) * prompter.fovea.smooth).softmax(2).view_as(parts[0])
    return (shares * parts[0] + parts[1] + parts[2]).flatten(2).transpose(1, 2)


def test_gradients_are_those_of_convolutions_and_pooling_layers() -> None:
    prompter = lively(Prompter(WIDTH)).double()
    weights = torch.randn(2, 25, WIDTH, dtype=torch.float64)
    gradients = []
    for form in (prompter, lambda *inputs: on_maps(prompter, list(inputs))):
        inputs = [tokens(seed).double().requires_grad_() for seed in (17, 18, 19)]
        learned = [parameter for parameter in prompter.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad((form(*inputs) * weights).sum(), [*inputs, *learned]))
    for found, expected in zip(*gradients, strict=True):
        assert float(expected.abs().max()) > 0
        assert torch.allclose(found, expected, atol=1e-10)


def test_a_maximum_is_the_same_with_and_without_gradients() -> None:
    """The two ways differ in their gradient alone, and there among ties: one of them takes it all."""
    given = tokens(20)
    for dim in (1, 2):
        assert torch.equal(maximum(given, dim), maximum(given.clone().requires_grad_(), dim))
    tied = torch.tensor([[[1.0, 3.0, 3.0]]], requires_grad=True)
    maximum(tied, 2).sum().backward()
    assert tied.grad is not None
    assert sorted(tied.grad.flatten().tolist()) == [0, 0, 1]
    assert float(tied.grad[0, 0, 0]) == 0


def test_parameters_have_mplts_names_and_shapes() -> None:
    """The names of a published checkpoint's ``prompt_blocks.1``; the unused attention is kept and does not learn."""
    shapes = {name: tuple(value.shape) for name, value in Prompter(768).state_dict().items()}
    attention = {"fc1.weight": (96, 768, 1, 1), "fc2.weight": (768, 96, 1, 1)}
    expected: dict[str, tuple[int, ...]] = {"fovea.smooth": (1,)}
    for index in range(3):
        expected |= {f"spatialattention{index}.{name}": shape for name, shape in attention.items()}
        expected[f"tokenattention{index}.conv1.weight"] = (1, 2, 7, 7)
    assert shapes == expected
    frozen = {name for name, parameter in Prompter(16).named_parameters() if not parameter.requires_grad}
    assert frozen == {"spatialattention2.fc1.weight", "spatialattention2.fc2.weight"}
