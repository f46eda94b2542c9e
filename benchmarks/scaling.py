"""Measures how costs grow with the size of the token and with the number of keys, scopes, rules, issuers and cached
tokens.

    python -m benchmarks.scaling [--quick]

Times are those of the guard's check in process: *cold* for a token that is not cached, with its signature, and *warm*
for a cached one. All entries of one table take turns in one run.

Cached tokens are added to :class:`TokenCache` as the flow does it, with made-up payloads of the size and form of real
ones, because signing a million would take too long. As many as the cache keeps ready are used again, and are expected
once more. Their memory is counted by tracemalloc, with all that the cache holds, including ready tokens; the growth of
the resident set is listed beside it. The pause is that of a full collection with a million tokens, less that of one
without.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import secrets
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import issuers, rules
from benchmarks.material import AUDIENCE, SCOPES, Material
from benchmarks.measuring import Measured, Turn, figure, keep, machine, measure_in_turns, now, table
from scopeguard import Granted, Guard, HeaderList, Issuer, RequestView, all_of
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.devserver.keys import SigningKey
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import engine_of
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.token_cache import TokenCache
from scopeguard.tokens import Unverified

# Bytes of the payload of a 1 KB token with RS256.
PAYLOAD = 440
BYTES_PER_TOKEN_AT = 100_000
PAUSE_AT = 1_000_000
ROOT = Path(__file__).parent.parent


def view(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


def checks_of(guard: Guard, views: Sequence[RequestView], **arguments: Any) -> Turn:
    """Return a turn that checks one request after the other, from all *views* in turn."""
    following = itertools.cycle(views)
    if not isinstance(guard.check(views[0], **arguments), Granted):
        raise SystemExit("a good token was refused; nothing to measure")

    def turn(times: int) -> float:
        chosen = list(itertools.islice(following, times))
        begun = now()
        for each in chosen:
            guard.check(each, **arguments)
        return now() - begun

    return turn


def token_of_size(material: Material, size: int) -> str:
    """Return a token of *size* bytes, or the smallest one above that."""
    token = material.authority.mint("read", subject="s")
    missing = (size - len(token)) * 3 // 4 - len('"note":"",')
    if missing <= 0:
        return token
    return material.authority.mint("read", subject="s", claims={"note": "x" * missing})


def warm_and_cold(material: Material, token: str, arguments: dict[str, Any]) -> tuple[Turn, Turn]:
    """Return a turn of checks with a cached *token*, and one with a guard that caches nothing."""
    warm, cold = material.guard(), material.guard(token_cache="off")
    return checks_of(warm, [view(token)], **arguments), checks_of(cold, [view(token)], **arguments)


def measure_sizes(sizes: Sequence[int], rounds: int) -> dict[str, Measured]:
    material, turns = Material("ES256"), {}
    for size in sizes:
        token = token_of_size(material, size)
        name = f"token of {len(token) / 1024:.1f} KB"
        turns[f"{name}, warm"], turns[f"{name}, cold"] = warm_and_cold(material, token, {})
    return measure_in_turns(turns, rounds=rounds)


def measure_scopes(counts: Sequence[int], rounds: int) -> dict[str, Measured]:
    """Measure tokens by the number of their scopes. The route requires the last one."""
    material, turns = Material("ES256"), {}
    for count in counts:
        scopes = [f"area{number}:read" for number in range(count)]
        token = material.authority.mint(" ".join(scopes), subject="s")
        turn = warm_and_cold(material, token, {"requirement": all_of(scopes[-1])})
        turns[f"{count} scopes, warm"], turns[f"{count} scopes, cold"] = turn
    like = warm_and_cold(material, token_of_size(material, len(token)), {"requirement": all_of("read")})
    turns["1 scope in as many octets, warm"], turns["1 scope in as many octets, cold"] = like
    return measure_in_turns(turns, rounds=rounds)


class Published:
    """A transport that answers with one key set."""

    def __init__(self, keys: list[dict[str, Any]]) -> None:
        self._answer = Answer(200, json.dumps({"keys": keys}).encode(), {"content-type": "application/json"})

    def send(self, request: Send, /) -> Answer:
        return self._answer

    def close(self) -> None:
        pass


def measure_keys(counts: Sequence[int], rounds: int) -> dict[str, Measured]:
    """Measure tokens by the number of keys. The token is signed with the last key of the set."""
    material = Material("ES256")
    signer, token = material.authority.key(), material.authority.mint("read")
    others = [SigningKey.generate("ES256", kid=f"k{number}").public_jwk() for number in range(max(counts) - 1)]
    policy = KeySetPolicy(max_keys=max(counts))
    issuer = Issuer(material.issuer.url, audience=AUDIENCE, jwks_uri="https://as.test/jwks", key_set=policy)
    turns = {}
    for count in counts:
        published = Published([*others[: count - 1], signer.public_jwk()])
        guard = Guard(issuer, transport=published, token_cache="off")
        turns[f"{count} keys, cold"] = checks_of(guard, [view(token)])
    return measure_in_turns(turns, rounds=rounds)


class Made:
    """Verified tokens in the form of the flow, without signatures."""

    def __init__(self) -> None:
        guard = Material("RS256").guard()
        self.issuers = engine_of(guard).issuers
        self.record: IssuerRecord = engine_of(guard).configured_issuer()
        key_set = self.record.ring.key_set
        if key_set is None:
            raise SystemExit("the guard has no keys; nothing to measure")
        self.key = key_set.keys[0]
        self.header = {"typ": "at+jwt", "alg": "RS256", "kid": self.key.kid}
        self.now = int(time.time())

    def token(self) -> Unverified:
        claims: dict[str, Any] = {
            "iss": self.record.issuer.url,
            "exp": self.now + 3600,
            "aud": AUDIENCE,
            "sub": secrets.token_hex(12),
            "client_id": "client",
            "iat": self.now,
            "jti": secrets.token_urlsafe(12),
            "scope": SCOPES,
        }
        missing = PAYLOAD - len(json.dumps(claims)) - len('"note": "", ')
        claims["note"] = "x" * max(0, missing)
        return Unverified(
            header=self.header,
            claims=claims,
            signed=b"",
            signature=b"",
            segment=b"the header",
            payload=json.dumps(claims).encode(),
            fingerprint="0" * 12,
        )

    def remember(self, memory: TokenCache, key: bytes, token: Unverified) -> None:
        until = self.now + 3600.0
        memory.add(key, token, self.record, self.key, self.issuers, location=None, since=self.now, until=until)

    def add(self, memory: TokenCache, count: int) -> None:
        for number in range(count):
            self.remember(memory, digest(number), self.token())

    def come_again(self, memory: TokenCache, count: int) -> None:
        """Use the first *count* tokens again, so that they become ready."""
        for number in range(count):
            if memory.find(digest(number), self.now + 1.0) is None:
                raise SystemExit(f"token {number} was forgotten; the figures would be too good")


def digest(number: int) -> bytes:
    return sha256(number.to_bytes(8, "big")).digest()


def memory_for(count: int, *, ready: int = TokenCachePolicy().ready_entries) -> TokenCache:
    """Return a cache for more than *count* tokens: each of its two generations holds half of its size."""
    ready = min(ready, count)
    return TokenCache(TokenCachePolicy(max_bytes=1 << 34, max_entries=2 * count, ready_entries=ready))


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_of(made: Made, count: int, *, ready: int) -> dict[str, float]:
    """Return the bytes per token with *count* cached tokens, from tracemalloc and from the resident set."""
    memory = memory_for(count, ready=ready)
    gc.collect()
    outside = resident_bytes()
    made.add(memory, count)
    made.come_again(memory, min(ready, count))
    gc.collect()
    outside = resident_bytes() - outside
    del memory
    gc.collect()
    tracemalloc.start()
    memory = memory_for(count, ready=ready)
    made.add(memory, count)
    made.come_again(memory, min(ready, count))
    gc.collect()
    counted = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    _expect_all(memory, count, made.now)
    return {"counted": counted / count, "resident": outside / count}


def _expect_all(memory: TokenCache, count: int, now: float) -> None:
    for number in range(0, count, max(1, count // 100)):
        if memory.find(digest(number), now + 1.0) is None:
            raise SystemExit(f"token {number} of {count} was forgotten; the figures would be too good")


def costs_of(made: Made, count: int) -> dict[str, float]:
    """Return the seconds of operations with *count* cached tokens: a full collection beyond one without them,
    finding a ready token, finding a packed token, adding a token, and adding the token that evicts a whole
    generation.
    """
    gc.collect()
    without = _best(gc.collect, 5)
    memory = memory_for(count)
    gc.disable()
    made.add(memory, count)
    gc.enable()
    gc.collect()
    packed = [digest(number) for number in range(0, count, max(1, count // 2000))][:2000]
    begun = time.perf_counter()
    number = sum(memory.find(key, made.now + 1.0) is not None for key in packed)
    found = {"packed": (time.perf_counter() - begun) / number}
    made.come_again(memory, min(TokenCachePolicy().ready_entries, count))
    gc.collect()
    found["pause"] = _best(gc.collect, 5) - without
    ready = next(iter(memory._ready.young))
    found["ready"] = _best(lambda: memory.find(ready, made.now + 1.0), 2000)
    extra = [(digest(1 << 40 | number), made.token()) for number in range(4000)]
    found["add"] = _each(made, memory, extra)
    tokens = memory._packed.tokens
    tokens.old |= tokens.young  # used tokens move to the young generation; here all must be evicted at once
    tokens.young, tokens._max_entries = {}, 0
    found["turn"] = _each(made, memory, extra[:1])
    return found


def _each(made: Made, memory: TokenCache, tokens: Sequence[tuple[bytes, Unverified]]) -> float:
    begun = time.perf_counter()
    for key, token in tokens:
        made.remember(memory, key, token)
    return (time.perf_counter() - begun) / len(tokens)


def _best(work: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = now()
        work()
        taken.append(now() - begun)
    return min(taken)


def run_in_new_process(count: int, ready: int) -> dict[str, float]:
    """Run :func:`memory_of` in a new process. In this one, memory that is free already would hide the growth."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--memory", str(count), str(ready)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return dict(json.loads(run.stdout))


