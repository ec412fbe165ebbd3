import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol import CloseCode, Codec, Frame, FrameHeader, Payload, decode_frame, encode_frame
from duotrack_client.protocol.codecs import RGB_CODECS, THERMAL_CODECS

# Written by hand from the table in PROTOCOL.md.
GOLDEN = bytes.fromhex(
    "4454"  # magic "DT"
    "01"  # version
    "01"  # type: frame pair
    "0000"  # flags
    "01"  # rgb: jpeg8
    "03"  # thermal: png16
    "0807060504030201"  # seq
    "00e1f50500000000"  # capture: 100 s
    "03000000"  # 3 bytes of colour
    "02000000"  # 2 bytes of thermal
)


def payloads(codecs: frozenset[Codec]) -> st.SearchStrategy[Payload]:
    return st.builds(Payload, st.sampled_from(sorted(codecs)), st.binary(min_size=1, max_size=64))


numbers = st.integers(0, 2**64 - 1)
frames = st.one_of(
    st.builds(Frame, numbers, numbers, payloads(RGB_CODECS), st.none() | payloads(THERMAL_CODECS)),
    st.builds(Frame, numbers, numbers, st.none(), payloads(THERMAL_CODECS)),
)


def test_golden_bytes_of_a_frame() -> None:
    frame = Frame(0x0102030405060708, 100_000_000, Payload(Codec.JPEG8, b"RGB"), Payload(Codec.PNG16, b"TT"))
    assert encode_frame(frame) == GOLDEN + b"RGBTT"
    assert decode_frame(GOLDEN + b"RGBTT") == frame


def test_the_header_has_32_bytes() -> None:
    assert len(GOLDEN) == 32
    assert FrameHeader.decode(GOLDEN).encode() == GOLDEN


@given(frames)
def test_what_is_encoded_is_decoded(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.binary(max_size=96))
def test_any_bytes_are_a_frame_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert encode_frame(decode_frame(data)) == data


@given(frames, st.data())
def test_a_changed_or_cut_frame_never_escapes_as_another_error(frame: Frame, data: st.DataObject) -> None:
    message = bytearray(encode_frame(frame))
    message[data.draw(st.integers(0, 31))] = data.draw(st.integers(0, 255))
    cut = bytes(message[: data.draw(st.integers(0, len(message)))])
    with suppress(ProtocolError):
        assert encode_frame(decode_frame(cut)) == cut


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (0, b"\x00", "expected the magic number 0x5444, got 0x5400"),
        (2, b"\x02", "expected frame version 1, got 2"),
        (3, b"\x07", r"expected message type 1 \(frame pair\), got 7"),
        (4, b"\x01", "expected no flags, got 0x0001"),
        (6, b"\x03", r"expected a codec among jpeg8 \(1\), png8 \(2\), raw8 \(4\) for a colour image"),
        (6, b"\x00", "for a colour image of 3 bytes, got 0"),
        (6, b"\x06", "for a colour image of 3 bytes, got 6"),
        (7, b"\x07", "for a thermal image of 2 bytes, got 7"),
        (24, b"\x04", "expected a message of 38 bytes from the lengths in its header, got 37"),
        (24, b"\x00", r"expected a codec among none \(0\) for a colour image of 0 bytes, got 1"),
    ],
)
def test_a_broken_header_is_named(offset: int, replacement: bytes, message: str) -> None:
    data = bytearray(GOLDEN + b"RGBTT")
    data[offset : offset + 1] = replacement
    with pytest.raises(ProtocolError, match=message) as caught:
        decode_frame(bytes(data))
    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


def test_a_frame_without_images_is_refused() -> None:
    header = struct.pack("<HBBHBBQQII", 0x5444, 1, 1, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(ProtocolError, match="got neither"):
        decode_frame(header)


def test_images_are_views_and_not_copies() -> None:
    data = GOLDEN + b"RGBTT"
    frame = decode_frame(data)
    assert frame.rgb is not None
    assert isinstance(frame.rgb.data, memoryview)
    assert frame.rgb.data.obj is data


def test_a_number_that_does_not_fit_is_our_own_fault() -> None:
    with pytest.raises(InvalidState, match="does not fit"):
        encode_frame(Frame(2**64, 0, Payload(Codec.RAW8, b"x"), None))


def test_payloads_show_their_size_and_not_their_bytes() -> None:
    assert repr(Payload(Codec.PNG16, b"x" * 1000)) == "Payload(png16, 1000 bytes)"
