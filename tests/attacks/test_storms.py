"""Herds, floods, rotations and outages, through the guard: in threads, on asyncio, on trio, and all of them at once.

The fake authority holds its answers back if an order of events is needed, and a count of the waiting requests shows
when all have arrived. No test sleeps, and no assertion is about a duration.
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
    """Return the numbers of requests for metadata and for keys."""
    return authority.transport.count("metadata"), authority.transport.count("jwks")


def unknown_keys(authority: FakeAuthority, count: int) -> list[str]:
    """Return tokens that name keys which do not exist; they share one signature."""
    _, payload, signature = authority.mint().split(".")
    headers = (base64url(json_bytes({"typ": "at+jwt", "alg": "ES256", "kid": f"nobody-{i}"})) for i in range(count))
    return [f"{header}.{payload}.{signature}" for header in headers]


def forge_token(authority: FakeAuthority) -> str:
    """Return a token that names a held key but is signed by another."""
    return authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))


# -- cold start start start start start start


@pytest.mark.rule("A-15", "H-20", "X-59")
def test_cold_herd_of_two_hundred_causes_one_discovery_and_one_key_fetch(storm: Storm, authority: FakeAuthority):
    with authority.hold() as held:
        storm.start([authority.mint()] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Granted": HERD}
    assert counts(authority) == (1, 1)


@pytest.mark.rule("A-15", "H-20")
def test_cold_herd_in_random_order_causes_one_discovery_and_one_key_fetch(storm: Storm, authority: FakeAuthority):
    assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}
    assert counts(authority) == (1, 1)


@pytest.mark.rule("A-22", "H-19")
def test_each_request_of_a_cold_herd_in_an_outage_gets_503(storm: Storm, authority: FakeAuthority):
    """The classic fault: the first request gets a 503, and the waiting ones a 401, because there is no key."""
    with authority.outage(), authority.hold() as held:
        storm.start([authority.mint()] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Unavailable": HERD}
        assert counts(authority) == (1, 0)
        assert storm.run([authority.mint()] * HERD) == {"Unavailable": HERD}
        assert counts(authority) == (1, 0)  # Back-off.
    authority.clock.advance(0.25)
    assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}


def test_outage_causes_one_request_per_pause(storm: Storm, authority: FakeAuthority):
    with authority.outage():
        for second in range(60):
            assert storm.run([authority.mint()] * 8) == {"Unavailable": 8}, second
            authority.clock.advance(1)
        # After 0.25, 0.5, 1, 2, 4, 8 and 16 seconds, rounded up to the steps of the test; then every 30.
        assert counts(authority) == (8, 0)


@pytest.mark.rule("H-16")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_request_does_not_fail_the_others(backend: str, guard: Guard, authority: FakeAuthority):
    storm = Storm(backend, guard)

    async def run() -> None:
        with authority.hold() as held:
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as leader:
                    leader.start_soon(storm._acheck, authority.mint())
                    await held.await_requests()
                    for _ in range(HERD):
                        group.start_soon(storm._acheck, authority.mint())
                    while storm._boarded._value < HERD + 1:
                        await anyio.lowlevel.checkpoint()
                    leader.cancel_scope.cancel()
                held.release()

    anyio.run(run, backend=backend)
    assert storm.count_decisions() == {"Granted": HERD}
    assert counts(authority) == (1, 1)


# -- refresh


@pytest.mark.rule("A-15")
def test_requests_do_not_wait_for_an_early_refresh(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    authority.clock.advance(550)
    with authority.hold() as held:  # No answer arrives, and all requests are served all the same.
        assert storm.run([authority.mint()] * HERD) == {"Granted": HERD}
        held.wait_for_requests()
    storm.guard.close()
    assert counts(authority) == (1, 2)


def test_only_one_request_waits_for_an_overdue_refresh(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    authority.clock.advance(5000)
    with authority.hold() as held:
        storm.decisions.clear()
        storm.start([authority.mint()] * HERD)
        held.wait_for_requests()
        storm.wait_for_decisions(HERD - 1)
        assert storm.count_decisions() == {"Granted": HERD - 1}
        held.release()
        assert storm.end() == {"Granted": HERD}
    assert counts(authority)[1] == 2


@pytest.mark.rule("A-17", "A-19", "H-19")
def test_held_keys_bridge_an_outage_which_then_is_503_never_401(authority: FakeAuthority):
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
            held.wait_for_requests()
            held.release()
            assert storm.end() == {"Granted": 100}
        assert counts(authority) == (1, 1 + rotation)


@pytest.mark.rule("J-20", "H-20")
def test_random_rotations_cause_no_refusal(authority: FakeAuthority):
    """In random order, tokens are minted, keys rotate and time passes while requests are running."""
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
            assert answered.acquire(timeout=PATIENCE), "a new key was accepted, or refused, without a fetch"
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
def test_flood_of_unknown_keys_causes_no_more_fetches_than_the_budget(storm: Storm, authority: FakeAuthority):
    """Keys that no fetch has covered get a 503 with the time of the next fetch; the others are refused."""
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
def test_rotation_during_a_flood_takes_effect_within_one_interval(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    storm.run(unknown_keys(authority, 100))
    authority.rotate()
    authority.clock.advance(10)
    flood = unknown_keys(authority, 100)
    assert storm.run(flood).total() == 100
    assert storm.run([authority.mint()] * 20) == {
        "Granted": 20
    }  # At the latest: the flood may have fetched it already.
    assert counts(authority)[1] <= 1 + 3 + 1


@pytest.mark.rule("X-59", "J-20", "H-19")
def test_rotation_while_attackers_drain_the_budget_refuses_no_valid_token(storm: Storm, authority: FakeAuthority):
    """Requests get a 503 with the time of the next fetch, which serves all of them; never a 401."""
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
def test_flood_of_bad_signatures_causes_no_more_fetches_than_the_budget(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    assert storm.run([forge_token(authority)] * 400) == {"Denied": 400}
    assert counts(authority)[1] <= 1 + 3


def test_floods_in_an_outage_use_the_same_budget_and_keep_the_held_keys(storm: Storm, authority: FakeAuthority):
    storm.run([authority.mint()])
    good, bad = authority.mint(), forge_token(authority)
    with authority.outage():
        for _ in range(40):
            authority.clock.advance(0.5)
            told = storm.run([*unknown_keys(authority, 10), bad, good])
            assert told == {"Unavailable": 10, "Denied": 1, "Granted": 1}
    assert sum(counts(authority)) <= 2 + (3 + 2)  # 20 seconds......


def test_valid_tokens_do_not_wait_behind_a_flood(storm: Storm, authority: FakeAuthority):
    """The flood waits for an answer that never arrives; tokens with a held key are served meanwhile."""
    storm.run([authority.mint()])
    with authority.hold() as held:
        flood = Storm(storm.runtime, storm.guard)
        flood.start(unknown_keys(authority, 50))
        flood.crowd(50)  # a late one would need a fetch of its own, and the budget may be spent
        assert storm.run([authority.mint()] * 50) == {"Granted": 50}
        assert flood.count_decisions() == {}
        held.release()
        assert flood.end() == {"Denied": 50}


def test_flood_of_tokens_refused_without_keys_never_reaches_the_authority(storm: Storm, authority: FakeAuthority):
    """The faults of these tokens are found without a key."""
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
def test_no_exchange_blocks_the_thread_of_an_event_loop(runtime: str, authority: FakeAuthority):
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


# -- cached tokens


class Recalling(Storm):
    """A storm that works as adapters do: it recalls the header field, or makes a full decision."""

    def _recall(self, token: str) -> bool:
        found = engine_of(self.guard).recall(f"Bearer {token}".encode(), None, b"", None)
        if found is not None:
            self._recalled_ones.append(found)
            self._decide(Granted(found))
        return found is not None

    def _check(self, token: str) -> None:
        if not self._recall(token):
            super()._check(token)

    async def _acheck(self, token: str) -> None:
        if not self._recall(token):
            await super()._acheck(token)

    def start(self, tokens: Sequence[str]) -> None:
        self._recalled_ones: list[AccessToken] = []
        super().start(tokens)

    @property
    def recall_count(self) -> int:
        return len(self._recalled_ones)


@pytest.mark.rule("A-18", "A-16")
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio", "mixed"])
def test_cached_tokens_stay_valid_after_a_rotation_until_their_key_is_withdrawn(runtime: str):
    authority = FakeAuthority(jwks_max_age=600)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    storm = Recalling(runtime, guard)
    for _ in range(3):
        old = [authority.mint(subject=f"old{number}", expires_in=86400) for number in range(20)]
        for _ in range(3):
            assert storm.run(old) == {"Granted": 20}
        assert storm.recall_count == 20
        authority.rotate()  # Both are published.
        new = [authority.mint(subject=f"new{number}", expires_in=86400) for number in range(20)]
        for _ in range(3):
            assert storm.run([*old, *new, *old]) == {"Granted": 60}
        assert storm.recall_count == 60
        authority.clock.advance(3601)  # Now only the new key is published; the guard does not know yet.
        storm.run([*new, *old])  # The first request fetches it, and the others do not wait.
        assert storm.run(old) == {"Denied": 20}
        assert storm.recall_count == 0
        assert storm.run([*new, *new]) == {"Granted": 40}
    # For each round: the new key, the refresh, and at most one fetch for the old key after its withdrawal.
    assert counts(authority)[1] <= 1 + 3 * 3
    guard.close()


@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio", "mixed"])
def test_no_request_after_a_revocation_is_recalled(runtime: str, guard: Guard, authority: FakeAuthority):
    """This holds while many tokens are being verified, cached and recalled."""
    storm = Recalling(runtime, guard)
    for number in range(20):
        token, other = authority.mint(client_id=f"robot{number}"), authority.mint(client_id="other")
        storm.start([token, other] * 20)
        guard.revoke(client_id=f"robot{number}", at=authority.clock.wall())
        storm.end()
        assert storm.run([token, other] * 4) == {"Denied": 4, "Granted": 4}
        assert storm.run([token] * 4) == {"Denied": 4}
