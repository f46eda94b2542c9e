"""Any number of concurrent requests for keys, in any order of events: none loops, none is refused wrongly.

The flows are the real ones. The test plays the edge, one step at a time, so that time may pass, the
authority may rotate or fail, and other requests may start and end between any two steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scopeguard.config.issuer import Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.devserver.keys import SigningKey
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.effects import Answer, Flow, Send, SingleFlight
from scopeguard.flow.keys import signing_keys
from scopeguard.reasons import Reason
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.keys import Found, KeyRing
from scopeguard.testing import FakeClock

ALG = "ES256"
KIDS = ("a", "b", "c", "d")


@cache
def jwk(kid: str) -> dict[str, Any]:
    return SigningKey.generate(ALG, kid=kid).public_jwk()


def publish(kids: Iterable[str]) -> Answer:
    document = json.dumps({"keys": [jwk(kid) for kid in sorted(kids)]}).encode()
    return Answer(200, document, {"content-type": "application/json"})


class CountingRing(KeyRing):
    """A key ring that counts the provoked fetches."""

    provoked = 0

    def begin(self, now: float, *, provoked: bool) -> int | None:
        number = super().begin(now, provoked=provoked)
        self.provoked += provoked and number is not None
        return number


@dataclass(eq=False)
class Caller:
    """A request for keys."""

    kid: str
    flow: Flow[Found]
    events_before: int
    answered_before: int
    flight: SingleFlight | None = None
    asked: int = 0


@dataclass(eq=False)
class RunningFlight:
    """The running flight, between its request and its end."""

    refresh: Flow[Any]
    leader: Caller | None
    waiting: list[Caller] = field(default_factory=list)
    answer: Answer | Exception | None = None
    answered: int = 0


class Schedule(RuleBasedStateMachine):
    @initialize(burst=st.integers(1, 3), kids=st.sets(st.sampled_from(KIDS), min_size=1))
    def begin(self, burst: int, kids: set[str]) -> None:
        self.policy = KeySetPolicy(refetch_burst=burst)
        issuer = Issuer("https://as.test", audience="a", jwks_uri="https://as.test/jwks", key_set=self.policy)
        self.ring = CountingRing(self.policy)
        self.record = IssuerRecord(issuer=issuer, vocabulary=issuer.vocabulary, ring=self.ring)
        self.clock = FakeClock(wall=0.0)
        self.started = self.clock.monotonic()
        self.kids = kids
        self.air: RunningFlight | None = None
        self.woken: list[Caller] = []
        self.events = 0  # Ended flights and time-outs: the events after which a request may look again.
        self.answers = 0  # Number of requests that the authority has answered.
        self.last_good: tuple[int, set[str]] | None = None  # Number and key ids of the last successful answer.
        self.failed_last = False
        self.first_asked: dict[str, int] = {}  # Number of answers when a key id was first requested.

    # Events outside

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.3, 4.0, 11.0, 500.0, 700.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(kids=st.sets(st.sampled_from(KIDS), min_size=1))
    def rotate(self, kids: set[str]) -> None:
        self.kids = kids

    @rule(kid=st.sampled_from(KIDS))
    def request_starts(self, kid: str) -> None:
        flow = signing_keys(kid, ALG, self.record, self.clock)
        caller = Caller(kid, flow, self.events, self.answers)
        self.first_asked.setdefault(kid, self.answers)
        held = self.ring.candidates(kid, ALG, self.clock.monotonic())
        self.step(caller, None)
        if held and caller.flight is not None:
            assert caller.flight.wait, "the request waits for a background flight"
            set_ = self.ring.current
            assert set_ is not None
            assert self.clock.monotonic() >= set_.overdue_at, "the request waits although it has a fresh key"

    @precondition(lambda self: self.air is not None and self.air.answer is None)
    @rule(how=st.sampled_from(["well", "well", "well", "down", "garbled", "bug"]))
    def authority_answers(self, how: str) -> None:
        assert self.air is not None
        self.answers += 1
        self.air.answered = self.answers
        match how:
            case "well":
                self.air.answer = publish(self.kids)
            case "down":
                self.air.answer = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "as")
            case "garbled":
                self.air.answer = Answer(200, b"{}", {"content-type": "application/json"})
            case _:
                self.air.answer = RuntimeError("a bug in a transport")

    @precondition(lambda self: self.air is not None and self.air.answer is not None)
    @rule()
    def flight_ends(self) -> None:
        air = self.air
        assert air is not None
        failure: Exception | None = None
        try:
            if isinstance(air.answer, Exception):
                air.refresh.throw(air.answer)
            else:
                air.refresh.send(air.answer)
        except StopIteration:
            assert self.ring.key_set is not None
            self.last_good = air.answered, {key.kid or "" for key in self.ring.key_set.keys}
            self.failed_last = False
        except Exception as error:  # noqa: BLE001 - thrown into the one that led
            failure = error
            self.failed_last = True
        self.end_flight(air)
        if air.leader is not None:
            self.step(air.leader, failure)

    @precondition(lambda self: self.air is not None)
    @rule()
    def leader_is_cancelled(self) -> None:
        air = self.air
        assert air is not None
        air.refresh.close()
        self.end_flight(air)
        if air.leader is not None:
            air.leader.flow.close()

    def end_flight(self, air: RunningFlight) -> None:
        self.events += 1
        self.woken += air.waiting
        self.air = None

    @precondition(lambda self: self.woken)
    @rule(which=st.integers(0, 9))
    def waiter_wakes(self, which: int) -> None:
        caller = self.woken.pop(which % len(self.woken))
        assert caller.flight is not None
        self.run_or_wait(caller, caller.flight)

    @precondition(lambda self: self.air is not None and self.air.waiting)
    @rule(which=st.integers(0, 9))
    def waiter_times_out(self, which: int) -> None:
        assert self.air is not None
        caller = self.air.waiting.pop(which % len(self.air.waiting))
        self.events += 1
        self.step(caller, AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "as"))

    # Actions of the edge

    def run_or_wait(self, caller: Caller, flight: SingleFlight) -> None:
        if not flight.needed():
            if flight.wait:
                self.step(caller, None)
            return
        if self.air is not None:
            if flight.wait:
                self.air.waiting.append(caller)
            return
        refresh = flight.flow()
        try:
            asked = next(refresh)
        except StopIteration:  # The fetch may not start.
            self.events += 1
            if flight.wait:
                self.step(caller, None)
            return
        assert isinstance(asked, Send)
        self.air = RunningFlight(refresh, caller if flight.wait else None)

    def step(self, caller: Caller, failure: Exception | None) -> None:
        while True:
            try:
                effect = next(caller.flow) if failure is None else caller.flow.throw(failure)
            except StopIteration as stop:
                self.check_keys(caller, stop.value)
                return
            except (AuthorityUnavailable, InvalidToken, RuntimeError) as error:
                self.check_refusal(caller, error, failure)
                return
            failure = None
            assert isinstance(effect, SingleFlight)
            caller.asked += 1
            assert caller.asked <= 1 + self.events - caller.events_before, (
                "the request repeats its flight without a new event"
            )
            caller.flight = effect
            self.run_or_wait(caller, effect)
            if effect.wait:
                return
            caller.flight = None

    # Conditions at each end

    def check_keys(self, caller: Caller, found: Found) -> None:
        caller.flight = None
        assert [key.kid for key in found.keys] == [caller.kid]
        assert self.ring.is_usable(self.clock.monotonic())

    def check_refusal(self, caller: Caller, error: Exception, thrown: Exception | None) -> None:
        caller.flight = None
        now = self.clock.monotonic()
        usable = self.ring.is_usable(now)
        if error is thrown:
            return  # The flight of this request failed, or the request timed out.
        if isinstance(error, AuthorityUnavailable):
            assert error.reason is Reason.AUTHORITY_BACKING_OFF
            assert not usable or not self.ring.may_doubt(now), "a fetch is allowed, but the request reports back-off"
            assert error.retry_after is not None
            return
        assert isinstance(error, InvalidToken)
        assert error.reason is Reason.UNKNOWN_KEY
        assert self.is_final(caller.kid), "the request was refused although the key was not looked up"

    def is_final(self, kid: str) -> bool:
        """Return whether an answer that lacks *kid* arrived after the first request for it."""
        if self.last_good is None:
            return False
        number, kids = self.last_good
        return number > self.first_asked[kid] and kid not in kids

    @invariant()
    def provoked_fetches_stay_within_the_budget(self) -> None:
        if hasattr(self, "ring"):
            elapsed = self.clock.monotonic() - self.started
            assert self.ring.provoked <= self.policy.refetch_burst + elapsed / self.policy.refetch_interval

    @invariant()
    def key_set_is_that_of_the_last_good_answer(self) -> None:
        if hasattr(self, "ring") and self.last_good is not None:
            assert self.ring.key_set is not None
            assert {key.kid for key in self.ring.key_set.keys} == self.last_good[1]

    @invariant()
    def ring_counts_the_running_flight(self) -> None:
        if hasattr(self, "ring"):
            assert (self.ring._in_flight > 0) == (self.air is not None)

    def teardown(self) -> None:
        if not hasattr(self, "ring"):
            return
        for _ in range(10_000):  # Each waiting request must end, with any result.
            if self.air is not None:
                if self.air.answer is None:
                    self.authority_answers("well")
                self.flight_ends()
            elif self.woken:
                self.waiter_wakes(0)
            else:
                return
        pytest.fail("a request never ends")


@pytest.mark.hypothesis
@pytest.mark.rule("H-16", "H-19", "A-16", "A-19", "X-59")
def test_any_schedule_ends_each_request_correctly():
    run_state_machine_as_test(Schedule, settings=settings(max_examples=200, stateful_step_count=50))
