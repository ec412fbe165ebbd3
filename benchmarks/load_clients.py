"""What the load scripts share: prepared frame pairs, servers as processes of their own, and light clients.

The clients speak the protocol over raw sockets and do as little as they can: images are encoded once, before any clock
starts, and results are only read. They share the machine with the server, so what they cost is part of the figures.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from duotrack import Box
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.errors import DuoTrackError
from duotrack_client.encoding import Encoding, ImageFormat
from duotrack_client.protocol import (
    SUBPROTOCOL,
    Bye,
    Error,
    Frame,
    Hello,
    Mode,
    Payload,
    Result,
    decode_message,
    encode_frame,
    encode_message,
)

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Footage:
    """Encoded frame pairs, played forth and back without end, so that the target never jumps.

    Attributes:
        box: the target in the first pair.
        pairs: colour and thermal image of each.
    """

    box: Box
    pairs: Sequence[tuple[Payload, Payload]]

    def frame(self, seq: int) -> Frame:
        """The pair to be sent as number ``seq``."""
        last = len(self.pairs) - 1
        place = seq % (2 * last) if last else 0
        rgb, thermal = self.pairs[min(place, 2 * last - place)]
        return Frame(seq, time.time_ns() // 1000, rgb, thermal)

    @property
    def mean_bytes(self) -> float:
        """Of a pair."""
        return sum(len(rgb.data) + len(thermal.data) for rgb, thermal in self.pairs) / len(self.pairs)


def film(frames: int = 40, seed: int = 7) -> Footage:
    """A generated scene at 640×480, the target in sight throughout, both images as the JPEG that our client makes."""
    scene = Scene(SceneConfig(frames=frames, seed=seed, exits=False, occlusion=False, crossover=False))
    first = scene[0].box
    assert first is not None
    encoding = Encoding(thermal=ImageFormat.JPEG)
    pairs = []
    for shot in scene:
        rgb, thermal = encoding.encode(shot.pair)
        assert rgb is not None
        assert thermal is not None
        pairs.append((rgb, thermal))
    return Footage(first, pairs)


@dataclass(frozen=True)
class Server:
    """A server in a process of its own, and what Linux says of it."""

    url: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        # The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of the whole line.
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        """Memory that is resident."""
        return int(self._read("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    @property
    def files(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text(encoding="utf-8")


@contextmanager
def serving(command: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Start ``command`` with ``--port`` and a free one, wait until it is ready, and stop it at the end.

    Raises:
        DuoTrackError: it did not become ready, or did not stop.
    """
    port = _free_port()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environ}
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log)
            yield Server(url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/health/ready", timeout=5.0, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    ending = " ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    raise DuoTrackError(f"the server did not become ready ({log}): {ending}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame pair that was answered.

    Attributes:
        sent_s, received_s: when, on the clock of ``time.perf_counter``.
        dropped: pairs that a live session passed over before it.
        used: whether it was tracked; an error came back otherwise.
    """

    sent_s: float
    received_s: float
    dropped: int
    used: bool

    @property
    def latency_ms(self) -> float:
        """From the call that sends the pair to the message that answers it."""
        return (self.received_s - self.sent_s) * 1e3


async def create(http: httpx2.AsyncClient, box: Box, mode: Mode) -> dict[str, object]:
    """A new session, as the server describes it.

    Raises:
        httpx2.HTTPStatusError: it was refused.
    """
    x, y, w, h = box.xywh
    answer = await http.post("/v1/sessions", json={"box": {"x": x, "y": y, "w": w, "h": h}, "mode": mode})
    answer.raise_for_status()
    return dict(answer.json())


@asynccontextmanager
async def opened(session: Mapping[str, object], bye: bool = True) -> AsyncIterator[tuple[ClientConnection, Hello]]:
    """A stream of ``session``, after its greeting. It ends with ``bye``, and the session with it, or is just closed."""
    connection = connect(
        str(session["stream_url"]),
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        compression=None,
        max_size=None,
        proxy=None,
        ping_interval=None,
        open_timeout=60,
        close_timeout=2,
    )
    async with connection as stream:
        hello = decode_message(await stream.recv())
        assert isinstance(hello, Hello), hello
        try:
            yield stream, hello
        finally:
            if bye:
                with suppress(ConnectionClosed):
                    await stream.send(encode_message(Bye()))


class Feed:
    """Sends footage over a stream and notes when what came back.

    Args:
        answers: every answer is added to it.
    """

    def __init__(self, stream: ClientConnection, hello: Hello, footage: Footage, answers: list[Answer]) -> None:
        self._stream = stream
        self._footage = footage
        self._answers = answers
        self._sent: dict[int, float] = {}
        self._seq = 0 if hello.resumed_at_seq is None else hello.resumed_at_seq + 1
        self._credit = hello.window or 0

    async def send(self, frame: Frame | None = None) -> None:
        """The next pair of the footage; the images of ``frame`` in its place, where given."""
        seq, self._seq = self._seq, self._seq + 1
        message = encode_frame(self._footage.frame(seq) if frame is None else replace(frame, seq=seq))
        self._credit -= 1
        self._sent[seq] = time.perf_counter()
        await self._stream.send(message)

    async def receive(self) -> Answer:
        """Wait for the next answer."""
        while True:
            message = decode_message(await self._stream.recv())
            if not isinstance(message, Result | Error) or message.seq is None:
                raise DuoTrackError(f"expected a result, got {message}")
            if message.seq in self._sent:  # else one of the connection before, which the server repeats
                break
        now = time.perf_counter()
        dropped = message.dropped_since_last if isinstance(message, Result) else 0
        answer = Answer(self._sent.pop(message.seq), now, dropped, isinstance(message, Result))
        for seq in [seq for seq in self._sent if seq < message.seq]:  # those that a live session passed over
            del self._sent[seq]
        self._answers.append(answer)
        self._credit += message.credit
        return answer

    async def every_frame(self, in_flight: int, frames: int | None = None) -> None:
        """Keep ``in_flight`` pairs unanswered, as far as credit goes, until ``frames`` are answered, or without end."""
        while frames is None or frames > 0:
            while self._credit > 0 and len(self._sent) < in_flight:
                await self.send()
            await self.receive()
            frames = None if frames is None else frames - 1

    async def live(self, frames_per_second: float) -> None:
        """Send by the clock, whatever comes back, without end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive_all())
            began, count = time.perf_counter(), 0
            while True:
                await asyncio.sleep(max(0.0, began + count / frames_per_second - time.perf_counter()))
                await self.send()
                count += 1

    async def _receive_all(self) -> None:
        while True:
            await self.receive()
