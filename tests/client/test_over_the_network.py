"""The real transport against a real server on loopback: what is on the wire."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from scopeguard.client import ClientCredentials, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.edge.http import HttpxTransport


class Server(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, dict[str, str], list[tuple[str, str]]]] = []
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.api_tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, parse_qsl(body.decode(), keep_blank_values=True)))
        status, headers, content = self.server.script.pop(0) if self.server.script else (200, {}, GOOD)
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.server.api_tokens.append(self.headers.get("authorization"))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


GOOD = json.dumps({"access_token": "sg-opaque-1", "token_type": "Bearer", "expires_in": 3600}).encode()


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.rule("C-01", "C-02", "C-04")
def test_token_is_fetched_and_sent_over_the_network(server):
    auth = ClientCredentials(
        f"{server.url}/token?x=1", "a:b", "sg-secret-ü", scopes=["read", "write"], resource=["urn:a", "urn:b"]
    )
    with httpx.Client(auth=auth, base_url=server.url) as client:
        assert client.get("/data").status_code == 200
        assert client.get("/data").status_code == 200
    ((path, headers, form),) = server.seen
    assert path == "/token?x=1"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["accept"] == "application/json"
    assert headers["authorization"].startswith("Basic ")
    assert sorted(form) == [
        ("grant_type", "client_credentials"), ("resource", "urn:a"), ("resource", "urn:b"), ("scope", "read write")
    ]  # fmt: skip
    assert server.api_tokens == ["Bearer sg-opaque-1"] * 2


@pytest.mark.rule("C-26")
@pytest.mark.parametrize("status", [302, 307, 308])
def test_credentials_are_not_sent_after_a_redirect(server, status):
    server.script = [(status, {"location": f"{server.url}/elsewhere"}, b"")]
    auth = ClientCredentials(f"{server.url}/token", "client-1", "sg-secret-1", auth_method="client_secret_post")
    with httpx.Client(auth=auth, follow_redirects=True) as client, pytest.raises(TokenEndpointError, match="redirect"):
        client.get(server.url)
    assert [path for path, _, _ in server.seen] == ["/token"]
    assert server.api_tokens == []


@pytest.mark.rule("C-20")
def test_an_oversized_answer_is_not_read_to_its_end(server):
    server.script = [(200, {}, b'{"access_token": "' + b"x" * 100_000 + b'"}')]
    with pytest.raises(TokenEndpointUnavailable, match="larger than 65536 bytes"):
        ClientCredentials(f"{server.url}/token", "client-1", "sg-secret-1").token()
    assert len(server.seen) == 1


@pytest.mark.rule("C-20")
def test_unreachable_server_is_an_outage():
    auth = ClientCredentials("http://127.0.0.1:1/token", "client-1", "sg-secret-1", retries=0)
    with pytest.raises(TokenEndpointUnavailable, match="authority_unreachable"):
        auth.token()


def test_hooks_cookies_and_history_of_the_client_contain_nothing_of_the_token_request(server):
    server.script = [(200, {"set-cookie": "as=1"}, GOOD)]
    auth = ClientCredentials(f"{server.url}/token", "client-1", "sg-secret-1")
    hooked: list[object] = []
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [hooked.append], "response": [hooked.append]}
    with httpx.Client(auth=auth, event_hooks=hooks, headers={"x-tenant": "t"}) as client:
        response = client.get(server.url)
        assert not client.cookies
    assert response.history == []
    assert [type(item).__name__ for item in hooked] == ["Request", "Response"]
    assert "x-tenant" not in server.seen[0][1]


def test_no_socket_is_left_open_after_a_fetch(server):
    auth = ClientCredentials(f"{server.url}/token", "client-1", "sg-secret-1")
    auth.token()
    transport = auth._fetcher._transport._inner
    assert isinstance(transport, HttpxTransport)
    assert transport._client is None
