"""The Redis store with a real Redis: stored data, lifetimes, signatures and failures."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_groups import wait_for
from redis_server import RedisServer
from scopeguard import (
    AuthorityUnavailable,
    ConfigurationError,
    Guard,
    Introspection,
    Issuer,
    Reason,
    RevocationPolicy,
    Validation,
)
from scopeguard.request import HeaderList, RequestView
from scopeguard.state.revocation import Revocation, Revoked
from scopeguard.stores.redis import RedisStore
from scopeguard.stores.redis_servers import parse_url
from scopeguard.testing import FakeAuthority

SECRET = "sg-secret-of-the-store, which is long enough"


@pytest.fixture
def stores() -> Iterator[Callable[..., RedisStore]]:
    """Makes stores, and closes them."""
    made: list[RedisStore] = []

    def make(server: RedisServer, **settings: Any) -> RedisStore:
        made.append(RedisStore(settings.pop("url", server.url), **{"timeout": 5.0, **settings}))
        return made[-1]

    yield make
    for store in made:
        store.close()


Stores = Callable[..., RedisStore]


def read_everything(store: RedisStore) -> list[bytes]:
    position, found = store.read(None)
    while True:
        following, more = store.read(position)
        if following == position:
            return list(found)
        position = following
        found = [*found, *more]


# -- values


@pytest.mark.parametrize("secret", [None, SECRET], ids=["unsigned", "signed"])
def test_value_is_shared_with_other_processes_until_it_expires(server: RedisServer, stores: Stores, secret: str | None):
    here, there = stores(server, secret=secret), stores(server, secret=secret)
    here.put("answer:1", b"\x00value", seconds=7.5)
    assert there.get("answer:1") == b"\x00value"
    assert there.get("answer:2") is None
    with server.client() as client:
        assert 0 < client.pttl("scopeguard:answer:1") <= 7500
        client.pexpire("scopeguard:answer:1", 0)
    assert there.get("answer:1") is None


def test_value_without_a_remaining_lifetime_is_not_kept(server: RedisServer, stores: Stores):
    stores(server).put("answer:1", b"value", seconds=0.0001)
    assert all(left != -1 for _, left in server.dump().values())


def test_prefix_separates_two_apis(server: RedisServer, stores: Stores):
    one, two = stores(server, prefix="one:"), stores(server, prefix="two:")
    one.put("answer:1", b"value", seconds=60)
    one.append(b"entry", seconds=60)
    assert two.get("answer:1") is None
    assert two.read(None) == (None, [])
    assert {key.partition(":")[0] for key in server.dump()} == {"one"}


def test_unix_socket_is_supported(server: RedisServer, stores: Stores):
    stores(server, url=server.socket_url).put("k", b"v", seconds=60)
    assert stores(server).get("k") == b"v"


# -- the signature


@pytest.mark.rule("X-68")
def test_tampered_or_moved_value_is_ignored(server: RedisServer, stores: Stores):
    store = stores(server, secret=SECRET)
    store.put("answer:1", b'{"members": null}', seconds=60)
    with server.client() as client:
        kept = client.get("scopeguard:answer:1")
        client.set("scopeguard:answer:2", kept)  # the answer about another token
        client.set("other:answer:1", kept)  # the answer to another API
        client.set("scopeguard:answer:3", kept[:32] + b'{"members": {"active": true}}')
        client.set("scopeguard:answer:4", b'{"members": {"active": true}}')
        client.set("scopeguard:answer:5", b"")
    assert store.get("answer:1") is not None
    assert [store.get(f"answer:{n}") for n in (2, 3, 4, 5)] == [None] * 4
    assert stores(server, secret=SECRET, prefix="other:").get("answer:1") is None
    assert stores(server, secret="another secret of the same length").get("answer:1") is None


def test_entries_with_a_foreign_signature_are_ignored_and_logged(
    server: RedisServer, stores: Stores, caplog: pytest.LogCaptureFixture
):
    store = stores(server, secret=SECRET)
    store.append(b"ours", seconds=60)
    stores(server).append(b"unsigned", seconds=60)
    with server.client() as client:
        client.xadd("scopeguard:{revocations}", {"something": "else"})
    position, entries = store.read(None)
    assert entries == [b"ours"]
    assert "scopeguard:{revocations}: ignored entries with a wrong form" in caplog.text
    assert store.read(position) == (position, [])


class _Exploit:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (sys.exit, ("a pickle was loaded",))


@pytest.mark.rule("X-68")
def test_pickle_in_redis_is_not_executed(server: RedisServer, authority: FakeAuthority, stores: Stores):
    """Any unsigned value is read as JSON or ignored. If it is ignored, the guard asks the authority."""
    guard = make_guard(authority, stores(server))
    token = authority.mint("read", token_format="opaque")
    assert status(guard, token) == 200
    poison = pickle.dumps(_Exploit())
    with server.client() as client:
        (key,) = client.keys("*answer:*")
        client.set(key, poison)
        client.xadd("scopeguard:{revocations}", {"entry": poison})
    with_poison = make_guard(authority, stores(server))
    assert status(with_poison, token) == 200
    assert ask(authority) == 2
    with_poison.close()
    guard.close()


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{}",
        b"[]",
        b'{"kind": "token", "digest": "d", "at": 0, "until": NaN}',
        b'{"kind": "token", "digest": "d", "at": 0, "until": 1' + b"0" * 400 + b"}",
        b'{"kind": "token", "digest": 7, "at": 0, "until": 1}',
        b'{"kind": "everything", "digest": "d", "at": 0, "until": 1}',
        b'{"kind": ["token"], "digest": "d", "at": 0, "until": 1}',
    ],
)
def test_malformed_entry_is_ignored(entry: bytes):
    assert Revocation.from_bytes(entry) is None


def test_entry_is_loaded_unchanged():
    entry = Revocation(kind=Revoked.SUBJECT, digest="d", at=1.5, until=2.5)
    assert Revocation.from_bytes(entry.to_bytes()) == entry


# -- the log


def test_log_is_read_from_the_last_position(server: RedisServer, stores: Stores):
    here, there = stores(server), stores(server)
    assert there.read(None) == (None, [])
    here.append(b"1", seconds=60)
    position, entries = there.read(None)
    assert entries == [b"1"]
    assert there.read(position) == (position, [])
    here.append(b"2", seconds=60)
    here.append(b"3", seconds=60)
    assert there.read(position)[1] == [b"2", b"3"]
    assert there.read(None)[1] == [b"1", b"2", b"3"]


def test_long_log_is_read_in_parts_with_each_entry_once(server: RedisServer, stores: Stores):
    store = stores(server)
    with server.client() as client, client.pipeline() as pipeline:
        for number in range(2500):
            pipeline.xadd("scopeguard:{revocations}", {"entry": str(number)})
        pipeline.execute()
    _, first = store.read(None)
    assert 1000 <= len(first) <= 1001
    assert read_everything(store) == [str(number).encode() for number in range(2500)]


def test_expired_entries_are_dropped_a_hundred_at_a_time(server: RedisServer, stores: Stores):
    """Expiry uses the clock of Redis."""
    store = stores(server)
    for number in range(150):
        store.append(str(number).encode(), seconds=60)
    pass_time(server, 61)
    store.append(b"new", seconds=60)
    kept = read_everything(store)
    assert (len(kept), kept[-1]) == (51, b"new")
    store.append(b"newer", seconds=60)
    assert read_everything(store) == [b"new", b"newer"]
    assert all(0 < left <= 60_000 for _, left in server.dump().values())


@pytest.mark.rule("E-15")
@pytest.mark.parametrize(("first", "second"), [(1000, 60), (60, 1000)], ids=["longer first", "longer last"])
def test_each_entry_has_its_own_life_and_the_log_that_of_the_longest(
    server: RedisServer, stores: Stores, first: int, second: int
):
    """Fault: a log whose life is that of its newest entry forgets a longer one, as of a time in the future."""
    store = stores(server)
    store.append(b"first", seconds=first)
    store.append(b"second", seconds=second)
    assert all(60_000 < left <= 1_000_000 for _, left in server.dump().values())
    pass_time(server, 61)
    store.append(b"third", seconds=60)
    assert read_everything(store) == [b"first" if first == 1000 else b"second", b"third"]
    assert all(60_000 < left <= 1_000_000 for _, left in server.dump().values())


def test_reader_whose_last_entry_was_dropped_reads_the_rest_again(server: RedisServer, stores: Stores):
    store = stores(server)
    store.append(b"long", seconds=1000)
    store.append(b"short", seconds=60)
    position, _ = store.read(None)
    pass_time(server, 61)
    store.append(b"new", seconds=60)
    assert store.read(position)[1] == [b"long", b"new"]


def pass_time(server: RedisServer, seconds: int) -> None:
    """Let the entries of the log be as old as they would be after *seconds*."""
    name = "scopeguard:{revocations}:expiries"
    with server.client() as client:
        for member in client.zrange(name, 0, -1):
            client.zincrby(name, -1000.0 * seconds, member)


def test_reader_behind_the_dropped_entries_reads_all_remaining_ones(server: RedisServer, stores: Stores):
    store = stores(server)
    store.append(b"1", seconds=60)
    position, _ = store.read(None)
    store.append(b"2", seconds=60)
    store.append(b"3", seconds=60)
    with server.client() as client:
        client.xtrim("scopeguard:{revocations}", maxlen=1, approximate=False)
    assert store.read(position)[1] == [b"3"]


def test_after_redis_lost_its_data_a_new_log_is_read_even_if_its_clock_is_behind(server: RedisServer, stores: Stores):
    store = stores(server)
    store.append(b"1", seconds=60)
    position, _ = store.read(None)
    with server.client() as client:
        client.flushall()
        assert store.read(position) == (None, [])
        client.xadd("scopeguard:{revocations}", {"entry": "2"}, id="1-1")  # in 1970
    following, entries = store.read(position)
    assert (following, entries) == ("1-1", [b"2"])
    assert store.read(following) == (following, [])


# -- failures


def unavailable(work: Callable[[], object]) -> AuthorityUnavailable:
    with pytest.raises(AuthorityUnavailable) as caught:
        work()
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert caught.value.retry_after is not None
    return caught.value


def test_hanging_redis_is_tried_once_with_a_short_time_limit(server: RedisServer, stores: Stores):
    stores(server).put("k", b"v", seconds=60)
    store = stores(server, timeout=0.2)
    assert wait_for(lambda: store.get("k")) == b"v"  # on a busy machine, any operation may take longer
    with server.keep_frozen():
        unavailable(lambda: store.get("k"))  # on the connection that was there
        unavailable(lambda: store.get("k"))  # on a new one
        unavailable(lambda: store.put("k", b"v", seconds=60))
        unavailable(lambda: store.read(None))
        unavailable(lambda: store.append(b"entry", seconds=60))
    assert wait_for(lambda: store.get("k")) == b"v"


def test_time_out_is_not_retried(stores: Stores):
    """Otherwise the wait would take twice the configured time limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        unavailable(lambda: store.get("k"))
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
        store.close()


