"""Writes the conformance vectors: a file for each message, and ``vectors.json``, which says what each of them means.

    python docs/conformance/generate.py [FOLDER]

The messages are put together here from the specification and from those of PNG, DEFLATE and Zstandard, without the code
that they are to test and without a compressor, so that every version of every library gives the same bytes.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

HERE = Path(__file__).resolve().parent
LIMITS = {"max_frame_bytes": 16384, "max_pixels": 8294400, "window": 4, "max_targets": 8}
CODECS = {"none": 0, "jpeg8": 1, "png8": 2, "png16": 3, "raw8": 4, "raw16": 5, "zstd-delta16": 6}
TO_SERVER, TO_CLIENT = "client-to-server", "server-to-client"

# 8x8 pixels, all 128: the one kind of image here that another encoder wrote (libjpeg-turbo, through OpenCV).
_JPEG_HEAD = (
    "ffd8ffe000104a46494600010100000100010000ffdb0043000201010101010201010102020202020403020202020504040304060506060605"
    "060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0a"
)
JPEG_GREY = bytes.fromhex(
    _JPEG_HEAD + "ffc0000b080008000801011100ffc40014000100000000000000000000000000000000ffc400141001000000000000000000"
    "00000000000000ffda0008010100003f003fffd9"
)
JPEG_RGB = bytes.fromhex(
    _JPEG_HEAD + "ffdb004301020202020202050303050a0706070a" + "0a" * 49 + "ffc00011080008000803012200021101031101"
    "ffc40014000100000000000000000000000000000000ffc40014100100000000000000000000000000000000"
    "ffc40014010100000000000000000000000000000000ffc40014110100000000000000000000000000000000"
    "ffda000c03010002110311003f00000fffd9"
)

RGB_SAMPLES = [255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 8, 9, 10, 11, 12, 13, 14, 15]  # 3x2 pixels
GREY_SAMPLES = [0, 1, 127, 128, 254, 255]
DEEP_SAMPLES = [7500, 7502, 7499, 7500, 65535, 0]


@dataclass(frozen=True, slots=True)
class Vector:
    """One message.

    Attributes:
        name: of its file, without the suffix.
        data: the message; text is a WebSocket text message, bytes a binary one.
        expected: what the receiver makes of it.
        note: in a few words, what it is about.
        direction: who sends it.
        state: what the receiver is like before it comes, where that is not as the index says.
    """

    name: str
    data: str | bytes
    expected: Mapping[str, Any]
    note: str
    direction: str = TO_SERVER
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded image, and what it should be read as."""

    codec: str
    data: bytes
    width: int
    height: int
    channels: int = 1
    samples: list[int] | None = None

    def meaning(self) -> dict[str, Any]:
        depth = 16 if self.codec in ("png16", "raw16", "zstd-delta16") else 8
        meaning = {"codec": self.codec, "width": self.width, "height": self.height}
        meaning |= {"channels": self.channels, "depth": depth}
        return meaning if self.samples is None else meaning | {"samples": self.samples}


def raw(width: int, height: int, samples: list[int], wide: bool = False) -> bytes:
    return struct.pack(f"<HH{len(samples)}{'H' if wide else 'B'}", width, height, *samples)


