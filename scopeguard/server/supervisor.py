"""Runs several worker processes that accept on one socket, and replaces those that end. POSIX only.

The parent reads no requests and does not import the app. It starts one worker first and the others when that one is
ready, so an app that cannot start reports its error once. A worker that ends is replaced after a pause, which grows
while workers end early. The parent checks a new configuration before it sends SIGHUP to the workers. On SIGTERM it
stops them. If the parent is killed, the workers read the end of a pipe and stop too.

The supervisors of uvicorn and gunicorn were considered. uvicorn's restarts workers without a pause and does not check a
configuration before it reloads them. gunicorn reloads by replacing workers, which then have no cached keys and answers.
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
_LONG_LIFE: Final = 60.0  # seconds after which the end of a worker resets the pause
_KILL_AFTER: Final = 5.0  # seconds after the time of grace


@dataclass(slots=True)
class _Worker:
    began: float
    ready: bool = False
    is_outdated: bool = False  # its configuration was replaced before it was ready


@dataclass(slots=True)
class Supervisor:
    """Keeps *count* workers running.

    * *work*: runs in each worker. It gets a function to call when the worker is ready, and returns or exits.
    * *reload*: checks the configuration, and returns whether the workers should read it.
    * *grace*: the time in which workers must stop, in seconds.
    """

    count: int
    work: Callable[[Callable[[], None]], None]
    reload: Callable[[], bool]
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
        """Start and watch the workers. Returns in a worker, and raises :class:`SystemExit` in the parent."""
        handled = [number for name in _HANDLED if (number := getattr(signal, name, None)) is not None]
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.settimeout(0)
        ready, report_ready = os.pipe()
        lifeline, parent_end = os.pipe()
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in handled:
            signal.signal(number, lambda *_: None)  # set_wakeup_fd writes a byte to the pipe
        while True:
            if self._must_start():
                # Signals are blocked because the child would write its own into the parent's pipe.
                signal.pthread_sigmask(signal.SIG_BLOCK, handled)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    for number in (reader.fileno(), writer.fileno(), ready, parent_end):
                        os.close(number)
                    reader.detach()
                    writer.detach()
                    _prepare(handled, lifeline)
                    self.work(lambda: _report_ready(report_ready))
                    return
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
                self._workers[pid] = _Worker(time.monotonic())
                continue
            if self._stop_by is not None and not self._workers:
                raise SystemExit(self._status)
            readable = select.select([reader.fileno(), ready], [], [], self._timeout())[0]
            if ready in readable:
                self._mark_ready(int.from_bytes(os.read(ready, 4)))
            if reader.fileno() in readable:
                for number in reader.recv(256):
                    self._handle(number)
            self._kill_overdue()

    def _must_start(self) -> bool:
        if self._stop_by is not None or len(self._workers) >= self.count or time.monotonic() < self._start_at:
            return False
        return self._was_ready or not self._workers

    def _timeout(self) -> float | None:
        if self._stop_by is not None:
            until = self._stop_by
        elif self._was_ready and len(self._workers) < self.count:
            until = self._start_at
        else:
            return None
        return None if self._killed else max(0.0, until - time.monotonic())

    def _mark_ready(self, pid: int) -> None:
        self._was_ready = True
        worker = self._workers.get(pid)
        if worker is not None:
            worker.ready = True
            log.info("worker %d is ready", pid)
            if worker.is_outdated:
                self._send(pid, signal.SIGHUP)

    def _handle(self, number: int) -> None:
        match signal.Signals(number):
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                if self._stop_by is None and self.reload():
                    self._send_all(signal.SIGHUP)
            case signal.SIGINT if self._stop_by is not None:
                self._kill()  # the second Ctrl-C stops at once
            case _:
                self._stop(0)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None and self._stop_by is None:
                self._schedule_restart(pid, os.waitstatus_to_exitcode(status), worker)

    def _schedule_restart(self, pid: int, code: int, worker: _Worker) -> None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if not self._was_ready:
            log.error("worker %d %s before it was ready", pid, how)
            self._stop(code if code > 0 else 1)
            return
        now = time.monotonic()
        if now - worker.began > _LONG_LIFE:
            self._pause = _BACKOFF.first
        self._start_at = now + self._pause
        log.error("worker %d %s; another one starts in %.0f s", pid, how, self._pause)
        self._pause = _BACKOFF.next_pause(self._pause)

    def _stop(self, status: int) -> None:
        if self._stop_by is None:
            self._status = status
            # Clients must not connect to a socket on which no worker accepts.
            self.listener.close()
            self._stop_by = time.monotonic() + self.grace + _KILL_AFTER
            self._send_all(signal.SIGTERM)

    def _kill_overdue(self) -> None:
        if self._stop_by is not None and time.monotonic() >= self._stop_by:
            self._kill()

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            log.error("killed: %d workers that did not stop", len(self._workers))
            self._send_all(signal.SIGKILL)

    def _send_all(self, number: signal.Signals) -> None:
        for pid, worker in self._workers.items():
            if number is signal.SIGHUP and not worker.ready:
                worker.is_outdated = True  # it may not have a handler yet
            else:
                self._send(pid, number)

    def _send(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _prepare(handled: list[int], lifeline: int) -> None:
    """Reset the signal handlers in the child, and leave the process group of the parent.

    Ctrl-C then reaches the parent only, which stops the workers.
    """
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


def _report_ready(pipe: int) -> None:
    os.write(pipe, os.getpid().to_bytes(4))
