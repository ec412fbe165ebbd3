"""The service that one would write first, to compare with: it decodes and infers in the handler, under one lock.

It speaks as much of ``duotrack.v1`` as ``service_load.py`` needs, and has no limits, no drops and no store.

    python benchmarks/naive_service.py --port 8001 [--model NAME|DIR] [--provider NAME] [--threads N]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, WebSocket

import duotrack
from duotrack import Box
from duotrack.engine import Engine
from duotrack_client.protocol import SUBPROTOCOL, decode_frame
from duotrack_service.decoding import decode_pair

WINDOW = 8
MAX_FRAME_BYTES = 16 * 1024 * 1024


def create_app(engine: Engine) -> FastAPI:
    app = FastAPI()
    sessions: dict[str, tuple[Box, str]] = {}
    lock = asyncio.Lock()

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/sessions", status_code=201)
    async def create(request: Request) -> dict[str, str]:
        body = await request.json()
        session = secrets.token_urlsafe(16)
        sessions[session] = Box(**body["box"]), body["mode"]
        return {"id": session, "stream_url": f"ws://{request.headers['host']}/v1/sessions/{session}/stream"}

    @app.websocket("/v1/sessions/{session}/stream")
    async def stream(websocket: WebSocket, session: str) -> None:
        await websocket.accept(SUBPROTOCOL)
        box, mode = sessions.pop(session)
        every_frame = mode == "every_frame"
        await websocket.send_json(hello(session, mode, WINDOW if every_frame else None))
        tracker = duotrack.Tracker(engine)
        started = False
        while (message := await websocket.receive()).get("bytes") is not None:
            frame = decode_frame(message["bytes"])
            async with lock:
                began = time.perf_counter()
                pair = decode_pair(frame)
                decoded = time.perf_counter()
                result = tracker.update(pair) if started else tracker.init(pair, box)
                done = time.perf_counter()
            started = True
            times = (decoded - began) * 1e3, (done - decoded) * 1e3
            await websocket.send_json(answer(frame.seq, result, int(every_frame), *times))
        if message["type"] == "websocket.receive":  # bye
            await websocket.close()

    return app


def hello(session: str, mode: str, window: int | None) -> dict[str, Any]:
    return {
        "type": "hello",
        "session": session,
        "mode": mode,
        "window": window,
        "max_frame_bytes": MAX_FRAME_BYTES,
        "max_pixels": 3840 * 2160,
        "codecs": ["jpeg8"],
        "heartbeat_s": 20,
        "idle_s": 60,
        "resumed_at_seq": None,
        "targets": [],
        "max_targets": 1,
    }


def answer(seq: int, result: duotrack.TrackResult, credit: int, decode_ms: float, infer_ms: float) -> dict[str, Any]:
    x, y, w, h = result.box.xywh
    return {
        "type": "result",
        "seq": seq,
        "target": 0,
        "box": {"x": x, "y": y, "w": w, "h": h},
        "score": result.score,
        "state": result.state,
        "modalities": {"rgb": "ok", "thermal": "ok"},
        "dropped_since_last": 0,
        "credit": credit,
        "timings": {"queue": 0, "decode": decode_ms, "infer": infer_ms, "total": decode_ms + infer_ms},
        "others": [],
        "durable": False,
        "durable_seq": None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--provider", default=None)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    engine = Engine.open(arguments.model, provider=arguments.provider, threads=arguments.threads)
    uvicorn.run(
        create_app(engine),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
    )


if __name__ == "__main__":
    main()
