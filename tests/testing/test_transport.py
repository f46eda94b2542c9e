"""Requests can be held, counted and sent to unknown hosts, from threads and from tasks, without a socket and without
sleeping.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from scopeguard import AuthorityUnavailable, HeaderList, Reason, RequestView
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Granted, Guard
from scopeguard.testing import FakeAuthority, FakeClock, Network


def jwks(authority: FakeAuthority, **settings) -> Send:
    return Send(url=f"{authority.url}/jwks", authority=authority.url, **settings)


def test_a_form_is_posted_and_everything_else_is_a_get(authority):
    assert authority.transport.send(jwks(authority)).status == 200
    form = (("grant_type", "client_credentials"), ("client_id", "client"), ("client_secret", authority.client.secret))
    request = Send(url=f"{authority.url}/token", authority=authority.url, form=form)
    assert authority.transport.send(request).status == 200
    assert list(authority.authority.requests) == ["GET /jwks", "POST /token"]
    authority.transport.close()


@pytest.mark.anyio
async def test_a_task_gets_the_same_answer(authority, anyio_backend):
    assert await authority.transport.asend(jwks(authority)) == authority.transport.send(jwks(authority))


@pytest.mark.parametrize("url", ["https://elsewhere.test/jwks", "http://as.test/jwks", "https://as.test:444/jwks"])
def test_other_hosts_cannot_be_reached_and_are_remembered(authority, url):
    with pytest.raises(AuthorityUnavailable) as caught:
        authority.transport.send(Send(url=url, authority=authority.url))
    assert caught.value.reason is Reason.AUTHORITY_UNREACHABLE
    assert authority.requests == [url]
    assert authority.transport.count("jwks") == 0


def test_an_answer_beyond_the_limit_is_nonsense(authority):
    size = len(authority.transport.send(jwks(authority)).body)
    assert authority.transport.send(jwks(authority, limit=size)).status == 200
    with pytest.raises(AuthorityUnavailable) as caught:
        authority.transport.send(jwks(authority, limit=size - 1))
    assert caught.value.reason is Reason.AUTHORITY_ANSWER_INVALID


@pytest.mark.parametrize(("delay", "late"), [(4.9, False), (5.0, True), (60, True)])
def test_an_answer_later_than_the_timeout_is_one_at_once(authority, delay, late):
    with authority.slow(delay):
        if not late:
            assert authority.transport.send(jwks(authority)).status == 200
        else:
            with pytest.raises(AuthorityUnavailable) as caught:
                authority.transport.send(jwks(authority))
            assert caught.value.reason is Reason.AUTHORITY_TIMED_OUT


# -- holding


def test_a_held_request_waits_until_it_is_released(authority):
    with ThreadPoolExecutor(2) as threads, authority.hold() as held:
        answers = [threads.submit(authority.transport.send, jwks(authority)) for _ in range(2)]
        held.wait_for_requests(2)
        assert held.waiting == 2
        assert not any(answer.done() for answer in answers)
        assert not authority.authority.requests
        held.release()
        assert [answer.result(timeout=10).status for answer in answers] == [200, 200]


def test_leaving_the_block_releases(authority):
    with ThreadPoolExecutor(1) as threads:
        with authority.hold() as held:
            answer = threads.submit(authority.transport.send, jwks(authority))
            held.wait_for_requests()
        assert answer.result(timeout=10).status == 200
    assert authority.transport.send(jwks(authority)).status == 200
    assert held.waiting == 1


def test_a_fault_that_begins_while_a_request_is_held_applies_to_it(authority):
    with ThreadPoolExecutor(1) as threads:
        with authority.hold() as held:
            answer = threads.submit(authority.transport.send, jwks(authority))
            held.wait_for_requests()
            authority.outage("unavailable")
        assert answer.result(timeout=10).status == 503


def test_waiting_in_vain_raises_a_timeout(authority, monkeypatch):
    monkeypatch.setattr("scopeguard.testing.transport._PATIENCE", 0.0)
    with authority.hold() as held:
        with pytest.raises(TimeoutError, match="0 requests"):
            held.wait_for_requests()
        with pytest.raises(TimeoutError, match="was not released"):
            authority.transport.send(jwks(authority))


@pytest.mark.anyio
async def test_a_held_task_blocks_no_other(authority, anyio_backend):
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await authority.transport.asend(jwks(authority)))

    with authority.hold() as held:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
            await held.await_requests(2)
            assert answers == []
            held.release()
    assert [answer.status for answer in answers] == [200, 200]


@pytest.mark.anyio
async def test_a_held_task_can_be_cancelled(authority, anyio_backend):
    with authority.hold() as held:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(authority.transport.asend, jwks(authority))
            await held.await_requests()
            tasks.cancel_scope.cancel()


def test_many_requests_for_keys_are_one_request_to_the_authority(authority):
    """The purpose of holding: a guard under load, seen from the authority."""
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    view = RequestView(
        method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + authority.mint().encode())])
    )
    with ThreadPoolExecutor(8) as threads, authority.hold() as held:
        decisions = [threads.submit(guard.check, view) for _ in range(8)]
        held.wait_for_requests()
        held.release()
        assert all(isinstance(decision.result(timeout=10), Granted) for decision in decisions)
    assert len(authority.requests) == 2
    guard.close()


# -- several authorities


def test_a_network_leads_to_the_authority_whose_host_is_named():
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    network = Network(one, two)
    guard = Guard(one.issuer, two.issuer, transport=network, clock=one.clock)
    for authority in (one, two):
        token = authority.mint().encode()
        view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token)]))
        assert isinstance(guard.check(view), Granted)
    with pytest.raises(AuthorityUnavailable):
        network.send(Send(url="https://three.test/jwks", authority="https://three.test"))
    assert (len(one.requests), len(two.requests)) == (2, 2)
    assert network.requests[-1] == "https://three.test/jwks"
    assert len(network.requests) == 5
    guard.close()
    network.close()


@pytest.mark.anyio
async def test_a_network_serves_tasks_too(authority, anyio_backend):
    assert (await Network(authority).asend(jwks(authority))).status == 200


# -- the clock


def test_time_does_not_pass_until_it_is_advanced():
    clock = FakeClock(1_800_000_000, monotonic=5)
    assert (clock.wall(), clock.monotonic()) == (1_800_000_000, 5)
    clock.advance(1.5)
    assert (clock.wall(), clock.monotonic()) == (1_800_000_001.5, 6.5)
    clock.set_wall(1000)
    assert (clock.wall(), clock.monotonic()) == (1000, 6.5)
    with pytest.raises(ValueError, match="must not be negative"):
        clock.advance(-1)


def test_time_starts_at_a_whole_second_of_the_machine():
    assert FakeClock().wall().is_integer()


def test_threads_do_not_lose_time():
    clock = FakeClock(0, monotonic=0)

    def move() -> None:
        for _ in range(1000):
            clock.advance(1)

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.wall() == clock.monotonic() == 4000
