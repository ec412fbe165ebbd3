"""Objects in stills that nobody labelled, found by the features of a pretrained vision transformer.

TokenCut (Wang et al., CVPR 2022): a normalised cut over the similarities of a picture's patches parts object and
background. Beyond it, features are centred in each picture first, so that patches are alike only by what sets them
apart there, and similarities stay soft: a hard threshold lets single odd patches be cut off in place of the object.
GrabCut (Rother et al. 2004) then takes the outline from patches to pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from duotrack.data import images
from duotrack.data.images import Pixels
from duotrack.data.whole_file import whole_file
from duotrack.errors import SourceError
from duotrack.nets.pretrained import Pretrained, read_pretrained
from duotrack.nets.student import CHANNEL_MEAN, CHANNEL_STD
from duotrack.nets.vit import Block
from duotrack.nets.warm_start import resample_positions

LONGEST_SIDE = 32
"""Of a picture, in patches."""
SMALLEST, LARGEST = 0.012, 0.6
"""Shares of a picture that an object covers."""
LARGEST_EDGE = 0.25
"""Of the way around an object's bounds, the part that may run along the picture's edges."""
DOUBT = 1 / 28
"""Of the picture's width: as far to either side of the patches' outline GrabCut may move it."""
ITERATIONS = 3
"""Of GrabCut."""

Features = NDArray[np.float32]
Mask = NDArray[np.bool_]


class PatchFeatures(nn.Module):
    """What a plain ViT makes of the patches of a picture of any shape."""

    def __init__(self, source: Pretrained) -> None:
        super().__init__()
        self.patch = source.kernel.shape[-1]
        self._kernel, self._bias, self._positions = source.kernel[:, :3], source.bias, source.positions[0]
        heads = source.heads or source.width // 64
        self.blocks = nn.ModuleList(
            Block(source.width, heads, layer_scale="ls1.gamma" in tensors) for tensors in source.blocks
        )
        for block, tensors in zip(self.blocks, source.blocks, strict=True):
            block.load_state_dict(tensors)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a ViT's file.

        Raises:
            ModelError: the file cannot be read, or holds no ViT that is known here.
        """
        return cls(read_pretrained(path)).eval()

    @torch.no_grad()
    def forward(self, picture: Pixels) -> Features:
        """(H, W, 3) uint8 → (rows, columns, C), its longer side being ``LONGEST_SIDE`` patches."""
        height, width = picture.shape[:2]
        rows, columns = (max(round(LONGEST_SIDE * side / max(height, width)), 2) for side in (height, width))
        size = columns * self.patch, rows * self.patch
        resized = torch.from_numpy(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)).float() / 255
        normalised = (resized - torch.tensor(CHANNEL_MEAN[:3])) / torch.tensor(CHANNEL_STD[:3])
        patches = F.conv2d(normalised.permute(2, 0, 1)[None], self._kernel, self._bias, stride=self.patch)
        # Positions are of a square: resampled to one that holds the picture, of which it takes its part stretched.
        square = resample_positions(self._positions, LONGEST_SIDE).reshape(1, LONGEST_SIDE, LONGEST_SIDE, -1)
        positions = F.interpolate(square.permute(0, 3, 1, 2), (rows, columns), mode="bicubic", align_corners=False)
        tokens: Tensor = (patches + positions).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens, _ = block(tokens)
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        return cast("Features", normed[0].reshape(rows, columns, -1).numpy())


def part(features: Features) -> Mask:
    """(rows, columns): which of the patches (rows, columns, C) are the object's, by a normalised cut.

    Of the two groups it is the one that lies less along the picture's edges.
    """
    rows, columns, width = features.shape
    flat = features.reshape(-1, width).astype(np.float64)
    flat -= flat.mean(0)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    likeness = np.maximum(flat @ flat.T, 0) + 1e-4
    scale = 1 / np.sqrt(likeness.sum(1))
    _, vectors = np.linalg.eigh(scale[:, None] * likeness * scale)
    side = vectors[:, -2] * scale
    levels = ((side - side.min()) / max(float(np.ptp(side)), 1e-12) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    group = (levels > threshold).reshape(rows, columns)
    edge = np.ones((rows, columns), bool)
    edge[1:-1, 1:-1] = False
    # The share of either group that lies along the edges.
    return cast("Mask", group if group[edge].mean() <= 0.5 else ~group)


def outlined(picture: Pixels, patches: Mask) -> Mask:
    """(H, W): the pixels that belong to the object of which ``patches`` gives the rough outline."""
    height, width = picture.shape[:2]
    rough = cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    reach = max(3, round(width * DOUBT))
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    labels = np.where(rough, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(rough.astype(np.uint8), around) > 0] = cv2.GC_FGD
    labels[cv2.dilate(rough.astype(np.uint8), around) == 0] = cv2.GC_BGD
    if rough.all() or not rough.any():
        return rough
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)  # no rectangle in this mode
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))


def discover(picture: Pixels, features: PatchFeatures) -> Pixels:
    """(H, W) uint8: the objects of a picture, numbered from 1, the largest first; 0 is background.

    Objects are connected, cover from ``SMALLEST`` to ``LARGEST`` of the picture, and leave most of its edges free: what
    runs along them is most often a wall, a floor or the sky.
    """
    mask = outlined(picture, part(features(picture))).astype(np.uint8)
    smooth = cv2.medianBlur(mask * 255, 5)
    _, components, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
    labels = np.zeros(mask.shape, np.uint8)
    height, width = mask.shape
    order = [index for index in np.argsort(-stats[:, cv2.CC_STAT_AREA]).tolist() if index]
    for index in order[:20]:
        w, h, area = stats[index, 2:].tolist()
        silhouette = components == index
        along = sum(int(line.sum()) for line in (silhouette[0], silhouette[-1], silhouette[:, 0], silhouette[:, -1]))
        free = along <= LARGEST_EDGE * (w + h) * 2 and w < width and h < height
        if SMALLEST <= area / mask.size <= LARGEST and free:
            labels[silhouette] = labels.max() + 1
    return labels


def discover_all(
    root: Path, names: Iterable[Path], weights: Path, output: Path, report: Callable[[str, int], None]
) -> int:
    """Write a label map ``output/NAME.png`` for each of the pictures ``root/NAME``; those that are there are kept.

    Args:
        names: of pictures, relative to ``root``.
        report: is told each name, and how many objects it has.

    Returns:
        How many objects there are in all.

    Raises:
        SourceError: a picture cannot be read, or a file not written.
        ModelError: ``weights`` cannot be read, or hold no ViT that is known here.
    """
    features, total = PatchFeatures.read(weights), 0
    for name in names:
        path = output / name.with_suffix(".png")
        if path.is_file():
            labels = images.read_grey(path)
        else:
            labels = discover(images.read_rgb(root / name), features)
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded, data = cv2.imencode(".png", labels)
            if not encoded:
                raise SourceError(f"cannot encode the objects of {root / name}")
            with whole_file(path) as file:
                file.write(data.tobytes())
        total += int(labels.max())
        report(str(name), int(labels.max()))
    return total
