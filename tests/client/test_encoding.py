import cv2
import numpy as np
import pytest
import simplejpeg

from duotrack_client import Encoding, EncodingError, ImageFormat, Pair
from duotrack_client.protocol import Codec, Payload, inspect_image, unpack_delta16

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 255, (30, 40, 3), dtype=np.uint8)
THERMAL = RANDOM.integers(0, 255, (30, 40), dtype=np.uint8)
THERMAL16 = RANDOM.integers(0, 65535, (30, 40), dtype=np.uint16)


def read_png(payload: Payload) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(payload.data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_png_is_lossless_and_in_rgb_order() -> None:
    rgb, thermal = Encoding(ImageFormat.PNG, ImageFormat.PNG).encode(Pair(RGB, THERMAL16))
    assert rgb is not None
    assert thermal is not None
    assert (rgb.codec, thermal.codec) == (Codec.PNG8, Codec.PNG16)
    assert np.array_equal(read_png(rgb)[:, :, ::-1], RGB)
    assert np.array_equal(read_png(thermal), THERMAL16)


def test_zstd_is_lossless_for_16_bits_and_png_for_8() -> None:
    _, wide = Encoding().encode(Pair(None, THERMAL16))
    _, narrow = Encoding().encode(Pair(None, THERMAL16.astype(np.uint8)))
    assert wide is not None
    assert narrow is not None
    assert (wide.codec, narrow.codec) == (Codec.ZSTD_DELTA16, Codec.PNG8)
    assert np.array_equal(unpack_delta16(wide.data), THERMAL16)
    with pytest.raises(EncodingError, match="colour images cannot be sent as zstd"):
        Encoding(rgb=ImageFormat.ZSTD)


def test_raw_is_the_size_and_the_samples() -> None:
    rgb, thermal = Encoding(ImageFormat.RAW, ImageFormat.RAW).encode(Pair(RGB, THERMAL16))
    assert rgb is not None
    assert thermal is not None
    assert (rgb.codec, thermal.codec) == (Codec.RAW8, Codec.RAW16)
    assert bytes(rgb.data[:4]) == b"\x28\x00\x1e\x00"
    assert bytes(rgb.data[4:]) == RGB.tobytes()
    assert bytes(thermal.data[4:]) == THERMAL16.astype("<u2").tobytes()


def test_quality_is_a_trade_of_bytes() -> None:
    sizes = [len(Encoding(quality=quality).encode(Pair(RGB))[0].data) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 2 * sizes[0]


def test_jpeg_keeps_red_red() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    rgb, _ = Encoding().encode(Pair(red))
    assert rgb is not None
    assert simplejpeg.decode_jpeg(rgb.data)[8, 8].tolist() == pytest.approx([254, 0, 0], abs=2)


@pytest.mark.parametrize("image_format", [ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.RAW])
@pytest.mark.parametrize("image", [RGB, RGB[::2, ::-1], np.asfortranarray(RGB)])
def test_every_layout_in_memory_can_be_sent(image: np.ndarray, image_format: ImageFormat) -> None:
    rgb, _ = Encoding(rgb=image_format).encode(Pair(image))
    assert rgb is not None
    assert inspect_image(rgb, 3).size == (image.shape[1], image.shape[0])


@pytest.mark.parametrize(
    ("pair", "encoding", "message"),
    [
        (Pair(RGB.astype(np.float32)), Encoding(), "colour image must be uint8, got float32"),
        (Pair(RGB[:, :, 0]), Encoding(), "colour image must have 3 dimensions"),
        (Pair(RGB[:, :, :2]), Encoding(), r"shape \(height, width, 3\)"),
        (Pair(RGB[:0]), Encoding(), "at least one pixel"),
        (Pair("frame.png"), Encoding(), "must be a numpy array, got str"),
        (Pair(None, RGB), Encoding(), "thermal image must have 2 dimensions"),
        (Pair(None, THERMAL.astype(np.int16)), Encoding(), "uint8 or uint16, got int16"),
        (Pair(None, THERMAL16.astype(">u2")), Encoding(), "uint8 or uint16, got >u2"),
        (Pair(None, THERMAL16), Encoding(thermal=ImageFormat.JPEG), "cannot be sent as jpeg: choose zstd, png or raw"),
        (Pair(None, np.zeros((1, 70_000), np.uint8)), Encoding(thermal=ImageFormat.RAW), "at most 65535 pixels a side"),
        (Pair(None, np.zeros((1, 70_000), np.uint8)), Encoding(thermal=ImageFormat.JPEG), "cannot be encoded as jpeg"),
    ],
)
def test_an_image_that_cannot_be_sent_is_named(pair: Pair, encoding: Encoding, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        encoding.encode(pair)


def test_a_quality_out_of_range_is_refused() -> None:
    with pytest.raises(EncodingError, match="from 1 to 100, got 0"):
        Encoding(quality=0)
