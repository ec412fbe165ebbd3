"""Miniature benchmarks on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT, SIDE = 96, 72, 16


def write_sequence(folder: Path, seed: int, frames: int) -> None:
    """A textured square that moves over noise, in the folder convention of LasHeR and RGBT234."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(30, 90, (HEIGHT, WIDTH)).astype(np.uint8)
    texture = rng.integers(140, 256, (SIDE, SIDE)).astype(np.uint8)
    rows = []
    for name in ("visible", "infrared"):
        (folder / name).mkdir(parents=True)
    for frame in range(frames):
        x = round(10 + 60 * (0.5 - 0.5 * np.cos(frame / 12 + seed)))
        y = round(8 + 30 * (0.5 - 0.5 * np.cos(frame / 17)))
        image = ground.copy()
        image[y : y + SIDE, x : x + SIDE] = texture
        cv2.imwrite(str(folder / "visible" / f"v{frame:04}.png"), cv2.merge([image, image, image // 2]))
        cv2.imwrite(str(folder / "infrared" / f"{frame}.png"), 255 - image)
        rows.append(f"{x},{y},{SIDE},{SIDE}")
    for name in ("init.txt", "visible.txt", "infrared.txt"):
        (folder / name).write_text("\n".join(rows) + "\n")


@pytest.fixture
def rgbt234(tmp_path: Path) -> Callable[..., Path]:
    """Writes a miniature set in RGBT234's convention, and gives its root."""

    def write(*names: str, frames: int = 24) -> Path:
        for seed, name in enumerate(names):
            write_sequence(tmp_path / "rgbt234" / name, seed, frames)
        return tmp_path / "rgbt234"

    return write
