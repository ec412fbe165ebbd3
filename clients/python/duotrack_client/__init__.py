"""The DuoTrack client: sends paired colour and thermal video to a service, and gets boxes back."""

from duotrack_client.aio import AsyncClient, AsyncSession
from duotrack_client.client import Client, Session
from duotrack_client.encoding import Encoding, ImageFormat
from duotrack_client.errors import (
    BoxError,
    ConnectionFailed,
    DuoTrackClientError,
    EncodingError,
    FrameRejected,
    FramesLost,
    InvalidState,
    Problem,
    ProtocolError,
    ServerError,
    SessionClosed,
    SinkError,
    SourceError,
)
from duotrack_client.pairs import Pair, PairLike
from duotrack_client.protocol import Box, Mode, Result, TargetState

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "Box",
    "BoxError",
    "Client",
    "ConnectionFailed",
    "DuoTrackClientError",
    "Encoding",
    "EncodingError",
    "FrameRejected",
    "FramesLost",
    "ImageFormat",
    "InvalidState",
    "Mode",
    "Pair",
    "PairLike",
    "Problem",
    "ProtocolError",
    "Result",
    "ServerError",
    "Session",
    "SessionClosed",
    "SinkError",
    "SourceError",
    "TargetState",
]
