"""Both sides of the protocol against each other, and against noise."""

import json
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from duotrack_client.errors import ProtocolError
from duotrack_client.protocol import (
    Answer,
    Box,
    ClientProtocol,
    Codec,
    Error,
    FrameReceived,
    FrameRefused,
    Goaway,
    Limits,
    Modalities,
    ModalityHealth,
    Mode,
    Payload,
    PingReceived,
    Pong,
    Replayed,
    Result,
    ServerProtocol,
    TargetResult,
    TargetState,
    Timings,
    Wire,
    encode_message,
)

LIMITS = Limits(max_frame_bytes=4096, max_pixels=400, window=3, max_targets=4)
SOUND = Payload(Codec.RAW8, struct.pack("<HH", 2, 2) + bytes(4))
BROKEN = Payload(Codec.RAW8, b"x")
FINE = Modalities(ModalityHealth.MISSING, ModalityHealth.OK)
NO_TIME = Timings(0, 0, 0, 0)
BOX = Box(1, 2, 3, 4)


def box(number: int) -> Box:
    """A box that tells which ``init`` it came with."""
    return Box(number, 0, 1, 1)


@dataclass(frozen=True)
class Progress:
    """What a service remembers of a session, in memory or in its store."""

    last_seq: int | None = None
    targets: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()
    starts: dict[int, dict[int, float]] = field(default_factory=dict)  # by frame: the boxes that came with it


class Conversation(RuleBasedStateMachine):
    """A client, a service and a network that loses connections: no side accuses the other, and no frame is lost."""

    @initialize(mode=st.sampled_from(Mode), stored=st.booleans(), replays=st.booleans())
    def begin(self, mode: Mode, stored: bool, replays: bool) -> None:
        self.mode, self.stored = mode, stored
        self.client = ClientProtocol(replay=replays or mode is Mode.EVERY_FRAME)
        self.server: ServerProtocol | None = None
        self.progress = self.snapshot = Progress()
        self.to_server: deque[str | bytes] = deque()
        self.to_client: deque[str | bytes] = deque()
        self.waiting: list[FrameReceived | FrameRefused] = []
        self.delivered: list[int] = []
        self.dropped = self.passed_over = 0
        self.boxes = 0
        self.targets = {0}  # as the client sees it
        self.pending: dict[int, float] = {}
        self.asked: dict[int, dict[int, float]] = {}

    connected = precondition(lambda self: self.server is not None)

    @precondition(lambda self: self.server is None)
    @rule(wire=st.sampled_from(Wire))
    def connect(self, wire: Wire) -> None:
        known = self.progress
        self.server = ServerProtocol(self.mode, LIMITS, None, known.last_seq, wire, known.targets, known.answers)
        self.client.reconnected()
        self.client.wire = wire
        self.to_client.append(self.server.hello("id", 20, 60))
        self.to_client.extend(self.server.repeats())

    @connected
    @precondition(lambda self: self.client.can_send)
    @rule(sound=st.sampled_from([True, True, True, False]))
    def send(self, sound: bool) -> None:
        seq, message = self.client.frame(None, SOUND if sound else BROKEN, 0)
        self.asked[seq], self.pending = self.pending, {}
        self.to_server.append(message)

    @connected
    @precondition(lambda self: self.client.caught_up)
    @rule(number=st.integers(0, LIMITS.max_targets - 1))
    def start_target(self, number: int) -> None:
        self.boxes += 1
        self.to_server.append(self.client.init(box(self.boxes), number))
        self.pending[number] = self.boxes
        self.targets.add(number)

    @connected
    @precondition(lambda self: self.client.caught_up and self.mode is Mode.EVERY_FRAME)
    @rule(data=st.data())
    def keep_targets(self, data: st.DataObject) -> None:
        self.targets = data.draw(st.sets(st.sampled_from(sorted(self.targets)), min_size=1))
        self.pending = {target: number for target, number in self.pending.items() if target in self.targets}
        self.to_server.append(self.client.config(targets=self.targets))

    @connected
    @precondition(lambda self: self.client.hello is not None)
    @rule()
    def ping(self) -> None:
        self.to_server.append(self.client.ping())

    @connected
    @rule()
    def send_again(self) -> None:
        if (message := self.client.next_replay()) is not None:
            self.to_server.append(message)

    @connected
    @precondition(lambda self: self.to_server)
    @rule()
    def arrive_at_the_server(self) -> None:
        event = self.server.receive(self.to_server.popleft())
        if isinstance(event, PingReceived):
            self.to_client.append(self.server.pong(event.id))
        elif event is not None:
            self.waiting.append(event)

    @connected
    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), usable=st.sampled_from([True, True, False]))
    def track(self, data: st.DataObject, usable: bool) -> None:
        index = 0
        if self.mode is Mode.LIVE:
            boxes = [place for place, event in enumerate(self.waiting) if event.inits]
            index = data.draw(st.integers(0, min([*boxes, len(self.waiting) - 1])))
        event = self.waiting[index]
        self.passed_over += index
        del self.waiting[: index + 1]
        starts = {init.target: init.box.x for init in event.inits}
        if self.mode is Mode.EVERY_FRAME:
            assert starts == self.asked[event.seq]
        if isinstance(event, FrameRefused) or not usable:
            self.to_client.append(self.server.error(event, "code", "damaged"))
            return
        kept = self.progress.targets or (0,)
        if event.config is not None and event.config.targets is not None:
            kept = tuple(target for target in kept if target in event.config.targets)
        targets = tuple(sorted({*kept, *starts}))
        message = self.server.result(
            event,
            targets=[TargetResult(target, BOX, 0.5, TargetState.TRACKING) for target in targets or (0,)],
            modalities=FINE,
            timings=NO_TIME,
            durable=self.stored,
            durable_seq=self.snapshot.last_seq,
        )
        self.progress = Progress(
            event.seq, targets or (0,), self.server.answers, {**self.progress.starts, event.seq: starts}
        )
        self.to_client.append(message)

    @precondition(lambda self: self.stored)
    @rule()
    def save(self) -> None:
        self.snapshot = self.progress

    @connected
    @precondition(lambda self: self.to_client)
    @rule()
    def arrive_at_the_client(self) -> None:
        event = self.client.receive(self.to_client.popleft())
        if isinstance(event, Result | Error):
            assert event.seq is not None
            self.delivered.append(event.seq)
        if isinstance(event, Result):
            self.dropped += event.dropped_since_last

    @connected
    @rule()
    def lose_the_connection(self) -> None:
        self.progress = replace(self.progress, answers=self.server.answers or self.progress.answers)
        self._disconnect()

    @connected
    @precondition(lambda self: self.stored)
    @rule()
    def kill_the_server(self) -> None:
        self.progress = self.snapshot
        self._disconnect()

    def _disconnect(self) -> None:
        self.server = None
        self.to_server.clear()
        self.to_client.clear()
        self.waiting.clear()

    @invariant()
    def frames_are_answered_in_order_and_within_the_window(self) -> None:
        if not hasattr(self, "client"):
            return
        if self.mode is Mode.EVERY_FRAME:
            assert self.client.gaps == ()
            assert self.delivered == list(range(len(self.delivered)))
            assert self.client.in_flight == self.client.next_seq - len(self.delivered)
            assert self.client.in_flight <= LIMITS.window
            assert len(self.waiting) <= LIMITS.window
        else:
            assert self.delivered == sorted(set(self.delivered))
            assert self.dropped <= self.passed_over

    def teardown(self) -> None:
        """Whatever has happened, a connection that holds brings the rest."""
        if not hasattr(self, "client") or self.mode is Mode.LIVE:
            return
        if self.server is None:
            self.connect(Wire.JSON)
        while self.to_client or self.to_server or self.waiting or self.client.next_seq > len(self.delivered):
            if self.to_client:
                self.arrive_at_the_client()
            elif self.to_server:
                self.arrive_at_the_server()
            elif self.waiting:
                self.track(None, True)
            else:
                message = self.client.next_replay()
                assert message is not None, "frames are unanswered, and nothing will happen any more"
                self.to_server.append(message)
        self.frames_are_answered_in_order_and_within_the_window()


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestConversation = Conversation.TestCase


