"""A limit on request bodies, before anything parses them."""

from __future__ import annotations

from collections import deque
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duotrack_service import problems

MAX_BODY_BYTES: Final = 64 * 1024  # requests are small JSON documents; frames come over WebSockets


class BodyLimit:
    """ASGI middleware that answers 413 to a request with a body longer than ``MAX_BODY_BYTES``.

    FastAPI's own ``max_body_size`` answers with plain text, and every error here is a problem document.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages: deque[Message] = deque()
        length = 0
        more = True
        while more:
            message = await receive()
            messages.append(message)
            length += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
            if length > MAX_BODY_BYTES:
                await problems.body_too_long(MAX_BODY_BYTES).response()(scope, receive, send)
                return

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app(scope, replay, send)
