"""The HTTP interface, over real sockets."""

import httpx2
import pytest

BOX = {"x": 1, "y": 2, "w": 30, "h": 40.5}


@pytest.fixture
def service(serve):
    """A service of its own for each test: they look at all there is."""
    return serve()


@pytest.fixture
def http(service):
    with httpx2.Client(base_url=service.url) as client:
        yield client


def test_a_session_is_made_shown_listed_and_deleted(http: httpx2.Client, service) -> None:
    created = http.post("/v1/sessions", json={"box": BOX})
    assert created.status_code == 201
    session = created.json()
    assert session["stream_url"] == f"{service.websocket_url}/v1/sessions/{session['id']}/stream"
    assert session["limits"] == {
        "window": 8,
        "max_frame_bytes": 16777216,
        "max_pixels": 8294400,
        "max_targets": 8,
        "idle_s": 60,
    }
    assert (session["state"], session["mode"], session["model"]) == ("created", "every_frame", "match")
    assert session["box"] == BOX
    secrets = [session.pop("ticket"), session.pop("resume_token")]
    assert len(set(secrets)) == 2
    assert session.pop("ticket_expires_in") == 60
    assert http.get(f"/v1/sessions/{session['id']}").json() == session
    assert http.get("/v1/sessions").json() == {"sessions": [session]}
    assert http.delete(f"/v1/sessions/{session['id']}").status_code == 204
    assert http.get("/v1/sessions").json() == {"sessions": []}


def test_ids_cannot_be_guessed(http: httpx2.Client) -> None:
    ids = {http.post("/v1/sessions", json={"box": BOX}).json()["id"] for _ in range(8)}
    assert len(ids) == 8
    assert min(map(len, ids)) >= 22  # 128 bits in base64


def test_the_path_without_a_version_answers_too(http: httpx2.Client) -> None:
    session = http.post("/sessions", json={"box": BOX, "mode": "live"}).json()
    assert session["limits"]["window"] is None
    assert http.get(f"/v1/sessions/{session['id']}").json()["mode"] == "live"


def test_models_and_readiness_show_what_really_runs(http: httpx2.Client) -> None:
    assert http.get("/v1/models").json() == {"models": [{"name": "match", "provider": "CPU", "precision": "fp32"}]}
    assert http.get("/health/live").json() == {"status": "live"}
    ready = http.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "model": "match",
        "provider": "CPU",
        "precision": "fp32",
        "sessions": 0,
        "max_sessions": 64,
        "models": [{"name": "match", "provider": "CPU", "precision": "fp32", "lanes": 1, "max_batch": 1}],
        "store": "memory",
        "durable": False,
    }


def assert_problem(response: httpx2.Response, status: int, title: str) -> dict:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["title"]) == (status, title)
    return problem


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_session_that_is_not_there_is_a_problem(http: httpx2.Client, method: str) -> None:
    problem = assert_problem(http.request(method, "/v1/sessions/none"), 404, "No such session")
    assert problem["type"] == "urn:duotrack:problem:no-session"
    assert problem["detail"] == "session 'none' does not exist or has ended"


def test_a_path_that_is_not_there_is_a_problem(http: httpx2.Client) -> None:
    assert assert_problem(http.get("/v2"), 404, "Not Found")["type"] == "about:blank"
    response = http.put("/v1/models")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "body.box"),
        (b"", "body"),
        (b"{", "body.1"),
        (b'{"box": {"x": 1, "y": 2, "w": 3}}', "body.box.h"),
        (b'{"box": {"x": 1, "y": 2, "w": 3, "h": 0}}', "body.box.h"),
        (b'{"box": {"x": 1, "y": 2, "w": 3, "h": -4}}', "body.box.h"),
        (b'{"box": {"x": NaN, "y": 2, "w": 3, "h": 4}}', "body.box.x"),
        (b'{"box": {"x": 1e999, "y": 2, "w": 3, "h": 4}}', "body.box.x"),
        (b'{"box": {"x": 1, "y": 2, "w": 1e300, "h": 4}}', "body.box.w"),
        (b'{"box": {"x": "1", "y": 2, "w": 3, "h": 4}}', "body.box.x"),
        (b'{"box": {"x": true, "y": 2, "w": 3, "h": 4}}', "body.box.x"),
        (b'{"box": [1, 2, 3, 4]}', "body.box"),
        (b'{"box": {"x": 1, "y": 2, "w": 3, "h": 4}, "mode": "slow"}', "body.mode"),
        (b'{"box": {"x": 1, "y": 2, "w": 3, "h": 4}, "modell": "s"}', "body.modell"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(http: httpx2.Client, body: bytes, field: str) -> None:
    response = http.post("/v1/sessions", content=body, headers={"content-type": "application/json"})
    problem = assert_problem(response, 422, "The request is not valid")
    assert [error["field"] for error in problem["errors"]] == [field]


def test_json_of_absurd_depth_is_a_problem(http: httpx2.Client) -> None:
    response = http.post("/v1/sessions", content=b"[" * 60_000, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_long_body_is_refused_unread(http: httpx2.Client) -> None:
    assert_problem(http.post("/v1/sessions", content=b" " * 65_537), 413, "Request body too long")
    chunks = (b" " * 40_000 for _ in range(2))
    assert_problem(http.post("/v1/sessions", content=chunks), 413, "Request body too long")


def test_a_model_that_does_not_run_is_a_problem(http: httpx2.Client) -> None:
    problem = assert_problem(http.post("/v1/sessions", json={"box": BOX, "model": "huge"}), 422, "No such model")
    assert problem["detail"] == "expected a model among match, got 'huge'"
    assert http.post("/v1/sessions", json={"box": BOX, "model": "match"}).status_code == 201


def test_a_full_service_takes_no_more_sessions(serve) -> None:
    with httpx2.Client(base_url=serve(max_sessions=2).url) as http:
        first = http.post("/v1/sessions", json={"box": BOX}).json()
        assert http.post("/v1/sessions", json={"box": BOX}).status_code == 201
        response = http.post("/v1/sessions", json={"box": BOX})
        assert_problem(response, 429, "Too many sessions")
        assert response.headers["retry-after"] == "5"
        http.delete(f"/v1/sessions/{first['id']}")
        assert http.post("/v1/sessions", json={"box": BOX}).status_code == 201


def test_an_error_of_our_own_is_a_problem_without_details(serve, monkeypatch) -> None:
    def fail() -> str:
        raise RuntimeError("secret")

    service = serve()
    monkeypatch.setattr("duotrack_service.registry.new_secret", fail)
    with httpx2.Client(base_url=service.url) as http:
        response = http.post("/v1/sessions", json={"box": BOX})
        assert_problem(response, 500, "Internal Server Error")
        assert "secret" not in response.text


def test_a_connection_that_is_not_used_is_closed_by_the_client_first(service) -> None:
    """Or else a request of the Python client may meet a connection that the service is just closing."""
    assert service.server.config.timeout_keep_alive > 10 * httpx2.Limits().keepalive_expiry
