"""The token of a client through expiry, renewal, refusal and failure; the time is an argument."""

from __future__ import annotations

import pytest

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.client_token import ClientToken, Look

WALL = 1_800_000_000.0


class Held(ClientToken[str]):
    """A :class:`ClientToken` of a machine whose clocks agree, unless *wall* is given."""

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


def test_nothing_is_held_at_first(held):
    assert held.look(0.0) == Look(None, renew=False, generation=0)
    assert held.failure(0.0, seen=0) is None


@pytest.mark.rule("C-13")
@pytest.mark.parametrize("lifetime, ahead", [(60.0, 6.0), (300.0, 30.0), (3600.0, 30.0), (2.0, 0.2)])
def test_it_is_to_be_renewed_ahead_of_expiry_by_exactly_one(held, lifetime, ahead):
    token = a_token()
    held.keep(token, lifetime, now=100.0)
    assert held.generation == 1
    assert held.look(100.0 + lifetime - ahead - 1e-6) == Look(token, renew=False, generation=1)
    due = 100.0 + lifetime - ahead + 1e-6
    assert held.look(due) == Look(token, renew=True, generation=1)
    assert held.look(due) == Look(token, renew=False, generation=1)
    assert held.look(100.0 + lifetime).token is None


def test_a_claim_lapses(held):
    held.keep(a_token(), 3600.0, now=0.0)
    assert held.look(3575.0).renew
    assert not held.look(3594.9).renew
    assert held.look(3595.0).renew


@pytest.mark.rule("C-12")
@pytest.mark.parametrize(
    "lifetime, age", [(0.0, 0.0), (1.0, 0.0), (1.0, 5.0), (0.5, 0.0), (5.0, 5.0), (5.0, 60.0), (-3600.0, 0.0)]
)
def test_any_token_may_be_used_for_a_second_after_its_arrival(held, lifetime, age):
    """The kind: a lifetime that is over at once must not cause a token request for each look."""
    held.keep(a_token("sg-opaque-old"), 60.0, now=0.0)
    token = a_token()
    held.keep(token, lifetime, now=100.0, age=age)
    for now in (100.0, 100.5, 100.999):
        assert held.look(now) == Look(token, renew=False, generation=2)
    assert held.look(101.0) == Look(None, renew=False, generation=2)
    held.keep(token, lifetime, now=200.0, age=age)
    assert held.look(200.0, wall=WALL + 201.0).token is None  # the machine was suspended


@pytest.mark.rule("C-21", "C-24")
def test_a_refused_token_is_out_of_use_and_a_newer_one_is_not(held):
    old, new = a_token(), a_token("sg-opaque-2")
    held.keep(old, 60.0, now=0.0)
    assert held.refuse(old, 1.0)
    assert held.look(1.0).token is None
    assert held.refuse(old, 1.0)  # of another caller, who waits for the same fetch
    held.keep(new, 60.0, now=1.0)
    assert held.refuse(old, 1.0)  # of a caller who comes late
    assert held.look(1.0).token is new


@pytest.mark.rule("C-21")
def test_the_same_text_is_the_same_token(held):
    held.keep(a_token(), 60.0, now=0.0)
    assert held.refuse(a_token(), 1.0)
    assert held.look(1.0).token is None


def test_refusals_in_a_row_take_tokens_out_of_use_less_and_less_often(held):
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
    held.accept(tokens[3])  # none is held
    held.keep(tokens[3], 3600.0, now=4.0)
    held.accept(tokens[0])  # not the one that is held
    assert not held.refuse(tokens[3], 5.0)
    held.accept(tokens[3])
    held.accept(tokens[3])
    assert held.refuse(tokens[3], 5.0)


def test_a_refused_token_comes_back_when_the_fetch_for_a_newer_one_fails(held):
    token = a_token()
    held.keep(token, 3600.0, now=0.0)
    assert held.refuse(token, 10.0)
    held.fail("down", 11.0, closed_for=60.0)
    assert held.look(11.0).token is token
    assert not held.refuse(token, 70.9)  # the token endpoint is left alone
    assert held.look(70.9).token is token
    assert held.refuse(token, 71.0)


@pytest.mark.rule("C-12")
def test_a_token_that_is_replaced_after_a_second_anyway_is_not_replaced_sooner_by_a_refusal(held):
    for lifetime in (0.0, 1.0):
        held.keep(a_token(), lifetime, now=0.0)
        assert not held.refuse(a_token(), 0.0)
        assert not held.refuse(a_token(), 0.99)
        assert held.look(0.99).token == a_token()
        assert held.look(1.0).token is None
    assert held.refuse(a_token(), 1.0)  # it has expired


def test_the_lifetime_counts_from_the_beginning_of_the_request(held):
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


def test_a_failure_is_for_those_who_waited_and_leaves_the_token(held):
    token = a_token()
    held.keep(token, 60.0, now=0.0)
    assert held.look(55.0).renew
    held.fail("down", 56.0)
    assert held.look(56.0) == Look(token, renew=False, generation=2)
    assert held.failure(56.0, seen=1) == "down"
    assert held.failure(56.0, seen=2) is None
    held.keep(a_token(), 60.0, now=57.0)
    assert held.failure(57.0, seen=1) is None


def test_after_a_failure_a_renewal_ahead_waits_a_little(held):
    held.keep(a_token(), 3600.0, now=0.0)
    assert held.look(3570.0).renew
    held.fail("down", 3571.0)
    assert not held.look(3575.9).renew
    assert held.look(3576.0).renew


@pytest.mark.rule("C-20")
def test_nothing_is_fetched_while_the_server_is_left_alone(held):
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


def test_a_child_process_waits_for_no_thread_of_its_parent(held):
    token = a_token()
    held.keep(token, 60.0, now=0.0)
    assert held.look(55.0).renew
    held._lock.acquire()
    held.after_fork()
    assert held.look(55.0) == Look(token, renew=True, generation=1)
