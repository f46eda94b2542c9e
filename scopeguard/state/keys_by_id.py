"""The keys of an issuer that publishes each under a URL of its own.

Anybody who can send a token can name a key id, so looking for a key that is not held is paid from the budget that a
key ring has for unknown keys, whatever comes of it (law 9). What came of it is remembered for a while: each id costs
one fetch. A held key is looked after beside the requests, and never pushed out by ids that are made up.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from scopeguard.policies import KeySetPolicy
from scopeguard.records import dataclass
from scopeguard.spec.jwks import VerificationKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What is known of a key.

    ``key``: it, if it is held. ``due``: fetch it, now. ``absent``: it was asked for, and there is no such key; without
    that, and without a key, nobody knows, and ``pause`` seconds must go by before anybody may ask.
    """

    key: VerificationKey | None = None
    due: bool = False
    absent: bool = False
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class _Held:
    key: VerificationKey
    refresh_at: float
    stale_at: float


class KeysById:
    """Keys by their id, for any number of threads and event loops. Times are monotonic seconds."""

    def __init__(self, policy: KeySetPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        # Until when not to ask again, and whether that is because there is no such key.
        self._others: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._budget = float(policy.refetch_burst)
        self._budget_at: float | None = None

    def lookup(self, kid: str, now: float) -> Sought:
        """What is known of the key *kid*."""
        with self._lock:
            held = self._usable(kid, now)
            if held is not None:
                self._held.move_to_end(kid)
                return Sought(key=held.key, due=now >= held.refresh_at)
            until, absent = self._others.get(kid, (now, False))
            if now < until:
                return Sought(absent=absent, pause=until - now)
            pause = self._shortfall(now)
            return Sought(due=pause == 0.0, pause=pause)

    def begin(self, kid: str, now: float) -> bool:
        """Whether a fetch of *kid* may begin; it is paid for now, unless the key is held."""
        with self._lock:
            held = self._usable(kid, now)
            if held is not None:
                due = now >= held.refresh_at
                if due:  # and not again for a while if it fails
                    self._held[kid] = replace(held, refresh_at=now + self._policy.refetch_interval)
                return due
            if self._shortfall(now) > 0.0:
                return False
            self._budget -= 1
            return True

    def absorb(self, kid: str, key: VerificationKey | None, now: float) -> None:
        """The fetch of *kid* brought *key*, or that there is none."""
        policy = self._policy
        with self._lock:
            self._others.pop(kid, None)
            if key is None:
                self._held.pop(kid, None)
                self._remember(kid, now + policy.negative_ttl, absent=True)
                return
            self._held[kid] = _Held(key, now + policy.max_ttl, now + policy.max_stale)
            self._held.move_to_end(kid)
            if len(self._held) > policy.max_keys:
                self._held.popitem(last=False)

    def fail(self, kid: str, now: float, *, retry_after: float | None) -> None:
        """The fetch of *kid* failed, which says nothing about the key."""
        policy = self._policy
        with self._lock:
            self._remember(
                kid, now + max(policy.refetch_interval, min(retry_after or 0.0, policy.max_backoff)), absent=False
            )

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def _usable(self, kid: str, now: float) -> _Held | None:
        held = self._held.get(kid)
        return held if held is not None and now < held.stale_at else None

    def _remember(self, kid: str, until: float, *, absent: bool) -> None:
        self._others[kid] = until, absent
        self._others.move_to_end(kid)
        if len(self._others) > self._policy.negative_kids:
            self._others.popitem(last=False)

    def _shortfall(self, now: float) -> float:
        """The seconds until the budget affords a fetch."""
        policy = self._policy
        # Threads read the clock before they get here, so it may seem to run backwards; nothing is refilled twice.
        last = now if self._budget_at is None else self._budget_at
        self._budget_at = max(now, last)
        self._budget = min(
            float(policy.refetch_burst), self._budget + (self._budget_at - last) / policy.refetch_interval
        )
        return max(0.0, 1 - self._budget) * policy.refetch_interval