def flipped(message: str | bytes, place: int, value: int) -> str | bytes:
    """``message`` with one character or byte changed."""
    if not message:
        return message
    place %= len(message)
    if isinstance(message, str):
        return message[:place] + chr(value) + message[place + 1 :]
    return message[:place] + bytes([value]) + message[place + 1 :]


RESULT = Result(0, BOX, 0.5, TargetState.LOST, FINE, 0, 1, NO_TIME, others=(TargetResult(1, BOX, 0, TargetState.LOST),))
noise = st.one_of(st.binary(max_size=80), st.text(max_size=40))
changes = st.tuples(st.integers(0, 500), st.integers(0, 255))


def sent_by_a_client() -> list[str | bytes]:
    client = ClientProtocol()
    client.receive(ServerProtocol(Mode.EVERY_FRAME, LIMITS).hello("id", 1, 1))
    return [
        client.init(BOX, 1),
        client.config(targets=[1], redetection=True),
        client.ping(),
        client.frame(None, SOUND, 7)[1],
        client.frame(Payload(Codec.RAW8, struct.pack("<HH", 2, 2) + bytes(12)), SOUND, 7)[1],
        client.bye(),
    ]


FROM_CLIENT = sent_by_a_client()


@given(st.sampled_from(Mode), st.lists(st.one_of(noise, st.tuples(st.sampled_from(FROM_CLIENT), changes)), max_size=6))
def test_a_server_meets_any_messages_with_events_or_a_protocol_error(
    mode: Mode, messages: list[str | bytes | tuple[str | bytes, tuple[int, int]]]
) -> None:
    server = ServerProtocol(mode, LIMITS)
    server.hello("id", 1, 1)
    with suppress(ProtocolError):
        for message in messages:
            server.receive(flipped(message[0], *message[1]) if isinstance(message, tuple) else message)


@given(st.sampled_from(Mode), st.sampled_from(Wire), st.lists(st.one_of(noise, changes), max_size=6), st.data())
def test_a_client_meets_any_messages_with_events_or_a_protocol_error(
    mode: Mode, wire: Wire, messages: list[str | bytes | tuple[int, int]], data: st.DataObject
) -> None:
    server = ServerProtocol(mode, LIMITS, wire=wire)
    client = ClientProtocol(wire)
    client.receive(server.hello("id", 1, 1))
    client.frame(None, SOUND, 0)
    client.ping()
    known = [encode_message(message, wire) for message in (RESULT, Error("x", "y", 0, 1), Pong(1), Goaway("x", 1))]
    known.append(server.hello("id", 1, 1))
    for message in messages:
        with suppress(ProtocolError):
            if isinstance(message, tuple):
                message = flipped(data.draw(st.sampled_from(known)), *message)
            event = client.receive(message)
            assert isinstance(event, Result | Error | Pong | Goaway | Replayed) or event == client.hello


@given(st.text(max_size=30), st.integers(0, 10**6))
def test_a_deep_or_long_text_is_refused_in_bounded_time_and_memory(text: str, count: int) -> None:
    server = ServerProtocol(Mode.LIVE, LIMITS)
    server.hello("id", 1, 1)
    for data in (text * 1000, "[" * min(count, 16_000), json.dumps({"type": text, "x": [text] * 100})):
        with suppress(ProtocolError):
            server.receive(data)
