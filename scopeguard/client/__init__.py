"""An ``httpx`` auth class that fetches access tokens by client credentials and signs requests with them.

    client = httpx.Client(auth=ClientCredentials(token_url, client_id, client_secret, scopes=["bigquery.insertdata"]))

One object serves any number of ``Client`` and ``AsyncClient``, of httpx and of httpx2, in any threads and event loops.
It holds one token. Keep it as long as the process: an object for each request would fetch a token for each request.

httpx lets an auth class send the token request through the client that it serves. This class does not. That client
may follow redirects and would send the secret along. Its failures are not thrown into the auth flow, so that
nothing could be retried. Its hooks, its cookies and ``response.history`` would see the secret and the token.
The token request goes through the hardened transport that the guard uses.

httpx calls the auth class once, for the first request, and then follows redirects by itself. It drops
``Authorization`` where the origin changes, except from http to https on one host, and a request by http was not
signed. So no redirect carries a token to another origin, and a 401 from there says nothing about the token.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx

from scopeguard.client.errors import (
    OriginNotAllowed,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
)
from scopeguard.client.fetching import Fetcher
from scopeguard.client.settings import ClientSettings, NarrowerScope, Policy, origin
from scopeguard.config.checks import is_loopback, text
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.edge.runtime import warn_of_insecure_hosts
from scopeguard.spec.challenge_parser import ParsedChallenge, parse_challenges
from scopeguard.spec.token_endpoint import TokenResponse

if TYPE_CHECKING:
    import httpx2

    class _Auth(httpx.Auth, httpx2.Auth):
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...

    _REPLAYABLE: tuple[type, ...]
else:
    _LIBRARIES = [httpx]
    try:
        import httpx2
    except ImportError:
        pass
    else:
        _LIBRARIES.append(httpx2)
    # A client of either library refuses the Auth of the other; a class with both as its bases is welcome in both.
    # After httpx2.alias_httpx() the two are one and the same.
    _Auth = type("_Auth", tuple(dict.fromkeys(library.Auth for library in _LIBRARIES)), {})
    _REPLAYABLE = tuple(library.ByteStream for library in _LIBRARIES)

__all__ = [
    "ClientAuthentication",
    "ClientCredentials",
    "ClientSettings",
    "NarrowerScope",
    "OriginNotAllowed",
    "ScopeNotGranted",
    "TokenEndpointError",
    "TokenEndpointUnavailable",
    "TokenResponse",
    "required_scopes",
]


class ClientCredentials(_Auth):
    """Signs requests with an access token from the client credentials grant (RFC 6749 section 4.4).

    The token is fetched with the first request. It is renewed ahead of expiry (30 seconds or a tenth of its lifetime,
    whichever is less) while requests go on with the token that is there. When the API answers 401 with a Bearer
    challenge ``invalid_token``, or 401 without any challenge, a newer token is fetched and the request sent once more,
    unless its body is a stream (a multipart upload is one), which cannot be sent twice. One token request is in flight
    at a time, for any number of threads and tasks.

    * *token_url*: https, or http on loopback or to a host of *insecure_http_dangerously*. :meth:`from_issuer` has the
      issuer's metadata name it.
    * *client_id*, *client_secret*: sent to the token endpoint only. *auth_method*: ``"client_secret_basic"``, or
      ``"client_secret_post"`` for servers that want them in the form.
    * *scopes*; *resource* (RFC 8707: absolute URIs); *audience* (Auth0 and others); *parameters*: further ones, sent
      as they are. A ``resource`` that is not a URI (Entra v1, AD FS) belongs there.
    * *origins*: where the token may be sent, as in ``["https://api.example.com"]``. By default the origin of the
      first request and no other: a link in a response, followed with the same client, must not take the token to
      another server. A request elsewhere, or by http beyond loopback, raises :class:`OriginNotAllowed` and is not
      sent; ``auth=None`` sends it without a token.
    * *narrower_scope*: ``"warn"`` in the log when fewer scopes are granted than asked for, or ``"refuse"``.
    * *default_lifetime*: seconds, for a token that comes without ``expires_in``. *timeout*: seconds for one
      exchange. *retries*: further attempts within one fetch when the server does not answer, or answers 408, 429 or
      5xx, with growing pauses; a ``Retry-After`` of up to 5 seconds is waited for, a longer one ends the fetch.
    * *token_types*: further values of ``token_type`` that mean Bearer at this server, as in ``["BearerToken"]``.
      *token_type_optional*: accept an answer without ``token_type``. *scope_list*: accept ``scope`` as an array.
    * *insecure_http_dangerously*: hosts with their ports (``["keycloak:8080"]``) that the token endpoint, the metadata
      and the API may be reached at by http. That traffic shows the secret and the tokens to its readers; a warning is
      logged at every start.
    * *transport*, *clock*: how the token endpoint is reached, and what time it is. For a proxy or a private
      certificate authority pass a :class:`~scopeguard.edge.http.HttpxTransport` that has it.

    After a failed fetch, requests raise its exception without asking the token endpoint: for as long as its
    ``Retry-After`` says, up to 5 minutes; for a minute when it refused the client; for a second after 429 or 503, or
    two failures in a row, doubled with each further one up to a minute. Refusals by the API cause at most one token
    request a second, and in the end one a minute while the API accepts none of the tokens. A token may be used for a
    second after its arrival even if its ``expires_in`` is 0, so expiry causes at most one token request a second.

    Raises :class:`~scopeguard.errors.ConfigurationError`. Requests may raise :class:`TokenEndpointError`,
    :class:`TokenEndpointUnavailable` and :class:`ScopeNotGranted`. Not checked: anything inside the token (RFC 9068
    section 6). A 403 comes back as it is; :func:`required_scopes` reads it.
    """

    def __init__(self, token_url: str, client_id: str, client_secret: str, **settings: Unpack[ClientSettings]) -> None:
        text(token_url, "token_url", empty=False)
        self._begin(
            Policy(token_url=token_url, issuer=None, client_id=client_id, client_secret=client_secret, **settings)
        )

    @classmethod
    def from_issuer(cls, issuer: str, client_id: str, client_secret: str, **settings: Unpack[ClientSettings]) -> Self:
        """Use the token endpoint that the metadata of *issuer* names (RFC 8414, OpenID Connect Discovery).

        The metadata is fetched with the first token, and again after an hour or a failure. It must name *issuer* code
        point by code point (RFC 8414 section 3.3), else requests raise :class:`TokenEndpointError`.
        """
        text(issuer, "issuer", empty=False)
        self = cls.__new__(cls)
        self._begin(Policy(token_url=None, issuer=issuer, client_id=client_id, client_secret=client_secret, **settings))
        return self

    def _begin(self, policy: Policy) -> None:
        self._policy = policy
        warn_of_insecure_hosts(policy.authority, policy.insecure_http_dangerously)
        self._fetcher = Fetcher(policy)
        self._lock = threading.Lock()
        self._origins: tuple[str, ...] = policy.origins

    def __repr__(self) -> str:
        policy = self._policy
        return f"ClientCredentials({policy.authority!r}, client_id={policy.client_id!r}, scopes={policy.scopes!r})"

    def token(self) -> TokenResponse:
        """Return the token that a request would be signed with now. It is fetched if there is none.

        Raises the exceptions that requests raise.
        """
        return self._fetcher.token()

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await self._fetcher.atoken()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign *request*, and send it once more with a newer token if this one is refused.

        ``Client`` calls it.
        """
        self._admit(request)
        token = self._fetcher.token()
        response = yield _sign(request, token)
        if self._may_repeat(response, token):
            newer = self._fetcher.token()
            if newer.access_token != token.access_token:
                self._note(newer, (yield _sign(response.request, newer)))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """:meth:`sync_auth_flow` for ``AsyncClient``."""
        self._admit(request)
        token = await self._fetcher.atoken()
        response = yield _sign(request, token)
        if self._may_repeat(response, token):
            newer = await self._fetcher.atoken()
            if newer.access_token != token.access_token:
                self._note(newer, (yield _sign(response.request, newer)))

    def _may_repeat(self, response: Any, token: TokenResponse) -> bool:
        """Whether to send the request of *response* again with a newer token.

        Not when its body is a stream, which may be used up. The token is out of use then all the same, and the next
        request has a newer one.
        """
        if not _refuses(response, token):
            self._note(token, response)
            return False
        return self._fetcher.refuse(token) and isinstance(response.request.stream, _REPLAYABLE)

    def _note(self, token: TokenResponse, response: Any) -> None:
        # A 403 is about what the token may do. Other errors, and a redirect that lost the token, say nothing about it.
        if (response.status_code < 400 or response.status_code == 403) and _is_about(response, token):
            self._fetcher.accept(token)

    def _admit(self, request: Any) -> None:
        """Raise :class:`OriginNotAllowed` for a request that would take the token to another origin."""
        url = request.url
        target = origin(url.scheme, url.raw_host.decode("ascii"), url.port)
        if not target.startswith("https:") and not self._is_readable(target, url.host):
            raise OriginNotAllowed(
                f"{target}: an access token is sent by https only (http is for loopback addresses, and for hosts that "
                "insecure_http_dangerously names)"
            )
        with self._lock:
            self._origins = self._origins or (target,)
        if target not in self._origins:
            raise OriginNotAllowed(
                f"{target}: the token is for {', '.join(self._origins)}; name every origin in origins=[...], or send "
                "this request with auth=None"
            )

    def _is_readable(self, target: str, host: str) -> bool:
        """Whether a token may travel to the origin *target* in cleartext."""
        scheme, _, location = target.partition("://")
        return scheme == "http" and (is_loopback(host) or location in self._policy.insecure_http_dangerously)