def test_unreachable_redis_is_an_outage_until_it_is_back(
    tmp_path: Path, stores: Stores, caplog: pytest.LogCaptureFixture
):
    with RedisServer(tmp_path) as server:
        store = stores(server)
        store.put("k", b"v", seconds=60)
        server.kill()
        for _ in range(3):
            unavailable(lambda: store.get("k"))
        server.start()
        assert store.get("k") is None
        store.put("k", b"v", seconds=60)
        assert store.get("k") == b"v"


def test_with_appendonly_revocations_are_kept_after_a_crash(tmp_path: Path, stores: Stores):
    with RedisServer(tmp_path, append_only=True) as server:
        store = stores(server)
        store.append(b"1", seconds=60)
        position, _ = store.read(None)
        store.append(b"2", seconds=60)
        server.kill()
        unavailable(lambda: store.read(position))
        server.start()
        assert store.read(position)[1] == [b"2"]


def test_closed_connection_is_replaced(server: RedisServer, stores: Stores):
    store = stores(server)
    store.put("k", b"v", seconds=60)
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert store.get("k") == b"v"


def test_any_error_of_redis_is_an_outage(server: RedisServer, stores: Stores):
    """A key of another type, a password that is missing, a server that takes no writes: never an unknown exception."""
    store = stores(server)
    with server.client() as client:
        client.set("scopeguard:{revocations}", "not a stream")
        assert unavailable(lambda: store.read(None)).detail["problem"] == "ResponseError"
        unavailable(lambda: store.append(b"entry", seconds=60))
        client.set("scopeguard:{revocations}", "x", keepttl=False)
        client.config_set("min-replicas-to-write", 1)
        try:
            unavailable(lambda: store.put("k", b"v", seconds=60))
        finally:
            client.config_set("min-replicas-to-write", 0)
        client.config_set("requirepass", "a password")
        try:
            unavailable(lambda: stores(server).get("k"))
            with_password = stores(server, url=server.url.replace("//", "//:a%20password@"))
            assert with_password.get("k") is None
        finally:
            client.config_set("requirepass", "")


