"""The OpenAPI document of an app: how to authenticate, and what each operation needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Security
from fastapi.openapi import models
from fastapi.security.base import SecurityBase

from scopeguard.config.checks import checked_url
from scopeguard.config.sources import TokenSource, TokenSources
from scopeguard.scopes import Requirement, check_scope, scopes_in


class _Scheme(SecurityBase):
    """Shows in the document how to authenticate. It checks nothing."""

    def __init__(self, name: str, model: models.SecurityBase) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


class _Alternative(str):
    """The name of a security scheme, once more.

    Within one operation FastAPI adds up the scopes of schemes that have equal names: all are needed. That any will do
    is written as several requirements with the same name, so these are spelled alike and are not equal.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def schemes_of(
    sources: TokenSources, token_url: str | None, scopes: Mapping[str, str], openid_connect_url: str | None, prefix: str
) -> dict[str, models.SecurityBase]:
    """The ways to authenticate, by name; any one of them will do."""
    found: dict[str, models.SecurityBase] = {}
    for scope in scopes:
        check_scope(scope, "Protected: scopes")
    if token_url is not None:
        if "://" in token_url:  # else it is relative to the document, as FastAPI allows
            checked_url(token_url, "token_url")
        flow = models.OAuthFlowClientCredentials(tokenUrl=token_url, scopes=dict(scopes))
        found[f"{prefix}OAuth2"] = models.OAuth2(flows=models.OAuthFlows(clientCredentials=flow))
    if openid_connect_url is not None:
        checked_url(openid_connect_url, "openid_connect_url")
        found[f"{prefix}OpenIDConnect"] = models.OpenIdConnect(openIdConnectUrl=openid_connect_url)
    if TokenSource.HEADER in sources.methods:
        found[f"{prefix}Bearer"] = models.HTTPBearer(bearerFormat="JWT")
    if TokenSource.QUERY in sources.methods:
        in_query = {"in": models.APIKeyIn.query, "name": "access_token"}
        found[f"{prefix}QueryToken"] = models.APIKey.model_validate(in_query)
    return found


def shown(schemes: Mapping[str, models.SecurityBase], requirement: Requirement | None) -> list[Any]:
    """Dependencies that do nothing but appear in the document: one for each scheme and alternative."""
    if requirement is None:
        return [Security(_Scheme(name, model)) for name, model in schemes.items()]
    first = requirement.alternatives[0]
    # The first keeps the plain name, so that what other dependencies of the route need is added to it.
    return [
        Security(
            _Scheme(name if alternative is first else _Alternative(name), model),
            scopes=requirement.first if alternative is first else sorted(scopes_in(alternative)),
        )
        for alternative in requirement.alternatives
        for name, model in schemes.items()
    ]
