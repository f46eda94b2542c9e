"""Checks of token requests, one function for each grant type.

RFC 6749 sections 4.1, 4.4 and 5, RFC 7523, RFC 7636, RFC 8693 and RFC 8707.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import PyJWTError

from scopeguard.config.leeway import LEEWAY
from scopeguard.devserver.authorization_codes import AuthorizationCodes
from scopeguard.devserver.issued_tokens import IssuedToken, IssuedTokens
from scopeguard.devserver.lifetimes import ASSERTION_LIFETIME
from scopeguard.devserver.registry import Client, Form, OAuthError, Registry, ServiceAccount, TokenFormat
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import check_scope
from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.token_exchange import ACCESS_TOKEN, JWT, JWT_BEARER, TOKEN_EXCHANGE

CLIENT_CREDENTIALS: Final = "client_credentials"
AUTHORIZATION_CODE: Final = "authorization_code"

_TOKEN_TYPES: Final = (ACCESS_TOKEN, JWT)

# RFC 6749 section 3.2: "Request and response parameters MUST NOT be included more than once." The exceptions are
# "resource" (RFC 8707 section 2) and "audience" (RFC 8693 section 2.1).
_REPEATABLE: Final = ("resource", "audience")
_ASSERTION_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_OTHER_RESOURCE: Final = (
    "The client may not have tokens for this resource; name it with --audience of scopeguard devserver, in code with "
    "audience"
)
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s#]+")
# PyJWT checks the signature only: it would compare the times with the system's clock, not with the authority's.
_SIGNATURE_ONLY: Final[Any] = {
    f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}  # fmt: skip


class Parameters:
    """The parameters of a form.

    An empty one counts as absent (RFC 6749 section 3.2). Raises :class:`OAuthError` for one that occurs twice.
    """

    def __init__(self, form: Form) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in form:
            if value:
                self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            if len(values) > 1 and name not in _REPEATABLE:
                raise OAuthError("invalid_request", "A parameter occurs more than once")

    def get(self, name: str) -> str | None:
        """Return the first value of *name*, ``None`` if it is absent."""
        values = self._values.get(name)
        return values[0] if values else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return all values of *name*."""
        return tuple(self._values.get(name, ()))

    def require(self, name: str) -> str:
        """Return the first value of *name*. Raises :class:`OAuthError` if it is absent."""
        value = self.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing")
        return value

    @property
    def single(self) -> Mapping[str, str]:
        """The first value of each parameter."""
        return {name: values[0] for name, values in self._values.items()}


class UsedAssertions:
    """Remembers the ``jti`` of used assertions until they expire (RFC 7523 section 3, item 7)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str], float] = {}

    def use(self, issuer: str, jti: str, until: float, now: float) -> bool:
        """Record a use. Return whether it is the first one.

        *until* is the time, in seconds, after which the assertion has expired and need not be remembered.
        """
        with self._lock:
            self._until = {key: end for key, end in self._until.items() if end > now}
            if (issuer, jti) in self._until:
                return False
            self._until[issuer, jti] = until
            return True

    def reset(self) -> None:
        """Forget every use."""
        with self._lock:
            self._until = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The token that a request is allowed to have. The lifetime is in seconds.

    ``actor``: the ``act`` claim. ``issued_token_type``: the member of that name in the response (RFC 8693).
    ``thumbprint``: that of the key to which the token is bound (RFC 9449 section 6). ``code``: the authorization code.
    """

    client_id: str
    subject: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    token_format: TokenFormat | str
    lifetime: int
    actor: Mapping[str, Any] | None = None
    issued_token_type: str | None = None
    thumbprint: str | None = None
    code: str | None = None


GrantHandler = Callable[["GrantRequest"], Grant]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRequest:
    """A request to the token endpoint, with the data for its checks. ``now`` is in seconds since the epoch."""

    registry: Registry
    parameters: Parameters
    authorization: str | None
    now: float
    default_audience: str
    own_audiences: tuple[str, ...]
    used: UsedAssertions
    tokens: IssuedTokens
    codes: AuthorizationCodes


