"""The client with DPoP and signed assertions, between oidc-provider and a guarded API."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from peers import API_KEY_ID, Peer, secret_of
from scopeguard import DPoP, Guard, Introspection, Issuer
from scopeguard.client import ClientCredentials, DPoPKey
from scopeguard.wsgi import GuardMiddleware

NONCE_KEY = "a secret of the operator, 32 bytes or more"


def _app(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"rows"]


@pytest.mark.rule("C-31", "C-33", "C-34", "C-35")
@pytest.mark.parametrize("path", ["", "/tenant"], ids=["without nonces", "with nonces"])
@pytest.mark.parametrize("auth_method", ["client_secret_basic", "private_key_jwt"])
@pytest.mark.parametrize(("kind", "algorithm"), [("es256", "ES256"), ("ed25519", "EdDSA"), ("opaque", "ES256")])
def test_bound_tokens_open_the_api_with_the_nonces_of_both_servers(
    oidc_provider: Peer, api_key_pem: str, path: str, auth_method: str, kind: str, algorithm: str
):
    issuer, resource = oidc_provider.url + path, f"https://api.example/{kind}"
    authentication: dict[str, Any] = {"client_id": "machine:1", "client_secret": secret_of("machine:1")}
    if auth_method == "private_key_jwt":
        authentication = {
            "client_id": "api-key",
            "private_key": api_key_pem,
            "key_algorithm": "ES256",
            "key_id": API_KEY_ID,
        }
    key = DPoPKey(algorithm=algorithm)
    credentials = ClientCredentials.from_issuer(
        issuer, **authentication, auth_method=auth_method, scopes="read", resource=resource, dpop=key
    )
    guard = Guard(
        Issuer(
            issuer,
            audience=resource,
            validate="auto",
            introspection=Introspection(client_id="api:basic", client_secret=secret_of("api:basic")),
        ),
        dpop=DPoP(mode="required", base_url="https://api.example", nonce_keys=[NONCE_KEY]),
        audit="off",
    )
    transport = httpx.WSGITransport(app=GuardMiddleware(_app, guard=guard))
    before = oidc_provider.count(f"{path}/token")
    try:
        with httpx.Client(transport=transport, auth=credentials) as client:
            assert client.get(resource).status_code == 200
            assert client.get(resource).status_code == 200
        # The issuer with a path demands a nonce, which costs one more request.
        assert oidc_provider.count(f"{path}/token") - before == (2 if path else 1)
        token = credentials.token()
        assert token.token_type == "DPoP"
        thief = {"Authorization": f"DPoP {token.access_token}"}
        with httpx.Client(transport=transport) as client:
            assert client.get(resource, headers=thief).status_code == 401
    finally:
        guard.close()
