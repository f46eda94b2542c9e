"""Introspection requests, and the checks of their answers: RFC 7662, RFC 9701.

``active: true`` is not enough to accept a token. Some servers call refresh tokens active, or tokens for another
audience, and a token may expire while the answer about it is cached.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable
from scopeguard.numeric_date import LATEST_DATE
from scopeguard.reasons import Reason
from scopeguard.spec import client_authentication, jwt
from scopeguard.spec.answers import content_type
from scopeguard.spec.audience import check_audience
from scopeguard.spec.client_authentication import AssertionKey, Proof
from scopeguard.spec.discovery import MalformedMetadata, Metadata, check_endpoint
from scopeguard.spec.jws import check_header, has_type
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.spec.sender_constraint import check_confirmation
from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.spec.times import check_times
from scopeguard.spec.token_kind import check_is_access_token
from scopeguard.tokens import Unverified

JSON: Final = "application/json"
SIGNED: Final = "application/token-introspection+jwt"
STATUS_HINTS: Final[Mapping[int, str]] = {
    400: 'the server does not answer about such tokens; for JWTs set validate = "auto" or "jwt"',
    401: "the server refuses the credentials of this API; check client_id, the secret or key, and auth",
    403: "the client of this API is not allowed to introspect; check its rights, its secret, and auth",
}
"""The probable mistake in the configuration, by status."""
# The greatest difference, in seconds, between ``iat`` of a signed answer and the clock. Answers are made on request.
_MAX_AGE: Final = 60.0


class MalformedAnswer(ValueError):
    """The response is not an introspection answer, and says nothing about the token.

    The message quotes nothing from the response.
    """


def request_form(token: str, proof: Proof, hint: str | None) -> tuple[tuple[str, str], ...]:
    """Return the parameters of an introspection request (RFC 7662 section 2.1), with the credentials of *proof*."""
    hints = () if hint is None else (("token_type_hint", hint),)
    return (("token", token), *hints, *proof.parameters)


def digest(token: str, *context: str) -> bytes:
    """Return the key of an answer in a cache: a digest of *token* and *context*.

    Each part is preceded by its length, so that different parts never concatenate to the same bytes. The cache does not
    contain the token.
    """
    state = hashlib.sha256()
    for part in (*context, token):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.digest()


def read_answer(body: bytes) -> dict[str, Any] | None:
    """Return the members of a JSON answer, or ``None`` if the token is not active.

    Raises :class:`MalformedAnswer` if *body* is not a JSON object.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedAnswer(f"the answer is {error}") from None
    return active_members(members)


