from __future__ import annotations

import asyncio
import json
import logging
import secrets
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.protocol import Codec, Payload
from duotrack_service import logs
from duotrack_service.logs import MASK, presentable

SECRET = "q7Xv3Zp9Lw2Tn5Rk8Jd1Hs6Gf4Bc0My"
LONG = secrets.token_urlsafe(32)  # as the service makes them


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines that were logged since the last look; afterwards the process's logging is as it was."""
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in logs.OURS]
    handlers, level, levels = root.handlers[:], root.level, [logger.level for logger in loggers]
    before = structlog.get_config()
    root.handlers = []
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers = handlers
    root.setLevel(level)
    for logger, value in zip(loggers, levels, strict=True):
        logger.setLevel(value)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def test_a_line_is_json_with_its_logger_level_and_time(lines):
    logs.configure("info")
    structlog.stdlib.get_logger("duotrack_service.registry").info("session created", mode="live", frames=3)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "session created",
        "mode": "live",
        "frames": 3,
        "logger": "duotrack_service.registry",
        "level": "info",
    }


def test_lines_of_libraries_and_tracebacks_pass_the_guard_too(lines):
    logs.configure("info")
    try:
        raise ValueError(f"could not open redis://duotrack:{SECRET}@store:6379/0")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("refused a request with Authorization: Bearer %s", SECRET)
    (line,) = lines()
    assert line["event"] == f"refused a request with Authorization: Bearer {MASK}"
    assert f"redis://duotrack:{MASK}@store:6379/0" in line["exception"]
    assert "Traceback" in line["exception"]
    assert SECRET not in str(line)


def test_debug_is_for_our_own_loggers(lines):
    logs.configure("debug")
    structlog.stdlib.get_logger("duotrack_service.stream").debug("ours")
    logging.getLogger("uvicorn.error").debug("< Sec-WebSocket-Protocol: %s", SECRET)
    logging.getLogger("websockets.server").info("theirs")
    assert [line["event"] for line in lines()] == ["ours", "theirs"]


def test_the_level_is_kept(lines):
    logs.configure("warning")
    structlog.stdlib.get_logger("duotrack_service.stream").info("ours")
    logging.getLogger("uvicorn.error").info("theirs")
    assert lines() == []


def test_a_session_is_bound_to_every_line_of_its_block_and_of_its_tasks(lines):
    logs.configure("info")
    log = structlog.stdlib.get_logger("duotrack_service.stream")

    async def step() -> None:
        log.info("in a task")
        logging.getLogger("somewhere").info("in a library")

    async def serve(session: str) -> None:
        with logs.session(session):
            await asyncio.create_task(step())
        log.info("after")

    async def serve_two() -> None:
        await asyncio.gather(serve("one"), serve("two"))

    asyncio.run(serve_two())
    assert Counter((line["event"], line.get("session")) for line in lines()) == {
        ("in a task", "one"): 1,
        ("in a task", "two"): 1,
        ("in a library", "one"): 1,
        ("in a library", "two"): 1,
        ("after", None): 2,
    }


