"""The requests to the token endpoint, and the handling of its responses."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from scopeguard.client import (
    ClientCredentials,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenResponse,
)
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer
from scopeguard.reasons import Reason
from scopeguard.testing import FakeAuthority


@pytest.mark.rule("C-01", "C-02", "C-04")
def test_one_post_with_the_grant_and_the_scopes_authenticated_by_basic(call, credentials, endpoint, api):
    auth = credentials("https://as.example/token?tenant=a%2Fb", scopes=["read", "write"])
    assert call(auth, api()).status_code == 200
    (request,) = endpoint.seen
    assert request.url == "https://as.example/token?tenant=a%2Fb"
    assert request.form == (("grant_type", "client_credentials"), ("scope", "read write"))
    assert endpoint.basic == "client-1:sg-secret-1"


@pytest.mark.rule("C-03")
def test_client_secret_post_sends_id_and_secret_in_the_form_and_no_header(credentials, endpoint):
    credentials(auth_method="client_secret_post").token()
    (request,) = endpoint.seen
    assert request.authorization is None
    assert request.form == (
        ("grant_type", "client_credentials"),
        ("client_id", "client-1"),
        ("client_secret", "sg-secret-1"),
    )


@pytest.mark.rule("C-03")
def test_by_default_neither_id_nor_secret_is_in_the_form(credentials, endpoint):
    credentials().token()
    assert endpoint.forms == [[("grant_type", "client_credentials")]]
    assert endpoint.seen[0].authorization is not None


@pytest.mark.rule("C-02")
def test_reserved_and_foreign_characters_are_form_encoded_before_base64(credentials, endpoint):
    credentials(client_id="a:b", client_secret="p%+ü").token()
    assert endpoint.basic == "a%3Ab:p%25%2B%C3%BC"


@pytest.mark.rule("C-06", "C-07")
def test_resources_and_audiences_repeat_and_empty_values_are_not_sent(credentials, endpoint):
    credentials(
        scopes=(),
        resource=["https://api.example/v1", "urn:example:two"],
        audience="https://api.example",
        parameters={"organization": "org_1", "nothing": ""},
    ).token()
    assert endpoint.forms == [
        [
            ("grant_type", "client_credentials"),
            ("resource", "https://api.example/v1"),
            ("resource", "urn:example:two"),
            ("audience", "https://api.example"),
            ("organization", "org_1"),
        ]
    ]


GUID = "11111111-2222-3333-4444-555555555555"

UNWORKABLE = [
    pytest.param({"token_url": "https://as.example/token#f"}, "token_url", marks=pytest.mark.rule("C-05")),
    pytest.param({"token_url": "http://as.example/token"}, "token_url", marks=pytest.mark.rule("C-08")),
    pytest.param({"token_url": "https://user:pw@as.example/token"}, "token_url"),
    pytest.param({"token_url": "as.example/token"}, "token_url"),
    pytest.param({"issuer": "http://as.example"}, "issuer", marks=pytest.mark.rule("C-08")),
    pytest.param({"issuer": "https://as.example/?x"}, "issuer"),
    pytest.param({"resource": "https://api.example/#f"}, "resource", marks=pytest.mark.rule("C-07")),
    pytest.param({"resource": "/v1"}, "resource", marks=pytest.mark.rule("C-07")),
    pytest.param({"resource": ""}, "resource"),
    pytest.param({"client_id": ""}, "client_id"),
    pytest.param({"client_secret": ""}, "client_secret"),
    pytest.param({"client_secret": None}, "client_secret"),
    pytest.param({"scopes": ["read write"]}, "scopes"),
    pytest.param({"scopes": [""]}, "scopes"),
    pytest.param({"scopes": [1]}, "scopes"),
    pytest.param({"scopes": 1}, "scopes"),
    pytest.param({"parameters": {"client_secret": "x"}}, "client_secret", marks=pytest.mark.rule("C-01")),
    pytest.param({"parameters": {"scope": "x"}}, "scope", marks=pytest.mark.rule("C-01")),
    pytest.param({"parameters": {"x": 1}}, "parameters"),
    pytest.param({"parameters": {1: "x"}}, "parameters"),
    pytest.param({"parameters": [("x", "y")]}, "parameters"),
    pytest.param({"parameters": {"resource": "x"}, "resource": "urn:x"}, "resource", marks=pytest.mark.rule("C-01")),
    pytest.param({"resource": GUID}, "parameters={'resource': ...}", marks=pytest.mark.rule("C-07")),
    pytest.param({"token_types": [""]}, "token_types"),
    pytest.param({"token_types": ["DPoP"]}, "token_types", marks=pytest.mark.rule("C-10")),
    pytest.param({"token_types": "mac"}, "token_types", marks=pytest.mark.rule("C-10")),
    pytest.param({"token_types": [1]}, "token_types"),
    pytest.param({"token_type_optional": "false"}, "token_type_optional"),
    pytest.param({"scope_list": 1}, "scope_list"),
    pytest.param({"transport": "https://proxy.example"}, "transport"),
    pytest.param({"clock": 5}, "clock"),
    pytest.param({"auth_method": "none"}, "auth_method"),
    pytest.param({"auth_method": "private_key_jwt"}, "auth_method"),  # for introspection only
    pytest.param({"narrower_scope": "ignore"}, "narrower_scope"),
    pytest.param({"origins": "http://api.example"}, "origins", marks=pytest.mark.rule("C-25")),
    pytest.param({"origins": "https://api.example/v1"}, "origins"),
    pytest.param({"timeout": 0}, "timeout"),
    pytest.param({"timeout": float("inf")}, "timeout"),
    pytest.param({"default_lifetime": 0}, "default_lifetime"),
    pytest.param({"retries": -1}, "retries"),
    pytest.param({"retries": True}, "retries"),
    pytest.param({"retries": "2"}, "retries"),
    pytest.param({"retries": 1.5}, "retries"),
    pytest.param({"timeout": None}, "timeout"),
    pytest.param({"timeout": float("nan")}, "timeout"),
]


@pytest.mark.parametrize("settings, named", UNWORKABLE)
def test_settings_that_cannot_work_are_refused_by_name_at_construction(credentials, settings, named):
    with pytest.raises(ConfigurationError, match=re.escape(named)) as raised:
        credentials(**settings)
    assert "sg-secret" not in str(raised.value)


def test_a_resource_that_is_not_a_uri_is_sent_as_a_parameter(credentials, endpoint):
    """Entra's v1 endpoint takes an application id, AD FS any identifier."""
    credentials(parameters={"resource": GUID}).token()
    assert endpoint.forms == [[("grant_type", "client_credentials"), ("resource", GUID)]]


