"""The transformer's parts against convolution, attention written out in numpy, and OSTrack's own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from duotrack.nets.checkpoint_file import read_checkpoint
from duotrack.nets.head import CenterHead
from duotrack.nets.vit import Attention, Block, KeyValue, LayerScale, PatchEmbedding, attend


def embedding_and_kernel(channels: int, patch: int, width: int) -> tuple[PatchEmbedding, Tensor]:
    torch.manual_seed(channels)
    kernel = torch.randn(width, channels, patch, patch) / (channels * patch**2) ** 0.5
    embedding = PatchEmbedding(channels, patch, width)
    with torch.no_grad():
        embedding.proj.weight.copy_(PatchEmbedding.from_conv(kernel))
    return embedding, kernel


@pytest.mark.parametrize(("channels", "patch"), [(3, 16), (4, 16), (4, 14), (1, 8)])
@torch.no_grad()
def test_the_patch_embedding_is_a_convolution(channels: int, patch: int) -> None:
    embedding, kernel = embedding_and_kernel(channels, patch, 48)
    image = torch.randn(2, 4 * patch, 6 * patch, channels)
    convolved = F.conv2d(image.permute(0, 3, 1, 2), kernel, embedding.proj.bias, stride=patch)
    assert torch.allclose(embedding(image), convolved.flatten(2).transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
@torch.no_grad()
def test_the_patch_embedding_computes_the_same_in_bf16(channels: int) -> None:
    """The trap: ``Conv2d(4, width, 16, stride=16)`` in bf16 returns garbage on CPUs with AMX (torch 2.13, OpenVINO).

    It happens where the kernel equals the stride and the number of input channels is even, without an error; three
    channels are fine. That is why the patch embedding is a reshape and a Linear. bf16 keeps 8 bits: each product is
    off by up to 2⁻⁸ of itself, so sums of many are off by well under 1 % of the output's spread; garbage, by 100 %.
    """
    embedding, _ = embedding_and_kernel(channels, 16, 384)
    image = torch.randn(2, 256, 256, channels)
    exact = embedding(image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = embedding(image)
    assert rounded.dtype == torch.bfloat16
    error = rounded.float() - exact
    assert float(error.std() / exact.std()) < 0.01
    assert float(error.abs().max() / exact.std()) < 0.05


def plain_attention(
    tokens: NDArray[np.float64], attention: Attention, context: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> NDArray[np.float64]:
    """softmax(Q Kᵀ / √d) V for each head, one session, one head and one token at a time."""
    weights = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    count, width = tokens.shape
    head_width = width // attention.heads
    projected = tokens @ weights["qkv.weight"].T + weights["qkv.bias"]
    query, key, value = projected[:, :width], projected[:, width : 2 * width], projected[:, 2 * width :]
    mixed = np.zeros((count, width))
    for head in range(attention.heads):
        part = slice(head * head_width, (head + 1) * head_width)
        keys, values = key[:, part], value[:, part]
        if context is not None:
            keys, values = np.concatenate((context[0][head], keys)), np.concatenate((context[1][head], values))
        for token in range(count):
            logits = keys @ query[token, part] / np.sqrt(head_width)
            shares = np.exp(logits - logits.max())
            mixed[token, part] = (shares / shares.sum()) @ values
    return np.asarray(mixed @ weights["proj.weight"].T + weights["proj.bias"])


def test_attention_that_learns_is_that_which_does_not() -> None:
    query, key, value = (torch.randn(2, 3, count, 8) for count in (7, 9, 9))
    learning = query.clone().requires_grad_()
    written_out, fused = attend(learning, key, value), F.scaled_dot_product_attention(learning, key, value)
    torch.testing.assert_close(written_out, attend(query, key, value))
    slopes = [torch.autograd.grad(mixed.square().sum(), learning)[0] for mixed in (written_out, fused)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("with_context", [False, True])
@torch.no_grad()
def test_attention_is_attention(with_context: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(24, 3)
    attention.qkv.weight.mul_(4)  # sharp enough that the softmax matters
    tokens = torch.randn(2, 10, 24)
    context = KeyValue(torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)) if with_context else None
    out, own = attention(tokens, context)
    for session in range(2):
        before = None
        if context is not None:
            before = context.key[session].double().numpy(), context.value[session].double().numpy()
        expected = plain_attention(tokens[session].double().numpy(), attention, before)
        assert np.abs(out[session].numpy() - expected).max() < 1e-5
    projected = F.linear(tokens, attention.qkv.weight, attention.qkv.bias)
    assert own.key.shape == own.value.shape == (2, 3, 10, 8)
    assert torch.allclose(own.key.transpose(1, 2).flatten(2), projected[..., 24:48], atol=1e-6)
    assert torch.allclose(own.value.transpose(1, 2).flatten(2), projected[..., 48:], atol=1e-6)


@torch.no_grad()
def test_tokens_beside_others_are_as_tokens_with_those_as_context() -> None:
    """Joint attention over two groups, read at the second one, is attention with the first one's keys and values."""
    torch.manual_seed(1)
    attention = Attention(24, 3)
    first, second = torch.randn(2, 7, 24), torch.randn(2, 9, 24)
    joint, _ = attention(torch.cat((first, second), 1), None)
    _, memory = attention(first, None)
    apart, _ = attention(second, memory)
    assert torch.allclose(joint[:, 7:], apart, atol=1e-6)


