"""Tracking as pure steps over a frozen state, and ``Tracker``, which holds the state of one target between frames.

``init`` makes a state from the first pair and box, and ``calibrate`` learns from the network's answer to that same
pair. For every later pair, ``prepare`` cuts the search region, the network answers it, and ``update`` turns the answer
into a new state and a result. These steps are cheap and touch no network, so a service can run them where it likes and
gather network calls of many sessions into one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Self, cast

import numpy as np
from numpy.typing import NDArray

from duotrack.alignment import Alignment
from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair, resample
from duotrack.errors import FrameError, StateError
from duotrack.frames import FramePair, ThermalWindow
from duotrack.health import Fault, Health, examine
from duotrack.motion import Forecast, Motion, expect, learn
from duotrack.network import ModelSpec, Network, Prediction
from duotrack.redetection import next_place
from duotrack.state import Calibration, TrackerState

if TYPE_CHECKING:
    from pathlib import Path


EDGE = 2.0
"""Pixels from the frame's edge within which a box may be cut by it."""


class TargetState(StrEnum):
    """What a result says about the target."""

    TRACKING = "tracking"
    UNCERTAIN = "uncertain"
    LOST = "lost"
    COASTING = "coasting"


@dataclass(frozen=True, slots=True)
class TrackResult:
    """One frame's answer.

    Attributes:
        box: the target in pixels of the full frame; while coasting or lost, the best guess at where it is.
        score: confidence in [0, 1], the probability that the target is in the searched region.
        state: tracking, uncertain, coasting (not seen in the last few frames) or lost.
        faults: what is wrong with the pair's frames, and whether they were ignored for it (``duotrack.health``).
    """

    box: Box
    score: float
    state: TargetState
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """What a tracker does beyond reading the network's answer; each can be switched off.

    Attributes:
        motion: look where the target should be, by the camera's motion and its own (``duotrack.motion``).
        redetection: look for a lost target where it vanished and all over the frame (``duotrack.redetection``).
        health: ignore frames that are frozen, blank or saturated (``duotrack.health``).
        alignment: find out how far thermal lies from colour, and cut it there (``duotrack.alignment``). Off: that the
            shipped model gains from it is likely, not sure (docs/tracker.md).
    """

    motion: bool = True
    redetection: bool = True
    health: bool = True
    alignment: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SearchRegion:
    """The crop of one pair in which the target is looked for.

    Attributes:
        crop: (S, S, 4) uint8.
        present: whether the crop has colour, and thermal.
        window: where the crop lies in the frame.
        thermal_window: the 16-bit mapping after this pair.
        box: where the target is expected.
        forecast: what that rests on; None where motion is switched off.
        elsewhere: the region lies in another place, where a lost target is looked for.
        vanished: where the target was seen last, as ``TrackerState.vanished``, in this frame.
        health, alignment: after this pair; None where they are switched off.
        faults: of the pair's frames.
    """

    crop: NDArray[np.uint8]
    present: tuple[bool, bool]
    window: CropWindow
    thermal_window: ThermalWindow | None
    box: Box
    forecast: Forecast | None = None
    elsewhere: bool = False
    vanished: Box | None = None
    health: Health | None = None
    alignment: Alignment | None = None
    faults: tuple[Fault, ...] = ()


def init(
    spec: ModelSpec,
    pair: FramePair,
    box: Box,
    options: TrackerOptions = TrackerOptions(),
) -> TrackerState:
    """Start a track.

    Raises:
        BoxError: the box has its centre outside the frame.
    """
    box.require_inside(pair.width, pair.height)
    window = CropWindow.around(box, spec.template_factor, spec.template_size)
    health = Health() if options.health else None
    if health is not None:
        examined = examine(health, pair)
        health, pair = examined.health, examined.pair
    alignment = Alignment.start(pair) if options.alignment else None
    thermal_window = _follow(None, pair)
    return TrackerState(
        model=spec.name,
        box=box,
        whole=(box.w, box.h),
        width=pair.width,
        height=pair.height,
        template=_crop(pair, window, thermal_window, alignment),
        template_box=window.to_crop(box),
        template_present=(pair.rgb is not None, pair.thermal is not None),
        thermal_window=thermal_window,
        frame=1,
        motion=Motion.start(pair, thermal_window) if options.motion else None,
        redetection=options.redetection,
        health=health,
        alignment=alignment,
    )


