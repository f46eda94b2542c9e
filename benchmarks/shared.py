"""Measures several processes that share one Redis: requests to the authorization server, and the cost of sharing.

    python -m benchmarks.shared [--quick] [--workers N]

Everything is real: an authorization server on a loopback port, a redis-server, and worker processes. An opaque token
must be introspected. When one worker has done so, the others find the answer in Redis. When all get the token at the
same moment, each introspects it once, because no process waits for another.

The cost of shared revocations is that of requests with a cached JWT in one process, without a store and with one that
is read in the background. It is processor time, including that of the thread that reads.

What one operation costs is measured in one process, by the clock on the wall: a ``PING`` of Redis as the floor, reading
an introspection answer that is there or not, writing one, reading the revocations, and remembering a DPoP proof, in
Redis, in a cluster without and with the confirmation of a replica, and in the memory of the process. Two readings are
also sent together, which shows what that could save. A cached answer is measured in processor time.

Requests with DPoP proofs are measured as a whole: new ones and used ones, with and without a store.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.failover import servers
from benchmarks.measuring import figure, keep, machine, table
from benchmarks.storms import AUDIENCE, ROOT, SECRET, Place, view
from scopeguard import Denied, DPoP, Granted, Guard, HeaderList, Introspection, Issuer, RequestView
from scopeguard.guard import engine_of
from scopeguard.state.proofs import ProofLimits, ProofMemory
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority, ProofKey

WORKERS = 4
AT_ONCE = 25
MANY = 10**9


@contextmanager
def redis_server() -> Iterator[str]:
    """Start a Redis that stores nothing on disk, and yield its URL."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise SystemExit("redis-server does not come up") from None
            time.sleep(0.02)
        else:
            return


def guard_of(url: str, redis: str | None) -> Guard:
    issuer = Issuer(
        url,
        audience=AUDIENCE,
        validate="auto",
        introspection=Introspection(client_id="api", client_secret=SECRET),
    )
    return Guard(issuer, store=None if redis is None else RedisStore(redis, secret="sg-secret-of-the-store"))


