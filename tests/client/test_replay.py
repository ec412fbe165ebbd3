from collections.abc import Iterator

import pytest

from duotrack_client.errors import InvalidState, ProtocolError
from duotrack_client.protocol import (
    Box,
    ClientProtocol,
    Codec,
    Error,
    FrameReceived,
    Gap,
    GapKind,
    Hello,
    Limits,
    Modalities,
    ModalityHealth,
    Mode,
    Payload,
    Replayed,
    Result,
    ServerProtocol,
    TargetResult,
    TargetState,
    Timings,
    Wire,
    encode_message,
)
from duotrack_client.protocol.replay import ReplayLog, SentFrame

BOX = Box(1, 2, 3, 4)
IMAGE = Payload(Codec.RAW8, b"\x01\x00\x01\x00\x07")
MESSAGE_BYTES = 32 + 5


def greeting(
    resumed: int | None = None, repeats: int | None = None, mode: Mode = Mode.EVERY_FRAME, window: int = 4
) -> str:
    live = mode is Mode.LIVE
    return encode_message(
        Hello("id", mode, None if live else window, 4096, 400, (), 20, 60, resumed, repeats, max_targets=8)
    )


def result(seq: int, durable_seq: int | None = None, durable: bool = False, credit: int = 1) -> str:
    fine = Modalities(ModalityHealth.OK, ModalityHealth.OK)
    where = (BOX, 0.5, TargetState.TRACKING, fine)
    return encode_message(Result(seq, *where, 0, credit, Timings(0, 0, 0, 0), durable=durable, durable_seq=durable_seq))


def rejection(seq: int) -> str:
    return encode_message(Error("corrupt_image", "damaged", seq, credit=1))


def joined(mode: Mode = Mode.EVERY_FRAME, **options: object) -> ClientProtocol:
    client = ClientProtocol(**options)
    client.receive(greeting(mode=mode))
    return client


def send(client: ClientProtocol, count: int = 1) -> list[bytes]:
    return [client.frame(None, IMAGE, 0)[1] for _ in range(count)]


def resume(client: ClientProtocol, *hello: object, **options: object) -> None:
    client.reconnected()
    client.receive(greeting(*hello, **options))


def replay(client: ClientProtocol) -> Iterator[str | bytes]:
    while (message := client.next_replay()) is not None:
        yield message


def test_unanswered_frames_are_sent_again_with_the_commands_before_them() -> None:
    client = joined()
    init = client.init(BOX, 1)
    first = send(client)
    config = client.config(redetection=True)
    second = send(client, 2)
    pending = client.config(targets=(0,))
    client.receive(result(0))
    resume(client, 0)
    assert init not in (messages := list(replay(client)))
    assert messages == [config, *second, pending]
    assert first[0] not in messages
    assert client.gaps == ()
    assert [client.receive(result(seq)).seq for seq in (1, 2)] == [1, 2]
    assert client.in_flight == 0


def test_frames_that_were_answered_but_not_stored_are_sent_again_and_their_answers_swallowed() -> None:
    client = joined()
    messages = send(client, 3)
    client.receive(result(0, durable_seq=0, durable=True))
    client.receive(result(1, durable_seq=0, durable=True))
    resume(client, 0)
    assert list(replay(client)) == messages[1:]
    assert client.receive(result(1)) == Replayed(1)
    assert isinstance(client.receive(result(2)), Result)


def test_nothing_new_is_sent_before_the_old_is_sent_again() -> None:
    client = joined()
    messages = send(client, 4)
    for seq in range(3):
        client.receive(result(seq, durable=True))
        messages += send(client)
    resume(client, None)
    assert not client.caught_up
    assert list(replay(client)) == messages[:4]
    for act in (lambda: client.init(BOX), client.config, lambda: send(client)):
        with pytest.raises(InvalidState, match="expected 3 messages to be sent again before"):
            act()
    for seq in range(3):
        assert client.receive(result(seq, durable=True)) == Replayed(seq)
        assert list(replay(client)) == [messages[4 + seq]]
    assert client.caught_up
    assert not client.can_send  # the window is full
    assert isinstance(client.receive(result(3, durable=True)), Result)
    assert client.frame(None, IMAGE, 0)[0] == 7


