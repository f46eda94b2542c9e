"""A contract in front of an app that answers everything, behind a real server, and documents that others published."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn

from environment import ROOT, skip_or_fail
from scopeguard import Guard, Rules
from scopeguard.asgi import GuardMiddleware
from scopeguard.contracts import Contract
from scopeguard.edge.listener import listen
from scopeguard.testing import FakeAuthority


def discovery_documents() -> Path:
    """The folder of discovery documents in Google's API client for Python."""
    found = find_spec("googleapiclient")
    if found is None or not found.submodule_search_locations:
        skip_or_fail("google-api-python-client is not installed: it brings the discovery documents")
    return Path(found.submodule_search_locations[0]) / "discovery_cache" / "documents"


def document_path(name: str) -> Path:
    """A file of the npm packages that ``make documents`` fetches."""
    path = ROOT / "build" / "documents" / "package" / name
    if not path.is_file():
        skip_or_fail(f"{name} is not here: make documents")
    return path


async def answer_all(scope: Any, receive: Any, send: Any) -> None:
    """Answers 200 to everything."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Enforced:
    """*contract* in front of :func:`answer_all`, and what callers with certain scopes are answered."""

    def __init__(self, contract: Contract) -> None:
        self.authority = FakeAuthority()
        self._tokens: dict[tuple[str, ...], str] = {}
        guard = Guard(
            self.authority.issuer,
            transport=self.authority.transport,
            clock=self.authority.clock,
            audit="off",
        )
        self.app = GuardMiddleware(answer_all, guard=guard, rules=Rules(contract.rules))

    def headers(self, scopes: tuple[str, ...] | None) -> dict[str, str]:
        """For a token with *scopes*, the same for the same; none for ``None``."""
        if scopes is None:
            return {}
        if scopes not in self._tokens:
            self._tokens[scopes] = self.authority.mint(scopes)
        return {"Authorization": f"Bearer {self._tokens[scopes]}"}

    async def status(self, method: str, path: str, scopes: tuple[str, ...] | None) -> int:
        """Without a server."""
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers(scopes).items()]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "scheme": "https",
        }
        answers: list[int] = []

        async def send(message: Any) -> None:
            answers.extend([message["status"]] if "status" in message else [])

        async def receive() -> Any:
            return {"type": "http.request"}

        await self.app(scope, receive, send)
        return answers[0]

    @cached_property
    def _server(self) -> uvicorn.Server:
        return uvicorn.Server(uvicorn.Config(self.app, lifespan="off", log_config=None, access_log=False))

    @contextmanager
    def serve(self) -> Iterator[Served]:
        """Behind uvicorn, with one connection that is kept."""
        with listen("127.0.0.1", 0) as listener:
            thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
            thread.start()
            connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=30)
            try:
                yield Served(self, connection)
            finally:
                connection.close()
                self._server.should_exit = True
                thread.join()


class Served:
    """Sends requests over one connection."""

    def __init__(self, enforced: Enforced, connection: http.client.HTTPConnection) -> None:
        self._enforced = enforced
        self._connection = connection

    def status(self, method: str, path: str, scopes: tuple[str, ...] | None) -> int:
        self._connection.request(method, path, headers=self._enforced.headers(scopes))
        answer = self._connection.getresponse()
        answer.read()
        return answer.status
