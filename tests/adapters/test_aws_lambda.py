"""Handlers and authorizers on AWS Lambda: each shape of event, and what the guard makes of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from doors import asgi_app, guard_for
from environment import ROOT, skip_or_fail
from lambda_events import ARN, Event, http_api, http_authorizer, load_balancer, parse_answer, rest_api, rest_authorizer
from scopeguard import (
    PUBLIC,
    ApiKey,
    ApiKeys,
    ConfigurationError,
    DPoP,
    Guard,
    MutualTLS,
    Rule,
    access_token,
    access_token_or_none,
    all_of,
    asgi,
)
from scopeguard.aws_lambda import AuthorizerUnavailable, Unauthorized, authorizer, protect
from scopeguard.rules.mcp import McpPolicy
from scopeguard.spec.api_key import make_key
from scopeguard.testing import FakeAuthority

Shape = Callable[..., Event]
SHAPES: list[Shape] = [rest_api, http_api, load_balancer]
PEM = (ROOT / "tests" / "data" / "rfc8705-appendix-a.pem").read_text("ascii")
THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
RULES = [Rule("/rows", all_of("read")), Rule("/rows/{row}", all_of("write")), Rule("/open", PUBLIC)]


def one_load_balancer(*arguments: Any, **options: Any) -> Event:
    return load_balancer(*arguments, **options, multiple=False)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


class Recorder:
    """A handler that keeps the events that it gets."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.events: list[Event] = []

    def __call__(self, event: Event, context: Any) -> Any:
        self.events.append(event)
        if self.answer is not None:
            return self.answer
        token = access_token_or_none()
        return {"statusCode": 200, "body": "none" if token is None else str(token.client_id)}


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]


# -- handlers


@pytest.mark.parametrize("shape", [*SHAPES, one_load_balancer])
def test_handler_runs_with_a_valid_token_only(authority: FakeAuthority, shape: Shape):
    handler = Recorder()
    guarded = protect(guard_for(authority), rules=RULES)(handler)
    for headers, status in (([], 401), (bearer("x"), 401), (bearer(authority.mint("other")), 403)):
        answer = parse_answer(guarded(shape("GET", "/rows", headers), None))
        assert answer.status == status
        assert answer.all("www-authenticate")
    assert handler.events == []
    answer = parse_answer(guarded(shape("GET", "/rows", bearer(authority.mint("read"))), None))
    assert (answer.status, answer.body) == (200, b"client")
    assert parse_answer(guarded(shape("GET", "/open"), None)).body == b"none"


def test_answer_of_the_handler_is_returned_as_it_is(authority: FakeAuthority):
    own = {"statusCode": 201, "headers": {"X-A": "1"}, "cookies": ["a=b"], "body": "AAA=", "isBase64Encoded": True}
    guarded = protect(guard_for(authority))(Recorder(own))
    assert guarded(http_api("GET", "/", bearer(authority.mint())), None) is own
    guarded = protect(guard_for(authority))(Recorder({"rows": [1]}))
    assert guarded(http_api("GET", "/", bearer(authority.mint())), None) == {"rows": [1]}


def test_decorated_handler_keeps_its_name(authority: FakeAuthority):
    @protect(guard_for(authority))
    def show_rows(event: Event, context: Any) -> Any:
        raise AssertionError(event, context)

    assert show_rows.__name__ == "show_rows"


def test_outage_is_503_with_the_time_to_retry(authority: FakeAuthority):
    guarded = protect(guard_for(authority))(Recorder())
    with authority.outage():
        for shape in SHAPES:
            answer = parse_answer(guarded(shape("GET", "/", bearer(authority.mint())), None))
            assert answer.status == 503
            assert answer.all("retry-after")


def test_refusal_has_the_form_of_the_event(authority: FakeAuthority):
    guarded = protect(guard_for(authority))(Recorder())
    rest, http, balanced, single = (guarded(shape("GET", "/"), None) for shape in (*SHAPES, one_load_balancer))
    assert rest["multiValueHeaders"]["www-authenticate"] == balanced["multiValueHeaders"]["www-authenticate"]
    assert http["headers"]["www-authenticate"] == single["headers"]["www-authenticate"]
    assert balanced["statusDescription"] == single["statusDescription"] == "401 Unauthorized"
    for answer in (rest, http, balanced, single):
        assert answer["isBase64Encoded"] is False
        assert isinstance(answer["body"], str)
    assert "headers" not in rest
    assert "multiValueHeaders" not in http


