"""The one access token of a client, through expiry, renewal ahead of it, refusal and outage.

A look never waits and never fetches. It says what is held and what the caller may do about it: use the token; use it
and renew it, which exactly one caller is told; or have one fetched. What a fetch brought is recorded here for all who
waited for it, a failure too, so that two hundred waiters do not try two hundred times in turn.
"""

from __future__ import annotations

import threading
from typing import Final, Generic, TypeVar

from scopeguard.records import dataclass
from scopeguard.spec.token_endpoint import TokenResponse

FailureT = TypeVar("FailureT")

# Ahead of expiry by so much, whichever is less (C-13).
_AHEAD_SECONDS: Final = 30.0
_AHEAD_FRACTION: Final = 0.1
# A renewal ahead of time that failed is tried again after so many seconds; the token is still good.
_PAUSE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """``token``: use it, if there is one. ``renew``: and fetch a newer one, which nobody else was told to do.

    ``generation`` counts the fetches that ended, well or badly.
    """

    token: TokenResponse | None
    renew: bool
    generation: int


class ClientToken(Generic[FailureT]):
    """Times are monotonic seconds. A failure is whatever the owner makes of it; it is kept and handed out as it is."""

    def __init__(self, *, claim: float) -> None:
        """*claim*: a renewal that never reports back is offered to somebody else after so many seconds."""
        self._claim = claim
        self._lock = threading.Lock()
        self._token: TokenResponse | None = None
        self._renew_at = self._expires_at = 0.0
        self._claimed_until = float("-inf")
        self._generation = 0
        self._failure: FailureT | None = None
        self._failed_at = 0  # the generation the failure made
        self._closed_until = float("-inf")

    def after_fork(self) -> None:
        """A child process has none of the threads that might hold the lock or have claimed the renewal."""
        self._lock = threading.Lock()
        self._claimed_until = float("-inf")

    @property
    def generation(self) -> int:
        """Counts every fetch that ended."""
        return self._generation

    def look(self, now: float, refused: TokenResponse | None = None) -> Look:
        """What is held at *now*. A token that is *refused* is dropped, if it is the one held (C-21, C-24)."""
        with self._lock:
            if refused is not None and self._token is refused:
                self._token = None
            if self._token is None or now >= self._expires_at:
                return Look(None, renew=False, generation=self._generation)
            renew = now >= self._renew_at and now >= self._claimed_until
            if renew:
                self._claimed_until = now + self._claim
            return Look(self._token, renew, self._generation)

    def keep(self, token: TokenResponse, lifetime: float, begun: float) -> None:
        """*token* was fetched; the request for it began at *begun*. With a lifetime of 0 no look finds it (C-12)."""
        with self._lock:
            self._generation += 1
            self._failure, self._closed_until = None, float("-inf")
            self._claimed_until = float("-inf")
            self._token = token
            self._expires_at = begun + lifetime
            self._renew_at = self._expires_at - min(_AHEAD_SECONDS, _AHEAD_FRACTION * lifetime)

    def fail(self, failure: FailureT, now: float, *, closed_for: float = 0.0) -> None:
        """A fetch failed. What is held stays (late is not wrong); for *closed_for* seconds nobody should ask."""
        with self._lock:
            self._generation += 1
            self._failure, self._failed_at = failure, self._generation
            self._closed_until = now + closed_for
            self._claimed_until = now + max(_PAUSE, closed_for)

    def failure(self, now: float, seen: int) -> FailureT | None:
        """What a caller without a token should be told instead of asking: the failure of the last fetch, if that
        ended after generation *seen*, which the caller waited for, or if the server asked to be left alone."""
        with self._lock:
            return self._failure if self._failed_at > seen or now < self._closed_until else None
