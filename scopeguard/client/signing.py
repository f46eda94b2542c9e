"""Signing requests with access tokens: what the auth classes of the client have in common."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, Final, Protocol

from scopeguard.client.challenges import challenges
from scopeguard.client.errors import OriginNotAllowed
from scopeguard.client.httpx_auth import REPLAYABLE, Auth, with_proof, without_proof
from scopeguard.client.proofs import Proofs
from scopeguard.client.settings import origin
from scopeguard.config.hosts import is_loopback
from scopeguard.spec.dpop_client import USE_DPOP_NONCE
from scopeguard.spec.token_endpoint import TokenResponse

# What the steps of a request yield to get a token.
_TOKEN: Final = object()
# The redirects within an origin that are followed with new proofs. httpx has a limit of its own.
_MOST_REDIRECTS: Final = 20


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
        target, url = _origin(request), request.url
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
    """Sends each request with a token of ``_fetcher``, to the origins of ``_origins`` only.

    ``_proofs`` makes the proofs for tokens that are bound to a key.
    """

    _fetcher: TokenSource
    _origins: Origins
    _proofs: Proofs | None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send *request* with a token, and once more with a newer one if the API refuses the token.

        ``httpx.Client`` calls it.
        """
        steps = self._steps(request)
        step = next(steps)
        while True:
            found = self._fetcher.token() if step is _TOKEN else (yield step)
            try:
                step = steps.send(found)
            except StopIteration:
                return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """:meth:`sync_auth_flow` for ``httpx.AsyncClient``."""
        steps = self._steps(request)
        step = next(steps)
        while True:
            found = await self._fetcher.atoken() if step is _TOKEN else (yield step)
            try:
                step = steps.send(found)
            except StopIteration:
                return

    def _steps(self, request: Any) -> Generator[Any, Any, None]:
        """Yield ``_TOKEN`` for a token, and each request for its response.

        A request is repeated once with a newer token, once with the nonce that the API asks for, and after redirects
        within its origin, since the proof is for one URI. A stream is not repeated, because it may be used up; the next
        request then has the newer token or nonce.
        """
        self._check(request)
        token = yield _TOKEN
        has_renewed_token = has_renewed_nonce = False
        redirects = 0
        target = _origin(request)
        response = yield self._sign(request, token)
        while True:
            needs_token = False
            has_nonce = self._learn_nonce(response, token, target)
            if redirects < _MOST_REDIRECTS and _lacks_proof(response, token, target):
                redirects += 1
            elif has_nonce and not has_renewed_nonce and _asks_for_nonce(response):
                has_renewed_nonce = True
            elif has_renewed_token or not _refuses(response, token):
                self._record_acceptance(token, response)
                return
            elif self._fetcher.refuse(token):
                has_renewed_token = needs_token = True
            else:
                return
            if not isinstance(response.request.stream, REPLAYABLE):
                return
            if needs_token:
                newer = yield _TOKEN
                if newer.access_token == token.access_token:
                    return
                token = newer
            response = yield self._sign(response.request, token)

    def _check(self, request: Any) -> None:
        """Raise an exception if *request* must not be sent with a token."""
        self._origins.check(request)

    def _sign(self, request: Any, token: TokenResponse) -> Any:
        request.headers = without_proof(request.headers)
        request.headers["Authorization"] = _authorization(token)
        if self._proofs is not None and _is_bound(token):
            proof = self._proofs.make(request.method, str(request.url), token.access_token)
            request.headers = with_proof(request.headers, proof)
        return request

    def _learn_nonce(self, response: Any, token: TokenResponse, target: str) -> bool:
        """Keep the DPoP nonce of *response*, if it comes from the origin *target*. Return whether it has one."""
        if self._proofs is None or not _is_from(response, token, target):
            return False
        return self._proofs.learn(str(response.request.url), response.headers.get_list("dpop-nonce"))

    def _record_acceptance(self, token: TokenResponse, response: Any) -> None:
        # A 403 means that the token is valid but lacks a permission. Other errors, and a response to a redirect without
        # the token, say nothing about the token.
        if (response.status_code < 400 or response.status_code == 403) and _is_about(response, token):
            self._fetcher.accept(token)


def _is_bound(token: TokenResponse) -> bool:
    return token.token_type.lower() == "dpop"


def _authorization(token: TokenResponse) -> str:
    return f"{'DPoP' if _is_bound(token) else 'Bearer'} {token.access_token}"


def _origin(request: Any) -> str:
    url = request.url
    return origin(url.scheme, url.raw_host.decode("ascii"), url.port)


def _is_from(response: Any, token: TokenResponse, target: str) -> bool:
    """Return whether *response* is from the origin *target* and answers a request with *token*, with a proof or not."""
    authorization = response.request.headers.get("authorization")
    return bool(authorization == _authorization(token)) and _origin(response.request) == target


def _is_about(response: Any, token: TokenResponse) -> bool:
    """Return whether *response* answers a request with *token*, and with a proof if it is bound to a key.

    ``False`` after a redirect to another origin, and if a hook has replaced the header.
    """
    headers = response.request.headers
    return headers.get("authorization") == _authorization(token) and (not _is_bound(token) or "dpop" in headers)


def _lacks_proof(response: Any, token: TokenResponse, target: str) -> bool:
    """Return whether *response* refuses a request that httpx sent without a proof, after a redirect within *target*."""
    return (
        _is_bound(token)
        and response.status_code == 401
        and "dpop" not in response.request.headers
        and _is_from(response, token, target)
    )


def _asks_for_nonce(response: Any) -> bool:
    """Return whether *response* asks for a proof with its nonce (RFC 9449 section 9)."""
    return response.status_code == 401 and any(c.scheme == "dpop" for c in challenges(response, USE_DPOP_NONCE))


def _refuses(response: Any, token: TokenResponse) -> bool:
    """Return whether *response* says that *token* is invalid.

    The status must be 401, with the error ``invalid_token`` for the scheme of the token, or without any challenge, as
    many gateways send it in spite of RFC 9110 section 15.5.2. A newer token would not help with another scheme or
    error.
    """
    if response.status_code != 401 or not _is_about(response, token):
        return False
    if not any(line.strip() for line in response.headers.get_list("www-authenticate")):
        return True
    schemes = ("dpop", "bearer") if _is_bound(token) else ("bearer",)
    return any(challenge.scheme in schemes for challenge in challenges(response, "invalid_token"))
