"""The HTTP interface and the WebSocket endpoint. The wire is described in ``duotrack_client.protocol``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Depends, Request, WebSocket
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from duotrack.boxes import Box
from duotrack_client.protocol import (
    MSGPACK_SUBPROTOCOL,
    SUBPROTOCOL,
    CloseCode,
    Credential,
    Mode,
    Wire,
    find_credential,
)
from duotrack_service import problems
from duotrack_service.auth import Authenticator, Principal, Unauthorized
from duotrack_service.budget import Budget
from duotrack_service.endings import UNAUTHORIZED, restart
from duotrack_service.metrics import Metrics
from duotrack_service.record import Terms
from duotrack_service.registry import Refused, Registry
from duotrack_service.sessions import Session, SessionState
from duotrack_service.settings import Settings
from duotrack_service.stream import Stream
from duotrack_service.tracing import span

log = structlog.stdlib.get_logger(__name__)

MAX_COORDINATE = 1e6  # far beyond any image, and far below where products of coordinates overflow
MAX_TTL_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes share."""

    settings: Settings
    sessions: Registry
    authenticator: Authenticator
    metrics: Metrics
    budget: Budget


def get_service(connection: HTTPConnection) -> Service:
    """The service of the app that ``connection`` came to."""
    service: Service = connection.app.state.service
    return service


Shared = Annotated[Service, Depends(get_service)]


def get_principal(request: Request, service: Shared) -> Principal:
    """Who sends a request.

    Raises:
        Problem: it shows no valid key (401).
    """
    try:
        return service.authenticator.authenticate(request.headers.get("authorization"))
    except Unauthorized as error:
        service.metrics.refused("unauthorized")
        raise problems.unauthorized(str(error)) from error


Caller = Annotated[Principal, Depends(get_principal)]
Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Length = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=MAX_COORDINATE)]


class BoxBody(BaseModel):
    """A box in pixels of the first frame: left, top, width, height."""

    model_config = ConfigDict(extra="forbid")

    x: Coordinate
    y: Coordinate
    w: Length
    h: Length


class OptionsBody(BaseModel):
    """Switches of the tracker, see docs/tracker.md; the tracker's own defaults where they are not given."""

    model_config = ConfigDict(extra="forbid")

    motion: bool | None = None
    redetection: bool | None = None
    health: bool | None = None
    alignment: bool | None = None


SourceText = Annotated[str, Field(max_length=200)]
SourceNumber = Annotated[float, Field(allow_inf_nan=False)]


class NewSession(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(extra="forbid")

    box: BoxBody
    mode: Mode = Mode.EVERY_FRAME
    model: str | None = None
    options: OptionsBody = OptionsBody()
    ttl: Annotated[float, Field(gt=0, le=MAX_TTL_S, allow_inf_nan=False)] | None = None
    source: Annotated[dict[SourceText, SourceText | SourceNumber | bool | None], Field(max_length=16)] = {}


class LimitsBody(BaseModel):
    """What one frame pair of the session may cost; ``window`` is null in live mode, which has none."""

    window: int | None
    max_frame_bytes: int
    max_pixels: int
    max_targets: int
    idle_s: float


class SessionBody(BaseModel):
    """A session as it is now."""

    id: str
    state: SessionState
    mode: Mode
    model: str
    box: BoxBody
    options: dict[str, bool]
    source: dict[str, str | float | bool | None]
    created_at: datetime
    expires_at: datetime | None
    frames: int
    stream_url: str
    limits: LimitsBody


class CreatedBody(SessionBody):
    """A new session, and what opens its stream without a key: the ticket once, the resume token until the session ends.

    Both are shown here only; the service keeps their digests.
    """

    ticket: str
    ticket_expires_in: float
    resume_token: str


class TicketBody(BaseModel):
    """Opens the session's stream once."""

    ticket: str
    expires_in: float


class SessionList(BaseModel):
    sessions: list[SessionBody]


class ModelBody(BaseModel):
    """A model that sessions can track with, and what it really runs on."""

    name: str
    provider: str
    precision: str


class ModelList(BaseModel):
    models: list[ModelBody]


router = APIRouter()


@router.post("/sessions", status_code=HTTPStatus.CREATED)
async def create_session(body: NewSession, request: Request, caller: Caller, service: Shared) -> CreatedBody:
    """Make a session for the target in ``box``; its first frame pair over ``stream_url`` starts the track."""
    box = Box(body.box.x, body.box.y, body.box.w, body.box.h)
    options = body.options.model_dump(exclude_none=True)
    with span("duotrack.session.create", mode=body.mode, model=body.model or ""):
        session, resume_token = await service.sessions.create(
            caller, box, body.mode, body.model, options=options, ttl_s=body.ttl, source=body.source
        )
    ticket = await service.sessions.issue_ticket(session.id)
    return CreatedBody(
        **dict(_describe(session, request, service.settings)),
        ticket=ticket,
        ticket_expires_in=service.settings.ticket_s,
        resume_token=resume_token,
    )


@router.get("/sessions")
async def list_sessions(request: Request, caller: Caller, service: Shared) -> SessionList:
    """The caller's sessions, oldest first, also those that wait in the store."""
    sessions = await service.sessions.all(caller)
    return SessionList(sessions=[_describe(session, request, service.settings) for session in sessions])


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, request: Request, caller: Caller, service: Shared) -> SessionBody:
    """One session."""
    return _describe(await service.sessions.describe(session_id, caller), request, service.settings)


