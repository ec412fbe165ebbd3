"""Several targets in one session, boxes in mid-stream, and MessagePack, over a real socket."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import msgpack
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from duotrack.boxes import Box
from duotrack.frames import FramePair
from duotrack_client.encoding import Encoding, ImageFormat
from duotrack_client.protocol import Frame, Mode, encode_frame
from duotrack_service.sessions import Changes

RAW = Encoding(ImageFormat.RAW, ImageFormat.RAW)
OTHER = Box(150, 100, 30, 20)


@contextmanager
def open_stream(service, box: Box, protocol: str = "duotrack.v1", **options: object) -> Iterator[ClientConnection]:
    body = {"box": dict(zip("xywh", box.xywh, strict=True)), **options}
    created = httpx2.post(f"{service.url}/v1/sessions", json=body).json()
    with connect(created["stream_url"], subprotocols=[protocol], compression=None) as socket:
        assert socket.subprotocol == protocol
        assert receive(socket)["type"] == "hello"
        yield socket


def receive(socket: ClientConnection) -> dict:
    data = socket.recv(timeout=10)
    return json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)


def message(seq: int, pair: FramePair) -> bytes:
    return encode_frame(Frame(seq, 0, *RAW.encode(pair)))


def init(box: Box, target: int) -> str:
    return json.dumps({"type": "init", "target": target, "box": dict(zip("xywh", box.xywh, strict=True))})


def places(result: dict) -> dict[int, tuple[float, float]]:
    found = {result["target"]: result["box"]} | {other["target"]: other["box"] for other in result["others"]}
    return {target: (box["x"], box["y"]) for target, box in found.items()}


@pytest.mark.parametrize("protocol", ["duotrack.v1", "duotrack.v1.msgpack"])
def test_targets_are_added_followed_started_anew_and_forgotten(service, scene, protocol: str) -> None:
    boxes = scene.boxes
    with open_stream(service, scene.box, protocol) as socket:
        socket.send(message(0, scene.pairs[0]))
        assert places(receive(socket)) == {0: (boxes[0].x, boxes[0].y)}
        socket.send(init(OTHER, 2))
        socket.send(init(boxes[1], 1))
        socket.send(message(1, scene.pairs[1]))
        added = receive(socket)
        assert places(added) == {0: (boxes[1].x, boxes[1].y), 1: (boxes[1].x, boxes[1].y), 2: (150, 100)}
        assert [other["score"] for other in added["others"]] == [1.0, 1.0]
        socket.send(message(2, scene.pairs[2]))
        followed = receive(socket)
        assert places(followed) == {0: (boxes[2].x, boxes[2].y), 1: (boxes[2].x, boxes[2].y), 2: (150, 100)}
        socket.send(json.dumps({"type": "config", "targets": [1, 2]}))
        socket.send(init(boxes[3], 2))
        socket.send(message(3, scene.pairs[3]))
        kept = receive(socket)
        assert places(kept) == {1: (boxes[3].x, boxes[3].y), 2: (boxes[3].x, boxes[3].y)}
        assert kept["target"] == 1


def test_a_box_outside_the_frame_costs_that_pair_and_nothing_else(service, scene) -> None:
    with open_stream(service, scene.box) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
        socket.send(init(Box(500, 2, 30, 40), 1))
        socket.send(message(1, scene.pairs[1]))
        error = receive(socket)
        assert (error["code"], error["seq"]) == ("unusable_box", 1)
        socket.send(message(2, scene.pairs[2]))
        assert places(receive(socket)) == {0: (scene.boxes[2].x, scene.boxes[2].y)}


def test_a_box_whose_pair_cannot_be_used_waits_for_the_next(service, scene) -> None:
    black = FramePair(np.zeros_like(scene.pairs[0].rgb), None)
    with open_stream(service, scene.box) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
        socket.send(init(OTHER, 1))
        socket.send(message(1, black))
        assert receive(socket)["code"] == "unusable_frame"
        socket.send(message(2, scene.pairs[2]))
        assert places(receive(socket))[1] == (OTHER.x, OTHER.y)


def test_live_does_not_pass_over_the_frame_of_a_box(serve, scene, gate) -> None:
    with open_stream(serve(model=gate), scene.box, mode="live") as socket:
        socket.send(message(0, scene.pairs[0]))
        assert receive(socket)["seq"] == 0
        socket.send(message(1, scene.pairs[1]))
        assert gate.entered.wait(10)
        for seq in range(2, 9):
            if seq == 4:
                socket.send(init(OTHER, 1))
            if seq == 6:
                socket.send(json.dumps({"type": "config", "redetection": True}))
            socket.send(message(seq, scene.pairs[seq]))
        socket.send(json.dumps({"type": "ping", "id": 3}))
        assert receive(socket) == {"type": "pong", "id": 3}
        gate.opened.set()
        results = [receive(socket) for _ in range(3)]
        assert [(result["seq"], result["dropped_since_last"]) for result in results] == [(1, 0), (4, 2), (8, 3)]
        assert places(results[1])[1] == (OTHER.x, OTHER.y)
        # What came with a frame that was passed over counts from the next on.
        assert gate.options[-2:] == [{"redetection": True}, {"redetection": True}]


def test_the_tracker_has_the_options_of_the_session(serve, scene, match) -> None:
    model = match()
    with open_stream(serve(model=model), scene.box, options={"motion": False, "redetection": True}) as socket:
        socket.send(message(0, scene.pairs[0]))
        receive(socket)
    assert model.options == [{"motion": False, "redetection": True}]


def test_changes_add_up() -> None:
    one = Changes({0: OTHER, 1: OTHER})
    assert one.then(Changes({}, keep=frozenset({1, 2}))) == Changes({1: OTHER}, frozenset({1, 2}))
    later = Changes({3: OTHER}, frozenset({1}), redetection=True)
    both = Changes({2: OTHER}, frozenset({1, 2})).then(later)
    assert both == Changes({3: OTHER}, frozenset({1}), redetection=True)
    assert later.then(Changes({}, redetection=False)).redetection is False
    assert later.then(Changes({})) == later


def test_modes_are_those_of_the_session(service, scene) -> None:
    body = {"box": dict(zip("xywh", scene.box.xywh, strict=True)), "mode": "live"}
    assert httpx2.post(f"{service.url}/v1/sessions", json=body).json()["mode"] == Mode.LIVE
