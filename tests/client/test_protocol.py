import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from duotrack_client.errors import EncodingError, InvalidState, ProtocolError
from duotrack_client.protocol import (
    Box,
    Bye,
    ByeReceived,
    ClientProtocol,
    CloseCode,
    Codec,
    Error,
    ErrorCode,
    Frame,
    FrameReceived,
    FrameRefused,
    Goaway,
    Hello,
    Limits,
    ModalityHealth,
    Mode,
    Payload,
    Result,
    ServerProtocol,
    TargetState,
    Timings,
    encode_frame,
    encode_message,
)

LIMITS = Limits(max_frame_bytes=4096, max_pixels=400, window=3)
BOX = Box(1, 2, 3, 4)
TIMINGS = Timings(0, 0, 0, 0)


def raw(width: int = 4, height: int = 4, channels: int = 1) -> Payload:
    return Payload(Codec.RAW8, struct.pack("<HH", width, height) + bytes(width * height * channels))


def frame(seq: int, rgb: Payload | None = None, thermal: Payload | None = None) -> bytes:
    return encode_frame(Frame(seq, 0, rgb, thermal or (None if rgb else raw())))


def open_server(mode: Mode = Mode.EVERY_FRAME, limits: Limits = LIMITS, **state: object) -> ServerProtocol:
    server = ServerProtocol(mode, limits, **state)
    server.hello("id", heartbeat_s=20, idle_s=60)
    return server


def open_pair(mode: Mode = Mode.EVERY_FRAME, **state: object) -> tuple[ClientProtocol, ServerProtocol]:
    client, server = ClientProtocol(), ServerProtocol(mode, LIMITS, **state)
    client.receive(server.hello("id", heartbeat_s=20, idle_s=60))
    return client, server


def receive_frame(server: ServerProtocol, data: bytes) -> FrameReceived:
    event = server.receive(data)
    assert isinstance(event, FrameReceived)
    return event


def answer(server: ServerProtocol, event: FrameReceived) -> str:
    return server.result(event, box=BOX, score=0.5, state=TargetState.TRACKING, timings=TIMINGS)


def test_a_frame_is_answered_with_a_result() -> None:
    client, server = open_pair()
    seq, message = client.frame(raw(channels=3), None, capture_us=9)
    event = receive_frame(server, message)
    assert (seq, event.seq, event.frame.capture_us) == (0, 0, 9)
    result = client.receive(answer(server, event))
    assert isinstance(result, Result)
    assert (result.seq, result.box, result.credit, result.dropped_since_last) == (0, BOX, 1, 0)
    assert (result.modalities.rgb, result.modalities.thermal) == (ModalityHealth.OK, ModalityHealth.MISSING)
    assert client.in_flight == 0


def test_hello_tells_the_limits() -> None:
    client, _ = open_pair()
    assert client.hello == Hello(
        session="id",
        mode=Mode.EVERY_FRAME,
        window=3,
        max_frame_bytes=4096,
        max_pixels=400,
        codecs=("jpeg8", "png8", "png16", "raw8", "raw16"),
        heartbeat_s=20,
        idle_s=60,
    )


def test_the_client_stops_at_its_credit() -> None:
    client, server = open_pair()
    events = [receive_frame(server, client.frame(None, raw(), 0)[1]) for _ in range(3)]
    assert not client.can_send
    with pytest.raises(InvalidState, match="expected an answer to one of 3 frames"):
        client.frame(None, raw(), 0)
    client.receive(answer(server, events[0]))
    assert client.can_send
    assert client.frame(None, raw(), 0)[0] == 3


def test_an_overrun_is_closed_with_4429() -> None:
    server = open_server()
    for seq in range(3):
        server.receive(frame(seq))
    with pytest.raises(ProtocolError, match="at most 3 unanswered frames, got frame 3") as caught:
        server.receive(frame(3))
    assert caught.value.close_code == CloseCode.OVERRUN == 4429


def test_a_rejected_frame_gives_its_credit_back() -> None:
    client, server = open_pair()
    for _ in range(5):
        seq, message = client.frame(Payload(Codec.JPEG8, b"no image"), None, 0)
        event = server.receive(message)
        assert isinstance(event, FrameRefused)
        assert event.code == ErrorCode.CORRUPT_IMAGE
        error = client.receive(server.error(event, event.code, event.message))
        assert isinstance(error, Error)
        assert (error.seq, error.code) == (seq, "corrupt_image")


