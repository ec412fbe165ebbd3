"""The wire protocol ``duotrack.v1`` as sans-I/O state machines: messages in, events out; no sockets, no event loop.

``ClientProtocol`` and ``ServerProtocol`` are the two sides. A shell owns the socket, hands what arrives to
``receive`` and sends what the other methods return.
"""

from duotrack_client.protocol.boxes import Box, BoxLike
from duotrack_client.protocol.client import ClientEvent, ClientProtocol
from duotrack_client.protocol.closing import CloseCode
from duotrack_client.protocol.codecs import Codec
from duotrack_client.protocol.frames import Frame, FrameHeader, Payload, decode_frame, encode_frame
from duotrack_client.protocol.images import ImageHeader, inspect_image
from duotrack_client.protocol.messages import (
    SUBPROTOCOL,
    Bye,
    Error,
    ErrorCode,
    Goaway,
    Hello,
    Message,
    Modalities,
    ModalityHealth,
    Mode,
    Result,
    TargetState,
    Timings,
    decode_message,
    encode_message,
)
from duotrack_client.protocol.server import (
    ByeReceived,
    FrameReceived,
    FrameRefused,
    Limits,
    ServerEvent,
    ServerProtocol,
)

__all__ = [
    "SUBPROTOCOL",
    "Box",
    "BoxLike",
    "Bye",
    "ByeReceived",
    "ClientEvent",
    "ClientProtocol",
    "CloseCode",
    "Codec",
    "Error",
    "ErrorCode",
    "Frame",
    "FrameHeader",
    "FrameReceived",
    "FrameRefused",
    "Goaway",
    "Hello",
    "ImageHeader",
    "Limits",
    "Message",
    "Modalities",
    "ModalityHealth",
    "Mode",
    "Payload",
    "Result",
    "ServerEvent",
    "ServerProtocol",
    "TargetState",
    "Timings",
    "decode_frame",
    "decode_message",
    "encode_frame",
    "encode_message",
    "inspect_image",
]
