"""Tracking as pure steps over a frozen state, and ``Tracker``, which holds the state of one target between frames.

``init`` makes a state from the first pair and box, and ``calibrate`` learns from the network's answer to that same
pair. For every later pair, ``prepare`` cuts the search region, the network answers it, and ``update`` turns the answer
into a new state and a result. These steps are cheap and touch no network, so a service can run them where it likes and
gather network calls of many sessions into one batch.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from duotrack.alignment import Alignment
from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair, resample
from duotrack.errors import FrameError, StateError
from duotrack.frames import FramePair, ThermalWindow
from duotrack.health import Fault, Health, LastFrame, examine
from duotrack.motion import Forecast, Motion, expect, learn
from duotrack.network import ModelSpec, Network, Prediction, Template
from duotrack.redetection import next_place, sweeps

if TYPE_CHECKING:
    from pathlib import Path

STATE_VERSION = 3
_STATE_MAGIC = b"DTST"


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
class Calibration:
    """How the network's boxes differ from what the user calls the target, measured on the first frame.

    A user may leave out a rider's horse or take in a shadow, and a network has habits of its own with small or slender
    things. On the first frame the true box is known: the difference there is taken off every later box.

    Attributes:
        dx, dy: predicted minus true centre, in units of the true width and height.
        log_w, log_h: logarithm of predicted over true width and height.
    """

    dx: float = 0.0
    dy: float = 0.0
    log_w: float = 0.0
    log_h: float = 0.0

    @classmethod
    def between(cls, predicted: Box, true: Box) -> Self:
        """The difference of two boxes of the same frame; none where they hardly overlap, for then it means nothing."""
        if predicted.iou(true) < 0.3:
            return cls()
        (px, py), (tx, ty) = predicted.center, true.center
        return cls(
            (px - tx) / true.w, (py - ty) / true.h, math.log(predicted.w / true.w), math.log(predicted.h / true.h)
        )

    def correct(self, predicted: Box) -> Box:
        """The box that the user would have drawn where the network drew ``predicted``."""
        w, h = predicted.w * math.exp(-self.log_w), predicted.h * math.exp(-self.log_h)
        cx, cy = predicted.center
        return Box.from_center(cx - self.dx * w, cy - self.dy * h, w, h)

    @property
    def values(self) -> tuple[float, float, float, float]:
        return self.dx, self.dy, self.log_w, self.log_h


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """What a tracker does beyond reading the network's answer; each can be switched off.

    Attributes:
        motion: look where the target should be, by the camera's motion and its own (``duotrack.motion``).
        redetection: look for a lost target all over the frame (``duotrack.redetection``). Off: the shipped model takes
            look-alikes for the target too often for this to help (docs/tracker.md).
        health: ignore frames that are frozen, blank or saturated (``duotrack.health``).
        alignment: find out how far thermal lies from colour, and cut it there (``duotrack.alignment``). Off: that the
            shipped model gains from it is likely, not sure (docs/tracker.md).
    """

    motion: bool = True
    redetection: bool = False
    health: bool = True
    alignment: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """All that a session must remember, small enough to store after every frame (64 KiB of template, 28 of thumbnail).

    Attributes:
        model: name of the model that the track was started with.
        box: the target in the last frame, in pixels.
        width, height: size of the session's frames in pixels.
        template: (S, S, 4) uint8 crop around the first box.
        template_box: centre and size of the first box in units of the template crop's side.
        template_present: whether the template has colour, and thermal.
        thermal_window: how 16-bit thermal maps to 8 bits; None until a 16-bit frame has been seen.
        frame: number of pairs seen, the first included.
        calibration: what is taken off the network's boxes.
        motion: of camera and target; None where it is switched off.
        unseen: frames in a row, up to the last, in which the target was not seen.
        redetection: whether a lost target is looked for all over the frame.
        last_seen: the box of the last frame in which the target was seen; None until one is after the first.
        held: where a lost target was expected before something like it turned up at ``box``, which the next frame must
            confirm; None otherwise.
        health: of the cameras; None where it is switched off.
        alignment: of thermal with colour; None where it is switched off, or was not clear in the first pair.
    """

    model: str
    box: Box
    width: int
    height: int
    template: NDArray[np.uint8]
    template_box: tuple[float, float, float, float]
    template_present: tuple[bool, bool]
    thermal_window: ThermalWindow | None
    frame: int
    calibration: Calibration = Calibration()
    motion: Motion | None = None
    unseen: int = 0
    redetection: bool = False
    last_seen: Box | None = None
    held: Box | None = None
    health: Health | None = None
    alignment: Alignment | None = None

    def to_bytes(self) -> bytes:
        """A self-contained, versioned form: magic, version, length of a JSON record, the record, pixels.

        The pixels are those of the template and, where there is motion, of its thumbnail.
        """
        motion, health, alignment = self.motion, self.health, self.alignment
        record = {
            "model": self.model,
            "box": self.box.xywh,
            "size": [self.width, self.height],
            "template_shape": self.template.shape,
            "template_box": self.template_box,
            "template_present": self.template_present,
            "thermal_window": None
            if self.thermal_window is None
            else [self.thermal_window.low, self.thermal_window.high],
            "frame": self.frame,
            "calibration": self.calibration.values,
            "motion": None
            if motion is None
            else [motion.thumbnail.shape, motion.source, motion.velocity, motion.errors],
            "unseen": self.unseen,
            "redetection": self.redetection,
            "last_seen": None if self.last_seen is None else self.last_seen.xywh,
            "held": None if self.held is None else self.held.xywh,
            "health": None if health is None else [_last_frame_record(health.rgb), _last_frame_record(health.thermal)],
            "alignment": None if alignment is None else [alignment.offset, alignment.estimate, alignment.wait],
        }
        header = json.dumps(record, separators=(",", ":")).encode()
        pixels = self.template.tobytes() + (b"" if motion is None else motion.thumbnail.tobytes())
        return _STATE_MAGIC + struct.pack("<HI", STATE_VERSION, len(header)) + header + pixels

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Restore what ``to_bytes`` wrote. Runs no code from the data.

        Raises:
            StateError: the data is no state, is damaged, or has another version.
        """
        if data[:4] != _STATE_MAGIC or len(data) < 10:
            raise StateError("not a tracker state: it does not start with DTST")
        version, length = struct.unpack_from("<HI", data, 4)
        if version != STATE_VERSION:
            raise StateError(f"tracker state has version {version}, this DuoTrack reads version {STATE_VERSION}")
        try:
            record: dict[str, Any] = json.loads(data[10 : 10 + length])
            _check_record(record)
            window = record["thermal_window"]
            width, height = record["size"]
            template_shape = tuple(record["template_shape"])
            pixels = np.frombuffer(data[10 + length :], np.uint8)
            split = math.prod(template_shape)
            return cls(
                model=record["model"],
                box=Box(*record["box"]),
                width=width,
                height=height,
                template=pixels[:split].reshape(template_shape).copy(),
                template_box=tuple(record["template_box"]),
                template_present=tuple(record["template_present"]),
                thermal_window=None if window is None else ThermalWindow(*window),
                frame=record["frame"],
                calibration=Calibration(*record["calibration"]),
                motion=_read_motion(record["motion"], pixels[split:]),
                unseen=record["unseen"],
                redetection=record["redetection"],
                last_seen=None if record["last_seen"] is None else Box(*record["last_seen"]),
                held=None if record["held"] is None else Box(*record["held"]),
                health=_read_health(record["health"]),
                alignment=_read_alignment(record["alignment"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StateError(f"tracker state is damaged: {error}") from error

    def to_template(self) -> Template:
        """The network's template input for this one session."""
        return Template(
            self.template[None],
            np.array([self.template_present], np.float32),
            np.array([self.template_box], np.float32),
        )


def _read_motion(record: list[Any] | None, pixels: NDArray[np.uint8]) -> Motion | None:
    if record is None:
        if pixels.size:
            raise ValueError(f"{pixels.size} bytes are left over")
        return None
    shape, source, (vx, vy), (image, ground, pace) = record
    return Motion(pixels.reshape(shape).copy(), source, (vx, vy), (image, ground, pace))


def _last_frame_record(last: LastFrame | None) -> list[Any] | None:
    return None if last is None else [last.fingerprint, last.repeats, last.frozen]


def _read_health(record: list[Any] | None) -> Health | None:
    return None if record is None else Health(*(None if last is None else LastFrame(*last) for last in record))


def _read_alignment(record: list[Any] | None) -> Alignment | None:
    if record is None:
        return None
    (dx, dy), estimate, wait = record
    return Alignment((dx, dy), None if estimate is None else (estimate[0], estimate[1]), wait)


def _check_record(record: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where a value of a stored state could not have been written by us."""
    window, shape = record["thermal_window"], record["template_shape"]
    fits = {
        "model": isinstance(record["model"], str),
        "box": _are(record["box"], 4, (int, float)),
        "size": _are(record["size"], 2, int) and min(record["size"]) >= 1,
        "template_shape": _are(shape, 3, int) and shape[0] == shape[1] and shape[2] == 4,
        "template_box": _are(record["template_box"], 4, (int, float))
        and all(map(math.isfinite, record["template_box"])),
        "template_present": _are(record["template_present"], 2, bool),
        "thermal_window": window is None
        or (_are(window, 2, (int, float)) and -math.inf < window[0] < window[1] < math.inf),
        "frame": _are([record["frame"]], 1, int) and record["frame"] >= 1,
        "unseen": _are([record["unseen"]], 1, int) and record["unseen"] >= 0,
        "redetection": isinstance(record["redetection"], bool),
        "last_seen": record["last_seen"] is None or _are(record["last_seen"], 4, (int, float)),
        "held": record["held"] is None or _are(record["held"], 4, (int, float)),
        "calibration": _are(record["calibration"], 4, (int, float)) and all(abs(v) < 10 for v in record["calibration"]),
        "motion": record["motion"] is None or _is_motion(record["motion"]),
        "health": record["health"] is None or _is_health(record["health"]),
        "alignment": record["alignment"] is None or _is_alignment(record["alignment"]),
    }
    wrong = [name for name, fine in fits.items() if not fine]
    if wrong:
        raise ValueError(f"{wrong[0]} is {record[wrong[0]]!r}")


def _is_motion(motion: Any) -> bool:
    if not isinstance(motion, list) or len(motion) != 4:
        return False
    shape, source, velocity, errors = motion
    return (
        _are(shape, 2, int)
        and min(shape) >= 1
        and source in ("rgb", "thermal")
        and _are(velocity, 2, (int, float))
        and _are(errors, 3, (int, float))
        and all(abs(v) < 1e9 for v in (*velocity, *errors))
    )


def _is_health(health: Any) -> bool:
    return (
        isinstance(health, list)
        and len(health) == 2
        and all(
            last is None
            or (isinstance(last, list) and _are(last[:2], 2, int) and min(last[:2]) >= 0 and _are(last[2:], 1, bool))
            for last in health
        )
    )


def _is_alignment(alignment: Any) -> bool:
    if not isinstance(alignment, list) or len(alignment) != 3:
        return False
    *offsets, wait = alignment
    if offsets[1] is None:
        offsets.pop()
    return (
        all(_are(offset, 2, (int, float)) and all(abs(v) < 1e6 for v in offset) for offset in offsets)
        and _are([wait], 1, int)
        and wait >= 0
    )


def _are(values: Any, count: int, kind: type | tuple[type, ...]) -> bool:
    """Whether ``values`` is a list of ``count`` values of ``kind``; a bool is no number."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for value in values)


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
        sweeping: the region lies elsewhere, where a lost target is looked for.
        health, alignment: after this pair; None where they are switched off.
        faults: of the pair's frames.
    """

    crop: NDArray[np.uint8]
    present: tuple[bool, bool]
    window: CropWindow
    thermal_window: ThermalWindow | None
    box: Box
    forecast: Forecast | None = None
    sweeping: bool = False
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
    around, sweeping = box, False
    if state.redetection and state.unseen >= spec.patience and state.held is None:
        frame = state.unseen - spec.patience
        if sweeps(frame) and state.last_seen is not None:
            # While nobody sees it, the box wanders in size as well: a sweep looks for what was there last.
            box = Box.from_center(*box.center, state.last_seen.w, state.last_seen.h)
        around, sweeping = next_place(box, state.width, state.height, spec.search_factor, frame)
    window = CropWindow.around(around, spec.search_factor, spec.search_size)
    present = pair.rgb is not None, pair.thermal is not None
    return SearchRegion(
        crop=_crop(pair, window, thermal_window, alignment),
        present=present,
        window=window,
        thermal_window=thermal_window,
        box=box,
        forecast=forecast,
        sweeping=sweeping,
        health=None if examined is None else examined.health,
        alignment=alignment,
        faults=() if examined is None else examined.faults,
    )


def update(
    spec: ModelSpec, state: TrackerState, region: SearchRegion, prediction: Prediction
) -> tuple[TrackerState, TrackResult]:
    """Read the network's answer (of batch size one) to ``region``.

    As in OSTrack, the score map is weighed with a Hann window, the peak's box is taken, and the box keeps at least 10
    pixels inside the frame. Beyond OSTrack, the box is corrected by the state's calibration, and its size changes by
    ``size_rate`` of what the network says: a size that is wrong makes the next crop wrong, and the error grows.

    Below ``lost_below`` the target counts as not seen: the track coasts for ``patience`` frames, and then is lost until
    the target is seen again. What turns up in a sweep (``duotrack.redetection``) must be above ``found_above``, there
    and in the next frame around it, for look-alikes are many and the target is one. The box still goes where the
    network's best guess is, which is right more often than not, except below ``hold_below``: following noise would
    carry the search region away from where the target vanished.
    """
    given = float(prediction.presence[0])
    presence = probability(given, spec)
    confirming = state.held is not None
    likely = presence >= (spec.found_above if region.sweeping or confirming else spec.lost_below)
    seen = likely and not region.sweeping
    unseen = 0 if seen else state.unseen + 1
    box, motion = region.box, None if region.forecast is None else region.forecast.motion
    expected, held = state.box if region.forecast is None else region.forecast.box, None
    if likely or (given >= spec.hold_below and not region.sweeping and not confirming):
        found = state.calibration.correct(best_box(prediction, region.window, windowed=not region.sweeping))
        box = follow_size(region.box, found, spec.size_rate).clip(state.width, state.height)
        if region.forecast is not None:
            motion = learn(region.forecast, box, moved_on=not region.sweeping and not confirming)
        held = expected if region.sweeping else None
    elif region.sweeping or state.held is not None:
        box = state.held or expected
    if unseen:
        target = TargetState.LOST if unseen >= spec.patience else TargetState.COASTING
    else:
        target = TargetState.TRACKING if presence >= spec.uncertain_below else TargetState.UNCERTAIN
    after = replace(
        state,
        box=box,
        thermal_window=region.thermal_window,
        frame=state.frame + 1,
        motion=motion,
        unseen=unseen,
        last_seen=box if seen else state.last_seen or state.box,
        held=held,
        health=region.health,
        alignment=region.alignment,
    )
    # What is not confirmed yet does not show.
    return after, TrackResult(held or box, presence, target, region.faults)


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
    """The box at the peak of the score map, in frame pixels; ``windowed`` weighs places near the middle more."""
    scores = prediction.score_map[0]
    weights = hann_window(scores.shape[0]) if windowed else 1.0
    row, column = np.unravel_index(np.argmax(scores * weights), scores.shape)
    cx, cy, w, h = prediction.box_map[0, :, row, column].tolist()
    return window.to_frame(cx, cy, w, h)


@cache
def hann_window(size: int) -> NDArray[np.float32]:
    """(size, size) float32: the product of two Hann windows whose zeros lie one cell outside, as in OSTrack."""
    positions = np.arange(1, size + 1)
    single = 0.5 * (1 - np.cos(2 * np.pi * positions / (size + 1)))
    return np.outer(single, single).astype(np.float32)


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


class Tracker:
    """Follows one target. Not for use from several threads at once; many trackers may share one network.

    >>> tracker = Tracker.open()
    >>> tracker.init(first_pair, Box(120, 80, 40, 90))
    >>> result = tracker.update(next_pair)
    """

    def __init__(self, network: Network, options: TrackerOptions = TrackerOptions()) -> None:
        self._network = network
        self._options = options
        self._state: TrackerState | None = None
        self._features: NDArray[np.float32] | None = None

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
        if self._state is None:
            raise StateError("the track has not been started: call init(pair, box) first")
        return self._state

    def init(self, pair: FramePair, box: Box) -> TrackResult:
        """Start (or start anew) on ``box`` of ``pair``, in pixels; the result is that box with score 1.

        Raises:
            BoxError: the box has its centre outside the frame.
        """
        state = init(self._network.spec, pair, box, self._options)
        features = self._network.encode(state.to_template())
        region = prepare(self._network.spec, state, pair)
        self._state = calibrate(state, region, self._search(region, features))
        self._features = features
        return TrackResult(box, 1.0, TargetState.TRACKING, region.faults)

    def resume(self, state: TrackerState) -> None:
        """Go on from a stored state.

        Raises:
            StateError: the state comes from another model.
        """
        if state.model != self._network.spec.name:
            raise StateError(
                f"the state comes from model {state.model!r}, this tracker runs {self._network.spec.name!r}"
            )
        self._features = self._network.encode(state.to_template())
        self._state = state

    def update(self, pair: FramePair) -> TrackResult:
        """Find the target in the next pair.

        Raises:
            StateError: the track has not been started.
            FrameError: the pair's size differs from that of the first pair.
        """
        state, spec = self.state, self._network.spec
        assert self._features is not None
        region = prepare(spec, state, pair)
        self._state, result = update(spec, state, region, self._search(region, self._features))
        return result

    def _search(self, region: SearchRegion, features: NDArray[np.float32]) -> Prediction:
        return self._network.search(region.crop[None], np.array([region.present], np.float32), features)
