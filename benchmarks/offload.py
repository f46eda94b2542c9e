"""Does it pay to move the check of a signature to a thread, away from the event loop?

    python -m benchmarks.offload [--quick]

For each algorithm: whether a check lets other threads run meanwhile, how much more two threads get done than one, the
time of one check, the processor time of the loop's own thread for a check on it and off it, and how long the one who
asked waits beside a loop that has enough to do.

The answer is no, for any algorithm, and so there is no setting for it: a signature is checked where the token is
judged. ``cryptography`` does let go of the interpreter's lock. But a hop to a thread and back (``anyio.to_thread``)
costs the loop some 100 µs of work of its own, as much as it would save with RS256 (25 µs), ES256 (80 µs), EdDSA
(115 µs) or RSA of 4096 bits (80 µs). Above that threshold lie ES384 and ES512 (400 and 500 µs): there the loop is
spared half a millisecond, once in the life of a token, since it is remembered then. In return the one who asked waits
for the lock whenever the loop is busy, up to ``sys.getswitchinterval()`` (5 ms) each time: 2 to 10 ms instead of less
than one. The stall that is avoided is a tenth of what an event loop is allowed here (5 ms).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from benchmarks.measuring import figure, keep, machine, table

MESSAGE = b"m" * 640
Check = Callable[[], object]


def _rsa(bits: int) -> Check:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    signature = key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    public, pad, digest = key.public_key(), padding.PKCS1v15(), hashes.SHA256()
    return lambda: public.verify(signature, MESSAGE, pad, digest)


def _ec(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Check:
    key, algorithm = ec.generate_private_key(curve), ec.ECDSA(digest)
    signature, public = key.sign(MESSAGE, algorithm), key.public_key()
    return lambda: public.verify(signature, MESSAGE, algorithm)


def _eddsa() -> Check:
    key = ed25519.Ed25519PrivateKey.generate()
    signature, public = key.sign(MESSAGE), key.public_key()
    return lambda: public.verify(signature, MESSAGE)


ALGORITHMS: dict[str, Callable[[], Check]] = {
    "RS256": lambda: _rsa(2048),
    "RS256, 4096 bits": lambda: _rsa(4096),
    "ES256": lambda: _ec(ec.SECP256R1(), hashes.SHA256()),
    "ES384": lambda: _ec(ec.SECP384R1(), hashes.SHA384()),
    "ES512": lambda: _ec(ec.SECP521R1(), hashes.SHA512()),
    "EdDSA": _eddsa,
}


def rate(check: Check, threads: int, seconds: float) -> float:
    """Checks a second, of all *threads* together."""
    counts = [0] * threads
    start, end = threading.Barrier(threads + 1), threading.Event()

    def work(number: int) -> None:
        start.wait()
        while True:  # once at least: on a busy machine the time may be over before this begins
            check()
            counts[number] += 1
            if end.is_set():
                return

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = time.perf_counter()
    time.sleep(seconds)
    end.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begun)


def parallel(check: Check, *, rounds: int, seconds: float) -> float:
    """What two threads make over what one makes: the median of rounds in which they take turns."""
    return statistics.median(rate(check, 2, seconds) / rate(check, 1, seconds) for _ in range(rounds))


def lets_go(check: Check, times: int) -> float:
    """In what part of the checks another thread, which waits for nothing but the interpreter's lock, came to run.

    The lock is taken from nobody meanwhile: 0 is certain, and anything else proves that the check itself lets go of it.
    """
    count, end, begun = 0, False, threading.Event()

    def beside() -> None:
        nonlocal count
        begun.set()
        while not end:
            time.sleep(0)  # lets go of the lock, and waits for it
            count += 1

    thread, interval = threading.Thread(target=beside), sys.getswitchinterval()
    thread.start()
    begun.wait()
    sys.setswitchinterval(100)
    try:
        ran = 0
        for _ in range(times):
            before = count
            check()
            ran += count != before
    finally:
        sys.setswitchinterval(interval)
        end = True
        thread.join()
    return ran / times


def holding() -> Check:
    """The other extreme: work that never lets go of the lock."""
    return lambda: sum(range(2000))


def smallest(check: Check, times: int) -> float:
    """Seconds of one check, at best."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        check()
        taken.append(time.perf_counter() - begun)
    return min(taken)


async def _loop_time(check: Check, times: int, *, offloaded: bool) -> float:
    """Processor time of the event loop's thread for one check, in seconds."""
    begun = time.thread_time()
    for _ in range(times):
        if offloaded:
            await anyio.to_thread.run_sync(check)
        else:
            check()
            await anyio.lowlevel.checkpoint()
    return (time.thread_time() - begun) / times


async def _latencies(check: Check, times: int, *, offloaded: bool) -> list[float]:
    """Seconds that a task waits for a check, in a loop that has enough to do: slices of half a millisecond."""
    taken: list[float] = []

    async def others() -> None:
        while True:
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        for _ in range(times):
            await anyio.lowlevel.checkpoint()
            begun = time.perf_counter()
            if offloaded:
                await anyio.to_thread.run_sync(check)
            else:
                check()
            taken.append(time.perf_counter() - begun)
        group.cancel_scope.cancel()
    return taken


def compared(check: Check, *, rounds: int, times: int) -> dict[str, float]:
    """On the loop and off it: the loop's own processor time, and what the one waits who asked, each the median."""
    found: dict[str, list[float]] = {name: [] for name in ("loop, on", "loop, off", "wait, on", "wait, off")}
    for _ in range(rounds):
        for name, offloaded in (("on", False), ("off", True)):
            found[f"loop, {name}"].append(asyncio.run(_loop_time(check, times, offloaded=offloaded)))
            found[f"wait, {name}"] += asyncio.run(_latencies(check, times // 4, offloaded=offloaded))
    return {name: statistics.median(taken) for name, taken in found.items()}


def measured(*, quick: bool) -> dict[str, Any]:
    rounds, seconds, times = (1, 0.02, 20) if quick else (7, 0.2, 200)
    found: dict[str, dict[str, float]] = {}
    candidates: dict[str, Callable[[], Check]] = {
        "nothing at all": lambda: int,
        **ALGORITHMS,
        "what holds the lock": holding,
    }
    for name, made in candidates.items():
        check = made()
        found[name] = {
            "seconds": smallest(check, times),
            "lets go": lets_go(check, times),
            "parallel": parallel(check, rounds=rounds, seconds=seconds),
            **compared(check, rounds=rounds, times=times),
        }
    hop = found["nothing at all"]["loop, off"]
    slowest = max(ALGORITHMS, key=lambda name: found[name]["seconds"])
    return {
        "offload": found,
        "figures": [
            figure("the loop's own work for a hop to a thread and back", hop * 1e6, "", unit="µs"),
            figure(f"stall of the loop by one check of {slowest}, the slowest", found[slowest]["seconds"] * 1e3, "<= 5",
                   unit="ms"),
        ],
    }  # fmt: skip


def shown(results: dict[str, Any]) -> str:
    micros = ("seconds", "loop, on", "loop, off", "wait, on", "wait, off")
    rows = [
        [name, f"{row['lets go']:.0%}", f"{row['parallel']:.2f}", *(f"{row[each] * 1e6:.0f}" for each in micros)]
        for name, row in results["offload"].items()
    ]
    columns = ("", "lets go of the lock", "2 threads ÷ 1", "one check µs", "loop's work µs, on it", "off it",
               "wait beside a busy loop µs, on it", "off it")  # fmt: skip
    return table("Signature checks on and off the loop", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    results = measured(quick=options.quick)
    print(shown(results))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("offload", results)


if __name__ == "__main__":
    main()
