"""The Redis store with a real primary, two replicas and three Sentinels, with TLS and users with few permissions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from loopback import Certificates
from redis_groups import SentinelTrio, run_group, wait_for
from redis_server import valkey_program
from scopeguard import AuthorityUnavailable, Guard
from scopeguard.doctor.finding import Level
from scopeguard.doctor.store import PERMISSIONS, WITH_REPLICAS, check_store
from scopeguard.guard import engine_of
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority

pytestmark = pytest.mark.timeout(120)

LIMITS: dict[str, Any] = {"seconds": 60, "total": 100, "per_owner": 50, "per_holder": 50}
Stores = Callable[..., RedisStore]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def trio(tmp_path: Path, certificates: Certificates) -> Iterator[SentinelTrio]:
    with run_group(SentinelTrio(tmp_path, replicas=2, certificates=certificates)) as trio:
        for port in trio.ports:
            trio.set_user(port, *(("+sentinel|masters",) if port in trio.sentinels else (PERMISSIONS, WITH_REPLICAS)))
        yield trio


@pytest.fixture
def stores(trio: SentinelTrio, certificates: Certificates) -> Iterator[Stores]:
    made: list[RedisStore] = []

    def make(*, service: str = "tokens", user: str = "api", **settings: Any) -> RedisStore:
        options = f"sentinel_username={user}&sentinel_password=sg-secret&ssl_ca_certs={quote(str(certificates.bundle))}"
        url = f"rediss+sentinel://api:sg-secret@{trio.hosts}/{service}?{options}"
        made.append(RedisStore(url, **{"timeout": 5.0, "replicas": 0, **settings}))
        return made[-1]

    yield make
    for store in made:
        store.close()


def findings_about(store: RedisStore) -> dict[str, str]:
    """Return what doctor finds, where nothing is wrong."""
    authority = FakeAuthority()
    guard = Guard(authority.issuer, store=store, transport=authority.transport, clock=authority.clock, audit="off")
    findings = check_store(engine_of(guard), authority.clock.monotonic)
    names = ("url", "role", "replicas")
    return {finding.check: finding.text for finding in findings if finding.check in names and finding.level is Level.OK}


def claim(store: RedisStore, identity: bytes = b"proof") -> str:
    try:
        return store.claim(identity, "key", holder="alice", **LIMITS)
    except AuthorityUnavailable as outage:
        return outage.detail["problem"]


@pytest.mark.rule("D-58", "D-60")
def test_claims_and_revocations_outlive_the_primary(trio: SentinelTrio, stores: Stores):
    for wrong in ({"service": "others"}, {"user": "stranger"}):
        assert claim(stores(**wrong)) == "MasterNotFoundError"
    careful, other = stores(replicas=2), stores(replicas=1)
    assert findings_about(careful) == {
        "url": "on this machine",
        "role": "primary, known to the Sentinels",
        "replicas": "the primary has 2 replicas; 2 must confirm used proofs and revocations",
    }
    careful.put("answer", b"value", seconds=60)
    careful.append(b"revoked", seconds=60)
    assert (claim(careful), claim(other)) == ("new", "used")
    old = trio.primary()
    trio.servers[old].kill()
    assert claim(other) not in ("new", "used")
    trio.fail_over()
    wait_for(lambda: claim(other) == "used")
    assert other.read(None)[1] == [b"revoked"]
    assert other.get("answer") == b"value"
    # Of the two replicas that must confirm, one is the primary now.
    careful_now = stores(replicas=2, timeout=0.5)
    assert claim(careful_now, b"another") == "NotReplicated"
    for port in trio.sentinels:
        trio.servers[port].kill()
    assert claim(other, b"third") == "new"  # it is connected already
    assert claim(stores(), b"fourth") == "MasterNotFoundError"


def test_valkey_with_sentinels(tmp_path: Path):
    with run_group(SentinelTrio(tmp_path, program=valkey_program())) as trio:
        store = RedisStore(trio.url, timeout=2.0, replicas=1)
        assert claim(store) == "new"
        trio.servers[trio.primary()].kill()
        trio.fail_over()
        wait_for(lambda: claim(store) == "NotReplicated")
        relaxed = RedisStore(trio.url, timeout=5.0, replicas=0)
        assert claim(relaxed) == "used"
        store.close()
        relaxed.close()
