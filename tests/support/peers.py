"""Third-party authorization servers, each in a separate process on loopback, controlled through standard input.

``tests/peers/node/server.mjs`` and ``mcp_provider.mjs`` (oidc-provider) and ``tests/peers/python/server.py`` (Django
OAuth Toolkit) say what they understand. Each process ends with its standard input, so none outlives the tests.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import httpx

from environment import ROOT, plain_environment, skip_or_fail
from scopeguard.client import ClientCredentials
from scopeguard.edge.http import HttpxTransport

PATIENCE: Final = 30.0
"""Seconds after which a server that does not answer its parent is given up."""

API_KEY_ID: Final = "api-key-1"
"""The key id of the client ``api-key``."""

NODE: Final = ROOT / "tests" / "peers" / "node"
_PYTHON: Final = ROOT / "tests" / "peers" / "python"
_TOKEN_PATHS: Final = {"node": "/token", "python": "/o/token/"}
_NODE_SCRIPTS: Final = {"node": "server.mjs", "mcp": "mcp_provider.mjs"}


def secret_of(client_id: str) -> str:
    """The secret of a client of a peer: with what has to be encoded in a header and in a form."""
    return f"sg-secret-{client_id} :%+/&=~"


class Peer:
    """A running authorization server. *settings* go to its ``start`` command, whose answer is :attr:`told`."""

    def __init__(self, kind: str, folder: Path, **settings: Any) -> None:
        self.kind = kind
        script = _NODE_SCRIPTS.get(kind)
        self._command = [sys.executable, "server.py"] if script is None else node_command(script)
        self._folder = _PYTHON if script is None else NODE
        self._log = folder / f"{kind}.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._transport = HttpxTransport()
        self.told: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        """Start it: the first time on a free port, later on the same one with the same keys."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=plain_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._unread = b""
        self.told = self.tell("start", **self._settings)
        if self.kind == "node":
            self._settings["port"] = self.told["port"]

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.told['port']}"

    def tell(self, command: str, **settings: Any) -> dict[str, Any]:
        """Its answer to *command*."""
        process = self._live_process()
        line = json.dumps({"do": command, **settings}).encode() + b"\n"
        try:
            _pipe(process.stdin).write(line)
            _pipe(process.stdin).flush()
            told = dict(json.loads(self._line(_pipe(process.stdout))))
        except (OSError, ValueError) as error:
            raise AssertionError(f"{self.kind} peer: {error!r}\n{self._log.read_text('utf-8')[-2000:]}") from None
        if "keys" in told:
            self._settings["keys"] = told["keys"]
        return told

    def _line(self, stream: IO[bytes]) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._unread:
            ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(stream.fileno(), 65536) if ready else b""
            if not data:
                raise OSError("it has ended" if ready else "it does not answer")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _live_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("the peer is not running")
        return self._process

    def kill(self) -> None:
        """End it at once, with every connection and everything it held in memory."""
        self._transport.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def count(self, path: str) -> int:
        """Return the number of requests for *path*."""
        counts: dict[str, int] = self.tell("count")["counts"]
        return sum(number for asked, number in counts.items() if asked.partition(" ")[2] == path)

    def client(
        self, *, scopes: str = "read", resource: str | None = None, auth_method: str = "client_secret_basic"
    ) -> ClientCredentials:
        """Return a client without a token yet."""
        client_id = "machine-2" if auth_method == "client_secret_post" and self.kind == "node" else "machine:1"
        return ClientCredentials(
            f"{self.url}{_TOKEN_PATHS[self.kind]}",
            client_id,
            secret_of(client_id),
            scopes=scopes.split(),
            resource=() if resource is None else resource,
            auth_method=auth_method,
            transport=self._transport,
        )

    def token(self, **what: Any) -> str:
        """Return a new access token, fetched with client credentials: see :meth:`client`."""
        return str(self.client(**what).token().access_token)

    def revoke(self, token: str) -> None:
        """Have it revoke *token* (RFC 7009)."""
        path = "/token/revocation" if self.kind == "node" else "/o/revoke_token/"
        answer = httpx.post(
            self.url + path,
            data={"token": token, "client_id": "machine:1", "client_secret": secret_of("machine:1")},
            trust_env=False,
        )
        assert answer.status_code == 200


def node_command(script: str, *, package: str = "oidc-provider") -> list[str]:
    """Return the command that runs *script*, which needs *package*, in the folder :data:`NODE`."""
    node = shutil.which("node")
    if node is None:
        skip_or_fail("no node: it runs the authorization server oidc-provider; install Node.js 20.12 or newer")
    if not (NODE / "node_modules" / package).is_dir():
        skip_or_fail(f"no {package}: `make peers` installs it with npm")
    return [node, script]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


@contextmanager
def run_peer(kind: str, folder: Path, **settings: Any) -> Iterator[Peer]:
    """A peer of *kind* for the length of a block."""
    peer = Peer(kind, folder, **settings)
    try:
        yield peer
    finally:
        peer.kill()
