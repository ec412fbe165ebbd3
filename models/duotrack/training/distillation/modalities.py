"""Samples of which one modality is shown: for students of one modality, and for one modality teaching the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

Modality = Literal["rgb", "thermal"]


def single_modality(
    batch: Mapping[str, Tensor], modality: Modality, parts: Iterable[str] = ("template", "search")
) -> dict[str, Tensor]:
    """``batch`` with the other modality's pixels 0 and its present flag 0, in the given ``parts``; the rest as it is.

    The teacher gets ``batch`` itself: that is how a student of one modality learns from a teacher of two. Crops
    without the wanted modality stay as they are, for no network here is ever shown a pair without any.

    Args:
        batch: as ``Batchable``, with or without a batch axis; is not changed.
    """
    single = dict(batch)
    for part in parts:
        present = batch[f"{part}_present"]
        only = present * present.new_tensor([1, 0] if modality == "rgb" else [0, 1])
        kept = torch.where(only.any(-1, keepdim=True), only, present)
        channels = kept[..., [0, 0, 0, 1]][..., None, None, :]
        single[part] = torch.where(channels > 0, batch[part], 0)
        single[f"{part}_present"] = kept
    return single
