"""Something passes in front of the target, hides it for a while, and goes on; the target is there again.

It moves with the target while it hides it, as a bus between the camera and a cyclist may, so that it need not be larger
than what it hides; it comes from one side of the picture and leaves to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from duotrack.data.moving_still import SEEN
from duotrack.data.synthetic.noise import stream, stretched
from duotrack.evaluation.corruptions.corruption import Corruption, remade
from duotrack.evaluation.sequences import BenchmarkPairs, Boxes, to_array
from duotrack.frames import FramePair

Path: TypeAlias = NDArray[np.float64]

APPROACH = 12
"""Frames in which the target goes from untouched to hidden, and back."""
EVERY = 140
"""Frames of a sequence for each occlusion; it is the same for all severities, so that curves show one thing."""
LONGEST = 0.6
"""Share of the frames for each occlusion in which the target is hidden at most: it is to be seen again."""
UNDISTURBED = 10
"""Frames at either end of the frames for an occlusion in which the target is not covered, where there are as many."""
SHORTEST = 12
"""Frames that a sequence must have for an occlusion to be in it."""
SLIDE = 0.15
"""How far the occluder moves to either side while it hides the target, in widths of the target."""
CROSSING = 40
"""Frames at most that the occluder takes for half the width of the picture."""
STEADY = 9
"""Frames over which the target's place is averaged for the occluder to follow: annotated boxes jitter."""


@dataclass(frozen=True, slots=True)
class Occlusion:
    """The target is hidden for ``hidden`` frames from frame ``start`` on, in part for ``approach`` before and after."""

    start: int
    hidden: int
    approach: int


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """A rectangle that moves through the picture.

    Attributes:
        left, top: (N,) of it in every frame, in pixels.
        width, height: in pixels.
    """

    left: Path
    top: Path
    width: float
    height: float

    def covered(self, boxes: Boxes) -> Path:
        """(N,) share of each box that it covers; 0 of a box without area."""
        x, y, w, h = boxes.T
        across = np.minimum(x + w, self.left + self.width) - np.maximum(x, self.left)
        down = np.minimum(y + h, self.top + self.height) - np.maximum(y, self.top)
        overlap = np.maximum(across, 0) * np.maximum(down, 0)
        return np.asarray(np.divide(overlap, w * h, out=np.zeros(len(w)), where=w * h > 0))


def occluded(sequence: BenchmarkPairs, first: FramePair, frames: float, seed: int) -> BenchmarkPairs:
    """The target is hidden for so many frames, again and again in a long sequence, but not in the first frame.

    A frame has no box while less than ``SEEN`` of it is uncovered, the rule of ``data.moving_still``.
    """
    boxes = to_array(sequence.boxes)
    rng = stream(seed, "occlusion", sequence.name)
    passages = [passage(event, boxes, first.width, rng) for event in plan(boxes[:, 2] > 0, int(frames), rng)]
    covered = np.max([np.zeros(len(boxes)), *(each.covered(boxes) for each in passages)], axis=0)
    covered[:1] = 0
    truth = [None if share > 1 - SEEN else box for box, share in zip(sequence.boxes, covered.tolist(), strict=True)]

    @cache
    def look(number: int) -> FramePair:
        each = passages[number]
        return _look(first, round(each.width), round(each.height), stream(seed, "occluder", sequence.name, number))

    def make(index: int) -> FramePair:
        pair = sequence.pair(index)
        for number, each in enumerate(passages if index else ()):
            pair = _pasted(pair, look(number), round(each.left[index]), round(each.top[index]))
        return pair

    return remade(sequence, make, truth)


