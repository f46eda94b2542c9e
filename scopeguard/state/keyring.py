"""The keys of one issuer through rotation, outage and attack.

A look-up never waits and never fetches. It says what is held and what the caller may do about it:

* :class:`Found`: keys to try.
* :class:`Due`: keys to try, and the refresh is yours: exactly one caller is told so, the others get ``Found``.
* :class:`Absent`: no such key here, whether you may ask for a newer set, and whether its absence means anything.

Two kinds of fetch, two rules. A *scheduled* one (the set grows old) happens once per lifetime and is paced by a
back-off when it fails. A *provoked* one (unknown key id, or a bad signature under a known one) can be caused by
anybody who can send a token, so it is paid from a small budget whatever its outcome (law 9): ``refetch_burst`` at
once, then one per ``refetch_interval``. A failed fetch never replaces keys.

The absence of a key is a verdict only when a set lacks it that was fetched after the key was first asked for. Until
then nobody has looked for it, be it for want of budget or because fetching fails, and that is not the token's fault
(law 4). Two bounded memories hold what is needed for this:

* ``_asked``: keys that no fetch has looked for yet. A full memory takes no further key and gives up none that it
  holds. Such a key is not refused, it waits for the next set like the others; a key that the set brings needs no
  memory at all.
* ``_missing``: keys that a later set did not hold. Each is worth another fetch after a while, because some authorities
  sign before they publish, but never the last fetch of the budget: that belongs to keys that nobody has looked for.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from scopeguard.config.keys import KeySetPolicy
from scopeguard.spec.jwks import KeySet, VerificationKey
from scopeguard.state.budget import Budget

# A claimed refresh that never reports back (its thread died) is offered again after this many request timeouts.
_CLAIM_LASTS: Final = 4.0
# Seconds after which a missing key is worth another fetch, at most; the pause doubles from ``negative_ttl``.
_LONGEST_RECHECK: Final = 60.0
# What is remembered of a key id, in characters; a longer one is remembered by its digest.
_LONGEST_KID: Final = 64

# A key as a token asks for it: its id, the algorithm, and for a token that names no key a mark of the token itself.
_Name = tuple[str | None, str, str]


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
    set and look again, provoked if one is held. ``undecided``: no set was fetched since the key was first asked for,
    so its absence is no verdict; ``retry_after``: the seconds until a fetch may begin.
    """

    generation: int
    landed: int
    held: bool
    may_fetch: bool
    undecided: bool
    retry_after: float


@dataclass(frozen=True, slots=True)
class Held:
    """A key set with its times, replaced whole: whoever reads it without the lock never sees half of two."""

    keys: KeySet
    refresh_at: float
    overdue_at: float
    stale_at: float


