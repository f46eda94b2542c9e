"""The client's token through expiry, renewal, refusal and failure. The time is an argument."""

from __future__ import annotations

import pytest

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.client_token import ClientToken, Look

WALL = 1_800_000_000.0


class Held(ClientToken[str]):
    """A :class:`ClientToken` whose two clocks agree unless *wall* is given."""

    def look(self, now, wall=None):
        return super().look(now, WALL + now if wall is None else wall)

    def refuse(self, token, now, wall=None):
        return super().refuse(token, now, WALL + now if wall is None else wall)

    def keep(self, token, lifetime, now, wall=None, age=0.0):
        super().keep(token, lifetime, now, WALL + now if wall is None else wall, age=age)


def a_token(name="sg-opaque-1"):
    return TokenResponse(access_token=name, token_type="Bearer", expires_in=None, scope=None)


@pytest.fixture
def held():
    return Held(claim=20.0)


def test_no_token_is_held_at_first(held):
    assert held.look(0.0) == Look(None, renew=False, generation=0)
    assert held.failure(0.0, seen=0) is None


@pytest.mark.rule("C-13")
@pytest.mark.parametrize("lifetime, ahead", [(60.0, 6.0), (300.0, 30.0), (3600.0, 30.0), (2.0, 0.2)])
def test_renewal_ahead_of_expiry_is_offered_to_exactly_one_caller(held, lifetime, ahead):
    token = a_token()
    held.keep(token, lifetime, now=100.0)
    assert held.generation == 1
    assert held.look(100.0 + lifetime - ahead - 1e-6) == Look(token, renew=False, generation=1)
    due = 100.0 + lifetime - ahead + 1e-6
    assert held.look(due) == Look(token, renew=True, generation=1)
    assert held.look(due) == Look(token, renew=False, generation=1)
    assert held.look(100.0 + lifetime).token is None


def test_claim_on_a_renewal_lapses(held):
    held.keep(a_token(), 3600.0, now=0.0)
    assert held.look(3575.0).renew
    assert not held.look(3594.9).renew
    assert held.look(3595.0).renew


@pytest.mark.rule("C-12")
@pytest.mark.parametrize(
    "lifetime, age", [(0.0, 0.0), (1.0, 0.0), (1.0, 5.0), (0.5, 0.0), (5.0, 5.0), (5.0, 60.0), (-3600.0, 0.0)]
)
def test_token_may_be_used_for_a_second_after_its_arrival(held, lifetime, age):
    """The class of input: a token with no remaining lifetime must not cause a token request for each use."""
    held.keep(a_token("sg-opaque-old"), 60.0, now=0.0)
    token = a_token()
    held.keep(token, lifetime, now=100.0, age=age)
    for now in (100.0, 100.5, 100.999):
        assert held.look(now) == Look(token, renew=False, generation=2)
    assert held.look(101.0) == Look(None, renew=False, generation=2)
    held.keep(token, lifetime, now=200.0, age=age)
    assert held.look(200.0, wall=WALL + 201.0).token is None  # The machine was suspended.


@pytest.mark.rule("C-21", "C-24")
def test_refused_token_is_not_used_again_and_a_newer_one_is(held):
    old, new = a_token(), a_token("sg-opaque-2")
    held.keep(old, 60.0, now=0.0)
    assert held.refuse(old, 1.0)
    assert held.look(1.0).token is None
    assert held.refuse(old, 1.0)  # Of another caller, which waits for the same fetch.
    held.keep(new, 60.0, now=1.0)
    assert held.refuse(old, 1.0)  # Of a late caller.
    assert held.look(1.0).token is new


@pytest.mark.rule("C-21")
def test_equal_text_is_the_same_token(held):
    held.keep(a_token(), 60.0, now=0.0)
    assert held.refuse(a_token(), 1.0)
    assert held.look(1.0).token is None


def test_repeated_refusals_replace_tokens_less_and_less_often(held):
    now = 0.0
    for number, pause in enumerate([0, 1, 2, 4, 8, 16, 32, 60, 60, 60]):
        token = a_token(f"sg-opaque-{number}")
        held.keep(token, 3600.0, now=now)
        if pause:
            assert not held.refuse(token, now + pause - 0.01)
            assert held.look(now + pause - 0.01).token is token
        now += pause
        assert held.refuse(token, now)


