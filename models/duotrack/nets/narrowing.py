"""A narrow student from a trained wide one: it computes almost the same, as far as its width allows.

All that a transformer keeps between its layers is one stream of tokens, and every layer reads it through a LayerNorm.
The affine parts of the norms are folded into the layers that follow them, the stream is projected on the directions in
which it varies most, and the layers that read or write it are rotated with it (Ashkboos et al., *SliceGPT*, ICLR 2024).
Attention heads, hidden units and channels that the others can make up for are dropped. Every layer is then fitted to
what the wide network computes there, block by block and on the narrow network's own tokens, so that each makes up for
the errors of those before it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duotrack.errors import ModelError
from duotrack.nets.head import CenterHead, PresenceHead
from duotrack.nets.least_squares import Affine, Regression
from duotrack.nets.student import Student, StudentConfig
from duotrack.nets.vit import Block, LayerScale

TOWERS = ("ctr", "offset", "size")
# Number of a tower's last convolution, which has no norm behind it.
LAST = 5
# What an error in the head counts in a cell whose score is 0; at a score of 1 it counts 1 more.
BACKGROUND = 0.02
# Fields of the configs that narrowing cannot change.
_SAME = ("depth", "template_attention", "patch", "template_size", "search_size")
_SMALLER = ("width", "heads", "head_channels")


class Crops(NamedTuple):
    """A batch of what a student looks at: the arguments of ``Student.forward``."""

    template: Tensor
    template_present: Tensor
    template_box: Tensor
    search: Tensor
    search_present: Tensor


@torch.no_grad()
def narrow(source: Student, config: StudentConfig, batches: Sequence[Crops]) -> Student:
    """A student of ``config`` that computes about what ``source`` does, measured on ``batches``.

    Widths that are equal give an equal function. A good fit takes some ten thousand
    search tokens, as 64 crops have.

    Raises:
        ModelError: ``config`` is wider than the source, differs from it in more than its widths, or has attention heads
            of another width; or there are no batches.
    """
    require_narrower(source.config, config)
    if not batches:
        raise ModelError("narrowing measures the source on crops: expected at least one batch, got none")
    wide = folded(source)
    student = Student(config).to(wide.backbone.norm.weight.device).eval()
    basis = Basis.of(_read_moment(wide, batches), config.width)
    _narrow_embedding(wide, student, basis)
    streams = [_Stream(_embedded(wide, crops), _embedded(student, crops)) for crops in batches]
    visible = _visible(wide)
    for original, block, own in zip(_blocks(source), _blocks(wide), _blocks(student), strict=True):
        streams = _narrow_attention(block, own, basis, streams, visible, _gain(original.ls1, own.ls1))
        streams = _narrow_mlp(block, own, basis, streams, _gain(original.ls2, own.ls2))
    student.backbone.norm.bias.fill_(1)  # as the folded one's
    found = [
        _Stream(wide.backbone.norm(both.wide), student.backbone.norm(both.narrow)).search(config) for both in streams
    ]
    _narrow_center_head(wide.box_head, student.box_head, basis, found)
    _narrow_presence_head(wide.presence_head, student.presence_head, basis)
    return student


@torch.no_grad()
def folded(source: Student) -> Student:
    """The same function without affine norms, BatchNorms and LayerScale: they are folded into the layers beside them.

    Norms have weight 1, and bias 0, but for the last, whose bias is 1. A convolution with padding could not take in a
    bias of its inputs: so what the last norm adds goes along the all-ones direction, which a LayerNorm leaves empty.
    """
    student = copy.deepcopy(source).eval()
    for block in _blocks(student):
        for norm, reader in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
            read = Affine.of(reader)
            bias = read.bias + read.weight @ norm.bias
            Affine(_centred(read.weight * norm.weight), bias).write_to(reader)
            norm.weight.fill_(1)
            norm.bias.fill_(0)
        for scale, writer in ((block.ls1, block.attn.proj), (block.ls2, block.mlp.fc2)):
            if isinstance(scale, LayerScale):
                written = Affine.of(writer)
                Affine(written.weight * scale.gamma[:, None], written.bias * scale.gamma).write_to(writer)
                scale.gamma.fill_(1)
    norm, fc1 = student.backbone.norm, student.presence_head.fc1
    for tower in TOWERS:
        kernel = _stage(student.box_head, 1, tower)[0].weight
        kernel.copy_(_with_ones(kernel.movedim(1, -1), norm).movedim(-1, 1))
        for number in range(1, LAST):
            _fold_batch_norm(*_stage(student.box_head, number, tower))
    at_peak, mean, peak = _presence_inputs(fc1)
    fc1.weight.copy_(torch.cat((_with_ones(at_peak, norm), _with_ones(mean, norm), peak), 1))
    norm.weight.fill_(1)
    norm.bias.fill_(1)
    return student


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The stream's directions that are kept.

    Tokens y (…, wide) without their mean become z = ``down`` y (…, narrow), with a mean of zero and the same mean
    square; a narrow LayerNorm's output t stands for ``up`` t, the all-ones direction for the all-ones direction.

    Attributes:
        down: (narrow, wide).
        up: (wide, narrow).
    """

    down: Tensor
    up: Tensor

    @classmethod
    def of(cls, moment: Tensor, width: int) -> Basis:
        """The principal directions, of a second moment (wide, wide) of centred tokens, for tokens ``width`` wide.

        A LayerNorm leaves one dimension less than the width: so many directions are kept. They are spread evenly over
        the narrow channels, by a cosine transform, so that no channel is louder than others.
        """
        wide = len(moment)
        ones = moment.new_ones(wide, 1) / math.sqrt(wide)
        without_ones = moment.double() - ones.double() @ ones.double().T * moment.trace()
        directions = torch.linalg.eigh(without_ones).eigenvectors[:, wide - width + 1 :].flip(1).to(moment.dtype)
        spread = _cosines(width).to(moment) @ directions.T
        scale = math.sqrt(width / wide)
        return cls(scale * spread, spread.T / scale + 1 / width)

    def reading(self, layer: Affine) -> Affine:
        """``layer``, whose inputs are a wide norm's outputs, for a narrow norm's."""
        return Affine(layer.weight @ self.up, layer.bias)

    def writing(self, layer: Affine) -> Affine:
        """``layer``, whose outputs are added to the wide stream, for the narrow stream."""
        return Affine(self.down @ layer.weight, self.down @ layer.bias)


