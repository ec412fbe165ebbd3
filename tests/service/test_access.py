"""Who gets in, over real sockets: keys, tickets, tokens, and no one else's session."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from duotrack_client import Client, ServerError, SessionClosed
from duotrack_client.protocol import offer
from duotrack_service import cli as serve_cli
from duotrack_service.auth import Principal
from duotrack_service.keys import ApiKey, read_keys, write_keys
from duotrack_service.rates import CreationRate, FrameRates
from duotrack_service.tickets import digest


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    now = datetime.now(UTC)
    limits = {"drone": {}, "lab": {}, "small": {"max_sessions": 1}, "slow": {"frames_per_second": 20.0}}
    write_keys(path, [ApiKey(name, digest(f"dtk_{name}"), now, **limit) for name, limit in limits.items()])
    return path


def http(service, name: str | None) -> httpx2.Client:
    headers = {} if name is None else {"Authorization": f"Bearer dtk_{name}"}
    return httpx2.Client(base_url=service.url, headers=headers)


def create(client: httpx2.Client, scene) -> dict:
    answer = client.post("/v1/sessions", json={"box": dict(zip("xywh", scene.box.xywh, strict=True))})
    assert answer.status_code == 201, answer.text
    return answer.json()


def opened(url: str, *protocols: str, key: str | None = None) -> str | tuple[int, str]:
    """What the server says first, or the code and reason of its close."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with connect(url, subprotocols=["duotrack.v1", *protocols], additional_headers=headers) as websocket:
        assert websocket.subprotocol == "duotrack.v1"
        try:
            return json.loads(websocket.recv(timeout=10))["type"]
        except ConnectionClosed as error:
            return error.rcvd.code, error.rcvd.reason


