import httpx2
import pytest

from duotrack_client import Box, ConnectionFailed, Mode, ProtocolError, ServerError, rest


def response(status: int, **content: object) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("POST", "https://example.test/track/v1/sessions"), **content)


@pytest.mark.parametrize(
    "url", ["http://host:1", "http://host:1/", "https://host:1/track", "https://host:1/track/?q#f"]
)
def test_the_url_of_a_service_ends_in_a_slash(url: str) -> None:
    base = rest.base_url(url)
    assert base.endswith("/")
    assert base.rstrip("/") == url.split("?")[0].rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8000",
        "ftp://host",
        "http://",
        "ws://host",
        "http://[::1",
        "http://h:abc",
        "http://h:99999",
        "http://a..b",
    ],
)
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    with pytest.raises(ConnectionFailed, match="expected the URL of a service"):
        rest.base_url(url)


def test_a_key_may_be_read_with_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rest.find_key("dtk_one\r\n") == "dtk_one"
    monkeypatch.setenv("DUOTRACK_API_KEY", "dtk_two\n")
    assert rest.find_key(None) == "dtk_two"
    monkeypatch.setenv("DUOTRACK_API_KEY", "")
    assert rest.find_key(None) is None


@pytest.mark.parametrize("key", ["dtk_sec\nret", "dtk_sécret", "dtk_sec\x00ret"])
def test_a_key_that_no_header_can_carry_is_not_repeated(key: str) -> None:
    with pytest.raises(ConnectionFailed, match="the API key has characters") as caught:
        rest.find_key(key)
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


def test_a_model_is_only_asked_for_when_chosen() -> None:
    box = {"x": 1, "y": 2, "w": 3, "h": 4}
    assert rest.create_request(Box(1, 2, 3, 4), Mode.LIVE, None) == {"box": box, "mode": "live"}
    assert rest.create_request(Box(1, 2, 3, 4), Mode.LIVE, "s")["model"] == "s"


@pytest.mark.parametrize(
    ("stream_url", "expected"),
    [
        ("ws://other:1/stream", "ws://other:1/stream"),
        ("wss://other:1/stream", "wss://other:1/stream"),
        ("/v1/sessions/a/stream", "wss://example.test/v1/sessions/a/stream"),
        ("sessions/a/stream", "wss://example.test/track/v1/sessions/a/stream"),
    ],
)
def test_a_stream_url_may_be_relative(stream_url: str, expected: str) -> None:
    created = rest.read_created(response(201, json={"id": "a", "stream_url": stream_url}))
    assert (created.id, created.stream_url) == ("a", expected)


@pytest.mark.parametrize("document", [[], {"id": "a"}, {"id": "a", "stream_url": "ftp://x"}, 3])
def test_an_answer_that_is_no_session_is_a_protocol_error(document: object) -> None:
    with pytest.raises(ProtocolError, match="expected a session with an id and a stream_url"):
        rest.read_created(response(201, json=document))


def test_an_answer_that_is_no_json_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="is this a DuoTrack service"):
        rest.read_created(response(200, text="<html>"))


def test_a_problem_document_is_read() -> None:
    document = {"type": "urn:x", "title": "Too many sessions", "detail": "all 4 are taken", "status": 503}
    with pytest.raises(ServerError, match="answered 503: Too many sessions: all 4 are taken") as caught:
        rest.read_created(response(503, json=document))
    assert caught.value.problem.type == "urn:x"


@pytest.mark.parametrize("content", [{"text": "<html>"}, {"json": [1]}, {"json": {}}])
def test_an_error_of_a_proxy_is_a_server_error_too(content: dict[str, object]) -> None:
    with pytest.raises(ServerError, match="answered 502: Bad Gateway"):
        rest.read_created(response(502, **content))
