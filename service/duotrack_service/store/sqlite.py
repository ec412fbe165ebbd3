"""Sessions in a file: they survive the process, whatever ends it, and several processes of a machine may share it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from duotrack_service.store.base import TIMEOUT_S, TOMBSTONE_S, Claim, LeaseLost, StoreError

Value = TypeVar("Value")

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, fence INTEGER NOT NULL, key TEXT NOT NULL, summary BLOB NOT NULL,
    snapshot BLOB, created_at REAL NOT NULL, expires_at REAL NOT NULL, ended INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sessions_of_key ON sessions (key, created_at);
CREATE TABLE tickets (digest TEXT PRIMARY KEY, session TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class SqliteStore:
    """Implements ``Store`` in the SQLite file ``path``, which is made where it is not there.

    The file is in WAL mode, where a kill leaves each record old or new, and a power failure may cost the last moments.
    All work is done in one thread of its own.

    Raises:
        StoreError: the file cannot be opened, is no database, or is of a later version.
    """

    name = "sqlite"

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._stuck: Future[Any] | None = None  # the work that was last given up while the thread was at it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._thread.submit(self._open).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise StoreError(f"cannot open the store {path}: {error}") from error
        except StoreError:
            self._thread.shutdown()
            raise

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            connection.execute("COMMIT")
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"the store {self.path} has version {version}, this DuoTrack reads version {SCHEMA_VERSION}"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    async def create(self, session: str, owner: str, key: str, summary: bytes, ttl_s: float) -> int:
        def work(connection: sqlite3.Connection, now: float) -> int:
            connection.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, 1, ?, ?, NULL, ?, ?, 0)",
                (session, owner, key, summary, now, now + ttl_s),
            )
            return 1

        return await self._run(work)

    async def claim(self, session: str, owner: str, ttl_s: float) -> Claim | None:
        def work(connection: sqlite3.Connection, now: float) -> Claim | None:
            row = connection.execute(
                "SELECT owner, fence, summary, snapshot FROM sessions WHERE id = ? AND NOT ended AND expires_at > ?",
                (session, now),
            ).fetchone()
            if row is None:
                return None
            former_owner, fence, summary, snapshot = row
            connection.execute(
                "UPDATE sessions SET owner = ?, fence = ?, expires_at = ? WHERE id = ?",
                (owner, fence + 1, now + ttl_s, session),
            )
            return Claim(fence + 1, former_owner, fence, summary, snapshot)

        return await self._run(work)

    async def save(
        self, session: str, owner: str, fence: int, key: str, summary: bytes, snapshot: bytes | None, ttl_s: float
    ) -> None:
        def work(connection: sqlite3.Connection, now: float) -> None:
            row = connection.execute(
                "SELECT fence, ended FROM sessions WHERE id = ? AND expires_at > ?", (session, now)
            ).fetchone()
            if row is None:
                connection.execute(
                    "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                    (session, owner, fence, key, summary, snapshot, now, now + ttl_s),
                )
                return
            stored, ended = row
            if ended or stored > fence:
                raise LeaseLost(f"session {session} is held under fence {stored}, not {fence}, or has ended")
            connection.execute(
                "UPDATE sessions SET owner = ?, fence = ?, summary = ?, snapshot = ifnull(?, snapshot), expires_at = ?"
                " WHERE id = ?",
                (owner, fence, summary, snapshot, now + ttl_s, session),
            )

        await self._run(work)

    async def end(self, session: str, fence: int | None) -> bool:
        def work(connection: sqlite3.Connection, now: float) -> bool:
            row = connection.execute(
                "SELECT fence, ended FROM sessions WHERE id = ? AND expires_at > ?", (session, now)
            ).fetchone()
            if row is not None and (row[1] or (fence is not None and row[0] > fence)):
                return False
            connection.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, '', ?, '', x'', NULL, ?, ?, 1)",
                (session, fence or 0, now, now + TOMBSTONE_S),
            )
            return row is not None

        return await self._run(work)

    async def read(self, session: str) -> bytes | None:
        def work(connection: sqlite3.Connection, now: float) -> bytes | None:
            row = connection.execute(
                "SELECT summary FROM sessions WHERE id = ? AND NOT ended AND expires_at > ?", (session, now)
            ).fetchone()
            return None if row is None else row[0]

        return await self._run(work)

    async def list(self, key: str) -> list[bytes]:
        def work(connection: sqlite3.Connection, now: float) -> list[bytes]:
            rows = connection.execute(
                "SELECT summary FROM sessions WHERE key = ? AND NOT ended AND expires_at > ? ORDER BY created_at",
                (key, now),
            )
            return [summary for (summary,) in rows]

        return await self._run(work)

    async def put_ticket(self, digest: str, session: str, ttl_s: float) -> None:
        def work(connection: sqlite3.Connection, now: float) -> None:
            connection.execute("INSERT OR REPLACE INTO tickets VALUES (?, ?, ?)", (digest, session, now + ttl_s))

        await self._run(work)

    async def take_ticket(self, digest: str) -> str | None:
        def work(connection: sqlite3.Connection, now: float) -> str | None:
            row = connection.execute(
                "DELETE FROM tickets WHERE digest = ? RETURNING session, expires_at", (digest,)
            ).fetchone()
            return row[0] if row is not None and now < row[1] else None

        return await self._run(work)

    async def sweep(self) -> int:
        def work(connection: sqlite3.Connection, now: float) -> int:
            gone = connection.execute("DELETE FROM sessions WHERE expires_at <= ?", (now,)).rowcount
            return gone + connection.execute("DELETE FROM tickets WHERE expires_at <= ?", (now,)).rowcount

        return await self._run(work)

    async def ping(self) -> None:
        await self._run(lambda connection, _: connection.execute("SELECT 1").fetchone())

    async def close(self) -> None:
        with suppress(StoreError):  # a thread that is stuck is left to the end of the process
            await self._do(self._connection.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection, float], Value]) -> Value:
        """Do ``work`` as one transaction."""
        return await self._do(partial(self._transact, work))

    async def _do(self, work: Callable[[], Value]) -> Value:
        """Have ``work`` done in the store's thread.

        Raises:
            StoreError: it fails, or takes longer than ``TIMEOUT_S`` with all that was before it. Where it has begun, it
                may still be done, and until then all else is refused at once.
        """
        if self._stuck is not None and not self._stuck.done():
            raise StoreError(f"the store {self.path} fails: it does not answer")
        job = self._thread.submit(work)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            if not job.cancel():
                self._stuck = job
            raise StoreError(f"the store {self.path} fails: it does not answer") from error
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} fails: {error}") from error

    def _transact(self, work: Callable[[sqlite3.Connection, float], Value]) -> Value:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = work(connection, self._clock())
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return value
