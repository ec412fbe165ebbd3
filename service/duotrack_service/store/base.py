"""What a store must do.

A session belongs to whoever holds its highest *fence*, a number that grows with each claim. A write carries the
writer's fence, and one with a lower fence than the stored is refused: a process that was frozen, and wakes up after
another has claimed its session, can do no harm (M. Kleppmann, "How to do distributed locking", 2016).

What is stored is opaque here: a short ``summary``, and a ``snapshot`` from which tracking goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

TOMBSTONE_S: Final = 3600.0
"""How long an ended session is remembered as ended, so that a late write does not bring it back."""
TIMEOUT_S: Final = 2.0
"""How long a store may take for anything before it counts as down."""


class StoreError(Exception):
    """The store cannot be reached, or fails. What was asked for may be tried again."""


class LeaseLost(Exception):  # noqa: N818 - it names an event
    """Another process holds the session now, or it has ended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session that was claimed.

    Attributes:
        fence: the claimer's, higher than all before.
        former_owner, former_fence: who held it, under which fence.
        summary, snapshot: what was stored last; no snapshot before the first.
    """

    fence: int
    former_owner: str
    former_fence: int
    summary: bytes = field(repr=False)
    snapshot: bytes | None = field(repr=False)


class Store(Protocol):
    """A place for sessions. ``owner`` is a process's random id, ``key`` the name of who owns the session.

    A record is gone ``ttl_s`` seconds after its last write. Every method raises StoreError when the store is down.
    """

    @property
    def name(self) -> str:
        """Its kind: sqlite, redis or memory."""
        ...

    async def create(self, session: str, owner: str, key: str, summary: bytes, ttl_s: float) -> int:
        """Keep a new session; its fence, which is 1."""
        ...

    async def claim(self, session: str, owner: str, ttl_s: float) -> Claim | None:
        """Take a session over under the next fence; None where it is unknown, expired or ended."""
        ...

    async def save(
        self, session: str, owner: str, fence: int, key: str, summary: bytes, snapshot: bytes | None, ttl_s: float
    ) -> None:
        """Write a session anew; also one that the store has lost altogether. None keeps the stored snapshot.

        Raises:
            LeaseLost: the stored fence is higher, or the session has ended.
        """
        ...

    async def end(self, session: str, fence: int | None) -> bool:
        """Forget a session for good, unless a higher fence than ``fence`` holds it; whether it was there.

        None ends it whoever holds it.
        """
        ...

    async def read(self, session: str) -> bytes | None:
        """The summary of a session that is neither expired nor ended."""
        ...

    async def list(self, key: str) -> list[bytes]:
        """The summaries of a key's sessions, oldest first."""
        ...

    async def put_ticket(self, digest: str, session: str, ttl_s: float) -> None:
        """Keep a ticket for a session."""
        ...

    async def take_ticket(self, digest: str) -> str | None:
        """The session of a ticket, which is gone with this; None where there is none, or no more."""
        ...

    async def sweep(self) -> int:
        """Forget what has expired; how much that was."""
        ...

    async def ping(self) -> None:
        """Nothing, if the store works."""
        ...

    async def close(self) -> None:
        """Give back what it holds. Nothing else may be called after."""
        ...
