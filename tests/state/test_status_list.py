"""Lifetimes, refreshes and limits of cached status lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.status_list import StatusList
from scopeguard.state.status_list import Held, StatusLists

URI = "https://as.test/statuslists/1"
SECONDS = st.none() | st.floats(0.001, 1e12)


def list_of_size(size: int) -> StatusList:
    return StatusList(bits=1, data=bytes(size))


LIST = list_of_size(2)


def statuses(*, jitter: float = 0.0, max_bytes: int = 100, max_entries: int = 3) -> StatusLists:
    return StatusLists(max_bytes=max_bytes, max_entries=max_entries, jitter=jitter)


def absorb(
    kept: StatusLists,
    now: float = 1000.0,
    *,
    uri: str = URI,
    status_list: StatusList = LIST,
    ttl: float | None = None,
    expires_in: float | None = None,
    max_age: float | None = None,
) -> None:
    kept.absorb(uri, status_list, now, ttl=ttl, expires_in=expires_in, max_age=max_age)


def test_list_that_was_never_fetched_is_due():
    assert statuses().lookup(URI, 0.0) == Held(status_list=None, due=True, pause=0.0, generation=0)


@pytest.mark.rule("K-10", "K-12")
@pytest.mark.parametrize(
    ("ttl", "expires_in", "max_age", "seconds"),
    [
        (60.0, 3600.0, None, 60.0),
        (600.0, None, 1.0, 600.0),  # The list precedes HTTP caching.
        (None, 600.0, 1.0, 600.0),
        (None, None, 120.0, 120.0),
        (None, None, 1.0, 30.0),
        (None, None, 0.0, 30.0),
        (None, None, None, 300.0),
        (1.0, None, None, 30.0),
        (1.0, 3600.0, None, 30.0),
        (1e9, None, None, 86400.0),
        (1e9, 1e9, None, 86400.0),
        (None, 1e9, None, 86400.0),
        (600.0, 45.0, None, 45.0),
        (1.0, 10.0, None, 10.0),  # The expiry of a list is not extended.
    ],
)
def test_list_is_fetched_again_after_its_ttl(
    ttl: float | None, expires_in: float | None, max_age: float | None, seconds: float
):
    kept = statuses()
    absorb(kept, ttl=ttl, expires_in=expires_in, max_age=max_age)
    assert kept.lookup(URI, 1000.0) == Held(status_list=LIST, due=False, pause=seconds, generation=1)
    assert not kept.lookup(URI, 1000.0 + seconds - 0.01).due
    assert kept.lookup(URI, 1000.0 + seconds).due


@pytest.mark.rule("K-11")
@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 60.0), (0.05, 63.0), (0.1, 66.0)])
def test_jitter_spreads_the_fetches_of_a_fleet(jitter: float, seconds: float):
    kept = statuses(jitter=jitter)
    absorb(kept, ttl=60.0, expires_in=3600.0)
    assert kept.lookup(URI, 1000.0).pause == pytest.approx(seconds)


@pytest.mark.rule("K-11")
def test_list_that_cannot_be_refreshed_is_used_until_it_expires():
    kept = statuses()
    absorb(kept, ttl=60.0, expires_in=3600.0)
    kept.fail(URI, 1060.0)
    assert kept.lookup(URI, 4599.9).status_list is LIST
    assert kept.lookup(URI, 4600.0).status_list is None


@pytest.mark.rule("K-11", "K-12")
def test_no_list_is_used_for_more_than_a_day():
    kept = statuses(jitter=0.1)
    absorb(kept, ttl=60.0, expires_in=1e9)
    assert kept.lookup(URI, 1000.0 + 86399.9).status_list is LIST
    assert kept.lookup(URI, 1000.0 + 86400.0).status_list is None


@pytest.mark.rule("K-11")
def test_list_without_exp_is_not_used_beyond_its_ttl():
    kept = statuses(jitter=0.1)
    absorb(kept, ttl=60.0)
    assert kept.lookup(URI, 1065.9).status_list is LIST
    assert kept.lookup(URI, 1066.1) == Held(status_list=None, due=True, pause=0.0, generation=1)


def test_pause_after_each_failure_doubles():
    kept = statuses()
    pauses = []
    for _ in range(15):
        kept.fail(URI, 1000.0)
        held = kept.lookup(URI, 1000.0)
        assert (held.status_list, held.due) == (None, False)
        pauses.append(held.pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *[30.0] * 9]
    assert kept.lookup(URI, 1030.0).due
    absorb(kept, ttl=60.0)
    kept.fail(URI, 1060.0)
    assert kept.lookup(URI, 1060.0).pause == 0.5


@pytest.mark.parametrize(("asked", "pause"), [(0.1, 0.5), (7.0, 7.0), (1e9, 30.0)])
def test_retry_after_is_respected_up_to_a_limit(asked: float, pause: float):
    kept = statuses()
    kept.fail(URI, 1000.0, retry_after=asked)
    assert kept.lookup(URI, 1000.0).pause == pause


def test_each_ended_fetch_is_counted():
    kept = statuses()
    assert kept.generation(URI) == 0
    absorb(kept)
    kept.fail(URI, 1000.0)
    assert kept.generation(URI) == kept.lookup(URI, 1000.0).generation == 2


def test_number_of_lists_is_bounded_and_the_least_recently_used_is_evicted():
    kept = statuses()
    for uri in "abc":
        absorb(kept, uri=uri)
    kept.lookup("a", 1000.0)
    kept.fail("d", 1000.0)
    absorb(kept, uri="c")
    kept.fail("e", 1000.0)
    assert len(kept) == 3
    held = {uri: kept.lookup(uri, 1000.0).generation for uri in "abcde"}
    assert held == {"a": 0, "b": 0, "c": 2, "d": 1, "e": 1}


def test_total_size_of_lists_is_bounded():
    kept = statuses()
    for uri, size in (("a", 40), ("a", 50), ("b", 50)):
        absorb(kept, uri=uri, status_list=list_of_size(size))
    assert len(kept) == 2
    absorb(kept, uri="c", status_list=list_of_size(1))
    assert kept.lookup("a", 1000.0).status_list is None
    absorb(kept, uri="c", status_list=list_of_size(50))
    for uri in "bc":
        held = kept.lookup(uri, 1000.0).status_list
        assert held is not None
        assert len(held.data) == 50


@pytest.mark.rule("K-12")
@given(ttl=SECONDS, expires_in=SECONDS, max_age=SECONDS, jitter=st.floats(0.0, 0.1))
def test_any_times_in_a_list_give_valid_lifetimes(
    ttl: float | None, expires_in: float | None, max_age: float | None, jitter: float
):
    kept = statuses(jitter=jitter)
    absorb(kept, 0.0, ttl=ttl, expires_in=expires_in, max_age=max_age)
    pause = kept.lookup(URI, 0.0).pause
    assert pause == expires_in or 30.0 <= pause <= 86400.0
    assert kept.lookup(URI, 86400.0).status_list is None
    if expires_in is not None:
        assert kept.lookup(URI, expires_in).status_list is None
