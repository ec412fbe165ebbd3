import json
from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol import (
    Box,
    Bye,
    CloseCode,
    Config,
    Error,
    Goaway,
    Hello,
    Init,
    Message,
    Modalities,
    ModalityHealth,
    Mode,
    Ping,
    Pong,
    Result,
    TargetResult,
    TargetState,
    Timings,
    Wire,
    choose_wire,
    decode_message,
    encode_message,
)

RESULT_TEXT = """{"type": "result", "seq": 7, "box": {"x": 1.5, "y": -2, "w": 30, "h": 40.25}, "score": 0.75,
    "state": "coasting", "modalities": {"rgb": "ok", "thermal": "missing"}, "dropped_since_last": 2, "credit": 1,
    "timings": {"queue": 0.5, "decode": 1.5, "infer": 7.0, "total": 9.0}, "target": 1, "others": [{"target": 4,
    "box": {"x": 0, "y": 0, "w": 2, "h": 3}, "score": 0.5, "state": "lost"}], "durable": true, "durable_seq": 5,
    "from_a_later_version": [1]}"""

HELLO_TEXT = """{"type": "hello", "session": "id", "mode": "live", "max_frame_bytes": 1, "max_pixels": 1,
    "codecs": ["a"], "heartbeat_s": 1, "idle_s": 1}"""

RESULT = Result(
    seq=7,
    box=Box(1.5, -2.0, 30.0, 40.25),
    score=0.75,
    state=TargetState.COASTING,
    modalities=Modalities(rgb=ModalityHealth.OK, thermal=ModalityHealth.MISSING),
    dropped_since_last=2,
    credit=1,
    timings=Timings(queue=0.5, decode=1.5, infer=7.0, total=9.0),
    target=1,
    others=(TargetResult(4, Box(0, 0, 2, 3), 0.5, TargetState.LOST),),
    durable=True,
    durable_seq=5,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
counts = st.integers(0, 2**64 - 1)
texts = st.text()
boxes = st.builds(Box, finite, finite, positive, positive)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        session=texts,
        mode=st.sampled_from(Mode),
        window=st.none() | counts,
        max_frame_bytes=counts,
        max_pixels=counts,
        codecs=st.lists(texts).map(tuple),
        heartbeat_s=positive,
        idle_s=positive,
        resumed_at_seq=st.none() | counts,
        repeats_from=st.none() | counts,
        targets=st.lists(counts, max_size=4).map(tuple),
        max_targets=counts,
    ),
    st.builds(
        Result,
        seq=counts,
        box=boxes,
        score=finite,
        state=st.sampled_from(TargetState),
        modalities=st.builds(Modalities, st.sampled_from(ModalityHealth), st.sampled_from(ModalityHealth)),
        dropped_since_last=counts,
        credit=counts,
        timings=st.builds(Timings, finite, finite, finite, finite),
        target=counts,
        others=st.lists(st.builds(TargetResult, counts, boxes, finite, st.sampled_from(TargetState)), max_size=3).map(
            tuple
        ),
        durable=st.booleans(),
        durable_seq=st.none() | counts,
    ),
    st.builds(Error, code=texts, message=texts, seq=st.none() | counts, credit=counts),
    st.builds(Goaway, reason=texts, reconnect_after=positive),
    st.builds(Pong, counts),
    st.builds(Init, boxes, counts),
    st.builds(Config, st.none() | st.lists(counts, max_size=4).map(tuple), st.none() | st.booleans()),
    st.builds(Ping, counts),
    st.just(Bye()),
)


def test_a_result_written_by_hand_is_read() -> None:
    assert decode_message(RESULT_TEXT) == RESULT


def test_a_result_is_written_as_documented() -> None:
    written = json.loads(encode_message(RESULT))
    expected = json.loads(RESULT_TEXT)
    del expected["from_a_later_version"]
    assert written == expected


