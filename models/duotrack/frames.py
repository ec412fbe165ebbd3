"""Frame pairs: one colour and one thermal image of the same moment, either of which may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from duotrack.errors import FrameError

Image: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False, slots=True)
class FramePair:
    """One moment in colour and thermal, registered to the same pixels.

    Attributes:
        rgb: (H, W, 3) uint8 in R, G, B order, or None when the colour camera has no frame.
        thermal: (H, W) uint8, or uint16 as radiometric cameras deliver it, or None.

    Raises:
        FrameError: both are missing, or one has the wrong type or shape, is empty, or they differ in size.
    """

    rgb: NDArray[np.uint8] | None
    thermal: Image | None

    def __post_init__(self) -> None:
        if self.rgb is None and self.thermal is None:
            raise FrameError("a frame pair needs a colour frame, a thermal frame, or both; got neither")
        if self.rgb is not None:
            _require_array("colour frame", self.rgb, (np.uint8,))
            if self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
                raise FrameError(f"colour frame must have shape (height, width, 3), got {self.rgb.shape}")
        if self.thermal is not None:
            _require_array("thermal frame", self.thermal, (np.uint8, np.uint16))
            if self.thermal.ndim != 2:
                raise FrameError(f"thermal frame must have shape (height, width), got {self.thermal.shape}")
        if self.rgb is not None and self.thermal is not None and self.rgb.shape[:2] != self.thermal.shape:
            raise FrameError(
                f"colour and thermal frames must have the same size, got {_size(self.rgb)} and {_size(self.thermal)}"
            )

    @property
    def width(self) -> int:
        return int(self._any.shape[1])

    @property
    def height(self) -> int:
        return int(self._any.shape[0])

    @property
    def _any(self) -> NDArray[Any]:
        present = self.rgb if self.rgb is not None else self.thermal
        assert present is not None
        return present

    def __repr__(self) -> str:
        rgb = "missing" if self.rgb is None else "uint8"
        thermal = "missing" if self.thermal is None else self.thermal.dtype.name
        return f"FramePair({self.width}x{self.height}, rgb={rgb}, thermal={thermal})"


@dataclass(frozen=True, slots=True)
class ThermalWindow:
    """The range of 16-bit thermal values that is spread over 8 bits; kept by a session, so that nothing flickers.

    Attributes:
        low, high: raw values that become 0 and 255.
    """

    low: float
    high: float

    @classmethod
    def of(cls, thermal: NDArray[np.uint16]) -> Self:
        """The range from the 0.5th to the 99.5th percentile of a frame, widened by a tenth on either side."""
        low, high = _range(thermal)
        margin = 0.1 * (high - low)
        return cls(low - margin, high + margin)

    def follow(self, thermal: NDArray[np.uint16]) -> ThermalWindow:
        """The window for the next frame of a session.

        It stays as it is while the frame's range lies inside it and fills at least half of it: that is what keeps a
        still scene free of flicker. Else it moves a tenth of the way towards the frame's own window, slow enough that
        the target looks the same from one frame to the next; or all of the way where the two do not even overlap, as
        after a camera has calibrated anew.
        """
        low, high = _range(thermal)
        if high < self.low or low > self.high:
            return ThermalWindow.of(thermal)
        if self.low <= low and high <= self.high and high - low >= 0.5 * (self.high - self.low):
            return self
        own = ThermalWindow.of(thermal)
        return ThermalWindow(self.low + 0.1 * (own.low - self.low), self.high + 0.1 * (own.high - self.high))

    def to_uint8(self, thermal: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Raw values (…) uint16 → (…) uint8, clipped at the window's ends."""
        scaled = (thermal.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        eight_bit: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return eight_bit


def thermal_to_uint8(thermal: Image) -> NDArray[np.uint8]:
    """Thermal (H, W) with 8 bits: as it is, or, of 16, in the frame's own window."""
    if thermal.dtype == np.uint8:
        return cast("NDArray[np.uint8]", thermal)
    raw = cast("NDArray[np.uint16]", thermal)
    return ThermalWindow.of(raw).to_uint8(raw)


def _range(thermal: NDArray[np.uint16]) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of every fourth pixel in each direction, at least 16 counts apart."""
    low, high = np.percentile(thermal[::4, ::4], (0.5, 99.5))
    widening = max(0.0, 16 - (high - low)) / 2
    return float(low - widening), float(high + widening)


def _require_array(name: str, frame: object, dtypes: tuple[type, ...]) -> None:
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"{name} must be a numpy array, got {type(frame).__name__}")
    if frame.dtype not in dtypes:
        allowed = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise FrameError(f"{name} must be {allowed}, got {frame.dtype}")
    if frame.size == 0:
        raise FrameError(f"{name} is empty: shape {frame.shape}")


def _size(frame: NDArray[Any]) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"