class Worker:
    """A process with a guard of its own."""

    def __init__(self, url: str, redis: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.shared", "--worker", url, redis],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def time_checks(self, tokens: Sequence[str], *, at_once: int = 1) -> list[float]:
        """Return the seconds of each check, with *at_once* checks at the same time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SystemExit("a worker has no pipes")
        print(json.dumps([at_once, *tokens]), file=stdin, flush=True)
        return list(json.loads(stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=30)


def work(url: str, redis: str) -> None:
    """Run the process of :class:`Worker`."""
    logging.disable(logging.ERROR)
    guard = guard_of(url, redis)

    def time_check(token: str) -> float:
        begun = time.perf_counter()
        decision = guard.check(view(token))
        taken = time.perf_counter() - begun
        if not isinstance(decision, Granted):
            raise SystemExit(f"a good token was refused: {decision!r}")
        return taken

    for line in sys.stdin:
        at_once, *tokens = json.loads(line)
        with ThreadPoolExecutor(at_once) as threads:
            print(json.dumps(list(threads.map(time_check, tokens))), flush=True)


def introspections(place: Place, redis: str, *, workers: int, rounds: int) -> dict[str, Any]:
    """Return the introspection requests for one token, and the time of a check by the source of the answer."""
    with ExitStack() as stack:
        crew = [Worker(place.url, redis) for _ in range(workers)]
        for worker in crew:
            stack.callback(worker.close)
            worker.time_checks([place.opaque()])  # imports, discovery and connections come first
        before, token = place.count_requests("/introspect"), place.opaque()
        for worker in crew:
            worker.time_checks([token] * AT_ONCE, at_once=AT_ONCE)
        in_turn = place.count_requests("/introspect") - before
        before, token = place.count_requests("/introspect"), place.opaque()
        threads = [
            threading.Thread(target=worker.time_checks, args=([token] * AT_ONCE,), kwargs={"at_once": AT_ONCE})
            for worker in crew
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = place.count_requests("/introspect") - before
        seconds: dict[str, list[float]] = {"introspection": [], "answer of another worker": [], "answer of its own": []}
        for _ in range(rounds):
            token = place.opaque()
            seconds["introspection"] += crew[0].time_checks([token])
            seconds["answer of another worker"] += crew[1].time_checks([token])
            seconds["answer of its own"] += crew[1].time_checks([token])
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {"calls, one worker after the other": in_turn, "calls, all at once": together, "seconds": medians}


def revocations(place: Place, redis: str, *, seconds: float, rounds: int) -> dict[str, float]:
    """Return the processor seconds of a request with a cached JWT, without and with a store, and of reading the log."""
    guards = {"without": guard_of(place.url, None), "with": guard_of(place.url, redis)}
    request = view(*place.tokens(1))
    taken: dict[str, list[float]] = {name: [] for name in guards}
    for _ in range(rounds):
        for name, guard in guards.items():
            guard.check(request)
            done, end, begun = 0, time.perf_counter() + seconds, time.process_time()
            while time.perf_counter() < end:
                for _ in range(50):
                    guard.check(request)
                done += 50
            taken[name].append((time.process_time() - begun) / done)
    store, reads = engine_of(guards["with"]).store, []
    for _ in range(50 * rounds):
        begun = time.perf_counter()
        if store is not None:
            store.read(None)
        reads.append(time.perf_counter() - begun)
    for guard in guards.values():
        guard.close()
    found = {name: statistics.median(each) for name, each in taken.items()}
    ratios = [b / a for a, b in zip(taken["without"], taken["with"], strict=True)]
    return {**found, "ratio": statistics.median(ratios), "one reading": statistics.median(reads)}


def operations(redis: str, cluster: str, *, rounds: int) -> dict[str, float]:
    """Return the seconds of single operations, in turns, with a new proof for each claim."""
    import redis as library

    client, store = library.Redis.from_url(redis), RedisStore(redis, secret="sg-secret-of-the-store")
    node, confirmed = RedisStore(cluster, replicas=0), RedisStore(cluster, replicas=1)
    memory = ProofMemory(ProofLimits(total=MANY, per_owner=MANY))
    store.put("answer", b"x" * 400, seconds=600)
    store.append(b"revoked", seconds=600)
    position, _ = store.read(None)
    numbers = itertools.count()

    def identity() -> bytes:
        return next(numbers).to_bytes(32, "big")

    def claim(store: RedisStore) -> Callable[[], object]:
        limits = {"total": MANY, "per_owner": MANY, "per_holder": MANY}
        return lambda: store.claim(identity(), "owner", holder="holder", seconds=60, **limits)

    def read_and_get(commands: Any) -> None:
        commands.xrange("scopeguard:{revocations}", min=position, count=1001)
        commands.get("scopeguard:answer")

    def read_and_get_together() -> None:
        with client.pipeline(transaction=False) as pipeline:
            read_and_get(pipeline)
            pipeline.execute()

    work: dict[str, Callable[[], object]] = {
        "PING": client.ping,
        "read an answer": lambda: store.get("answer"),
        "find no answer": lambda: store.get("nothing"),
        "write an answer": lambda: store.put("answer", b"x" * 400, seconds=600),
        "find no new revocation": lambda: store.read(position),
        "XRANGE, then GET": lambda: read_and_get(client),
        "XRANGE and GET, sent together": read_and_get_together,
        "remember a proof": claim(store),
        "remember a proof in a cluster": claim(node),
        "remember a proof, confirmed by a replica": claim(confirmed),
        "remember a proof in memory": lambda: memory.claim(identity(), "owner", 0.0, 60.0, holder=b"holder"),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, operation in work.items():
            begun = time.perf_counter()
            operation()
            taken[name].append(time.perf_counter() - begun)
    for each in (store, node, confirmed):
        each.close()
    client.close()
    return {name: statistics.median(each) for name, each in taken.items()}


def requests_with_proofs(redis: str, cluster: str, *, rounds: int) -> dict[str, float]:
    """Return the seconds of checks of a known token with a new and with a used proof, by the place of used proofs."""
    stores = {
        "in memory": None,
        "in Redis": RedisStore(redis, prefix="requests:"),
        "in a cluster, confirmed": RedisStore(cluster, prefix="requests:", replicas=1),
    }
    authority, key = FakeAuthority(), ProofKey()
    token = authority.mint("read", bound_to=key)
    limits = DPoP(max_proofs=MANY, max_proofs_per_key=MANY)
    guards = {
        name: Guard(
            authority.issuer,
            resource=authority.audience,
            dpop=limits,
            store=store,
            transport=authority.transport,
            clock=authority.clock,
            audit="off",
        )
        for name, store in stores.items()
    }
    taken: dict[str, list[float]] = {f"{kind} proof, {name}": [] for name in guards for kind in ("new", "used")}
    for _ in range(rounds):
        headers = key.headers(token, "GET", f"{authority.audience}/", at=authority.clock.wall())
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        for name, guard in guards.items():
            for kind, outcome in (("new", Granted), ("used", Denied)):
                request = RequestView(method="GET", path="/", raw_path=b"/", headers=HeaderList(pairs))
                begun = time.perf_counter()
                decision = guard.check(request)
                taken[f"{kind} proof, {name}"].append(time.perf_counter() - begun)
                if not isinstance(decision, outcome):
                    raise SystemExit(f"{kind} proof, {name}: {decision!r}")
    for guard in guards.values():
        guard.close()
    return {name: statistics.median(each) for name, each in taken.items()}


def hits(place: Place, *, rounds: int) -> float:
    """Return the processor seconds of a check of an opaque token whose answer this process has."""
    guard, request = guard_of(place.url, None), view(place.opaque())
    guard.check(request)
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(100):
            if not isinstance(guard.check(request), Granted):
                raise SystemExit("a good token was refused")
        taken.append((time.process_time() - begun) / 100)
    guard.close()
    return min(taken)


def measure(*, quick: bool, workers: int = WORKERS) -> dict[str, Any]:
    logging.disable(logging.ERROR)
    if shutil.which("redis-server") is None:
        return {"missing": "redis-server", "figures": []}
    with Place() as place, redis_server() as redis, servers("cluster", quick=True) as cluster:
        found = introspections(place, redis, workers=workers, rounds=5 if quick else 100)
        price = revocations(place, redis, seconds=0.1 if quick else 1.5, rounds=1 if quick else 7)
        single = operations(redis, cluster.url, rounds=20 if quick else 2000)
        with_proofs = requests_with_proofs(redis, cluster.url, rounds=20 if quick else 1000)
        single["hit"] = hits(place, rounds=2 if quick else 100)
    return {
        "introspections": found,
        "revocations": price,
        "operations": single,
        "requests with proofs": with_proofs,
        "figures": [*figures(found, price), *figures_of_operations(single, with_proofs)],
    }


def figures_of_operations(single: dict[str, float], with_proofs: dict[str, float]) -> Iterator[dict[str, Any]]:
    yield figure("a check by an answer of its own, processor time", single["hit"] * 1e6, "", unit="µs")
    yield figure("one PING of Redis on this host, the floor of what follows", single["PING"] * 1e6, "", unit="µs")
    for name, seconds in single.items():
        if name not in ("hit", "PING"):
            place = "without a store" if name.endswith("in memory") else "shared store"
            yield figure(f"{place}: {name.removesuffix(' in memory')}", seconds * 1e6, "", unit="µs")
    for name, seconds in with_proofs.items():
        yield figure(f"a check with a {name}", seconds * 1e6, "", unit="µs")


def figures(found: dict[str, Any], price: dict[str, float]) -> Iterator[dict[str, Any]]:
    one, together, seconds = found["calls, one worker after the other"], found["calls, all at once"], found["seconds"]
    yield figure("introspections of one token, processes one after the other", one, "<= 1", unit="calls")
    yield figure("introspections of one token, processes all at once", together, "", unit="calls")
    for name, taken in seconds.items():
        yield figure(f"a check by {name.replace('answer', 'an answer')}", taken * 1e3, "", unit="ms")
    yield figure("remembered JWT, shared revocations ÷ none", price["ratio"], "", unit="ratio")
    yield figure("the same, added to a request", (price["with"] - price["without"]) * 1e6, "", unit="µs")
    yield figure(
        "reading what was revoked, by a thread beside, twice a second", price["one reading"] * 1e6, "", unit="µs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--worker", nargs=2, metavar=("URL", "REDIS"), help="be a worker, for the other process")
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    results = measure(quick=options.quick, workers=options.workers)
    if "missing" in results:
        print("redis-server is not installed; nothing was measured (make system installs it)")
        return
    rows = [[row["figure"], f"{row['value']:.2f}", row["unit"], row["must"]] for row in results["figures"]]
    print(table(f"{options.workers} processes and one Redis", ["", "found", "", "must"], rows))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("shared", results)


if __name__ == "__main__":
    main()
