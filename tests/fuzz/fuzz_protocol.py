"""Coverage-guided fuzzing of what both sides of the wire protocol do with the bytes of the other.

    python tests/fuzz/fuzz_protocol.py [-runs=100000] [-max_total_time=60] [other libFuzzer options] [CORPUS ...]

It needs atheris (``pip install atheris``). The conformance vectors are its first inputs; a folder given as CORPUS also
takes what it finds. An exception that is not part of the protocol ends it, and the input is written to ``crash-*``.

The first byte of an input chooses what is tried: the server with binary or text, in either mode, the client with JSON
or MessagePack, fresh or resuming, or the header of an image in one of the codecs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

try:
    import atheris
except ImportError:
    sys.exit("fuzzing needs atheris, which is not installed: pip install atheris")

with atheris.instrument_imports(include=["duotrack_client.protocol", "duotrack_client.errors"]):
    from duotrack_client.errors import ImageError, ProtocolError
    from duotrack_client.protocol import (
        ClientProtocol,
        Codec,
        Limits,
        Mode,
        Payload,
        ServerProtocol,
        Wire,
        inspect_image,
        unpack_delta16,
    )

VECTORS: Final = Path(__file__).resolve().parents[2] / "docs" / "conformance" / "vectors"
LIMITS: Final = Limits(max_frame_bytes=16384, max_pixels=1 << 16, window=4)
SMALL: Final = Payload(Codec.RAW8, b"\x01\x00\x01\x00\x07")
CODECS: Final = sorted(set(Codec) - {Codec.NONE})


def _messages(data: bytes) -> list[bytes]:
    """The messages of a conversation in one input; each ends where the marker stands."""
    return data.split(b"\xfe\xed")


def _server(mode: Mode, text: bool) -> Callable[[bytes], None]:
    def receive(data: bytes) -> None:
        server = ServerProtocol(mode, LIMITS, targets=(0, 2))
        server.hello("id", 20, 60)
        for message in _messages(data):
            server.receive(message.decode("utf-8", "replace") if text else message)

    return receive


def _both_kinds(data: bytes) -> None:
    """Commands and frames in turns, as they come in a session."""
    server = ServerProtocol(Mode.EVERY_FRAME, LIMITS)
    server.hello("id", 20, 60)
    for message in _messages(data):
        server.receive(message.decode("utf-8", "replace") if message[:1] == b"{" else message)


def _client(mode: Mode, wire: Wire, resumes: bool) -> Callable[[bytes], None]:
    def receive(data: bytes) -> None:
        client = ClientProtocol(wire)
        client.receive(ServerProtocol(mode, LIMITS, wire=wire).hello("id", 20, 60))
        client.init((1, 2, 3, 4), 1)
        client.frame(None, SMALL, 0)
        client.frame(None, SMALL, 0)
        client.ping()
        if resumes:
            client.reconnected()
        for message in _messages(data):
            client.receive(message.decode("utf-8", "replace") if wire is Wire.JSON else message)
            while client.next_replay() is not None:
                pass

    return receive


def _image(codec: Codec) -> Callable[[bytes], None]:
    def inspect(data: bytes) -> None:
        for channels in (1, 3):
            with suppress(ImageError):
                header = inspect_image(Payload(codec, data), channels)
                if codec is Codec.ZSTD_DELTA16 and header.pixels <= LIMITS.max_pixels:
                    unpack_delta16(data)

    return inspect


TARGETS: Final = (
    *(_server(mode, text) for mode in Mode for text in (False, True)),
    _both_kinds,
    *(_client(mode, wire, resumes) for mode in Mode for wire in Wire for resumes in (False, True)),
    *(_image(codec) for codec in CODECS),
)


def try_one(data: bytes) -> None:
    """Only errors that the protocol names may leave a target."""
    if data:
        with suppress(ProtocolError, ImageError):
            TARGETS[data[0] % len(TARGETS)](data[1:])


def write_seeds(folder: Path) -> None:
    """Every vector as an input of every target."""
    for path in sorted(VECTORS.iterdir()):
        data = path.read_bytes()
        image = data[32:] if path.name.startswith(("frame", "corrupt", "unsupported", "bomb")) else b""
        for number in range(len(TARGETS)):
            is_image = number >= len(TARGETS) - len(CODECS)
            if len(data) < LIMITS.max_frame_bytes and (image or not is_image):
                (folder / f"{number:02}-{path.name}").write_bytes(bytes([number]) + (image if is_image else data))


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder))
        atheris.Setup([*sys.argv, folder], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
