"""Whether claims describe an access token: one list of questions, for JWTs and for what an authority answers.

Authorization servers sign ID tokens, refresh tokens and logout tokens with the same keys, and some call all of them
active (RFC 7662 section 4 leaves that to them). RFC 9068 tells them apart by the ``typ`` of the header; before it, and
in an answer, only claims do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken, Reason

# Members that name the kind of a token: RFC 7662 section 2.2; Cognito, Hydra, Dex; Keycloak; Adobe; PingAM; Curity.
# Only of the first two are all values known. Elsewhere "typ" is a format ("JWT"), and "type" anything.
_CLOSED: Final = ("token_type", "token_use")
_OPEN: Final = ("typ", "type", "tokenName", "purpose")
# What only an ID token (OpenID Connect Core section 2) or a security event token (RFC 8417) carries.
_OF_ID_TOKENS: Final = ("nonce", "at_hash", "c_hash", "s_hash")
_TELLING: Final = frozenset((*_CLOSED, *_OPEN, *_OF_ID_TOKENS, "events"))

# Before the name of a kind: RFC 8693 section 3, and the media types of RFC 7515 section 4.1.9.
_PREFIXES: Final = ("urn:ietf:params:oauth:token-type:", "application/")
_SEPARATORS: Final = str.maketrans("", "", "-_+. \t")
# Names of kinds as _word() returns them, without "jwt" and "token" at the end.
_ACCESS: Final = frozenset(("bearer", "access", "at"))
_ACCESS_USES: Final = frozenset(("access", "access_token"))
# Tokens that are good only with a proof of possession (RFC 9449 section 6.2, RFC 9200 section 5.9.1).
_BOUND: Final = frozenset(("dpop", "pop"))
_ID: Final = frozenset(("id", "serializedid"))
_OTHER: Final = frozenset(
    (
        "refresh", "offline", "logout", "backchannellogout", "frontchannellogout", "authorizationcode", "devicecode",
        "registrationaccess", "initialaccess", "secevent", "securityevent", "tokenintrospection",
        "clientauthentication", "oauthauthzreq", "oauthidjag", "idjag", "txn", "statuslist", "entitystatement",
        "userinfo",
    )
)  # fmt: skip
_AUTHORIZATION_CLAIMS: Final = ("roles", "groups", "entitlements", "permissions", "realm_access", "resource_access")


def check_is_access_token(
    claims: Mapping[str, Any], issuer: Issuer, *, typed: bool = False, answered: bool = False
) -> None:
    """Refuse *claims* that describe another kind of token, and claims of a JWT that do not tell its kind.

    Checked: the members that name a kind (``token_type``, ``token_use``, ``typ``, ``type``, ``tokenName``,
    ``purpose``), unless *issuer* expects values of its own there; claims that only ID tokens and security event tokens
    carry; and that there is a mark of an access token, a client, a scope or a role. A list counts by its members. A
    value that is neither text nor a list of texts is refused.

    *typed*: the header says ``at+jwt`` (RFC 9068 section 2.1), which is such a mark and changes nothing else.
    *answered*: an introspection endpoint answered with them, so they need no mark of an access token: RFC 7662 section
    2.2 makes every member but ``active`` optional. With ``accept_id_tokens_dangerously`` ID tokens pass, and refresh
    and logout tokens do not.

    Raises :class:`InvalidToken`: ``NOT_AN_ACCESS_TOKEN``, or ``SENDER_CONSTRAINT_UNPROVEN`` for a token that is marked
    as bound to a key, because proofs of possession are not supported.
    """
    accepts_ids = issuer.accept_id_tokens_dangerously
    marked = typed or answered
    if not _TELLING.isdisjoint(claims):
        named = [name for name in (*_OPEN, *_CLOSED) if name in claims and _names_access(claims[name], name, issuer)]
        marked = marked or bool(named)
        if "events" in claims:
            raise _refused("events")
        if not accepts_ids:
            _check_evidence(claims, named)
    if marked or accepts_ids or _speaks_of_authorization(claims, issuer):
        return
    raise _refused("client, scope or role")


def marks(members: Mapping[str, Any]) -> dict[str, Any]:
    """The *members* that :func:`check_is_access_token` asks for, of an answer that is not by RFC 7662."""
    return {name: members[name] for name in _TELLING if name in members}


def _names_access(value: object, name: str, issuer: Issuer) -> bool:
    """Return whether *value* of the member *name* says "access token"; refuse a value that says something else."""
    values = value if isinstance(value, list) else [value]
    expected = name in issuer.expected_claims  # then these values were compared before
    if not expected and (not values or not all(isinstance(each, str) for each in values)):
        raise _refused(name)
    # Every member is looked at: one that says "access token" does not excuse the next one.
    named = [_text_names_access(each, name, issuer) for each in values if isinstance(each, str)]
    return bool(named) and all(named)


def _text_names_access(value: str, name: str, issuer: Issuer) -> bool:
    word = _word(value)
    if word in _BOUND:
        raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN, claim=name)
    known = value in _ACCESS_USES if name == "token_use" else word in _ACCESS
    if known or name in issuer.expected_claims:
        return known
    accepted = word in _ID and issuer.accept_id_tokens_dangerously
    if (word in _ID or word in _OTHER or name in _CLOSED) and not accepted:
        raise _refused(name)
    return False


def _word(value: str) -> str:
    """Return *value* in the one form that ``Refresh``, ``refresh_token`` and ``application/refresh+jwt`` share."""
    short = value.strip().lower()
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    return short.translate(_SEPARATORS).removesuffix("jwt").removesuffix("token")


def _check_evidence(claims: Mapping[str, Any], named: list[str]) -> None:
    """Refuse claims of ID tokens. A ``nonce`` alone is no evidence beside a member that says "access token": older
    Keycloak and PingAM copy it into access tokens. ``token_type`` is not such a member, because ``Bearer`` is said of
    any token."""
    for name in _OF_ID_TOKENS:
        if name in claims and (name != "nonce" or not any(member != "token_type" for member in named)):
            raise _refused(name)


def _speaks_of_authorization(claims: Mapping[str, Any], issuer: Issuer) -> bool:
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


def _refused(claim: str) -> InvalidToken:
    return InvalidToken(Reason.NOT_AN_ACCESS_TOKEN, claim=claim)
