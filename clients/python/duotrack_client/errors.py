"""Every error that the client raises on purpose. Each message says what was wrong, and what would be right."""

from __future__ import annotations

from dataclasses import dataclass


class DuoTrackClientError(Exception):
    """Base of all errors raised on purpose by the client."""


class ConnectionFailed(DuoTrackClientError):  # noqa: N818 - it names an event, as httpx.ReadTimeout does
    """The service cannot be reached, or does not answer in time.

    Attributes:
        final: whether it was reached and would refuse another attempt as well.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457): what the service says was wrong with a request."""

    status: int
    title: str
    detail: str = ""
    type: str = "about:blank"

    def __str__(self) -> str:
        return f"{self.title}: {self.detail}" if self.detail else self.title


class ServerError(DuoTrackClientError):
    """The service answered a request with an error.

    Attributes:
        problem: the problem document, or what could be made of an answer that is none.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"the service answered {problem.status}: {problem}")
        self.problem = problem


class ProtocolError(DuoTrackClientError):
    """The other side broke the wire protocol.

    Attributes:
        close_code: the WebSocket close code that PROTOCOL.md gives for it.
    """

    def __init__(self, message: str, close_code: int) -> None:
        super().__init__(message)
        self.close_code = close_code


class InvalidState(DuoTrackClientError):  # noqa: N818
    """A step that our own side may not take now, such as a frame beyond the credit. A bug in the caller."""


class SessionClosed(DuoTrackClientError):  # noqa: N818
    """The stream of a session has ended.

    Attributes:
        code: the WebSocket close code.
        reason: why, in words.
        reconnect_after: seconds to wait before a new attempt, when the service said so, else None.
    """

    def __init__(self, code: int, reason: str, reconnect_after: float | None = None) -> None:
        again = "" if reconnect_after is None else f"; try again in {reconnect_after:g} s"
        super().__init__(f"session closed ({code}): {reason or 'no reason given'}{again}")
        self.code = code
        self.reason = reason
        self.reconnect_after = reconnect_after


class FramesLost(DuoTrackClientError):  # noqa: N818
    """A broken connection has cost frames ``first`` to ``last``, or the answers to them. The session goes on.

    Attributes:
        first, last: numbers of the frame pairs in the session.
        answers: whether the service has tracked them, and only its answers are lost.
    """

    def __init__(self, first: int, last: int, answers: bool) -> None:
        what = "the answers to frames" if answers else "frames"
        super().__init__(f"{what} {first} to {last} were lost with the connection and cannot be sent again")
        self.first = first
        self.last = last
        self.answers = answers


class FrameRejected(DuoTrackClientError):  # noqa: N818
    """The service could not use one frame pair. The session goes on with the next.

    Attributes:
        seq: the number of the frame pair in its session.
        code: what was wrong, one of ``duotrack_client.protocol.ErrorCode``.
        message: the same in words, with the value and what would be right.
    """

    def __init__(self, seq: int, code: str, message: str) -> None:
        super().__init__(f"frame {seq} was rejected ({code}): {message}")
        self.seq = seq
        self.code = code
        self.message = message


class BoxError(DuoTrackClientError, ValueError):
    """A box that is not four finite numbers with a positive width and height."""


class ImageError(DuoTrackClientError, ValueError):
    """An encoded image that is refused before it is decoded.

    Attributes:
        code: one of ``duotrack_client.protocol.ErrorCode``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EncodingError(DuoTrackClientError, ValueError):
    """A frame that cannot be sent: a wrong type or shape, or more bytes than the service takes."""


class SourceError(DuoTrackClientError):
    """A video, folder or frame file that cannot be read."""


class SinkError(DuoTrackClientError):
    """A result file or video that cannot be written."""
