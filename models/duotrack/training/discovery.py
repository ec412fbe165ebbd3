"""Objects in stills that nobody labelled, found by the features of a pretrained vision transformer.

As in TokenCut (Wang et al., CVPR 2022), a picture's patches are a graph whose edges say how alike their features are,
and an object is what a normalised cut (Shi and Malik 2000) parts from the rest. Features are centred in each picture
first, so that patches are alike only by what sets them apart there, and similarities stay soft: a hard threshold lets
single odd patches be cut off in place of the object.

TokenCut parts a picture in two, once. That finds an object only where nothing else parts the picture better, and often
something does: a bush from the lawn, the sky from the ground. Here several eigenvectors group the patches, by twos to
sixes; each connected piece of a group is a candidate, and those of the groups with the lowest cuts are taken. GrabCut
(Rother et al. 2004) then takes the outline from patches to pixels; where it strays from them, there is no object.
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
GROUPS = (2, 3, 4, 5, 6)
"""Into how many the patches are grouped, one grouping after the other."""
SMALLEST, LARGEST = 0.012, 0.65
"""Shares of a picture that an object covers."""
LARGEST_EDGE = 0.2
"""Of the way around an object's bounds, the part that may run along the picture's edges."""
LEAST_FILLED = 0.3
"""Share of its bounds that an object fills."""
WORST = 0.65
"""Normalised cut of an object's group, plus half the part of its bounds along the edges: halves of a wall have 1."""
SAME = 0.9
"""Overlap (IoU) from which on two candidates are the same."""
LEAST_AGREEMENT = 0.6
"""Overlap (IoU) of an object's outline in pixels with that of its patches."""
MOST = 2
"""Objects of a picture."""
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


def parts(features: Features) -> list[Mask]:
    """Groups of patches (rows, columns) that may be an object's, the best first, of the patches (rows, columns, C).

    A piece is as good as the cut that parts its group from the other patches: of a flock, each bird is like the others.
    Each is connected, covers from ``SMALLEST`` to ``LARGEST`` of the picture, leaves most of its edges free, and does
    not reach from one edge to the opposite: what does is most often a road, a wood or the sky.
    """
    rows, columns, width = features.shape
    flat = features.reshape(-1, width).astype(np.float64)
    flat -= flat.mean(0)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    likeness = np.maximum(flat @ flat.T, 0) + 1e-4
    degrees = likeness.sum(1)
    scale = 1 / np.sqrt(degrees)
    _, vectors = np.linalg.eigh(scale[:, None] * likeness * scale)
    # The first is of no use: it says how much each patch is like the others.
    embedding = vectors[:, -2 : -max(GROUPS) - 1 : -1] * scale[:, None]
    embedding = (embedding / np.maximum(embedding.std(0), 1e-12)).astype(np.float32)
    found: list[tuple[float, Mask]] = []
    for count in GROUPS:
        for group in _grouped(embedding[:, : count - 1], count):
            cut = likeness[group][:, ~group].sum()
            cost = cut / degrees[group].sum() + cut / degrees[~group].sum()
            _, components = cv2.connectedComponents(group.reshape(rows, columns).astype(np.uint8), connectivity=4)
            for index in range(1, components.max() + 1):
                mask = components == index
                along = _along_edges(mask)
                if along is None or cost + along / 2 > WORST:
                    continue
                if not any((mask & other).sum() > SAME * (mask | other).sum() for _, other in found):
                    found.append((float(cost + along / 2), mask))
    return [mask for _, mask in sorted(found, key=lambda candidate: candidate[0])]


def _grouped(embedding: NDArray[np.float32], count: int) -> list[Mask]:
    """``count`` groups of points (N, ...) by k-means; the same each time."""
    if len(embedding) < count:
        return []
    cv2.setRNGSeed(0)
    criteria = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4
    points = np.ascontiguousarray(embedding)
    _, labels, _ = cv2.kmeans(points, count, np.empty(0, np.int32), criteria, 3, cv2.KMEANS_PP_CENTERS)
    return [labels[:, 0] == index for index in range(count)]


def _along_edges(mask: Mask) -> float | None:
    """The part of the way around the bounds of ``mask`` that runs along the picture's edges; None for no object."""
    _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not SMALLEST <= mask.mean() <= LARGEST or mask.sum() < LEAST_FILLED * width * height:
        return None
    if width == mask.shape[1] or height == mask.shape[0]:
        return None
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1]
    along = float((mask & ~inner).sum() / (2 * (width + height)))
    return along if along <= LARGEST_EDGE else None


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
    """(H, W) uint8: the objects of a picture, ``MOST`` at most, numbered from 1, the best first; 0 is background."""
    height, width = picture.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    for patches in parts(features(picture)):
        rough = cv2.resize(patches.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        smooth = cv2.medianBlur(outlined(picture, patches).astype(np.uint8) * 255, 5)
        _, components, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
        if len(stats) < 2:
            continue
        silhouette = components == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
        agreement = (silhouette & rough).sum() / (silhouette | rough).sum()
        if agreement >= LEAST_AGREEMENT and silhouette.mean() >= SMALLEST and not labels[silhouette].any():
            labels[silhouette] = labels.max() + 1
        if labels.max() == MOST:
            break
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
