"""What becomes of the service's answer to a frame: a result for the caller, or a rejection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from duotrack_client.errors import FrameRejected
from duotrack_client.protocol import Error, ErrorCode, Result

Answer: TypeAlias = Result | Error
OnRejected: TypeAlias = Callable[[FrameRejected], None]


def accepted(answer: Answer) -> Result:
    """The result in ``answer``.

    Raises:
        FrameRejected: the answer is an error.
    """
    if isinstance(answer, Result):
        return answer
    assert answer.seq is not None  # an error without a frame is no answer to one
    raise FrameRejected(answer.seq, answer.code, answer.message)


def settled(answer: Answer, on_rejected: OnRejected | None) -> tuple[Result, ...]:
    """The result in ``answer``, or nothing when it is an error that ``on_rejected`` takes.

    A live frame that came too late is one that the service has dropped: nobody need take that.

    Raises:
        FrameRejected: the answer is an error, and ``on_rejected`` is None.
    """
    try:
        return (accepted(answer),)
    except FrameRejected as rejection:
        if on_rejected is None:
            if rejection.code == ErrorCode.LATE:
                return ()
            raise
        on_rejected(rejection)
        return ()


def since(first: int, answer: Answer | None) -> tuple[Answer, ...]:
    """``answer`` if it is for frame ``first`` or a later one, or nothing: it is left over from an earlier stream."""
    if answer is None:
        return ()
    assert answer.seq is not None
    return (answer,) if answer.seq >= first else ()
