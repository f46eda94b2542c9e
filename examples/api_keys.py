"""API keys beside access tokens: one principal, two credentials.

    pip install ".[cli]"
    python examples/api_keys.py

The client starts with an API key and then moves to access tokens. Its key is made and revoked as with
``scopeguard api-key new``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from scopeguard import ApiKeys, Guard, Rule, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.cli.commands import cli
from scopeguard.testing import FakeAuthority

API = "https://api.example.com"


async def rows(request: Any) -> PlainTextResponse:
    token = request.user  # the same type for both credentials
    return PlainTextResponse(f"rows for {token.client_id} of {token.issuer}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "keys.toml")
        options = ["--prefix", "acme", "--keys-file", str(file), "--client-id", "reports", "--scope", "rows.read"]
        key = CliRunner().invoke(cli, ["api-key", "new", *options]).stdout.strip()

        authority = FakeAuthority(audience=API)
        guard = Guard(
            authority.issuer,
            resource=API,
            api_keys=ApiKeys(prefix="acme", keys_file=str(file)),
            rules=[
                Rule("/rows", all_of("rows.read"), token_sources=["header", "api_key"]),
                Rule("/account"),
            ],
            transport=authority.transport,
            clock=authority.clock,
        )
        app = Starlette(
            routes=[Route("/rows", rows), Route("/account", rows)],
            middleware=[Middleware(GuardMiddleware, guard=guard)],
        )
        client = TestClient(app, base_url=API)

        def call(what: str, path: str, headers: dict[str, str]) -> None:
            response = client.get(path, headers=headers)
            print(response.status_code, what, f"({response.text})" if response.is_success else "")

        by_key, by_token = {"X-API-Key": key}, authority.bearer("rows.read", client_id="reports")
        call("with the key", "/rows", by_key)
        call("with a token", "/rows", by_token)
        call("with both", "/rows", by_key | by_token)
        call("with the key, where only tokens are accepted", "/account", by_key)

        file.write_text(file.read_text("utf-8") + "revoked = true\n", "utf-8")
        authority.clock.advance(10)  # the file is read again
        call("with the key after its revocation", "/rows", by_key)
        guard.close()


if __name__ == "__main__":
    main()