def test_header_fields_that_the_guard_adds_join_those_of_the_handler(authority: FakeAuthority):
    """A response to a request with a token in its URL is not for shared caches."""
    own = {"statusCode": 200, "headers": {"Cache-Control": "public"}, "multiValueHeaders": {"X-A": ["1", "2"]}}
    rules = [Rule("/rows", all_of("read"), token_sources=("header", "query"))]
    target = f"/rows?access_token={authority.mint('read')}"
    for shape in (rest_api, load_balancer):
        guarded = protect(guard_for(authority), rules=rules)(Recorder({**own, "body": "b"}))
        answer = guarded(shape("GET", target), None)
        assert answer["multiValueHeaders"]["cache-control"] == ["private"]
        assert answer["multiValueHeaders"]["x-a"] == ["1", "2"]
        assert answer["body"] == "b"
    guarded = protect(guard_for(authority), rules=rules)(
        Recorder({"statusCode": 200, "headers": {"Set-Cookie": "a=b"}, "cookies": ["c=d"]})
    )
    answer = guarded(http_api("GET", target), None)
    assert answer["cookies"] == ["c=d", "a=b"]
    assert set(answer["headers"]) == {"cache-control", "referrer-policy"}
    guarded = protect(guard_for(authority), rules=rules)(Recorder({"statusCode": 200, "cookies": ["c=d"]}))
    assert guarded(http_api("GET", target), None)["cookies"] == ["c=d"]


@pytest.mark.parametrize(("short", "body"), [("text", "text"), ({"rows": [1]}, '{"rows": [1]}')])
def test_short_answer_gets_header_fields_as_well(authority: FakeAuthority, short: Any, body: str):
    rules = [Rule("/rows", all_of("read"), token_sources=("query",))]
    guarded = protect(guard_for(authority), rules=rules)(Recorder(short))
    answer = guarded(http_api("GET", f"/rows?access_token={authority.mint('read')}"), None)
    assert (answer["statusCode"], answer["body"]) == (200, body)
    assert answer["headers"]["content-type"] == "application/json"


@pytest.mark.parametrize("shape", SHAPES)
def test_event_of_the_handler_has_no_token(authority: FakeAuthority, shape: Shape):
    handler = Recorder()
    rules = [Rule("/rows", all_of("read"), token_sources=("header", "query"))]
    guarded = protect(guard_for(authority), rules=rules)(handler)
    token = authority.mint("read")
    for target, headers in (
        ("/rows?a=b", bearer(token)),
        ("/rows?a=b", [("AUTHORIZATION", f"bearer {token}")]),
        (f"/rows?a=b&access_token={token}", []),
        (f"/rows?acces%73_token={token}&a=b", []),
    ):
        event = shape("GET", target, [("Accept", "*/*"), *headers])
        before = json.dumps(event)
        assert parse_answer(guarded(event, None)).status == 200
        assert token not in json.dumps(handler.events[-1])
        assert "*/*" in json.dumps(handler.events[-1])
        assert '"b"' in json.dumps(handler.events[-1]) or "a=b" in json.dumps(handler.events[-1])
        assert json.dumps(event) == before  # the caller's own event is unchanged


@pytest.mark.parametrize("shape", SHAPES)
def test_event_of_the_handler_has_no_api_key(authority: FakeAuthority, shape: Shape):
    """Fault: a credential of a newer kind that an adapter with its own list of credentials does not remove."""
    handler = Recorder()
    identifier, text, digest = make_key("acme", lambda size: b"x" * size)
    key = ApiKey(id=identifier, sha256=digest, client_id="client", expires_at=None)
    rules = [Rule("/rows", token_sources=("header", "api_key")), Rule("/open", PUBLIC)]
    for name in ("X-API-Key", "X-Row-Key"):
        keys = ApiKeys(prefix="acme", lookup=lambda _: key, issuer="https://api.test/keys", header=name)
        guarded = protect(guard_for(authority, api_keys=keys), rules=rules)(handler)
        for target, sent in (("/rows", name.lower()), ("/rows", name.upper()), ("/open", name)):
            event = shape("GET", target, [("Accept", "*/*"), (sent, text), (name.replace("-", "_"), text)])
            if shape is rest_api and name == "X-API-Key":  # API Gateway copies this field
                event["requestContext"]["identity"]["apiKey"] = text
            before = json.dumps(event)
            assert parse_answer(guarded(event, None)).status == 200
            assert text not in json.dumps(handler.events[-1])
            assert "*/*" in json.dumps(handler.events[-1])
            assert json.dumps(event) == before