def authorization_code(request: GrantRequest) -> Grant:
    """Grant a token for an authorization code (RFC 6749 section 4.1.3) and the verifier of PKCE (RFC 7636 section 4.5).

    Checked: the code was issued to this client, with the same ``redirect_uri``, less than a minute ago, and is used for
    the first time; the verifier matches the challenge. Every attempt uses the code up. A second one also revokes the
    token that the first one got, as RFC 6749 section 4.1.2 recommends.
    """
    parameters = request.parameters
    client = request.registry.authenticate(parameters.single, request.authorization, or_public=True)
    code = parameters.require("code")
    redirect_uri, verifier = parameters.require("redirect_uri"), parameters.require("code_verifier")
    login, stolen = request.codes.take(code, request.now)
    if stolen is not None:
        request.tokens.revoke(stolen)
    if login is None or login.client_id != client.client_id or login.redirect_uri != redirect_uri:
        raise OAuthError("invalid_grant", "The code is unknown, was used before, has expired or is for another client")
    challenge = encode_base64url(hashlib.sha256(verifier.encode("utf-8")).digest())
    if _VERIFIER.fullmatch(verifier) is None or not hmac.compare_digest(challenge, login.code_challenge):
        raise OAuthError("invalid_grant", "The code_verifier does not match the code_challenge")
    resources = parameters.all("resource")
    if not set(resources) <= set(login.audiences):
        raise OAuthError("invalid_target", "The user has not signed in for this resource")
    return Grant(
        client_id=client.client_id,
        subject=login.subject,
        scopes=login.scopes,
        audiences=resources or login.audiences,
        token_format=client.token_format,
        lifetime=client.lifetime,
        code=code,
    )


def client_credentials(request: GrantRequest) -> Grant:
    """Grant a token by client credentials (RFC 6749 section 4.4).

    The client is also the subject of the token, as RFC 9068 section 2.2 says for grants without a resource owner.
    """
    client = request.registry.authenticate(request.parameters.single, request.authorization)
    return Grant(
        client_id=client.client_id,
        subject=client.client_id,
        scopes=granted_scopes(request.parameters.get("scope"), client.scopes),
        audiences=granted_audiences(request.parameters, request.default_audience, client.audiences),
        token_format=client.token_format,
        lifetime=client.lifetime,
    )


def jwt_bearer(request: GrantRequest) -> Grant:
    """Grant a token for an assertion that a service account has signed (RFC 7523 section 2.1).

    Checked: the signature with the registered key, that ``crit`` is absent, ``iss``, ``sub`` (absent or equal to
    ``iss``), ``aud``, ``exp``, ``iat``, ``nbf`` if present, a lifetime of an hour at most, and that a ``jti`` was not
    used before. Not checked: the reuse of an assertion without ``jti``, because Google's clients send none.

    The scopes are those of the ``scope`` parameter, or else of a ``scope`` claim, which Google's clients send.
    """
    if request.authorization is not None or request.parameters.get("client_secret") is not None:
        request.registry.authenticate(request.parameters.single, request.authorization)
    account, claims = _verified_assertion(request)
    scope = request.parameters.get("scope")
    if scope is None:
        scope = claims.get("scope")
        if scope is not None and not isinstance(scope, str):
            raise _invalid_grant("scope is not a string")
    return Grant(
        client_id=account.email,
        subject=account.email,
        scopes=granted_scopes(scope, account.scopes),
        audiences=granted_audiences(request.parameters, request.default_audience, account.audiences),
        token_format=account.token_format,
        lifetime=account.lifetime,
    )


