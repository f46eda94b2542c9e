"""Measures the processor time of requests through real servers: uvicorn, granian and gunicorn, one worker each.

    python -m benchmarks.sockets [--seconds S] [--server NAME] [NAME ...]

``wrk`` sends the requests over 32 connections. Three loads: *known*, one token again and again, as clients with client
credentials send it; *new*, tokens that are not cached; and *mixed*, 95 % of the requests with one of fifty known tokens
and 5 % with a new one. The app that is not protected gets the same requests.

All contestants are in one server and take turns (``benchmarks.blocks``), so they share its memory layout, its core and
its load. The figure is the processor time of the server for one request. Requests per second are given beside it.

The server has a core of its own, and so has ``wrk``, with a process of the lowest priority (``SCHED_IDLE``) that keeps
this core from falling asleep. Without that process, each response wakes the sleeping core of ``wrk`` whenever the
server is the slower of the two, and the server pays for this: protected apps seemed slower than they are. With a single
core, or on systems other than Linux, nothing is pinned, and a line says so. Without ``wrk``, nothing is measured, and a
line says so.
"""

from __future__ import annotations

import argparse
import http.client
import json
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

from benchmarks import blocks
from benchmarks.contestants import Contestant, all_contestants
from benchmarks.material import Material
from benchmarks.measuring import Ratio, figure, machine, silence, table

ROOT = Path(__file__).parent.parent
CONNECTIONS = 32
# More than a block has requests, so that no token comes twice in one block.
NEW_TOKENS = 1000
# On a slow machine, the load is repeated until every contestant has had this many turns.
LEAST_CYCLES, MOST_RUNS = 5, 10
KNOWN_TOKENS = 50
LOADS = ("known", "new", "mixed")
SERVERS = ("uvicorn", "granian", "gunicorn")
STARLETTE = (
    "Starlette",
    "Starlette + scopeguard",
    "Starlette + scopeguard, fast",
    "Starlette in scopeguard, by rules",
    "Starlette, digest alone",
    "Starlette, signature alone",
    "Starlette + PyJWT by hand",
    "Starlette + fastmcp",
    "Starlette + jwks-client",
    "Starlette + authplane-sdk",
)
FLASK = ("Flask", "Flask + scopeguard", "Flask + scopeguard, fast", "Flask + PyJWT by hand", "Flask + Authlib")
# The least that a middleware has to do. Each belongs to one load.
ALONE = {"Starlette, digest alone": "known", "Starlette, signature alone": "new"}
QUICK = ("Starlette", "Starlette + scopeguard", "Starlette + PyJWT by hand")
ABSENT = "Not measured over sockets: there is no wrk (on Debian: apt install wrk)."
UNPINNED = "Over sockets, nothing was pinned to a core: that needs Linux and two cores. The figures are rough."

