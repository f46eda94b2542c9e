"""The verifier of jwks-client in an ASGI middleware, with a key set that it has fetched."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material
from benchmarks.verifying import ScopeMissingError, protect

NAME = "Starlette + jwks-client"
NEEDS = ("jwks-client",)
BASE = "Starlette"


def app(material: Material) -> Any:
    import jwt
    from jwks_client import JWKSClient, JWTVerifier, extract_bearer_token

    verifier = JWTVerifier(
        JWKSClient(f"{material.origin}/jwks.json"),
        algorithms=[material.algorithm],
        audience=AUDIENCE,
        issuer=material.authority.url,
        options={"require": ["exp", "iss", "aud"]},
    )

    async def verify(authorization: str) -> Any:
        claims = await verifier.verify(extract_bearer_token(authorization) or "")
        if SCOPE not in claims.get("scope", "").split():
            raise ScopeMissingError
        return claims

    return protect(verify, jwt.InvalidTokenError)
