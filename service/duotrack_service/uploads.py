"""Frame pairs one by one over HTTP, for clients without WebSockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError

from duotrack.errors import BoxError, FrameError
from duotrack_client.errors import ImageError, InvalidState, ProtocolError
from duotrack_client.protocol import (
    CloseCode,
    Codec,
    ErrorCode,
    Frame,
    FrameReceived,
    FrameRefused,
    Limits,
    Mode,
    Payload,
    ServerProtocol,
    encode_frame,
)
from duotrack_service import problems
from duotrack_service.budget import Budget
from duotrack_service.endings import STORE_DOWN, Ending, unusable_box
from duotrack_service.registry import Refused
from duotrack_service.routes import Caller, Shared, get_principal, get_service
from duotrack_service.sessions import Session, Untracked
from duotrack_service.stream import answer

log = structlog.stdlib.get_logger(__name__)

router = APIRouter()

_JPEG: Final = b"\xff\xd8"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH: Final = 24  # where the bits per sample stand in a PNG's header
_STATUS: Final = {
    CloseCode.TOO_BIG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CloseCode.NO_SESSION: HTTPStatus.NOT_FOUND,
    CloseCode.TRY_AGAIN: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Upload:
    """One request's hold on a session: a ``duotrack_service.sessions.Connection`` that is done after one frame."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self._asked = asyncio.Event()

    def stop(self, ending: Ending) -> None:  # noqa: ARG002 - what is answered depends on the session
        """Pause no more; a frame that is tracked already has its answer in a moment anyway."""
        self._asked.set()

    async def pause(self, seconds: float) -> bool:
        """Wait for so long; whether that went by without a call of ``stop``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        return not self._asked.is_set()

    async def stopped(self) -> None:
        """Wait until the frame is answered."""
        await self.done.wait()

    async def closed(self) -> None:
        """Wait until the frame is answered."""
        await self.done.wait()


def admit(request: Request) -> tuple[str, Budget]:
    """Who sends a frame pair, and what its bytes count against, before they are read.

    Raises:
        Problem: it shows no valid key (401).
    """
    service = get_service(request)
    return get_principal(request, service).name, service.budget


@router.post("/sessions/{session_id}/frames")
async def post_frame(
    session_id: str,
    caller: Caller,
    service: Shared,
    rgb: Annotated[UploadFile | None, File(description="The colour image, JPEG or PNG.")] = None,
    thermal: Annotated[UploadFile | None, File(description="The thermal image, JPEG or PNG of 8 or 16 bits.")] = None,
    seq: Annotated[int | None, Form(ge=0, lt=2**64, description="The pair's number, above that of the last.")] = None,
) -> Response:
    """Track one frame pair, and wait for its result: the ``result`` message of the stream."""
    images = await _read(rgb), await _read(thermal)
    if images == (b"", b""):
        service.metrics.frame_refused("invalid-request")
        reason = "expected a file rgb, a file thermal, or both; got neither"
        raise RequestValidationError([{"loc": ("body", "rgb"), "msg": reason, "type": "missing"}])
    payloads = [_payload(service, *named) for named in zip(("colour", "thermal"), images, strict=True)]
    try:
        session = await service.sessions.open(session_id, caller, None)
    except Refused as refusal:
        if refusal.ending is STORE_DOWN:
            raise problems.store_down() from refusal
        raise problems.no_session(session_id) from refusal
    if session.connection is not None:
        raise problems.streaming(session_id)
    upload = Upload()
    await session.attach(upload)
    try:
        return await _track(session, payloads, seq, service, upload)
    finally:
        session.detach(upload)
        upload.done.set()


async def _track(
    session: Session, payloads: list[Payload | None], seq: int | None, service: Shared, upload: Upload
) -> Response:
    settings = service.settings
    began = time.perf_counter()
    # One pair of a stream in which none is dropped, so that all its checks hold here too.
    limits = Limits(settings.max_frame_bytes, settings.max_pixels, 1, settings.max_targets)
    protocol = ServerProtocol(
        Mode.EVERY_FRAME, limits, session.size, session.last_seq, targets=session.targets, answers=session.answers
    )
    protocol.hello(session.id, settings.heartbeat_s, settings.idle_s)
    number = seq if seq is not None else 0 if session.last_seq is None else session.last_seq + 1
    try:
        message = encode_frame(Frame(number, 0, *payloads))
    except InvalidState as error:  # the number after the largest
        raise _refused(service, ErrorCode.PROTOCOL, str(error)) from error
    if (seconds := service.sessions.pause(session)) > 0 and not await upload.pause(seconds):
        raise _stopped(session, service)
    try:
        event = protocol.receive(message)
    except ProtocolError as error:
        status = _STATUS.get(CloseCode(error.close_code), HTTPStatus.UNPROCESSABLE_ENTITY)
        raise _refused(service, ErrorCode.PROTOCOL, str(error), status) from error
    service.metrics.frame_received(len(message))
    if isinstance(event, FrameRefused):
        raise _refused(service, event.code, event.message)
    assert isinstance(event, FrameReceived)
    received = event
    try:
        tracked = await session.track(lambda: received)
    except Untracked as failure:
        reason = failure.reason
        if isinstance(reason, ImageError):
            raise _refused(service, reason.code, str(reason)) from failure
        if isinstance(reason, FrameError):
            raise _refused(service, ErrorCode.UNUSABLE_FRAME, str(reason)) from failure
        if isinstance(reason, BoxError):
            service.sessions.end(session, unusable_box(str(reason)))
            raise _refused(service, ErrorCode.UNUSABLE_BOX, str(reason)) from failure
        log.exception("a tracker step failed", session=session.id)
        raise problems.internal() from failure
    assert tracked is not None
    document = answer(protocol, session, *tracked, (time.perf_counter() - began) * 1000, service.metrics)
    session.size = protocol.size
    service.sessions.wrote(session)
    return Response(document, media_type="application/json")


def _stopped(session: Session, service: Shared) -> problems.Problem:
    """Why a frame that waited for the rate of its key is not tracked."""
    if service.sessions.stopping:
        return problems.stopping()
    return problems.no_session(session.id) if session.ended else problems.streaming(session.id)


async def _read(file: UploadFile | None) -> bytes:
    return b"" if file is None else await file.read()


def _payload(service: Shared, modality: str, data: bytes) -> Payload | None:
    if not data:
        return None
    if data.startswith(_JPEG):
        return Payload(Codec.JPEG8, data)
    if data.startswith(_PNG):
        deep = modality == "thermal" and data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
        return Payload(Codec.PNG16 if deep else Codec.PNG8, data)  # colour of 16 bits is refused by its header
    raise _refused(
        service,
        ErrorCode.UNSUPPORTED_IMAGE,
        f"expected the {modality} image as JPEG or PNG, got {len(data)} bytes of something else",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    )


def _refused(
    service: Shared, code: str, reason: str, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY
) -> problems.Problem:
    service.metrics.frame_refused(code)
    return problems.rejected_frame(code, reason, status)
