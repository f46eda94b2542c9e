"""Check and read security event tokens: RFC 8417, Shared Signals Framework 1.0 (SSF), CAEP 1.0.

The order is that of access tokens: :func:`check` the token, then verify the signature, then read :func:`events_of` the
token. Both functions raise :class:`InvalidToken`; :func:`error_code` returns the error code of RFC 8935 for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.jws import check_header, has_type
from scopeguard.spec.log_facts import malformed_claim
from scopeguard.tokens import Unverified, freeze_json

MEDIA_TYPE: Final = "application/secevent+jwt"

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED: Final = _CAEP + "session-revoked"
CREDENTIAL_CHANGE: Final = _CAEP + "credential-change"
TOKEN_CLAIMS_CHANGE: Final = _CAEP + "token-claims-change"
ASSURANCE_LEVEL_CHANGE: Final = _CAEP + "assurance-level-change"

CHANGES: Final = frozenset((CREDENTIAL_CHANGE, TOKEN_CLAIMS_CHANGE, ASSURANCE_LEVEL_CHANGE))
"""Events after which the claims of a token may be out of date (CAEP 1.0 sections 3.2 to 3.4)."""

# RFC 8935 section 2.4. All other reasons are "invalid_request".
_CODES: Final[Mapping[Reason, str]] = {
    Reason.UNKNOWN_ISSUER: "invalid_issuer",
    Reason.WRONG_AUDIENCE: "invalid_audience",
    Reason.ALGORITHM_REFUSED: "invalid_key",
    Reason.UNKNOWN_KEY: "invalid_key",
    Reason.BAD_SIGNATURE: "invalid_key",
}
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "invalid_request": "The request does not contain a valid security event token",
    "invalid_issuer": "The security event token has an unexpected issuer",
    "invalid_audience": "The security event token is for another audience",
    "invalid_key": "The security event token is not signed by a key of its issuer",
    "authentication_failed": "The request does not contain the expected credential",
}
"""Texts for the transmitter, by error code. The facts are in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """One event of a verified security event token, as passed to hooks.

    * ``type``: the URI of the event type.
    * ``issuer``: the ``iss`` of the token.
    * ``jti``: the ID of the token. All events of a token have the same.
    * ``at``: the time of the event (``event_timestamp``, or else ``iat``), in seconds since the epoch.
    * ``sub_id``: the subject of the event (RFC 9493), read-only.
    * ``members``: the members of the event, read-only.

    ``repr`` omits ``sub_id`` and ``members``, which may contain personal data.
    """

    type: str
    issuer: str
    jti: str
    at: float
    sub_id: Mapping[str, Any] = field(repr=False)
    members: Mapping[str, Any] = field(repr=False)


def error_code(reason: Reason) -> str:
    """Return the error code of RFC 8935 section 2.4 for *reason*."""
    return _CODES.get(reason, "invalid_request")


def check(token: Unverified, transmitter: Issuer, audiences: Collection[str], now: float) -> None:
    """Raise :class:`InvalidToken` unless *token* is a security event token of *transmitter* for one of *audiences*.

    Checked: the header, as for any JWT; ``typ``; ``iss`` (identical to the URL of *transmitter*); ``aud``; ``jti``;
    ``iat`` (not after *now*, in seconds since the epoch, plus the ``leeway`` of *transmitter*); the form of ``events``;
    and the absence of ``sub`` and ``exp``. Not checked: the signature, whether the token is a repetition, and the
    content of the events.
    """
    claims = token.claims
    check_header(token.header, algorithms=transmitter.algorithms)
    if not has_type(token.header, "secevent+jwt"):
        raise InvalidToken(Reason.TYPE_REFUSED, typ=token.header.get("typ"))
    if claims.get("iss") != transmitter.url:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=claims.get("iss"), expected=transmitter.url)
    named = claims.get("aud")
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not any(isinstance(name, str) and name in audiences for name in named):
        raise InvalidToken(Reason.WRONG_AUDIENCE, aud=named, expected=" ".join(sorted(audiences)))
    # SSF 1.0 forbids both, so that a receiver of ID tokens or access tokens does not accept an event. On "exp",
    # RFC 8417 section 2.2: "a SET represents something that has already occurred and is historical in nature.
    # Therefore, its use is NOT RECOMMENDED."
    for name in ("sub", "exp"):
        if name in claims:
            raise InvalidToken(Reason.FORBIDDEN_CLAIM, claim=name)
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise InvalidToken(Reason.MISSING_CLAIM, claim="jti")
    _check_date(claims, "iat", now + transmitter.leeway)
    events = claims.get("events")
    if not isinstance(events, dict) or not events or not all(isinstance(event, dict) for event in events.values()):
        raise InvalidToken(Reason.MALFORMED_CLAIM, claim="events")


