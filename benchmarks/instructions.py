"""Counts the processor instructions of the two hot paths, and compares them with the recorded counts.

    python -m benchmarks.instructions            # count; fail if a path takes over 5 % more than recorded
    python -m benchmarks.instructions --keep     # count, and record the counts
    python -m benchmarks.instructions --runs 3   # count three times, to see how far the counts differ

Times vary by a third on a busy machine. Instructions, as callgrind counts them, vary by a fraction of a per cent. The
paths are a *warm* request through the ASGI middleware, with a cached token, and a *cold* decision about a new RS256
token. The arithmetic of the signature is not counted: the instructions that OpenSSL takes depend on the processor. For
the same reason, OpenSSL and the C library use only instructions that every x86-64 processor has. One process runs both
paths, with N requests and with 2N. The difference, divided by N, is the cost of one request without start and end.

A record in ``instructions.json`` is valid for one build of Python, because compilers differ by more than 5 %. For
another build, or without valgrind, nothing is compared, and a line says so. Missing valgrind is a failure in CI.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, MutableMapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measuring import figure, table

ROOT = Path(__file__).parent.parent
MEASURE = Path(__file__).with_suffix(".json")
MORE = 0.05
TIMES = 40
AUDIENCE = "https://api.example.com"
SCOPE = "https://www.googleapis.com/auth/bigquery.insertdata"
Message = MutableMapping[str, Any]
PATHS = ("warm ASGI request", "cold RS256 judgement")
# A function of the C library without other uses here. Callgrind writes its counts, and starts again from zero, whenever
# it is called.
MARK = "getpgrp"


def place() -> str:
    """Return the build of Python and the kind of machine for which a record is valid."""
    return f"{platform.python_implementation()} {' '.join(sys.version.split())}, {platform.machine()}"


def valgrind() -> str:
    """Return the version of valgrind, empty if it is not installed."""
    found = shutil.which("valgrind")
    if found is None:
        return ""
    run = subprocess.run([found, "--version"], check=False, capture_output=True, text=True)
    return run.stdout.strip()


def tools() -> str:
    """Return the versions of other software on which the counts depend."""
    return ", ".join([valgrind(), *(f"{name} {version(name)}" for name in ("PyJWT", "cryptography"))])


def count_instructions(
    times: int = TIMES, *, module: str = "benchmarks.instructions", paths: Sequence[str] = PATHS
) -> dict[str, float]:
    """Return the instructions of one request of each of *paths*, in whose order ``python -m`` *module* serves them."""
    with tempfile.TemporaryDirectory() as folder:
        material = Path(folder, "material.json")
        material.write_text(json.dumps(prepare(3 * times)), "utf-8")
        serving = [sys.executable, "-m", module, "--run", str(material), "--times", str(times)]
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", f"--dump-before={MARK}"]
        # The first run, without callgrind, compiles the bytecode.
        for command in (serving, callgrind + serving):
            run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=_environment())
            if run.returncode != 0:
                raise SystemExit(f"{command[0]} failed:\n{run.stderr[-2000:]}")
        # out.1 has the counts before the first mark, out.2 those between the first and the second.
        series = [_total(Path(folder, f"out.{number}")) for number in range(2, 2 + 2 * len(paths))]
    once, twice = series[0::2], series[1::2]
    return {name: (b - a) / times for name, a, b in zip(paths, once, twice, strict=True)}


def _environment() -> dict[str, str]:
    """Return an environment that does not depend on the processor."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {
        "PYTHONHASHSEED": "0",
        "OPENSSL_ia32cap": "0:0",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load",
        "LC_ALL": "C.UTF-8",
    }