def test_closing_does_not_affect_concurrent_users(server: RedisServer, stores: Stores):
    store = stores(server)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(200):
                store.put(f"k{number}", b"v", seconds=60)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        store.close()
    for thread in threads:
        thread.join()
    assert not failures


def test_child_process_opens_new_connections(server: RedisServer, stores: Stores):
    store = stores(server)
    store.put("k", b"v", seconds=60)
    store._lock.acquire()  # as if a thread of the parent held it while another thread forks
    child = os.fork()
    if child == 0:  # in the child, which must never come back to pytest
        status = 1
        signal.alarm(20)  # rather than hang where the lock is the parent's
        try:
            assert store.get("k") == b"v"
            store.put("child", b"v", seconds=60)
            store.close()
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it was, it is a failure
            traceback.print_exc()
        finally:
            os._exit(status)
    store._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get("child") == b"v"


# -- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1"}, "the Redis URL must begin with redis://, rediss:// or unix://"),
        ({"url": ""}, "the Redis URL must begin with redis://"),
        ({"url": "redis://:sg-secret-1/2@127.0.0.1:6379"}, "is invalid; percent-encode the password in it"),
        # Fault: a password that is not percent-encoded is taken apart, and its rest is quoted or ignored.
        ({"url": "redis://app:?sg-secret-1@127.0.0.1:6379/0"}, "is invalid; percent-encode the password in it"),
        ({"url": "redis://app:?a&sg-secret-1@127.0.0.1"}, "is invalid; percent-encode the password in it"),
        ({"url": "redis://:1#sg-secret@127.0.0.1"}, "is invalid; percent-encode the password in it"),
        ({"url": "redis://:1/sg-secret@127.0.0.1:6379/0"}, "is invalid; percent-encode the password in it"),
        ({"url": "redis+sentinel://one/tokens?password=1#sg-secret"}, "is invalid; percent-encode the password in it"),
        ({"url": "unix:///run/redis#1.sock"}, "is invalid"),
        ({"url": "redis://127.0.0.1/1/2"}, "is invalid"),
        ({"url": "redis://127.0.0.1:port"}, "is invalid"),
        ({"url": "redis://127.0.0.1:99999"}, "is invalid"),
        ({"url": "redis://[::1"}, "is invalid"),
        ({"url": "redis://127.0.0.1?db=x"}, "is invalid"),
        (
            {"url": "redis://127.0.0.1?decode_responses=True"},
            "has the option 'decode_responses'; the allowed ones are client_",
        ),
        ({"url": "redis://127.0.0.1?socket_timeout=60"}, "has the option 'socket_timeout'"),
        ({"url": "rediss://127.0.0.1?ssl_cert_reqs=none"}, "has the option 'ssl_cert_reqs'"),
        ({"url": "redis://127.0.0.1", "secret": "too short"}, "secret must have at least 16 characters"),
        ({"url": "redis://127.0.0.1", "secret": 7}, "secret must have at least 16 characters"),
        ({"url": "redis://127.0.0.1", "prefix": "\xfc:"}, "prefix must be a string in ASCII"),
        ({"url": "redis://127.0.0.1", "timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"url": "redis://127.0.0.1", "timeout": 61}, "timeout must be a number of seconds above 0 and at most 60"),
        ({"url": "redis://127.0.0.1", "timeout": float("nan")}, "timeout: must be a number"),
        ({"url": "redis://127.0.0.1", "prefix": "a{}:"}, "prefix must be a string in ASCII without {}"),
        ({"url": "redis://127.0.0.1", "replicas": -1}, "replicas: must be at least 0"),
        ({"url": "redis://127.0.0.1", "replicas": 101}, "replicas must be at most 100"),
        (
            {"url": "redis+sentinel://one/tokens"},
            "set replicas with Sentinels or a cluster: as many as each primary has",
        ),
        ({"url": "rediss+cluster://one"}, "set replicas with Sentinels or a cluster"),
        ({"url": "redis://one,two"}, "names several hosts; begin it with redis+cluster:// for a cluster"),
        # Fault: user and password before each host. The password seemed to end before the last host.
        ({"url": "redis://u:sg-secret@one,u:sg-secret@two"}, "names several hosts; begin it with redis+cluster://"),
        ({"url": "redis+cluster://u:sg-secret@one,u:sg-secret@two"}, "as in redis+cluster://user:password@host-1,"),
        ({"url": "redis+cluster://:sg-secret@one:1,:sg-secret@two:2"}, "user and password once, before the first host"),
        ({"url": "redis+cluster://one,u:sg-secret@two"}, "user and password once, before the first host"),
        ({"url": "rediss+cluster://u:sg-secret,1@one"}, "percent-encode the password in it, a comma as %2C"),
        ({"url": "redis+sentinel://u:sg-secret@one,u:sg-secret@two/tokens"}, "as in redis+sentinel://user:password@"),
        ({"url": "redis+sentinel:one"}, "the Redis URL must begin with"),
        ({"url": "redis+sentinel://one,two"}, "must name the primary that the Sentinels know, as in redis+sentinel://"),
        ({"url": "redis+sentinel://one/tokens/x"}, "must name the primary"),
        ({"url": "redis+sentinel://one/tokens/0/1"}, "must name the primary"),
        ({"url": "redis+sentinel://one,,two/tokens"}, "is invalid"),
        ({"url": "redis+sentinel://one:x/tokens"}, "is invalid"),
        ({"url": "redis+sentinel://one/tokens?ssl_cert_reqs=none"}, "has the option 'ssl_cert_reqs'"),
        ({"url": "redis+cluster://one?sentinel_password=sg-secret"}, "has the option 'sentinel_password'"),
        ({"url": "redis+cluster://one/1"}, "a cluster has only db 0"),
        ({"url": "redis+cluster://one/tokens"}, "a cluster has only db 0"),
        ({"url": "redis+cluster://one?db=1"}, "a cluster has only db 0"),
        ({"url": "rediss+cluster://:sg-secret/1@one,two"}, "is invalid; percent-encode the password in it"),
    ],
)
def test_invalid_settings_are_refused_at_once(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(**settings)
    assert message in str(caught.value)
    assert caught.value.__cause__ is None
    assert "sg-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "addresses", "service", "options", "sentinel_options"),
    [
        ("redis://", [("localhost", 6379)], "", {}, {}),
        ("redis://[::1]:1/2", [("::1", 1)], "", {"db": 2}, {}),
        ("rediss://me:p%40ss@one", [("one", 6379)], "", {"username": "me", "password": "p@ss", "ssl": True}, {}),
        (
            "redis+sentinel://me:p%2Css@one,two:1,[::1]:2/my%20own/3?sentinel_username=you&sentinel_password=p%40ss",
            [("one", 26379), ("two", 1), ("::1", 2)],
            "my own",
            {"username": "me", "password": "p,ss", "db": 3},
            {"username": "you", "password": "p@ss"},
        ),
        (
            "rediss+cluster://one,two:1/0?ssl_ca_certs=ca.pem",
            [("one", 6379), ("two", 1)],
            "",
            {"ssl": True, "ssl_ca_certs": "ca.pem"},
            {},
        ),
    ],
)
def test_url_is_read(
    url: str, addresses: list[tuple[str, int]], service: str, options: dict[str, Any], sentinel_options: dict[str, str]
):
    servers = parse_url(url)
    assert list(servers.addresses) == addresses
    assert (servers.service, servers.options, servers.sentinel_options) == (service, options, sentinel_options)
    assert servers.is_encrypted == url.startswith("rediss")
    assert "p@ss" not in repr(servers)


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r'pip install "scopeguard-oauth2\[redis\]"'):
        RedisStore("redis://127.0.0.1")


