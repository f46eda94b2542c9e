"""Starts Python programs as forks of a process that has imported their modules already.

A new interpreter spends half a second on the imports of ``scopeguard serve``, which is longer than most tests of it. A
program that is started here has a working directory, an environment, arguments and an output of its own, and runs as
``__main__``. Two things differ from a new interpreter: modules were imported before the program began, and variables
that the interpreter reads when it starts have no effect. Where that matters, a new interpreter starts.
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Self


class Program:
    """A running program: the part of :class:`subprocess.Popen` that tests use."""

    def __init__(self, connection: socket.socket, order: Mapping[str, Any], streams: Sequence[int]) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")
        socket.send_fds(connection, [json.dumps(order).encode() + b"\n"], streams)
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


Process = Program | subprocess.Popen[bytes]


class WarmInterpreter:
    """An interpreter that imports *modules* when it is first needed, for the length of a block.

    Programs run with *python*, and with *environment* beside their own variables.
    """

    def __init__(self, *modules: str, environment: Mapping[str, str], python: str | Path = sys.executable) -> None:
        self._modules = modules
        self._python = str(python)
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        # Coverage begins in a new interpreter.
        self._forks = not any(name.startswith("COVERAGE_") for name in environment)
        self._stack = ExitStack()
        self._path = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self,
        module: str,
        *arguments: str,
        cwd: str | Path,
        environment: Mapping[str, str],
        output: int,
        errors: int | None = None,
    ) -> Process:
        """Start ``python -m module arguments``. Its output goes to the descriptor *output*, its errors to *errors* or
        to *output* as well.

        With another ``PYTHONPATH``, which may hide or replace modules, it runs in a new interpreter.
        """
        variables = {**self._environment, **environment}
        streams = (output, output if errors is None else errors)
        if self._forks and "PYTHONPATH" not in environment:
            if not self._path:
                self._begin()
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self._path)
            order = {"argv": [module, *arguments], "cwd": str(cwd), "environment": variables}
            return Program(connection, order, streams)
        return subprocess.Popen(
            [self._python, "-m", module, *arguments],
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=streams[0],
            stderr=streams[1],
        )

    def run(self, module: str, *arguments: str, cwd: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``python -m module arguments`` to its end, at most half a minute."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            streams = {"output": output.fileno(), "errors": errors.fileno()}
            status = self.start(module, *arguments, cwd=cwd, environment={}, **streams).wait(30)
            texts = [os.pread(stream, os.fstat(stream).st_size, 0).decode() for stream in streams.values()]
        return subprocess.CompletedProcess([module, *arguments], status, *texts)

    def _begin(self) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        path = os.path.join(folder, "s")  # short, as the path of a socket has to be
        process = self._stack.enter_context(
            subprocess.Popen(
                [self._python, __file__, path, *self._modules],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the interpreter did not start"
        self._path = path


def _accept(path: str) -> tuple[dict[str, Any], list[int]]:
    """Accept orders until standard input ends. Returns in the process of a program, with its order and its streams."""
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


def _attend(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork the program. Report its pid, wait for it, report its status and exit. Returns in the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order, streams, *_ = socket.recv_fds(connection, 65536, 2)
    while not order.endswith(b"\n"):
        order += connection.recv(65536)
    pid = os.fork()
    if pid == 0:
        return json.loads(order), streams
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % pid)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        connection.sendall(b"%d\n" % status)
    except OSError:
        pass  # the test did not wait
    os._exit(0)


def _run(order: dict[str, Any], streams: list[int], paths: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, *streams)):
        os.dup2(source, target)
    os.closerange(3, max(nothing, *streams) + 1)
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
