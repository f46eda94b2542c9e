"""The security schemes of the OpenAPI document, and the requirement of each operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Security
from fastapi.openapi import models
from fastapi.security.base import SecurityBase

from scopeguard.config.checks import check_url
from scopeguard.config.sources import TokenSource, TokenSources
from scopeguard.scopes import Requirement, check_scope, scopes_in


class _Scheme(SecurityBase):
    """A dependency that declares a security scheme in the document. It checks nothing."""

    def __init__(self, name: str, model: models.SecurityBase) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


class _DistinctName(str):
    """The name of a security scheme that has the same letters as another one but does not equal it.

    OpenAPI writes alternatives as several requirements with the same scheme. FastAPI merges the scopes of schemes with
    equal names in one operation, which would mean that all of them are required.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def make_schemes(
    sources: TokenSources, token_url: str | None, scopes: Mapping[str, str], openid_connect_url: str | None, prefix: str
) -> dict[str, models.SecurityBase]:
    """Return the security schemes by name. A client may use any one of them."""
    found: dict[str, models.SecurityBase] = {}
    for scope in scopes:
        check_scope(scope, "Protected: scopes")
    if token_url is not None:
        if "://" in token_url:  # else it is relative to the document, as FastAPI allows
            check_url(token_url, "token_url")
        flow = models.OAuthFlowClientCredentials(tokenUrl=token_url, scopes=dict(scopes))
        found[f"{prefix}OAuth2"] = models.OAuth2(flows=models.OAuthFlows(clientCredentials=flow))
    if openid_connect_url is not None:
        check_url(openid_connect_url, "openid_connect_url")
        found[f"{prefix}OpenIDConnect"] = models.OpenIdConnect(openIdConnectUrl=openid_connect_url)
    if TokenSource.HEADER in sources.methods:
        found[f"{prefix}Bearer"] = models.HTTPBearer(bearerFormat="JWT")
    if TokenSource.QUERY in sources.methods:
        in_query = {"in": models.APIKeyIn.query, "name": "access_token"}
        found[f"{prefix}QueryToken"] = models.APIKey.model_validate(in_query)
    return found


def make_dependencies(schemes: Mapping[str, models.SecurityBase], requirement: Requirement | None) -> list[Any]:
    """Return dependencies that only appear in the document: one for each scheme and alternative of *requirement*."""
    if requirement is None:
        return [Security(_Scheme(name, model)) for name, model in schemes.items()]
    first = requirement.alternatives[0]
    # The first alternative has the plain name, so that FastAPI adds the scopes of other dependencies to it.
    return [
        Security(
            _Scheme(name if alternative is first else _DistinctName(name), model),
            scopes=requirement.first if alternative is first else sorted(scopes_in(alternative)),
        )
        for alternative in requirement.alternatives
        for name, model in schemes.items()
    ]
