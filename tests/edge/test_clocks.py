"""The clock of a machine that may be frozen."""

from __future__ import annotations

import pytest

from scopeguard import Granted, Guard, HeaderList, Issuer, RequestView
from scopeguard.edge.clocks import SuspendableClock, choose_clock
from scopeguard.edge.runtime import SystemClock
from scopeguard.testing import FakeAuthority


class Machine:
    """Both clocks of a machine, in seconds. ``freeze`` stops one of them."""

    def __init__(self, wall: float = 1.8e9) -> None:
        self.wall, self.monotonic = wall, 100.0
        self.clock = SuspendableClock(lambda: self.wall, lambda: self.monotonic)

    def run(self, seconds: float) -> float:
        self.wall += seconds
        self.monotonic += seconds
        return self.clock.monotonic()

    def freeze(self, seconds: float) -> float:
        self.wall += seconds
        return self.clock.monotonic()


def test_time_of_a_freeze_counts_once():
    machine = Machine()
    assert machine.clock.monotonic() == 100.0
    assert machine.run(1.0) == 101.0
    assert machine.freeze(3600.0) == 3701.0
    assert machine.clock.monotonic() == 3701.0
    assert machine.run(1.0) == 3702.0
    assert machine.freeze(7200.0) == 10902.0


def test_small_corrections_of_the_clock_do_not_count():
    machine = Machine()
    machine.wall += 1.5
    assert machine.run(1.0) == 101.0
    machine.wall -= 3.0
    assert machine.run(1.0) == 102.0


def test_clock_that_is_set_back_never_takes_monotonic_time_back_and_a_later_freeze_is_found():
    machine = Machine()
    assert machine.freeze(3600.0) == 3700.0
    machine.wall -= 7200.0
    assert machine.clock.monotonic() == 3700.0
    assert machine.run(10.0) == 3710.0
    assert machine.freeze(60.0) == 3770.0


@pytest.mark.parametrize(("variable", "kind"), [(None, SystemClock), ("AWS_LAMBDA_FUNCTION_NAME", SuspendableClock)])
def test_lambda_gets_the_clock_that_notices_a_freeze(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, kind: type[object]
):
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "api")
    assert isinstance(choose_clock(), kind)


def test_keys_of_a_frozen_instance_are_as_old_as_they_are():
    """A key that was withdrawn during the freeze is not accepted by the second request after it."""
    authority = FakeAuthority()
    machine = Machine(authority.clock.wall())
    guard = Guard(authority.issuer, transport=authority.transport, clock=machine.clock)

    def accepts(token: str) -> bool:
        headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
        return isinstance(guard.check(RequestView(method="GET", path="/", headers=headers)), Granted)

    token = authority.mint("read", expires_in=86400)
    assert accepts(token)
    authority.rotate(overlap=False)
    assert accepts(token)  # nothing is due
    machine.freeze(3 * 3600.0)
    assert not accepts(token)  # the set is overdue, so the request waited for a new one
    guard.close()


def test_expired_token_is_refused_after_a_freeze():
    authority = FakeAuthority()
    machine = Machine(authority.clock.wall())
    issuer: Issuer = authority.issuer
    guard = Guard(issuer, transport=authority.transport, clock=machine.clock)
    token = authority.mint("read", expires_in=300)
    view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())]))
    assert isinstance(guard.check(view), Granted)
    machine.freeze(3600.0)
    assert not isinstance(guard.check(view), Granted)
    guard.close()