def test_key_of_api_gateway_stays_in_the_event(authority: FakeAuthority):
    handler = Recorder()
    keys = ApiKeys(prefix="acme", lookup=lambda _: None, issuer="https://api.test/keys", header="X-Row-Key")
    event = rest_api("GET", "/", [("x-api-key", "of-a-usage-plan"), *bearer(authority.mint())])
    event["requestContext"]["identity"]["apiKey"] = "of-a-usage-plan"
    for given in ({}, {"api_keys": keys}):
        assert parse_answer(protect(guard_for(authority, **given))(handler)(event, None)).status == 200
        assert handler.events[-1]["requestContext"] == event["requestContext"]
        assert handler.events[-1]["headers"]["x-api-key"] == "of-a-usage-plan"


def test_parameter_that_is_no_token_is_kept(authority: FakeAuthority):
    handler = Recorder()
    guarded = protect(guard_for(authority))(handler)
    assert parse_answer(guarded(rest_api("GET", "/?access_token=7", bearer(authority.mint())), None)).status == 200
    assert handler.events[0]["queryStringParameters"] == {"access_token": "7"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "names",
    [("Authorization", "Authorization"), ("authorization", "AUTHORIZATION"), ("Authorization", "authorization")],
)
def test_two_authorization_fields_are_refused(authority: FakeAuthority, shape: Shape, names: tuple[str, str]):
    handler = Recorder()
    guarded = protect(guard_for(authority))(handler)
    token = authority.mint()
    headers = [(name, f"Bearer {token}") for name in names]
    assert parse_answer(guarded(shape("GET", "/", headers), None)).status == 400
    assert handler.events == []


def test_field_with_underscores_is_not_a_field_with_dashes(authority: FakeAuthority):
    issuer = replace(authority.issuer, token_header="x-access-token")
    guard = Guard(issuer, transport=authority.transport, clock=authority.clock)
    guarded = protect(guard)(Recorder())
    token = authority.mint()
    assert parse_answer(guarded(rest_api("GET", "/", [("x-access-token", token)]), None)).status == 200
    assert parse_answer(guarded(rest_api("GET", "/", [("x_access_token", token)]), None)).status == 401


def test_cookies_and_null_parts_of_events_are_read(authority: FakeAuthority):
    handler = Recorder()
    guarded = protect(guard_for(authority))(handler)
    event = http_api("GET", "/", [*bearer(authority.mint()), ("Cookie", "a=b; c=d")])
    assert event["cookies"] == ["a=b", "c=d"]
    assert parse_answer(guarded(event, None)).status == 200
    assert parse_answer(guarded({**rest_api("GET", "/"), "requestContext": None}, None)).status == 401


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoded", [False, True])
def test_token_in_a_form_is_found_in_a_body_of_either_form(authority: FakeAuthority, shape: Shape, encoded: bool):
    rules = [Rule("/rows", all_of("read"), methods=["POST"], token_sources=("form",))]
    guarded = protect(guard_for(authority), rules=rules)(Recorder())
    body = f"access_token={authority.mint('read')}&a=b"
    event = shape("POST", "/rows", [("Content-Type", "application/x-www-form-urlencoded")], body.encode())
    if encoded:
        event |= {"body": base64.b64encode(body.encode()).decode(), "isBase64Encoded": True}
    assert parse_answer(guarded(event, None)).status == 200


def test_body_that_is_not_base64_is_an_error(authority: FakeAuthority):
    event = rest_api("POST", "/", bearer(authority.mint())) | {"body": "%%%", "isBase64Encoded": True}
    with pytest.raises(ValueError, match="base64"):
        protect(guard_for(authority))(Recorder())(event, None)


@pytest.mark.parametrize(
    ("base_path", "target", "status"),
    [
        ("/prod", "/rows", 200),
        ("", "/rows", 403),  # no rule is about /prod/rows
        ("/other", "/rows", 403),
        ("/pro", "/rows", 403),
        ("/prod", "", 403),
    ],
)
def test_base_path_is_removed_from_the_path(authority: FakeAuthority, base_path: str, target: str, status: int):
    guarded = protect(guard_for(authority), rules=RULES, base_path=base_path)(Recorder())
    event = http_api("GET", target, bearer(authority.mint("read")), stage="prod")
    assert parse_answer(guarded(event, None)).status == status


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "target", ["/open/../rows", "/open%2f..%2frows", "/open/%2e%2e/rows", "/open%252f..%252frows", "/open;x", "//rows"]
)
def test_paths_that_may_be_read_in_several_ways_are_not_open(authority: FakeAuthority, shape: Shape, target: str):
    handler = Recorder()
    guarded = protect(guard_for(authority), rules=[Rule("/open/{name:path}", PUBLIC), *RULES[:2]])(handler)
    parse_answer(guarded(shape("GET", target), None))
    assert "rows" not in str([event.get("rawPath", event.get("path")) for event in handler.events])


