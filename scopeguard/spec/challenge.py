"""Write refusals: status, ``WWW-Authenticate`` (RFC 6750 section 3, RFC 9110 section 11) and body (RFC 9457).

Every text in a header is a constant, or a setting that was checked at construction. Nothing from a request gets there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from scopeguard.config.checks import flag, instance, items, strings
from scopeguard.config.urls import check_form
from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    InsufficientAuthorizationDetails,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidApiKey,
    InvalidRequest,
    MissingCredentials,
    NonceRequired,
)
from scopeguard.reasons import Reason
from scopeguard.spec.error_body import BodyWriter, ErrorBody, Problem, check_writer, write_body
from scopeguard.spec.retry_after import write_retry_after

_QUOTABLE: Final = re.compile(r"[\x20-\x7E]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_RESERVED: Final = frozenset(("realm", "scope", "error", "error_description", "error_uri", "acr_values", "max_age"))
_ABSOLUTE_URI: Final = r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21\x23-\x5B\x5D-\x7E]+"


def quote(value: str) -> str:
    """Return *value* as a quoted-string (RFC 9110 section 5.6.4).

    Raises :class:`ConfigurationError` for characters outside printable ASCII.
    """
    if not _QUOTABLE.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not allowed in a header: use printable ASCII only")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True)
class Response:
    """A refusal, ready to be sent.

    * ``status``: the HTTP status.
    * ``headers``: names, in lower case, and values. A name may occur more than once.
    * ``body``: the bytes of the body; empty for HEAD.
    * ``body_failure``: the failure of the style's writer, for the log, if the body is a problem document instead.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_failure: str | None = None

    @property
    def reason_phrase(self) -> str:
        """The reason phrase of the status, for a WSGI status line."""
        return HTTPStatus(self.status).phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeStyle:
    """The settings that all refusals of an API share.

    ::

        ChallengeStyle(realm="warehouse", error_uri="https://docs.example.com/errors", hide_forbidden=True)

    * ``realm``: sent in every challenge. RFC 6750 section 3: the scheme "MUST be followed by one or more auth-param
      values".
    * ``parameters``: pairs of names and values, added to every challenge (auth-params of RFC 9110 section 11.2), such
      as ``resource_metadata`` (RFC 9728 section 5.1). The names of RFC 6750 and RFC 9470, such as ``scope`` and
      ``max_age``, are reserved.
    * ``error_uri``: an absolute URI of a page about errors, added to challenges with an error code.
    * ``hide_forbidden``: send 404 without a challenge instead of every 403, so that clients cannot tell which paths
      exist.
    * ``resource_metadata``: the URL of the metadata of the protected resource (RFC 9728 section 5.1). The guard fills
      it in if it serves the metadata.
    * ``dpop_algorithms``: the algorithms of DPoP proofs (RFC 9449 section 7.1). A challenge with the scheme ``DPoP``
      names them. It follows the one with ``Bearer``, unless *dpop_only* is set. The guard sets both.
    * ``body``: the format of the bodies of refusals and outages: ``"problem"`` (RFC 9457), ``"google"``, or a function
      that takes a :class:`Problem` and returns a media type and bytes. The constructor tries the function. If it fails
      later, that response has a problem document instead, and the log says so.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    realm: str
    parameters: tuple[tuple[str, str], ...] = ()
    error_uri: str | None = None
    hide_forbidden: bool = False
    body: ErrorBody | str | BodyWriter = ErrorBody.PROBLEM
    resource_metadata: str | None = None
    dpop_algorithms: tuple[str, ...] = ()
    dpop_only: bool = False
    _fixed: str = field(init=False, repr=False)
    _writer: BodyWriter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen = set(_RESERVED)
        parts = [f"realm={_quote_setting(self.realm, 'realm')}"]
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
            # RFC 9110 section 11.2: "the name token is matched case-insensitively and each parameter name MUST only
            # occur once per challenge."
            seen.add(name.lower())
            parts.append(f"{name}={_quote_setting(value, name)}")
        if self.error_uri is not None:
            instance(self.error_uri, str, "error_uri", "a string")
        if self.error_uri is not None and not re.fullmatch(_ABSOLUTE_URI, self.error_uri):
            raise ConfigurationError(f"error_uri: {self.error_uri!r} is not an absolute URI in printable ASCII")
        object.__setattr__(self, "dpop_algorithms", strings(self.dpop_algorithms, "dpop_algorithms", empty=False))
        flag(self.dpop_only, "dpop_only")
        if self.resource_metadata is not None:
            check_form(self.resource_metadata, "resource_metadata")
        object.__setattr__(self, "_fixed", ", ".join(parts))
        object.__setattr__(self, "_writer", check_writer(self.body))

    def make_body(self, problem: Problem) -> tuple[tuple[str, bytes], str | None]:
        """Return the body for *problem*, as media type and bytes, and the failure of the writer, or ``None``."""
        return write_body(self._writer, problem)

    @property
    def media_type(self) -> str:
        """The media type of refusals, without parameters, for documents about the API such as OpenAPI."""
        (kind, _), _ = self.make_body(_problem(401, MissingCredentials(Reason.NO_CREDENTIALS).description))
        return kind.partition(";")[0]

    def challenges(self, denial: AccessDenied, scopes: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the values of ``WWW-Authenticate`` for *denial* on a route that requires *scopes*.

        A route that accepts API keys only has the scheme ``ApiKey``, which is not registered: HTTP demands a challenge
        (RFC 9110 section 15.5.2), has no scheme for keys in a field of their own, and ``Bearer`` would make clients get
        a token that the route refuses. Routes that accept both have ``Bearer`` alone.

        Otherwise there is one for each scheme that the API accepts. RFC 9449 section 7.2: if the request used one of
        them, "the resource server SHOULD [...] include the error parameter only in the challenge for the scheme" that
        was used. A 403 has that challenge alone, because another scheme would not help.
        """
        if denial.api_key_header is not None:
            return (f"ApiKey {self._fixed}, header={quote(denial.api_key_header)}",)
        found = []
        is_ambiguous = isinstance(denial, InvalidRequest)  # such as credentials of both schemes
        for scheme in self.schemes:
            is_used = (scheme == "DPoP") is denial.is_dpop or is_ambiguous or len(self.schemes) == 1
            if is_used or denial.status != HTTPStatus.FORBIDDEN:
                found.append(self._challenge(scheme, denial, scopes, has_error=is_used))
        return tuple(found)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The authentication schemes that the API accepts."""
        if not self.dpop_algorithms:
            return ("Bearer",)
        return ("DPoP",) if self.dpop_only else ("Bearer", "DPoP")

    def _challenge(self, scheme: str, denial: AccessDenied, scopes: tuple[str, ...], *, has_error: bool) -> str:
        parts = [self._fixed]
        if scheme == "DPoP":
            parts.append(f"algs={quote(' '.join(self.dpop_algorithms))}")
        if denial.error is not None and has_error:
            parts.append(f'error="{denial.error}"')
            parts.append(f"error_description={quote(denial.description)}")
            if self.error_uri is not None:
                parts.append(f"error_uri={quote(self.error_uri)}")
        if isinstance(denial, InsufficientUserAuthentication) and has_error:
            # RFC 9470 section 3: "acr_values" is a "space-separated string listing the authentication context class
            # reference values in order of preference", "max_age" is in seconds.
            if denial.acr_values:
                parts.append(f"acr_values={quote(' '.join(denial.acr_values))}")
            if denial.max_age is not None:
                parts.append(f'max_age="{denial.max_age}"')
        if scopes and not isinstance(denial, InvalidRequest):
            # The scope is sent to a request without credentials, too. RFC 6750 section 3.1 advises against "an error
            # code or other error information" there, and the scope is neither.
            parts.append(f"scope={quote(' '.join(scopes))}")
        if self.resource_metadata is not None:
            parts.append(f"resource_metadata={quote(self.resource_metadata)}")
        return f"{scheme} " + ", ".join(parts)


def _quote_setting(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}: must be a string, not {type(value).__name__}")
    try:
        return quote(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def write_denial(
    denial: AccessDenied, style: ChallengeStyle, *, scopes: tuple[str, ...] = (), head: bool = False
) -> Response:
    """Return the response to a request that *denial* denies.

    It has a challenge, unless *denial* is a :class:`~scopeguard.errors.Forbidden`, which another token would not
    change, or a 403 for an API key: the challenge is about tokens. It has ``Cache-Control: no-store``.

    *scopes* are those of the route. With *head*, the body is empty, and ``Content-Length`` is that of the response to
    GET (RFC 9110 section 8.6).
    """
    if isinstance(denial, InsufficientScope | InsufficientUserAuthentication):
        scopes = denial.scopes
    elif isinstance(denial, InsufficientAuthorizationDetails):
        scopes = ()  # no scope would help
    if style.hide_forbidden and denial.status == HTTPStatus.FORBIDDEN:
        nothing = _problem(404, "There is nothing here for this request")
        return _response(nothing, (), style, head=head)
    headers: tuple[tuple[str, str], ...] = ()
    has_challenge = denial.error is not None or isinstance(denial, MissingCredentials | InvalidApiKey)
    if has_challenge and not (denial.is_api_key and denial.status == HTTPStatus.FORBIDDEN):
        headers = tuple(("www-authenticate", value) for value in style.challenges(denial, scopes))
    if isinstance(denial, NonceRequired) and denial.nonce is not None:
        headers = (*headers, ("dpop-nonce", denial.nonce))
    return _response(_problem(denial.status, denial.description, denial.error, scopes), headers, style, head=head)


def write_outage(outage: AuthorityUnavailable, style: ChallengeStyle, *, head: bool = False) -> Response:
    """Return the response during *outage*: 503 with ``Retry-After``, without a challenge.

    A challenge would tell the client to get another token, although nothing is known to be wrong with this one.
    """
    return _response(_problem(503, outage.description), (("retry-after", write_retry_after(outage)),), style, head=head)


def _problem(status: int, description: str, error: str | None = None, scopes: tuple[str, ...] = ()) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(status=status, title=title, description=description, error=error, scopes=scopes)


def _response(problem: Problem, headers: tuple[tuple[str, str], ...], style: ChallengeStyle, *, head: bool) -> Response:
    (kind, body), failure = style.make_body(problem)
    common = (
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Response(problem.status, headers + common, b"" if head else body, failure)
