"""A recorded run of a model, with which a provider proves at start-up that it computes what torch computed.

Providers have returned garbage without an error (a bf16 convolution on AMX, a silent fall-back to another device), and
a tracker on garbage still returns boxes. So each model carries the outputs of one seeded input, and an engine compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duotrack.network import ModelSpec, Prediction, Template

# Largest error allowed in any score, box coordinate (in crop sides) or presence.
TOLERANCE = {"fp32": 1e-3, "bf16": 6e-2}


def proof_input(spec: ModelSpec) -> tuple[Template, NDArray[np.uint8], NDArray[np.float32]]:
    """A smooth seeded scene with the target in it: template, search crop (1, S, S, 4), what is present (1, 2)."""
    rng = np.random.default_rng(20240316)
    side = spec.search_size
    steps = np.linspace(0, 1, side, dtype=np.float32)
    scene = np.zeros((side, side, 4), np.float32)
    for channel in range(4):
        for _ in range(6):
            fx, fy, phase = rng.uniform(-9, 9), rng.uniform(-9, 9), rng.uniform(0, 6.28)
            scene[..., channel] += np.sin(6.28 * (fx * steps[None, :] + fy * steps[:, None]) + phase)
    crop = np.clip(127 + 32 * scene, 0, 255).astype(np.uint8)
    start, size = side // 2 - spec.template_size // 2, spec.template_size
    present = np.ones((1, 2), np.float32)
    box = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
    return Template(crop[None, start : start + size, start : start + size], present, box), crop[None], present


def record(prediction: Prediction) -> dict[str, Any]:
    """A prediction of batch size one as JSON, rounded to six decimals."""
    return {
        "score_map": np.round(prediction.score_map[0].astype(float), 6).tolist(),
        "box_map": np.round(prediction.box_map[0].astype(float), 6).tolist(),
        "presence": round(float(prediction.presence[0]), 6),
    }


def largest_error(search: Callable[[], Prediction], expected: dict[str, Any]) -> float:
    """Largest absolute difference to the record, over the score map, the presence, and the boxes of its ten best cells.

    Infinite where the outputs hold a NaN.
    """
    prediction = search()
    score_map = np.array(expected["score_map"])
    rows, columns = np.unravel_index(np.argsort(score_map, axis=None)[-10:], score_map.shape)
    boxes = np.array(expected["box_map"])[:, rows, columns] - prediction.box_map[0][:, rows, columns]
    errors = (
        score_map - prediction.score_map[0],
        boxes,
        np.array([expected["presence"]]) - prediction.presence,
    )
    return max(float(np.nan_to_num(np.abs(error).max(), nan=np.inf)) for error in errors)
