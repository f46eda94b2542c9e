"""Token requests by client credentials and their answers: RFC 6749 sections 2.3.1, 4.4 and 5, RFC 8707."""

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
"""Seconds. A longer lifetime is cut to this one: servers send 2**63 for "for ever"."""

RESERVED_PARAMETERS: Final = frozenset(
    (
        "grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type",
        "scope", "audience",
    )
)  # fmt: skip
"""Parameters with a place of their own; as extra parameters they would be sent twice (RFC 6749 section 3.2)."""

OTHER_TOKEN_TYPES: Final = frozenset(("dpop", "mac", "pop", "n_a"))
"""Token types that are registered, or were, and are not Bearer under another name."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3
_ERROR_TEXT: Final = re.compile(r"[\x20\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 appendix A.7
_ERROR_URI: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # appendix A.9
_DIGITS: Final = re.compile(r"[0-9]{1,30}")
_MOST_SHOWN: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerated:
    """Deviations from RFC 6749 section 5.1 that are accepted in the answers of one token endpoint.

    * ``token_types``: values of ``token_type``, in lower case, that this server uses for bearer tokens.
    * ``token_type_optional``: an answer without ``token_type`` is about a bearer token.
    * ``scope_list``: ``scope`` may be an array of scopes.
    """

    token_types: frozenset[str] = frozenset(("bearer",))
    token_type_optional: bool = False
    scope_list: bool = False


STRICT: Final = Tolerated()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A usable answer. ``scope`` is what was granted, ``None`` when the server says nothing: as asked (section 5.1).

    ``token_type`` is as the server writes it, ``"Bearer"`` when it does not. ``expires_in`` is in seconds, at
    least 0 and at most ten years; ``None`` when the server gives no lifetime. A refresh token is not kept, nor
    is any member not named here.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: float | None
    scope: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefusal:
    """No token, and asking again would not help: an OAuth error, or an answer that cannot be used (``problem``).

    ``error``, ``description`` and ``uri`` are what the server wrote, where it keeps to RFC 6749 appendix A.7 and A.9;
    a description outside of it is escaped, and any is bounded.
    """

    status: int
    problem: str
    error: str | None = None
    description: str | None = None
    uri: str | None = None


def is_outage(status: int) -> bool:
    """Whether a server that answers *status* may answer otherwise when asked again: 408, 429, 5xx."""
    return status in (408, 429) or status >= 500


def basic_authorization(client_id: str, client_secret: str) -> str:
    """The ``Authorization`` value of *client_secret_basic*: both parts form-urlencoded, then Base64 (section 2.3.1).

    ``- . _ ~ *`` stay as they are. Every decoder takes them so, and servers that forget to decode need them so.
    """
    pair = f"{quote_plus(client_id, safe='*')}:{quote_plus(client_secret, safe='*')}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def client_credentials_form(
    *,
    scopes: Iterable[str] = (),
    resources: Iterable[str] = (),
    audiences: Iterable[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> tuple[tuple[str, str], ...]:
    """The parameters of section 4.4.2, without the client's authentication. What is empty is left out.

    ``resource`` and ``audience`` may occur more than once (RFC 8707 section 2); everything else occurs once.
    """
    form = [("grant_type", "client_credentials"), ("scope", " ".join(scopes))]
    form += (("resource", resource) for resource in resources)
    form += (("audience", audience) for audience in audiences)
    form += (parameters or {}).items()
    return tuple((name, value) for name, value in form if value)


def judge_token_answer(status: int, body: bytes, tolerated: Tolerated = STRICT) -> TokenResponse | TokenRefusal:
    """Judge the answer of a token endpoint strictly, apart from what is *tolerated*.

    For an answer that :func:`is_outage` there is nothing to judge.

    Checked: status 200; one strict JSON object; ``access_token`` that can be sent in a header unambiguously;
    ``token_type`` Bearer in any case (section 7.1: never use a type that is not understood); ``expires_in`` a whole
    number, or a string of digits; ``scope`` by the grammar of section 3.3. ``null`` counts as absent.
    Not checked: the content type, and anything inside the token (RFC 9068 section 6).
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        if status == 200:
            return TokenRefusal(status=status, problem=f"the answer is {error}")
        members = {}
    if status != 200:
        refused = "redirects of a token endpoint are not followed" if 300 <= status < 400 else "no token was issued"
        return _refusal(status, members, refused)
    try:
        return _token(members, tolerated)
    except _Unusable as unusable:
        return _refusal(status, members, str(unusable))


class _Unusable(ValueError):
    """The text is a constant: it never quotes the answer, which may hold a token."""


def _token(members: Mapping[str, Any], tolerated: Tolerated) -> TokenResponse:
    token, kind = members.get("access_token"), members.get("token_type")
    if kind is None and tolerated.token_type_optional:
        kind = "Bearer"
    if not isinstance(token, str) or not isinstance(kind, str):
        raise _Unusable("access_token or token_type is missing or not a string")
    if kind.lower() not in tolerated.token_types:
        raise _Unusable(
            "token_type is not Bearer, and no other type is supported; if this server calls bearer tokens by another "
            "name, set token_types"
        )
    if not is_token(token):
        raise _Unusable("access_token has characters that cannot be sent unambiguously in an Authorization header")
    return TokenResponse(
        access_token=token,
        token_type=kind,
        expires_in=_lifetime(members.get("expires_in")),
        scope=_scope(members.get("scope"), tolerated),
    )


def _lifetime(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole:
        raise _Unusable("expires_in is not a whole number of seconds")
    return float(min(max(value, 0), LONGEST_LIFETIME))


def _scope(value: Any, tolerated: Tolerated) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and tolerated.scope_list:
        scopes = tuple(value)
    elif isinstance(value, str):
        scopes = tuple(filter(None, value.split(" ")))  # several spaces, or an empty string, are seen in the wild
    else:
        raise _Unusable("scope is not a string; if this server sends an array, set scope_list")
    if not all(isinstance(scope, str) and _SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise _Unusable("scope has characters that RFC 6749 section 3.3 does not allow")
    return scopes


def _refusal(status: int, members: Mapping[str, Any], problem: str) -> TokenRefusal:
    description = members.get("error_description")
    return TokenRefusal(
        status=status,
        problem=problem,
        error=_kept(members.get("error"), _ERROR_TEXT),
        description=_one_line(description) if isinstance(description, str) else None,
        uri=_kept(members.get("error_uri"), _ERROR_URI),
    )


def _kept(value: Any, grammar: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and len(value) <= _MOST_SHOWN and grammar.fullmatch(value) else None


def _one_line(text: str) -> str:
    """*text* without what moves a cursor or turns a line around, at most 300 characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:_MOST_SHOWN])
    return shown[:_MOST_SHOWN] + ("..." if len(text) > _MOST_SHOWN or len(shown) > _MOST_SHOWN else "")
