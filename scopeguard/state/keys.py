"""The keys of one issuer through rotation, outage and attack.

A look-up never waits and never fetches. It returns what is cached and what the caller may do:

* :class:`Found`: keys to try.
* :class:`Due`: keys to try, and the caller refreshes the set. Exactly one caller gets this; the others get ``Found``.
* :class:`Absent`: no keys. It says whether the caller may fetch a newer set, and whether the absence is a verdict.

There are two kinds of fetch. A *scheduled* fetch (the set is old) happens once per lifetime, with a back-off after
failures. A *provoked* fetch (an unknown key id, or a bad signature under a known id) can be caused by anyone who can
send a token. It therefore counts against a small budget, even if it fails: ``refetch_burst`` at once, then one per
``refetch_interval``. A failed fetch never replaces keys.

The absence of a key is a verdict only if the key is missing from a set that was fetched after its first look-up. Until
then the token is not at fault: the budget may be used up, or fetching may fail. Two bounded maps record this:

* ``_unsearched``: keys that no fetch has looked for yet. A full map takes no further key and evicts none. A key that is
  not in the map is not denied: it waits for the next set like the others, and needs no entry if the set contains it.
* ``_missing``: keys that a later set did not contain. Each is looked for again after a pause, because some
  authorization servers sign before they publish, but never with the last fetch of the budget, which is reserved for
  keys that no fetch has looked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from scopeguard.config.keys import KeySetPolicy
from scopeguard.spec.jwks import KeySet, VerificationKey
from scopeguard.state.backoff import Backoff
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.budget import Budget
from scopeguard.state.fork import Locked

# A claimed refresh without a result (its thread died) is offered again after this many request timeouts.
_CLAIM_LASTS: Final = 4.0
# The longest pause in seconds until a missing key is looked for again; it doubles from ``negative_ttl``.
_LONGEST_RECHECK: Final = 60.0
# A key id of more characters is stored as its digest.
_LONGEST_KID: Final = 64

# A key as a token names it: key id and algorithm, and for a token without a key id, a mark of the token.
_Name = tuple[str | None, str, str]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Found:
    """The keys that may verify the token, and the generation of the set they come from."""

    keys: tuple[VerificationKey, ...]
    generation: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Due:
    """Usable keys of a set that the caller refreshes. ``overdue``: it is past its lifetime, so wait."""

    found: Found
    overdue: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Absent:
    """No cached key can verify the token.

    ``held``: a set is cached and lacks the key; ``last_success`` is the number of the fetch that brought it.
    ``may_fetch``: the caller may fetch a newer set and look again; the fetch is a provoked one if a set is held.
    ``undecided``: no set was fetched since the first look-up of the key, so that its absence is not a verdict.
    ``retry_after``: the seconds until a fetch may begin.
    """

    generation: int
    last_success: int
    held: bool
    may_fetch: bool
    undecided: bool
    retry_after: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Held:
    """A key set with its times, in monotonic seconds.

    It is replaced as a whole, so that readers without the lock see a consistent state.
    """

    keys: KeySet
    fetched_at: float
    refresh_at: float
    overdue_at: float
    stale_at: float


@dataclass(slots=True, eq=False, repr=False)
class _Missing:
    """A key that was missing from a set fetched after its first look-up."""

    recheck_at: float
    pause: float


class KeyRing(Locked):
    """The keys of one issuer. Safe to use from any thread.

    *jitter*, between -1 and 1, moves the refresh by up to 5 %, so that the processes of a fleet do not refresh at the
    same time.
    """

    def __init__(self, policy: KeySetPolicy, *, jitter: float = 0.0, static: KeySet | None = None) -> None:
        super().__init__()
        self._policy = policy
        self._jitter = 1 + 0.05 * jitter
        self._static = static is not None
        never = float("inf")
        # Replaced with every fetched set, so that callers may compare it by identity.
        self.current: Held | None = None if static is None else Held(static, never, never, never, never)
        self.generation: int = 0
        self._claimed_until = 0.0
        self._next_attempt = float("-inf")
        self._failures = 0
        self.begun: int = 0
        self._last_success = 0  # the number of the last fetch that succeeded
        self._may_plant = not self._static
        self._in_flight = 0  # the number of the fetch under way, 0 for none
        self._budget = Budget(policy.refetch_burst, policy.refetch_interval)
        self._unsearched: dict[_Name, int] = {}  # the number of fetches that had begun at the first look-up of the key
        self._missing: BoundedMap[_Name, _Missing] = BoundedMap(policy.negative_kids)
        self._backoff = Backoff(policy.first_backoff, policy.max_backoff)
        self._recheck = Backoff(policy.negative_ttl, max(policy.negative_ttl, _LONGEST_RECHECK))

    @property
    def key_set(self) -> KeySet | None:
        """The set fetched last, if there is one; it may be too old to be used."""
        held = self.current
        return None if held is None else held.keys

    def holds(self, held: object, now: float) -> bool:
        """Return whether *held* is the current set and no refresh is due at *now*."""
        current = self.current
        return current is held and current is not None and now < current.refresh_at

    def is_usable(self, now: float) -> bool:
        """Return whether a set is cached that is not too old."""
        held = self.current
        return held is not None and now < held.stale_at

    @property
    def may_plant(self) -> bool:
        """Whether a packed set may be used: no set is cached, and no packed one was tried."""
        return self._may_plant and self.current is None

    @property
    def is_packed(self) -> bool:
        """Whether the current set is a packed one, because no fetch has succeeded yet. Its keys may be outdated."""
        return self.current is not None and not self._static and self._last_success == 0

    @property
    def is_failing(self) -> bool:
        """Whether the last fetch failed."""
        return self._failures > 0

    def age(self, now: float) -> float | None:
        """Return the seconds since the current set was fetched; ``None`` if there is none or it is configured."""
        held = self.current
        return None if held is None or self._static else now - held.fetched_at

    def pause(self, now: float) -> float:
        """Return the seconds for which no key set is fetched, because fetching failed."""
        return max(0.0, self._next_attempt - now)

    def candidates(self, kid: str | None, algorithm: str, now: float) -> tuple[VerificationKey, ...]:
        """Return the usable keys for *kid* and *algorithm* at *now* (monotonic seconds)."""
        held = self.current
        return held.keys.candidates(kid, algorithm) if held is not None and now < held.stale_at else ()

    def fresh(self, kid: str | None, algorithm: str, now: float) -> tuple[VerificationKey, ...]:
        """Return the keys that :meth:`lookup` finds if no refresh is due."""
        held = self.current
        return held.keys.candidates(kid, algorithm) if held is not None and now < held.refresh_at else ()

    def lookup(self, kid: str | None, algorithm: str, now: float, *, mark: str = "") -> Found | Due | Absent:
        """Look up the keys for *kid* and *algorithm* at *now* (monotonic seconds).

        *mark* distinguishes tokens that name no key.
        """
        generation, keys = self.generation, self.fresh(kid, algorithm, now)
        if keys:
            return Found(keys, generation)
        # The rest needs one consistent state: a set that is stored in between could make a new key look absent.
        with self._lock:
            keys = self.candidates(kid, algorithm, now)
            return self._claim(Found(keys, self.generation), now) if keys else self._absent(kid, algorithm, now, mark)

    def _claim(self, found: Found, now: float) -> Found | Due:
        held = self.current
        if held is None or now < held.refresh_at or now < self._claimed_until or now < self._next_attempt:
            return found
        self._claimed_until = now + _CLAIM_LASTS * self._policy.timeout  # expires by itself
        # While refreshes fail, requests do not wait for another failure.
        return Due(found, overdue=now >= held.overdue_at and self._failures == 0)

    def look_beyond(self, algorithm: str, mark: str, now: float) -> Absent:
        """Return the next step for a token that names no key and that no cached key has signed.

        *mark* distinguishes such tokens. Without it, they would all share one entry, and one bad token would make the
        key of all others count as missing.
        """
        with self._lock:
            return self._absent(None, algorithm, now, mark)

    def _absent(self, kid: str | None, algorithm: str, now: float, mark: str) -> Absent:
        pause = max(0.0, self._next_attempt - now)
        held = self.current if self.is_usable(now) else None
        undecided = may_fetch = False
        if held is None:
            undecided, may_fetch = True, self._in_flight > 0 or pause == 0.0
            self._ask(_name(kid, algorithm, mark))
        elif not self._static and (kid is None or self.is_packed or not held.keys.has_key_id(kid)):
            # Otherwise the keys are configured, or the key has a different algorithm: the token is at fault.
            name = _name(kid, algorithm, mark)
            missing = self._missing.get(name)
            if missing is None:
                undecided = waits = True
                self._ask(name)
            else:
                waits = now >= missing.recheck_at
            # The last fetch of the budget is reserved for keys that no fetch has looked for.
            pause = max(pause, self._budget.shortfall(now, 1 if undecided else 2))
            may_fetch = waits and (self._in_flight > 0 or pause == 0.0)
        return Absent(
            generation=self.generation,
            last_success=self._last_success,
            held=held is not None,
            may_fetch=may_fetch,
            undecided=undecided,
            retry_after=pause,
        )

    def _ask(self, name: _Name) -> None:
        """Record the first look-up of *name*, if there is room."""
        if name not in self._unsearched and len(self._unsearched) < self._policy.negative_kids:
            self._unsearched[name] = self.begun

    def may_doubt(self, now: float) -> bool:
        """Return whether a bad signature under a known key id may cause a fetch: the id may name a new key."""
        with self._lock:
            if self._static or now < self._next_attempt:
                return False
            return self._in_flight > 0 or self._budget.shortfall(now) == 0.0

    def is_final(self, begun: int) -> bool:
        """Return whether a fetch that began after fetch *begun* has succeeded. A key that it lacks does not exist."""
        return self._last_success > begun

    def remember_absent(self, kid: str | None, algorithm: str, now: float, mark: str = "") -> None:
        """Record that a set fetched after the look-up of the key lacks it. The next search has to wait."""
        with self._lock:
            name = _name(kid, algorithm, mark)
            self._unsearched.pop(name, None)
            if self._missing.get(name) is None:
                self._miss(name, now)

    def _miss(self, name: _Name, now: float) -> None:
        self._missing.put(name, _Missing(now + self._recheck.first, self._recheck.first))

    def _settle(self, keys: KeySet, number: int, now: float, *, changed: bool) -> None:
        """Update the records of keys that were looked up, after fetch *number* returned *keys*."""
        for name in [name for name, begun in self._unsearched.items() if begun < number]:
            del self._unsearched[name]
            if not _holds(keys, name):
                self._miss(name, now)
        for name, missing in self._missing.items():
            if _holds(keys, name):
                self._missing.pop(name)
            elif changed:  # keys are being published, and the missing one may be next
                missing.pause = self._recheck.first
                missing.recheck_at = now + missing.pause
            elif now >= missing.recheck_at:
                missing.pause = self._recheck.next_pause(missing.pause)
                missing.recheck_at = now + missing.pause

    def begin(self, now: float, *, provoked: bool) -> int | None:
        """Begin a fetch and return its number. A *provoked* fetch is taken from the budget now, even if it fails later.

        Returns ``None`` if another request has used up the budget since it was checked.
        """
        with self._lock:
            # There is one fetch at a time: an earlier one that did not report its result is lost.
            self._in_flight = 0
            if provoked:
                if self._budget.shortfall(now) > 0.0:
                    return None
                self._budget.spend(now)
            self.begun += 1
            self._in_flight = self.begun
            return self.begun

    def absorb(
        self,
        keys: KeySet,
        now: float,
        *,
        number: int,
        lifetime: float | None,
    ) -> None:
        """Record that fetch *number* returned *keys*, with a *lifetime* in seconds that the policy bounds.

        Keys that were looked up before the fetch began, and are not in the set, are recorded as missing at once. A
        request that arrives before the waiting ones wake would otherwise fetch them again and use up the budget.

        A set that a later fetch has overtaken is dropped.
        """
        policy = self._policy
        ttl = policy.ttl if lifetime is None else min(max(lifetime, policy.min_ttl), policy.max_ttl)
        with self._lock:
            if not self._end_fetch(number):
                return
            self._last_success = number
            before = () if self.current is None else self.current.keys.keys
            changed = [key.thumbprint for key in before] != [key.thumbprint for key in keys.keys]
            self.current = Held(
                keys,
                fetched_at=now,
                refresh_at=now + ttl * min(1.0, policy.refresh_ahead * self._jitter),
                overdue_at=now + ttl,
                stale_at=now + policy.max_stale,
            )
            self._next_attempt = float("-inf")
            self._failures = 0
            self._settle(keys, number, now, changed=changed)

    def plant(self, packed: KeySet | None, now: float, age: float) -> None:
        """Use a *packed* set, fetched *age* seconds ago, until a fetch succeeds. ``None``: it cannot be used.

        It is due for a refresh, for which requests wait once its lifetime has passed.
        """
        with self._lock:
            if not self.may_plant:
                return
            self._may_plant = False
            self.generation += 1
            if packed is not None:
                lifetime, left = self._policy.ttl, self._policy.max_seed_age - age
                self.current = Held(packed, now - age, refresh_at=now, overdue_at=now + lifetime, stale_at=now + left)

    def fail(self, now: float, *, number: int, retry_after: float | None) -> None:
        """Record that fetch *number* failed. The keys stay; the pause before the next fetch grows with each failure."""
        with self._lock:
            if not self._end_fetch(number):
                return
            self._failures += 1
            self._next_attempt = now + self._backoff.pause(self._failures, retry_after)

    def abandon(self, number: int) -> None:
        """Record that fetch *number* was interrupted, so that another may begin."""
        with self._lock:
            self._release(number)

    def after_fork(self) -> None:
        """Replace the lock and drop the fetch of a thread that does not exist in the child process."""
        super().after_fork()
        self._in_flight = 0
        self._claimed_until = 0.0

    def _end_fetch(self, number: int) -> bool:
        """End fetch *number*. Return whether its result counts: no later fetch has succeeded."""
        self._release(number)
        self.generation += 1
        return number >= self._last_success

    def _release(self, number: int) -> None:
        if number == self._in_flight:
            self._in_flight = 0
        self._claimed_until = 0.0


def _name(kid: str | None, algorithm: str, mark: str) -> _Name:
    if kid is not None and len(kid) > _LONGEST_KID:
        kid = "sha256:" + hashlib.sha256(kid.encode("utf-8", "surrogatepass")).hexdigest()
    return kid, algorithm, mark


def _holds(keys: KeySet, name: _Name) -> bool:
    """Return whether *keys* contain the named key. False for a token without a key id, which only its signature
    connects with a key.
    """
    kid, algorithm, mark = name
    return not mark and bool(keys.candidates(kid, algorithm))
