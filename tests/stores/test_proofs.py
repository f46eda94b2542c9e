"""Used proofs in a real Redis: of any number of requests with one proof, one is accepted."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

from redis_groups import wait_for
from redis_server import RedisServer
from scopeguard import (
    AuthorityUnavailable,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Reason,
    RequestView,
    Unavailable,
    all_of,
)
from scopeguard.edge import aio
from scopeguard.guard import Decision
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority, ProofKey

URI = "https://api.test/rows"
KEY, OTHER = ProofKey(), ProofKey()
COPIES = 50


class Fleet:
    """Guards with a store each, as in several processes, and requests to them."""

    def __init__(self, server: RedisServer, *, guards: int = 2, **policy: Any) -> None:
        self.authority = FakeAuthority(audience="https://api.test")
        self.stores = [RedisStore(server.url, timeout=5.0) for _ in range(guards)]
        self.guards = [
            Guard(
                self.authority.issuer,
                resource="https://api.test",
                dpop=DPoP(mode="required", **policy),
                store=store,
                transport=self.authority.transport,
                clock=self.authority.clock,
                audit="off",
            )
            for store in self.stores
        ]
        self.token = self.mint(KEY)

    def mint(self, key: ProofKey) -> str:
        return self.authority.mint("read", bound_to=key)

    def request(self, key: ProofKey = KEY, token: str | None = None, **claims: Any) -> RequestView:
        headers = key.headers(token or self.token, "GET", URI, at=self.authority.clock.wall(), claims=claims)
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))

    def check(self, number: int, request: RequestView) -> Decision:
        return self.guards[number % len(self.guards)].check(request, all_of("read"))


@pytest.fixture
def fleet(server: RedisServer) -> Iterator[Fleet]:
    made = Fleet(server)
    yield made
    for store in made.stores:
        store.close()


def outcomes(decisions: list[Decision]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for each in decisions:
        assert isinstance(each, Granted | Denied | Unavailable)
        found["granted" if isinstance(each, Granted) else each.error.reason] += 1
    return found


ONCE = {"granted": 1, Reason.PROOF_USED: COPIES - 1}


@pytest.mark.rule("D-54", "D-58")
def test_one_proof_in_many_threads_is_accepted_once(fleet: Fleet):
    for _ in range(10):
        request, barrier = fleet.request(), threading.Barrier(COPIES)

        def send(number: int, request: RequestView = request, barrier: threading.Barrier = barrier) -> Decision:
            barrier.wait(timeout=30)
            return fleet.check(number, request)

        with ThreadPoolExecutor(COPIES) as pool:
            assert outcomes(list(pool.map(send, range(COPIES)))) == ONCE


@pytest.mark.rule("D-54", "D-58")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_proof_in_many_tasks_is_accepted_once(fleet: Fleet, backend: str):
    async def send_all() -> None:
        for _ in range(10):
            request = fleet.request()
            decisions: list[Decision] = []

            async def send(number: int, request: RequestView = request, found: list[Decision] = decisions) -> None:
                found.append(await fleet.guards[number % 2].acheck(request, all_of("read")))

            async with anyio.create_task_group() as group:
                for number in range(COPIES):
                    group.start_soon(send, number)
            assert outcomes(decisions) == ONCE

    anyio.run(send_all, backend=backend)


@pytest.mark.rule("D-60")
def test_requests_beyond_those_that_wait_for_a_hanging_redis_are_answered(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(aio, "_MOST_STORE_CALLS", 2)
    monkeypatch.setattr(aio, "_MOST_WAITING", 3)
    guard, requests = fleet.guards[0], [fleet.request() for _ in range(10)]

    async def send_all() -> list[Decision]:
        return await asyncio.gather(*(guard.acheck(request, all_of("read")) for request in requests))

    assert isinstance(guard.check(fleet.request(), all_of("read")), Granted)  # the keys are known
    assert outcomes(asyncio.run(send_all())) == {"granted": 5, Reason.STORE_UNAVAILABLE: 5}
    assert isinstance(guard.check(fleet.request(), all_of("read")), Granted)


@pytest.mark.rule("D-54", "D-58")
def test_one_proof_in_many_threads_without_a_store_is_accepted_once():
    authority = FakeAuthority(audience="https://api.test")
    guard = Guard(
        authority.issuer,
        resource="https://api.test",
        dpop=DPoP(),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    token = authority.mint("read", bound_to=KEY)
    headers = KEY.headers(token, "GET", URI, at=authority.clock.wall())
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    request = RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))
    barrier = threading.Barrier(COPIES)

    def send(_: int) -> Decision:
        barrier.wait(timeout=30)
        return guard.check(request, all_of("read"))

    with ThreadPoolExecutor(COPIES) as pool:
        assert outcomes(list(pool.map(send, range(COPIES)))) == ONCE


@pytest.mark.rule("D-60")
def test_without_redis_no_proof_is_accepted(fleet: Fleet, one_server: RedisServer):
    once = fleet.request()
    assert isinstance(fleet.check(0, once), Granted)
    one_server.kill()
    try:
        for request in (once, fleet.request()):
            for number in range(2):
                decision = fleet.check(number, request)
                assert isinstance(decision, Unavailable)
                assert decision.response.status == 503
                assert "www-authenticate" not in dict(decision.response.headers)
    finally:
        one_server.start()


@pytest.mark.rule("D-55", "D-56", "D-57")
def test_each_key_has_a_quota_and_no_proof_is_forgotten_early(server: RedisServer):
    fleet = Fleet(server, max_proofs_per_key=3)
    first = fleet.request()
    for number, request in enumerate((first, fleet.request(), fleet.request())):
        assert isinstance(fleet.check(number, request), Granted)
    full = fleet.check(0, fleet.request())
    assert isinstance(full, Unavailable)
    assert full.error.reason is Reason.PROOF_MEMORY_FULL
    assert isinstance(fleet.check(1, fleet.request(OTHER, fleet.mint(OTHER))), Granted)
    assert outcomes([fleet.check(1, first)]) == {Reason.PROOF_USED: 1}
    with server.client() as client:
        for key in client.scan_iter():
            assert 60_000 < client.pttl(key) <= 71_000
            assert fleet.token.encode() not in b"".join(client.zrange(key, 0, -1))
    for store in fleet.stores:
        store.close()


@pytest.mark.rule("D-57")
def test_a_shorter_claim_does_not_shorten_an_earlier_one(server: RedisServer):
    store = RedisStore(server.url, timeout=5.0)
    assert claim(store, b"one", seconds=60) == "new"
    assert claim(store, b"two", seconds=1) == "new"
    with server.client() as client:
        keys = list(client.scan_iter())
        assert len(keys) == 3
        assert all(client.pttl(key) > 50_000 for key in keys)
    assert claim(store, b"one", seconds=1) == "used"
    store.close()


def claim(store: RedisStore, identity: bytes, owner: str = "key", holder: str = "alice", **limits: Any) -> str:
    given = {"seconds": 60.0, "total": 100, "per_owner": 5, "per_holder": 12, **limits}
    return store.claim(identity, owner, holder=holder, **given)


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    made = RedisStore(server.url, timeout=5.0)
    yield made
    made.close()


@pytest.mark.rule("D-56", "D-57")
def test_all_proofs_together_are_bounded_and_no_client_takes_all_places(store: RedisStore):
    limits: dict[str, Any] = {"total": 32, "per_owner": 2, "per_holder": 4}
    outcomes = [claim(store, b"%d" % number, f"key {number}", **limits) for number in range(32)]
    assert outcomes == ["new"] * 16 + ["full"] * 16
    others = [claim(store, f"{name}{n}".encode(), name, name, **limits) for name in ("bob", "carol") for n in range(2)]
    assert others == ["new"] * 4
    assert [claim(store, b"bob %d" % n, f"bob {n}", "bob", **limits) for n in range(3)] == ["new", "new", "full"]
    rest = [claim(store, b"of %d" % n, f"of {n}", f"of {n}", **limits) for n in range(11)]
    assert rest == ["new"] * 10 + ["full"]  # all places are taken
    assert claim(store, b"0", "key 0", **limits) == "used"


def test_expired_proofs_take_no_place_and_are_removed(store: RedisStore, server: RedisServer):
    with server.client() as client:
        for name in (b"scopeguard:{proofs}:key:key", b"scopeguard:{proofs}:all", b"scopeguard:{proofs}:holder:alice"):
            client.zadd(name, {b"%d" % number: 1.0 for number in range(250)})  # expired in 1970
        for left in (150, 50, 0):
            assert claim(store, b"%d" % left) == "new"
            assert claim(store, b"%d" % left) == "used"
            expired = [client.zcount(key, "-inf", 1.0) for key in client.scan_iter()]
            assert all(left - 1 <= found <= left for found in expired)  # a proof that is claimed again is no longer one


class Cutting:
    """A proxy before Redis. It breaks the connection when the answer to the first script is due."""

    def __init__(self, server: RedisServer) -> None:
        self._target = ("127.0.0.1", int(server.url.rpartition(":")[2].partition("/")[0]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.scripts = 0
        self._has_cut = False
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self._target) as redis:
                self._copy(client, redis)

    def _copy(self, client: socket.socket, redis: socket.socket) -> None:
        while True:
            for ready in select.select([client, redis], [], [])[0]:
                data = ready.recv(65536)
                self.scripts += b"EVAL" in data
                if not data:
                    return
                if ready is redis and self.scripts and not self._has_cut:
                    self._has_cut = True
                    return
                (redis if ready is client else client).sendall(data)


@pytest.mark.rule("D-58")
def test_proof_is_new_to_the_attempt_that_is_repeated_after_a_broken_connection(server: RedisServer):
    with Cutting(server) as proxy, closing(RedisStore(proxy.url, timeout=5.0)) as store:
        assert claim(store, b"one") == "new"
        assert proxy.scripts == 2  # Redis has run the script twice
        assert claim(store, b"one") == "used"
    with server.client() as client:
        assert client.zcard("scopeguard:{proofs}:key:key") == client.zcard("scopeguard:{proofs}:all") == 1


@pytest.mark.rule("D-58", "D-60", "E-15")
def test_operation_that_writes_nothing_needs_a_new_confirmation(server: RedisServer, tmp_path: Path):
    """A script that is repeated, and reading. The replica has confirmed everything before, and is gone now."""
    settings = {"replicaof": f"127.0.0.1 {server.port}"}
    with RedisServer(tmp_path, settings=settings) as replica, Cutting(server) as proxy:
        wait_for(lambda: has_replica(server))
        with replica.keep_frozen(), closing(RedisStore(proxy.url, timeout=2.0, replicas=1)) as store:
            with pytest.raises(AuthorityUnavailable) as caught:
                claim(store, b"one")
            assert proxy.scripts == 2
            assert caught.value.detail["problem"] == "NotReplicated"
            with pytest.raises(AuthorityUnavailable):
                store.read(None)
        with closing(RedisStore(server.url, timeout=5.0, replicas=1)) as store:
            assert (claim(store, b"one"), claim(store, b"two")) == ("used", "new")
            store.append(b"revoked", seconds=60)
            assert store.read(None)[1] == [b"revoked"]


def has_replica(server: RedisServer) -> bool:
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        return bool(pipeline.set("unused", "", px=1).wait(1, 100).execute()[1])


@pytest.mark.rule("D-60")
def test_redis_without_free_memory_accepts_no_proof(fleet: Fleet, server: RedisServer):
    used = fleet.request()
    assert isinstance(fleet.check(0, used), Granted)
    with server.client() as client:
        client.config_set("maxmemory", "1")  # less than Redis needs; the policy is noeviction
        try:
            for request in (fleet.request(), fleet.request()):
                decision = fleet.check(0, request)
                assert isinstance(decision, Unavailable)
                assert (decision.response.status, decision.error.reason) == (503, Reason.STORE_UNAVAILABLE)
            assert outcomes([fleet.check(1, used)]) == {Reason.PROOF_USED: 1}
        finally:
            client.config_set("maxmemory", "0")
    assert isinstance(fleet.check(0, fleet.request()), Granted)