def test_an_accepted_token_makes_the_next_refusal_the_first_one(held):
    tokens = [a_token(f"sg-opaque-{number}") for number in range(4)]
    for now in range(3):
        held.keep(tokens[now], 3600.0, now=2.0 * now)
        assert held.refuse(tokens[now], 2.0 * now)
    held.accept(tokens[3])  # No token is held.
    held.keep(tokens[3], 3600.0, now=4.0)
    held.accept(tokens[0])  # Not the held token.
    assert not held.refuse(tokens[3], 5.0)
    held.accept(tokens[3])
    held.accept(tokens[3])
    assert held.refuse(tokens[3], 5.0)


def test_refused_token_is_used_again_if_the_fetch_of_a_newer_one_fails(held):
    token = a_token()
    held.keep(token, 3600.0, now=0.0)
    assert held.refuse(token, 10.0)
    held.fail("down", 11.0, closed_for=60.0)
    assert held.look(11.0).token is token
    assert not held.refuse(token, 70.9)  # The token endpoint is in a pause.
    assert held.look(70.9).token is token
    assert held.refuse(token, 71.0)


@pytest.mark.rule("C-12")
def test_refusal_does_not_shorten_the_minimum_use_of_a_short_token(held):
    for lifetime in (0.0, 1.0):
        held.keep(a_token(), lifetime, now=0.0)
        assert not held.refuse(a_token(), 0.0)
        assert not held.refuse(a_token(), 0.99)
        assert held.look(0.99).token == a_token()
        assert held.look(1.0).token is None
    assert held.refuse(a_token(), 1.0)  # It has expired.


def test_lifetime_counts_from_the_start_of_the_request(held):
    token = a_token()
    held.keep(token, 60.0, now=100.0, age=4.0)
    assert not held.look(149.9).renew
    assert held.look(150.1).renew
    assert held.look(155.9).token is token
    assert held.look(156.0).token is None


@pytest.mark.parametrize("asleep, held_then", [(3569.0, True), (3600.0, False), (1e8, False), (-1e8, True)])
def test_a_token_expires_by_the_wall_clock_too(held, asleep, held_then):
    token = a_token()
    held.keep(token, 3600.0, now=0.0, wall=WALL)
    look = held.look(0.0, wall=WALL + asleep)
    assert look == Look(token if held_then else None, renew=False, generation=1)


def test_a_renewal_is_due_by_the_wall_clock_too(held):
    held.keep(a_token(), 3600.0, now=0.0, wall=WALL)
    assert held.look(0.0, wall=WALL + 3570.0).renew
    assert not held.look(0.0, wall=WALL + 3580.0).renew


def test_failure_is_raised_in_waiting_callers_and_keeps_the_token(held):
    token = a_token()
    held.keep(token, 60.0, now=0.0)
    assert held.look(55.0).renew
    held.fail("down", 56.0)
    assert held.look(56.0) == Look(token, renew=False, generation=2)
    assert held.failure(56.0, seen=1) == "down"
    assert held.failure(56.0, seen=2) is None
    held.keep(a_token(), 60.0, now=57.0)
    assert held.failure(57.0, seen=1) is None


def test_renewal_ahead_of_expiry_pauses_after_a_failure(held):
    held.keep(a_token(), 3600.0, now=0.0)
    assert held.look(3570.0).renew
    held.fail("down", 3571.0)
    assert not held.look(3575.9).renew
    assert held.look(3576.0).renew


@pytest.mark.rule("C-20")
def test_nothing_is_fetched_during_a_pause(held):
    held.fail("busy", 0.0, closed_for=60.0)
    assert held.failure(59.9, seen=held.generation) == "busy"
    assert held.failure(60.0, seen=held.generation) is None
    held.fail("busy", 60.0, closed_for=0.0)
    assert held.failure(60.9, seen=held.generation) == "busy"
    held.keep(a_token(), 60.0, now=60.9)
    assert held.failure(60.9, seen=held.generation) is None


@pytest.mark.rule("C-20")
@pytest.mark.parametrize(
    "overloaded, pauses", [(False, [0, 1, 2, 4, 8, 16, 32, 60, 60]), (True, [1, 2, 4, 8, 16, 32, 60, 60])]
)
def test_pauses_after_failures_in_a_row_double_up_to_a_minute(held, overloaded, pauses):
    for _ in range(2):
        for pause in pauses:
            held.fail("down", 0.0, overloaded=overloaded)
            assert held.failure(pause, seen=held.generation) is None
            assert pause == 0 or held.failure(pause - 0.01, seen=held.generation) == "down"
        held.keep(a_token(), 60.0, now=0.0)


def test_child_process_does_not_wait_for_a_thread_of_its_parent(held):
    token = a_token()
    held.keep(token, 60.0, now=0.0)
    assert held.look(55.0).renew
    held._lock.acquire()
    held.after_fork()
    assert held.look(55.0) == Look(token, renew=True, generation=1)
