"""Where to look next: how the camera moved between two frames, and how the target moves over the ground.

Three expectations compete. The target stays where it was in the image (a camera that is panned with it); it stays where
it was on the ground (a camera that turns or jumps); it goes on over the ground at its pace. That which has lately been
right is taken; where two are equally right, the one that knows about the camera. Where that is hardly elsewhere than in
the frame before, the search stays where it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.errors import BoxError
from duotrack.frames import FramePair, ThermalWindow

Thumbnail = NDArray[np.uint8]
Similarity = NDArray[np.float64]
"""(2, 3): rotation, scale and shift, from pixel positions (whole numbers at pixel centres) of one frame to the next."""

LONGEST_SIDE = 192
"""Of a thumbnail, in pixels. Camera motion is a matter of the whole frame; finer detail only costs time."""
CORNERS = 80
FEWEST, SMALLEST_SHARE = 8, 0.4
"""Corners that must agree on one motion, and their share of those that were followed."""
KEYPOINTS = 300
"""In each frame, where optical flow fails."""
PACE_GAIN = 0.5
"""Of the alpha-beta filter (a Kalman filter with constant gains) for the target's velocity."""
SLOWING = 0.9
"""Share of the pace that is kept from frame to frame while nobody sees the target: ten frames' way in all."""
MEMORY = 0.8
"""Share of an expectation's error that is kept from frame to frame."""
TIE = 0.02
"""Sides of the target by which errors must differ to be different."""
STILL = 0.5
"""Sides of the target by which it must be expected elsewhere for the search to go there: less is in sight anyhow, and
each move of the search region is a chance for a look-alike in its middle."""
ZOOM = 0.1
"""Logarithm of a change of scale from which on the box grows with it: less is mostly noise, which would add up."""


