"""Measures what a listener and metrics cost a request with a cached token, in processor instructions and in time.

    python -m benchmarks.hooks               # both
    python -m benchmarks.hooks --rounds 300  # more rounds, for a busy machine

The request goes through the ASGI middleware in process, as the *warm* path of ``benchmarks.instructions``. "off" is a
guard without a listener, whose cost ``make instructions`` holds. The listener of "on_decision" appends each event to a
list. "OpenTelemetry" has the SDK with a reader that nothing reads. Instructions are counted under callgrind if valgrind
is installed. Times are those of rounds in turns: "ratio" is the median of the ratios to "off" within a round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.instructions import (
    AUDIENCE,
    TIMES,
    Message,
    Still,
    count_instructions,
    http_request,
    mark_each,
    prepare,
    sender_for,
    valgrind,
)
from benchmarks.measuring import Turn, measure_in_turns, silence, table

KINDS = ("off", "on_decision", "Prometheus", "OpenTelemetry")
Serve = Callable[[list[Message]], None]


@contextmanager
def guards(material: dict[str, Any]) -> Iterator[dict[str, Serve]]:
    """Yield a function for each of :data:`KINDS` that sends requests, after the first of them."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from prometheus_client import CollectorRegistry

    from scopeguard import Guard, Issuer, metrics

    issuer = Issuer(material["issuer"], audience=AUDIENCE, keys={"keys": [material["key"]]})
    events: deque[Any] = deque(maxlen=100)
    listeners = {"on_decision": events.append}
    made = {
        kind: Guard(issuer, clock=Still(material["now"]), audit="off", on_decision=listeners.get(kind))
        for kind in KINDS
    }
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    metrics.prometheus(made["Prometheus"], registry=CollectorRegistry())
    metrics.opentelemetry(made["OpenTelemetry"], meter=provider.get_meter("benchmark"))
    found = {kind: sender_for(guard) for kind, guard in made.items()}
    for serve in found.values():
        for _ in range(3):  # the third finds the token by its header field
            serve([http_request(material["tokens"][0])])
    try:
        yield found
    finally:
        provider.shutdown()


def run(material: dict[str, Any], times: int) -> None:
    """Run each kind under callgrind, with N requests and with 2N."""
    token = material["tokens"][0]
    with guards(material) as found:
        mark_each(
            [
                (serve, [http_request(token) for _ in range(count)])
                for serve in found.values()
                for count in (times, 2 * times)
            ]
        )


def times_of(rounds: int) -> list[list[str]]:
    """Return a row for each kind: its time, and the ratio to "off"."""
    material = prepare(1)
    token = material["tokens"][0]

    def turn_of(serve: Serve) -> Turn:
        def turn(times: int) -> float:
            requests = [http_request(token) for _ in range(times)]
            begun = time.perf_counter()
            serve(requests)
            return time.perf_counter() - begun

        return turn

    with guards(material) as found:
        found_times = measure_in_turns({kind: turn_of(serve) for kind, serve in found.items()}, rounds=rounds)
    base = found_times["off"]
    return [
        [kind, f"{1e6 * each.smallest:.1f} µs", f"{1e6 * each.median:.1f} µs", str(each.ratio(base))]
        for kind, each in found_times.items()
    ]


def instructions_of(times: int) -> list[list[str]]:
    """Return a row for each kind: its instructions, and how many more they are than those of "off"."""
    found = count_instructions(times, module="benchmarks.hooks", paths=KINDS)
    base = found["off"]
    return [[kind, f"{count:,.0f}", f"{count - base:+,.0f}", f"{count / base:.2f}"] for kind, count in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--run", type=Path, help="for callgrind: serve the requests in this file")
    options = parser.parse_args()
    silence()
    if options.run:
        run(json.loads(options.run.read_text("utf-8")), options.times)
        return
    if valgrind():
        rows = instructions_of(options.times)
        print(table("Instructions per request with a cached token", ["", "instructions", "more", "ratio"], rows))
    else:
        print("instructions were not counted: valgrind is not installed (make system installs it)")
    columns = ["", "smallest", "median", "ratio to off"]
    print(table("Time per request with a cached token", columns, times_of(options.rounds)))


if __name__ == "__main__":
    main()
