"""How the token is had: one fetch for everybody who waits, in whatever thread or event loop.

The exchange with the token endpoint blocks, in the thread that asked or, for a task, in one that ends with it. So
there is one implementation of it, no event loop waits for a socket of another (C-37), and a cancelled task does not
take down what others wait for.
"""

from __future__ import annotations

import copy
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import anyio
from anyio.lowlevel import current_token

from scopeguard.access_token import fingerprint
from scopeguard.client.errors import Failure, ScopeNotGranted, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.client.settings import ClientAuthentication, NarrowerScope, Policy
from scopeguard.edge.flights import Flights
from scopeguard.edge.limits import HttpxTransport
from scopeguard.effects import Answer, Send
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.spec.discovery import MalformedMetadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json, retry_after
from scopeguard.spec.token_endpoint import (
    TokenRefusal,
    TokenResponse,
    basic_authorization,
    client_credentials_form,
    is_outage,
    judge_token_answer,
)
from scopeguard.state.client_token import ClientToken, Look

log: Final = logging.getLogger("scopeguard")

_KEY: Final = "token"
_FIRST_PAUSE: Final = 0.25  # seconds before the second attempt; twice as long before each further one
_LONGEST_PAUSE: Final = 5.0  # between two attempts, while somebody waits
_LONGEST_CLOSURE: Final = 300.0  # how much of a Retry-After is believed
_METADATA_LIFETIME: Final = 3600.0
_LARGEST_ANSWER: Final = 64 * 1024
# RFC 6749 section 5.2 and RFC 8707 section 2. Shown even if the secret should be part of one of them.
_ERRORS: Final = ("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
                  "invalid_scope", "invalid_target")  # fmt: skip


