"""Security event tokens: RFC 8417, with what the Shared Signals Framework 1.0 and CAEP 1.0 make of them.

:func:`check` refuses, the caller verifies the signature, :func:`events_of` reads: in this order, as with access
tokens. Refusals are :class:`InvalidToken`; :func:`error_code` is what RFC 8935 calls them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.access_token import Unverified, freeze_json
from scopeguard.config.checks import media_type
from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken, Reason
from scopeguard.spec.jws import check_header

MEDIA_TYPE: Final = "application/secevent+jwt"

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED: Final = _CAEP + "session-revoked"
CREDENTIAL_CHANGE: Final = _CAEP + "credential-change"
TOKEN_CLAIMS_CHANGE: Final = _CAEP + "token-claims-change"
ASSURANCE_LEVEL_CHANGE: Final = _CAEP + "assurance-level-change"

CHANGES: Final = frozenset((CREDENTIAL_CHANGE, TOKEN_CLAIMS_CHANGE, ASSURANCE_LEVEL_CHANGE))
"""Events after which what is known of a token may be out of date (CAEP 1.0 sections 3.2 to 3.4)."""

# RFC 8935 section 2.4 and its registry at IANA. What is not here is "invalid_request".
_CODES: Final[Mapping[Reason, str]] = {
    Reason.UNKNOWN_ISSUER: "invalid_issuer",
    Reason.WRONG_AUDIENCE: "invalid_audience",
    Reason.ALGORITHM_REFUSED: "invalid_key",
    Reason.UNKNOWN_KEY: "invalid_key",
    Reason.BAD_SIGNATURE: "invalid_key",
}
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "invalid_request": "The request is not a security event token that can be used here",
    "invalid_issuer": "The security event token is of another issuer than the one expected here",
    "invalid_audience": "The security event token is for somebody else",
    "invalid_key": "The security event token is not signed by a key of its issuer",
    "authentication_failed": "The request does not carry the credential that was agreed on",
}
"""What a transmitter is told: constants. The facts are in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """One event of a verified token, as hooks see it.

    ``issuer``: who says so; ``jti``: the token's id; ``at``: when it happened, in seconds since the epoch.
    ``sub_id``: about whom (RFC 9493). ``members``: the event itself. Both are read-only, and ``repr`` shows neither.
    """

    type: str
    issuer: str
    jti: str
    at: float
    sub_id: Mapping[str, Any] = field(repr=False)
    members: Mapping[str, Any] = field(repr=False)


def error_code(reason: Reason) -> str:
    """The error code of RFC 8935 section 2.4 for *reason*."""
    return _CODES.get(reason, "invalid_request")


def check(token: Unverified, transmitter: Issuer, audiences: Collection[str], now: float) -> None:
    """Refuse *token* unless *transmitter* may have sent it to one of *audiences* by *now* (seconds since the epoch).

    Checked: the header, as of any JWT; ``typ``; ``iss`` letter by letter, ``aud``, ``jti``, ``iat``, the form of
    ``events``; that there is neither ``sub`` nor ``exp`` (SSF 1.0, so that nobody takes it for an ID token or an
    access token). NOT checked: the signature, whether it came before, and what the events say.
    """
    claims = token.claims
    check_header(token.header, algorithms=transmitter.algorithms)
    typ = token.header.get("typ")
    if not isinstance(typ, str) or media_type(typ) != "secevent+jwt":
        raise InvalidToken(Reason.TYPE_REFUSED, typ=typ)
    if claims.get("iss") != transmitter.url:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=claims.get("iss"), expected=transmitter.url)
    named = claims.get("aud")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not any(isinstance(name, str) and name in audiences for name in named):
        raise InvalidToken(Reason.WRONG_AUDIENCE, aud=named, expected=" ".join(sorted(audiences)))
    for name in ("sub", "exp"):
        if name in claims:
            raise InvalidToken(Reason.FORBIDDEN_CLAIM, claim=name)
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise InvalidToken(Reason.MISSING_CLAIM, claim="jti")
    _past(claims, "iat", now + transmitter.leeway)
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="events")


def event_id(token: Unverified) -> str:
    """What a checked *token* is known by, to tell whether it came before: its issuer with its ``jti``."""
    state = hashlib.sha256()
    for name in ("iss", "jti"):
        data = token.claims[name].encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def events_of(token: Unverified, types: Collection[str], latest: float) -> tuple[SecurityEvent, ...]:
    """The events of *token* that are of *types*. The caller has run :func:`check` and verified the signature.

    Others are passed over, whatever they contain, and so are members that are not known (SSF 1.0). Refused: an event
    without a subject, and one from after *latest*: it would revoke tokens that are not there yet.
    """
    claims = token.claims
    found = []
    for type_, members in claims["events"].items():
        if type_ not in types:
            continue
        # SSF 1.0 has the subject beside the events; CAEP has had it inside.
        sub_id = claims["sub_id"] if "sub_id" in claims else members.get("subject")
        if not isinstance(sub_id, dict) or not isinstance(sub_id.get("format"), str):
            raise InvalidToken(Reason.MALFORMED_CLAIM, claim="sub_id")
        happened = "event_timestamp" in members
        found.append(
            SecurityEvent(
                type=type_,
                issuer=claims["iss"],
                jti=claims["jti"],
                at=_past(members if happened else claims, "event_timestamp" if happened else "iat", latest),
                sub_id=freeze_json(sub_id),
                members=freeze_json(members),
            )
        )
    return tuple(found)


def subject_of(event: SecurityEvent) -> str | None:
    """The name by which the issuer's tokens know the user that *event* is about; ``None`` where it does not say.

    Read are the formats ``iss_sub`` and ``opaque`` of RFC 9493, alone or as the ``user`` of a ``complex`` subject. What
    else a complex subject names (a session, a device) narrows it down; here it does not.
    """
    match _user(event):
        case {"format": "iss_sub", "sub": str(name)} | {"format": "opaque", "id": str(name)} if name:
            return name
    return None


def is_discarded(event: SecurityEvent, issuer: str, critical: Collection[str]) -> bool:
    """Whether *event* must have no effect on the tokens of *issuer*.

    It must not when it is about a user of another issuer, and when its subject has a member that is *critical*
    to its transmitter and not understood here (SSF 1.0).
    """
    user = _user(event)
    if user.get("format") == "iss_sub" and user.get("iss") != issuer:
        return True
    if event.sub_id["format"] != "complex":
        return False
    understood = () if subject_of(event) is None else ("user",)
    return any(name in event.sub_id and name not in understood for name in critical)


def _user(event: SecurityEvent) -> Mapping[str, Any]:
    if event.sub_id["format"] != "complex":
        return event.sub_id
    user = event.sub_id.get("user")
    return user if isinstance(user, Mapping) else {}


def _past(members: Mapping[str, Any], name: str, latest: float) -> float:
    """A date, a JSON number of seconds since the epoch, that is not after *latest*. Milliseconds are: refused too."""
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim=name)
    if value > latest:
        raise InvalidToken(Reason.TOKEN_ISSUED_IN_FUTURE, claim=name, value=value)
    return float(value)
