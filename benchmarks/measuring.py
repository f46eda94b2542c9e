"""Measuring: contestants take turns within one run, and results are ratios within a round.

Other load on the machine slows the contestant that is running. With turns of a few milliseconds it slows all of them
alike, so ratios within a round are comparable where single times are not. The tables show the median of the ratios,
their middle half, and the smallest time of each contestant. Code in this process is measured in processor time.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Turn = Callable[[int], float]
"""Does its work a given number of times and returns the seconds that it took."""

now = time.process_time
"""Returns the processor time of this process, with all threads, in seconds."""

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The seconds for one piece of work, one figure for each round. All contestants of a run have the same rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def smallest(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratios(self, base: Measured) -> list[float]:
        """Return the time of this contestant divided by that of *base*, for each round."""
        return [mine / its for mine, its in zip(self.seconds, base.seconds, strict=True)]

    def ratio(self, base: Measured) -> Ratio:
        return Ratio.of(self.ratios(base))


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The median of ratios, and the middle half of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        if len(ratios) < 2:
            return cls(median=ratios[0], low=ratios[0], high=ratios[0])
        low, _, high = statistics.quantiles(ratios, n=4)
        return cls(median=statistics.median(ratios), low=low, high=high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def turn_of(work: Callable[[], object]) -> Turn:
    """Return a turn that calls *work*."""

    def turn(times: int) -> float:
        begun = now()
        for _ in range(times):
            work()
        return now() - begun

    return turn


def measure_in_turns(
    contestants: Mapping[str, Turn], *, rounds: int = 100, turn_lasts: float = 0.005
) -> dict[str, Measured]:
    """Measure each contestant once in each round, for about *turn_lasts* seconds, with garbage collection switched
    off.
    """
    gc.collect()
    gc.freeze()  # the collections before each turn skip the objects that exist already
    times = {name: _times(turn, turn_lasts) for name, turn in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        shift = number % len(names)  # no contestant always follows the same one
        for name in names[shift:] + names[:shift]:
            gc.collect()
            gc.disable()
            try:
                seconds[name].append(contestants[name](times[name]) / times[name])
            finally:
                gc.enable()
    gc.unfreeze()
    return {name: Measured(name=name, seconds=tuple(found)) for name, found in seconds.items()}


def _times(turn: Turn, turn_lasts: float) -> int:
    turn(3)  # includes all work that is done only once
    times = 1
    while (taken := turn(times)) < turn_lasts / 4 and times < 1_000_000:
        times *= 2
    return max(1, round(times * turn_lasts / taken))


def silence() -> None:
    """Switch off logs and warnings: refusals and http on loopback are part of the measurement."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")  # peers use deprecated parts of other packages
    warnings.showwarning = lambda *arguments, **settings: None  # one peer switches its warnings on again


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, aligned for terminals."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [columns, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(["", f"## {title}", "", *lines])


def machine() -> dict[str, str]:
    """Return a description of the machine."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    from scopeguard import __version__

    found = {
        "processor": model,
        "cores": str(os.cpu_count()),
        "system": platform.system() + " " + platform.release(),
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
        "scopeguard": __version__,
    }
    for package in ("cryptography", "PyJWT", "starlette", "fastapi", "flask", "uvicorn", "anyio"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def figure(
    name: str, value: float, must: str, *, unit: str = "", peer: float | None = None, peer_name: str = ""
) -> dict[str, Any]:
    """One line of the table that ``make bench`` prints. *must*: ``"<= 1.25"``, ``">= 0.93"``, ``"1"``, or ``""`` for a
    figure without a bound. *peer*: that of the best peer."""
    found: dict[str, Any] = {"figure": name, "value": value, "must": must, "unit": unit}
    if peer is not None:
        found |= {"peer": peer, "peer_name": peer_name}
    return found


def keep(name: str, results: Mapping[str, Any], folder: Path | None = None) -> None:
    """Write *results* to *folder*, beside those of other runs. The plots read them from ``docs/benchmarks``."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n", "utf-8")
