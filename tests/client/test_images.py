import struct
import time
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import ImageError
from duotrack_client.protocol import Codec, ErrorCode, ImageHeader, Payload, inspect_image

NOISE = np.random.default_rng(0).integers(0, 255, (31, 47, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg_rgb(**options: object) -> bytes:
    return simplejpeg.encode_jpeg(NOISE, colorspace="RGB", **options)


def jpeg_grey() -> bytes:
    return simplejpeg.encode_jpeg(NOISE[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("payload", "channels", "depth"),
    [
        (Payload(Codec.JPEG8, jpeg_rgb()), 3, 8),
        (Payload(Codec.JPEG8, jpeg_rgb(colorsubsampling="420")), 3, 8),
        (Payload(Codec.JPEG8, cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()), 3, 8),
        (Payload(Codec.JPEG8, jpeg_grey()), 1, 8),
        (Payload(Codec.PNG8, png(NOISE)), 3, 8),
        (Payload(Codec.PNG8, png(NOISE[:, :, 0])), 1, 8),
        (Payload(Codec.PNG16, png(NOISE[:, :, 0].astype(np.uint16) << 8)), 1, 16),
        (Payload(Codec.RAW8, struct.pack("<HH", 47, 31) + NOISE.tobytes()), 3, 8),
        (Payload(Codec.RAW8, struct.pack("<HH", 47, 31) + NOISE[:, :, 0].tobytes()), 1, 8),
        (Payload(Codec.RAW16, struct.pack("<HH", 47, 31) + bytes(2 * 47 * 31)), 1, 16),
    ],
)
def test_size_channels_and_depth_of_what_encoders_write(payload: Payload, channels: int, depth: int) -> None:
    assert inspect_image(payload, channels) == ImageHeader(47, 31, channels, depth)


def test_a_thumbnail_in_the_metadata_is_not_the_image() -> None:
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg_grey())) + jpeg_grey()
    data = jpeg_rgb()
    with_thumbnail = data[:2] + thumbnail + data[2:]
    assert inspect_image(Payload(Codec.JPEG8, with_thumbnail), 3).size == (47, 31)


@pytest.mark.parametrize(
    ("payload", "channels", "message"),
    [
        (Payload(Codec.JPEG8, jpeg_grey()), 3, r"expected 3 channel\(s\) of 8 bits in a jpeg8 image here, got 1"),
        (Payload(Codec.JPEG8, jpeg_rgb()), 1, r"expected 1 channel\(s\)"),
        (Payload(Codec.PNG8, png_header(8, 8, colour=6)), 3, "got 4 of 8 bits"),
        (Payload(Codec.PNG8, png_header(8, 8, depth=16)), 3, "got 3 of 16 bits"),
        (Payload(Codec.PNG16, png_header(8, 8, depth=8, colour=0)), 1, "got 1 of 8 bits"),
        (Payload(Codec.PNG8, png_header(8, 8, depth=1, colour=0)), 1, "got 1 of 1 bits"),
        (Payload(Codec.PNG8, png_header(8, 8, colour=3)), 1, "expected a grey or RGB PNG, got one of colour type 3"),
        (Payload(Codec.JPEG8, b"\xff\xd8\xff\xc3" + bytes(20)), 3, "expected a baseline or progressive JPEG"),
    ],
)
def test_an_image_that_does_not_fit_its_codec_is_unsupported(payload: Payload, channels: int, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        inspect_image(payload, channels)
    assert caught.value.code == ErrorCode.UNSUPPORTED_IMAGE


@pytest.mark.parametrize(
    "payload",
    [
        Payload(Codec.PNG8, b"\x89PNG"),
        Payload(Codec.PNG8, b"x" * 40),
        Payload(Codec.PNG8, png_header(0, 8)),
        Payload(Codec.JPEG8, b"\x00"),
        Payload(Codec.JPEG8, jpeg_rgb()[:20]),
        Payload(Codec.JPEG8, b"\xff\xd8\xff\xc0\x00\x11\x08"),
        Payload(Codec.JPEG8, b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 0, 16, 3) + bytes(20)),
        Payload(Codec.RAW8, b"\x01"),
        Payload(Codec.RAW8, struct.pack("<HH", 4, 4) + bytes(47)),
        Payload(Codec.RAW8, struct.pack("<HH", 0, 4)),
    ],
)
def test_a_broken_header_is_corrupt(payload: Payload) -> None:
    with pytest.raises(ImageError) as caught:
        inspect_image(payload, 3)
    assert caught.value.code == ErrorCode.CORRUPT_IMAGE


@given(st.sampled_from([Codec.JPEG8, Codec.PNG8, Codec.RAW8]), st.binary(max_size=200), st.sampled_from([1, 3]))
def test_any_bytes_have_a_header_or_an_image_error(codec: Codec, data: bytes, channels: int) -> None:
    for prefix in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", png_header(9, 9)[:20]):
        with suppress(ImageError):
            assert inspect_image(Payload(codec, prefix + data), channels).channels == channels


def fastest(payload: Payload) -> float:
    """Seconds of the fastest of a few inspections: the others may share their time with another process."""

    def once() -> float:
        start = time.perf_counter()
        with suppress(ImageError):
            inspect_image(payload, 3)
        return time.perf_counter() - start

    return min(once() for _ in range(5))


def with_chunks(kind: bytes, count: int) -> bytes:
    """A PNG with so many small chunks after its header."""
    body = kind + b"Comment\0\0" + zlib.compress(bytes(100))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    whole = png(NOISE)
    return whole[:33] + count * chunk + whole[33:]


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_png_may_have_few_compressed_texts(kind: bytes) -> None:
    """A decoder unpacks each to a thousand times its size: 1.4 MB of them took 1.2 GB."""
    assert inspect_image(Payload(Codec.PNG8, with_chunks(kind, 4)), 3).size == (47, 31)
    with pytest.raises(ImageError, match="at most 4 compressed texts") as caught:
        inspect_image(Payload(Codec.PNG8, with_chunks(kind, 5)), 3)
    assert caught.value.code is ErrorCode.UNSUPPORTED_IMAGE


def test_a_png_of_very_many_chunks_is_refused() -> None:
    assert inspect_image(Payload(Codec.PNG8, with_chunks(b"tEXt", 1000)), 3).size == (47, 31)
    with pytest.raises(ImageError, match="at most 16384 chunks"):
        inspect_image(Payload(Codec.PNG8, with_chunks(b"tEXt", 17_000)), 3)


def test_a_jpeg_may_not_repeat_its_scans() -> None:
    """Each goes through the whole image, and is cheap to send: 50 KB of them took a decoder five seconds."""
    data = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    first = data.index(b"\xff\xda")
    scan = data[first : data.index(b"\xff", first + 4)]
    assert inspect_image(Payload(Codec.JPEG8, data[:-2] + 40 * scan + data[-2:]), 3).size == (47, 31)
    with pytest.raises(ImageError, match=r"at most 64 scans, got more") as caught:
        inspect_image(Payload(Codec.JPEG8, data[:-2] + 100 * scan + data[-2:]), 3)
    assert caught.value.code is ErrorCode.UNSUPPORTED_IMAGE


@pytest.mark.parametrize("filler", [b"\xff" * 10_000_000, b"\xff\xe0\x00\x02" * 2_500_000, b"\xff\xd0" * 5_000_000])
def test_the_scan_is_bounded_whatever_the_bytes(filler: bytes) -> None:
    payload = Payload(Codec.JPEG8, b"\xff\xd8" + filler)
    with pytest.raises(ImageError):
        inspect_image(payload, 3)
    assert fastest(payload) < 0.005  # one pass over ten million bytes takes a hundred times as long


def test_a_huge_png_is_measured_in_microseconds() -> None:
    payload = Payload(Codec.PNG8, png_header(30_000, 30_000) + bytes(900_000))
    assert inspect_image(payload, 3).pixels == 900_000_000
    assert fastest(payload) < 0.001
