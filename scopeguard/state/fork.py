"""Renew locks in a child process.

A fork copies locks as they are, but none of the threads that hold them: a lock that is held at that moment is never
released in the child. Every object with such a lock therefore replaces it there, and drops what only a thread of the
parent could finish.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Renewable(Protocol):
    """An object that is renewed in a child process."""

    def after_fork(self) -> None:
        """Replace the objects that belong to threads and sockets of the parent.

        Assign, and read nothing: a thread of the parent may have been constructing or changing the object.
        """
        ...


_every: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.after_fork`` in every child process, as long as *thing* is alive. Holds only a weak reference."""
    _every.add(thing)


class Locked:
    """The base of objects that are safe to use from any thread. Their ``_lock`` is renewed after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock; see :class:`Renewable`."""
        self._lock = threading.Lock()


def _renew_all() -> None:
    for thing in _every:
        thing.after_fork()


os.register_at_fork(after_in_child=_renew_all)
