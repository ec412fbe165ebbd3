"""The ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import structlog
from fastapi import FastAPI

from duotrack import __version__
from duotrack_service import health, problems, routes, uploads
from duotrack_service.auth import Authenticator
from duotrack_service.bodies import BodyLimit
from duotrack_service.budget import Budget
from duotrack_service.capacity import admission_limit, measure
from duotrack_service.inference import Model, open_models
from duotrack_service.metrics import Metrics
from duotrack_service.registry import Registry
from duotrack_service.settings import Settings
from duotrack_service.store import Store, open_store

log = structlog.stdlib.get_logger(__name__)

OpenModels: TypeAlias = Callable[[Settings], Sequence[Model]]

MEASURE_S = 1.0  # how long the default model is run at the start, to know how many sessions it carries


def create_app(
    settings: Settings | None = None,
    open_models: OpenModels = open_models,
    store: Store | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: how it runs; read from the environment when None.
        open_models: loads the models, the default first. Called once, in a worker thread, when the application starts.
        store: where sessions are kept; the one of the settings when None. It is closed with the application.

    Raises:
        pydantic.ValidationError: the environment holds a setting that is not valid.
        duotrack_service.auth.AuthError: the keys cannot be read.
    """
    settings = settings or Settings()
    authenticator = Authenticator.from_settings(settings)
    kept = store or _open_store(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models = await asyncio.to_thread(open_models, settings)
        metrics = Metrics()
        for model in models:
            metrics.provider(model.name, model.provider, model.precision)
        limit = settings.max_sessions
        if limit is None:
            limit = await asyncio.to_thread(_measured_limit, models[0], settings)
        sessions = Registry(settings, models, kept, metrics, limit, authenticator)
        budget = Budget(settings.max_bytes_in_flight)
        app.state.service = routes.Service(settings, sessions, authenticator, metrics, budget)
        yield
        await sessions.close()

    app = FastAPI(title="DuoTrack", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        BodyLimit,
        max_upload_bytes=settings.max_frame_bytes,
        timeout_s=settings.body_timeout_s,
        admit=uploads.admit,
    )
    problems.install(app)
    app.include_router(health.router)
    app.include_router(health.metrics_router)
    for router in (routes.router, uploads.router):
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    return app


def _open_store(settings: Settings) -> Store:
    password = settings.store_password
    return open_store(settings.store, password=None if password is None else password.get_secret_value())


def _measured_limit(model: Model, settings: Settings) -> int:
    capacity = measure(model, MEASURE_S, settings.decode_threads)
    limit = admission_limit(capacity, settings.session_rate)
    log.info(
        "measured",
        model=model.name,
        pairs_per_second=round(capacity.pairs_per_second, 1),
        session_rate=settings.session_rate,
        max_sessions=limit,
    )
    return limit
