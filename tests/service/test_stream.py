"""The WebSocket endpoint, met by a client that keeps to no rule but those of each test."""

import json
import logging
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest.mock import Mock

import cv2
import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from duotrack.frames import FramePair
from duotrack_client.encoding import Encoding, ImageFormat
from duotrack_client.protocol import Codec, Frame, Payload, encode_frame
from duotrack_service import steps as steps_module
from duotrack_service import stream as stream_module

RAW = Encoding(ImageFormat.RAW, ImageFormat.RAW)


def post(service, scene, **options: object) -> str:
    x, y, w, h = scene.box.xywh
    body = {"box": {"x": x, "y": y, "w": w, "h": h}, **options}
    return httpx2.post(f"{service.url}/v1/sessions", json=body).json()["id"]


def stream_url(service, session_id: str) -> str:
    return f"{service.websocket_url}/v1/sessions/{session_id}/stream"


@contextmanager
def open_stream(service, session_id: str) -> Iterator[ClientConnection]:
    with connect(stream_url(service, session_id), subprotocols=["duotrack.v1"], compression=None) as socket:
        assert socket.subprotocol == "duotrack.v1"
        greet(socket)
        yield socket


def greet(socket: ClientConnection) -> dict:
    """The server's hello, after which the answers that it repeats are read too."""
    hello = receive(socket)
    assert hello["type"] == "hello"
    while hello["repeats_from"] is not None and receive(socket)["seq"] != hello["resumed_at_seq"]:
        pass
    return hello


def receive(socket: ClientConnection) -> dict:
    return json.loads(socket.recv(timeout=10))


