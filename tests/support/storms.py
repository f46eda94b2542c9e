"""Many concurrent requests, in threads, on asyncio and on trio, for tests of herds and floods."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import trio

from scopeguard import Guard
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.testing import FakeAuthority

PATIENCE = 30.0
HERD = 200


def request_with(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


class Storm:
    """Many concurrent requests in one *runtime*. ``crowd(n)`` returns when *n* of them have reached a flight."""

    def __init__(self, runtime: str, guard: Guard) -> None:
        self.runtime = runtime
        self.guard = guard
        self.decisions: list[Decision | BaseException] = []
        self._decided = threading.Semaphore(0)
        self._boarded = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        flights: Any = engine_of(guard).runtime.flights
        join = flights.join

        def count_and_join(key: str, wake: Callable[[], None]) -> bool:
            try:
                joined: bool = join(key, wake)
                return joined
            finally:
                self._boarded.release()

        flights.join = count_and_join  # counts the callers that reach a flight

    def crowd(self, count: int) -> None:
        for _ in range(count):
            assert self._boarded.acquire(timeout=PATIENCE), "callers did not reach a flight"

    def wait_for_decisions(self, count: int) -> None:
        """Wait until *count* decisions have been made since the start of the storm."""
        for _ in range(count):
            assert self._decided.acquire(timeout=PATIENCE), "requests did not end"

    def start(self, tokens: Sequence[str]) -> None:
        self._decided = threading.Semaphore(0)
        if self.runtime == "threads":
            work: list[tuple[Callable[..., None], Any]] = [(self._check, token) for token in tokens]
        elif self.runtime == "mixed":
            kinds = (self._on_asyncio, self._on_trio, self._on_asyncio, self._on_trio)
            work = [(kinds[i], tokens[i::8]) for i in range(4)]
            work += [(self._check, token) for i in range(4, 8) for token in tokens[i::8]]
        else:
            work = [(self._on_asyncio if self.runtime == "asyncio" else self._on_trio, tokens)]
        threads = [threading.Thread(target=target, args=(argument,)) for target, argument in work]
        for thread in threads:
            thread.start()
        self._threads += threads

    def end(self) -> Counter[str]:
        """Wait for all requests and return the number of decisions of each kind."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a request never ends"
        self._threads.clear()
        return self.count_decisions()

    def count_decisions(self) -> Counter[str]:
        return Counter(type(decision).__name__ for decision in self.decisions)

    def run(self, tokens: Sequence[str]) -> Counter[str]:
        self.decisions.clear()
        self.start(tokens)
        return self.end()

    def _check(self, token: str) -> None:
        try:
            self._decide(self.guard.check(request_with(token)))
        except BaseException as error:  # noqa: BLE001 - the test counts it
            self._decide(error)

    async def _acheck(self, token: str) -> None:
        self._decide(await self.guard.acheck(request_with(token)))

    def _decide(self, decision: Decision | BaseException) -> None:
        self.decisions.append(decision)
        self._decided.release()

    async def _all(self, tokens: Sequence[str]) -> None:
        async with anyio.create_task_group() as group:
            for token in tokens:
                group.start_soon(self._acheck, token)

    def _on_asyncio(self, tokens: Sequence[str]) -> None:
        asyncio.run(self._all(tokens))

    def _on_trio(self, tokens: Sequence[str]) -> None:
        trio.run(self._all, tokens)


class Watched:
    """A transport to an authority that records the calling threads."""

    def __init__(self, authority: FakeAuthority) -> None:
        self._authority = authority
        self.threads: set[threading.Thread] = set()
        self.answered = threading.Semaphore(0)

    def send(self, request: Send, /) -> Answer:
        self.threads.add(threading.current_thread())
        try:
            return self._authority.transport.send(request)
        finally:
            self.answered.release()

    def close(self) -> None:
        pass
