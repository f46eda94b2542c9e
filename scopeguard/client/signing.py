"""Signing requests with access tokens: what the auth classes of the client have in common."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from scopeguard.client.errors import OriginNotAllowed
from scopeguard.client.settings import origin
from scopeguard.config.checks import is_loopback
from scopeguard.spec.challenge_parser import ParsedChallenge, parse_challenges
from scopeguard.spec.token_endpoint import TokenResponse

if TYPE_CHECKING:
    import httpx2

    class Auth(httpx.Auth, httpx2.Auth):
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]: ...
        def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]: ...

    REPLAYABLE: tuple[type, ...]
else:
    LIBRARIES = [httpx]
    try:
        import httpx2
    except ImportError:
        pass
    else:
        LIBRARIES.append(httpx2)
    # A client accepts the Auth of its own library only, so the class inherits from both. After httpx2.alias_httpx()
    # the two are the same class.
    Auth = type("Auth", tuple(dict.fromkeys(library.Auth for library in LIBRARIES)), {})
    REPLAYABLE = tuple(library.ByteStream for library in LIBRARIES)


class TokenSource(Protocol):
    """Where an auth class gets its tokens from."""

    def token(self) -> TokenResponse:
        """Return a token, which may block."""
        ...

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        ...

    def refuse(self, token: TokenResponse) -> bool:
        """Record that an API refused *token*. Return whether :meth:`token` may return a newer one."""
        ...

    def accept(self, token: TokenResponse) -> None:
        """Record that an API accepted *token*."""
        ...


class Origins:
    """The origins that tokens may be sent to: *allowed*, or the origin of the first request if that is empty."""

    def __init__(self, allowed: tuple[str, ...], insecure: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._allowed = allowed
        self._insecure = frozenset(insecure)

    def check(self, request: Any) -> None:
        """Raise :class:`OriginNotAllowed` if *request* goes to another origin, or by http to a host not allowed."""
        url = request.url
        target = origin(url.scheme, url.raw_host.decode("ascii"), url.port)
        if not target.startswith("https:") and not self._may_use_http(target, url.host):
            raise OriginNotAllowed(
                f"{target}: an access token is sent by https only (http is for loopback addresses, and for hosts in "
                "insecure_http_dangerously)"
            )
        with self._lock:
            self._allowed = self._allowed or (target,)
        if target not in self._allowed:
            raise OriginNotAllowed(
                f"{target}: the token is for {', '.join(self._allowed)}; list every origin in origins=[...], or send "
                "this request with auth=None"
            )

    def _may_use_http(self, target: str, host: str) -> bool:
        """Return whether a token may be sent to the origin *target* by http."""
        scheme, _, location = target.partition("://")
        return scheme == "http" and (is_loopback(host) or location in self._insecure)


class SigningAuth(Auth):
    """Sends each request with a token of ``_fetcher``, to the origins of ``_origins`` only."""

    _fetcher: TokenSource
    _origins: Origins

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send *request* with a token, and once more with a newer one if the API refuses the token.

        ``httpx.Client`` calls it.
        """
        self._check(request)
        token = self._fetcher.token()
        response = yield _with_token(request, token)
        if self._may_repeat(response, token):
            newer = self._fetcher.token()
            if newer.access_token != token.access_token:
                self._record_acceptance(newer, (yield _with_token(response.request, newer)))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """:meth:`sync_auth_flow` for ``httpx.AsyncClient``."""
        self._check(request)
        token = await self._fetcher.atoken()
        response = yield _with_token(request, token)
        if self._may_repeat(response, token):
            newer = await self._fetcher.atoken()
            if newer.access_token != token.access_token:
                self._record_acceptance(newer, (yield _with_token(response.request, newer)))

    def _check(self, request: Any) -> None:
        """Raise an exception if *request* must not be sent with a token."""
        self._origins.check(request)

    def _may_repeat(self, response: Any, token: TokenResponse) -> bool:
        """Return whether to send the request of *response* again with a newer token.

        A request with a stream is not repeated, because the stream may be used up. Its refused token is discarded, so
        the next request gets a newer one.
        """
        if not _refuses(response, token):
            self._record_acceptance(token, response)
            return False
        return self._fetcher.refuse(token) and isinstance(response.request.stream, REPLAYABLE)

    def _record_acceptance(self, token: TokenResponse, response: Any) -> None:
        # A 403 means that the token is valid but lacks a permission. Other errors, and a response to a redirect without
        # the token, say nothing about the token.
        if (response.status_code < 400 or response.status_code == 403) and _is_about(response, token):
            self._fetcher.accept(token)


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
    return any(challenge.scheme == "bearer" for challenge in challenges(response, "invalid_token"))


def challenges(response: Any, error: str) -> list[ParsedChallenge]:
    """Return the Bearer and DPoP challenges of *response* with the error code *error*."""
    found = parse_challenges(response.headers.get_list("www-authenticate"))
    return [c for c in found if c.scheme in ("bearer", "dpop") and c.parameters.get("error") == error]
