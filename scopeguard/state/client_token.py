"""The one access token of a client: its expiry, renewal, refusal and outages.

A look never waits and never fetches. It returns the token and what the caller may do: use the token; use it and start a
renewal, which exactly one caller gets to do; or wait for a fetch. The result of a fetch is recorded for all waiting
callers. A failure is recorded too, so that two hundred waiting callers do not fetch two hundred times.

Three conditions must not cause a stream of token requests: an API that refuses every token, a token endpoint that
refuses or fails, and tokens that have expired when they arrive. The first two lead to pauses that double up to a
minute. Because of the third, every token may be used for a second, even if its lifetime is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.backoff import Backoff
from scopeguard.state.fork import Locked

FailureT = TypeVar("FailureT")

# A token is renewed this long before it expires: the seconds or the fraction of its lifetime, whichever is less.
_AHEAD_SECONDS: Final = 30.0
_AHEAD_FRACTION: Final = 0.1
# A token may be used for this many seconds after its arrival, even if it has expired by then. RFC 6749 section 5.1 only
# recommends expires_in, and the API decides whether the token is valid.
_LEAST_USE: Final = 1.0
# Seconds until a failed renewal is repeated while the token is valid.
_PAUSE: Final = 5.0
# Seconds between two renewals that a refusal caused, and after fetches that failed; doubled with each one in a row.
_BACKOFF: Final = Backoff(first=1.0, longest=60.0)
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look-up of the cached token.

    * ``token``: the token to use, if there is one.
    * ``renew``: whether this caller must fetch a newer one. Only one caller at a time gets true.
    * ``generation``: the number of fetches that have ended, successful or not.
    """

    token: TokenResponse | None
    renew: bool
    generation: int


class ClientToken(Locked, Generic[FailureT]):
    """Holds a token and the results of earlier fetches. Safe to use from any thread.

    *now* is in monotonic seconds and *wall* in seconds since the epoch. A token expires by the clock that reaches the
    expiry first: the monotonic clock of most systems stops while a machine sleeps, and the wall clock may be set back.
    The failure of a fetch may have any type; it is returned unchanged.
    """

    def __init__(self, *, claim: float) -> None:
        """*claim*: the seconds after which a renewal without a result is offered to another caller."""
        super().__init__()
        self._claim = claim
        self._token: TokenResponse | None = None
        self._lifetime = 0.0
        self._begun = self._begun_wall = 0.0  # when the request for the token began
        self._arrived = self._arrived_wall = 0.0
        self._claimed_until = _NEVER
        self._generation = 0
        # The token that an API refused, while a newer one is fetched.
        self._refused: TokenResponse | None = None
        self._refused_at = _NEVER
        self._refusals = 0
        self._failure: FailureT | None = None
        self._failed_at = 0  # the generation of the failure
        self._failures = 0
        self._closed_until = _NEVER

    def after_fork(self) -> None:
        """Replace the lock and drop the claim of a thread that does not exist in the child process."""
        super().after_fork()
        self._claimed_until = _NEVER

    @property
    def generation(self) -> int:
        """The number of fetches that ended."""
        return self._generation

    def look(self, now: float, wall: float) -> Look:
        """Return the token that may be used, and whether to renew it."""
        with self._lock:
            if self._token is None or not self._is_usable(now, wall):
                return Look(None, renew=False, generation=self._generation)
            due = self._age(now, wall) >= self._lifetime - min(_AHEAD_SECONDS, _AHEAD_FRACTION * self._lifetime)
            renew = due and not self._is_new(now, wall) and now >= self._claimed_until
            if renew:
                self._claimed_until = now + self._claim
            return Look(self._token, renew, self._generation)

    def refuse(self, token: TokenResponse, now: float, wall: float) -> bool:
        """Record that an API refused *token*. Return whether a newer one is there or may be fetched.

        A refusal takes the token out of use, at most once a second, and less often while no token is accepted in
        between (:meth:`accept`). Otherwise, and while token requests are paused, the token stays: an API that refuses
        every token must not cause a token request for each of its answers. A token that arrived less than a second ago
        and lives no longer than a second stays too, because it is replaced soon. A token out of use comes back when the
        fetch for a newer one fails, so that one API that errs does not cut off the others.
        """
        with self._lock:
            held = self._token
            if held is None:
                return True  # another refusal took it out of use
            if held.access_token != token.access_token and self._is_usable(now, wall):
                return True
            if now < self._closed_until or now < self._refused_at + _BACKOFF.pause(max(self._refusals, 1)):
                return False
            if self._lifetime <= _LEAST_USE and self._is_new(now, wall):
                return False
            self._refusals += 1
            self._refused_at = now
            self._token, self._refused = None, held
            return True

    def accept(self, token: TokenResponse) -> None:
        """Record that an API accepted *token*: the next refusal is about this token, and not about all of them."""
        if self._refusals == 0:  # No lock, because nearly every response causes this call.
            return
        with self._lock:
            if self._token is not None and self._token.access_token == token.access_token:
                self._refusals = 0

    def keep(self, token: TokenResponse, lifetime: float, now: float, wall: float, *, age: float) -> None:
        """Record that *token* arrived at *now* and *wall*, *age* seconds after the request for it began.

        *lifetime* is in seconds and counts from that beginning. The token may be used for a second after its arrival
        even if its lifetime is over.
        """
        with self._lock:
            self._generation += 1
            self._failure, self._failures, self._closed_until = None, 0, _NEVER
            self._claimed_until = _NEVER
            self._token, self._refused = token, None
            self._lifetime = lifetime
            self._begun, self._begun_wall = now - age, wall - age
            self._arrived, self._arrived_wall = now, wall

    def fail(self, failure: FailureT, now: float, *, closed_for: float | None = None, overloaded: bool = False) -> None:
        """Record that a fetch failed. The token stays in use until it expires.

        *closed_for*: the seconds for which no caller fetches again, at least 1. Without it, they are 1 after two
        failures in a row, or after the first one if the server is *overloaded*, then doubled with each further one up
        to 60.
        """
        with self._lock:
            self._generation += 1
            self._failures += 1
            self._failure, self._failed_at = failure, self._generation
            if closed_for is not None:
                pause = max(closed_for, _BACKOFF.first)
            elif overloaded:
                pause = _BACKOFF.pause(self._failures)
            else:
                pause = _BACKOFF.pause(self._failures - 1) if self._failures > 1 else 0.0
            self._closed_until = now + pause
            self._claimed_until = now + max(_PAUSE, pause)
            if self._token is None:
                self._token, self._refused = self._refused, None

    def failure(self, now: float, seen: int) -> FailureT | None:
        """Return the failure that a caller without a token raises instead of fetching, if there is one.

        That is the failure of a fetch that ended after generation *seen*, for which the caller waited, or of the last
        fetch while token requests are paused.
        """
        with self._lock:
            return self._failure if self._failed_at > seen or now < self._closed_until else None

    def _is_usable(self, now: float, wall: float) -> bool:
        return self._age(now, wall) < self._lifetime or self._is_new(now, wall)

    def _is_new(self, now: float, wall: float) -> bool:
        """Return whether the token arrived less than a second ago, by both clocks."""
        return max(now - self._arrived, wall - self._arrived_wall) < _LEAST_USE

    def _age(self, now: float, wall: float) -> float:
        """Return the seconds since the token was requested, by the clock that shows more."""
        return max(now - self._begun, wall - self._begun_wall)