def measure_rules(counts: Sequence[int], rounds: int) -> dict[str, float]:
    """Return the seconds to find a rule: the smallest of several rounds."""
    found: dict[str, float] = {}
    for kind in rules.KINDS:
        rows = [rules.row(kind, count) for count in counts]
        for _ in range(rounds):
            for row in rows:
                row.measure()
        found |= {f"{kind.what}, {count:,} rules": min(row.rounds) for count, row in zip(counts, rows, strict=True)}
    return found


def measure_issuers(counts: Sequence[int], loops: int) -> dict[str, dict[str, float]]:
    return {
        f"{count:,} issuers": {"bytes": row.bytes_each, "routing": row.routing, "check": row.check}
        for count in counts
        for row in [issuers.measure(count, loops=loops)]
    }


def measure(*, quick: bool) -> dict[str, Any]:
    logging.getLogger("scopeguard").setLevel(logging.ERROR)
    rounds = 5 if quick else 30
    sizes = {
        **measure_sizes([512, 1024, 16_000] if quick else [512, 1024, 2048, 4096, 8192, 16_000], rounds),
        **measure_keys([1, 50] if quick else [1, 10, 100, 1000], rounds),
        **measure_scopes([1, 500] if quick else [1, 5, 50, 500], rounds),
    }
    made = Made()
    at, pause_at = (2_000, 5_000) if quick else (BYTES_PER_TOKEN_AT, PAUSE_AT)
    counts = [100, pause_at] if quick else [100, 1_000, 10_000, 100_000, pause_at]
    results: dict[str, Any] = {
        "times": {name: {"smallest": m.smallest, "median": m.median} for name, m in sizes.items()},
        "rules": measure_rules((10, 100) if quick else (10, 100, 1000, 10_000), 3 if quick else 21),
        "issuers": measure_issuers((1, 10) if quick else (1, 10, 100, 1000), 20 if quick else 2000),
        "memory": {"at": at, **run_in_new_process(at, TokenCachePolicy().ready_entries)},
        "packed memory": {"at": at, **run_in_new_process(at, 2)},
        "remembered": {str(count): costs_of(made, count) for count in counts},
    }
    return {**results, "figures": list(figures(results, str(pause_at)))}


