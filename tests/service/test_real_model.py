"""The shipped model behind the real service: over the wire comes what the library gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from duotrack import Box, FramePair, Tracker
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.engine import Engine
from duotrack.errors import ModelError
from duotrack_client import Client, Encoding, ImageFormat
from duotrack_service.app import create_app
from duotrack_service.inference import open_models
from duotrack_service.server import Server, bind
from duotrack_service.settings import Settings

FRAMES = 12
RAW = Encoding(rgb=ImageFormat.RAW, thermal=ImageFormat.RAW)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    settings = Settings(port=0, provider="cpu", threads=1, store="memory:", max_sessions=4)
    with bind(settings) as bound:
        server = Server(create_app(settings, open_models), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.mark.parametrize("bits", [8, 16])
def test_the_wire_changes_nothing(url: str, bits: int) -> None:
    config = SceneConfig(
        width=320, height=240, frames=FRAMES, seed=3, exits=False, thermal_bits=16 if bits == 16 else 8
    )
    scene = Scene(config)
    first = scene[0].box
    assert first is not None
    tracker = Tracker(Engine.open(provider="cpu", threads=1))
    pairs = [frame.pair for frame in scene]
    expected = [tracker.init(pairs[0], first), *(tracker.update(pair) for pair in pairs[1:])]
    with Client(url) as client, client.session(first, encoding=RAW) as session:
        results = list(session.stream(pairs))
    assert [result.seq for result in results] == list(range(FRAMES))
    for result, wanted in zip(results, expected, strict=True):
        assert result.box.xywh == pytest.approx(wanted.box.xywh, abs=1e-3)
        assert result.score == pytest.approx(wanted.score, abs=1e-4)
        assert result.state == wanted.state


def test_a_missing_modality_is_tracked_and_reported(url: str) -> None:
    scene = Scene(SceneConfig(width=320, height=240, frames=4, seed=3, exits=False))
    first = scene[0].box
    assert first is not None
    with Client(url) as client, client.session(first) as session:
        session.track(scene[0].pair)
        result = session.track(FramePair(scene[1].pair.rgb, None))
    assert result.modalities.thermal == "missing"
    assert Box(*result.box.xywh).iou(first) > 0


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match="two models have the same name: student-t"):
        open_models(Settings(model="student-t,student-t", provider="cpu", threads=1, store="memory:"))
