"""The codec ``zstd-delta16``: lossless 16-bit thermal images, small and fast.

The payload is the width and the height (u16 each, little-endian) and one Zstandard frame, whose header has the size
of its content: 2 bytes a pixel. The content is the image's differences: of each sample to its left neighbour, of the
first sample of a row to the one above it, of the very first to 0, modulo 2^16. They are folded to numbers that are
small where the difference is, whatever its sign (0, -1, 1, -2 … become 0, 1, 2, 3 …), and written as two planes: the
low bytes of all, row by row, then the high bytes of all, nearly all of which are zero.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from duotrack_client.errors import EncodingError, ImageError
from duotrack_client.protocol.frames import Buffer
from duotrack_client.protocol.messages import ErrorCode

MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
"""Of the Zstandard frame, as RFC 8878 (section 3.1.1.1.2) recommends that every decoder should take."""

_SIZE = struct.Struct("<HH")
_MAX_SIDE = 0xFFFF
_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # skippable frames and older formats have others
_LEVEL = 1  # on the planes of thermal frames, level 9 takes twice as long for a quarter of a per cent


def pack_delta16(image: NDArray[np.uint16]) -> bytes:
    """The payload of a thermal image, (H, W) uint16.

    Raises:
        EncodingError: the type or shape is another, or a side has more than 65535 pixels.
    """
    if image.dtype != np.uint16 or image.ndim != 2 or not image.size or max(image.shape) > _MAX_SIDE:
        raise EncodingError(
            f"zstd-delta16 takes (height, width) uint16 with sides from 1 to {_MAX_SIDE}, "
            f"got {image.shape} {image.dtype}"
        )
    height, width = image.shape
    differences = np.empty((height, width), np.uint16)
    differences[0, 0] = image[0, 0]
    np.subtract(image[1:, 0], image[:-1, 0], out=differences[1:, 0])
    np.subtract(image[:, 1:], image[:, :-1], out=differences[:, 1:])
    folded = (differences << 1) ^ -(differences >> 15)
    planes = np.concatenate([(folded & 0xFF).astype(np.uint8).ravel(), (folded >> 8).astype(np.uint8).ravel()])
    return _SIZE.pack(width, height) + zstandard.ZstdCompressor(_LEVEL, write_content_size=True).compress(planes.data)


def unpack_delta16(data: Buffer) -> NDArray[np.uint16]:
    """The image in a payload, (H, W) uint16. What it allocates is what ``read_size`` says.

    Raises:
        ImageError: it is damaged.
    """
    width, height = read_size(data)
    try:
        content = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompress(
            data[_SIZE.size :], allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise _corrupt(f"the zstd-delta16 image is damaged: {error}") from error
    low, high = np.frombuffer(content, np.uint8).reshape(2, height, width)
    folded = low | (high.astype(np.uint16) << 8)
    differences = (folded >> 1) ^ (0 - (folded & 1))
    differences[:, 0] = np.cumsum(differences[:, 0], dtype=np.uint16)
    return np.cumsum(differences, axis=1, dtype=np.uint16)


def read_size(data: Buffer) -> tuple[int, int]:
    """Width and height in pixels, from the first bytes; nothing is decompressed.

    Raises:
        ImageError: there is no Zstandard frame whose header promises this size, or it wants too large a window.
    """
    if len(data) < _SIZE.size:
        raise _corrupt(f"expected the width and height of a zstd-delta16 image in {_SIZE.size} bytes, got {len(data)}")
    width, height = _SIZE.unpack_from(data)
    if not width or not height:
        raise _corrupt(f"the image has no pixels: {width}x{height}")
    frame = data[_SIZE.size : _SIZE.size + 18]  # the longest frame header
    if bytes(frame[:4]) != _MAGIC:
        raise _corrupt("expected one Zstandard frame after the width and height")
    try:
        header = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise _corrupt(f"expected the header of a Zstandard frame: {error}") from error
    if header.content_size != 2 * width * height:
        raise _corrupt(
            f"expected a Zstandard content size of {2 * width * height} bytes for {width}x{height} pixels, "
            f"got {'none' if header.content_size == zstandard.CONTENTSIZE_UNKNOWN else header.content_size}"
        )
    if header.window_size > MAX_WINDOW_BYTES or header.dict_id:
        raise ImageError(
            ErrorCode.UNSUPPORTED_IMAGE,
            f"expected a Zstandard window of at most {MAX_WINDOW_BYTES} bytes and no dictionary, "
            f"got {header.window_size} bytes and dictionary {header.dict_id}",
        )
    return width, height


def _corrupt(message: str) -> ImageError:
    return ImageError(ErrorCode.CORRUPT_IMAGE, message)
