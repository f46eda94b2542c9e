"""The official Python client of MCP: ``python -m mcp_session MODE URL STEP...``, in the environment of ``make apps``.

It runs the steps in order and prints one JSON document, as ``tests/peers/node/mcp_client.mjs`` does: what each step
returned, and the scopes of each login. The application around the client knows the URL and nothing else.
"""

import json
import sys
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qs, urljoin, urlsplit

import anyio
import httpx

REDIRECT: Final = "http://127.0.0.1:1/callback"


class Application:
    """Stores in memory what an application stores, and signs in without a user."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.information: Any = None
        self.logins: list[dict[str, str]] = []
        self._callback: dict[str, str] = {}

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.information

    async def set_client_info(self, client_info: Any) -> None:
        self.information = client_info

    async def open_browser(self, url: str) -> None:
        """Follow the redirects from *url* with cookies, until one leads to the redirect URI."""
        query = _query(url)
        self.logins.append({"scope": query["scope"], "resource": query["resource"]})
        async with httpx.AsyncClient(trust_env=False) as browser:
            for _ in range(10):
                response = await browser.get(url)
                assert response.is_redirect, f"{response.status_code} at {url}: {response.text}"
                url = urljoin(url, response.headers["location"])
                if url.startswith(REDIRECT):
                    break
            else:
                raise AssertionError("too many redirects")
        self._callback = _query(url)

    async def wait_for_callback(self) -> Any:
        result: Any = import_module("mcp.shared.auth").AuthorizationCodeResult
        return result(**self._callback)


def _query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def run(mode: str, url: str, steps: list[str]) -> dict[str, Any]:
    """Return what the steps returned, the logins, and the scopes of the last token."""
    mcp: Any = import_module("mcp")
    auth: Any = import_module("mcp.client.auth")
    transport: Any = import_module("mcp.client.streamable_http")
    application = Application()
    provider = auth.OAuthClientProvider(
        server_url=url,
        client_metadata=import_module("mcp.shared.auth").OAuthClientMetadata(
            client_name="a test", redirect_uris=[REDIRECT], token_endpoint_auth_method="none"
        ),
        storage=application,
        redirect_handler=application.open_browser,
        callback_handler=application.wait_for_callback,
    )
    results: list[Any] = []
    async with (
        import_module("httpx2").AsyncClient(auth=provider, trust_env=False) as http,
        mcp.Client(transport.streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        for step in steps:
            name, _, argument = step.partition(":")
            if name == "tools":
                results.append(sorted(tool.name for tool in (await client.list_tools()).tools))
            else:
                results.append((await client.call_tool(name, {"name": argument})).content[0].text)
    granted = sorted(application.tokens.scope.split())
    return {"results": results, "logins": application.logins, "granted": granted}


if __name__ == "__main__":
    print(json.dumps(anyio.run(run, sys.argv[1], sys.argv[2], sys.argv[3:])))
