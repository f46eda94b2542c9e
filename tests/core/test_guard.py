"""The public guard: in a thread, on asyncio and on trio."""

from __future__ import annotations

import gc
import json
import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from forked import Child
from rsa_keys import rsa_key
from scopeguard import Guard, Issuer, RefusalLog
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.devserver.keys import SigningKey
from scopeguard.errors import AuthorityUnavailable, ConfigurationError, RequestTooLarge
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, DecisionEvent, Denied, Granted, Unavailable, engine_of
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.scopes import all_of
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.error_body import Problem
from scopeguard.testing import FakeAuthority, Network
from scopeguard.tokens import ANONYMOUS


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Iterator[Guard]:
    guard = guard_of(authority)
    yield guard
    guard.close()


def guard_of(authority: FakeAuthority, **options: Any) -> Guard:
    options = {"transport": authority.transport, "clock": authority.clock, **options}
    return Guard(options.pop("issuer", authority.issuer), **options)


def request_with(token: str | None = None, **options: Any) -> RequestView:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    headers += options.pop("headers", [])
    return RequestView(**{"method": "GET", "path": "/", "headers": HeaderList(headers), **options})


class Decide(Protocol):
    def __call__(self, guard: Guard, request: RequestView, *arguments: Any, **options: Any) -> Decision: ...


def _sync(guard: Guard, request: RequestView, *arguments: Any, **options: Any) -> Decision:
    return guard.check(request, *arguments, **options)


def _run_on(backend: str) -> Decide:
    def decide(guard: Guard, request: RequestView, *arguments: Any, **options: Any) -> Decision:
        read: Callable[[int], bytes] | None = options.pop("read_form", None)

        async def aread(limit: int) -> bytes:
            assert read is not None
            return read(limit)

        async def run() -> Decision:
            reader: Callable[[int], Awaitable[bytes]] | None = None if read is None else aread
            return await guard.acheck(request, *arguments, read_form=reader, **options)

        return anyio.run(run, backend=backend)

    return decide


RUNTIMES = {"thread": _sync, "asyncio": _run_on("asyncio"), "trio": _run_on("trio")}


@pytest.fixture(params=RUNTIMES)
def decide(request: pytest.FixtureRequest) -> Decide:
    runtime: Decide = RUNTIMES[request.param]
    return runtime


# -- settings


def test_guard_without_an_issuer_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="at least one Issuer"):
        Guard()


@pytest.mark.parametrize("alias", ["https://as.test", "https://one.test"])
def test_two_policies_for_one_issuer_are_a_configuration_error(alias: str):
    one = Issuer("https://one.test", audience="a", aliases={"https://as.test": {}})
    with pytest.raises(ConfigurationError, match="configured twice"):
        Guard(one, Issuer(alias, audience="b"))


def test_invalid_settings_are_refused_at_construction(authority: FakeAuthority):
    with pytest.raises(ConfigurationError, match="resource"):
        guard_of(authority, resource="http://api.test")
    with pytest.raises(ConfigurationError, match="alternatives"):
        guard_of(authority, realm="a", challenge=ChallengeStyle(realm="b"))
    with pytest.raises(ConfigurationError):
        guard_of(authority, token_sources=["cookie"])
    with pytest.raises(ConfigurationError):
        guard_of(authority, issuer=Issuer("https://as.test", audience="a", keys={"keys": []}))