def token_exchange(request: GrantRequest) -> Grant:
    """Grant a token for the next API in exchange for the token of a caller (RFC 8693).

    Checked: the client may exchange tokens (``Client.exchanges_for``) and names only these audiences; the subject token
    is active, and was issued to the client or for its own API (``Client.introspects``); an actor token is active and
    was issued to the client. The new token has the subject of the old one, the client as its actor
    (``act``), with the actors before it, scopes that both the old token and the client have, and the rest of the old
    token's lifetime at most.
    """
    parameters = request.parameters
    client = request.registry.authenticate(parameters.single, request.authorization)
    if not client.exchanges_for:
        raise OAuthError("unauthorized_client", "The client may not exchange tokens")
    if parameters.get("requested_token_type") not in (None, *_TOKEN_TYPES):
        raise OAuthError("invalid_request", "This server issues access tokens only")
    subject = _exchanged_token("subject_token", request)
    if subject.client_id != client.client_id and not set(client.introspects) & set(subject.audiences):
        raise OAuthError("invalid_request", "The subject_token was issued neither to this client nor for it")
    user, scope = subject.claims.get("sub"), subject.claims.get("scope")
    if not isinstance(user, str):
        raise OAuthError("invalid_request", "The subject_token has no subject")
    scopes = scope.split() if isinstance(scope, str) else []
    return Grant(
        client_id=client.client_id,
        subject=user,
        scopes=granted_scopes(parameters.get("scope"), [scope for scope in scopes if scope in client.scopes]),
        audiences=granted_audiences(request.parameters, request.default_audience, client.exchanges_for),
        token_format=client.token_format,
        lifetime=min(client.lifetime, int(subject.claims["exp"] - request.now)),
        actor=_actor(client, subject, request),
        issued_token_type=ACCESS_TOKEN,
    )


GRANTS: Final[Mapping[str, GrantHandler]] = {
    AUTHORIZATION_CODE: authorization_code,
    CLIENT_CREDENTIALS: client_credentials,
    JWT_BEARER: jwt_bearer,
    TOKEN_EXCHANGE: token_exchange,
}
"""The supported grant types."""


def _exchanged_token(name: str, request: GrantRequest) -> IssuedToken:
    """Return the record of the token in the parameter *name*.

    RFC 8693 section 2.2.2: if a token is invalid, "the value of the error parameter MUST be the invalid_request error
    code".
    """
    token = request.parameters.require(name)
    if request.parameters.require(f"{name}_type") not in _TOKEN_TYPES:
        raise OAuthError("invalid_request", f"The {name}_type is not that of an access token")
    issued = request.tokens.active(token, request.now)
    if issued is None:
        raise OAuthError("invalid_request", f"The {name} was not issued here, has expired or was revoked")
    return issued


def _actor(client: Client, subject: IssuedToken, request: GrantRequest) -> Mapping[str, Any]:
    """Return the ``act`` claim: the client or the subject of its actor token, around the actors of *subject*."""
    name: object = client.client_id
    if request.parameters.get("actor_token") is not None:
        actor = _exchanged_token("actor_token", request)
        if actor.client_id != client.client_id:
            raise OAuthError("invalid_request", "The actor_token was not issued to this client")
        name = actor.claims.get("sub")
    elif request.parameters.get("actor_token_type") is not None:
        # RFC 8693 section 2.1: "it MUST NOT be included otherwise".
        raise OAuthError("invalid_request", "There is an actor_token_type, but no actor_token")
    before = subject.claims.get("act")
    return {"sub": name} if before is None else {"sub": name, "act": before}


def _invalid_grant(problem: str) -> OAuthError:
    return OAuthError("invalid_grant", f"The assertion is not acceptable: {problem}")


