"""A throttle for the requests to a server after failures that a token may have caused.

Introspection, token exchange and policy decisions use it.

Many authorization servers respond with 401, 404, 500 or a timeout to a request about a token that they cannot read.
Such a failure says little: the next request may succeed. If it counted as an outage, as in
:class:`~scopeguard.state.breaker.Breaker`, a stranger could stop introspection with a few made-up tokens. If it did not
count, a failing server would get a request about every token during its outage.

Two facts separate the cases. An answer about any token shows that the server works. And a stranger cannot make up a
token that was accepted before: if several of those fail without an answer in between, it is an outage.
"""

from __future__ import annotations

from typing import Final

from scopeguard.state.backoff import Backoff
from scopeguard.state.budget import Budget
from scopeguard.state.fork import Locked

# Seconds after an answer during which failures of unknown tokens have no effect.
_LATELY: Final = 60.0
# The budget for unknown tokens without a recent answer: a burst of requests, then a rate per second.
_BURST: Final = 200
_PER_SECOND: Final = 20.0
# A timeout costs as much as this many other failures, because it holds a connection for its whole duration.
_PRICE_OF_A_TIMEOUT: Final = 5
# This many failures of accepted tokens, without an answer in between, are an outage.
_ENOUGH: Final = 3
# The first and the longest pause between two requests during an outage, in seconds.
_BACKOFF: Final = Backoff(first=0.5, longest=5.0)


class Throttle(Locked):
    """The throttle for one authorization server. Safe to use from any thread. Seconds are monotonic.

    During an outage, accepted and unknown tokens are paced separately, so that made-up tokens do not delay the recovery
    of known callers.
    """

    def __init__(self) -> None:
        super().__init__()
        self._answered_at = float("-inf")
        self._recover()

    def _recover(self) -> None:
        self._budget = Budget(_BURST, 1 / _PER_SECOND)
        self._failed: set[bytes] = set()  # accepted tokens that failed since the last answer
        self._pause = _BACKOFF.first
        self._next = {True: float("-inf"), False: float("-inf")}  # by whether the token was accepted before

    def has_answered_recently(self, now: float) -> bool:
        """Return whether the server has answered recently, so that it works and accepts the credentials of this API."""
        return now - self._answered_at < _LATELY

    def pause(self, now: float, *, accepted: bool) -> float:
        """Return 0 if the caller may send the request, else the seconds to wait. The caller must report the result.

        *accepted*: whether the token was accepted before.
        """
        with self._lock:
            if len(self._failed) >= _ENOUGH:
                pause = max(0.0, self._next[accepted] - now)
                if pause == 0.0:
                    self._next[accepted] = now + self._pause
                return pause
            if accepted or self.has_answered_recently(now):
                return 0.0
            pause = self._budget.shortfall(now)
            if pause == 0.0:
                self._budget.spend(now)
            return pause

    def succeed(self, now: float) -> None:
        """Record that the server answered a request in any way."""
        with self._lock:
            self._answered_at = max(self._answered_at, now)
            self._recover()

    def fail(self, digest: bytes, now: float, *, accepted: bool, timed_out: bool) -> float:
        """Record that the request about the token with *digest* failed, perhaps because of the token.

        Returns the seconds until the next request during an outage, otherwise 0.
        """
        with self._lock:
            if timed_out and not self.has_answered_recently(now):
                for _ in range(_PRICE_OF_A_TIMEOUT - 1):
                    self._budget.spend(now)
            if len(self._failed) >= _ENOUGH:
                self._pause = _BACKOFF.next_pause(self._pause)
                self._next[accepted] = max(self._next[accepted], now + self._pause)
            elif accepted:
                self._failed.add(digest)
                if len(self._failed) == _ENOUGH:
                    self._next = dict.fromkeys(self._next, now + self._pause)
            return self._pause if len(self._failed) >= _ENOUGH else 0.0