def figures(results: dict[str, Any], most: str) -> Iterator[dict[str, Any]]:
    memory, at = results["memory"], results["memory"]["at"]
    yield figure(
        f"memory per remembered token at {at:,}, all in (tracemalloc)", memory["counted"] / 1000, "<= 0.7", unit="KB"
    )
    yield figure(f"the same, growth of the resident set at {at:,}", memory["resident"] / 1000, "", unit="KB")
    packed = results["packed memory"]["counted"] / 1000
    yield figure(f"the same of packed tokens alone at {at:,} (tracemalloc)", packed, "", unit="KB")
    pause = results["remembered"][most]["pause"]
    yield figure(f"pause of a full collection at {int(most):,} remembered tokens", pause, "<= 0.35", unit="s")
    times = {name: row["smallest"] for name, row in results["times"].items()}
    keys = [seconds for name, seconds in times.items() if name.endswith("keys, cold")]
    yield figure("a set with the most keys ÷ one with a single key, cold", keys[-1] / keys[0], "", unit="ratio")
    for kind in ("warm", "cold"):
        most_scopes = next(name for name in reversed(times) if name.endswith(f"scopes, {kind}"))
        like = times[f"1 scope in as many octets, {kind}"]
        yield figure(f"{most_scopes} ÷ one in as many octets", times[most_scopes] / like, "", unit="ratio")


