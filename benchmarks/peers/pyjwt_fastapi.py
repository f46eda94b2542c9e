"""``HTTPBearer`` and PyJWT in a dependency, as FastAPI's tutorial suggests, with the key at hand."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "FastAPI + PyJWT by hand"
NEEDS = ("pyjwt", "fastapi")
BASE = "FastAPI, empty dependency"

bearer = HTTPBearer()


def app(material: Material) -> Any:
    import jwt

    key, issuer, algorithms = material.public_key, material.authority.url, [material.algorithm]

    async def current_claims(
        security_scopes: SecurityScopes, credentials: HTTPAuthorizationCredentials = Depends(bearer)
    ) -> dict[str, Any]:
        try:
            claims = jwt.decode(
                credentials.credentials,
                key,
                algorithms=algorithms,
                audience=AUDIENCE,
                issuer=issuer,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            raise HTTPException(401, "invalid_token", {"WWW-Authenticate": "Bearer"}) from error
        held = claims.get("scope", "").split()
        if any(scope not in held for scope in security_scopes.scopes):
            raise HTTPException(403, "insufficient_scope")
        return claims

    api = FastAPI()

    @api.get("/rows")
    async def rows(claims: dict[str, Any] = Security(current_claims, scopes=[SCOPE])) -> dict[str, str]:
        return {}

    return api