def prepare(spec: ModelSpec, state: TrackerState, pair: FramePair) -> SearchRegion:
    """Cut the region around the box where the target is expected, or where a lost one is looked for.

    Raises:
        FrameError: the pair's size differs from that of the session's first pair.
    """
    if (pair.width, pair.height) != (state.width, state.height):
        raise FrameError(
            f"frames of this track are {state.width}x{state.height}, got {pair.width}x{pair.height}: "
            "start a new track when the size changes"
        )
    examined = None if state.health is None else examine(state.health, pair)
    pair = pair if examined is None else examined.pair
    alignment = None if state.alignment is None else state.alignment.follow(pair)
    thermal_window = _follow(state.thermal_window, pair)
    forecast = None if state.motion is None else expect(state.motion, pair, state.box, thermal_window)
    box = state.box if forecast is None else forecast.box
    vanished = state.vanished
    if vanished is not None and forecast is not None:
        vanished = _within(forecast.carried(vanished), pair)
    sought = vanished if state.redetection else None
    if sought is not None:
        # While nobody sees the target, what the network says of its size is noise, which would add up.
        box = Box.from_center(*box.center, sought.w, sought.h)
    factor = spec.search_factor_around(box)
    around, elsewhere = box, False
    if sought is not None and state.unseen >= spec.patience and state.held is None:
        frame = state.unseen - spec.patience
        around, elsewhere = next_place(box, sought, state.width, state.height, factor, frame)
    window = CropWindow.around(around, factor, spec.search_size)
    present = pair.rgb is not None, pair.thermal is not None
    return SearchRegion(
        crop=_crop(pair, window, thermal_window, alignment),
        present=present,
        window=window,
        thermal_window=thermal_window,
        box=box,
        forecast=forecast,
        elsewhere=elsewhere,
        vanished=vanished,
        health=None if examined is None else examined.health,
        alignment=alignment,
        faults=() if examined is None else examined.faults,
    )


def update(
    spec: ModelSpec, state: TrackerState, region: SearchRegion, prediction: Prediction
) -> tuple[TrackerState, TrackResult]:
    """Read the network's answer (of batch size one) to ``region``.

    As in OSTrack, the score map is weighed with a Hann window, the box is read at its peak, and keeps at least 10
    pixels inside the frame. Beyond OSTrack, the box is corrected by the state's calibration, and its size changes by
    ``size_rate`` of what the network says: a size that is wrong makes the next crop wrong, and the error grows.

    Below ``lost_below`` the target counts as not seen: the track coasts for ``patience`` frames, and then is lost until
    the target is seen again. What turns up elsewhere (``duotrack.redetection``) must be above ``found_above``, there
    and in the next frame around it, for look-alikes are many and the target is one. The box still goes where the
    network's best guess is, which is right more often than not, except below ``hold_below``: following noise would
    carry the search region away. With re-detection, its size stays what it was.
    """
    given = float(prediction.presence[0])
    presence = probability(given, spec)
    confirming = state.held is not None
    likely = presence >= (spec.found_above if region.elsewhere or confirming else spec.lost_below)
    seen = likely and not region.elsewhere
    unseen = 0 if seen else state.unseen + 1
    box, held = region.box, None
    motion = None if region.forecast is None else region.forecast.motion.slowed()
    if likely or (given >= spec.hold_below and not region.elsewhere and not confirming):
        found = state.calibration.correct(best_box(prediction, region.window, windowed=not region.elsewhere))
        rate = spec.size_rate if seen or not state.redetection else 0.0
        box = follow_size(region.box, found, rate).clip(state.width, state.height)
        if region.forecast is not None and likely:
            motion = learn(region.forecast, box, moved_on=not region.elsewhere and not confirming)
        held = region.box if region.elsewhere else None
    elif state.held is not None:
        box = state.held
    if unseen:
        target = TargetState.LOST if unseen >= spec.patience else TargetState.COASTING
    else:
        target = TargetState.TRACKING if presence >= spec.uncertain_below else TargetState.UNCERTAIN
    sure = target is TargetState.TRACKING and not _is_cut(box, state)
    after = replace(
        state,
        box=box,
        thermal_window=region.thermal_window,
        frame=state.frame + 1,
        motion=motion,
        unseen=unseen,
        whole=(box.w, box.h) if sure else state.whole,
        vanished=None if seen else region.vanished or Box.from_center(*region.box.center, *state.whole),
        held=held,
        health=region.health,
        alignment=region.alignment,
    )
    shown = (held or box).clip(state.width, state.height)  # what is not confirmed yet does not show
    return after, TrackResult(shown, presence, target, region.faults)