def closed(socket: ClientConnection) -> tuple[int, str]:
    """Read to the close; its code and reason."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=10)
    assert socket.close_code is not None
    assert socket.close_reason is not None
    return socket.close_code, socket.close_reason


def message(seq: int, pair, encoding: Encoding = RAW) -> bytes:
    return encode_frame(Frame(seq, 0, *encoding.encode(pair)))


def bomb(seq: int, width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of 30000×30000 black pixels: 2.7 GB when decoded, and whole in 2.6 MB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    rows = bytes(100 * (1 + width * 3))
    first = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    pixels = first + again * (height // 100 - 1) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return encode_frame(Frame(seq, 0, Payload(Codec.PNG8, png), None))


def test_the_first_pair_starts_the_track_and_the_target_is_followed(service, scene) -> None:
    with open_stream(service, post(service, scene)) as socket:
        for seq, (pair, box) in enumerate(zip(scene.pairs, scene.boxes, strict=True)):
            socket.send(message(seq, pair))
            result = receive(socket)
            assert (result["type"], result["seq"], result["state"]) == ("result", seq, "tracking")
            assert result["box"] == {"x": box.x, "y": box.y, "w": 24, "h": 24}
            assert result["modalities"] == {"rgb": "ok", "thermal": "ok"}
            timings = result["timings"]
            assert timings["total"] == pytest.approx(timings["queue"] + timings["decode"] + timings["infer"], abs=0.01)


def test_the_first_result_is_the_box_of_the_post(service, scene) -> None:
    with open_stream(service, post(service, scene)) as socket:
        socket.send(message(0, scene.pairs[0]))
        result = receive(socket)
        assert result["box"] == {"x": 20, "y": 30, "w": 24, "h": 24}
        assert result["score"] == 1.0


@pytest.mark.parametrize("depth", [8, 16])
def test_every_codec_arrives_as_it_was_sent(service, scenes, depth: int) -> None:
    scene = scenes(frames=3, depth=depth)
    lossless = [ImageFormat.PNG, ImageFormat.RAW]
    thermal_formats = [*lossless, ImageFormat.ZSTD if depth == 16 else ImageFormat.JPEG]
    for rgb_format in [*lossless, ImageFormat.JPEG]:
        for thermal_format in thermal_formats:
            encoding = Encoding(rgb_format, thermal_format)
            with open_stream(service, post(service, scene)) as socket:
                for seq, pair in enumerate(scene.pairs):
                    socket.send(message(seq, pair, encoding))
                    box = receive(socket)["box"]
                assert (box["x"], box["y"]) == (scene.boxes[-1].x, scene.boxes[-1].y)


@pytest.mark.parametrize("missing", ["rgb", "thermal"])
def test_a_modality_may_be_missing(service, scene, missing: str) -> None:
    with open_stream(service, post(service, scene)) as socket:
        for seq, pair in enumerate(scene.pairs[:3]):
            half = FramePair(None, pair.thermal) if missing == "rgb" else FramePair(pair.rgb, None)
            socket.send(message(seq, half))
            result = receive(socket)
            assert result["modalities"][missing] == "missing"
        assert result["box"]["x"] == scene.boxes[2].x


def test_a_damaged_jpeg_is_an_error_and_the_session_lives(service, scene) -> None:
    with open_stream(service, post(service, scene)) as socket:
        good = message(0, scene.pairs[0], Encoding())
        socket.send(good)
        assert receive(socket)["type"] == "result"
        rgb, _ = Encoding().encode(scene.pairs[1])
        damaged = Payload(Codec.JPEG8, bytes(rgb.data[: len(rgb.data) // 2]))
        socket.send(encode_frame(Frame(1, 0, damaged, None)))
        assert receive(socket) == {
            "type": "error",
            "code": "corrupt_image",
            "message": "the colour image is damaged and cannot be decoded as jpeg8",
            "seq": 1,
            "credit": 1,
        }
        socket.send(message(2, scene.pairs[2], Encoding()))
        result = receive(socket)
        assert (result["seq"], result["box"]["x"]) == (2, scene.boxes[2].x)


def test_frames_that_a_tracker_or_a_header_refuses_are_errors_in_their_turn(service, scene) -> None:
    pair = scene.pairs[0]
    black = FramePair(pair.rgb * 0, None)
    small = FramePair(pair.rgb[:-2], None)
    with open_stream(service, post(service, scene)) as socket:
        for seq, sent in enumerate([pair, small, black, pair]):
            socket.send(message(seq, sent))
        answers = [receive(socket) for _ in range(4)]
        assert [answer["seq"] for answer in answers] == [0, 1, 2, 3]
        assert [answer.get("code") for answer in answers] == [None, "size_changed", "unusable_frame", None]
        assert answers[1]["message"] == "expected 240x180, the size of the session's first pair, got 240x178"


def test_a_first_pair_that_was_never_tracked_fixes_no_size(serve, scene, gate, monkeypatch) -> None:
    monkeypatch.setattr(stream_module, "STEP_GRACE_S", 0.05)
    service = serve(model=gate)
    created = post(service, scene)
    with open_stream(service, post(service, scene)) as other:  # it has the only lane
        other.send(message(0, scene.pairs[0]))
        other.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        with open_stream(service, created) as socket:
            socket.send(message(0, FramePair(scene.pairs[0].rgb[:-2], None)))
        with open_stream(service, created) as socket:
            gate.opened.set()
            socket.send(message(1, scene.pairs[0]))
            assert receive(socket)["box"]["x"] == scene.box.x


def test_frames_behind_a_damaged_first_one_of_another_size_are_tracked(serve, scene, gate) -> None:
    service = serve(model=gate)
    rgb, _ = Encoding().encode(FramePair(scene.pairs[0].rgb[:-2], None))
    damaged = Payload(Codec.JPEG8, bytes(rgb.data[: len(rgb.data) // 2]))
    with open_stream(service, post(service, scene)) as other, open_stream(service, post(service, scene)) as socket:
        other.send(message(0, scene.pairs[0]))
        other.send(message(1, scene.pairs[1]))  # and has the only lane
        assert gate.entered.wait(10)
        socket.send(encode_frame(Frame(0, 0, damaged, None)))
        socket.send(message(1, scene.pairs[0]))
        socket.send('{"type":"ping","id":1}')
        assert receive(socket)["type"] == "pong"  # so both frames have been read
        gate.opened.set()
        assert [receive(socket).get("code") for _ in range(2)] == ["corrupt_image", None]


def test_a_bomb_is_refused_before_it_is_decoded(service, scene, monkeypatch) -> None:
    decode = Mock(wraps=steps_module.decode_pair)
    monkeypatch.setattr(steps_module, "decode_pair", decode)
    imdecode = Mock(wraps=cv2.imdecode)
    monkeypatch.setattr(cv2, "imdecode", imdecode)
    data = bomb(1)
    assert len(data) < 4_000_000
    with open_stream(service, post(service, scene)) as socket:
        socket.send(message(0, scene.pairs[0]))
        assert receive(socket)["seq"] == 0
        start = time.perf_counter()
        socket.send(data)
        farewell = receive(socket)
        elapsed = time.perf_counter() - start
        assert farewell["type"] == "error"
        assert farewell["seq"] is None
        assert "at most 8294400 pixels, got 30000x30000 = 900000000" in farewell["message"]
        assert closed(socket)[0] == 1009
    assert elapsed < 0.5  # decoding it takes seconds
    assert decode.call_count == 1  # the good frame
    assert imdecode.call_count == 0


def test_a_message_beyond_the_limit_is_closed_with_1009(serve, scene) -> None:
    service = serve(max_frame_bytes=20_000)
    with open_stream(service, post(service, scene)) as socket:
        socket.send(bytes(20_001))
        assert closed(socket)[0] == 1009


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"x" * 40, 1002, "expected the magic number 0x5444, got 0x7878"),
        (b"", 1002, "expected a frame header of 32 bytes, got 0 bytes"),
        ("{", 1007, "expected a JSON message, got '{'"),
        ('{"type": "hello"}', 1002, "expected a text in hello.session, got None"),
        (
            '{"type": "goaway", "reason": "x", "reconnect_after": 1}',
            1002,
            "expected init, config, ping or bye from",
        ),
        (" " * 20_000, 1009, "expected a text message of at most 16384 characters, got 20000"),
    ],
)
def test_a_broken_message_closes_the_stream_with_its_code(service, scene, data, code: int, reason: str) -> None:
    with open_stream(service, post(service, scene)) as socket:
        socket.send(data)
        got_code, got_reason = closed(socket)
        assert got_code == code
        assert got_reason.startswith(reason)


def test_a_client_that_comes_back_goes_on_with_its_session(service, scene) -> None:
    session_id = post(service, scene)
    answers = []
    with open_stream(service, session_id) as socket:
        for seq in range(3):
            socket.send(message(seq, scene.pairs[seq]))
            answers.append(receive(socket))
        socket.send(b"broken")
        closed(socket)
    assert httpx2.get(f"{service.url}/v1/sessions/{session_id}").json()["state"] == "waiting"
    with connect(stream_url(service, session_id), subprotocols=["duotrack.v1"]) as socket:
        hello = receive(socket)
        assert (hello["resumed_at_seq"], hello["repeats_from"]) == (2, 0)
        assert [receive(socket) for _ in range(3)] == [{**answer, "credit": 0} for answer in answers]
        socket.send(message(3, scene.pairs[3]))
        result = receive(socket)
        assert (result["seq"], result["box"]["x"]) == (3, scene.boxes[3].x)
    session = httpx2.get(f"{service.url}/v1/sessions/{session_id}").json()
    assert session["frames"] == 4


def test_an_overrun_is_closed_with_4429(serve, scene, gate) -> None:
    service = serve(model=gate, window=2)
    with open_stream(service, post(service, scene)) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
        for seq in range(1, 4):
            socket.send(message(seq, scene.pairs[seq]))
        assert gate.entered.wait(10)
        gate.opened.set()
        assert closed(socket) == (4429, "expected at most 2 unanswered frames, got frame 3 beyond the credit")


def test_live_tracks_the_newest_frame_and_tells_what_it_dropped(serve, scene, gate) -> None:
    service = serve(model=gate)
    session_id = post(service, scene, mode="live")
    with open_stream(service, session_id) as socket:
        socket.send(message(0, scene.pairs[0]))
        assert receive(socket)["seq"] == 0
        socket.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        for seq in range(2, 10):
            socket.send(message(seq, scene.pairs[seq]))
        socket.ping().wait(10)  # the server has read what came before
        time.sleep(0.05)
        gate.opened.set()
        first, second = receive(socket), receive(socket)
        assert (first["seq"], first["dropped_since_last"]) == (1, 0)
        assert (second["seq"], second["dropped_since_last"], second["credit"]) == (9, 7, 0)
        assert second["box"]["x"] == scene.boxes[9].x
        assert second["timings"]["queue"] >= 50


def test_the_first_live_frame_is_never_dropped(serve, scene) -> None:
    service = serve()
    with open_stream(service, post(service, scene, mode="live")) as socket:
        for seq in range(12):
            socket.send(message(seq, scene.pairs[seq]))
        result = receive(socket)
        assert (result["seq"], result["box"]["x"]) == (0, scene.boxes[0].x)
        while result["seq"] != 11:
            result = receive(socket)
        assert result["box"]["x"] == scene.boxes[11].x


def test_a_second_connection_takes_the_session_over(service, scene) -> None:
    session_id = post(service, scene)
    with open_stream(service, session_id) as first:
        first.send(message(0, scene.pairs[0]))
        receive(first)
        with open_stream(service, session_id) as second:
            assert closed(first) == (4409, "another connection took the session over")
            second.send(message(1, scene.pairs[1]))
            assert receive(second)["box"]["x"] == scene.boxes[1].x
            assert httpx2.get(f"{service.url}/v1/sessions/{session_id}").json()["state"] == "streaming"


def test_a_takeover_waits_for_the_step_under_way(serve, scene, gate) -> None:
    service = serve(model=gate)
    session_id = post(service, scene)
    with open_stream(service, session_id) as first:
        first.send(message(0, scene.pairs[0]))
        receive(first)
        first.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        with connect(stream_url(service, session_id), subprotocols=["duotrack.v1"]) as second:
            with pytest.raises(TimeoutError):
                second.recv(timeout=0.1)
            gate.opened.set()
            assert receive(first)["seq"] == 1
            assert receive(second)["resumed_at_seq"] == 1
        assert closed(first)[0] == 4409


def test_a_session_without_frames_is_closed_with_4408(serve, scene) -> None:
    service = serve(idle_s=0.6)
    session_id = post(service, scene)
    with open_stream(service, session_id) as socket:
        start = time.monotonic()
        for seq in range(4):
            socket.send(message(seq, scene.pairs[seq]))
            receive(socket)
            time.sleep(0.3)
        assert closed(socket) == (4408, "no frame came in time")
        assert 1.4 < time.monotonic() - start < 5  # the frames kept it alive
    assert httpx2.get(f"{service.url}/v1/sessions/{session_id}").status_code == 404


def test_a_session_that_is_never_connected_expires(serve, scene, wait) -> None:
    service = serve(idle_s=0.1)
    session_id = post(service, scene)
    wait(lambda: httpx2.get(f"{service.url}/v1/sessions/{session_id}").status_code == 404)


def test_a_step_that_takes_long_is_not_idle(serve, scene, gate) -> None:
    service = serve(idle_s=0.2, model=gate)
    with open_stream(service, post(service, scene)) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
        socket.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        time.sleep(0.5)
        gate.opened.set()
        assert receive(socket)["seq"] == 1


def test_bye_ends_the_session(service, scene) -> None:
    session_id = post(service, scene)
    with open_stream(service, session_id) as socket:
        socket.send('{"type": "bye"}')
        assert closed(socket) == (1000, "bye")
    assert httpx2.get(f"{service.url}/v1/sessions/{session_id}").status_code == 404


def test_a_deleted_session_closes_its_stream(service, scene) -> None:
    session_id = post(service, scene)
    with open_stream(service, session_id) as socket:
        assert httpx2.delete(f"{service.url}/v1/sessions/{session_id}").status_code == 204
        assert closed(socket) == (1000, "the session was deleted")


def test_no_session_is_4404(service) -> None:
    with connect(stream_url(service, "none"), subprotocols=["duotrack.v1"]) as socket:
        assert closed(socket) == (4404, "this session does not exist or has ended")


def test_another_subprotocol_is_1002(service, scene) -> None:
    with connect(stream_url(service, post(service, scene))) as socket:
        assert closed(socket) == (1002, "expected the subprotocol duotrack.v1, got none that is known")


def test_pages_of_other_sites_may_not_open_streams(serve, scene, wait, caplog) -> None:
    service = serve(allowed_origins=frozenset({"https://console.test"}))
    url = stream_url(service, post(service, scene))
    for origin in (service.url, "https://console.test"):
        with connect(url, subprotocols=["duotrack.v1"], origin=origin) as socket:
            assert receive(socket)["type"] == "hello"
    for origin in ("https://evil.test", "http://["):
        with pytest.raises(InvalidStatus) as caught, connect(url, subprotocols=["duotrack.v1"], origin=origin):
            pass
        assert caught.value.response.status_code == 403
        assert json.loads(caught.value.response.body)["title"] == "Origin not allowed"
    wait(lambda: not service.server.server_state.tasks)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_box_outside_the_frame_is_explained_and_ends_the_session(service, scene) -> None:
    body = {"box": {"x": 500, "y": 2, "w": 30, "h": 40}}
    session_id = httpx2.post(f"{service.url}/v1/sessions", json=body).json()["id"]
    with open_stream(service, session_id) as socket:
        socket.send(message(0, scene.pairs[0]))
        error = receive(socket)
        assert (error["code"], error["seq"]) == ("unusable_box", 0)
        assert error["message"] == "box 500,2,30,40 has its centre outside the 240x180 image"
        assert closed(socket)[0] == 1008
    assert httpx2.get(f"{service.url}/v1/sessions/{session_id}").status_code == 404


def test_a_bug_in_the_tracker_ends_its_session_alone(serve, scene, bugs) -> None:
    service = serve(model=bugs)
    healthy = post(service, scene)
    broken = post(service, scene)
    with open_stream(service, healthy) as good, open_stream(service, broken) as bad:
        good.send(message(0, scene.pairs[0]))
        assert receive(good)["type"] == "result"
        bugs.active = True
        bad.send(message(0, scene.pairs[0]))
        assert receive(bad)["code"] == "internal"
        assert closed(bad) == (1011, "the service met an error of its own")
        good.send(message(1, scene.pairs[1]))
        assert receive(good)["type"] == "result"
    assert httpx2.get(f"{service.url}/v1/sessions/{broken}").status_code == 404


def test_a_stopping_service_says_goodbye(serve, scene) -> None:
    service = serve(reconnect_after_s=2.5)
    with open_stream(service, post(service, scene)) as socket:
        service.server.should_exit = True
        assert receive(socket) == {"type": "goaway", "reason": "the service is stopping", "reconnect_after": 2.5}
        assert closed(socket) == (1012, "the service is stopping")
    service.stop()


def test_the_event_loop_answers_while_a_step_blocks(serve, scene, gate) -> None:
    service = serve(model=gate)
    with open_stream(service, post(service, scene)) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
        socket.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        for _ in range(5):
            assert httpx2.get(f"{service.url}/health/live", timeout=1).status_code == 200
        with open_stream(service, post(service, scene)) as other:  # the window of its own is open too
            other.send(message(0, scene.pairs[0]))
        gate.opened.set()
        assert receive(socket)["seq"] == 1


def test_sessions_side_by_side_get_the_answers_of_sessions_alone(service, scenes) -> None:
    many = [scenes(seed=seed, start=(20 + 10 * seed, 30 + 5 * seed)) for seed in range(3)]

    def boxes_alone(scene) -> list[dict]:
        with open_stream(service, post(service, scene)) as socket:
            results = []
            for seq, pair in enumerate(scene.pairs):
                socket.send(message(seq, pair))
                answer = receive(socket)
                results.append((answer["box"], answer["score"]))
            return results

    alone = [boxes_alone(scene) for scene in many]
    with (
        open_stream(service, post(service, many[0])) as a,
        open_stream(service, post(service, many[1])) as b,
        open_stream(service, post(service, many[2])) as c,
        open_stream(service, post(service, many[0])) as bad,
    ):
        together: list[list] = [[], [], []]
        for seq in range(len(many[0].pairs)):
            bad.send(encode_frame(Frame(seq, 0, Payload(Codec.JPEG8, b"\xff\xd8 no image"), None)))
            for socket, scene in zip((a, b, c), many, strict=True):
                socket.send(message(seq, scene.pairs[seq]))
            for socket, results in zip((c, b, a), reversed(together), strict=True):
                answer = receive(socket)
                results.append((answer["box"], answer["score"]))
            assert receive(bad)["code"] == "corrupt_image"
    assert together == alone
    assert len({json.dumps(results) for results in alone}) == 3
