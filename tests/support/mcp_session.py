"""A program around a Python client of MCP: ``python -m mcp_session {auto,legacy,fastmcp} URL STEP...``.

``auto`` and ``legacy`` are modes of the official client, ``fastmcp`` is the client of fastmcp. The program runs the
steps in order and prints their results as JSON. It knows the URL and nothing else. A step is ``tools``, or the name of
a tool and the name of a file, as in ``read_file:a``. It runs in the environment that ``make apps`` makes.
"""

import json
import sys
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import anyio
import httpx

REDIRECT: Final = "http://127.0.0.1:1/callback"
MOST_REDIRECTS: Final = 10


class Application:
    """Stores in memory what an application stores, and signs in without a user."""

    def __init__(self) -> None:
        self._tokens: Any = None
        self._client: Any = None
        self._callback: dict[str, str] = {}

    async def get_tokens(self) -> Any:
        return self._tokens

    async def set_tokens(self, tokens: Any) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> Any:
        return self._client

    async def set_client_info(self, client_info: Any) -> None:
        self._client = client_info

    async def open_browser(self, url: str) -> None:
        """Follow the redirects from *url* with cookies, until one leads to the redirect URI."""
        async with httpx.AsyncClient(trust_env=False) as browser:
            for _ in range(MOST_REDIRECTS):
                response = await browser.get(url)
                assert response.is_redirect, f"{response.status_code} at {url}: {response.text}"
                url = urljoin(url, response.headers["location"])
                if url.startswith(REDIRECT):
                    self._callback = dict(parse_qsl(urlsplit(url).query))
                    return
        raise AssertionError("too many redirects")

    async def wait_for_callback(self) -> Any:
        return import_module("mcp.shared.auth").AuthorizationCodeResult(**self._callback)


async def run_official(mode: str, url: str, steps: list[str]) -> list[Any]:
    """Run the steps with the official client. Return their results."""
    application = Application()
    provider = import_module("mcp.client.auth").OAuthClientProvider(
        server_url=url,
        client_metadata=import_module("mcp.shared.auth").OAuthClientMetadata(
            client_name="a test", redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
        ),
        storage=application,
        redirect_handler=application.open_browser,
        callback_handler=application.wait_for_callback,
    )
    transport: Any = import_module("mcp.client.streamable_http").streamable_http_client
    async with (
        import_module("httpx2").AsyncClient(auth=provider, trust_env=False) as http,
        import_module("mcp").Client(transport(url, http_client=http), mode=mode) as client,
    ):
        return [await run_step(client, step) for step in steps]


async def run_fastmcp(url: str, steps: list[str]) -> list[Any]:
    """Run the steps with the client of fastmcp, which opens the browser itself. Return their results."""
    async with import_module("fastmcp").Client(url, auth="oauth") as client:
        return [await run_step(client, step) for step in steps]


async def run_step(client: Any, step: str) -> Any:
    name, _, argument = step.partition(":")
    if name == "tools":
        found = await client.list_tools()
        return sorted(tool.name for tool in getattr(found, "tools", found))
    return (await client.call_tool(name, {"name": argument})).content[0].text


async def main(mode: str, url: str, *steps: str) -> None:
    results = await (run_fastmcp(url, [*steps]) if mode == "fastmcp" else run_official(mode, url, [*steps]))
    print(json.dumps(results))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], *sys.argv[3:])