def test_repr_shows_neither_password_nor_secret():
    assert repr(RedisStore("redis://:sg-secret-1@127.0.0.1", secret=SECRET)) == "RedisStore(prefix='scopeguard:')"


# -- what a guard leaves there


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def make_guard(authority: FakeAuthority, store: RedisStore, **policy: Any) -> Guard:
    issuer = Issuer(
        authority.url,
        audience=authority.audience,
        validate=Validation.AUTO,
        introspection=Introspection(client_id=authority.api.client_id, client_secret=authority.api.secret),
    )
    return Guard(
        issuer,
        transport=authority.transport,
        clock=authority.clock,
        store=store,
        revocation=RevocationPolicy(**policy),
    )


def status(guard: Guard, token: str) -> int:
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
    decision = guard.check(RequestView(method="GET", path="/", headers=headers))
    return decision.response.status if hasattr(decision, "response") else 200


def ask(authority: FakeAuthority) -> int:
    return sum("introspect" in request for request in authority.requests)


@pytest.mark.rule("I-24", "X-61", "E-15")
@pytest.mark.parametrize("secret", [None, SECRET], ids=["unsigned", "signed"])
def test_redis_contains_no_token_and_no_permanent_entry(
    server: RedisServer, stores: Stores, authority: FakeAuthority, secret: str | None
):
    guard = make_guard(authority, stores(server, secret=secret), retention=3600)
    opaque = [authority.mint("read", token_format="opaque", client_id="robot-7") for _ in range(2)]
    jwt = authority.mint("read", subject="somebody@example.com")
    for token in (*opaque, jwt):
        assert status(guard, token) == 200
    assert status(guard, "sg-opaque-made-up") == 401
    guard.revoke(token=opaque[0])
    guard.revoke(token=jwt)
    guard.revoke(subject="somebody@example.com")
    guard.revoke(client_id="robot-8")
    guard.close()
    content = server.dump()
    assert len(content) == 5  # three answers, the log, and the times at which its entries expire
    for key, (value, left) in content.items():
        for token in (*opaque, jwt, "sg-opaque-made-up"):
            assert token.encode() not in value
            assert token not in key
            assert token.rpartition(".")[2][:20].encode() not in value
        # The retention, then the leeway of the issuer: once for its clock, once for the end of the last token.
        limit = 3600 + 2 * 30 if "revocations" in key else 60
        assert 0 < left <= limit * 1000
    log, _ = content["scopeguard:{revocations}"]
    assert b"somebody" not in log
    assert b"robot-8" not in log


