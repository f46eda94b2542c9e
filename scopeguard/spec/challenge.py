"""How a refusal is written: ``WWW-Authenticate`` (RFC 6750 section 3, RFC 9110 section 11) and a body, which is a
problem document (RFC 9457) unless the API's style has another.

Every text is a constant or a setting that was checked at construction, so nothing a request contains can reach a
header.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from scopeguard.config.checks import flag, instance, items
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    InsufficientScope,
    InvalidRequest,
    MissingCredentials,
    Reason,
)
from scopeguard.spec.error_body import BodyWriter, ErrorBody, Problem, check_writer, write_body

_QUOTABLE: Final = re.compile(r"[\x20-\x7E]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RESERVED: Final = frozenset(("realm", "scope", "error", "error_description", "error_uri"))
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21\x23-\x5B\x5D-\x7E]+")
DEFAULT_RETRY_AFTER: Final = 5.0
MAX_RETRY_AFTER: Final = 300.0


def quote(value: str) -> str:
    """*value* as a quoted-string (RFC 9110 section 5.6.4); :class:`ConfigurationError` where it cannot be one."""
    if not _QUOTABLE.fullmatch(value):
        raise ConfigurationError(f"{value!r} cannot stand in a header: printable ASCII only")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True)
class Response:
    """A refusal, ready to be sent. Header names are lower case; a name may occur more than once.

    ``body_failure``: why the body is a problem document although the style has a writer of its own, in words for the
    log; ``None`` when nothing went wrong.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_failure: str | None = None

    @property
    def reason_phrase(self) -> str:
        """The words behind the status, for a WSGI status line."""
        return HTTPStatus(self.status).phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeStyle:
    """What every challenge of an API has in common; checked here, at construction.

    * ``realm``: always sent, so a challenge is never a bare ``Bearer``.
    * ``parameters``: further auth-params, sent on every challenge (names are tokens, not one of RFC 6750's).
    * ``error_uri``: an absolute URI with more about an error.
    * ``hide_forbidden``: answer 404 without a challenge wherever it would be 403: were some of them left, they
      would tell what the others hide.
    * ``body``: what stands in the body of every refusal and outage: ``"problem"`` (RFC 9457), ``"google"``, or a
      function from :class:`~scopeguard.spec.error_body.Problem` to media type and bytes. It is tried here, at
      construction. If it fails later, that refusal gets a problem document, and the log says so.
    """

    realm: str
    parameters: tuple[tuple[str, str], ...] = ()
    error_uri: str | None = None
    hide_forbidden: bool = False
    body: ErrorBody | str | BodyWriter = ErrorBody.PROBLEM
    _fixed: str = field(init=False, repr=False)
    _writer: BodyWriter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen = set(_RESERVED)
        parts = [f"realm={_setting(self.realm, 'realm')}"]
        flag(self.hide_forbidden, "hide_forbidden")
        wanted = 'a list of names and values, as in [("error_hint", "see the wiki")]'
        pairs = items(self.parameters, "parameters", wanted)
        for pair in pairs:
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise ConfigurationError(f"parameters: must be {wanted}; one item is a {type(pair).__name__}")
        object.__setattr__(self, "parameters", tuple((name, value) for name, value in pairs))
        for name, value in self.parameters:
            if not _TOKEN.fullmatch(name) or name.lower() in seen:
                raise ConfigurationError(f"challenge parameter {name!r}: not a token, reserved, or given twice")
            seen.add(name.lower())  # RFC 6750 section 3: no attribute more than once, names without case
            parts.append(f"{name}={_setting(value, name)}")
        if self.error_uri is not None:
            instance(self.error_uri, str, "error_uri", "a string")
        if self.error_uri is not None and not _ABSOLUTE_URI.fullmatch(self.error_uri):
            raise ConfigurationError(f"error_uri: {self.error_uri!r} is not an absolute URI in printable ASCII")
        object.__setattr__(self, "_fixed", ", ".join(parts))
        object.__setattr__(self, "_writer", check_writer(self.body))

    def written(self, problem: Problem) -> tuple[tuple[str, bytes], str | None]:
        """Media type and bytes of a body for *problem*, and why they are not those of ``body`` if they are not."""
        return write_body(self._writer, problem)

    @property
    def media_type(self) -> str:
        """Of the body that answers a request without credentials, without parameters: for documents about the API."""
        (kind, _), _ = self.written(_problem(401, MissingCredentials(Reason.NO_CREDENTIALS).description))
        return kind.partition(";")[0]

    def challenge(self, denial: AccessDenied, scopes: tuple[str, ...]) -> str:
        """The value of ``WWW-Authenticate`` for *denial* on a route that needs *scopes*."""
        parts = [self._fixed]
        if denial.error is not None:
            parts.append(f'error="{denial.error}"')
            parts.append(f"error_description={quote(denial.description)}")
            if self.error_uri is not None:
                parts.append(f"error_uri={quote(self.error_uri)}")
        if scopes and not isinstance(denial, InvalidRequest):
            # Scope is not error information: it may stand in a challenge to a caller without a token as well.
            parts.append(f"scope={quote(' '.join(scopes))}")
        return "Bearer " + ", ".join(parts)