class _Stream(NamedTuple):
    """Tokens of one batch, template's first, in both networks: (B, N, wide) and (B, N, narrow)."""

    wide: Tensor
    narrow: Tensor

    def search(self, config: StudentConfig) -> _Stream:
        count = config.search_grid**2
        return _Stream(self.wide[:, -count:], self.narrow[:, -count:])


def _narrow_embedding(wide: Student, student: Student, basis: Basis) -> None:
    theirs, own = wide.backbone, student.backbone
    basis.writing(Affine.of(theirs.patch_embed.proj)).write_to(own.patch_embed.proj)
    for name in ("modality_mask", "pos_embed_z", "pos_embed_x", "target_type", "context_type"):
        own.get_parameter(name).copy_(theirs.get_parameter(name) @ basis.down.T)


def _narrow_attention(
    wide: Block, block: Block, basis: Basis, streams: Sequence[_Stream], visible: Tensor | None, gain: float
) -> list[_Stream]:
    """Fit a block's attention; gives the streams after it."""
    heads = wide.attn.heads
    read = Regression(basis.reading(Affine.of(wide.attn.qkv)))
    for both in streams:
        read.add(block.norm1(both.narrow), wide.attn.qkv(wide.norm1(both.wide)))
    qkv = read.solved()
    write = Regression(basis.writing(Affine.of(wide.attn.proj)))
    after = []
    for both in streams:
        tokens = both.wide + wide.attn.proj(_mixed(wide.attn.qkv(wide.norm1(both.wide)), heads, visible))
        mixed = _mixed(qkv(block.norm1(both.narrow)), heads, visible)
        write.add(mixed, tokens @ basis.down.T - both.narrow, _importance(tokens))
        after.append((tokens, mixed))
    proj, kept = write.thinned(heads, block.attn.heads)
    rows = _members(kept, len(qkv.weight) // (3 * heads))
    whole = len(qkv.weight) // 3
    qkv.rows(torch.cat([rows + part * whole for part in range(3)])).write_to(block.attn.qkv)
    _scaled(proj, 1 / gain).write_to(block.attn.proj)
    return [
        _Stream(tokens, both.narrow + proj(mixed[..., rows]))
        for both, (tokens, mixed) in zip(streams, after, strict=True)
    ]


def _narrow_mlp(wide: Block, block: Block, basis: Basis, streams: Sequence[_Stream], gain: float) -> list[_Stream]:
    """Fit a block's MLP; gives the streams after it."""
    read = Regression(basis.reading(Affine.of(wide.mlp.fc1)))
    for both in streams:
        read.add(block.norm2(both.narrow), wide.mlp.fc1(wide.norm2(both.wide)))
    fc1 = read.solved()
    write = Regression(basis.writing(Affine.of(wide.mlp.fc2)))
    after = []
    for both in streams:
        tokens = both.wide + wide.mlp(wide.norm2(both.wide))
        write.add(F.gelu(fc1(block.norm2(both.narrow))), tokens @ basis.down.T - both.narrow, _importance(tokens))
        after.append(tokens)
    fc2, kept = write.thinned(wide.mlp.fc1.out_features, block.mlp.fc1.out_features)
    fc1 = fc1.rows(kept)
    fc1.write_to(block.mlp.fc1)
    _scaled(fc2, 1 / gain).write_to(block.mlp.fc2)
    return [
        _Stream(tokens, both.narrow + fc2(F.gelu(fc1(block.norm2(both.narrow)))))
        for both, tokens in zip(streams, after, strict=True)
    ]


def _narrow_center_head(wide: CenterHead, head: CenterHead, basis: Basis, found: Sequence[_Stream]) -> None:
    maps = [_Stream(_as_map(both.wide, head.grid), _as_map(both.narrow, head.grid)) for both in found]
    # Boxes are read where the score is highest, and scores that are high compete for it: errors count there.
    importance = [wide(both.wide)[0].sigmoid().flatten(1) + BACKGROUND for both in found]
    for tower in TOWERS:
        first, _ = _stage(wide, 1, tower)
        kernel = torch.einsum("oikl,in->onkl", first.weight, basis.up)
        read = Regression(Affine(kernel.flatten(1), Affine.of(first).bias))
        for both, counts in zip(maps, importance, strict=True):
            read.add(_patches(both.narrow, first), _pixels(first(both.wide)), counts)
        layer, streams = read.solved(), maps
        for number in range(1, LAST):
            layer, streams = _narrow_stage(wide, head, number, tower, layer, streams, importance)
        layer.write_to(_last(head, tower))


def _narrow_stage(
    wide: CenterHead,
    head: CenterHead,
    number: int,
    tower: str,
    layer: Affine,
    maps: Sequence[_Stream],
    importance: Sequence[Tensor],
) -> tuple[Affine, list[_Stream]]:
    """Write a convolution with the channels that are kept; gives the next one, and the maps before it.

    Args:
        layer: the convolution with all its channels, on the narrow network's maps.
    """
    conv, (own, norm) = _stage(wide, number, tower)[0], _stage(head, number, tower)
    following = _last(wide, tower) if number + 1 == LAST else _stage(wide, number + 1, tower)[0]
    write = Regression(Affine.of(following))
    after = []
    for both, counts in zip(maps, importance, strict=True):
        target, given = conv(both.wide).relu(), _as_map(layer(_patches(both.narrow, conv)), head.grid)
        write.add(_patches(given.relu(), following), _pixels(following(target)), counts)
        after.append((target, given))
    thinned, kept = write.thinned(len(layer.weight), own.out_channels)
    layer.rows(kept).write_to(own)
    _set_batch_norm(norm, torch.cat([given[:, kept] for _, given in after]))
    return thinned, [_Stream(target, given[:, kept].relu()) for target, given in after]


def _set_batch_norm(norm: nn.BatchNorm2d, inputs: Tensor) -> None:
    """A norm that leaves ``inputs`` (B, C, G, G) as they are, by their own statistics."""
    variance, mean = torch.var_mean(inputs, (0, 2, 3))
    norm.get_buffer("running_mean").copy_(mean)
    norm.get_buffer("running_var").copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)


