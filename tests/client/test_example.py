"""examples/client.py, run as its reader would."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple

import pytest

from environment import ROOT
from warm_start import WarmInterpreter


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.reply(200, b'{"access_token": "sg-opaque-1", "token_type": "Bearer", "expires_in": 60}')

    def do_GET(self):
        if self.headers.get("authorization") != "Bearer sg-opaque-1":
            self.reply(401, b"", 'Bearer error="invalid_token"')
        elif self.path == "/reports":
            self.reply(200, b"three reports")
        else:
            self.reply(403, b"no", 'Bearer error="insufficient_scope", scope="reports.write"')

    def reply(self, status, body, challenge=None):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if challenge is not None:
            self.send_header("www-authenticate", challenge)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def interpreter():
    """It has imported what the example imports."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    modules = ("httpx", "httpcore", "scopeguard.client", "scopeguard.edge.http")
    with WarmInterpreter(*modules, environment=environment) as interpreter:
        yield interpreter


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(interpreter, tmp_path, no_leaks):
    """``run(token_url, ...)`` runs the example with these arguments."""

    def run(token_url, *arguments):
        environment = {"TOKEN_URL": token_url, "CLIENT_ID": "reporter", "CLIENT_SECRET": "sg-secret-1"}
        files = [tmp_path / "output.txt", tmp_path / "errors.txt"]
        with files[0].open("wb") as output, files[1].open("wb") as errors:
            streams = {"output": output.fileno(), "errors": errors.fileno()}
            program = interpreter.start("examples.client", *arguments, cwd=ROOT, environment=environment, **streams)
            status = program.wait(30)
        done = Done(status, *(file.read_text("utf-8") for file in files))
        no_leaks(done.stdout + done.stderr)
        return done

    return run


def test_example_calls_the_api(url, run):
    done = run(f"{url}/token", f"{url}/reports", "reports.read")
    assert (done.returncode, done.stdout, done.stderr) == (0, "200 three reports\n", "")


def test_example_prints_the_missing_scopes(url, run):
    done = run(f"{url}/token", f"{url}/other", "reports.read")
    assert (done.returncode, done.stdout) == (1, "403 no\n")
    assert done.stderr == "request these scopes: reports.write\n"


def test_example_prints_the_reason_for_a_missing_token(url, run):
    done = run("http://127.0.0.1:1/token", f"{url}/reports")
    assert (done.returncode, done.stdout) == (1, "")
    assert "authority_unreachable" in done.stderr
