"""The bearer token for introspection requests: kept until it is refused, and not renewed for each refusal."""

from __future__ import annotations

import pytest

from scopeguard.state.own_bearer import RENEWAL_INTERVAL, OwnBearer


def new_bearer(token: str) -> OwnBearer:
    held = OwnBearer()
    held.keep(token)
    return held


@pytest.mark.rule("I-06")
def test_refused_token_is_dropped_and_requested_again():
    held = new_bearer("one")
    assert held.refuse("one", 100.0)
    assert held.token is None
    assert new_bearer("two").token == "two"


@pytest.mark.rule("I-06")
def test_one_of_many_refused_requests_renews_and_the_others_use_the_new_token():
    held = new_bearer("one")
    assert held.refuse("one", 100.0)
    assert held.refuse("one", 100.0)  # The renewal is running.
    held.keep("two")
    assert held.refuse("one", 100.0)  # The new token has arrived.
    assert held.token == "two"


@pytest.mark.rule("I-06")
def test_permanent_refusals_cause_a_renewal_now_and_then():
    held = new_bearer("one")
    assert held.refuse("one", 100.0)
    held.keep("two")
    assert not held.refuse("two", 100.0)
    assert not held.refuse("two", 99.9 + RENEWAL_INTERVAL)
    assert held.token == "two"
    assert held.refuse("two", 100.0 + RENEWAL_INTERVAL)
    assert held.token is None


def test_each_ended_call_is_counted():
    held = OwnBearer()
    assert (held.generation, held.token) == (0, None)
    held.fail()
    assert (held.generation, held.token) == (1, None)
    held.keep("one")
    held.fail()
    assert (held.generation, held.token) == (3, "one")


def test_refused_token_is_used_again_if_the_function_fails():
    """Some authorities answer 401 to a forged token: a failing function must not stop introspection for all."""
    held = OwnBearer()
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
