"""Workloads that call an API with their SPIFFE identities, from two trust domains.

    pip install .
    python examples/spiffe.py

In production, SPIRE writes the bundle files and gives each workload its JWT-SVIDs. Here, a class takes its place.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from scopeguard import Guard, presets
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.keys import SigningKey, compact

API = "https://api.example.com"


class TrustDomain:
    """A trust domain with one key, in place of SPIRE."""

    def __init__(self, name: str, folder: str) -> None:
        self.name = name
        self._key = SigningKey.generate("ES256", kid="1")
        self.bundle = Path(folder, f"{name}.json")
        keys = [{**self._key.public_jwk(), "use": "jwt-svid"}]
        self.bundle.write_text(json.dumps({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300}), "utf-8")

    def svid(self, subject: str, audience: str = API) -> str:
        """Return a JWT-SVID for *subject*. It has no ``iss``."""
        claims = {"sub": subject, "aud": [audience], "exp": int(time.time()) + 300}
        return compact({"alg": "ES256", "kid": "1", "typ": "JWT"}, claims, self._key)


async def rows(request: Any) -> PlainTextResponse:
    return PlainTextResponse(f"rows for {request.user.subject}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        own, partner = TrustDomain("prod.example.com", folder), TrustDomain("partner.example", folder)
        guard = Guard(
            presets.spiffe(own.name, API, jwks_file=str(own.bundle), id_prefixes="spiffe://prod.example.com/ns/etl"),
            presets.spiffe(
                partner.name, API, jwks_file=str(partner.bundle), ids="spiffe://partner.example/billing/export"
            ),
        )
        app = Starlette(routes=[Route("/rows", rows)], middleware=[Middleware(GuardMiddleware, guard=guard)])
        client = TestClient(app, base_url=API)

        def call(what: str, token: str) -> None:
            response = client.get("/rows", headers={"Authorization": f"Bearer {token}"})
            print(response.status_code, what, f"({response.text})" if response.is_success else "")

        ingest = "spiffe://prod.example.com/ns/etl/sa/ingest"
        call("a workload below the accepted prefix", own.svid(ingest))
        call("another workload of the trust domain", own.svid("spiffe://prod.example.com/ns/web/sa/shop"))
        call("for another API", own.svid(ingest, "https://other.example.com"))
        call("the workload of the partner", partner.svid("spiffe://partner.example/billing/export"))
        call("the partner's key under this trust domain's name", partner.svid(ingest))
        guard.close()


if __name__ == "__main__":
    main()
