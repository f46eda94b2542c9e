"""The key ring alone: time is an argument, fetches are numbers, and nothing waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scopeguard.config.keys import KeySetPolicy
from scopeguard.devserver.keys import SigningKey
from scopeguard.spec.jwks import KeySet, VerificationKey, parse_key_set
from scopeguard.state.keys import Absent, Due, Found, KeyRing

POLICY = KeySetPolicy()
ALG = "ES256"
NOW = 1000.0


@cache
def key(kid: str | None, make: int = 0) -> VerificationKey:
    jwk = SigningKey.generate(ALG, kid=kid or "-").public_jwk()
    if kid is None:
        del jwk["kid"]
    (made,) = parse_key_set({"keys": [jwk]}).keys
    return made


def keys(*kids: str | None) -> KeySet:
    return KeySet(keys=tuple(key(kid) for kid in kids))


def complete_fetch(
    ring: KeyRing, new: KeySet, now: float, *, lifetime: float | None = None, provoked: bool = False
) -> int:
    number = ring.begin(now, provoked=provoked)
    assert number is not None
    ring.absorb(new, now, number=number, lifetime=lifetime)
    return number


def fail_fetch(ring: KeyRing, now: float, *, retry_after: float | None = None, provoked: bool = False) -> None:
    number = ring.begin(now, provoked=provoked)
    assert number is not None
    ring.fail(now, number=number, retry_after=retry_after)


def a_ring(*kids: str | None, policy: KeySetPolicy = POLICY, **options: Any) -> KeyRing:
    """Return a ring that holds the keys with the ids *kids*, fetched at NOW."""
    ring = KeyRing(policy, **options)
    if kids:
        complete_fetch(ring, keys(*kids), NOW)
    return ring


def found_kids(look: Found | Due | Absent) -> list[str | None]:
    match look:
        case Found() as found:
            return [each.kid for each in found.keys]
        case Due(found=found):
            return [each.kid for each in found.keys]
        case _:
            return []


def expect_absent(look: Found | Due | Absent) -> Absent:
    assert isinstance(look, Absent), look
    return look


# -- an empty ring


@pytest.mark.rule("A-22")
def test_empty_ring_requests_a_fetch_and_refuses_no_key():
    look = expect_absent(KeyRing(POLICY).lookup("a", ALG, NOW))
    assert look.may_fetch
    assert not look.held  # No token caused it, so it does not use the budget.
    assert look.undecided
    assert look.retry_after == 0.0


def test_pause_after_each_failure_doubles():
    ring = KeyRing(POLICY)
    now = NOW
    pauses = []
    for _ in range(10):
        fail_fetch(ring, now)
        look = expect_absent(ring.lookup("a", ALG, now))
        assert not look.may_fetch
        assert look.undecided
        pauses.append(look.retry_after)
        assert not expect_absent(ring.lookup("a", ALG, now + look.retry_after - 0.001)).may_fetch
        now += look.retry_after
        assert expect_absent(ring.lookup("a", ALG, now)).may_fetch
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_success_resets_the_pause():
    ring = KeyRing(POLICY)
    for _ in range(6):
        fail_fetch(ring, NOW)
    complete_fetch(ring, keys("a"), NOW)
    assert found_kids(ring.lookup("a", ALG, NOW)) == ["a"]
    assert expect_absent(ring.lookup("b", ALG, NOW)).may_fetch
    fail_fetch(ring, NOW)
    assert expect_absent(ring.lookup("b", ALG, NOW)).retry_after == 0.25


@pytest.mark.parametrize(
    ("asked", "kept"), [(None, 0.25), (0.0, 0.25), (0.1, 0.25), (7.0, 7.0), (3600.0, 30.0)], ids=str
)
def test_retry_after_lengthens_the_pause_up_to_the_limit_of_the_policy(asked: float | None, kept: float):
    ring = KeyRing(POLICY)
    fail_fetch(ring, NOW, retry_after=asked)
    assert expect_absent(ring.lookup("a", ALG, NOW)).retry_after == kept


def test_the_back_off_does_not_overflow():
    ring = KeyRing(POLICY)
    for _ in range(2000):
        fail_fetch(ring, NOW)
    assert expect_absent(ring.lookup("a", ALG, NOW)).retry_after == POLICY.max_backoff


# -- refresh of an old set


def test_a_fresh_set_is_used_and_not_refreshed():
    ring = a_ring("a")
    look = ring.lookup("a", ALG, NOW + 479)
    assert isinstance(look, Found)
    assert found_kids(look) == ["a"]


@pytest.mark.rule("A-15")
def test_the_refresh_is_offered_to_exactly_one_caller():
    ring = a_ring("a")
    looks = [ring.lookup("a", ALG, NOW + 480) for _ in range(50)]
    assert [type(look) for look in looks] == [Due, *[Found] * 49]
    assert all(found_kids(look) == ["a"] for look in looks)
    first = looks[0]
    assert isinstance(first, Due)
    assert not first.overdue


@pytest.mark.rule("A-15", "H-20")
def test_the_refresh_is_offered_to_exactly_one_of_many_threads():
    for _ in range(20):
        ring = a_ring("a")
        start = threading.Barrier(8)
        looks: list[Found | Due | Absent] = []

        def look(ring: KeyRing = ring, start: threading.Barrier = start, looks: list[Any] = looks) -> None:
            start.wait()
            looks.extend(ring.lookup("a", ALG, NOW + 500) for _ in range(5))

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(look, Due) for look in looks) == 1
        assert len(looks) == 40


def test_claim_without_a_result_lapses():
    ring = a_ring("a")
    assert isinstance(ring.lookup("a", ALG, NOW + 480), Due)
    assert isinstance(ring.lookup("a", ALG, NOW + 480 + 19.9), Found)
    assert isinstance(ring.lookup("a", ALG, NOW + 480 + 20), Due)
    assert isinstance(ring.lookup("a", ALG, NOW + 480 + 20.1), Found)


def test_claim_ends_with_its_fetch_for_any_result():
    ring = a_ring("a")
    assert isinstance(ring.lookup("a", ALG, NOW + 480), Due)
    fail_fetch(ring, NOW + 480)
    assert isinstance(ring.lookup("a", ALG, NOW + 480.2), Found)  # Back-off.
    assert isinstance(ring.lookup("a", ALG, NOW + 480.3), Due)
    complete_fetch(ring, keys("a"), NOW + 480.3)
    assert isinstance(ring.lookup("a", ALG, NOW + 480.3), Found)  # Fresh.


def test_claim_of_a_cancelled_fetch_is_released():
    ring = a_ring("a")
    assert isinstance(ring.lookup("a", ALG, NOW + 480), Due)
    number = ring.begin(NOW + 480, provoked=False)
    assert number is not None
    ring.abandon(number)
    assert isinstance(ring.lookup("a", ALG, NOW + 480), Due)


@pytest.mark.rule("A-18")
def test_overdue_set_makes_only_the_refreshing_caller_wait():
    ring = a_ring("a")
    look = ring.lookup("a", ALG, NOW + 600)
    assert isinstance(look, Due)
    assert look.overdue
    assert isinstance(ring.lookup("a", ALG, NOW + 600), Found)  # The others do not wait.


def test_caller_does_not_wait_for_a_refresh_during_failures():
    ring = a_ring("a")
    fail_fetch(ring, NOW + 490)
    look = ring.lookup("a", ALG, NOW + 600)
    assert isinstance(look, Due)
    assert not look.overdue


@pytest.mark.rule("A-17")
def test_keys_are_used_during_an_outage_up_to_the_maximum_age():
    ring = a_ring("a")
    fail_fetch(ring, NOW + 490)
    assert found_kids(ring.lookup("a", ALG, NOW + POLICY.max_stale - 1)) == ["a"]
    assert ring.candidates("a", ALG, NOW + POLICY.max_stale - 1)
    look = expect_absent(ring.lookup("a", ALG, NOW + POLICY.max_stale))
    assert look.undecided
    assert look.may_fetch
    assert not look.held
    assert not ring.is_usable(NOW + POLICY.max_stale)
    assert not ring.candidates("a", ALG, NOW + POLICY.max_stale)


def test_empty_budget_allows_a_fetch_after_the_maximum_age():
    """Otherwise the ring would offer a fetch that it then never allows to start."""
    ring = a_ring("a", policy=replace(POLICY, refetch_interval=1e9))
    for _ in range(POLICY.refetch_burst):
        fail_fetch(ring, NOW, provoked=True)
    later = NOW + POLICY.max_stale
    look = expect_absent(ring.lookup("a", ALG, later))
    assert look.may_fetch
    assert ring.begin(later, provoked=look.held) is not None


@pytest.mark.rule("A-15")
@pytest.mark.parametrize(
    ("lifetime", "ttl"), [(None, 600), (0, 60), (59, 60), (300, 300), (3600, 3600), (10**9, 3600)], ids=str
)
def test_lifetime_set_by_an_authority_is_clamped(lifetime: float | None, ttl: float):
    ring = KeyRing(POLICY)
    complete_fetch(ring, keys("a"), NOW, lifetime=lifetime)
    assert isinstance(ring.lookup("a", ALG, NOW + 0.8 * ttl - 0.1), Found)
    before = ring.lookup("a", ALG, NOW + 0.8 * ttl + 0.1)
    assert isinstance(before, Due)
    assert not before.overdue
    ring = KeyRing(POLICY)
    complete_fetch(ring, keys("a"), NOW, lifetime=lifetime)
    after = ring.lookup("a", ALG, NOW + ttl)
    assert isinstance(after, Due)
    assert after.overdue


@pytest.mark.parametrize(("jitter", "refresh_at"), [(-1, 456), (0, 480), (1, 504)])
def test_jitter_spreads_the_refreshes_of_a_fleet(jitter: float, refresh_at: float):
    ring = a_ring("a", jitter=jitter)
    assert isinstance(ring.lookup("a", ALG, NOW + refresh_at - 0.1), Found)
    assert isinstance(ring.lookup("a", ALG, NOW + refresh_at + 0.1), Due)


@pytest.mark.rule("A-18")
def test_jitter_never_moves_the_refresh_beyond_the_lifetime():
    ring = a_ring("a", policy=replace(POLICY, refresh_ahead=1.0), jitter=1)
    assert isinstance(ring.lookup("a", ALG, NOW + 600), Due)


@pytest.mark.rule("A-18")
def test_key_missing_from_a_new_set_is_dropped():
    ring = a_ring("a", "b")
    complete_fetch(ring, keys("b"), NOW + 10)
    assert isinstance(ring.lookup("a", ALG, NOW + 10), Absent)
    assert found_kids(ring.lookup("b", ALG, NOW + 10)) == ["b"]


@pytest.mark.rule("A-19")
def test_failed_fetch_keeps_all_keys():
    ring = a_ring("a")
    for i in range(20):
        fail_fetch(ring, NOW + i)
        assert found_kids(ring.lookup("a", ALG, NOW + i)) == ["a"]


# -- unknown keys


@pytest.mark.rule("J-20", "A-16")
def test_unknown_key_may_cause_a_fetch_within_a_small_budget():
    ring = a_ring("a")
    for kid in ("b", "c", "d"):
        look = expect_absent(ring.lookup(kid, ALG, NOW))
        assert look.may_fetch
        assert look.held
        assert look.undecided
        assert ring.begin(NOW, provoked=True) is not None
        ring.absorb(keys("a"), NOW, number=ring.begun, lifetime=None)
    spent = expect_absent(ring.lookup("e", ALG, NOW))
    assert not spent.may_fetch
    assert spent.undecided  # It was not looked up: a spent budget is an outage.
    assert spent.retry_after == 10.0
    assert not expect_absent(ring.lookup("e", ALG, NOW + 9.9)).may_fetch
    assert expect_absent(ring.lookup("e", ALG, NOW + 10)).may_fetch


def test_budget_refills_up_to_the_burst():
    ring = a_ring("a")
    later = NOW + 10_000
    assert [ring.begin(later, provoked=True) for _ in range(4)] == [2, 3, 4, None]


def test_scheduled_fetches_do_not_use_the_budget():
    ring = a_ring("a")
    for _ in range(50):
        complete_fetch(ring, keys("a"), NOW)
    assert expect_absent(ring.lookup("b", ALG, NOW)).may_fetch


def test_failed_fetches_use_the_budget_too():
    ring = a_ring("a", policy=replace(POLICY, first_backoff=0.001, max_backoff=0.001))
    for i in range(3):
        fail_fetch(ring, NOW + i * 0.01, provoked=True)
    look = expect_absent(ring.lookup("b", ALG, NOW + 1))
    assert not look.may_fetch
    assert look.undecided
    assert look.retry_after == pytest.approx(9.0)


def test_budget_is_checked_again_when_a_fetch_starts():
    """Several callers were allowed to fetch; their leader was cancelled, so each of them takes over in turn."""
    ring = a_ring("a", policy=replace(POLICY, refetch_burst=1))
    assert all(expect_absent(ring.lookup("b", ALG, NOW)).may_fetch for _ in range(5))
    begun = 0
    for _ in range(5):
        number = ring.begin(NOW, provoked=True)
        if number is not None:
            begun += 1
            ring.abandon(number)
    assert begun == 1
    assert not expect_absent(ring.lookup("b", ALG, NOW)).may_fetch


def test_clock_readings_out_of_order_do_not_refill_twice():
    """A thread reads the clock, is overtaken by another, and then uses its earlier time."""
    ring = a_ring("a")
    for _ in range(3):
        assert ring.begin(NOW, provoked=True) is not None
    for i in range(1000):
        assert expect_absent(ring.lookup("b", ALG, NOW + 5 - 0.05 * (i % 2))).retry_after <= 10
    assert ring.begin(NOW + 5, provoked=True) is None


def test_caller_during_a_running_fetch_joins_it_without_budget():
    ring = a_ring("a", policy=replace(POLICY, refetch_burst=1))
    assert ring.begin(NOW, provoked=True) is not None
    look = expect_absent(ring.lookup("b", ALG, NOW))
    assert look.may_fetch
    assert ring.may_doubt(NOW)
    ring.absorb(keys("a"), NOW, number=ring.begun, lifetime=None)
    assert not expect_absent(ring.lookup("c", ALG, NOW)).may_fetch
    assert not ring.may_doubt(NOW)


def test_fetch_that_started_before_a_look_up_does_not_answer_it():
    ring = a_ring("a")
    number = ring.begin(NOW, provoked=True)
    assert number is not None
    begun = ring.begun
    ring.absorb(keys("a"), NOW, number=number, lifetime=None)
    assert not ring.is_final(begun)
    complete_fetch(ring, keys("a"), NOW, provoked=True)
    assert ring.is_final(begun)


def test_failed_fetch_answers_no_look_up():
    ring = a_ring("a")
    begun = ring.begun
    fail_fetch(ring, NOW)
    assert not ring.is_final(begun)


@pytest.mark.rule("H-19")
def test_unknown_key_during_an_outage_is_not_refused():
    ring = a_ring("a")
    fail_fetch(ring, NOW)
    look = expect_absent(ring.lookup("b", ALG, NOW))
    assert look.undecided
    assert not look.may_fetch
    assert not expect_absent(
        ring.lookup("a", "ES384", NOW)
    ).undecided  # This token is refused for any state of the authority.


@pytest.mark.parametrize(("kid", "algorithm"), [("a", "RS256"), ("a", "ES384")])
def test_held_key_of_another_algorithm_causes_no_fetch(kid: str, algorithm: str):
    look = expect_absent(a_ring("a").lookup(kid, algorithm, NOW))
    assert not look.may_fetch
    assert not look.undecided


def test_token_without_a_kid_and_a_matching_key_may_cause_a_fetch():
    look = expect_absent(a_ring("a").lookup(None, "RS256", NOW))
    assert look.may_fetch
    assert look.held


def test_absent_key_is_not_fetched_again_for_a_while():
    ring = a_ring("a")
    ring.remember_absent("b", ALG, NOW)
    look = expect_absent(ring.lookup("b", ALG, NOW + 9.9))
    assert not look.may_fetch
    assert not look.undecided
    assert expect_absent(ring.lookup("b", ALG, NOW + 10)).may_fetch
    assert expect_absent(ring.lookup("b", "ES384", NOW)).may_fetch
    assert expect_absent(ring.lookup("c", ALG, NOW)).may_fetch


def test_key_requested_before_a_fetch_and_not_in_it_is_marked_missing():
    ring = a_ring("a")
    assert expect_absent(ring.lookup("b", ALG, NOW)).undecided
    number = ring.begin(NOW, provoked=True)
    assert number is not None
    assert expect_absent(ring.lookup("d", ALG, NOW)).undecided  # Too late for this fetch.
    ring.absorb(keys("a", "c"), NOW, number=number, lifetime=None)
    look = expect_absent(ring.lookup("b", ALG, NOW + 9.9))
    assert not look.may_fetch
    assert not look.undecided
    assert expect_absent(ring.lookup("b", ALG, NOW + 10)).may_fetch
    assert expect_absent(ring.lookup("b", "ES384", NOW)).undecided
    assert expect_absent(ring.lookup("d", ALG, NOW)).undecided


def test_key_that_was_fetched_and_removed_is_requested_again():
    ring = a_ring("a")
    assert expect_absent(ring.lookup("b", ALG, NOW)).undecided
    complete_fetch(ring, keys("a", "b"), NOW)
    complete_fetch(ring, keys("a"), NOW + 1)
    look = expect_absent(ring.lookup("b", ALG, NOW + 1))
    assert look.may_fetch
    assert look.undecided


def test_missing_key_that_was_added_and_removed_is_requested_again():
    ring = a_ring("a")
    ring.remember_absent("b", ALG, NOW)
    complete_fetch(ring, keys("a", "b"), NOW + 1)
    complete_fetch(ring, keys("a"), NOW + 2)
    assert expect_absent(ring.lookup("b", ALG, NOW + 2)).undecided


def test_overtaken_fetch_marks_no_key_missing():
    ring = a_ring("a")
    first, second = (ring.begin(NOW, provoked=False) for _ in range(2))
    assert first is not None
    assert second is not None
    ring.absorb(keys("a"), NOW, number=second, lifetime=None)
    assert expect_absent(ring.lookup("b", ALG, NOW)).undecided
    ring.absorb(keys("a"), NOW, number=first, lifetime=None)
    assert expect_absent(ring.lookup("b", ALG, NOW)).undecided


def test_flood_of_invented_key_ids_is_bounded_and_evicts_no_waiting_id():
    """An id beyond the limit is not refused: it waits for the next set, for which an existing key needs no entry."""
    ring = a_ring("a", policy=replace(POLICY, refetch_burst=1, negative_kids=16))
    complete_fetch(ring, keys("a"), NOW, provoked=True)
    assert expect_absent(ring.lookup("waits", ALG, NOW)).undecided
    for number in range(10_000):
        assert expect_absent(ring.lookup(f"made-up-{number}", ALG, NOW)).undecided
    assert len(ring._unsearched) == 16
    complete_fetch(ring, keys("a", "new"), NOW + 10, provoked=True)
    assert not expect_absent(ring.lookup("waits", ALG, NOW + 10)).undecided
    assert not expect_absent(ring.lookup("made-up-0", ALG, NOW + 10)).undecided
    assert expect_absent(ring.lookup("made-up-9999", ALG, NOW + 10)).undecided
    assert found_kids(ring.lookup("new", ALG, NOW + 10)) == ["new"]
    assert len(ring._missing) <= 16


def test_long_key_ids_use_no_more_memory_than_short_ones():
    ring = a_ring("a")
    long = "k" * 10_000
    for kid in (long, long + "!"):
        assert expect_absent(ring.lookup(kid, ALG, NOW)).undecided
    assert len(ring._unsearched) == 2
    assert all(len(kid or "") <= 80 for kid, _, _ in ring._unsearched)
    complete_fetch(ring, keys("a"), NOW)
    assert not expect_absent(ring.lookup(long, ALG, NOW)).undecided


def test_missing_key_causes_a_fetch_now_and_then_but_never_the_last_of_the_budget():
    """An old client keeps sending a withdrawn key id. There must still be a fetch left for a new key."""
    ring = a_ring("a")
    now, fetches = NOW, []
    while now < NOW + 600:
        look = expect_absent(ring.lookup("withdrawn", ALG, now))
        if look.may_fetch:
            fetches.append(now - NOW)
            complete_fetch(ring, keys("a"), now, provoked=True)
        else:
            assert not look.undecided
        assert expect_absent(ring.lookup(f"new at {now}", ALG, now)).may_fetch
        now += 1
    assert fetches[:5] == [0, 10, 30, 70, 130]
    assert len(fetches) <= 4 + 600 / 60


def test_missing_key_joins_a_running_fetch_only_when_it_may_cause_one():
    ring = a_ring("a")
    ring.remember_absent("b", ALG, NOW)
    assert ring.begin(NOW, provoked=True) is not None
    assert not expect_absent(ring.lookup("b", ALG, NOW + 1)).may_fetch
    assert expect_absent(ring.lookup("b", ALG, NOW + 10)).may_fetch


def test_missing_key_is_fetched_again_soon_after_the_set_changed():
    ring = a_ring("a")
    for now in (NOW, NOW + 10, NOW + 30):
        assert expect_absent(ring.lookup("b", ALG, now)).may_fetch
        complete_fetch(ring, keys("a"), now, provoked=True)
    assert not expect_absent(ring.lookup("b", ALG, NOW + 69)).may_fetch
    complete_fetch(ring, keys("a", "c"), NOW + 32)
    assert not expect_absent(ring.lookup("b", ALG, NOW + 41)).may_fetch
    assert expect_absent(ring.lookup("b", ALG, NOW + 42)).may_fetch


def test_tokens_without_a_kid_are_distinguished():
    ring = a_ring("a")
    assert expect_absent(ring.look_beyond(ALG, "one", NOW)).undecided
    complete_fetch(ring, keys("a"), NOW, provoked=True)
    assert not expect_absent(ring.look_beyond(ALG, "one", NOW)).undecided
    assert expect_absent(ring.look_beyond(ALG, "two", NOW)).undecided
    assert expect_absent(ring.lookup(None, "RS256", NOW, mark="one")).undecided
    ring.remember_absent(None, "RS256", NOW, "one")
    assert not expect_absent(ring.lookup(None, "RS256", NOW, mark="one")).undecided


def test_failure_does_not_undo_the_last_answer():
    ring = a_ring("a")
    ring.remember_absent("b", ALG, NOW)
    fail_fetch(ring, NOW)
    assert not expect_absent(ring.lookup("b", ALG, NOW + 1)).undecided


def test_absent_key_is_found_as_soon_as_it_is_published():
    ring = a_ring("a")
    ring.remember_absent("b", ALG, NOW)
    complete_fetch(ring, keys("a", "b"), NOW + 1)
    assert found_kids(ring.lookup("b", ALG, NOW + 1)) == ["b"]


def test_two_clients_with_withdrawn_keys_do_not_trigger_each_others_fetches():
    ring = a_ring("a")
    for kid in ("old-1", "old-2"):
        assert expect_absent(ring.lookup(kid, ALG, NOW)).may_fetch
        complete_fetch(ring, keys("a"), NOW, provoked=True)
        ring.remember_absent(kid, ALG, NOW)
    assert not expect_absent(ring.lookup("old-1", ALG, NOW + 1)).may_fetch
    assert not expect_absent(ring.lookup("old-2", ALG, NOW + 1)).may_fetch


def test_latest_absent_keys_are_remembered():
    ring = a_ring("a", policy=replace(POLICY, negative_kids=2))
    for kid in "bcbd":
        ring.remember_absent(kid, ALG, NOW)
    assert [expect_absent(ring.lookup(kid, ALG, NOW)).may_fetch for kid in "bcd"] == [False, True, False]


@given(st.lists(st.text(max_size=5), max_size=400))
@settings(max_examples=20)
def test_number_of_remembered_absent_keys_is_bounded(kids: list[str]):
    ring = a_ring("a", policy=replace(POLICY, negative_kids=16))
    for kid in kids:
        ring.remember_absent(kid, ALG, NOW)
    assert len(ring._missing) <= 16
    latest = list(dict.fromkeys(reversed(kids)))[:16]
    for kid in latest:
        assert not expect_absent(ring.lookup(kid, "ES384" if kid == "a" else ALG, NOW)).may_fetch or kid == "a"


# -- bad signatures under a held key


def test_bad_signature_may_cause_a_fetch_within_the_same_budget():
    ring = a_ring("a")
    assert ring.may_doubt(NOW)
    for _ in range(3):
        complete_fetch(ring, keys("a"), NOW, provoked=True)
    assert not ring.may_doubt(NOW)
    assert ring.may_doubt(NOW + 10)


def test_bad_signature_causes_no_fetch_during_a_pause():
    ring = a_ring("a")
    fail_fetch(ring, NOW)
    assert not ring.may_doubt(NOW + 0.2)
    assert ring.may_doubt(NOW + 0.25)


# -- answers out of order


def test_overtaken_answer_is_dropped():
    ring = KeyRing(POLICY)
    first, second = ring.begin(NOW, provoked=False), ring.begin(NOW, provoked=False)
    assert first is not None
    assert second is not None
    ring.absorb(keys("new"), NOW + 1, number=second, lifetime=None)
    generation = ring.generation
    ring.absorb(keys("old"), NOW + 2, number=first, lifetime=None)
    assert found_kids(ring.lookup("new", ALG, NOW + 2)) == ["new"]
    assert ring.generation == generation + 1  # The fetch has ended all the same: a waiting caller looks again.


def test_overtaken_failure_causes_no_pause():
    ring = KeyRing(POLICY)
    first, second = ring.begin(NOW, provoked=False), ring.begin(NOW, provoked=False)
    assert first is not None
    assert second is not None
    ring.absorb(keys("a"), NOW + 1, number=second, lifetime=None)
    ring.fail(NOW + 2, number=first, retry_after=30)
    late = expect_absent(ring.lookup("b", ALG, NOW + 2))
    assert late.may_fetch
    assert late.retry_after == 0


_meanwhile: list[Callable[[], object]] = []


class _Overtaken(KeySet):
    """A key set that simulates another thread acting in the middle of a read."""

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        held = KeySet.candidates(self, kid, algorithm)
        if _meanwhile:
            _meanwhile.pop()()
        return held


@pytest.mark.rule("H-20", "J-20")
def test_set_that_arrives_during_a_look_up_causes_no_refusal_of_a_new_key():
    """The old keys were read, then the new ones arrived: the key id is known although the look-up did not find it."""
    ring = KeyRing(POLICY)
    complete_fetch(ring, _Overtaken(keys=(key("a"),)), NOW)
    _meanwhile.append(lambda: complete_fetch(ring, keys("a", "b"), NOW))
    assert found_kids(ring.lookup("b", ALG, NOW)) == ["b"]


@pytest.mark.rule("A-17", "H-20")
def test_set_that_arrives_during_a_look_up_does_not_extend_an_old_key():
    class Late(float):
        """The time of a look-up; a new set arrives when it is first compared."""

        def __lt__(self, other: float) -> bool:
            if ring.begun == 1:
                complete_fetch(ring, keys("b"), NOW + POLICY.max_stale)
            return float(self) < other

    ring = a_ring("a")
    assert found_kids(ring.lookup("a", ALG, Late(NOW + POLICY.max_stale))) == []


# -- keys from the configuration


def test_static_keys_never_expire_and_are_never_fetched():
    ring = KeyRing(POLICY, static=keys("a"))
    assert ring.is_usable(10**12)
    assert isinstance(ring.lookup("a", ALG, 10**12), Found)
    look = expect_absent(ring.lookup("b", ALG, NOW))
    assert not look.may_fetch
    assert not look.undecided
    assert not ring.may_doubt(NOW)
    assert ring.key_set == keys("a")


def test_child_process_does_not_wait_for_flights_of_its_parent():
    ring = a_ring("a", policy=replace(POLICY, refetch_burst=1))
    assert ring.begin(NOW, provoked=True) is not None
    ring._lock.acquire()  # A thread of the parent held it.
    ring.after_fork()
    look = expect_absent(ring.lookup("b", ALG, NOW))
    assert not look.may_fetch  # The budget is spent, and no fetch is running.
    assert found_kids(ring.lookup("a", ALG, NOW)) == ["a"]


def test_ring_reports_its_state():
    empty = KeyRing(POLICY)
    assert empty.key_set is None
    assert not empty.is_usable(NOW)
    assert empty.candidates("a", ALG, NOW) == ()
    ring = a_ring("a")
    assert ring.key_set == keys("a")
    assert ring.candidates("a", ALG, NOW) == keys("a").keys
    assert ring.is_usable(NOW)
    assert ring.generation == ring.begun == 1


# -- any order of events


_KIDS = st.sampled_from(["a", "b", "c", "d", None])


class RingMachine(RuleBasedStateMachine):
    """Look-ups, fetches and time steps in any order, with several concurrent fetches."""

    @initialize(
        burst=st.integers(1, 4),
        interval=st.sampled_from([0.5, 10.0, 60.0]),
        jitter=st.sampled_from([-1.0, 0.0, 1.0]),
        ahead=st.sampled_from([0.5, 0.8, 1.0]),
    )
    def begin_at(self, burst: int, interval: float, jitter: float, ahead: float) -> None:
        self.policy = replace(
            POLICY, refetch_burst=burst, refetch_interval=interval, refresh_ahead=ahead, negative_kids=3
        )
        self.ring = KeyRing(self.policy, jitter=jitter)
        self.started = self.now = NOW
        self.air: list[int] = []
        self.provoked = 0
        self.good: KeySet | None = None
        self.good_number = 0
        self.good_at = 0.0
        self.last_ended_well: bool | None = None
        self.first_asked: dict[tuple[str | None, str], int] = {}
        self.claims: list[float] = []
        self.ended = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.3, 5.0, 21.0, 500.0, 700.0, 40_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(kid=_KIDS, algorithm=st.sampled_from([ALG, "RS256"]))
    def look(self, kid: str | None, algorithm: str) -> None:
        usable = self.good is not None and self.now < self.good_at + self.policy.max_stale
        expected = self.good.candidates(kid, algorithm) if usable and self.good is not None else ()
        match self.ring.lookup(kid, algorithm, self.now):
            case Found(keys=found, generation=generation):
                assert found == expected != ()
                assert generation == self.ended
            case Due(found=Found(keys=found)) as due:
                assert found == expected != ()
                age = self.now - self.good_at
                assert age >= self.policy.refresh_ahead * 60 * 0.95
                assert not (due.overdue and self.last_ended_well is False)
                # One claim at a time: the previous fetch has ended, or 20 seconds have passed.
                assert not self.claims or self.now >= self.claims[-1] + 20
                self.claims.append(self.now)
            case Absent() as look:
                assert expected == ()
                known = self.good is not None and kid is not None and self.good.has_key_id(kid)
                asked = self.first_asked.setdefault((kid, algorithm), self.ring.begun)
                assert look.held == usable
                if not usable:
                    assert look.undecided
                elif not look.undecided:
                    assert known or asked < self.good_number, "the key was not looked up"
                assert len(self.ring._unsearched) <= self.policy.negative_kids
                assert len(self.ring._missing) <= self.policy.negative_kids
                longest = max(self.policy.max_backoff, self.policy.refetch_interval)
                # (now + 60) - now may be a little more than 60.
                assert 0 <= look.retry_after <= longest + 1e-6 or not look.undecided
                if look.may_fetch and not self.air:
                    assert look.retry_after == 0.0
                    number = self.ring.begin(self.now, provoked=look.held)
                    assert number is not None, "an offered fetch must be allowed to start"
                    self.provoked += look.held
                    self.air.append(number)

    @rule(provoked=st.booleans())
    def begin(self, provoked: bool) -> None:
        number = self.ring.begin(self.now, provoked=provoked)
        if number is not None:
            self.air.append(number)
            self.provoked += provoked
        else:
            assert provoked

    def _take(self, which: int) -> int:
        return self.air.pop(which % len(self.air))

    @precondition(lambda self: self.air)
    @rule(
        which=st.integers(0, 9), kids=st.sets(st.sampled_from("abcd"), min_size=1), lifetime=st.sampled_from([None, 0])
    )
    def finish(self, which: int, kids: Iterable[str], lifetime: float | None) -> None:
        number = self._take(which)
        new = keys(*sorted(kids))
        self.ring.absorb(new, self.now, number=number, lifetime=lifetime)
        self.ended += 1
        self.claims.clear()
        if number >= self.good_number:
            self.good, self.good_number, self.good_at, self.last_ended_well = new, number, self.now, True

    @precondition(lambda self: self.air)
    @rule(which=st.integers(0, 9), retry_after=st.sampled_from([None, 7.0]))
    def fail(self, which: int, retry_after: float | None) -> None:
        number = self._take(which)
        self.ring.fail(self.now, number=number, retry_after=retry_after)
        self.ended += 1
        self.claims.clear()
        if number >= self.good_number:
            self.last_ended_well = False

    @precondition(lambda self: self.air)
    @rule(which=st.integers(0, 9))
    def cut_off(self, which: int) -> None:
        self.ring.abandon(self._take(which))
        self.claims.clear()

    @invariant()
    def keys_of_the_last_good_set_are_held(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.key_set == self.good

    @invariant()
    def provoked_fetches_stay_within_the_budget(self) -> None:
        if hasattr(self, "ring"):
            elapsed = self.now - self.started
            assert self.provoked <= self.policy.refetch_burst + elapsed / self.policy.refetch_interval


@pytest.mark.hypothesis
@pytest.mark.rule("A-16", "A-17", "A-19")
def test_any_order_of_events_keeps_budget_keys_and_results_correct():
    run_state_machine_as_test(RingMachine, settings=settings(max_examples=150, stateful_step_count=40))


def test_age_and_pause_describe_the_ring_to_metrics():
    ring = a_ring()
    assert (ring.age(0.0), ring.pause(0.0), ring.is_failing) == (None, 0.0, False)
    fail_fetch(ring, 0.0)
    assert (ring.age(0.0), ring.pause(0.0), ring.is_failing) == (None, POLICY.first_backoff, True)
    complete_fetch(ring, keys("a"), 10.0)
    assert (ring.age(25.0), ring.pause(25.0), ring.is_failing) == (15.0, 0.0, False)
    assert KeyRing(POLICY, static=keys("a")).age(25.0) is None


# -- packed sets


def test_packed_set_is_due_at_once_and_overdue_after_its_lifetime():
    ring = KeyRing(POLICY)
    ring.plant(keys("a"), NOW, 100.0)
    assert ring.age(NOW) == 100.0
    assert isinstance(ring.lookup("a", ALG, NOW), Due)
    later = NOW + POLICY.ttl
    due = ring.lookup("a", ALG, later)
    assert isinstance(due, Due)
    assert due.overdue
    assert ring.is_usable(NOW + POLICY.max_seed_age - 101.0)
    assert not ring.is_usable(NOW + POLICY.max_seed_age - 100.0)


def test_packed_set_replaces_nothing_and_is_tried_once():
    ring = a_ring("b")
    ring.plant(keys("a"), NOW, 0.0)
    assert ring.key_set == keys("b")
    ring = KeyRing(POLICY)
    ring.plant(None, NOW, 0.0)
    ring.plant(keys("a"), NOW, 0.0)
    assert ring.key_set is None


def test_only_a_fetch_decides_that_a_key_does_not_exist():
    ring = KeyRing(POLICY)
    ring.plant(keys("a"), NOW, 0.0)
    for kid, algorithm in (("b", ALG), ("a", "RS256")):
        absent = ring.lookup(kid, algorithm, NOW)
        assert isinstance(absent, Absent)
        assert absent.undecided
        assert absent.may_fetch
    complete_fetch(ring, keys("a"), NOW)
    assert not ring.is_packed
    absent = ring.lookup("a", "RS256", NOW)
    assert isinstance(absent, Absent)
    assert not absent.may_fetch
