"""What the token-info endpoints of Google and GitLab say of an access token, in the words of RFC 7662.

Google's is not RFC 7662: the token is the bearer of its own question, values are strings (v3) or called by other names
(v1, v2), nothing says ``active``, and a token that is not is a 400. It answers for the tokens of *every* app: that
``aud`` is one of the operator's own client ids is for the policy to check. GitLab's is as far from it, in other ways.
"""

from __future__ import annotations

import re
from typing import Any, Final

from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.spec.token_kind import kind_claims

# As v3 calls it, and as v1 and v2 do.
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
    """Nothing that tells when the token ends: no verdict. The text quotes nothing of the answer."""


def is_refusal(body: bytes) -> bool:
    """Whether *body*, of a 400, says that the token is not valid; anything else there is no verdict on it."""
    try:
        members = parse_object(body)
    except MalformedJSON:
        return False
    return members.get("error") == "invalid_token" or members.get("error_description") == "Invalid Value"


def read(body: bytes, now: float) -> dict[str, Any]:
    """The members of an answer of 200: ``active``, ``exp`` and what of the others is there.

    *now* is in seconds since the epoch; ``expires_in`` counts from it where ``exp`` is missing. What marks
    another kind of token is kept, so that it is refused as in any answer. Raises :class:`MalformedInfo`.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedInfo(f"the answer is {error}") from None
    told: dict[str, Any] = {"active": True}
    for name, older in _NAMES:
        value = members.get(name)
        if value is None:
            value = members.get(older)
        if value is not None:
            told[name] = value
    if told.get("email_verified") in ("true", "false"):
        told["email_verified"] = told["email_verified"] == "true"
    expires, left = _seconds(members.get("exp")), _seconds(members.get("expires_in"))
    if expires is None and left is None:
        raise MalformedInfo("the answer has neither exp nor expires_in")
    told["exp"] = expires if expires is not None else int(now) + (left or 0)
    return {**kind_claims(members), **told}


def read_gitlab(body: bytes, now: float) -> dict[str, Any]:
    """The members of GitLab's answer of 200: ``active``, ``sub``, ``client_id``, ``scope`` and ``exp``, as far as it
    has them: a personal access token has no application, and some tokens have no end.

    *now* is in seconds since the epoch; ``expires_in`` counts from it. Raises :class:`MalformedInfo`.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedInfo(f"the answer is {error}") from None
    left, application, owner = members.get("expires_in"), members.get("application"), members.get("resource_owner_id")
    if not isinstance(members.get("scope"), list):
        raise MalformedInfo("the answer has no list of scopes")
    told: dict[str, Any] = {"active": True, "scope": members["scope"]}
    if left is not None:
        seconds = _seconds(left)
        if seconds is None:
            raise MalformedInfo("expires_in of the answer is not a number of seconds")
        told["exp"] = int(now) + seconds
    if isinstance(application, dict) and isinstance(application.get("uid"), str):
        told["client_id"] = application["uid"]
    if _seconds(owner) is not None:
        told["sub"] = str(owner)
    return {**kind_claims(members), **told}


def _seconds(value: object) -> int | None:
    """A whole number, or a string of digits."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return int(text) if isinstance(text, str) and _SECONDS.fullmatch(text) else None