def test_live_frames_that_are_passed_over_are_counted_in_the_next_result() -> None:
    client, server = open_pair(Mode.LIVE)
    assert client.hello is not None
    assert client.hello.window is None
    events = [receive_frame(server, client.frame(None, raw(), 0)[1]) for _ in range(10)]
    first = client.receive(answer(server, events[0]))
    second = client.receive(answer(server, events[7]))
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert (first.dropped_since_last, second.dropped_since_last, second.credit) == (0, 6, 0)
    assert client.in_flight == 2


def test_drops_before_a_rejected_frame_are_in_the_result_after_it() -> None:
    client, server = open_pair(Mode.LIVE)
    events = [receive_frame(server, client.frame(None, raw(), 0)[1]) for _ in range(6)]
    client.receive(server.error(events[2], ErrorCode.CORRUPT_IMAGE, "damaged"))
    result = client.receive(answer(server, events[5]))
    assert isinstance(result, Result)
    assert result.dropped_since_last == 4


def test_answers_out_of_turn_are_our_own_fault() -> None:
    server = open_server()
    events = [receive_frame(server, frame(seq)) for seq in range(2)]
    with pytest.raises(InvalidState, match="expected an answer to frame 1 of the stream, got 2"):
        answer(server, events[1])
    answer(server, events[0])
    with pytest.raises(InvalidState, match="expected an answer to frame 2"):
        answer(server, events[0])


@pytest.mark.parametrize("seq", [5, 4])
def test_frame_numbers_must_rise(seq: int) -> None:
    server = open_server(last_seq=5)
    with pytest.raises(ProtocolError, match=f"expected a frame number above 5, got {seq}") as caught:
        server.receive(frame(seq))
    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


def test_a_client_goes_on_where_the_session_stopped() -> None:
    client, server = open_pair(last_seq=41)
    seq, message = client.frame(None, raw(), 0)
    assert seq == 42
    assert isinstance(client.receive(answer(server, receive_frame(server, message))), Result)


def test_a_long_message_is_closed_with_1009() -> None:
    with pytest.raises(ProtocolError, match="at most 4096 bytes, got 5000") as caught:
        open_server().receive(bytes(5000))
    assert caught.value.close_code == CloseCode.TOO_BIG == 1009


def test_a_long_text_is_closed_with_1009() -> None:
    with pytest.raises(ProtocolError, match="at most 16384 characters") as caught:
        open_server().receive(" " * 20_000)
    assert caught.value.close_code == CloseCode.TOO_BIG


