"""Sessions in Redis or Valkey, for processes of several machines.

A session is a hash that expires by itself, and one step of it a Lua script, so that no two processes get between its
reading and its writing. Redis needs no persistence of its own: what it forgets is written again with the next frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from duotrack_service.store.base import TIMEOUT_S, TOMBSTONE_S, Claim, LeaseLost, StoreError

Value = TypeVar("Value")

_PREFIX: Final = "duotrack:"

# All times in scripts are the server's, so that the clocks of the processes need not agree.
_CREATE: Final = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', 1, 'key', ARGV[2], 'summary', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] + time[2] / 1e6, ARGV[5])
return 1
"""
_CLAIM: Final = """
local row = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'summary', 'snapshot', 'ended')
if not row[2] or row[5] then return false end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', row[2] + 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {row[1], row[2], row[3], row[4]}
"""
_SAVE: Final = """
local row = redis.call('HMGET', KEYS[1], 'fence', 'ended')
if row[2] or (row[1] and tonumber(row[1]) > tonumber(ARGV[2])) then return {0, row[1]} end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', ARGV[2], 'key', ARGV[3], 'summary', ARGV[4])
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'snapshot', ARGV[6]) end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], 'NX', time[1] + time[2] / 1e6, ARGV[8])
return {1, ARGV[2]}
"""
_END: Final = """
local row = redis.call('HMGET', KEYS[1], 'fence', 'ended', 'key')
if row[2] or (row[1] and ARGV[1] ~= '' and tonumber(row[1]) > tonumber(ARGV[1])) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'ended', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if row[3] then redis.call('ZREM', ARGV[3] .. row[3], ARGV[4]) end
return row[1] and 1 or 0
"""


class RedisStore:
    """Implements ``Store`` on the Redis or Valkey server at ``url``. Connects when it is first asked for something.

    Raises:
        StoreError: ``url`` is no URL of a Redis server.
    """

    name = "redis"

    def __init__(self, url: str, password: str | None = None) -> None:
        options: dict[str, Any] = {} if password is None else {"password": password}
        try:
            self._shown = _masked(url)
            self._redis = Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # once more at once: the connection may be one that a restart has cut
                **options,
            )
        except ValueError as error:
            raise StoreError(f"expected a store such as redis://127.0.0.1:6379/0, got another URL: {error}") from error
        self._create = self._redis.register_script(_CREATE)
        self._claim = self._redis.register_script(_CLAIM)
        self._save = self._redis.register_script(_SAVE)
        self._end = self._redis.register_script(_END)

    def __repr__(self) -> str:
        return f"RedisStore({self._shown!r})"

    async def create(self, session: str, owner: str, key: str, summary: bytes, ttl_s: float) -> int:
        keys = [_session(session), _sessions_of(key)]
        await self._ask(self._create(keys=keys, args=[owner, key, summary, _milliseconds(ttl_s), session]))
        return 1

    async def claim(self, session: str, owner: str, ttl_s: float) -> Claim | None:
        row = await self._ask(self._claim(keys=[_session(session)], args=[owner, _milliseconds(ttl_s)]))
        if row is None:
            return None
        former_owner, fence, summary, snapshot = cast("Sequence[bytes]", row)
        return Claim(int(fence) + 1, former_owner.decode(), int(fence), summary, snapshot)

    async def save(
        self, session: str, owner: str, fence: int, key: str, summary: bytes, snapshot: bytes | None, ttl_s: float
    ) -> None:
        has_snapshot, written = int(snapshot is not None), snapshot or b""
        arguments: list[str | bytes | int] = [owner, fence, key, summary, has_snapshot, written]
        arguments += [_milliseconds(ttl_s), session]
        saved, stored = await self._ask(self._save(keys=[_session(session), _sessions_of(key)], args=arguments))
        if not saved:
            held = "nobody: it has ended" if stored is None else f"fence {int(stored)}"
            raise LeaseLost(f"session {session} is held under {held}, not {fence}")

    async def end(self, session: str, fence: int | None) -> bool:
        arguments: list[str | int] = ["" if fence is None else fence, _milliseconds(TOMBSTONE_S), _sessions_of("")]
        arguments.append(session)
        return bool(await self._ask(self._end(keys=[_session(session)], args=arguments)))

    async def read(self, session: str) -> bytes | None:
        return cast("bytes | None", await self._ask(self._redis.hget(_session(session), "summary")))

    async def list(self, key: str) -> list[bytes]:
        ids = cast("list[bytes]", await self._ask(self._redis.zrange(_sessions_of(key), 0, -1)))
        pipeline = self._redis.pipeline(transaction=False)
        for session in ids:
            pipeline.hget(_session(session.decode()), "summary")
        summaries: list[bytes | None] = await self._ask(pipeline.execute()) if ids else []
        if expired := [session for session, summary in zip(ids, summaries, strict=True) if summary is None]:
            await self._ask(self._redis.zrem(_sessions_of(key), *expired))
        return [summary for summary in summaries if summary is not None]

    async def put_ticket(self, digest: str, session: str, ttl_s: float) -> None:
        await self._ask(self._redis.set(_ticket(digest), session, px=_milliseconds(ttl_s)))

    async def take_ticket(self, digest: str) -> str | None:
        session = cast("bytes | None", await self._ask(self._redis.getdel(_ticket(digest))))
        return None if session is None else session.decode()

    async def sweep(self) -> int:
        """Nothing, 0: Redis forgets by itself, and lists are swept as they are read."""
        return 0

    async def ping(self) -> None:
        await self._ask(self._redis.ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ask(self, answer: Awaitable[Value]) -> Value:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await answer
        except (RedisError, OSError, TimeoutError) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else str(error)
            raise StoreError(f"the store {self._shown} fails: {reason}") from error


def _session(session: str) -> str:
    return f"{_PREFIX}session:{session}"


def _sessions_of(key: str) -> str:
    return f"{_PREFIX}key:{key}"


def _ticket(digest: str) -> str:
    return f"{_PREFIX}ticket:{digest}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _masked(url: str) -> str:
    """``url`` without its password."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    netloc = f"{user}:***{at}{host}" if password else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, query=""))
