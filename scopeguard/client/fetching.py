"""Fetches the token, once for all waiting callers in any threads and event loops.

The generators yield effects as those of ``flow/`` do, and the same drivers run them. So single flights, deadlines and
forks work as they do for the guard's keys. The result is stored in
:class:`~scopeguard.state.client_token.ClientToken`, from which all waiting callers read it.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from scopeguard.client.errors import Failure, ScopeNotGranted, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.client.settings import NarrowerScope, Policy
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.edge import aio
from scopeguard.edge import sync as blocking
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import Runtime, Transport
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.flow.effects import Answer, Clock, Flow, Send, SingleFlight, ask
from scopeguard.flow.issuers import search_metadata
from scopeguard.spec.discovery import metadata_urls
from scopeguard.spec.http_caching import retry_after
from scopeguard.spec.token_endpoint import (
    TokenRefusal,
    TokenResponse,
    basic_authorization,
    client_credentials_form,
    is_outage,
    parse_token_response,
)
from scopeguard.state.backoff import Backoff
from scopeguard.state.client_token import ClientToken

# Seconds between two attempts, during which callers wait.
_BACKOFF: Final = Backoff(first=0.25, longest=5.0)
_LONGEST_CLOSURE: Final = 300.0  # seconds; a longer Retry-After is shortened
# Seconds without token requests after the server refused the client. Only a new configuration helps, and some
# authorization servers lock clients that keep trying.
_CLOSURE_OF_A_REFUSED_CLIENT: Final = 60.0
_METADATA_LIFETIME: Final = 3600.0
_LARGEST_ANSWER: Final = 64 * 1024
_LARGEST_METADATA: Final = 512 * 1024
# RFC 6749 section 5.2, RFC 8707 section 2. These codes are never withheld, even if one contains the secret by chance.
_ERRORS: Final = frozenset(
    (
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "invalid_target",
    )
)  # fmt: skip


class Fetcher:
    """Caches the token of one client, and fetches it when it is needed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._discovered: str | None = None
        self._discovered_until = 0.0
        exchanges = 1 if policy.issuer is None else 1 + len(metadata_urls(policy.issuer))
        self._patience = exchanges * (policy.retries + 1) * (policy.timeout + _BACKOFF.longest)
        self._held: ClientToken[Failure] = ClientToken(claim=self._patience)
        self._transport = PatientTransport(
            policy.transport or HttpxTransport(),
            retries=policy.retries,
            clock=policy.clock,
            closes=policy.transport is None,
        )
        self._outside = Runtime(transport=self._transport, clock=policy.clock)

    def token(self) -> TokenResponse:
        """Return the current token. Fetch one if there is none, which blocks the thread."""
        return blocking.run(self._acquire(), self._outside, None)

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await aio.run(self._acquire(), self._outside, None)

    def refuse(self, token: TokenResponse) -> bool:
        """Record that an API refused *token*. Return whether :meth:`token` may return a newer one."""
        clock = self._policy.clock
        return self._held.refuse(token, clock.monotonic(), clock.wall())

    def accept(self, token: TokenResponse) -> None:
        """Record that an API accepted *token*."""
        self._held.accept(token)

    def _now(self) -> float:
        return self._policy.clock.monotonic()

    def _acquire(self) -> Flow[TokenResponse]:
        clock = self._policy.clock
        seen: int | None = None
        while True:
            look = self._held.look(clock.monotonic(), clock.wall())
            if look.token is not None:
                if look.renew:
                    yield from ask(self._flight(look.generation, [], wait=False))
                return look.token
            self._raise_failure(look.generation if seen is None else seen)
            seen = look.generation
            own: list[TokenResponse] = []
            late = None
            try:
                yield from ask(self._flight(seen, own, wait=True))
            except AuthorityUnavailable as error:  # the wait timed out, or no thread could start
                late = TokenEndpointUnavailable(self._policy.authority, _describe(error))
            if late is not None:
                raise late
            if own:
                return own[0]

    def _raise_failure(self, seen: int) -> None:
        failure = self._held.failure(self._now(), seen)
        if failure is not None:
            raise copy.copy(failure)  # a shared exception would collect the tracebacks of all callers

    def _flight(self, seen: int, own: list[TokenResponse], *, wait: bool) -> SingleFlight:
        return SingleFlight(
            key="access token",
            authority=self._policy.authority,
            needed=lambda: self._held.generation == seen,
            flow=partial(self._fetch, own),
            wait=wait,
            deadline=self._patience,
        )

    def _fetch(self, own: list[TokenResponse]) -> Flow[tuple[str, ...]]:
        """Fetch once, and store the result for all callers. Also append the token to *own*.

        A stored failure has no traceback and no context, because both lead to frames of the transport with the secret.
        So it is created outside the ``except`` clause.
        """
        failure: Failure
        try:
            age, token = yield from self._request()
            narrower = self._narrower(token)
        except (TokenEndpointError, TokenEndpointUnavailable) as error:
            failure = error
        except AuthorityUnavailable as error:
            failure = TokenEndpointUnavailable(self._policy.authority, _describe(error))
        else:
            if narrower is None or self._policy.narrower_scope == NarrowerScope.WARN:
                lifetime = self._policy.default_lifetime if token.expires_in is None else token.expires_in
                self._held.keep(token, lifetime, self._now(), self._policy.clock.wall(), age=age)
                own.append(token)
                return () if narrower is None else (f"{self._policy.authority}: {narrower}",)
            failure = narrower
        self._discovered_until = 0.0  # the endpoint may have moved
        overloaded = isinstance(failure, TokenEndpointUnavailable) and failure.status in (429, 503)
        self._held.fail(failure.with_traceback(None), self._now(), closed_for=_closure(failure), overloaded=overloaded)
        return (f"no access token: {failure}",)

    def _request(self) -> Flow[tuple[float, TokenResponse]]:
        """Request a token. Return the seconds since the request began, and the token."""
        url = yield from self._endpoint()
        start, start_wall = self._now(), self._policy.clock.wall()
        answer = yield from ask(self._token_request(url))
        self._check_outage(answer)
        outcome = parse_token_response(answer.status, answer.body, self._policy.tolerance)
        if isinstance(outcome, TokenRefusal):
            raise TokenEndpointError(self._policy.authority, self._without_secret(outcome))
        return max(self._now() - start, self._policy.clock.wall() - start_wall), outcome

    def _token_request(self, url: str) -> Send:
        policy, secret = self._policy, self._policy.client_secret.reveal()
        form = client_credentials_form(
            scopes=policy.scopes, resources=policy.resource, audiences=policy.audience, parameters=policy.parameters
        )
        authorization = None
        if policy.auth_method == ClientAuthentication.CLIENT_SECRET_POST:
            form += (("client_id", policy.client_id), ("client_secret", secret))
        else:
            authorization = basic_authorization(policy.client_id, secret)
        return Send(
            url=url,
            authority=policy.authority,
            form=form,
            authorization=authorization,
            insecure=policy.insecure_http_dangerously,
            limit=_LARGEST_ANSWER,
            timeout=policy.timeout,
        )

    def _check_outage(self, answer: Answer) -> None:
        if is_outage(answer.status):
            pause = retry_after(answer.headers, self._policy.clock.wall())
            closed = None if pause is None else min(pause, _LONGEST_CLOSURE)
            problem = f"it answers with status {answer.status}"
            raise TokenEndpointUnavailable(self._policy.authority, problem, closed, answer.status)

    def _without_secret(self, refusal: TokenRefusal) -> TokenRefusal:
        """Return *refusal* without texts that quote the client secret, because exceptions and logs show them."""
        secret = self._policy.client_secret.reveal()

        def shown(text: str | None) -> str | None:
            return "(withheld: it quotes the client secret)" if text and secret in text else text

        return replace(
            refusal,
            error=refusal.error if refusal.error in _ERRORS else shown(refusal.error),
            description=shown(refusal.description),
            uri=shown(refusal.uri),
        )

    def _narrower(self, token: TokenResponse) -> ScopeNotGranted | None:
        """Return an error if scopes were not granted. Without ``scope``, all were (RFC 6749 section 5.1)."""
        if token.scope is None:
            return None
        missing = tuple(scope for scope in self._policy.scopes if scope not in token.scope)
        return ScopeNotGranted(missing, token.scope) if missing else None

    def _endpoint(self) -> Flow[str]:
        policy = self._policy
        if policy.issuer is None:
            return policy.token_url or ""
        if self._discovered is None or self._now() >= self._discovered_until:
            self._discovered = yield from self._discover(policy.issuer)
            self._discovered_until = self._now() + _METADATA_LIFETIME
        return self._discovered

    def _discover(self, issuer: str) -> Flow[str]:
        """Return the token endpoint of *issuer*, from the first metadata document that has one."""
        failure: TokenEndpointError | TokenEndpointUnavailable
        try:
            metadata = yield from search_metadata(
                issuer,
                metadata_urls(issuer),
                lambda found: found.token_endpoint is not None,
                self._policy.clock,
                limit=_LARGEST_METADATA,
                timeout=self._policy.timeout,
                setting="token_url",
                insecure=self._policy.insecure_http_dangerously,
            )
        except AuthorityUnavailable as error:
            if error.reason is Reason.AUTHORITY_ANSWER_INVALID:
                status = 200 if "url" in error.detail else 404
                failure = TokenEndpointError(issuer, TokenRefusal(status=status, problem=error.detail["problem"]))
            else:
                closed = None if error.retry_after is None else min(error.retry_after, _LONGEST_CLOSURE)
                failure = TokenEndpointUnavailable(self._policy.authority, _describe(error), closed)
        else:
            if metadata.token_endpoint is not None:
                return metadata.token_endpoint
            problem = "the metadata has no token_endpoint; set token_url"
            failure = TokenEndpointError(issuer, TokenRefusal(status=200, problem=problem))
        raise failure