@router.delete("/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_session(session_id: str, caller: Caller, service: Shared) -> None:
    """End a session and close its stream."""
    await service.sessions.delete(session_id, caller)


@router.post("/sessions/{session_id}/tickets", status_code=HTTPStatus.CREATED)
async def create_ticket(session_id: str, caller: Caller, service: Shared) -> TicketBody:
    """A ticket for a client that cannot send a key, such as a web page: it opens the session's stream once."""
    ticket = await service.sessions.ticket(session_id, caller)
    return TicketBody(ticket=ticket, expires_in=service.settings.ticket_s)


@router.get("/models")
async def list_models(caller: Caller, service: Shared) -> ModelList:  # noqa: ARG001 - asking for a key is its work
    """The models that this service runs, the default first."""
    return ModelList(
        models=[
            ModelBody(name=model.name, provider=model.provider, precision=model.precision)
            for model in service.sessions.models
        ]
    )


@router.websocket("/sessions/{session_id}/stream", name="stream")
async def stream(websocket: WebSocket, session_id: str) -> None:
    """Frame pairs in, results out, over the subprotocol ``duotrack.v1``."""
    service = get_service(websocket)
    origin = websocket.headers.get("origin")
    if origin is not None and not _may_open(origin, websocket, service.settings):
        service.metrics.refused("origin")
        await websocket.send_denial_response(problems.forbidden_origin(origin).response())
        return
    # Refusals come as close codes, after the handshake: a browser shows its script no other reason.
    offered = websocket.scope["subprotocols"]
    wire = Wire.MSGPACK if MSGPACK_SUBPROTOCOL in offered else Wire.JSON
    chosen = MSGPACK_SUBPROTOCOL if wire is Wire.MSGPACK else SUBPROTOCOL
    await websocket.accept(chosen if chosen in offered else None)
    if chosen not in offered:
        # The others may hold a ticket: they are not repeated.
        await websocket.close(
            CloseCode.PROTOCOL_ERROR, f"expected the subprotocol {SUBPROTOCOL}, got none that is known"
        )
        return
    if service.sessions.stopping:
        await websocket.close(CloseCode.RESTART, restart(service.settings.reconnect_after_s).reason)
        return
    try:
        principal, credential = _credentials(websocket, service)
        session = await service.sessions.open(session_id, principal, credential)
    except Refused as refusal:
        ending = refusal.ending
        if ending is UNAUTHORIZED:
            service.metrics.refused("unauthorized")
        service.metrics.stream_closed(ending.code)
        assert ending.code is not None
        await websocket.close(ending.code, ending.reason)
        return
    await _serve(websocket, session, service, wire)


async def _serve(websocket: WebSocket, session: Session, service: Service, wire: Wire) -> None:
    bound = log.bind(session=session.id)
    bound.info("stream opened", client=websocket.client.host if websocket.client else None)
    service.metrics.stream_opened()
    stream = Stream(websocket, session, service.sessions, service.settings, wire, service.budget, service.metrics)
    with span("duotrack.stream", session=session.id, wire=wire):
        ending = await stream.run()
    service.metrics.stream_closed(ending.code)
    bound.info("stream closed", code=ending.code, reason=ending.reason)


def _credentials(websocket: WebSocket, service: Service) -> tuple[Principal | None, Credential | None]:
    """Who opens a stream: a ticket or resume token among the subprotocols, a resume token or a key in the header.

    Raises:
        Refused: the header's key is wrong.
    """
    credential = find_credential(websocket.scope["subprotocols"])
    if credential is not None:
        return None, credential
    header = websocket.headers.get("authorization")
    try:
        return service.authenticator.authenticate(header), None
    except Unauthorized as error:
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return None, Credential("resume", token.strip())
        raise Refused(UNAUTHORIZED) from error


def _may_open(origin: str, websocket: WebSocket, settings: Settings) -> bool:
    try:
        same = urlsplit(origin).netloc == websocket.headers.get("host")
    except ValueError:  # no URL: a bracket without its other, …
        return False
    return same or origin in settings.allowed_origins


def _describe(session: Session | tuple[Terms, int], request: Request, settings: Settings) -> SessionBody:
    if isinstance(session, Session):
        terms, frames, state = session.terms, session.frames, session.state
    else:
        (terms, frames), state = session, SessionState.WAITING
    url = request.url_for("stream", session_id=terms.id)
    return SessionBody(
        id=terms.id,
        state=state,
        mode=terms.mode,
        model=terms.model,
        box=BoxBody(x=terms.box.x, y=terms.box.y, w=terms.box.w, h=terms.box.h),
        options=dict(terms.options),
        source=dict(terms.source),
        created_at=terms.created_at,
        expires_at=terms.expires_at,
        frames=frames,
        stream_url=str(url.replace(scheme="wss" if request.url.scheme == "https" else "ws")),
        limits=LimitsBody(
            window=settings.window if terms.mode is Mode.EVERY_FRAME else None,
            max_frame_bytes=settings.max_frame_bytes,
            max_pixels=settings.max_pixels,
            max_targets=settings.max_targets,
            idle_s=settings.idle_s,
        ),
    )
