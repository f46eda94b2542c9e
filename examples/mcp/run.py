"""Lets the official MCP client call a guarded MCP server on loopback, and prints what they say to each other.

``python examples/mcp/run.py`` starts an authorization server and the MCP server. The client knows only the URL of the
MCP server. The script exits with 0 only if every step ends as expected.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import file_server
import httpx2
import uvicorn
from authorization_server import USER, AuthorizationServer
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from scopeguard.devserver import Authority, KeyRing

CALLBACK = "http://127.0.0.1:1/callback"  # never opened: the browser below stops before it
SCOPES = ["files:read", "files:write"]
EXPECTED = ["Buy tea.", "old.txt is deleted", "Buy tea."]
METADATA = "/.well-known/oauth-protected-resource/mcp"
# What a request or its response means, by path and status.
MEANINGS = {
    ("/mcp", 401): "There is no token yet. The challenge names the scope that is needed, and the URL of the metadata.",
    (METADATA, 200): "The metadata of the MCP server names the authorization server.",
    ("/register", 201): "The authorization server does not know the client, so the client registers.",
    ("/mcp", 403): "The token lacks the scope of this tool, which the challenge names.",
}


# -- the servers


@contextmanager
def serve(app: Any, listener: socket.socket) -> Iterator[None]:
    """Serve *app* on *listener* for the length of the block."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


# -- the application around the client


class Application:
    """Stores the tokens, and opens the browser. Every MCP application has this part."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None
        self._callback: dict[str, str] = {}

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info

    async def open_browser(self, url: str) -> None:
        async with httpx2.AsyncClient(event_hooks={"response": [show]}) as browser:
            response = await browser.get(url)
        self._callback = dict(parse_qsl(urlsplit(response.headers["location"]).query))

    async def wait_for_callback(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**self._callback)


async def call_tools(url: str) -> list[str]:
    """Connect to *url*, call the tools, and return their answers."""
    application = Application()
    auth = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(
            client_name="the client", redirect_uris=[CALLBACK], token_endpoint_auth_method="none"
        ),
        storage=application,
        redirect_handler=application.open_browser,
        callback_handler=application.wait_for_callback,
    )
    async with httpx2.AsyncClient(auth=auth, event_hooks={"response": [show]}) as http:
        title("The client connects. It knows the URL and nothing else.")
        async with Client(streamable_http_client(url, http_client=http)) as client:
            answers = []
            for about, tool, name in (
                ("Reading a file needs files:read, which the token has.", "read_file", "notes.txt"),
                ("Deleting one needs files:write. The client gets it, and repeats the call.", "delete_file", "old.txt"),
                ("Reading still works: the new token has both scopes.", "read_file", "notes.txt"),
            ):
                title(about)
                result = await client.call_tool(tool, {"name": name})
                answers.append(result.content[0].text)
                print(f"  {tool}({name!r}) returned {answers[-1]!r}")
    return answers


# -- the output


def title(text: str) -> None:
    print(f"\n{text}\n")


def consent(client: str, scopes: list[str]) -> bool:
    print(f"  # The browser opens. {USER} signs in and allows {client}: {' and '.join(scopes)}.")
    return True


async def show(response: httpx2.Response) -> None:
    """Print a request and what matters of its response."""
    request = response.request
    meaning = MEANINGS.get((request.url.path, response.status_code))
    if meaning is not None:
        print(f"  # {meaning}")
    operation = ""
    if request.headers.get("content-type") == "application/json":
        message = json.loads(request.content)
        operation = " ".join(filter(None, (message.get("method"), message.get("params", {}).get("name"))))
    print(f"  {request.method:<5}{request.url.path:<43}{operation:<24}{response.status_code}")
    challenge = response.headers.get("www-authenticate")
    if challenge is not None:
        detail(f"WWW-Authenticate: {challenge}")
    if "/.well-known/" in request.url.path:
        document = json.loads(await response.aread())
        members = ("resource", "authorization_servers", "scopes_supported", "authorization_endpoint", "token_endpoint")
        for member in members:
            if member in document:
                detail(f"{member}: {json.dumps(document[member])}")
    if request.url.path == "/token":
        detail(f"scope: {json.loads(await response.aread())['scope']}")


def detail(text: str) -> None:
    for line in textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False):
        print(f"       {line}")


def main() -> int:
    logging.disable()
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as for_tokens,
        closing(socket.create_server(("127.0.0.1", 0))) as for_files,
    ):
        issuer, url = url_of(for_tokens), f"{url_of(for_files)}/mcp"
        authority = Authority(issuer, audience=url, keys=KeyRing("ES256"))
        authorization_server = AuthorizationServer(authority, SCOPES, consent).app()
        print(f"\nA guarded MCP server: {url}\nThe authorization server: {issuer}")
        with serve(authorization_server, for_tokens), serve(file_server.create_app(url, issuer), for_files):
            answers = anyio.run(call_tools, url)
    print("\nAll steps went as expected.\n" if answers == EXPECTED else f"\nUNEXPECTED: {answers}\n")
    return int(answers != EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
