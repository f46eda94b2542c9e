"""Run several worker processes that accept on one socket, and replace those that end. POSIX only.

The parent reads no request and imports no app. It starts one worker first and the others when that one is ready, so an
app that cannot start reports its error once. A worker that ends is replaced after a pause, which grows while workers
keep ending early. The parent checks a new configuration before it sends SIGHUP to the workers. On SIGTERM it stops
them. If the parent is killed, the workers see a pipe close and stop too.

uvicorn's own supervisor and gunicorn were considered. uvicorn's restarts workers without a pause and does not check a
configuration before it reloads them. gunicorn reloads by replacing workers, which drops the keys and answers they hold.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from scopeguard.state.backoff import Backoff

log: Final = logging.getLogger("scopeguard.serve")

_HANDLED: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD")
_BACKOFF: Final = Backoff(first=1.0, longest=30.0)
_LIVED_WELL: Final = 60.0
_KILLED_AFTER: Final = 5.0


@dataclass(slots=True)
class _Worker:
    began: float
    ready: bool = False
    is_behind: bool = False  # started with a configuration that has been replaced since


@dataclass(slots=True)
class Supervisor:
    """Keep *count* workers running.

    *work* runs in each worker. It receives a function to call when the worker is ready, and returns or exits.
    *reloaded* checks the configuration and returns whether the workers should read it. *grace* is the longest time, in
    seconds, that workers may take to stop.
    """

    count: int
    work: Callable[[Callable[[], None]], None]
    reloaded: Callable[[], bool]
    listener: socket.socket
    grace: float
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _pause: float = _BACKOFF.first
    _start_at: float = 0.0  # earliest start of the next worker, in monotonic seconds
    _was_ready: bool = False
    _killed: bool = False
    _status: int = 0
    _stop_by: float | None = None

    def run(self) -> None:
        """Start and watch the workers. Return in a worker when its work is done; raise :class:`SystemExit` in the
        parent."""
        handled = [number for name in _HANDLED if (number := getattr(signal, name, None)) is not None]
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.settimeout(0)
        ready, tell_ready = os.pipe()
        lifeline, held = os.pipe()
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in handled:
            signal.signal(number, lambda *_: None)  # set_wakeup_fd writes a byte to the pipe
        while True:
            if self._has_to_start():
                # Until the child has its own handlers, it would write its signals into the parent's pipe.
                signal.pthread_sigmask(signal.SIG_BLOCK, handled)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for number in (reader.fileno(), writer.fileno(), ready, held):
                        os.close(number)
                    reader.detach()
                    writer.detach()
                    _prepare(handled, lifeline)
                    self.work(lambda: _say_ready(tell_ready))
                    return
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
                self._workers[pid] = _Worker(time.monotonic())
                continue
            if self._stop_by is not None and not self._workers:
                raise SystemExit(self._status)
            come = select.select([reader.fileno(), ready], [], [], self._patience())[0]
            if ready in come:
                self._became_ready(int.from_bytes(os.read(ready, 4)))
            if reader.fileno() in come:
                for number in reader.recv(256):
                    self._handle(number)
            self._overdue()

    def _has_to_start(self) -> bool:
        if self._stop_by is not None or len(self._workers) >= self.count or time.monotonic() < self._start_at:
            return False
        return self._was_ready or not self._workers

    def _patience(self) -> float | None:
        if self._stop_by is not None:
            until = self._stop_by
        elif self._was_ready and len(self._workers) < self.count:
            until = self._start_at
        else:
            return None
        return None if self._killed else max(0.0, until - time.monotonic())

    def _became_ready(self, pid: int) -> None:
        self._was_ready = True
        worker = self._workers.get(pid)
        if worker is not None:
            worker.ready = True
            log.info("worker %d is ready", pid)
            if worker.is_behind:
                self._send(pid, signal.SIGHUP)

    def _handle(self, number: int) -> None:
        match signal.Signals(number):
            case signal.SIGCHLD:
                self._bury()
            case signal.SIGHUP:
                if self._stop_by is None and self.reloaded():
                    self._tell(signal.SIGHUP)
            case signal.SIGINT if self._stop_by is not None:
                self._kill()  # the second Ctrl-C stops at once
            case _:
                self._stop(0)

    def _bury(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None and self._stop_by is None:
                self._ended(pid, os.waitstatus_to_exitcode(status), worker)

    def _ended(self, pid: int, code: int, worker: _Worker) -> None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if not self._was_ready:
            log.error("worker %d %s before it was ready", pid, how)
            self._stop(code if code > 0 else 1)
            return
        now = time.monotonic()
        if now - worker.began > _LIVED_WELL:
            self._pause = _BACKOFF.first
        self._start_at = now + self._pause
        log.error("worker %d %s; another one begins in %.0f s", pid, how, self._pause)
        self._pause = _BACKOFF.following(self._pause)

    def _stop(self, status: int) -> None:
        if self._stop_by is None:
            self._status = status
            # A client must not connect to a socket that no worker accepts on.
            self.listener.close()
            self._stop_by = time.monotonic() + self.grace + _KILLED_AFTER
            self._tell(signal.SIGTERM)

    def _overdue(self) -> None:
        if self._stop_by is not None and time.monotonic() >= self._stop_by:
            self._kill()

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            log.error("killed: %d workers that did not stop", len(self._workers))
            self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for pid, worker in self._workers.items():
            if number is signal.SIGHUP and not worker.ready:
                worker.is_behind = True  # it may not have a handler yet
            else:
                self._send(pid, number)

    def _send(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _prepare(handled: list[int], lifeline: int) -> None:
    """Reset the parent's signal handlers in the child. Ctrl-C reaches the parent alone, which stops the workers."""
    os.setpgid(0, 0)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)

    def watch() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="scopeguard-lifeline", daemon=True).start()


def _exit(*_: object) -> None:
    raise SystemExit(0)


def _say_ready(pipe: int) -> None:
    os.write(pipe, os.getpid().to_bytes(4))
