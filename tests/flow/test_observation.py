"""What an :class:`Observation` notes while a flow runs."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard.flow.effects import Effect, Flow, ReadFile, ReadForm, Send, SingleFlight, UseStore
from scopeguard.flow.observation import Observation, TokenCheck


def find_nothing() -> Flow[tuple[str, ...]]:
    yield from ()
    return ()


def flight(*, wait: bool) -> SingleFlight:
    return SingleFlight(key="k", authority="as", needed=bool, flow=find_nothing, wait=wait)


def ask_for(effect: Effect[Any]) -> Flow[Any]:
    return (yield effect)


@pytest.mark.parametrize(
    ("effect", "found"),
    [
        (Send(url="https://as.test", authority="as"), TokenCheck.FETCHED),
        (UseStore(lambda store: None), TokenCheck.FETCHED),
        (ReadFile(path="/keys", authority="as"), TokenCheck.FETCHED),
        (flight(wait=True), TokenCheck.FETCHED),
        (flight(wait=False), None),
        (ReadForm(limit=1), None),
    ],
)
def test_exchange_is_noted_and_reading_the_request_is_not(effect: Effect[Any], found: TokenCheck | None):
    observation = Observation(0.0)
    flow = observation.follow(ask_for(effect))
    assert next(flow) is effect
    with pytest.raises(StopIteration) as stop:
        flow.send("the answer")
    assert stop.value.value == "the answer"
    assert observation.token_check is found


def test_failure_is_thrown_into_the_flow():
    def wait_patiently() -> Flow[str]:
        with pytest.raises(OSError, match="first"):
            yield ReadForm(limit=1)
        yield ReadForm(limit=2)
        return "done"

    flow = Observation(0.0).follow(wait_patiently())
    next(flow)
    assert flow.throw(OSError("first")) == ReadForm(limit=2)
    with pytest.raises(OSError, match="second"):
        flow.throw(OSError("second"))


def test_flow_is_closed_with_its_follower():
    closed = []

    def read_form() -> Flow[None]:
        try:
            yield ReadForm(limit=1)
        finally:
            closed.append(True)

    flow = Observation(0.0).follow(read_form())
    next(flow)
    flow.close()
    assert closed == [True]


def test_noted_fetch_stays():
    """The issuer is known only after the directory has answered."""
    observation = Observation(0.0)
    observation.note("https://as.test", TokenCheck.CACHED)
    observation.note("https://as.test", TokenCheck.VERIFIED)
    assert observation.token_check is TokenCheck.VERIFIED
    next(observation.follow(ask_for(Send(url="https://as.test", authority="as"))))
    observation.note("https://as.test", TokenCheck.VERIFIED)
    assert (observation.token_check, observation.issuer) == (TokenCheck.FETCHED, "https://as.test")
