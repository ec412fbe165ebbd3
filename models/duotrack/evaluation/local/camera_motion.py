"""How the camera moved between two frames, from what stands still in both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.homography import Homographies, transform
from duotrack.data.images import Pixels

KEYPOINTS = 1000
RATIO = 0.8
"""A match is kept where it is this much nearer than the second nearest (Lowe 2004, section 7.1)."""
TOLERANCE = 3.0
"""Pixels that a match may be off."""
FEWEST, SMALLEST_SHARE = 20, 0.3
"""Matches that must agree, and their share of all."""
LARGEST_ZOOM = 1.6
"""By which factor lengths may grow or shrink: a fit that says more is wrong rather than a camera that fast."""


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """What can be recognised in a frame.

    Attributes:
        size: width and height of the frame.
        places: (N, 2) in coordinates of the frame.
        descriptions: (N, 32) ORB (Rublee et al. 2011).
    """

    size: tuple[int, int]
    places: NDArray[np.float64]
    descriptions: Pixels

    @classmethod
    def of(cls, frame: Pixels) -> Self:
        """Of an (H, W) frame, equalised first: thermal frames have little contrast."""
        equalised = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(frame)
        found, descriptions = cv2.ORB.create(KEYPOINTS, fastThreshold=7).detectAndCompute(equalised, None)
        # OpenCV's coordinates are those of pixel centres.
        places = np.array([point.pt for point in found], float).reshape(-1, 2) + 0.5
        none = np.empty((0, 32), np.uint8)
        size = frame.shape[1], frame.shape[0]
        return cls(size, places, none if descriptions is None else cast("Pixels", descriptions))


def camera_motion(before: Keypoints, after: Keypoints) -> Homographies | None:
    """(3, 3): from coordinates of one frame to those of the next; None where too little is seen in both.

    The homography that most of the keypoints agree on (RANSAC) that are each other's best match.
    """
    matches = _matches(before.descriptions, after.descriptions)
    if len(matches) < FEWEST:
        return None
    here, there = before.places[matches[:, 0]], after.places[matches[:, 1]]
    fitted, agreeing = cv2.findHomography(here, there, cv2.RANSAC, TOLERANCE, maxIters=4000, confidence=0.999)
    if fitted is None or agreeing.sum() < max(FEWEST, SMALLEST_SHARE * len(matches)):
        return None
    motion = np.asarray(fitted, np.float64)
    width, height = before.size
    corners = transform(motion, np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
    grown = cv2.contourArea(corners.astype(np.float32), oriented=True) / (width * height)
    return motion if LARGEST_ZOOM**-2 < grown < LARGEST_ZOOM**2 else None


def _matches(before: Pixels, after: Pixels) -> NDArray[np.int64]:
    """(M, 2): numbers of keypoints that are each other's nearest, by far."""
    forth = _nearest(before, after)
    candidates = np.unique(forth[:, 1])
    back = _nearest(after[candidates], before)
    mutual = dict(zip(candidates[back[:, 0]].tolist(), back[:, 1].tolist(), strict=True))
    return forth[[mutual.get(there) == here for here, there in forth.tolist()]]


def _nearest(described: Pixels, others: Pixels) -> NDArray[np.int64]:
    """(M, 2): numbers in ``described``, and of the nearest in ``others`` where it is nearest by far."""
    if not len(described) or len(others) < 2:
        return np.empty((0, 2), np.int64)
    matched = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(described, others, k=2)
    near = [(best.queryIdx, best.trainIdx) for best, second in matched if best.distance < RATIO * second.distance]
    return np.array(near, np.int64).reshape(-1, 2)