def test_failing_body_writer_is_logged_and_the_request_still_refused(
    decide: Decide, authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    works = True

    def writer(problem: Problem) -> tuple[str, bytes]:
        if not works:
            raise RuntimeError("sg-secret-of-the-writer")
        return "text/plain", problem.title.encode()

    guard = guard_of(authority, challenge=ChallengeStyle(realm="r", body=writer))
    refused = decide(guard, request_with("no-token"))
    assert isinstance(refused, Denied)
    assert refused.response.body == b"Unauthorized"
    works = False
    for token, status in ((None, 401), ("no-token", 401), (authority.mint(scope="read"), 403)):
        refused = decide(guard, request_with(token), all_of("write"))
        assert isinstance(refused, Denied)
        assert (refused.response.status, json.loads(refused.response.body)["status"]) == (status, status)
        assert "www-authenticate" in dict(refused.response.headers)
    assert "a problem document was sent: the body writer raised RuntimeError" in caplog.text
    for _ in range(100):  # any caller may cause the line
        decide(guard, request_with("no-token"))
    assert caplog.text.count("a problem document was sent") <= RefusalLog().burst
    assert "sg-secret" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Bearer abc",), r"request: must be a RequestView, as in RequestView\(method=.*\), not str"),
        (({"method": "GET"},), r"request: must be a RequestView, .*, not dict"),
        ((None,), r"request: must be a RequestView, .*, not NoneType"),
        ((request_with(), "read"), r'requirement: must be a requirement, as in all_of\("rows.read"\), not str'),
        ((request_with(), ["read"]), r"requirement: must be a requirement, .*, not list"),
        ((request_with(), all_of), r"requirement: must be a requirement, .*, not function"),
    ],
    ids=["a header", "a dict", "None", "a scope", "a list", "the function"],
)
def test_check_needs_a_request_and_a_requirement(
    authority: FakeAuthority, decide: Decide, arguments: tuple[Any, ...], message: str
):
    """Fault: a value that a caller takes for a request or requirement. It may be a token, so no error shows it."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        decide(guard_of(authority), *arguments)
    assert "abc" not in str(caught.value)


def test_authorize_needs_a_requirement(authority: FakeAuthority):
    scope: Any = "read"
    with pytest.raises(ConfigurationError, match=r"requirement: must be a requirement, .*, not str"):
        guard_of(authority).authorize(None, scope, optional=True)


@pytest.mark.parametrize(
    ("options", "realm"),
    [
        ({}, "api"),
        ({"resource": "https://api.test"}, "https://api.test"),
        ({"resource": "https://api.test", "realm": "r"}, "r"),
        ({"challenge": ChallengeStyle(realm="s")}, "s"),
    ],
    ids=["default", "resource", "realm", "challenge"],
)
def test_realm_is_the_most_specific_setting(authority: FakeAuthority, options: dict[str, Any], realm: str):
    denied = guard_of(authority, **options).check(request_with())
    assert isinstance(denied, Denied)
    challenge = dict(denied.response.headers)["www-authenticate"]
    assert challenge.partition(", ")[0] == f'Bearer realm="{realm}"'


def test_construction_starts_no_thread_and_sends_nothing(authority: FakeAuthority):
    threads = set(threading.enumerate())
    guard = guard_of(authority)
    assert set(threading.enumerate()) <= threads
    assert authority.requests == []
    assert repr(guard) == "Guard('https://as.test')"
    assert guard.issuers == (authority.issuer,)


def test_query_tokens_on_all_routes_cause_a_warning(authority: FakeAuthority, caplog: pytest.LogCaptureFixture):
    guard_of(authority)
    assert "query" not in caplog.text
    guard_of(authority, token_sources=["header", "query"])
    assert "query string" in caplog.text


def test_token_sources_of_routes_are_checked_once(guard: Guard):
    """Checking them takes longer than the rest of a request."""
    engine, chosen = engine_of(guard), frozenset((TokenSource.HEADER, TokenSource.QUERY))
    assert engine.sources_for(chosen).methods == chosen
    assert engine.sources_for(chosen) is engine.sources_for(frozenset(chosen))
    assert engine.sources_for(None) is guard.sources


def test_implications_may_be_set_for_the_whole_api(decide: Decide, authority: FakeAuthority):
    guard = guard_of(authority, implies={"admin": ["read"]})
    decision = decide(guard, request_with(authority.mint("admin")), all_of("read"))
    assert isinstance(decision, Granted)
    assert decision.access_token.granted_scopes == ("admin",)
    guard.close()


# -- decisions


def test_valid_token_is_granted(decide: Decide, guard: Guard, authority: FakeAuthority):
    decision = decide(guard, request_with(authority.mint("read write", subject="alice")), all_of("read"))
    assert isinstance(decision, Granted)
    assert decision.access_token.subject == "alice"
    assert decision.access_token.scopes == {"read", "write"}


def test_a_request_without_a_token_is_challenged_without_an_error(decide: Decide, guard: Guard):
    decision = decide(guard, request_with(), all_of("read"))
    assert isinstance(decision, Denied)
    assert decision.response.status == 401
    challenge = dict(decision.response.headers)["www-authenticate"]
    assert "error" not in challenge
    assert 'scope="read"' in challenge


def test_missing_scope_is_403_listing_all_required_scopes(decide: Decide, guard: Guard, authority: FakeAuthority):
    decision = decide(guard, request_with(authority.mint("read")), all_of("read", "write"))
    assert isinstance(decision, Denied)
    assert decision.response.status == 403
    assert 'scope="read write"' in dict(decision.response.headers)["www-authenticate"]


@pytest.mark.rule("H-19", "A-22")
def test_an_outage_is_a_503_with_retry_after_and_no_challenge(decide: Decide, guard: Guard, authority: FakeAuthority):
    with authority.outage():
        for _ in range(3):
            decision = decide(guard, request_with(authority.mint()))
            assert isinstance(decision, Unavailable)
            assert decision.response.status == 503
            headers = dict(decision.response.headers)
            assert 1 <= int(headers["retry-after"]) <= 300
            assert "www-authenticate" not in headers
    authority.clock.advance(30)
    assert isinstance(decide(guard, request_with(authority.mint())), Granted)


def test_a_head_request_gets_no_body(decide: Decide, guard: Guard, authority: FakeAuthority):
    expired = authority.mint(expires_in=-60)
    for token, needed in ((None, None), (expired, None), (authority.mint(), all_of("read"))):
        get = decide(guard, request_with(token), needed)
        head = decide(guard, request_with(token, method="HEAD"), needed)
        assert isinstance(get, Denied)
        assert isinstance(head, Denied)
        assert get.response.body
        assert head.response.body == b""
        assert head.response.headers == get.response.headers
    with authority.outage():
        authority.rotate()
        head = decide(guard, request_with(authority.mint(), method="HEAD"))
    assert isinstance(head, Unavailable)
    assert head.response.body == b""


@pytest.mark.rule("X-81", "B-49")
def test_response_does_not_tell_why_a_token_is_invalid(decide: Decide, guard: Guard, authority: FakeAuthority):
    key = authority.key()
    decisions = [
        decide(guard, request_with(authority.mint(**overrides)))
        for overrides in (
            {"claims": {"iss": "https://evil.test"}},
            {"headers": {"kid": "unknown"}},
            {"key": SigningKey.generate("ES256", kid=key.kid)},
            {"audience": "https://other.test"},
        )
    ]
    assert [type(decision) for decision in decisions] == [Denied] * 4
    assert len({decision.response for decision in decisions if isinstance(decision, Denied)}) == 1


@pytest.mark.rule("J-21", "X-58")
def test_keys_with_equal_ids_are_chosen_by_type(decide: Decide, guard: Guard, authority: FakeAuthority):
    kid = authority.key().kid
    others = (SigningKey.generate(algorithm, kid=kid) for algorithm in ("ES384", "ES256"))
    for key in (SigningKey(kid=kid, algorithm="RS256", private_key=rsa_key(number=1)), *others):
        authority.authority.keys.publish(key.public_jwk())
    twin = SigningKey(kid=kid, algorithm="RS256", private_key=rsa_key())
    authority.authority.keys.publish(
        {**twin.public_jwk(), "n": "AQAB"}
    )  # An unusable key of the same id precedes the usable one.
    authority.authority.keys.publish(twin.public_jwk())
    assert isinstance(decide(guard, request_with(authority.mint())), Granted)
    assert isinstance(decide(guard, request_with(authority.mint(key=twin))), Granted)


@pytest.mark.rule("J-19")
def test_token_without_a_kid_is_tried_with_all_matching_keys(decide: Decide, guard: Guard, authority: FakeAuthority):
    old = authority.key()
    authority.rotate()
    assert isinstance(decide(guard, request_with(authority.mint(key=old, headers={"kid": None}))), Granted)
    assert isinstance(decide(guard, request_with(authority.mint(headers={"kid": None}))), Granted)


@pytest.mark.rule("P-07", "P-19", "P-18", "X-57")
def test_tokens_are_checked_only_with_the_keys_of_their_issuer(decide: Decide):
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    network = Network(one, two)
    guard = Guard(one.issuer, two.issuer, transport=network, clock=one.clock)
    two.authority.keys._active["ES256"] = SigningKey.generate("ES256", kid=one.key().kid)
    for authority in (one, two):
        decision = decide(guard, request_with(authority.mint()))
        assert isinstance(decision, Granted)
        assert decision.access_token.issuer == authority.url
    before = list(network.requests)
    stolen = one.mint(key=two.key(), claims={"iss": one.url})
    unknown = one.mint(claims={"iss": "https://three.test"})
    assert isinstance(decide(guard, request_with(unknown)), Denied)
    assert network.requests == before
    assert isinstance(decide(guard, request_with(stolen)), Denied)
    guard.close()


def test_token_with_an_alias_is_checked_by_its_issuer(decide: Decide, authority: FakeAuthority):
    issuer = Issuer(authority.url, audience=authority.audience, aliases={"as.test": {"client_id": "client"}})
    guard = guard_of(authority, issuer=issuer)
    assert guard.issuers == (issuer,)
    decision = decide(guard, request_with(authority.mint(claims={"iss": "as.test"})))
    assert isinstance(decision, Granted)
    assert decision.access_token.issuer == authority.url
    assert isinstance(decide(guard, request_with(authority.mint(claims={"iss": "as.test", "client_id": "x"}))), Denied)
    guard.close()


@pytest.mark.rule("B-55")
def test_optional_route_accepts_no_token_but_refuses_a_bad_one(decide: Decide, guard: Guard, authority: FakeAuthority):
    assert decide(guard, request_with(), all_of("read"), optional=True) is ANONYMOUS
    assert isinstance(decide(guard, request_with(), all_of("read")), Denied)
    basic = request_with(headers=[(b"authorization", b"Basic YTpi")])
    for request in (request_with(authority.mint(expires_in=-60)), request_with("x.y.z"), basic):
        assert isinstance(decide(guard, request, optional=True), Denied)
    decision = decide(guard, request_with(authority.mint("read")), all_of("write"), optional=True)
    assert isinstance(decision, Denied)
    with authority.outage():
        assert isinstance(
            decide(guard, request_with(authority.mint(headers={"kid": "new"})), optional=True), Unavailable
        )
        assert decide(guard, request_with(), optional=True) is ANONYMOUS


def test_verified_token_is_authorized_without_outbound_requests(guard: Guard, authority: FakeAuthority):
    granted = guard.check(request_with(authority.mint("read")))
    assert isinstance(granted, Granted)
    asked = len(authority.requests)
    token = granted.access_token
    assert guard.authorize(token, all_of("read")) == granted
    assert guard.authorize(token, None) == granted
    assert isinstance(guard.authorize(token, all_of("write")), Denied)
    assert guard.authorize(None, all_of("read"), optional=True) is ANONYMOUS
    nobody = guard.authorize(None, all_of("read"), request=request_with(method="HEAD"))
    assert isinstance(nobody, Denied)
    assert nobody.response.status == 401
    assert nobody.response.body == b""
    assert len(authority.requests) == asked


@pytest.mark.rule("H-14")
def test_hundred_concurrent_requests_each_get_their_token(guard: Guard, authority: FakeAuthority):
    tokens = {f"user-{i}": authority.mint(f"scope-{i}", subject=f"user-{i}") for i in range(100)}
    seen: dict[str, str | None] = {}

    async def one(name: str) -> None:
        decision = await guard.acheck(request_with(tokens[name]), all_of(name.replace("user", "scope")))
        assert isinstance(decision, Granted)
        seen[name] = decision.access_token.subject

    async def run_all() -> None:
        async with anyio.create_task_group() as group:
            for name in tokens:
                group.start_soon(one, name)

    for backend in ("asyncio", "trio"):
        seen.clear()
        anyio.run(run_all, backend=backend)
        assert seen == {name: name for name in tokens}


# -- where tokens may be

FORM = (b"content-type", b"application/x-www-form-urlencoded")
EVERYWHERE = TokenSources(methods=frozenset(TokenSource) - {TokenSource.API_KEY}, trusted_proxies=("*",))


def test_token_sources_of_a_route_replace_those_of_the_guard(decide: Decide, guard: Guard, authority: FakeAuthority):
    by_query = request_with(query=b"access_token=" + authority.mint().encode())
    assert isinstance(decide(guard, by_query), Denied)
    assert isinstance(decide(guard, by_query, sources=EVERYWHERE), Granted)


def test_form_is_read_with_the_callback_of_the_caller(decide: Decide, guard: Guard, authority: FakeAuthority):
    limits = []

    def read(limit: int) -> bytes:
        limits.append(limit)
        return b"a=b&access_token=" + authority.mint().encode()

    post = request_with(method="POST", headers=[FORM])
    assert isinstance(decide(guard, post, sources=EVERYWHERE, read_form=read), Granted)
    assert limits == [64 * 1024]


def test_without_a_form_callback_other_sources_still_count(decide: Decide, guard: Guard, authority: FakeAuthority):
    post = request_with(authority.mint(), method="POST", headers=[FORM])
    assert isinstance(decide(guard, post, sources=EVERYWHERE), Granted)
    only_form = TokenSources(methods=frozenset((TokenSource.FORM,)))
    with pytest.raises(ConfigurationError, match="cannot read forms"):
        decide(guard, post, sources=only_form)


def test_error_of_the_form_callback_is_reported_unchanged(decide: Decide, guard: Guard):
    def refuse_form(limit: int) -> bytes:
        raise RequestTooLarge(Reason.FORM_TOO_LARGE, limit=limit)

    def fail_to_read(limit: int) -> bytes:
        raise OSError("the connection is gone")

    post = request_with(method="POST", headers=[FORM])
    decision = decide(guard, post, sources=EVERYWHERE, read_form=refuse_form)
    assert isinstance(decision, Denied)
    assert decision.response.status == 413
    with pytest.raises(OSError, match="gone"):
        decide(guard, post, sources=EVERYWHERE, read_form=fail_to_read)


# -- cleartext

REMOTE: dict[str, Any] = {"secure": False, "client": "192.0.2.7"}


@pytest.mark.rule("B-56")
@pytest.mark.parametrize("place", ["header", "query", "form"])
def test_token_over_cleartext_is_refused_if_https_is_required(decide: Decide, authority: FakeAuthority, place: str):
    guard = guard_of(authority, require_https=True, token_sources=EVERYWHERE)
    token = authority.mint()

    def request(**options: Any) -> RequestView:
        if place == "header":
            return request_with(token, **options)
        if place == "query":
            return request_with(query=b"access_token=" + token.encode(), **options)
        return request_with(method="POST", headers=[FORM], **options)

    def read(limit: int) -> bytes:
        return b"access_token=" + token.encode()

    refused = decide(guard, request(**REMOTE), read_form=read)
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.HTTPS_REQUIRED
    assert refused.response.status == 400
    encrypted_or_near: tuple[dict[str, Any], ...] = (
        {"secure": True, "client": "192.0.2.7"},
        {"secure": False, "client": "127.0.0.1"},
        {"secure": False, "client": "::1"},
        {"secure": False, "client": None},
    )
    for fine in encrypted_or_near:
        assert isinstance(decide(guard, request(**fine), read_form=read), Granted)
    guard.close()


@pytest.mark.rule("B-56")
def test_request_without_a_token_over_cleartext_is_not_refused_for_it(decide: Decide, authority: FakeAuthority):
    guard = guard_of(authority, require_https=True, token_sources=EVERYWHERE)
    for request in (request_with(**REMOTE), request_with(method="POST", headers=[FORM], **REMOTE)):
        decision = decide(guard, request, read_form=lambda limit: b"a=b")
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.NO_CREDENTIALS


@pytest.mark.rule("B-56")
def test_token_over_cleartext_is_logged_once(
    decide: Decide, guard: Guard, authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    for _ in range(3):
        assert isinstance(decide(guard, request_with(authority.mint(), secure=False)), Granted)
        assert isinstance(decide(guard, request_with(**REMOTE)), Denied)
    assert "cleartext" not in caplog.text
    for _ in range(3):
        assert isinstance(decide(guard, request_with(authority.mint(), **REMOTE)), Granted)
    assert caplog.text.count("in cleartext http") == 1


# -- listeners


def test_listener_gets_each_decision_once(decide: Decide, authority: FakeAuthority):
    told: list[DecisionEvent] = []
    guard = guard_of(authority, on_decision=told.append)
    made = [
        decide(guard, request_with(authority.mint("read")), all_of("read")),
        decide(guard, request_with(authority.mint("read")), all_of("write")),
        decide(guard, request_with()),
        decide(guard, request_with(authority.mint(expires_in=-60))),
    ]
    with authority.outage():
        made.append(decide(guard, request_with(authority.mint(headers={"kid": "new"}))))
    assert [event.decision for event in told] == made
    assert [type(decision) for decision in made] == [Granted, Denied, Denied, Denied, Unavailable]
    guard.close()


@pytest.mark.rule("H-05")
def test_failing_listener_does_not_change_the_decision(
    decide: Decide, authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    def fail(event: DecisionEvent) -> None:
        raise RuntimeError("a bug in somebody's metrics")

    guard = guard_of(authority, on_decision=fail)
    assert isinstance(decide(guard, request_with(authority.mint())), Granted)
    assert isinstance(decide(guard, request_with()), Denied)
    with authority.outage():
        assert isinstance(decide(guard, request_with(authority.mint(headers={"kid": "new"}))), Unavailable)
    assert caplog.text.count("on_decision failed; the decision stands") == 3
    assert "a bug in somebody's metrics" in caplog.text
    # A listener that fails for every request must not fill the log either.
    for _ in range(50):
        decide(guard, request_with(authority.mint()))
    assert caplog.text.count("on_decision failed") == 10
    guard.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_listener_may_end_the_process(authority: FakeAuthority, error: type[BaseException]):
    def stop(event: DecisionEvent) -> None:
        raise error

    guard = guard_of(authority, on_decision=stop)
    with pytest.raises(error):
        guard.check(request_with())
    guard.close()


@pytest.mark.rule("X-77")
def test_log_shows_only_the_fingerprint_of_a_token(
    decide: Decide, guard: Guard, authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, logger="scopeguard")
    token = authority.mint("read")
    decide(guard, request_with(token), all_of("write"))
    assert f"token={fingerprint(token)}" in caplog.text
    for bad in (
        authority.mint(expires_in=-60),
        authority.mint(headers={"kid": "new"}),
        authority.mint(key=SigningKey.generate("ES256")),
        token[:-5],
        "sg-opaque-token",
    ):
        decide(guard, request_with(bad))
    with authority.outage():
        decide(guard, request_with(authority.mint(headers={"kid": "new"})))
    for part in (token, *token.split("."), "sg-opaque"):
        assert part not in caplog.text


# -- references that a decision keeps


def find_reachable(start: object) -> Iterator[object]:
    """Return every object that *start* keeps alive, except parts of the program itself."""
    seen: set[int] = set()
    todo = [start]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(thing))
        yield thing
        todo += gc.get_referents(thing)


@pytest.mark.rule("X-77")
def test_decision_keeps_no_reference_to_the_token_or_its_frames(decide: Decide, guard: Guard, authority: FakeAuthority):
    tokens = [
        authority.mint("read"),
        authority.mint(expires_in=-60),
        authority.mint(headers={"kid": "new"}),
        authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid)),
        authority.mint(claims={"iss": "https://evil.test"}),
    ]
    decisions = [(token, decide(guard, request_with(token), all_of("write"))) for token in tokens]
    decisions.append(("a b", decide(guard, request_with("a b"))))
    with authority.outage():
        tokens.append(authority.mint(headers={"kid": "newer"}))
        decisions.append((tokens[-1], decide(guard, request_with(tokens[-1]))))
    for token, decision in decisions:
        assert isinstance(decision, Denied | Unavailable)
        assert decision.error.__traceback__ is None
        assert decision.error.__context__ is None
        assert decision.error.__cause__ is None
        for thing in find_reachable(decision):
            assert not isinstance(thing, FrameType)
            if isinstance(thing, str):
                assert token not in thing
            if isinstance(thing, bytes):
                assert token.encode() not in thing


@pytest.mark.rule("X-77", "H-05")
def test_traceback_of_an_unexpected_error_shows_no_token_in_its_locals(decide: Decide, authority: FakeAuthority):
    """Error reporters record ``repr()`` of each local variable in the traceback."""
    guard = guard_of(authority, transport=Buggy(), token_sources=["header", "query"])
    token = authority.mint()
    for request in (request_with(token), request_with(query=b"access_token=" + token.encode())):
        authority.clock.advance(60)
        with pytest.raises(ZeroDivisionError) as raised:
            decide(guard, request)
        shown = 0
        for frame, _ in traceback.walk_tb(raised.value.__traceback__):
            if not frame.f_globals["__name__"].startswith("scopeguard."):
                continue
            for name, value in frame.f_locals.items():
                shown += 1
                text = repr(value)
                assert token not in text, name
                assert token.split(".")[1] not in text, name
        assert shown
    guard.close()


# -- bugs in transports


class Buggy:
    """A transport with a bug: it raises an unexpected exception."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate: threading.Event | None = None

    def send(self, request: Send, /) -> Answer:
        self.asked += 1
        if self.gate is not None:
            assert self.gate.wait(30)
        return Answer(1 // 0, b"")

    def close(self) -> None:
        pass


@pytest.mark.rule("H-05")
def test_exception_of_a_transport_is_raised_and_then_an_outage(decide: Decide, authority: FakeAuthority):
    transport = Buggy()
    guard = guard_of(authority, transport=transport)
    with pytest.raises(ZeroDivisionError):
        decide(guard, request_with(authority.mint()))
    # It is paced like any failure: the next request gets a 503 and does not call the transport.
    assert isinstance(decide(guard, request_with(authority.mint())), Unavailable)
    assert transport.asked == 1
    guard.close()


@pytest.mark.rule("H-05", "H-16")
def test_requests_that_wait_for_a_crashed_flight_end(authority: FakeAuthority):
    transport = Buggy()
    transport.gate = threading.Event()
    guard = guard_of(authority, transport=transport)
    results: list[object] = []

    async def one() -> None:
        try:
            results.append(await guard.acheck(request_with(authority.mint())))
        except ZeroDivisionError as error:
            results.append(error)

    async def run_all() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
            while not transport.asked:
                await anyio.lowlevel.checkpoint()
            assert transport.gate is not None
            transport.gate.set()

    anyio.run(run_all)
    assert sorted(type(result).__name__ for result in results) == ["Unavailable"] * 19 + ["ZeroDivisionError"]
    assert transport.asked == 1
    guard.close()


# -- any request

_ANY_TEXT = st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
_SEGMENTS = st.lists(st.binary(max_size=40), max_size=5).map(b".".join)


@pytest.mark.rule("X-33")
@settings(max_examples=300)
@given(
    authorization=st.lists(_ANY_TEXT | _SEGMENTS.map(lambda text: b"Bearer " + text), max_size=3),
    query=_ANY_TEXT | _SEGMENTS.map(lambda text: b"access_token=" + text),
    form=_ANY_TEXT | _SEGMENTS.map(lambda text: b"access_token=" + text),
    content_type=st.sampled_from([b"application/x-www-form-urlencoded", b"text/plain", b"\xff"]) | _ANY_TEXT,
    method=st.sampled_from(["GET", "POST", "HEAD", "\udcff"]),
)
def test_random_request_is_refused_without_outbound_requests(
    authorization: list[bytes], query: bytes, form: bytes, content_type: bytes, method: str
):
    headers = [(b"authorization", value) for value in authorization] + [(b"Content-Type", content_type)]
    request = RequestView(method=method, path="/\udcff", headers=HeaderList(headers), query=query, client="\udcff")
    guard, authority = run_fuzz()
    decision = guard.check(request, all_of("read"), sources=EVERYWHERE, read_form=lambda limit: form[:limit])
    assert isinstance(decision, Denied)
    assert 400 <= decision.response.status < 500
    assert authority.requests == []


@cache
def run_fuzz() -> tuple[Guard, FakeAuthority]:
    authority = FakeAuthority()
    return guard_of(authority), authority


# -- start and end


def test_warm_up_fetches_the_keys_of_each_issuer():
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    guard = Guard(one.issuer, two.issuer, transport=Network(one, two), clock=one.clock)
    guard.warm()
    assert [authority.transport.count("jwks") for authority in (one, two)] == [1, 1]
    guard.warm()
    anyio.run(guard.awarm)
    assert [authority.transport.count("jwks") for authority in (one, two)] == [1, 1]
    guard.close()


@pytest.mark.parametrize("backend", ["thread", "asyncio", "trio"])
def test_warm_up_tries_all_issuers_and_raises_the_first_failure(backend: str):
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    guard = Guard(one.issuer, two.issuer, transport=Network(one, two), clock=one.clock)
    with one.outage(), pytest.raises(AuthorityUnavailable) as raised:
        guard.warm() if backend == "thread" else anyio.run(guard.awarm, backend=backend)
    assert raised.value.authority == "https://one.test"
    assert two.transport.count("jwks") == 1
    guard.close()


def test_concurrent_warm_ups_both_raise_the_failure(authority: FakeAuthority):
    guard = guard_of(authority)
    results: list[str] = []

    def warm() -> None:
        try:
            guard.warm()
            results.append("warm")
        except AuthorityUnavailable:
            results.append("unavailable")

    with authority.outage(), authority.hold() as held:
        threads = [threading.Thread(target=warm) for _ in range(4)]
        for thread in threads:
            thread.start()
        held.wait_for_requests()
        held.release()
        for thread in threads:
            thread.join()
    assert results == ["unavailable"] * 4
    guard.close()


def test_closed_guard_can_be_used_again(decide: Decide, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scopeguard.edge.threads._IDLE_TIMEOUT", 600.0)
    others = set(threading.enumerate())  # Threads of guards that other tests left open.
    guard = guard_of(authority)
    for _ in range(3):
        authority.rotate()
        assert isinstance(decide(guard, request_with(authority.mint())), Granted)
        guard.close()
        authority.rotate()
        authority.clock.advance(20)
        assert isinstance(decide(guard, request_with(authority.mint())), Granted)
        anyio.run(guard.aclose)
    ours = [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("scopeguard")]
    for thread in ours:  # They are ending; otherwise they would wait for work much longer.
        thread.join(30)
    assert not [thread for thread in ours if thread.is_alive()]


@pytest.mark.rule("H-20")
def test_child_process_decides_without_the_flights_of_its_parent(authority: FakeAuthority):
    """As with gunicorn's preload: a worker is forked while a thread of the parent fetches keys."""
    guard = guard_of(authority)
    assert isinstance(guard.check(request_with(authority.mint())), Granted)
    authority.rotate()
    rotated = request_with(authority.mint())

    def check() -> None:
        authority.transport._holds.clear()
        authority.transport._lock = threading.Lock()
        assert isinstance(guard.check(rotated), Granted)
        for i in range(20):  # The child has a fresh budget: there is no flight to join.
            decision = guard.check(request_with(authority.mint(headers={"kid": str(i)})))
            assert isinstance(decision, Denied | Unavailable)
        assert authority.transport.count("jwks") <= 2 + 3
        assert isinstance(anyio.run(guard.acheck, rotated), Granted)
        guard.close()

    with authority.hold() as held:
        waiting = threading.Thread(target=lambda: guard.check(rotated))
        waiting.start()
        held.wait_for_requests()
        (record,) = engine_of(guard).issuers.all
        ring = record.ring
        ring._lock.acquire()  # As if another thread held it at this moment.
        child = Child(check)
        ring._lock.release()
        held.release()
    assert child.ok()
    waiting.join()
    assert isinstance(guard.check(rotated), Granted)
    guard.close()
