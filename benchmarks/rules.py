"""Measures how long it takes to find the rule of a request among ten, a hundred, a thousand and ten thousand rules.

    python benchmarks/rules.py [COUNT ...]

The time is that of ``Rules.find`` with the raw path, as adapters call it. Rounds of all sizes take turns, so that other
load on the machine affects all of them. The table shows the minimum and the median of the rounds, and the ratio of the
minimum to that of the first size. "construct" and "bytes each" are the cost of the ``Rules`` with its ``Rule`` objects.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

from scopeguard import Rule, Rules, all_of

COUNTS = (10, 100, 1000, 10_000)
ROUNDS = 21
LOOPS = 1000
REQUIREMENTS = [all_of(f"scope{number}") for number in range(20)]


@dataclass(frozen=True)
class Kind:
    """Rules of one form: the template of rule *number*, and a path that matches it."""

    what: str
    template: Callable[[int], str]
    path: Callable[[int], str]


KINDS = (
    Kind("literal", lambda n: f"/v1/things{n}/rows", lambda n: f"/v1/things{n}/rows"),
    Kind("parameters", lambda n: f"/v1/things{n}/{{a}}/{{b}}", lambda n: f"/v1/things{n}/x/y"),
    Kind("parameters first", lambda n: f"/{{a}}/{{b}}/things{n}", lambda n: f"/x/y/things{n}"),
    Kind("end of a segment", lambda n: f"/v1/{{a}}:do{n:05}", lambda n: f"/v1/x:do{n:05}"),
    Kind("beginning of one", lambda n: f"/v1/do{n:05}-{{a}}", lambda n: f"/v1/do{n:05}-x"),
    Kind("middle of one", lambda n: f"/v1/{{a}}.do{n:05}.{{b}}", lambda n: f"/v1/x.do{n:05}.y"),
    Kind("several segments", lambda n: f"/v1/{{a:segments}}:do{n:05}", lambda n: f"/v1/x/y/z:do{n:05}"),
    Kind("the rest", lambda n: f"/v1/things{n}/{{a:path}}", lambda n: f"/v1/things{n}/x/y"),
    Kind("no rule at all", lambda n: f"/v1/things{n}/{{a}}/{{b}}", lambda n: f"/v1/things{n}/x"),
)


@dataclass
class Row:
    """The cost for one number of rules. Times are in seconds."""

    rules: Rules
    paths: list[tuple[str, bytes]]
    construct: float
    size: int
    rounds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        find, paths = self.rules.find, self.paths
        began = time.perf_counter()
        for _ in range(LOOPS // len(paths)):
            for path, sent in paths:
                find("GET", path, sent)
        self.rounds.append((time.perf_counter() - began) / (LOOPS // len(paths) * len(paths)))


def make_rules(kind: Kind, count: int) -> Rules:
    return Rules(Rule(kind.template(number), REQUIREMENTS[number % 20], methods=["GET"]) for number in range(count))


def row(kind: Kind, count: int) -> Row:
    """Return rules of *kind*, and paths for the first, the last and some between."""
    gc.collect()
    tracemalloc.start()
    kept = make_rules(kind, count)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    gc.collect()
    began = time.perf_counter()
    rules = make_rules(kind, count)
    construct = time.perf_counter() - began
    paths = [kind.path(number) for number in sorted({0, count // 4, count // 2, count - 1})]
    return Row(rules, [(path, path.encode()) for path in paths], construct, size)


def main(counts: tuple[int, ...]) -> None:
    print("                       rules   find: min   median   ratio   construct   bytes each")
    for kind in KINDS:
        rows = [row(kind, count) for count in counts]
        for _ in range(ROUNDS):
            for each in rows:
                each.measure()
        for count, each in zip(counts, rows, strict=True):
            least, middle = min(each.rounds), statistics.median(each.rounds)
            print(
                f"{kind.what if count == counts[0] else '':20} {count:7,}"
                f"   {least * 1e6:6.2f} us {middle * 1e6:5.2f} us   {least / min(rows[0].rounds):5.2f}"
                f"  {each.construct * 1e3:7.1f} ms   {each.size // count:10,}"
            )


if __name__ == "__main__":
    main(tuple(int(argument) for argument in sys.argv[1:]) or COUNTS)
