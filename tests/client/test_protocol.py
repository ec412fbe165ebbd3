import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import EncodingError, InvalidState, ProtocolError
from duotrack_client.protocol import (
    Box,
    Bye,
    ByeReceived,
    ClientProtocol,
    CloseCode,
    Codec,
    Config,
    Error,
    ErrorCode,
    Frame,
    FrameReceived,
    FrameRefused,
    Goaway,
    Hello,
    Init,
    Limits,
    Modalities,
    ModalityHealth,
    Mode,
    Payload,
    PingReceived,
    Pong,
    Result,
    ServerProtocol,
    TargetResult,
    TargetState,
    Timings,
    Wire,
    encode_frame,
    encode_message,
)
from duotrack_client.protocol.closing import fit_reason

LIMITS = Limits(max_frame_bytes=4096, max_pixels=400, window=3)
BOX = Box(1, 2, 3, 4)
TIMINGS = Timings(0, 0, 0, 0)
MODALITIES = Modalities(ModalityHealth.MISSING, ModalityHealth.NOISE)


def raw(width: int = 4, height: int = 4, channels: int = 1) -> Payload:
    return Payload(Codec.RAW8, struct.pack("<HH", width, height) + bytes(width * height * channels))


def frame(seq: int, rgb: Payload | None = None, thermal: Payload | None = None) -> bytes:
    return encode_frame(Frame(seq, 0, rgb, thermal or (None if rgb else raw())))


def open_server(mode: Mode = Mode.EVERY_FRAME, limits: Limits = LIMITS, **state: object) -> ServerProtocol:
    server = ServerProtocol(mode, limits, **state)
    server.hello("id", heartbeat_s=20, idle_s=60)
    return server


def open_pair(mode: Mode = Mode.EVERY_FRAME, **state: object) -> tuple[ClientProtocol, ServerProtocol]:
    server = ServerProtocol(mode, LIMITS, **state)
    client = ClientProtocol(server.wire)
    client.receive(server.hello("id", heartbeat_s=20, idle_s=60))
    return client, server


def receive_frame(server: ServerProtocol, data: bytes) -> FrameReceived:
    event = server.receive(data)
    assert isinstance(event, FrameReceived)
    return event


def target(number: int = 0) -> TargetResult:
    return TargetResult(number, BOX, 0.5, TargetState.TRACKING)


def answer(server: ServerProtocol, event: FrameReceived, *targets: int) -> str | bytes:
    found = [target(number) for number in targets or (0,)]
    return server.result(event, targets=found, modalities=MODALITIES, timings=TIMINGS)


def test_a_frame_is_answered_with_a_result() -> None:
    client, server = open_pair()
    seq, message = client.frame(raw(channels=3), None, capture_us=9)
    event = receive_frame(server, message)
    assert (seq, event.seq, event.frame.capture_us) == (0, 0, 9)
    result = client.receive(answer(server, event))
    assert isinstance(result, Result)
    assert (result.seq, result.box, result.credit, result.dropped_since_last) == (0, BOX, 1, 0)
    assert result.modalities == MODALITIES
    assert client.in_flight == 0


