"""Keys that come one to a URL: what is held, what is remembered, and who pays for looking."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.policies import KeySetPolicy
from scopeguard.spec.jwks import VerificationKey
from scopeguard.state.keys_by_id import KeysById, Sought

POLICY = KeySetPolicy(refetch_burst=2, refetch_interval=10.0, negative_ttl=5.0, negative_kids=2, max_keys=2)


def key(kid: str) -> VerificationKey:
    nothing: Any = None  # nothing is verified here
    return VerificationKey(
        kid=kid, algorithms=frozenset(("ES256",)), issuer=None, thumbprint=kid, signature_octets=64,
        public_key=nothing,
    )  # fmt: skip


def holding(kid: str = "a", now: float = 0.0) -> KeysById:
    keys = KeysById(POLICY)
    assert keys.begin(kid, now)
    keys.absorb(kid, key(kid), now)
    return keys


def test_a_key_that_came_is_held():
    assert KeysById(POLICY).lookup("a", 0) == Sought(due=True)
    assert holding().lookup("a", 0) == Sought(key=key("a"))


def test_a_key_that_is_not_there_is_remembered_for_a_while():
    keys = KeysById(POLICY)
    assert keys.begin("a", 0)
    keys.absorb("a", None, 0)
    assert keys.lookup("a", 4) == Sought(absent=True, pause=1)
    assert keys.lookup("a", 5) == Sought(due=True)


def test_a_key_that_could_not_be_had_is_asked_for_later_and_nobody_knows_meanwhile():
    keys = KeysById(POLICY)
    assert keys.begin("a", 0)
    keys.fail("a", 0, retry_after=None)
    assert keys.lookup("a", 1) == Sought(pause=9)
    assert keys.lookup("a", 10) == Sought(due=True)


@pytest.mark.parametrize(("asked", "pause"), [(20.0, 20.0), (1.0, 10.0), (999.0, 30.0)])
def test_the_authority_may_ask_for_a_longer_pause_up_to_a_point(asked: float, pause: float):
    keys = KeysById(POLICY)
    keys.fail("a", 0, retry_after=asked)
    assert keys.lookup("a", 0) == Sought(pause=pause)


def test_looking_for_what_is_not_held_is_paid_for_whatever_comes_of_it():
    keys = KeysById(POLICY)
    assert keys.begin("a", 0)
    keys.absorb("a", None, 0)
    assert keys.begin("b", 0)
    keys.fail("b", 0, retry_after=None)
    assert not keys.begin("c", 0)
    assert keys.lookup("c", 0) == Sought(pause=10)
    assert keys.lookup("c", 4) == Sought(pause=6)
    assert keys.begin("c", 10)
    assert not keys.begin("d", 10)


def test_the_budget_is_not_filled_by_a_clock_that_runs_backwards():
    keys = KeysById(POLICY)
    assert keys.begin("a", 100)
    assert keys.begin("b", 100)
    assert not keys.begin("c", 50)
    assert not keys.begin("c", 100)


def test_a_held_key_is_looked_after_once_in_a_while_at_no_cost():
    keys = holding()
    later = POLICY.max_ttl
    assert not keys.begin("a", later - 1)
    assert keys.lookup("a", later) == Sought(key=key("a"), due=True)
    assert keys.begin("a", later)
    assert keys.lookup("a", later) == Sought(key=key("a"))
    assert not keys.begin("a", later)
    keys.fail("a", later, retry_after=None)
    assert keys.lookup("a", later + 9) == Sought(key=key("a"))
    assert keys.lookup("a", later + 10) == Sought(key=key("a"), due=True)
    assert keys.begin("b", later)
    assert keys.begin("c", later)  # the budget was not touched


def test_a_held_key_has_an_end_when_it_cannot_be_looked_after():
    keys = holding()
    assert keys.lookup("a", POLICY.max_stale - 1).key is not None
    assert keys.lookup("a", POLICY.max_stale) == Sought(due=True)
    assert keys.begin("a", POLICY.max_stale)


def test_a_key_that_was_withdrawn_is_held_no_longer():
    keys = holding()
    assert keys.begin("a", POLICY.max_ttl)
    keys.absorb("a", None, POLICY.max_ttl)
    assert keys.lookup("a", POLICY.max_ttl).absent


def test_what_is_held_and_what_is_remembered_is_bounded():
    keys = KeysById(POLICY)
    for n, kid in enumerate("abc"):
        keys.absorb(kid, key(kid), n)
        keys.lookup("a", n)
    assert keys.lookup("a", 3).key
    assert not keys.lookup("b", 3).key
    for kid in "xyz":
        keys.absorb(kid, None, 3)
    assert not keys.lookup("x", 3).absent
    assert keys.lookup("z", 3).absent
    assert keys.lookup("a", 3).key


def test_a_child_process_finds_no_lock_that_its_parent_held():
    keys = holding()
    keys._lock.acquire()
    keys.after_fork()
    assert keys.lookup("a", 0).key


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(("key", "none", "fail")), st.floats(0, 30))))
def test_no_order_of_events_costs_more_than_the_budget(events: list[tuple[str, str, float]]):
    keys = KeysById(POLICY)
    now = paid = 0.0
    for kid, outcome, pause in events:
        now += pause
        sought = keys.lookup(kid, now)
        if sought.due and keys.begin(kid, now):
            paid += sought.key is None
            if outcome == "fail":
                keys.fail(kid, now, retry_after=None)
            else:
                keys.absorb(kid, key(kid) if outcome == "key" else None, now)
            assert not keys.lookup(kid, now).due
    assert paid <= POLICY.refetch_burst + now / POLICY.refetch_interval + 1e-6
