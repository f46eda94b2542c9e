"""An ``httpx`` auth class that fetches access tokens by client credentials and signs requests with them.

    client = httpx.Client(auth=ClientCredentials(token_url, client_id, client_secret, scopes=["bigquery.insertdata"]))

One object can serve any number of ``Client`` and ``AsyncClient`` objects, of httpx and httpx2, in any threads and event
loops. It caches one token, so create it once for the process: a new object for each request would fetch a token for
each request.

httpx lets an auth class send the token request through the same client. This class does not, for three reasons. Such a
client may follow a redirect of the token endpoint and send the secret to another origin. Its hooks, its cookies and
``response.history`` would contain the secret and the token. And it does not raise transport errors inside the auth
flow, so the fetch could not be retried. The token request uses the transport of the guard instead, which follows no
redirects.

When httpx follows redirects of the API, it does not call the auth class again. It drops ``Authorization`` if the origin
changes, except from http to https on one host; such a request by http was never signed. So no redirect sends the token
to another origin, and a 401 from another origin says nothing about the token.
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
    # A client accepts the Auth of its own library only, so the class inherits from both. After httpx2.alias_httpx()
    # the two are the same class.
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
    """An ``httpx`` auth class for the client credentials grant (RFC 6749 section 4.4).

    It fetches a token with the first request and sends it with every request. Ahead of expiry (30 seconds or a tenth of
    the lifetime, whichever is less), it renews the token in the background. At most one token request is in flight,
    for any number of threads and tasks.

    When the API answers 401 with the Bearer error ``invalid_token``, or 401 without any challenge, the class fetches a
    new token and sends the request once more. It does not repeat a request whose body is a stream, such as a multipart
    upload.

    The arguments:

    * *token_url*: the token endpoint, by https, or by http on loopback or at a host in *insecure_http_dangerously*.
      :meth:`from_issuer` reads it from the issuer's metadata instead.
    * *client_id*, *client_secret*: sent to the token endpoint only.
    * *auth_method*: ``"client_secret_basic"`` sends them in the ``Authorization`` header, ``"client_secret_post"`` in
      the form.
    * *scopes*: the scopes to request, one string or several.
    * *resource*: the API as an absolute URI (RFC 8707). *audience*: the API as Auth0 and others expect it.
    * *parameters*: further form parameters. A ``resource`` that is not a URI (Entra v1, AD FS) belongs here.
    * *origins*: the origins that the token may be sent to, as in ``["https://api.example.com"]``. The default is the
      origin of the first request only, so that a link in a response cannot send the token to another server.
    * *narrower_scope*: what happens if the server grants fewer scopes than requested: ``"warn"`` logs a warning,
      ``"refuse"`` raises :class:`ScopeNotGranted`.
    * *default_lifetime*: the lifetime of a token without ``expires_in``, in seconds.
    * *timeout*: the time limit of one exchange with the authorization server, in seconds.
    * *retries*: the number of further attempts in one fetch if the server does not answer, or answers 408, 429 or 5xx.
      The pauses grow. A ``Retry-After`` of at most 5 seconds is obeyed, a longer one ends the fetch.
    * *token_types*: further values of ``token_type`` that mean Bearer at this server, as in ``["BearerToken"]``.
    * *token_type_optional*: accept a response without ``token_type``. *scope_list*: accept ``scope`` as an array.
    * *insecure_http_dangerously*: hosts with ports, as in ``["keycloak:8080"]``, at which the token endpoint, the
      metadata and the API may be used by http. The secret and the tokens can then be read on the network. Every start
      logs a warning.
    * *transport*: sends the requests to the authorization server. For a proxy or a private certificate authority, pass
      a :class:`~scopeguard.edge.http.HttpxTransport` with that setting. *clock*: the time.

    After a failed fetch, requests raise the same exception for a while, without a token request:

    * for the time of ``Retry-After``, at most 5 minutes;
    * for a minute, if the server refused the client;
    * after 429, 503 or the second failure in a row, for a second, then twice as long after each further failure, at
      most a minute.

    Refusals by the API cause at most one token request a second, and one a minute if the API accepts no token. Expiry
    causes at most one a second, because a token is used for a second even if its ``expires_in`` is 0.

    Not checked: the content of the token, which is for the resource server only (RFC 9068 section 6). A 403 response is
    returned unchanged; :func:`required_scopes` reads the scopes in its challenge.

    Raises :class:`~scopeguard.errors.ConfigurationError` for invalid arguments. Requests raise:

    * :class:`TokenEndpointError`: the server refused, or its response is invalid.
    * :class:`TokenEndpointUnavailable`: the server did not answer.
    * :class:`ScopeNotGranted`: see *narrower_scope*.
    * :class:`OriginNotAllowed`: the request goes to an origin that is not allowed, or by http to a host that is not
      allowed. It is not sent. With ``auth=None``, httpx sends it without a token.
    """

    def __init__(self, token_url: str, client_id: str, client_secret: str, **settings: Unpack[ClientSettings]) -> None:
        text(token_url, "token_url", empty=False)
        self._configure(
            Policy(token_url=token_url, issuer=None, client_id=client_id, client_secret=client_secret, **settings)
        )

    @classmethod
    def from_issuer(cls, issuer: str, client_id: str, client_secret: str, **settings: Unpack[ClientSettings]) -> Self:
        """Return an object that finds the token endpoint in the metadata of *issuer* (RFC 8414, OpenID Connect
        Discovery).

        The metadata is fetched with the first token, and again after an hour or a failure. Its ``issuer`` must be
        identical to *issuer* (RFC 8414 section 3.3), else requests raise :class:`TokenEndpointError`. The other
        arguments and the errors are those of the class.
        """
        text(issuer, "issuer", empty=False)
        self = cls.__new__(cls)
        self._configure(
            Policy(token_url=None, issuer=issuer, client_id=client_id, client_secret=client_secret, **settings)
        )
        return self

    def _configure(self, policy: Policy) -> None:
        self._policy = policy
        warn_of_insecure_hosts(policy.authority, policy.insecure_http_dangerously)
        self._fetcher = Fetcher(policy)
        self._lock = threading.Lock()
        self._origins: tuple[str, ...] = policy.origins

    def __repr__(self) -> str:
        policy = self._policy
        return f"ClientCredentials({policy.authority!r}, client_id={policy.client_id!r}, scopes={policy.scopes!r})"

    def token(self) -> TokenResponse:
        """Return the token that a request would send now. Fetch it if there is none, which blocks.

        Raises the exceptions of requests.
        """
        return self._fetcher.token()

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await self._fetcher.atoken()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send *request* with a token, and once more with a newer one if the API refuses the token.

        ``httpx.Client`` calls it.
        """
        self._check_origin(request)
        token = self._fetcher.token()
        response = yield _with_token(request, token)
        if self._may_repeat(response, token):
            newer = self._fetcher.token()
            if newer.access_token != token.access_token:
                self._record_acceptance(newer, (yield _with_token(response.request, newer)))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """:meth:`sync_auth_flow` for ``httpx.AsyncClient``."""
        self._check_origin(request)
        token = await self._fetcher.atoken()
        response = yield _with_token(request, token)
        if self._may_repeat(response, token):
            newer = await self._fetcher.atoken()
            if newer.access_token != token.access_token:
                self._record_acceptance(newer, (yield _with_token(response.request, newer)))

    def _may_repeat(self, response: Any, token: TokenResponse) -> bool:
        """Return whether to send the request of *response* again with a newer token.

        A request with a stream is not repeated, because the stream may be used up. Its refused token is discarded, so
        the next request gets a newer one.
        """
        if not _refuses(response, token):
            self._record_acceptance(token, response)
            return False
        return self._fetcher.refuse(token) and isinstance(response.request.stream, _REPLAYABLE)

    def _record_acceptance(self, token: TokenResponse, response: Any) -> None:
        # A 403 means that the token is valid but lacks a permission. Other errors, and a response to a redirect without
        # the token, say nothing about the token.
        if (response.status_code < 400 or response.status_code == 403) and _is_about(response, token):
            self._fetcher.accept(token)

    def _check_origin(self, request: Any) -> None:
        """Raise :class:`OriginNotAllowed` if *request* goes to another origin, or by http to a host not allowed."""
        url = request.url
        target = origin(url.scheme, url.raw_host.decode("ascii"), url.port)
        if not target.startswith("https:") and not self._may_use_http(target, url.host):
            raise OriginNotAllowed(
                f"{target}: an access token is sent by https only (http is for loopback addresses, and for hosts in "
                "insecure_http_dangerously)"
            )
        with self._lock:
            self._origins = self._origins or (target,)
        if target not in self._origins:
            raise OriginNotAllowed(
                f"{target}: the token is for {', '.join(self._origins)}; list every origin in origins=[...], or send "
                "this request with auth=None"
            )

    def _may_use_http(self, target: str, host: str) -> bool:
        """Return whether a token may be sent to the origin *target* by http."""
        scheme, _, location = target.partition("://")
        return scheme == "http" and (is_loopback(host) or location in self._policy.insecure_http_dangerously)


def _with_token(request: Any, token: TokenResponse) -> Any:
    request.headers["Authorization"] = f"Bearer {token.access_token}"
    return request


def _is_about(response: Any, token: TokenResponse) -> bool:
    """Return whether *response* answers a request with *token*.

    It does not after a redirect to another origin, or if a hook has replaced the header.
    """
    return bool(response.request.headers.get("authorization") == f"Bearer {token.access_token}")


def _refuses(response: Any, token: TokenResponse) -> bool:
    """Return whether *response* says that *token* is invalid.

    It does with status 401 and the Bearer error ``invalid_token``, or with 401 and no challenge, as many gateways send
    it in spite of RFC 9110 section 15.5.2. A newer token would not help against another scheme or error.
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
    """Return the scopes in the ``insufficient_scope`` challenges of *response* (RFC 6750 section 3).

    The result is empty if there are none. After ``response.raise_for_status()``, use
    ``required_scopes(error.response)``.
    """
    values = (challenge.parameters.get("scope", "") for challenge in _challenges(response, "insufficient_scope"))
    return tuple(dict.fromkeys(scope for value in values for scope in value.split()))