class Fetcher:
    """Holds the token of one client, and fetches it when it is wanted."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._transport = policy.transport or HttpxTransport()
        self._sleep: Callable[[float], None] = time.sleep
        self._flights = Flights()
        self._discovered: str | None = None
        self._discovered_until = 0.0
        exchanges = 1 if policy.issuer is None else 1 + len(metadata_urls(policy.issuer))
        self._patience = exchanges * (policy.retries + 1) * (policy.timeout + _LONGEST_PAUSE)
        self._held: ClientToken[Failure] = ClientToken(claim=self._patience)

    def drop(self, refused: TokenResponse) -> None:
        """Do not hand out *refused* again."""
        self._held.look(self._now(), refused)

    def token(self, refused: TokenResponse | None = None) -> TokenResponse:
        """The token held, unless it is *refused*; else a new one. Waits for it in this thread."""
        deadline = time.monotonic() + self._patience
        while True:
            look = self._look(refused)
            if look.token is not None:
                return look.token
            landed = threading.Event()
            if self._flights.board(_KEY, landed.set):
                token = self._fly(look.generation)
                if token is not None:
                    return token
            elif not landed.wait(max(0.0, deadline - time.monotonic())):
                raise self._late()
            self._raise_failure(look.generation)

    async def atoken(self, refused: TokenResponse | None = None) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        deadline = time.monotonic() + self._patience
        while True:
            look = self._look(refused)
            if look.token is not None:
                return look.token
            landed = anyio.Event()
            wake = _waker(landed)
            own: list[TokenResponse | Exception] = []
            if self._flights.board(_KEY, wake):
                self._launch(look.generation, own, wake)
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                await landed.wait()
            match own:
                case [TokenResponse() as token]:
                    return token
                case [Exception() as unexpected]:
                    raise unexpected
            if not landed.is_set():
                raise self._late()
            self._raise_failure(look.generation)

    def _now(self) -> float:
        return self._policy.clock.monotonic()

    def _look(self, refused: TokenResponse | None) -> Look:
        look = self._held.look(self._now(), refused)
        if look.renew and self._flights.board(_KEY, _nobody):
            self._launch(look.generation, [], _nobody)
        if look.token is None:
            self._raise_failure(look.generation)
        return look

    def _raise_failure(self, seen: int) -> None:
        failure = self._held.failure(self._now(), seen)
        if failure is not None:
            raise copy.copy(failure)

    def _late(self) -> TokenEndpointUnavailable:
        return TokenEndpointUnavailable(self._policy.authority, f"no answer within {self._patience:.0f} seconds")

    # -- the flight

    def _launch(self, seen: int, own: list[TokenResponse | Exception], wake: Callable[[], None]) -> None:
        """Fly in a new thread. What it brings to nobody but the one who launched it is put into *own*."""

        def fly() -> None:
            try:
                token = self._fly(seen)
                if token is not None:
                    own.append(token)
            except Exception as unexpected:  # of somebody's own transport
                log.exception("no access token: failed unexpectedly")
                own.append(unexpected)
            finally:
                wake()

        try:
            threading.Thread(target=fly, name="scopeguard-token", daemon=True).start()
        except BaseException:
            self._flights.land(_KEY)
            raise

    def _fly(self, seen: int) -> TokenResponse | None:
        """Fetch, unless that was done since generation *seen*; the outcome is recorded for all who wait."""
        try:
            return self._fetched() if self._held.generation == seen else None
        except (TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted) as failure:
            log.warning("no access token: %s", failure)
            self._discovered_until = 0.0  # the endpoint may have moved
            asked = getattr(failure, "retry_after", None)
            self._held.fail(failure.with_traceback(None), self._now(), closed_for=asked or 0.0)
            return None
        finally:
            if self._policy.transport is None:
                self._transport.close()  # the next exchange is an hour away
            self._flights.land(_KEY)

    def _fetched(self) -> TokenResponse:
        policy = self._policy
        url = self._endpoint()
        begun = self._now()
        answer = self._exchange(self._question(url))
        outcome = judge_token_answer(answer.status, answer.body)
        if isinstance(outcome, TokenRefusal):
            raise TokenEndpointError(policy.authority, self._without_secret(outcome))
        self._check_scope(outcome)
        lifetime = policy.default_lifetime if outcome.expires_in is None else outcome.expires_in
        self._held.keep(outcome, lifetime, begun)
        log.debug("token %s for client %s, %s seconds", fingerprint(outcome.access_token), policy.client_id, lifetime)
        return outcome

    def _question(self, url: str) -> Send:
        policy, secret = self._policy, self._policy.client_secret.reveal()
        form = client_credentials_form(
            scopes=policy.scopes, resources=policy.resource, audiences=policy.audience, parameters=policy.parameters
        )
        authorization = None
        if policy.auth_method == ClientAuthentication.POST:
            form += (("client_id", policy.client_id), ("client_secret", secret))
        else:
            authorization = basic_authorization(policy.client_id, secret)
        return Send(
            url=url,
            authority=policy.authority,
            form=form,
            authorization=authorization,
            limit=_LARGEST_ANSWER,
            timeout=policy.timeout,
        )

    def _without_secret(self, refusal: TokenRefusal) -> TokenRefusal:
        """A server that quotes the secret back must not get it into a log that way (C-28)."""
        secret = self._policy.client_secret.reveal()

        def shown(text: str | None) -> str | None:
            return "(withheld: it quotes the client secret)" if text and secret in text else text

        return replace(
            refusal,
            error=refusal.error if refusal.error in _ERRORS else shown(refusal.error),
            description=shown(refusal.description),
            uri=shown(refusal.uri),
        )

    def _check_scope(self, token: TokenResponse) -> None:
        granted = self._policy.scopes if token.scope is None else token.scope
        missing = tuple(scope for scope in self._policy.scopes if scope not in granted)
        if missing:
            narrower = ScopeNotGranted(missing, granted)
            if self._policy.narrower_scope == NarrowerScope.REFUSE:
                raise narrower
            log.warning("%s: fewer scopes than asked for: %s", self._policy.authority, narrower)

    # -- the exchanges

    def _endpoint(self) -> str:
        policy = self._policy
        if policy.issuer is None:
            return policy.token_url or ""
        if self._discovered is None or self._now() >= self._discovered_until:
            self._discovered = self._discover(policy.issuer)
            self._discovered_until = self._now() + _METADATA_LIFETIME
        return self._discovered

    def _discover(self, issuer: str) -> str:
        """The token endpoint of *issuer*, from the first place that has a document (A-04). A place that answers 404
        or the like, or with something that is not JSON (a web app answers every path), is passed over."""
        for place in metadata_urls(issuer):
            answer = self._exchange(Send(url=place, authority=issuer, timeout=self._policy.timeout))
            if answer.status != 200 or not is_json(answer.headers):
                continue
            try:
                endpoint = judge_metadata(answer.body, issuer).token_endpoint
                problem = "the metadata names no token_endpoint"
            except MalformedMetadata as error:
                endpoint, problem = None, str(error)
            if endpoint is None:
                raise TokenEndpointError(issuer, TokenRefusal(status=200, problem=problem))
            return endpoint
        places = " nor ".join(metadata_urls(issuer))
        raise TokenEndpointError(issuer, TokenRefusal(status=answer.status, problem=f"no metadata at {places}"))

    def _exchange(self, request: Send) -> Answer:
        """One exchange, tried again while the server is away. The answer is not an outage."""
        attempt = 0
        while True:
            asked: float | None = None
            final = attempt >= self._policy.retries
            try:
                answer = self._transport.send(request)
            except AuthorityUnavailable as error:
                problem = ", ".join((error.reason.value, *(f"{k}={v}" for k, v in error.detail.items())))
                final = final or error.reason is Reason.AUTHORITY_ANSWERED_NONSENSE
            else:
                if not is_outage(answer.status):
                    return answer
                problem = f"{request.url} answered with status {answer.status}"
                asked = retry_after(answer.headers, self._policy.clock.wall())
            if final or (asked or 0.0) > _LONGEST_PAUSE:
                closed = None if asked is None else min(asked, _LONGEST_CLOSURE)
                raise TokenEndpointUnavailable(self._policy.authority, problem, closed)
            # Spreads the clients of a server that comes back; it guards nothing.
            backoff = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
            self._sleep(max(asked or 0.0, backoff))
            attempt += 1


def _nobody() -> None:
    """Nobody waits for a renewal ahead of expiry."""


def _waker(landed: anyio.Event) -> Callable[[], None]:
    """A function for other threads that sets *landed* in the event loop of the current task."""
    native: Any = current_token().native_token  # asyncio: the event loop; trio: a TrioToken
    in_loop = native.call_soon_threadsafe if hasattr(native, "call_soon_threadsafe") else native.run_sync_soon

    def wake() -> None:
        try:
            in_loop(landed.set)
        except RuntimeError:
            pass  # the loop has ended, and with it whoever waited there

    return wake
