"""Errors over HTTP as problem documents (RFC 9457)."""

from __future__ import annotations

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


def too_many_sessions(limit: int) -> Problem:
    """The service is full."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too-many-sessions",
        "Too many sessions",
        f"all {limit} sessions of this service are taken: end one, or try again later",
        {"Retry-After": "5"},
    )


def stopping() -> Problem:
    """The service is about to stop."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "stopping",
        "The service is stopping",
        "no new session is taken: try again in a moment",
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
