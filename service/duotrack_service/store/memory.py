"""A store that is none: sessions end with the process. Also the plain reference for the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from duotrack_service.store.base import TOMBSTONE_S, Claim, LeaseLost


@dataclass(frozen=True, slots=True)
class _Row:
    owner: str
    fence: int
    key: str
    summary: bytes
    snapshot: bytes | None
    created: int
    expires_at: float
    ended: bool = False


class MemoryStore:
    """Implements ``Store`` in a dictionary.

    Args:
        clock: the time in seconds.
        tombstone_s: how long an ended session is remembered as ended.
    """

    name = "memory"

    def __init__(self, clock: Callable[[], float] = time.monotonic, tombstone_s: float = TOMBSTONE_S) -> None:
        self._clock = clock
        self._tombstone_s = tombstone_s
        self._rows: dict[str, _Row] = {}
        self._tickets: dict[str, tuple[str, float]] = {}
        self._created = 0

    async def create(self, session: str, owner: str, key: str, summary: bytes, ttl_s: float) -> int:
        self._created += 1
        self._rows[session] = _Row(owner, 1, key, summary, None, self._created, self._clock() + ttl_s)
        return 1

    async def claim(self, session: str, owner: str, ttl_s: float) -> Claim | None:
        row = self._find(session)
        if row is None or row.ended:
            return None
        claim = Claim(row.fence + 1, row.owner, row.fence, row.summary, row.snapshot)
        self._rows[session] = replace(row, owner=owner, fence=claim.fence, expires_at=self._clock() + ttl_s)
        return claim

    async def save(
        self, session: str, owner: str, fence: int, key: str, summary: bytes, snapshot: bytes | None, ttl_s: float
    ) -> None:
        row = self._find(session)
        if row is not None and (row.ended or row.fence > fence):
            raise LeaseLost(f"session {session} is held under fence {row.fence}, not {fence}, or has ended")
        if row is None:
            await self.create(session, owner, key, summary, ttl_s)
            row = self._rows[session]
        self._rows[session] = replace(
            row,
            owner=owner,
            fence=fence,
            summary=summary,
            snapshot=row.snapshot if snapshot is None else snapshot,
            expires_at=self._clock() + ttl_s,
        )

    async def end(self, session: str, fence: int | None) -> bool:
        row = self._find(session)
        if row is not None and (row.ended or (fence is not None and row.fence > fence)):
            return False
        self._rows[session] = _Row("", fence or 0, "", b"", None, 0, self._clock() + self._tombstone_s, ended=True)
        return row is not None

    async def read(self, session: str) -> bytes | None:
        row = self._find(session)
        return None if row is None or row.ended else row.summary

    async def list(self, key: str) -> list[bytes]:
        rows = [row for row in map(self._find, list(self._rows)) if row is not None and not row.ended]
        return [row.summary for row in sorted(rows, key=lambda row: row.created) if row.key == key]

    async def put_ticket(self, digest: str, session: str, ttl_s: float) -> None:
        self._tickets[digest] = session, self._clock() + ttl_s

    async def take_ticket(self, digest: str) -> str | None:
        session, expires_at = self._tickets.pop(digest, (None, 0.0))
        return session if self._clock() < expires_at else None

    async def sweep(self) -> int:
        before = len(self._rows) + len(self._tickets)
        now = self._clock()
        self._rows = {session: row for session, row in self._rows.items() if now < row.expires_at}
        self._tickets = {digest: ticket for digest, ticket in self._tickets.items() if now < ticket[1]}
        return before - len(self._rows) - len(self._tickets)

    async def ping(self) -> None:
        """Nothing: memory works."""

    async def close(self) -> None:
        """Nothing: it goes with the process."""

    def _find(self, session: str) -> _Row | None:
        row = self._rows.get(session)
        return row if row is not None and self._clock() < row.expires_at else None
