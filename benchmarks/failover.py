"""Measures failovers of the shared store under load, and looks for requests that must not be accepted.

    python -m benchmarks.failover [--minutes 10] [--every 30] [--servers cluster|sentinel]
                                  [--replicas N] [--min-replicas N] [--quick]

Real servers on loopback: a cluster with three primaries and a replica each, or a primary with two replicas and three
Sentinels. They are replaced after a second without an answer. Every *every* seconds the primary of the used proofs is
killed, or frozen until another has replaced it, or one of its replicas is killed. What was killed comes back later.

Four guards with a store each, as in four processes, get requests with proofs of possession, each twice, and revoke
tokens. Other threads send proofs of the last minute again, and revoked tokens, also to guards that have just started. A
model knows which of these may be accepted: a proof once, and a token until ``max_lag`` after its revocation. All other
accepted requests are listed as wrong. A refusal must be for a used or expired proof, for a revoked token, or a 503.

``--quick`` has one failover of each kind, which the benchmark itself demands, and takes a few seconds.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import logging
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import figure, keep, machine, table
from scopeguard import (
    AuthorityUnavailable,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    RequestView,
    RevocationPolicy,
    Unavailable,
)
from scopeguard.guard import Decision
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority, FakeClock, ProofKey

ROOT = Path(__file__).parent.parent
API, URI = "https://api.test", "https://api.test/rows"
GUARDS, KEYS = 4, 20
MAX_LAG = 1.0
REMEMBERED = 60.0  # the default window of a proof
KINDS = ("primary killed", "primary frozen", "replica killed")
NODE_TIMEOUT = 1000  # milliseconds, after which servers are replaced
LEAST = 20  # accepted proofs before a failure
RANDOM = secrets.SystemRandom()
ALLOWED = {"granted", "proof_used", "proof_expired", "token_revoked", "store_unavailable"}


class SystemClock(FakeClock):
    """The clocks of the machine, for the fake authorization server."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(kw_only=True)
class Attempt:
    """A request with a proof, and how often it was accepted."""

    request: RequestView
    sent_at: float
    accepted: int = 0


