"""Bulkheads for outbound work: how much of each kind runs at once, how much may wait, and in which order.

Strangers cause some of the work of a resource server: every unknown opaque token causes an introspection request.
Without bounds, such requests would delay key refreshes and reads of the revocation log. Each
:class:`~scopeguard.flow.effects.Lane` therefore has its own places. One account (usually an issuer) cannot take all of
them, and some are reserved for work with priority. Once the queue of an account is full, its further work is refused at
once.

A lane starts no threads. It calls ``start`` of a ticket when a place is free: a blocking caller then continues in its
own thread, and the work of an event loop gets a thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from scopeguard.flow.effects import Lane
from scopeguard.state.fork import Locked

_LONGEST_PAUSE: Final = 60.0
_SHORTEST_PAUSE: Final = 1.0
# The weight of one exchange in the moving average of durations.
_WEIGHT: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Bounds:
    """The bounds of one lane.

    ``places``: how much work runs at once, and ``places_of_one`` for one account; ``reserved`` of these places are for
    work with priority. ``waiting`` and ``waiting_first``: how much work of one account may wait, without priority and
    with it.
    """

    places: int
    places_of_one: int
    reserved: int
    waiting: int
    waiting_first: int


# Enough for two hundred concurrent callers with unknown tokens, which may come at once after a start.
BOUNDS: Final[Mapping[Lane, Bounds]] = {
    Lane.KEYS: Bounds(places=16, places_of_one=8, reserved=2, waiting=64, waiting_first=512),
    Lane.REVOCATIONS: Bounds(places=2, places_of_one=2, reserved=0, waiting=8, waiting_first=8),
    Lane.INTROSPECTION: Bounds(places=32, places_of_one=16, reserved=4, waiting=192, waiting_first=512),
    Lane.HOOKS: Bounds(places=16, places_of_one=12, reserved=4, waiting=192, waiting_first=512),
    # Requests that wait for the look-up of another one, not the look-ups themselves.
    Lane.API_KEYS: Bounds(places=16, places_of_one=16, reserved=4, waiting=192, waiting_first=512),
    Lane.STATUS_LISTS: Bounds(places=8, places_of_one=4, reserved=0, waiting=64, waiting_first=512),
    # Every request to a route with a decision causes one: more of them run at once, and few wait long.
    Lane.DECISIONS: Bounds(places=64, places_of_one=48, reserved=0, waiting=256, waiting_first=256),
}


class Full(Exception):
    """The queue of this account is full; a place is expected to be free after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Ticket:
    """One piece of work.

    ``start`` is called when a place is free and returns whether the work began. ``refuse`` is called if the work is
    dropped. Only one of them is called, once, from any thread, without a lock held.
    """

    __slots__ = ("account", "began", "priority", "refuse", "start")

    def __init__(self, account: str, *, priority: bool, start: Callable[[], bool], refuse: Callable[[], None]) -> None:
        self.account: str = account
        self.priority: bool = priority
        self.start: Callable[[], bool] = start
        self.refuse: Callable[[], None] = refuse
        self.began: float = 0.0


class _Account:
    """The work of one account: running and waiting, with and without priority, in order of arrival."""

    __slots__ = ("ordinary", "running", "seconds", "waiting")

    def __init__(self) -> None:
        self.running: set[Ticket] = set()
        self.ordinary = 0  # running work without priority
        self.waiting: dict[bool, OrderedDict[Ticket, None]] = {True: OrderedDict(), False: OrderedDict()}
        self.seconds = 0.0  # the average duration of a piece of work

    @property
    def idle(self) -> bool:
        return not self.running and not any(self.waiting.values())


