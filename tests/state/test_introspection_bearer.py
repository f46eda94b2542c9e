"""The token with which introspection questions are asked: kept until it is refused, and not renewed at every word."""

from __future__ import annotations

import pytest

from scopeguard.state.introspection import RENEWAL_INTERVAL, IntrospectionBearer


def holding(token: str) -> IntrospectionBearer:
    held = IntrospectionBearer()
    held.keep(token)
    return held


@pytest.mark.rule("I-06")
def test_a_token_that_is_refused_is_dropped_and_asked_for_again():
    held = holding("one")
    assert held.refuse("one", 100.0)
    assert held.token is None
    assert holding("two").token == "two"


@pytest.mark.rule("I-06")
def test_of_many_who_are_refused_one_renews_and_the_others_use_the_new_one():
    held = holding("one")
    assert held.refuse("one", 100.0)
    assert held.refuse("one", 100.0)  # it is on its way
    held.keep("two")
    assert held.refuse("one", 100.0)  # it is there
    assert held.token == "two"


@pytest.mark.rule("I-06")
def test_whoever_is_refused_all_the_time_renews_from_time_to_time():
    held = holding("one")
    assert held.refuse("one", 100.0)
    held.keep("two")
    assert not held.refuse("two", 100.0)
    assert not held.refuse("two", 99.9 + RENEWAL_INTERVAL)
    assert held.token == "two"
    assert held.refuse("two", 100.0 + RENEWAL_INTERVAL)
    assert held.token is None


def test_every_call_that_ended_is_counted():
    held = IntrospectionBearer()
    assert (held.generation, held.token) == (0, None)
    held.fail()
    assert (held.generation, held.token) == (1, None)
    held.keep("one")
    held.fail()
    assert (held.generation, held.token) == (3, "one")


def test_a_token_that_was_refused_comes_back_when_the_function_fails():
    """Some authorities answer 401 to a made-up token: a function that fails then must not cut off everybody."""
    held = IntrospectionBearer()
    held.keep("one")
    assert held.refuse("one", 100.0)
    held.fail()
    assert held.token == "one"
    held.fail()
    assert held.token == "one"
    assert not held.refuse("one", 101.0)
    assert held.refuse("one", 105.0)
    held.keep("two")
    held.fail()
    assert held.token == "two"
