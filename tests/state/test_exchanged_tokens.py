"""The results of exchanges: how long they are used, and which failures pause which exchanges."""

from __future__ import annotations

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.exchanged_tokens import ExchangedTokens

A, B, C, D = (bytes([number]) * 32 for number in range(4))


def token(text: str = "sg-opaque-1") -> TokenResponse:
    return TokenResponse(access_token=text, token_type="Bearer", expires_in=60.0, scope=None)


def make_state(max_entries: int = 10) -> ExchangedTokens[str]:
    return ExchangedTokens(max_entries)


def failure(state: ExchangedTokens[str], key: bytes, now: float, seen: int | None = None) -> str | None:
    outcome = state.find(key, now, 0.0, seen)
    return None if outcome is None else outcome.failure


def test_a_token_is_used_for_its_time_by_both_clocks():
    state = make_state()
    assert state.find(A, 0.0, 0.0) is None
    state.keep(A, token(), 60.0, 100.0, 1000.0)
    outcome = state.find(A, 159.0, 1059.0)
    assert outcome is not None
    assert outcome.token == token()
    assert state.find(A, 100.0, 1060.0) is None
    state.keep(A, token(), 60.0, 100.0, 1000.0)
    assert state.find(A, 160.0, 1000.0) is None
    assert len(state) == 0, "a token that is over is dropped"


def test_a_caller_that_waited_gets_the_result_even_if_it_has_expired():
    state = make_state()
    seen = state.number
    state.keep(A, token(), 0.0, 100.0, 1000.0)
    assert state.find(A, 100.0, 1000.0, seen) is not None
    assert state.find(A, 100.0, 1000.0, state.number) is None
    seen = state.number
    state.skip(B, "paused", 100.0)
    assert failure(state, B, 100.0, seen) == "paused"
    assert failure(state, B, 100.0) is None


def test_the_least_recently_used_result_goes_first():
    state = make_state(2)
    for key in (A, B, A, C):
        if state.find(key, 0.0, 0.0) is None:
            state.keep(key, token(), 60.0, 0.0, 0.0)
    assert [state.find(key, 0.0, 0.0) is not None for key in (A, B, C)] == [True, False, True]


def test_refusals_pause_one_token_for_longer_and_longer():
    state, now = make_state(), 0.0
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        state.refuse(A, "refused", now)
        assert failure(state, A, now + pause - 0.1) == "refused"
        assert failure(state, A, now + pause) is None
        assert state.pause(now) == 0.0
        now += pause
    state.keep(A, token(), 0.0, now, 0.0)
    state.refuse(A, "refused", now)
    assert failure(state, A, now + 1.0) is None, "a success ends the series"


def test_failures_of_the_server_pause_all_exchanges():
    state = make_state()
    state.fail(A, "down", 0.0, by_server=True, retry_after=7.0)
    assert state.pause(0.0) == 7.0
    assert state.last_failure == "down"
    assert failure(state, A, 0.0) is None, "the pause of all is enough"
    assert state.pause(7.0) == 0.0
    state.keep(A, token(), 60.0, 7.0, 0.0)
    assert state.has_answered_recently(7.0)


def test_failures_that_a_token_may_cause_pause_it_alone():
    state = make_state()
    for now in range(0, 400, 40):
        state.fail(A, "broken", float(now), by_server=False)
        assert state.pause(float(now)) == 0.0
        assert failure(state, A, float(now)) == "broken"


def test_failures_of_several_tokens_without_a_success_are_an_outage():
    state = make_state()
    for key in (A, B, C):
        state.fail(key, "broken", 0.0, by_server=False, timed_out=True)
    assert state.pause(0.0) > 0
    state.keep(D, token(), 60.0, 1.0, 0.0)
    assert state.pause(1.0) == 0.0


def test_a_token_that_an_api_refuses_is_discarded_once_a_second():
    state = make_state()
    assert state.discard(A, token(), 0.0), "nothing is there, so an exchange brings a new one"
    state.keep(A, token(), 60.0, 0.0, 0.0)
    assert not state.discard(A, token(), 0.9)
    assert state.discard(A, token("sg-opaque-0"), 0.9), "a newer one is there already"
    assert state.find(A, 0.9, 0.0) is not None
    assert state.discard(A, token(), 1.0)
    assert state.find(A, 1.0, 0.0) is None
    state.refuse(A, "refused", 1.0)
    assert not state.discard(A, token(), 1.0), "no newer one can be obtained now"
