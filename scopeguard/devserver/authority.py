"""An authorization server for development and tests, without sockets: it turns requests into answers.

FOR DEVELOPMENT ONLY. It keeps everything in memory, has users without passwords, and can be made to misbehave.
:mod:`scopeguard.devserver` serves it on a loopback port, :mod:`scopeguard.testing` calls it in process.

It supports authorization codes with PKCE and a login page (:mod:`scopeguard.devserver.authorization_endpoint`), client
credentials (RFC 6749 section 4.4), JWT bearer assertions (RFC 7523), token exchange (RFC 8693), resource indicators
(RFC 8707), JWT access tokens (RFC 9068) and opaque ones, introspection (RFC 7662), revocation (RFC 7009), metadata (RFC
8414 and OpenID Connect Discovery), key rotation, and tokens bound to the key of a DPoP proof (RFC 9449 section 5),
without nonces.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import instance, methods, text, whole
from scopeguard.config.urls import check_form
from scopeguard.devserver.authorization_codes import AuthorizationCodes
from scopeguard.devserver.authorization_endpoint import AuthorizationEndpoint, BrowserRequest
from scopeguard.devserver.faults import Endpoint, Faults
from scopeguard.devserver.issued_tokens import OPAQUE_PREFIX, IssuedToken, IssuedTokens
from scopeguard.devserver.keys import KeyRing, compact
from scopeguard.devserver.metadata import make_metadata
from scopeguard.devserver.proofs import PROOFS, check_proof
from scopeguard.devserver.registry import (
    Client,
    Form,
    OAuthError,
    Registry,
    ServiceAccount,
    TokenFormat,
)
from scopeguard.devserver.token_claims import make_claims
from scopeguard.devserver.token_requests import GRANTS, Grant, GrantRequest, Parameters, UsedAssertions
from scopeguard.edge.runtime import SystemClock
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer, Clock
from scopeguard.spec.sender_constraint import thumbprint_of

# RFC 6749 section 5.1 requires both headers "in any response containing tokens, credentials, or other sensitive
# information".
_NO_STORE: Final = {"content-type": "application/json", "cache-control": "no-store", "pragma": "no-cache"}
_OAUTH_WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"
_OPENID_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_METHODS: Final[Mapping[Endpoint, tuple[str, ...]]] = {
    Endpoint.AUTHORIZATION: ("GET", "HEAD", "POST"),
    Endpoint.TOKEN: ("POST",),
    Endpoint.INTROSPECTION: ("POST",),
    Endpoint.REVOCATION: ("POST",),
}
_PATHS: Final[Mapping[Endpoint, str]] = {
    Endpoint.AUTHORIZATION: "/authorize",
    Endpoint.TOKEN: "/token",
    Endpoint.INTROSPECTION: "/introspect",
    Endpoint.REVOCATION: "/revoke",
    Endpoint.JWKS: "/jwks",
}
MOST_REQUESTS: Final = 1000


class Authority:
    """A development authorization server.

    * ``issuer``: its URL, or only a path (``""``, ``"/tenant"``). The server that serves it completes a path with its
      own address (:meth:`settle`).
    * ``audience``: the ``aud`` of a token if neither the request nor the client names one.
    * ``clients``, ``service_accounts``: those that may request tokens.
    * ``subjects``: the names of users, who sign in without a password. A client or service account with such a
      name is refused.
    * ``keys``: the signing keys; by default a new RS256 key in memory.
    * ``clock``: the time; by default the machine's.
    * ``jwks_max_age``: the ``max-age`` of the key set in seconds; ``None`` sends no ``Cache-Control``.
    * ``catalog``: the known scopes. A client or service account with another scope is refused.

    >>> authority = Authority(
    ...     "https://as.example",
    ...     audience="https://api.example",
    ...     clients=[Client(client_id="robot", secret="for development", scopes=["read"])],
    ...     keys=KeyRing("ES256"),
    ... )
    >>> authority.metadata()["token_endpoint"]
    'https://as.example/token'
    >>> form = (("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", "for development"))
    >>> authority.respond("POST", "/token", form=form).status
    200

    Raises :class:`ConfigurationError` for an issuer that is not a path or an http or https URL, for a name used twice,
    and for a scope that the catalog lacks.
    """

    def __init__(
        self,
        issuer: str = "",
        *,
        audience: str,
        clients: Iterable[Client] = (),
        service_accounts: Iterable[ServiceAccount] = (),
        subjects: Iterable[str] = (),
        keys: KeyRing | None = None,
        clock: Clock | None = None,
        jwks_max_age: int | None = None,
        catalog: ScopeCatalog | None = None,
    ) -> None:
        text(issuer, "issuer")
        text(audience, "audience", empty=False)
        if keys is not None:
            instance(keys, KeyRing, "keys", "a KeyRing")
        if clock is not None:
            methods(clock, ("wall", "monotonic"), "clock")
        if jwks_max_age is not None:
            whole(jwks_max_age, "jwks_max_age", least=0)
        self.audience = audience
        self.registry: Registry = Registry(clients, service_accounts, subjects, catalog)
        self.keys: KeyRing = keys if keys is not None else KeyRing()
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.faults: Faults = Faults()
        self.tokens: IssuedTokens = IssuedTokens()
        self.assertions: UsedAssertions = UsedAssertions()
        self.codes: AuthorizationCodes = AuthorizationCodes()
        self._authorization = AuthorizationEndpoint(self.registry, self.codes, audience)
        self.jwks_max_age = jwks_max_age
        self.requests: deque[str] = deque(maxlen=MOST_REQUESTS)
        self._issuer = issuer
        if issuer and not issuer.startswith("/"):
            # http is allowed for any host, because containers reach this server by its name in their network.
            check_form(issuer, "issuer", query=False)

    @property
    def issuer(self) -> str:
        """The issuer identifier. Raises :class:`ConfigurationError` while it is only a path."""
        if not self.is_settled:
            raise ConfigurationError("issuer: it is only a path; serve the authority, or set the complete URL")
        return self._issuer

    @property
    def is_settled(self) -> bool:
        """True if the issuer is a complete URL."""
        return self._issuer != "" and not self._issuer.startswith("/")

    def settle(self, origin: str) -> None:
        """Complete an issuer that is only a path with *origin*. A complete issuer stays as it is."""
        if not self.is_settled:
            issuer = origin.rstrip("/") + self._issuer
            check_form(issuer, "issuer", query=False)
            self._issuer = issuer

    def path(self, endpoint: Endpoint) -> str:
        """Return the path of *endpoint*. For the metadata, it is the path of RFC 8414 section 3."""
        prefix = urlsplit(self._issuer).path.rstrip("/")
        return _OAUTH_WELL_KNOWN + prefix if endpoint is Endpoint.METADATA else prefix + _PATHS[endpoint]

    def url(self, endpoint: Endpoint) -> str:
        """Return the URL of *endpoint*."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}{self.path(endpoint)}"

    @property
    def browser_paths(self) -> tuple[str, ...]:
        """The paths that scripts in a browser may use: the token endpoint and the metadata."""
        prefix = urlsplit(self._issuer).path.rstrip("/")
        metadata = (self.path(Endpoint.METADATA), _OPENID_WELL_KNOWN + prefix, prefix + _OPENID_WELL_KNOWN)
        return tuple(dict.fromkeys((self.path(Endpoint.TOKEN), *metadata)))

    def endpoint_at(self, path: str) -> Endpoint | None:
        """Return the endpoint at *path*, ``None`` if there is none.

        The metadata is at three paths: RFC 8414 section 3 inserts either well-known string before the path of the
        issuer, and OpenID Connect Discovery section 4 appends its own to it.
        """
        prefix = urlsplit(self._issuer).path.rstrip("/")
        if path in (_OPENID_WELL_KNOWN + prefix, prefix + _OPENID_WELL_KNOWN):
            return Endpoint.METADATA
        return next((endpoint for endpoint in Endpoint if path == self.path(endpoint)), None)

    def respond(
        self,
        method: str,
        path: str,
        *,
        form: Form | None = None,
        authorization: str | None = None,
        proofs: Sequence[str] = (),
        browser: BrowserRequest | None = None,
    ) -> Answer:
        """Return the answer to one request, with the faults that are switched on.

        ``form`` has the decoded parameters of an urlencoded body, and is ``None`` without such a body. ``proofs`` are
        the values of the ``DPoP`` fields, which bind the token of a token request to their key. ``browser`` is for
        the authorization endpoint. ``requests`` records the method and the path, but no query, body or header. Raises
        :class:`~scopeguard.devserver.faults.Unreachable` during an outage of the kind ``UNREACHABLE``.
        """
        self.requests.append(f"{method} {path}")
        outage = self.faults.outage_answer()
        if outage is not None:
            return outage
        endpoint = self.endpoint_at(path)
        if endpoint is None:
            return Answer(404, b"Not Found", {"content-type": "text/plain"})
        allowed = _METHODS.get(endpoint, ("GET", "HEAD"))
        if method not in allowed:
            return Answer(405, b"Method Not Allowed", {"content-type": "text/plain", "allow": ", ".join(allowed)})
        try:
            if endpoint is Endpoint.AUTHORIZATION:
                answer = self._authorize(method, form, browser or BrowserRequest())
            else:
                answer = self._answer(endpoint, form, authorization, proofs)
        except OAuthError as error:
            answer = _error_answer(error)
        return self.faults.apply(endpoint, answer, self.issuer)

    def _authorize(self, method: str, form: Form | None, browser: BrowserRequest) -> Answer:
        sent = (form or ()) if method == "POST" else None
        return self._authorization.respond(sent, browser, issuer=self.issuer, now=self.clock.wall())

    def _answer(
        self, endpoint: Endpoint, form: Form | None, authorization: str | None, proofs: Sequence[str]
    ) -> Answer:
        if endpoint is Endpoint.METADATA:
            return _json_answer(self.metadata(), {"content-type": "application/json"})
        if endpoint is Endpoint.JWKS:
            headers = {"content-type": "application/json"}
            if self.jwks_max_age is not None:
                headers["cache-control"] = f"public, max-age={self.jwks_max_age}"
            return _json_answer(self.keys.key_set(self.clock.wall()), headers)
        if form is None:
            raise OAuthError("invalid_request", "Send the parameters as application/x-www-form-urlencoded")
        handlers: Mapping[Endpoint, Callable[[Parameters, str | None], Answer]] = {
            Endpoint.TOKEN: partial(self._token, proofs=proofs),
            Endpoint.INTROSPECTION: self._introspect,
            Endpoint.REVOCATION: self._revoke,
        }
        return handlers[endpoint](Parameters(form), authorization)

    def _token(self, parameters: Parameters, authorization: str | None, *, proofs: Sequence[str]) -> Answer:
        handler = GRANTS.get(parameters.require("grant_type"))
        if handler is None:
            raise OAuthError("unsupported_grant_type", "This server supports " + " and ".join(GRANTS))
        grant = handler(
            GrantRequest(
                registry=self.registry,
                parameters=parameters,
                authorization=authorization,
                now=self.clock.wall(),
                default_audience=self.audience,
                own_audiences=(self.issuer, self.url(Endpoint.TOKEN)),
                used=self.assertions,
                tokens=self.tokens,
                codes=self.codes,
            )
        )
        thumbprint = check_proof(proofs, self.url(Endpoint.TOKEN), self.assertions, self.clock.wall())
        issued = self.issue(grant if thumbprint is None else replace(grant, thumbprint=thumbprint))
        if grant.code is not None:
            self.codes.record(grant.code, issued.token)
        return _json_answer(
            {
                "access_token": issued.token,
                "token_type": "Bearer" if thumbprint is None else "DPoP",
                "expires_in": grant.lifetime,
                "scope": " ".join(grant.scopes),
                **({} if grant.issued_token_type is None else {"issued_token_type": grant.issued_token_type}),
            }
        )

    def issue(self, grant: Grant) -> IssuedToken:
        """Issue an access token for *grant*: a JWT with the claims of RFC 9068 section 2.2, or an opaque token."""
        now = int(self.clock.wall())
        claims = make_claims(grant, self.issuer, now)
        if grant.token_format == TokenFormat.OPAQUE:
            token = OPAQUE_PREFIX + secrets.token_urlsafe(32)
        else:
            key = self.keys.signing_key()
            token = compact({"typ": "at+jwt", "alg": key.algorithm, "kid": key.kid}, claims, key)
        return self.tokens.add(token, claims, now)

    def _introspect(self, parameters: Parameters, authorization: str | None) -> Answer:
        """Answer an introspection request (RFC 7662).

        A token for another resource server is reported as inactive, as section 2.2 requires.
        """
        client = self.registry.authenticate(parameters.single, authorization)
        issued = self.tokens.active(parameters.require("token"), self.clock.wall())
        if issued is None or not set(client.introspects) & set(issued.audiences):
            return _json_answer({"active": False})
        token_type = "Bearer" if thumbprint_of(issued.claims) is None else "DPoP"
        return _json_answer({"active": True, "token_type": token_type, **issued.claims})

    def _revoke(self, parameters: Parameters, authorization: str | None) -> Answer:
        """Answer a revocation request (RFC 7009 section 2).

        Section 2.2: "invalid tokens do not cause an error response". A token of another client does.
        """
        client = self.registry.authenticate(parameters.single, authorization)
        token = parameters.require("token")
        issued = self.tokens.find(token)
        if issued is not None and issued.client_id != client.client_id:
            raise OAuthError("invalid_request", "The token was not issued to this client")
        self.tokens.revoke(token)
        return Answer(200, b"", {"cache-control": "no-store", "pragma": "no-cache"})

    def metadata(self) -> dict[str, Any]:
        """Return the metadata: one document for RFC 8414 and OpenID Connect Discovery."""
        return make_metadata(self.registry, self.issuer, self.url, self.keys.algorithm, PROOFS.algorithms)

    def rotate(self, *, overlap: float | None = None) -> None:
        """Sign with a new key. The old key stays published for *overlap* seconds; 0 removes it at once."""
        self.keys.rotate(self.clock.wall(), overlap=overlap)

    def reset(self) -> None:
        """Switch all faults off, and forget tokens, codes, used assertions, retired keys and recorded requests.

        Clients, service accounts and the signing key stay.
        """
        self.faults.reset()
        self.tokens.reset()
        self.assertions.reset()
        self.codes.reset()
        self.keys.reset()
        self.requests.clear()


def _json_answer(document: Mapping[str, Any], headers: Mapping[str, str] = _NO_STORE, *, status: int = 200) -> Answer:
    return Answer(status, json.dumps(document).encode("utf-8"), headers)


def _error_answer(error: OAuthError) -> Answer:
    document = {"error": error.error, "error_description": error.description}
    challenge = {"www-authenticate": 'Basic realm="scopeguard development server"'} if error.challenge else {}
    return _json_answer(document, {**_NO_STORE, **challenge}, status=error.status)
