"""Measures the cost of many issuers: construction, memory, routing and requests.

    python benchmarks/issuers.py [COUNT ...]

Three issuers are in use, for any number of configured ones. In the last row, a resolver finds the same issuers. "bytes
each" is the memory of a new guard, divided by the issuers; with the resolver, it has none yet. "routing" is the time to
find the issuer of a parsed token. "whole check" is a request with a valid ES256 token, with its signature.
"""

from __future__ import annotations

import gc
import logging
import sys
import timeit
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scopeguard import Granted, Guard, HeaderList, Issuer, IssuerResolver, RequestView
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority, FakeClock
from scopeguard.testing.transport import Network

AUDIENCE = "https://api.example.com"
IN_USE = 3
LOOPS = 2000


@dataclass(frozen=True)
class Row:
    """One row of the table. Times are in seconds."""

    what: str
    construct: float
    bytes_each: float
    routing: float
    check: float
    requests_at_start: int
    requests: int


def url_of(number: int) -> str:
    return f"https://tenant-{number}.auth.example.com"


def settings(count: int) -> list[Issuer]:
    return [Issuer(url_of(number), audience=AUDIENCE) for number in range(count)]


def measure(count: int, *, resolved: bool = False, loops: int = LOOPS) -> Row:
    """Return the costs of *count* issuers, of which at most three are in use."""
    clock = FakeClock()
    used = sorted({0, count // 2, count - 1})[:IN_USE]
    authorities = [FakeAuthority(url_of(number), AUDIENCE, clock=clock) for number in used]
    network = Network(*authorities)
    if resolved:
        known = {issuer.url: issuer for issuer in settings(count)}
        resolver = IssuerResolver(accepts=lambda iss: iss.startswith("https://tenant-"), resolve=known.get)

        def new_guard() -> Guard:
            return Guard(resolver=resolver, transport=network, clock=clock)
    else:

        def new_guard() -> Guard:
            return Guard(*settings(count), transport=network, clock=clock)

    construct = min(timeit.repeat(new_guard, number=1, repeat=3))
    gc.collect()
    tracemalloc.start()
    guard = new_guard()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    at_start = len(network.requests)

    views = [_view(authority.mint("read")) for authority in authorities]
    for view in views:
        if not isinstance(guard.check(view), Granted):
            raise SystemExit("a good token was refused; nothing to measure")
    check = _best(lambda: [guard.check(view) for view in views], loops // 10 + 1) / len(views)
    names = [authority.url for authority in authorities]
    issuers = engine_of(guard).issuers
    if issuers.resolved is None:
        routing = _best(lambda: [issuers.by_name(name) for name in names], loops) / len(names)
    else:
        lookup, now = issuers.resolved.lookup, clock.monotonic()
        routing = _best(lambda: [lookup(name, now) for name in names], loops) / len(names)
    row = Row(
        what=f"{count} by resolver" if resolved else f"{count}",
        construct=construct,
        bytes_each=size / count,
        routing=routing,
        check=check,
        requests_at_start=at_start,
        requests=len(network.requests),
    )
    guard.close()
    return row


def _view(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


def _best(work: Callable[[], object], loops: int) -> float:
    return min(timeit.repeat(work, number=loops, repeat=3)) / loops


def main(arguments: Sequence[str], *, loops: int = LOOPS) -> None:
    logging.getLogger("scopeguard").setLevel(logging.ERROR)
    counts = [int(argument) for argument in arguments] or [1, 10, 100, 1000]
    print(
        f"{'issuers':>18} {'construct':>11} {'bytes each':>11} {'routing':>10} {'whole check':>12} "
        f"{'requests at start':>18} {'in use':>7}"
    )
    for row in [*(measure(n, loops=loops) for n in counts), measure(counts[-1], resolved=True, loops=loops)]:
        print(
            f"{row.what:>18} {row.construct * 1e3:>8.2f} ms {row.bytes_each:>11.0f} {row.routing * 1e6:>7.2f} us "
            f"{row.check * 1e6:>9.0f} us {row.requests_at_start:>18} {row.requests:>7}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