def test_the_width_must_divide_among_the_heads() -> None:
    with pytest.raises(ValueError, match="width 48 must be a multiple of the number of heads 5"):
        Attention(48, 5)


@pytest.mark.parametrize("layer_scale", [False, True])
@torch.no_grad()
def test_a_block_is_two_residual_branches(layer_scale: bool) -> None:
    torch.manual_seed(2)
    block = Block(24, 3, layer_scale=layer_scale)
    gains = torch.ones(24), torch.ones(24)
    if layer_scale:
        assert isinstance(block.ls1, LayerScale)
        assert isinstance(block.ls2, LayerScale)
        gains = torch.rand(24), torch.rand(24)
        block.ls1.gamma.copy_(gains[0])
        block.ls2.gamma.copy_(gains[1])
    tokens = torch.randn(2, 6, 24)

    def normalise(values: Tensor) -> Tensor:
        return (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()

    middle = tokens + gains[0] * block.attn(normalise(tokens), None)[0]
    hidden = normalise(middle) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))  # the exact GELU, not its tanh form
    expected = middle + gains[1] * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    out, _ = block(tokens)
    assert torch.allclose(out, expected, atol=1e-5)
    assert block.mlp.fc1.out_features == 96


@pytest.fixture(scope="module")
def ostrack(reference_checkpoints: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters of a tiny OSTrack network, and inputs with the outputs that OSTrack's own code gives for them."""
    parameters = read_checkpoint(reference_checkpoints / "ostrack_tiny.pth.tar").tensors
    with np.load(reference_checkpoints / "ostrack_tiny_io.npz") as recorded:
        return parameters, {name: torch.from_numpy(recorded[name]) for name in recorded.files}


def part(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in parameters.items() if name.startswith(prefix)}


@torch.no_grad()
def test_the_blocks_give_ostracks_tokens(ostrack: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    parameters, recorded = ostrack
    backbone = part(parameters, "backbone.")
    depth = 1 + max(int(name.split(".")[1]) for name in backbone if name.startswith("blocks."))
    embed = PatchEmbedding(3, 16, 48)
    embed.proj.weight.copy_(PatchEmbedding.from_conv(backbone["patch_embed.proj.weight"]))
    embed.proj.bias.copy_(backbone["patch_embed.proj.bias"])
    template, search = (embed(recorded[name].permute(0, 2, 3, 1)) for name in ("template", "search"))
    tokens = torch.cat((template + backbone["pos_embed_z"], search + backbone["pos_embed_x"]), 1)
    for index in range(depth):
        block = Block(48, 3)
        block.load_state_dict(part(backbone, f"blocks.{index}."))
        tokens, _ = block(tokens)
    tokens = F.layer_norm(tokens, (48,), backbone["norm.weight"], backbone["norm.bias"], 1e-6)
    assert tokens.shape == recorded["tokens"].shape == (2, 320, 48)
    assert float((tokens - recorded["tokens"]).abs().max()) < 1e-4


@torch.no_grad()
def test_the_head_gives_ostracks_maps(ostrack: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    parameters, recorded = ostrack
    head = CenterHead(48, 32, 16).eval()
    head.load_state_dict(part(parameters, "box_head."))
    logits, box_map = head(recorded["tokens"][:, -256:])
    score_map = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    assert float((score_map - recorded["score_map"][:, 0]).abs().max()) < 1e-4
    assert float((box_map[:, 2:] - recorded["size_map"]).abs().max()) < 1e-4
    columns, rows = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="xy")
    offset = box_map[:, :2] * 16 - torch.stack((columns, rows))
    assert float((offset - recorded["offset_map"]).abs().max()) < 1e-4
    for session in range(2):
        row, column = divmod(int(score_map[session].argmax()), 16)
        assert torch.allclose(box_map[session, :, row, column], recorded["pred_boxes"][session, 0], atol=1e-4)
