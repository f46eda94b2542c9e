"""The keys of one issuer through rotation, outage and attack.

A look-up never waits and never fetches. It says what is held and what the caller may do about it:

* :class:`Found`: keys to try.
* :class:`Due`: keys to try, and the refresh is yours: exactly one caller is told so, the others get ``Found``.
* :class:`Absent`: no such key here, whether you may ask for a newer set, and whether its absence means anything.

Two kinds of fetch, two rules. A *scheduled* one (the set grows old) happens once per lifetime and is paced by a
back-off when it fails. A *provoked* one (unknown key id, or a bad signature under a known one) can be caused by
anybody who can send a token, so it is paid from a small budget whatever its outcome (law 9): ``refetch_burst`` at
once, then one per ``refetch_interval``. A failed fetch never replaces keys; it is remembered, because an unknown key
during an outage is not the token's fault (law 4).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from scopeguard.policies import KeySetPolicy
from scopeguard.records import dataclass
from scopeguard.spec.jwks import KeySet, VerificationKey

# A claimed refresh that never reports back (its thread died) is offered again after this many request timeouts.
_CLAIM_LASTS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Found:
    """The keys that may verify the token, and the generation of the set they come from."""

    keys: tuple[VerificationKey, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class Due:
    """Usable keys of a set that should be refreshed, by you. ``overdue``: it is past its lifetime, so wait for it."""

    found: Found
    overdue: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """No key held that could verify the token.

    ``held``: there is a set, without it, and it is the one of fetch number ``landed``. ``may_fetch``: ask for a newer
    set and look again, provoked if one is held. ``unreachable``: the last attempt failed, so the absence is no verdict;
    ``retry_after`` is in seconds.
    """

    generation: int
    landed: int
    held: bool
    may_fetch: bool
    unreachable: bool
    retry_after: float


@dataclass(frozen=True, slots=True)
class Held:
    """A key set with its times, replaced whole: whoever reads it without the lock never sees half of two."""

    keys: KeySet
    refresh_at: float
    overdue_at: float
    stale_at: float


class KeyRing:
    """Keys of one issuer, for any number of threads and event loops.

    *jitter*, between -1 and 1, moves the refresh by up to 5 % so that a fleet does not refresh in step.
    """

    def __init__(self, policy: KeySetPolicy, *, jitter: float = 0.0, static: KeySet | None = None) -> None:
        self._policy = policy
        self._jitter = 1 + 0.05 * jitter
        self._static = static is not None
        self._lock = threading.Lock()
        never = float("inf")
        # What is held now. Compared by identity, too: it is replaced whole with every set that lands.
        self.current: Held | None = None if static is None else Held(static, never, never, never)
        self._generation = 0
        self._claimed_until = 0.0
        self._next_attempt = float("-inf")
        self._failures = 0
        self._begun = self._landed = 0  # fetches begun; the number of the one that landed last
        self._aloft = 0  # the number of the fetch in the air, 0 for none
        self._budget = float(policy.refetch_burst)
        self._budget_at: float | None = None
        self._known_absent: OrderedDict[tuple[str | None, str], float] = OrderedDict()

    @property
    def generation(self) -> int:
        """Counts every fetch that ended, well or badly."""
        return self._generation

    @property
    def begun(self) -> int:
        """How many fetches have begun, for :meth:`is_final`."""
        return self._begun

    @property
    def key_set(self) -> KeySet | None:
        """The set fetched last, if any; it may be too old to be used."""
        held = self.current
        return None if held is None else held.keys

    def holds(self, held: object, now: float) -> bool:
        """Whether *held* is what is held, and nobody has to look for newer keys at *now*."""
        current = self.current
        return current is held and current is not None and now < current.refresh_at

    def is_usable(self, now: float) -> bool:
        """Whether a set is held that is not too old."""
        held = self.current
        return held is not None and now < held.stale_at

    def candidates(self, kid: str | None, algorithm: str, now: float) -> tuple[VerificationKey, ...]:
        """The keys held for *kid* and *algorithm* at *now* (monotonic seconds)."""
        held = self.current
        return held.keys.candidates(kid, algorithm) if held is not None and now < held.stale_at else ()

    def fresh(self, kid: str | None, algorithm: str, now: float) -> tuple[VerificationKey, ...]:
        """The keys that :meth:`lookup` finds, if nothing at all is to be done about them."""
        held = self.current
        return held.keys.candidates(kid, algorithm) if held is not None and now < held.refresh_at else ()

    def lookup(self, kid: str | None, algorithm: str, now: float) -> Found | Due | Absent:
        """What is held for *kid* and *algorithm* at *now* (monotonic seconds), and what may be done about it."""
        generation, keys = self._generation, self.fresh(kid, algorithm, now)
        if keys:
            return Found(keys, generation)
        # Everything else is decided on one state: a set that lands in between would make a new key look misused.
        with self._lock:
            keys = self.candidates(kid, algorithm, now)
            return self._claim(Found(keys, self._generation), now) if keys else self._absent(kid, algorithm, now)

    def _claim(self, found: Found, now: float) -> Found | Due:
        held = self.current
        if held is None or now < held.refresh_at or now < self._claimed_until or now < self._next_attempt:
            return found
        self._claimed_until = now + _CLAIM_LASTS * self._policy.timeout  # lapses by itself
        # While refreshing fails, held keys are as good as they will get: nobody waits for another failure.
        return Due(found, overdue=now >= held.overdue_at and self._failures == 0)

    def _absent(self, kid: str | None, algorithm: str, now: float) -> Absent:
        pause = max(0.0, self._next_attempt - now)
        held = self.current if self.is_usable(now) else None
        if held is None:
            may_fetch = self._aloft > 0 or pause == 0.0
            unreachable = True
        elif self._static or self._is_known_absent(kid, algorithm, now) or (kid is not None and held.keys.knows(kid)):
            # Configured, or just asked for, or here and of another algorithm: the fault is the token's in any case.
            may_fetch = unreachable = False
        else:
            shortfall = self._shortfall(now)
            may_fetch = self._aloft > 0 or (pause == 0.0 and shortfall == 0.0)
            unreachable = self._failures > 0
            pause = max(pause, shortfall)
        return Absent(
            generation=self._generation,
            landed=self._landed,
            held=held is not None,
            may_fetch=may_fetch,
            unreachable=unreachable,
            retry_after=pause,
        )

    def may_doubt(self, now: float) -> bool:
        """Whether a bad signature under a known key id may cause a fetch: the same id may name a new key."""
        with self._lock:
            if self._static or now < self._next_attempt:
                return False
            return self._aloft > 0 or self._shortfall(now) == 0.0

    def is_final(self, begun: int) -> bool:
        """Whether a fetch has landed that began after *begun* had: what it did not bring does not exist."""
        return self._landed > begun

    def remember_absent(self, kid: str | None, algorithm: str, now: float) -> None:
        """The authority was just asked and has no such key: do not ask again for it for a while. Bounded."""
        with self._lock:
            self._remember_absent(kid, algorithm, now)

    def _remember_absent(self, kid: str | None, algorithm: str, now: float) -> None:
        self._known_absent[kid, algorithm] = now + self._policy.negative_ttl
        self._known_absent.move_to_end((kid, algorithm))
        while len(self._known_absent) > self._policy.negative_kids:
            self._known_absent.popitem(last=False)

    def begin(self, now: float, *, provoked: bool) -> int | None:
        """A fetch begins; its number. A *provoked* one is paid for now, whatever comes of it.

        ``None``: it may not begin, somebody else has spent the budget since it was looked at.
        """
        with self._lock:
            # One fetch at a time: if another one was in the air, it is lost, and nobody must go on waiting for it.
            self._aloft = 0
            if provoked:
                if self._shortfall(now) > 0.0:
                    return None
                self._budget -= 1
            self._begun += 1
            self._aloft = self._begun
            return self._begun

    def absorb(
        self,
        keys: KeySet,
        now: float,
        *,
        number: int,
        lifetime: float | None,
        sought: tuple[str | None, str] | None = None,
    ) -> None:
        """Fetch *number* brought *keys*, to be kept *lifetime* seconds as far as the policy allows.

        *sought*: the key id and the algorithm on whose account it was fetched; if they are not there, that is known at
        once: whoever comes before those who wait have woken up would have it fetched again, and so drain the budget.

        An answer that was overtaken by a later fetch is dropped.
        """
        policy = self._policy
        ttl = policy.ttl if lifetime is None else min(max(lifetime, policy.min_ttl), policy.max_ttl)
        with self._lock:
            self._end_flight(number)
            if number < self._landed:
                return
            self._landed = number
            self.current = Held(
                keys,
                refresh_at=now + ttl * min(1.0, policy.refresh_ahead * self._jitter),
                overdue_at=now + ttl,
                stale_at=now + policy.max_stale,
            )
            self._next_attempt = float("-inf")
            self._failures = 0
            if sought is not None and not keys.candidates(*sought):
                self._remember_absent(*sought, now)

    def fail(self, now: float, *, number: int, retry_after: float | None) -> None:
        """Fetch *number* failed: keep what is held, wait before the next attempt, longer each time."""
        policy = self._policy
        with self._lock:
            self._end_flight(number)
            if number < self._landed:
                return
            backoff = min(policy.first_backoff * 2.0 ** min(self._failures, 30), policy.max_backoff)
            self._next_attempt = now + max(backoff, min(retry_after or 0.0, policy.max_backoff))
            self._failures += 1

    def abandon(self, number: int) -> None:
        """Fetch *number* was cut off and will never land; the next one who needs it may begin anew."""
        with self._lock:
            self._come_down(number)

    def forget_flights(self) -> None:
        """In a child process after a fork: what was in the air, or held the lock, stayed with the parent."""
        self._lock = threading.Lock()
        self._come_down(self._aloft)

    def _end_flight(self, number: int) -> None:
        self._come_down(number)
        self._generation += 1

    def _come_down(self, number: int) -> None:
        if number == self._aloft:
            self._aloft = 0
        self._claimed_until = 0.0

    def _shortfall(self, now: float) -> float:
        """The seconds until the budget affords a fetch."""
        policy = self._policy
        # Threads read the clock before they get here, so it may seem to run backwards; nothing is refilled twice.
        last = now if self._budget_at is None else self._budget_at
        self._budget_at = max(now, last)
        refill = (self._budget_at - last) / policy.refetch_interval
        self._budget = min(float(policy.refetch_burst), self._budget + refill)
        return max(0.0, 1 - self._budget) * policy.refetch_interval

    def _is_known_absent(self, kid: str | None, algorithm: str, now: float) -> bool:
        until = self._known_absent.get((kid, algorithm))
        return until is not None and now < until
