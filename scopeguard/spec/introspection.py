"""What is asked of an introspection endpoint and what its answer means: RFC 7662, RFC 9701.

``active: true`` is where judging begins, not where it ends: some servers call a refresh token active, some answer for
any audience, and a cached answer outlives the token's last second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from scopeguard.access_token import Unverified
from scopeguard.config.checks import media_type
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.spec import client_authentication, jwt
from scopeguard.spec.client_authentication import AssertionKey, Proof
from scopeguard.spec.discovery import MalformedMetadata, Metadata, check_endpoint
from scopeguard.spec.jws import check_header
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.spec.sender_constraint import refuse_sender_constrained
from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.spec.token_kind import check_is_access_token

JSON: Final = "application/json"
SIGNED: Final = "application/token-introspection+jwt"
COMPLAINTS: Final[Mapping[int, str]] = {
    400: 'it does not answer about such tokens; for JWTs say validate = "auto" or "jwt"',
    401: "it does not accept our credentials; check client_id, the secret or key, and auth",
    403: "our client may not introspect; check its rights, its secret, and auth",
}
# How old a signed answer may be, and how far ahead our clocks may be apart: it was made for this very question.
_FRESH: Final = 60.0


class MalformedAnswer(ValueError):
    """Not an introspection answer: nothing was said about the token. The text quotes nothing of it."""


def request_form(token: str, proof: Proof, hint: str | None) -> tuple[tuple[str, str], ...]:
    """The form of RFC 7662 section 2.1: the token, what kind it is, and who asks."""
    hints = () if hint is None else (("token_type_hint", hint),)
    return (("token", token), *hints, *proof.parameters)


def digest(token: str, *context: str) -> bytes:
    """What an answer is kept under: SHA-256 over length-prefixed parts, so that no two pairs of token and context
    collide by concatenation, and no token is kept."""
    state = hashlib.sha256()
    for part in (*context, token):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()


def read_answer(body: bytes) -> dict[str, Any] | None:
    """The members of a JSON answer, ``None`` for a token that is not active.

    Raises :class:`MalformedAnswer` for what is not one JSON object.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedAnswer(f"the answer is {error}") from None
    return active_members(members)


def active_members(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """*members* of an answer, ``None`` unless ``active`` is JSON ``true``.

    A string or a number there is a strange answer, and a refusal the safe reading of it.
    """
    return dict(members) if members.get("active") is True else None


def check_answer(token: Unverified, issuer: Issuer, now: float, *, audience_required: bool) -> None:
    """Refuse what an active answer (:func:`as_claims`) says the token is not: ours, in time, an access token, unbound.

    Checked where present: ``iss``, ``aud`` (presence too, if *audience_required*), ``exp``, ``nbf``, ``iat``, the
    policy's expected and forbidden claims, the form of scope. Checked always: that nothing says it is another kind of
    token, by the same questions as for a JWT (:func:`~scopeguard.spec.token_kind.check_is_access_token`). A ``cnf`` is
    refused. Not checked: whether the scope suffices. Raises :class:`InvalidToken`.
    """
    members = token.claims
    if "iss" in members:
        jwt.check_issuer(members, issuer)
    jwt.check_members(token, issuer)
    if audience_required or "aud" in members:
        jwt.check_audience(token, issuer)
    jwt.check_times(members, issuer, now, expiry_required=False)
    jwt.check_presence(members, issuer)
    # Before its kind: the token_type of a bound token is "DPoP", and the missing proof is what its refusal is about.
    refuse_sender_constrained(members)
    check_is_access_token(members, issuer, introspected=True)
    granted_scopes(members, issuer)


def as_claims(members: Mapping[str, Any], fingerprint: str) -> Unverified:
    """*members* in the shape in which claims are checked and read. The authority vouched for them, in its answer.

    A member that is ``null`` is left out: RFC 7662 section 2.2 makes every member but ``active`` optional, and many
    servers write ``null`` for what a token does not have.
    """
    claims = {name: value for name, value in members.items() if value is not None}
    return Unverified(header={}, claims=claims, signed=b"", signature=b"", fingerprint=fingerprint)


def proof(
    settings: Introspection, key: AssertionKey | None, issuer: str, *, now: float, identifier: str, bearer: str = ""
) -> Proof:
    """Who asks, by the one method that is configured; *bearer* is the token of the method of that name."""
    client_id, secret = settings.client_id or "", settings.client_secret or ""
    match settings.auth:
        case ClientAuthentication.CLIENT_SECRET_BASIC:
            return client_authentication.basic(client_id, secret)
        case ClientAuthentication.CLIENT_SECRET_POST:
            return client_authentication.post(client_id, secret)
        case ClientAuthentication.PRIVATE_KEY_JWT if key is not None:
            return client_authentication.assertion(
                client_id,
                key,
                audience=settings.assertion_audience or issuer,
                now=now,
                identifier=identifier,
                typ=settings.assertion_typ,
            )
        case ClientAuthentication.BEARER:
            return client_authentication.bearer(bearer)
        case _:
            return client_authentication.client_id_only(client_id) if client_id else Proof()


def has_endpoint(metadata: Metadata, settings: Introspection) -> bool:
    """Whether *metadata* says where to ask."""
    aliased = _aliases(metadata, settings).get("introspection_endpoint")
    return metadata.introspection_endpoint is not None or aliased is not None


def _aliases(metadata: Metadata, settings: Introspection) -> Mapping[str, Any]:
    aliases = metadata.raw.get("mtls_endpoint_aliases")
    usable = settings.auth is ClientAuthentication.TLS_CLIENT_AUTH and isinstance(aliases, dict)
    return aliases if usable and aliases is not None else {}


def endpoint_of(
    metadata: Metadata,
    settings: Introspection,
    internal_hosts: Collection[str] = (),
    insecure: Collection[str] = (),
) -> str:
    """Where to ask, by *metadata*: the alias for mutual TLS where that is how we prove ourselves (RFC 8705 section 5,
    I-36). Raises :class:`AuthorityUnavailable` without an endpoint, or where it does not take our method."""

    def invalid_answer(problem: str) -> AuthorityUnavailable:
        return AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, metadata.issuer, problem=problem)

    supported = metadata.raw.get("introspection_endpoint_auth_methods_supported")
    takes_any = settings.auth in (ClientAuthentication.BEARER, ClientAuthentication.NONE)
    if isinstance(supported, list) and not takes_any and settings.auth.value not in supported:
        shown = " ".join(method for method in supported if isinstance(method, str))
        raise invalid_answer(f"its metadata does not list introspection.auth = {settings.auth.value!r} but {shown}")
    try:
        aliases = _aliases(metadata, settings)
        alias = check_endpoint(aliases, "introspection_endpoint", metadata.issuer, internal_hosts, insecure)
    except MalformedMetadata as error:
        raise invalid_answer(str(error)) from None
    if alias is not None:
        return alias
    if metadata.introspection_endpoint is None:
        raise invalid_answer("its metadata names no introspection_endpoint; set introspection.endpoint")
    return metadata.introspection_endpoint


