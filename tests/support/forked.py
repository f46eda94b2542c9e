"""Runs a check in a child process."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable


class Child:
    """A child process that runs *check* and exits: it never returns to pytest. ``ok()`` waits for it."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._pid = os.fork()
        if self._pid:
            return
        status = 1
        try:
            # A lock held by a thread of the parent would block it for ever; then the alarm ends it.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            check()
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, it is a failure
            traceback.print_exc()
        finally:
            os._exit(status)

    def ok(self) -> bool:
        """Return whether *check* succeeded."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) == 0