def _total(path: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", path.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"callgrind wrote no total: {path.name}")
    return int(found[1])


# -- the counted paths


def prepare(count: int) -> dict[str, Any]:
    """Return prepared keys and tokens, because preparing them under callgrind would take fifty times as long."""
    from benchmarks.material import Material

    material = Material("RS256")
    return {
        "issuer": material.issuer.url,
        "now": material.authority.clock.wall(),
        "key": material.authority.key().public_jwk(),
        "tokens": material.tokens(count + 1),
    }


class Still:
    """A clock that stands still."""

    def __init__(self, now: float) -> None:
        self._now = now

    def wall(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return 1000.0


def run(material: dict[str, Any], times: int) -> None:
    """Run both series of both paths under callgrind, with a mark before and after each."""
    from scopeguard import Guard, Issuer
    from scopeguard.spec.jwks import VerificationKey

    issuer = Issuer(material["issuer"], audience=AUDIENCE, keys={"keys": [material["key"]]})
    warm, cold = (sender_for(Guard(issuer, clock=Still(material["now"]), audit="off")) for _ in PATHS)
    first, *tokens = material["tokens"]
    warm([http_request(first)])
    any_key: Any = VerificationKey
    any_key.verify = lambda self, algorithm, signed, signature: True  # the arithmetic is not counted
    cold([http_request(first)])
    series = [
        (serve, [http_request(token) for token in chosen])
        for serve, chosen in (
            (warm, [first] * times),
            (warm, [first] * 2 * times),
            (cold, tokens[:times]),
            (cold, tokens[times : 3 * times]),
        )
    ]
    mark_each(series)


def mark_each(series: Sequence[tuple[Callable[[list[Message]], None], list[Message]]]) -> None:
    """Serve each of *series*, with a mark before and after it."""
    gc.collect()
    gc.disable()
    os.getpgrp()
    for serve, scopes in series:
        serve(scopes)
        os.getpgrp()


def http_request(token: str) -> Message:
    """Return an HTTP request in the form of uvicorn."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/rows",
        "raw_path": b"/rows",
        "query_string": b"",
        "headers": [
            (b"host", b"api.example.com"),
            (b"user-agent", b"loader/1.0"),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip, deflate"),
            (b"connection", b"keep-alive"),
            (b"x-request-id", b"5f1c2e0a7a1e4b7e"),
            (b"authorization", b"Bearer " + token.encode()),
            (b"content-type", b"application/json"),
        ],
        "state": {},
    }


def sender_for(guard: Any) -> Callable[[list[Message]], None]:
    """Return a function that sends requests through the middleware without an event loop, because nothing in them
    waits.
    """
    from scopeguard import Rule, Rules, all_of
    from scopeguard.asgi import GuardMiddleware

    statuses: list[int] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    middleware = GuardMiddleware(app, guard=guard, rules=Rules([Rule("/rows", all_of(SCOPE), methods=["GET"])]))

    def serve(scopes: list[Message]) -> None:
        statuses.clear()
        for scope in scopes:
            try:
                middleware(scope, receive, send).send(None)
            except StopIteration:
                pass
        if statuses != [200] * len(scopes):
            raise SystemExit(f"not every request was granted: {statuses}")

    return serve


# -- the comparison


def compare(found: dict[str, float], record: dict[str, Any]) -> list[str]:
    """Return a problem for each path that takes over 5 % more instructions than *record* has."""
    problems = []
    for name in PATHS:
        more = found[name] / record[name] - 1
        if more > MORE:
            problems.append(
                f"{name}: {found[name]:,.0f} instructions, {more:+.1%} over the {record[name]:,} of {MEASURE.name}; "
                "reduce them, or justify and record the new count: make instructions KEEP=--keep"
            )
    return problems


def load_counts() -> dict[str, Any]:
    """Return the recorded counts by place."""
    return dict(json.loads(MEASURE.read_text("utf-8"))) if MEASURE.exists() else {}


def keep(found: dict[str, float]) -> None:
    """Record *found* for this place."""
    everywhere = load_counts() | {place(): {**{name: round(found[name]) for name in PATHS}, "tools": tools()}}
    MEASURE.write_text(json.dumps(everywhere, indent=1, sort_keys=True) + "\n", "utf-8")


def measure(*, quick: bool) -> dict[str, Any]:
    """Return the counts on this machine."""
    if not valgrind():
        return {"instructions": {}, "figures": []}
    found = count_instructions(5 if quick else TIMES)
    record = load_counts().get(place(), {})
    return {
        "instructions": found,
        "kept": record,
        "figures": [
            figure(
                f"instructions, {name}",
                found[name],
                f"<= {record[name] * (1 + MORE):.0f}" if name in record else "",
                unit="instructions",
            )
            for name in PATHS
        ],
    }


def gate() -> int:
    """Return the exit status of ``make instructions``: 1 if a path became more expensive or, in CI, if valgrind is
    missing.
    """
    if not valgrind():
        print("instructions were not counted: valgrind is not installed (make system installs it)")
        return 1 if os.environ.get("CI") else 0
    record = load_counts().get(place())
    if record is None:
        print(f"instructions were not counted: {MEASURE.name} has no record for {place()}")
        return 0
    found = count_instructions()
    rows = [
        [name, f"{found[name]:,.0f}", f"{record[name]:,}", f"{found[name] / record[name] - 1:+.2%}"] for name in PATHS
    ]
    print(table("Instructions per request", ["", "now", "recorded", "change"], rows))
    if record["tools"] != tools():
        print(f"\nrecorded with {record['tools']}, counted with {tools()}")
    problems = compare(found, record)
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--run", type=Path, help="for callgrind: serve the requests in this file")
    options = parser.parse_args()
    if options.run:
        run(json.loads(options.run.read_text("utf-8")), options.times)
    elif options.runs:
        runs = [count_instructions(options.times) for _ in range(options.runs)]
        spread = {name: max(r[name] for r in runs) / min(r[name] for r in runs) - 1 for name in PATHS}
        rows = [[name, *(f"{r[name]:,.0f}" for r in runs), f"{spread[name]:.2%}"] for name in PATHS]
        print(table("Instructions per request", ["", *(f"run {n + 1}" for n in range(options.runs)), "spread"], rows))
    elif options.keep:
        keep(count_instructions(options.times))
        print(f"{MEASURE.name}: {load_counts()[place()]}")
    else:
        raise SystemExit(gate())


if __name__ == "__main__":
    main()
