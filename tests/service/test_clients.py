"""Both clients against the service, over real sockets."""

import asyncio
import threading
import time
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from websockets.protocol import State

from duotrack.frames import FramePair
from duotrack_client import (
    AsyncClient,
    BoxError,
    Client,
    ConnectionFailed,
    Encoding,
    EncodingError,
    FrameRejected,
    ImageFormat,
    InvalidState,
    Pair,
    ServerError,
    SessionClosed,
    TargetState,
    aio,
)
from duotrack_client import client as client_module
from duotrack_service.stream import Stream

BLACK = Pair(np.zeros((180, 240, 3), np.uint8), None)


def lefts(results) -> list[float]:
    return [result.box.x for result in results]


def sessions(service) -> list[dict]:
    return httpx2.get(f"{service.url}/v1/sessions").json()["sessions"]


def test_track_gives_the_result_of_each_pair(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        results = [session.track(pair) for pair in scene.pairs]
        assert [result.seq for result in results] == list(range(12))
        assert lefts(results) == [box.x for box in scene.boxes]
        assert results[0].box.xywh == scene.box.xywh
        assert (results[0].score, results[0].state) == (1.0, TargetState.TRACKING)
        assert session.hello.session == session.id
        assert len(sessions(service)) == 1
    assert sessions(service) == []


def test_track_takes_the_images_by_name(service, scene) -> None:
    pair = scene.pairs[0]
    with Client(service.url) as client, client.session((20, 30, 24, 24)) as session:
        assert session.track(rgb=pair.rgb, thermal=pair.thermal).modalities.thermal == "ok"
        assert session.track(rgb=pair.rgb).modalities.thermal == "missing"
        assert session.track(thermal=pair.thermal).modalities.rgb == "missing"


def test_stream_gives_what_track_gives(service, scene) -> None:
    with Client(service.url) as client:
        with client.session(scene.box) as session:
            one_by_one = [session.track(pair) for pair in scene.pairs]
        with client.session(scene.box) as session:
            streamed = list(session.stream(scene.pairs))
    assert [(r.seq, r.box, r.score) for r in streamed] == [(r.seq, r.box, r.score) for r in one_by_one]


def test_stream_keeps_several_frames_in_flight(serve, scene, gate) -> None:
    service = serve(model=gate, window=4)
    sent = 0

    def pairs():
        nonlocal sent
        for sent, pair in enumerate(scene.pairs, start=1):  # noqa: B007 - read below, while the stream runs
            yield pair

    with Client(service.url) as client, client.session(scene.box) as session:
        stream = session.stream(pairs())
        assert next(stream).seq == 0
        threading.Timer(0.2, gate.opened.set).start()
        assert next(stream).seq == 1
        assert 5 <= sent <= 6  # one answered, four unanswered, and one taken from the source
        assert len(list(stream)) == 10


def test_a_stream_that_is_left_early_does_not_disturb_what_follows(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        for result in session.stream(scene.pairs[:10]):
            if result.seq == 2:
                break
        answer = session.track(scene.pairs[10])
        assert answer.box.x == scene.boxes[10].x


def test_live_results_are_in_order_and_end_with_the_newest(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box, mode="live") as session:
        results = list(session.stream(scene.pairs))
    assert [r.seq for r in results] == sorted({r.seq for r in results})
    assert (results[0].seq, results[-1].seq) == (0, 11)
    assert sum(r.dropped_since_last for r in results) == 12 - len(results)


@pytest.mark.parametrize("encoding", [Encoding(ImageFormat.PNG, ImageFormat.RAW), Encoding(quality=60)])
def test_the_encoding_can_be_chosen(service, scenes, encoding: Encoding) -> None:
    scene = scenes(depth=16)
    with Client(service.url) as client, client.session(scene.box, encoding=encoding) as session:
        assert lefts(session.stream(scene.pairs)) == [box.x for box in scene.boxes]


def test_a_rejected_frame_is_raised_and_the_session_goes_on(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        with pytest.raises(FrameRejected, match=r"frame 1 was rejected \(unusable_frame\): the frame is black"):
            session.track(BLACK)
        assert session.track(scene.pairs[2]).box.x == scene.boxes[2].x


def test_rejected_frames_of_a_stream_can_be_taken_aside(service, scene) -> None:
    rejected: list[FrameRejected] = []
    pairs = [scene.pairs[0], BLACK, BLACK, *scene.pairs[3:]]
    with Client(service.url) as client, client.session(scene.box) as session:
        results = list(session.stream(pairs, on_rejected=rejected.append))
        assert [result.seq for result in results] == [0, *range(3, 12)]
        assert [(error.seq, error.code) for error in rejected] == [(1, "unusable_frame"), (2, "unusable_frame")]
        with pytest.raises(FrameRejected):
            list(session.stream([BLACK]))


def test_a_close_by_the_service_says_why(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        httpx2.delete(f"{service.url}/v1/sessions/{session.id}")
        with pytest.raises(SessionClosed, match=r"session closed \(1000\): the session was deleted"):
            session.track(scene.pairs[1])


def test_the_farewell_of_the_service_is_told_in_full(serve, scenes) -> None:
    service = serve(max_pixels=1000)
    scene = scenes()
    with Client(service.url) as client, client.session(scene.box) as session:
        with pytest.raises(SessionClosed, match="at most 1000 pixels, got 240x180 = 43200") as caught:
            session.track(scene.pairs[0])
        assert caught.value.code == 1009


def test_a_restart_says_when_to_come_back(serve, scene) -> None:
    service = serve(reconnect_after_s=3)
    with Client(service.url, reconnect_s=0) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        service.stop()
        with pytest.raises(SessionClosed, match="the service is stopping; try again in 3 s") as caught:
            session.track(scene.pairs[1])
        assert (caught.value.code, caught.value.reconnect_after) == (1012, 3)


def test_a_box_outside_the_first_frame_is_explained(service, scene) -> None:
    with Client(service.url) as client, client.session((900, 900, 5, 5)) as session:
        with pytest.raises(FrameRejected, match="has its centre outside the 240x180 image"):
            session.track(scene.pairs[0])
        with pytest.raises(SessionClosed, match=r"\(1008\)"):
            session.track(scene.pairs[1])


def test_what_cannot_be_sent_is_refused_here(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        with pytest.raises(EncodingError, match="must be uint8"):
            session.track(rgb=scene.pairs[0].rgb.astype(float))
        with pytest.raises(EncodingError, match="got neither"):
            session.track()
        assert session.track(scene.pairs[0]).seq == 0


def test_errors_before_the_stream(service, scene) -> None:
    with Client(service.url) as client:
        with (
            pytest.raises(ServerError, match="answered 422: No such model") as caught,
            client.session(scene.box, model="huge"),
        ):
            pass
        assert caught.value.problem.type == "urn:duotrack:problem:unknown-model"
        with pytest.raises(BoxError, match="four numbers"):
            client.session((1, 2, 3))
        with pytest.raises(ValueError, match="slow"):
            client.session(scene.box, mode="slow")
        with pytest.raises(InvalidState, match="enter it with `with` first"):
            client.session(scene.box).track(scene.pairs[0])


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_a_service_that_is_not_there(url: str) -> None:
    with (
        Client(url, timeout=5) as client,
        pytest.raises(ConnectionFailed, match="cannot reach the service at"),
        client.session((1, 2, 3, 4)),
    ):
        pass


def test_a_service_that_keeps_silent(serve, scene, gate) -> None:
    service = serve(model=gate)
    with Client(service.url, timeout=0.2) as client, client.session(scene.box) as session:
        session.track(scene.pairs[0])
        with pytest.raises(ConnectionFailed, match=r"did not answer within 0\.2 s"):
            session.track(scene.pairs[1])
        gate.opened.set()


def test_a_url_with_a_path_and_a_slash_works(service, scene) -> None:
    with Client(service.url + "/") as client, client.session(scene.box) as session:
        assert session.track(scene.pairs[0]).seq == 0


async def test_async_track_and_stream(service, scene) -> None:
    async with AsyncClient(service.url) as client, client.session(scene.box) as session:
        first = await session.track(scene.pairs[0])
        assert first.box.xywh == scene.box.xywh
        results = [result async for result in session.stream(scene.pairs[1:])]
        assert [result.seq for result in results] == list(range(1, 12))
        assert lefts(results) == [box.x for box in scene.boxes[1:]]
    assert sessions(service) == []


async def test_async_stream_of_an_async_source_yields_at_once(service, scene) -> None:
    seen: list[int] = []

    async def camera():
        for index, pair in enumerate(scene.pairs[:4]):
            while index and index - 1 not in seen:  # the next frame comes only after the result of the last
                await asyncio.sleep(0.001)
            yield pair

    async with AsyncClient(service.url) as client, client.session(scene.box, mode="live") as session:
        stream = session.stream(camera())
        while (result := await asyncio.wait_for(anext(stream, None), 5)) is not None:
            seen.append(result.seq)
    assert seen == [0, 1, 2, 3]


async def test_async_sessions_beside_each_other(service, scenes) -> None:
    many = [scenes(seed=seed, start=(20 + 10 * seed, 30)) for seed in range(4)]

    async def follow(client: AsyncClient, scene) -> list[float]:
        async with client.session(scene.box) as session:
            return [result.box.x async for result in session.stream(scene.pairs)]

    async with AsyncClient(service.url) as client:
        got = await asyncio.gather(*(follow(client, scene) for scene in many))
    assert got == [[box.x for box in scene.boxes] for scene in many]


async def test_async_errors(service, scene) -> None:
    async with AsyncClient(service.url) as client:
        async with client.session(scene.box) as session:
            await session.track(scene.pairs[0])
            with pytest.raises(FrameRejected):
                await session.track(BLACK)
            with pytest.raises(EncodingError, match="must be uint8"):
                async for _ in session.stream([scene.pairs[2], Pair(np.zeros((4, 4, 3)))]):
                    pass
            rejected: list[FrameRejected] = []
            kept = [r async for r in session.stream([BLACK, scene.pairs[4]], on_rejected=rejected.append)]
            assert (len(kept), len(rejected)) == (1, 1)
            httpx2.delete(f"{service.url}/v1/sessions/{session.id}")
            with pytest.raises(SessionClosed, match="the session was deleted"):
                async for _ in session.stream(scene.pairs[5:]):
                    pass
            with pytest.raises(SessionClosed, match="the session was deleted"):
                await session.track(scene.pairs[6])
        with pytest.raises(ServerError, match="No such model"):
            async with client.session(scene.box, model="huge"):
                pass
        with pytest.raises(InvalidState, match="enter it with `async with` first"):
            await client.session(scene.box).track(scene.pairs[0])


class Unplugged:
    """A camera that breaks after three pairs, of which the service has tracked one by then, and lets it go on."""

    def __init__(self, scene, gate) -> None:
        self._pairs, self._gate = scene.pairs[:3], gate

    def __iter__(self):
        yield from self._pairs
        threading.Timer(0.2, self._gate.opened.set).start()
        raise OSError("the camera is unplugged")


def test_an_error_of_the_source_is_raised_after_the_results_of_what_it_gave(serve, scene, gate) -> None:
    with Client(serve(model=gate).url) as client, client.session(scene.box) as session:
        stream = session.stream(Unplugged(scene, gate))
        assert [next(stream).seq for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="unplugged"):
            next(stream)
        assert session.track(scene.pairs[3]).seq == 3


async def test_an_error_of_the_source_is_raised_after_the_results_in_the_async_client_too(serve, scene, gate) -> None:
    async with AsyncClient(serve(model=gate).url) as client, client.session(scene.box) as session:
        stream = session.stream(Unplugged(scene, gate))
        assert [(await anext(stream)).seq for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="unplugged"):
            await anext(stream)
        assert (await session.track(scene.pairs[3])).seq == 3


def test_a_pair_that_cannot_be_sent_costs_no_results(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        stream = session.stream([*scene.pairs[:6], Pair(np.zeros((4, 4, 3)))])
        assert [next(stream).seq for _ in range(6)] == list(range(6))
        with pytest.raises(EncodingError, match="must be uint8"):
            next(stream)


async def test_async_service_that_is_not_there_or_silent(serve, scene, gate) -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(ConnectionFailed, match="cannot reach"):
            async with client.session(scene.box):
                pass
    service = serve(model=gate)
    async with AsyncClient(service.url, timeout=0.3) as client, client.session(scene.box) as session:
        with pytest.raises(ConnectionFailed, match=r"did not answer within 0\.3 s"):
            async for _ in session.stream(scene.pairs):
                pass
        gate.opened.set()


@pytest.fixture
def proxied(monkeypatch) -> None:
    """An environment whose proxy is not there."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.mark.usefixtures("proxied")
def test_a_service_on_this_machine_is_reached_without_the_proxy(service, scene) -> None:
    with Client(service.url) as client, client.session(scene.box) as session:
        assert session.track(scene.pairs[0]).seq == 0
    failing = pytest.raises(ConnectionFailed, match=r"at http://far\.test/ through the proxy http://127\.0\.0\.1:9: ")
    with Client("http://far.test") as client, failing, client.session(scene.box):
        pass


@pytest.mark.usefixtures("proxied")
async def test_a_service_on_this_machine_is_reached_by_the_async_client_without_the_proxy(service, scene) -> None:
    async with AsyncClient(service.url) as client, client.session(scene.box) as session:
        assert (await session.track(scene.pairs[0])).seq == 0


@pytest.fixture
def open_before(monkeypatch) -> list[int]:
    """How many connections were open before each, with a service whose first two streams say nothing."""
    said, silent, opened, counts = Stream._send, [], [], []

    async def send(stream: Stream, data: str | bytes) -> bool:
        if stream not in silent and len(silent) < 2:
            silent.append(stream)
        return stream in silent or await said(stream, data)

    def count() -> None:
        counts.append(sum(connection.state is State.OPEN for connection in opened))

    def connect(*given: Any, **options: Any) -> Any:
        count()
        opened.append(sync_connect(*given, **options))
        return opened[-1]

    async def connect_async(*given: Any, **options: Any) -> Any:
        count()
        opened.append(await async_connect(*given, **options))
        return opened[-1]

    sync_connect, async_connect = client_module.connect, aio.connect
    monkeypatch.setattr(Stream, "_send", send)
    monkeypatch.setattr(client_module, "connect", connect)
    monkeypatch.setattr(aio, "connect", connect_async)
    return counts


def test_a_stream_without_a_greeting_is_closed_before_the_next(service, scene, open_before) -> None:
    with Client(service.url, timeout=0.3) as client, client.session(scene.box) as session:
        assert lefts([session.track(scene.pairs[0])]) == [scene.box.x]
    assert open_before == [0, 0, 0]


async def test_an_async_stream_without_a_greeting_is_closed_before_the_next(service, scene, open_before) -> None:
    async with AsyncClient(service.url, timeout=0.3) as client, client.session(scene.box) as session:
        assert lefts([await session.track(scene.pairs[0])]) == [scene.box.x]
    assert open_before == [0, 0, 0]


async def test_the_event_loop_stays_free_while_frames_are_encoded(service, scene, monkeypatch) -> None:
    encode = cv2.imencode

    def slow(*arguments):
        time.sleep(0.4)
        return encode(*arguments)

    monkeypatch.setattr(cv2, "imencode", slow)
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - start)

    async with AsyncClient(service.url) as client, client.session(scene.box) as session:
        ticking = asyncio.create_task(tick())
        await session.track(FramePair(None, scene.pairs[0].thermal))
        ticking.cancel()
    assert len(gaps) > 5
    assert max(gaps) < 0.3


def test_secrets_of_a_session_are_not_in_the_client(service) -> None:
    with Client(service.url) as client:
        assert repr(client) == f"Client('{service.url}/')"
        assert repr(client.session((1, 2, 3, 4))) == "Session(id=None, box=1,2,3,4, mode=every_frame)"
