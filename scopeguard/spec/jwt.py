"""Check a JWT and build an :class:`~scopeguard.tokens.AccessToken` from it: RFC 7519, RFC 9068.

An :class:`~scopeguard.config.issuer.Issuer` describes how an authorization server deviates from them.

Call :func:`peek` to parse a token, then :func:`check`, then verify the signature, then :func:`accept`. :func:`check`
can only refuse, so it is safe before the signature is verified, and a bad token then causes no request for keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from scopeguard.config.checks import media_type
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.issuer import Issuer
from scopeguard.config.machines import is_machine
from scopeguard.errors import InvalidToken
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.spec.audience import audience_of, check_audience
from scopeguard.spec.jws import check_header, parse_header, split_compact
from scopeguard.spec.log_facts import describe, malformed_claim, unexpected_claim
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.spec.sender_constraint import check_confirmation
from scopeguard.spec.spiffe import check_id
from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.spec.times import check_times
from scopeguard.spec.token_kind import check_is_access_token, is_other_kind
from scopeguard.tokens import AccessToken, LateFields, Unverified, build_access_token

RFC9068_CLAIMS: Final = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
"""The claims that RFC 9068 section 2.2 requires of a JWT access token."""

_STRING_CLAIMS: Final = ("sub", "jti", "client_id")
# RFC 7519 section 5.3: "Section 10.4.1 of this specification registers the "iss" (issuer), "sub" (subject), and "aud"
# (audience) Header Parameter names for the purpose of providing unencrypted replicas of these claims".
_REPLICATED_CLAIMS: Final = ("iss", "sub", "aud")
_OTHER_KIND_HINT: Final = (
    "the typ is that of another kind of token; if this issuer sends it in access tokens, name it in expected_headers"
)
_NO_HEADERS: Final[Mapping[bytes, Any]] = MappingProxyType({})
_NO_TEXTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
_NO_ROLES: Final[frozenset[str]] = frozenset()

CheckResult = tuple[bool, tuple[str, ...], tuple[str, ...] | None]
"""Result of :func:`check`: whether the rules of RFC 9068 applied, the audiences, and the scopes as granted."""


def peek(
    token: str,
    *,
    padded: bool = False,
    header_claims: Sequence[str] = (),
    headers: Mapping[bytes, Mapping[str, Any]] = _NO_HEADERS,
    mark: str | None = None,
) -> Unverified:
    """Parse *token* strictly and verify nothing. Raises :class:`InvalidToken` if it is not a JWT.

    * *padded*: see :func:`~scopeguard.spec.jws.split_compact`.
    * *header_claims*: header parameters that are treated as claims. A claim of the same name must be equal.
    * *headers*: headers that are already parsed, by their encoded text.
    * *mark*: the fingerprint of the token, if it is already computed.
    """
    segment, payload, signed, signature = split_compact(token, padded=padded)
    header = headers.get(segment)
    if header is None:
        header = parse_header(segment)
    try:
        claims = parse_object(payload)
    except MalformedJSON as error:
        raise InvalidToken(Reason.MALFORMED_TOKEN, part="payload", problem=str(error)) from None
    # RFC 7519 section 5.3: "If such replicated claims are present, the application receiving them SHOULD verify that
    # their values are identical".
    for name in header_claims:
        if name in header:
            value = header[name]
            if claims.setdefault(name, value) != value:
                raise InvalidToken(Reason.REPLICATED_CLAIM, claim=name, header=value, payload=claims[name])
    return Unverified(
        header=header,
        claims=claims,
        signed=signed,
        signature=signature,
        segment=segment,
        payload=payload,
        fingerprint=mark or fingerprint(token),
    )


def unverified_issuer(token: Unverified) -> str:
    """Return the ``iss`` claim before it is verified. Use it only to select the issuer whose policy applies.

    Raises :class:`InvalidToken` unless it is a string.
    """
    issuer = token.claims.get("iss")
    if not isinstance(issuer, str):
        if issuer is None:
            raise InvalidToken(Reason.MISSING_CLAIM, claim="iss")
        raise malformed_claim("iss", issuer, "a string")
    return issuer


def check(
    token: Unverified,
    issuer: Issuer,
    now: float,
    *,
    known: bool | None = None,
    scope_texts: Mapping[str, tuple[str, ...]] = _NO_TEXTS,
) -> CheckResult:
    """Check *token* against the policy of *issuer* at the time *now*, in seconds since the epoch.

    Checked: algorithm, ``crit``, ``b64``, ``cty``, ``typ``; ``iss``, audience, ``exp``, ``nbf``, ``iat``; required,
    expected and forbidden members; that header parameters which replicate claims are equal to them; the form of the
    scope claims; that the token is an access token. NOT checked: the signature, revocation, and whether the scopes
    suffice. A token that is bound to a key (``cnf``) still needs its proof.

    *known*: whether the rules of RFC 9068 applied to accepted tokens with the same header. A known header is not
    checked again, so it must not replicate a claim (:func:`replicates_claims`). ``None`` for any other header.

    *scope_texts*: see :func:`~scopeguard.spec.scope_claims.granted_scopes`.

    Raises :class:`InvalidToken`.
    """
    claims = token.claims
    rfc9068 = _check_header(token, issuer) if known is None else known
    check_issuer(claims, issuer)
    if known is None or issuer.has_member_rules:
        check_header_members(token, issuer)
        check_members(token, issuer)
    audience = check_audience(token, issuer)
    check_times(claims, issuer, now)
    check_presence(claims, issuer, rfc9068=rfc9068)
    check_is_access_token(claims, issuer, typed=rfc9068)
    granted = granted_scopes(claims, issuer, scope_texts)
    check_confirmation(claims, issuer)
    return rfc9068, audience, granted


def replicates_claims(header: Mapping[str, Any]) -> bool:
    """Return whether *header* replicates claims, so that it has to be compared with the claims of each token."""
    return any(name in header for name in _REPLICATED_CLAIMS)


def may_sign(key_issuer: str | None, token: Unverified, issuer: Issuer) -> bool:
    """Return whether a key may sign *token* of *issuer*. *key_issuer* is the member ``issuer`` of its JWK, if any.

    Microsoft Entra publishes one key set for all tenants. The member ``issuer`` of each key names the issuer whose
    tokens the key signs; ``{tenantid}`` in it stands for the ``tid`` claim of the token.
    """
    if key_issuer is None:
        return True
    # RFC 8725 section 3.8: "When a JWT contains an "iss" (issuer) claim, the application MUST validate that the
    # cryptographic keys used for the cryptographic operations in the JWT belong to the issuer." The token may name the
    # issuer by an alias while the key names it by its URL.
    tenant = token.claims.get("tid")
    expected = key_issuer.replace("{tenantid}", tenant) if isinstance(tenant, str) else key_issuer
    return expected in (token.claims.get("iss"), issuer.url)


def accept(
    token: Unverified,
    issuer: Issuer,
    vocabulary: ScopeVocabulary,
    checked: CheckResult | None = None,
    late: LateFields | None = None,
) -> AccessToken:
    """Build the access token from *token*. The caller must have verified its signature or its source.

    *checked* is the result of :func:`check`. *late* is :func:`late_fields` with *issuer*, if the caller has prepared
    it. NOT checked: the policy of *issuer*.
    """
    claims = token.claims
    if checked is None:
        audience, granted = audience_of(token, issuer), granted_scopes(claims, issuer)
    else:
        _, audience, granted = checked
    given: Iterable[str] = granted or ()
    if granted is None and issuer.roles_as_scopes:
        given = _roles(claims, issuer)
    return build_access_token(
        issuer.url,
        audience,
        vocabulary.effective(given),
        granted,
        float(claims["exp"]) if "exp" in claims else None,
        claims,
        token.fingerprint,
        partial(late_fields, issuer=issuer) if late is None else late,
    )


def late_fields(claims: Mapping[str, Any], issuer: Issuer) -> dict[str, Any]:
    """Return the fields of an access token that few requests read, from the *claims* of an accepted token."""
    subject = _first_string(claims, issuer.subject_claims)
    client_id = _first_string(claims, issuer.client_id_claims)
    return {
        "subject": subject,
        "client_id": client_id,
        "issued_at": float(claims["iat"]) if "iat" in claims else None,
        "roles": _roles(claims, issuer) if issuer.role_claims else _NO_ROLES,
        "machine": is_machine(issuer.machine_signs, claims, subject, client_id),
        "sender_constrained": "cnf" in claims,
    }


def _check_header(token: Unverified, issuer: Issuer) -> bool:
    check_header(token.header, algorithms=issuer.algorithms)
    return check_type(token.header, issuer)


def check_type(header: Mapping[str, Any], issuer: Issuer) -> bool:
    """Check the ``typ`` of *header*, and return whether it is ``at+jwt``, so that the rules of RFC 9068 apply."""
    typ = header.get("typ")
    if "typ" in header and not isinstance(typ, str):
        raise InvalidToken(Reason.TYPE_REFUSED, typ=describe(typ), expected="a string")
    kind = None if typ is None else media_type(typ)
    # RFC 9068 section 4: "The resource server MUST verify that the "typ" header value is "at+jwt" or
    # "application/at+jwt" and reject tokens carrying any other value." Many servers send "JWT" or no type; the policy
    # says which are accepted, and check_is_access_token() then decides by the claims.
    if kind not in issuer.types:
        accepted = " ".join(sorted(each or "none" for each in issuer.types))
        raise InvalidToken(Reason.TYPE_REFUSED, typ=kind or "none", accepted=accepted)
    # Types such as "txntoken+jwt" exist so that no recipient takes one kind of token for another (RFC 8725 section
    # 3.11). A list of accepted types does not change what such a token is for.
    if typ is not None and is_other_kind(typ) and typ not in issuer.expected_headers.get("typ", ()):
        raise InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, typ=kind, hint=_OTHER_KIND_HINT)
    return kind == "at+jwt"


def check_issuer(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Check that ``iss`` is the issuer's URL, or an alias whose companion claims have the configured values.

    In a JWT-SVID, the trust domain in ``sub`` is checked instead.
    """
    if issuer.issuer_claim_optional_dangerously and "iss" not in claims:
        return
    if issuer.trust_domain is not None:
        check_id(claims, issuer.trust_domain)
        return
    iss = claims.get("iss")
    companions = issuer.aliases.get(iss) if isinstance(iss, str) else None
    if companions is None:
        # RFC 9068 section 4: the issuer identifier "MUST exactly match the value of the "iss" claim."
        if iss == issuer.url:
            return
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=iss)
    for claim, value in companions.items():
        if claims.get(claim) != value:
            raise unexpected_claim(claim, claims, (value,))


