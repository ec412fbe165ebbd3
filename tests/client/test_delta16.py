import struct
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from duotrack_client.errors import EncodingError, ImageError
from duotrack_client.protocol import Codec, ErrorCode, ImageHeader, Payload, inspect_image, pack_delta16, unpack_delta16

# 7500 7502 7499 / 7500 65535 0: worked out by hand from the description of the codec.
IMAGE = np.array([[7500, 7502, 7499], [7500, 65535, 0]], np.uint16)
DIFFERENCES = [7500, 2, -3, 0, 58035 - 65536, 1]
FOLDED = [15000, 4, 5, 0, 2 * 7501 - 1, 2]
CONTENT = bytes(value & 0xFF for value in FOLDED) + bytes(value >> 8 for value in FOLDED)


def payload(width: int, height: int, content: bytes, **options: object) -> bytes:
    compressor = zstandard.ZstdCompressor(**options)
    return struct.pack("<HH", width, height) + compressor.compress(content)


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        inspect_image(Payload(Codec.ZSTD_DELTA16, data), 1)
    return caught.value


def test_the_content_is_what_the_description_says() -> None:
    assert [value if value >= 0 else -value - 1 for value in DIFFERENCES] == [value >> 1 for value in FOLDED]
    data = pack_delta16(IMAGE)
    assert data[:4] == bytes([3, 0, 2, 0])
    assert zstandard.ZstdDecompressor().decompress(data[4:]) == CONTENT
    assert zstandard.get_frame_parameters(data[4:]).content_size == 12


def test_what_another_encoder_wrote_is_read() -> None:
    for options in ({}, {"level": 19}, {"write_checksum": True}):
        np.testing.assert_array_equal(unpack_delta16(payload(3, 2, CONTENT, **options)), IMAGE)


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_what_is_packed_is_unpacked(image: np.ndarray) -> None:
    data = pack_delta16(image)
    unpacked = unpack_delta16(memoryview(data))
    assert unpacked.dtype == np.uint16
    np.testing.assert_array_equal(unpacked, image)
    header = inspect_image(Payload(Codec.ZSTD_DELTA16, memoryview(data)), 1)
    assert header == ImageHeader(image.shape[1], image.shape[0], 1, 16)


def test_views_and_foreign_byte_orders_are_packed_as_what_they_show() -> None:
    wide = np.arange(200, dtype=np.uint16).reshape(10, 20)
    np.testing.assert_array_equal(unpack_delta16(pack_delta16(wide[::2, ::3])), wide[::2, ::3])
    np.testing.assert_array_equal(unpack_delta16(pack_delta16(wide.astype(">u2").astype(np.uint16))), wide)


def test_a_smooth_image_takes_less_than_a_tenth_of_its_bytes() -> None:
    y, x = np.mgrid[:480, :640]
    image = (29000 + 3 * y + 2 * x).astype(np.uint16)
    assert len(pack_delta16(image)) < image.nbytes / 10


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4, 1), np.uint16),
        np.zeros((0, 4), np.uint16),
        np.zeros((1, 65536), np.uint16),
    ],
)
def test_what_is_no_thermal_image_of_16_bits_is_not_packed(image: np.ndarray) -> None:
    with pytest.raises(EncodingError, match="zstd-delta16 takes"):
        pack_delta16(image)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x03\x00\x02", "width and height of a zstd-delta16 image in 4 bytes, got 3"),
        (payload(0, 2, b""), "no pixels: 0x2"),
        (struct.pack("<HH", 3, 2) + CONTENT, "expected one Zstandard frame"),
        (struct.pack("<HHII", 3, 2, 0x184D2A50, 12) + CONTENT, "expected one Zstandard frame"),  # a skippable one
        (struct.pack("<HHI", 3, 2, 0xFD2FB528), "expected the header of a Zstandard frame"),
        (payload(3, 2, CONTENT[:-1]), "content size of 12 bytes for 3x2 pixels, got 11"),
        (payload(3, 2, CONTENT, write_content_size=False), "content size of 12 bytes for 3x2 pixels, got none"),
        (payload(65535, 65535, CONTENT), "content size of 8589672450 bytes for 65535x65535 pixels, got 12"),
    ],
)
def test_a_header_that_does_not_fit_is_corrupt(data: bytes, message: str) -> None:
    error = refusal(data)
    assert error.code == ErrorCode.CORRUPT_IMAGE
    assert message in str(error)


def frame_header(content_size: int, window: int | None = None, dictionary: int = 0) -> bytes:
    """Of a Zstandard frame, by RFC 8878, section 3.1.1.1: content size in 8 bytes, dictionary in 4."""
    descriptor = 0b1100_0000 | (0b0010_0000 if window is None else 0) | (3 if dictionary else 0)
    return b"".join(
        (
            struct.pack("<IB", 0xFD2FB528, descriptor),
            b"" if window is None else bytes([window]),
            struct.pack("<I", dictionary) if dictionary else b"",
            struct.pack("<Q", content_size),
        )
    )


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (frame_header(2 * 3000 * 2000, window=(23 - 10) << 3), True),  # 2^23 bytes
        (frame_header(2 * 3000 * 2000, window=(23 - 10) << 3 | 1), False),
        (frame_header(2 * 3000 * 2000), False),  # a single segment: its window is all of its content
        (frame_header(2 * 3000 * 2000, window=0, dictionary=7), False),
    ],
)
def test_the_window_and_the_dictionary_are_looked_at_first(header: bytes, accepted: bool) -> None:
    data = struct.pack("<HH", 3000, 2000) + header
    if accepted:
        assert inspect_image(Payload(Codec.ZSTD_DELTA16, data), 1).pixels == 6_000_000
    else:
        assert refusal(data).code == ErrorCode.UNSUPPORTED_IMAGE


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d + d[4:], lambda d: d[:12]])
def test_damage_behind_the_header_is_found_when_it_is_unpacked(damage: object) -> None:
    data = damage(pack_delta16(np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16)))
    assert inspect_image(Payload(Codec.ZSTD_DELTA16, data), 1).size == (30, 20)
    with pytest.raises(ImageError, match="damaged") as caught:
        unpack_delta16(data)
    assert caught.value.code == ErrorCode.CORRUPT_IMAGE


@given(st.binary(max_size=60))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes) -> None:
    packed = pack_delta16(IMAGE)
    for prefix in (b"", struct.pack("<HHI", 3, 2, 0xFD2FB528), packed[:-5], packed[:9]):
        with suppress(ImageError):
            assert unpack_delta16(prefix + data).shape == (2, 3) or not prefix


def test_a_colour_image_of_this_codec_is_unsupported() -> None:
    with pytest.raises(ImageError, match=r"expected 3 channel\(s\) of 16 bits in a zstd-delta16 image"):
        inspect_image(Payload(Codec.ZSTD_DELTA16, pack_delta16(IMAGE)), 3)
