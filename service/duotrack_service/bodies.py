"""Limits on request bodies, before anything parses them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duotrack_service import problems

MAX_BODY_BYTES: Final = 64 * 1024  # requests are small JSON documents, but for those with a frame pair
MULTIPART_BYTES: Final = 64 * 1024  # what a frame pair of files costs beside the images


class BodyLimit:
    """ASGI middleware: 413 to a request with a body that is too long, 408 to one that comes too slowly.

    FastAPI's own ``max_body_size`` answers with plain text, and every error here is a problem document.

    Args:
        max_upload_bytes: the longest frame pair of a request whose path ends in ``/frames``.
        timeout_s: for a body to arrive.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = scope["method"] == "POST" and scope["path"].endswith("/frames")
        limit = self._max_upload_bytes + MULTIPART_BYTES if upload else MAX_BODY_BYTES
        messages: deque[Message] = deque()
        length = 0
        more = True
        try:
            async with asyncio.timeout(self._timeout_s):
                while more:
                    message = await receive()
                    messages.append(message)
                    length += len(message.get("body", b""))
                    more = message["type"] == "http.request" and message.get("more_body", False)
                    if length > limit:
                        await problems.body_too_long(limit).response()(scope, receive, send)
                        return
        except TimeoutError:
            await problems.body_too_slow(self._timeout_s).response()(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app(scope, replay, send)
