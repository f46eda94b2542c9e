"""Runs all benchmarks and prints one table, as ``make bench`` does.

    python -m benchmarks.run [--quick] [--results FOLDER] [PART ...]

Each part takes minutes and runs in a process of its own. Its results are written to ``docs/benchmarks``, from where
``python -m benchmarks.plots`` reads them. ``--quick`` takes a few rounds and a minute or two to check that everything
works; its figures are rough and are not written. The table compares the figures with their bounds and with the best
peer that is installed. `make bench` installs all peers.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import keep, machine, silence, table

ROOT = Path(__file__).parent.parent
# Each has a function measured(quick=...) that returns a dict with the key "figures".
PARTS = (
    "in_process",
    "mcp_tools",
    "proofs",
    "cold",
    "sockets",
    "storms",
    "shared",
    "scaling",
    "offload",
    "imports",
    "instructions",
)


def available_parts() -> list[str]:
    return [part for part in PARTS if importlib.util.find_spec(f"benchmarks.{part}") is not None]


def one(part: str, *, quick: bool, path: Path) -> None:
    """Run *part* in this process and write its results to *path*."""
    silence()
    results = importlib.import_module(f"benchmarks.{part}").measure(quick=quick)
    path.write_text(json.dumps(results), "utf-8")


def run_apart(part: str, *, quick: bool) -> dict[str, Any] | None:
    """Run *part* in a process of its own. Return its results, ``None`` if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks.run", "--into", str(path), part]
        run = subprocess.run([*command, "--quick"] if quick else command, cwd=ROOT, check=False)
        if run.returncode:
            return None
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found


def satisfies(value: float, must: str) -> bool:
    """Return whether *value* satisfies the bound *must*: ``<= 1.25``, ``>= 0.93`` or ``1``."""
    relation, _, bound = must.rpartition(" ")
    if relation not in {"", "<=", ">="}:
        raise ValueError(f"{must!r}: a bound must be a number, with <= or >= before it if needed")
    limit = float(bound)
    return value >= limit if relation == ">=" else value <= limit if relation == "<=" else value == limit


def number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    written = f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    return f"{written} {unit}".strip()


def summary(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of all figures. Figures without a bound are listed for explanation."""
    rows = []
    for line in figures:
        value, must, unit = line["value"], line["must"], line["unit"]
        peer = number(line.get("peer"), unit)
        if line.get("peer_name"):
            peer += f" ({line['peer_name']})"
        verdict = ("yes" if satisfies(value, must) else "NO") if must else ""
        rows.append([line["figure"], peer, must, number(value, unit), verdict])
    return table("Targets and results", ["figure", "best installed peer", "must be", "is", "ok?"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="take a minute or two, and write no results")
    parser.add_argument("--results", type=Path, default=measuring.RESULTS, help="where results are written")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.parts) - set(available_parts())
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if options.into:
        one(options.parts[0], quick=options.quick, path=options.into)
        return
    figures: list[dict[str, Any]] = []
    notes: list[str] = []
    failed = []
    for part in options.parts or available_parts():
        print(f"{part} ...", flush=True)
        results = run_apart(part, quick=options.quick)
        if results is None:
            failed.append(part)
            continue
        figures += results["figures"]
        absent = results.get("absent", {})
        notes += [absent] if isinstance(absent, str) else [f"{name}: {why}" for name, why in absent.items()]
        if not options.quick:
            keep(part, results, options.results)
    print(summary(figures))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    for note in notes:
        print(note)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
