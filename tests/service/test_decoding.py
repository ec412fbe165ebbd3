import cv2
import numpy as np
import pytest

from duotrack_client import Encoding, ImageFormat, Pair
from duotrack_client.errors import ImageError
from duotrack_client.protocol import Codec, Frame, Payload, decode_frame, encode_frame
from duotrack_service.decoding import decode_pair

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 255, (31, 40, 3), dtype=np.uint8)
THERMAL = RANDOM.integers(0, 255, (31, 40), dtype=np.uint8)
THERMAL16 = RANDOM.integers(0, 65535, (31, 40), dtype=np.uint16)


def over_the_wire(pair: Pair, encoding: Encoding) -> Frame:
    return decode_frame(encode_frame(Frame(0, 0, *encoding.encode(pair))))


@pytest.mark.parametrize("image_format", [ImageFormat.PNG, ImageFormat.RAW])
@pytest.mark.parametrize("thermal", [THERMAL, THERMAL16])
def test_lossless_images_come_back_as_they_were(image_format: ImageFormat, thermal: np.ndarray) -> None:
    pair = decode_pair(over_the_wire(Pair(RGB, thermal), Encoding(image_format, image_format)))
    assert pair.rgb is not None
    assert pair.thermal is not None
    assert np.array_equal(pair.rgb, RGB)
    assert np.array_equal(pair.thermal, thermal)
    assert pair.thermal.dtype == thermal.dtype


def test_a_jpeg_is_decoded_as_opencv_does() -> None:
    frame = over_the_wire(Pair(RGB, THERMAL), Encoding(thermal=ImageFormat.JPEG))
    pair = decode_pair(frame)
    assert frame.rgb is not None
    assert frame.thermal is not None
    assert pair.rgb is not None
    assert pair.thermal is not None
    rgb = cv2.imdecode(np.frombuffer(frame.rgb.data, np.uint8), cv2.IMREAD_COLOR_RGB)
    thermal = cv2.imdecode(np.frombuffer(frame.thermal.data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(pair.rgb.astype(int) - rgb).max() <= 2
    assert np.array_equal(pair.thermal, thermal)


@pytest.mark.parametrize("modality", ["colour", "thermal"])
@pytest.mark.parametrize("image_format", [ImageFormat.PNG, ImageFormat.JPEG])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_a_cut_image_is_an_image_error(modality: str, image_format: ImageFormat, kept: float) -> None:
    rgb, thermal = Encoding(image_format, image_format).encode(Pair(RGB, THERMAL))
    payload = rgb if modality == "colour" else thermal
    assert payload is not None
    cut = Payload(payload.codec, payload.data[: int(len(payload.data) * kept)])
    frame = Frame(0, 0, cut, None) if modality == "colour" else Frame(0, 0, None, cut)
    with pytest.raises(ImageError, match=f"the {modality} image is damaged and cannot be decoded as") as caught:
        decode_pair(frame)
    assert caught.value.code == "corrupt_image"


def test_a_camera_s_orientation_does_not_turn_the_pixels() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6: rotate by 90°
    rgb, _ = Encoding().encode(Pair(RGB))
    assert rgb is not None
    turned = bytes(rgb.data[:2]) + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + bytes(rgb.data[2:])
    pair = decode_pair(Frame(0, 0, Payload(Codec.JPEG8, turned), None))
    assert (pair.width, pair.height) == (40, 31)