def test_loopback_may_be_http_and_one_scope_may_be_a_plain_string(credentials, endpoint):
    credentials("http://127.0.0.1:8080/token", scopes="read").token()
    assert endpoint.forms == [[("grant_type", "client_credentials"), ("scope", "read")]]


@pytest.mark.rule("C-18", "C-19")
@pytest.mark.parametrize(
    "status, error", [(401, "invalid_client"), (400, "unauthorized_client"), (400, "invalid_scope"), (400, "made_up")]
)
def test_a_refusal_is_raised_with_the_words_of_the_server_and_not_tried_again(
    call, credentials, endpoint, api, status, error
):
    endpoint.script = [
        endpoint.answer(status, error=error, error_description="Because.", error_uri="https://as.example/e")
    ]
    service = api()
    with pytest.raises(TokenEndpointError) as raised:
        call(credentials(), service)
    refusal = raised.value
    assert (refusal.status, refusal.error, refusal.error_description) == (status, error, "Because.")
    assert refusal.error_uri == "https://as.example/e"
    assert all(word in str(refusal) for word in ("https://as.example/token", error, "Because.", str(status)))
    assert len(endpoint.seen) == 1
    assert service.seen == []


@pytest.mark.rule("C-10", "C-27")
@pytest.mark.parametrize(
    "members",
    [
        {"access_token": "sg-opaque-x", "token_type": "mac"},
        {"access_token": "sg-opaque-x\r\nX-Injected: 1", "token_type": "Bearer"},
        {"token_type": "Bearer"},
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_and_nothing_goes_to_the_api(
    call, credentials, endpoint, api, members
):
    endpoint.script = [endpoint.answer(**members)]
    service = api()
    with pytest.raises(TokenEndpointError) as raised:
        call(credentials(), service)
    assert raised.value.status == 200
    assert raised.value.error is None
    assert service.seen == []


@pytest.mark.rule("C-26")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_token_endpoint_is_an_error(credentials, endpoint, status):
    endpoint.script = [Answer(status, b"", {"location": "https://elsewhere.example/token"})]
    with pytest.raises(TokenEndpointError, match="redirect"):
        credentials().token()
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-20")
def test_outages_are_retried_with_growing_pauses_and_jitter(call, credentials, endpoint, api):
    endpoint.script = [endpoint.answer(503), endpoint.outage(Reason.AUTHORITY_TIMED_OUT), endpoint.answer(429)]
    assert call(credentials(retries=3), api()).status_code == 200
    assert len(endpoint.seen) == 4
    for pause, longest in zip(credentials.pauses, [0.25, 0.5, 1.0], strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.rule("C-20")
@pytest.mark.parametrize("kind", ["status", "transport"])
def test_retries_are_bounded(call, credentials, endpoint, api, kind):
    endpoint.script = [endpoint.answer(500) if kind == "status" else endpoint.outage() for _ in range(9)]
    service = api()
    with pytest.raises(TokenEndpointUnavailable) as raised:
        call(credentials(retries=2), service)
    assert len(endpoint.seen) == 3
    assert raised.value.retry_after is None
    assert ("500" if kind == "status" else "authority_unreachable") in str(raised.value)
    assert service.seen == []


@pytest.mark.rule("C-20")
def test_no_retries_means_one_attempt(credentials, endpoint):
    endpoint.script = [endpoint.outage()]
    with pytest.raises(TokenEndpointUnavailable):
        credentials(retries=0).token()
    assert (len(endpoint.seen), credentials.pauses) == (1, [])


@pytest.mark.rule("C-20")
def test_oversized_or_malformed_answer_is_not_requested_again(credentials, endpoint):
    endpoint.script = [endpoint.outage(Reason.AUTHORITY_ANSWER_INVALID)]
    with pytest.raises(TokenEndpointUnavailable):
        credentials().token()
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-20")
def test_a_short_retry_after_is_waited_for(credentials, endpoint):
    endpoint.script = [endpoint.answer(503, {"retry-after": "4"})]
    credentials().token()
    assert credentials.pauses == [4.0]


@pytest.mark.rule("C-20")
@pytest.mark.parametrize("said, told", [("60", 60.0), ("86400", 300.0), ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0)])
def test_a_long_retry_after_is_handed_to_the_caller_and_kept_to(credentials, endpoint, clock, said, told):
    endpoint.script = [endpoint.answer(429, {"retry-after": said})]
    auth = credentials()
    for _ in range(3):
        with pytest.raises(TokenEndpointUnavailable) as raised:
            auth.token()
        assert raised.value.retry_after == told
        clock.now += told / 3 - 1e-6
    assert (len(endpoint.seen), credentials.pauses) == (1, [])
    clock.now += 1
    assert auth.token().access_token == "sg-opaque-1"


@pytest.mark.rule("C-20")
@pytest.mark.parametrize("status", [429, 503])
def test_pauses_grow_for_an_overloaded_server_that_names_no_time(call, credentials, endpoint, api, clock, status):
    endpoint.script = [endpoint.answer(status)] * 99
    auth = credentials(retries=0)
    for asked, pause in enumerate([0, 1, 2, 4, 8, 16, 32, 60, 60]):
        for part in (0.4, 0.5) if pause else ():
            clock.now += part * pause
            with pytest.raises(TokenEndpointUnavailable, match=str(status)):
                call(auth, api())
            assert len(endpoint.seen) == asked
        clock.now += 0.1 * pause + 1e-6
        with pytest.raises(TokenEndpointUnavailable) as raised:
            call(auth, api())
        assert (len(endpoint.seen), raised.value.status) == (asked + 1, status)
    clock.now += 60
    endpoint.script = []
    assert call(auth, api()).status_code == 200
    clock.now += 3600
    endpoint.script = [endpoint.answer(status)]
    with pytest.raises(TokenEndpointUnavailable):
        call(auth, api())
    clock.now += 1  # a fetch that worked began the pauses anew
    assert call(auth, api()).status_code == 200


@pytest.mark.rule("C-19", "C-20")
@pytest.mark.parametrize(
    "failure",
    [
        {"status": 500},
        {"status": 404},
        {"status": 400, "error": "invalid_scope"},
        {"status": 200, "access_token": "sg-opaque-x", "token_type": "mac"},
        {"status": 200, "access_token": "sg-opaque-x", "token_type": "Bearer", "scope": "other"},
        None,
    ],
    ids=["500", "404", "invalid_scope", "unusable", "narrower scope", "no connection"],
)
def test_any_other_failure_is_tried_again_once_and_then_backed_off_from(credentials, endpoint, clock, failure):
    endpoint.script = [endpoint.outage() if failure is None else endpoint.answer(**failure)] * 99
    auth = credentials(retries=0, scopes=["read"], narrower_scope="refuse")

    def fail(times):
        for _ in range(times):
            with pytest.raises((TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted)):
                auth.token()

    fail(20)
    assert len(endpoint.seen) == 2
    for asked, pause in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=3):
        clock.now += pause
        fail(3)
        assert len(endpoint.seen) == asked
    clock.now += 60
    endpoint.script = []
    assert auth.token().access_token == "sg-opaque-1"


@pytest.mark.rule("C-19")
@pytest.mark.parametrize(
    "status, error", [(401, "invalid_client"), (400, "invalid_client"), (400, "unauthorized_client"), (401, None)]
)
def test_a_refused_client_asks_again_after_a_minute_or_with_another_configuration(
    call, credentials, endpoint, api, clock, status, error
):
    endpoint.script = [endpoint.answer(status, **({"error": error} if error else {}))]
    auth = credentials()
    for _ in range(3):
        with pytest.raises(TokenEndpointError) as raised:
            call(auth, api())
        assert (raised.value.status, raised.value.error) == (status, error)
        clock.now += 19.9
    assert len(endpoint.seen) == 1
    assert call(credentials(client_secret="sg-secret-2"), api()).status_code == 200
    clock.now += 0.3
    assert call(auth, api()).status_code == 200


@pytest.mark.rule("C-20")
@pytest.mark.parametrize("said", ["0", "Fri, 15 Jan 2027 07:00:00 GMT"])
def test_a_retry_after_of_nothing_is_a_second(credentials, endpoint, clock, said):
    endpoint.script = [endpoint.answer(429, {"retry-after": said})]
    auth = credentials(retries=0)
    for _ in range(5):
        with pytest.raises(TokenEndpointUnavailable):
            auth.token()
    assert len(endpoint.seen) == 1
    clock.now += 1
    auth.token()


def test_failed_renewal_ahead_of_expiry_raises_no_error_and_backs_off(credentials, endpoint, clock, wait_for_flight):
    auth = credentials(retries=0)
    auth.token()
    clock.now += 3570
    endpoint.script = [endpoint.answer(401, error="invalid_client")]
    for _ in range(3):
        assert auth.token().access_token == "sg-opaque-1"
        wait_for_flight(auth)
        clock.now += 9
    assert len(endpoint.seen) == 2
    clock.now += 3  # expired; the client is still refused
    with pytest.raises(TokenEndpointError, match="invalid_client"):
        auth.token()
    assert len(endpoint.seen) == 2


# -- servers that deviate from RFC 6749


DEVIATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Apigee": ({"token_type": "BearerToken"}, {"token_types": ["BearerToken"]}),
    "eBay": ({"token_type": "Application Access Token"}, {"token_types": "application access token"}),
    "no token_type": ({}, {"token_type_optional": True}),
    "null": ({"token_type": None}, {"token_type_optional": True}),
    "scope as an array": ({"token_type": "Bearer", "scope": ["read", "write"]}, {"scope_list": True}),
}


