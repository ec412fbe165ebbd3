"""Whether the process lives, and whether it takes new sessions."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel

from duotrack_service.routes import Caller, Shared

router = APIRouter(prefix="/health")
metrics_router = APIRouter()


class Live(BaseModel):
    status: str = "live"


class ModelState(BaseModel):
    """A model that is loaded and warm, and what it really runs on."""

    name: str
    provider: str
    precision: str
    lanes: int
    max_batch: int


class Ready(BaseModel):
    """What really runs, and how full the service is. The first three are those of the default model."""

    status: str
    model: str
    provider: str
    precision: str
    models: list[ModelState]
    sessions: int
    max_sessions: int
    store: str
    durable: bool


@router.get("/live")
async def live() -> Live:
    """200 as long as the event loop turns."""
    return Live()


@router.get("/ready")
async def ready(service: Shared, response: Response) -> Ready:
    """200 while new sessions are taken, 503 while the service stops.

    A store that is down is no reason to answer 503: tracking goes on without it.
    """
    sessions = service.sessions
    if sessions.stopping:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default, *_ = models = sessions.models
    return Ready(
        status="stopping" if sessions.stopping else "ready",
        model=default.name,
        provider=default.provider,
        precision=default.precision,
        models=[
            ModelState(
                name=model.name,
                provider=model.provider,
                precision=model.precision,
                lanes=model.lanes,
                max_batch=model.max_batch,
            )
            for model in models
        ],
        sessions=len(sessions),
        max_sessions=sessions.limit,
        store=sessions.store_name,
        durable=sessions.durable,
    )


@metrics_router.get("/metrics", include_in_schema=False)
async def metrics(caller: Caller, service: Shared) -> Response:  # noqa: ARG001 - asking for a key is its work
    """All that is counted, for Prometheus. Where keys are asked for, it needs one too."""
    text, content_type = service.metrics.render()
    return Response(text, media_type=content_type)
