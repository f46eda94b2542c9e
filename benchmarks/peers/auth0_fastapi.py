"""auth0-fastapi-api, as in its README. Metadata and keys come from this process instead of https://as.test."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "FastAPI + auth0-fastapi-api"
NEEDS = ("auth0-fastapi-api",)
BASE = "FastAPI, empty dependency"
ALGORITHMS = ("RS256",)


def app(material: Material) -> Any:
    from fastapi_plugin import Auth0FastAPI

    async def fetch(url: str) -> dict[str, Any]:
        return material.metadata if url.endswith("/openid-configuration") else material.jwks

    auth0 = Auth0FastAPI(domain=urlsplit(material.authority.url).netloc, audience=AUDIENCE, custom_fetch=fetch)
    api = FastAPI()

    @api.get("/rows")
    async def rows(claims: dict[str, Any] = Depends(auth0.require_auth(scopes=SCOPE))) -> dict[str, str]:
        return {}

    return api
