"""Runs the ``scopeguard`` command in a separate process, and a shell that runs the lines it prints."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

from environment import ROOT
from warm_start import WarmInterpreter

PATIENCE = 30.0  # seconds of real time until a process counts as stuck


class Command:
    """A running command: what it prints, line by line, both streams together."""

    def __init__(
        self,
        *arguments: str,
        interpreter: WarmInterpreter,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
    ) -> None:
        reader, writer = os.pipe()
        self.process = interpreter.start("scopeguard", *arguments, cwd=cwd, environment=env or {}, output=writer)
        os.close(writer)
        self._stream = os.fdopen(reader, encoding="utf-8")
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str) -> str:
        """The next line with *text* in it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                line = None
            if line is None:
                pytest.fail(f"no line with {text!r} came; what came: {self.lines}", pytrace=False)
            self.lines.append(line)
            if text in line:
                return line

    def end(self, signal: int) -> int:
        """Send *signal*, read the rest, and return the exit status."""
        self.process.send_signal(signal)
        status = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        self._stream.close()
        return status

    def abandon(self) -> None:
        """Kill it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        self._stream.close()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[WarmInterpreter]:
    """It has imported what most commands import. The tests of imports start new interpreters themselves."""
    ours = ("asgi", "cli.commands", "config.file", "devserver", "edge.http", "presets", "server.serve", "wsgi")
    others = ("httpcore", "httpx", "starlette.applications", "uvicorn.protocols.http.auto", "waitress", "wsproto")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with WarmInterpreter(*(f"scopeguard.{name}" for name in ours), *others, environment=environment) as interpreter:
        yield interpreter


@pytest.fixture
def start(interpreter: WarmInterpreter) -> Iterator[Callable[..., Command]]:
    """``start("serve", ...)`` runs a command; what is still running at the end is killed."""
    running: list[Command] = []

    def begin(*arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Command:
        running.append(Command(*arguments, interpreter=interpreter, cwd=cwd, env=env))
        return running[-1]

    yield begin
    for command in running:
        command.abandon()


# Not every machine has curl. This replacement supports the options of our lines, which are those of real curl. It needs
# only the standard library, because each line starts it anew.
CURL = """
    import argparse, base64, http.client, urllib.parse
    options = argparse.ArgumentParser()
    options.add_argument("-s", action="store_true")
    options.add_argument("-i", action="store_true")
    options.add_argument("-u")
    options.add_argument("-d", action="append", default=[])
    options.add_argument("-H", action="append", default=[])
    options.add_argument("-X")
    options.add_argument("url")
    given = options.parse_args()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in given.H)}
    if given.d:
        headers = {"content-type": "application/x-www-form-urlencoded", **headers}
    if given.u:
        headers["authorization"] = "Basic " + base64.b64encode(given.u.encode()).decode()
    url = urllib.parse.urlsplit(given.url)
    assert url.scheme == "http"
    connection = http.client.HTTPConnection(url.hostname, url.port)
    target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    connection.request(given.X or ("POST" if given.d else "GET"), target, "&".join(given.d) or None, headers)
    answer = connection.getresponse()
    if given.i:
        print("HTTP/1.1", answer.status)
    print(answer.read().decode())
"""


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], str]:
    """``shell(script)`` runs lines that we print for copying, and returns what they print."""
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(CURL)}", "utf-8")
    curl.chmod(0o755)

    def run(script: str) -> str:
        environment = {**os.environ, "PATH": f"{curl.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-eu", "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
