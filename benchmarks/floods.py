"""Measures the cost of floods of made-up tokens, and the latency of good requests during a flood.

    python -m benchmarks.floods [--quick] [--edge threads|asyncio]

Each edge of a guard gets 300 junk tokens at once, and 300 one after the other. The results are the exchanges with
authorization servers and the look-ups of the resolver that they cause. For tokens one after the other, there are also
the processor time and the retained memory of each.

Then good requests run for a few seconds beside a flood of opaque tokens at one issuer, whose authorization server
answers after 200 ms. "Known" is a token that was accepted before and must be introspected again. "New" is a token that
is used for the first time. At the end, the guard is closed with a full queue and an authorization server that answers
after 2 s.

Everything runs in this process, with a transport that sleeps instead of using a network, and without logging. Only the
public API of scopeguard is used, so older versions can be measured too.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import secrets
import statistics
import threading
import time
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.measuring import machine, table
from scopeguard import Guard, HeaderList, Introspection, Issuer, IssuerResolver, RequestView
from scopeguard.devserver.keys import SigningKey
from scopeguard.flow.effects import Answer, Send
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority

API = "https://api.example.com"
GOOD, OPAQUE, BY_ID = "https://good.test", "https://opaque.test", "https://by-id.test"
JUNK = 300
SLOW = 0.2
HANG = 2.0
EDGES = ("threads", "asyncio")
KINDS = {
    "random opaque": "introspection",
    "JWT, unknown issuer": "",
    "JWT, known issuer, unknown key id": "keys",
    "JWT, bad signature under a known key id": "keys",
    "JWT, name for a resolver": "names",
    "JWT, made-up id of a key with its own URL": "keys by id",
}


class SystemClock:
    """The clocks of the machine."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class World:
    """Authorization servers without a network. It issues tokens and counts requests."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: Counter[str] = Counter()
        self.active: set[str] = set()
        self.good = FakeAuthority(GOOD, audience=API)
        self.stranger = SigningKey.generate("ES256", kid="stranger")

    def send(self, request: Send, /) -> Answer:
        kind = "keys by id" if request.url.startswith(BY_ID) else "keys"
        if request.url.startswith(OPAQUE):
            kind = "introspection"
        self.asked[kind] += 1
        if kind == "keys":
            return self.good.transport.send(request)
        if self.seconds:
            time.sleep(self.seconds)
        if kind == "keys by id":
            return Answer(404, b"")
        active = dict(request.form or ())["token"] in self.active
        answer = {"active": True, "aud": API, "scope": "read", "client_id": "app"} if active else {"active": False}
        return Answer(200, json.dumps(answer).encode(), {"content-type": "application/json"})

    def close(self) -> None: ...

    def resolve(self, name: str) -> Issuer | None:
        self.asked["names"] += 1
        if self.seconds:
            time.sleep(self.seconds)
        return None

    @contextmanager
    def guard(self, *, ttl: float = 60.0, store: bool = False) -> Iterator[Guard]:
        asks = Introspection(client_id="api", client_secret="x" * 20, endpoint=f"{OPAQUE}/introspect", ttl=ttl)
        guard = Guard(
            self.good.issuer,
            Issuer(OPAQUE, audience=API, validate="introspection", introspection=asks),
            Issuer(BY_ID, audience=API, key_url_template=f"{BY_ID}/{{kid}}"),
            resolver=IssuerResolver(accepts=lambda name: name.endswith(".tenants.test"), resolve=self.resolve),
            transport=self,
            store=MemoryStore(SystemClock()) if store else None,
        )
        guard.warm()
        self.asked.clear()
        try:
            yield guard
        finally:
            guard.close()

    def mint(self, *, key: SigningKey | None = None, kid: str | None = None, **claims: Any) -> str:
        now = int(time.time())
        headers = {} if kid is None else {"kid": kid}
        mark = secrets.token_urlsafe(9)
        return self.good.mint(
            "read", claims={"iat": now, "exp": now + 3600, "jti": mark, **claims}, headers=headers, key=key
        )

    def junk(self, kind: str, count: int) -> list[str]:
        """Return *count* different tokens of *kind*."""
        known = self.good.authority.keys.signing_key().kid

        def one() -> str:
            mark = secrets.token_urlsafe(9)
            match kind:
                case "random opaque":
                    return f"junk-{mark}"
                case "JWT, unknown issuer":
                    return self.mint(key=self.stranger, iss=f"https://{mark}.unknown.test")
                case "JWT, known issuer, unknown key id":
                    return self.mint(key=self.stranger, kid=mark)
                case "JWT, bad signature under a known key id":
                    return self.mint(key=self.stranger, kid=known)
                case "JWT, name for a resolver":
                    return self.mint(key=self.stranger, iss=f"https://{mark}.tenants.test")
                case _:
                    return self.mint(key=self.stranger, kid=str(uuid.uuid4()), iss=BY_ID)

        return [one() for _ in range(count)]


def view(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


def status(decision: Any) -> int:
    response = getattr(decision, "response", None)
    return 200 if response is None else int(response.status)


def send_all(guard: Guard, edge: str, tokens: Sequence[str]) -> Counter[int]:
    """Send all tokens at once. Return the number of responses by status."""
    if edge == "threads":
        with ThreadPoolExecutor(len(tokens)) as pool:
            return Counter(status(decision) for decision in pool.map(guard.check, map(view, tokens)))

    async def run() -> list[Any]:
        return await asyncio.gather(*(guard.acheck(view(token)) for token in tokens))

    return Counter(map(status, asyncio.run(run())))


def send_in_turn(guard: Guard, edge: str, tokens: Sequence[str]) -> Counter[int]:
    if edge == "threads":
        return Counter(status(guard.check(view(token))) for token in tokens)

    async def run() -> Counter[int]:
        return Counter([status(await guard.acheck(view(token))) for token in tokens])

    return asyncio.run(run())


def cost_of_junk(edge: str, kind: str, *, count: int) -> dict[str, Any]:
    """Return the cost of *count* junk tokens of *kind*."""
    found: dict[str, Any] = {"edge": edge, "kind": kind}
    world = World(seconds=SLOW)
    with world.guard() as guard:
        found["statuses at once"] = dict(send_all(guard, edge, world.junk(kind, count)))
        found["asked at once"] = world.asked.total()
    world = World()
    with world.guard() as guard:
        send_in_turn(guard, edge, world.junk(kind, 20))
        tokens = world.junk(kind, count)
        begun = time.process_time()
        found["statuses in turn"] = dict(send_in_turn(guard, edge, tokens))
        found["microseconds"] = round((time.process_time() - begun) / count * 1e6)
    with world.guard() as guard:
        send_in_turn(guard, edge, world.junk(kind, 20))
        tokens = world.junk(kind, count - 20)
        gc.collect()
        tracemalloc.start()
        send_in_turn(guard, edge, tokens)
        gc.collect()
        found["bytes held"] = round(tracemalloc.get_traced_memory()[0] / len(tokens))
        tracemalloc.stop()
        found["asked in turn"] = world.asked.total()
    return found


class Flood:
    """Sends a number of opaque junk tokens per second for the length of a block. For the blocking edge, each client
    is a thread. For the async edge, the clients share an event loop of their own, as a server has it.
    """

    def __init__(self, guard: Guard, edge: str, *, per_second: int) -> None:
        self._guard = guard
        self._edge = edge
        self._pause = 1 / per_second
        self._stop = threading.Event()
        self.statuses: Counter[int] = Counter()

    def send(self, submit: Callable[[RequestView], None]) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            submit(view(f"junk-{secrets.token_urlsafe(9)}"))

    def end(self) -> None:
        self._stop.set()


def time_beside(edge: str, *, seconds: float) -> dict[str, Any]:
    """Return the milliseconds that good requests take during a flood, and the number of those that were not granted."""
    run = _beside_threads if edge == "threads" else _beside_tasks
    return run(seconds)


def _good_tokens(world: World, guard: Guard) -> dict[str, Callable[[], str]]:
    world.active.add("known")
    if status(guard.check(view("known"))) != 200:
        raise SystemExit("the known token is not accepted")
    jwt = world.mint()

    def new() -> str:
        token = f"new-{secrets.token_urlsafe(9)}"
        world.active.add(token)
        return token

    return {"JWT of another issuer": lambda: jwt, "opaque, known": lambda: "known", "opaque, new": new}


def _summarize(taken: dict[str, list[tuple[float, int]]], flood: Flood) -> dict[str, Any]:
    found: dict[str, Any] = {"flood": dict(flood.statuses)}
    for name, results in taken.items():
        milliseconds = sorted(spent * 1e3 for spent, _ in results)
        found[name] = {
            "median": round(statistics.median(milliseconds), 1),
            "worst": round(milliseconds[-1], 1),
            "refused": sum(code != 200 for _, code in results),
            "of": len(results),
        }
    return found


def _beside_threads(seconds: float) -> dict[str, Any]:
    world = World(seconds=SLOW)
    with world.guard(ttl=0.3, store=True) as guard, ThreadPoolExecutor(400) as pool:
        tokens = _good_tokens(world, guard)
        flood = Flood(guard, "threads", per_second=400)

        def junk(request: RequestView) -> None:
            flood.statuses[status(guard.check(request))] += 1

        sender = threading.Thread(target=flood.send, args=(lambda request: pool.submit(junk, request),))
        sender.start()
        time.sleep(1)
        taken: dict[str, list[tuple[float, int]]] = {name: [] for name in tokens}

        def ask(name: str) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                begun = time.monotonic()
                code = status(guard.check(view(tokens[name]())))
                taken[name].append((time.monotonic() - begun, code))
                time.sleep(0.05)

        askers = [threading.Thread(target=ask, args=(name,)) for name in tokens]
        for thread in askers:
            thread.start()
        for thread in askers:
            thread.join()
        flood.end()
        sender.join()
        pool.shutdown(cancel_futures=True)
        return _summarize(taken, flood)


def _beside_tasks(seconds: float) -> dict[str, Any]:
    world = World(seconds=SLOW)

    async def run(guard: Guard) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        tokens = await asyncio.to_thread(_good_tokens, world, guard)
        flood = Flood(guard, "asyncio", per_second=400)
        tasks: set[asyncio.Task[None]] = set()

        async def junk(request: RequestView) -> None:
            flood.statuses[status(await guard.acheck(request))] += 1

        def begin(request: RequestView) -> None:
            task = loop.create_task(junk(request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        sender = threading.Thread(target=flood.send, args=(lambda request: loop.call_soon_threadsafe(begin, request),))
        sender.start()
        await asyncio.sleep(1)
        taken: dict[str, list[tuple[float, int]]] = {name: [] for name in tokens}

        async def ask(name: str) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                begun = time.monotonic()
                code = status(await guard.acheck(view(tokens[name]())))
                taken[name].append((time.monotonic() - begun, code))
                await asyncio.sleep(0.05)

        await asyncio.gather(*map(ask, tokens))
        flood.end()
        await asyncio.to_thread(sender.join)
        for task in list(tasks):
            task.cancel()
        return _summarize(taken, flood)

    with world.guard(ttl=0.3, store=True) as guard:
        return asyncio.run(run(guard))


def time_closing(*, count: int) -> float:
    """Return the seconds that closing takes while *count* requests wait for an authorization server that answers
    after 2 s.
    """
    world = World(seconds=HANG)
    with world.guard() as guard:

        async def run() -> float:
            tasks = [asyncio.create_task(guard.acheck(view(token))) for token in world.junk("random opaque", count)]
            await asyncio.sleep(0.5)
            begun = time.monotonic()
            await guard.aclose()
            taken = time.monotonic() - begun
            for task in tasks:
                task.cancel()
            return taken

        return asyncio.run(run())


def measure(edges: Sequence[str], *, quick: bool) -> dict[str, Any]:
    logging.disable(logging.CRITICAL)
    count = 40 if quick else JUNK
    found: dict[str, Any] = {
        "junk": [cost_of_junk(edge, kind, count=count) for edge in edges for kind in KINDS],
        "beside": {edge: time_beside(edge, seconds=0.5 if quick else 6.0) for edge in edges},
    }
    if not quick:
        found["closing"] = time_closing(count=400)
    return found


def render(found: dict[str, Any]) -> str:
    rows = [
        [
            row["edge"],
            row["kind"],
            str(row["asked at once"]),
            str(row["asked in turn"]),
            str(row["microseconds"]),
            str(row["bytes held"]),
        ]
        for row in found["junk"]
    ]
    head = ["edge", "junk", "requests, at once", "requests, in turn", "CPU, µs per token", "bytes kept per token"]
    parts = [table("Outbound requests for junk", head, rows)]
    rows = [
        [edge, name, str(row["median"]), str(row["worst"]), f"{row['refused']} of {row['of']}"]
        for edge, by_name in found["beside"].items()
        for name, row in by_name.items()
        if name != "flood"
    ]
    parts.append(
        table(
            "Good requests beside 400 opaque junk tokens per second",
            ["edge", "good requests", "median, ms", "worst, ms", "not granted"],
            rows,
        )
    )
    if "closing" in found:
        parts.append(f"closing while 400 introspection requests wait for answers of 2 s: {found['closing']:.2f} s")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--edge", choices=EDGES, help="this edge alone")
    options = parser.parse_args()
    found = measure((options.edge,) if options.edge else EDGES, quick=options.quick)
    print(render(found))
    print("\n" + json.dumps(found, indent=1))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
