"""Frame pairs one by one over HTTP."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx2
import numpy as np
import pytest
from websockets.sync.client import connect


@pytest.fixture
def http(service):
    with httpx2.Client(base_url=service.url, timeout=10) as client:
        yield client


def create(http: httpx2.Client, box) -> dict:
    return http.post("/v1/sessions", json={"box": dict(zip("xywh", box.xywh, strict=True))}).json()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image if image.ndim == 2 else image[:, :, ::-1])[1].tobytes()


def files(pair) -> dict[str, bytes]:
    return {"rgb": png(pair.rgb), "thermal": png(pair.thermal)}


def post(http: httpx2.Client, session: dict, images: dict[str, bytes], **fields: str) -> httpx2.Response:
    return http.post(f"/v1/sessions/{session['id']}/frames", files=images, data=fields)


@pytest.mark.parametrize("depth", [8, 16])
def test_pairs_are_tracked_one_by_one(http, scenes, depth: int) -> None:
    scene = scenes(frames=4, depth=depth)
    session = create(http, scene.box)
    for seq, (pair, box) in enumerate(zip(scene.pairs, scene.boxes, strict=True)):
        answer = post(http, session, files(pair))
        assert answer.status_code == 200, answer.text
        result = answer.json()
        assert (result["type"], result["seq"]) == ("result", seq)
        assert (result["box"]["x"], result["box"]["y"]) == (box.x, box.y)
    assert http.get(f"/v1/sessions/{session['id']}").json()["frames"] == 4


def test_one_image_is_enough_and_numbers_may_be_given(http, scene) -> None:
    session = create(http, scene.box)
    answer = post(http, session, {"rgb": png(scene.pairs[0].rgb)}, seq="7").json()
    assert (answer["seq"], answer["modalities"]["thermal"]) == (7, "missing")
    assert post(http, session, files(scene.pairs[1])).json()["seq"] == 8


def test_after_the_last_number_there_is_none(http, scene) -> None:
    session = create(http, scene.box)
    assert post(http, session, files(scene.pairs[0]), seq=str(2**64 - 1)).status_code == 200
    answer = post(http, session, files(scene.pairs[1]))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:duotrack:problem:protocol")


def test_the_rate_of_frames_holds_here_too(serve, scene) -> None:
    """Five a second, of which the first five may come at once; the others are late, not refused."""
    service = serve(frames_per_second=5)
    with httpx2.Client(base_url=service.url, timeout=10) as client:
        session = create(client, scene.box)
        image, began = {"rgb": png(scene.pairs[0].rgb)}, time.monotonic()
        assert [post(client, session, image).status_code for _ in range(10)] == [200] * 10
        assert time.monotonic() - began > 0.5


@pytest.fixture
def held_back(serve, scene, wait):
    """A service, a client, and a frame that has to wait 99 seconds for the rate of its key."""
    service = serve(frames_per_second=0.01)
    with httpx2.Client(base_url=service.url, timeout=20) as http, ThreadPoolExecutor() as pool:
        session = create(http, scene.box)
        assert post(http, session, files(scene.pairs[0])).status_code == 200
        answer = pool.submit(post, http, session, files(scene.pairs[1]))
        wait(lambda: http.get(f"/v1/sessions/{session['id']}").json()["state"] == "streaming")
        yield service, http, session, answer


def test_a_frame_that_is_held_back_does_not_hold_up_the_end_of_the_service(held_back) -> None:
    service, _, _, held = held_back
    service.stop()
    answer = held.result()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:duotrack:problem:stopping")


def test_a_frame_that_is_held_back_gives_way_to_a_stream(held_back) -> None:
    _, _, session, held = held_back
    with connect(session["stream_url"], subprotocols=["duotrack.v1"]) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "hello"
    answer = held.result()
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:duotrack:problem:streaming")


def test_a_frame_that_is_held_back_ends_with_its_session(held_back) -> None:
    _, http, session, held = held_back
    assert http.delete(f"/v1/sessions/{session['id']}").status_code == 204
    answer = held.result()
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:duotrack:problem:no-session")


@pytest.mark.parametrize(
    ("images", "fields", "status", "kind"),
    [
        ({}, {"seq": "1"}, 422, "invalid-request"),
        ({"rgb": b"GIF89a"}, {}, 415, "unsupported-image"),
        ({"rgb": b"\xff\xd8 cut"}, {}, 422, "corrupt-image"),
        ({"thermal": png(np.zeros((8, 8, 3), np.uint8))}, {}, 422, "unsupported-image"),
        ({"rgb": png(np.zeros((180, 240, 3), np.uint16))}, {}, 422, "unsupported-image"),
        ({"rgb": png(np.zeros((8, 8, 3), np.uint8))}, {}, 422, "size-changed"),
        ({"rgb": png(np.zeros((180, 240, 3), np.uint8))}, {"seq": "0"}, 422, "protocol"),
        ({"rgb": png(np.zeros((180, 240, 3), np.uint8))}, {}, 422, "unusable-frame"),
        ({"rgb": png(np.zeros((180, 240, 3), np.uint8))}, {"seq": "-1"}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_used_is_a_problem_and_the_session_lives(
    http, scene, images, fields, status: int, kind: str
) -> None:
    session = create(http, scene.box)
    assert post(http, session, files(scene.pairs[0])).status_code == 200
    answer = post(http, session, images, **fields)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:duotrack:problem:{kind}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("errors" in answer.json()) == (kind == "invalid-request")
    assert post(http, session, files(scene.pairs[2])).json()["box"]["x"] == scene.boxes[2].x


def test_too_many_pixels_and_too_many_bytes(serve, scene) -> None:
    with httpx2.Client(base_url=serve(max_pixels=240 * 180, max_frame_bytes=200_000).url) as http:
        session = create(http, scene.box)
        answer = post(http, session, {"rgb": png(np.zeros((181, 240, 3), np.uint8))})
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:duotrack:problem:protocol")
        answer = post(http, session, {"rgb": b"\xff\xd8" + bytes(300_000)})
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:duotrack:problem:body-too-long")
        assert post(http, session, files(scene.pairs[0])).status_code == 200


def test_a_box_outside_the_frame_ends_the_session(http, scene) -> None:
    session = create(http, type(scene.box)(500, 0, 10, 10))
    answer = post(http, session, files(scene.pairs[0]))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:duotrack:problem:unusable-box")
    assert post(http, session, files(scene.pairs[0])).status_code == 404


def test_a_session_with_a_stream_takes_no_uploads(http, scene) -> None:
    session = create(http, scene.box)
    with connect(session["stream_url"], subprotocols=["duotrack.v1"]) as socket:
        socket.recv(timeout=10)
        answer = post(http, session, files(scene.pairs[0]))
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:duotrack:problem:streaming")


def test_an_upload_for_a_session_that_is_not_there(http, scene) -> None:
    assert post(http, {"id": "none"}, files(scene.pairs[0])).status_code == 404


def test_pairs_that_wait_leave_room_for_others_and_are_counted(serve, scene, gate, wait) -> None:
    """Room for one pair. The second finds none; the first is tracked, and then there is room again."""
    service = serve(model=gate, max_bytes_in_flight=1024, body_timeout_s=0.2)
    with httpx2.Client(base_url=service.url, timeout=10) as http, ThreadPoolExecutor() as pool:
        first, second = create(http, scene.box), create(http, scene.box)
        assert post(http, first, files(scene.pairs[0])).status_code == 200
        tracked = pool.submit(post, http, first, files(scene.pairs[1]))
        wait(gate.entered.is_set)
        answer = post(http, second, files(scene.pairs[0]))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:duotrack:problem:busy")
        assert answer.headers["retry-after"] == "1"
        gate.opened.set()
        assert tracked.result().status_code == 200
        assert post(http, second, files(scene.pairs[0])).status_code == 200


def test_pairs_that_are_refused_are_counted(serve, scene) -> None:
    with httpx2.Client(base_url=serve().url) as http:
        session = create(http, scene.box)
        for images in ({"rgb": b"GIF89a"}, {"rgb": b"\xff\xd8 cut"}, {"rgb": b"\xff\xd8 cut"}):
            assert post(http, session, images).is_client_error
        metrics = http.get("/metrics").text
        assert 'duotrack_frames_refused_total{code="unsupported_image"} 1.0' in metrics
        assert 'duotrack_frames_refused_total{code="corrupt_image"} 2.0' in metrics


def test_a_bug_is_a_500_and_no_detail_gets_out(serve, scene, bugs) -> None:
    with httpx2.Client(base_url=serve(model=bugs).url) as http:
        bugs.active = True
        session = create(http, scene.box)
        answer = post(http, session, files(scene.pairs[0]))
        assert (answer.status_code, answer.json()["title"]) == (500, "Internal Server Error")
        assert "bug" not in answer.text
        bugs.active = False
        assert post(http, session, files(scene.pairs[0])).status_code == 200
