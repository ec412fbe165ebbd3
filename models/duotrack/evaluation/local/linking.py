"""Who is who in frames in which everything is boxed but nothing has an identity: links where there is no doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.homography import Homographies, transform

REACH = 2.0
"""How far an object may be from where it is expected, in units of its size."""
RIVAL = 2.0, 1.0
"""How far the next nearest must be at least: in units of the nearest's distance, and of the object's size."""
LARGEST_GROWTH = 1.7
"""Factor by which a side of a box may change from one frame to the next."""
LARGEST_STEP = 3
"""Frames from one to the next in which an object is found: labels are missing, and the camera looks away and back."""

Motions = Callable[[int, int], Homographies | None]
"""(3, 3) from coordinates of one frame to those of another; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A boxed object of a frame, and its class."""

    kind: str
    box: Box


@dataclass(slots=True)
class Tracklet:
    """One object: the numbers of frames, ascending, and its box in each."""

    kind: str
    frames: list[int]
    boxes: list[Box]
    _velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def expected(self, frame: int, motion: Homographies) -> NDArray[np.float64]:
        """(2,): where its centre should be: moved along with the camera, and on at the pace it had over the ground."""
        onward = self._velocity * (frame - self.frames[-1])
        return np.asarray(transform(motion, (np.array(self.boxes[-1].center) + onward)[None])[0])

    def extend(self, frame: int, box: Box, motion: Homographies) -> None:
        back = transform(np.asarray(np.linalg.inv(motion), np.float64), np.array([box.center]))[0]
        over_ground = (back - self.boxes[-1].center) / (frame - self.frames[-1])
        # In coordinates of the new frame, where it is used.
        here = np.array([self.boxes[-1].center, self.boxes[-1].center + over_ground])
        self._velocity = np.diff(transform(motion, here), axis=0)[0]
        self.frames.append(frame)
        self.boxes.append(box)


def link(frames: Sequence[Sequence[Labelled]], motions: Motions) -> list[Tracklet]:
    """Tracklets of all objects, by first frame and then by place in its list; many have a single box.

    A box is added to a tracklet where each is the other's nearest, nothing else is nearly as near, and they are of one
    class and of similar size. What could be either of two is added to neither.

    Args:
        frames: what is boxed in each.
    """
    tracklets: list[Tracklet] = []
    for number, objects in enumerate(frames):
        free = list(objects)
        for step in range(1, LARGEST_STEP + 1):
            waiting = [tracklet for tracklet in tracklets if tracklet.frames[-1] == number - step]
            motion = motions(number - step, number) if waiting and free else None
            if motion is None:
                continue
            for tracklet, found in _links(waiting, free, number, motion):
                tracklet.extend(number, found.box, motion)
                free.remove(found)
        tracklets += [Tracklet(labelled.kind, [number], [labelled.box]) for labelled in free]
    return tracklets


def _links(
    waiting: Sequence[Tracklet], objects: Sequence[Labelled], frame: int, motion: Homographies
) -> list[tuple[Tracklet, Labelled]]:
    expected = np.array([tracklet.expected(frame, motion) for tracklet in waiting])
    centres = np.array([labelled.box.center for labelled in objects])
    sizes = np.sqrt([tracklet.boxes[-1].area for tracklet in waiting])
    apart = np.linalg.norm(expected[:, None] - centres, axis=-1) / sizes[:, None]
    return [
        (tracklet, objects[there])
        for here, (tracklet, there) in enumerate(zip(waiting, apart.argmin(1).tolist(), strict=True))
        if apart[here, there] <= REACH
        and _clear(apart[here], there)
        and _clear(apart[:, there], here)
        and _alike(tracklet, objects[there])
    ]


def _clear(distances: NDArray[np.float64], chosen: int) -> bool:
    """Whether all the others are much further away than the chosen one."""
    times, least = RIVAL
    others = np.delete(distances, chosen)
    return bool((others > max(least, times * distances[chosen])).all())


def _alike(tracklet: Tracklet, other: Labelled) -> bool:
    box = tracklet.boxes[-1]
    growth = np.log([box.w / other.box.w, box.h / other.box.h])
    return tracklet.kind == other.kind and bool(np.abs(growth).max() <= np.log(LARGEST_GROWTH))
