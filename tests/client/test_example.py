"""examples/client.py, run as its reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from environment import ROOT


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


def run(no_leaks, token_url, *arguments):
    environment = {"TOKEN_URL": token_url, "CLIENT_ID": "reporter", "CLIENT_SECRET": "sg-secret-1"}
    done = subprocess.run(
        [sys.executable, "examples/client.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    no_leaks(done.stdout + done.stderr)
    return done


def test_example_calls_the_api(url, no_leaks):
    done = run(no_leaks, f"{url}/token", f"{url}/reports", "reports.read")
    assert (done.returncode, done.stdout, done.stderr) == (0, "200 three reports\n", "")


def test_example_prints_the_missing_scopes(url, no_leaks):
    done = run(no_leaks, f"{url}/token", f"{url}/other", "reports.read")
    assert (done.returncode, done.stdout) == (1, "403 no\n")
    assert done.stderr == "request these scopes: reports.write\n"


def test_example_prints_the_reason_for_a_missing_token(url, no_leaks):
    done = run(no_leaks, "http://127.0.0.1:1/token", f"{url}/reports")
    assert (done.returncode, done.stdout) == (1, "")
    assert "authority_unreachable" in done.stderr