def _sign(request: Any, token: TokenResponse) -> Any:
    request.headers["Authorization"] = f"Bearer {token.access_token}"
    return request


def _is_about(response: Any, token: TokenResponse) -> bool:
    """Whether *response* answers a request with *token*: after a redirect to another origin, or when a hook replaced
    the header, it does not."""
    return bool(response.request.headers.get("authorization") == f"Bearer {token.access_token}")


def _refuses(response: Any, token: TokenResponse) -> bool:
    """Whether *response* says that *token* is invalid: a 401 with a Bearer challenge ``invalid_token``, or
    without any challenge, as many gateways send it against RFC 9110 section 15.5.2.

    A challenge that names another scheme or another error is about something that a newer token does not change.
    The request to repeat is the one that *response* answers: repeating the first one would repeat what a
    redirect has completed.
    """
    if response.status_code != 401 or not _is_about(response, token):
        return False
    if not any(line.strip() for line in response.headers.get_list("www-authenticate")):
        return True
    return any(challenge.scheme == "bearer" for challenge in _challenges(response, "invalid_token"))


def _challenges(response: Any, error: str) -> list[ParsedChallenge]:
    found = parse_challenges(response.headers.get_list("www-authenticate"))
    return [c for c in found if c.scheme in ("bearer", "dpop") and c.parameters.get("error") == error]


def required_scopes(response: httpx.Response | httpx2.Response) -> tuple[str, ...]:
    """The scopes that a refused *response* says are needed: those of its ``insufficient_scope`` challenges.

    Where ``response.raise_for_status()`` is used, ask ``required_scopes(error.response)``. Empty when the response
    says nothing of the kind.
    """
    named = (challenge.parameters.get("scope", "") for challenge in _challenges(response, "insufficient_scope"))
    return tuple(dict.fromkeys(scope for scopes in named for scope in scopes.split()))
