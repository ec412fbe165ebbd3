"""What it costs to refuse an image that would cost much to decode: time, and memory beside the message itself.

    python benchmarks/refusals.py

Each message goes through the same ``ServerProtocol.receive`` as in the service, 200 times; the median and the slowest
time are printed, and the most memory that Python held meanwhile.
"""

from __future__ import annotations

import statistics
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from duotrack.evaluation.machine import describe_machine
from duotrack_client.errors import ProtocolError
from duotrack_client.protocol import Codec, Frame, FrameRefused, Limits, Mode, Payload, ServerProtocol, encode_frame

LIMITS = Limits(max_frame_bytes=16 * 1024 * 1024, max_pixels=3840 * 2160, window=8)
RUNS = 200


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """A sound JPEG whose frame header claims another size."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def cases() -> Iterator[tuple[str, Payload]]:
    yield "PNG of 30000×30000", Payload(Codec.PNG8, png(30_000, 30_000, zlib.compress(bytes(10**9), 9)))
    yield "PNG header of 2^31-1 × 2^31-1", Payload(Codec.PNG8, png(2**31 - 1, 2**31 - 1, b""))
    yield "JPEG header of 65535×65535", Payload(Codec.JPEG8, jpeg(65_535, 65_535))
    metadata = (b"\xff\xe1\xff\xff" + bytes(65_533)) * 250
    yield "JPEG of metadata, without a frame header", Payload(Codec.JPEG8, b"\xff\xd8" + metadata)
    yield "JPEG of fill bytes", Payload(Codec.JPEG8, b"\xff\xd8" + b"\xff" * (16 * 1024 * 1024 - 64))
    yield "raw header of 65535×65535", Payload(Codec.RAW8, struct.pack("<HH", 65_535, 65_535) + bytes(8))


def refuse(message: bytes) -> tuple[float, str]:
    """Milliseconds, and what the client is told."""
    protocol = ServerProtocol(Mode.EVERY_FRAME, LIMITS)
    protocol.hello("session", 20, 60)
    began = time.perf_counter()
    try:
        event = protocol.receive(message)
    except ProtocolError as error:
        outcome = f"close {error.close_code}"
    else:
        assert isinstance(event, FrameRefused)
        outcome = f"error {event.code}"
    return (time.perf_counter() - began) * 1000, outcome


def main() -> None:
    print(*describe_machine().values(), sep="\n")
    print("\n| message | MB | outcome | median ms | slowest ms | memory KiB |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for name, payload in cases():
        message = encode_frame(Frame(0, 0, payload, None))
        times, outcomes = zip(*(refuse(message) for _ in range(RUNS)), strict=True)
        tracemalloc.start()
        refuse(message)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(
            f"| {name} | {len(message) / 1e6:.2f} | {outcomes[0]} | {statistics.median(times):.3f} | {max(times):.2f} "
            f"| {peak / 1024:.0f} |"
        )


if __name__ == "__main__":
    main()