def render(results: dict[str, Any]) -> Iterator[str]:
    rows = [[row["figure"], f"{row['value']:.3f}", row["unit"], row["must"]] for row in results["figures"]]
    yield table("Scaling", ["", "found", "", "must"], rows)
    times = [[n, f"{row['smallest'] * 1e6:.1f}", f"{row['median'] * 1e6:.1f}"] for n, row in results["times"].items()]
    yield table("One check", ["", "min µs", "median µs"], times)
    found = [[name, f"{seconds * 1e6:.2f}"] for name, seconds in results["rules"].items()]
    yield table("Finding a rule", ["", "min µs"], found)
    issuers = [
        [name, f"{row['bytes']:.0f}", f"{row['routing'] * 1e6:.2f}", f"{row['check'] * 1e6:.0f}"]
        for name, row in results["issuers"].items()
    ]
    yield table("Issuers", ["", "bytes each", "routing µs", "check µs"], issuers)
    remembered = [
        [
            f"{int(count):,}",
            *(f"{row[name] * 1e3:.1f}" for name in ("pause", "turn")),
            *(f"{row[name] * 1e6:.1f}" for name in ("ready", "packed", "add")),
        ]
        for count, row in results["remembered"].items()
    ]
    columns = ("pause ms", "drop all ms", "find ready µs", "find packed µs", "add µs")
    yield table("Remembered tokens", ["", *columns], remembered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", nargs=2, type=int, metavar=("COUNT", "READY"), help="this alone, as JSON")
    options = parser.parse_args()
    if options.memory:
        logging.getLogger("scopeguard").setLevel(logging.ERROR)
        count, ready = options.memory
        print(json.dumps(memory_of(Made(), count, ready=ready)))
        return
    results = measure(quick=options.quick)
    for part in render(results):
        print(part)
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("scaling", results)


if __name__ == "__main__":
    main()
