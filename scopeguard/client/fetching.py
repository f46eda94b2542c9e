"""Fetches the token, once for all waiting callers in any threads and event loops.

The generators yield effects as those of ``flow/`` do, and the same drivers run them. Single flights, deadlines and
forks therefore work as they do for the guard's keys. The result is stored in
:class:`~scopeguard.state.client_token.ClientToken`, from which all waiting callers read it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial

from scopeguard.client.endpoint import TokenEndpoint, describe, refuses_client
from scopeguard.client.errors import Failure, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.client.repeated_token_requests import PAUSE_OF_A_REFUSED_CLIENT, make_transport
from scopeguard.client.settings import NarrowerScope, Policy
from scopeguard.edge import aio
from scopeguard.edge import sync as blocking
from scopeguard.edge.runtime import Runtime
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Flow, SingleFlight, ask
from scopeguard.spec.outage_statuses import OVERLOADED
from scopeguard.spec.token_endpoint import TokenResponse, client_credentials_form
from scopeguard.state.client_token import ClientToken


class Fetcher:
    """Caches the token of one client, and fetches it when it is needed."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._endpoint = TokenEndpoint(policy)
        self._patience = self._endpoint.longest_request
        self._held: ClientToken[Failure] = ClientToken(claim=self._patience)
        self._transport = make_transport(policy, self._endpoint.authenticate, closes=True)
        self._outside = Runtime(transport=self._transport, clock=policy.clock)

    @property
    def longest_request(self) -> float:
        """The seconds that one token request takes at most."""
        return self._patience

    def token(self) -> TokenResponse:
        """Return the current token. Fetch one if there is none, which blocks the thread."""
        return blocking.run(self._acquire(), self._outside, None)

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await aio.run(self._acquire(), self._outside, None)

    def request(self, form: tuple[tuple[str, str], ...], secrets: Iterable[str]) -> tuple[float, TokenResponse]:
        """Send *form*, a request by another grant, as this client. See :meth:`TokenEndpoint.request`. Blocks."""
        return blocking.run(self._endpoint.request(form, self._policy.tolerance, secrets), self._outside, None)

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
                late = TokenEndpointUnavailable(self._policy.authority, describe(error))
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
            age, token = yield from self._endpoint.request(self._form(), self._policy.tolerance)
            narrower = self._endpoint.narrower(token)
        except (TokenEndpointError, TokenEndpointUnavailable) as error:
            failure = error
        except AuthorityUnavailable as error:
            failure = TokenEndpointUnavailable(self._policy.authority, describe(error))
        else:
            if narrower is None or self._policy.narrower_scope == NarrowerScope.WARN:
                lifetime = self._policy.default_lifetime if token.expires_in is None else token.expires_in
                self._held.keep(token, lifetime, self._now(), self._policy.clock.wall(), age=age)
                own.append(token)
                return () if narrower is None else (f"{self._policy.authority}: {narrower}",)
            failure = narrower
        self._endpoint.search_again()
        overloaded = isinstance(failure, TokenEndpointUnavailable) and failure.status in OVERLOADED
        self._held.fail(failure.with_traceback(None), self._now(), closed_for=_closure(failure), overloaded=overloaded)
        return (f"no access token: {failure}",)

    def _form(self) -> tuple[tuple[str, str], ...]:
        policy = self._policy
        return client_credentials_form(
            scopes=policy.scopes, resources=policy.resource, audiences=policy.audience, parameters=policy.parameters
        )


def _closure(failure: Failure) -> float | None:
    """Return the seconds without token requests after *failure*, ``None`` for the usual back-off."""
    match failure:
        case TokenEndpointUnavailable(retry_after=seconds):
            return seconds
        case TokenEndpointError() if refuses_client(failure):
            return PAUSE_OF_A_REFUSED_CLIENT
        case _:
            return None
