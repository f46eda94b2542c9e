"""Remember DPoP proofs, so that each is accepted once (RFC 9449 §11.1)."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum

from scopeguard.state.fork import Locked


class Claim(StrEnum):
    """The outcome of claiming a proof."""

    NEW = "new"  # it was not used before, and is remembered from now on
    USED = "used"
    FULL = "full"  # as many proofs are remembered as the limits allow


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofLimits:
    """How many proofs are remembered: *total* of all keys, *per_owner* of one key.

    A client can have any number of keys. So once half of the places are taken, the proofs of one subject or client may
    take an eighth of all places, or *per_owner* if that is more.
    """

    total: int
    per_owner: int

    @property
    def per_holder(self) -> int:
        """The limit for one subject or client, once half of the places are taken."""
        return max(self.per_owner, self.total // 8)


class ProofMemory(Locked):
    """The proofs that were used in this process.

    A proof is forgotten when it has expired and never before, whatever the load: an evicted proof could be used again.
    At the limits, :attr:`Claim.FULL` is returned instead. Safe to use from any thread.

    A wall clock that is set back would make forgotten proofs acceptable again. So the memory also knows the time of the
    newest proof that was forgotten, here or in a store.
    """

    def __init__(self, limits: ProofLimits) -> None:
        super().__init__()
        self.limits: ProofLimits = limits
        self._expiries: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes, str, bytes]] = []
        self._counts: Counter[str | bytes] = Counter()
        self._times = _Times()

    def claim(self, identity: bytes, owner: str, now: float, seconds: float, *, holder: bytes) -> Claim:
        """Remember the proof *identity* of the key *owner* for *seconds* from *now* (monotonic), if it is new.

        *holder*: a digest that names the subject or client of the token.
        """
        with self._lock:
            self._forget_expired(now)
            if identity in self._expiries:
                return Claim.USED
            taken, limits = len(self._expiries), self.limits
            if taken >= limits.total or self._counts[owner] >= limits.per_owner:
                return Claim.FULL
            if taken * 2 >= limits.total and self._counts[holder] >= limits.per_holder:
                return Claim.FULL
            self._add(identity, owner, holder, now + seconds)
            return Claim.NEW

    def _add(self, identity: bytes, owner: str, holder: bytes, expiry: float) -> None:
        self._expiries[identity] = expiry
        self._counts.update((owner, holder))
        heapq.heappush(self._order, (expiry, identity, owner, holder))

    def note(self, issued_at: float, now: float, seconds: float) -> None:
        """Note that a proof with the time *issued_at* is remembered for *seconds* from *now* (monotonic)."""
        with self._lock:
            self._times.add(issued_at, now + seconds)

    def newest_forgotten(self, now: float) -> float:
        """Return the latest time in those proofs that may have been forgotten by *now* (monotonic).

        A proof counts as forgotten up to a second early. The result is ``-inf`` if there is none. Unless the wall clock
        was set back, every proof with this time has expired.
        """
        with self._lock:
            return self._times.newest_expired(now)

    def take_over(self, other: ProofMemory) -> None:
        """Remember what *other* remembers, from now on together with it. The limits are those of this memory.

        While one guard replaces another, both accept proofs, and each refuses those that the other has accepted.
        """
        self._lock = other._lock
        self._expiries, self._order, self._counts = other._expiries, other._order, other._counts
        self._times = other._times

    def __len__(self) -> int:
        return len(self._expiries)

    def _forget_expired(self, now: float) -> None:
        while self._order and self._order[0][0] <= now:
            _, identity, owner, holder = heapq.heappop(self._order)
            del self._expiries[identity]
            for name in (owner, holder):
                self._counts[name] -= 1
                if not self._counts[name]:
                    del self._counts[name]


class _Times:
    """The times in proofs, by the time when each is forgotten. It has at most one entry per second."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, float]] = deque()  # monotonic expiry, latest time in a proof
        self._newest_expired = -math.inf

    def add(self, issued_at: float, expiry: float) -> None:
        if self._waiting and expiry < self._waiting[-1][0] + 1.0:
            first, newest = self._waiting[-1]
            self._waiting[-1] = (first, max(newest, issued_at))
        else:
            self._waiting.append((expiry, issued_at))

    def newest_expired(self, now: float) -> float:
        while self._waiting and self._waiting[0][0] <= now:
            self._newest_expired = max(self._newest_expired, self._waiting.popleft()[1])
        return self._newest_expired
