"""What stands in the body of a refusal: a problem document (RFC 9457), Google's error shape, or an API's own.

A writer sees a :class:`Problem`, and everything in one is meant for the client: constants, the status, the scopes of
the operation. Neither the token nor the reason is there to be told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from scopeguard.errors import ConfigurationError

_MEDIA_TYPE: Final = re.compile(r"[!#$&^_.+\-0-9A-Za-z]+/[!#$&^_.+\-0-9A-Za-z]+(?:; *[\x21-\x7E][\x20-\x7E]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a client may be told about a refusal.

    ``error`` is the OAuth error code of RFC 6750 section 3.1, ``None`` where there is none. ``scopes`` are those that
    would do, as the challenge names them.
    """

    status: int
    title: str
    description: str
    error: str | None = None
    scopes: tuple[str, ...] = ()


BodyWriter = Callable[[Problem], tuple[str, bytes]]
"""From a problem to the media type and the bytes of a body. Called for every refusal: pure, quick, and never async."""


class ErrorBody(StrEnum):
    """The bodies that are ready to be used."""

    PROBLEM = "problem"  # application/problem+json (RFC 9457)
    GOOGLE = "google"  # {"error": {"code": 403, ..., "status": "PERMISSION_DENIED"}}, as Google's clients read it


def check_writer(body: ErrorBody | str | BodyWriter) -> BodyWriter:
    """The writer that *body* is or names. It is tried on one problem of each kind; :class:`ConfigurationError` for one
    that fails, or that does not return a media type and bytes."""
    if isinstance(body, str):
        if body not in _WRITERS:
            raise ConfigurationError(f"body: {body!r} is none of {', '.join(_WRITERS)}; or give a function")
        return _WRITERS[body]
    if not callable(body):
        raise ConfigurationError(f"body: one of {', '.join(_WRITERS)}, or a function, not {type(body).__name__}")
    for problem in _SAMPLES:
        _, failure = write_body(body, problem)
        if failure is not None:
            raise ConfigurationError(f"body: {failure} for a {problem.status}")
    return body


def write_body(writer: BodyWriter, problem: Problem) -> tuple[tuple[str, bytes], str | None]:
    """Media type and bytes by *writer*, and ``None``; if it fails, those of a problem document, and why in words for
    the log. A refusal stays a refusal whatever a writer does, and never becomes a 500."""
    try:
        made: object = writer(problem)  # an API's own: what its type promises is looked at
    except Exception as error:  # noqa: BLE001 - whatever an API's own writer raises
        # The type alone: its text could hold anything, and what is logged holds no token.
        return problem_json(problem), f"the body writer raised {type(error).__name__}"
    if isinstance(made, Coroutine):
        made.close()
    match made:
        case (str(kind), bytes(content)) if _MEDIA_TYPE.fullmatch(kind):
            return (kind, content), None
        case (str(), bytes()):
            failure = "something that is not a media type"
        case _:
            failure = f"{type(made).__name__}, not a media type and bytes"
    return problem_json(problem), f"the body writer returned {failure}"


def problem_json(problem: Problem) -> tuple[str, bytes]:
    """RFC 9457, with the members of RFC 6750 section 3 beside its own where there is an error code."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.description,
    }
    if problem.error is not None:
        document |= {"error": problem.error, "error_description": problem.description}
    return "application/problem+json", json.dumps(document).encode("ascii")


# google.rpc.Code by HTTP status, and the word that Google's JSON APIs have long used for it in ``errors[].reason``.
# Clients decide by the latter: Google's own for BigQuery tries again after "backendError" and not after the others.
_GOOGLE: Final = {
    401: ("UNAUTHENTICATED", "authError"),
    403: ("PERMISSION_DENIED", "forbidden"),
    404: ("NOT_FOUND", "notFound"),
    503: ("UNAVAILABLE", "backendError"),
}
_GOOGLE_DEFAULT: Final = ("INVALID_ARGUMENT", "badRequest")


def google_json(problem: Problem) -> tuple[str, bytes]:
    """As Google's JSON APIs write errors: the object of google.rpc.Status with the older list of ``errors`` inside.

    The reasons are Google's: ``required`` for no credentials, ``authError`` for bad ones, ``insufficientPermissions``
    for a missing scope. There are no ``details``: their ErrorInfo would speak for a domain that is not ours.
    """
    status, reason = _GOOGLE.get(problem.status, _GOOGLE_DEFAULT)
    item = {"message": problem.description, "domain": "global", "reason": reason}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        item |= {"location": "Authorization", "locationType": "header"}
        item["reason"] = "required" if problem.error is None else reason
    elif problem.error == "insufficient_scope":
        item["reason"] = "insufficientPermissions"
    error = {"code": problem.status, "message": problem.description, "errors": [item], "status": status}
    return "application/json; charset=UTF-8", json.dumps({"error": error}).encode("ascii")


_WRITERS: Final[dict[str, BodyWriter]] = {ErrorBody.PROBLEM: problem_json, ErrorBody.GOOGLE: google_json}
_SAMPLES: Final = tuple(
    Problem(
        status=status,
        title=HTTPStatus(status).phrase,
        description="Tried when it was configured",
        error=error,
        scopes=("read", "write") if error == "insufficient_scope" else (),
    )
    for status, error in (
        (400, "invalid_request"),
        (401, None),
        (401, "invalid_token"),
        (403, "insufficient_scope"),
        (403, None),
        (404, None),
        (503, None),
    )
)
