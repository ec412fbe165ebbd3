"""Boxes drawn in pictures that nobody labelled."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.images import Pixels


def random_box(width: int, height: int, rng: Generator) -> Box:
    """A box inside a ``width`` × ``height`` picture: 12 % to 60 % of its shorter side, of any common shape."""
    side = min(width, height) * np.exp(rng.uniform(np.log(0.12), np.log(0.6)))
    stretch = np.exp(0.35 * rng.normal())
    w, h = min(side * stretch, 0.9 * width), min(side / stretch, 0.9 * height)
    return Box(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h)


def ellipse(box: Box, points: int = 64) -> NDArray[np.float64]:
    """(points, 2): the outline of the ellipse inscribed in ``box``, closer to a real silhouette than its corners."""
    angles = np.arange(points) * (2 * math.pi / points)
    half = np.array([box.w, box.h]) / 2
    return np.asarray(np.array(box.center) + half * np.column_stack((np.cos(angles), np.sin(angles))))


def contrast(image: Pixels, box: Box) -> float:
    """The spread of grey values in the part of ``box`` inside ``image``; 0 where none is."""
    rows = slice(max(math.floor(box.y), 0), max(math.ceil(box.y + box.h), 0))
    columns = slice(max(math.floor(box.x), 0), max(math.ceil(box.x + box.w), 0))
    part = image[rows, columns]
    return float(np.mean(cv2.meanStdDev(part)[1])) if part.size else 0.0
