"""How frame pairs are compressed for the wire."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from duotrack_client.errors import EncodingError
from duotrack_client.pairs import PairLike
from duotrack_client.protocol import Codec, Payload, pack_delta16

_MAX_RAW_SIDE = 0xFFFF


class ImageFormat(StrEnum):
    """A choice of compression: ``JPEG`` is small and loses detail, ``PNG`` loses none, ``RAW`` costs no time.

    ``ZSTD`` is for 16-bit thermal images: lossless, smaller than PNG and packed many times as fast.
    """

    JPEG = "jpeg"
    PNG = "png"
    RAW = "raw"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the two images of a pair are sent.

    Attributes:
        rgb: the format of colour images: JPEG, PNG or RAW.
        thermal: the format of thermal images. With ZSTD, those of 8 bits go as PNG; those of 16 never go as JPEG.
        quality: the JPEG quality, 1 to 100.

    Raises:
        EncodingError: the quality is out of range, or colour images should go as ZSTD.
    """

    rgb: ImageFormat = ImageFormat.JPEG
    thermal: ImageFormat = ImageFormat.ZSTD
    quality: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise EncodingError(f"JPEG quality must be from 1 to 100, got {self.quality}")
        if self.rgb is ImageFormat.ZSTD:
            raise EncodingError("colour images cannot be sent as zstd: choose jpeg, png or raw")

    def encode(self, pair: PairLike) -> tuple[Payload | None, Payload | None]:
        """The encoded colour and thermal image of ``pair``, None where one is missing.

        Raises:
            EncodingError: an image has the wrong type or shape, or cannot be sent in the chosen format.
        """
        rgb = None if pair.rgb is None else encode_rgb(pair.rgb, self.rgb, self.quality)
        thermal = None if pair.thermal is None else encode_thermal(pair.thermal, self.thermal, self.quality)
        return rgb, thermal


def encode_rgb(image: NDArray[Any], image_format: ImageFormat, quality: int) -> Payload:
    """Encode a colour image, (H, W, 3) uint8 in R, G, B order.

    Raises:
        EncodingError: the type or shape is another, or the image is too large for the format.
    """
    _require("colour image", image, ndim=3, dtypes=(np.uint8,))
    if image.shape[2] != 3:
        raise EncodingError(f"colour image must have shape (height, width, 3), got {image.shape}")
    if image_format is ImageFormat.JPEG:
        return _jpeg(image, quality, colorspace="RGB", subsampling="420")
    if image_format is ImageFormat.PNG:
        return Payload(Codec.PNG8, _png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
    return Payload(Codec.RAW8, _raw(image))


def encode_thermal(image: NDArray[Any], image_format: ImageFormat, quality: int) -> Payload:
    """Encode a thermal image, (H, W) uint8 or uint16.

    Raises:
        EncodingError: the type or shape is another, or the format cannot hold the image.
    """
    _require("thermal image", image, ndim=2, dtypes=(np.uint8, np.uint16))
    wide = image.dtype == np.uint16
    if image_format is ImageFormat.JPEG:
        if wide:
            raise EncodingError("a 16-bit thermal image cannot be sent as jpeg: choose zstd, png or raw")
        return _jpeg(image[:, :, np.newaxis], quality, colorspace="GRAY", subsampling="Gray")
    if image_format is ImageFormat.ZSTD and wide:
        return Payload(Codec.ZSTD_DELTA16, pack_delta16(image))
    if image_format in (ImageFormat.PNG, ImageFormat.ZSTD):
        return Payload(Codec.PNG16 if wide else Codec.PNG8, _png(image))
    return Payload(Codec.RAW16 if wide else Codec.RAW8, _raw(image))


def _require(name: str, image: object, ndim: int, dtypes: tuple[type, ...]) -> None:
    allowed = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    if not isinstance(image, np.ndarray):
        raise EncodingError(f"{name} must be a numpy array, got {type(image).__name__}")
    if image.dtype not in dtypes:
        raise EncodingError(f"{name} must be {allowed}, got {image.dtype}")
    if image.ndim != ndim or image.size == 0:
        raise EncodingError(f"{name} must have {ndim} dimensions and at least one pixel, got shape {image.shape}")


def _jpeg(image: NDArray[Any], quality: int, colorspace: str, subsampling: str) -> Payload:
    try:
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(image), quality=quality, colorspace=colorspace, colorsubsampling=subsampling
        )
    except ValueError as error:  # a side beyond 65500 pixels
        raise EncodingError(f"an image of shape {image.shape} cannot be encoded as jpeg: {error}") from error
    return Payload(Codec.JPEG8, data)


def _png(image: NDArray[Any]) -> bytes:
    # Level 1: on camera frames the higher levels take several times as long for a few per cent.
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not encoded:
        raise EncodingError(f"an image of shape {image.shape} cannot be encoded as png")
    return data.tobytes()


def _raw(image: NDArray[Any]) -> bytes:
    height, width = image.shape[:2]
    if max(height, width) > _MAX_RAW_SIDE:
        raise EncodingError(f"a raw image has at most {_MAX_RAW_SIDE} pixels a side, got {width}x{height}")
    little_endian = image.astype(image.dtype.newbyteorder("<"), copy=False)
    return struct.pack("<HH", width, height) + little_endian.tobytes()
