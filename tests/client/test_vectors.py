import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from duotrack_client.errors import ProtocolError
from duotrack_client.protocol import (
    ClientProtocol,
    Codec,
    FrameReceived,
    FrameRefused,
    Hello,
    Limits,
    Mode,
    Payload,
    ServerProtocol,
    Wire,
    decode_message,
    encode_message,
    inspect_image,
    unpack_delta16,
)
from duotrack_client.protocol.documents import to_document

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "conformance"
INDEX: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_bytes())
LIMITS = Limits(**INDEX["limits"])
SMALL = Payload(Codec.RAW8, b"\x03\x00\x02\x00" + bytes(6))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_generator", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def received(entry: dict[str, Any]) -> str | bytes:
    data = (FOLDER / entry["file"]).read_bytes()
    return data.decode() if entry["kind"] == "text" else data


def server(mode: str = "every_frame", unanswered: tuple[int, ...] = (), **state: Any) -> ServerProtocol:
    size = tuple(state.pop("size")) if "size" in state else None
    protocol = ServerProtocol(Mode(mode), LIMITS, size, **state)
    protocol.hello("id", 20, 60)
    sender = ClientProtocol()
    sender.receive(ServerProtocol(Mode.LIVE, LIMITS).hello("id", 20, 60))
    for _ in unanswered:
        protocol.receive(sender.frame(None, SMALL, 0)[1])
    return protocol


def client(
    wire: str = "json", hello: bool = True, unanswered: tuple[int, ...] = (), pings: tuple[int, ...] = ()
) -> ClientProtocol:
    protocol = ClientProtocol(Wire(wire))
    if hello:
        greeting = Hello("id", Mode.EVERY_FRAME, LIMITS.window, 16384, 8294400, (), 20, 60)
        protocol.receive(encode_message(greeting, Wire(wire)))
    for _ in unanswered:
        protocol.frame(None, SMALL, 0)
    for _ in pings:
        protocol.ping()
    return protocol


def samples(payload: Payload) -> list[int]:
    """The decoded image, by OpenCV and numpy where they know the codec."""
    data = bytes(payload.data)
    if payload.codec is Codec.ZSTD_DELTA16:
        image = unpack_delta16(data)
    elif payload.codec in (Codec.RAW8, Codec.RAW16):
        image = np.frombuffer(data[4:], np.uint8 if payload.codec is Codec.RAW8 else "<u2")
    else:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        image = image[..., ::-1] if image.ndim == 3 else image
    return [int(value) for value in image.ravel()]


def described(payload: Payload | None, channels: int, with_samples: bool) -> dict[str, Any] | None:
    if payload is None:
        return None
    header = inspect_image(payload, channels)
    meaning = {"codec": payload.codec.label, "width": header.width, "height": header.height}
    meaning |= {"channels": header.channels, "depth": header.depth}
    return meaning | {"samples": samples(payload)} if with_samples else meaning


def outcome(entry: dict[str, Any]) -> dict[str, Any]:
    data = received(entry)
    receiver = server(**entry["state"]) if entry["direction"] == "client-to-server" else client(**entry["state"])
    try:
        event = receiver.receive(data)
    except ProtocolError as error:
        return {"close": error.close_code}
    if isinstance(event, FrameRefused):
        return {"event": "refused", "seq": event.seq, "code": event.code}
    if isinstance(event, FrameReceived):
        rgb, thermal = entry["expected"]["rgb"], entry["expected"]["thermal"]
        frame = event.frame
        return {
            "event": "frame",
            "seq": frame.seq,
            "capture_us": frame.capture_us,
            "rgb": described(frame.rgb, 3, "samples" in (rgb or ())),
            "thermal": described(frame.thermal, 1, "samples" in (thermal or ())),
        }
    return {"event": "message", "message": json.loads(json.dumps(to_document(decode_message(data))))}


@pytest.mark.parametrize("entry", INDEX["vectors"], ids=lambda entry: Path(entry["file"]).stem)
def test_a_vector_means_what_the_index_says(entry: dict[str, Any]) -> None:
    assert outcome(entry) == entry["expected"]


def test_the_files_are_those_that_the_generator_writes() -> None:
    written = generator().files()
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("vectors/*")} | {"vectors.json"} == set(written)
    for path, data in written.items():
        assert (FOLDER / path).read_bytes() == data, f"{path} differs: run docs/conformance/generate.py"


def test_every_codec_message_and_close_code_of_a_broken_message_has_a_vector() -> None:
    expected = [entry["expected"] for entry in INDEX["vectors"]]
    images = [one[modality] for one in expected if one.get("event") == "frame" for modality in ("rgb", "thermal")]
    assert {image["codec"] for image in images if image} == {codec.label for codec in Codec} - {"none"}
    types = {one["message"]["type"] for one in expected if one.get("event") == "message"}
    assert types == {"hello", "result", "error", "goaway", "pong", "init", "config", "ping", "bye"}
    assert {one["close"] for one in expected if "close" in one} == {1002, 1003, 1007, 1008, 1009, 4429}


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 200_000