def event_id(token: Unverified) -> str:
    """Return a digest of the issuer and the ``jti`` of a checked *token*, to recognise repetitions.

    Issuers whose receivers share a store may use the same ``jti``.
    """
    state = hashlib.sha256()
    for name in ("iss", "jti"):
        data = token.claims[name].encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def events_of(token: Unverified, types: Collection[str], latest: float) -> tuple[SecurityEvent, ...]:
    """Return the events of *token* with one of *types*. Other events are ignored, and not checked.

    The caller has called :func:`check` and verified the signature. Raises :class:`InvalidToken` for an event without a
    subject, and for one that happened after *latest* (seconds since the epoch): it would revoke tokens that are not
    issued yet.
    """
    claims = token.claims
    found = []
    for type_, members in claims["events"].items():
        if type_ not in types:
            continue
        # In SSF 1.0 the subject is a claim of the token; in earlier drafts of CAEP it is a member of the event.
        sub_id = claims["sub_id"] if "sub_id" in claims else members.get("subject")
        if not isinstance(sub_id, dict) or not isinstance(sub_id.get("format"), str):
            raise InvalidToken(Reason.MALFORMED_CLAIM, claim="sub_id")
        happened = "event_timestamp" in members
        found.append(
            SecurityEvent(
                type=type_,
                issuer=claims["iss"],
                jti=claims["jti"],
                at=_check_date(members if happened else claims, "event_timestamp" if happened else "iat", latest),
                sub_id=freeze_json(sub_id),
                members=freeze_json(members),
            )
        )
    return tuple(found)


def subject_of(event: SecurityEvent) -> str | None:
    """Return the user that *event* is about, as the ``sub`` of access tokens names it, or ``None``.

    Supports the formats ``iss_sub`` and ``opaque`` (RFC 9493), alone or as the ``user`` of a ``complex`` subject. Other
    members of a complex subject, such as a session or a device, are ignored: the event then counts for all sessions of
    the user.
    """
    match _user(event):
        case {"format": "iss_sub", "sub": str(name)} | {"format": "opaque", "id": str(name)} if name:
            return name
    return None


def is_discarded(event: SecurityEvent, issuer: Issuer, critical: Collection[str]) -> bool:
    """Return whether *event* must be discarded.

    This is so if it is about a user of an issuer other than *issuer*, which an alias may name, or if its complex
    subject has a member that the transmitter declares *critical* (SSF 1.0, ``critical_subject_members``) and that is
    not supported here.
    """
    user = _user(event)
    if user.get("format") == "iss_sub" and user.get("iss") not in (issuer.url, *issuer.aliases):
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


def _check_date(members: Mapping[str, Any], name: str, latest: float) -> float:
    """Return the date *name*, in seconds since the epoch. Raises :class:`InvalidToken` if it is later than *latest*.

    A date in milliseconds is later than *latest* as well.
    """
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise malformed_claim(name, value, "a number of seconds since 1970")
    if value > latest:
        raise InvalidToken(Reason.TOKEN_ISSUED_IN_FUTURE, claim=name, value=value)
    return float(value)