def probability(presence: float, spec: ModelSpec) -> float:
    """The probability that goes with the network's presence, by the model's calibration."""
    if (spec.presence_scale, spec.presence_bias) == (1.0, 0.0):
        return presence
    inside = min(max(presence, 1e-6), 1 - 1e-6)
    logit = spec.presence_scale * math.log(inside / (1 - inside)) + spec.presence_bias
    return 1 / (1 + math.exp(-logit))


def calibrate(state: TrackerState, region: SearchRegion, prediction: Prediction) -> TrackerState:
    """Learn from the first frame, whose box is known: ``region`` and ``prediction`` are of that same frame."""
    return replace(state, calibration=Calibration.between(best_box(prediction, region.window), state.box))


def follow_size(last: Box, found: Box, rate: float) -> Box:
    """``found`` with a size between the last one's (rate 0) and its own (rate 1), in logarithms."""
    w = last.w * (found.w / last.w) ** rate
    h = last.h * (found.h / last.h) ** rate
    return Box.from_center(*found.center, w, h)


def best_box(prediction: Prediction, window: CropWindow, *, windowed: bool = True) -> Box:
    """The box around the peak of the score map, in frame pixels; ``windowed`` weighs places near the middle more.

    It is the mean of the boxes of the peak and the cells next to it, weighed by their scores' squares. OSTrack takes
    the peak's alone; but each of these cells was trained to give the whole box, and their errors are not the same.
    """
    scores = prediction.score_map[0].astype(np.float64)
    if windowed:
        scores = scores * hann_window(scores.shape[0])
    row, column = np.unravel_index(np.argmax(scores), scores.shape)
    rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
    weights = scores[rows, columns] ** 2 + 1e-12  # a map of zeros has a box, too
    boxes = prediction.box_map[0, :, rows, columns]
    return window.to_frame(*((boxes * weights).sum((1, 2)) / weights.sum()).tolist())


@cache
def hann_window(size: int) -> NDArray[np.float32]:
    """(size, size) float32: the product of two Hann windows whose zeros lie one cell outside, as in OSTrack."""
    positions = np.arange(1, size + 1)
    single = 0.5 * (1 - np.cos(2 * np.pi * positions / (size + 1)))
    return np.outer(single, single).astype(np.float32)


def _is_cut(box: Box, state: TrackerState) -> bool:
    """Whether the box is at the frame's edge, and may show but a part of the target."""
    return min(box.x, box.y) <= EDGE or box.x + box.w >= state.width - EDGE or box.y + box.h >= state.height - EDGE


def _within(place: Box, pair: FramePair) -> Box:
    """``place`` with its centre in the frame."""
    cx, cy = place.center
    return Box.from_center(min(max(cx, 0.0), pair.width), min(max(cy, 0.0), pair.height), place.w, place.h)


def _crop(
    pair: FramePair, window: CropWindow, thermal_window: ThermalWindow | None, alignment: Alignment | None
) -> NDArray[np.uint8]:
    """``crop_pair``, with thermal cut where the alignment says that it shows what colour shows in ``window``."""
    beside = window if alignment is None else alignment.to_thermal(window)
    if pair.thermal is None or beside == window:
        return crop_pair(pair, window, thermal_window)
    crop = crop_pair(FramePair(None, pair.thermal), beside, thermal_window)
    if pair.rgb is not None:
        crop[..., :3] = resample(pair.rgb, window)
    return crop


