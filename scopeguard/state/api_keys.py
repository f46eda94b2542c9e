"""The API keys that a process has cached: the content of the file, or answers of the function ``lookup``."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Final, NamedTuple

from scopeguard.config.api_keys import ApiKey, ApiKeys
from scopeguard.spec.api_key import Grantor
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.budget import Budget
from scopeguard.state.fork import Locked

PAUSE: Final = 1.0
"""Seconds after a failed read of the file until the next one."""


class KeyFile(Locked):
    """The keys in the file. Seconds are monotonic.

    A failed read makes the keys unusable at once, because the new content may revoke one of them.
    """

    def __init__(self, ttl: float) -> None:
        super().__init__()
        self._ttl = ttl
        self._keys: Mapping[str, ApiKey] | None = None
        self._problem = "it was not read yet"
        self._due_at = float("-inf")
        self._generation = 0
        self._content: bytes | None = None

    @property
    def generation(self) -> int:
        """The number of reads that have ended."""
        return self._generation

    @property
    def held(self) -> Mapping[str, ApiKey] | None:
        """The keys of the last read; ``None`` if it failed."""
        return self._keys

    @property
    def problem(self) -> str:
        """Why there are no keys."""
        return self._problem

    def current(self, now: float) -> Mapping[str, ApiKey] | None:
        """Return the keys, or ``None`` if the file has to be read, or could not be."""
        with self._lock:
            return self._keys if now < self._due_at else None

    def pause(self, now: float) -> float:
        """Return the seconds until the next read, after one that failed."""
        with self._lock:
            return max(0.0, self._due_at - now) if self._keys is None else 0.0

    def keep(self, digest: bytes, now: float) -> bool:
        """Keep the keys for another ``ttl`` seconds if *digest* is that of their file. Return false if not."""
        with self._lock:
            if self._keys is None or digest != self._content:
                return False
            self._due_at = now + self._ttl
            self._generation += 1
            return True

    def absorb(self, keys: Mapping[str, ApiKey], digest: bytes, now: float) -> None:
        """Replace all keys with *keys*. *digest*: that of the content of the file."""
        with self._lock:
            self._keys, self._content, self._due_at = keys, digest, now + self._ttl
            self._generation += 1

    def fail(self, problem: str, now: float) -> None:
        """Record that the file cannot be used."""
        with self._lock:
            self._keys, self._problem, self._due_at = None, problem, now + PAUSE
            self._generation += 1


class Call:
    """A call of the function, which requests with the same id share.

    At its end it has an ``answer`` or a ``problem``; it has neither if the request that made it was cancelled.
    ``is_charged``: the budget has paid for it.
    """

    __slots__ = ("_running", "answer", "has_ended", "is_charged", "problem")

    def __init__(self, *, is_charged: bool) -> None:
        self.is_charged: bool = is_charged
        self.has_ended: bool = False
        self.answer: tuple[ApiKey | None] | None = None
        self.problem: str | None = None
        self._running = Lock()  # held from now to the end, and then for moments by those who waited
        self._running.acquire()

    def end(self) -> None:
        """Wake those who wait. The maker of the call does this once."""
        self.has_ended = True
        self._running.release()

    def wait(self, seconds: float) -> None:
        """Block until the call has ended, for at most *seconds*."""
        if self._running.acquire(timeout=seconds):
            self._running.release()


class Begun(NamedTuple):
    """The call for an id, and whether the caller makes it, or waits for it.

    ``call`` is ``None`` if no call may begin for ``pause`` seconds.
    """

    call: Call | None
    is_own: bool = False
    pause: float = 0.0


class LookedUp(Locked):
    """Answers of the function by key id, bounded by entries and by age. Seconds are monotonic.

    Strangers choose unknown ids. So these have a map of their own, which cannot evict a key, and a budget. A call is
    charged when it begins, because many may be in progress at once.
    """

    def __init__(self, settings: ApiKeys) -> None:
        super().__init__()
        self._settings = settings
        self._found: BoundedMap[str, tuple[float, ApiKey]] = BoundedMap(settings.max_entries)
        self._absent: BoundedMap[str, float] = BoundedMap(settings.max_entries)
        self._budget = Budget(settings.unknown_burst, settings.unknown_interval)
        self._calls: dict[str, Call] = {}  # those in progress

    def after_fork(self) -> None:
        """Replace the lock and drop the calls of threads that do not exist in the child process."""
        super().after_fork()
        self._calls = {}

    def find(self, identifier: str, now: float) -> ApiKey | None:
        """Return the cached key, if it may still be used."""
        with self._lock:
            entry = self._found.get(identifier)
            return None if entry is None or now >= entry[0] else entry[1]

    def is_absent(self, identifier: str, now: float) -> bool:
        """Return whether a cached answer, which may still be used, says that there is no such key."""
        with self._lock:
            until = self._absent.peek(identifier)
            return until is not None and now < until

    def has_found(self, identifier: str) -> bool:
        """Return whether the key was found before. The answer may be too old."""
        return identifier in self._found

    def begin(self, identifier: str, now: float) -> Begun:
        """Return the call for *identifier*: that in progress, or a new one, which the caller makes and ends.

        A new one for a key that was not found before is charged. With a ``ttl`` of 0, each request for a key that was
        found before has a call of its own.
        """
        with self._lock:
            call = self._calls.get(identifier)
            if call is not None and (self._settings.ttl > 0 or identifier not in self._found):
                return Begun(call)
            pause, is_charged = self._charge(identifier, now)
            if pause > 0.0:
                return Begun(None, pause=pause)
            call = self._calls[identifier] = Call(is_charged=is_charged)
            return Begun(call, is_own=True)

    def end(self, identifier: str, call: Call) -> None:
        """End *call*, and wake the requests that wait for it."""
        with self._lock:
            if self._calls.get(identifier) is call:
                del self._calls[identifier]
        call.end()

    def charge(self, identifier: str, now: float) -> tuple[float, bool]:
        """Return the seconds until the function may be called for *identifier*, and whether a call now was charged.

        A key that was found before costs nothing.
        """
        with self._lock:
            return self._charge(identifier, now)

    def _charge(self, identifier: str, now: float) -> tuple[float, bool]:
        if identifier in self._found:
            return 0.0, False
        pause = self._budget.shortfall(now)
        if pause == 0.0:
            self._budget.spend(now)
        return pause, pause == 0.0

    def refund(self) -> None:
        """Return the charge for a call to the budget, because the call has found a key or has failed."""
        with self._lock:
            self._budget.refund()

    def absorb(self, identifier: str, key: ApiKey | None, now: float) -> None:
        """Cache the answer of the function."""
        settings = self._settings
        with self._lock:
            if key is None:
                self._found.pop(identifier)
                self._absent.put(identifier, now + settings.negative_ttl)
            else:
                self._absent.pop(identifier)
                self._found.put(identifier, (now + settings.ttl, key))


class ApiKeyState:
    """The settings of API keys with their state. Either ``file`` or ``answers`` is in use."""

    __slots__ = ("answers", "file", "grantor", "settings")

    def __init__(self, settings: ApiKeys, grantor: Grantor) -> None:
        self.settings: ApiKeys = settings
        self.grantor: Grantor = grantor
        self.file: KeyFile = KeyFile(settings.ttl)
        self.answers: LookedUp = LookedUp(settings)

    def find(self, identifier: str, now: float) -> ApiKey | None:
        """Return the key with *identifier* if it is cached and may still be used."""
        if self.settings.lookup is not None:
            return self.answers.find(identifier, now)
        return (self.file.held or {}).get(identifier)