def _fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move what a norm does in evaluation into the convolution before it."""
    slope = norm.weight / (norm.get_buffer("running_var") + norm.eps).sqrt()
    layer = Affine.of(conv)
    bias = (layer.bias - norm.get_buffer("running_mean")) * slope + norm.bias
    Affine(layer.weight * slope[:, None], bias).write_to(conv)
    norm.get_buffer("running_mean").fill_(0)
    norm.get_buffer("running_var").fill_(1)
    norm.weight.fill_(math.sqrt(1 + norm.eps))
    norm.bias.fill_(0)


def _narrow_presence_head(wide: PresenceHead, head: PresenceHead, basis: Basis) -> None:
    at_peak, mean, peak = _presence_inputs(wide.fc1)
    Affine(torch.cat((at_peak @ basis.up, mean @ basis.up, peak), 1), wide.fc1.bias).write_to(head.fc1)
    Affine.of(wide.fc2).write_to(head.fc2)


def _read_moment(wide: Student, batches: Sequence[Crops]) -> Tensor:
    """Second moment (C, C) of what the norms of a ``folded`` student give, over all of them and all tokens."""
    width, visible = wide.config.width, _visible(wide)
    moment = wide.backbone.norm.weight.new_zeros(width, width)
    for crops in batches:
        tokens = _embedded(wide, crops)
        for block in _blocks(wide):
            read = block.norm1(tokens)
            tokens = tokens + block.attn.proj(_mixed(block.attn.qkv(read), block.attn.heads, visible))
            moment += _square(read) + _square(block.norm2(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        moment += _square(wide.backbone.norm(tokens)[:, -(wide.config.search_grid**2) :] - 1)
    return moment


def _embedded(student: Student, crops: Crops) -> Tensor:
    backbone = student.backbone
    template = backbone.embed_template(crops.template, crops.template_present, crops.template_box)
    return torch.cat((template, backbone.embed_search(crops.search, crops.search_present)), 1)


def _visible(student: Student) -> Tensor | None:
    """Which tokens (columns) each token (row) attends to: all, or a template's only the template's."""
    if student.config.template_attention == "joint":
        return None
    is_template = torch.arange(student.config.template_grid**2 + student.config.search_grid**2)
    is_template = (is_template < student.config.template_grid**2).to(student.backbone.norm.weight.device)
    return is_template | ~is_template[:, None]


def _mixed(qkv: Tensor, heads: int, visible: Tensor | None) -> Tensor:
    """Queries, keys and values (B, N, 3·C) → what each head attends to (B, N, C)."""
    batch, count, _ = qkv.shape
    query, key, value = qkv.reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return mixed.transpose(1, 2).reshape(batch, count, -1)


def _importance(tokens: Tensor) -> Tensor:
    """What an error in a token counts, (B, N): the next norm divides it by the token's variance."""
    return 1 / (tokens.var(-1) + 1e-6)


