"""The development authority: tokens, refusals, introspection and revocation."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scopeguard import ConfigurationError, HeaderList, Issuer, RequestView
from scopeguard.devserver import Authority, Client, ClientAuthMethod, KeyRing, ServiceAccount
from scopeguard.guard import Granted, Guard
from scopeguard.testing import FakeClock, FakeTransport


def parts(token: str) -> tuple[dict[str, object], dict[str, object]]:
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(payload)


# -- the token endpoint


@pytest.mark.rule("T-01")
def test_token_response_is_json_that_must_not_be_stored(bench):
    answer = bench.post("/token", bench.robot, grant_type="client_credentials", scope="read")
    assert answer.status == 200
    assert answer.headers == {"content-type": "application/json", "cache-control": "no-store", "pragma": "no-cache"}
    document = bench.read(answer)
    assert document.pop("access_token")
    assert document == {"token_type": "Bearer", "expires_in": 600, "scope": "read"}


@pytest.mark.rule("T-01")
def test_an_error_response_is_not_stored_either(bench):
    answer = bench.post("/token", bench.robot, grant_type="password")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"


@pytest.mark.rule("T-02")
def test_a_wrong_basic_secret_is_401_with_a_basic_challenge(bench):
    wrong = Client(client_id="robot", secret="sg-secret-wrong")
    answer = bench.post("/token", wrong, grant_type="client_credentials")
    assert bench.error(answer) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.rule("T-02")
@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": ["client_credentials", "client_credentials"]}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "invalid_request"),
        ({"grant_type": "client_credentials", "scope": "read admin"}, "invalid_scope"),
        ({"grant_type": "client_credentials", "scope": "read  write"}, "invalid_scope"),
        ({"grant_type": "client_credentials", "scope": 'a"b'}, "invalid_scope"),
        ({"grant_type": "client_credentials", "scope": ["read", "write"]}, "invalid_request"),
        ({"grant_type": "client_credentials", "resource": "https://nobody.example"}, "invalid_target"),
        ({"grant_type": "client_credentials", "resource": "api"}, "invalid_target"),
        ({"grant_type": "client_credentials", "resource": "https://api.example#f"}, "invalid_target"),
        ({"grant_type": "client_credentials", "resource": "http://["}, "invalid_target"),
        ({"grant_type": "client_credentials", "client_id": "somebody-else"}, "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "sg-secret-robot"}, "invalid_request"),
    ],
)
def test_every_other_error_is_400_and_has_its_code(bench, form, error):
    answer = bench.post("/token", bench.robot, **form)
    assert bench.error(answer) == (400, error)
    assert "www-authenticate" not in answer.headers


def test_refusal_of_a_resource_names_the_option(bench):
    answer = bench.post("/token", bench.robot, grant_type="client_credentials", resource="https://nobody.example")
    assert "--audience" in json.loads(answer.body)["error_description"]


def test_body_that_is_not_a_form_is_an_invalid_request(bench):
    answer = bench.authority.respond("POST", "/token", form=None, authorization=bench.basic(bench.robot))
    assert bench.error(answer) == (400, "invalid_request")


@pytest.mark.parametrize(("method", "path"), [("GET", "/token"), ("PUT", "/introspect"), ("POST", "/jwks")])
def test_another_method_is_not_allowed(bench, method, path):
    answer = bench.authority.respond(method, path)
    assert answer.status == 405
    assert method not in answer.headers["allow"]


@pytest.mark.rule("T-03")
def test_basic_credentials_are_form_decoded(bench):
    """The pair of I-04: an id with a colon and a secret with a percent sign, a plus and an umlaut."""
    assert bench.basic(bench.awkward) == "Basic " + base64.b64encode(b"a%3Ab:sg-secret-p%25%2B%C3%BC").decode()
    assert bench.token(bench.awkward)


@pytest.mark.rule("T-03")
def test_basic_credentials_that_are_not_form_encoded_are_different_ones(bench):
    plain = "Basic " + base64.b64encode("a:b:sg-secret-p%+ü".encode()).decode()
    form = (("grant_type", "client_credentials"),)
    answer = bench.authority.respond("POST", "/token", form=form, authorization=plain)
    assert bench.error(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(b"%FF:x").decode(),
        "Basic é",
        "Bearer sg-secret-robot",
        "Basic " + base64.b64encode(b"robot:").decode(),
        "Basic " + base64.b64encode(b":").decode(),
    ],
    ids=range(11),
)
def test_malformed_credentials_are_refused(bench, authorization):
    form = (("grant_type", "client_credentials"),)
    answer = bench.authority.respond("POST", "/token", form=form, authorization=authorization)
    assert bench.error(answer) == (401, "invalid_client")


KEYS = KeyRing("ES256")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.rule("T-03")
@given(client_id=TEXT, secret=TEXT)
@example(client_id=":", secret="%2B+")
def test_every_id_and_every_secret_can_be_sent_by_basic(client_id, secret):
    client = Client(client_id=client_id, secret=secret)
    authority = Authority("https://as.example", audience="a", clients=[client], keys=KEYS)
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
    authorization = "Basic " + base64.b64encode(pair).decode()
    assert authority.registry.authenticate({}, authorization) is client
    assert authority.registry.authenticate({"client_id": client_id, "client_secret": secret}, None) is client


@given(authorization=st.one_of(st.text(), st.text().map("Basic {}".format)), form=st.lists(st.tuples(TEXT, st.text())))
@example(authorization="Basic " + "/" * 8, form=[("grant_type", "client_credentials")])
@example(authorization="", form=[("client_id", "robot"), ("client_secret", "\ud800"), ("grant_type", "x")])
def test_random_request_is_answered_without_a_token(authorization, form):
    robot = Client(client_id="robot", secret="sg-secret-robot")
    authority = Authority("https://as.example", audience="a", clients=[robot], keys=KEYS)
    for path in ("/token", "/introspect", "/revoke"):
        answer = authority.respond("POST", path, form=tuple(form), authorization=authorization)
        assert answer.status in (400, 401)


def test_a_client_may_authenticate_in_the_form(bench):
    answer = bench.post(
        "/token", None, grant_type="client_credentials", client_id="robot", client_secret="sg-secret-robot"
    )
    assert answer.status == 200


def test_a_client_authenticates_by_its_own_methods_only(bench):
    only_basic = Client(client_id="b", secret="sg-secret-b", auth_methods=[ClientAuthMethod.BASIC])
    only_post = Client(client_id="p", secret="sg-secret-p", auth_methods=["client_secret_post"])
    for client in (only_basic, only_post):
        bench.authority.registry.add_client(client)
    by_post = {"grant_type": "client_credentials", "client_id": "b", "client_secret": "sg-secret-b"}
    assert bench.error(bench.post("/token", None, **by_post)) == (401, "invalid_client")
    assert bench.error(bench.post("/token", only_post, grant_type="client_credentials")) == (401, "invalid_client")
    assert bench.token(only_basic)


def test_without_a_scope_parameter_a_client_gets_all_it_may_have(bench):
    answer = bench.post("/token", bench.robot, grant_type="client_credentials")
    assert bench.read(answer)["scope"] == "read write"


# -- access tokens


@pytest.mark.rule("T-07")
def test_a_jwt_has_the_type_and_all_claims_of_rfc_9068(bench):
    token = bench.token(scope="read")
    header, claims = parts(token)
    assert header == {"typ": "at+jwt", "alg": "ES256", "kid": bench.authority.keys.signing_key().kid}
    assert claims.pop("jti")
    assert claims == {
        "iss": bench.issuer,
        "exp": bench.now + 600,
        "aud": bench.api,
        "sub": "robot",
        "client_id": "robot",
        "iat": bench.now,
        "scope": "read",
    }


@pytest.mark.rule("T-07")
@pytest.mark.parametrize(
    ("form", "audience"),
    [
        ({}, "https://api.example"),
        ({"resource": "https://other.example"}, "https://other.example"),
        ({"audience": "https://other.example"}, "https://other.example"),
        (
            {"resource": ["https://other.example", "https://api.example"]},
            ["https://other.example", "https://api.example"],
        ),
    ],
)
def test_audience_is_the_requested_resource_or_the_default(bench, form, audience):
    _, claims = parts(bench.token(**form))
    assert claims["aud"] == audience


@pytest.mark.rule("T-07")
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_strict_guard_accepts_issued_tokens(bench, algorithm):
    authority = Authority(
        bench.issuer, audience=bench.api, clients=[bench.robot], keys=KeyRing(algorithm), clock=bench.clock
    )
    guard = Guard(
        Issuer(bench.issuer, audience=bench.api, typ="at+jwt"),
        transport=FakeTransport(authority),
        clock=bench.clock,
    )
    bench.authority = authority
    request = RequestView(
        method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + bench.token().encode())])
    )
    decision = guard.check(request)
    assert isinstance(decision, Granted)
    assert decision.access_token.granted_scopes == ("read", "write")


def test_two_tokens_are_never_the_same(bench):
    assert bench.token() != bench.token()
    assert bench.token(bench.opaque) != bench.token(bench.opaque)


def test_an_opaque_token_says_nothing_and_begins_with_a_word_to_search_for(bench):
    token = bench.token(bench.opaque)
    assert token.startswith("sg-opaque-")
    assert "." not in token


# -- introspection


@pytest.mark.rule("T-04")
def test_introspection_needs_authentication(bench):
    answer = bench.post("/introspect", None, token=bench.token())
    assert bench.error(answer) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("kind", ["robot", "opaque"])
def test_active_token_is_described_to_its_api(bench, kind):
    token = bench.token(getattr(bench, kind), scope="read")
    answer = bench.post("/introspect", bench.resource, token=token)
    assert answer.headers["cache-control"] == "no-store"
    document = bench.read(answer)
    assert document.pop("jti")
    expires_in = 600 if kind == "robot" else 3600
    assert document == {
        "active": True,
        "token_type": "Bearer",
        "iss": bench.issuer,
        "exp": bench.now + expires_in,
        "aud": bench.api,
        "sub": kind,
        "client_id": kind,
        "iat": bench.now,
        "scope": "read",
    }


@pytest.mark.rule("T-05")
@pytest.mark.parametrize("kind", ["robot", "opaque"])
def test_token_not_active_for_the_caller_is_only_inactive(bench, kind):
    client = getattr(bench, kind)
    expired = bench.token(client)
    bench.clock.advance(3600)
    live, revoked = bench.token(client), bench.token(client)
    assert bench.post("/revoke", client, token=revoked).status == 200
    asked = {
        "unknown": bench.post("/introspect", bench.resource, token="sg-opaque-unknown"),
        "garbage": bench.post("/introspect", bench.resource, token="a.b.c"),
        "expired": bench.post("/introspect", bench.resource, token=expired),
        "revoked": bench.post("/introspect", bench.resource, token=revoked),
        "foreign audience": bench.post("/introspect", bench.other_resource, token=live),
        "no resource": bench.post("/introspect", bench.robot, token=live),
    }
    assert {name: answer.body for name, answer in asked.items()} == dict.fromkeys(asked, b'{"active": false}')
    assert {answer.status for answer in asked.values()} == {200}
    assert bench.read(bench.post("/introspect", bench.resource, token=live))["active"] is True


def test_introspection_without_a_token_is_an_invalid_request(bench):
    assert bench.error(bench.post("/introspect", bench.resource)) == (400, "invalid_request")


def test_changes_to_a_returned_answer_have_no_effect(bench):
    token = bench.token(resource=[bench.api, bench.other_api])
    issued = bench.authority.tokens.active(token, bench.now)
    assert issued is not None
    assert issued.audiences == (bench.api, bench.other_api)


# -- revocation


def test_revoking_needs_authentication(bench):
    assert bench.error(bench.post("/revoke", None, token=bench.token())) == (401, "invalid_client")


def test_revoking_an_unknown_token_succeeds(bench):
    answer = bench.post("/revoke", bench.robot, token="sg-opaque-unknown")
    assert (answer.status, answer.body) == (200, b"")


def test_a_client_revokes_its_own_tokens_only(bench):
    token = bench.token()
    assert bench.error(bench.post("/revoke", bench.opaque, token=token)) == (400, "invalid_request")
    assert bench.read(bench.post("/introspect", bench.resource, token=token))["active"] is True


# -- registered clients and users


@pytest.mark.rule("T-08")
def test_client_cannot_have_the_name_of_a_user(bench):
    with pytest.raises(ConfigurationError, match=r"'alice'.*subject"):
        bench.authority.registry.add_client(Client(client_id="alice", secret="sg-secret-alice"))
    assert "alice" not in bench.authority.registry.clients


@pytest.mark.rule("T-08")
def test_user_cannot_have_the_name_of_a_client(bench):
    with pytest.raises(ConfigurationError, match="'robot'"):
        bench.authority.registry.add_subject("robot")


@pytest.mark.rule("T-08")
def test_service_account_cannot_have_the_name_of_a_user_or_a_client(bench):
    key = KeyRing("ES256").signing_key().public_jwk()
    for taken in ("alice", "robot"):
        with pytest.raises(ConfigurationError, match=f"'{taken}'"):
            bench.authority.registry.add_service_account(ServiceAccount(email=taken, public_key=key))


def test_two_clients_cannot_share_an_id(bench):
    with pytest.raises(ConfigurationError, match="'robot'"):
        bench.authority.registry.add_client(bench.robot)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"client_id": ""}, "client_id"),
        ({"secret": ""}, "secret"),
        ({"lifetime": 0}, "lifetime"),
        ({"lifetime": True}, "lifetime"),
        ({"scopes": "read"}, "list"),
        ({"scopes": ["a b"]}, "several scopes"),
        ({"audiences": [""]}, "audiences"),
        ({"introspects": "https://api.example"}, "introspects"),
        ({"token_format": "paseto"}, "paseto"),
        ({"auth_methods": []}, "auth_methods"),
        ({"auth_methods": ["none"]}, "none"),
    ],
)
def test_a_client_that_cannot_work_is_refused_at_once(wrong, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        Client(**{"client_id": "c", "secret": "sg-secret-c", **wrong})
    assert "sg-secret" not in str(caught.value)


def test_no_secret_is_in_a_repr(bench):
    assert "sg-secret" not in repr(bench.robot)
    assert "sg-opaque" not in repr(bench.authority.tokens.find(bench.token(bench.opaque)))


@pytest.mark.parametrize("issuer", ["ftp://as.example", "https://as.example?x", "http://as.example#f", "as.example"])
def test_an_issuer_is_a_url_without_query_and_fragment(issuer):
    with pytest.raises(ConfigurationError, match="issuer"):
        Authority(issuer, audience="a")


def test_an_issuer_may_be_an_http_url_of_any_host_since_the_server_is_for_development():
    authority = Authority("http://devserver:9000", audience="a")
    assert authority.metadata()["token_endpoint"] == "http://devserver:9000/token"


def test_an_authority_needs_a_default_audience():
    with pytest.raises(ConfigurationError, match="audience"):
        Authority("https://as.example", audience="")


def test_requests_are_recorded_without_secrets(bench):
    bench.token()
    bench.authority.respond("GET", "/jwks")
    assert list(bench.authority.requests) == ["POST /token", "GET /jwks"]


def test_expired_tokens_are_forgotten_in_time():
    clock = FakeClock(1_800_000_000)
    authority = Authority("https://as.example", audience="a", keys=KeyRing("ES256"), clock=clock)
    for number in range(1024):
        authority.tokens.add(f"old-{number}", {"exp": clock.wall() + 1}, clock.wall())
    authority.tokens.add("young", {"exp": clock.wall() + 1000}, clock.wall())
    clock.advance(10)
    for number in range(1024):
        authority.tokens.add(f"new-{number}", {"exp": clock.wall() + 1}, clock.wall())
    assert authority.tokens.find("old-0") is None
    assert authority.tokens.find("young") is not None


def test_a_reset_forgets_tokens_faults_and_requests_and_keeps_the_key(bench):
    token, key = bench.token(), bench.authority.keys.signing_key()
    bench.authority.rotate()
    bench.authority.faults.outage("unavailable")
    bench.authority.reset()
    assert bench.authority.tokens.find(token) is None
    assert not bench.authority.requests
    kids = {jwk["kid"] for jwk in bench.read(bench.authority.respond("GET", "/jwks"))["keys"]}
    assert kids == {bench.authority.keys.signing_key().kid}
    assert key.kid not in kids