class Expectation(IntEnum):
    """What the target's place is expected from."""

    IMAGE = 0
    GROUND = 1
    PACE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What a track remembers of motion after a frame.

    Attributes:
        thumbnail: (h, w) the frame, small and grey.
        source: the modality that it shows.
        velocity: of the target over the ground, in pixels a frame.
        errors: how far off each ``Expectation`` has lately been, in sides of the target (as a square), 1 at most.
    """

    thumbnail: Thumbnail
    source: Literal["rgb", "thermal"]
    velocity: tuple[float, float] = (0.0, 0.0)
    errors: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def start(cls, pair: FramePair, window: ThermalWindow | None) -> Motion:
        """Of the first frame. ``window`` maps 16-bit thermal."""
        return cls(*_thumbnail(pair, window))

    def slowed(self) -> Motion:
        """After a frame in which nobody saw the target: it may have stopped, or turned."""
        vx, vy = self.velocity
        return replace(self, velocity=(SLOWING * vx, SLOWING * vy))


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """What is expected of a frame before the target is looked for in it.

    Attributes:
        box: where it is expected, with the size it should have.
        centers: (3, 2) pixels, by each ``Expectation``.
        motion: to be completed by ``learn``, or kept as it is where the target was not found.
    """

    box: Box
    centers: NDArray[np.float64]
    motion: Motion

    def carried(self, place: Box) -> Box:
        """Where what was at ``place`` in the frame before, and does not move, is now: as the ground at the target."""
        dx, dy = (self.centers[Expectation.GROUND] - self.centers[Expectation.IMAGE]).tolist()
        return Box(place.x + dx, place.y + dy, place.w, place.h)


def expect(motion: Motion, pair: FramePair, box: Box, window: ThermalWindow | None) -> Forecast:
    """Where a target that was at ``box`` in the frame before should be in ``pair``, of the same size."""
    thumbnail, source = _thumbnail(pair, window)
    scale = thumbnail.shape[1] / pair.width
    before = np.array(box.center)
    camera = None
    if source == motion.source:
        hidden = Box(*(value * scale for value in box.xywh))
        camera = camera_motion(motion.thumbnail, thumbnail, hidden)
    velocity, zoom = np.array(motion.velocity), 1.0
    ground = before
    if camera is not None:
        ground = (camera @ np.array([*(before * scale - 0.5), 1.0]) + 0.5) / scale
        velocity = camera[:, :2] @ velocity
        zoom = math.sqrt(abs(float(np.linalg.det(camera[:, :2]))))
    centers = np.stack((before, ground, ground + velocity))
    chosen = _choose(motion.errors)
    center = centers[chosen]
    if float(np.linalg.norm(center - before)) < STILL * math.sqrt(box.area):
        center = before
    if chosen is Expectation.IMAGE or abs(math.log(zoom)) < ZOOM:
        zoom = 1.0
    cx, cy = center.tolist()
    expected = _inside(Box.from_center(cx, cy, box.w * zoom, box.h * zoom), pair, box)
    after = Motion(thumbnail, source, (float(velocity[0]), float(velocity[1])), motion.errors)
    return Forecast(expected, centers, after)


def learn(forecast: Forecast, found: Box, *, moved_on: bool = True) -> Motion:
    """The memory after a frame in which the target was ``found``.

    Args:
        moved_on: it was followed here. If not, it was lost and has turned up: that says nothing about its pace.
    """
    motion, center = forecast.motion, np.array(found.center)
    if not moved_on:
        return replace(motion, velocity=(0.0, 0.0))
    off = np.linalg.norm(forecast.centers - center, axis=1) / math.sqrt(found.area)
    errors = MEMORY * np.array(motion.errors) + (1 - MEMORY) * np.minimum(off, 1.0)
    step = center - forecast.centers[Expectation.GROUND]
    velocity = (1 - PACE_GAIN) * np.array(motion.velocity) + PACE_GAIN * step
    image, ground, pace = errors.tolist()
    return replace(motion, velocity=(float(velocity[0]), float(velocity[1])), errors=(image, ground, pace))


def camera_motion(before: Thumbnail, after: Thumbnail, hidden: Box | None = None) -> Similarity | None:
    """How what stands still moved from one thumbnail to the next, in their pixels; None where that cannot be told.

    Corners (Shi and Tomasi 1994) are followed by Lucas and Kanade's method in pyramids, from where phase correlation
    puts them: so jumps of a third of the frame are found too. RANSAC finds the motion on which most of them agree.
    Where too few do, as after a camera has turned, keypoints are compared wherever they are (ORB; Rublee et al. 2011),
    which takes three times as long.

    Args:
        hidden: of ``before``, a part that moves by itself.
    """
    if before.shape != after.shape:
        return None
    mask = _around(before, hidden)
    similarity = _followed(before, after, mask)
    return _matched(before, after, mask) if similarity is None else similarity


def _followed(before: Thumbnail, after: Thumbnail, mask: NDArray[np.uint8]) -> Similarity | None:
    """By optical flow."""
    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 6, mask=mask, blockSize=5)
    if corners is None or len(corners) < FEWEST:
        return None
    # A guess need not be exact: at half the size it takes an eighth of the time, and noise disturbs it less.
    first, second = _halved(before), _halved(after)
    shift, response = cv2.phaseCorrelate(first, second, _fading(first.shape[1], first.shape[0]))
    guess = corners + 2 * np.array(shift) if response > 0.1 else corners
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        corners,
        guess.astype(np.float32),
        winSize=(13, 13),
        maxLevel=2,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03),
    )
    followed = status[:, 0] == 1
    if followed.sum() < FEWEST:
        return None
    fewest = max(FEWEST, SMALLEST_SHARE * followed.sum())
    return _agreed(corners[followed], found[followed], fewest=fewest, within=1.0, tries=200)


def _matched(before: Thumbnail, after: Thumbnail, mask: NDArray[np.uint8]) -> Similarity | None:
    """By keypoints that look alike."""
    orb = cv2.ORB.create(KEYPOINTS, nlevels=3, edgeThreshold=12, patchSize=21, fastThreshold=7)
    old, described = orb.detectAndCompute(before, mask)
    new, described_new = orb.detectAndCompute(after, None)
    if min(len(old), len(new)) < FEWEST:
        return None
    matches = cv2.BFMatcher.create(cv2.NORM_HAMMING, crossCheck=True).match(described, described_new)
    if len(matches) < FEWEST:
        return None
    here = np.array([old[match.queryIdx].pt for match in matches], np.float32)
    there = np.array([new[match.trainIdx].pt for match in matches], np.float32)
    return _agreed(here, there, fewest=FEWEST, within=1.5, tries=500)


def _agreed(here: Any, there: Any, *, fewest: float, within: float, tries: int) -> Similarity | None:
    """The motion on which most places agree to ``within`` pixels (RANSAC); None where that are less than ``fewest``."""
    similarity, agreeing = cv2.estimateAffinePartial2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=within, maxIters=tries
    )
    return None if similarity is None or agreeing.sum() < fewest else cast("Similarity", similarity)


def _choose(errors: tuple[float, float, float]) -> Expectation:
    image, ground, pace = errors
    best = Expectation.GROUND if ground <= image + TIE else Expectation.IMAGE
    return Expectation.PACE if pace < errors[best] - TIE else best


def _inside(expected: Box, pair: FramePair, before: Box) -> Box:
    """``expected`` as a box that can be searched around: a wild estimate must not end the track."""
    try:
        return expected.clip(pair.width, pair.height)
    except BoxError:
        return before


def _thumbnail(pair: FramePair, window: ThermalWindow | None) -> tuple[Thumbnail, Literal["rgb", "thermal"]]:
    """A small grey image, of colour where the pair has it: green, which is luminance but for little."""
    source: Literal["rgb", "thermal"] = "thermal" if pair.rgb is None else "rgb"
    whole = pair.thermal if pair.rgb is None else pair.rgb[..., 1]
    assert whole is not None
    longest = max(pair.width, pair.height)
    stride = max(1, longest // (2 * LONGEST_SIDE))
    image: NDArray[Any] = np.ascontiguousarray(whole[::stride, ::stride])
    if image.dtype == np.uint16:
        image = (window or ThermalWindow.of(image)).to_uint8(image)
    scale = min(1.0, LONGEST_SIDE / longest)
    width, height = max(1, round(pair.width * scale)), max(1, round(pair.height * scale))
    if image.shape[1] >= 3 * width and image.shape[0] >= 3 * height:
        # OpenCV halves ten times faster than it averages over parts of pixels. Bilinear resampling in place of the last
        # step would be faster yet, but costs accuracy (docs/tracker.md).
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return cast("Thumbnail", cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)), source


def _halved(thumbnail: Thumbnail) -> NDArray[np.float32]:
    size = max(2, thumbnail.shape[1] // 2), max(2, thumbnail.shape[0] // 2)
    return cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA).astype(np.float32)


@lru_cache(maxsize=8)
def _fading(width: int, height: int) -> NDArray[np.float32]:
    """A window for phase correlation: without one, the jump from edge to opposite edge outweighs some pictures."""
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)


def _around(thumbnail: Thumbnail, hidden: Box | None) -> NDArray[np.uint8]:
    mask = np.full(thumbnail.shape, 255, np.uint8)
    if hidden is not None:
        left, top = max(round(hidden.x) - 2, 0), max(round(hidden.y) - 2, 0)
        mask[top : max(round(hidden.y + hidden.h) + 2, 0), left : max(round(hidden.x + hidden.w) + 2, 0)] = 0
    return mask