@dataclass(kw_only=True)
class Model:
    """What was sent and accepted. Threads share it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=20_000))
    revoked: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=2000))
    granted_at: float = 0.0

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def note(self, kind: str, decision: Decision) -> bool:
        """Count *decision*, and return whether the request was accepted."""
        granted = isinstance(decision, Granted)
        outcome = decision.error.reason.value if isinstance(decision, Denied | Unavailable) else "granted"
        with self.lock:
            self.counts[f"{kind}: {outcome}"] += 1
            if outcome not in ALLOWED:
                self.wrong[f"{kind}: {outcome}"] += 1
        return granted

    def note_proof(self, kind: str, attempt: Attempt, decision: Decision) -> None:
        """Count the decision about *attempt*. It may be accepted once."""
        if self.note(kind, decision):
            with self.lock:
                attempt.accepted += 1
                self.granted_at = time.monotonic()
                if attempt.accepted > 1:
                    self.wrong[f"{kind}: a proof was accepted again"] += 1


class Fleet:
    """Guards that share a store, and threads that send requests to them."""

    def __init__(self, url: str, *, replicas: int, model: Model) -> None:
        self.authority = FakeAuthority(audience=API, clock=SystemClock())
        self._url, self._replicas, self.model = url, replicas, model
        self.guards = [self.start_guard() for _ in range(GUARDS)]
        self.keys = [ProofKey() for _ in range(KEYS)]
        self._stop = threading.Event()

    def start_guard(self) -> Guard:
        """Return a guard with connections and revocations of its own, as a new process has."""
        return Guard(
            self.authority.issuer,
            resource=API,
            dpop=DPoP(),
            store=RedisStore(self._url, replicas=self._replicas),
            revocation=RevocationPolicy(max_lag=MAX_LAG),
            transport=self.authority.transport,
            audit="off",
        )

    def send_proofs(self) -> None:
        """Send a new proof to two guards."""
        key = RANDOM.choice(self.keys)
        headers = key.headers(self.authority.mint("read", bound_to=key), "GET", URI, at=time.time())
        attempt = Attempt(request=view(headers), sent_at=time.monotonic())
        with self.model.lock:
            self.model.attempts.append(attempt)
        for guard in RANDOM.sample(self.guards, 2):
            self.model.note_proof("new proof", attempt, guard.check(attempt.request))

    def replay(self) -> None:
        """Send a proof of the last minute again."""
        attempts = self.model.attempts
        if attempts:
            attempt = attempts[RANDOM.randrange(len(attempts))]
            if time.monotonic() - attempt.sent_at < REMEMBERED:
                self.model.note_proof("replay", attempt, RANDOM.choice(self.guards).check(attempt.request))

    def revoke(self) -> None:
        """Revoke a new token, and repeat it until the store has it."""
        token = self.authority.mint("read")
        guard = RANDOM.choice(self.guards)
        while not self._stop.is_set():
            try:
                guard.revoke(token=token)
            except AuthorityUnavailable:
                self.model.count("revocation: store_unavailable")
                self._stop.wait(0.1)
            else:
                self.model.count("revocation: stored")
                self.model.revoked.append((token, time.monotonic()))
                return

    def send_revoked(self, guard: Guard | None = None) -> None:
        """Send a revoked token."""
        revoked = self.model.revoked
        if revoked:
            token, at = revoked[RANDOM.randrange(len(revoked))]
            if time.monotonic() > at + MAX_LAG:
                kind = "revoked token" if guard is None else "revoked token, new guard"
                decision = (guard or RANDOM.choice(self.guards)).check(view({"authorization": f"Bearer {token}"}))
                if self.model.note(kind, decision):
                    with self.model.lock:
                        self.model.wrong[f"{kind}: accepted after its revocation"] += 1

    def send_to_new_guard(self) -> None:
        """Send revoked tokens to a guard that has just started."""
        guard = self.start_guard()
        for _ in range(20):
            self.send_revoked(guard)
        guard.close()

    @contextmanager
    def send_in_background(self) -> Iterator[None]:
        """Send requests of all kinds, so many a second, until the end of the ``with`` block."""
        rates: tuple[tuple[Callable[[], None], float], ...] = (
            (self.send_proofs, 40),
            (self.send_proofs, 40),
            (self.replay, 100),
            (self.revoke, 4),
            (self.send_revoked, 50),
            (self.send_to_new_guard, 1),
        )
        threads = [threading.Thread(target=self._repeat, args=each) for each in rates]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            for guard in self.guards:
                guard.close()

    def _repeat(self, work: Callable[[], None], rate: float) -> None:
        while not self._stop.wait(1 / rate):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no documented refusal
                with self.model.lock:
                    self.model.wrong[f"{work.__name__}: {type(error).__name__}"] += 1


def view(headers: dict[str, str]) -> RequestView:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))


@contextmanager
def servers(kind: str, *, quick: bool, settings: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Start the servers. They are those of the tests."""
    sys.path.append(str(ROOT / "tests" / "support"))
    groups = importlib.import_module("redis_groups")
    with tempfile.TemporaryDirectory() as folder:
        timeout = {} if quick else {"node_timeout" if kind == "cluster" else "down_after": NODE_TIMEOUT}
        maker = groups.RedisCluster if kind == "cluster" else groups.SentinelTrio
        more = {} if kind == "cluster" else {"replicas": 2}
        with groups.run_group(maker(Path(folder), settings=settings, **timeout, **more)) as group:
            yield group


