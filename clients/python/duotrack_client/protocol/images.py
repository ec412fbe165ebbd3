"""What an encoded image claims to be, read from its first bytes and never decoded.

A decoder allocates what the header promises: a 30000×30000 PNG of 900 KB would take gigabytes. So the limits are
checked on the header, whatever the payload. What makes a decoder work or allocate without a promise in the header is
bounded, too: scans of a JPEG, each of which goes through the whole image, and compressed text in a PNG.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import islice
from typing import Final

from duotrack_client.errors import ImageError
from duotrack_client.protocol.codecs import Codec
from duotrack_client.protocol.delta16 import read_size
from duotrack_client.protocol.frames import Buffer, Payload
from duotrack_client.protocol.messages import ErrorCode

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_IHDR = struct.Struct(">8sI4sIIBBBBB")
_PNG_CHANNELS: Final = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; 3 is a palette, whose samples are no grey levels

_PNG_CHUNK = struct.Struct(">I4s")  # length of the content, kind; four bytes of checksum follow the content
_PNG_TEXTS: Final = frozenset({b"zTXt", b"iTXt"})  # each may be a thousand times larger than it looks
_PNG_MAX_TEXTS: Final = 4
_PNG_MAX_CHUNKS: Final = 16_384  # libpng cuts an image into pieces of 8 KB: enough for 128 MB

_RAW_SIZE = struct.Struct("<HH")

_JPEG_FRAME = struct.Struct(">HBHHB")  # segment length, bits per sample, height, width, components
_JPEG_SOF: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive; others are hardly ever met
_JPEG_OTHER_SOF: Final = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_JPEG_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a segment
# Metadata comes before the frame header: EXIF, a colour profile in pieces, a thumbnail. 256 steps are ample, and
# they bound the scan whatever the bytes are.
_JPEG_MAX_STEPS: Final = 256
_JPEG_SCAN: Final = re.compile(rb"\xff\xda")  # never within a scan's data
_JPEG_MAX_SCANS: Final = 64  # a progressive image has about ten


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The size of an image in pixels, its samples per pixel and their bits."""

    width: int
    height: int
    channels: int
    depth: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


def inspect_image(payload: Payload, channels: int) -> ImageHeader:
    """Read the header of an encoded image that should have ``channels`` samples per pixel.

    Raises:
        ImageError: there is no sound header, or it has other channels or another depth than the codec says.
    """
    if payload.codec is Codec.JPEG8:
        header = _inspect_jpeg(payload.data)
    elif payload.codec in (Codec.PNG8, Codec.PNG16):
        header = _inspect_png(payload.data)
    elif payload.codec is Codec.ZSTD_DELTA16:
        header = ImageHeader(*read_size(payload.data), channels=1, depth=16)
    else:
        header = _inspect_raw(payload.data, channels, payload.codec.depth)
    if header.width == 0 or header.height == 0:
        raise _corrupt(f"the image has no pixels: {header.width}x{header.height}")
    if header.channels != channels or header.depth != payload.codec.depth:
        raise ImageError(
            ErrorCode.UNSUPPORTED_IMAGE,
            f"expected {channels} channel(s) of {payload.codec.depth} bits in a {payload.codec.label} image here, "
            f"got {header.channels} of {header.depth} bits",
        )
    return header


def _inspect_png(data: Buffer) -> ImageHeader:
    if len(data) < _PNG_IHDR.size:
        raise _corrupt(f"expected a PNG header of {_PNG_IHDR.size} bytes, got {len(data)} bytes")
    signature, length, kind, width, height, depth, colour, *_ = _PNG_IHDR.unpack_from(data)
    if signature != _PNG_SIGNATURE or length != 13 or kind != b"IHDR":
        raise _corrupt("the payload does not start as a PNG image does")
    if colour not in _PNG_CHANNELS:
        raise ImageError(ErrorCode.UNSUPPORTED_IMAGE, f"expected a grey or RGB PNG, got one of colour type {colour}")
    _check_png_chunks(data)
    return ImageHeader(width, height, _PNG_CHANNELS[colour], depth)


def _check_png_chunks(data: Buffer) -> None:
    """Refuse more compressed text than any camera writes: a decoder unpacks all of it, some 8 MB for every 8 KB."""
    position, texts = len(_PNG_SIGNATURE), 0
    for _ in range(_PNG_MAX_CHUNKS):
        if position + _PNG_CHUNK.size > len(data):
            return
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        if kind == b"IEND" or not kind.isalpha():  # a decoder goes no further
            return
        texts += kind in _PNG_TEXTS
        if texts > _PNG_MAX_TEXTS:
            raise ImageError(
                ErrorCode.UNSUPPORTED_IMAGE, f"expected a PNG with at most {_PNG_MAX_TEXTS} compressed texts, got more"
            )
        position += _PNG_CHUNK.size + length + 4
    raise ImageError(ErrorCode.UNSUPPORTED_IMAGE, f"expected a PNG of at most {_PNG_MAX_CHUNKS} chunks, got more")


def _inspect_raw(data: Buffer, channels: int, depth: int) -> ImageHeader:
    if len(data) < _RAW_SIZE.size:
        raise _corrupt(f"expected the width and height of a raw image in {_RAW_SIZE.size} bytes, got {len(data)} bytes")
    width, height = _RAW_SIZE.unpack_from(data)
    expected = _RAW_SIZE.size + width * height * channels * depth // 8
    if len(data) != expected:
        raise _corrupt(
            f"expected {expected} bytes for a raw {width}x{height} image of {channels} channel(s), got {len(data)}"
        )
    return ImageHeader(width, height, channels, depth)


def _inspect_jpeg(data: Buffer) -> ImageHeader:
    if bytes(data[:2]) != b"\xff\xd8":
        raise _corrupt("the payload does not start as a JPEG image does")
    position = 2
    for _ in range(_JPEG_MAX_STEPS):
        if position + 2 > len(data) or data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _JPEG_ALONE:
            position += 2
        elif marker in _JPEG_SOF:
            # All of the data is searched, without a copy: 16 MB take some 5 ms.
            if next(islice(_JPEG_SCAN.finditer(data), _JPEG_MAX_SCANS, None), None) is not None:
                raise ImageError(
                    ErrorCode.UNSUPPORTED_IMAGE, f"expected a JPEG of at most {_JPEG_MAX_SCANS} scans, got more"
                )
            return _read_jpeg_frame(data, position + 2)
        elif marker in _JPEG_OTHER_SOF:
            raise ImageError(
                ErrorCode.UNSUPPORTED_IMAGE, f"expected a baseline or progressive JPEG, got one of type {marker:#04x}"
            )
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise _corrupt("no frame header where a JPEG image has one")


def _read_jpeg_frame(data: Buffer, position: int) -> ImageHeader:
    if position + _JPEG_FRAME.size > len(data):
        raise _corrupt("the JPEG image ends inside its frame header")
    _, depth, height, width, channels = _JPEG_FRAME.unpack_from(data, position)
    return ImageHeader(width, height, channels, depth)


def _corrupt(message: str) -> ImageError:
    return ImageError(ErrorCode.CORRUPT_IMAGE, message)
