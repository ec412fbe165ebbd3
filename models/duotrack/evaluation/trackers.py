"""What can be evaluated: DuoTrack itself, OpenCV's trackers on one of the modalities, and a box that never moves.

``TrackerChoice`` names a tracker, so that worker processes can open it. Another tracker is a class with ``init`` and
``update`` and a line in ``TRACKERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.errors import BoxError, EvaluationError
from duotrack.frames import FramePair, ThermalWindow
from duotrack.network import Network
from duotrack.tracker import TargetState, Tracker, TrackerOptions

SWITCHES = tuple(field.name for field in fields(TrackerOptions))
Modality = Literal["both", "rgb", "thermal"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a tracker says about a frame.

    Attributes:
        box: in pixels of the frame.
        score: confidence in [0, 1]; None where the tracker has none.
        lost: whether the tracker says that it has lost the target; None where it never says so.
    """

    box: Box
    score: float | None = None
    lost: bool | None = None


class SequenceTracker(Protocol):
    """Anything that follows a first box through frame pairs."""

    def init(self, pair: FramePair, box: Box) -> None:
        """Start, or start anew."""

    def update(self, pair: FramePair) -> Found:
        """Find the target in the next pair."""


@dataclass(frozen=True, slots=True)
class OpenedTracker:
    """A tracker and what it runs on.

    Attributes:
        about: named lines for the report: model, provider, versions.
    """

    tracker: SequenceTracker
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrackerChoice:
    """A tracker by name, and how to open it.

    Attributes:
        name: one of ``TRACKERS``.
        modality: hide the other modality from the tracker. OpenCV's trackers see one in any case: with ``both``, colour
            where a sequence has it.
        model, provider, threads: for ``duotrack``, as ``Engine.open`` takes them.
        without, with_: switches of ``TrackerOptions`` that are off, and on, by name; the others have their defaults.

    Raises:
        EvaluationError: there is no such tracker, modality or switch, or a switch is to be off and on.
    """

    name: str = "duotrack"
    modality: Modality = "both"
    model: str | None = None
    provider: str | None = None
    threads: int | None = None
    without: tuple[str, ...] = ()
    with_: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in TRACKERS:
            raise EvaluationError(f"unknown tracker {self.name!r}; known are {', '.join(TRACKERS)}")
        if self.modality not in get_args(Modality):
            raise EvaluationError(f"unknown modality {self.modality!r}: expected {', '.join(get_args(Modality))}")

        for name in (*self.without, *self.with_):
            if name not in SWITCHES or self.name != "duotrack":
                known = ", ".join(SWITCHES) if self.name == "duotrack" else f"none for {self.name}"
                raise EvaluationError(f"unknown switch {name!r}; known are {known}")
        if both := sorted({*self.without} & {*self.with_}):
            raise EvaluationError(f"expected a switch to be off or on, got {both[0]!r} for both")

    def open(self) -> OpenedTracker:
        """The tracker, ready to be used.

        Raises:
            EvaluationError: this OpenCV lacks the tracker.
            ModelError: the model does not exist or cannot run.
        """
        opened = TRACKERS[self.name](self)
        if self.modality == "both" or self.name in OPENCV_TRACKERS:
            return opened
        return OpenedTracker(OneModality(opened.tracker, self.modality), opened.about)


class NetworkTracker:
    """DuoTrack itself, on any network."""

    def __init__(self, network: Network, options: TrackerOptions | None = None) -> None:
        self._tracker = Tracker(network, options or TrackerOptions())

    def init(self, pair: FramePair, box: Box) -> None:
        self._tracker.init(pair, box)

    def update(self, pair: FramePair) -> Found:
        result = self._tracker.update(pair)
        return Found(result.box, result.score, result.state is TargetState.LOST)


class StaticBox:
    """The baseline that never moves."""

    def init(self, pair: FramePair, box: Box) -> None:  # noqa: ARG002 - the interface's names
        self._box = box

    def update(self, pair: FramePair) -> Found:  # noqa: ARG002
        return Found(self._box)


