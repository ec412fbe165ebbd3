"""What the service counts, for Prometheus.

Every label has few values, known beforehand: codes, reasons and the names of models, never a session, a key or an
address. Times are in seconds, as Prometheus has them; the methods take the milliseconds of the rest of the service.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final, Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from duotrack import __version__
from duotrack_client.protocol import CloseCode, Timings
from duotrack_service.endings import BYE, DELETED, EXPIRED, IDLE, internal_error

SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
STAGES: Final = ("queue", "decode", "infer", "total")

# An ending's reason is a sentence, which may hold a box or a size: as a label it would never stop growing.
_ENDED: Final = {
    BYE.reason: "bye",
    DELETED.reason: "deleted",
    IDLE.reason: "idle",
    EXPIRED.reason: "expired",
    internal_error().reason: "internal",
}

DropReason = Literal["superseded", "deadline"]


class Metrics:
    """The figures of one service, in a registry of its own: two services in one process do not mix."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        build = Gauge("duotrack_build_info", "The version that runs; always 1.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self._model = Gauge(
            "duotrack_model_info",
            "The models that are loaded, and what they really run on; always 1.",
            ["model", "provider", "precision"],
            registry=registry,
        )
        self._sessions = Gauge("duotrack_sessions", "Sessions in this process now.", registry=registry)
        self._created = Counter("duotrack_sessions_created", "Sessions created.", ["model"], registry=registry)
        self._ended = Counter("duotrack_sessions_ended", "Sessions ended.", ["reason"], registry=registry)
        self._resumed = Counter("duotrack_sessions_resumed", "Sessions fetched from the store.", registry=registry)
        self._opened = Counter("duotrack_streams_opened", "Streams that began to be served.", registry=registry)
        self._closed = Counter(
            "duotrack_streams_closed",
            "Streams that ended, also those refused right after the handshake, by close code; none: the client left.",
            ["code"],
            registry=registry,
        )
        self._received = Counter("duotrack_frames_received", "Frame pairs that arrived.", registry=registry)
        self._bytes = Counter(
            "duotrack_received_bytes", "Encoded bytes of frame pairs that arrived.", registry=registry
        )
        self._frame_seconds = Histogram(
            "duotrack_frame_seconds",
            "Time of one answered frame pair, by stage; total is from its arrival to its answer.",
            ["model", "stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._dropped = Counter(
            "duotrack_frames_dropped",
            "Frame pairs of live sessions that were passed over.",
            ["reason"],
            registry=registry,
        )
        self._frames_refused = Counter(
            "duotrack_frames_refused", "Frame pairs that could not be used.", ["code"], registry=registry
        )
        self._batch_size = Histogram(
            "duotrack_batch_size", "Frame pairs in one batch.", ["model"], buckets=SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            "duotrack_batch_seconds",
            "Time of one batch in its lane, decoding included.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self._store_seconds = Histogram(
            "duotrack_store_save_seconds", "Time to store one session.", buckets=SECONDS, registry=registry
        )
        self._store_healthy = Gauge(
            "duotrack_store_healthy", "1 while the store does what it is asked, 0 while it fails.", registry=registry
        )
        self._store_failures = Counter(
            "duotrack_store_failures", "How often the store went from healthy to failing.", registry=registry
        )
        self._refused = Counter(
            "duotrack_refused", "Requests and streams that were not let in.", ["reason"], registry=registry
        )
        threads = Gauge("duotrack_threads", "Python threads of the process.", registry=registry)
        threads.set_function(threading.active_count)
        self._tasks = Gauge("duotrack_tasks", "Asyncio tasks of the event loop that was asked.", registry=registry)
        self._healthy = True
        self._store_healthy.set(1)

    def provider(self, model: str, provider: str, precision: str) -> None:
        """``model`` is loaded, and runs on ``provider``."""
        self._model.labels(model, provider, precision).set(1)
        for stage in STAGES:  # so that a quiet service shows zeros, and not nothing
            self._frame_seconds.labels(model, stage)

    def sessions(self, count: int) -> None:
        """So many sessions are in this process now."""
        self._sessions.set(count)

    def session_created(self, model: str) -> None:
        self._created.labels(model).inc()

    def session_ended(self, reason: str) -> None:
        """A session ended; ``reason`` is that of its ``Ending``."""
        self._ended.labels(_ENDED.get(reason, "other")).inc()

    def resumed(self) -> None:
        """A session was fetched from the store, where another process or a former life of this one had left it."""
        self._resumed.inc()

    def stream_opened(self) -> None:
        self._opened.inc()

    def stream_closed(self, code: CloseCode | None) -> None:
        """A stream ended with ``code``, None where the client went away by itself."""
        self._closed.labels("none" if code is None else str(int(code))).inc()

    def refused(self, reason: str) -> None:
        """Someone was not let in. ``reason`` is a word, such as ``full`` or ``unauthorized``, and never data."""
        self._refused.labels(reason).inc()

    def frame_received(self, length: int) -> None:
        """A frame pair of ``length`` bytes arrived."""
        self._received.inc()
        self._bytes.inc(length)

    def frame_answered(self, model: str, timings: Timings) -> None:
        """A frame pair was tracked, at the cost of ``timings``, in milliseconds."""
        for stage in STAGES:
            self._frame_seconds.labels(model, stage).observe(getattr(timings, stage) / 1000)

    def frame_refused(self, code: str) -> None:
        """A frame pair could not be used; ``code`` is one of ``ErrorCode``."""
        self._frames_refused.labels(str(code)).inc()

    def frames_dropped(self, count: int, reason: DropReason) -> None:
        """``count`` frame pairs were passed over: for newer ones, or since they had waited too long."""
        self._dropped.labels(reason).inc(count)

    def batch(self, model: str, size: int, milliseconds: float) -> None:
        """A lane tracked ``size`` frame pairs together in ``milliseconds``."""
        self._batch_size.labels(model).observe(size)
        self._batch_seconds.labels(model).observe(milliseconds / 1000)

    def store_saved(self, milliseconds: float) -> None:
        """A session was stored in ``milliseconds``."""
        self._store_seconds.observe(milliseconds / 1000)

    def store_health(self, healthy: bool) -> None:
        """The store works, or does not."""
        if self._healthy and not healthy:
            self._store_failures.inc()
        self._healthy = healthy
        self._store_healthy.set(healthy)

    def render(self) -> tuple[bytes, str]:
        """All figures as Prometheus's text, and its content type."""
        self._tasks.set(_running_tasks())
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _running_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked from outside of the event loop
        return 0
