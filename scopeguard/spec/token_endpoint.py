"""Write client credentials requests and parse token responses: RFC 6749 sections 2.3.1, 4.4 and 5, RFC 8707."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

from scopeguard.spec.credentials import is_token
from scopeguard.spec.strict_json import MalformedJSON, parse_object

LONGEST_LIFETIME: Final = 10 * 365 * 86400.0
"""Seconds. Longer lifetimes are reduced to this. Some servers send 2**63 for tokens that do not expire."""

RESERVED_PARAMETERS: Final = frozenset(
    (
        "grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type",
        "scope", "audience",
    )
)  # fmt: skip
"""Parameters that have settings of their own.

RFC 6749 section 3.2: "Request and response parameters MUST NOT be included more than once."
"""

OTHER_TOKEN_TYPES: Final = frozenset(("dpop", "mac", "pop", "n_a"))
"""Token types that are or were registered for something other than bearer tokens."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3
_ERROR_TEXT: Final = re.compile(r"[\x20\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 appendix A.7
_ERROR_URI: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # appendix A.9
_DIGITS: Final = re.compile(r"[0-9]{1,30}")
_MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Deviations from RFC 6749 section 5.1 that are accepted in the responses of one token endpoint.

    * ``token_types``: accepted values of ``token_type``, in lower case: those that this server uses for bearer tokens,
      and ``dpop`` if the request has a proof.
    * ``token_type_optional``: without ``token_type``, the token is a bearer token.
    * ``scope_list``: ``scope`` may be an array of scopes.
    """

    token_types: frozenset[str] = frozenset(("bearer",))
    token_type_optional: bool = False
    scope_list: bool = False


STRICT: Final = Tolerance()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A successful response: RFC 6749 section 5.1. Other members, a refresh token included, are dropped.

    * ``token_type``: as the server sent it, or ``"Bearer"`` if it is optional and absent.
    * ``expires_in``: seconds, from 0 to ten years; ``None`` if the server sent no lifetime.
    * ``scope``: the granted scopes; ``None`` if the server sent none, so the requested scopes were granted.
    * ``issued_token_type``: the kind of token that a token exchange issued (RFC 8693 section 2.2.1); ``None`` if the
      server sent no string.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: float | None
    scope: tuple[str, ...] | None
    issued_token_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefusal:
    """A response without a usable token, which a retry would not change: an OAuth error, or a malformed response.

    * ``problem``: a description of the problem, without quoting the response.
    * ``error`` and ``uri``: as the server sent them, or ``None`` if they do not conform to RFC 6749 appendix A.
    * ``description``: as the server sent it, with unprintable characters escaped and at most 300 characters long.
    """

    status: int
    problem: str
    error: str | None = None
    description: str | None = None
    uri: str | None = None


def basic_authorization(client_id: str, client_secret: str) -> str:
    """Return the ``Authorization`` value for ``client_secret_basic``: RFC 6749 section 2.3.1.

    ``- . _ ~ *`` are not encoded: every decoder accepts them literally, and servers that omit the decoding need them
    literally.
    """
    # RFC 6749 section 2.3.1: "The client identifier is encoded using the "application/x-www-form-urlencoded" encoding
    # algorithm per Appendix B, and the encoded value is used as the username; the client password is encoded using the
    # same algorithm and used as the password."
    pair = f"{quote_plus(client_id, safe='*')}:{quote_plus(client_secret, safe='*')}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def client_credentials_form(
    *,
    scopes: Iterable[str] = (),
    resources: Iterable[str] = (),
    audiences: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> tuple[tuple[str, str], ...]:
    """Return the form parameters of a client credentials request without client authentication: RFC 6749 section 4.4.2.

    Empty values are omitted. Only ``resource`` and ``audience`` may occur more than once (RFC 8707 section 2).
    """
    form = [("grant_type", "client_credentials"), ("scope", " ".join(scopes))]
    form += (("resource", resource) for resource in resources)
    form += (("audience", audience) for audience in audiences)
    form += (parameters or {}).items()
    return tuple((name, value) for name, value in form if value)


def parse_token_response(status: int, body: bytes, tolerance: Tolerance = STRICT) -> TokenResponse | TokenRefusal:
    """Parse the response of a token endpoint strictly, except for the deviations in *tolerance*.

    Call it only if :func:`is_outage` returns false for *status*.

    Checked: status 200; one strict JSON object; ``access_token`` can be sent unambiguously in a header; ``token_type``
    is one of the accepted types, in any case; ``expires_in`` is a whole number or a string of digits; ``scope`` follows
    the grammar of RFC 6749 section 3.3. ``null`` counts as absent. NOT checked: the content type, and the content of
    the token, which is opaque to clients (RFC 9068 section 6).
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        if status == 200:
            return TokenRefusal(status=status, problem=f"the response is {error}")
        members = {}
    if status != 200:
        problem = "redirects of a token endpoint are not followed" if 300 <= status < 400 else "no token was issued"
        return _refusal(status, members, problem)
    try:
        return _token(members, tolerance)
    except _UnusableResponse as unusable:
        return _refusal(status, members, str(unusable))


class _UnusableResponse(ValueError):
    """The response has no usable token. The message is constant, since the response may contain a token."""


def _token(members: Mapping[str, Any], tolerance: Tolerance) -> TokenResponse:
    token, kind = members.get("access_token"), members.get("token_type")
    issued = members.get("issued_token_type")
    if kind is None and tolerance.token_type_optional:
        kind = "Bearer"
    if not isinstance(token, str) or not isinstance(kind, str):
        raise _UnusableResponse("access_token or token_type is missing or not a string")
    # RFC 6749 section 7.1: "The client MUST NOT use an access token if it does not understand the token type."
    if kind.lower() not in tolerance.token_types:
        # RFC 9449 section 5: "If the client requires [...] a DPoP-bound access token, the client MUST discard the
        # response".
        if tolerance.token_types == {"dpop"}:
            raise _UnusableResponse(
                "token_type is not DPoP although a proof was sent, so the token is not bound to the key; if such "
                "tokens are acceptable, set dpop_optional"
            )
        raise _UnusableResponse(
            "token_type is not Bearer, and no other type is supported; if this server uses another name for bearer "
            "tokens, set token_types"
        )
    if not is_token(token):
        raise _UnusableResponse(
            "access_token has characters that cannot be sent unambiguously in an Authorization header"
        )
    return TokenResponse(
        access_token=token,
        token_type=kind,
        expires_in=_lifetime(members.get("expires_in")),
        scope=_scope(members.get("scope"), tolerance),
        issued_token_type=issued if isinstance(issued, str) else None,
    )


def _lifetime(value: Any) -> float | None:
    if value is None:
        return None
    # Some servers send the number as a string.
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole:
        raise _UnusableResponse("expires_in is not a whole number of seconds")
    return float(min(max(value, 0), LONGEST_LIFETIME))


def _scope(value: Any, tolerance: Tolerance) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and tolerance.scope_list:
        scopes = tuple(value)
    elif isinstance(value, str):
        # Some servers send several spaces between scopes, or an empty string.
        scopes = tuple(filter(None, value.split(" ")))
    else:
        raise _UnusableResponse("scope is not a string; if this server sends an array, set scope_list")
    if not all(isinstance(scope, str) and _SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise _UnusableResponse("scope has characters that RFC 6749 section 3.3 does not allow")
    return scopes


def _refusal(status: int, members: Mapping[str, Any], problem: str) -> TokenRefusal:
    description = members.get("error_description")
    return TokenRefusal(
        status=status,
        problem=problem,
        error=_text_in_grammar(members.get("error"), _ERROR_TEXT),
        description=_one_line(description) if isinstance(description, str) else None,
        uri=_text_in_grammar(members.get("error_uri"), _ERROR_URI),
    )


def _text_in_grammar(value: Any, grammar: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and len(value) <= _MAX_SHOWN and grammar.fullmatch(value) else None


def _one_line(text: str) -> str:
    """Escape the unprintable characters of *text*, such as control characters, and shorten it to 300 characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:_MAX_SHOWN])
    return shown[:_MAX_SHOWN] + ("..." if len(text) > _MAX_SHOWN or len(shown) > _MAX_SHOWN else "")