@pytest.mark.parametrize(
    "name",
    [
        "key", "api_key", "apiKey", "X-API-Key", "token", "resume_token", "resumeToken", "tokens", "ticket",
        "authorization", "Authorization", "authorization_header", "cookie", "password", "jwt", "jwt_secret", "keys",
    ],
)  # fmt: skip
def test_a_field_that_names_a_secret_is_masked(name):
    assert presentable(name, SECRET) == MASK
    assert presentable(name, SECRET.encode()) == MASK
    assert presentable(name, [SECRET]) == MASK
    assert presentable("request", {"headers": {name: SECRET}}) == {"headers": {name: MASK}}
    assert presentable("request", [{name: SECRET}]) == [{name: MASK}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keys", True), ("token", None), ("keys_file", "/etc/duotrack/keys.toml"), ("ticket_s", 60.0),
        ("api_key_id", "k3"), ("key_name", "drone"), ("monkey", "yes"), ("keyboard", "no"), ("session", "a1"),
        ("principal", "drone"), ("frames", 12), ("code", 1000),
    ],
)  # fmt: skip
def test_what_is_no_secret_is_shown(name, value):
    assert presentable(name, value) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"got 'Bearer {SECRET}'", f"got 'Bearer {MASK}'"),
        (f"[(b'authorization', b'bearer {SECRET}')]", f"[(b'authorization', b'bearer {MASK}')]"),
        (f"offered duotrack.v1, duotrack.ticket.{SECRET}", f"offered duotrack.v1, duotrack.ticket.{MASK}"),
        (f"offered duotrack.resume.{SECRET}.", f"offered duotrack.resume.{MASK}."),
        (f"GET /stream?ticket={SECRET}&mode=live", f"GET /stream?ticket={MASK}&mode=live"),
        (f'{{"resume_token": "{SECRET}"}}', f'{{"resume_token": "{MASK}"}}'),
        ("expired eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", f"expired {MASK}"),
        (f"expired eyJhbGciOiJIUzI1NiJ9.{LONG}.{LONG}", f"expired {MASK}"),
        (f"rediss://:{SECRET}@store:6379", f"rediss://:{MASK}@store:6379"),
        (f"no session for {LONG}, nor for 'k.{LONG}'", f"no session for {MASK}, nor for 'k.{MASK}'"),
        ("a" * 50 + " session Zk3-_Qm9xW0aYt7uJr5LpQ", "a" * 50 + " session Zk3-_Qm9xW0aYt7uJr5LpQ"),
        ("expected a valid key, ticket or resume token", "expected a valid key, ticket or resume token"),
        ("http://127.0.0.1:8000/v1/sessions", "http://127.0.0.1:8000/v1/sessions"),
        ("a bearer of bad news", "a bearer of bad news"),
    ],
)
def test_a_secret_within_a_text_is_masked(text, shown):
    assert presentable("event", text) == shown


def test_bytes_of_any_kind_are_replaced_by_their_length():
    image = np.zeros((4, 6, 3), np.uint8)
    assert presentable("data", b"JPEG") == "<4 bytes>"
    assert presentable("data", bytearray(5)) == "<5 bytes>"
    assert presentable("data", memoryview(b"123456")[2:]) == "<4 bytes>"
    assert presentable("data", array("H", [1, 2])) == "<4 bytes>"
    assert presentable("data", image) == "<72 bytes>"
    assert presentable("data", image[:, ::2]) == "<36 bytes>"
    assert presentable("data", {"rgb": [image]}) == {"rgb": ["<72 bytes>"]}
    assert presentable("payload", Payload(Codec.JPEG8, b"\xff\xd8abc")) == {"codec": 1, "data": "<5 bytes>"}


def test_what_is_no_plain_data_is_a_short_text():
    @dataclass(frozen=True)
    class Login:
        name: str
        password: str

    assert presentable("path", Path("/srv")) == "/srv"
    assert presentable("login", Login("me", SECRET)) == {"name": "me", "password": MASK}
    assert presentable("error", ValueError(f"token={SECRET}")) == f"token={MASK}"
    assert presentable("numbers", np.float32(0.5)) == "0.5"
    assert len(presentable("path", Path("/long" * 100))) == logs.MAX_REPR
    deep: list[object] = []
    deep.append(deep)
    assert presentable("deep", deep) == [[[["<list>"]]]]
    nested: dict[str, object] = {}
    nested["in"] = nested
    assert presentable("deep", nested) == {"in": {"in": {"in": {"in": "<dict>"}}}}
    assert presentable("seen", {f"duotrack.ticket.{SECRET}": None}) == {f"duotrack.ticket.{MASK}": None}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(min_size=12, max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), PLAIN, max_size=4), st.sampled_from(["ticket", "api_key", "Authorization"]))
def test_whatever_is_around_it_a_secret_never_comes_through_and_the_line_can_be_written(around, name):
    line = logs.guard(None, "info", {**around, "inner": [{**around, name: SECRET}], "event": f"Bearer {SECRET}"})
    assert SECRET not in json.dumps(line)