def check_header_members(token: Unverified, issuer: Issuer) -> None:
    """Check the header parameters that the policy expects or forbids."""
    header = token.header
    for name, values in issuer.expected_headers.items():
        given = header.get(name)
        if not isinstance(given, str) or given not in values:
            found = describe(given) if name in header else "absent"
            raise InvalidToken(
                Reason.HEADER_REFUSED, parameter=name, found=found, expected=" or ".join(map(str, values))
            )
    for name in issuer.forbidden_headers:
        if name in header:
            raise InvalidToken(Reason.HEADER_REFUSED, parameter=name, expected="absent")


def check_members(token: Unverified, issuer: Issuer) -> None:
    """Check the claims that the policy expects or forbids, and that replicated claims in the header are equal."""
    claims, header = token.claims, token.header
    for name, values in issuer.expected_claims.items():
        given = claims.get(name)
        # Check the type first, because 1 == True.
        if not isinstance(given, str | bool) or given not in values:
            raise unexpected_claim(name, claims, values)
    for name, prefixes in issuer.claim_prefixes.items():
        given = claims.get(name)
        if not isinstance(given, str) or not given.startswith(tuple(prefixes)):
            raise unexpected_claim(name, claims, [f"{prefix}..." for prefix in prefixes])
    for name in issuer.forbidden_claims:
        if name in claims:
            raise InvalidToken(Reason.FORBIDDEN_CLAIM, claim=name)
    for name in _REPLICATED_CLAIMS:  # RFC 7519 section 5.3, see peek()
        if name in header and header[name] != claims.get(name):
            payload = describe(claims[name]) if name in claims else "absent"
            raise InvalidToken(Reason.REPLICATED_CLAIM, claim=name, header=describe(header[name]), payload=payload)


