"""How the two images of a frame pair are encoded."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Codec(IntEnum):
    """The encoding of one image, a byte of the frame header.

    ``NONE`` marks a missing modality. The raw codecs are a width and a height (u16 each, little-endian) and then
    the samples, row by row from the top: R, G, B interleaved for colour, one sample per pixel for thermal,
    16-bit samples little-endian. ``ZSTD_DELTA16`` is that of ``duotrack_client.protocol.delta16``.
    """

    NONE = 0
    JPEG8 = 1
    PNG8 = 2
    PNG16 = 3
    RAW8 = 4
    RAW16 = 5
    ZSTD_DELTA16 = 6

    @property
    def depth(self) -> int:
        """Bits per sample."""
        return 16 if self in (Codec.PNG16, Codec.RAW16, Codec.ZSTD_DELTA16) else 8

    @property
    def label(self) -> str:
        """The name in ``hello`` and in messages, such as ``jpeg8`` or ``zstd-delta16``."""
        return self.name.lower().replace("_", "-")


RGB_CODECS: Final = frozenset({Codec.JPEG8, Codec.PNG8, Codec.RAW8})
THERMAL_CODECS: Final = frozenset(Codec) - {Codec.NONE}
