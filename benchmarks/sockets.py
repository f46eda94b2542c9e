"""Measures requests per second through real servers, protected and bare: uvicorn with one worker, gunicorn with one
worker of threads.

    python -m benchmarks.sockets [--rounds N] [--seconds S] [NAME ...]

``wrk`` sends the requests over 32 connections. All servers run, and take turns, so a ratio is within one round. *Warm*:
one token. *Cold*: no token is cached; the bare app gets the same tokens. On a busy machine, use the last column too,
the processor time of the server for a request. Without ``wrk``, nothing is measured, and a line says so.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import contestants
from benchmarks.contestants import COLD, Contestant, all_contestants
from benchmarks.material import Material
from benchmarks.measuring import Ratio, figure, machine, quiet, table

ROOT = Path(__file__).parent.parent
CONNECTIONS = 32
STARLETTE = (
    "Starlette",
    "Starlette + scopeguard",
    "Starlette, digest alone",
    "Starlette, signature alone",
    "Starlette + PyJWT by hand",
    "Starlette + fastmcp",
)
FLASK = ("Flask", "Flask + scopeguard", "Flask + PyJWT by hand", "Flask + Authlib")
ALONE = {
    "warm": ("Starlette, digest alone", "where the token is found, hashed and shown, and nothing judged"),
    "cold": ("Starlette, signature alone", "with the check of the signature alone"),
}
QUICK = ("Starlette", "Starlette + scopeguard", "Starlette + PyJWT by hand")
ABSENT = "Not measured over sockets: there is no wrk (on Debian: apt install wrk)."

# The script prepares a request for each token, and prints its results in one line.
SCRIPT = """
local requests, at = {}, 0
function init(arguments)
  for token in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", "/rows", {Authorization = "Bearer " .. token})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format("found %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


Server = subprocess.Popen[bytes]


@dataclass(frozen=True, kw_only=True)
class Load:
    """The results of ``wrk`` for one turn. Times are in seconds."""

    per_second: float
    median: float
    p99: float
    processor: float  # the processor time of the server for one request


def app() -> Any:
    """Return the app of the contestant that the environment names. The servers import it."""
    algorithm, key_file = os.environ["BENCH_ALGORITHM"], Path(os.environ["BENCH_KEYS"])
    quiet()
    all_of_them, _ = all_contestants(algorithm)
    wanted = next(each for each in all_of_them if each.name == os.environ["BENCH_APP"])
    cold = "BENCH_COLD" in os.environ
    return wanted.app(Material(algorithm, key_file=key_file, settings=COLD if cold else {}))


@contextmanager
def serving(contestant: Contestant, environment: Mapping[str, str]) -> Iterator[tuple[int, Server]]:
    """Start a server with *contestant*, and yield it with its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if contestant.wsgi:
        command = ["gunicorn", "--workers=1", "--worker-class=gthread", "--threads=4", "--keep-alive=60"]
        command += ["--no-control-socket", "--log-level=error", f"--bind=127.0.0.1:{port}", "benchmarks.sockets:app()"]
    else:
        command = ["uvicorn", "--factory", "--no-access-log", "--log-level=error", f"--port={port}"]
        command += ["benchmarks.sockets:app"]
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env={**os.environ, **environment, "BENCH_APP": contestant.name},
        cwd=ROOT,
    ) as process:
        try:
            yield port, process
        finally:
            process.terminate()
            process.wait(timeout=20)


def processor_time(pid: int) -> float:
    """Return the seconds that a server and its workers have used. Without /proc, return 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(processor_time(int(worker)) for worker in workers)


def answered(name: str, port: int, token: str, process: Server) -> None:
    """Wait until the server answers a good token, and so has fetched its keys."""
    until = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/rows", headers={"Authorization": f"Bearer {token}"})
            status = connection.getresponse().status
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name}: the server did not start") from error
            time.sleep(0.1)
        else:
            if status != 200:
                raise SystemExit(f"{name}: the response to a good token was {status}")
            return
        finally:
            connection.close()


def loaded(server: Server, port: int, script: Path, tokens: Path, seconds: float) -> Load:
    """Run ``wrk`` for one turn."""
    before = processor_time(server.pid)
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds:g}s", f"--script={script}"]
    run = subprocess.run(
        [*command, f"http://127.0.0.1:{port}", "--", str(tokens)],
        capture_output=True,
        text=True,
        check=False,
    )
    line = next((line for line in run.stdout.splitlines() if line.startswith("found ")), None)
    if line is None:
        raise SystemExit(f"wrk: {run.stderr or run.stdout}")
    requests, duration, median, p99, errors = map(int, line.split()[1:])
    if errors:
        raise SystemExit(f"wrk: {errors} of {requests} requests failed")
    return Load(
        per_second=requests / duration * 1e6,
        median=median / 1e6,
        p99=p99 / 1e6,
        processor=(processor_time(server.pid) - before) / requests,
    )


