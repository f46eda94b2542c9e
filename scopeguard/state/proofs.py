"""Remember DPoP proofs, so that each is accepted once (RFC 9449 §11.1)."""

from __future__ import annotations

import heapq
from enum import StrEnum

from scopeguard.state.fork import Locked


class Claim(StrEnum):
    """The outcome of claiming a proof."""

    NEW = "new"  # it was not used before, and is remembered from now on
    USED = "used"
    FULL = "full"  # as many proofs are remembered as the limits allow


class ProofMemory(Locked):
    """The proofs that were used in this process.

    A proof is forgotten when it has expired and never before, whatever the load: an evicted proof could be used again.
    At the limits, :attr:`Claim.FULL` is returned instead. *max_entries* bounds all proofs, *max_per_owner* those of one
    key, so that one client cannot use up the place of the others. Safe to use from any thread.
    """

    def __init__(self, max_entries: int, max_per_owner: int) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_per_owner = max_per_owner
        self._expiries: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes, str]] = []
        self._counts: dict[str, int] = {}

    def take_over(self, previous: ProofMemory) -> None:
        """Remember what *previous* remembers, which this memory replaces. Its own limits hold from now on."""
        with previous._lock:
            expiries, order, counts = dict(previous._expiries), list(previous._order), dict(previous._counts)
        with self._lock:
            self._expiries, self._order, self._counts = expiries, order, counts

    def claim(self, identity: bytes, owner: str, now: float, seconds: float) -> Claim:
        """Remember the proof *identity* of the key *owner* for *seconds* from *now* (monotonic), if it is new."""
        with self._lock:
            self._forget_expired(now)
            if identity in self._expiries:
                return Claim.USED
            count = self._counts.get(owner, 0)
            if count >= self._max_per_owner or len(self._expiries) >= self._max_entries:
                return Claim.FULL
            self._expiries[identity] = now + seconds
            self._counts[owner] = count + 1
            heapq.heappush(self._order, (now + seconds, identity, owner))
            return Claim.NEW

    def __len__(self) -> int:
        return len(self._expiries)

    def _forget_expired(self, now: float) -> None:
        while self._order and self._order[0][0] <= now:
            _, identity, owner = heapq.heappop(self._order)
            del self._expiries[identity]
            left = self._counts[owner] - 1
            if left:
                self._counts[owner] = left
            else:
                del self._counts[owner]
