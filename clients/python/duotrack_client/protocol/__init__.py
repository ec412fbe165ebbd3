"""The wire protocol ``duotrack.v1`` as sans-I/O state machines: messages in, events out; no sockets, no event loop.

``ClientProtocol`` and ``ServerProtocol`` are the two sides. A shell owns the socket, hands what arrives to
``receive`` and sends what the other methods return.
"""

from duotrack_client.protocol.boxes import Box, BoxLike
from duotrack_client.protocol.client import ClientEvent, ClientProtocol, Gap, GapKind, Replayed
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.codecs import Codec
from duotrack_client.protocol.credentials import Credential, CredentialKind, find_credential, offer
from duotrack_client.protocol.delta16 import pack_delta16, unpack_delta16
from duotrack_client.protocol.frames import Frame, FrameHeader, Payload, decode_frame, encode_frame
from duotrack_client.protocol.images import ImageHeader, inspect_image
from duotrack_client.protocol.messages import (
    Bye,
    Command,
    Config,
    Error,
    ErrorCode,
    Goaway,
    Hello,
    Init,
    Message,
    Modalities,
    ModalityHealth,
    Mode,
    Ping,
    Pong,
    Result,
    ServerMessage,
    TargetResult,
    TargetState,
    Timings,
)
from duotrack_client.protocol.server import (
    Answer,
    ByeReceived,
    FrameReceived,
    FrameRefused,
    Limits,
    PingReceived,
    ServerEvent,
    ServerProtocol,
)
from duotrack_client.protocol.wire import (
    MSGPACK_SUBPROTOCOL,
    SUBPROTOCOL,
    Wire,
    choose_wire,
    decode_message,
    encode_message,
)

__all__ = [
    "MSGPACK_SUBPROTOCOL",
    "SUBPROTOCOL",
    "Answer",
    "Box",
    "BoxLike",
    "Bye",
    "ByeReceived",
    "ClientEvent",
    "ClientProtocol",
    "CloseCode",
    "Codec",
    "Command",
    "Config",
    "Credential",
    "CredentialKind",
    "Error",
    "ErrorCode",
    "Frame",
    "FrameHeader",
    "FrameReceived",
    "FrameRefused",
    "Gap",
    "GapKind",
    "Goaway",
    "Hello",
    "ImageHeader",
    "Init",
    "Limits",
    "Message",
    "Modalities",
    "ModalityHealth",
    "Mode",
    "Payload",
    "Ping",
    "PingReceived",
    "Pong",
    "Replayed",
    "Result",
    "ServerEvent",
    "ServerMessage",
    "ServerProtocol",
    "TargetResult",
    "TargetState",
    "Timings",
    "Wire",
    "choose_wire",
    "decode_frame",
    "decode_message",
    "encode_frame",
    "encode_message",
    "find_credential",
    "inspect_image",
    "offer",
    "pack_delta16",
    "unpack_delta16",
]