@pytest.mark.parametrize("shape", SHAPES)
def test_preflight_that_the_guard_sends_itself_does_not_call_the_handler(authority: FakeAuthority, shape: Shape):
    """With cors_preflight="pass", the middleware asks the app which origins may read a refusal."""
    handler = Recorder()
    guarded = protect(guard_for(authority, cors_preflight="pass"))(handler)
    assert parse_answer(guarded(shape("POST", "/", [("Origin", "https://app.example")]), None)).status == 401
    assert handler.events == []
    preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST")]
    assert parse_answer(guarded(shape("OPTIONS", "/", preflight), None)).status == 200
    assert len(handler.events) == 1


def test_scheme_and_client_of_a_load_balancer_come_from_its_own_fields(authority: FakeAuthority):
    guarded = protect(guard_for(authority, require_https=True))(Recorder())
    headers = [*bearer(authority.mint()), ("X-Forwarded-For", "127.0.0.1")]
    assert parse_answer(guarded(load_balancer("GET", "/", headers), None)).status == 200
    assert parse_answer(guarded(load_balancer("GET", "/", headers, scheme="http"), None)).status == 400


def test_certificate_that_the_gateway_has_verified_counts_for_bound_tokens(authority: FakeAuthority):
    guarded = protect(guard_for(authority, mutual_tls=MutualTLS()))(Recorder())
    token = authority.mint(claims={"cnf": {"x5t#S256": THUMBPRINT}})
    certificate = {"clientCert": {"clientCertPem": PEM, "subjectDN": "CN=client"}}
    rest, http = rest_api("GET", "/", bearer(token)), http_api("GET", "/", bearer(token))
    for event in (rest, http):
        assert parse_answer(guarded(event, None)).status == 401
    rest["requestContext"]["identity"] |= certificate
    http["requestContext"]["authentication"] = certificate
    for event in (rest, http):
        assert parse_answer(guarded(event, None)).status == 200


def test_error_of_the_handler_is_its_own(authority: FakeAuthority):
    def fail(event: Event, context: Any) -> Any:
        raise KeyError(access_token().client_id)

    with pytest.raises(KeyError, match="client"):
        protect(guard_for(authority))(fail)(rest_api("GET", "/", bearer(authority.mint())), None)


@pytest.mark.parametrize(
    "event", [{}, {"Records": []}, {"httpMethod": None}, {"requestContext": {"eventType": "CONNECT"}}]
)
def test_event_that_is_no_request_does_not_reach_the_handler(authority: FakeAuthority, event: Event):
    handler = Recorder()
    with pytest.raises((TypeError, KeyError)):
        protect(guard_for(authority))(handler)(event, None)
    assert handler.events == []


# -- an ASGI app behind Mangum