def check_presence(claims: Mapping[str, Any], issuer: Issuer, *, rfc9068: bool = False) -> None:
    """Check that required claims are present and not empty, and the types of the claims that identify a party.

    ``sub``, ``jti`` and ``client_id`` must be strings, and ``act`` an object.
    """
    required = issuer.required_claims
    if required is None:
        # RFC 9068 section 2.2 requires these claims of a JWT access token. Other tokens are not bound by it.
        required = RFC9068_CLAIMS if rfc9068 else ()
    for name in required:
        # If the policy reads the audience from other claims, check_audience() has already required one of them.
        if claims.get(name, "") == "" and not (name == "aud" and issuer.audience_claims != ("aud",)):
            required_by = "required_claims" if issuer.required_claims is not None else "typ at+jwt"
            raise InvalidToken(Reason.MISSING_CLAIM, claim=name, required_by=required_by)
    for name in _STRING_CLAIMS:
        if not isinstance(claims.get(name, ""), str):
            raise malformed_claim(name, claims[name], "a string")
    # RFC 8693 section 4.1 defines the value of "act" as a JSON object that identifies the actor.
    if "act" in claims and not isinstance(claims["act"], dict):
        raise malformed_claim("act", claims["act"], "an object")
    if issuer.any_claims and not any(name in claims for name in issuer.any_claims):
        raise InvalidToken(Reason.MISSING_CLAIM, claim=" or ".join(issuer.any_claims))


def subject_of(claims: Mapping[str, Any], issuer: Issuer) -> str | None:
    """Return the subject from the first claim that *issuer* configures for it, or ``None``."""
    return _first_string(claims, issuer.subject_claims)


def _first_string(claims: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _roles(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[str]:
    """Return the roles at the configured paths.

    *claims* may be frozen. A value may be a string, an array of strings, or an object whose member names are roles.
    Other values are ignored.
    """
    found: set[str] = set()
    for path in issuer.role_claims:
        # Try the whole path first: the name of a claim may contain dots, as in "https://example.com/roles".
        value: object = claims.get(path)
        if value is None:
            value = claims
            for step in path.split("."):
                value = value.get(step) if isinstance(value, Mapping) else None
        match value:
            case str():
                found.add(value)
            case list() | tuple() | Mapping():
                found.update(item for item in value if isinstance(item, str))
            case _:
                pass
    return frozenset(found)