@given(messages, st.sampled_from(Wire))
def test_what_is_encoded_is_decoded(message: Message, wire: Wire) -> None:
    encoded = encode_message(message, wire)
    assert isinstance(encoded, str if wire is Wire.JSON else bytes)
    assert decode_message(encoded) == message


@given(messages)
def test_both_wires_say_the_same(message: Message) -> None:
    packed = encode_message(message, Wire.MSGPACK)
    assert msgpack.unpackb(packed) == json.loads(encode_message(message))


def test_targets_are_one_list_with_the_first_in_front() -> None:
    assert RESULT.targets == (TargetResult(1, RESULT.box, 0.75, TargetState.COASTING), *RESULT.others)


@pytest.mark.parametrize(
    ("offered", "wire"),
    [
        ([], None),
        (["duotrack.v2", "duotrack.v1.protobuf"], None),
        (["duotrack.v1"], Wire.JSON),
        (["duotrack.v1.msgpack"], Wire.MSGPACK),
        (["duotrack.v1", "duotrack.ticket.abc", "duotrack.v1.msgpack"], Wire.MSGPACK),
    ],
)
def test_messagepack_is_taken_where_it_is_offered(offered: list[str], wire: Wire | None) -> None:
    assert choose_wire(offered) is wire
    assert wire is None or wire.subprotocol in offered


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(messages, st.data())
def test_a_field_of_any_other_kind_is_a_protocol_error_or_a_message(message: Message, data: st.DataObject) -> None:
    document = json.loads(encode_message(message))
    inner = document
    while True:  # at any depth
        name = data.draw(st.sampled_from(sorted(inner)))
        if not isinstance(inner[name], dict) or data.draw(st.booleans()):
            break
        inner = inner[name]
    inner[name] = data.draw(json_values)
    for encoded in (json.dumps(document), msgpack_or_none(document)):
        with suppress(ProtocolError):
            read = decode_message(encoded or "")
            assert decode_message(encode_message(read)) == read


def msgpack_or_none(document: object) -> bytes | None:
    with suppress(OverflowError):  # JSON has larger numbers than MessagePack
        packed: bytes = msgpack.packb(document)
        return packed
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for prefix in (b"", b"\x81\xa4type", b"\x82\xa4type\xa4pong\xa2id", encode_message(RESULT, Wire.MSGPACK)[:60]):
        with suppress(ProtocolError):
            decode_message(prefix + data)


