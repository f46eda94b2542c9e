"""Write the body of a refusal: a problem document (RFC 9457), the format of Google's APIs, or a format of the API.

Writers get a :class:`Problem`, which contains only what clients may know: neither the token nor the reason code.
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
    """The content of the body of a refusal, as passed to a function that writes one (``ChallengeStyle.body``).

    * ``status``: the HTTP status.
    * ``title``: the reason phrase of the status.
    * ``description``: a constant text, or the text for the user of a policy decision.
    * ``error``: the OAuth error code (RFC 6750 section 3.1), or ``None``.
    * ``scopes``: the scopes of the route, as the challenge names them. It is empty if the challenge names none.

    ::

        def body(problem: Problem) -> tuple[str, bytes]:
            return "application/json", json.dumps({"message": problem.description}).encode()
    """

    status: int
    title: str
    description: str
    error: str | None = None
    scopes: tuple[str, ...] = ()


BodyWriter = Callable[[Problem], tuple[str, bytes]]
"""A function that returns the media type and the bytes of a body. It is called for every refusal, and must be quick."""


class ErrorBody(StrEnum):
    """The formats of bodies that scopeguard can write."""

    PROBLEM = "problem"  # application/problem+json (RFC 9457)
    GOOGLE = "google"  # {"error": {"code": 403, ..., "status": "PERMISSION_DENIED"}}, which Google's clients expect


def check_writer(body: ErrorBody | str | BodyWriter) -> BodyWriter:
    """Return the writer that *body* names, or *body* itself if it is a function.

    Calls the function with a problem of each kind. Raises :class:`ConfigurationError` if it fails, or does not return a
    media type and bytes.
    """
    if isinstance(body, str):
        if body not in _WRITERS:
            raise ConfigurationError(f"body: must be one of {', '.join(_WRITERS)}, or a function, not {body!r}")
        return _WRITERS[body]
    if not callable(body):
        raise ConfigurationError(
            f"body: must be one of {', '.join(_WRITERS)}, or a function, not {type(body).__name__}"
        )
    for problem in _SAMPLES:
        _, failure = write_body(body, problem)
        if failure is not None:
            raise ConfigurationError(f"body: {failure} for a {problem.status}")
    return body


def write_body(writer: BodyWriter, problem: Problem) -> tuple[tuple[str, bytes], str | None]:
    """Return the body that *writer* makes of *problem*, as media type and bytes, and ``None``.

    If *writer* fails, return a problem document and a description of the failure for the log. A refusal must not become
    a 500.
    """
    try:
        made: object = writer(problem)  # object: a function of the API may return anything
    except Exception as error:  # noqa: BLE001 - a function of the API may raise anything
        # The text of the error is left out, because it could contain a secret.
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
    """Return *problem* as a problem document (RFC 9457), with ``error`` and ``error_description`` of RFC 6750."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.description,
    }
    if problem.error is not None:
        document |= {"error": problem.error, "error_description": problem.description}
    return "application/problem+json", json.dumps(document).encode("ascii")


# By HTTP status: google.rpc.Code, and the older word in ``errors[].reason``. Clients depend on the latter: Google's
# client for BigQuery tries again after "backendError", but not after the others.
_GOOGLE: Final = {
    401: ("UNAUTHENTICATED", "authError"),
    403: ("PERMISSION_DENIED", "forbidden"),
    404: ("NOT_FOUND", "notFound"),
    503: ("UNAVAILABLE", "backendError"),
}
_GOOGLE_DEFAULT: Final = ("INVALID_ARGUMENT", "badRequest")


def google_json(problem: Problem) -> tuple[str, bytes]:
    """Return *problem* in the format of Google's JSON APIs: google.rpc.Status, with the older list ``errors``.

    The reasons are those of Google: ``required`` without credentials, ``authError`` for a bad token,
    ``insufficientPermissions`` for a missing scope. There are no ``details``: their ErrorInfo names a domain of Google.
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
        description="A sample, to try the writer when it is configured",
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
