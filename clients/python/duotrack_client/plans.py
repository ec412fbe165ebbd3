"""What a session was made with, for both clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from duotrack_client.encoding import Encoding
from duotrack_client.errors import ConnectionFailed, FramesLost, SessionClosed
from duotrack_client.protocol import Box, Mode

OnReconnect: TypeAlias = Callable[[ConnectionFailed | SessionClosed], None]
OnLost: TypeAlias = Callable[[FramesLost], None]


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """The arguments of ``Client.session``, checked."""

    box: Box
    mode: Mode
    model: str | None
    encoding: Encoding
    options: Mapping[str, bool] | None = None
    ttl: float | None = None
    msgpack: bool = False
    on_reconnect: OnReconnect | None = None
    on_lost: OnLost | None = None