@pytest.mark.rule("C-09", "C-10", "C-16")
@pytest.mark.parametrize("name", DEVIATIONS)
def test_each_deviation_is_refused_by_default_and_accepted_by_its_own_setting(call, credentials, endpoint, api, name):
    members, settings = DEVIATIONS[name]
    others = [other for _, other in DEVIATIONS.values() if other.keys() != settings.keys()]
    endpoint.script = [endpoint.answer(access_token="sg-opaque-x", expires_in="1799", **members)] * (len(others) + 2)
    for wrong in ({}, *others):
        with pytest.raises(TokenEndpointError, match=r"token_type|scope"):
            call(credentials(scopes=["read"], **wrong), api())
    service = api()
    call(credentials(scopes=["read"], **settings), service)
    assert service.tokens == ["Bearer sg-opaque-x"]


@pytest.mark.parametrize("name", ["Apigee", "scope as an array"])
def test_the_error_names_the_setting(credentials, endpoint, name):
    members, settings = DEVIATIONS[name]
    endpoint.script = [endpoint.answer(access_token="sg-opaque-x", **members)]
    with pytest.raises(TokenEndpointError, match=f"set {next(iter(settings))}"):
        credentials().token()


@pytest.mark.rule("C-10")
def test_token_type_of_another_kind_is_refused_with_any_setting(credentials, endpoint):
    for kind in ("DPoP", "mac", "N_A", "Bearer2"):
        endpoint.script = [endpoint.answer(access_token="sg-opaque-x", token_type=kind)]
        with pytest.raises(TokenEndpointError, match="token_type"):
            credentials(token_types=["BearerToken"], token_type_optional=True).token()


