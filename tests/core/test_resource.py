"""The protected resource: one identifier for validation and for metadata (RFC 9728)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from scopeguard import (
    AuthorizationDetail,
    ConfigurationError,
    Denied,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    RequestView,
    Resource,
    Response,
    Rule,
    all_of,
    any_of,
)
from scopeguard.devserver.keys import SigningKey
from scopeguard.guard import engine_of
from scopeguard.spec.resource_metadata_url import WELL_KNOWN, metadata_paths, metadata_url
from scopeguard.testing import FakeAuthority

RES = "https://api.example/v1"
ISS = "https://as.example"


def document_of(
    guard: Guard, path: str | None = None, method: str = "GET", query: str = "", **headers: Any
) -> Response:
    metadata, resource = engine_of(guard).metadata, guard.resource
    assert metadata is not None
    assert resource is not None
    answer = metadata.answer(method, metadata_paths(resource.url)[0][0], **headers)
    assert answer is not None
    return answer


def members_of(*arguments: Any, **settings: Any) -> dict[str, Any]:
    issuers = arguments or (Issuer(ISS),)
    found: dict[str, Any] = json.loads(document_of(Guard(*issuers, **{"resource": RES, **settings})).body)
    return found


@pytest.mark.rule("R-01", "R-02", "R-03", "R-04")
@pytest.mark.parametrize(
    ("resource", "url"),
    [
        (RES, f"https://api.example{WELL_KNOWN}/v1"),
        ("https://api.example", f"https://api.example{WELL_KNOWN}"),
        ("https://api.example/", f"https://api.example{WELL_KNOWN}"),
        ("https://api.example:8443/a/b/", f"https://api.example:8443{WELL_KNOWN}/a/b/"),
        ("https://h/r?t=1", f"https://h{WELL_KNOWN}/r?t=1"),
        ("http://127.0.0.1:8000/mcp", f"http://127.0.0.1:8000{WELL_KNOWN}/mcp"),
    ],
)
def test_the_well_known_path_is_inserted_after_the_host(resource: str, url: str):
    assert metadata_url(resource) == url


@pytest.mark.rule("R-02", "R-30", "MC-16", "N-02")
@pytest.mark.parametrize(
    ("resource", "path", "query", "status"),
    [
        (RES, f"{WELL_KNOWN}/v1", "", 200),
        (RES, WELL_KNOWN, "", 200),
        (RES, f"{WELL_KNOWN}/v1", "cache=no", 200),
        (RES, f"{WELL_KNOWN}/other", "", 404),
        (RES, f"{WELL_KNOWN}/v1/items", "", 404),
        (RES, f"{WELL_KNOWN}/V1", "", 404),
        (RES, f"{WELL_KNOWN}s", "", None),
        ("https://api.example/mcp/", f"{WELL_KNOWN}/mcp/", "", 200),
        ("https://api.example/mcp/", f"{WELL_KNOWN}/mcp", "", 200),
        ("https://h/r?t=1", f"{WELL_KNOWN}/r", "t=1", 200),
        ("https://h/r?t=1", f"{WELL_KNOWN}/r", "t=2", 404),
        ("https://h/r?t=1", f"{WELL_KNOWN}/r", "", 404),
    ],
)
@pytest.mark.filterwarnings("ignore:resource:UserWarning")
def test_only_the_paths_of_the_resource_have_a_document(resource: str, path: str, query: str, status: int | None):
    metadata = engine_of(Guard(Issuer(ISS), resource=resource)).metadata
    assert metadata is not None
    answer = metadata.answer("GET", path, query)
    assert (None if answer is None else answer.status) == status


@pytest.mark.rule("R-08", "R-10", "R-11", "R-13", "R-15", "N-01")
def test_document_has_the_values_in_force():
    assert members_of(Issuer(ISS), Issuer("https://as2.example", audience=[RES, "api"])) == {
        "resource": RES,
        "authorization_servers": [ISS, "https://as2.example"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.rule("R-12", "N-13", "MC-05", "G-14")
@pytest.mark.filterwarnings("ignore:offline_access:UserWarning")
def test_the_scopes_are_those_that_routes_require():
    rules = [
        Rule("/a", any_of("b", all_of("a", "offline_access"))),
        Rule("/c", all_of("secret")),
        Rule("/d", AuthorizationDetail("payment_initiation")),
    ]
    hidden = Resource(RES, hidden_scopes=["secret"])
    found = members_of(rules=rules, resource=hidden)
    assert found["scopes_supported"] == ["a", "b"]
    assert found["authorization_details_types_supported"] == ["payment_initiation"]
    assert members_of(rules=rules, resource=Resource(RES, scopes=["z", "offline_access"]))["scopes_supported"] == ["z"]
    guard = Guard(Issuer(ISS), resource=hidden, rules=rules, audit="off")
    denied = guard.check(RequestView(method="GET", path="/c", headers=HeaderList([])), all_of("secret"))
    assert isinstance(denied, Denied)  # hidden, and required all the same


@pytest.mark.rule("R-13")
def test_the_methods_are_those_of_the_guard_and_of_its_rules():
    assert members_of(token_sources=["header", "form"])["bearer_methods_supported"] == ["header", "body"]
    rules = [Rule("/a", token_sources=["query"])]
    assert members_of(rules=rules)["bearer_methods_supported"] == ["header", "query"]


@pytest.mark.rule("R-17", "R-18", "R-19")
def test_further_members_are_those_of_the_settings():
    resource = Resource(
        RES,
        name="Tables",
        names={"it": "Tabelle", "pt-BR": "Tabelas"},
        documentation="https://docs.example",
        policy_uri="https://api.example/policy",
        tos_uri="https://api.example/terms",
        jwks_uri="https://api.example/jwks",
        signing_algorithms=["ES256"],
        authorization_servers=["https://as3.example"],
    )
    assert members_of(resource=resource) == {
        "resource": RES,
        "authorization_servers": ["https://as3.example"],
        "jwks_uri": "https://api.example/jwks",
        "bearer_methods_supported": ["header"],
        "resource_signing_alg_values_supported": ["ES256"],
        "resource_name": "Tables",
        "resource_name#it": "Tabelle",
        "resource_name#pt-BR": "Tabelas",
        "resource_documentation": "https://docs.example",
        "resource_policy_uri": "https://api.example/policy",
        "resource_tos_uri": "https://api.example/terms",
    }


@pytest.mark.rule("R-20", "R-21")
def test_signed_metadata_says_the_same_as_the_plain_members():
    key = SigningKey.generate("ES256", kid="k")
    resource = Resource(RES, signing_key=key.private_jwk(), signing_key_id="k", name="T\u00fcbingen")
    plain = members_of(resource=resource, rules=[Rule("/a", all_of("a"))])
    signed = plain.pop("signed_metadata")
    assert jwt.get_unverified_header(signed) == {"alg": "ES256", "kid": "k"}
    public = jwt.PyJWK.from_dict(key.public_jwk()).key
    claims = jwt.decode(signed, public, algorithms=["ES256"])
    assert claims.pop("iss") == RES
    assert claims == plain


@pytest.mark.rule("R-07")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_not_allowed(method: str):
    answer = document_of(Guard(Issuer(ISS), resource=RES), method=method)
    assert (answer.status, answer.body, dict(answer.headers)["allow"]) == (405, b"", "GET, HEAD")


@pytest.mark.rule("R-07", "R-08", "R-27", "R-28")
def test_the_document_can_be_cached_and_read_by_browsers():
    guard = Guard(Issuer(ISS), resource=RES)
    answer = document_of(guard)
    headers = dict(answer.headers)
    assert (answer.status, headers["content-type"], headers["content-length"]) == (
        200,
        "application/json",
        str(len(answer.body)),
    )
    assert headers["cache-control"] == "public, max-age=3600"
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
    head = document_of(guard, method="HEAD")
    assert (head.status, head.headers, head.body) == (200, answer.headers, b"")
    for field in (headers["etag"], f"W/{headers['etag']}", f'"x", {headers["etag"]}', "*"):
        same = document_of(guard, if_none_match=field)
        assert (same.status, same.body, dict(same.headers)["etag"]) == (304, b"", headers["etag"])
    assert document_of(guard, if_none_match='"x"').status == 200
    preflight = document_of(guard, method="OPTIONS", is_preflight=True)
    assert (preflight.status, dict(preflight.headers)["access-control-allow-origin"]) == (204, "*")
    longer = Guard(Issuer(ISS), resource=Resource(RES, max_age=60))
    assert dict(document_of(longer).headers)["cache-control"] == "public, max-age=60"


@pytest.mark.rule("R-22", "R-24", "R-26", "N-10")
def test_every_challenge_names_the_url():
    authority = FakeAuthority(ISS, audience=RES)
    guard = Guard(Issuer(ISS), resource=RES, transport=authority.transport, clock=authority.clock)
    url = f'resource_metadata="https://api.example{WELL_KNOWN}/v1"'
    tokens: list[tuple[str | None, int]] = [(None, 401), ("x y", 400), ("a.b.c", 401), (authority.mint("read"), 403)]
    for token, status in tokens:
        fields = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        view = RequestView(method="GET", path="/", headers=HeaderList([*fields, (b"host", b"evil.example")]))
        denied = guard.check(view, all_of("write"))
        assert isinstance(denied, Denied)
        assert denied.response.status == status
        challenge = dict(denied.response.headers)["www-authenticate"]
        assert re.findall('resource_metadata="[^"]*"', challenge) == [url]


def test_a_resource_can_keep_its_metadata_to_itself():
    guard = Guard(Issuer(ISS), resource=Resource(RES, serve_metadata=False))
    assert engine_of(guard).metadata is None
    denied = guard.check(RequestView(method="GET", path="/", headers=HeaderList([])))
    assert isinstance(denied, Denied)
    assert dict(denied.response.headers)["www-authenticate"] == f'Bearer realm="{RES}"'


def sign_with(key: str, algorithm: str) -> Guard:
    return Guard(Issuer(ISS), resource=Resource(RES, signing_key=key, signing_algorithm=algorithm))


@pytest.mark.rule("R-05", "R-16")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Guard(Issuer(ISS), resource="http://api.example"), "resource: .* is cleartext"),
        (lambda: Resource("https://api.example/#x"), "must not have a fragment"),
        (lambda: Resource("https://api.example/#"), "must not have a fragment"),
        (lambda: Resource("urn:api"), "is not an https URL"),
        (lambda: Resource("https://u:p@api.example"), "credentials"),
        (lambda: Resource(RES, signing_algorithms=["none"]), "'none' must not be included"),
        (lambda: Resource(RES, names={"it_IT": "x"}), "is not a language tag"),
        (
            lambda: Guard(Issuer(ISS), resource=Resource(RES, signing_key="x")),
            "resource: signing_key: not a private key",
        ),
        (
            lambda: Guard(Issuer(ISS), resource=Resource(RES, signing_key="x", signing_algorithm="HS256")),
            "'HS256' is not",
        ),
    ],
)
def test_an_identifier_that_no_client_can_use_is_a_configuration_error(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.rule("R-06")
def test_a_query_in_the_identifier_warns():
    with pytest.warns(UserWarning, match="advises against a query"):
        Resource("https://api.example/?tenant=1")


@pytest.mark.rule("R-17")
def test_the_keys_of_the_authorization_server_are_not_those_of_the_resource():
    with pytest.warns(UserWarning, match="jwks_uri is the key set of an issuer"):
        Guard(Issuer(ISS, jwks_uri=f"{ISS}/keys"), resource=Resource(RES, jwks_uri=f"{ISS}/keys"))


@pytest.mark.rule("R-10", "MC-16")
def test_the_audience_and_the_resource_cannot_differ():
    with pytest.raises(ConfigurationError, match=r"audience does not contain the resource.*audience_differs=True"):
        Guard(Issuer(ISS, audience="api"), resource=RES)
    for issuer in (Issuer(ISS), Issuer(ISS, audience=RES), Issuer(ISS, audience=["api", RES])):
        (found,) = Guard(issuer, resource=RES).issuers
        assert found.audiences is not None
        assert RES in found.audiences
    differing = Guard(Issuer(ISS, audience="api"), resource=Resource(RES, audience_differs=True))
    assert differing.issuers == (Issuer(ISS, audience="api"),)


@pytest.mark.rule("R-31")
def test_the_document_holds_no_secret_and_no_internal_name():
    issuer = Issuer(
        ISS,
        internal_hosts=["keys.internal"],
        validate="introspection",
        introspection=Introspection(
            endpoint="https://keys.internal/introspect", client_id="the-client-id", client_secret="the-client-secret"
        ),
    )
    text = document_of(Guard(issuer, resource=RES)).body.decode()
    assert not re.search("internal|the-client-id|the-client-secret", text)
