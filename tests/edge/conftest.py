"""Transports for the edges: one that answers from a table, and one that can be held back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scopeguard.edge.runtime import Runtime
from scopeguard.flow.effects import Answer, Flow, Send, SingleFlight, ask
from scopeguard.testing import FakeAuthority, FakeClock

PATIENCE = 30.0


class Table:
    """Answers each URL with the text of that URL, and raises the exceptions in ``failures``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.closed = 0
        self.gate: threading.Event | None = None
        self.arrived = threading.Semaphore(0)

    def send(self, request: Send, /) -> Answer:
        self.asked.append(request.url)
        self.threads.append(threading.current_thread().name)
        self.arrived.release()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE), "the gate was not opened"
        if request.url in self.failures:
            raise self.failures[request.url]
        return Answer(200, request.url.encode())

    def close(self) -> None:
        self.closed += 1

    def wait_for(self, count: int = 1) -> None:
        """Wait until *count* requests have arrived."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=PATIENCE), "no request arrived"


class Job:
    """Work that must be done once: a flight that requests a URL, and whether it is still needed."""

    def __init__(self, url: str = "https://a.test/", **options: Any) -> None:
        self.url = url
        self.done = 0
        self.options = options
        self.sentences: tuple[str, ...] = ()

    def _flow(self) -> Flow[tuple[str, ...]]:
        yield from ask(Send(url=self.url, authority="a"))
        self.done += 1
        return self.sentences

    def flight(self, **options: Any) -> SingleFlight:
        needed = options.pop("needed", lambda: self.done == 0)
        return SingleFlight(key=self.url, authority="a", needed=needed, flow=self._flow, **{**self.options, **options})

    def flow(self, **options: Any) -> Flow[int]:
        """Act as a request: run the job and return how often it has been done."""
        yield from ask(self.flight(**options))
        return self.done


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def runtime(table: Table) -> Iterator[Runtime]:
    runtime = Runtime(transport=table, clock=FakeClock())
    yield runtime
    if table.gate is not None:
        table.gate.set()
    runtime.close()


@pytest.fixture
def new_job() -> type[Job]:
    return Job


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def run_in_threads() -> Callable[[int, Callable[[], Any]], list[Any]]:
    """``run_in_threads(n, work)`` runs *work* in *n* concurrent threads and returns the results or exceptions."""

    def run(count: int, work: Callable[[], Any]) -> list[Any]:
        start = threading.Barrier(count)
        results: list[Any] = []

        def one() -> None:
            start.wait()
            try:
                results.append(work())
            except Exception as error:  # noqa: BLE001 - the test looks at it
                results.append(error)

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        return results

    return run
