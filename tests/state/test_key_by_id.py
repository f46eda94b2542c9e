"""Keys published one per URL: held keys, remembered absences and the fetch budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.keys import KeySetPolicy
from scopeguard.spec.jwks import VerificationKey
from scopeguard.state.key_by_id import KeysById, Sought

POLICY = KeySetPolicy(refetch_burst=2, refetch_interval=10.0, negative_ttl=5.0, negative_kids=2, max_keys=2)


def key(kid: str) -> VerificationKey:
    nothing: Any = None  # These tests verify nothing.
    return VerificationKey(
        kid=kid, algorithms=frozenset(("ES256",)), issuer=None, thumbprint=kid, signature_octets=64,
        public_key=nothing,
    )  # fmt: skip


def new_keys(kid: str = "a", now: float = 0.0) -> KeysById:
    keys = KeysById(POLICY)
    assert keys.begin(kid, now)
    keys.absorb(kid, key(kid), now)
    return keys


def test_fetched_key_is_held():
    assert KeysById(POLICY).lookup("a", 0) == Sought(fetch="a")
    assert new_keys().lookup("a", 0) == Sought(key=key("a"))


def test_absent_key_is_remembered_for_a_while():
    keys = KeysById(POLICY)
    assert keys.begin("a", 0)
    keys.absorb("a", None, 0)
    assert keys.lookup("a", 4).absent
    assert keys.lookup("a", 9.9).absent  # One fetch is left, which is reserved for keys that were not looked up yet.
    assert keys.lookup("a", 10) == Sought(fetch="a")
    assert keys.lookup("b", 4) == Sought(fetch="b")


def test_absent_key_requested_all_the_time_leaves_a_fetch_for_others():
    keys, fetches = KeysById(POLICY), 0
    for second in range(300):
        sought = keys.ask("absent", second)
        if sought.fetch is not None:
            assert keys.begin("absent", second)
            keys.absorb("absent", None, second)
            fetches += 1
        else:
            assert sought.absent
        assert keys.lookup("new", second) == Sought(fetch="new")
    assert fetches <= 2 + 300 / 10


def test_flood_of_invented_ids_does_not_starve_an_existing_key():
    """Twenty ids a second, each used once, and one request a second with the new key, which gets the next fetch."""
    keys = KeysById(POLICY)
    made_up = (f"made-up-{number}" for number in count())

    def fetch(kid: str, now: float) -> str | None:
        wanted = keys.ask(kid, now).fetch
        if wanted is not None and keys.begin(wanted, now):
            keys.absorb(wanted, key(wanted) if wanted == "new" else None, now)
            return wanted
        return None

    for _ in range(5):
        fetch(next(made_up), 0.0)
    assert keys.lookup("new", 0.0) == Sought(pause=10)
    fetches = []
    for second in range(1, 31):
        fetches += [fetch(next(made_up), second) for _ in range(20)]
        fetches.append(fetch("new", second))
        if keys.lookup("new", second).key is not None:
            break
    assert second == 10
    assert [kid for kid in fetches if kid is not None] == ["new"]
    assert len(keys._counted) <= 256


def test_id_with_one_percent_of_the_requests_keeps_its_place():
    """One request in a hundred is for the new key, and there are places for 256 ids."""
    keys = KeysById(POLICY)
    for number in range(10_000):
        keys.ask(f"made-up-{number}", 1.0)
        if number % 100 == 0:
            keys.ask("new", 1.0)
    assert len(keys._counted) == 256
    assert "new" in keys._counted


def test_ids_that_are_no_longer_requested_are_dropped():
    keys = KeysById(POLICY)
    for _ in range(2):
        assert keys.begin("x", 0.0)
        keys.absorb("x", None, 0.0)
    for _ in range(9):
        keys.ask("stale", 1.0)
    keys.ask("new", 10.0)
    assert keys.ask("new", 10.0).fetch == "stale"
    assert keys.begin("y", 49.0)
    assert keys.ask("new", 51.0).fetch == "new"


def test_first_id_has_precedence_when_one_fetch_is_left():
    keys = KeysById(POLICY)
    assert keys.ask("a", 0.0).fetch == "a"
    assert keys.ask("b", 0.0).fetch == "b"
    assert keys.begin("c", 0.0)
    assert keys.ask("d", 0.0).fetch == "a"


def test_running_fetch_can_be_joined_and_no_longer_competes():
    keys = KeysById(replace(POLICY, refetch_burst=1))
    assert keys.ask("a", 0.0).fetch == "a"
    assert keys.begin("a", 0.0)
    assert keys.ask("a", 0.0) == Sought(fetch="a")
    assert keys.ask("b", 0.0) == Sought(pause=10)
    assert keys.ask("b", 10.0).fetch == "b"
    keys.absorb("a", key("a"), 10.0)
    assert keys.ask("a", 10.0) == Sought(key=key("a"))


def test_lost_fetch_is_charged_again():
    keys = KeysById(replace(POLICY, refetch_burst=1))
    assert keys.begin("a", 0.0)
    assert not keys.begin("a", 0.0)  # Its thread is gone, and a request that waited for it takes over.
    assert keys.lookup("a", 0.0) == Sought(pause=10)
    assert keys.begin("a", 10.0)
    keys.after_fork()
    assert keys.lookup("a", 10.0) == Sought(pause=10)


def test_key_whose_fetch_just_failed_uses_no_budget():
    keys = KeysById(POLICY)
    for _ in range(5):
        keys.ask("fails", 0.0)
    assert keys.begin("fails", 0.0)
    keys.ask("fails", 0.0)
    keys.fail("fails", 0.0, retry_after=30.0)
    for _ in range(5):
        assert keys.ask("fails", 1.0).fetch is None
    assert keys.ask("new", 1.0).fetch == "new"


def test_key_whose_fetch_failed_is_an_outage_until_the_next_fetch():
    keys = KeysById(POLICY)
    assert keys.begin("a", 0)
    keys.fail("a", 0, retry_after=None)
    assert keys.lookup("a", 1) == Sought(pause=9)
    assert keys.lookup("a", 10) == Sought(fetch="a")


@pytest.mark.parametrize(("asked", "pause"), [(20.0, 20.0), (1.0, 10.0), (999.0, 30.0)])
def test_retry_after_lengthens_the_pause_up_to_a_limit(asked: float, pause: float):
    keys = KeysById(POLICY)
    keys.fail("a", 0, retry_after=asked)
    assert keys.lookup("a", 0) == Sought(pause=pause)


def test_fetch_of_an_unheld_key_is_charged_for_any_result():
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


def test_clock_that_runs_backwards_does_not_refill_the_budget():
    keys = KeysById(POLICY)
    assert keys.begin("a", 100)
    assert keys.begin("b", 100)
    assert not keys.begin("c", 50)
    assert not keys.begin("c", 100)


def test_held_key_is_refreshed_periodically_without_budget():
    keys = new_keys()
    later = POLICY.max_ttl
    assert not keys.begin("a", later - 1)
    assert keys.lookup("a", later) == Sought(key=key("a"), fetch="a")
    assert keys.begin("a", later)
    assert keys.lookup("a", later) == Sought(key=key("a"))
    assert not keys.begin("a", later)
    keys.fail("a", later, retry_after=None)
    assert keys.lookup("a", later + 9) == Sought(key=key("a"))
    assert keys.lookup("a", later + 10) == Sought(key=key("a"), fetch="a")
    assert keys.begin("b", later)
    assert keys.begin("c", later)  # The budget is untouched.


def test_held_key_that_cannot_be_refreshed_expires():
    keys = new_keys()
    assert keys.lookup("a", POLICY.max_stale - 1).key is not None
    assert keys.lookup("a", POLICY.max_stale) == Sought(fetch="a")
    assert keys.begin("a", POLICY.max_stale)


def test_withdrawn_key_is_dropped():
    keys = new_keys()
    assert keys.begin("a", POLICY.max_ttl)
    keys.absorb("a", None, POLICY.max_ttl)
    assert keys.lookup("a", POLICY.max_ttl).absent


def test_held_keys_and_remembered_absences_are_bounded():
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


def test_child_process_gets_a_fresh_lock():
    keys = new_keys()
    keys._lock.acquire()
    keys.after_fork()
    assert keys.lookup("a", 0).key


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(("key", "none", "fail")), st.floats(0, 30))))
def test_no_order_of_events_exceeds_the_budget(events: list[tuple[str, str, float]]):
    keys = KeysById(POLICY)
    now = paid = 0.0
    for kid, outcome, pause in events:
        now += pause
        sought = keys.lookup(kid, now)
        if sought.fetch and keys.begin(kid, now):
            paid += sought.key is None
            if outcome == "fail":
                keys.fail(kid, now, retry_after=None)
            else:
                keys.absorb(kid, key(kid) if outcome == "key" else None, now)
            assert not keys.lookup(kid, now).fetch
    assert paid <= POLICY.refetch_burst + now / POLICY.refetch_interval + 1e-6