def active_members(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return *members* of an answer, or ``None`` unless ``active`` is JSON ``true``.

    RFC 7662 section 2.2: ``active`` is a "Boolean indicator of whether or not the presented token is currently active".
    The string "true" or the number 1 does not count.
    """
    return dict(members) if members.get("active") is True else None


def check_answer(token: Unverified, issuer: Issuer, now: float, *, audience_required: bool) -> None:
    """Check the claims of an active answer (:func:`as_claims`). Raise :class:`InvalidToken` if one does not fit.

    * Checked if present: ``iss``, ``aud``, ``exp``, ``nbf``, ``iat``, and the form of the scopes. With
      *audience_required*, ``aud`` must be present.
    * Checked always: the claims that the policy of *issuer* expects or forbids, and that no claim marks another kind of
      token (:func:`~scopeguard.spec.token_kind.check_is_access_token`), as for a JWT.
    * Refused: a ``cnf`` that is not enforced.
    * Not checked: whether the scopes suffice.

    *now* is in seconds since the epoch.
    """
    members = token.claims
    if "iss" in members:
        jwt.check_issuer(members, issuer)
    jwt.check_members(token, issuer)
    if audience_required or "aud" in members:
        check_audience(token, issuer)
    check_times(members, issuer, now, expiry_required=False)
    jwt.check_presence(members, issuer)
    # Check this before the kind of the token. Otherwise "DPoP" as token_type would be reported as another kind, and not
    # as a missing proof.
    check_confirmation(members, issuer)
    check_is_access_token(members, issuer, introspected=True)
    granted_scopes(members, issuer)


def as_claims(members: Mapping[str, Any], fingerprint: str) -> Unverified:
    """Return *members* of an answer as a token, so that the checks of JWT claims apply to them.

    There is no signature to verify: they come from the authorization server. Members that are ``null`` are omitted:
    all but ``active`` are optional (RFC 7662 section 2.2), and many servers write ``null`` for an absent one.
    """
    claims = {name: value for name, value in members.items() if value is not None}
    return Unverified(header={}, claims=claims, signed=b"", signature=b"", fingerprint=fingerprint)


def proof(
    settings: Introspection, key: AssertionKey | None, issuer: str, *, now: float, identifier: str, bearer: str = ""
) -> Proof:
    """Return the credentials of the API for an introspection request, by the configured method.

    *key*, *now* (seconds since the epoch) and *identifier* (the ``jti``) are for ``private_key_jwt``, *bearer* is the
    token for ``bearer``.
    """
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
    """Return whether *metadata* has an introspection endpoint."""
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
    """Return the URL of the introspection endpoint that *metadata* names.

    With mutual TLS, this is its alias in ``mtls_endpoint_aliases``, if there is one (RFC 8705 section 5). Raises
    :class:`AuthorityUnavailable` if there is no endpoint, or if it does not support the configured method of client
    authentication.
    """

    def invalid_answer(problem: str) -> AuthorityUnavailable:
        return AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, metadata.issuer, problem=problem)

    supported = metadata.raw.get("introspection_endpoint_auth_methods_supported")
    # The list is about client authentication, and with these two, the API does not authenticate as a client.
    is_unlisted = settings.auth in (ClientAuthentication.BEARER, ClientAuthentication.NONE)
    if isinstance(supported, list) and not is_unlisted and settings.auth.value not in supported:
        shown = " ".join(method for method in supported if isinstance(method, str))
        raise invalid_answer(f"its metadata lists {shown} but not introspection.auth = {settings.auth.value!r}")
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
    """Return a signed answer (RFC 9701 section 5). The caller verifies its signature.

    Checked: the content type, ``typ``, the algorithm, ``iss``, ``aud`` (the ``client_id`` of this API), ``iat``, and
    that ``token_introspection`` is an object. Not checked: the signature, and the members of that object. Raises
    :class:`MalformedAnswer` for anything else, such as an unsigned answer, and :class:`InvalidToken` for a malformed
    JWT.
    """
    if content_type(headers) != SIGNED:
        raise MalformedAnswer(f"the answer is not signed: its content type is not {SIGNED}")
    signed = jwt.peek(body.decode("ascii", "replace").strip())
    check_header(signed.header, algorithms=issuer.algorithms)
    if not has_type(signed.header, "token-introspection+jwt"):
        raise MalformedAnswer("its typ is not token-introspection+jwt")
    jwt.check_issuer(signed.claims, issuer)
    audience = signed.claims.get("aud")
    if settings.client_id not in (audience if isinstance(audience, list) else [audience]):
        raise MalformedAnswer("its aud is not the client_id of this API")
    issued = _date(signed.claims.get("iat"))
    if issued is None or abs(now - issued) > _MAX_AGE or not isinstance(signed.claims.get("token_introspection"), dict):
        raise MalformedAnswer("its iat is not within a minute of now, or it has no token_introspection")
    return signed


def seconds_left(members: Mapping[str, Any] | None, now: float) -> float:
    """Return the seconds until ``exp`` of *members*: infinity if it is absent, minus infinity if it is not a date.

    RFC 7662 section 4: "If the response contains the "exp" parameter (expiration), the response MUST NOT be cached
    beyond the time indicated therein."
    """
    if members is None or members.get("exp") is None:
        return float("inf")
    expires = _date(members["exp"])
    return float("-inf") if expires is None else expires - now


def _date(value: object) -> float | None:
    """Return *value* as seconds since the epoch, or ``None`` unless it is a number of :data:`LATEST_DATE` at most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LATEST_DATE:
        return None
    return float(value)


def write_entry(members: Mapping[str, Any] | None, until: float, asked_at: float) -> bytes:
    """Return the entry of an answer in a store, as JSON.

    *members* are those of the answer, ``None`` if the token is not active. The answer may be used before *until*;
    the request was sent at *asked_at*. Both are in seconds since the epoch.
    """
    return json.dumps({"until": until, "asked_at": asked_at, "members": members}).encode("utf-8")


def read_entry(data: bytes | None, now: float) -> tuple[dict[str, Any] | None, float, float]:
    """Return the members of an answer from a store, the seconds it may still be used, and when it was requested.

    The time of the request is in seconds since the epoch, and not later than *now*. It is minus infinity if the entry
    does not say. Raises :class:`MalformedAnswer` for an expired entry, for a malformed one, and if *data* is ``None``.
    """
    try:
        entry = parse_object(data or b"")
    except MalformedJSON as error:
        raise MalformedAnswer(f"the entry is {error}") from None
    members, until = entry.get("members"), _date(entry.get("until"))
    if until is None or until <= now or "members" not in entry:
        raise MalformedAnswer("the entry is malformed or has expired")
    if members is not None and not (isinstance(members, dict) and members.get("active") is True):
        raise MalformedAnswer("the entry is not an active answer")
    asked_at = _date(entry.get("asked_at"))
    return members, until - now, float("-inf") if asked_at is None else min(asked_at, now)


def refuses_client(body: bytes) -> bool:
    """Return whether *body* is the error ``invalid_client`` (RFC 6749 section 5.2).

    It is about the credentials of the API, not about the token.
    """
    try:
        return parse_object(body).get("error") == "invalid_client"
    except MalformedJSON:
        return False
