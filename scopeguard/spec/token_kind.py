"""Check that claims describe an access token, for JWTs and for introspection answers alike.

Authorization servers sign ID tokens, refresh tokens and logout tokens with the same keys, and some introspection
endpoints report all of them as active (RFC 7662 section 4 leaves that to the server). RFC 9068 distinguishes access
tokens by the ``typ`` header parameter. Without it, and in introspection answers, only the claims show the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.log_facts import describe
from scopeguard.spec.sender_constraint import accepts_proofs

# Members that name the kind of a token: token_type in RFC 7662 section 2.2; token_use of Cognito, Hydra and Dex; typ of
# Keycloak; type of Adobe; tokenName of PingAM; purpose of Curity. All values of the closed members are known, so an
# unknown value is refused. An open member may also have an unrelated value, such as the "typ" of "JWT".
_CLOSED_MEMBERS: Final = ("token_type", "token_use")
_OPEN_MEMBERS: Final = ("typ", "type", "tokenName", "purpose")
# Claims that only ID tokens have: OpenID Connect Core sections 2 and 3.3.2.11; FAPI 1.0 for s_hash.
_ID_TOKEN_CLAIMS: Final = ("nonce", "at_hash", "c_hash", "s_hash")
# Claims that show another kind of token: DPoP proofs (RFC 9449 section 4.2), signed introspection answers (RFC 9701
# section 5), status lists, workload proofs (draft-ietf-wimse-wpt), transaction tokens
# (draft-ietf-oauth-transaction-tokens), SD-JWTs and their key bindings, verifiable credentials, and entity
# statements (OpenID Federation).
_OTHER_KIND_CLAIMS: Final = (
    "htm", "htu", "token_introspection", "status_list", "wth", "req_wl", "_sd_alg", "sd_hash", "vct", "authority_hints",
)  # fmt: skip
_KIND_CLAIMS: Final = frozenset((*_CLOSED_MEMBERS, *_OPEN_MEMBERS, *_ID_TOKEN_CLAIMS, *_OTHER_KIND_CLAIMS, "events"))

# Prefixes of the name of a kind: token type identifiers (RFC 8693 section 3) and media types (RFC 7515 section 4.1.9).
_PREFIXES: Final = ("urn:ietf:params:oauth:token-type:", "application/")
_SEPARATORS: Final = str.maketrans("", "", "-_+. \t")
# Names of kinds in the form that _normalize() returns.
_ACCESS: Final = frozenset(("bearer", "access", "at"))
_ACCESS_USES: Final = frozenset(("access", "access_token"))
# Tokens that are valid only with a proof of possession (RFC 9449 section 6.2, RFC 9200 section 5.9.1).
_BOUND: Final = frozenset(("dpop", "pop"))
_ID: Final = frozenset(("id", "serializedid"))
_OTHER: Final = frozenset(
    (
        "refresh", "offline", "logout", "backchannellogout", "frontchannellogout", "authorizationcode", "devicecode",
        "registrationaccess", "initialaccess", "secevent", "securityevent", "tokenintrospection",
        "clientauthentication", "oauthauthzreq", "oauthidjag", "idjag", "txn", "statuslist", "entitystatement",
        "userinfo", "wit", "workloadidentity", "wpt", "workloadproof", "oauthclientattestation",
        "oauthclientattestationpop",
    )
)  # fmt: skip
# More names that only "typ" may have: they are too short or too common to be refused in other members.
_OTHER_TYPES: Final = _OTHER | frozenset(
    (
        "na", "dpop", "kb", "vc", "vp", "sd", "dcsd", "vcsd", "kbsd", "rt", "authorizationgrant", "passport",
        "oauthprotectedresource", "softwarestatement", "jwkset", "trustmark", "trustmarkdelegation",
        "trustmarkstatusresponse", "resolveresponse", "explicitregistrationresponse", "openid4vciproof",
        "keyattestation",
    )
)  # fmt: skip
_AUTHORIZATION_CLAIMS: Final = ("roles", "groups", "entitlements", "permissions", "realm_access", "resource_access")


def is_other_kind(typ: str) -> bool:
    """Return whether *typ*, the value of a header parameter, is the type of another kind of token.

    Known are the registered types of grants, proofs, attestations, logout and security event tokens, lists and
    credentials, and the values ``N_A`` and ``txn_token`` of earlier transaction tokens.
    """
    return _normalize(typ) in _OTHER_TYPES


def expects_other_kind(issuer: Issuer) -> bool:
    """Return whether *issuer* expects the type of another kind of token by ``expected_headers``."""
    return any(is_other_kind(typ) for typ in issuer.expected_headers.get("typ", ()))


def check_is_access_token(
    claims: Mapping[str, Any], issuer: Issuer, *, typed: bool = False, introspected: bool = False
) -> None:
    """Refuse *claims* of another kind of token, and claims of a JWT that do not show which kind it is.

    Checked: the members that name a kind (``token_type``, ``token_use``, ``typ``, ``type``, ``tokenName``,
    ``purpose``), unless *issuer* expects its own values there; claims that only ID tokens, security event tokens and
    other kinds of tokens have; and that something shows an access token: a member that names it, or a client, scope or
    role claim. Every member of an array is checked. A value that is neither a string nor an array of strings is
    refused.

    * *typed*: the header says ``at+jwt`` (RFC 9068 section 2.1), which shows an access token. The other checks apply.
    * *introspected*: the claims come from an introspection endpoint. They need not show an access token, because
      RFC 7662 section 2.2 makes every member but ``active`` optional.

    With ``accept_id_tokens_dangerously``, ID tokens are accepted; refresh and logout tokens are not.

    Raises :class:`InvalidToken`: ``NOT_AN_ACCESS_TOKEN``, or ``SENDER_CONSTRAINT_UNPROVEN`` for a token that is bound
    to a key, unless proofs are checked.
    """
    # RFC 8725 section 3.12: "If more than one kind of JWT can be issued by the same issuer, the validation rules for
    # those JWTs MUST be written such that they are mutually exclusive, rejecting JWTs of the wrong kind."
    accepts_ids = issuer.accept_id_tokens_dangerously
    marked = typed or introspected
    if not _KIND_CLAIMS.isdisjoint(claims):
        named = [
            name
            for name in (*_OPEN_MEMBERS, *_CLOSED_MEMBERS)
            if name in claims and _names_access_token(claims[name], name, issuer)
        ]
        marked = marked or bool(named)
        if "cnf" not in claims and any(_is_bound(claims[name]) for name in named):
            # The token type demands a proof, but there is no "cnf" that names the key.
            raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN, claim=" ".join(named), cnf="absent")
        # Security event tokens have "events" (RFC 8417 section 2.2).
        if "events" in claims:
            raise _not_an_access_token("events")
        _check_other_kinds(claims, issuer)
        if not accepts_ids:
            _check_id_token_claims(claims, named)
    if marked or accepts_ids or _has_authorization_claim(claims, issuer):
        return
    raise InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, absent="client, scope and role claims, and a typ of at+jwt")


def kind_claims(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *members* that :func:`check_is_access_token` reads, except client, scope and role claims.

    It is for answers of endpoints that do not follow RFC 7662. Their client, scope and role members have other names.
    """
    return {name: members[name] for name in _KIND_CLAIMS if name in members}


