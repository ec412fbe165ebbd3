"""Errors over HTTP as problem documents (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An error to be answered over HTTP.

    Args:
        status: the HTTP status.
        name: the last part of the document's ``type``, ``urn:duotrack:problem:<name>``.
        title: what went wrong in general.
        detail: what went wrong this time, with the value and what would be right.
        headers: more headers of the answer.
    """

    def __init__(
        self, status: HTTPStatus, name: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.title = title
        self.detail = detail
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer with the problem document."""
        kind = f"urn:duotrack:problem:{self.name}"
        return problem_response(self.status, kind, self.title, self.detail, headers=self.headers)


def no_session(session_id: str) -> Problem:
    """There is no such session, or it has ended."""
    return Problem(
        HTTPStatus.NOT_FOUND, "no-session", "No such session", f"session {session_id!r} does not exist or has ended"
    )


def unknown_model(name: str, known: Sequence[str]) -> Problem:
    """The service does not run the model that was asked for."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown-model",
        "No such model",
        f"expected a model among {', '.join(known)}, got {name!r}",
    )


def too_many_sessions(limit: int, whose: str = "this service") -> Problem:
    """The service, or one principal, has all the sessions that it may have."""
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too-many-sessions",
        "Too many sessions",
        f"all {limit} sessions of {whose} are taken: end one, or try again later",
        {"Retry-After": "5"},
    )


def too_fast(seconds: float, what: str) -> Problem:
    """A principal asks for more than its rate."""
    wait = max(1, math.ceil(seconds))
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too-fast",
        "Too fast",
        f"{what}: try again in {wait} s",
        {"Retry-After": str(wait)},
    )


def unauthorized(reason: str) -> Problem:
    """The request has no valid key."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "Not authorized",
        reason,
        {"WWW-Authenticate": 'Bearer realm="duotrack"'},
    )


def streaming(session_id: str) -> Problem:
    """A frame comes over HTTP while a WebSocket feeds the session."""
    return Problem(
        HTTPStatus.CONFLICT,
        "streaming",
        "The session has a stream",
        f"session {session_id!r} is fed over its WebSocket, or by another request: send frames one way at a time",
    )


def rejected_frame(code: str, reason: str, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY) -> Problem:
    """A frame pair over HTTP that cannot be used; ``code`` as in the stream's ``error`` messages."""
    return Problem(status, code.replace("_", "-"), "The frame pair cannot be used", reason)


def store_down() -> Problem:
    """What was asked for is known to the store only, and the store cannot be reached."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "store-down",
        "Stored sessions cannot be reached",
        "the store does not answer: try again in a moment",
        {"Retry-After": "1"},
    )


def stopping() -> Problem:
    """The service is about to stop."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "stopping",
        "The service is stopping",
        "nothing new is taken: try again in a moment",
        {"Retry-After": "1"},
    )


def forbidden_origin(origin: str) -> Problem:
    """A web page of another site tries to open a stream."""
    return Problem(
        HTTPStatus.FORBIDDEN, "forbidden-origin", "Origin not allowed", f"pages of {origin!r} may not open streams"
    )


def body_too_long(limit: int) -> Problem:
    """The body of a request is longer than any request needs."""
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-long",
        "Request body too long",
        f"expected a body of at most {limit} bytes",
    )


def body_too_slow(seconds: float) -> Problem:
    """The body of a request does not arrive."""
    return Problem(
        HTTPStatus.REQUEST_TIMEOUT,
        "body-too-slow",
        "Request body too slow",
        f"expected the whole body within {seconds:g} s",
        {"Connection": "close"},
    )


def busy() -> Problem:
    """More frames wait than the service has memory for."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        "Too many frames wait",
        "there is no room for another frame pair: try again in a moment",
        {"Retry-After": "1"},
    )


def internal() -> Problem:
    """The service failed. The log has the details, the client gets none."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal",
        HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
        "the service met an error of its own and has logged it",
    )


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)


def problem_response(
    status: int,
    kind: str,
    title: str,
    detail: str | None = None,
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer with a problem document."""
    document: dict[str, Any] = {"type": kind, "title": title, "status": int(status)}
    if detail:
        document["detail"] = detail
    if errors is not None:
        document["errors"] = errors
    return JSONResponse(document, status_code=int(status), media_type=MEDIA_TYPE, headers=headers)


async def _answer_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response()


async def _answer_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # The input is not repeated: it may hold NaN, which JSON cannot carry, or be of any length.
    errors = [{"field": ".".join(map(str, item["loc"])), "message": str(item["msg"])} for item in error.errors()]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "urn:duotrack:problem:invalid-request",
        "The request is not valid",
        detail,
        errors=errors,
    )


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != title else None
    return problem_response(error.status_code, "about:blank", title, detail, headers=error.headers)


async def _answer_unexpected(_: Request, __: Exception) -> JSONResponse:
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "about:blank",
        HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
        "the service met an error of its own and has logged it",
    )