def png_header(width: int, height: int, depth: int, colour: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(width: int, height: int, depth: int, colour: int, samples: list[int]) -> bytes:
    """A PNG whose rows are unfiltered, in one stored block of DEFLATE (RFC 1951, section 3.2.4)."""
    per_row = len(samples) // height
    pattern = f">{per_row}{'H' if depth == 16 else 'B'}"
    rows = b"".join(
        b"\0" + struct.pack(pattern, *samples[row * per_row : (row + 1) * per_row]) for row in range(height)
    )
    stored = b"\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    compressed = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    return png_header(width, height, depth, colour) + _chunk(b"IDAT", compressed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def zstd_header(content_size: int, window: int | None = None, sized: bool = True) -> bytes:
    """Of a Zstandard frame (RFC 8878, section 3.1.1.1), a single segment unless it has a window descriptor."""
    descriptor = (0xC0 if sized else 0) | (0x20 if window is None else 0)
    size = struct.pack("<Q", content_size) if sized else b""
    return struct.pack("<IB", 0xFD2FB528, descriptor) + (b"" if window is None else bytes([window])) + size


def zstd(content: bytes) -> bytes:
    """A Zstandard frame of one raw block (section 3.1.1.2)."""
    return zstd_header(len(content)) + struct.pack("<I", len(content) << 3 | 1)[:3] + content


def delta16(width: int, samples: list[int]) -> bytes:
    """The content of ``zstd-delta16``, sample by sample as the specification says."""
    folded = []
    for place, sample in enumerate(samples):
        column, row = place % width, place // width
        former = samples[place - 1] if column else samples[place - width] if row else 0
        difference = (sample - former + 0x8000) % 0x10000 - 0x8000  # from -32768 to 32767
        folded.append(2 * difference if difference >= 0 else -2 * difference - 1)
    return bytes(value & 0xFF for value in folded) + bytes(value >> 8 for value in folded)


def sized(width: int, height: int, rest: bytes) -> bytes:
    return struct.pack("<HH", width, height) + rest


def header(codecs: tuple[int, int], lengths: tuple[int, int], seq: int = 7, **changes: int) -> bytes:
    fields = {"magic": 0x5444, "version": 1, "type": 1, "flags": 0} | changes
    return struct.pack("<HBBHBBQQII", *fields.values(), *codecs, seq, 1_700_000_000_000_000, *lengths)


def frame(rgb: Image | None, thermal: Image | None, seq: int = 7, **changes: int) -> bytes:
    codecs = (0 if rgb is None else CODECS[rgb.codec], 0 if thermal is None else CODECS[thermal.codec])
    bodies = (b"" if rgb is None else rgb.data, b"" if thermal is None else thermal.data)
    return header(codecs, (len(bodies[0]), len(bodies[1])), seq, **changes) + b"".join(bodies)


def closes(code: int) -> dict[str, Any]:
    return {"close": code}


def refused(code: str) -> dict[str, Any]:
    return {"event": "refused", "seq": 7, "code": code}


PNG_RGB = Image("png8", png(3, 2, 8, 2, RGB_SAMPLES), 3, 2, 3, RGB_SAMPLES)
RAW_RGB = Image("raw8", raw(3, 2, RGB_SAMPLES), 3, 2, 3, RGB_SAMPLES)
PNG_GREY = Image("png8", png(3, 2, 8, 0, GREY_SAMPLES), 3, 2, 1, GREY_SAMPLES)
PNG_DEEP = Image("png16", png(3, 2, 16, 0, DEEP_SAMPLES), 3, 2, 1, DEEP_SAMPLES)
RAW_GREY = Image("raw8", raw(3, 2, GREY_SAMPLES), 3, 2, 1, GREY_SAMPLES)
RAW_DEEP = Image("raw16", raw(3, 2, DEEP_SAMPLES, wide=True), 3, 2, 1, DEEP_SAMPLES)
ZSTD = Image("zstd-delta16", sized(3, 2, zstd(delta16(3, DEEP_SAMPLES))), 3, 2, 1, DEEP_SAMPLES)


def sound_frames() -> Iterator[Vector]:
    pairs = {
        "jpeg8": (Image("jpeg8", JPEG_RGB, 8, 8, 3), Image("jpeg8", JPEG_GREY, 8, 8)),
        "png8": (PNG_RGB, PNG_GREY),
        "raw8": (RAW_RGB, RAW_GREY),
        "png16": (PNG_RGB, PNG_DEEP),
        "raw16": (RAW_RGB, RAW_DEEP),
        "zstd-delta16": (RAW_RGB, ZSTD),
        "colour-only": (PNG_RGB, None),
        "thermal-only": (None, ZSTD),
    }
    for name, (rgb, thermal) in pairs.items():
        meaning = {
            "event": "frame",
            "seq": 7,
            "capture_us": 1_700_000_000_000_000,
            "rgb": None if rgb is None else rgb.meaning(),
            "thermal": None if thermal is None else thermal.meaning(),
        }
        yield Vector(f"frame-{name}", frame(rgb, thermal), meaning, f"a pair of {name} images")


def broken_frames() -> Iterator[Vector]:
    sound = frame(RAW_RGB, RAW_GREY)
    for name, data in {
        "empty": b"",
        "header-cut": sound[:31],
        "magic": frame(RAW_RGB, None, magic=0x4454),
        "version": frame(RAW_RGB, None, version=2),
        "type": frame(RAW_RGB, None, type=2),
        "flags": frame(RAW_RGB, None, flags=1),
        "no-images": header((0, 0), (0, 0)),
        "codec-unknown": header((0, 7), (0, 1)) + b"x",
        "codec-of-thermal-for-colour": header((3, 0), (1, 0)) + b"x",
        "codec-without-image": header((1, 4), (0, 10)) + RAW_GREY.data,
        "image-without-codec": header((0, 0), (0, 10)) + RAW_GREY.data,
        "cut": sound[:-1],
        "too-long": sound + b"x",
        "length-lies": header((4, 0), (0xFFFFFFFF, 0)) + RAW_RGB.data,
        "seq-repeated": frame(RAW_RGB, None, seq=6),
    }.items():
        yield Vector(
            f"broken-{name}", data, closes(1002), f"a frame message that is wrong: {name}", state={"last_seq": 6}
        )
    yield Vector("broken-oversize", bytes(LIMITS["max_frame_bytes"] + 1), closes(1009), "longer than max_frame_bytes")
    yield Vector(
        "overrun", frame(RAW_RGB, None), closes(4429), "a frame beyond the window", state={"unanswered": [0, 1, 2, 3]}
    )


def broken_images() -> Iterator[Vector]:
    huge = png_header(30_000, 30_000, 8, 2)
    yield Vector("bomb-png", frame(Image("png8", huge, 0, 0), None), closes(1009), "a PNG of 30000x30000 pixels")
    bomb = sized(30_000, 30_000, zstd_header(2 * 30_000 * 30_000, window=0x68))
    yield Vector("bomb-zstd", frame(None, Image("zstd-delta16", bomb, 0, 0)), closes(1009), "the same for zstd-delta16")
    deep, content = "zstd-delta16", delta16(3, DEEP_SAMPLES)
    corrupt = {
        "png-cut": ("png8", PNG_GREY.data[:20]),
        "png-signature": ("png8", b"x" + PNG_GREY.data[1:]),
        "png-no-pixels": ("png8", png_header(0, 2, 8, 0)),
        "jpeg-cut": ("jpeg8", JPEG_GREY[:95]),
        "jpeg-no-header": ("jpeg8", b"\xff\xd8\xff\xd9"),
        "jpeg-endless-markers": ("jpeg8", b"\xff\xd8" + b"\xff\xe0\x00\x02" * 300),
        "raw-cut": ("raw8", RAW_GREY.data[:-1]),
        "raw-no-size": ("raw8", b"\x03\x00\x02"),
        "raw-length-lies": ("raw16", sized(65535, 65535, b"")),
        "zstd-no-size": (deep, b"\x03"),
        "zstd-magic": (deep, sized(3, 2, content)),
        "zstd-header-cut": (deep, sized(3, 2, zstd(content)[:6])),
        "zstd-size-missing": (deep, sized(3, 2, zstd_header(0, window=0, sized=False))),
        "zstd-size-lies": (deep, sized(65535, 65535, zstd(content))),
        "zstd-no-pixels": (deep, sized(0, 2, zstd(b""))),
        "zstd-skippable": (deep, sized(3, 2, struct.pack("<II", 0x184D2A50, 12) + content)),
    }
    for name, (codec, data) in corrupt.items():
        yield Vector(f"corrupt-{name}", frame(None, Image(codec, data, 0, 0)), refused("corrupt_image"), name)
    unsupported = {
        "png-palette": ("png8", png_header(3, 2, 8, 3)),
        "png-alpha": ("png8", png_header(3, 2, 8, 4)),
        "png-depth": ("png8", png_header(3, 2, 16, 0)),
        "png-colour-as-thermal": ("png8", png_header(3, 2, 8, 2)),
        "jpeg-colour-as-thermal": ("jpeg8", JPEG_RGB),
        "jpeg-lossless": ("jpeg8", b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"),
        "zstd-window": (deep, sized(1500, 2000, zstd_header(6_000_000, window=0x69))),
    }
    for name, (codec, data) in unsupported.items():
        yield Vector(f"unsupported-{name}", frame(None, Image(codec, data, 0, 0)), refused("unsupported_image"), name)
    small = Image("raw8", raw(1, 1, [5]), 1, 1)
    yield Vector("size-mismatch", frame(RAW_RGB, small), refused("size_mismatch"), "colour and thermal differ in size")
    yield Vector(
        "size-changed", frame(None, small), refused("size_changed"), "not the session's size", state={"size": [3, 2]}
    )


BOX = {"x": 1.5, "y": -2.0, "w": 30.0, "h": 40.25}
HELLO = {
    "type": "hello", "session": "l7PmJ2sXMfSXSxRbSmVbGg", "mode": "every_frame", "window": 4, "max_frame_bytes": 16384,
    "max_pixels": 8294400, "codecs": ["jpeg8", "png8", "png16", "raw8", "raw16", "zstd-delta16"], "heartbeat_s": 20.0,
    "idle_s": 60.0, "resumed_at_seq": 41, "repeats_from": 40, "targets": [0, 2], "max_targets": 8,
}  # fmt: skip
RESULT = {
    "type": "result", "seq": 0, "box": BOX, "score": 0.75, "state": "coasting",
    "modalities": {"rgb": "ok", "thermal": "frozen"}, "dropped_since_last": 0, "credit": 1,
    "timings": {"queue": 0.5, "decode": 1.5, "infer": 7.0, "total": 9.0}, "target": 0,
    "others": [{"target": 2, "box": BOX, "score": 0.25, "state": "lost"}], "durable": True,
    "durable_seq": 18446744073709551615,
}  # fmt: skip


def commands() -> Iterator[Vector]:
    state = {"last_seq": 6, "targets": [0, 2]}
    for name, document, defaults in [
        ("init", {"type": "init", "box": BOX, "target": 3}, {}),
        ("init-default-target", {"type": "init", "box": BOX}, {"target": 0}),
        ("config", {"type": "config", "targets": [2], "redetection": False}, {}),
        ("config-nothing", {"type": "config"}, {"targets": None, "redetection": None}),
        ("ping", {"type": "ping", "id": 18446744073709551615}, {}),
        ("bye", {"type": "bye"}, {}),
        ("unknown-field", {"type": "bye", "from_a_later_version": [1]}, {}),
    ]:
        meaning = {key: value for key, value in document.items() if key != "from_a_later_version"} | defaults
        yield Vector(
            f"command-{name}", json.dumps(document), {"event": "message", "message": meaning}, name, state=state
        )
    for name, text, code in [
        ("not-json", '{"type":"bye"', 1007),
        ("deep", "[" * 16384, 1007),
        ("not-an-object", '["bye"]', 1002),
        ("no-type", "{}", 1002),
        ("unknown-type", '{"type":"seek"}', 1002),
        ("of-the-server", '{"type":"pong","id":1}', 1002),
        ("no-box", '{"type":"init","target":1}', 1002),
        ("flat-box", '{"type":"init","box":{"x":0,"y":0,"w":0,"h":1}}', 1002),
        ("endless-box", '{"type":"init","box":{"x":1e999,"y":0,"w":1,"h":1}}', 1002),
        ("negative-id", '{"type":"ping","id":-1}', 1002),
        ("id-beyond-64-bits", '{"type":"ping","id":18446744073709551616}', 1002),
        ("target-too-high", json.dumps({"type": "init", "box": BOX, "target": 8}), 1008),
        ("keeps-nothing", '{"type":"config","targets":[]}', 1008),
        ("keeps-unknown", '{"type":"config","targets":[0,5]}', 1008),
        ("too-long", " " * 16385, 1009),
    ]:
        yield Vector(f"command-broken-{name}", text, closes(code), name, state=state)


def server_messages() -> Iterator[Vector]:
    waiting = {"unanswered": [0], "pings": [1]}
    error = {"type": "error", "code": "corrupt_image", "message": "äöü ✓", "seq": 0, "credit": 1}
    for name, document, state in [
        ("hello", HELLO, {"hello": False}),
        ("result", RESULT, waiting),
        ("error", error, waiting),
        ("farewell", error | {"seq": None, "credit": 0}, {}),
        ("goaway", {"type": "goaway", "reason": "the service is stopping", "reconnect_after": 1.0}, {}),
        ("pong", {"type": "pong", "id": 1}, waiting),
    ]:
        expected = {"event": "message", "message": document}
        for wire in ("json", "msgpack"):
            data = json.dumps(document) if wire == "json" else msgpack.packb(document)
            yield Vector(f"{wire}-{name}", data, expected, name, TO_CLIENT, state | {"wire": wire})
    bare = {key: value for key, value in RESULT.items() if key not in ("target", "others", "durable", "durable_seq")}
    defaults = bare | {"target": 0, "others": [], "durable": False, "durable_seq": None}
    yield Vector(
        "json-result-first-version", json.dumps(bare), {"event": "message", "message": defaults},
        "fields that may be missing", TO_CLIENT, waiting,
    )  # fmt: skip
    yield Vector("json-result-not-sent", json.dumps(RESULT | {"seq": 9}), closes(1002), "not sent", TO_CLIENT, waiting)
    yield Vector("json-pong-not-asked", '{"type":"pong","id":1}', closes(1002), "no ping was sent", TO_CLIENT)
    yield Vector("json-binary", msgpack.packb({"type": "pong", "id": 1}), closes(1003), "not agreed on", TO_CLIENT)
    yield Vector("json-half-surrogate", json.dumps(error | {"message": "\ud800"}), closes(1002), "", TO_CLIENT, waiting)
    kind = b"\x81\xa4type"
    for name, packed, code in [
        ("cut", msgpack.packb(RESULT)[:-1], 1007),
        ("extra-data", msgpack.packb({"type": "pong", "id": 1}) + b"\xc0", 1007),
        ("map-length-lies", b"\xdf\xff\xff\xff\xff", 1007),
        ("array-length-lies", kind + b"\xdd\xff\xff\xff\xff", 1007),
        ("text-length-lies", kind + b"\xdb\xff\xff\xff\xff", 1007),
        ("not-utf8", kind + b"\xa2\xff\xfe", 1007),
        ("extension", kind + b"\xd4\x01\x00", 1007),
        ("timestamp", kind + b"\xd6\xff\x00\x00\x00\x00", 1007),
        ("number-as-key", b"\x81\x01\xc0", 1007),
        ("deep", b"\x91" * 5_000, 1007),
        ("not-a-map", b"\x90", 1002),
        ("not-a-number", msgpack.packb(RESULT | {"score": float("nan")}), 1002),
        ("of-the-client", msgpack.packb({"type": "bye"}), 1002),
    ]:
        yield Vector(f"msgpack-broken-{name}", packed, closes(code), name, TO_CLIENT, waiting | {"wire": "msgpack"})
    yield Vector("msgpack-text", json.dumps(RESULT), closes(1003), "not agreed on", TO_CLIENT, {"wire": "msgpack"})


def vectors() -> list[Vector]:
    """All vectors, by direction and kind."""
    return [*sound_frames(), *broken_frames(), *broken_images(), *commands(), *server_messages()]


def files() -> dict[str, bytes]:
    """The bytes of every file, by its path in the folder."""
    written: dict[str, bytes] = {}
    entries = []
    for vector in vectors():
        text = isinstance(vector.data, str)
        path = f"vectors/{vector.name}.{'txt' if text else 'bin'}"
        written[path] = vector.data.encode() if isinstance(vector.data, str) else vector.data
        entry = {"file": path, "direction": vector.direction, "kind": "text" if text else "binary"}
        entries.append(entry | {"state": vector.state, "expected": vector.expected, "note": vector.note})
    index = {"protocol": "duotrack.v1", "limits": LIMITS, "vectors": entries}
    written["vectors.json"] = (json.dumps(index, indent=1, ensure_ascii=True) + "\n").encode()
    return written


def main(folder: Path) -> None:
    """Write all files below ``folder``."""
    (folder / "vectors").mkdir(parents=True, exist_ok=True)
    for path, data in files().items():
        (folder / path).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