# Sends one request for each line of a file, in their order, and prints the results in one line.
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
  print(string.format("found %d %d", summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Becomes the command after its first argument, on the core that this names.
PIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"
# Ends with the process that started it.
SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """The cores of the server and of the load generator, or ``None`` if nothing is pinned."""

    server: int | None = None
    generator: int | None = None

    @classmethod
    def choose(cls) -> Cores:
        if not hasattr(os, "sched_getaffinity") or not hasattr(os, "SCHED_IDLE"):
            return cls()
        cores = sorted(os.sched_getaffinity(0))
        return cls(server=cores[0], generator=cores[-1]) if len(cores) > 1 else cls()

    @staticmethod
    def pin(core: int | None, command: Sequence[str]) -> list[str]:
        return list(command) if core is None else [sys.executable, "-c", PIN, str(core), *command]


@contextmanager
def awake(core: int | None) -> Iterator[None]:
    """Keep *core* from falling asleep, with a process that runs only while nothing else wants to."""
    if core is None:
        yield
        return
    with subprocess.Popen(Cores.pin(core, [sys.executable, "-c", SPIN])) as process:
        try:
            yield
        finally:
            process.kill()


def command_of(server: str, port: int) -> list[str]:
    """Return the command that starts *server* with one worker."""
    commands = {
        "uvicorn": [
            "--factory", "--no-access-log", "--log-level=error", f"--port={port}", "benchmarks.blocks:asgi_app",
        ],
        "granian": [
            "--factory", "--interface=asgi", "--workers=1", "--no-ws", "--log-level=error", "--host=127.0.0.1",
            f"--port={port}", "benchmarks.blocks:asgi_app",
        ],
        "gunicorn": [
            "--workers=1", "--worker-class=gthread", "--threads=4", "--keep-alive=60", "--no-control-socket",
            "--log-level=error", f"--bind=127.0.0.1:{port}", "benchmarks.blocks:wsgi_app()",
        ],
    }  # fmt: skip
    return [sys.executable, "-m", server, *commands[server]]


@contextmanager
def serve(server: str, names: Sequence[str], key_file: Path, core: int | None) -> Iterator[int]:
    """Start *server* with the contestants of these *names*, and yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {**os.environ, blocks.NAMES: json.dumps(names), blocks.KEYS: str(key_file)}
    with subprocess.Popen(Cores.pin(core, command_of(server, port)), env=environment, cwd=ROOT) as process:
        try:
            _wait(server, port, process)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=20)


def fetch(port: int, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Send one request and return the status and the body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _wait(server: str, port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            fetch(port, blocks.PLACE)
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{server}: the server did not start") from error
            time.sleep(0.1)
        else:
            return


def examine(taking_part: Sequence[Contestant], port: int, material: Material) -> None:
    """End this run if a contestant refuses a good token, or accepts a bad one. They also fetch their keys here."""
    bad = material.bad_tokens()
    for number, contestant in enumerate(taking_part):
        status, _ = fetch(port, f"/{number}/rows", material.token())
        if status != 200:
            raise SystemExit(f"{contestant.name}: the response to a good token was {status}")
        for what, token in bad.items() if contestant.guards else ():
            status, _ = fetch(port, f"/{number}/rows", token)
            # Flask-JWT-Extended answers 422 for a wrong audience or signature.
            if status not in {400, 401, 403, 422}:
                raise SystemExit(f"{contestant.name}: a token {what} was answered {status}")


def tokens_of(load: str, material: Material) -> list[str]:
    """Return the tokens of a load in the order of its requests."""
    if load == "known":
        return [material.token()]
    new = material.tokens(NEW_TOKENS)
    if load == "new":
        return new
    known = material.tokens(KNOWN_TOKENS)
    return [token for number, one in enumerate(new) for token in (*_nineteen(known, number), one)]


def _nineteen(known: Sequence[str], number: int) -> list[str]:
    return [known[(number * 19 + place) % len(known)] for place in range(19)]


def send(port: int, script: Path, tokens: Path, seconds: float, core: int | None) -> None:
    """Run ``wrk``. End this run if a request failed."""
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds:g}s", f"--script={script}"]
    command += [f"http://127.0.0.1:{port}", "--", str(tokens)]
    run = subprocess.run(Cores.pin(core, command), capture_output=True, text=True, check=False)
    line = next((line for line in run.stdout.splitlines() if line.startswith("found ")), None)
    if line is None:
        raise SystemExit(f"wrk: {run.stderr or run.stdout}")
    requests, errors = map(int, line.split()[1:])
    if errors:
        raise SystemExit(f"wrk: {errors} of {requests} requests failed")


Measurement = list[dict[int, tuple[float, float]]]
"""For each contestant, the processor time and the real time of one request in microseconds, by cycle."""


def compare(server: str, taking_part: Sequence[Contestant], load: str, *, seconds: float, cores: Cores) -> Measurement:
    """Measure *taking_part* in one server, with RS256."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        material = Material("RS256", key_file=folder / "keys.json")
        material.authority.key()  # writes the key to the file
        script, tokens = folder / "load.lua", folder / "tokens"
        script.write_text(SCRIPT, "utf-8")
        tokens.write_text("\n".join(tokens_of(load, material)) + "\n", "utf-8")
        names = [each.name for each in taking_part]
        assert material.key_file is not None
        port = stack.enter_context(serve(server, names, material.key_file, cores.server))
        examine(taking_part, port, material)
        stack.enter_context(awake(cores.generator))
        found: Measurement = []
        for _ in range(MOST_RUNS):
            send(port, script, tokens, seconds, cores.generator)
            measurements = json.loads(fetch(port, blocks.PLACE)[1])
            found = [{int(cycle): (one[0], one[1]) for cycle, one in each.items()} for each in measurements]
            if len(cycles_of(found)) >= LEAST_CYCLES:
                break
    return found


def cycles_of(found: Measurement) -> list[int]:
    """Return the cycles that all contestants completed."""
    return sorted(set.intersection(*(set(each) for each in found)))


def describe(taking_part: Sequence[Contestant], found: Measurement) -> dict[str, dict[str, Any]]:
    """Return each contestant compared with its base, within each cycle that all of them completed."""
    cycles = cycles_of(found)
    if not cycles:
        raise SystemExit("the servers answered too few requests: not every contestant had a turn; use more --seconds")
    places = {each.name: number for number, each in enumerate(taking_part)}
    rows = {}
    for number, contestant in enumerate(taking_part):
        base = found[places[contestant.base]]
        mine = found[number]
        ratio = Ratio.of([base[cycle][0] / mine[cycle][0] for cycle in cycles])
        added = [mine[cycle][0] - base[cycle][0] for cycle in cycles]
        rows[contestant.name] = {
            "base": contestant.base,
            "peer": contestant.peer,
            "processor": statistics.median(mine[cycle][0] for cycle in cycles) / 1e6,
            "added": statistics.median(added),
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "per_second": 1e6 / statistics.median(mine[cycle][1] for cycle in cycles),
            "blocks": len(cycles),
        }
    return rows


WORDS = {"known": "known tokens", "new": "new tokens", "mixed": "95 % known and 5 % new tokens"}
MUST = {
    ("uvicorn", "known", ""): ">= 0.85",
    ("uvicorn", "new", ""): ">= 0.45",
    ("uvicorn", "new", ", fast"): ">= 0.5",
    ("uvicorn", "mixed", ""): "<= 14",
    ("uvicorn", "mixed", ", fast"): "<= 12",
}


def figures(server: str, load: str, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures of a server and a load: bare ÷ protected processor time, for *mixed* the difference."""
    base = "Flask" if server == "gunicorn" else "Starlette"
    mixed = load == "mixed"
    key, best_of = ("added", min) if mixed else ("ratio", max)
    what = "processor time added to a request" if mixed else "processor time, bare ÷ protected"
    best, best_name = best_of(((row[key], name) for name, row in rows.items() if row["peer"]), default=(None, ""))
    lines = []
    unit = "µs" if mixed else ""
    for name, variant in (
        (f"{base} + scopeguard", ""),
        (f"{base} in scopeguard, by rules", ""),
        (f"{base} + scopeguard, fast", ", fast"),
    ):
        if name in rows:
            title = f"{server}, {WORDS[load]}, {name}: {what}"
            must = MUST.get((server, load, variant), "")
            lines.append(figure(title, rows[name][key], must, unit=unit, peer=best, peer_name=best_name))
    for name, only in ALONE.items():
        if name in rows and load == only:
            lines.append(figure(f"{server}, {WORDS[load]}, {name}: {what}", rows[name][key], "", unit=unit))
    return lines


def choose(server: str, load: str, names: Sequence[str]) -> list[Contestant]:
    """Return the contestants with one of *names* that take part in this server and load."""
    all_of_them, _ = all_contestants("RS256")
    return [
        each
        for each in all_of_them
        if each.name in names and each.wsgi == (server == "gunicorn") and ALONE.get(each.name, load) == load
    ]


def measure(
    *, quick: bool, seconds: float = 16, names: Sequence[str] = (), servers: Sequence[str] = SERVERS
) -> dict[str, Any]:
    """Measure each server with each load. Without ``wrk``, return no results."""
    if shutil.which("wrk") is None:
        return {"absent": ABSENT, "figures": []}
    cores = Cores.choose()
    results: dict[str, Any] = {"figures": []} | ({"absent": UNPINNED} if cores.server is None else {})
    for server in servers:
        for load in LOADS:
            taking_part = choose(server, load, names or (QUICK if quick else STARLETTE + FLASK))
            if len(taking_part) < 2:
                continue
            found = compare(server, taking_part, load, seconds=5 if quick else seconds, cores=cores)
            rows = describe(taking_part, found)
            results.setdefault(server, {})[load] = rows
            results["figures"] += figures(server, load, rows)
    return results


def render(server: str, load: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ["", "processor µs", "added µs", "bare ÷ this, median (middle half)", "requests/s", "turns"]
    lines = [
        [
            name,
            f"{row['processor'] * 1e6:.1f}",
            "" if name == row["base"] else f"{row['added']:.1f}",
            "" if name == row["base"] else f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            f"{row['per_second']:,.0f}",
            str(row["blocks"]),
        ]
        for name, row in rows.items()
    ]
    return table(f"{server}, {WORDS[load]}, RS256, {CONNECTIONS} connections", columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of contestants, with the bare one; the usual ones if none")
    parser.add_argument("--seconds", type=float, default=16, help="of one load on one server")
    parser.add_argument("--server", choices=SERVERS, action="append", help="may be repeated; default: all")
    options = parser.parse_args()
    silence()
    servers = options.server or SERVERS
    results = measure(quick=False, seconds=options.seconds, names=options.names, servers=servers)
    for server in servers:
        for load, rows in results.get(server, {}).items():
            print(render(server, load, rows))
    if "absent" in results:
        print(results["absent"])
    if results["figures"]:
        print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
