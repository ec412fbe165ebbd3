"""The service's settings, from the environment: every field is a variable with the prefix ``DUOTRACK_``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from duotrack.network import DEFAULT_MODEL

PREFIX = "DUOTRACK_"
OTHERS = frozenset({"DUOTRACK_API_KEY", "DUOTRACK_PUBLISH"})
"""Variables with our prefix that are no settings of the service: the client's key, docker-compose.yml's address."""


def default_store() -> str:
    """SQLite in the user's state folder, by the XDG base directory specification."""
    folder = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"sqlite:///{folder}/duotrack/sessions.db"


class Settings(BaseSettings):
    """How the service runs. Sizes are in bytes and pixels, times in seconds.

    Attributes:
        host, port: where it listens.
        model: the models that track, by name or path, separated by commas; sessions get the first by default.
        provider, threads: what they run on, with how many threads; the engine chooses where None.
        lanes, max_batch: frames that are tracked at once, and of one batch; the service chooses where None.
        max_sessions: sessions at a time; what the machine can carry, measured at the start, where None.
        session_rate: frame pairs a second that each session should get, on which that measure rests.
        max_targets: targets of one session.
        max_frame_bytes: the longest binary message of a frame pair.
        max_pixels: the most pixels of one image; the default is 3840×2160.
        max_bytes_in_flight: of all frames that wait; beyond it, nothing more is read until some are done.
        window: unanswered frame pairs of a session in the mode ``every_frame``.
        live_deadline_s: a frame of a live session that has waited longer is passed over.
        idle_s: a session without a frame for so long ends.
        heartbeat_s: between WebSocket pings; a peer that leaves one unanswered for as long is dropped.
        reconnect_after_s: what a stopping service tells its clients to wait.
        decode_threads: threads that decode images, where a model takes batches.
        store: where sessions are kept: ``sqlite:///path``, ``redis://host:port/0``, or ``memory:`` for nowhere.
        store_password: of the Redis server, where it is not in its URL.
        snapshot_s: a session is stored at most so long after a frame.
        keys_file: API keys; without keys, everyone who reaches the service may use it.
        jwt_secret, jwt_public_key_file: JSON Web Tokens are accepted beside keys, signed with this secret or key.
        jwt_issuer, jwt_audience: what their ``iss`` and ``aud`` must be.
        allow_anonymous: listen beyond loopback without keys.
        ticket_s: how long a ticket opens a stream.
        header_timeout_s, body_timeout_s: for a request's head and body to arrive.
        max_connections, max_connections_per_address: open at a time.
        creations_per_minute: new sessions of one principal.
        frames_per_second: frame pairs of one principal; its key may say otherwise; unlimited where None.
        allowed_origins: web origins whose pages may open streams, besides the service's own.
        log_level: the least severe level that is logged.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    model: str = DEFAULT_MODEL
    provider: str | None = None
    threads: int | None = Field(default=None, ge=1)
    lanes: int | None = Field(default=None, ge=1, le=256)
    max_batch: int | None = Field(default=None, ge=1, le=256)
    max_sessions: int | None = Field(default=None, ge=1)
    session_rate: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    max_targets: int = Field(default=8, ge=1, le=256)
    max_frame_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(default=3840 * 2160, ge=1)
    max_bytes_in_flight: int = Field(default=512 * 1024 * 1024, ge=1024)
    window: int = Field(default=8, ge=1)
    live_deadline_s: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    idle_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    heartbeat_s: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    reconnect_after_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    decode_threads: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    store: str = Field(default_factory=default_store)
    store_password: SecretStr | None = None
    snapshot_s: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    keys_file: Path | None = None
    jwt_secret: SecretStr | None = None
    jwt_public_key_file: Path | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    allow_anonymous: bool = False
    ticket_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    header_timeout_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    body_timeout_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    max_connections: int = Field(default=1024, ge=1)
    max_connections_per_address: int = Field(default=256, ge=1)
    creations_per_minute: int = Field(default=600, ge=1)
    frames_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    allowed_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @field_validator("model")
    @classmethod
    def _some_model(cls, value: str) -> str:
        if not all(name.strip() for name in value.split(",")):
            raise ValueError("expected a model, or several separated by commas")
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _read_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError('expected a JSON list such as ["https://example.org"]') from error

    @property
    def models(self) -> tuple[str, ...]:
        """The models by name or path, the default first."""
        return tuple(name.strip() for name in self.model.split(","))


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Those of ``names`` that look like settings and are none, each with the setting that was perhaps meant."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known | OTHERS)
    return {name: next(iter(get_close_matches(name.upper(), known, n=1, cutoff=0.8)), None) for name in unknown}


def explain(error: ValidationError) -> str:
    """What is wrong with the settings, one variable a line, with its value."""
    return "\n".join(
        f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}, got {_shown(item['loc'], item['input'])}"
        for item in error.errors()
    )


def _shown(location: tuple[int | str, ...], value: object) -> str:
    secret = any(word in str(part) for part in location for word in ("secret", "password", "store"))
    return "a value that is not shown" if secret else repr(value)