def _setting(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}: a string, not {type(value).__name__}")
    try:
        return quote(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def write_denial(
    denial: AccessDenied, style: ChallengeStyle, *, scopes: tuple[str, ...] = (), head: bool = False
) -> Response:
    """*denial* as a response: status, body, ``no-store``, and a challenge unless it is a
    :class:`Forbidden`, which no other token would cure.

    *scopes* are those of the operation. *head*: no body, everything else the same. ``Content-Length`` is that
    of the body a GET would have had.
    """
    if isinstance(denial, InsufficientScope):
        scopes = denial.scopes
    if style.hide_forbidden and denial.status == HTTPStatus.FORBIDDEN:
        nothing = _problem(404, "There is nothing here for this request")
        return _response(nothing, (), style, head=head)
    headers: tuple[tuple[str, str], ...] = ()
    if denial.error is not None or isinstance(denial, MissingCredentials):
        headers = (("www-authenticate", style.challenge(denial, scopes)),)
    return _response(_problem(denial.status, denial.description, denial.error, scopes), headers, style, head=head)


def write_outage(outage: AuthorityUnavailable, style: ChallengeStyle, *, head: bool = False) -> Response:
    """*outage* as a 503 with ``Retry-After`` and no challenge: nothing was judged."""
    text = "The access token could not be checked because the authorization server did not answer; try again"
    return _response(_problem(503, text), (("retry-after", retry_after(outage)),), style, head=head)


def retry_after(outage: AuthorityUnavailable) -> str:
    """``Retry-After`` for *outage*: whole seconds, at least 1 and at most 300."""
    wait = DEFAULT_RETRY_AFTER if outage.retry_after is None else outage.retry_after
    return str(max(1, math.ceil(min(wait, MAX_RETRY_AFTER))))


def _problem(status: int, description: str, error: str | None = None, scopes: tuple[str, ...] = ()) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(status=status, title=title, description=description, error=error, scopes=scopes)


def _response(problem: Problem, headers: tuple[tuple[str, str], ...], style: ChallengeStyle, *, head: bool) -> Response:
    (kind, body), failure = style.written(problem)
    common = (
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Response(problem.status, headers + common, b"" if head else body, failure)


def private_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """*headers* of a response to a request whose URL carried a token, fit for neither shared caches nor Referer:
    ``Cache-Control: private`` in place of ``public`` (RFC 6750 section 2.3), no referrer."""
    kept = [(name, value) for name, value in headers if name.lower() not in ("cache-control", "referrer-policy")]
    given = ",".join(value for name, value in headers if name.lower() == "cache-control").split(",")
    wanted = [directive for directive in map(str.strip, given) if directive]
    wanted = [d for d in wanted if d.lower() != "public" and not d.lower().startswith("s-maxage")]
    if not any(directive.lower() in ("private", "no-store") for directive in wanted):
        wanted.append("private")
    return [*kept, ("cache-control", ", ".join(wanted)), ("referrer-policy", "no-referrer")]