def test_hello_tells_the_limits() -> None:
    client, _ = open_pair()
    assert client.hello == Hello(
        session="id",
        mode=Mode.EVERY_FRAME,
        window=3,
        max_frame_bytes=4096,
        max_pixels=400,
        codecs=("jpeg8", "png8", "png16", "raw8", "raw16", "zstd-delta16"),
        heartbeat_s=20,
        idle_s=60,
        max_targets=8,
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


def test_pairs_behind_one_that_could_not_be_used_are_checked_in_their_turn() -> None:
    server = open_server()
    damaged = receive_frame(server, frame(0, raw(5, 4, 3)))
    good, small = (receive_frame(server, frame(seq, *images)) for seq, images in ((1, ()), (2, (raw(5, 4, 3),))))
    server.error(damaged, ErrorCode.CORRUPT_IMAGE, "cut short")
    assert server.turn(good) is good
    answer(server, good)
    refused = server.turn(small)
    assert isinstance(refused, FrameRefused)
    assert (refused.seq, refused.code) == (2, ErrorCode.SIZE_CHANGED)
    assert refused.message == "expected 4x4, the size of the session's first pair, got 5x4"


def test_the_size_of_a_former_connection_holds() -> None:
    refused = open_server(size=(8, 8)).receive(frame(0))
    assert isinstance(refused, FrameRefused)
    assert refused.code == ErrorCode.SIZE_CHANGED


def test_a_client_ends_the_session_with_bye() -> None:
    assert open_server().receive(ClientProtocol().bye()) == ByeReceived()


def test_what_only_a_server_says_is_refused_from_a_client() -> None:
    server = open_server()
    with pytest.raises(ProtocolError, match="expected init, config, ping or bye from the client, got goaway") as caught:
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


def packed() -> ClientProtocol:
    return open_pair(wire=Wire.MSGPACK)[0]


def live() -> ClientProtocol:
    return open_pair(Mode.LIVE)[0]


def send_one(client: ClientProtocol) -> ClientProtocol:
    client.frame(None, raw(), 0)
    return client


def awaiting() -> ClientProtocol:
    return send_one(greeted())


def live_awaiting() -> ClientProtocol:
    return send_one(send_one(live()))


def pinging() -> ClientProtocol:
    client = greeted()
    client.ping()
    return client


def dropped() -> ClientProtocol:
    client = greeted()
    client.reconnected()
    return client


def hello(**fields: object) -> str:
    values = {"session": "id", "mode": Mode.EVERY_FRAME, "window": 3, "max_frame_bytes": 4096, "max_pixels": 400}
    return encode_message(Hello(**{**values, "codecs": (), "heartbeat_s": 1, "idle_s": 1, **fields}))


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (greeted, b"binary", "expected json messages from the server, got 6 bytes of binary"),
        (greeted, encode_message(Bye()), "got bye, which only a client sends"),
        (greeted, ServerProtocol(Mode.LIVE, LIMITS).hello("id", 1, 1), "expected one hello, got a second"),
        (greeted, encode_message(Error("x", "y", seq=0)), "no frame, none is unanswered, got one to frame 0"),
        (awaiting, encode_message(Error("x", "y", seq=1)), "expected an answer to frame 0, got one to frame 1"),
        (live, encode_message(Error("x", "y", seq=0)), "no frame, none is unanswered, got one to frame 0"),
        (live_awaiting, encode_message(Error("x", "y", seq=2)), "an answer to frames 0 to 1, got one to frame 2"),
        (packed, "text", "expected msgpack messages from the server, got 4 characters of text"),
        (greeted, encode_message(Pong(1)), "expected no pong, no ping is unanswered, got one to ping 1"),
        (pinging, encode_message(Pong(2)), "expected a pong to ping 1, got one to ping 2"),
        (ClientProtocol, encode_message(Error("x", "y", seq=0)), "expected hello, got error for frame 0"),
        (
            ClientProtocol,
            ServerProtocol(Mode.EVERY_FRAME, Limits(1, 1, window=0)).hello("id", 1, 1),
            "expected a window of at least one frame, got 0",
        ),
        (ClientProtocol, hello(repeats_from=0), "expected answers up to frame -1 to be repeated, got 0"),
        (dropped, hello(session="other"), "expected session 'id' in mode every_frame, got 'other' in every_frame"),
        (dropped, hello(mode=Mode.LIVE), "expected session 'id' in mode every_frame, got 'id' in live"),
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


def test_a_ping_is_answered_ahead_of_the_frames() -> None:
    client, server = open_pair()
    server.receive(client.frame(None, raw(), 0)[1])
    ping = server.receive(client.ping())
    assert ping == PingReceived(1)
    assert client.receive(server.pong(1)) == Pong(1)
    assert client.in_flight == 1


def test_messagepack_results_are_binary_and_commands_stay_text() -> None:
    client, server = open_pair(wire=Wire.MSGPACK)
    assert server.receive(client.init(BOX, 1)) is None
    written = answer(server, receive_frame(server, client.frame(None, raw(), 0)[1]), 0, 1)
    assert isinstance(written, bytes)
    result = client.receive(written)
    assert isinstance(result, Result)
    assert result.others == (target(1),)


def test_an_init_comes_with_the_next_frame_and_only_with_that() -> None:
    client, server = open_pair()
    server.receive(client.init((5, 6, 7, 8), 2))
    server.receive(client.init(BOX, 2))  # the later counts
    server.receive(client.init(BOX))
    first = receive_frame(server, client.frame(None, raw(), 0)[1])
    second = receive_frame(server, client.frame(None, raw(), 0)[1])
    assert (first.inits, first.config) == ((Init(BOX, 0), Init(BOX, 2)), None)
    assert (second.inits, second.config) == ((), None)


def test_a_refused_frame_still_carries_its_commands() -> None:
    client, server = open_pair()
    server.receive(client.init(BOX, 1))
    server.receive(client.config(redetection=False))
    refused = server.receive(client.frame(None, Payload(Codec.RAW8, b"x"), 0)[1])
    assert isinstance(refused, FrameRefused)
    assert (refused.inits, refused.config) == ((Init(BOX, 1),), Config(redetection=False))


@pytest.mark.parametrize(
    ("commands", "inits", "config"),
    [
        ((Config(redetection=True), Config(redetection=False)), (), Config(None, False)),
        ((Config(redetection=True), Config((2, 0, 2))), (), Config((0, 2), True)),
        ((Config((0, 2)), Config((2,))), (), Config((2,))),
        ((Init(BOX, 1), Config((0,))), (), Config((0,))),
        ((Init(BOX, 1), Config((0, 1))), (1,), Config((0, 1))),
        ((Config((0,)), Init(BOX, 1)), (1,), Config((0, 1))),
        ((Config((2,)), Init(BOX, 0)), (0,), Config((0, 2))),
        ((Init(BOX, 1), Config((1,)), Init(BOX, 0)), (0, 1), Config((0, 1))),
    ],
)
def test_commands_before_a_frame_are_merged(
    commands: tuple[Init | Config, ...], inits: tuple[int, ...], config: Config
) -> None:
    server = open_server(targets=(0, 2), last_seq=4)
    for command in commands:
        server.receive(encode_message(command))
    event = receive_frame(server, frame(5))
    assert tuple(init.target for init in event.inits) == inits
    assert event.config == config


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ((Init(BOX, 8),), "expected a target number below 8, got 8"),
        ((Config(()),), "expected at least one target to keep, got an empty list"),
        ((Config((0, 3)),), r"expected targets among \[0, 2\] to keep, got 3"),
        ((Config((2,)), Config((0,))), r"expected targets among \[2\] to keep, got 0"),
        ((Init(BOX, 1), Config((2,)), Config((1,))), r"expected targets among \[2\] to keep, got 1"),
    ],
)
def test_targets_that_cannot_be_are_closed_with_1008(commands: tuple[Init | Config, ...], message: str) -> None:
    server = open_server(targets=(2, 0), last_seq=4)
    for command in commands[:-1]:
        server.receive(encode_message(command))
    with pytest.raises(ProtocolError, match=message) as caught:
        server.receive(encode_message(commands[-1]))
    assert caught.value.close_code == CloseCode.POLICY == 1008


