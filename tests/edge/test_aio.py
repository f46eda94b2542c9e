"""Flows driven in tasks of asyncio and trio: nothing blocks a loop, and the end of a task affects no other."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from scopeguard.edge import aio
from scopeguard.edge import sync as blocking
from scopeguard.edge.lanes import BOUNDS
from scopeguard.edge.runtime import Runtime
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Effect, Flow, Lane, ReadFile, ReadForm, Send, SingleFlight, ask
from scopeguard.reasons import Reason

URL = "https://a.test/"


def one(effect: Effect[Any]) -> Flow[Any]:
    return (yield from ask(effect))


def down() -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "a")


async def wait_for_arrivals(table: Any, count: int = 1) -> None:
    await anyio.to_thread.run_sync(table.wait_for, count)


# -- one effect at a time


@pytest.mark.anyio
async def test_flow_without_effects_returns_its_value(runtime: Runtime):
    def flow() -> Flow[int]:
        yield from ()
        return 7

    assert await aio.run(flow(), runtime, None) == 7


@pytest.mark.anyio
async def test_request_that_fetched_in_vain_does_not_fetch_again(runtime: Runtime):
    """When a fetch starts, another request may have spent the budget in the meantime."""
    runs: list[int] = []

    def flight() -> Flow[tuple[str, ...]]:
        yield from ()
        runs.append(1)
        return ()

    await aio.run(one(SingleFlight(key="k", authority="a", needed=lambda: True, flow=flight)), runtime, None)
    assert runs == [1]


@pytest.mark.anyio
async def test_form_is_read_with_the_callback_of_the_caller(runtime: Runtime):
    async def read(limit: int) -> bytes:
        await anyio.lowlevel.checkpoint()
        return b"form"[:limit]

    assert await aio.run(one(ReadForm(limit=9)), runtime, read) == b"form"


@pytest.mark.anyio
async def test_failure_is_thrown_into_the_flow_which_may_continue(runtime: Runtime):
    async def read(limit: int) -> bytes:
        raise ValueError(limit)

    def flow() -> Flow[str]:
        try:
            yield from ask(ReadForm(limit=9))
        except ValueError as error:
            return str(error)
        return ""

    assert await aio.run(flow(), runtime, read) == "9"
    with pytest.raises(ValueError, match="9"):
        await aio.run(one(ReadForm(limit=9)), runtime, read)


class _Unknown(Effect[None]):
    pass


@pytest.mark.rule("H-15")
@pytest.mark.anyio
@pytest.mark.parametrize("effect", [Send(url=URL, authority="a"), ReadFile(path="x", authority="a")], ids=str)
async def test_blocking_effect_outside_a_flight_is_an_error(runtime: Runtime, table: Any, effect: Effect[Any]):
    with pytest.raises(TypeError, match="block the event loop"):
        await aio.run(one(effect), runtime, None)
    assert table.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize("effect", [ReadForm(limit=9), _Unknown()], ids=["form", "unknown"])
async def test_unknown_effect_is_an_error(runtime: Runtime, effect: Effect[Any]):
    with pytest.raises(TypeError, match="this edge cannot perform"):
        await aio.run(one(effect), runtime, None)


@pytest.mark.anyio
async def test_a_cancelled_task_closes_its_flow(runtime: Runtime):
    closed = []
    reading = anyio.Event()

    async def read(limit: int) -> bytes:
        reading.set()
        await anyio.sleep_forever()
        raise AssertionError(limit)

    def flow() -> Flow[None]:
        try:
            yield from ask(ReadForm(limit=9))
        finally:
            closed.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(aio.run, flow(), runtime, read)
        await reading.wait()
        group.cancel_scope.cancel()
    assert closed == [True]


# -- flights


@pytest.mark.rule("H-15")
@pytest.mark.anyio
async def test_flight_runs_in_a_thread_other_than_that_of_the_loop(runtime: Runtime, table: Any, new_job: Any):
    assert await aio.run(new_job().flow(), runtime, None) == 1
    assert table.threads[0].startswith("scopeguard")


@pytest.mark.rule("H-15")
@pytest.mark.anyio
async def test_hanging_exchange_does_not_block_the_loop(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(aio.run, new_job().flow(), runtime, None)
        await wait_for_arrivals(table)
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()  # A blocked loop would never return from here.
        table.gate.set()


@pytest.mark.rule("A-15")
@pytest.mark.anyio
async def test_one_of_two_hundred_tasks_starts_the_flight_for_all(runtime: Runtime, table: Any, new_job: Any):
    job = new_job()
    results = []

    async def run() -> None:
        results.append(await aio.run(job.flow(), runtime, None))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(run)
    assert results == [1] * 200
    assert table.asked == [URL]


@pytest.mark.anyio
async def test_a_flight_that_is_not_needed_does_not_start(runtime: Runtime, table: Any, new_job: Any):
    job = new_job()
    job.done = 1
    assert await aio.run(job.flow(), runtime, None) == 1
    assert table.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize("error", [down(), RuntimeError("a bug")], ids=["outage", "bug"])
async def test_leader_gets_the_failure(runtime: Runtime, table: Any, new_job: Any, error: Exception):
    table.failures[URL] = error
    with pytest.raises(type(error)) as raised:
        await aio.run(new_job().flow(), runtime, None)
    assert raised.value is error
    assert len(runtime.flights) == 0


@pytest.mark.rule("H-16")
@pytest.mark.anyio
async def test_cancelled_leader_does_not_affect_the_others(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    results = []

    async def run() -> None:
        results.append(await aio.run(job.flow(), runtime, None))

    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as leader:
            leader.start_soon(run)
            await wait_for_arrivals(table)
            for _ in range(19):
                group.start_soon(run)
            await anyio.lowlevel.checkpoint()
            leader.cancel_scope.cancel()
        table.gate.set()
    assert results == [1] * 19
    assert table.asked == [URL]


@pytest.mark.rule("H-16")
@pytest.mark.anyio
async def test_cancelled_waiter_does_not_affect_the_others(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    results = []

    async def run() -> None:
        results.append(await aio.run(job.flow(), runtime, None))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await wait_for_arrivals(table)
        async with anyio.create_task_group() as waiters:
            for _ in range(5):
                waiters.start_soon(run)
            await anyio.lowlevel.checkpoint()
            waiters.cancel_scope.cancel()
        table.gate.set()
    assert results == [1]


@pytest.mark.anyio
async def test_waiting_ends_at_the_deadline_and_the_flight_continues(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    with pytest.raises(AuthorityUnavailable) as raised:
        await aio.run(job.flow(deadline=0.0), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    table.gate.set()
    assert await aio.run(job.flow(), runtime, None) == 1
    assert table.asked == [URL]


@pytest.mark.anyio
async def test_request_does_not_wait_for_a_background_flight(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    assert await aio.run(job.flow(wait=False), runtime, None) == 0
    await wait_for_arrivals(table)
    assert await aio.run(job.flow(wait=False), runtime, None) == 0  # It is running already.
    table.gate.set()
    await aio.close(runtime)
    assert job.done == 1
    assert len(runtime.flights) == 0
    assert all(lane.wait_until_idle(0) for lane in runtime.lanes.values())


@pytest.mark.anyio
async def test_failure_to_start_a_thread_is_an_outage_for_waiting_requests(
    runtime: Runtime, new_job: Any, monkeypatch: pytest.MonkeyPatch
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert await aio.run(new_job().flow(wait=False), runtime, None) == 0
        with pytest.raises(AuthorityUnavailable):
            await aio.run(new_job().flow(), runtime, None)


# -- limits

INTROSPECTION = BOUNDS[Lane.INTROSPECTION]
ORDINARY = INTROSPECTION.places_of_one - INTROSPECTION.reserved


async def fill(runtime: Runtime, table: Any, new_job: Any) -> None:
    """Take all places of one authority while the gate of the table is closed."""
    table.gate = threading.Event()
    for i in range(ORDINARY):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(lane=Lane.INTROSPECTION), lambda failure=None: None)
    await wait_for_arrivals(table, ORDINARY)


@pytest.mark.anyio
async def test_cancelled_task_withdraws_its_work_from_the_queue(runtime: Runtime, table: Any, new_job: Any):
    await fill(runtime, table, new_job)
    left, shared = new_job("https://left.test/"), new_job("https://shared.test/")
    results = []

    async def stay() -> None:
        results.append(await aio.run(shared.flow(lane=Lane.INTROSPECTION), runtime, None))

    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as leaders:
            for job in (left, shared):
                leaders.start_soon(aio.run, job.flow(lane=Lane.INTROSPECTION), runtime, None)
            await anyio.lowlevel.checkpoint()
            group.start_soon(stay)
            await anyio.lowlevel.checkpoint()
            leaders.cancel_scope.cancel()
        assert len(runtime.flights) == ORDINARY + 1
        table.gate.set()
    assert results == [1]
    assert left.url not in table.asked


@pytest.mark.anyio
async def test_task_that_waits_too_long_withdraws_its_work_from_the_queue(runtime: Runtime, table: Any, new_job: Any):
    await fill(runtime, table, new_job)
    late = new_job("https://late.test/")
    with pytest.raises(AuthorityUnavailable) as raised:
        await aio.run(late.flow(lane=Lane.INTROSPECTION, deadline=0.0), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    assert len(runtime.flights) == ORDINARY
    table.gate.set()
    await aio.close(runtime)
    assert late.url not in table.asked


@pytest.mark.anyio
async def test_tasks_beyond_the_queue_limit_of_an_authority_are_refused_at_once(
    runtime: Runtime, table: Any, new_job: Any
):
    await fill(runtime, table, new_job)
    refused: list[AuthorityUnavailable] = []

    async def ask_for(number: int) -> None:
        try:
            await aio.run(new_job(f"https://more-{number}.test/").flow(lane=Lane.INTROSPECTION), runtime, None)
        except AuthorityUnavailable as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for number in range(INTROSPECTION.waiting + 5):
            group.start_soon(ask_for, number)
        while len(refused) < 5:
            await anyio.lowlevel.checkpoint()
        table.gate.set()
    assert [error.reason for error in refused] == [Reason.TOO_MANY_WAITING] * 5


@pytest.mark.anyio
async def test_closing_wakes_all_tasks_although_the_authority_hangs(runtime: Runtime, table: Any, new_job: Any):
    await fill(runtime, table, new_job)
    runtime.grace = 0.0
    reasons: list[Reason] = []

    async def wait_for(job: Any) -> None:
        with pytest.raises(AuthorityUnavailable) as raised:
            await aio.run(job.flow(lane=Lane.INTROSPECTION), runtime, None)
        reasons.append(raised.value.reason)

    async with anyio.create_task_group() as group:
        for url in ("https://0.test/", "https://0.test/", "https://waits.test/"):
            group.start_soon(wait_for, new_job(url))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        await aio.close(runtime)
    assert reasons == [Reason.SHUTTING_DOWN] * 3


# -- several loops, and loops that end


@pytest.mark.rule("H-20")
@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_loop_that_ends_before_the_flight_does_not_affect_others(
    runtime: Runtime, table: Any, new_job: Any, first: str
):
    table.gate = threading.Event()
    job = new_job()

    async def hurry() -> None:
        with anyio.move_on_after(0):
            await aio.run(job.flow(), runtime, None)

    anyio.run(hurry, backend=first)  # Led, and gone.
    table.wait_for()
    anyio.run(hurry, backend=first)  # Waited, and gone.
    ended = threading.Event()
    assert not runtime.flights.join(job.url, ended.set)
    table.gate.set()
    assert ended.wait(30)  # Although two before it cannot be woken any more.
    assert anyio.run(aio.run, job.flow(), runtime, None) == 1
    assert table.asked == [URL]


@pytest.mark.rule("H-20")
def test_threads_and_loops_of_both_kinds_share_one_flight(
    runtime: Runtime, table: Any, new_job: Any, run_in_threads: Any
):
    table.gate = threading.Event()
    job = new_job()
    kinds = iter(["thread", "asyncio", "trio", "asyncio", "trio", "thread"])
    lock = threading.Lock()

    async def tasks() -> list[int]:
        results: list[int] = []

        async def run() -> None:
            results.append(await aio.run(job.flow(), runtime, None))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(run)
        return results

    def work() -> list[int]:
        with lock:
            kind = next(kinds)
        if kind == "thread":
            return [blocking.run(job.flow(), runtime, None)]
        return asyncio.run(tasks()) if kind == "asyncio" else trio.run(tasks)

    opener = threading.Thread(target=lambda: (table.wait_for(), table.gate.set()))
    opener.start()
    results = run_in_threads(6, work)
    opener.join()
    assert [one for each in results for one in each] == [1] * 42
    assert table.asked == [URL]


def test_the_loop_is_found_with_older_versions_of_anyio_too(
    runtime: Runtime, new_job: Any, monkeypatch: pytest.MonkeyPatch
):
    """Before 4.11, ``current_token()`` returned what it wraps today."""
    monkeypatch.setattr(aio, "current_token", asyncio.get_running_loop)
    assert asyncio.run(aio.run(new_job().flow(), runtime, None)) == 1
    monkeypatch.setattr(aio, "current_token", trio.lowlevel.current_trio_token)
    assert trio.run(aio.run, new_job("https://b.test/").flow(), runtime, None) == 1


# -- limits of time