def pack_type(value: bytes) -> bytes:
    return b"\x81\xa4type" + value


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", CloseCode.INVALID_TEXT, "expected a MessagePack message"),
        (pack_type(b"\xa3by"), CloseCode.INVALID_TEXT, "expected a MessagePack message"),
        (pack_type(b"\xa3bye") + b"\xc0", CloseCode.INVALID_TEXT, "extra data"),
        (pack_type(b"\xa3b\xffe"), CloseCode.INVALID_TEXT, "expected a MessagePack message"),
        (pack_type(b"\xc4\x03bye"), CloseCode.INVALID_TEXT, "max_bin_len"),
        (pack_type(b"\xd4\x01\x00"), CloseCode.INVALID_TEXT, "max_ext_len"),
        (pack_type(b"\xd6\xff\x00\x00\x00\x00"), CloseCode.INVALID_TEXT, "max_ext_len"),  # a time stamp
        (pack_type(b"\xc7\x00\x01"), CloseCode.INVALID_TEXT, "extension type 1 of 0 bytes"),
        (b"\x81\x01\xc0", CloseCode.INVALID_TEXT, "int is not allowed for map key"),
        (b"\x91" * 100_000, CloseCode.INVALID_TEXT, "expected a MessagePack message"),
        (b"\xdd\xff\xff\xff\xff", CloseCode.INVALID_TEXT, "max_array_len"),
        (b"\xdf\xff\xff\xff\xff", CloseCode.INVALID_TEXT, "max_map_len"),
        (b"\xdb\xff\xff\xff\xff", CloseCode.INVALID_TEXT, "max_str_len|incomplete"),
        (b"\x90", CloseCode.PROTOCOL_ERROR, r"expected an object, got \[\]"),
        (pack_type(b"\xa3boo"), CloseCode.PROTOCOL_ERROR, "got 'boo'"),
        (pack_type(b"\x91" * 500 + b"\xc0"), CloseCode.PROTOCOL_ERROR, r"got \[\[\[\[\.\.\.\]\]\]\]"),
        (bytes(300_000), CloseCode.TOO_BIG, "at most 262144 characters or bytes, got 300000"),
    ],
)
def test_messagepack_that_is_none_or_too_much_is_refused(data: bytes, code: CloseCode, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        decode_message(data)
    assert caught.value.close_code == code


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{", CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("[" * 100_000, CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("9" * 5000, CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("[1]", CloseCode.PROTOCOL_ERROR, "expected an object"),
        (
            "{}",
            CloseCode.PROTOCOL_ERROR,
            "expected a message type among hello, result, error, goaway, pong, init, .*got None",
        ),
        ('{"type": ["bye"]}', CloseCode.PROTOCOL_ERROR, "expected a message type"),
        ('{"type": "goaway", "reason": "x"}', CloseCode.PROTOCOL_ERROR, "in goaway.reconnect_after, got None"),
        (RESULT_TEXT.replace("0.75", "NaN"), CloseCode.PROTOCOL_ERROR, "expected a finite number.* in result.score"),
        (RESULT_TEXT.replace("0.75", "1" * 400), CloseCode.PROTOCOL_ERROR, "in result.score"),
        (RESULT_TEXT.replace("0.75", "true"), CloseCode.PROTOCOL_ERROR, "expected a number in result.score, got True"),
        (RESULT_TEXT.replace("7,", "-1,"), CloseCode.PROTOCOL_ERROR, "in result.seq, got -1"),
        (RESULT_TEXT.replace("coasting", "asleep"), CloseCode.PROTOCOL_ERROR, "in result.state, got 'asleep'"),
        (RESULT_TEXT.replace('"w": 30', '"w": 0'), CloseCode.PROTOCOL_ERROR, "expected a box in result.box"),
        (RESULT_TEXT.replace("true", "1"), CloseCode.PROTOCOL_ERROR, "expected true or false in result.durable, got 1"),
        (RESULT_TEXT.replace("[1]", '"' + "x" * 300_000 + '"'), CloseCode.TOO_BIG, "at most 262144 characters"),
        (RESULT_TEXT.replace("lost", "x"), CloseCode.PROTOCOL_ERROR, r"in result.others\[0\].state, got 'x'"),
        (RESULT_TEXT.replace("[{", "[7,{"), CloseCode.PROTOCOL_ERROR, "a list of objects in result.others"),
        (HELLO_TEXT.replace('["a"]', '["a",1]'), CloseCode.PROTOCOL_ERROR, "a list of texts in hello.codecs"),
        ('{"type":"config","targets":[0,-1]}', CloseCode.PROTOCOL_ERROR, "a list of whole numbers in config.targets"),
        ('{"type":"error","code":"x","message":"\\ud800","credit":0}', CloseCode.PROTOCOL_ERROR, "in error.message"),
        (RESULT_TEXT.replace('"missing"', "3"), CloseCode.PROTOCOL_ERROR, "in result.modalities.thermal, got 3"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(text: str, code: CloseCode, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        decode_message(text)
    assert caught.value.close_code == code


@pytest.mark.parametrize("wire", Wire)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_our_own_fault(number: float, wire: Wire) -> None:
    with pytest.raises(InvalidState, match="only finite numbers"):
        encode_message(Goaway("x", number), wire)


def test_numbers_beyond_64_bits_are_our_own_fault() -> None:
    with pytest.raises(InvalidState, match="of 64 bits"):
        encode_message(Ping(2**64), Wire.MSGPACK)


def test_what_a_hello_need_not_say_has_a_default() -> None:
    assert decode_message(HELLO_TEXT) == Hello("id", Mode.LIVE, None, 1, 1, ("a",), 1, 1, None, None, (), 1)
