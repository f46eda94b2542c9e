"""The Redis store with a real cluster: three primaries with a replica each, TLS, and a user with few permissions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.exceptions import TimeoutError  # noqa: A004 - that of redis-py

from loopback import Certificates
from redis_groups import RedisCluster, run_group, wait_for
from redis_server import free_ports, valkey_program
from scopeguard import AuthorityUnavailable, ConfigurationError, DPoP, Guard
from scopeguard.doctor.finding import Level
from scopeguard.doctor.store import IN_A_CLUSTER, PERMISSIONS, WITH_REPLICAS, check_store
from scopeguard.guard import engine_of
from scopeguard.stores.redis import RedisStore
from scopeguard.stores.redis_servers import ClusterClient, parse_url
from scopeguard.testing import FakeAuthority

pytestmark = pytest.mark.timeout(120)

LIMITS: dict[str, Any] = {"seconds": 60, "total": 100, "per_owner": 50, "per_holder": 50}
Stores = Callable[..., RedisStore]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[RedisCluster]:
    with run_group(RedisCluster(tmp_path_factory.mktemp("cluster"), certificates=certificates)) as cluster:
        for port in cluster.ports:
            cluster.set_user(port, PERMISSIONS, WITH_REPLICAS, IN_A_CLUSTER)
        yield cluster


@pytest.fixture
def cluster(one_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """A cluster with nothing in it. Afterwards, the killed and frozen nodes come back."""
    one_cluster.flush()
    yield one_cluster
    for port, server in one_cluster.servers.items():
        server.thaw()
        if not server.is_up:
            server.start()
            one_cluster.set_user(port, PERMISSIONS, WITH_REPLICAS, IN_A_CLUSTER)
    wait_for(one_cluster.is_whole)


@pytest.fixture
def stores(cluster: RedisCluster, certificates: Certificates) -> Iterator[Stores]:
    made: list[RedisStore] = []

    def make(*, hosts: str = cluster.hosts, **settings: Any) -> RedisStore:
        url = f"rediss+cluster://api:sg-secret@{hosts}?ssl_ca_certs={quote(str(certificates.bundle))}"
        made.append(RedisStore(url, **{"timeout": 5.0, "replicas": 0, **settings}))
        return made[-1]

    yield make
    for store in made:
        store.close()


def claim(store: RedisStore, identity: bytes = b"proof") -> str:
    """Return what *store* says about a proof, or the problem that it has."""
    try:
        return store.claim(identity, "key", holder="alice", **LIMITS)
    except AuthorityUnavailable as outage:
        return outage.detail["problem"]


def use_everything(store: RedisStore, other: RedisStore) -> None:
    """Perform each operation with *store*, and look at the result with *other*."""
    for number in range(20):  # keys of all primaries
        store.put(f"answer:{number}", b"value", seconds=60)
    assert [other.get(f"answer:{number}") for number in range(20)] == [b"value"] * 20
    store.append(b"one", seconds=60)
    position, entries = other.read(None)
    store.append(b"two", seconds=60)
    assert (entries, other.read(position)[1]) == ([b"one"], [b"two"])
    assert (claim(store), claim(other), claim(other, b"another")) == ("new", "used", "new")


@pytest.mark.rule("D-58")
@pytest.mark.parametrize("replicas", [0, 1])
def test_every_operation_works_in_a_cluster(stores: Stores, replicas: int):
    use_everything(stores(replicas=replicas), stores(replicas=replicas, secret=None))


@pytest.mark.parametrize(
    ("replicas", "level"), [(0, Level.WARNING), (1, Level.OK), (2, Level.ERROR)], ids=["none", "all", "too many"]
)
def test_doctor_looks_at_every_primary(stores: Stores, replicas: int, level: Level):
    authority, store = FakeAuthority(), stores(replicas=replicas, timeout=1.0)
    guard = Guard(
        authority.issuer,
        resource=authority.audience,
        dpop=DPoP(),
        store=store,
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    findings = {each.check: each for each in check_store(engine_of(guard), authority.clock.monotonic)}
    if level is Level.ERROR:
        assert findings["connection"].fix == "start the replicas, or lower replicas in [store]"
    else:
        assert findings["role"].text == "cluster with 3 primaries"
        assert findings["replicas"].level is level
        assert "has 1 replica" in findings["replicas"].text


@pytest.mark.rule("D-58", "D-60")
@pytest.mark.parametrize("replicas", [0, 1])
def test_claim_that_only_the_lost_primary_had_is_not_accepted_where_a_replica_must_have_it(
    cluster: RedisCluster, stores: Stores, replicas: int
):
    """Without ``replicas``, this is what asynchronous replication loses; the documentation says so."""
    store = stores(replicas=replicas, timeout=1.0)
    primary = cluster.primary_of("scopeguard:{proofs}")
    replica = cluster.replica_of(primary)
    cluster.servers[replica].kill()
    assert claim(store) == ("NotReplicated" if replicas else "new")
    cluster.servers[primary].kill()
    cluster.servers[replica].start()
    cluster.set_user(replica, PERMISSIONS, WITH_REPLICAS, IN_A_CLUSTER)
    cluster.take_over(replica)
    assert claim(store) == ("NotReplicated" if replicas else "new")


@pytest.mark.rule("D-58", "D-60")
def test_claims_and_revocations_that_a_replica_has_outlive_the_primary(cluster: RedisCluster, stores: Stores):
    store, late = stores(replicas=1, timeout=2.0), stores()
    store.append(b"revoked", seconds=60)
    assert claim(store) == "new"
    primaries = {cluster.primary_of(f"scopeguard:{{{tag}}}") for tag in ("proofs", "revocations")}
    replicas = {primary: cluster.replica_of(primary) for primary in primaries}
    for primary in primaries:
        cluster.servers[primary].kill()
    for each in (store, late):
        assert claim(each) not in ("new", "used")
        with pytest.raises(AuthorityUnavailable):
            each.read(None)
    for replica in replicas.values():
        cluster.take_over(replica)
    assert claim(late) == "used"
    assert late.read(None)[1] == [b"revoked"]


@pytest.mark.rule("D-58", "E-15")
def test_primary_that_was_replaced_and_comes_back_neither_accepts_a_proof_nor_hides_a_revocation(
    cluster: RedisCluster, stores: Stores
):
    old, new = stores(replicas=1, timeout=2.0), stores()
    position, _ = old.read(None)
    assert claim(old, b"first") == "new"  # its connections are open
    for primary in {cluster.primary_of(f"scopeguard:{{{tag}}}") for tag in ("proofs", "revocations")}:
        replica = cluster.replica_of(primary)
        cluster.servers[primary].freeze()
        cluster.take_over(replica)
    assert claim(new) == "new"
    new.append(b"revoked", seconds=60)
    found: list[object] = []

    def read() -> None:
        try:
            found.append(old.read(position)[1])
        except AuthorityUnavailable:
            found.append([b"revoked"])  # unknown, which denies

    threads = [threading.Thread(target=read), threading.Thread(target=lambda: found.append(claim(old)))]
    for thread in threads:
        thread.start()
    for server in cluster.servers.values():
        server.thaw()
    for thread in threads:
        thread.join()
    assert [b"revoked"] in found
    assert "new" not in found


def test_moved_keys_and_lost_nodes_of_the_url_are_found(cluster: RedisCluster, stores: Stores):
    store = stores()
    store.put("answer", b"value", seconds=60)
    primary = cluster.primary_of("scopeguard:answer")
    replica = cluster.replica_of(primary)
    cluster.run(replica, "CLUSTER", "FAILOVER")
    wait_for(lambda: cluster.role(replica) == "master")
    wait_for(lambda: cluster.role(primary) == "slave")
    assert store.get("answer") == b"value"
    cluster.servers[primary].kill()
    assert stores(hosts=f"127.0.0.1:{primary},127.0.0.1:{replica}").get("answer") == b"value"


def test_without_a_node_of_the_url_the_cluster_is_not_found(cluster: RedisCluster, stores: Stores):
    (unused,) = free_ports(1)
    lost = stores(hosts=f"127.0.0.1:{unused}")
    for _ in range(2):
        assert claim(lost) == "RedisClusterException"
    assert claim(stores(hosts=f"127.0.0.1:{unused},127.0.0.1:{cluster.ports[-1]}")) == "new"


def test_threads_wait_for_the_one_that_asks_for_the_nodes_no_longer_than_for_an_answer():
    client = ClusterClient(parse_url("redis+cluster://127.0.0.1"), 0.01)
    client._asking.acquire()
    with pytest.raises(TimeoutError, match="another thread is asking"):
        client.run("key", repr)


def test_node_that_hangs_is_asked_once_with_a_short_time_limit(cluster: RedisCluster, stores: Stores):
    store = stores(timeout=0.3)
    stores().put("answer", b"value", seconds=60)
    assert wait_for(lambda: store.get("answer")) == b"value"
    primary = cluster.primary_of("scopeguard:answer")
    replica = cluster.replica_of(primary)
    with cluster.servers[primary].keep_frozen():
        with pytest.raises(AuthorityUnavailable) as caught:
            store.get("answer")
        assert caught.value.detail["problem"] == "TimeoutError"
        cluster.take_over(replica)
        assert wait_for(lambda: store.get("answer")) == b"value"


@pytest.mark.parametrize("needed", ["+cluster|slots", "+command", "+wait", "~scopeguard:*"])
def test_each_permission_is_needed(cluster: RedisCluster, stores: Stores, needed: str):
    for port in cluster.ports:
        command = ("-" + needed[1:],) if needed.startswith("+") else ("resetkeys", "~scopeguard:{revocations}*")
        cluster.run(port, "ACL", "SETUSER", "api", *command)
    try:
        assert claim(stores(replicas=1)) in ("NoPermissionError", "RedisClusterException")
    finally:
        for port in cluster.ports:
            cluster.set_user(port, PERMISSIONS, WITH_REPLICAS, IN_A_CLUSTER)


def test_certificates_are_checked(cluster: RedisCluster):
    store = RedisStore(f"rediss+cluster://api:sg-secret@{cluster.hosts}", timeout=5.0, replicas=0)
    with pytest.raises(AuthorityUnavailable):
        store.get("answer")
    store.close()


def test_client_of_the_app_is_refused(cluster: RedisCluster):
    client: Any
    with cluster.servers[cluster.ports[0]].client() as client, pytest.raises(ConfigurationError) as caught:
        RedisStore(client)
    assert "give the URL of Redis, not a client" in str(caught.value)


def test_valkey_as_a_cluster(tmp_path: Path):
    with run_group(RedisCluster(tmp_path, program=valkey_program())) as cluster:
        store, other = (RedisStore(cluster.url, timeout=2.0, replicas=1) for _ in range(2))
        use_everything(store, other)
        primary = cluster.primary_of("scopeguard:{proofs}")
        replica = cluster.replica_of(primary)
        cluster.servers[primary].kill()
        cluster.take_over(replica)
        assert claim(store) == "NotReplicated"
        cluster.servers[primary].start()
        wait_for(cluster.is_whole)
        assert (claim(store), claim(store, b"third")) == ("used", "new")
        assert {facts.product for facts in store.facts()} == {"Valkey"}
        store.close()
        other.close()