class WorkLane(Locked):
    """The places for one kind of work. Safe to use from any thread. *now* is a monotonic clock in seconds."""

    def __init__(self, bounds: Bounds, now: Callable[[], float]) -> None:
        super().__init__()
        self._bounds = bounds
        self._now = now
        self._reset()

    def after_fork(self) -> None:
        """Replace the lock and drop the work of threads that do not exist in the child process."""
        super().after_fork()
        self._reset()

    def _reset(self) -> None:
        self._ended = threading.Condition(self._lock)
        # Accounts take turns: each start moves its account to the end.
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._running = 0
        self._ordinary = 0

    def enter(self, ticket: Ticket) -> None:
        """Start *ticket* now or when a place is free. Raises :class:`Full` if too much work waits."""
        with self._lock:
            account = self._accounts.setdefault(ticket.account, _Account())
            waiting = account.waiting[ticket.priority]
            most = self._bounds.waiting_first if ticket.priority else self._bounds.waiting
            if len(waiting) >= most:
                raise Full(self._pause(account, priority=ticket.priority))
            waiting[ticket] = None
        self._advance()

    def leave(self, ticket: Ticket) -> None:
        """Record that the work of *ticket* has ended, or that its caller no longer waits."""
        with self._lock:
            account = self._accounts.get(ticket.account)
            if account is None:
                return
            if ticket in account.running:
                took = max(0.0, self._now() - ticket.began)
                account.seconds += (took - account.seconds) * (_WEIGHT if account.seconds else 1.0)
                self._vacate(account, ticket)
            else:
                account.waiting[ticket.priority].pop(ticket, None)
            self._forget(ticket.account, account)
        self._advance()

    def is_waiting(self, ticket: Ticket) -> bool:
        """Return whether *ticket* is still queued."""
        with self._lock:
            account = self._accounts.get(ticket.account)
            return account is not None and ticket in account.waiting[ticket.priority]

    def withdraw(self, ticket: Ticket) -> bool:
        """Take *ticket* out of the queue. Return false if it has begun or ended."""
        with self._lock:
            account = self._accounts.get(ticket.account)
            if account is None or ticket not in account.waiting[ticket.priority]:
                return False
            del account.waiting[ticket.priority][ticket]
            self._forget(ticket.account, account)
            return True

    def refuse_waiting(self) -> None:
        """Refuse all queued work. Running work continues."""
        refused: list[Ticket] = []
        with self._lock:
            for name, account in list(self._accounts.items()):
                for waiting in account.waiting.values():
                    refused += waiting
                    waiting.clear()
                self._forget(name, account)
        for ticket in refused:
            ticket.refuse()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait for up to *seconds* until no work runs. Return whether none does."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._running, seconds)

    def _advance(self) -> None:
        """Start all work that may run now. A failed start frees its place for the next ticket."""
        while (ticket := self._next()) is not None:
            if not ticket.start():
                with self._lock:
                    account = self._accounts[ticket.account]
                    self._vacate(account, ticket)
                    self._forget(ticket.account, account)

    def _next(self) -> Ticket | None:
        bounds = self._bounds
        with self._lock:
            for priority in (True, False):
                if self._running >= bounds.places or (
                    not priority and self._ordinary >= bounds.places - bounds.reserved
                ):
                    return None
                for name, account in self._accounts.items():
                    if not account.waiting[priority] or len(account.running) >= bounds.places_of_one:
                        continue
                    if not priority and account.ordinary >= bounds.places_of_one - bounds.reserved:
                        continue
                    ticket, _ = account.waiting[priority].popitem(last=False)
                    ticket.began = self._now()
                    account.running.add(ticket)
                    account.ordinary += not priority
                    self._ordinary += not priority
                    self._running += 1
                    self._accounts.move_to_end(name)
                    return ticket
        return None

    def _vacate(self, account: _Account, ticket: Ticket) -> None:
        account.running.remove(ticket)
        account.ordinary -= not ticket.priority
        self._ordinary -= not ticket.priority
        self._running -= 1
        self._ended.notify_all()

    def _forget(self, name: str, account: _Account) -> None:
        if account.idle:
            self._accounts.pop(name, None)

    def _pause(self, account: _Account, *, priority: bool) -> float:
        """Return the seconds until a place in the queue is expected to be free.

        Estimated from the average duration of work, or from the age of the oldest running work if that is longer.
        """
        began = min((ticket.began for ticket in account.running), default=self._now())
        seconds = max(account.seconds, self._now() - began)
        places = self._bounds.places_of_one - (0 if priority else self._bounds.reserved)
        waiting = len(account.waiting[priority]) + (0 if priority else len(account.waiting[True]))
        return min(max(_SHORTEST_PAUSE, seconds * waiting / places), _LONGEST_PAUSE)