def _verified_assertion(request: GrantRequest) -> tuple[ServiceAccount, dict[str, Any]]:
    assertion = request.parameters.require("assertion")
    try:
        issuer = jwt.decode(assertion, options={"verify_signature": False}).get("iss")
        account = request.registry.service_accounts.get(issuer) if isinstance(issuer, str) else None
        if account is None:
            raise _invalid_grant("its issuer is not a service account of this server")
        claims: dict[str, Any] = jwt.decode(
            assertion, account.verification_key, algorithms=list(_ASSERTION_ALGORITHMS), options=_SIGNATURE_ONLY
        )
        critical = "crit" in jwt.get_unverified_header(assertion)
    except (PyJWTError, TypeError, ValueError):
        raise _invalid_grant("it is malformed, or its signature is wrong") from None
    # RFC 7515 section 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by
    # the recipient, then the JWS is invalid." No extension is supported here.
    if critical:
        raise _invalid_grant("its header has crit")
    _check_assertion(claims, account, request)
    _check_first_use(claims, account, request)
    return account, claims


def _check_assertion(claims: Mapping[str, Any], account: ServiceAccount, request: GrantRequest) -> None:
    if claims.get("sub", account.email) != account.email:
        raise _invalid_grant("sub is not the service account itself")
    audience = claims.get("aud")
    offered = [audience] if isinstance(audience, str) else audience
    accepted = {*request.own_audiences, *account.assertion_audiences}
    if not isinstance(offered, list) or not any(isinstance(item, str) and item in accepted for item in offered):
        raise _invalid_grant("aud names neither this server nor its token endpoint")
    expires_at, issued_at = _moment(claims, "exp"), _moment(claims, "iat")
    if request.now >= expires_at + LEEWAY:
        raise _invalid_grant("it has expired")
    if issued_at > request.now + LEEWAY:
        raise _invalid_grant("it was issued in the future")
    if "nbf" in claims and _moment(claims, "nbf") > request.now + LEEWAY:
        raise _invalid_grant("it is not valid yet")
    if expires_at - issued_at > ASSERTION_LIFETIME:
        raise _invalid_grant("it is valid for more than an hour")


def _check_first_use(claims: Mapping[str, Any], account: ServiceAccount, request: GrantRequest) -> None:
    jti = claims.get("jti")
    if jti is None:
        return
    if not isinstance(jti, str):
        raise _invalid_grant("jti is not a string")
    if not request.used.use(account.email, jti, _moment(claims, "exp") + LEEWAY, request.now):
        raise _invalid_grant("it was used before")


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid_grant("it needs exp and iat, and nbf if there is one, as numbers of seconds")
    return value


def granted_scopes(requested: str | None, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a token, all that are *allowed* if *requested* is ``None`` (RFC 6749 section 3.3).

    Raises :class:`OAuthError` for a scope that is not allowed.
    """
    if requested is None:
        return tuple(allowed)
    scopes = tuple(dict.fromkeys(requested.split(" ")))
    try:
        for scope in scopes:
            check_scope(scope, "scope")
    except ConfigurationError:
        raise OAuthError("invalid_scope", "scope is not a list of scopes separated by single spaces") from None
    if not set(scopes) <= set(allowed):
        raise OAuthError("invalid_scope", "The client may not have one of the scopes")
    return scopes


def granted_audiences(parameters: Parameters, default: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the audiences of a token, the first of *allowed* if none is requested (RFC 8707 section 2).

    An empty *allowed* means *default*. Raises :class:`OAuthError` for an audience that is not allowed.
    """
    allowed = allowed or (default,)
    resources = parameters.all("resource")
    for resource in resources:
        # An allowed audience may be another identifier, as some servers use them (a GUID at the v1 endpoint of Entra).
        if resource not in allowed and not _ABSOLUTE_URI.fullmatch(resource):
            raise OAuthError("invalid_target", "resource must be an absolute URI without a fragment (RFC 8707)")
    requested = tuple(dict.fromkeys((*resources, *parameters.all("audience"))))
    if not set(requested) <= set(allowed):
        raise OAuthError("invalid_target", _OTHER_RESOURCE)
    return requested or (allowed[0],)
