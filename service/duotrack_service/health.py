"""Whether the process lives, and whether it takes new sessions."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel

from duotrack_service.routes import Shared

router = APIRouter(prefix="/health")


class Live(BaseModel):
    status: str = "live"


class Ready(BaseModel):
    """What really runs, and how full the service is."""

    status: str
    model: str
    provider: str
    precision: str
    sessions: int
    max_sessions: int


@router.get("/live")
async def live() -> Live:
    """200 as long as the event loop turns."""
    return Live()


@router.get("/ready")
async def ready(service: Shared, response: Response) -> Ready:
    """200 while new sessions are taken, 503 while the service stops."""
    stopping = service.sessions.stopping
    if stopping:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Ready(
        status="stopping" if stopping else "ready",
        model=service.engine.model,
        provider=service.engine.provider,
        precision=service.engine.precision,
        sessions=len(service.sessions),
        max_sessions=service.settings.max_sessions,
    )