def read_signed(
    body: bytes, headers: Mapping[str, str], issuer: Issuer, settings: Introspection, now: float
) -> Unverified:
    """A signed answer (RFC 9701), its signature still to be verified; a plain one is refused.

    Checked: content type, ``typ``, ``iss``, ``aud`` (our client), ``iat``, algorithm, and that the answer proper is in
    ``token_introspection``. Raises :class:`MalformedAnswer` and :class:`InvalidToken`.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != SIGNED:
        raise MalformedAnswer("not a signed answer, by its content type")
    signed = jwt.peek(body.decode("ascii", "replace").strip())
    check_header(signed.header, algorithms=issuer.algorithms)
    typ = signed.header.get("typ")
    if not isinstance(typ, str) or media_type(typ) != "token-introspection+jwt":
        raise MalformedAnswer("its typ is not token-introspection+jwt")
    jwt.check_issuer(signed.claims, issuer)
    audience = signed.claims.get("aud")
    if settings.client_id not in (audience if isinstance(audience, list) else [audience]):
        raise MalformedAnswer("its aud is not our client_id")
    issued = _date(signed.claims.get("iat"))
    if issued is None or abs(now - issued) > _FRESH or not isinstance(signed.claims.get("token_introspection"), dict):
        raise MalformedAnswer("its iat is not of now, or it has no token_introspection")
    return signed


def seconds_left(members: Mapping[str, Any] | None, now: float) -> float:
    """The seconds until ``exp`` by *members*: infinite if it is absent, minus infinity if it is not a valid date."""
    if members is None or members.get("exp") is None:
        return float("inf")
    expires = _date(members["exp"])
    return float("-inf") if expires is None else expires - now


def _date(value: object) -> float | None:
    """*value* as seconds since the epoch, if it can be that; beyond 2**53 numbers are no dates."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2.0**53:
        return None
    return float(value)


def write_entry(members: Mapping[str, Any] | None, until: float, asked_at: float) -> bytes:
    """An answer for a store: plain JSON with the time until which it may be used, and the time when the authority was
    asked (seconds since the epoch)."""
    return json.dumps({"until": until, "asked_at": asked_at, "members": members}).encode("utf-8")


def read_entry(data: bytes | None, now: float) -> tuple[dict[str, Any] | None, float, float]:
    """An answer from a store, the seconds it may still be used, and when it was asked for, at the latest now; an entry
    that does not say that is as old as can be. :class:`MalformedAnswer` for anything else."""
    try:
        entry = parse_object(data or b"")
    except MalformedJSON as error:
        raise MalformedAnswer(f"the entry is {error}") from None
    members, until = entry.get("members"), _date(entry.get("until"))
    if until is None or until <= now or "members" not in entry:
        raise MalformedAnswer("the entry is no answer, or an old one")
    if members is not None and not (isinstance(members, dict) and members.get("active") is True):
        raise MalformedAnswer("the entry is no answer")
    asked_at = _date(entry.get("asked_at"))
    return members, until - now, float("-inf") if asked_at is None else min(asked_at, now)


def refuses_client(body: bytes) -> bool:
    """Whether *body* is an OAuth error about the credentials of the API, not about a token (RFC 6749 section 5.2)."""
    try:
        return parse_object(body).get("error") == "invalid_client"
    except MalformedJSON:
        return False