@dataclass(slots=True)
class _Missing:
    """A key that a set did not hold, fetched after the key was first asked for."""

    recheck_at: float
    pause: float


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
        self._budget = Budget(policy.refetch_burst, policy.refetch_interval)
        self._asked: dict[_Name, int] = {}  # how many fetches had begun when the key was first asked for
        self._missing: OrderedDict[_Name, _Missing] = OrderedDict()

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

    def lookup(self, kid: str | None, algorithm: str, now: float, *, mark: str = "") -> Found | Due | Absent:
        """What is held for *kid* and *algorithm* at *now* (monotonic seconds), and what may be done about it.

        *mark*: of a token that names no key, what tells it from others.
        """
        generation, keys = self._generation, self.fresh(kid, algorithm, now)
        if keys:
            return Found(keys, generation)
        # Everything else is decided on one state: a set that lands in between would make a new key look misused.
        with self._lock:
            keys = self.candidates(kid, algorithm, now)
            return self._claim(Found(keys, self._generation), now) if keys else self._absent(kid, algorithm, now, mark)

    def _claim(self, found: Found, now: float) -> Found | Due:
        held = self.current
        if held is None or now < held.refresh_at or now < self._claimed_until or now < self._next_attempt:
            return found
        self._claimed_until = now + _CLAIM_LASTS * self._policy.timeout  # lapses by itself
        # While refreshing fails, held keys are as good as they will get: nobody waits for another failure.
        return Due(found, overdue=now >= held.overdue_at and self._failures == 0)

    def look_beyond(self, algorithm: str, mark: str, now: float) -> Absent:
        """What may be done about a key that none of the held ones is.

        For a token that names no key, and that no held key has signed; *mark* tells it from other tokens. All such
        tokens of an issuer would be one key id otherwise, and anybody could have that looked for in vain.
        """
        with self._lock:
            return self._absent(None, algorithm, now, mark)

    def _absent(self, kid: str | None, algorithm: str, now: float, mark: str) -> Absent:
        pause = max(0.0, self._next_attempt - now)
        held = self.current if self.is_usable(now) else None
        undecided = may_fetch = False
        if held is None:
            undecided, may_fetch = True, self._aloft > 0 or pause == 0.0
            self._ask(_name(kid, algorithm, mark))
        elif not self._static and (kid is None or not held.keys.names(kid)):
            # Otherwise it is configured, or here and of another algorithm: the fault is the token's in any case.
            name = _name(kid, algorithm, mark)
            missing = self._missing.get(name)
            if missing is None:
                undecided = waits = True
                self._ask(name)
            else:
                self._missing.move_to_end(name)
                waits = now >= missing.recheck_at
            # The last fetch of the budget is for keys that nobody has looked for.
            pause = max(pause, self._budget.shortfall(now, 1 if undecided else 2))
            may_fetch = waits and (self._aloft > 0 or pause == 0.0)
        return Absent(
            generation=self._generation,
            landed=self._landed,
            held=held is not None,
            may_fetch=may_fetch,
            undecided=undecided,
            retry_after=pause,
        )

    def _ask(self, name: _Name) -> None:
        """Remember when *name* was first asked for, if there is room."""
        if name not in self._asked and len(self._asked) < self._policy.negative_kids:
            self._asked[name] = self._begun

    def may_doubt(self, now: float) -> bool:
        """Whether a bad signature under a known key id may cause a fetch: the same id may name a new key."""
        with self._lock:
            if self._static or now < self._next_attempt:
                return False
            return self._aloft > 0 or self._budget.shortfall(now) == 0.0

    def is_final(self, begun: int) -> bool:
        """Whether a fetch has landed that began after *begun* had: what it did not bring does not exist."""
        return self._landed > begun

    def remember_absent(self, kid: str | None, algorithm: str, now: float, mark: str = "") -> None:
        """A set without the key was fetched after it was asked for: do not ask again for it for a while. Bounded."""
        with self._lock:
            name = _name(kid, algorithm, mark)
            self._asked.pop(name, None)
            if name in self._missing:
                self._missing.move_to_end(name)
            else:
                self._miss(name, now)

    def _miss(self, name: _Name, now: float) -> None:
        pause = self._policy.negative_ttl
        self._missing[name] = _Missing(now + pause, pause)
        while len(self._missing) > self._policy.negative_kids:
            self._missing.popitem(last=False)

    def _settle(self, keys: KeySet, number: int, now: float, *, changed: bool) -> None:
        """Fetch *number* brought *keys*: say so of everything that was asked for."""
        for name in [name for name, begun in self._asked.items() if begun < number]:
            del self._asked[name]
            if not _holds(keys, name):
                self._miss(name, now)
        for name, missing in list(self._missing.items()):
            if _holds(keys, name):
                del self._missing[name]
            elif changed:  # the authority is publishing keys, and the one that is missed may be the next
                missing.pause = self._policy.negative_ttl
                missing.recheck_at = now + missing.pause
            elif now >= missing.recheck_at:
                missing.pause = max(missing.pause, min(2 * missing.pause, _LONGEST_RECHECK))
                missing.recheck_at = now + missing.pause

    def begin(self, now: float, *, provoked: bool) -> int | None:
        """A fetch begins; its number. A *provoked* one is paid for now, whatever comes of it.

        ``None``: it may not begin, somebody else has spent the budget since it was looked at.
        """
        with self._lock:
            # One fetch at a time: if another one was in the air, it is lost, and nobody must go on waiting for it.
            self._aloft = 0
            if provoked:
                if self._budget.shortfall(now) > 0.0:
                    return None
                self._budget.spend(now)
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
    ) -> None:
        """Fetch *number* brought *keys*, to be kept *lifetime* seconds as far as the policy allows.

        Keys that were asked for before it began, and are not there, are known to be missing at once: a request
        arriving before the waiters wake would have them fetched again, and so drain the budget.

        An answer that was overtaken by a later fetch is dropped.
        """
        policy = self._policy
        ttl = policy.ttl if lifetime is None else min(max(lifetime, policy.min_ttl), policy.max_ttl)
        with self._lock:
            self._end_flight(number)
            if number < self._landed:
                return
            self._landed = number
            before = () if self.current is None else self.current.keys.keys
            changed = [key.thumbprint for key in before] != [key.thumbprint for key in keys.keys]
            self.current = Held(
                keys,
                refresh_at=now + ttl * min(1.0, policy.refresh_ahead * self._jitter),
                overdue_at=now + ttl,
                stale_at=now + policy.max_stale,
            )
            self._next_attempt = float("-inf")
            self._failures = 0
            self._settle(keys, number, now, changed=changed)

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


def _name(kid: str | None, algorithm: str, mark: str) -> _Name:
    if kid is not None and len(kid) > _LONGEST_KID:
        kid = "sha256:" + hashlib.sha256(kid.encode("utf-8", "surrogatepass")).hexdigest()
    return kid, algorithm, mark


def _holds(keys: KeySet, name: _Name) -> bool:
    """Whether *keys* hold what was asked for. Of a token that names no key, nobody knows without its signature."""
    kid, algorithm, mark = name
    return not mark and bool(keys.candidates(kid, algorithm))