def test_answers_that_were_lost_on_their_way_come_again() -> None:
    client = joined()
    send(client, 4)
    client.receive(result(0))
    client.reconnected()
    client.receive(greeting(2, 0))
    assert client.gaps == ()
    assert client.receive(result(0, credit=0)) == Replayed(0)
    assert [client.receive(result(1, credit=0)).seq, client.receive(rejection(2)).seq] == [1, 2]
    assert len(list(replay(client))) == 1
    assert client.receive(result(3)).seq == 3


def test_answers_to_come_again_take_their_place_in_the_window() -> None:
    client = joined()
    send(client, 4)
    resume(client, 2, 0)
    assert len(list(replay(client))) == 1
    assert not client.can_send
    client.receive(result(0, credit=0))
    assert client.can_send


def test_answers_that_were_lost_and_do_not_come_again_are_a_gap() -> None:
    client = joined()
    send(client, 4)
    client.receive(result(0))
    resume(client, 2)
    assert client.gaps == (Gap(1, 2, GapKind.ANSWERS),)
    assert client.in_flight == 1
    resume(client, 2)  # it is told once
    assert client.gaps == ()


def test_some_answers_come_again_and_some_do_not() -> None:
    client = joined()
    send(client, 4)
    resume(client, 3, 2)
    assert client.gaps == (Gap(0, 1, GapKind.ANSWERS),)
    assert [client.receive(result(seq, credit=0)).seq for seq in (2, 3)] == [2, 3]
    assert client.can_send


@pytest.mark.parametrize("seq", [1, 3])
def test_answers_that_come_again_come_in_order(seq: int) -> None:
    client = joined()
    send(client, 4)
    resume(client, 2, 0)
    with pytest.raises(ProtocolError, match=f"answers up to frame 2 once more, got one to frame {seq}"):
        client.receive(result(seq))


def test_a_session_that_somebody_else_went_on_with_is_a_gap() -> None:
    client = joined()
    send(client, 2)
    resume(client, 9, 6)
    assert client.gaps == (Gap(0, 9, GapKind.ANSWERS),)
    assert client.receive(result(9, credit=0)) == Replayed(9)
    assert list(replay(client)) == []
    assert client.frame(None, IMAGE, 0)[0] == 10


def test_a_new_client_goes_on_after_the_last_frame_of_another() -> None:
    client = ClientProtocol()
    client.receive(greeting(41, 41))
    assert client.receive(result(41, credit=0)) == Replayed(41)
    assert (client.gaps, client.frame(None, IMAGE, 0)[0]) == ((), 42)


def test_frames_that_were_forgotten_are_a_gap() -> None:
    client = joined(max_replay_bytes=2 * MESSAGE_BYTES)
    messages = send(client, 4)
    resume(client)
    assert client.gaps == (Gap(0, 1, GapKind.FRAMES),)
    assert list(replay(client)) == messages[2:]
    assert client.in_flight == 2
    assert client.receive(result(2)).seq == 2


def test_a_gap_may_lie_behind_answers_that_come_again() -> None:
    client = joined(max_replay_bytes=MESSAGE_BYTES)
    send(client, 4)
    resume(client, 1, 0)
    assert client.gaps == (Gap(2, 2, GapKind.FRAMES),)
    assert [client.receive(result(seq, credit=0)).seq for seq in (0, 1)] == [0, 1]
    assert client.in_flight == 1
    list(replay(client))
    assert client.receive(result(3)).seq == 3


def test_without_replay_nothing_is_kept() -> None:
    client = joined(replay=False)
    send(client, 3)
    client.receive(result(0))
    resume(client, 0)
    assert client.gaps == (Gap(1, 2, GapKind.FRAMES),)
    assert list(replay(client)) == []
    assert client.in_flight == 0
    assert client.frame(None, IMAGE, 0)[0] == 3


def test_a_server_that_falls_behind_what_it_said_was_stored_is_a_gap() -> None:
    client = joined()
    send(client, 2)
    client.receive(result(0, durable_seq=0, durable=True))
    resume(client)
    assert client.gaps == (Gap(0, 0, GapKind.FRAMES),)
    assert len(list(replay(client))) == 1


def test_a_live_stream_goes_on_with_new_frames() -> None:
    client = joined(Mode.LIVE)
    send(client, 5)
    client.receive(result(2, credit=0))
    resume(client, 2, mode=Mode.LIVE)
    assert (client.gaps, client.in_flight, list(replay(client))) == ((), 0, [])
    assert client.frame(None, IMAGE, 0)[0] == 5
    resume(client, 9, mode=Mode.LIVE)
    assert client.frame(None, IMAGE, 0)[0] == 10


