"""A task that a tiny network learns in seconds, and the smallest config of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from duotrack.training.config import RunConfig, parse_config
from duotrack.training.objective import Batch


class BrightSquares(Dataset[Batch]):
    """A bright square somewhere in a dark search crop; every number has its own, or one of ``distinct``."""

    def __init__(self, distinct: int | None = None) -> None:
        self._distinct = distinct

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng(number if self._distinct is None else number % self._distinct)
        template, search = np.full((128, 128, 4), 40, np.uint8), np.full((256, 256, 4), 40, np.uint8)
        template[32:96, 32:96] = 220
        x, y = (int(value) for value in rng.integers(0, 192, 2))
        present = bool(rng.random() < 0.8)
        mask = np.zeros((256, 256), np.float32)
        if present:
            search[y : y + 64, x : x + 64] = 220
            mask[y : y + 64, x : x + 64] = 255
        cells = mask.reshape(64, 4, 64, 4).mean((1, 3)).astype(np.uint8)
        return {
            "template": torch.from_numpy(template),
            "template_present": torch.ones(2),
            "template_box": torch.full((4,), 0.5),
            "search": torch.from_numpy(search),
            "search_present": torch.ones(2),
            "search_box": torch.tensor([(x + 32) / 256, (y + 32) / 256, 0.25, 0.25]),
            "search_mask": torch.from_numpy(cells),
            "mask_known": torch.ones(()),
            "present": torch.tensor(float(present)),
        }


@pytest.fixture(scope="session")
def bright_squares() -> Callable[..., Dataset[Batch]]:
    return BrightSquares


def short_tree(**changes: Any) -> dict[str, Any]:
    """A config of six steps, as YAML would give it; the tests bring their own samples."""
    return {
        "model": {"name": "student-t", "overrides": {"width": 48, "depth": 2, "heads": 3, "head_channels": 16}},
        "data": {"sources": [{"kind": "synthetic"}], "workers": 0},
        "steps": 6,
        "batch": 2,
        "log_every": 1,
        "save_every": 2,
        "schedule": {"warmup": 2},
    } | changes


@pytest.fixture(scope="session")
def short_run() -> Callable[..., RunConfig]:
    """``short_run(steps=…, optimizer={…})``: the smallest config, with some keys changed."""
    return lambda **changes: parse_config(short_tree(**changes))
