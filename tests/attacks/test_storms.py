"""Herds, floods, rotations and outages, through the guard: on threads, asyncio, trio, and all of them at once.

The fake authority holds its answers where an order of events is needed, and a count of those who wait says when
everybody is there. Nothing here sleeps, and no assertion is about how long something took.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from scopeguard import AccessToken, Guard
from scopeguard.config.keys import KeySetPolicy
from scopeguard.devserver.keys import SigningKey, base64url, json_bytes
from scopeguard.guard import Decision, Granted, Unavailable, engine_of
from scopeguard.testing import FakeAuthority
from storms import HERD, PATIENCE, Storm, Watched, request_with


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Iterator[Guard]:
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    yield guard
    guard.close()


@pytest.fixture(params=["threads", "asyncio", "trio", "mixed"])
def storm(request: pytest.FixtureRequest, guard: Guard) -> Storm:
    return Storm(request.param, guard)


def counts(authority: FakeAuthority) -> tuple[int, int]:
    """How often metadata and keys were asked for."""
    return authority.transport.count("metadata"), authority.transport.count("jwks")


def unknown_keys(authority: FakeAuthority, count: int) -> list[str]:
    """Tokens that name keys nobody has: made without signing each."""
    _, payload, signature = authority.mint().split(".")
    headers = (base64url(json_bytes({"typ": "at+jwt", "alg": "ES256", "kid": f"nobody-{i}"})) for i in range(count))
    return [f"{header}.{payload}.{signature}" for header in headers]


def forged(authority: FakeAuthority) -> str:
    """A token that names a key which is held and has not signed it."""
    return authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))


# -- cold


@pytest.mark.rule("A-15", "H-20", "X-59")
def test_a_cold_herd_of_two_hundred_costs_one_discovery_and_one_key_set(storm: Storm, authority: FakeAuthority):
    with authority.hold() as held:
        storm.start([authority.mint()] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Granted": HERD}
    assert counts(authority) == (1, 1)


@pytest.mark.rule("A-15", "H-20")
def test_a_cold_herd_that_nobody_orders_costs_no_more(storm: Storm, authority: FakeAuthority):
    assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}
    assert counts(authority) == (1, 1)


@pytest.mark.rule("A-22", "H-19")
def test_a_cold_herd_in_an_outage_is_told_to_come_back_every_one_of_it(storm: Storm, authority: FakeAuthority):
    """The classic: the first gets a 503, and those who waited for it a 401, because there is no key."""
    with authority.outage(), authority.hold() as held:
        storm.start([authority.mint()] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Unavailable": HERD}
        assert counts(authority) == (1, 0)
        assert storm.run([authority.mint()] * HERD) == {"Unavailable": HERD}
        assert counts(authority) == (1, 0)  # backing off
    authority.clock.advance(0.25)
    assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}


def test_an_outage_costs_the_authority_one_question_per_pause(storm: Storm, authority: FakeAuthority):
    with authority.outage():
        for second in range(60):
            assert storm.run([authority.mint()] * 8) == {"Unavailable": 8}, second
            authority.clock.advance(1)
        # After 0.25, 0.5, 1, 2, 4, 8 and 16 seconds, rounded up to our steps; then every 30.
        assert counts(authority) == (8, 0)


@pytest.mark.rule("H-16")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_that_hangs_up_takes_nobody_with_it(backend: str, guard: Guard, authority: FakeAuthority):
    storm = Storm(backend, guard)

    async def run() -> None:
        with authority.hold() as held:
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as leader:
                    leader.start_soon(storm._acheck, authority.mint())
                    await held.aarrived()
                    for _ in range(HERD):
                        group.start_soon(storm._acheck, authority.mint())
                    while storm._boarded._value < HERD + 1:
                        await anyio.lowlevel.checkpoint()
                    leader.cancel_scope.cancel()
                held.release()

    anyio.run(run, backend=backend)
    assert storm.told() == {"Granted": HERD}
    assert counts(authority) == (1, 1)


# -- keys that grow old


@pytest.mark.rule("A-15")
def test_nobody_waits_for_a_refresh_ahead(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    authority.clock.advance(550)
    with authority.hold() as held:  # the answer does not come, and everybody is served all the same
        assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}
        held.arrived()
    storm.guard.close()
    assert counts(authority) == (1, 2)


def test_one_waits_for_an_overdue_refresh_and_the_others_do_not(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    authority.clock.advance(5000)
    with authority.hold() as held:
        storm.decisions.clear()
        storm.start([authority.mint()] * HERD)
        held.arrived()
        storm.served(HERD - 1)
        assert storm.told() == {"Granted": HERD - 1}
        held.release()
        assert storm.end() == {"Granted": HERD}
    assert counts(authority)[1] == 2


@pytest.mark.rule("A-17", "A-19", "H-19")
def test_held_keys_outlive_an_outage_and_then_it_is_a_503_and_never_a_401(authority: FakeAuthority):
    for runtime in ("threads", "asyncio", "trio", "mixed"):
        issuer = replace(authority.issuer, key_set=KeySetPolicy(max_stale=3600))
        guard = Guard(issuer, transport=authority.transport, clock=authority.clock)
        storm = Storm(runtime, guard)
        assert storm.run([authority.mint()] * 16) == {"Granted": 16}
        with authority.outage():
            for _ in range(11):
                authority.clock.advance(320)
                assert storm.run([authority.mint()] * 16) == {"Granted": 16}
            authority.clock.advance(81)
            assert storm.run([authority.mint()] * 16) == {"Unavailable": 16}
        authority.clock.advance(31)
        assert storm.run([authority.mint()] * 16) == {"Granted": 16}
        guard.close()


# -- rotations


@pytest.mark.rule("J-20", "H-20")
def test_a_new_key_is_accepted_from_its_first_request_on(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    for rotation in range(1, 6):
        old = authority.mint()
        authority.rotate()
        authority.clock.advance(20)
        fresh = authority.mint()
        with authority.hold() as held:
            storm.decisions.clear()
            storm.start([old, fresh] * 50)
            held.arrived()
            held.release()
            assert storm.end() == {"Granted": 100}
        assert counts(authority) == (1, 1 + rotation)


@pytest.mark.rule("J-20", "H-20")
def test_rotations_in_the_middle_of_everything_refuse_nobody(authority: FakeAuthority):
    """No order at all: tokens are minted, keys rotate and time passes while requests are on their way."""
    guard = Guard(authority.issuer, transport=(transport := Watched(authority)), clock=authority.clock)
    guard.warm()
    answered = transport.answered = threading.Semaphore(0)
    stop = threading.Event()
    results: list[Counter[str]] = []

    def count(decision: Decision, into: Counter[str]) -> None:
        into[type(decision).__name__] += 1

    def in_a_thread() -> None:
        told: Counter[str] = Counter()
        while not stop.is_set():
            count(guard.check(request_with(authority.mint())), told)
        results.append(told)

    async def in_tasks() -> None:
        told: Counter[str] = Counter()

        async def one() -> None:
            while not stop.is_set():
                count(await guard.acheck(request_with(authority.mint())), told)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)
        results.append(told)

    works: list[Callable[[], Any]] = [
        in_a_thread,
        in_a_thread,
        lambda: asyncio.run(in_tasks()),
        lambda: trio.run(in_tasks),
    ]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            authority.rotate()
            authority.clock.advance(20)
            assert answered.acquire(timeout=PATIENCE), "a new key was accepted, or refused, without asking"
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(results) == 4
    assert set(sum(results, Counter())) == {"Granted"}
    assert counts(authority)[1] <= 1 + 2 * 20
    guard.close()


# -- floods


@pytest.mark.rule("A-16", "X-59", "J-20")
def test_a_flood_of_unknown_keys_asks_no_more_than_the_budget_has(storm: Storm, authority: FakeAuthority):
    """Those that no fetch has looked for are told when the next one is; the others are refused."""
    storm.run([authority.mint()])
    told = storm.run(unknown_keys(authority, 400))
    assert set(told) <= {"Denied", "Unavailable"}
    assert told.total() == 400
    assert counts(authority)[1] <= 1 + 3
    for second in range(1, 31):
        authority.clock.advance(1)
        told = storm.run(unknown_keys(authority, 16))
        assert set(told) <= {"Denied", "Unavailable"}
        assert told.total() == 16
        assert counts(authority)[1] <= 1 + 3 + second // 10


@pytest.mark.rule("X-59")
def test_a_rotation_gets_through_a_flood_within_one_interval(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    storm.run(unknown_keys(authority, 100))
    authority.rotate()
    authority.clock.advance(10)
    flood = unknown_keys(authority, 100)
    assert storm.run(flood).total() == 100
    assert storm.run([authority.mint()] * 20) == {"Granted": 20}  # at the latest: the flood itself has fetched it
    assert counts(authority)[1] <= 1 + 3 + 1


@pytest.mark.rule("X-59", "J-20", "H-19")
def test_a_rotation_while_strangers_keep_the_budget_drained_refuses_nobody(storm: Storm, authority: FakeAuthority):
    """503 with the time of the next fetch, which serves everybody whoever causes it; never 401."""
    storm.run([authority.mint()])
    for token in unknown_keys(authority, 3):
        storm.guard.check(request_with(token))
    authority.rotate()
    for second in range(10):
        assert storm.run([authority.mint()] * 8) == {"Unavailable": 8}
        for decision in storm.decisions:
            assert isinstance(decision, Unavailable)
            assert dict(decision.response.headers)["retry-after"] == str(10 - second)
        storm.run(unknown_keys(authority, 50))
        authority.clock.advance(1)
    storm.run([*unknown_keys(authority, 1), *[authority.mint()] * 8])
    for _ in range(20):
        assert storm.run([authority.mint()] * 8) == {"Granted": 8}
        storm.run(unknown_keys(authority, 50))
        authority.clock.advance(1)
    assert counts(authority)[1] <= 1 + 3 + 3


@pytest.mark.rule("A-16")
def test_a_flood_of_bad_signatures_asks_no_more_than_the_budget_has(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    assert storm.run([forged(authority)] * 400) == {"Denied": 400}
    assert counts(authority)[1] <= 1 + 3


def test_floods_in_an_outage_drain_the_same_budget_and_harm_no_held_key(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    good, bad = authority.mint(), forged(authority)
    with authority.outage():
        for _ in range(40):
            authority.clock.advance(0.5)
            told = storm.run([*unknown_keys(authority, 10), bad, good])
            assert told == {"Unavailable": 10, "Denied": 1, "Granted": 1}
    assert sum(counts(authority)) <= 2 + (3 + 2)  # 20 seconds


def test_good_tokens_do_not_wait_behind_a_flood(storm: Storm, authority: FakeAuthority):
    """The flood waits for an answer that does not come; whoever has a key that is held is served meanwhile."""
    storm.run([authority.mint()])
    with authority.hold() as held:
        flood = Storm(storm.runtime, storm.guard)
        flood.start(unknown_keys(authority, 50))
        held.arrived()
        assert storm.run([authority.mint()] * 50) == {"Granted": 50}
        assert flood.told() == {}
        held.release()
        assert flood.end() == {"Denied": 50}


def test_a_flood_of_strangers_never_reaches_the_authority(storm: Storm, authority: FakeAuthority):
    """What is wrong with these tokens can be seen without a key."""
    bad = [
        authority.mint(claims={"iss": "https://evil.test"}),
        authority.mint(expires_in=-60),
        authority.mint(audience="https://other.test"),
        authority.mint(headers={"alg": "none"}),
        "x.y.z",
    ]
    assert storm.run(bad * 40) == {"Denied": 200}
    assert authority.requests == []


@pytest.mark.rule("H-15")
@pytest.mark.parametrize("runtime", ["asyncio", "trio", "mixed"])
def test_no_exchange_happens_in_the_thread_of_a_loop(runtime: str, authority: FakeAuthority):
    loops: set[threading.Thread] = set()
    guard = Guard(authority.issuer, transport=(transport := Watched(authority)), clock=authority.clock)

    class Seen(Storm):
        async def _acheck(self, token: str) -> None:
            loops.add(threading.current_thread())
            await super()._acheck(token)

    storm = Seen(runtime, guard)
    for _ in range(3):
        assert storm.run([authority.mint()] * 40) == {"Granted": 40}
        authority.rotate()
        authority.clock.advance(550)
    guard.close()
    assert loops
    assert transport.threads
    assert not loops & transport.threads


# -- remembered


class Recalling(Storm):
    """As adapters do it: what is remembered under the whole header field is recalled, anything else is judged."""

    def _recalled(self, token: str) -> bool:
        found = engine_of(self.guard).recall(f"Bearer {token}".encode(), None, b"", None)
        if found is not None:
            self._recalled_ones.append(found)
            self._decide(Granted(found))
        return found is not None

    def _check(self, token: str) -> None:
        if not self._recalled(token):
            super()._check(token)

    async def _acheck(self, token: str) -> None:
        if not self._recalled(token):
            await super()._acheck(token)

    def start(self, tokens: Sequence[str]) -> None:
        self._recalled_ones: list[AccessToken] = []
        super().start(tokens)

    @property
    def recalled(self) -> int:
        return len(self._recalled_ones)


@pytest.mark.rule("A-18", "A-16")
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio", "mixed"])
def test_remembered_tokens_outlive_a_rotation_and_not_the_key_that_signed_them(runtime: str):
    authority = FakeAuthority(jwks_max_age=600)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    storm = Recalling(runtime, guard)
    for _ in range(3):
        old = [authority.mint(subject=f"old{number}", expires_in=86400) for number in range(20)]
        for _ in range(3):
            assert storm.run(old) == {"Granted": 20}
        assert storm.recalled == 20
        authority.rotate()  # both are published
        new = [authority.mint(subject=f"new{number}", expires_in=86400) for number in range(20)]
        for _ in range(3):
            assert storm.run([*old, *new, *old]) == {"Granted": 60}
        assert storm.recalled == 60
        authority.clock.advance(3601)  # and now it is the new one alone; nobody has been told
        storm.run([*new, *old])  # the first to come has it fetched, and the others need not wait
        assert storm.run(old) == {"Denied": 20}
        assert storm.recalled == 0
        assert storm.run([*new, *new]) == {"Granted": 40}
    # For each round: the new key, the refresh, and one look at most for the old key after it was withdrawn.
    assert counts(authority)[1] <= 1 + 3 * 3
    guard.close()


@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio", "mixed"])
def test_nobody_who_comes_after_a_revocation_is_recalled(runtime: str, guard: Guard, authority: FakeAuthority):
    """However many are being judged, remembered and recalled at the time."""
    storm = Recalling(runtime, guard)
    for number in range(20):
        token, other = authority.mint(client_id=f"robot{number}"), authority.mint(client_id="other")
        storm.start([token, other] * 20)
        guard.revoke(client_id=f"robot{number}", at=authority.clock.wall())
        storm.end()
        assert storm.run([token, other] * 4) == {"Denied": 4, "Granted": 4}
        assert storm.run([token] * 4) == {"Denied": 4}
