"""The development authority over HTTP: endpoints, CORS for Swagger UI, the start page, the control endpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from scopeguard import ConfigurationError
from scopeguard.devserver import Authority, KeyRing, create_app
from scopeguard.devserver.app import MAX_BODY

LOOPBACK = ("127.0.0.1", 50000)
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def client(bench) -> TestClient:
    return TestClient(create_app(bench.authority), base_url="http://127.0.0.1:9000", client=LOOPBACK)


@pytest.fixture
def control(client) -> Callable[..., Any]:
    def post(action: str, /, **body: Any) -> Any:
        return client.post(f"/control/{action}", json=body)

    return post


# -- endpoints


@pytest.mark.rule("T-01", "T-02", "T-04")
def test_answers_reach_the_wire_with_their_headers(bench, client):
    good = client.post("/token", data=GRANT, headers={"Authorization": bench.basic(bench.robot)})
    assert good.status_code == 200
    assert good.headers["content-type"] == "application/json"
    assert (good.headers["cache-control"], good.headers["pragma"]) == ("no-store", "no-cache")
    bad = client.post("/token", data=GRANT, auth=("robot", "sg-secret-wrong"))
    assert (bad.status_code, bad.json()["error"]) == (401, "invalid_client")
    assert bad.headers["www-authenticate"].startswith("Basic realm=")
    assert client.post("/introspect", data={"token": "x"}).status_code == 401


@pytest.mark.rule("T-03")
def test_form_encoded_credentials_are_read_off_the_wire(bench, client):
    answer = client.post("/token", data=GRANT, headers={"Authorization": bench.basic(bench.awkward)})
    assert answer.status_code == 200


@pytest.mark.rule("T-06")
def test_metadata_and_keys_are_served(bench, client):
    for path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
        assert client.get(path).json()["issuer"] == bench.issuer
    assert len(client.get("/jwks").json()["keys"]) == 1
    assert client.head("/jwks").content == b""


def test_unknown_path_is_404(client):
    assert client.get("/nothing").status_code == 404
    assert client.get("/token").status_code == 405
    assert client.delete("/token").status_code == 405


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"grant_type": "client_credentials"}', "application/json"),
        (b"grant_type=client_credentials", "text/plain"),
        (b"grant_type=%FF", "application/x-www-form-urlencoded"),
        (b"grant_type=\xff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(200)), "application/x-www-form-urlencoded"),
    ],
    ids=range(5),
)
def test_body_that_is_not_a_form_is_an_invalid_request(bench, client, content, kind):
    headers = {"Authorization": bench.basic(bench.robot), "Content-Type": kind}
    answer = client.post("/token", content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_media_type_may_have_parameters_and_capitals(bench, client):
    headers = {
        "Authorization": bench.basic(bench.robot),
        "Content-Type": "Application/X-WWW-Form-URLEncoded; charset=UTF-8",
    }
    assert client.post("/token", content=b"grant_type=client_credentials", headers=headers).status_code == 200


def test_a_body_is_read_up_to_a_limit(client):
    answer = client.post("/token", data={"a": "x" * MAX_BODY})
    assert answer.status_code == 413


def test_two_authorization_headers_count_as_none(bench, client):
    headers = [("Authorization", bench.basic(bench.robot)), ("Authorization", bench.basic(bench.robot))]
    assert client.post("/token", data=GRANT, headers=headers).status_code == 401


def test_requests_are_logged_without_query_body_and_headers(bench, client, caplog):
    caplog.set_level(logging.INFO, "scopeguard.devserver")
    headers = {"Authorization": bench.basic(bench.robot)}
    client.post("/token?client_secret=sg-secret-robot", data=GRANT, headers=headers)
    client.get("/a%1Bb")
    assert [record.getMessage() for record in caplog.records if record.name == "scopeguard.devserver"] == [
        "POST '/token': 200",
        "GET '/a\\x1bb': 404",
    ]


def test_an_authority_needs_a_whole_issuer_to_become_an_app():
    with pytest.raises(ConfigurationError, match="issuer"):
        create_app(Authority(audience="https://api.example", keys=KeyRing("ES256")))


def test_the_endpoints_are_below_the_path_of_the_issuer(bench):
    authority = Authority(
        "https://as.example/t1", audience=bench.api, clients=[bench.robot], keys=KeyRing("ES256"), clock=bench.clock
    )
    client = TestClient(create_app(authority), base_url="http://127.0.0.1:9000", client=LOOPBACK)
    headers = {"Authorization": bench.basic(bench.robot)}
    assert client.post("/t1/token", data=GRANT, headers=headers).status_code == 200
    assert client.post("/token", data=GRANT, headers=headers).status_code == 404
    assert client.get("/t1/jwks").status_code == 200
    assert client.post("/control/reset", json={}).status_code == 200


# -- CORS


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8000", "http://localhost:3000", "https://localhost", "http://[::1]:8000"]
)
def test_a_page_on_another_loopback_port_may_ask_for_tokens(bench, client, origin):
    """The requests of Swagger UI after "Authorize": a preflight for these headers, then the token request."""
    preflight = client.options(
        "/token",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-requested-with",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    allowed = {name.strip().lower() for name in preflight.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type", "x-requested-with"} <= allowed
    headers = {"Origin": origin, "Authorization": bench.basic(bench.robot)}
    answer = client.post("/token", data=GRANT, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        "https://attacker.test",
        "http://localhost.attacker.test",
        "http://127.0.0.1.attacker.test",
        "http://127.999.999.999:8000",
        "http://127.0.0.1@attacker.test",
        "http://attacker.test@127.0.0.1",
        "http://attacker.test/http://localhost",
        "http://localhost/",
        "http://localhost:no",
        "http://[::1",
        "file://localhost",
        "localhost",
        "null",
    ],
)
def test_no_other_page_may(bench, client, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/token", headers=headers).headers
    headers = {"Origin": origin, "Authorization": bench.basic(bench.robot)}
    assert "access-control-allow-origin" not in client.post("/token", data=GRANT, headers=headers).headers


@pytest.mark.parametrize("path", ["/introspect", "/revoke", "/control/rotate", "/jwks", "/"])
def test_pages_may_only_request_tokens(client, path):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options(path, headers=headers).headers


# -- the start page


@pytest.mark.rule("T-11")
def test_start_page_describes_the_server_and_its_use(bench, client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "FOR DEVELOPMENT ONLY" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert bench.robot.secret in answer.text
    assert "curl -s -u robot:sg-secret-robot -d grant_type=client_credentials https://as.example/token" in answer.text
    assert "/control/rotate" in answer.text


def test_secrets_are_shown_to_this_machine_only(bench):
    app = create_app(bench.authority)
    for client in (
        TestClient(app, base_url="http://127.0.0.1:9000", client=("192.0.2.7", 1)),
        TestClient(app, base_url="http://dev.example", client=LOOPBACK),
        TestClient(app, base_url="http://127.0.0.1", client=LOOPBACK, headers={"X-Forwarded-For": "192.0.2.7"}),
        TestClient(app, base_url="http://127.0.0.1", client=LOOPBACK, headers={"X-Real-IP": "192.0.2.7"}),
    ):
        page = client.get("/").text
        assert "robot" in page
        assert "sg-secret" not in page


def test_texts_on_the_page_are_escaped(bench):
    authority = Authority(bench.issuer, audience="<script>alert(1)</script>", keys=KeyRing("ES256"))
    page = TestClient(create_app(authority, control=False), base_url="http://127.0.0.1", client=LOOPBACK).get("/").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "/control/" not in page


# -- the control endpoint


def test_control_rotates_revokes_and_resets(bench, client, control):
    kid = bench.authority.keys.signing_key().kid
    token = bench.token()
    assert control("rotate").json() == {"done": "rotate"}
    assert len(client.get("/jwks").json()["keys"]) == 2
    assert control("rotate", overlap=0).status_code == 200
    assert kid not in [jwk["kid"] for jwk in client.get("/jwks").json()["keys"]]
    control("revoke", token=token)
    assert bench.authority.tokens.find(token) is None
    control("mode", endpoint="jwks", mode="empty")
    control("reset")
    assert len(client.get("/jwks").json()["keys"]) == 1


@pytest.mark.rule("T-12")
def test_control_switches_faults_on_and_off(bench, client, control):
    control("outage", kind="unavailable")
    assert client.get("/jwks").status_code == 503
    control("outage", kind=None)
    control("mode", endpoint="jwks", mode="garbage")
    assert client.get("/jwks").headers["content-type"].startswith("text/html")
    control("mode", endpoint="jwks", mode="normal")
    assert client.get("/jwks").headers["content-type"] == "application/json"
    control("slow", seconds=2.5)
    assert bench.authority.faults.delay == 2.5


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("rotate", {"overlap": "soon"}),
        ("revoke", {}),
        ("revoke", {"token": 7}),
        ("outage", {}),
        ("outage", {"kind": "flood"}),
        ("slow", {"seconds": -1}),
        ("slow", {"seconds": "2"}),
        ("mode", {"endpoint": "jwks"}),
        ("mode", {"endpoint": "kitchen", "mode": "garbage"}),
        ("mode", {"endpoint": "jwks", "mode": "purple"}),
        ("mode", {"endpoint": "jwks", "mode": "wrong_issuer"}),
    ],
)
def test_control_refuses_impossible_actions(control, action, body):
    answer = control(action, **body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_control_refuses_unknown_actions_and_formats(client):
    assert client.post("/control/explode", json={}).status_code == 404
    assert client.get("/control/reset").status_code in (404, 405)
    assert client.post("/control/reset", content=b"[]", headers={"Content-Type": "application/json"}).status_code == 400
    assert client.post("/control/reset", content=b"", headers={"Content-Type": "application/json"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"client": ("192.0.2.7", 1)}, {}),
        ({"client": ("::ffff:192.0.2.7", 1)}, {}),
        ({"base_url": "http://attacker.test"}, {}),
        ({"base_url": "http://localhost.attacker.test"}, {}),
        ({}, {"Host": "["}),
        ({}, {"X-Forwarded-For": "127.0.0.1"}),
        ({}, {"Forwarded": "for=127.0.0.1"}),
        ({}, {"Via": "1.1 proxy"}),
        ({}, {"X-Forwarded-Host": "localhost"}),
        ({}, {"X-Real-IP": "127.0.0.1"}),
        ({}, {"Origin": "http://localhost:3000"}),
        ({}, {"Origin": "https://attacker.test"}),
        ({}, {"Origin": "null"}),
    ],
    ids=range(13),
)
def test_control_endpoint_accepts_only_this_machine(bench, settings, headers):
    where = {"base_url": "http://127.0.0.1:9000", "client": LOOPBACK, **settings}
    kid = bench.authority.keys.signing_key().kid
    answer = TestClient(create_app(bench.authority), **where).post("/control/rotate", json={}, headers=headers)
    assert answer.status_code == 403
    assert bench.authority.keys.signing_key().kid == kid


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_control_endpoint_refuses_types_that_need_no_preflight(bench, client, kind):
    """These types need no preflight, so any page could post them to 127.0.0.1."""
    kid = bench.authority.keys.signing_key().kid
    answer = client.post("/control/rotate", content=json.dumps({}), headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert bench.authority.keys.signing_key().kid == kid


def test_the_servers_own_page_may_control_it(client, control):
    answer = client.post("/control/reset", json={}, headers={"Origin": "http://127.0.0.1:9000"})
    assert answer.status_code == 200


def test_control_can_be_left_out(bench):
    client = TestClient(create_app(bench.authority, control=False), base_url="http://127.0.0.1", client=LOOPBACK)
    assert client.post("/control/reset", json={}).status_code == 404
