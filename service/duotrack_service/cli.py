"""The command ``duotrack-serve``."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import cv2
import structlog
import typer
from pydantic import ValidationError

from duotrack.errors import DuoTrackError
from duotrack_service import keys, logs, tracing
from duotrack_service.app import create_app
from duotrack_service.auth import Authenticator, AuthError
from duotrack_service.inference import open_models
from duotrack_service.server import Server, bind
from duotrack_service.settings import Settings, explain, unknown_variables
from duotrack_service.store import StoreError

log = structlog.stdlib.get_logger(__name__)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(keys.app, name="keys")


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Models to track with, by name or path, the default first.")] = None,
    provider: Annotated[str | None, typer.Option(help="ONNX Runtime provider; the best there is by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite:///path, redis://host:port/0 or memory:")] = None,
    keys_file: Annotated[Path | None, typer.Option(help="API keys, as `duotrack-serve keys` writes them.")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Listen beyond loopback without keys.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Serve DuoTrack in one process.

    Every setting is also an environment variable with the prefix DUOTRACK_; an option here wins.
    """
    if context.invoked_subcommand is not None:
        return
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "model": model,
        "provider": provider,
        "threads": threads,
        "store": store,
        "keys_file": keys_file,
        "allow_anonymous": allow_anonymous,
        "log_level": log_level,
    }
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise _failure(explain(error), code=2) from error
    logs.configure(settings.log_level)
    for variable, meant in unknown_variables(os.environ).items():
        log.warning("no such setting: ignored", variable=variable, did_you_mean=meant)
    cv2.setNumThreads(1)  # lanes are the threads; OpenCV's own would fight with them
    try:
        bound = bind(settings)
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    with bound:
        address, listening_port = bound.getsockname()[:2]
        try:
            authenticator = Authenticator.from_settings(settings)
            _require_keys(address, authenticator, settings)
            tracing.configure()
            models = open_models(settings)
            service = create_app(settings, lambda _: models)
        except (DuoTrackError, AuthError, StoreError, tracing.TracingError) as error:
            raise _failure(str(error)) from error
        try:
            bound.listen()  # only now: a client is better refused than left to wait for the models
        except OSError as error:  # another has listened there in the meantime
            raise _cannot_listen(settings, error) from error
        log.info(
            "serving",
            host=address,
            port=listening_port,
            models=[model.name for model in models],
            provider=models[0].provider,
            keys=authenticator.required,
        )
        try:
            Server(service, settings).run(sockets=[bound])
        finally:
            tracing.shutdown()


def main() -> None:
    """Entry point of ``duotrack-serve``."""
    app()


def _require_keys(address: str, authenticator: Authenticator, settings: Settings) -> None:
    """Who listens to the world asks for keys, unless told not to."""
    if ipaddress.ip_address(address).is_loopback or authenticator.required:
        return
    if not settings.allow_anonymous:
        raise _failure(
            f"{address} is reached from other machines, and there are no keys: make one with `duotrack-serve keys add` "
            "and pass --keys-file, or say --allow-anonymous if everyone who reaches the service may use it",
            code=2,
        )
    log.warning("anyone who reaches the service may use it", host=address)


def _cannot_listen(settings: Settings, error: OSError) -> typer.Exit:
    return _failure(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}")


def _failure(message: str, code: int = 1) -> typer.Exit:
    sys.stderr.write(f"duotrack-serve: {message}\n")
    return typer.Exit(code)