@pytest.fixture
def current_loop() -> Iterator[None]:
    """Set an event loop for this thread. Mangum would make one, and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("current_loop")
@pytest.mark.parametrize("shape", SHAPES)
def test_mangum_gives_the_guard_all_that_it_needs(authority: FakeAuthority, shape: Shape):
    if find_spec("mangum") is None:
        skip_or_fail("no mangum: the extra dev installs it")
    from mangum import Mangum

    app = asgi.GuardMiddleware(asgi_app, guard=guard_for(authority), rules=RULES)
    handler = Mangum(app, lifespan="off")
    context: Any = SimpleNamespace()
    token = authority.mint("read")
    for headers, status in (([], 401), (bearer("x"), 401), (bearer(token), 200), (bearer(token) * 2, 400)):
        event = shape("GET", "/rows", [("Host", "api.test"), *headers])
        assert parse_answer(handler(event, context)).status == status
    assert parse_answer(handler(shape("GET", "/rows/1", [("Host", "api.test"), *bearer(token)]), context)).status == 403


# -- authorizers


def decide(authority: FakeAuthority, shape: Shape, *arguments: Any, **settings: Any) -> Event:
    answer: Event = authorizer(guard_for(authority), rules=RULES, **settings)(shape(*arguments), None)
    json.dumps(answer)
    return answer


def test_policy_allows_exactly_this_request(authority: FakeAuthority):
    answer = decide(authority, rest_authorizer, "GET", "/rows?a=b", bearer(authority.mint("read write")))
    assert answer["policyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{ARN}/GET/rows"}],
    }
    named = {"issuer": authority.url, "client_id": "client", "subject": "client", "scopes": "read write"}
    assert answer["context"] == named
    assert answer["principalId"] == "client"


def test_simple_response_allows_and_denies(authority: FakeAuthority):
    answer = decide(authority, http_authorizer, "GET", "/rows", bearer(authority.mint("read")))
    assert answer["isAuthorized"] is True
    assert answer["context"]["scopes"] == "read"
    for headers in ([], bearer("x"), bearer(authority.mint("other"))):
        assert decide(authority, http_authorizer, "GET", "/rows", headers) == {"isAuthorized": False, "context": {}}
    assert decide(authority, http_authorizer, "GET", "/open")["isAuthorized"] is True


def test_missing_or_invalid_token_is_unauthorized_and_a_missing_scope_a_denial(authority: FakeAuthority):
    for headers in ([], bearer("x")):
        with pytest.raises(Unauthorized, match=r"^Unauthorized$"):
            decide(authority, rest_authorizer, "GET", "/rows", headers)
    for method, target in (("GET", "/rows/1"), ("GET", "/elsewhere")):
        answer = decide(authority, rest_authorizer, method, target, bearer(authority.mint("read")))
        assert answer["policyDocument"]["Statement"][0]["Effect"] == "Deny"
        assert answer["context"] == {}
    assert decide(authority, rest_authorizer, "GET", "/open")["principalId"] == "anonymous"


@pytest.mark.parametrize("shape", [rest_authorizer, http_authorizer])
def test_two_tokens_are_not_authorized(authority: FakeAuthority, shape: Shape):
    headers = bearer(authority.mint("read")) * 2
    answer = decide(authority, shape, "GET", "/rows", headers)
    assert answer.get("isAuthorized") is not True
    assert "Allow" not in json.dumps(answer)


@pytest.mark.parametrize("row", ["*", "a*", "?", "${aws:username}", "$"])
def test_path_that_iam_takes_for_a_pattern_is_denied(authority: FakeAuthority, row: str):
    answer = decide(authority, rest_authorizer, "GET", f"/rows/{row}", bearer(authority.mint("write")))
    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Deny"


def test_stage_with_a_dollar_sign_is_allowed(authority: FakeAuthority):
    event = rest_authorizer("GET", "/rows", bearer(authority.mint("read")))
    event["methodArn"] = event["methodArn"].replace("/prod/", "/$default/")
    answer = authorizer(guard_for(authority), rules=RULES)(event, None)
    assert answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"


@pytest.mark.parametrize("shape", [rest_authorizer, http_authorizer])
def test_outage_is_neither_a_permission_nor_a_refusal(authority: FakeAuthority, shape: Shape):
    with authority.outage(), pytest.raises(AuthorizerUnavailable):
        decide(authority, shape, "GET", "/rows", bearer(authority.mint("read")))


@pytest.mark.parametrize("shape", [rest_authorizer, http_authorizer])
def test_metadata_of_the_resource_is_no_permission(authority: FakeAuthority, shape: Shape):
    guard = guard_for(authority, resource=authority.audience)
    answer = authorizer(guard)(shape("GET", "/.well-known/oauth-protected-resource"), None)
    assert "Allow" not in json.dumps(answer)
    assert answer.get("isAuthorized") is not True


@pytest.mark.parametrize(
    "event", [rest_api("GET", "/rows"), {"type": "TOKEN", "authorizationToken": "Bearer x", "methodArn": ARN}, {}]
)
def test_event_of_another_type_is_an_error(authority: FakeAuthority, event: Event):
    with pytest.raises(TypeError, match="type REQUEST"):
        authorizer(guard_for(authority))(event, None)


# -- settings


@pytest.mark.parametrize("base_path", ["prod", "/prod/", "/", 7])
def test_base_path_of_another_form_is_refused(authority: FakeAuthority, base_path: Any):
    for build in (protect, authorizer):
        with pytest.raises(ConfigurationError, match="base_path: must begin with a slash"):
            build(guard_for(authority), base_path=base_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_sources": ("header", "form")}, "sees no bodies"),
        ({"mcp": McpPolicy(rules=[])}, "sees no bodies"),
        (
            {"resource": "https://api.test", "dpop": DPoP(mode="required", nonce_keys=["k" * 43])},
            "an authorizer cannot send a nonce",
        ),
    ],
)
def test_authorizer_refuses_what_it_cannot_do(authority: FakeAuthority, settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        authorizer(guard_for(authority, **settings))
    with pytest.raises(ConfigurationError, match="sees no bodies"):
        authorizer(guard_for(authority), rules=[Rule("/rows", all_of("read"), token_sources=("form",))])
