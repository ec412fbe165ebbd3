"""The binary message: a 32-byte header and the two encoded images of a frame pair."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.codecs import RGB_CODECS, THERMAL_CODECS, Codec

Buffer: TypeAlias = bytes | memoryview

MAGIC: Final = 0x5444  # the bytes "DT"
VERSION: Final = 1
TYPE_FRAME: Final = 1

# magic u16, version u8, type u8, flags u16, rgb_codec u8, thermal_codec u8, seq u64, capture_us u64, two lengths u32
_HEADER = struct.Struct("<HBBHBBQQII")
HEADER_SIZE: Final = _HEADER.size
assert HEADER_SIZE == 32


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What precedes the two images.

    Attributes:
        rgb_codec, thermal_codec: ``Codec.NONE`` exactly where the length is 0.
        seq: the number of the pair in its session, strictly rising.
        capture_us: when the pair was taken, in microseconds of the sender's clock.
        rgb_len, thermal_len: bytes of the two images, which follow in this order.
    """

    rgb_codec: Codec
    thermal_codec: Codec
    seq: int
    capture_us: int
    rgb_len: int
    thermal_len: int

    def encode(self) -> bytes:
        """The 32 bytes of the header.

        Raises:
            InvalidState: a number does not fit its field.
        """
        try:
            return _HEADER.pack(
                MAGIC,
                VERSION,
                TYPE_FRAME,
                0,
                self.rgb_codec,
                self.thermal_codec,
                self.seq,
                self.capture_us,
                self.rgb_len,
                self.thermal_len,
            )
        except struct.error as error:
            raise InvalidState(f"a number does not fit the frame header: {self!r} ({error})") from error

    @classmethod
    def decode(cls, data: Buffer) -> FrameHeader:
        """Read and check the header at the start of ``data``.

        Raises:
            ProtocolError: it is too short, or a field has a value that version 1 does not know (1002).
        """
        if len(data) < HEADER_SIZE:
            raise _broken(f"expected a frame header of {HEADER_SIZE} bytes, got {len(data)} bytes")
        magic, version, kind, flags, rgb, thermal, seq, capture_us, rgb_len, thermal_len = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise _broken(f"expected the magic number {MAGIC:#06x}, got {magic:#06x}")
        if version != VERSION:
            raise _broken(f"expected frame version {VERSION}, got {version}")
        if kind != TYPE_FRAME:
            raise _broken(f"expected message type {TYPE_FRAME} (frame pair), got {kind}")
        if flags != 0:
            raise _broken(f"expected no flags, got {flags:#06x}")
        rgb_codec = _read_codec("colour", rgb, rgb_len, RGB_CODECS)
        thermal_codec = _read_codec("thermal", thermal, thermal_len, THERMAL_CODECS)
        if rgb_len == thermal_len == 0:
            raise _broken("expected a colour image, a thermal image, or both; got neither")
        return cls(rgb_codec, thermal_codec, seq, capture_us, rgb_len, thermal_len)


@dataclass(frozen=True, slots=True)
class Payload:
    """One encoded image.

    Attributes:
        codec: how it is encoded.
        data: its bytes; never empty.
    """

    codec: Codec
    data: Buffer

    def __repr__(self) -> str:
        return f"Payload({self.codec.label}, {len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class Frame:
    """An encoded frame pair, either image of which may be missing."""

    seq: int
    capture_us: int
    rgb: Payload | None
    thermal: Payload | None


def encode_frame(frame: Frame) -> bytes:
    """The binary message of ``frame``.

    Raises:
        InvalidState: a number does not fit its field.
    """
    rgb = b"" if frame.rgb is None else frame.rgb.data
    thermal = b"" if frame.thermal is None else frame.thermal.data
    header = FrameHeader(
        rgb_codec=Codec.NONE if frame.rgb is None else frame.rgb.codec,
        thermal_codec=Codec.NONE if frame.thermal is None else frame.thermal.codec,
        seq=frame.seq,
        capture_us=frame.capture_us,
        rgb_len=len(rgb),
        thermal_len=len(thermal),
    )
    return b"".join((header.encode(), rgb, thermal))


def decode_frame(data: bytes) -> Frame:
    """The frame pair in a binary message. The images are views into ``data``; nothing is copied.

    Raises:
        ProtocolError: the header is broken or the lengths do not add up (1002).
    """
    header = FrameHeader.decode(data)
    expected = HEADER_SIZE + header.rgb_len + header.thermal_len
    if len(data) != expected:
        raise _broken(f"expected a message of {expected} bytes from the lengths in its header, got {len(data)}")
    body = memoryview(data)[HEADER_SIZE:]
    rgb, thermal = body[: header.rgb_len], body[header.rgb_len :]
    return Frame(
        seq=header.seq,
        capture_us=header.capture_us,
        rgb=Payload(header.rgb_codec, rgb) if header.rgb_len else None,
        thermal=Payload(header.thermal_codec, thermal) if header.thermal_len else None,
    )


def _read_codec(modality: str, number: int, length: int, allowed: frozenset[Codec]) -> Codec:
    expected = allowed if length else {Codec.NONE}
    if number not in expected:
        names = ", ".join(f"{codec.label} ({codec})" for codec in sorted(expected))
        raise _broken(f"expected a codec among {names} for a {modality} image of {length} bytes, got {number}")
    return Codec(number)


def _broken(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.PROTOCOL_ERROR)