@pytest.mark.rule("C-27")
def test_a_token_with_an_exclamation_mark_is_sent_as_it_is(call, credentials, endpoint, api):
    """As Salesforce issues them: VSCHAR by RFC 6749 appendix A.12, and not a token68."""
    endpoint.script = [endpoint.answer(access_token="00D000000000001!AQcAQH0dMHZfz972Szmp", token_type="Bearer")]
    service = api()
    call(credentials(), service)
    assert service.tokens == ["Bearer 00D000000000001!AQcAQH0dMHZfz972Szmp"]


@pytest.mark.rule("C-16")
def test_a_narrower_scope_is_surfaced_and_logged(credentials, endpoint, caplog):
    endpoint.script = [endpoint.answer(access_token="sg-opaque-x", token_type="Bearer", scope="read openid")]
    token = credentials(scopes=["read", "write"]).token()
    assert token.scope == ("read", "openid")
    assert "missing: write" in caplog.text


@pytest.mark.rule("C-16")
@pytest.mark.parametrize("scope, granted", [("read", ("read",)), ("", ()), ("Read Write", ("Read", "Write"))])
def test_a_narrower_scope_is_refused_where_that_is_configured(call, credentials, endpoint, api, scope, granted):
    endpoint.script = [endpoint.answer(access_token="sg-opaque-x", token_type="Bearer", scope=scope)]
    service = api()
    with pytest.raises(ScopeNotGranted, match=r"missing: .*write") as raised:
        call(credentials(scopes=["read", "write"], narrower_scope="refuse"), service)
    assert raised.value.granted == granted
    assert raised.value.missing == tuple(scope for scope in ("read", "write") if scope not in granted)
    assert service.seen == []


