"""The claims of the access tokens that the development server issues."""

from __future__ import annotations

import secrets
from typing import Any

from scopeguard.devserver.token_requests import Grant


def make_claims(grant: Grant, issuer: str, now: int) -> dict[str, Any]:
    """Return the claims of a new access token for *grant* (RFC 9068 section 2.2)."""
    claims: dict[str, Any] = {
        "iss": issuer,
        "exp": now + grant.lifetime,
        "aud": grant.audiences[0] if len(grant.audiences) == 1 else list(grant.audiences),
        "sub": grant.subject,
        "client_id": grant.client_id,
        "iat": now,
        "jti": secrets.token_urlsafe(16),
    }
    if grant.scopes:
        claims["scope"] = " ".join(grant.scopes)
    if grant.actor is not None:
        claims["act"] = dict(grant.actor)
    if grant.thumbprint is not None:
        claims["cnf"] = {"jkt": grant.thumbprint}
    return claims