def _names_access_token(value: object, name: str, issuer: Issuer) -> bool:
    """Return whether *value* of the member *name* says "access token"; refuse a value that says something else."""
    values = value if isinstance(value, list) else [value]
    expected = name in issuer.expected_claims  # jwt.check_members() has compared the value
    if not expected and (not values or not all(isinstance(each, str) for each in values)):
        raise _not_an_access_token(name, value)
    # A list, not a generator: every value is checked, even after one that says "access token".
    named = [_text_names_access_token(each, name, issuer) for each in values if isinstance(each, str)]
    return bool(named) and all(named)


def _text_names_access_token(value: str, name: str, issuer: Issuer) -> bool:
    word = _normalize(value)
    if word in _BOUND:
        if not accepts_proofs(issuer):
            raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN, claim=name, found=value)
        return True
    known = value in _ACCESS_USES if name == "token_use" else word in _ACCESS
    if known or name in issuer.expected_claims:
        return known
    accepted = word in _ID and issuer.accept_id_tokens_dangerously
    is_other = word in (_OTHER_TYPES if name == "typ" else _OTHER)
    if (word in _ID or is_other or name in _CLOSED_MEMBERS) and not accepted:
        raise _not_an_access_token(name, value)
    return False


def _is_bound(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and _normalize(each) in _BOUND for each in values)


def _normalize(value: str) -> str:
    """Normalize the name of a kind, so that ``Refresh``, ``refresh_token`` and ``refresh+jwt`` become ``refresh``."""
    short = value.strip().lower()
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    return short.translate(_SEPARATORS).removesuffix("jwt").removesuffix("token")


def _check_other_kinds(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Refuse claims that only other kinds of tokens have, unless *issuer* expects the claim or such a kind."""
    for name in _OTHER_KIND_CLAIMS:
        if name in claims and name not in issuer.expected_claims and not expects_other_kind(issuer):
            raise _not_an_access_token(name)


def _check_id_token_claims(claims: Mapping[str, Any], named: list[str]) -> None:
    """Refuse claims that only ID tokens have. *named*: the members that say "access token".

    A ``nonce`` is accepted together with such a member, because older Keycloak and PingAM copy it into access tokens.
    ``token_type`` does not suffice for that, because servers send ``Bearer`` for any kind of token.
    """
    for name in _ID_TOKEN_CLAIMS:
        if name in claims and (name != "nonce" or not any(member != "token_type" for member in named)):
            raise _not_an_access_token(name)


def _has_authorization_claim(claims: Mapping[str, Any], issuer: Issuer) -> bool:
    for name in issuer.client_id_claims:
        if name in claims:
            return True
    names = (
        *(source.claim for source in issuer.scope_claims),
        *issuer.role_claims,
        *(path.partition(".")[0] for path in issuer.role_claims),
        *_AUTHORIZATION_CLAIMS,
    )
    return any(name in claims for name in names)


def _not_an_access_token(claim: str, value: object = None) -> InvalidToken:
    """Return the error for a *claim* that only other kinds of tokens have, or whose *value* names another kind."""
    facts = {} if value is None else {"found": describe(value)}
    return InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, claim=claim, **facts)