def plan(there: NDArray[np.bool_], hidden: int, rng: np.random.Generator) -> list[Occlusion]:
    """Occlusions spread over a sequence, one for every ``EVERY`` frames, but one at least.

    Args:
        there: (N,) whether the target is; an occlusion lies, if possible, where it is all the time.
        hidden: frames; fewer where the sequence is too short for them.
    """
    frames = len(there)
    if frames < SHORTEST:
        return []
    count = max((frames - 1) // EVERY, 1)
    part = (frames - 1) // count
    approach, hidden = min(APPROACH, frames // 10), min(hidden, int(LONGEST * part))
    whole = hidden + 2 * approach
    room = part - whole
    seen = np.convolve(there, np.ones(whole), mode="valid")  # frames with a target, of an occlusion that begins here
    occlusions = []
    for number in range(count):
        first = 1 + number * part
        middle = first + part * rng.uniform(0.4, 0.6)
        margin = min(UNDISTURBED, room // 2)
        begins = first + np.arange(margin, room - margin + 1)
        best = begins[seen[begins] == seen[begins].max()]
        begin = best[np.abs(best + whole / 2 - middle).argmin()]
        occlusions.append(Occlusion(int(begin) + approach, hidden, approach))
    return occlusions


def passage(occlusion: Occlusion, boxes: Boxes, picture_width: int, rng: np.random.Generator) -> Passage:
    """How the occluder moves so as to hide every box of the occlusion wholly, from the left or from the right."""
    way = rng.choice((-1, 1))
    x, y, w, h = _filled(boxes).T
    hidden = slice(occlusion.start, occlusion.start + occlusion.hidden)
    number = np.arange(len(boxes))
    # It moves with the target only while it is before it.
    near = np.clip(number, hidden.start - occlusion.approach, hidden.stop - 1 + occlusion.approach)
    centre_x, centre_y = _steady(x + w / 2)[near], _steady(y + h / 2)[near]
    slide = SLIDE * w[hidden].max()
    done = np.clip((number - occlusion.start) / max(occlusion.hidden - 1, 1), 0, 1)
    centre_x = centre_x + way * slide * (2 * done - 1)
    half_width = _reach(centre_x[hidden], x[hidden], w[hidden])
    half_height = _reach(centre_y[hidden], y[hidden], h[hidden])
    # From here to where the two just touch in ``approach`` frames; beyond that, off the picture soon.
    touching = half_width + w[hidden].max() / 2 - slide
    pace = touching / occlusion.approach
    outside = np.maximum(number - (hidden.stop - 1), 0) - np.maximum(hidden.start - number, 0)
    beyond = np.maximum(np.abs(outside) - occlusion.approach, 0)
    haste = max(picture_width / 2 / CROSSING - pace, 0)
    centre_x = centre_x + way * np.sign(outside) * (pace * np.abs(outside) + haste * beyond)
    return Passage(centre_x - half_width, centre_y - half_height, 2 * half_width, 2 * half_height)


def _reach(centre: Path, start: Path, length: Path) -> float:
    """Half the side of an interval around the moving ``centre`` that always holds the given ones, and a bit more."""
    return float(np.maximum(centre - start, start + length - centre).max() + 2 + 0.05 * length.max())


def _filled(boxes: Boxes) -> Boxes:
    """(N, 4) with boxes where there is none, between the one before and the one after."""
    there = np.flatnonzero(boxes[:, 2] > 0)
    if not there.size:
        return np.ones_like(boxes)
    number = np.arange(len(boxes))
    return np.column_stack([np.interp(number, there, column[there]) for column in boxes.T])


def _steady(values: Path) -> Path:
    padded = np.pad(values, STEADY // 2, mode="edge")
    return np.convolve(padded, np.full(STEADY, 1 / STEADY), mode="valid")


def _look(first: FramePair, width: int, height: int, rng: np.random.Generator) -> FramePair:
    """An occluder in the colours and temperatures of the scene."""
    rough, soft = (stretched(rng, height, width, slope, max(width, height) / 2) for slope in (1.3, 1.6))
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    rgb = thermal = None
    left, top = rng.uniform(0, 0.85, 2)
    brightness, warmth, slope = rng.uniform(0.5, 1.0), rng.uniform(15, 85), rng.normal(0, 0.04)
    if first.rgb is not None:
        h, w = first.rgb.shape[:2]
        piece = first.rgb[int(top * h) :, int(left * w) :][: h // 8 + 1, : w // 8 + 1]
        shade = (1 + 0.15 * rough) * (1 - 0.35 * x * x)
        rgb = np.clip(shade[..., None] * piece.mean((0, 1)) * brightness, 0, 255).astype(np.uint8)
    if first.thermal is not None:
        low, level, high = np.percentile(first.thermal[::4, ::4], (2, warmth, 98))
        heat = level + (high - low) * (0.04 * soft + slope * y)
        largest = np.iinfo(first.thermal.dtype).max
        thermal = np.clip(heat, 0, largest).astype(first.thermal.dtype)
    return FramePair(rgb, thermal)


def _pasted(pair: FramePair, look: FramePair, left: int, top: int) -> FramePair:
    """``pair`` with an occluder whose upper left pixel is (left, top); itself where it lies beside the picture."""
    right, bottom = min(left + look.width, pair.width), min(top + look.height, pair.height)
    x, y = max(left, 0), max(top, 0)
    if x >= right or y >= bottom:
        return pair
    target, source = np.s_[y:bottom, x:right], np.s_[y - top : bottom - top, x - left : right - left]

    def paste(under: Any, over: Any) -> Any:
        if under is None or over is None:
            return under
        pasted = under.copy()
        pasted[target] = over[source]
        return pasted

    return FramePair(paste(pair.rgb, look.rgb), paste(pair.thermal, look.thermal))


OCCLUSION = {
    "occlusion": Corruption(
        title="occlusion with return",
        unit="frames",
        severities=(5, 10, 20, 40, 80),
        largest=int(LONGEST * EVERY),
        whole=True,
        does="A textured thing passes in front of the target and hides it for so many frames, again and again.",
        apply=occluded,
    )
}
