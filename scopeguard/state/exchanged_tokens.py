"""The tokens that were obtained in exchange for others, by a digest of what was exchanged.

An entry is the last result for its key: a token, or the failure of the exchange. It is used until its time is over.
Callers that waited for an exchange use its result in any case, so that two hundred waiting callers do not exchange two
hundred times. They recognise it by its number.

A failure may be caused by the token that was exchanged, which a caller chose. It therefore pauses the exchanges of that
token only. Failures that no token can cause, and failures of several tokens without a success in between, pause all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.backoff import Backoff
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.breaker import Breaker
from scopeguard.state.fork import Locked
from scopeguard.state.throttle import Throttle

FailureT = TypeVar("FailureT")

# The pause after a failure, in seconds, before a token is exchanged again. It doubles with each failure in a row.
_BACKOFF: Final = Backoff(first=1.0, longest=30.0)
# A token that an API refuses is replaced this many seconds after its arrival, or later.
_LEAST_USE: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[FailureT]):
    """The result of one exchange: a token, or else a failure.

    It is used before ``until`` (monotonic seconds) and ``until_wall`` (seconds since the epoch). ``arrived`` is in
    monotonic seconds. ``failures`` counts those in a row that pause the exchanges of this token.
    """

    token: TokenResponse | None = field(default=None, repr=False)
    failure: FailureT | None = None
    arrived: float
    until: float
    until_wall: float = float("inf")
    number: int
    failures: int = 0


class ExchangedTokens(Locked, Generic[FailureT]):
    """At most *max_entries* results; the least recently used one is dropped first. Safe to use from any thread.

    *now* is in monotonic seconds and *wall* in seconds since the epoch. Keys are digests. The failure of an exchange
    may have any type; it is returned unchanged.
    """

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._outcomes: BoundedMap[bytes, Outcome[FailureT]] = BoundedMap(max_entries)
        self._number = 0
        self._breaker = Breaker(max_pause=60.0)
        self._throttle = Throttle()
        self._last_failure: FailureT | None = None

    @property
    def number(self) -> int:
        """The number of exchanges that ended."""
        return self._number

    def find(self, key: bytes, now: float, wall: float, seen: int | None = None) -> Outcome[FailureT] | None:
        """Return the result for *key* that a caller uses instead of an exchange, if there is one.

        *seen*: :attr:`number` before the caller waited for an exchange, ``None`` if it has not waited.
        """
        with self._lock:
            outcome = self._outcomes.get(key)
            if outcome is None or (seen is not None and outcome.number > seen):
                return outcome
            if now < outcome.until and wall < outcome.until_wall:
                return outcome
            if outcome.token is not None:
                self._outcomes.pop(key)
            return None

    def pause(self, now: float) -> float:
        """Return 0 if an exchange may begin, else the seconds to wait. The caller must record the result."""
        return self._throttle.pause(now, accepted=True) or self._breaker.pause(now)

    @property
    def last_failure(self) -> FailureT | None:
        """The last failure that was recorded by :meth:`fail`."""
        return self._last_failure

    def has_answered_recently(self, now: float) -> bool:
        """Return whether the server has decided recently, which shows that it works and knows the client."""
        return self._throttle.has_answered_recently(now)

    def keep(self, key: bytes, token: TokenResponse, seconds: float, now: float, wall: float) -> None:
        """Record *token*, which may be used for *seconds* from now."""
        self._succeed(now)
        with self._lock:
            self._number += 1
            self._outcomes.put(
                key,
                Outcome(
                    token=token, arrived=now, until=now + seconds, until_wall=wall + seconds, number=self._number
                ),
            )  # fmt: skip

    def refuse(self, key: bytes, failure: FailureT, now: float) -> None:
        """Record that the server has decided to issue no token for *key*."""
        self._succeed(now)
        self._put_failure(key, failure, now, pauses=True)

    def fail(
        self,
        key: bytes,
        failure: FailureT,
        now: float,
        *,
        by_server: bool,
        timed_out: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """Record that an exchange failed without a decision of the server.

        *by_server*: no token can be the cause. *retry_after*: the pause that the server asked for in seconds, up to 60.
        """
        self._last_failure = failure
        if by_server:
            self._breaker.fail(now, retry_after=retry_after)
        else:
            self._breaker.succeed()
            self._throttle.fail(key, now, accepted=True, timed_out=timed_out)
        self._put_failure(key, failure, now, pauses=not by_server)

    def skip(self, key: bytes, failure: FailureT, now: float) -> None:
        """Record that no exchange began, for the callers that wait for it."""
        self._put_failure(key, failure, now, pauses=False)

    def discard(self, key: bytes, token: TokenResponse, now: float) -> bool:
        """Record that an API refused *token*. Return whether a newer one is there or may be obtained.

        A token stays in use for a second, so that an API that refuses every token does not cause an exchange for each
        of its answers.
        """
        with self._lock:
            outcome = self._outcomes.peek(key)
            if outcome is None or outcome.token is None:
                return outcome is None
            if outcome.token.access_token != token.access_token:
                return True
            if now < outcome.arrived + _LEAST_USE:
                return False
            self._outcomes.pop(key)
            return True

    def __len__(self) -> int:
        return len(self._outcomes)

    def _succeed(self, now: float) -> None:
        self._breaker.succeed()
        self._throttle.succeed(now)

    def _put_failure(self, key: bytes, failure: FailureT, now: float, *, pauses: bool) -> None:
        with self._lock:
            before = self._outcomes.peek(key)
            failures = (0 if before is None else before.failures) + pauses
            until = now + _BACKOFF.pause(failures) if pauses else now
            self._number += 1
            self._outcomes.put(
                key, Outcome(failure=failure, arrived=now, until=until, number=self._number, failures=failures)
            )
