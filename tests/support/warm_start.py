"""Starts Python programs as forks of a process that has imported their modules already.

A new interpreter spends half a second on the imports of ``scopeguard serve``, which is longer than most tests of it. A
program that is started here has a working directory, an environment, arguments and an output of its own, and runs as
``__main__``. Two things differ from a new interpreter: modules were imported before the program began, and variables
that the interpreter reads when it starts have no effect. :func:`is_possible` is false where that matters.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self


def is_possible(environment: Mapping[str, str]) -> bool:
    """Whether a program with *environment* may be forked.

    Not with another ``PYTHONPATH``, which may hide or replace modules, and not where coverage is measured: it begins
    in a new interpreter.
    """
    return "PYTHONPATH" not in environment and not any(name.startswith("COVERAGE_") for name in os.environ)


class Program:
    """A running program: the part of :class:`subprocess.Popen` that tests use."""

    def __init__(self, connection: socket.socket, order: Mapping[str, Any], output: int) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")
        socket.send_fds(connection, [json.dumps(order).encode() + b"\n"], [output])
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or ``None`` while the program runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class WarmInterpreter:
    """An interpreter that has imported *modules*, for the length of a block."""

    def __init__(self, *modules: str, environment: Mapping[str, str], python: str | Path = sys.executable) -> None:
        self._command = [str(python), __file__, *modules]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._path = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()  # short, as the path of a socket has to be
        self._path = os.path.join(self._folder.name, "s")
        self._process = subprocess.Popen(
            [*self._command[:2], self._path, *self._command[2:]],
            env={**self._environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert _stream(self._process.stdout).readline() == b"ready\n", "the interpreter did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._folder is not None
        _stream(self._process.stdin).close()
        self._process.wait()
        _stream(self._process.stdout).close()
        self._folder.cleanup()

    def start(
        self, module: str, *arguments: str, cwd: str | Path, environment: Mapping[str, str], output: int
    ) -> Program:
        """Start ``python -m module arguments``. Both of its streams go to the descriptor *output*."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        order = {"argv": [module, *arguments], "cwd": str(cwd), "environment": dict(environment)}
        return Program(connection, order, output)


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _accept(path: str) -> tuple[dict[str, Any], int]:
    """Accept orders until standard input ends. Returns in the process of a program, with its order and its output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The system removes attendants that have ended.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            if sys.stdin.fileno() in select.select([listener, sys.stdin.fileno()], [], [])[0]:
                raise SystemExit
            with listener.accept()[0] as connection:
                if os.fork() == 0:
                    listener.close()
                    return _attend(connection)


def _attend(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """Fork the program. Report its pid, wait for it, report its status and exit. Returns in the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order, (output, *_), *_ = socket.recv_fds(connection, 65536, 1)
    while not order.endswith(b"\n"):
        order += connection.recv(65536)
    pid = os.fork()
    if pid == 0:
        return json.loads(order), output
    os.close(output)
    connection.sendall(b"%d\n" % pid)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        connection.sendall(b"%d\n" % status)
    except OSError:
        pass  # the test did not wait
    os._exit(0)


def _run(order: dict[str, Any], output: int, paths: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.closerange(3, max(nothing, output) + 1)
    sys.argv = order["argv"]
    sys.path[:] = [order["cwd"], *paths]
    runpy.run_module(order["argv"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    for _name in sys.argv[2:]:
        import_module(_name)
    gc.collect()
    gc.freeze()
    _run(*_accept(sys.argv[1]), [*sys.path])
