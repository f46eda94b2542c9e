"""Exchanges tokens, once for all waiting callers with the same token in any threads and event loops.

The generators yield effects, as those of :mod:`scopeguard.client.fetching` do. The results are stored in
:class:`~scopeguard.state.exchanged_tokens.ExchangedTokens`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final

from scopeguard.client.endpoint import TokenEndpoint, describe, refuses_client
from scopeguard.client.errors import (
    Failure,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenExchangeRefused,
)
from scopeguard.client.fetching import Fetcher
from scopeguard.client.repeated_token_requests import PAUSE_OF_A_REFUSED_CLIENT, PAUSE_OF_AN_EXCHANGE, make_transport
from scopeguard.client.settings import ExchangePolicy, Grant, NarrowerScope
from scopeguard.edge import aio
from scopeguard.edge import sync as blocking
from scopeguard.edge.runtime import Runtime
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import CallHook, Flow, Lane, SingleFlight, ask
from scopeguard.flow.waiting_times import HOOK_TIMEOUT, QUEUE_TIMEOUT
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.spec.outage_statuses import DOWN_OR_BUSY
from scopeguard.spec.token_endpoint import TokenRefusal, TokenResponse, Tolerance
from scopeguard.spec.token_exchange import assertion_form, check_issued_type, exchange_form
from scopeguard.state.exchanged_tokens import ExchangedTokens

# RFC 8693 section 2.2.1: token_type is "N_A" if the issued token is not an access token.
_NOT_AN_ACCESS_TOKEN: Final = Tolerance(token_types=frozenset(("n_a",)))
# The greatest part of the lifetime that the leeway may take.
_MOST_LEEWAY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Subject:
    """A token to exchange. ``expires_at``: seconds since the epoch, ``None`` if unknown."""

    text: str = field(repr=False)
    expires_at: float | None


class Exchanger:
    """Caches the tokens that were obtained by one :class:`~scopeguard.client.TokenExchange`, and obtains others."""

    def __init__(self, policy: ExchangePolicy, redeem_with: Fetcher | None = None) -> None:
        self._policy = policy
        self._redeem_with = redeem_with
        self._endpoint = TokenEndpoint(policy)
        self._held: ExchangedTokens[Failure] = ExchangedTokens(policy.max_entries)
        self._transport = make_transport(policy, self._endpoint.authenticate, closes=False)
        self._outside = Runtime(transport=self._transport, clock=policy.clock)
        self._longest_wait = QUEUE_TIMEOUT + self._endpoint.longest_request
        if policy.actor is not None:
            self._longest_wait += HOOK_TIMEOUT
        if redeem_with is not None:
            self._longest_wait += redeem_with.longest_request
        # Everything but the subject token that determines the result.
        settings = (
            policy.authority, policy.client_id, policy.grant, policy.audience, policy.resource, policy.scopes,
            policy.subject_token_type, policy.requested_token_type, policy.actor_token_type,
            sorted(policy.parameters.items()), policy.dpop,
        )  # fmt: skip
        self._context = sha256(repr(settings).encode("utf-8", "surrogatepass")).digest()
        self._has_warned = False

    def token(self, subject: Subject) -> TokenResponse:
        """Return a token for *subject*. If none is cached, exchange *subject*, which blocks the thread."""
        return blocking.run(self._acquire(subject), self._outside, None)

    async def atoken(self, subject: Subject) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await aio.run(self._acquire(subject), self._outside, None)

    def refuse(self, subject: Subject, token: TokenResponse) -> bool:
        """Record that an API refused *token*. Return whether :meth:`token` may return a newer one."""
        return self._held.discard(self._key(subject), token, self._policy.clock.monotonic())

    def close(self) -> None:
        """Close the connections to the authorization server. Later calls open new ones."""
        self._outside.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        await aio.close(self._outside)

    def _key(self, subject: Subject) -> bytes:
        return sha256(self._context + subject.text.encode("utf-8", "surrogatepass")).digest()

    def _acquire(self, subject: Subject) -> Flow[TokenResponse]:
        key, clock, seen = self._key(subject), self._policy.clock, None
        while True:
            outcome = self._held.find(key, clock.monotonic(), clock.wall(), seen)
            if outcome is not None:
                return _result(outcome.token or outcome.failure)
            seen = self._held.number
            own: list[TokenResponse | Failure] = []
            late = None
            try:
                yield from ask(self._flight(key, subject, seen, own))
            except AuthorityUnavailable as error:  # no place was free, the wait timed out, or no thread could start
                late = self._unavailable(describe(error), error.retry_after)
            if late is not None:
                raise late
            if own:
                return _result(own[0])

    def _flight(self, key: bytes, subject: Subject, seen: int, own: list[TokenResponse | Failure]) -> SingleFlight:
        clock = self._policy.clock
        return SingleFlight(
            key=f"exchange {key.hex()}",
            # The key holds the whole digest; logs show the fingerprint only.
            label=f"exchange of token {fingerprint(subject.text)} at {self._policy.authority}",
            authority=self._policy.authority,
            needed=lambda: not own and self._held.find(key, clock.monotonic(), clock.wall(), seen) is None,
            flow=partial(self._exchange, key, subject, own),
            lane=Lane.INTROSPECTION,
            deadline=self._longest_wait,
        )

    def _exchange(self, key: bytes, subject: Subject, own: list[TokenResponse | Failure]) -> Flow[tuple[str, ...]]:
        """Exchange once, and store the result for all callers. Also append it to *own*.

        A stored failure has no traceback and no context, because both lead to frames with the token. So it is created
        outside the ``except`` clauses.
        """
        clock, held = self._policy.clock, self._held
        pause = held.pause(clock.monotonic())
        if pause > 0:
            skipped = self._failure_while_paused(pause)
            held.skip(key, skipped, clock.monotonic())
            own.append(skipped)
            return ()
        by_server = timed_out = False
        try:
            age, token = yield from self._request(subject)
        except (TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted) as error:
            failure: Failure = error
            if isinstance(error, TokenEndpointUnavailable):
                by_server = error.status in DOWN_OR_BUSY
                error.retry_after = error.retry_after or PAUSE_OF_AN_EXCHANGE
        except AuthorityUnavailable as error:
            failure = self._unavailable(describe(error), error.retry_after)
            by_server, timed_out = error.sent is False, error.reason is Reason.AUTHORITY_TIMED_OUT
        else:
            narrower = self._endpoint.narrower(token)
            if narrower is None or self._policy.narrower_scope == NarrowerScope.WARN:
                held.keep(key, token, self._usable_for(token, subject, age), clock.monotonic(), clock.wall())
                own.append(token)
                return self._warning(narrower)
            failure = narrower
        return self._record(key, failure, own, by_server=by_server, timed_out=timed_out)

    def _record(
        self,
        key: bytes,
        failure: Failure,
        own: list[TokenResponse | Failure],
        *,
        by_server: bool,
        timed_out: bool,
    ) -> tuple[str, ...]:
        """Store *failure* for all callers. Return sentences for the log."""
        held, now = self._held, self._policy.clock.monotonic()
        failure = failure.with_traceback(None)
        failure.__context__ = failure.__cause__ = None
        own.append(failure)
        if not isinstance(failure, TokenExchangeRefused | ScopeNotGranted):
            self._endpoint.search_again()
        match failure:
            case TokenEndpointUnavailable(retry_after=seconds):
                held.fail(key, failure, now, by_server=by_server, timed_out=timed_out, retry_after=seconds)
            case TokenEndpointError() if refuses_client(failure) and not held.has_answered_recently(now):
                held.fail(key, failure, now, by_server=True, retry_after=PAUSE_OF_A_REFUSED_CLIENT)
            case _:
                held.refuse(key, failure, now)
                return ()
        return (f"no token for the next API: {failure}",)

    def _request(self, subject: Subject) -> Flow[tuple[float, TokenResponse]]:
        """Exchange *subject*. Return the seconds since the request for the token began, and the token."""
        policy = self._policy
        tolerance = policy.tolerance if self._redeem_with is None else _NOT_AN_ACCESS_TOKEN
        actor = yield from self._actor()
        secrets = [subject.text] if actor is None else [subject.text, actor]
        refusal: TokenEndpointError
        try:
            age, token = yield from self._endpoint.request(self._form(subject, actor), tolerance, secrets)
            if policy.grant is Grant.TOKEN_EXCHANGE:
                self._check(token, subject)
            if self._redeem_with is not None:
                age, token = yield from self._redeem(token, self._redeem_with)
        except TokenEndpointError as error:
            refusal = error
        else:
            return age, token
        if refusal.error is None or refuses_client(refusal):
            raise refusal
        raise TokenExchangeRefused(*refusal.args)

    def _form(self, subject: Subject, actor: str | None) -> tuple[tuple[str, str], ...]:
        policy = self._policy
        if policy.grant is Grant.ON_BEHALF_OF:
            return assertion_form(subject.text, on_behalf_of=True, scopes=policy.scopes, parameters=policy.parameters)
        return exchange_form(
            subject.text,
            policy.subject_token_type,
            actor=None if actor is None else (actor, policy.actor_token_type),
            requested_token_type=policy.requested_token_type,
            resources=policy.resource,
            audiences=policy.audience,
            scopes=policy.scopes,
            parameters=policy.parameters,
        )

    def _actor(self) -> Flow[str | None]:
        actor = self._policy.actor
        if actor is None:
            return None
        found = yield from ask(CallHook(actor if callable(actor) else actor.token))
        text = found.access_token if isinstance(found, TokenResponse) else found
        if not isinstance(text, str) or not text:
            raise ConfigurationError(f"actor: it must return a token, not {type(text).__name__}")
        return text

    def _check(self, token: TokenResponse, subject: Subject) -> None:
        """Raise :class:`TokenEndpointError` if *token* is not what was requested.

        If the server returned the subject token itself, this API would forward it to the next one.
        """
        policy = self._policy
        refusal = check_issued_type(token, policy.requested_token_type, optional=policy.issued_token_type_optional)
        if token.access_token == subject.text:
            refusal = TokenRefusal(status=200, problem="the server returned the token that it was given")
        if refusal is not None:
            raise TokenEndpointError(policy.authority, refusal)

    def _redeem(self, assertion: TokenResponse, redeem_with: Fetcher) -> Flow[tuple[float, TokenResponse]]:
        """Redeem *assertion* at the authorization server of the next API (RFC 7523)."""
        form = assertion_form(assertion.access_token)
        return (yield from ask(CallHook(lambda: redeem_with.request(form, [assertion.access_token]))))

    def _usable_for(self, token: TokenResponse, subject: Subject, age: float) -> float:
        """Return the seconds for which *token* is cached: no longer than either token lives."""
        policy = self._policy
        lifetime = policy.default_lifetime if token.expires_in is None else token.expires_in
        seconds = lifetime - min(policy.leeway, _MOST_LEEWAY * lifetime) - age
        if subject.expires_at is None:
            return min(seconds, policy.longest_use)
        return min(seconds, subject.expires_at - policy.clock.wall())

    def _warning(self, narrower: ScopeNotGranted | None) -> tuple[str, ...]:
        """Return a sentence about scopes that were not granted, but only once: it may be true for every user."""
        if narrower is None or self._has_warned:
            return ()
        self._has_warned = True
        return (f"{self._policy.authority}: {narrower}; this is logged once",)

    def _failure_while_paused(self, pause: float) -> Failure:
        """Return the failure of an exchange that does not begin for *pause* seconds."""
        last = self._held.last_failure
        if last is None or isinstance(last, TokenEndpointUnavailable):
            return self._unavailable("exchanges pause after failures", pause)
        return copy.copy(last)

    def _unavailable(self, problem: str, seconds: float | None) -> TokenEndpointUnavailable:
        return TokenEndpointUnavailable(self._policy.authority, problem, seconds or PAUSE_OF_AN_EXCHANGE)


def _result(result: TokenResponse | Failure | None) -> TokenResponse:
    """Return a token, or raise a copy of a failure: a shared exception would collect the tracebacks of all callers."""
    if isinstance(result, TokenResponse):
        return result
    if result is None:
        raise TypeError("an outcome has a token or a failure")
    raise copy.copy(result)
