import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol import (
    Box,
    Bye,
    CloseCode,
    Error,
    Goaway,
    Hello,
    Message,
    Modalities,
    ModalityHealth,
    Mode,
    Result,
    TargetState,
    Timings,
    decode_message,
    encode_message,
)

RESULT_TEXT = """{"type": "result", "seq": 7, "box": {"x": 1.5, "y": -2, "w": 30, "h": 40.25}, "score": 0.75,
    "state": "coasting", "modalities": {"rgb": "ok", "thermal": "missing"}, "dropped_since_last": 2, "credit": 1,
    "timings": {"queue": 0.5, "decode": 1.5, "infer": 7.0, "total": 9.0}, "from_a_later_version": [1]}"""

RESULT = Result(
    seq=7,
    box=Box(1.5, -2.0, 30.0, 40.25),
    score=0.75,
    state=TargetState.COASTING,
    modalities=Modalities(rgb=ModalityHealth.OK, thermal=ModalityHealth.MISSING),
    dropped_since_last=2,
    credit=1,
    timings=Timings(queue=0.5, decode=1.5, infer=7.0, total=9.0),
)

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
counts = st.integers(0, 2**64 - 1)
texts = st.text()
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
    ),
    st.builds(
        Result,
        seq=counts,
        box=st.builds(Box, finite, finite, positive, positive),
        score=finite,
        state=st.sampled_from(TargetState),
        modalities=st.builds(Modalities, st.sampled_from(ModalityHealth), st.sampled_from(ModalityHealth)),
        dropped_since_last=counts,
        credit=counts,
        timings=st.builds(Timings, finite, finite, finite, finite),
    ),
    st.builds(Error, code=texts, message=texts, seq=st.none() | counts, credit=counts),
    st.builds(Goaway, reason=texts, reconnect_after=positive),
    st.just(Bye()),
)


def test_a_result_written_by_hand_is_read() -> None:
    assert decode_message(RESULT_TEXT) == RESULT


def test_a_result_is_written_as_documented() -> None:
    written = json.loads(encode_message(RESULT))
    expected = json.loads(RESULT_TEXT)
    del expected["from_a_later_version"]
    assert written == expected


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(messages, st.data())
def test_a_field_of_any_other_kind_is_a_protocol_error_or_a_message(message: Message, data: st.DataObject) -> None:
    document = json.loads(encode_message(message))
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(json_values)
    with suppress(ProtocolError):
        read = decode_message(json.dumps(document))
        assert decode_message(encode_message(read)) == read


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("{", CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("[" * 100_000, CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("9" * 5000, CloseCode.INVALID_TEXT, "expected a JSON message"),
        ("[1]", CloseCode.PROTOCOL_ERROR, "expected a JSON object"),
        ("{}", CloseCode.PROTOCOL_ERROR, "expected a message type among hello, result, error, goaway, bye, got None"),
        ('{"type": ["bye"]}', CloseCode.PROTOCOL_ERROR, "expected a message type"),
        ('{"type": "goaway", "reason": "x"}', CloseCode.PROTOCOL_ERROR, "in goaway.reconnect_after, got None"),
        (RESULT_TEXT.replace("0.75", "NaN"), CloseCode.PROTOCOL_ERROR, "expected a finite number.* in result.score"),
        (RESULT_TEXT.replace("0.75", "1" * 400), CloseCode.PROTOCOL_ERROR, "in result.score"),
        (RESULT_TEXT.replace("0.75", "true"), CloseCode.PROTOCOL_ERROR, "expected a number in result.score, got True"),
        (RESULT_TEXT.replace("7,", "-1,"), CloseCode.PROTOCOL_ERROR, "in result.seq, got -1"),
        (RESULT_TEXT.replace("coasting", "asleep"), CloseCode.PROTOCOL_ERROR, "in result.state, got 'asleep'"),
        (RESULT_TEXT.replace('"w": 30', '"w": 0'), CloseCode.PROTOCOL_ERROR, "expected a box in result.box"),
        (RESULT_TEXT.replace('"missing"', "3"), CloseCode.PROTOCOL_ERROR, "in result.modalities.thermal, got 3"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(text: str, code: CloseCode, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        decode_message(text)
    assert caught.value.close_code == code


def test_numbers_that_json_cannot_carry_are_our_own_fault() -> None:
    with pytest.raises(InvalidState, match="only finite numbers"):
        encode_message(Goaway("x", float("nan")))