class Faults:
    """Failures of servers, one after the other."""

    def __init__(self, group: Any, model: Model, *, down: float, quick: bool) -> None:
        self._group, self._model, self._down, self._quick = group, model, down, quick
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._wait_for: Any = importlib.import_module("redis_groups").wait_for

    def cause(self, kind: str) -> None:
        """Cause a failure, wait until a proof is accepted again, and repair it. Note the seconds without acceptance."""
        seen = self._model.counts["new proof: granted"]
        self._wait_for(lambda: self._model.counts["new proof: granted"] > seen + LEAST)
        primary = self._group.primary_of("scopeguard:{proofs}")
        replicas = self._group.replicas_of(primary)
        victim = replicas[0] if kind == "replica killed" else primary
        server = self._group.servers[victim]
        begun = time.monotonic()
        server.freeze() if kind == "primary frozen" else server.kill()
        if victim == primary:
            if self._quick:
                self._group.replace(replicas)
            self._wait_for(lambda: any(self._is_primary(replica) for replica in replicas), seconds=120)
        if kind == "primary frozen":
            server.thaw()
        else:
            time.sleep(self._down)
            server.start()
        self._wait_for(self._group.is_whole, seconds=120)
        self._wait_for(lambda: self._model.granted_at > begun)
        with self._model.lock:
            later = [a.sent_at for a in self._model.attempts if a.accepted and a.sent_at > begun]
        gaps = [b - a for a, b in itertools.pairwise([begun, *sorted(later), time.monotonic()])]
        self.seconds[kind].append(max(gaps))

    def _is_primary(self, port: int) -> bool:
        server = self._group.servers[port]
        return bool(server.is_up and self._group.role(port) == "master")


def measure(
    kind: str = "cluster",
    *,
    minutes: float = 10,
    every: float = 30,
    replicas: int = 1,
    min_replicas: int = 0,
    quick: bool = False,
) -> dict[str, Any]:
    """Return the counts, the wrong acceptances, and the seconds without acceptance for each kind of failure."""
    settings = {"min-replicas-to-write": str(min_replicas), "min-replicas-max-lag": "1"}
    logging.disable(logging.CRITICAL)
    model = Model()
    with ExitStack() as stack:
        group = stack.enter_context(servers(kind, quick=quick, settings=settings))
        stack.enter_context(Fleet(group.url, replicas=replicas, model=model).send_in_background())
        faults = Faults(group, model, down=0.2 if quick else every / 4, quick=quick)
        end = time.monotonic() + minutes * 60
        for number, failure in enumerate(itertools.cycle(KINDS)):
            begun = time.monotonic()
            if (quick and number == len(KINDS)) or (not quick and begun + every > end):
                break
            faults.cause(failure)
            if not quick:
                time.sleep(max(0.0, begun + every - time.monotonic()))
    return {
        "servers": kind,
        "replicas": replicas,
        "min-replicas-to-write": min_replicas,
        "minutes": minutes,
        "every": every,
        "counts": dict(sorted(model.counts.items())),
        "wrong": dict(sorted(model.wrong.items())),
        "figures": [*figures(model, faults.seconds)],
    }


def figures(model: Model, seconds: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    yield figure("accepted although it must not be, or refused for no documented reason", model.wrong.total(), "0")
    for name, count in sorted(model.counts.items()):
        yield figure(name, count, "", unit="requests")
    for kind, taken in seconds.items():
        if taken:
            yield figure(f"{kind}: failures", len(taken), "")
            yield figure(f"{kind}: longest time without an accepted proof", max(taken), "", unit="s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=30)
    parser.add_argument("--servers", choices=("cluster", "sentinel"), default="cluster")
    parser.add_argument("--replicas", type=int, help="of the store; as many as each primary has, if not given")
    parser.add_argument("--min-replicas", type=int, default=0, help="the setting min-replicas-to-write of the servers")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write the results to docs/benchmarks")
    options = parser.parse_args()
    replicas = options.replicas if options.replicas is not None else 1 if options.servers == "cluster" else 2
    results = measure(
        options.servers,
        minutes=options.minutes,
        every=options.every,
        replicas=replicas,
        min_replicas=options.min_replicas,
        quick=options.quick,
    )
    rows = [[row["figure"], f"{row['value']:.4g}", row["unit"], row["must"]] for row in results["figures"]]
    print(table(f"{options.servers}, replicas = {replicas}", ["", "found", "", "must"], rows))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    for wrong, count in results["wrong"].items():
        print(f"WRONG {count} times: {wrong}")
    if options.keep:
        keep(f"failover_{options.servers}", results)
    sys.exit(1 if results["wrong"] else 0)


if __name__ == "__main__":
    main()
