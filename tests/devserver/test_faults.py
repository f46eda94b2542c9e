"""Every fault can be switched on, is seen by a guard as what it is, and goes away again (T-12)."""

from __future__ import annotations

import gzip
import json

import pytest

from scopeguard import AuthorityUnavailable, ConfigurationError, Reason
from scopeguard.devserver import Endpoint, Mode, Outage, Unreachable
from scopeguard.devserver.faults import OVERSIZE
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Guard
from scopeguard.testing import FakeAuthority, FakeTransport

METADATA = "/.well-known/oauth-authorization-server"


def get(bench, endpoint: str) -> Answer:
    if endpoint == "introspection":
        answer = bench.post("/introspect", bench.resource, token=bench.token())
    else:
        answer = bench.authority.respond("GET", METADATA if endpoint == "metadata" else "/jwks")
    assert isinstance(answer, Answer)
    return answer


@pytest.mark.rule("T-12")
@pytest.mark.parametrize("endpoint", ["metadata", "jwks", "introspection"])
def test_each_endpoint_has_each_mode(bench, endpoint):
    good = get(bench, endpoint)
    answers = {}
    for mode in Mode:
        if mode is Mode.WRONG_ISSUER and endpoint == "jwks":
            continue
        with bench.authority.faults.mode(endpoint, mode):
            answers[mode] = get(bench, endpoint)
    assert (answers[Mode.REDIRECT].status, answers[Mode.REDIRECT].headers["location"]) == (
        302,
        "https://as.example/canary",
    )
    assert len(answers[Mode.OVERSIZE].body) > OVERSIZE
    assert json.loads(answers[Mode.OVERSIZE].body)
    assert len(answers[Mode.GZIP_BOMB].body) < 100_000
    assert answers[Mode.GZIP_BOMB].headers["content-encoding"] == "gzip"
    assert gzip.decompress(answers[Mode.GZIP_BOMB].body) == answers[Mode.OVERSIZE].body
    assert answers[Mode.GARBAGE].body.startswith(b"<!doctype html>")
    assert answers[Mode.WRONG_CONTENT_TYPE].headers["content-type"] == "text/html"
    assert json.loads(answers[Mode.WRONG_CONTENT_TYPE].body)
    assert answers[Mode.EMPTY].body == b"{}"
    assert answers[Mode.SERVER_ERROR].status == 500
    assert json.loads(answers[Mode.NORMAL].body).keys() == json.loads(good.body).keys()
    with pytest.raises(json.JSONDecodeError):
        json.loads(answers[Mode.TRUNCATED].body)
    if endpoint != "jwks":
        member = "issuer" if endpoint == "metadata" else "iss"
        assert json.loads(answers[Mode.WRONG_ISSUER].body)[member] == "https://as.example/"
    assert get(bench, endpoint).status == 200


@pytest.mark.rule("T-12", "T-05")
def test_the_wrong_issuer_does_not_show_in_an_inactive_answer(bench):
    with bench.authority.faults.mode("introspection", "wrong_issuer"):
        answer = bench.post("/introspect", bench.resource, token="sg-opaque-unknown")
    assert answer.body == b'{"active": false}'


def test_the_answer_of_an_endpoint_can_be_set(bench):
    answer = Answer(200, b'{"keys": [], "keys": []}', {"content-type": "application/json"})
    with bench.authority.faults.mode("jwks", answer):
        assert bench.authority.respond("GET", "/jwks") is answer


def test_switch_restores_the_previous_state(bench):
    faults = bench.authority.faults
    with faults.mode(Endpoint.JWKS, "empty"):
        with faults.mode("jwks", "garbage"):
            assert get(bench, "jwks").body.startswith(b"<")
        assert get(bench, "jwks").body == b"{}"
    with faults.slow(1), faults.slow(2):
        assert faults.delay == 2
    assert faults.delay == 0
    switch = faults.outage(Outage.UNREACHABLE)
    with pytest.raises(Unreachable):
        bench.authority.respond("GET", "/jwks")
    switch.off()
    assert get(bench, "jwks").status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        lambda faults: faults.mode("jwks", "purple"),
        lambda faults: faults.mode("kitchen", "empty"),
        lambda faults: faults.mode("token", "wrong_issuer"),
        lambda faults: faults.outage("flood"),
        lambda faults: faults.slow(True),
        lambda faults: faults.slow(10_000),
    ],
)
def test_an_unknown_fault_is_refused(bench, wrong):
    with pytest.raises(ConfigurationError):
        wrong(bench.authority.faults)


@pytest.mark.rule("T-12")
@pytest.mark.parametrize("endpoint", ["metadata", "jwks"])
@pytest.mark.parametrize("mode", [mode for mode in Mode if mode not in (Mode.NORMAL, Mode.WRONG_ISSUER)])
def test_a_guard_treats_each_fault_as_an_outage(endpoint, mode):
    """A-08, A-12, A-13, A-19 observe it; here it is the fault itself that is tested, and that it ends."""
    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    with authority.mode(endpoint, mode), pytest.raises(AuthorityUnavailable) as caught:
        guard.warm()
    down = mode is Mode.SERVER_ERROR
    assert caught.value.reason is (Reason.AUTHORITY_UNREACHABLE if down else Reason.AUTHORITY_ANSWER_INVALID)
    assert not [url for url in authority.requests if url.endswith("/canary")]
    authority.clock.advance(60)
    guard.warm()


@pytest.mark.rule("T-12")
@pytest.mark.parametrize(
    ("switch", "reason"),
    [
        (lambda authority: authority.outage(), Reason.AUTHORITY_UNREACHABLE),
        (lambda authority: authority.outage("unavailable"), Reason.AUTHORITY_UNREACHABLE),
        (lambda authority: authority.slow(5), Reason.AUTHORITY_TIMED_OUT),
        (lambda authority: authority.mode("metadata", "wrong_issuer"), Reason.AUTHORITY_ANSWER_INVALID),
    ],
)
def test_a_guard_sees_what_kind_of_outage_it_is(switch, reason):
    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    with switch(authority), pytest.raises(AuthorityUnavailable) as caught:
        guard.warm()
    assert caught.value.reason is reason
    authority.clock.advance(60)
    guard.warm()


def test_a_delay_shorter_than_the_timeout_is_passed_to_sleep(bench):
    slept: list[float] = []
    transport = FakeTransport(bench.authority, sleep=slept.append)
    bench.authority.faults.slow(2)
    request = Send(url=bench.authority.url(Endpoint.JWKS), authority=bench.issuer, timeout=2.5)
    assert transport.send(request).status == 200
    assert slept == [2]
