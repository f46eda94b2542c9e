"""The security schemes of the OpenAPI document, the requirement of each operation, and its refusals."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Response, Security
from fastapi.openapi import models
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from scopeguard.config.checks import text
from scopeguard.config.dpop import DPoP
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import Requirement, check_scope, conditions_in, scopes_in
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.error_body import ErrorBody
from scopeguard.user_authentication import UserAuthentication


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeSettings:
    """The arguments of ``Protected`` that describe where clients get tokens. Checked when they are constructed."""

    token_url: str | None
    authorization_url: str | None
    openid_connect_url: str | None
    scopes: Mapping[str, str]
    prefix: str

    def __post_init__(self) -> None:
        for scope in self.scopes:
            check_scope(scope, "Protected: scopes")
        for name in ("token_url", "authorization_url", "openid_connect_url"):
            url = getattr(self, name)
            if url is not None:
                text(url, name, empty=False)
                # A URL without a scheme is relative to the document, as FastAPI allows.
                if name == "openid_connect_url" or "://" in url:
                    check_url(url, name)
        if self.authorization_url is not None and self.token_url is None:
            raise ConfigurationError(
                "Protected: authorization_url needs token_url, where the client exchanges the code; set both"
            )


def make_schemes(
    settings: SchemeSettings, sources: TokenSources, dpop: DPoP | None, *, certificates: bool
) -> dict[str, models.SecurityBase]:
    """Return the security schemes by name. A client may use any one of them.

    *dpop* and *certificates* are the proofs of possession that the guard accepts. Swagger UI can send neither, and
    OpenAPI cannot express them for OAuth 2.0, so the descriptions say what a client must do.
    """
    found: dict[str, models.SecurityBase] = {}
    description = _describe_proofs(dpop, certificates=certificates)
    if settings.token_url is not None:
        flows = _make_flows(settings.token_url, settings.authorization_url, settings.scopes)
        found[f"{settings.prefix}OAuth2"] = models.OAuth2(flows=flows, description=description)
    if settings.openid_connect_url is not None:
        found[f"{settings.prefix}OpenIDConnect"] = models.OpenIdConnect(
            openIdConnectUrl=settings.openid_connect_url, description=description
        )
    if TokenSource.HEADER in sources.methods:
        if dpop is None or dpop.mode is not DPoPMode.REQUIRED:
            found[f"{settings.prefix}Bearer"] = models.HTTPBearer(bearerFormat="JWT", description=description)
        if dpop is not None and dpop.mode is not DPoPMode.OFF:
            found[f"{settings.prefix}DPoP"] = models.HTTPBase(scheme="DPoP", description=description)
    if TokenSource.QUERY in sources.methods:
        in_query = {"in": models.APIKeyIn.query, "name": "access_token"}
        found[f"{settings.prefix}QueryToken"] = models.APIKey.model_validate(in_query)
    if sources.in_api_key and sources.api_keys is not None:
        in_header = {"in": models.APIKeyIn.header, "name": sources.api_keys.header}
        found[f"{settings.prefix}ApiKey"] = models.APIKey.model_validate(in_header)
    return found


def _make_flows(token_url: str, authorization_url: str | None, scopes: Mapping[str, str]) -> models.OAuthFlows:
    described = dict(scopes)
    flows = models.OAuthFlows(clientCredentials=models.OAuthFlowClientCredentials(tokenUrl=token_url, scopes=described))
    if authorization_url is not None:
        flows.authorizationCode = models.OAuthFlowAuthorizationCode(
            authorizationUrl=authorization_url, tokenUrl=token_url, scopes=described
        )
    return flows


def _describe_proofs(dpop: DPoP | None, *, certificates: bool) -> str | None:
    sentences = []
    if dpop is not None and dpop.mode is DPoPMode.REQUIRED:
        sentences.append(
            "Every access token must be bound to a key of the client, and every request needs a DPoP proof of that key "
            f"({', '.join(dpop.algorithms)}; RFC 9449). This page cannot make proofs."
        )
    elif dpop is not None and dpop.mode is not DPoPMode.OFF:
        sentences.append(
            "An access token that is bound to a key of the client is sent with the scheme DPoP and a proof of that key "
            f"({', '.join(dpop.algorithms)}; RFC 9449), which this page cannot make."
        )
    if certificates:
        sentences.append(
            "An access token that is bound to a client certificate is accepted only over a connection with that "
            "certificate (RFC 8705)."
        )
    return " ".join(sentences) or None


def has_forbidding_condition(requirement: Requirement | None) -> bool:
    """Return whether a condition of *requirement* may refuse a valid token with 403.

    Scopes do not count, because the document has them. ``UserAuthentication`` refuses with 401.
    """
    alternatives = () if requirement is None else requirement.alternatives
    conditions = frozenset().union(*map(conditions_in, alternatives))
    return not all(isinstance(condition, UserAuthentication) for condition in conditions)


def make_responses(style: ChallengeStyle, dpop: DPoP | None, sources: TokenSources) -> dict[int | str, dict[str, Any]]:
    """Return the refusals by status, as the document shows them."""
    schemes = " and ".join(style.schemes)
    standards = "RFC 6750 section 3" if style.schemes == ("Bearer",) else "RFC 6750 section 3, RFC 9449 section 7.1"
    challenge = _header(f"The challenge, with the scheme {schemes} ({standards})", "string")
    denial = {"WWW-Authenticate": challenge}
    unauthorized = dict(denial)
    if dpop is not None and dpop.nonce_keys:
        unauthorized["DPoP-Nonce"] = _header("The nonce for the next proof (RFC 9449 section 9)", "string")
    retry = {"Retry-After": _header("When to try again, in seconds", "integer")}
    refusals: dict[int | str, tuple[str, dict[str, Any]]] = {
        400: ("The request has several access tokens, or a malformed one", denial),
        401: ("No valid access token", unauthorized),
        403: ("The access token lacks a scope, or does not satisfy another condition", denial),
        503: ("The access token cannot be checked now", retry),
    }
    if style.hide_forbidden:
        del refusals[403]
        refusals[404] = ("There is nothing here, or the access token does not suffice for it", {})
    if TokenSource.FORM in sources.methods:
        refusals[408] = ("The form, which may have a token, did not arrive in time", denial)
        refusals[413] = ("The form, which may have a token, is too large, or has no Content-Length", denial)
    return {
        status: {
            "description": description,
            **({"headers": headers} if headers else {}),
            "content": {style.media_type: {"schema": _body_schema(style)}},
        }
        for status, (description, headers) in sorted(refusals.items(), key=str)
    }


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _body_schema(style: ChallengeStyle) -> dict[str, Any]:
    """Return the JSON schema of the bodies that *style* writes. Nothing is known about those of a function."""
    text_member = {"type": "string"}
    status = {"type": "integer"}
    if style.body == ErrorBody.PROBLEM:
        members = dict.fromkeys(("type", "title", "detail", "error", "error_description"), text_member)
        return {
            "title": "Problem",
            "description": "A problem document (RFC 9457), with the error code of RFC 6750",
            "type": "object",
            "properties": {**members, "status": status},
            "required": ["type", "title", "status", "detail"],
        }
    if style.body == ErrorBody.GOOGLE:
        members = {"code": status, "message": text_member, "status": text_member, "errors": {"type": "array"}}
        error = {"type": "object", "properties": members, "required": list(members)}
        return {"title": "Error", "type": "object", "properties": {"error": error}, "required": ["error"]}
    return {}


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


def make_signature(shown: Sequence[Any]) -> inspect.Signature:
    """Return the signature of ``Protected`` for FastAPI, which passes the first three parameters.

    *shown*: dependencies that only appear in the document.
    """
    only = inspect.Parameter.KEYWORD_ONLY
    passed = {"connection": HTTPConnection, "response": Response, "security_scopes": SecurityScopes}
    parameters = [inspect.Parameter(name, only, annotation=kind) for name, kind in passed.items()]
    for number, scheme in enumerate(shown):
        parameters.append(inspect.Parameter(f"scheme_{number}", only, default=scheme, annotation=None))
    return inspect.Signature(parameters)
