"""What a track remembers between frames, and its form for storage: versioned, self-contained, never pickled."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from duotrack.alignment import Alignment
from duotrack.boxes import Box
from duotrack.errors import StateError
from duotrack.frames import ThermalWindow
from duotrack.health import Health, LastFrame
from duotrack.motion import Motion
from duotrack.network import Template

STATE_VERSION = 4
_STATE_MAGIC = b"DTST"


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


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """All that a session must remember, small enough to store after every frame (64 KiB of template, 28 of thumbnail).

    Attributes:
        model: name of the model that the track was started with.
        box: the target in the last frame, in pixels.
        whole: its width and height when it was last seen well, and not cut by the frame's edge.
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
        vanished: where the target was seen last, moved along with the camera, and its ``whole`` size; None while it is
            seen.
        held: where a lost target was expected before something like it turned up at ``box``, which the next frame must
            confirm; None otherwise.
        health: of the cameras; None where it is switched off.
        alignment: of thermal with colour; None where it is switched off, or was not clear in the first pair.
    """

    model: str
    box: Box
    whole: tuple[float, float]
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
    vanished: Box | None = None
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
            "whole": self.whole,
            "vanished": None if self.vanished is None else self.vanished.xywh,
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
                whole=(record["whole"][0], record["whole"][1]),
                vanished=None if record["vanished"] is None else Box(*record["vanished"]),
                held=None if record["held"] is None else Box(*record["held"]),
                health=_read_health(record["health"]),
                alignment=_read_alignment(record["alignment"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StateError(f"tracker state is damaged: {error}") from error

    def with_redetection(self, on: bool) -> Self:
        """The same, which from now on looks for a lost target all over the frame, or does not."""
        return replace(self, redetection=on)

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
        "whole": _are(record["whole"], 2, (int, float)) and min(record["whole"]) > 0,
        "vanished": record["vanished"] is None or _are(record["vanished"], 4, (int, float)),
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
