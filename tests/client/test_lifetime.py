"""The lifetime of a token, and the number of token requests with concurrent callers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import jwt
import pytest

from scopeguard.client import ClientCredentials, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.edge.single_flight import Flights

REFUSED = {"www-authenticate": 'Bearer error="invalid_token"'}
ONE, TWO = "Bearer sg-opaque-1", "Bearer sg-opaque-2"


# -- one after the other


@pytest.mark.rule("C-13")
@pytest.mark.parametrize("lifetime, renewed_at", [(60, 54), (300, 270), (301, 271), (86400, 86370), (10, 9)])
def test_a_token_is_renewed_ahead_of_expiry_beside_the_requests(
    call, credentials, endpoint, clock, wait_for_flight, lifetime, renewed_at
):
    endpoint.expires_in = lifetime
    auth = credentials()
    assert call.token(auth).access_token == "sg-opaque-1"
    clock.now += renewed_at - 0.01
    assert call.token(auth).access_token == "sg-opaque-1"
    wait_for_flight(auth)
    assert len(endpoint.seen) == 1
    clock.now += 0.01
    assert call.token(auth).access_token == "sg-opaque-1"  # It is still valid, so no request waits.
    wait_for_flight(auth)
    assert call.token(auth).access_token == "sg-opaque-2"
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-13")
def test_a_renewal_that_fails_leaves_the_token_in_use_and_is_tried_again_after_a_while(
    credentials, endpoint, clock, wait_for_flight
):
    auth = credentials(retries=0)
    auth.token()
    clock.now += 3570
    endpoint.script = [endpoint.answer(500)] * 2
    for _ in range(3):
        assert auth.token().access_token == "sg-opaque-1"
        wait_for_flight(auth)
    assert len(endpoint.seen) == 2
    clock.now += 5
    assert auth.token().access_token == "sg-opaque-1"
    wait_for_flight(auth)
    assert len(endpoint.seen) == 3
    clock.now += 5
    auth.token()
    wait_for_flight(auth)
    assert auth.token().access_token == "sg-opaque-2"


def test_after_expiry_an_outage_is_an_error(call, credentials, endpoint, clock, api):
    auth, service = credentials(retries=0), api()
    call(auth, service)
    clock.now += 3600
    endpoint.script = [endpoint.answer(500)]
    with pytest.raises(TokenEndpointUnavailable):
        call(auth, service)
    call(auth, service)
    assert service.tokens == [ONE, TWO]


@pytest.mark.rule("C-14")
def test_a_wall_clock_that_is_set_back_changes_nothing(credentials, endpoint, clock):
    auth = credentials()
    auth.token()
    clock.wall_now -= 3600
    clock.now += 3500
    assert auth.token().access_token == "sg-opaque-1"
    clock.now += 100
    assert auth.token().access_token == "sg-opaque-2"


@pytest.mark.parametrize("asleep", [3600.0, 7200.0, 400 * 86400.0])
def test_after_a_sleep_in_which_the_token_expired_one_newer_token_is_fetched(
    call, credentials, endpoint, clock, asleep
):
    """While a machine sleeps, CLOCK_MONOTONIC of Linux stands still. A wall clock set forward looks the same."""
    auth = credentials()
    call.token(auth)
    clock.wall_now += asleep
    assert [call.token(auth).access_token for _ in range(3)] == ["sg-opaque-2"] * 3
    clock.now += 3500
    clock.wall_now += 3500
    assert call.token(auth).access_token == "sg-opaque-2"
    assert len(endpoint.seen) == 2


def test_after_a_sleep_two_hundred_threads_fetch_one_token(credentials, endpoint, clock):
    auth = credentials()
    auth.token()
    clock.wall_now += 7200
    open_when_all_board(auth, endpoint, MANY)
    assert {token.access_token for token in run_in_threads(MANY, auth.token)} == {"sg-opaque-2"}
    assert len(endpoint.seen) == 2


def test_sleep_that_the_token_outlives_only_renews_it_in_time(credentials, endpoint, clock, wait_for_flight):
    auth = credentials()
    auth.token()
    clock.wall_now += 3500
    assert auth.token().access_token == "sg-opaque-1"
    assert len(endpoint.seen) == 1
    clock.wall_now += 75
    assert auth.token().access_token == "sg-opaque-1"
    wait_for_flight(auth)
    assert auth.token().access_token == "sg-opaque-2"


@pytest.mark.rule("C-11")
def test_without_expires_in_the_default_lifetime_counts(call, credentials, endpoint, clock):
    endpoint.expires_in = None
    auth = credentials(default_lifetime=100)
    call.token(auth)
    clock.now += 89
    assert call.token(auth).access_token == "sg-opaque-1"
    clock.now += 11
    assert call.token(auth).access_token == "sg-opaque-2"


@pytest.mark.rule("C-11", "C-21")
def test_without_expires_in_a_refusal_renews_as_well(call, credentials, endpoint, api):
    endpoint.expires_in = None
    service = api((401, REFUSED), 200)
    assert call(credentials(), service).status_code == 200
    assert service.tokens == [ONE, TWO]


@pytest.mark.rule("C-12")
@pytest.mark.parametrize("expires_in", [0, -1, "0", -(10**400), "00", -0.0, 1])
def test_a_token_without_a_lifetime_is_used_for_a_second(call, credentials, endpoint, api, clock, expires_in):
    """Used once, as the rule says, it would cost a token request for every API call."""
    endpoint.expires_in = expires_in
    auth, service = credentials(), api()
    for _ in range(2):
        for _ in range(4):
            call(auth, service)
            clock.now += 0.25
            clock.wall_now += 0.25
    assert service.tokens == [ONE] * 4 + [TWO] * 4
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-12")
def test_a_token_that_took_longer_than_its_lifetime_is_used_for_a_second(credentials, endpoint, clock):
    def slow(request):
        clock.now += 3
        return endpoint.answer(access_token="sg-opaque-slow", token_type="Bearer", expires_in=2)

    endpoint.script = [slow]
    auth = credentials()
    assert [auth.token().access_token for _ in range(5)] == ["sg-opaque-slow"] * 5
    clock.now += 1
    assert auth.token().access_token == "sg-opaque-1"


@pytest.mark.rule("C-12", "C-21")
@pytest.mark.parametrize("statuses", [[401], [401, 200]])
def test_refusals_of_tokens_without_a_lifetime_cause_one_token_request_a_second(
    call, credentials, endpoint, clock, api, statuses
):
    endpoint.expires_in = 0
    auth = credentials()
    for _ in range(3):
        for status in statuses * 10:
            call(auth, api((status, REFUSED)))
        clock.now += 1
    assert len(endpoint.seen) == 3


@pytest.mark.rule("C-12")
@pytest.mark.parametrize("expires_in", ["3600", 3600.0, 10**400])
def test_a_lifetime_may_be_a_string_of_digits_and_any_length(credentials, endpoint, clock, expires_in):
    endpoint.expires_in = expires_in
    auth = credentials()
    auth.token()
    clock.now += 3500
    assert auth.token().access_token == "sg-opaque-1"


@pytest.mark.rule("C-29", "P-20")
def test_token_is_never_parsed(call, credentials, endpoint, clock, api):
    expired = jwt.encode({"exp": 1}, "0" * 32, algorithm="HS256")
    endpoint.script = [endpoint.answer(access_token=expired, token_type="Bearer", expires_in=3600)]
    auth, service = credentials(), api()
    call(auth, service)
    clock.now += 3500
    call(auth, service)
    assert service.tokens == [f"Bearer {expired}"] * 2
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-36")
def test_each_object_has_a_token_of_its_own(credentials, endpoint):
    ways: list[dict[str, Any]] = [
        {"scopes": ["read"]},
        {"scopes": ["read", "write"]},
        {"scopes": ["read"], "resource": "https://api.example/v1"},
        {"scopes": ["read"], "client_id": "client-2"},
        {"token_url": "https://other.example/token"},
    ]
    several = [credentials(**way) for way in ways]
    first = [auth.token().access_token for auth in several]
    assert len(set(first)) == len(ways)
    assert [auth.token().access_token for auth in several] == first
    assert len({(request.url, request.form, request.authorization) for request in endpoint.seen}) == len(ways)


# -- all at once


MANY = 200


class Counted(Flights):
    """Opens *gate* when *number* callers have joined: one fetches, the others wait."""

    def __init__(self, number: int, gate: threading.Event) -> None:
        super().__init__()
        self.number, self.gate = number, gate
        self.count = threading.Lock()
        self.joined = 0

    def join(self, key, wake):
        mine = super().join(key, wake)
        with self.count:
            self.joined += 1
            if self.joined == self.number:
                self.gate.set()
        return mine


def open_when_all_board(auth: ClientCredentials, endpoint, number: int) -> None:
    """The token endpoint answers when *number* callers wait for it."""
    endpoint.gate = threading.Event()
    auth._fetcher._outside.flights = Counted(number, endpoint.gate)


def run_in_threads(number: int, work) -> list[Any]:
    with ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(number)]]


async def run_in_tasks(number: int, work) -> list[Any]:
    results: list[Any] = []

    async def one():
        results.append(await work())

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one)
    return results


@pytest.mark.rule("C-24")
def test_two_hundred_threads_fetch_one_token(credentials, endpoint):
    auth = credentials()
    open_when_all_board(auth, endpoint, MANY)
    tokens = run_in_threads(MANY, auth.token)
    assert {token.access_token for token in tokens} == {"sg-opaque-1"}
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-24")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_hundred_tasks_fetch_one_token(credentials, endpoint, backend):
    auth = credentials()
    open_when_all_board(auth, endpoint, MANY)
    tokens = anyio.run(run_in_tasks, MANY, auth.atoken, backend=backend)
    assert {token.access_token for token in tokens} == {"sg-opaque-1"}
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-24", "C-37")
def test_threads_and_three_event_loops_share_one_fetch(credentials, endpoint):
    auth = credentials()
    open_when_all_board(auth, endpoint, 50 + 3 * 50)

    def fifty(way):
        if way == "threads":
            return run_in_threads(50, auth.token)
        return anyio.run(run_in_tasks, 50, auth.atoken, backend=way)

    with ThreadPoolExecutor(4) as pool:
        tokens = [token for found in pool.map(fifty, ["threads", "asyncio", "trio", "asyncio"]) for token in found]
    assert len(tokens) == 200
    assert {token.access_token for token in tokens} == {"sg-opaque-1"}
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-24")
@pytest.mark.parametrize("challenge", [REFUSED, {}], ids=["invalid_token", "bare"])
def test_two_hundred_refusals_in_threads_fetch_one_new_token(credentials, endpoint, challenge):
    auth = credentials()
    auth.token()
    all_signed = threading.Barrier(MANY, timeout=30)

    def service(request):
        if request.headers["authorization"] == ONE:
            all_signed.wait()
            return httpx.Response(401, headers=challenge)
        return httpx.Response(200)

    with httpx.Client(transport=httpx.MockTransport(service), auth=auth) as client:
        responses = run_in_threads(MANY, lambda: client.get("https://api.example/"))
    assert {response.request.headers["authorization"] for response in responses} == {TWO}
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-24")
def test_two_hundred_threads_whose_newer_token_cannot_be_fetched_get_the_refusal(credentials, endpoint):
    """All of them, with one fetch; the requests that come behind use the token that was refused."""
    auth = credentials(retries=0)
    auth.token()
    endpoint.script = [endpoint.answer(503)] * MANY
    all_signed = threading.Barrier(MANY, timeout=30)

    def service(request):
        all_signed.wait()
        return httpx.Response(401, headers=REFUSED)

    with httpx.Client(transport=httpx.MockTransport(service), auth=auth) as client:
        responses = run_in_threads(MANY, lambda: client.get("https://api.example/"))
    assert {response.status_code for response in responses} == {401}
    assert len(endpoint.seen) == 2
    assert auth.token().access_token == "sg-opaque-1"


@pytest.mark.rule("C-24")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_hundred_refusals_in_tasks_fetch_one_new_token_and_late_ones_use_it(credentials, endpoint, backend):
    async def main():
        auth = credentials()
        await auth.atoken()
        all_signed, others_done, signed = anyio.Event(), anyio.Event(), []

        async def service(request):
            if request.headers["authorization"] != ONE:
                return httpx.Response(200)
            signed.append(request)
            if len(signed) == MANY:
                all_signed.set()
            await all_signed.wait()
            if request is signed[0]:
                await others_done.wait()  # its refusal comes when the others have long gone on
            return httpx.Response(401, headers=REFUSED)

        responses = []
        async with httpx.AsyncClient(transport=httpx.MockTransport(service), auth=auth) as client:

            async def get():
                responses.append(await client.get("https://api.example/"))
                if len(responses) == MANY - 1:
                    others_done.set()
                return responses[-1]

            await run_in_tasks(MANY, get)
        assert {response.request.headers["authorization"] for response in responses} == {TWO}
        assert len(responses) == MANY

    anyio.run(main, backend=backend)
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-12", "C-24")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_callers_that_wait_share_a_token_without_a_lifetime(credentials, endpoint, clock, backend):
    endpoint.expires_in = 0
    auth = credentials()
    open_when_all_board(auth, endpoint, 5)
    tokens = anyio.run(run_in_tasks, 5, auth.atoken, backend=backend)
    tokens += run_in_threads(5, auth.token)
    assert {token.access_token for token in tokens} == {"sg-opaque-1"}
    clock.now += 1
    tokens = run_in_threads(8, lambda: [auth.token() for _ in range(50)])
    assert {token.access_token for several in tokens for token in several} == {"sg-opaque-2"}
    assert len(endpoint.seen) == 2


@pytest.mark.rule("C-19", "C-24")
@pytest.mark.parametrize("kind, requests", [("refusal", 1), ("outage", 3)])
def test_a_failure_is_shared_by_all_waiting_callers(credentials, endpoint, kind, requests):
    auth = credentials(retries=2)
    endpoint.script = [endpoint.answer(401, error="invalid_client") if kind == "refusal" else endpoint.answer(503)] * 9
    open_when_all_board(auth, endpoint, 100)

    def fail():
        with pytest.raises((TokenEndpointError, TokenEndpointUnavailable)) as raised:
            auth.token()
        return raised.value

    async def afail():
        with pytest.raises((TokenEndpointError, TokenEndpointUnavailable)) as raised:
            await auth.atoken()
        return raised.value

    with ThreadPoolExecutor(1) as pool:
        tasks = pool.submit(anyio.run, run_in_tasks, 50, afail)
        failures = run_in_threads(50, fail) + tasks.result()
    assert len({id(failure) for failure in failures}) == 100  # each has its own, with its own traceback
    assert len({str(failure) for failure in failures}) == 1
    assert len(endpoint.seen) == requests


@pytest.mark.rule("C-24")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_task_that_is_cancelled_does_not_affect_the_others(credentials, endpoint, backend):
    auth = credentials()
    endpoint.gate = threading.Event()
    outcome: list[Any] = []

    async def main():
        async def first():
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await auth.atoken()

        async def second():
            scopes[0].cancel()
            endpoint.gate.set()
            outcome.append(await auth.atoken())

        scopes: list[anyio.CancelScope] = []
        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.to_thread.run_sync(endpoint.arrived.wait, 30)
            group.start_soon(second)
        assert scopes[0].cancelled_caught

    anyio.run(main, backend=backend)
    assert [token.access_token for token in outcome] == ["sg-opaque-1"]
    assert len(endpoint.seen) == 1


@pytest.mark.rule("C-37")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_loop_that_ended_while_it_waited_does_not_affect_others(credentials, endpoint, wait_for_flight, backend):
    auth = credentials()
    endpoint.gate = threading.Event()

    async def main():
        with anyio.move_on_after(0):
            await auth.atoken()
        await anyio.to_thread.run_sync(endpoint.arrived.wait, 30)

    anyio.run(main, backend=backend)
    endpoint.gate.set()
    wait_for_flight(auth)
    assert auth.token().access_token == "sg-opaque-1"
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("runtime", ["blocking", "asyncio", "trio"])
def test_waiting_is_bounded(credentials, endpoint, wait_for_flight, runtime):
    auth = credentials()
    endpoint.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(auth.token)
        assert endpoint.arrived.wait(30)
        auth._fetcher._patience = 0.0
        with pytest.raises(TokenEndpointUnavailable, match="authority_timed_out"):
            auth.token() if runtime == "blocking" else anyio.run(auth.atoken, backend=runtime)
        endpoint.gate.set()
        assert leader.result().access_token == "sg-opaque-1"


def test_exception_of_a_custom_transport_is_raised_and_blocks_nothing(call, credentials, endpoint):
    def raise_error(request):
        raise RuntimeError("not ours")

    auth = credentials()
    endpoint.script = [raise_error]
    with pytest.raises(RuntimeError, match="not ours"):
        call.token(auth)
    assert call.token(auth).access_token == "sg-opaque-1"


def test_a_thread_that_does_not_start_is_an_outage_and_blocks_nothing(credentials, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    auth = credentials()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(TokenEndpointUnavailable, match="can't start"):
            anyio.run(auth.atoken, backend="trio")
    assert auth.token().access_token == "sg-opaque-1"
