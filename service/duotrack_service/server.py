"""One uvicorn process that says goodbye to its streams before it stops."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from duotrack_service.guards import guarded
from duotrack_service.routes import Service
from duotrack_service.settings import Settings

GRACEFUL_SHUTDOWN_S = 10
KEEP_ALIVE_S = 75
"""Longer than clients (httpx: 5 s) and reverse proxies (60 s) keep a connection that nobody uses: where the service
closes it first, a request may be on its way, and is lost."""


class Server(uvicorn.Server):
    """A uvicorn server that closes every stream with ``goaway`` and 1012 before it shuts down.

    Uvicorn itself would close them first, and tell the application afterwards.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        protocols = guarded(settings)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            lifespan="on",
            log_config=None,
            access_log=False,
            http=protocols.http,
            ws=protocols.websocket,
            ws_max_size=settings.max_frame_bytes,
            ws_per_message_deflate=False,  # frames are compressed images already
            ws_ping_interval=settings.heartbeat_s,
            ws_ping_timeout=settings.heartbeat_s,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service: Service = self._app.state.service
        await service.sessions.stop()
        await super().shutdown(sockets)


def bind(settings: Settings) -> socket.socket:
    """A socket bound to the service's address, before anything slow is started. It does not listen yet.

    Two may be bound to one address as long as neither listens; ``listen`` then fails for the second.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
    except BaseException:
        bound.close()
        raise
    return bound
