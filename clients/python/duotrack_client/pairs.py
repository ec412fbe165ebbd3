"""Frame pairs on the client's side: whatever has a colour and a thermal array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]


class PairLike(Protocol):
    """Anything with the two images of one moment, such as ``Pair`` or ``duotrack.FramePair``."""

    @property
    def rgb(self) -> NDArray[Any] | None: ...
    @property
    def thermal(self) -> NDArray[Any] | None: ...


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """One moment in colour and thermal, either of which may be missing.

    Attributes:
        rgb: (H, W, 3) uint8 in R, G, B order, or None.
        thermal: (H, W) uint8 or uint16, or None.
    """

    rgb: NDArray[np.uint8] | None = None
    thermal: Image | None = None
