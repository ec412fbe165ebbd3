"""The service's settings, from the environment: every field is a variable with the prefix ``DUOTRACK_``."""

from __future__ import annotations

import os

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DUOTRACK_"


class Settings(BaseSettings):
    """How the service runs. Sizes are in bytes and pixels, times in seconds.

    Attributes:
        host, port: where it listens. It has no authentication yet: keep it on a trusted network.
        model, provider, threads: what tracks, on what, with how many threads; the engine chooses where None.
        max_sessions: sessions at a time.
        max_frame_bytes: the longest binary message of a frame pair.
        max_pixels: the most pixels of one image; the default is 3840×2160.
        window: unanswered frame pairs of a session in the mode ``every_frame``.
        idle_s: a session without a frame for so long ends.
        heartbeat_s: between WebSocket pings; a peer that leaves one unanswered for as long is dropped.
        reconnect_after_s: what a stopping service tells its clients to wait.
        decode_threads: threads that decode images.
        allowed_origins: web origins whose pages may open streams, besides the service's own.
        log_level: the least severe level that is logged.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    model: str = "student-s"
    provider: str | None = None
    threads: int | None = Field(default=None, ge=1)
    max_sessions: int = Field(default=64, ge=1)
    max_frame_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_pixels: int = Field(default=3840 * 2160, ge=1)
    window: int = Field(default=8, ge=1)
    idle_s: float = Field(default=60.0, gt=0)
    heartbeat_s: float = Field(default=20.0, gt=0)
    reconnect_after_s: float = Field(default=1.0, ge=0)
    decode_threads: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    allowed_origins: frozenset[str] = frozenset()
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")


def explain(error: ValidationError) -> str:
    """What is wrong with the settings, one variable a line, with its value."""
    return "\n".join(
        f"{PREFIX}{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}, got {item['input']!r}"
        for item in error.errors()
    )
