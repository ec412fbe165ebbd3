"""Logs as JSON lines on standard error: our own and those of the libraries.

A log is read by more people than may use the service, so every line passes ``guard`` last: what names a secret is
masked, what looks like one within a text is too, and of images and other bytes there is only their length.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from typing import Any, Final

import structlog

MASK: Final = "***"
MAX_REPR = 200  # characters of a value that is not plain data; texts are not cut, a traceback is worth its length
MAX_DEPTH = 4

_SECRET_WORDS: Final = frozenset(
    ("authorization", "cookie", "credential", "jwt", "key", "passwd", "password", "secret", "ticket", "token")
)
# What tells where a secret is, or which, and is none itself: api_key_id, keys_file, ticket_expires_in.
_ABOUT: Final = frozenset(("digest", "expires", "file", "id", "in", "issuer", "length", "name", "s"))
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")

_SECRETS_IN_TEXT: Final = (
    # Authorization: Bearer …, in a header, a repr of headers, or a sentence
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}"), rf"\1\2{MASK}"),
    # a credential among the WebSocket's subprotocols
    (re.compile(r"\b(duotrack\.(?:ticket|resume)\.)[\w-]+"), rf"\1{MASK}"),
    # a JSON Web Token, wherever it stands
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),
    # 256 bits in base64url, as our keys, tickets and resume tokens are; a session id has half as many
    (re.compile(r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{43,}"), MASK),
    # the password of a store's URL
    (re.compile(r"(\w+://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),
    # ?ticket=…, "token": "…"
    (
        re.compile(
            r"""(?i)((?:authorization|cookie|password|secret|ticket|token|api[-_]?key)(?:=|["']\s*:\s*["']))[^\s"'&,;]+"""
        ),
        rf"\1{MASK}",
    ),
)


def guard(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A processor that lets neither secrets nor payloads through. It belongs right before the renderer."""
    return {name: presentable(name, value) for name, value in event.items()}


def presentable(name: str, value: object, depth: int = MAX_DEPTH) -> Any:
    """``value`` as plain data that may be shown under ``name``: masked where that is a secret's, bytes as a length."""
    if value is None or isinstance(value, bool):
        return value
    if _names_secret(name):
        return MASK
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _scrub(str(value))
    if (length := _bytes_in(value)) is not None:
        return f"<{length} bytes>"
    if depth == 0:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return {_scrub(str(key)): presentable(str(key), item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [presentable(name, item, depth - 1) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: presentable(field.name, getattr(value, field.name), depth - 1) for field in fields(value)}
    return _scrub(str(value))[:MAX_REPR]


def session(session_id: str) -> AbstractContextManager[None]:
    """Every line of a ``with`` block carries the session, those of libraries and of tasks made in the block too."""
    return structlog.contextvars.bound_contextvars(session=session_id)


_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
OURS: Final = ("duotrack", "duotrack_service", "duotrack_client")


def configure(level: str) -> None:
    """Log from ``level`` (debug, info, warning, error) on.

    Debug is for our own loggers: those of the libraries write out every header and the start of every message.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    wanted = logging.getLevelName(level.upper())
    logging.basicConfig(handlers=[handler], level=max(wanted, logging.INFO), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(wanted)


def formatter() -> structlog.stdlib.ProcessorFormatter:
    """Log records as JSON lines: structlog's and those of the standard library."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            guard,
            structlog.processors.JSONRenderer(),
        ],
    )


def _names_secret(name: str) -> bool:
    """Whether a field of that name holds a secret: ``api_key``, ``resumeToken``, ``X-Ticket``, ``tokens``."""
    words = [word.lower() for word in _WORD.findall(name)]
    return (
        bool(words)
        and words[-1] not in _ABOUT
        and any(word in _SECRET_WORDS or word.removesuffix("s") in _SECRET_WORDS for word in words)
    )


def _bytes_in(value: Any) -> int | None:
    """The length of what holds bytes: bytes, views of memory, arrays; None of anything else."""
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):
        return None
    return view.nbytes if view.ndim else None  # a single number of NumPy is a number


def _scrub(text: str) -> str:
    for pattern, replacement in _SECRETS_IN_TEXT:
        text = pattern.sub(replacement, text)
    return text
