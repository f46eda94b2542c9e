"""Cached introspection answers and their lifetimes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from scopeguard.state.introspection import IntrospectionAnswer, IntrospectionCache

FOREVER = float("inf")
ACTIVE = {"active": True}


def answers(**options: Any) -> IntrospectionCache:
    return IntrospectionCache(**{"ttl": 60.0, "negative_ttl": 10.0, "max_entries": 3, **options})


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_empty_cache_has_no_answer():
    assert answers().lookup(key(1), 0.0) is None


@pytest.mark.rule("I-22")
@pytest.mark.parametrize(("members", "seconds"), [(ACTIVE, 60.0), (None, 10.0)])
def test_answer_is_used_for_its_ttl(members: dict[str, bool] | None, seconds: float):
    kept = answers()
    kept.absorb(key(1), IntrospectionAnswer(members), 100.0, lifetime=FOREVER)
    assert kept.lookup(key(1), 100.0 + seconds - 0.01) == IntrospectionAnswer(members)
    assert kept.lookup(key(1), 100.0 + seconds) is None
    assert len(kept) == 0


@pytest.mark.rule("I-21", "X-63")
def test_active_answer_is_not_used_beyond_the_expiry_of_the_token():
    kept = answers()
    kept.absorb(key(1), IntrospectionAnswer(ACTIVE), 100.0, lifetime=5.0)
    assert kept.lookup(key(1), 104.9) == IntrospectionAnswer(ACTIVE)
    assert kept.lookup(key(1), 105.0) is None


@pytest.mark.rule("X-62")
def test_age_of_an_inactive_answer_counts_towards_its_ttl():
    kept = answers()
    kept.absorb(key(1), IntrospectionAnswer(None), 100.0, lifetime=2.0)
    assert kept.lookup(key(1), 101.9) == IntrospectionAnswer(None)
    assert kept.lookup(key(1), 102.0) is None


@pytest.mark.rule("I-21")
@pytest.mark.parametrize("lifetime", [0.0, -1.0, -1000.0])
@pytest.mark.parametrize("members", [ACTIVE, None])
def test_expired_answer_is_not_kept(members: dict[str, bool] | None, lifetime: float):
    kept = answers()
    kept.absorb(key(1), IntrospectionAnswer(members), 100.0, lifetime=lifetime)
    assert kept.lookup(key(1), 100.0) is None


@pytest.mark.rule("I-22")
def test_ttl_of_zero_keeps_nothing():
    kept = answers(ttl=0.0)
    kept.absorb(key(1), IntrospectionAnswer(ACTIVE), 100.0, lifetime=FOREVER)
    kept.absorb(key(2), IntrospectionAnswer(None), 100.0, lifetime=FOREVER)
    assert kept.lookup(key(1), 100.0) is None
    assert kept.lookup(key(2), 100.0) == IntrospectionAnswer(None)
    kept = answers(negative_ttl=0.0)
    kept.absorb(key(2), IntrospectionAnswer(None), 100.0, lifetime=FOREVER)
    assert kept.lookup(key(2), 100.0) is None


@pytest.mark.rule("I-23")
def test_flood_of_inactive_answers_evicts_no_active_one():
    kept = answers()
    kept.absorb(key(0), IntrospectionAnswer(ACTIVE), 100.0, lifetime=FOREVER)
    for number in range(1, 10_001):
        kept.absorb(key(number), IntrospectionAnswer(None), 100.0, lifetime=FOREVER)
    assert kept.lookup(key(0), 100.0) == IntrospectionAnswer(ACTIVE)
    assert len(kept) == 1 + 3


def test_least_recently_used_answer_is_evicted_first():
    kept = answers()
    for number in (1, 2, 3):
        kept.absorb(key(number), IntrospectionAnswer(ACTIVE), 100.0, lifetime=FOREVER)
    kept.lookup(key(1), 101.0)
    kept.absorb(key(4), IntrospectionAnswer(ACTIVE), 101.0, lifetime=FOREVER)
    assert [kept.lookup(key(number), 101.0) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]


@pytest.mark.parametrize(("before", "after"), [(ACTIVE, None), (None, ACTIVE)])
def test_newer_answer_replaces_the_older_one(before: dict[str, bool] | None, after: dict[str, bool] | None):
    kept = answers()
    kept.absorb(key(1), IntrospectionAnswer(before), 100.0, lifetime=FOREVER)
    kept.absorb(key(1), IntrospectionAnswer(after), 101.0, lifetime=FOREVER)
    assert kept.lookup(key(1), 101.0) == IntrospectionAnswer(after)
    assert len(kept) == 1


@pytest.mark.rule("I-23")
def test_failure_is_not_an_answer_and_affects_waiting_requests_only():
    kept = answers()
    kept.failures.fail(key(1), 100.0, pauses=False)
    assert kept.lookup(key(1), 100.0) is None
    assert kept.failures.failed_since(key(1), 100.0)
    assert not kept.failures.failed_since(key(1), 100.1)


@pytest.mark.parametrize("ttl", [0.0, 60.0])
def test_an_answer_ends_the_pause_of_its_token(ttl: float):
    kept = answers(ttl=ttl)
    kept.failures.fail(key(1), 100.0)
    kept.absorb(key(1), IntrospectionAnswer(ACTIVE), 100.0, lifetime=FOREVER)
    assert kept.failures.pause(key(1), 100.0) == 0
    assert kept.failures.fail(key(1), 100.0) == 1


def test_threads_can_share_the_cache():
    kept = answers(max_entries=50)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(2000):
                one = key((number * 7 + seed) % 100)
                kept.absorb(one, IntrospectionAnswer(ACTIVE if number % 2 else None), float(number), lifetime=FOREVER)
                kept.lookup(one, float(number))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(kept) <= 100
