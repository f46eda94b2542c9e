"""One time limit for the whole exchange: name look-up, each address, each step. The clock is fake, and look-ups
hang at a gate."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from forked import Child
from loopback import Connection, Loopback, answer_with, response
from scopeguard.edge import exchange_deadlines
from scopeguard.edge.exchange_deadlines import (
    MOST_LOOKUPS,
    MOST_OF_ONE_AUTHORITY,
    Deadline,
    DeadlineBackend,
    NameLookups,
    Streams,
)
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Send
from scopeguard.reasons import Reason
from scopeguard.testing import FakeClock

PATIENCE = 30.0


class Names:
    """A replacement of ``socket.getaddrinfo``: a table, and a gate at which look-ups hang."""

    def __init__(self) -> None:
        self.table: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.real = socket.getaddrinfo

    def __call__(self, host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host.endswith(".test"):
            self.asked.append(host)
            self.arrived.release()
            assert self.gate.wait(PATIENCE), "the gate was not opened"
            if host not in self.table:
                raise socket.gaierror(-2, "Name or service not known")
            return [(0, 0, 0, "", (address, port, *more)) for address, *more in self.table[host]]
        return self.real(host, port, *rest, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names)
    yield names
    names.gate.set()


# -- names


def test_ip_address_is_not_looked_up(names: Names):
    lookups = NameLookups()
    for address in ("127.0.0.1", "::1", "2001:db8::1"):
        assert lookups.addresses(address, 443, 0) == (address,)
    assert lookups._pending == {}


def test_addresses_are_returned_in_order_once_and_with_their_scope_id(names: Names):
    names.table["as.test"] = [
        ("2001:db8::1", 0, 0),
        ("192.0.2.1",),
        ("192.0.2.1",),
        ("fe80::1", 0, 3),
        ("fe80::2%eth0", 0, 3),
    ]
    found = NameLookups().addresses("as.test", 443, PATIENCE)
    assert found == ("2001:db8::1", "192.0.2.1", "fe80::1%3", "fe80::2%eth0")


@pytest.mark.parametrize("host", ["nowhere.test", "a" * 64 + ".example", "a..example"])
def test_a_name_without_addresses_is_an_error(names: Names, host: str):
    with pytest.raises(OSError, match=r"\w"):
        NameLookups().addresses(host, 443, PATIENCE)


def test_hanging_look_up_is_shared_and_delays_no_caller_beyond_the_limit(names: Names):
    names.table["as.test"] = [("192.0.2.1",)]
    names.gate.clear()
    lookups = NameLookups()
    for _ in range(5):
        with pytest.raises(TimeoutError, match="in time"):
            lookups.addresses("as.test", 443, 0)
    assert names.arrived.acquire(timeout=PATIENCE)
    assert names.asked == ["as.test"]  # One thread for all callers.
    names.gate.set()
    assert lookups.addresses("as.test", 443, PATIENCE) == ("192.0.2.1",)


def test_number_of_hanging_look_ups_is_limited(names: Names):
    names.gate.clear()
    lookups = NameLookups()
    for number in range(MOST_LOOKUPS):
        with pytest.raises(TimeoutError, match="in time"):
            lookups.addresses(f"{number}.test", 443, 0)
    for _ in range(MOST_LOOKUPS):
        assert names.arrived.acquire(timeout=PATIENCE)
    with pytest.raises(TimeoutError, match="already"):
        lookups.addresses("another.test", 443, PATIENCE)
    assert "another.test" not in names.asked
    assert lookups.addresses("192.0.2.1", 443, 0) == ("192.0.2.1",)


def test_names_that_were_found_before_do_not_wait_for_new_ones(names: Names):
    """The metadata of one issuer can name any hosts. Fault: they use up the look-ups that all issuers share."""
    names.table["as.test"] = [("192.0.2.1",)]
    lookups, answers = NameLookups(), []
    assert lookups.addresses("as.test", 443, PATIENCE) == ("192.0.2.1",)
    names.gate.clear()
    for number in range(MOST_LOOKUPS):
        with pytest.raises(TimeoutError, match="in time"):
            lookups.addresses(f"{number}.test", 443, 0)
    with pytest.raises(TimeoutError, match="already"):
        lookups.addresses("new.test", 443, 0)
    asking = threading.Thread(target=lambda: answers.append(lookups.addresses("as.test", 443, PATIENCE)))
    asking.start()
    for _ in range(MOST_LOOKUPS + 2):
        assert names.arrived.acquire(timeout=PATIENCE)
    names.gate.set()
    asking.join(PATIENCE)
    assert answers == [("192.0.2.1",)]


def hang(lookups: NameLookups, host: str, authority: str = "") -> None:
    with pytest.raises(TimeoutError, match="in time"):
        lookups.addresses(host, 443, 0, authority)


def test_names_of_one_authority_do_not_delay_those_of_others(names: Names):
    """Fault: its name servers answer once, so that the names count as found, and hang later."""
    lookups, answers, lying = NameLookups(), [], "https://lying.test"
    hosts = [f"{number}.test" for number in range(2 * MOST_LOOKUPS)]
    for host in ("as.test", *hosts):
        names.table[host] = [("192.0.2.1",)]
        lookups.addresses(host, 443, PATIENCE, lying)
    names.gate.clear()
    for host in hosts[:MOST_OF_ONE_AUTHORITY]:
        hang(lookups, host, lying)
    for host in hosts[MOST_OF_ONE_AUTHORITY:]:
        with pytest.raises(TimeoutError, match="already"):
            lookups.addresses(host, 443, 0, lying)
    asking = threading.Thread(target=lambda: answers.append(lookups.addresses("as.test", 443, PATIENCE, "https://as")))
    asking.start()
    for _ in range(len(hosts) + 1 + MOST_OF_ONE_AUTHORITY + 1):
        assert names.arrived.acquire(timeout=PATIENCE)
    names.gate.set()
    asking.join(PATIENCE)
    assert answers == [("192.0.2.1",)]


def test_name_that_hangs_is_no_longer_one_that_was_found(names: Names):
    lookups, host = NameLookups(), "lying.test"
    names.table[host] = [("192.0.2.1",)]
    lookups.addresses(host, 443, PATIENCE)
    names.gate.clear()
    hang(lookups, host)
    ended = lookups._pending[host, 443].done
    names.gate.set()
    assert ended.wait(PATIENCE)
    names.gate.clear()
    for number in range(MOST_LOOKUPS):
        hang(lookups, f"{number}.test")
    with pytest.raises(TimeoutError, match="already"):  # it counts as new
        lookups.addresses(host, 443, 0)


def test_failure_to_start_a_thread_is_an_error(names: Names, monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookups = NameLookups()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start"):
            lookups.addresses("as.test", 443, 0)
    names.table["as.test"] = [("192.0.2.1",)]
    assert lookups.addresses("as.test", 443, PATIENCE) == ("192.0.2.1",)


def test_child_process_looks_names_up_itself(names: Names):
    names.table["as.test"] = [("192.0.2.1",)]
    names.gate.clear()
    lookups = NameLookups()
    with pytest.raises(TimeoutError):
        lookups.addresses("as.test", 443, 0)
    assert names.arrived.acquire(timeout=PATIENCE)

    def check() -> None:
        names.gate = threading.Event()
        names.gate.set()
        assert lookups.addresses("as.test", 443, PATIENCE) == ("192.0.2.1",)

    lookups._lock.acquire()
    child = Child(check)
    lookups._lock.release()
    assert child.ok()


# -- addresses and steps


class Network:
    """A backend of httpcore: each address uses its whole time limit unless it answers or refuses."""

    def __init__(self, clock: FakeClock, answers: str = "") -> None:
        self.clock = clock
        self.answers = answers
        self.refuses: set[str] = set()
        self.tried: list[tuple[str, float]] = []
        self.written: list[bytes] = []

    def connect_tcp(self, host: str, port: int, timeout: float, **options: Any) -> Any:
        self.tried.append((host, timeout))
        if host == self.answers:
            return self
        if host in self.refuses:
            raise httpcore.ConnectError("refused")
        self.clock.advance(timeout)
        raise httpcore.ConnectTimeout("silent")

    def read(self, max_bytes: int, timeout: float) -> bytes:
        raise AssertionError("read")

    def start_tls(self, context: ssl.SSLContext, name: str | None, timeout: float) -> Any:
        raise AssertionError("start_tls")

    def write(self, buffer: bytes, timeout: float) -> None:
        self.written.append(buffer)
        self.clock.advance(timeout / 2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(exchange_deadlines, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def backend_with_deadline(network: Network, seconds: float) -> DeadlineBackend:
    deadline = Deadline()
    deadline.at = network.clock.monotonic() + seconds
    return DeadlineBackend(network, deadline, NameLookups(), Streams())


def test_all_addresses_are_tried_within_the_limit(clock: FakeClock, names: Names):
    addresses = [f"192.0.2.{number}" for number in range(12)]
    names.table["as.test"] = [(address,) for address in addresses]
    network = Network(clock, answers=addresses[-1])
    begun = clock.monotonic()
    backend_with_deadline(network, 2.0).connect_tcp("as.test", 443, 2.0)
    assert [address for address, _ in network.tried] == addresses
    assert clock.monotonic() - begun <= 2.0
    assert network.tried[0][1] == pytest.approx(2.0 / 12)


def test_remaining_time_is_used_for_the_next_addresses(clock: FakeClock, names: Names):
    names.table["as.test"] = [("192.0.2.1",), ("192.0.2.2",)]
    network = Network(clock, answers="192.0.2.2")
    network.refuses = {"192.0.2.1"}
    backend_with_deadline(network, 1.0).connect_tcp("as.test", 443)
    assert [seconds for _, seconds in network.tried] == [pytest.approx(0.5), pytest.approx(1.0)]


def test_a_silent_address_takes_two_seconds_at_most(clock: FakeClock, names: Names):
    names.table["as.test"] = [("192.0.2.1",), ("192.0.2.2",)]
    network = Network(clock, answers="192.0.2.2")
    backend_with_deadline(network, 30.0).connect_tcp("as.test", 443)
    assert network.tried[0] == ("192.0.2.1", 2.0)


@pytest.mark.parametrize(("refuses", "error"), [(True, httpcore.ConnectError), (False, httpcore.ConnectTimeout)])
def test_failure_of_the_last_address_is_reported_if_none_answers(
    clock: FakeClock, names: Names, error: Any, *, refuses: bool
):
    names.table["as.test"] = [("192.0.2.1",), ("192.0.2.2",)]
    network = Network(clock)
    network.refuses = {"192.0.2.1", "192.0.2.2"} if refuses else set()
    with pytest.raises(error):
        backend_with_deadline(network, 2.0).connect_tcp("as.test", 443)


def test_a_name_with_an_empty_list_of_addresses_is_an_error(clock: FakeClock, names: Names):
    names.table["as.test"] = []
    with pytest.raises(httpcore.ConnectError, match="no address"):
        backend_with_deadline(Network(clock), 2.0).connect_tcp("as.test", 443)


def test_nothing_starts_after_the_deadline(clock: FakeClock):
    network = Network(clock)
    stream = backend_with_deadline(network, 0.0)
    for step in (
        lambda: stream.connect_tcp("192.0.2.1", 443),
        lambda: stream.write(b"x"),
        lambda: stream.read(1),
        lambda: stream.start_tls(ssl.create_default_context()),
    ):
        with pytest.raises(TimeoutError):
            step()
    assert network.tried == []


def test_time_limit_covers_a_large_request_as_a_whole(clock: FakeClock):
    """Each piece gets the remaining time, not the full timeout."""
    network = Network(clock)
    begun = clock.monotonic()
    backend_with_deadline(network, 2.0).write(b"x" * 20_000, 2.0)
    assert b"".join(network.written) == b"x" * 20_000
    assert clock.monotonic() - begun < 2.0


# -- through the transport


def test_hanging_name_look_up_is_an_outage_within_the_limit(names: Names, monkeypatch: pytest.MonkeyPatch):
    names.gate.clear()
    monkeypatch.setattr(Deadline, "remaining", lambda self, seconds=None: 0.0)  # As at the end of the limit.
    transport = HttpxTransport()
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(Send(url="https://as.test/keys", authority="https://as.test"))
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    assert "could not be looked up in time" in str(raised.value)
    transport.close()


def test_unknown_host_name_is_an_outage_that_names_the_cause(names: Names):
    transport = HttpxTransport()
    with pytest.raises(AuthorityUnavailable) as raised:
        transport.send(Send(url="https://nowhere.test/keys", authority="https://as.test"))
    assert raised.value.reason is Reason.AUTHORITY_UNREACHABLE
    assert "Name or service not known" in str(raised.value)
    transport.close()


def test_connection_in_use_is_closed_when_its_exchange_ends():
    """Closing it at once would free the number of a socket that another thread still reads."""
    begun, go_on = threading.Event(), threading.Event()
    transport = HttpxTransport()
    answers: list[bytes] = []

    def slow(connection: Connection, request: bytes) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        answer_with(response(b"{}"))(connection, request)

    with Loopback(slow) as server:
        thread = threading.Thread(
            target=lambda: answers.append(transport.send(Send(url=server.url, authority="a", timeout=PATIENCE)).body)
        )
        thread.start()
        assert begun.wait(PATIENCE)
        client: Any = transport._client
        transport.close()
        assert not client.is_closed
        go_on.set()
        thread.join()
        assert answers == [b"{}"]
        assert client.is_closed
        assert transport._users == {}


def test_hanging_exchanges_are_aborted_and_the_next_one_works():
    transport = HttpxTransport()
    failures: list[Reason] = []

    def ask() -> None:
        with pytest.raises(AuthorityUnavailable) as raised:
            transport.send(Send(url=server.url, authority="a", timeout=PATIENCE * 10))
        failures.append(raised.value.reason)

    with Loopback(lambda connection, request: connection.hold()) as server:
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(server.requests) < 3:
            threading.Event().wait(0.001)
        transport.abort()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == [Reason.AUTHORITY_UNREACHABLE] * 3
        server.respond = answer_with(response(b"{}"))
        assert transport.send(Send(url=server.url, authority="a")).body == b"{}"
        transport.close()
        transport.abort()  # Nothing is open.