def _follow(window: ThermalWindow | None, pair: FramePair) -> ThermalWindow | None:
    if pair.thermal is None or pair.thermal.dtype != np.uint16:
        return window
    raw = cast("NDArray[np.uint16]", pair.thermal)
    return ThermalWindow.of(raw) if window is None else window.follow(raw)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A target as it was last seen. A step makes a new one and leaves this as it is.

    Attributes:
        state: all that must be stored to go on later.
        features: (1, ...) float32, the network's features of the state's template; they follow from it.
    """

    state: TrackerState
    features: NDArray[np.float32]


def start(
    network: Network, pair: FramePair, box: Box, options: TrackerOptions = TrackerOptions()
) -> tuple[Track, TrackResult]:
    """Start a track on ``box`` of ``pair``, in pixels; the result is that box with score 1.

    Raises:
        BoxError: the box has its centre outside the frame.
    """
    state = init(network.spec, pair, box, options)
    features = network.encode(state.to_template())
    region = prepare(network.spec, state, pair)
    answer = network.search(region.crop[None], np.array([region.present], np.float32), features)
    result = TrackResult(box, 1.0, TargetState.TRACKING, region.faults)
    return Track(calibrate(state, region, answer), features), result


def resume(network: Network, state: TrackerState) -> Track:
    """Go on from a stored state.

    Raises:
        StateError: the state comes from another model.
    """
    if state.model != network.spec.name:
        raise StateError(f"the state comes from model {state.model!r}, this tracker runs {network.spec.name!r}")
    return Track(state, network.encode(state.to_template()))


def advance(network: Network, work: Sequence[tuple[Track, SearchRegion]]) -> list[tuple[Track, TrackResult]]:
    """A step of each track, whose search region ``prepare`` has cut, in one batch of the network. ``work`` has one item
    at least.
    """
    answers = network.search(
        np.stack([region.crop for _, region in work]),
        np.array([region.present for _, region in work], np.float32),
        np.concatenate([track.features for track, _ in work]),
    )
    moved = []
    for index, (track, region) in enumerate(work):
        row = slice(index, index + 1)
        answer = Prediction(answers.score_map[row], answers.box_map[row], answers.presence[row])
        state, result = update(network.spec, track.state, region, answer)
        moved.append((Track(state, track.features), result))
    return moved


class Tracker:
    """Follows one target. Not for use from several threads at once; many trackers may share one network.

    >>> tracker = Tracker.open()
    >>> tracker.init(first_pair, Box(120, 80, 40, 90))
    >>> result = tracker.update(next_pair)
    """

    def __init__(self, network: Network, options: TrackerOptions = TrackerOptions()) -> None:
        self._network = network
        self._options = options
        self._track: Track | None = None

    @classmethod
    def open(cls, model: str | Path | None = None, *, provider: str | None = None, threads: int | None = None) -> Self:
        """A tracker on an ONNX model: a shipped name such as ``student-s``, or a path to an exported model.

        Args:
            provider: the execution provider to insist on; by default the fastest that is there (see ``engine``).
            threads: inference threads; by default as many as there are cores.

        Raises:
            ModelError: the model does not exist or cannot run.
        """
        from duotrack.engine import Engine

        return cls(Engine.open(model, provider=provider, threads=threads))

    @property
    def network(self) -> Network:
        return self._network

    @property
    def state(self) -> TrackerState:
        """The current state, to be stored and given to ``resume``.

        Raises:
            StateError: the track has not been started.
        """
        return self._started.state

    def init(self, pair: FramePair, box: Box) -> TrackResult:
        """Start (or start anew) on ``box`` of ``pair``, in pixels; the result is that box with score 1.

        Raises:
            BoxError: the box has its centre outside the frame.
        """
        self._track, result = start(self._network, pair, box, self._options)
        return result

    def resume(self, state: TrackerState) -> None:
        """Go on from a stored state.

        Raises:
            StateError: the state comes from another model.
        """
        self._track = resume(self._network, state)

    def update(self, pair: FramePair) -> TrackResult:
        """Find the target in the next pair.

        Raises:
            StateError: the track has not been started.
            FrameError: the pair's size differs from that of the first pair.
        """
        track = self._started
        region = prepare(self._network.spec, track.state, pair)
        ((self._track, result),) = advance(self._network, [(track, region)])
        return result

    @property
    def _started(self) -> Track:
        if self._track is None:
            raise StateError("the track has not been started: call init(pair, box) first")
        return self._track
