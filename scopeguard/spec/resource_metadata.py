"""OAuth 2.0 Protected Resource Metadata (RFC 9728): the content of the document, and the response."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from scopeguard.authorization_details import AuthorizationDetail
from scopeguard.config.dpop import DPoP
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.resource import Resource
from scopeguard.config.token_sources import TokenSource
from scopeguard.scopes import Requirement, conditions_in
from scopeguard.spec.challenge import Response

if TYPE_CHECKING:
    from scopeguard.spec.client_authentication import AssertionKey

# RFC 9728 section 2: "Defined values are ["header", "body", "query"]".
_METHODS: Final = ((TokenSource.HEADER, "header"), (TokenSource.FORM, "body"), (TokenSource.QUERY, "query"))


def build_metadata(
    resource: Resource,
    issuers: Iterable[str],
    methods: Iterable[TokenSource],
    requirements: Sequence[Requirement],
    dpop: DPoP | None = None,
    *,
    binds_certificates: bool = False,
) -> dict[str, Any]:
    """Return the metadata of *resource*, from its settings and from the guard.

    *issuers* are the trusted issuers, *methods* the places where tokens are accepted, and *requirements* those of all
    routes. RFC 9728 section 3.2: "Parameters with zero values MUST be omitted from the response."
    """
    hidden = {*resource.hidden_scopes, "offline_access"}  # asks for a refresh token, and permits nothing here
    required = (scope for requirement in requirements for scope in sorted(requirement.scopes))
    scopes = sorted(set(required)) if resource.scopes is None else resource.scopes
    servers = issuers if resource.authorization_servers is None else resource.authorization_servers
    accepted = frozenset(methods)
    members: dict[str, Any] = {
        "resource": resource.url,
        "authorization_servers": list(dict.fromkeys(servers)),
        "jwks_uri": resource.jwks_uri,
        "scopes_supported": [scope for scope in scopes if scope not in hidden],
        "bearer_methods_supported": [name for method, name in _METHODS if method in accepted],
        "resource_signing_alg_values_supported": list(resource.signing_algorithms),
        "resource_name": resource.name,
        **{f"resource_name#{language}": name for language, name in resource.names.items()},
        "resource_documentation": resource.documentation,
        "resource_policy_uri": resource.policy_uri,
        "resource_tos_uri": resource.tos_uri,
        "authorization_details_types_supported": _detail_types(requirements),
        "dpop_signing_alg_values_supported": [] if dpop is None else list(dpop.algorithms),
    }
    members["tls_client_certificate_bound_access_tokens"] = binds_certificates
    found = {name: value for name, value in members.items() if value}
    if dpop is not None and dpop.mode is DPoPMode.REQUIRED:
        # RFC 9728 section 2: an empty array means that no bearer methods are supported.
        found |= {"dpop_bound_access_tokens_required": True, "bearer_methods_supported": []}
    return found


def _detail_types(requirements: Iterable[Requirement]) -> list[str]:
    found = {
        condition.type
        for requirement in requirements
        for alternative in requirement.alternatives
        for condition in conditions_in(alternative)
        if isinstance(condition, AuthorizationDetail)
    }
    return sorted(found)


def parse_signing_key(resource: Resource) -> AssertionKey | None:
    """Return the parsed ``signing_key`` of *resource*.

    Raises :class:`ConfigurationError` if it does not fit its algorithm.
    """
    if resource.signing_key is None:
        return None
    from scopeguard.spec.client_authentication import AssertionKey  # few APIs sign their metadata

    return AssertionKey(
        material=resource.signing_key,
        algorithm=resource.signing_algorithm,
        kid=resource.signing_key_id,
        setting="resource: signing_key",
    )


def sign_metadata(members: dict[str, Any], key: AssertionKey) -> dict[str, Any]:
    """Return *members* with ``signed_metadata``: the same members in a JWS (RFC 9728 section 2.2).

    ``iss`` is the resource itself: "REQUIRED, [...] the party attesting to the claims in the signed metadata".
    """
    from scopeguard.spec.client_authentication import sign_jwt

    header = {"alg": key.algorithm, **({} if key.kid is None else {"kid": key.kid})}
    claims = {"iss": members["resource"], **members}
    return {**members, "signed_metadata": sign_jwt(header, claims, key)}


class MetadataResponse:
    """The document, ready to be sent: ``GET`` and ``HEAD``, conditional requests, and preflights of browsers."""

    __slots__ = ("_body", "_headers", "_tag")

    def __init__(self, members: dict[str, Any], max_age: int) -> None:
        self._body = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._headers = (
            ("cache-control", f"public, max-age={max_age}"),
            ("etag", self._tag),
            # Scripts of any origin may read the document: it is the same for all clients and needs no credentials.
            ("access-control-allow-origin", "*"),
        )

    def answer(self, method: str, *, if_none_match: str = "", is_preflight: bool = False) -> Response:
        """Return the response to a request. *if_none_match* is the value of that header field."""
        if method == "OPTIONS" and is_preflight:
            allowed = (("access-control-allow-methods", "GET, HEAD"), ("access-control-allow-headers", "*"))
            return Response(204, (*self._headers[2:], *allowed, ("access-control-max-age", "3600")), b"")
        if method not in ("GET", "HEAD"):
            return Response(405, (("allow", "GET, HEAD"), ("content-length", "0"), *self._headers[2:]), b"")
        # RFC 9110 section 13.1.2: the weak comparison, and "*" for any current representation.
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        if self._tag in tags or "*" in tags:
            return Response(304, self._headers, b"")
        described = (("content-type", "application/json"), ("content-length", str(len(self._body))))
        return Response(200, (*described, *self._headers), b"" if method == "HEAD" else self._body)


NOT_FOUND: Final = Response(
    404, (("content-length", "0"), ("cache-control", "no-store"), ("access-control-allow-origin", "*")), b""
)
"""The response for well-known paths without a resource. A document with another ``resource`` would mislead clients."""
