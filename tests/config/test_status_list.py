"""Status lists through a guard, sync and async. A transport of the test serves lists that the authority signed."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from scopeguard import Guard, StatusListPolicy
from scopeguard.devserver.keys import base64url, compact
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, Denied, Granted, Unavailable
from scopeguard.reasons import Reason
from scopeguard.testing import FakeAuthority
from storms import Storm, request_with

URI = "https://status.test/lists/1"
ACCEPTED = "application/statuslist+jwt"


class Lists:
    """A transport that serves one list of eight-bit statuses, and everything else as the authority does."""

    def __init__(self, authority: FakeAuthority) -> None:
        self.authority = authority
        self.statuses = bytearray(8)
        self.redirect: str | None = None
        self.down = False
        self.sends: list[Send] = []
        self.hosts: set[str] = set()

    def send(self, request: Send, /) -> Answer:
        self.hosts.add(request.url.split("/")[2])
        if request.url != URI:
            return self.authority.transport.send(request)
        self.sends.append(request)
        if self.down:
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority)
        if self.redirect is not None:
            return Answer(302, b"", {"location": self.redirect})
        return Answer(200, self.token().encode("ascii"), {"content-type": ACCEPTED})

    def token(self) -> str:
        now, key = self.authority.clock.wall(), self.authority.key()
        packed = base64url(zlib.compress(bytes(self.statuses)))
        claims = {
            "iss": self.authority.url,
            "sub": URI,
            "aud": self.authority.audience,
            "client_id": "x",
            "iat": now,
            "exp": now + 600,
            "ttl": 60,
            "status_list": {"bits": 8, "lst": packed},
        }
        return compact({"typ": "statuslist+jwt", "alg": key.algorithm, "kid": key.kid}, claims, key)

    def close(self) -> None: ...


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def lists(authority: FakeAuthority) -> Lists:
    return Lists(authority)


@pytest.fixture
def new_guard(lists: Lists) -> Iterator[Callable[..., Guard]]:
    open_: list[Guard] = []

    def make(**settings: Any) -> Guard:
        policy = StatusListPolicy(**{"allowed_origins": "https://status.test", **settings})
        issuer = replace(lists.authority.issuer, experimental_status_list=policy)
        guard = Guard(issuer, transport=lists, clock=lists.authority.clock)
        open_.append(guard)
        return guard

    yield make
    for guard in open_:
        guard.close()


@pytest.fixture(params=["threads", "asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def decide(runtime: str) -> Callable[[Guard, str], Decision]:
    def check(guard: Guard, token: str) -> Decision:
        if runtime == "threads":
            return guard.check(request_with(token))
        return anyio.run(guard.acheck, request_with(token), backend=runtime)

    return check


NewGuard = Callable[..., Guard]
Decide = Callable[[Guard, str], Decision]


def with_status(authority: FakeAuthority, idx: int = 0, uri: str = URI) -> str:
    return authority.mint("read", claims={"status": {"status_list": {"idx": idx, "uri": uri}}})


def reason(decision: Decision) -> Reason:
    assert isinstance(decision, Denied), decision
    assert decision.response.status == 401
    assert 'error="invalid_token"' in dict(decision.response.headers)["www-authenticate"]
    return decision.error.reason


@pytest.mark.rule("K-03", "K-15", "K-21")
def test_token_is_accepted_while_its_status_is_valid(lists: Lists, new_guard: NewGuard, decide: Decide):
    guard, token = new_guard(), with_status(lists.authority, 3)
    assert isinstance(decide(guard, token), Granted)
    lists.statuses[3] = 1
    assert isinstance(decide(guard, token), Granted)  # As in the held list.
    lists.authority.clock.advance(66)
    assert reason(decide(guard, token)) is Reason.TOKEN_NOT_ACTIVE
    assert isinstance(decide(guard, with_status(lists.authority, 4)), Granted)
    lists.statuses[3] = 0
    lists.authority.clock.advance(66)
    assert isinstance(decide(guard, token), Granted)
    assert [(send.url, send.accept, send.form) for send in lists.sends] == [(URI, ACCEPTED, None)] * 3


@pytest.mark.rule("K-16")
def test_outage_of_the_list_is_503(lists: Lists, new_guard: NewGuard, decide: Decide):
    lists.down = True
    decision = decide(new_guard(), with_status(lists.authority))
    assert isinstance(decision, Unavailable)
    assert decision.response.status == 503


@pytest.mark.rule("K-16")
def test_unavailable_status_is_tolerated_and_logged_if_configured(
    lists: Lists, new_guard: NewGuard, decide: Decide, caplog: pytest.LogCaptureFixture
):
    lists.down = True
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert isinstance(decide(new_guard(fail_open_dangerously=True), with_status(lists.authority)), Granted)
    assert [(record.levelname, URI in record.getMessage()) for record in caplog.records] == [("WARNING", True)]


@pytest.mark.rule("K-17")
@pytest.mark.parametrize("target", [URI, "https://evil.test/list"])
def test_redirect_is_not_followed(lists: Lists, new_guard: NewGuard, decide: Decide, target: str):
    lists.redirect = target
    assert isinstance(decide(new_guard(), with_status(lists.authority)), Unavailable)
    assert len(lists.sends) == 1
    assert lists.hosts == {"as.test", "status.test"}


@pytest.mark.rule("K-19")
@pytest.mark.parametrize("uri", ["https://169.254.169.254/latest/meta-data", "https://as.test/lists/1"])
def test_list_at_an_origin_that_is_not_allowed_is_not_fetched(
    lists: Lists, new_guard: NewGuard, decide: Decide, uri: str
):
    guard = new_guard()
    assert reason(decide(guard, with_status(lists.authority, uri=uri))) is Reason.UNEXPECTED_CLAIM
    assert lists.hosts == {"as.test"}
    assert uri not in lists.authority.requests


@pytest.mark.rule("K-22", "X-46")
def test_status_list_is_not_accepted_as_an_access_token(lists: Lists, new_guard: NewGuard, decide: Decide):
    assert reason(decide(new_guard(), lists.token())) is Reason.TYPE_REFUSED


def test_concurrent_requests_fetch_a_list_once(lists: Lists, new_guard: NewGuard, runtime: str):
    storm = Storm(runtime, new_guard())
    storm.start([with_status(lists.authority, index % 8) for index in range(40)])
    assert storm.end() == {"Granted": 40}
    assert len(lists.sends) == 1
