"""The metadata of the development server: one document for RFC 8414 and OpenID Connect Discovery."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scopeguard.devserver.faults import Endpoint
from scopeguard.devserver.registry import Client, ClientAuthMethod, Registry, ServiceAccount
from scopeguard.devserver.token_requests import AUTHORIZATION_CODE, GRANTS


def make_metadata(
    registry: Registry,
    issuer: str,
    url: Callable[[Endpoint], str],
    algorithm: str,
    proof_algorithms: Iterable[str],
) -> dict[str, Any]:
    """Return the metadata of *issuer*. The authorization endpoint is in it if a client has a redirect URI.

    *url* returns the URL of an endpoint. *algorithm* signs tokens, and *proof_algorithms* may sign DPoP proofs.
    """
    confidential = [ClientAuthMethod.BASIC.value, ClientAuthMethod.POST.value]
    clients = registry.clients.values()
    public = [ClientAuthMethod.NONE.value] if any(client.is_public for client in clients) else []
    has_login = any(client.redirect_uris for client in clients)
    parties: tuple[Client | ServiceAccount, ...] = (*clients, *registry.service_accounts.values())
    return {
        "issuer": issuer,
        "token_endpoint": url(Endpoint.TOKEN),
        "jwks_uri": url(Endpoint.JWKS),
        "introspection_endpoint": url(Endpoint.INTROSPECTION),
        "revocation_endpoint": url(Endpoint.REVOCATION),
        "grant_types_supported": [grant for grant in GRANTS if has_login or grant != AUTHORIZATION_CODE],
        # RFC 8414 section 2 requires this member even of a server without an authorization endpoint.
        "response_types_supported": ["code"] if has_login else [],
        **(_login_metadata(url) if has_login else {}),
        "scopes_supported": sorted({scope for party in parties for scope in party.scopes}),
        "token_endpoint_auth_methods_supported": confidential + public,
        "introspection_endpoint_auth_methods_supported": confidential,
        "revocation_endpoint_auth_methods_supported": confidential,
        "dpop_signing_alg_values_supported": list(proof_algorithms),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
    }


def _login_metadata(url: Callable[[Endpoint], str]) -> dict[str, Any]:
    return {
        "authorization_endpoint": url(Endpoint.AUTHORIZATION),
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }
