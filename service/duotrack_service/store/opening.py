"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from duotrack_service.store.base import Store, StoreError
from duotrack_service.store.memory import MemoryStore
from duotrack_service.store.sqlite import SqliteStore


def open_store(url: str, password: str | None = None) -> Store:
    """The store at ``url``: ``memory:``, ``sqlite:///absolute/path``, ``redis://host:port/0``; with TLS ``rediss://``.

    Args:
        password: of the Redis server, where it is not in the URL.

    Raises:
        StoreError: the URL is none of these, the SQLite file cannot be opened, or ``~`` in its path is unknown.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        return MemoryStore(tombstone_s=60)  # of one process, which writes nothing late
    if scheme == "sqlite" and rest.startswith("///") and len(rest) > 3:
        return SqliteStore(_path(unquote(rest[3:])))
    if scheme in ("redis", "rediss", "unix"):
        from duotrack_service.store.redis import RedisStore

        return RedisStore(url, password)
    raise StoreError(f"expected a store memory:, sqlite:///path or redis://host:port/0, got {scheme}:…")


def _path(path: str) -> Path:
    """The absolute path, written without its slash, or one from a home folder on, as in ``~/sessions.db``."""
    try:
        return Path(path).expanduser() if path.startswith("~") else Path("/", path)
    except RuntimeError as error:
        raise StoreError(
            f"cannot open the store sqlite:///{path}: the home folder is not known; set DUOTRACK_STORE to another"
        ) from error