@pytest.mark.rule("I-26")
def test_answer_is_shared_and_a_forged_one_is_ignored(server: RedisServer, stores: Stores, authority: FakeAuthority):
    one = make_guard(authority, stores(server, secret=SECRET))
    two = make_guard(authority, stores(server, secret=SECRET))
    token = authority.mint("read", token_format="opaque")
    assert [status(one, token), status(two, token)] == [200, 200]
    assert ask(authority) == 1
    authority.revoke(token)
    good, bad = token, authority.mint("write", token_format="opaque")
    authority.revoke(bad)
    with server.client() as client:
        (key,) = client.keys("*answer:*")
        kept = client.get(key)
        assert status(one, bad) == 401
        (other,) = (name for name in client.keys("*answer:*") if name != key)
        client.set(other, kept)  # the good answer under the key of the bad token
    three = make_guard(authority, stores(server, secret=SECRET))
    assert [status(three, bad), status(three, good)] == [401, 200]
    for guard in (one, two, three):
        guard.close()


def test_without_redis_answers_come_from_the_authority_and_revocations_fail_closed(
    tmp_path: Path, stores: Stores, authority: FakeAuthority
):
    with RedisServer(tmp_path) as server:
        closed = make_guard(authority, stores(server))
        opened = make_guard(authority, stores(server), fail_open_dangerously=True)
        token, revoked = (authority.mint("read", token_format="opaque") for _ in range(2))
        opened.revoke(token=revoked)
        assert [status(closed, token), status(closed, revoked)] == [200, 401]
        server.kill()
        authority.clock.advance(2)
        # Tokens that this process knows to be revoked stay refused. It cannot know the revocations of others.
        assert [status(closed, token), status(closed, revoked)] == [503, 401]
        assert [status(opened, token), status(opened, revoked)] == [200, 401]
        unavailable(lambda: closed.revoke(token=token))
        authority.clock.advance(2)
        assert [status(closed, token), status(opened, token)] == [
            401,
            200,
        ]  # only this process knows its revocation
        server.start()
        authority.clock.advance(2)
        assert [status(closed, token), status(opened, token)] == [401, 200]
        closed.revoke(token=token)
        authority.clock.advance(2)
        assert [status(closed, token), status(opened, token)] == [401, 401]
        closed.close()
        opened.close()