class PatientTransport:
    """A transport that retries while the server is unavailable. It sleeps, and runs in a thread of its own.

    *closes*: close the connection after each exchange, because the next one is usually an hour away.
    """

    def __init__(self, inner: Transport, *, retries: int, clock: Clock, closes: bool) -> None:
        self._inner = inner
        self._retries = retries
        self._clock = clock
        self._closes = closes
        self._sleep: Callable[[float], None] = time.sleep

    def send(self, request: Send, /) -> Answer:
        """Return the answer of the last attempt, or raise its exception.

        A ``Retry-After`` of more than 5 seconds ends the attempts.
        """
        try:
            attempt = 0
            while True:
                final = attempt >= self._retries
                pause = 0.0
                try:
                    answer = self._inner.send(request)
                except AuthorityUnavailable as error:
                    if final or error.reason is Reason.AUTHORITY_ANSWER_INVALID:
                        raise
                else:
                    pause = retry_after(answer.headers, self._clock.wall()) or 0.0
                    if final or pause > _BACKOFF.longest or not is_outage(answer.status):
                        return answer
                # The jitter spreads the requests of many clients after an outage. It needs no secure randomness.
                backoff = _BACKOFF.pause(attempt + 1) * random.uniform(0.5, 1)  # noqa: S311
                self._sleep(max(pause, backoff))
                attempt += 1
        finally:
            if self._closes:
                self._inner.close()

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()


def _closure(failure: Failure) -> float | None:
    """Return the seconds without token requests after *failure*, ``None`` for the usual back-off."""
    match failure:
        case TokenEndpointUnavailable(retry_after=seconds):
            return seconds
        case TokenEndpointError(error="invalid_client" | "unauthorized_client") | TokenEndpointError(status=401):
            return _CLOSURE_OF_A_REFUSED_CLIENT
        case _:
            return None


def _describe(error: AuthorityUnavailable) -> str:
    return ", ".join((error.reason.value, *(f"{name}={value}" for name, value in error.detail.items())))
