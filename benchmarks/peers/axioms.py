"""axioms-fastapi, as in its README, with a key set that it has fetched from loopback."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "FastAPI + axioms-fastapi"
NEEDS = ("axioms-fastapi",)
BASE = "FastAPI, empty dependency"
ALGORITHMS = ("RS256", "ES256")


def app(material: Material) -> Any:
    from axioms_fastapi import init_axioms, register_axioms_exception_handler, require_auth, require_scopes

    api = FastAPI()
    init_axioms(
        api,
        AXIOMS_AUDIENCE=AUDIENCE,
        AXIOMS_ISS_URL=material.authority.url,
        AXIOMS_JWKS_URL=f"{material.origin}/jwks.json",
    )
    register_axioms_exception_handler(api)

    @api.get("/rows")
    async def rows(
        payload: Any = Depends(require_auth), scopes: None = Depends(require_scopes([SCOPE]))
    ) -> dict[str, str]:
        return {}

    return api