def compared(taking_part: Sequence[Contestant], *, cold: bool, rounds: int, seconds: int) -> dict[str, list[Load]]:
    """Measure all contestants in turns, with RS256."""
    found: dict[str, list[Load]] = {contestant.name: [] for contestant in taking_part}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        material = Material("RS256", key_file=folder / "keys.json")
        script = folder / "load.lua"
        script.write_text(SCRIPT, "utf-8")
        # Rounds alternate between two halves, so the last tokens of one round are not the first of the next.
        tokens = material.tokens(contestants.COLD_TOKENS if cold else 1)
        halves = [tokens[0::2], tokens[1::2]] if cold else [tokens]
        files = [folder / f"tokens{number}" for number in range(len(halves))]
        for file, half in zip(files, halves, strict=True):
            file.write_text("\n".join(half) + "\n", "utf-8")
        environment = {"BENCH_ALGORITHM": "RS256", "BENCH_KEYS": str(material.key_file)}
        if cold:
            environment["BENCH_COLD"] = "1"
        material.authority.key()  # writes the key to the file
        servers = {each.name: stack.enter_context(serving(each, environment)) for each in taking_part}
        for name, (port, process) in servers.items():
            answered(name, port, material.token(), process)
        for number in range(rounds):
            for name, (port, process) in servers.items():
                found[name].append(loaded(process, port, script, files[number % len(files)], seconds))
    return found


def described(taking_part: Sequence[Contestant], found: Mapping[str, Sequence[Load]]) -> dict[str, dict[str, Any]]:
    """Return each contestant compared with its base: requests per second and the 99th percentile."""
    rows = {}
    for contestant in taking_part:
        pairs = list(zip(found[contestant.name], found[contestant.base], strict=True))
        ratio = Ratio.of([mine.per_second / base.per_second for mine, base in pairs])
        rows[contestant.name] = {
            "base": contestant.base,
            "peer": contestant.peer,
            "per_second": statistics.median(mine.per_second for mine, _ in pairs),
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "p50": statistics.median(mine.median for mine, _ in pairs),
            "p99": statistics.median(mine.p99 for mine, _ in pairs),
            "p99_ratio": statistics.median(mine.p99 / base.p99 for mine, base in pairs),
            "processor": statistics.median(mine.processor for mine, _ in pairs),
        }
    return rows


def figures(kind: str, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures of uvicorn, and those of gunicorn and of the 99th percentile beside them."""
    lines = []
    for server, base, ours, must in (
        ("uvicorn", "Starlette", "Starlette + scopeguard", {"warm": ">= 0.93", "cold": ">= 0.55"}),
        ("gunicorn", "Flask", "Flask + scopeguard", {"warm": "", "cold": ""}),
    ):
        if ours not in rows:
            continue
        of_peers = [(row["ratio"], name) for name, row in rows.items() if row["peer"] and row["base"] == base]
        best, best_name = max(of_peers, default=(None, ""))
        title = f"{server}, one worker, protected ÷ bare requests per second, {kind} RS256"
        lines.append(figure(title, rows[ours]["ratio"], must[kind], peer=best, peer_name=best_name))
        least, what = ALONE[kind]
        if base == "Starlette" and least in rows:
            lines.append(figure(f"{server}, the same {what}", rows[least]["ratio"], ""))
        slowest = [row["p99_ratio"] for row in rows.values() if row["peer"] and row["base"] == base]
        ours_, bare = rows[ours]["processor"], rows[base]["processor"]
        if ours_:
            title = f"{server}, processor time of bare ÷ protected, {kind} RS256"
            lines.append(figure(title, bare / ours_, ""))
        title = f"{server}, p99 of protected ÷ p99 of bare, {kind}"
        lines.append(figure(title, rows[ours]["p99_ratio"], "", peer=min(slowest, default=None)))
    return lines


def measured(*, quick: bool, rounds: int | None = None, seconds: int = 2, names: Sequence[str] = ()) -> dict[str, Any]:
    """Measure uvicorn and gunicorn, warm and cold. Without ``wrk``, return no results."""
    if shutil.which("wrk") is None:
        return {"absent": ABSENT, "figures": []}
    rounds = rounds or (2 if quick else 8)
    all_of_them, _ = all_contestants("RS256")
    names = names or (QUICK if quick else STARLETTE + FLASK)
    wanted = [each for each in all_of_them if each.name in names]
    results: dict[str, Any] = {"figures": []}
    for kind in ("warm", "cold"):
        found = compared(wanted, cold=kind == "cold", rounds=rounds, seconds=1 if quick else seconds)
        results[kind] = described(wanted, found)
        results["figures"] += figures(kind, results[kind])
    return results


def shown(kind: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ["", "requests/s", "÷ bare, median (middle half)", "p50 ms", "p99 ms", "p99 ÷ bare", "processor µs"]
    lines = [
        [
            name,
            f"{row['per_second']:,.0f}",
            "" if name == row["base"] else f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['p50'] * 1e3:.2f}",
            f"{row['p99'] * 1e3:.2f}",
            "" if name == row["base"] else f"{row['p99_ratio']:.2f}",
            f"{row['processor'] * 1e6:.0f}",
        ]
        for name, row in rows.items()
    ]
    return table(f"Over sockets, {CONNECTIONS} connections, {kind}, RS256", columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of contestants, with the bare one; the usual ones if none")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=2, help="of one turn")
    options = parser.parse_args()
    quiet()
    results = measured(quick=False, rounds=options.rounds, seconds=options.seconds, names=options.names)
    if "absent" in results:
        print(results["absent"])
        return
    for kind in ("warm", "cold"):
        print(shown(kind, results[kind]))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
