"""The token of a client through expiry, renewal, refusal and failure; the time is an argument."""

from __future__ import annotations

import pytest

from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.state.client_token import ClientToken, Look


def a_token(name="sg-opaque-1"):
    return TokenResponse(access_token=name, token_type="Bearer", expires_in=None, scope=None)


@pytest.fixture
def held():
    return ClientToken[str](claim=20.0)


def test_nothing_is_held_at_first(held):
    assert held.look(0.0) == Look(None, renew=False, generation=0)
    assert held.failure(0.0, seen=0) is None


@pytest.mark.rule("C-13")
@pytest.mark.parametrize("lifetime, ahead", [(60.0, 6.0), (300.0, 30.0), (3600.0, 30.0), (1.0, 0.1)])
def test_it_is_to_be_renewed_ahead_of_expiry_by_exactly_one(held, lifetime, ahead):
    token = a_token()
    held.keep(token, lifetime, begun=100.0)
    assert held.generation == 1
    assert held.look(100.0 + lifetime - ahead - 1e-6) == Look(token, renew=False, generation=1)
    due = 100.0 + lifetime - ahead + 1e-6
    assert held.look(due) == Look(token, renew=True, generation=1)
    assert held.look(due) == Look(token, renew=False, generation=1)
    assert held.look(100.0 + lifetime).token is None


def test_a_claim_lapses(held):
    held.keep(a_token(), 3600.0, begun=0.0)
    assert held.look(3575.0).renew
    assert not held.look(3594.9).renew
    assert held.look(3595.0).renew


@pytest.mark.rule("C-12")
def test_a_token_without_a_lifetime_is_not_kept_and_ends_the_one_before(held):
    held.keep(a_token(), 60.0, begun=0.0)
    held.keep(a_token("sg-opaque-2"), 0.0, begun=0.0)
    assert held.look(0.0) == Look(None, renew=False, generation=2)


@pytest.mark.rule("C-21", "C-24")
def test_a_refused_token_is_dropped_and_a_newer_one_is_not(held):
    old, new = a_token(), a_token("sg-opaque-2")
    held.keep(old, 60.0, begun=0.0)
    assert held.look(1.0, refused=old).token is None
    assert held.look(1.0).token is None
    held.keep(new, 60.0, begun=0.0)
    assert held.look(1.0, refused=old).token is new
    assert held.look(1.0, refused=a_token("sg-opaque-2")).token is new


def test_a_failure_is_for_those_who_waited_and_leaves_the_token(held):
    token = a_token()
    held.keep(token, 60.0, begun=0.0)
    assert held.look(55.0).renew
    held.fail("down", 56.0)
    assert held.look(56.0) == Look(token, renew=False, generation=2)
    assert held.failure(56.0, seen=1) == "down"
    assert held.failure(56.0, seen=2) is None
    held.keep(a_token(), 60.0, begun=57.0)
    assert held.failure(57.0, seen=1) is None


def test_after_a_failure_a_renewal_ahead_waits_a_little(held):
    held.keep(a_token(), 3600.0, begun=0.0)
    assert held.look(3570.0).renew
    held.fail("down", 3571.0)
    assert not held.look(3575.9).renew
    assert held.look(3576.0).renew


@pytest.mark.rule("C-20")
def test_nobody_asks_while_the_server_wants_to_be_left_alone(held):
    held.fail("busy", 0.0, closed_for=60.0)
    assert held.failure(59.9, seen=held.generation) == "busy"
    assert held.failure(60.0, seen=held.generation) is None
    held.fail("busy", 60.0, closed_for=60.0)
    held.keep(a_token(), 60.0, begun=61.0)
    assert held.failure(61.0, seen=held.generation) is None


def test_a_child_process_waits_for_no_thread_of_its_parent(held):
    token = a_token()
    held.keep(token, 60.0, begun=0.0)
    assert held.look(55.0).renew
    held._lock.acquire()
    held.after_fork()
    assert held.look(55.0) == Look(token, renew=True, generation=1)