class OpenCVTracker:
    """A tracker of OpenCV, which sees the image of one modality. It stays where it is while that modality is missing.

    Args:
        create: makes a tracker with OpenCV's ``init(image, box)`` and ``update(image) -> (found, box)``.
        modality: with ``both``, colour where the first pair has it, else thermal.

    Raises:
        EvaluationError: by ``init`` and ``update``, where OpenCV fails, as with a first box outside the frame.
    """

    def __init__(self, create: Callable[[], Any], modality: Modality = "both") -> None:
        self._create = create
        self._modality = modality

    def init(self, pair: FramePair, box: Box) -> None:
        self._sees_rgb = pair.rgb is not None if self._modality == "both" else self._modality == "rgb"
        self._window: ThermalWindow | None = None
        self._box = box
        image = self._image(pair)
        if image is None:
            raise EvaluationError(f"the first pair has no {'colour' if self._sees_rgb else 'thermal'} frame")
        self._tracker = self._create()
        # OpenCV takes whole pixels, and refuses a box that reaches out of the image.
        left, top = max(round(box.x), 0), max(round(box.y), 0)
        right, bottom = min(round(box.x + box.w), pair.width), min(round(box.y + box.h), pair.height)
        with _named_errors(f"at box {box.text()} of a {pair.width}x{pair.height} frame"):
            self._tracker.init(image, (left, top, max(right - left, 1), max(bottom - top, 1)))

    def update(self, pair: FramePair) -> Found:
        image = self._image(pair)
        if image is None:
            return Found(self._box, lost=True)
        with _named_errors(f"after box {self._box.text()}"):
            found, rectangle = self._tracker.update(image)
        if found:
            try:
                self._box = Box(*(float(value) for value in rectangle))
            except BoxError:
                found = False
        return Found(self._box, lost=not found)

    def _image(self, pair: FramePair) -> NDArray[np.uint8] | None:
        """The modality's frame as (H, W, 3) uint8 in B, G, R order."""
        if self._sees_rgb:
            return None if pair.rgb is None else np.ascontiguousarray(pair.rgb[..., ::-1])
        if pair.thermal is None:
            return None
        thermal = pair.thermal
        if thermal.dtype == np.uint16:
            raw = cast("NDArray[np.uint16]", thermal)
            self._window = ThermalWindow.of(raw) if self._window is None else self._window.follow(raw)
            thermal = self._window.to_uint8(raw)
        return np.ascontiguousarray(np.repeat(cast("NDArray[np.uint8]", thermal)[..., None], 3, 2))


@contextmanager
def _named_errors(where: str) -> Iterator[None]:
    try:
        yield
    except cv2.error as error:
        raise EvaluationError(f"OpenCV's tracker fails {where}: {error.err}") from error


class OneModality:
    """Another tracker that is shown colour only, or thermal only."""

    def __init__(self, tracker: SequenceTracker, modality: Modality) -> None:
        self._tracker = tracker
        self._modality = modality
        self._last: Box | None = None

    def init(self, pair: FramePair, box: Box) -> None:
        shown = self._shown(pair)
        if shown is None:
            raise EvaluationError(f"the first pair has no {'colour' if self._modality == 'rgb' else 'thermal'} frame")
        self._tracker.init(shown, box)
        self._last = box

    def update(self, pair: FramePair) -> Found:
        shown = self._shown(pair)
        if shown is None:  # a pair without any frame there is not
            assert self._last is not None
            return Found(self._last, lost=True)
        found = self._tracker.update(shown)
        self._last = found.box
        return found

    def _shown(self, pair: FramePair) -> FramePair | None:
        if self._modality == "rgb":
            return None if pair.rgb is None else FramePair(pair.rgb, None)
        return None if pair.thermal is None else FramePair(None, pair.thermal)


def _open_duotrack(choice: TrackerChoice) -> OpenedTracker:
    from duotrack.engine import Engine
    from duotrack.engine.models import fingerprint

    engine = Engine.open(choice.model, provider=choice.provider, threads=choice.threads)
    report = engine.report
    about = {
        "model": report.model,
        "weights": fingerprint(choice.model),
        "provider": f"{report.provider}: {report.runtime}, {report.precision}, {report.threads} threads",
    }
    options = TrackerOptions(**dict.fromkeys(choice.without, False), **dict.fromkeys(choice.with_, True))
    return OpenedTracker(NetworkTracker(engine, options), about)


def _open_opencv(choice: TrackerChoice) -> OpenedTracker:
    create = getattr(cv2, f"{OPENCV_TRACKERS[choice.name]}_create", None)
    if create is None:
        raise EvaluationError(
            f"OpenCV {cv2.__version__} is installed without {choice.name}: it is in opencv-contrib-python-headless, "
            "which takes the place of opencv-python-headless (best in an environment of its own)"
        )
    if choice.threads is not None:
        cv2.setNumThreads(choice.threads)
    about = {"model": f"OpenCV {cv2.__version__}, {choice.name}, {cv2.getNumThreads()} threads"}
    return OpenedTracker(OpenCVTracker(create, choice.modality), about)


def _open_static(choice: TrackerChoice) -> OpenedTracker:  # noqa: ARG001 - there is nothing to choose
    return OpenedTracker(StaticBox(), {"model": "the first box"})


OPENCV_TRACKERS = {"csrt": "TrackerCSRT", "kcf": "TrackerKCF", "mil": "TrackerMIL"}
TRACKERS: Mapping[str, Callable[[TrackerChoice], OpenedTracker]] = {
    "duotrack": _open_duotrack,
    **dict.fromkeys(OPENCV_TRACKERS, _open_opencv),
    "static": _open_static,
}
