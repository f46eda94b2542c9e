"""Remember DPoP proofs, so that each is accepted once (RFC 9449 §11.1)."""

from __future__ import annotations

import heapq
from collections import Counter
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
    key. A client can have any number of keys. So once half of the places are taken, the proofs of one subject or client
    may take an eighth of all places, or *max_per_owner* if that is more. Safe to use from any thread.
    """

    def __init__(self, max_entries: int, max_per_owner: int) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_per_owner = max_per_owner
        self._max_per_holder = max(max_per_owner, max_entries // 8)
        self._expiries: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes, str, bytes]] = []
        self._counts: Counter[str | bytes] = Counter()

    def claim(self, identity: bytes, owner: str, now: float, seconds: float, *, holder: bytes) -> Claim:
        """Remember the proof *identity* of the key *owner* for *seconds* from *now* (monotonic), if it is new.

        *holder*: a digest that names the subject or client of the token.
        """
        with self._lock:
            self._forget_expired(now)
            if identity in self._expiries:
                return Claim.USED
            taken = len(self._expiries)
            if taken >= self._max_entries or self._counts[owner] >= self._max_per_owner:
                return Claim.FULL
            if taken * 2 >= self._max_entries and self._counts[holder] >= self._max_per_holder:
                return Claim.FULL
            self._add(identity, owner, holder, now + seconds)
            return Claim.NEW

    def _add(self, identity: bytes, owner: str, holder: bytes, expiry: float) -> None:
        self._expiries[identity] = expiry
        self._counts.update((owner, holder))
        heapq.heappush(self._order, (expiry, identity, owner, holder))

    def take_over(self, other: ProofMemory) -> None:
        """Remember what *other* remembers, from now on together with it. The limits are those of this memory.

        While one guard replaces another, both accept proofs, and each refuses those that the other has accepted.
        """
        self._lock = other._lock
        self._expiries, self._order, self._counts = other._expiries, other._order, other._counts

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
