"""Whether an authority may be asked about a token while its failures may be the fault of the tokens.

Many authorities answer 401, 404 or 500, or nothing in time, to a question about a token that they cannot read. Such a
failure says little: the next token may be answered. If it counted as an outage, as in
:class:`~scopeguard.state.breaker.Breaker`, anybody could shut all callers out with a few made-up tokens. If it counted
for nothing, an authority that fails at every question would be asked about every token for as long as it is down.

Two things tell the one from the other. An answer, about whatever token, shows that the authority works. And a stranger
can make up tokens, but none that was accepted before: when several of those fail and no answer comes in between, it is
an outage.
"""

from __future__ import annotations

import threading
from typing import Final

from scopeguard.state.budget import Budget

# Seconds after an answer in which failures of other tokens stop nobody.
_LATELY: Final = 60.0
# Without an answer lately: so many questions at once, then so many a second.
_BURST: Final = 200
_PER_SECOND: Final = 20.0
# A question that was not answered in time costs as much as so many others: it held a connection all the while.
_PRICE_OF_A_TIMEOUT: Final = 5
# So many accepted tokens that fail, without an answer in between, are an outage.
_ENOUGH: Final = 3
# Seconds between two questions during such an outage: at first, and at most.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0


class Suspicion:
    """Of one authority; safe to use from any thread. Seconds are monotonic.

    During an outage, accepted tokens and others take turns of their own, so that made-up tokens delay the recovery of
    known callers by nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered_at = float("-inf")
        self._recover()

    def _recover(self) -> None:
        self._budget = Budget(_BURST, 1 / _PER_SECOND)
        self._failed: set[bytes] = set()  # accepted tokens that failed since the last answer
        self._pause = _FIRST_PAUSE
        self._next = {True: float("-inf"), False: float("-inf")}  # by whether the token was accepted before

    def after_fork(self) -> None:
        """In a child process: the thread that held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def answered_recently(self, now: float) -> bool:
        """Whether an answer has come not long ago, so that our credentials are good and the authority works."""
        return now - self._answered_at < _LATELY

    def pause(self, now: float, *, accepted: bool) -> float:
        """0: ask, and report how it went. Otherwise the seconds after which it is worth coming back.

        *accepted*: whether the token was accepted before.
        """
        with self._lock:
            if len(self._failed) >= _ENOUGH:
                pause = max(0.0, self._next[accepted] - now)
                if pause == 0.0:
                    self._next[accepted] = now + self._pause
                return pause
            if accepted or self.answered_recently(now):
                return 0.0
            pause = self._budget.shortfall(now)
            if pause == 0.0:
                self._budget.spend(now)
            return pause

    def succeed(self, now: float) -> None:
        """The authority answered a question, whatever it said."""
        with self._lock:
            self._answered_at = max(self._answered_at, now)
            self._recover()

    def fail(self, digest: bytes, now: float, *, accepted: bool, timed_out: bool) -> float:
        """The question about the token with *digest* failed, which may be the fault of the token.

        Returns the seconds until the next question where it is an outage of all tokens, and 0 where it is not.
        """
        with self._lock:
            if timed_out and not self.answered_recently(now):
                for _ in range(_PRICE_OF_A_TIMEOUT - 1):
                    self._budget.spend(now)
            if len(self._failed) >= _ENOUGH:
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._next[accepted] = max(self._next[accepted], now + self._pause)
            elif accepted:
                self._failed.add(digest)
                if len(self._failed) == _ENOUGH:
                    self._next = dict.fromkeys(self._next, now + self._pause)
            return self._pause if len(self._failed) >= _ENOUGH else 0.0
