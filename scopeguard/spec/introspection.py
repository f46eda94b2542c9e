"""What is asked of an introspection endpoint and what its answer means: RFC 7662, RFC 9701.

``active: true`` is where judging begins, not where it ends: some servers call a refresh token active, some answer for
any audience, and a cached answer outlives the token's last second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from scopeguard.access_token import AccessToken, Unverified, frozen_json
from scopeguard.config import Issuer
from scopeguard.errors import InvalidToken, Reason
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec import jwt
from scopeguard.spec.client_authentication import Proof
from scopeguard.spec.strict_json import MalformedJSON, parse_object

JSON: Final = "application/json"
SIGNED: Final = "application/token-introspection+jwt"
# What may stand in token_type for an access token that needs no proof (I-13).
_BEARER_TYPES: Final = frozenset(("bearer", "access_token"))
_ACCESS_USES: Final = frozenset(("access", "access_token"))


class MalformedAnswer(ValueError):
    """Not an introspection answer: nothing was said about the token. The text quotes nothing of it."""


def question(token: str, proof: Proof, hint: str | None) -> tuple[tuple[str, str], ...]:
    """The form of RFC 7662 section 2.1: the token, what kind it is, and who asks (I-01, I-02)."""
    hints = () if hint is None else (("token_type_hint", hint),)
    return (("token", token), *hints, *proof.parameters)


def digest(token: str, *context: str) -> bytes:
    """What an answer is kept under: SHA-256 over length-prefixed parts, so that no two pairs of token and context
    collide by concatenation, and no token is kept (I-24, X-61)."""
    state = hashlib.sha256()
    for part in (*context, token):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()


def read_answer(body: bytes) -> dict[str, Any] | None:
    """The members of a JSON answer, ``None`` for a token that is not active.

    ``active`` must be JSON ``true`` or ``false`` (I-08, I-09): a string or a number is nonsense, and nonsense is not
    a verdict. Raises :class:`MalformedAnswer`.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedAnswer(f"the answer is {error}") from None
    return active_members(members)


def active_members(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """*members* of an answer, ``None`` where they say that the token is not active."""
    active = members.get("active")
    if active is True:
        return dict(members)
    # Anything but true is "not active" (I-08): a refusal is the safe reading of a strange answer.
    return None


def check_answer(members: Mapping[str, Any], issuer: Issuer, now: float, *, audience_required: bool) -> None:
    """Refuse what an active answer says the token is not: ours, in time, an access token, a bearer token.

    Checked where present: ``iss``, ``aud`` (presence too, if *audience_required*), ``exp``, ``nbf``, ``iat``,
    ``token_type``, ``token_use``, the policy's expected and forbidden claims, the form of scope. A ``cnf`` is refused
    (I-15). Not checked: whether the scope suffices. Raises :class:`InvalidToken`.
    """
    token = as_unverified(members)
    named = members.get("iss")
    if named is not None and named != issuer.url and named not in issuer.aliases:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=named)
    jwt.check_members(token, issuer)
    if audience_required or "aud" in members:
        jwt.check_audience(token, issuer)
    jwt.check_times(members, issuer, now, expiry_required=False)
    jwt.check_presence(members, issuer)
    _check_kind(members)
    jwt.granted_scopes(members, issuer)
    jwt.check_unbound(members)


def _check_kind(members: Mapping[str, Any]) -> None:
    kind = members.get("token_type")
    if kind is not None and (not isinstance(kind, str) or kind.lower() not in _BEARER_TYPES):
        raise InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, claim="token_type")
    use = members.get("token_use")
    if use is not None and use not in _ACCESS_USES:
        raise InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, claim="token_use")


def accept_answer(
    members: Mapping[str, Any], issuer: Issuer, vocabulary: ScopeVocabulary, fingerprint: str
) -> AccessToken:
    """The access token that *members* describe. The caller has run :func:`check_answer`."""
    return jwt.read_claims(members, issuer, vocabulary, fingerprint, audience=jwt.audience_of(as_unverified(members), issuer))


def as_unverified(members: Mapping[str, Any]) -> Unverified:
    """*members* in the shape that the checks of claims take."""
    return Unverified(header={}, claims=members, signed=b"", signature=b"", fingerprint="")
