"""Measures the requests to an authorization server when many clients arrive at once, and the waiting while it is slow.

    python -m benchmarks.storms [--quick]

The authorization server is the development server on a loopback port, in a process of its own. So the real transport is
used, and its work takes no time from the event loop. If it is slow, it answers after 300 ms.

A ticker in the event loop sleeps one millisecond at a time; a longer sleep is a stall. The smallest result of several
runs counts: a stall that scopeguard causes would be in all of them. The ticker's own worst sleep, in an idle loop, is
listed beside it. "First keys" is the first request of a new guard, which opens its connection. The first one in a
process also imports httpx, which :meth:`Guard.warm` does at the start of a service.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import secrets
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from benchmarks.measuring import figure, keep, machine, table
from scopeguard import Granted, Guard, HeaderList, Introspection, Issuer, RequestView
from scopeguard.devserver import Authority, Client, DevServer
from scopeguard.devserver.keys import KeyRing, compact
from scopeguard.guard import Decision, engine_of

AUDIENCE = "https://api.example.com"
SECRET = "sg-secret-of-the-api"
HERD = 200
STRANGERS = 100
SLOW = 0.3
BACKENDS = ("asyncio", "trio")
ROOT = Path(__file__).parent.parent


class Place:
    """An authorization server on a loopback port, in a process of its own, and its tokens."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.storms", "--authority"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.url: str = self._call("url")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def _call(self, what: str, *arguments: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SystemExit("the authority has no pipes")
        print(json.dumps([what, *arguments]), file=stdin, flush=True)
        return json.loads(stdout.readline())

    def tokens(self, count: int) -> list[str]:
        """Return *count* different tokens."""
        return list(self._call("tokens", count, None))

    def strangers(self, count: int) -> list[str]:
        """Return tokens that each name another unknown key."""
        return list(self._call("tokens", count, "unknown"))

    def opaque(self) -> str:
        """Return a token that needs introspection."""
        return str(self._call("opaque"))

    def rotate(self) -> None:
        self._call("rotate")

    def count_requests(self, endpoint: str) -> int:
        """Return the number of requests to URLs that end in *endpoint* since the guard was made."""
        return int(self._call("requests", endpoint))

    @contextmanager
    def slow(self, seconds: float = SLOW) -> Iterator[None]:
        self._call("slow", seconds)
        yield
        self._call("slow", 0)

    @contextmanager
    def guard(self, *, warm: bool) -> Iterator[Guard]:
        introspection = Introspection(client_id="api", client_secret=SECRET)
        guard = Guard(Issuer(self.url, audience=AUDIENCE, validate="auto", introspection=introspection))
        if warm:
            guard.warm()
        self._call("forget")
        try:
            yield guard
        finally:
            guard.close()


def serve() -> None:
    """Run the authorization server of :class:`Place`."""
    logging.disable(logging.ERROR)
    api = Client(client_id="api", secret=SECRET, introspects=(AUDIENCE,))
    authority = Authority(audience=AUDIENCE, clients=[api], keys=KeyRing("ES256"))

    def claims() -> dict[str, Any]:
        now, mark = int(time.time()), secrets.token_urlsafe(12)
        names = {"iss": authority.issuer, "aud": AUDIENCE, "sub": mark, "client_id": "loader", "scope": "read write"}
        return {**names, "iat": now, "exp": now + 3600, "jti": mark}

    def tokens(count: int, kid: str | None) -> list[str]:
        key = authority.keys.signing_key()
        kids = [key.kid if kid is None else f"{kid}-{secrets.token_hex(4)}" for _ in range(count)]
        return [compact({"typ": "at+jwt", "alg": key.algorithm, "kid": each}, claims(), key) for each in kids]

    def opaque() -> str:
        token = f"sg-opaque-{secrets.token_hex(8)}"
        authority.tokens.add(token, claims(), int(time.time()))
        return token

    def count_requests(endpoint: str) -> int:
        return sum(request.endswith(endpoint) for request in authority.requests)

    does: dict[str, Callable[..., Any]] = {
        "url": lambda: authority.issuer,
        "tokens": tokens,
        "opaque": opaque,
        "requests": count_requests,
        "rotate": authority.rotate,
        "slow": lambda seconds: bool(authority.faults.slow(seconds)),
        "forget": authority.requests.clear,
    }
    with DevServer(authority):
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            print(json.dumps(does[what](*arguments)), flush=True)


def view(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


async def herd(guard: Guard, tokens: Sequence[str]) -> list[Decision]:
    """Send all requests at once."""
    decisions: list[Decision] = []

    async def one(token: str) -> None:
        decisions.append(await guard.acheck(view(token)))

    async with anyio.create_task_group() as group:
        for token in tokens:
            group.start_soon(one, token)
    return decisions


def outcomes(decisions: Sequence[Decision]) -> dict[str, int]:
    return dict(Counter(type(decision).__name__ for decision in decisions))


class Ticker:
    """Measures by how many seconds a sleep of one millisecond is too long."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def run(self) -> None:
        while True:
            begun = time.perf_counter()
            await anyio.sleep(0.001)
            self.late.append(time.perf_counter() - begun - 0.001)


async def watch(work: Callable[[], Awaitable[None]]) -> Ticker:
    """Run *work* with a ticker."""
    ticker = Ticker()
    async with anyio.create_task_group() as group:
        group.start_soon(ticker.run)
        await anyio.sleep(0.02)
        ticker.late.clear()
        await work()
        group.cancel_scope.cancel()
    return ticker


def upstream(place: Place, backend: str) -> dict[str, Any]:
    """Return the requests to the authorization server of a herd. Each answer takes long enough for all clients to
    arrive.
    """
    found: dict[str, Any] = {}
    with place.slow(0.1):
        with place.guard(warm=False) as guard:
            decisions = anyio.run(herd, guard, place.tokens(HERD), backend=backend)
            found["cold"] = {
                "keys": place.count_requests("/jwks"),
                "metadata": place.count_requests("-server"),
                **outcomes(decisions),
            }
        with place.guard(warm=True) as guard:
            tokens = place.tokens(HERD - STRANGERS) + place.strangers(STRANGERS)
            decisions = anyio.run(herd, guard, tokens, backend=backend)
            found["unknown"] = {"keys": place.count_requests("/jwks"), **outcomes(decisions)}
        with place.guard(warm=True) as guard:
            decisions = anyio.run(herd, guard, [place.opaque()] * HERD, backend=backend)
            found["introspection"] = {"calls": place.count_requests("/introspect"), **outcomes(decisions)}
    return found


def rotation(place: Place, backend: str) -> int:
    """Return the number of the first request with a new key that is accepted."""
    with place.guard(warm=True) as guard:
        place.rotate()
        (token,) = place.tokens(1)
        for attempt in range(1, 100):
            decision = anyio.run(guard.acheck, view(token), backend=backend)
            if isinstance(decision, Granted):
                return attempt
    return 100


def stalls(place: Place, backend: str, *, seconds: float) -> dict[str, float]:
    """Return the longest stall of the loop in seconds: when idle, during the fetch of keys for the first request,
    and during the search for an unknown key beside good requests.
    """

    async def sleep() -> None:
        await anyio.sleep(seconds)

    found = {"ticker alone": max(anyio.run(watch, sleep, backend=backend).late)}
    with place.slow(), place.guard(warm=False) as guard:
        first = functools.partial(_expect_granted, guard, *place.tokens(1))
        found["first keys"] = max(anyio.run(watch, first, backend=backend).late)
    good, strangers = place.tokens(150), place.strangers(1)

    async def mix() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(guard.acheck, view(*strangers))
            for token in good:
                await _expect_granted(guard, token)
                await anyio.sleep(0.002)

    with place.guard(warm=True) as guard, place.slow():
        found["unknown key"] = max(anyio.run(watch, mix, backend=backend).late)
    return found


async def _expect_granted(guard: Guard, token: str) -> None:
    decision = await guard.acheck(view(token))
    if not isinstance(decision, Granted):
        raise SystemExit(f"a good token was refused: {decision!r}")


def time_waiting(place: Place, backend: str, *, requests: int) -> dict[str, float]:
    """Return the seconds that a new good token takes, without and with 50 other requests that wait for keys."""

    async def time_checks(guard: Guard, tokens: Sequence[str], going_on: Callable[[], bool]) -> list[float]:
        seconds: list[float] = []
        for token in tokens:
            begun = time.perf_counter()
            await _expect_granted(guard, token)
            seconds.append(time.perf_counter() - begun)
            await anyio.sleep(0.001)
            if not going_on():
                break
        return seconds

    async def both(guard: Guard, good: Sequence[str], strangers: Sequence[str]) -> tuple[list[float], list[float]]:
        flights = engine_of(guard).runtime.flights
        without = await time_checks(guard, good[:requests], lambda: True)
        async with anyio.create_task_group() as group:
            for stranger in strangers:
                group.start_soon(guard.acheck, view(stranger))
            while not len(flights):
                await anyio.sleep(0.001)
            beside = await time_checks(guard, good[requests:], lambda: len(flights) > 0)
        return without, beside

    with place.guard(warm=True) as guard, place.slow():
        without, beside = anyio.run(both, guard, place.tokens(2 * requests), place.strangers(50), backend=backend)
    return {
        "without": statistics.median(without),
        "beside 50": statistics.median(beside),
        "without, longest": max(without),
        "beside 50, longest": max(beside),
    }


def one(backend: str, *, quick: bool) -> dict[str, Any]:
    """Measure everything on one event loop."""
    logging.disable(logging.ERROR)
    with Place() as place:
        found: dict[str, Any] = {"first stall": stalls(place, backend, seconds=0.05)["first keys"]}
        found["upstream"] = upstream(place, backend)
        found["rotation"] = rotation(place, backend)
        runs = [stalls(place, backend, seconds=0.1 if quick else 0.5) for _ in range(1 if quick else 9)]
        for word, choose in (("stalls", min), ("median stalls", statistics.median), ("worst stalls", max)):
            found[word] = {name: choose(run[name] for run in runs) for name in runs[0]}
        waits = [time_waiting(place, backend, requests=20 if quick else 60) for _ in range(1 if quick else 5)]
        found["waiting"] = {name: statistics.median(run[name] for run in waits) for name in waits[0]}
    return found


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure each event loop in a process of its own, so that each includes the imports of the first fetch."""
    found: dict[str, Any] = {}
    for backend in BACKENDS[:1] if quick else BACKENDS:
        command = [sys.executable, "-m", "benchmarks.storms", "--backend", backend, *(["--quick"] if quick else [])]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        found[backend] = json.loads(run.stdout)
    return {"storms": found, "figures": [row for name in found for row in figures(name, found[name])]}


def figures(backend: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    upstream, stalls, waits = found["upstream"], found["stalls"], found["waiting"]
    rows: list[tuple[str, float, str, str]] = [
        ("key sets fetched for 200 concurrent cold starts", upstream["cold"]["keys"], "<= 1", "calls"),
        ("key sets fetched for 200 requests, 100 with unknown kids", upstream["unknown"]["keys"], "<= 3", "calls"),
        ("introspections for 200 requests with one token", upstream["introspection"]["calls"], "<= 1", "calls"),
        ("a rotated key is accepted at request", found["rotation"], "<= 1", "number"),
        ("longest stall of the loop, first keys", round(stalls["first keys"] * 1e3, 2), "<= 5", "ms"),
        ("longest stall of the loop, unknown key", round(stalls["unknown key"] * 1e3, 2), "<= 5", "ms"),
        ("the same, median of runs", round(found["median stalls"]["unknown key"] * 1e3, 2), "", "ms"),
        ("the ticker's own stall, median of runs", round(found["median stalls"]["ticker alone"] * 1e3, 2), "", "ms"),
        ("longest stall at the very first fetch of a process", round(found["first stall"] * 1e3, 2), "", "ms"),
        ("a good token beside 50 that wait ÷ without them", round(waits["beside 50"] / waits["without"], 2), "<= 1.25",
         "ratio"),
    ]  # fmt: skip
    return [figure(f"{name} ({backend})", value, must, unit=unit) for name, value, must, unit in rows]


def render(results: dict[str, Any]) -> str:
    rows = [[row["figure"], str(row["value"]), row["unit"], row["must"]] for row in results["figures"]]
    return table("Storms", ["", "found", "", "must"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backend", choices=BACKENDS, help="this one alone, in this process, as JSON")
    parser.add_argument("--authority", action="store_true", help="be the authority, for the other process")
    options = parser.parse_args()
    if options.authority:
        serve()
        return
    if options.backend:
        print(json.dumps(one(options.backend, quick=options.quick)))
        return
    results = measure(quick=options.quick)
    print(render(results))
    print("\n" + json.dumps(results["storms"], indent=1))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("storms", results)


if __name__ == "__main__":
    main()
