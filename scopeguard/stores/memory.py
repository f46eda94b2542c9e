"""A store in this process, for tests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice

from scopeguard.config.checks import methods
from scopeguard.flow.effects import Clock


class MemoryStore:
    """Implements :class:`~scopeguard.flow.effects.Store` in memory. Guards that share the object share its contents."""

    def __init__(self, clock: Clock) -> None:
        methods(clock, ("wall", "monotonic"), "clock")
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, tuple[float, bytes]] = {}
        self._log: deque[tuple[float, bytes]] = deque()
        self._dropped = 0
        self._proofs: dict[bytes, tuple[float, str, str]] = {}  # the expiry, the key and the holder of each

    def get(self, key: str, /) -> bytes | None:
        """Return the value under *key*, ``None`` if there is none or it has expired."""
        with self._lock:
            entry = self._values.get(key)
            return entry[1] if entry is not None and self._clock.monotonic() < entry[0] else None

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        """Store *value* under *key* for *seconds*."""
        now = self._clock.monotonic()
        with self._lock:
            self._values = {k: entry for k, entry in self._values.items() if now < entry[0]}
            self._values[key] = (now + seconds, value)

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        """Add *entry* to the log of revocations for *seconds*."""
        with self._lock:
            now = self._clock.monotonic()
            while self._log and self._log[0][0] <= now:
                self._log.popleft()
                self._dropped += 1
            self._log.append((now + seconds, entry))

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        """Return the position for the next call, and the entries after *after*."""
        with self._lock:
            start = max(0, (0 if after is None else int(after)) - self._dropped)
            return str(self._dropped + len(self._log)), [entry for _, entry in islice(self._log, start, None)]

    def claim(
        self,
        identity: bytes,
        owner: str,
        /,
        *,
        holder: str,
        seconds: float,
        total: int,
        per_owner: int,
        per_holder: int,
    ) -> str:
        """Remember a proof; see :class:`~scopeguard.flow.effects.ProofStore`."""
        now = self._clock.monotonic()
        with self._lock:
            self._proofs = kept = {key: entry for key, entry in self._proofs.items() if now < entry[0]}
            if identity in kept:
                return "used"
            of_owner = sum(entry[1] == owner for entry in kept.values())
            of_holder = sum(entry[2] == holder for entry in kept.values())
            if len(kept) >= total or of_owner >= per_owner or (len(kept) * 2 >= total and of_holder >= per_holder):
                return "full"
            kept[identity] = (now + seconds, owner, holder)
            return "new"

    def close(self) -> None:
        """Do nothing: nothing is open."""