def test_what_was_asked_for_counts_until_its_frame_is_answered() -> None:
    server = open_server()
    server.receive(encode_message(Init(BOX, 1)))
    first = receive_frame(server, frame(0))
    server.receive(encode_message(Config((1,))))
    second = receive_frame(server, frame(1))
    answer(server, first, 0, 1)
    with pytest.raises(ProtocolError, match=r"among \[1\] to keep, got 0"):
        server.receive(encode_message(Config((0, 1))))
    answer(server, second, 1)
    server.receive(encode_message(Init(BOX, 3)))
    answer(server, receive_frame(server, frame(2)), 1)  # number 3 could not be started
    with pytest.raises(ProtocolError, match=r"among \[1\] to keep, got 3"):
        server.receive(encode_message(Config((3,))))


def test_before_the_first_frame_there_is_target_0() -> None:
    server = open_server()
    server.receive(encode_message(Config((0,), redetection=True)))
    assert receive_frame(server, frame(0)).config == Config((0,), redetection=True)


@pytest.mark.parametrize("targets", [(), (1, 0), (1, 1)])
def test_results_without_targets_in_order_are_our_own_fault(targets: tuple[int, ...]) -> None:
    server = open_server()
    event = receive_frame(server, frame(0))
    with pytest.raises(InvalidState, match="expected at least one target, by rising number"):
        server.result(event, targets=[target(n) for n in targets], modalities=MODALITIES, timings=TIMINGS)


