"""What an evaluation found, as records that are stored as JSON, printed, and drawn in a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from duotrack.data.whole_file import whole_file
from duotrack.errors import SourceError

Curve = NDArray[np.float64]
FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Shares of frames, in [0, 1], over the thresholds of ``Axes``.

    Attributes:
        precision: (P,) frames whose centre error is within each distance.
        success: (S,) frames whose overlap is above each threshold.
        normalised: (N,) as precision, in units of the true box; None where the set's papers do not use it.
    """

    precision: Curve
    success: Curve
    normalised: Curve | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The thresholds of the curves: pixels, overlaps, and shares of the true box's size."""

    precision: Curve
    success: Curve
    normalised: Curve | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SequenceScore:
    """One sequence's result.

    Attributes:
        frames: how many frames were scored.
        headline: the set's figures for this sequence alone, as ``{"PR": 0.71, "SR": 0.57}``.
        overlap: mean IoU over the frames in which the target is there.
        attributes: the set's challenge attributes of the sequence.
        notes: what was mended on reading, as a line too many.
    """

    name: str
    frames: int
    headline: Mapping[str, float]
    curves: Curves
    overlap: float
    attributes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds a pair, measured while the results were made.

    Attributes:
        p50, p99: of reading and tracking together, per pair after the first.
        read_p50: of reading the two frames and decoding them; of drawing them where ``drawn``.
        track_p50, track_p99: of cutting the crops, the network, and the update.
        pairs: how many pairs that is.
        drawn: the frames were generated, not decoded: p50 and p99 are of tracking alone.
        processes: trackers that ran at the same time; with more than one, they slowed each other.
    """

    p50: float
    p99: float
    read_p50: float
    track_p50: float
    track_p99: float
    pairs: int
    drawn: bool
    processes: int


@dataclass(frozen=True, slots=True)
class LossReports:
    """How a tracker that says when it has lost the target does so. Shares are in [0, 1]; None where there was no case.

    Attributes:
        losses: times that the target vanished.
        reported: share of them that were reported at all before the target came back.
        delay: median frames from vanishing to the report, of those reported.
        within_10: share reported within 10 frames.
        false_alarms: share of frames with a visible target, after the first, that were reported as lost.
        missed: share of frames in which the box is off a visible target (IoU 0) without the tracker saying so.
        returns: times that the target came back.
        found_within_30: share of returns after which the box was on the target (IoU ≥ 0.5) again within 30 frames.
        unfounded: share of frames with a visible target, after the first, that were reported as lost although the box
            was on the target (IoU ≥ 0.5); in the other false alarms it was off. None in scores from before this was
            counted.
    """

    losses: int
    reported: float | None
    delay: float | None
    within_10: float | None
    false_alarms: float | None
    missed: float | None
    returns: int
    found_within_30: float | None
    unfounded: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkScore:
    """A tracker's result on a benchmark.

    Attributes:
        benchmark: with its version and split, as in ``lasher test`` or ``synthetic 1``.
        tracker: label in tables and plots.
        headline: the figures that papers print, as ``{"PR": 0.714, "NPR": 0.68, "SR": 0.567}``.
        curves: means over the sequences (over the frames for GTOT).
        attributes: the headline over each attribute's sequences, in the set's order, and their number as ``count``.
        about: what ran and where, as named lines: tracker, provider, hardware, versions.
        notes: what the figures must be read with, as ``thermal is synthetic``.
    """

    benchmark: str
    tracker: str
    headline: Mapping[str, float]
    axes: Axes
    curves: Curves
    sequences: tuple[SequenceScore, ...]
    attributes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    speed: Speed | None = None
    loss_reports: LossReports | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"format": FORMAT, **_plain(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What ``to_record`` gave.

        Raises:
            ValueError: a field is missing or unknown, or the format is another.
        """
        fields = _fields(record, "scores")
        try:
            fields["axes"] = Axes(**_arrays(fields["axes"]))
            fields["curves"] = Curves(**_arrays(fields["curves"]))
            fields["sequences"] = tuple(_sequence(entry) for entry in fields["sequences"])
            fields["notes"] = tuple(fields["notes"])
            fields["speed"] = fields["speed"] and Speed(**fields["speed"])
            fields["loss_reports"] = fields["loss_reports"] and LossReports(**fields["loss_reports"])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these are no scores of this version of DuoTrack: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class RobustnessCurve:
    """One tracker's success AUC on a benchmark whose frames were made worse, more and more.

    Attributes:
        corruption: what was done, as ``thermal noise``.
        unit: of the severities, as ``px`` or ``grey levels``.
        severities: (N,) ascending; the unchanged benchmark is not among them.
        success: (N,) success AUC at each severity.
        clean: success AUC on the unchanged benchmark.
        loss_reports: at each severity, None where the tracker does not say when it is lost.
    """

    benchmark: str
    tracker: str
    corruption: str
    unit: str
    severities: tuple[float, ...]
    success: tuple[float, ...]
    clean: float
    loss_reports: tuple[LossReports | None, ...]

    def to_record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"format": FORMAT, **_plain(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """What ``to_record`` gave.

        Raises:
            ValueError: a field is missing or unknown, or the format is another.
        """
        fields = _fields(record, "a robustness curve")
        try:
            fields |= {name: tuple(fields[name]) for name in ("severities", "success")}
            fields["loss_reports"] = tuple(entry and LossReports(**entry) for entry in fields["loss_reports"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no robustness curve of this version of DuoTrack: {error}") from error


def write_json(path: Path, record: Any) -> None:
    """Write ``record`` whole, or leave what was there.

    Raises:
        SourceError: it cannot be written.
    """
    with whole_file(path) as file:
        file.write(json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote.

    Raises:
        SourceError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error


def _fields(record: Any, kind: str) -> dict[str, Any]:
    """What a record holds besides its format, which must be ours."""
    if not isinstance(record, Mapping):
        raise ValueError(f"expected {kind} as a JSON object, got {type(record).__name__}")
    if record.get("format") != FORMAT:
        raise ValueError(f"expected {kind} of format {FORMAT}, got {record.get('format')!r}")
    return {name: value for name, value in record.items() if name != "format"}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [round(float(entry), 6) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value


def _arrays(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else np.array(value, np.float64) for name, value in record.items()}


def _sequence(record: Mapping[str, Any]) -> SequenceScore:
    changed = {
        "curves": Curves(**_arrays(record["curves"])),
        "attributes": tuple(record["attributes"]),
        "notes": tuple(record["notes"]),
    }
    return SequenceScore(**{**record, **changed})
