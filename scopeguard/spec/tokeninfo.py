"""Translate the answers of the tokeninfo endpoints of Google and GitLab into introspection answers (RFC 7662).

Google's endpoint differs from RFC 7662: numbers are strings (v3), members have other names (v1, v2), there is no
``active``, and the answer about an invalid token is a 400. It describes the tokens of *all* apps of Google's customers:
the policy of the issuer must check that ``aud`` is a client ID of the operator. :func:`read_gitlab` lists the
differences of GitLab's.
"""

from __future__ import annotations

import re
from typing import Any, Final

from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.spec.token_kind import kind_claims

# Each member by its name in v3, and its name in v1 and v2.
_NAMES: Final = (
    ("aud", "audience"),
    ("azp", "issued_to"),
    ("sub", "user_id"),
    ("scope", "scope"),
    ("email", "email"),
    ("email_verified", "verified_email"),
)
_SECONDS: Final = re.compile(r"[0-9]{1,15}")


class MalformedInfo(ValueError):
    """The answer is malformed, and says nothing about the token. The message quotes nothing from the answer."""


def is_refusal(body: bytes) -> bool:
    """Return whether *body*, of a response with status 400, says that the token is invalid.

    Another 400 says nothing about the token.
    """
    try:
        members = parse_object(body)
    except MalformedJSON:
        return False
    return members.get("error") == "invalid_token" or members.get("error_description") == "Invalid Value"


def read(body: bytes, now: float) -> dict[str, Any]:
    """Return the members of an introspection answer for *body*, a response from Google with status 200.

    They are ``active``, ``exp``, ``aud``, ``azp``, ``sub``, ``scope``, ``email`` and ``email_verified``, as far as
    *body* has them, and the members that mark another kind of token. *now* is in seconds since the epoch; if there is
    no ``exp``, it is *now* plus ``expires_in``. Raises :class:`MalformedInfo` if both are missing, or if *body* is not
    a JSON object.
    """
    members = _parse(body)
    claims: dict[str, Any] = {"active": True}
    for name, older_name in _NAMES:
        value = members.get(name)
        if value is None:
            value = members.get(older_name)
        if value is not None:
            claims[name] = value
    if claims.get("email_verified") in ("true", "false"):
        claims["email_verified"] = claims["email_verified"] == "true"
    expires, left = _seconds(members.get("exp")), _seconds(members.get("expires_in"))
    if expires is None and left is None:
        raise MalformedInfo("the answer has neither exp nor expires_in")
    claims["exp"] = expires if expires is not None else int(now) + (left or 0)
    return {**kind_claims(members), **claims}


def read_gitlab(body: bytes, now: float) -> dict[str, Any]:
    """Return the members of an introspection answer for *body*, a response from GitLab with status 200.

    They are ``active``, ``scope``, ``sub``, ``client_id`` and ``exp``, as far as *body* has them (a personal access
    token has no application, and some tokens do not expire), and the members that mark another kind of token. *now* is
    in seconds since the epoch; ``exp`` is *now* plus ``expires_in``. Raises :class:`MalformedInfo` for another form.
    """
    members = _parse(body)
    left, application, owner = members.get("expires_in"), members.get("application"), members.get("resource_owner_id")
    if not isinstance(members.get("scope"), list):
        raise MalformedInfo("the answer has no list of scopes")
    claims: dict[str, Any] = {"active": True, "scope": members["scope"]}
    if left is not None:
        seconds = _seconds(left)
        if seconds is None:
            raise MalformedInfo("the answer has an expires_in that is not a number of seconds")
        claims["exp"] = int(now) + seconds
    if isinstance(application, dict) and isinstance(application.get("uid"), str):
        claims["client_id"] = application["uid"]
    if _seconds(owner) is not None:
        claims["sub"] = str(owner)
    return {**kind_claims(members), **claims}


def _parse(body: bytes) -> dict[str, Any]:
    try:
        return parse_object(body)
    except MalformedJSON as error:
        raise MalformedInfo(f"the answer is {error}") from None


def _seconds(value: object) -> int | None:
    """Return *value* as a number if it is a whole number or a string of digits, otherwise ``None``."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return int(text) if isinstance(text, str) and _SECONDS.fullmatch(text) else None
