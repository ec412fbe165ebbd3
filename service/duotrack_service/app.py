"""The ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from fastapi import FastAPI

from duotrack import __version__
from duotrack_service import health, problems, routes
from duotrack_service.bodies import BodyLimit
from duotrack_service.inference import Engine, open_engine
from duotrack_service.sessions import Registry
from duotrack_service.settings import Settings

OpenEngine: TypeAlias = Callable[[Settings], Engine]


def create_app(settings: Settings | None = None, open_engine: OpenEngine = open_engine) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: how it runs; read from the environment when None.
        open_engine: loads the model. Called once, in a worker thread, when the application starts.

    Raises:
        pydantic.ValidationError: the environment holds a setting that is not valid.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = await asyncio.to_thread(open_engine, settings)
        sessions = Registry(settings, engine)
        app.state.service = routes.Service(settings, engine, sessions)
        yield
        sessions.close()

    app = FastAPI(title="DuoTrack", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    problems.install(app)
    app.include_router(health.router)
    app.include_router(routes.router, prefix="/v1")
    app.include_router(routes.router, include_in_schema=False)
    return app
