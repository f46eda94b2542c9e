"""Flows driven in a thread, and the parts of both edges: flights, their threads, files, closing, forking."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked import Child
from scopeguard.edge import sync as blocking
from scopeguard.edge.lanes import BOUNDS, Ticket
from scopeguard.edge.runtime import Runtime, SystemClock
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Effect, Flow, Lane, ReadFile, ReadForm, Send, SingleFlight, ask
from scopeguard.reasons import Reason
from scopeguard.testing import FakeClock

URL = "https://a.test/"


def one(effect: Effect[Any]) -> Flow[Any]:
    return (yield from ask(effect))


def down() -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "a")


@pytest.fixture(autouse=True)
def others() -> set[threading.Thread]:
    """Return the threads of guards that other tests left open."""
    _others.clear()
    _others.update(threading.enumerate())
    return _others


_others: set[threading.Thread] = set()


def our_threads() -> list[str]:
    new = (thread for thread in threading.enumerate() if thread not in _others)
    return [thread.name for thread in new if thread.name.startswith("scopeguard")]


def threads_end() -> bool:
    """Return whether the threads of scopeguard end. Closing ends them and does not wait."""
    for thread in threading.enumerate():
        if thread not in _others and thread.name.startswith("scopeguard"):
            thread.join(30)
    return our_threads() == []


# -- one effect at a time


def test_flow_without_effects_returns_its_value(runtime: Runtime):
    def flow() -> Flow[int]:
        yield from ()
        return 7

    assert blocking.run(flow(), runtime, None) == 7


def test_an_exchange_is_performed_by_the_transport_in_the_calling_thread(runtime: Runtime, table: Any):
    answer = blocking.run(one(Send(url=URL, authority="a")), runtime, None)
    assert answer.body == URL.encode()
    assert table.threads == [threading.current_thread().name]


@pytest.mark.parametrize("error", [down(), RuntimeError("a bug")], ids=["outage", "bug"])
def test_failure_is_thrown_into_the_flow_which_may_continue(runtime: Runtime, table: Any, error: Exception):
    table.failures[URL] = error

    def flow() -> Flow[object]:
        try:
            yield from ask(Send(url=URL, authority="a"))
        except type(error) as caught:
            return caught
        return None

    assert blocking.run(flow(), runtime, None) is error


def test_failure_that_the_flow_does_not_catch_is_raised(runtime: Runtime, table: Any):
    table.failures[URL] = down()
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(one(Send(url=URL, authority="a")), runtime, None)
    assert raised.value is table.failures[URL]


def test_exception_in_the_thread_closes_the_flow(runtime: Runtime, table: Any):
    table.failures[URL] = KeyboardInterrupt()
    closed = []

    def flow() -> Flow[None]:
        try:
            yield from ask(Send(url=URL, authority="a"))
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        blocking.run(flow(), runtime, None)
    assert closed


def test_form_is_read_with_the_callback_of_the_caller(runtime: Runtime):
    limits = []

    def read(limit: int) -> bytes:
        limits.append(limit)
        return b"form"

    assert blocking.run(one(ReadForm(limit=9)), runtime, read) == b"form"
    assert limits == [9]


class _Unknown(Effect[None]):
    pass


@pytest.mark.parametrize("effect", [ReadForm(limit=9), _Unknown()], ids=["form", "unknown"])
def test_unknown_effect_is_an_error(runtime: Runtime, effect: Effect[Any]):
    with pytest.raises(TypeError, match="this edge cannot perform"):
        blocking.run(one(effect), runtime, None)


# -- files


def test_file_is_read_completely(runtime: Runtime, tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_bytes(b"12345")
    assert blocking.run(one(ReadFile(path=str(path), authority="a", limit=5)), runtime, None) == b"12345"


def test_file_that_is_too_large_is_not_read_completely(runtime: Runtime, tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_bytes(b"123456")
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(one(ReadFile(path=str(path), authority="a", limit=5)), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_ANSWER_INVALID
    assert "larger than 5 bytes" in str(raised.value)


def test_a_file_that_cannot_be_read_is_an_outage_that_names_it(runtime: Runtime, tmp_path: Path):
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(AuthorityUnavailable) as raised:
            blocking.run(one(ReadFile(path=str(path), authority="a")), runtime, None)
        assert raised.value.reason is Reason.AUTHORITY_UNREACHABLE
        assert path.name in str(raised.value)


# -- flights


def test_a_flight_that_is_not_needed_does_not_start(runtime: Runtime, table: Any, new_job: Any):
    job = new_job()
    job.done = 1
    assert blocking.run(job.flow(), runtime, None) == 1
    assert table.asked == []


def test_flight_that_just_ended_in_another_thread_does_not_start_again(runtime: Runtime, table: Any, new_job: Any):
    answers = [False, True]  # Needed at the first check, and no longer when this thread leads.
    assert blocking.run(new_job().flow(needed=answers.pop), runtime, None) == 0
    assert table.asked == []
    assert len(runtime.flights) == 0


def test_leader_runs_the_flight_in_its_thread(runtime: Runtime, table: Any, new_job: Any):
    assert blocking.run(new_job().flow(), runtime, None) == 1
    assert table.threads == [threading.current_thread().name]
    assert our_threads() == []


@pytest.mark.rule("A-15", "H-20")
def test_one_of_fifty_threads_runs_the_flight_for_all(
    runtime: Runtime, table: Any, new_job: Any, run_in_threads: Callable[..., list[Any]]
):
    job = new_job()
    assert run_in_threads(50, lambda: blocking.run(job.flow(), runtime, None)) == [1] * 50
    assert table.asked == [URL]


def test_leader_gets_the_failure_and_the_others_look_again(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    table.failures[URL] = down()
    job = new_job()
    generation = 0  # As in the key ring: it also changes when a fetch fails.

    def flow() -> Flow[str]:
        nonlocal generation
        try:
            yield from ask(job.flight(needed=lambda: generation == 0))
        except AuthorityUnavailable:
            generation += 1
            return "led"
        return "followed"

    def fail() -> Flow[tuple[str, ...]]:
        nonlocal generation
        try:
            yield from ask(Send(url=URL, authority="a"))
        finally:
            generation += 1
        return ()

    job._flow = fail
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(blocking.run(flow(), runtime, None))) for _ in range(10)]
    for thread in threads:
        thread.start()
    table.wait_for()
    table.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["followed"] * 9 + ["led"]
    assert table.asked == [URL]


@pytest.mark.rule("H-16")
def test_interrupted_leader_is_replaced_by_the_next_thread(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    table.failures[URL] = SystemExit()
    job = new_job()
    results: list[object] = []

    def run() -> None:
        try:
            results.append(blocking.run(job.flow(), runtime, None))
        except SystemExit:
            table.failures.clear()
            results.append("ended")

    threads = [threading.Thread(target=run) for _ in range(5)]
    threads[0].start()
    table.wait_for()
    for thread in threads[1:]:
        thread.start()
    table.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [1, 1, 1, 1, "ended"]
    assert len(runtime.flights) == 0


def test_waiting_ends_at_the_deadline(runtime: Runtime, new_job: Any):
    job = new_job()
    assert runtime.flights.join(job.url, lambda: None)  # A flight that never ends.
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(job.flow(deadline=0.0), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    runtime.flights.finish(job.url)
    assert blocking.run(job.flow(deadline=0.0), runtime, None) == 1


def test_log_messages_of_a_flight_are_logged(runtime: Runtime, new_job: Any, caplog: pytest.LogCaptureFixture):
    job = new_job()
    job.sentences = ("one key is broken", "and another one")
    blocking.run(job.flow(), runtime, None)
    assert caplog.messages == ["one key is broken", "and another one"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


# -- background flights


def test_request_does_not_wait_for_a_background_flight(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    assert blocking.run(job.flow(wait=False), runtime, None) == 0
    table.wait_for()
    assert table.threads[0].startswith("scopeguard")
    assert blocking.run(job.flow(wait=False), runtime, None) == 0  # One is running already.
    table.gate.set()
    runtime.close()
    assert job.done == 1
    assert table.asked == [URL]


def test_request_that_needs_a_background_flight_waits_for_it(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    job = new_job()
    blocking.run(job.flow(wait=False), runtime, None)
    table.wait_for()
    threading.Timer(0, table.gate.set).start()
    assert blocking.run(job.flow(), runtime, None) == 1
    assert table.asked == [URL]


def test_failure_of_a_background_flight_is_only_logged(
    runtime: Runtime, table: Any, new_job: Any, caplog: pytest.LogCaptureFixture
):
    job = new_job()
    for error in (down(), RuntimeError("a bug in a transport")):
        caplog.clear()
        table.failures[URL] = error
        assert blocking.run(job.flow(wait=False), runtime, None) == 0
        runtime.close()
        (record,) = caplog.records
        assert record.name == "scopeguard"
        assert (record.exc_info is not None) == isinstance(error, RuntimeError)
    assert len(runtime.flights) == 0


def test_background_flight_that_is_no_longer_needed_does_not_run(runtime: Runtime, table: Any, new_job: Any):
    answers = [False]
    woken: list[object] = []
    runtime.start_flight(new_job().flight(needed=answers.pop), woken.append)
    runtime.close()
    assert woken == [None]
    assert table.asked == []


def test_failure_to_start_a_thread_does_not_affect_requests_with_keys(
    runtime: Runtime, new_job: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    job = new_job()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert blocking.run(job.flow(wait=False), runtime, None) == 0
        woken: list[BaseException | None] = []
        runtime.start_flight(job.flight(), woken.append)
    assert "can't start new thread" in caplog.text
    (failure,) = woken
    assert isinstance(failure, AuthorityUnavailable)
    # A flight that could not start must not run later, under a key that another flight uses by then.
    blocking.run(new_job("https://b.test/").flow(wait=False), runtime, None)
    runtime.close()
    assert job.done == 0
    assert woken == [failure]


def test_flights_beyond_the_places_wait_for_their_turn(runtime: Runtime, table: Any, new_job: Any):
    places = BOUNDS[Lane.KEYS].places_of_one - BOUNDS[Lane.KEYS].reserved
    table.gate = threading.Event()
    jobs = [new_job(f"https://{i}.test/") for i in range(places + 4)]
    for job in jobs:
        blocking.run(job.flow(wait=False), runtime, None)
    table.wait_for(places)
    assert len(our_threads()) == places
    late = jobs[-1]
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(late.flow(deadline=0.0), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    table.gate.set()
    for job in jobs:
        assert blocking.run(job.flow(), runtime, None) == 1
    assert len(table.asked) == len(jobs)


# -- limits


INTROSPECTION = BOUNDS[Lane.INTROSPECTION]
ORDINARY = INTROSPECTION.places_of_one - INTROSPECTION.reserved


def flow_for(**options: Any) -> dict[str, Any]:
    return {"lane": Lane.INTROSPECTION, **options}


def test_flights_beyond_the_queue_limit_of_an_authority_are_refused_at_once(runtime: Runtime, table: Any, new_job: Any):
    """The limits of the lane apply to flights of event loops and of threads."""
    table.gate = threading.Event()
    told: list[BaseException | None] = []
    jobs = [new_job(f"https://{i}.test/") for i in range(ORDINARY + INTROSPECTION.waiting + 1)]
    for job in jobs:
        runtime.start_flight(job.flight(**flow_for()), told.append)
    table.wait_for(ORDINARY)
    assert len(our_threads()) == ORDINARY  # Waiting flights have no thread.
    (refused,) = told
    assert isinstance(refused, AuthorityUnavailable)
    assert refused.reason is Reason.TOO_MANY_WAITING
    assert refused.retry_after is not None
    assert refused.retry_after >= 1
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(new_job("https://thread.test/").flow(**flow_for()), runtime, None)
    assert raised.value.reason is Reason.TOO_MANY_WAITING
    assert len(runtime.flights) == ORDINARY + INTROSPECTION.waiting


def test_full_lane_does_not_delay_others(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    for i in range(ORDINARY + INTROSPECTION.waiting):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    table.gate.set()
    for lane in set(Lane) - {Lane.INTROSPECTION}:
        assert blocking.run(new_job(f"https://{lane.name}.test/").flow(lane=lane, deadline=0.0), runtime, None) == 1


def test_work_with_priority_precedes_waiting_work(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    for i in range(ORDINARY + 1):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    runtime.start_flight(new_job("https://known.test/").flight(**flow_for(priority=True)), lambda failure=None: None)
    table.wait_for(1)
    assert table.asked[-1] == "https://known.test/"


def test_flights_in_threads_take_places_of_their_lane(
    runtime: Runtime, table: Any, new_job: Any, run_in_threads: Callable[..., list[Any]]
):
    table.gate = threading.Event()
    jobs = iter([new_job(f"https://{i}.test/") for i in range(ORDINARY + 4)])
    lock = threading.Lock()
    results: list[Any] = []

    def work() -> object:
        with lock:
            job = next(jobs)
        return blocking.run(job.flow(**flow_for(deadline=30.0)), runtime, None)

    crowd = threading.Thread(target=lambda: results.extend(run_in_threads(ORDINARY + 4, work)))
    crowd.start()
    table.wait_for(ORDINARY)
    assert len(table.asked) == ORDINARY
    table.gate.set()
    crowd.join()
    assert results == [1] * (ORDINARY + 4)


def test_a_thread_that_waits_too_long_for_its_turn_leaves_the_queue(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    for i in range(ORDINARY):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    late = new_job("https://late.test/")
    with pytest.raises(AuthorityUnavailable) as raised:
        blocking.run(late.flow(**flow_for(deadline=0.0)), runtime, None)
    assert raised.value.reason is Reason.AUTHORITY_TIMED_OUT
    assert len(runtime.flights) == ORDINARY
    table.gate.set()
    runtime.close()
    assert late.url not in table.asked


def test_work_without_a_remaining_caller_is_not_done(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    for i in range(ORDINARY):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    job = new_job("https://left.test/")
    told: list[str] = []
    wakes = [lambda failure=None, name=name: told.append(name) for name in ("leader", "second")]
    flight = job.flight(**flow_for())
    assert runtime.start_flight(flight, wakes[0])
    assert not runtime.start_flight(flight, wakes[1])
    runtime.abandon(flight, wakes[0])
    assert len(runtime.flights) == ORDINARY + 1  # Another caller waits for it.
    runtime.abandon(flight, wakes[1])
    assert len(runtime.flights) == ORDINARY
    runtime.abandon(flight, wakes[1])  # Leaving twice is harmless.
    table.gate.set()
    runtime.close()
    assert job.url not in table.asked


def test_leaving_a_flight_does_not_withdraw_the_next_one_with_its_key(
    runtime: Runtime, table: Any, new_job: Any, monkeypatch: pytest.MonkeyPatch
):
    """Kind: what is looked up by key after the owner of the key may have changed."""
    table.gate = threading.Event()
    for i in range(ORDINARY):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    flight = new_job("https://left.test/").flight(**flow_for())
    woken: list[BaseException | None] = []
    runtime.start_flight(flight, woken.append)
    leave = runtime.flights.leave

    def leave_and_let_others_act(key: str, wake: Any) -> bool:
        was_last = leave(key, wake)
        first = runtime._tickets[key]
        assert runtime.lanes[flight.lane].withdraw(first)
        first.refuse()  # the flight ends
        assert runtime.start_flight(flight, lambda failure=None: None)
        return was_last

    monkeypatch.setattr(runtime.flights, "leave", leave_and_let_others_act)
    runtime.abandon(flight, woken.append)
    assert runtime.is_queued(flight)
    table.gate.set()
    runtime.close()


def test_background_work_refused_by_a_full_lane_is_logged(
    runtime: Runtime, table: Any, new_job: Any, caplog: pytest.LogCaptureFixture
):
    table.gate = threading.Event()
    for i in range(ORDINARY + INTROSPECTION.waiting + 1):
        blocking.run(new_job(f"https://{i}.test/").flow(**flow_for(wait=False)), runtime, None)
    (message,) = caplog.messages
    assert "too_many_waiting" in message


# -- start and end


def test_closing_does_not_wait_for_a_hanging_authority(runtime: Runtime, table: Any, new_job: Any):
    """Waiting work is refused, hanging work is abandoned, and each caller gets an outage."""
    table.gate = threading.Event()
    runtime.grace = 0.0
    told: list[BaseException | None] = []
    jobs = [new_job(f"https://{i}.test/") for i in range(ORDINARY + INTROSPECTION.waiting)]
    for job in jobs:
        runtime.start_flight(job.flight(**flow_for()), told.append)
    table.wait_for(ORDINARY)
    waiter: list[BaseException] = []
    thread = threading.Thread(target=lambda: waiter.append(_catch(lambda: blocking.run(jobs[0].flow(), runtime, None))))
    joined = _watch_joins(runtime)
    thread.start()
    assert joined.acquire(timeout=30)
    runtime.close()
    thread.join()
    assert table.closed == 1
    assert len(told) == len(jobs)
    assert {error.reason for error in [*told, *waiter] if isinstance(error, AuthorityUnavailable)} == {
        Reason.SHUTTING_DOWN
    }
    assert len(table.asked) == ORDINARY
    table.gate.set()
    runtime.grace = 30.0
    runtime.close()
    assert len(runtime.flights) == 0


def test_closing_aborts_hanging_exchanges_if_the_transport_can(runtime: Runtime, table: Any, new_job: Any):
    cut: list[bool] = []

    def abort() -> None:
        cut.append(True)
        table.gate.set()

    table.abort = abort
    runtime.grace = 0.0
    blocking.run(new_job().flow(), runtime, None)
    runtime.close()
    assert not cut  # Nothing runs.
    table.gate = threading.Event()
    runtime.start_flight(new_job("https://b.test/").flight(), lambda failure=None: None)
    table.wait_for(2)
    runtime.close()
    assert cut


def test_a_thread_that_waits_for_its_turn_is_refused_by_closing(runtime: Runtime, table: Any, new_job: Any):
    table.gate = threading.Event()
    runtime.grace = 0.0
    for i in range(ORDINARY):
        runtime.start_flight(new_job(f"https://{i}.test/").flight(**flow_for()), lambda failure=None: None)
    table.wait_for(ORDINARY)
    raised: list[BaseException] = []
    late = new_job("https://late.test/")
    thread = threading.Thread(
        target=lambda: raised.append(_catch(lambda: blocking.run(late.flow(**flow_for()), runtime, None)))
    )
    entered = threading.Semaphore(0)
    lane: Any = runtime.lanes[Lane.INTROSPECTION]
    enter = lane.enter

    def count_and_enter(ticket: Ticket) -> None:
        enter(ticket)
        entered.release()

    lane.enter = count_and_enter
    thread.start()
    assert entered.acquire(timeout=30)
    runtime.close()
    thread.join()
    (error,) = raised
    assert isinstance(error, AuthorityUnavailable)
    assert error.reason is Reason.SHUTTING_DOWN
    assert late.url not in table.asked


def _catch(work: Callable[[], Any]) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError("nothing was raised")


def _watch_joins(runtime: Runtime) -> threading.Semaphore:
    """Return a semaphore that is released when a caller reaches a flight."""
    joined = threading.Semaphore(0)
    flights: Any = runtime.flights
    join = flights.join

    def count_and_join(key: str, wake: Any) -> bool:
        try:
            return bool(join(key, wake))
        finally:
            joined.release()

    flights.join = count_and_join
    return joined


def test_construction_starts_nothing(table: Any):
    before = set(threading.enumerate())
    Runtime(transport=table, clock=FakeClock())
    assert set(threading.enumerate()) <= before


def test_closing_waits_for_flights_and_the_runtime_can_be_used_again(runtime: Runtime, table: Any, new_job: Any):
    for round_ in (1, 2, 3):
        job = new_job(f"https://{round_}.test/")
        blocking.run(job.flow(wait=False), runtime, None)
        runtime.close()
        assert job.done == 1
        assert table.closed == round_
        assert threads_end()
    runtime.close()  # Leaving twice is harmless.


def test_flight_that_starts_during_closing_leaves_no_entry(table: Any, new_job: Any):
    """Closing refuses waiting flights. Such a flight releases its key and can be repeated."""
    runtime = Runtime(transport=table, clock=FakeClock())
    stop = threading.Event()

    def close() -> None:
        while not stop.is_set():
            runtime.close()

    closer = threading.Thread(target=close)
    closer.start()
    jobs = [new_job(f"https://{i}.test/") for i in range(200)]
    try:
        for job in jobs:
            blocking.run(job.flow(wait=False), runtime, None)
    finally:
        stop.set()
        closer.join()
        runtime.close()
    assert len(runtime.flights) == 0
    assert runtime._tickets == {}
    assert [blocking.run(job.flow(), runtime, None) for job in jobs] == [1] * 200
    assert len(table.asked) == 200


def test_system_clock_has_wall_and_monotonic_time():
    clock = SystemClock()
    assert clock.wall() > 1_700_000_000
    assert clock.monotonic() <= clock.monotonic()


def test_child_process_runs_its_own_flights(runtime: Runtime, table: Any, new_job: Any):
    parent = Runtime(transport=table, clock=FakeClock())
    table.gate = threading.Event()
    job = new_job()
    blocking.run(job.flow(wait=False), parent, None)
    table.wait_for()

    def check() -> None:
        table.gate = None
        assert blocking.run(job.flow(), parent, None) == 1
        other = new_job("https://b.test/")
        blocking.run(other.flow(wait=False), parent, None)
        parent.close()
        assert other.done == 1

    lane = parent.lanes[Lane.KEYS]
    lane._lock.acquire()  # A thread of the parent holds the lock while another forks.
    child = Child(check)
    lane._lock.release()
    assert child.ok()
    table.gate.set()
    parent.close()
    assert job.done == 1


def test_repr_of_a_flight_shows_no_functions():
    flight = SingleFlight(key="k", authority="a", needed=lambda: True, flow=lambda: one(Send(url=URL, authority="a")))
    assert "function" not in repr(flight)
