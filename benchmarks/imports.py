"""Measures the import of scopeguard, without the libraries that every token check needs.

    python -m benchmarks.imports [--quick]

Each import runs in a new interpreter, which measures its own processor time. ``cryptography`` and PyJWT, with the parts
that scopeguard uses, are imported before the measurement, or are measured alone for comparison. Bytecode is compiled
already. The ten heaviest modules are those of one run of ``-X importtime``, without what they import.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import figure, keep, machine, table

ROOT = Path(__file__).parent.parent
MUST = 60.0
WHOLE = "<= 75"
# The parts of them that scopeguard/spec imports.
LIBRARIES = (
    "import jwt.algorithms, cryptography.hazmat.primitives.asymmetric.ec, "
    "cryptography.hazmat.primitives.asymmetric.ed25519, cryptography.hazmat.primitives.asymmetric.rsa"
)
OURS = "import scopeguard, scopeguard.asgi"
CONTESTANTS = {
    "scopeguard, scopeguard.asgi": (LIBRARIES, OURS),
    "the same by the clock on the wall": (LIBRARIES, OURS),
    "with anyio there already": (LIBRARIES + ", anyio, anyio.to_thread", OURS),
    "scopeguard alone": (LIBRARIES, "import scopeguard"),
    "scopeguard.wsgi": (LIBRARIES, "import scopeguard.wsgi"),
    "the libraries": ("pass", LIBRARIES),
    "everything together": ("pass", OURS),
}


def time_import(before: str, imported: str, clock: str) -> float:
    """Return the seconds that *imported* takes in a new interpreter after *before*."""
    script = f"import time\n{before}\nb = time.{clock}()\n{imported}\nprint(time.{clock}() - b)"
    return float(_python("-c", script).stdout)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )


def find_heaviest(count: int = 10) -> list[tuple[str, float]]:
    """Return the milliseconds of each module that is imported beyond the libraries."""
    lines = _python("-X", "importtime", "-c", f"{LIBRARIES}\nimport sys; sys.stderr.write('-----\\n')\n{OURS}").stderr
    found = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", lines.partition("-----")[2], re.MULTILINE)
    return sorted(((name, int(taken) / 1000) for taken, name in found), key=lambda row: -row[1])[:count]


def measure(*, quick: bool) -> dict[str, Any]:
    rounds = 2 if quick else 30
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds + 1):
        for name, (before, imported) in CONTESTANTS.items():
            taken = time_import(before, imported, "perf_counter" if "wall" in name else "process_time")
            if number:  # the first round compiles bytecode
                seconds[name].append(taken * 1e3)
    found = {name: {"smallest": min(taken), "median": statistics.median(taken)} for name, taken in seconds.items()}
    ours, whole = found["scopeguard, scopeguard.asgi"], found["everything together"]
    what = "import of scopeguard and scopeguard.asgi beyond cryptography and PyJWT"
    return {
        "imports": found,
        "heaviest": find_heaviest(),
        "figures": [
            figure(f"{what}, median", round(ours["median"], 1), f"<= {MUST:.0f}", unit="ms"),
            figure(f"{what}, least", round(ours["smallest"], 1), "", unit="ms"),
            figure("import of scopeguard.asgi as a whole, median", round(whole["median"], 1), WHOLE, unit="ms"),
            figure("import of scopeguard.asgi as a whole, least", round(whole["smallest"], 1), "", unit="ms"),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    results = measure(quick=options.quick)
    rows = [[name, f"{row['smallest']:.1f}", f"{row['median']:.1f}"] for name, row in results["imports"].items()]
    print(table(f"Imports (must: {MUST:.0f} ms)", ["", "min ms", "median ms"], rows))
    heavy = [[name, f"{taken:.1f}"] for name, taken in results["heaviest"]]
    print(table("The heaviest modules beyond the libraries", ["", "ms"], heavy))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("imports", results)


if __name__ == "__main__":
    main()