def test_live_frames_with_a_box_are_never_passed_over() -> None:
    server = open_server(Mode.LIVE)
    events = []
    for seq in range(4):
        if seq == 2:
            server.receive(encode_message(Init(BOX, 1)))
        events.append(receive_frame(server, frame(seq)))
    with pytest.raises(InvalidState, match="expected an answer to frame 3 of the stream, which has boxes"):
        answer(server, events[3])
    answer(server, events[1])
    answer(server, events[2])
    answer(server, events[3])


def test_live_frames_with_boxes_that_pile_up_are_closed_with_4429() -> None:
    server = open_server(Mode.LIVE)
    for seq in range(3):
        server.receive(encode_message(Init(BOX, 1)))
        server.receive(frame(2 * seq))
        server.receive(frame(2 * seq + 1))
    server.receive(encode_message(Init(BOX, 1)))
    with pytest.raises(ProtocolError, match="at most 3 unanswered frames with an init, got frame 6") as caught:
        server.receive(frame(6))
    assert caught.value.close_code == CloseCode.OVERRUN


def test_a_live_client_has_one_frame_with_a_box_on_its_way() -> None:
    client, server = open_pair(Mode.LIVE)
    server.receive(client.init(BOX, 1))
    starting = receive_frame(server, client.frame(None, raw(), 0)[1])
    server.receive(client.frame(None, raw(), 0)[1])
    server.receive(client.init(BOX, 2))
    assert not client.can_send
    with pytest.raises(InvalidState, match="expected an answer to one of 2 frames"):
        client.frame(None, raw(), 0)
    client.receive(answer(server, starting, 0, 1))
    assert client.can_send


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda client: client.init(BOX, 8), "expected a target number from 0 to 7, got 8"),
        (lambda client: client.init(BOX, -1), "expected a target number from 0 to 7, got -1"),
        (lambda client: client.config(targets=[]), "expected at least one target to keep"),
    ],
)
def test_commands_that_the_server_would_refuse_are_not_sent(ask: Callable[[ClientProtocol], str], message: str) -> None:
    with pytest.raises(InvalidState, match=message):
        ask(greeted())


def test_commands_wait_for_hello() -> None:
    client = ClientProtocol()
    for ask in (lambda: client.init(BOX), client.config, client.ping):
        with pytest.raises(InvalidState, match="expected hello"):
            ask()
    assert client.next_replay() is None
    assert not client.can_send


@pytest.mark.parametrize(
    ("text", "fitted"),
    [("short", "short"), ("x" * 123, "x" * 123), ("x" * 124, "x" * 120 + "…"), ("ä" * 62, "ä" * 60 + "…")],
)
def test_a_close_reason_is_cut_to_what_fits_at_a_border_of_characters(text: str, fitted: str) -> None:
    assert fit_reason(text) == fitted
    assert len(fit_reason(text).encode()) <= 123


def test_the_numbers_of_frames_are_known_before_they_are_sent() -> None:
    client = awaiting()
    assert client.next_seq == 1
    assert client.frame(None, raw(), 0)[0] == 1
