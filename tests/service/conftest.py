"""A service on a real socket, a tracker that really follows, and a scene with a known answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
import structlog
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.errors import FrameError
from duotrack.frames import FramePair
from duotrack_service.app import create_app
from duotrack_service.inference import Engine, Tracker
from duotrack_service.server import Server, bind
from duotrack_service.settings import Settings

WIDTH, HEIGHT = 240, 180


@dataclass(frozen=True)
class MatchResult:
    box: Box
    score: float
    state: str


@dataclass
class MatchTracker:
    """Follows by normalised cross-correlation of the first box's pixels: a tracker whose answers can be checked."""

    template: NDArray[np.uint8] | None = None
    box: Box | None = None

    def init(self, pair: FramePair, box: Box) -> MatchResult:
        box.require_inside(pair.width, pair.height)
        x, y, w, h = (round(value) for value in box.xywh)
        self.template = _grey(pair)[y : y + h, x : x + w].copy()
        self.box = box
        return MatchResult(box, 1.0, "tracking")

    def update(self, pair: FramePair) -> MatchResult:
        assert self.template is not None
        assert self.box is not None
        image = _grey(pair)
        if image.max() == 0:
            raise FrameError("the frame is black")
        scores = cv2.matchTemplate(image, self.template, cv2.TM_CCOEFF_NORMED)
        _, score, _, (x, y) = cv2.minMaxLoc(scores)
        self.box = Box(x, y, self.box.w, self.box.h)
        return MatchResult(self.box, float(score), "tracking" if score > 0.6 else "lost")


def _grey(pair: FramePair) -> NDArray[np.uint8]:
    if pair.rgb is not None:
        return cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2GRAY)
    assert pair.thermal is not None
    return (pair.thermal >> 8).astype(np.uint8) if pair.thermal.dtype == np.uint16 else pair.thermal


@dataclass
class Gate:
    """Holds a tracker's updates back until it is opened: a slow engine without a sleep."""

    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def tracker(self) -> Tracker:
        return GatedTracker(MatchTracker(), self)


@dataclass
class GatedTracker:
    inner: MatchTracker
    gate: Gate

    def init(self, pair: FramePair, box: Box) -> MatchResult:
        return self.inner.init(pair, box)

    def update(self, pair: FramePair) -> MatchResult:
        self.gate.entered.set()
        assert self.gate.opened.wait(10)
        return self.inner.update(pair)


class BrokenTracker:
    """A tracker with a bug."""

    def init(self, pair: FramePair, box: Box) -> MatchResult:
        raise ZeroDivisionError(f"a bug in the tracker, met with {pair} and {box}")

    update = MatchTracker.update


@dataclass
class Bugs:
    """Makes sound trackers, and broken ones while active."""

    active: bool = False

    def tracker(self) -> Tracker:
        return BrokenTracker() if self.active else MatchTracker()


@dataclass
class Service:
    """A running service: its address, and the server to stop."""

    url: str
    server: Server
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

    def start(tracker: Callable[[], Tracker] = MatchTracker, **changes: object) -> Service:
        settings = Settings(**{"port": 0, "decode_threads": 2, **changes})
        engine = Engine(model="match", provider="CPU", precision="fp32", tracker=tracker)
        bound = bind(settings)
        server = Server(create_app(settings, lambda _: engine), settings)
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
    """Start a service on a free loopback port: ``serve(tracker=MatchTracker, **settings)``."""
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