@pytest.mark.rule("C-16")
@pytest.mark.parametrize("scope", ["write read", "read write admin", None])
def test_requested_scopes_suffice_and_an_absent_scope_means_the_requested_ones(credentials, endpoint, caplog, scope):
    endpoint.script = [endpoint.answer(access_token="sg-opaque-x", token_type="Bearer", scope=scope)]
    credentials(scopes=["read", "write"], narrower_scope="refuse").token()
    assert "missing" not in caplog.text


@pytest.mark.rule("C-15", "C-17")
def test_other_members_of_the_response_are_ignored_and_a_refresh_token_is_dropped(credentials, endpoint):
    endpoint.script = [
        endpoint.answer(
            access_token="sg-opaque-x", token_type="Bearer", expires_in=60, refresh_token="sg-secret-r", foo={"a": [1]}
        )
    ]
    token = credentials().token()
    assert [getattr(token, name) for name in token.__slots__] == ["sg-opaque-x", "Bearer", 60.0, None, None]


@pytest.mark.parametrize("kind", ["refused", "unavailable", "narrower"])
def test_errors_can_be_copied_and_pickled(credentials, endpoint, kind):
    endpoint.script = {
        "refused": [endpoint.answer(400, error="invalid_scope")],
        "unavailable": [endpoint.answer(503, {"retry-after": "9"})],
        "narrower": [endpoint.answer(access_token="sg-opaque-x", token_type="Bearer", scope="")],
    }[kind]
    with pytest.raises((TokenEndpointError, TokenEndpointUnavailable, ScopeNotGranted)) as raised:
        credentials(scopes=["a"], narrower_scope="refuse").token()
    for twin in (copy.copy(raised.value), pickle.loads(pickle.dumps(raised.value))):
        assert (type(twin), str(twin), vars(twin)) == (raised.type, str(raised.value), vars(raised.value))


@pytest.mark.parametrize("identifier", ["11111111-2222-3333-4444-555555555555", "api", "urn:acme:api"])
def test_the_fake_authority_accepts_a_resource_that_is_one_of_its_audiences(identifier: str):
    """Some servers name APIs by identifiers that are not URIs. Identifiers that are not configured stay refused."""
    authority = FakeAuthority(audience=identifier)

    def fetch(resource: str) -> TokenResponse:
        return ClientCredentials(
            authority.url + "/token",
            "client",
            "sg-secret-client",
            parameters={"resource": resource},
            transport=authority.transport,
            clock=authority.clock,
        ).token()

    assert fetch(identifier).token_type == "Bearer"
    with pytest.raises(TokenEndpointError, match="invalid_target"):
        fetch(identifier + "-other")
