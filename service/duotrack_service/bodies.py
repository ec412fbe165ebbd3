"""Limits on request bodies, before anything parses them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duotrack_service import problems
from duotrack_service.budget import Budget

MAX_BODY_BYTES: Final = 64 * 1024  # requests are small JSON documents, but for those with a frame pair
MULTIPART_BYTES: Final = 64 * 1024  # what a frame pair of files costs beside the images


class BodyLimit:
    """ASGI middleware: 413 to a request with a body that is too long, 408 to one that comes too slowly.

    FastAPI's own ``max_body_size`` answers with plain text, and every error here is a problem document. The long body
    of a frame pair is read only from whom ``admit`` lets in, and counts as a frame that waits until it is answered:
    503 where there is no room for it.

    Args:
        max_upload_bytes: the longest frame pair of a request whose path ends in ``/frames``.
        timeout_s: for a body to arrive, and for room for it.
        admit: says who sends a frame pair, and what its bytes count against. It raises ``problems.Problem`` where
            they may not.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_upload_bytes: int,
        timeout_s: float,
        admit: Callable[[Request], tuple[str, Budget]],
    ) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._timeout_s = timeout_s
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] == "POST" and scope["path"].endswith("/frames"):
                await self._upload(scope, receive, send)
            else:
                replay = await self._read(receive, MAX_BODY_BYTES)
                await self._app(scope, replay, send)
        except problems.Problem as problem:  # only ours: those of the application are answered there
            await problem.response()(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        principal, budget = self._admit(request)
        limit = self._max_upload_bytes + MULTIPART_BYTES
        length = _length(request, limit)
        if length > limit:
            raise problems.body_too_long(limit)
        try:
            async with asyncio.timeout(self._timeout_s):
                await budget.room(principal)
        except TimeoutError:
            raise problems.busy() from None
        # All of it from the start: who has begun to send would otherwise wait for room that others have begun to fill.
        budget.take(principal, length)
        try:
            await self._app(scope, await self._read(receive, limit), send)
        finally:
            budget.give_back(principal, length)

    async def _read(self, receive: Receive, limit: int) -> Receive:
        """Read a body; what hands it on to the application.

        Raises:
            Problem: it is longer than ``limit`` bytes, or comes too slowly.
        """
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
                        raise problems.body_too_long(limit)
        except TimeoutError:
            raise problems.body_too_slow(self._timeout_s) from None

        async def replay() -> Message:
            return messages.popleft() if messages else await receive()

        return replay


def _length(request: Request, limit: int) -> int:
    """The bytes that a request says it has; ``limit`` where it does not, as with chunks."""
    try:
        return max(0, int(request.headers["content-length"]))
    except (KeyError, ValueError):
        return limit
