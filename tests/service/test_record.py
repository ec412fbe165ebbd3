from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack.boxes import Box
from duotrack_client.protocol import Error, Mode
from duotrack_service.record import (
    Progress,
    RecordError,
    Terms,
    decode_progress,
    decode_summary,
    encode_progress,
    encode_summary,
)

TERMS = Terms(
    id="tMcGsAqCNo4L5xLuXHsQxg",
    key="drone",
    model="student-t",
    mode=Mode.LIVE,
    box=Box(1, 2.5, 3, 4),
    options={"redetection": True},
    created_at=datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC),
    expires_at=datetime(2026, 11, 24, tzinfo=UTC),
    resume_digest="ab" * 32,
    key_digest="cd" * 32,
    source={"camera": "left", "fps": 25.0, "night": False},
)
PROGRESS = Progress(
    seq=2**63,
    frames=7,
    size=(640, 480),
    starts={2: Box(5, 6, 7, 8)},
    tracks={0: b"\x00\xff", 1: b""},
    options={"redetection": False},
    answers=(Error("corrupt_image", "damaged", 5, 1), Error("corrupt_image", "damaged too", 6, 1)),
)


@pytest.mark.parametrize("expires_at", [None, TERMS.expires_at])
def test_a_summary_comes_back(expires_at: datetime | None) -> None:
    terms = Terms(**{**{name: getattr(TERMS, name) for name in Terms.__dataclass_fields__}, "expires_at": expires_at})
    assert decode_summary(encode_summary(terms, 12)) == (terms, 12)


@pytest.mark.parametrize("progress", [PROGRESS, Progress(None, 0, None, {}, {}, {})])
def test_progress_comes_back(progress: Progress) -> None:
    assert decode_progress(encode_progress(progress)) == progress


def test_the_digest_of_the_token_is_not_shown() -> None:
    assert "abab" not in repr(TERMS)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_version_is_named(version: object) -> None:
    document = msgpack.unpackb(encode_progress(PROGRESS), strict_map_key=False)
    with pytest.raises(RecordError, match=r"version: Input should be 1"):
        decode_progress(msgpack.packb({**document, "version": version}))


@given(st.binary(max_size=200))
def test_bytes_of_another_kind_are_damage(data: bytes) -> None:
    for decode in (decode_progress, decode_summary):
        with pytest.raises(RecordError):
            decode(data)


@pytest.mark.parametrize("name", ["seq", "frames", "size", "starts", "tracks", "options", "answers"])
@pytest.mark.parametrize("value", ["x", -1, -1.5, [1], {"a": 1}, b"\x00"])
def test_a_value_of_another_kind_never_gets_through_unnoticed(name: str, value: object) -> None:
    document = msgpack.unpackb(encode_progress(PROGRESS), strict_map_key=False)
    with pytest.raises(RecordError, match=f"cannot be read: {name}"):
        decode_progress(msgpack.packb({**document, name: value}))


@given(st.integers(min_value=0))
def test_a_cut_snapshot_is_damage(length: int) -> None:
    data = encode_progress(PROGRESS)
    with pytest.raises(RecordError):
        decode_progress(data[: length % len(data)])


def test_an_answer_that_is_none_is_damage() -> None:
    document = msgpack.unpackb(encode_progress(PROGRESS), strict_map_key=False)
    bye = msgpack.packb({"type": "bye"})
    with pytest.raises(RecordError, match="expected an answer, got bye"):
        decode_progress(msgpack.packb({**document, "answers": [bye]}))
