"""fastapi-azure-auth for one tenant, as in its README. Its configuration comes from loopback."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Security

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "FastAPI + fastapi-azure-auth"
NEEDS = ("fastapi-azure-auth",)
BASE = "FastAPI, empty dependency"
ALGORITHMS = ("RS256",)


def claims(scopes: str) -> dict[str, Any]:
    """Entra writes scopes into ``scp``, and always ``nbf`` and ``ver``."""
    return {"scp": scopes, "scope": None, "nbf": int(time.time()) - 5, "ver": "2.0"}


def app(material: Material) -> Any:
    from fastapi_azure_auth import SingleTenantAzureAuthorizationCodeBearer

    azure_scheme = SingleTenantAzureAuthorizationCodeBearer(
        app_client_id=AUDIENCE, tenant_id="tenant", scopes={SCOPE: "insert rows"}
    )
    azure_scheme.openid_config.config_url = f"{material.origin}/openid-configuration"
    api = FastAPI()

    @api.get("/rows", dependencies=[Security(azure_scheme, scopes=[SCOPE])])
    async def rows() -> dict[str, str]:
        return {}

    return api
