"""A service on a real socket, a tracker that really follows, and a scene with a known answer."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
import structlog
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.errors import FrameError
from duotrack.frames import FramePair
from duotrack.health import Fault
from duotrack_service.settings import Settings

WIDTH, HEIGHT = 240, 180


@dataclass(frozen=True)
class MatchResult:
    box: Box
    score: float
    state: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, eq=False)
class MatchTrack:
    template: NDArray[np.uint8]
    box: Box
    frames: int = 1


@dataclass
class MatchModel:
    """Follows by normalised cross-correlation of the first box's pixels: a model whose answers can be checked."""

    name: str = "match"
    provider: str = "CPU"
    precision: str = "fp32"
    lanes: int = 1
    max_batch: int = 1
    options: list[dict[str, bool]] = field(default_factory=list)

    def start(self, pair: FramePair, box: Box, options: Mapping[str, bool]) -> tuple[MatchTrack, MatchResult]:
        self.options.append(dict(options))
        box.require_inside(pair.width, pair.height)
        x, y, w, h = (round(value) for value in box.xywh)
        template = _grey(pair)[y : y + h, x : x + w].copy()
        return MatchTrack(template, box), MatchResult(box, 1.0, "tracking")

    def update(self, work: Sequence[tuple[MatchTrack, FramePair]]) -> list[tuple[MatchTrack, MatchResult] | FrameError]:
        return [self._follow(track, pair) for track, pair in work]

    def _follow(self, track: MatchTrack, pair: FramePair) -> tuple[MatchTrack, MatchResult] | FrameError:
        image = _grey(pair)
        if image.max() == 0:
            return FrameError("the frame is black")
        scores = cv2.matchTemplate(image, track.template, cv2.TM_CCOEFF_NORMED)
        _, score, _, (x, y) = cv2.minMaxLoc(scores)
        box = Box(x, y, track.box.w, track.box.h)
        # The score tells how many frames were tracked before: one that is left out, or comes twice, shows.
        score = float(score) - 1e-6 * track.frames
        return MatchTrack(track.template, box, track.frames + 1), MatchResult(
            box, score, "tracking" if score > 0.6 else "lost"
        )

    def save(self, track: MatchTrack) -> bytes:
        return json.dumps([track.box.xywh, track.template.tolist(), track.frames]).encode()

    def restore(self, data: bytes) -> MatchTrack:
        box, template, frames = json.loads(data)
        return MatchTrack(np.array(template, np.uint8), Box(*box), frames)

    def configure(self, track: MatchTrack, redetection: bool) -> MatchTrack:
        self.options.append({"redetection": redetection})
        return track


def _grey(pair: FramePair) -> NDArray[np.uint8]:
    if pair.rgb is not None:
        return cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2GRAY)
    assert pair.thermal is not None
    return (pair.thermal >> 8).astype(np.uint8) if pair.thermal.dtype == np.uint16 else pair.thermal


@dataclass
class Gate(MatchModel):
    """Holds updates back until it is opened: a slow model without a sleep."""

    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def update(self, work: Sequence[tuple[MatchTrack, FramePair]]) -> list[tuple[MatchTrack, MatchResult] | FrameError]:
        self.entered.set()
        assert self.opened.wait(10)
        return super().update(work)


@dataclass
class Bugs(MatchModel):
    """A sound model, and while active one with a bug in what starts then."""

    active: bool = False

    def start(self, pair: FramePair, box: Box, options: Mapping[str, bool]) -> tuple[MatchTrack, MatchResult]:
        if self.active:
            raise ZeroDivisionError(f"a bug in the model, met with {pair} and {box}")
        return super().start(pair, box, options)


@dataclass
class Service:
    """A running service: its address, and the server to stop."""

    url: str
    server: Any
    thread: threading.Thread

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


Serve = Callable[..., Service]


@pytest.fixture(autouse=True, scope="session")
def quiet() -> None:
    """Keep the service's log out of what the tests capture."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@contextmanager
def starter() -> Iterator[Serve]:
    """Starts services, and stops them in the end."""
    running: list[Service] = []

    from duotrack_service.app import create_app
    from duotrack_service.server import Server, bind

    def start(model: MatchModel | None = None, *, others: Sequence[MatchModel] = (), **changes: object) -> Service:
        settings = Settings(**{"port": 0, "store": "memory:", "max_sessions": 64, **changes})
        models = [model or MatchModel(), *others]
        bound = bind(settings)
        server = Server(create_app(settings, lambda _: models), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        service = Service(f"http://127.0.0.1:{bound.getsockname()[1]}", server, thread)
        running.append(service)
        return service

    try:
        yield start
    finally:
        for service in running:
            service.stop()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a service on a free loopback port: ``serve(model=MatchModel(), **settings)``."""
    with starter() as start:
        yield start


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with the default settings, shared by the tests of a module."""
    with starter() as start:
        yield start()


@dataclass(frozen=True)
class Scene:
    """A textured square that moves over a textured ground, seen in colour and thermal."""

    pairs: list[FramePair]
    boxes: list[Box]

    @property
    def box(self) -> Box:
        return self.boxes[0]


def make_scene(frames: int = 12, seed: int = 0, start: tuple[int, int] = (20, 30), depth: int = 8) -> Scene:
    """A scene whose target moves three pixels right and one down a frame."""
    random = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(random.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 2)
    target = cv2.resize(random.integers(100, 255, (6, 6, 3), dtype=np.uint8), (24, 24), interpolation=cv2.INTER_NEAREST)
    pairs, boxes = [], []
    for index in range(frames):
        x, y = start[0] + 3 * index, start[1] + index
        rgb = ground.copy()
        rgb[y : y + 24, x : x + 24] = target
        thermal = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        pairs.append(FramePair(rgb, thermal if depth == 8 else thermal.astype(np.uint16) << 8))
        boxes.append(Box(x, y, 24, 24))
    return Scene(pairs, boxes)


@pytest.fixture
def scene() -> Scene:
    return make_scene()


def wait_until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


@pytest.fixture
def scenes() -> Callable[..., Scene]:
    """Scenes of other lengths, seeds and places: ``make_scene``."""
    return make_scene


@pytest.fixture
def wait() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def bugs() -> Bugs:
    return Bugs()


@pytest.fixture
def match() -> type[MatchModel]:
    """The class of the tests' model, for those that need no service."""
    return MatchModel