def test_an_image_of_too_many_pixels_is_closed_with_1009() -> None:
    with pytest.raises(ProtocolError, match="thermal image of at most 400 pixels, got 41x10 = 410") as caught:
        open_server().receive(frame(0, thermal=raw(41, 10)))
    assert caught.value.close_code == CloseCode.TOO_BIG


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (frame(1, raw(4, 4, 3), raw(5, 4)), ErrorCode.SIZE_MISMATCH, "the same size, got 4x4 and 5x4"),
        (frame(1, raw(5, 4, 3)), ErrorCode.SIZE_CHANGED, "expected 4x4, the size of the session's first pair, got 5x4"),
        (frame(1, thermal=Payload(Codec.RAW8, b"xx")), ErrorCode.CORRUPT_IMAGE, "expected the width and height"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_and_the_stream_goes_on(data: bytes, code: str, message: str) -> None:
    server = open_server()
    answer(server, receive_frame(server, frame(0)))
    refused = server.receive(data)
    assert isinstance(refused, FrameRefused)
    assert refused.code == code
    assert message in refused.message
    third = receive_frame(server, frame(2))
    server.error(refused, refused.code, refused.message)
    answer(server, third)


def test_a_pair_that_could_not_be_used_does_not_fix_the_size() -> None:
    server = open_server()
    damaged = receive_frame(server, frame(0, raw(5, 4, 3)))
    server.error(damaged, ErrorCode.CORRUPT_IMAGE, "cut short")
    answer(server, receive_frame(server, frame(1)))
    refused = server.receive(frame(2, raw(5, 4, 3)))
    assert isinstance(refused, FrameRefused)
    assert refused.code == ErrorCode.SIZE_CHANGED


def test_the_size_of_a_former_connection_holds() -> None:
    refused = open_server(size=(8, 8)).receive(frame(0))
    assert isinstance(refused, FrameRefused)
    assert refused.code == ErrorCode.SIZE_CHANGED


def test_bye_is_all_that_a_client_says_in_text() -> None:
    server = open_server()
    assert server.receive(ClientProtocol().bye()) == ByeReceived()
    with pytest.raises(ProtocolError, match="expected bye from the client, got goaway") as caught:
        server.receive(encode_message(Goaway("x", 1)))
    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


def test_nothing_is_received_before_hello() -> None:
    with pytest.raises(InvalidState, match="expected hello"):
        ServerProtocol(Mode.LIVE, LIMITS).receive(frame(0))


def test_nothing_is_sent_before_hello() -> None:
    with pytest.raises(InvalidState, match="expected hello"):
        ClientProtocol().frame(None, raw(), 0)


def greeted() -> ClientProtocol:
    return open_pair()[0]


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (greeted, b"binary", "expected a text message from the server, got 6 bytes"),
        (greeted, encode_message(Bye()), "got bye, which only a client sends"),
        (greeted, ServerProtocol(Mode.LIVE, LIMITS).hello("id", 1, 1), "expected one hello, got a second"),
        (greeted, encode_message(Error("x", "y", seq=0)), "no frame, none is unanswered, got one to frame 0"),
        (ClientProtocol, encode_message(Error("x", "y", seq=0)), "expected hello, got error for frame 0"),
        (
            ClientProtocol,
            ServerProtocol(Mode.EVERY_FRAME, Limits(1, 1, window=0)).hello("id", 1, 1),
            "expected a window of at least one frame, got 0",
        ),
    ],
)
def test_a_server_out_of_turn_is_a_protocol_error(
    make: Callable[[], ClientProtocol], data: str | bytes, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        make().receive(data)


def test_the_farewell_and_the_warning_of_the_server_are_kept() -> None:
    client = greeted()
    client.receive(encode_message(Goaway("update", 2.5)))
    client.receive(encode_message(Error("protocol", "all of the reason")))
    assert client.goaway == Goaway("update", 2.5)
    assert client.farewell == Error("protocol", "all of the reason")


def test_a_frame_that_the_server_would_refuse_is_not_sent() -> None:
    client = greeted()
    with pytest.raises(EncodingError, match="has 10036 bytes, the service takes at most 4096"):
        client.frame(None, raw(100, 100), 0)
    with pytest.raises(EncodingError, match="got neither"):
        client.frame(None, None, 0)
    assert client.frame(None, raw(), 0)[0] == 0


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80)))
def test_a_server_meets_any_message_with_an_event_or_a_protocol_error(data: bytes | str) -> None:
    with suppress(ProtocolError):
        assert isinstance(open_server().receive(data), FrameReceived | FrameRefused | ByeReceived)


class Conversation(RuleBasedStateMachine):
    """A client and a server that keep to the rules never accuse each other, and no frame is lost from the count."""

    @initialize(mode=st.sampled_from(Mode))
    def connect(self, mode: Mode) -> None:
        self.mode = mode
        self.client, self.server = open_pair(mode)
        self.waiting: list[FrameReceived] = []
        self.sent = self.answered = self.dropped = 0

    @precondition(lambda self: self.client.can_send)
    @rule()
    def send(self) -> None:
        self.waiting.append(receive_frame(self.server, self.client.frame(None, raw(), 0)[1]))
        self.sent += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        last = len(self.waiting) - 1 if self.mode is Mode.LIVE else 0
        index = data.draw(st.integers(0, last))
        event = self.waiting[index]
        del self.waiting[: index + 1]
        error = self.server.error
        received = self.client.receive(error(event, "code", "damaged") if fails else answer(self.server, event))
        self.answered += 1
        if isinstance(received, Result):
            self.dropped += received.dropped_since_last
            assert self.dropped + self.answered == self.sent - len(self.waiting)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "client"):
            assert self.client.in_flight == len(self.waiting)


Conversation.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestConversation = Conversation.TestCase
