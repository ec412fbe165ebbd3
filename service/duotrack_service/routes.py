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
from duotrack_client.protocol import SUBPROTOCOL, CloseCode, Mode
from duotrack_service import problems
from duotrack_service.endings import NO_SESSION, restart
from duotrack_service.inference import Engine
from duotrack_service.sessions import Registry, Session, SessionState
from duotrack_service.settings import Settings
from duotrack_service.stream import Stream

log = structlog.stdlib.get_logger(__name__)

MAX_COORDINATE = 1e6  # far beyond any image, and far below where products of coordinates overflow


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes share."""

    settings: Settings
    engine: Engine
    sessions: Registry


def get_service(connection: HTTPConnection) -> Service:
    """The service of the app that ``connection`` came to."""
    service: Service = connection.app.state.service
    return service


Shared = Annotated[Service, Depends(get_service)]
Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Length = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=MAX_COORDINATE)]


class BoxBody(BaseModel):
    """A box in pixels of the first frame: left, top, width, height."""

    model_config = ConfigDict(extra="forbid")

    x: Coordinate
    y: Coordinate
    w: Length
    h: Length


class NewSession(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(extra="forbid")

    box: BoxBody
    mode: Mode = Mode.EVERY_FRAME
    model: str | None = None


class LimitsBody(BaseModel):
    """What one frame pair of the session may cost; ``window`` is null in live mode, which has none."""

    window: int | None
    max_frame_bytes: int
    max_pixels: int
    idle_s: float


class SessionBody(BaseModel):
    """A session as it is now."""

    id: str
    state: SessionState
    mode: Mode
    model: str
    box: BoxBody
    created_at: datetime
    frames: int
    stream_url: str
    limits: LimitsBody


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
async def create_session(body: NewSession, request: Request, service: Shared) -> SessionBody:
    """Make a session for the target in ``box``; its first frame pair over ``stream_url`` starts the track."""
    box = Box(body.box.x, body.box.y, body.box.w, body.box.h)
    session = service.sessions.create(box, body.mode, body.model)
    return _describe(session, request, service.settings)


@router.get("/sessions")
async def list_sessions(request: Request, service: Shared) -> SessionList:
    """All sessions, oldest first."""
    return SessionList(sessions=[_describe(session, request, service.settings) for session in service.sessions])


@router.get("/sessions/{session_id}")
async def get_session(session_id: str, request: Request, service: Shared) -> SessionBody:
    """One session."""
    return _describe(service.sessions.get(session_id), request, service.settings)


@router.delete("/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_session(session_id: str, service: Shared) -> None:
    """End a session and close its stream."""
    service.sessions.delete(session_id)


@router.get("/models")
async def list_models(service: Shared) -> ModelList:
    """The models that this service runs."""
    engine = service.engine
    return ModelList(models=[ModelBody(name=engine.model, provider=engine.provider, precision=engine.precision)])


@router.websocket("/sessions/{session_id}/stream", name="stream")
async def stream(websocket: WebSocket, session_id: str) -> None:
    """Frame pairs in, results out, over the subprotocol ``duotrack.v1``."""
    service = get_service(websocket)
    origin = websocket.headers.get("origin")
    if origin is not None and not _may_open(origin, websocket, service.settings):
        await websocket.send_denial_response(problems.forbidden_origin(origin).response())
        return
    # Refusals come as close codes, after the handshake: a browser shows its script no other reason.
    offered = websocket.scope["subprotocols"]
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    session = service.sessions.find(session_id)
    if SUBPROTOCOL not in offered:
        reason = f"expected the subprotocol {SUBPROTOCOL}, got {', '.join(offered) or 'none'}"
        await websocket.close(CloseCode.PROTOCOL_ERROR, reason[:100])
    elif service.sessions.stopping:
        await websocket.close(CloseCode.RESTART, restart(service.settings.reconnect_after_s).reason)
    elif session is None:
        await websocket.close(CloseCode.NO_SESSION, NO_SESSION.reason)
    else:
        await _serve(websocket, session, service)


async def _serve(websocket: WebSocket, session: Session, service: Service) -> None:
    bound = log.bind(session=session.id)
    bound.info("stream opened", client=websocket.client.host if websocket.client else None)
    ending = await Stream(websocket, session, service.sessions, service.settings).run()
    bound.info("stream closed", code=ending.code, reason=ending.reason)


def _may_open(origin: str, websocket: WebSocket, settings: Settings) -> bool:
    same = urlsplit(origin).netloc == websocket.headers.get("host")
    return same or origin in settings.allowed_origins


def _describe(session: Session, request: Request, settings: Settings) -> SessionBody:
    url = request.url_for("stream", session_id=session.id)
    return SessionBody(
        id=session.id,
        state=session.state,
        mode=session.mode,
        model=session.model,
        box=BoxBody(x=session.box.x, y=session.box.y, w=session.box.w, h=session.box.h),
        created_at=session.created_at,
        frames=session.frames,
        stream_url=str(url.replace(scheme="wss" if request.url.scheme == "https" else "ws")),
        limits=LimitsBody(
            window=settings.window if session.mode is Mode.EVERY_FRAME else None,
            max_frame_bytes=settings.max_frame_bytes,
            max_pixels=settings.max_pixels,
            idle_s=settings.idle_s,
        ),
    )
