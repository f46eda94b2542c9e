"""Threads for flights, which are reused: starting one costs as much processor time as the rest of an exchange."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from scopeguard.state.fork import Locked

# How long a thread waits for more work before it ends, in seconds.
_PATIENCE: Final = 5.0


class Threads(Locked):
    """Runs each piece of work at once, in a thread that is idle or in a new one; how many there are, lanes bound.

    The threads are daemons: the end of the process does not wait for an authority that hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def after_fork(self) -> None:
        """Replace the lock and forget the threads, which do not exist in the child process."""
        super().after_fork()
        self._reset()

    def _reset(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = 0  # threads that wait for work, without those that the queue has something for
        self._ended = 0  # counts the calls of end()

    def run(self, work: Callable[[], None]) -> None:
        """Run *work*, which must not raise. Raises :class:`RuntimeError` when no thread can be had."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._work.put(work)
                return
            begun = self._ended
        threading.Thread(target=self._run, args=(work, begun), name="scopeguard", daemon=True).start()

    def end(self) -> None:
        """End the threads that are idle now, and those at work when their work is done."""
        with self._lock:
            self._ended += 1
            idle, self._idle = self._idle, 0
            for _ in range(idle):
                self._work.put(None)

    def _run(self, work: Callable[[], None] | None, begun: int) -> None:
        while work is not None:
            work()
            del work  # it leads to a token, which must not be kept while the thread is idle
            work = self._more(begun)

    def _more(self, begun: int) -> Callable[[], None] | None:
        with self._lock:
            if begun != self._ended:
                return None
            self._idle += 1
            waiting = self._work
        try:
            return waiting.get(timeout=_PATIENCE)
        except Empty:
            with self._lock:
                if self._idle:
                    self._idle -= 1
                    return None
        return waiting.get()  # something was put there for this thread in the last moment