def test_everything_but_health_asks_for_a_key(serve, keys: Path) -> None:
    service = serve(keys_file=keys)
    with http(service, None) as client:
        for path in ("/v1/sessions", "/v1/sessions/x", "/v1/models", "/sessions", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (401, "urn:duotrack:problem:unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.post("/v1/sessions", json={}).status_code == 401
        assert client.post("/v1/sessions/x/frames").status_code == 401
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
    with http(service, "drone") as client:
        assert client.get("/v1/models").status_code == 200
        assert 'duotrack_refused_total{reason="unauthorized"} ' in client.get("/metrics").text


def test_nobodys_frames_are_not_read(serve, keys: Path) -> None:
    """Without a key, the answer comes before the body, of which not a byte is waited for."""
    service = serve(keys_file=keys)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"POST /v1/sessions/x/frames HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_who_is_refused_is_counted(serve, keys: Path, scene) -> None:
    service = serve(keys_file=keys)
    with http(service, "drone") as owner:
        url = create(owner, scene)["stream_url"]
        for shown in ({}, {"key": "dtk_nobody"}, {"key": "dtk_lab"}):
            assert isinstance(opened(url, **shown), tuple)
        assert 'duotrack_refused_total{reason="unauthorized"} 2.0' in owner.get("/metrics").text


def test_another_keys_session_is_not_there(serve, keys: Path, scene) -> None:
    service = serve(keys_file=keys)
    with http(service, "drone") as owner, http(service, "lab") as other:
        session = create(owner, scene)
        path = f"/v1/sessions/{session['id']}"
        assert other.get("/v1/sessions").json() == {"sessions": []}
        for answer in (
            other.get(path),
            other.delete(path),
            other.post(f"{path}/tickets"),
            other.post(f"{path}/frames", files={"rgb": b"\xff\xd8"}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:duotrack:problem:no-session")
        assert opened(session["stream_url"], key="dtk_lab") == (4404, "this session does not exist or has ended")
        assert owner.get(path).json()["state"] == "created"


def test_a_stream_opens_with_a_key_a_ticket_or_a_token_and_nothing_else(serve, keys: Path, scene) -> None:
    service = serve(keys_file=keys)
    with http(service, "drone") as owner:
        session, other = create(owner, scene), create(owner, scene)
        url = session["stream_url"]
        refused = (4401, "expected a valid key, ticket or resume token")
        assert opened(url) == refused
        assert opened(url, key="dtk_nobody") == refused
        assert opened(url, offer("ticket", other["ticket"])) == refused
        assert opened(other["stream_url"], offer("ticket", other["ticket"])) == refused  # it was used up just now
        assert opened(url, offer("resume", other["resume_token"])) == refused
        assert opened(url, key=other["resume_token"]) == refused
        assert opened(url, key="dtk_drone") == "hello"
        assert opened(url, offer("ticket", session["ticket"])) == "hello"
        assert opened(url, offer("ticket", session["ticket"])) == refused
        assert opened(url, offer("resume", session["resume_token"])) == "hello"
        assert opened(url, key=session["resume_token"]) == "hello"
        ticket = owner.post(f"/v1/sessions/{session['id']}/tickets").json()
        assert ticket["expires_in"] == 60
        assert opened(url, offer("ticket", ticket["ticket"])) == "hello"


@pytest.mark.parametrize("renewed", [False, True])
def test_a_revoked_keys_sessions_end(serve, keys: Path, scene, monkeypatch, renewed: bool) -> None:
    """Its streams, at once; those without one, too; and a new key of that name does not take them over."""
    revoked = 4401, "the key that made this session was revoked"
    monkeypatch.setattr("duotrack_service.registry.REVOKED_S", 0.05)
    service = serve(keys_file=keys)
    with http(service, "drone") as drone, http(service, "lab") as lab:
        session, waiting, other = create(drone, scene), create(drone, scene), create(lab, scene)
        protocols = ["duotrack.v1", offer("ticket", session["ticket"])]
        with connect(session["stream_url"], subprotocols=protocols) as websocket:
            assert json.loads(websocket.recv(timeout=10))["type"] == "hello"
            left = [key for key in read_keys(keys) if key.name != "drone"]
            write_keys(keys, [*left, ApiKey("drone", digest("dtk_new"), datetime.now(UTC))] if renewed else left)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(timeout=10)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == revoked
        for ended in (session, waiting):
            assert opened(ended["stream_url"], offer("resume", ended["resume_token"]))[0] == 4401
        assert drone.get("/v1/sessions").status_code == 401
        assert opened(other["stream_url"], key="dtk_lab") == "hello"


def test_frames_over_http_do_not_reach_a_former_keys_session(serve, keys: Path, scene) -> None:
    """Nor does a new key of the same name, even before anyone looked for what was revoked."""
    service = serve(keys_file=keys)
    with http(service, "drone") as drone:
        session = create(drone, scene)
    write_keys(keys, [ApiKey("drone", digest("dtk_new"), datetime.now(UTC))])
    with http(service, "new") as renewed:
        answer = renewed.post(f"/v1/sessions/{session['id']}/frames", files={"rgb": b"\xff\xd8"})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:duotrack:problem:no-session")
        assert renewed.get("/v1/sessions").json() == {"sessions": []}


def test_a_revoked_keys_session_does_not_come_back_from_the_store(serve, keys: Path, scene, tmp_path: Path) -> None:
    settings = {"keys_file": keys, "store": f"sqlite://{tmp_path / 'sessions.db'}"}
    service = serve(**settings)
    with http(service, "drone") as drone, http(service, "lab") as lab:
        sessions = [create(drone, scene), create(lab, scene)]
    service.stop()
    write_keys(keys, [key for key in read_keys(keys) if key.name != "drone"])
    service = serve(**settings)
    revoked, kept = (
        opened(f"{service.websocket_url}/v1/sessions/{one['id']}/stream", offer("resume", one["resume_token"]))
        for one in sessions
    )
    assert (revoked, kept) == ((4401, "the key that made this session was revoked"), "hello")


def test_a_ticket_is_valid_for_a_while(serve, keys: Path, scene) -> None:
    service = serve(keys_file=keys, ticket_s=0.1)
    with http(service, "drone") as owner:
        session = create(owner, scene)
        time.sleep(0.2)
        assert opened(session["stream_url"], offer("ticket", session["ticket"]))[0] == 4401


def test_a_client_shows_its_key_and_hides_it(serve, keys: Path, scene, monkeypatch) -> None:
    service = serve(keys_file=keys)
    with Client(service.url, api_key="dtk_drone") as client, client.session(scene.box) as session:
        assert session.track(scene.pairs[0]).seq == 0
        assert "dtk_" not in f"{client!r} {session!r} {session._created!r}"
    monkeypatch.setenv("DUOTRACK_API_KEY", "dtk_lab")
    with Client(service.url) as client, client.session(scene.box) as session:
        assert session.track(scene.pairs[0]).seq == 0
    with Client(service.url, api_key="dtk_wrong") as client, pytest.raises(ServerError, match="401") as caught:
        client.session(scene.box).__enter__()
    assert "dtk_" not in str(caught.value)


def test_a_key_has_its_own_number_of_sessions(serve, keys: Path, scene) -> None:
    service = serve(keys_file=keys)
    body = {"box": dict(zip("xywh", scene.box.xywh, strict=True))}
    with http(service, "small") as client:
        session = create(client, scene)
        answer = client.post("/v1/sessions", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert "all 1 sessions of 'small' are taken" in answer.json()["detail"]
        client.delete(f"/v1/sessions/{session['id']}")
        create(client, scene)
    with http(service, "lab") as client:
        create(client, scene)


def test_sessions_are_made_so_fast_and_no_faster(serve, scene) -> None:
    service = serve(creations_per_minute=3)
    with http(service, None) as client:
        for _ in range(3):
            create(client, scene)
        answer = client.post("/v1/sessions", json={"box": dict(zip("xywh", scene.box.xywh, strict=True))})
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:duotrack:problem:too-fast")
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_frames_of_a_key_are_tracked_at_its_pace(serve, keys: Path, scenes) -> None:
    scene = scenes(frames=12)
    service = serve(keys_file=keys)
    with Client(service.url, api_key="dtk_slow") as client, client.session(scene.box) as session:
        for pair in scene.pairs:
            session.track(pair)
        began = time.monotonic()
        for _ in range(20):  # the second of frames that was saved up is spent by now
            session.track(scene.pairs[-1])
        assert time.monotonic() - began > 0.3


def test_a_session_lives_as_long_as_was_agreed_on(serve, scene) -> None:
    service = serve()
    with Client(service.url) as client, client.session(scene.box, ttl=0.3) as session:
        session.track(scene.pairs[0])
        time.sleep(0.4)
        with pytest.raises(SessionClosed, match="4410"):
            session.track(scene.pairs[1])
    assert httpx2.get(f"{service.url}/v1/sessions/{session.id}").status_code == 404


def test_the_service_does_not_listen_to_the_world_without_keys(monkeypatch, keys: Path) -> None:
    from typer.testing import CliRunner

    def refuse(*_: object) -> None:
        raise AssertionError("it would have served")

    monkeypatch.setattr(serve_cli, "open_models", refuse)
    monkeypatch.setattr(serve_cli.logs, "configure", lambda _: None)  # the log is that of the whole test run
    run = CliRunner().invoke
    result = run(serve_cli.app, ["--host", "0.0.0.0", "--port", "0", "--store", "memory:"])
    assert (result.exit_code, "there are no keys" in result.stderr) == (2, True)
    for way in (["--allow-anonymous"], ["--keys-file", str(keys)]):
        result = run(serve_cli.app, ["--host", "0.0.0.0", "--port", "0", "--store", "memory:", *way])
        assert isinstance(result.exception, AssertionError)


@pytest.fixture
def raw(serve) -> Iterator[tuple[str, int]]:
    service = serve(header_timeout_s=0.3, body_timeout_s=0.3, max_connections=6, max_connections_per_address=4)
    host, port = service.url.removeprefix("http://").split(":")
    return host, int(port)


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    data = b""
    try:
        while part := connection.recv(4096):
            data += part
    except ConnectionResetError:
        pass
    return data


HEAD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("sent", [b"", b"G", HEAD])
def test_a_head_that_does_not_come_is_not_waited_for(raw: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(raw) as connection:
        connection.sendall(sent)
        assert read_all(connection) == b""


def test_a_head_that_dribbles_is_not_waited_for_even_after_a_sound_request(raw: tuple[str, int]) -> None:
    with socket.create_connection(raw) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert b"200 OK" in connection.recv(4096)
        stop = threading.Event()

        def dribble() -> None:
            try:
                while not stop.wait(0.05):
                    connection.sendall(b"G")
            except OSError:
                pass

        thread = threading.Thread(target=dribble)
        thread.start()
        began = time.monotonic()
        read_all(connection)
        stop.set()
        thread.join(5)
        assert time.monotonic() - began < 4


def test_a_body_that_does_not_come_is_not_waited_for(raw: tuple[str, int]) -> None:
    with socket.create_connection(raw) as connection:
        connection.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body-too-slow" in answer


def test_there_are_only_so_many_connections_of_one_address(raw: tuple[str, int], wait) -> None:
    def answers(connection: socket.socket) -> bool:
        connection.settimeout(5)
        try:
            connection.sendall(HEAD + b"\r\n")
            return b"200 OK" in connection.recv(4096)
        except OSError:
            return False

    connections = [socket.create_connection(raw) for _ in range(5)]
    assert [answers(connection) for connection in connections] == [True] * 4 + [False]
    connections[0].close()

    def again() -> bool:
        with socket.create_connection(raw) as connection:
            return answers(connection)

    wait(again)
    for connection in connections:
        connection.close()


def test_streams_count_and_are_given_back(serve, scene, wait) -> None:
    service = serve(max_connections_per_address=3)
    for _ in range(6):
        with Client(service.url) as client, client.session(scene.box) as session:
            session.track(scene.pairs[0])
    wait(lambda: httpx2.get(f"{service.url}/health/live").status_code == 200)


def test_rates_by_themselves() -> None:
    creations = CreationRate(2)
    one, other = Principal("one"), Principal("other")
    assert [creations.wait(one), creations.wait(one)] == [0, 0]
    assert 0 < creations.wait(one) <= 60
    assert creations.wait(other) == 0
    frames = FrameRates(None)
    assert frames.wait("any", None, 0.0) == 0
    # Ten a second: a second's worth at once, and then one each tenth.
    waits = [frames.wait("one", 10.0, 100.0) for _ in range(14)]
    assert waits[:11] == [0] * 11
    assert waits[11:] == pytest.approx([0.1, 0.2, 0.3])
    assert frames.wait("other", 10.0, 100.0) == 0
    assert frames.wait("one", 10.0, 101.0) == 0
    assert FrameRates(1.0).wait("one", None, 0.0) == 0