def test_a_live_stream_says_which_commands_were_lost() -> None:
    client = joined(Mode.LIVE)
    client.config(redetection=True)
    send(client)  # 0
    client.init(BOX, 1)
    send(client, 2)  # 1 with the box, 2
    client.config(redetection=False)
    send(client)  # 3
    pending = client.init(BOX, 2)
    client.receive(result(0, credit=0))
    assert not client.can_send
    resume(client, 0, mode=Mode.LIVE)
    assert client.gaps == (Gap(1, 3, GapKind.FRAMES),)
    assert list(replay(client)) == [pending]
    assert client.can_send
    resume(client, 0, mode=Mode.LIVE)
    assert client.gaps == ()


def test_pings_belong_to_a_connection() -> None:
    client = joined()
    client.ping()
    resume(client)
    assert '"id":2' in client.ping()


def test_another_connection_may_use_another_wire() -> None:
    client = joined()
    client.reconnected()
    client.reconnected()  # the second attempt
    client.wire = Wire.MSGPACK
    server = ServerProtocol(Mode.EVERY_FRAME, Limits(4096, 400, 4), wire=Wire.MSGPACK)
    assert isinstance(client.receive(server.hello("id", 20, 60)), Hello)


def served(server: ServerProtocol, message: bytes) -> str | bytes:
    event = server.receive(message)
    assert isinstance(event, FrameReceived)
    return server.result(
        event,
        targets=[TargetResult(0, BOX, 0.5, TargetState.TRACKING)],
        modalities=Modalities(ModalityHealth.MISSING, ModalityHealth.OK),
        timings=Timings(0, 0, 0, 0),
    )


def test_a_server_repeats_its_last_answers_on_the_next_connection() -> None:
    limits = Limits(4096, 400, window=3)
    former = ServerProtocol(Mode.EVERY_FRAME, limits)
    client = ClientProtocol()
    client.receive(former.hello("id", 20, 60))
    for seq in range(5):
        client.receive(served(former, client.frame(None, IMAGE, 0)[1])) if seq < 3 else served(
            former, client.frame(None, IMAGE, 0)[1]
        )
    assert [answer.seq for answer in former.answers] == [2, 3, 4]
    server = ServerProtocol(Mode.EVERY_FRAME, limits, (1, 1), 4, targets=(0,), answers=former.answers)
    client.reconnected()
    hello = client.receive(server.hello("id", 20, 60))
    assert isinstance(hello, Hello)
    assert (hello.resumed_at_seq, hello.repeats_from, hello.targets) == (4, 2, (0,))
    events = [client.receive(message) for message in server.repeats()]
    assert events[0] == Replayed(2)
    assert [(event.seq, event.credit) for event in events[1:]] == [(3, 0), (4, 0)]
    assert client.gaps == ()


def test_answers_are_only_repeated_where_they_lead_up_to_the_last_tracked_frame() -> None:
    limits = Limits(4096, 400, window=3)
    former = ServerProtocol(Mode.EVERY_FRAME, limits)
    client = ClientProtocol()
    client.receive(former.hello("id", 20, 60))
    for _ in range(2):
        served(former, client.frame(None, IMAGE, 0)[1])
    for mode, last, expected in [
        (Mode.EVERY_FRAME, 1, 2),
        (Mode.EVERY_FRAME, 0, 1),
        (Mode.EVERY_FRAME, 2, 0),
        (Mode.EVERY_FRAME, None, 0),
        (Mode.LIVE, 1, 0),
    ]:
        assert len(ServerProtocol(mode, limits, last_seq=last, answers=former.answers).repeats()) == expected


def test_a_live_server_keeps_no_answers() -> None:
    server = ServerProtocol(Mode.LIVE, Limits(4096, 400, window=3))
    client = ClientProtocol()
    client.receive(server.hello("id", 20, 60))
    served(server, client.frame(None, IMAGE, 0)[1])
    assert server.answers == ()


def test_the_log_counts_its_bytes() -> None:
    log = ReplayLog(max_bytes=25)
    for seq in range(4):
        log.add(SentFrame(seq, ("ab", "c"), b"x" * 7))
    assert (log.bytes, log.forgotten, [frame.seq for frame in log.after(-1)]) == (20, 1, [2, 3])
    log.forget(2)
    assert (log.bytes, log.forgotten, [frame.seq for frame in log.after(3)]) == (10, 2, [])
    assert repr(next(log.after(2))) == "SentFrame(seq=3, commands=('ab', 'c'))"
