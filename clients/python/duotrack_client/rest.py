"""The HTTP side of a session, without I/O: what is asked for, and what the answers mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx2

from duotrack_client.errors import ConnectionFailed, Problem, ProtocolError, ServerError
from duotrack_client.protocol import Box, CloseCode, Mode

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """What the service says of a new session.

    Attributes:
        id: its id.
        stream_url: the absolute ``ws://`` or ``wss://`` URL of its stream.
        resume_token: opens the stream, as often as needed; None where the service gives none.
    """

    id: str
    stream_url: str
    resume_token: str | None = field(default=None, repr=False)


def base_url(url: str) -> str:
    """``url`` of a service, checked, with a final slash so that paths can be joined to it.

    Raises:
        ConnectionFailed: it is no http or https URL.
    """
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket without its other, a port that is no number, an empty part of a name
        sound = False
    if not sound:
        raise ConnectionFailed(f"expected the URL of a service such as http://127.0.0.1:8000, got {url!r}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + "/", "", ""))


def create_request(
    box: Box, mode: Mode, model: str | None, options: Mapping[str, bool] | None = None, ttl: float | None = None
) -> dict[str, Any]:
    """The JSON body of ``POST /v1/sessions``."""
    body: dict[str, Any] = {"box": asdict(box), "mode": mode.value}
    optional = {"model": model, "options": dict(options) if options else None, "ttl": ttl}
    return body | {name: value for name, value in optional.items() if value is not None}


def find_key(api_key: str | None) -> str | None:
    """``api_key``, or the one in the environment, without the end of the line that it may have been read with.

    Raises:
        ConnectionFailed: no header can carry it. The message does not repeat it.
    """
    key = (os.environ.get("DUOTRACK_API_KEY") if api_key is None else api_key) or ""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ConnectionFailed("the API key has characters that no key has: was it copied whole, and nothing else?")
    return key or None


def headers(api_key: str | None) -> dict[str, str]:
    """The headers of every request."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def read_created(response: httpx2.Response) -> CreatedSession:
    """The new session in the answer to ``POST /v1/sessions``.

    Raises:
        ServerError: the service refused.
        ProtocolError: the answer is not one that this client understands.
    """
    document = read_json(response)
    try:
        session_id, stream_url = str(document["id"]), urljoin(str(response.request.url), str(document["stream_url"]))
        parts = urlsplit(stream_url)
        stream_url = urlunsplit(parts._replace(scheme=_WEBSOCKET_SCHEMES[parts.scheme]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"expected a session with an id and a stream_url, got {response.text[:200]!r}", CloseCode.PROTOCOL_ERROR
        ) from error
    token = document.get("resume_token")
    return CreatedSession(session_id, stream_url, None if token is None else str(token))


def read_json(response: httpx2.Response) -> Any:
    """The JSON document in a successful answer.

    Raises:
        ServerError: the answer is an error.
        ProtocolError: it is not JSON.
    """
    raise_for_problem(response)
    try:
        return response.json()
    except ValueError as error:
        raise ProtocolError(
            f"expected JSON from {response.request.url}, got {response.text[:200]!r}: is this a DuoTrack service?",
            CloseCode.PROTOCOL_ERROR,
        ) from error


def raise_for_problem(response: httpx2.Response) -> None:
    """Raise the error of an unsuccessful answer.

    Raises:
        ServerError: the status is not 2xx.
    """
    if response.is_success:
        return
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    problem = Problem(
        status=response.status_code,
        title=str(document.get("title") or response.reason_phrase or "error"),
        detail=str(document.get("detail") or ""),
        type=str(document.get("type") or "about:blank"),
    )
    raise ServerError(problem)
