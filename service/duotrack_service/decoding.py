"""Encoded frame pairs to arrays. Runs in worker threads, after ``ServerProtocol`` has checked the image headers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from duotrack.frames import FramePair
from duotrack_client.errors import ImageError
from duotrack_client.protocol import Codec, ErrorCode, Frame, Payload, unpack_delta16

_RAW_SIZE_BYTES = 4

# The orientation that a camera noted in the metadata is ignored: boxes are in the pixels as they are stored.
_PNG_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_PNG_THERMAL = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def decode_pair(frame: Frame) -> FramePair:
    """The images of ``frame``: (H, W, 3) uint8 in R, G, B order, and (H, W) uint8 or uint16.

    Raises:
        ImageError: an image is damaged.
    """
    rgb = None if frame.rgb is None else _decode("colour", frame.rgb, channels=3)
    thermal = None if frame.thermal is None else _decode("thermal", frame.thermal, channels=1)
    return FramePair(rgb, thermal)


def _decode(modality: str, payload: Payload, channels: int) -> NDArray[Any]:
    try:
        return _DECODERS[payload.codec](payload, channels)
    except (ValueError, cv2.error) as error:
        raise ImageError(
            ErrorCode.CORRUPT_IMAGE, f"the {modality} image is damaged and cannot be decoded as {payload.codec.label}"
        ) from error


def _decode_jpeg(payload: Payload, channels: int) -> NDArray[Any]:
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(payload.data, colorspace="RGB" if channels == 3 else "GRAY")
    return image if channels == 3 else image[:, :, 0]


def _decode_png(payload: Payload, channels: int) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(payload.data, np.uint8), _PNG_RGB if channels == 3 else _PNG_THERMAL)
    if image is None:
        raise ValueError("no image")
    return image


def _decode_raw(payload: Payload, channels: int) -> NDArray[Any]:
    width, height = np.frombuffer(payload.data, "<u2", count=2).tolist()
    samples = np.frombuffer(payload.data, np.uint8 if payload.codec.depth == 8 else "<u2", offset=_RAW_SIZE_BYTES)
    return samples.reshape((height, width, 3) if channels == 3 else (height, width))


def _decode_delta16(payload: Payload, _: int) -> NDArray[Any]:
    return unpack_delta16(payload.data)


_DECODERS = {
    Codec.JPEG8: _decode_jpeg,
    Codec.PNG8: _decode_png,
    Codec.PNG16: _decode_png,
    Codec.RAW8: _decode_raw,
    Codec.RAW16: _decode_raw,
    Codec.ZSTD_DELTA16: _decode_delta16,
}
