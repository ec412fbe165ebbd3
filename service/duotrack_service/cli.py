"""The command ``duotrack-serve``."""

from __future__ import annotations

import ipaddress
import sys
from typing import Annotated, Any

import structlog
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from duotrack.errors import DuoTrackError
from duotrack_service import logs
from duotrack_service.app import create_app
from duotrack_service.inference import open_engine
from duotrack_service.server import Server, bind
from duotrack_service.settings import Settings, explain

log = structlog.stdlib.get_logger(__name__)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to track with, by name or path.")] = None,
    provider: Annotated[str | None, typer.Option(help="ONNX Runtime provider; the best there is by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve DuoTrack in one process.

    Every setting is also an environment variable with the prefix DUOTRACK_; an option here wins.
    """
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "model": model,
        "provider": provider,
        "threads": threads,
        "log_level": log_level,
    }
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise _failure(explain(error), code=2) from error
    except SettingsError as error:  # a variable that should hold JSON and does not
        raise _failure(f"{error}: {error.__cause__}", code=2) from error
    logs.configure(settings.log_level)
    try:
        bound = bind(settings)
    except OSError as error:
        raise _failure(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}") from error
    with bound:
        try:
            engine = open_engine(settings)
        except DuoTrackError as error:
            raise _failure(str(error)) from error
        address, listening_port = bound.getsockname()[:2]
        log.info("serving", host=address, port=listening_port, model=engine.model, provider=engine.provider)
        if not _is_loopback(address):
            log.warning("the service has no authentication: anyone who reaches it may use it", host=address)
        Server(create_app(settings, lambda _: engine), settings).run(sockets=[bound])


def main() -> None:
    """Entry point of ``duotrack-serve``."""
    app()


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _failure(message: str, code: int = 1) -> typer.Exit:
    sys.stderr.write(f"duotrack-serve: {message}\n")
    return typer.Exit(code)
