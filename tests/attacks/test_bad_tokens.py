"""Each hostile token of the testing kit, through each door: always refused, without a key fetch and without a
trace of the token."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doors import DOORS, Door, call_check, guard_for
from framework_doors import FRAMEWORK_DOORS
from scenarios import Exchange
from scopeguard import Denied, Guard, HeaderList, Issuer, RefusalLog, RequestView
from scopeguard.testing import BadToken, FakeAuthority, bad_tokens


class Attacked:
    """An API behind one door, and the corpus against it."""

    def __init__(self, door: Door, authority: FakeAuthority, corpus: Mapping[str, BadToken]) -> None:
        self.authority = authority
        self.corpus = corpus
        self.send = door.opened(guard_for(self.authority))
        good = Exchange(target="/none", headers=_bearer(self.authority.mint("read write")))
        assert self.send(good).status == 200  # A valid token is accepted, and the keys are cached.


def _bearer(token: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", b"Bearer " + token.encode()),)


def advance_monotonic_clock(authority: FakeAuthority, seconds: float) -> None:
    """Advance only the monotonic clock by *seconds*, so that the tokens of the corpus do not expire."""
    wall = authority.clock.wall()
    authority.clock.advance(seconds)
    authority.clock.set_wall(wall)


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture(scope="module")
def corpus(authority: FakeAuthority) -> Mapping[str, BadToken]:
    return bad_tokens(authority)


@pytest.fixture(scope="module", params=[*DOORS, *FRAMEWORK_DOORS], ids=lambda door: door.name)
def attacked(request: pytest.FixtureRequest, authority: FakeAuthority, corpus: Mapping[str, BadToken]) -> Attacked:
    return Attacked(request.param, authority, corpus)


def test_corpus_is_large_and_each_entry_has_a_description(attacked: Attacked):
    assert len(attacked.corpus) >= 120
    for name, bad in attacked.corpus.items():
        assert bad.status in (400, 401), name
        assert bad.why, name
        assert bad.rules, name


@pytest.mark.rule("X-01", "X-02", "X-04", "X-17", "X-40", "X-41", "X-42", "X-44", "X-45", "X-46", "X-47", "X-50")
@pytest.mark.rule("J-63")
def test_each_door_refuses_each_hostile_token(attacked: Attacked):
    wrong = []
    for name, bad in attacked.corpus.items():
        answer = attacked.send(Exchange(target="/none", headers=_bearer(bad.token)))
        if (
            answer.status == 503
        ):  # Its key is unknown, and the budget for key fetches is spent: an outage, not a refusal.
            advance_monotonic_clock(attacked.authority, float(answer.all("retry-after")[0]))
            answer = attacked.send(Exchange(target="/none", headers=_bearer(bad.token)))
        if answer.status != bad.status:
            wrong.append(f"{name}: {answer.status} instead of {bad.status} ({bad.why})")
        (challenge,) = answer.all("www-authenticate")
        if f'error="{"invalid_token" if bad.status == 401 else "invalid_request"}"' not in challenge:
            wrong.append(f"{name}: {challenge}")
        text = answer.body.decode("latin-1") + "".join(value for _, value in answer.headers)
        if any(len(segment) > 12 and segment in text for segment in bad.token.split(".")):
            wrong.append(f"{name}: the answer shows the token")
    assert not wrong, "\n".join(wrong)


@pytest.mark.rule("X-26", "P-18")
def test_hostile_tokens_cause_no_more_fetches_than_the_budget_allows(
    authority: FakeAuthority, corpus: Mapping[str, BadToken]
):
    guard = guard_for(authority)
    guard.warm()
    before = len(authority.requests)
    for bad in corpus.values():
        call_check(guard, Exchange(target="/none", headers=_bearer(bad.token)))
    # Unknown key ids and bad signatures may cause fetches of the key set: three, since the clock stands still.
    assert len(authority.requests) - before <= 3


@pytest.mark.rule("X-77", "B-50", "X-78")
def test_log_shows_no_hostile_token(
    authority: FakeAuthority, corpus: Mapping[str, BadToken], caplog: pytest.LogCaptureFixture
):
    guard = guard_for(authority, refusal_log=RefusalLog(interval=0))
    with caplog.at_level(logging.DEBUG):
        for bad in corpus.values():
            call_check(guard, Exchange(target="/none", headers=_bearer(bad.token)))
    records = [record for record in caplog.records if record.name == "scopeguard.decisions"]
    assert len(records) == len(corpus)
    for record in records:
        text = record.getMessage() + (record.exc_text or "")
        assert text.isprintable(), text
        assert text.isascii(), text
        assert not any(len(bad.token) > 20 and bad.token in text for bad in corpus.values()), text


@pytest.mark.rule("P-01", "P-03")
def test_strict_typ_refuses_the_whole_strict_corpus():
    authority = FakeAuthority()
    guard = Guard(replace(authority.issuer, typ="at+jwt"), transport=authority.transport, clock=authority.clock)
    for name, bad in bad_tokens(authority, strict=True).items():
        view = RequestView(method="GET", path="/", headers=HeaderList(_bearer(bad.token)))
        advance_monotonic_clock(authority, 10)  # One fetch for each unknown key.
        assert isinstance(guard.check(view), Denied), name


AUTHORITY = FakeAuthority()
GOOD = AUTHORITY.mint("read write")
KEYS = AUTHORITY.authority.keys.key_set(AUTHORITY.clock.wall())
GUARD = Guard(Issuer(AUTHORITY.url, audience=AUTHORITY.audience, keys=KEYS), clock=AUTHORITY.clock)


def judge(value: bytes) -> int:
    view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", value)]))
    decision = GUARD.check(view)
    return decision.error.status if isinstance(decision, Denied) else 200


@pytest.mark.rule("X-33")
@given(st.binary(max_size=300))
def test_random_header_bytes_are_refused_without_an_exception(value: bytes):
    assert judge(value) in (400, 401)
    assert judge(b"Bearer " + value) in (400, 401)


@pytest.mark.rule("X-33", "X-28")
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3))
def test_mutated_token_is_refused(position: int, replacement: bytes):
    good = GOOD.encode()
    mutated = good[:position] + replacement + good[position + 1 :]
    if mutated != good:
        assert judge(b"Bearer " + mutated) in (400, 401)
    assert judge(b"Bearer " + good) == 200
