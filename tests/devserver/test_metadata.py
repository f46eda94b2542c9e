"""The metadata is where clients look for it, and names the issuer exactly."""

from __future__ import annotations

import pytest

from scopeguard import ConfigurationError, HeaderList, Issuer, RequestView
from scopeguard.devserver import Authority, Client, Endpoint, KeyRing
from scopeguard.guard import Granted, Guard
from scopeguard.testing import FakeTransport


def authority(issuer: str, **settings) -> Authority:
    return Authority(issuer, audience="https://api.example", keys=KeyRing("ES256"), **settings)


@pytest.mark.rule("T-06", "A-01", "A-02", "A-03")
@pytest.mark.parametrize(
    ("issuer", "paths"),
    [
        (
            "https://as.example",
            {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
        ),
        (
            "https://as.example/t1",
            {
                "/.well-known/oauth-authorization-server/t1",
                "/.well-known/openid-configuration/t1",
                "/t1/.well-known/openid-configuration",
            },
        ),
        (
            "https://as.example/t1/",
            {
                "/.well-known/oauth-authorization-server/t1",
                "/.well-known/openid-configuration/t1",
                "/t1/.well-known/openid-configuration",
            },
        ),
    ],
)
def test_the_well_known_string_is_inserted_before_the_path_and_for_openid_appended_too(bench, issuer, paths):
    served = authority(issuer)
    candidates = {
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/t1",
        "/.well-known/oauth-authorization-server/t1/",
        "/.well-known/openid-configuration/t1",
        "/t1/.well-known/openid-configuration",
        "/t1/.well-known/oauth-authorization-server",
        "/t1//.well-known/openid-configuration",
    }
    found = {path: served.respond("GET", path) for path in candidates}
    assert {path for path, answer in found.items() if answer.status == 200} == paths
    assert {answer.status for path, answer in found.items() if path not in paths} == {404}
    assert {bench.read(found[path])["issuer"] for path in paths} == {issuer}


@pytest.mark.rule("T-06", "A-05")
@pytest.mark.parametrize("issuer", ["https://as.example", "https://as.example/t1", "https://as.example/t1/"])
def test_a_guard_finds_the_keys_from_the_issuer_alone(bench, issuer):
    bench.authority = authority(issuer, clients=[bench.robot], clock=bench.clock)
    guard = Guard(Issuer(issuer, audience=bench.api), transport=FakeTransport(bench.authority), clock=bench.clock)
    prefix = "/t1" if "t1" in issuer else ""
    answer = bench.post(f"{prefix}/token", bench.robot, grant_type="client_credentials")
    token = bench.read(answer)["access_token"].encode()
    request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token)]))
    assert isinstance(guard.check(request), Granted)


def test_document_names_every_endpoint_and_capability(bench):
    document = bench.read(bench.authority.respond("GET", "/.well-known/oauth-authorization-server"))
    for endpoint, member in (
        (Endpoint.TOKEN, "token_endpoint"),
        (Endpoint.JWKS, "jwks_uri"),
        (Endpoint.INTROSPECTION, "introspection_endpoint"),
        (Endpoint.REVOCATION, "revocation_endpoint"),
    ):
        assert document[member] == bench.authority.url(endpoint)
        assert bench.authority.endpoint_at(document[member].removeprefix(bench.issuer)) is endpoint
    assert document["scopes_supported"] == ["read", "write"]
    assert document["grant_types_supported"] == [
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]
    assert document["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]


def test_the_key_set_holds_public_members_only_and_its_age_can_be_set(bench):
    answer = bench.authority.respond("GET", "/jwks")
    assert "cache-control" not in answer.headers
    (jwk,) = bench.read(answer)["keys"]
    assert set(jwk) == {"kid", "use", "alg", "kty", "crv", "x", "y"}
    aged = authority("https://as.example", jwks_max_age=90)
    assert aged.respond("GET", "/jwks").headers["cache-control"] == "public, max-age=90"


def test_an_issuer_that_is_a_path_is_completed_by_its_server():
    unsettled = authority("/t1", clients=[Client(client_id="c", secret="sg-secret-c")])
    assert not unsettled.is_settled
    with pytest.raises(ConfigurationError, match="only a path"):
        _ = unsettled.issuer
    unsettled.settle("http://127.0.0.1:8000/")
    assert unsettled.issuer == "http://127.0.0.1:8000/t1"
    assert unsettled.url(Endpoint.METADATA) == "http://127.0.0.1:8000/.well-known/oauth-authorization-server/t1"
    unsettled.settle("http://127.0.0.1:9999")
    assert unsettled.issuer == "http://127.0.0.1:8000/t1"