def _gain(source: nn.Module, own: nn.Module) -> float:
    """Set the narrow LayerScale, where there is one, to the mean of the source's; gives what it multiplies by."""
    if not isinstance(own, LayerScale):
        return 1.0
    if isinstance(source, LayerScale):
        own.gamma.fill_(float(source.gamma.abs().mean()))
    return float(own.gamma[0])


def require_narrower(source: StudentConfig, config: StudentConfig) -> None:
    """Nothing, where ``narrow`` can make ``config`` of ``source``.

    Raises:
        ModelError: it cannot; the message says why.
    """
    for name in _SAME:
        theirs, own = getattr(source, name), getattr(config, name)
        if theirs != own:
            raise ModelError(f"narrowing keeps {name}: the source's is {theirs}, got {own}")
    for name in _SMALLER:
        theirs, own = getattr(source, name), getattr(config, name)
        if own > theirs:
            raise ModelError(f"narrowing cannot add {name}: the source has {theirs}, got {own}")
    if source.width // source.heads * config.heads != config.width:
        raise ModelError(
            f"narrowing keeps attention heads whole: the source's are {source.width // source.heads} wide, "
            f"got {config.heads} in a width of {config.width}"
        )


def _cosines(width: int) -> Tensor:
    """An orthonormal basis (width, width − 1) of what has a mean of zero: a cosine transform without its constant."""
    places, waves = torch.arange(width, dtype=torch.float64), torch.arange(1, width, dtype=torch.float64)
    return math.sqrt(2 / width) * torch.cos(math.pi / width * (places[:, None] + 0.5) * waves)


def _centred(weight: Tensor) -> Tensor:
    return weight - weight.mean(-1, keepdim=True)


def _with_ones(weight: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Weights (…, C) that read ``norm``, for a norm of weight 1 and bias 1."""
    return _centred(weight * norm.weight) + (weight @ norm.bias)[..., None] / len(norm.bias)


def _scaled(layer: Affine, factor: float) -> Affine:
    return Affine(layer.weight * factor, layer.bias * factor)


def _members(groups: Tensor, size: int) -> Tensor:
    """The elements of ``groups`` of a ``size``, which lie one after the other."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def _square(tokens: Tensor) -> Tensor:
    rows = tokens.flatten(0, -2)
    return rows.T @ rows


def _blocks(student: Student) -> list[Block]:
    return [block for block in student.backbone.blocks if isinstance(block, Block)]


def _stage(head: CenterHead, number: int, tower: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv, norm, _ = head.get_submodule(f"conv{number}_{tower}").children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _last(head: CenterHead, tower: str) -> nn.Conv2d:
    conv = head.get_submodule(f"conv{LAST}_{tower}")
    assert isinstance(conv, nn.Conv2d)
    return conv


def _presence_inputs(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the presence head's first layer by what they read: tokens at the peak, their mean, the peak."""
    width = layer.in_features // 2
    return layer.weight[:, :width], layer.weight[:, width:-1], layer.weight[:, -1:]


def _as_map(rows: Tensor, grid: int) -> Tensor:
    """Cells (B, G·G, C) → (B, C, G, G)."""
    return rows.transpose(1, 2).reshape(len(rows), -1, grid, grid)


def _pixels(maps: Tensor) -> Tensor:
    """(B, C, G, G) → (B, G·G, C)."""
    return maps.flatten(2).transpose(1, 2)


def _patches(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """What each cell of a convolution reads: (B, C, G, G) → (B, G·G, C·k·k)."""
    side = conv.weight.shape[-1]
    return F.unfold(maps, side, padding=side // 2).transpose(1, 2)
