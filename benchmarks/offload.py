"""Measures whether moving the check of a signature from the event loop to a thread is worth while.

    python -m benchmarks.offload [--quick]

For each algorithm it measures whether a check lets other threads run, how much more two threads do than one, the time
of one check, the processor time of the loop's thread for a check on and off the loop, and how long the caller waits
while the loop is busy.

It is not worth while for any algorithm, so there is no such setting. ``cryptography`` does release the interpreter's
lock. But a hop to a thread and back (``anyio.to_thread``) costs the loop about 100 µs, as much as it saves with RS256
(25 µs), ES256 (80 µs), EdDSA (115 µs) or RSA of 4096 bits (80 µs). Only with ES384 and ES512 (400 and 500 µs) would the
loop save half a millisecond, once for each token, which is then cached. In return, the caller waits for the lock
whenever the loop is busy, up to ``sys.getswitchinterval()`` (5 ms) each time: 2 to 10 ms instead of less than one. The
avoided stall is a tenth of the limit for stalls here (5 ms).
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
    """Return the checks per second of all *threads* together."""
    counts = [0] * threads
    start, end = threading.Barrier(threads + 1), threading.Event()

    def work(number: int) -> None:
        start.wait()
        while True:  # at least once: on a busy machine, the time may be over before the first check
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


def parallel_rate(check: Check, *, rounds: int, seconds: float) -> float:
    """Return the rate of two threads divided by that of one: the median of rounds in which they take turns."""
    return statistics.median(rate(check, 2, seconds) / rate(check, 1, seconds) for _ in range(rounds))


def lets_go(check: Check, times: int) -> float:
    """Return the part of the checks during which another thread, which waits for the interpreter's lock only, has run.

    That thread takes the lock only if it is free, so any value above 0 proves that the check releases it.
    """
    count, end, begun = 0, False, threading.Event()

    def beside() -> None:
        nonlocal count
        begun.set()
        while not end:
            time.sleep(0)  # releases the lock and waits for it
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


def hold_lock() -> Check:
    """The other extreme: work that never releases the lock."""
    return lambda: sum(range(2000))


def smallest_time(check: Check, times: int) -> float:
    """Return the smallest time of one check in seconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        check()
        taken.append(time.perf_counter() - begun)
    return min(taken)


async def _loop_time(check: Check, times: int, *, offloaded: bool) -> float:
    """Return the processor time of the event loop's thread for one check, in seconds."""
    begun = time.thread_time()
    for _ in range(times):
        if offloaded:
            await anyio.to_thread.run_sync(check)
        else:
            check()
            await anyio.lowlevel.checkpoint()
    return (time.thread_time() - begun) / times


async def _latencies(check: Check, times: int, *, offloaded: bool) -> list[float]:
    """Return the seconds that a task waits for a check while the loop is busy with slices of half a millisecond."""
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


def compare(check: Check, *, rounds: int, times: int) -> dict[str, float]:
    """Return the loop's processor time and the caller's waiting time, on and off the loop, each as a median."""
    found: dict[str, list[float]] = {name: [] for name in ("loop, on", "loop, off", "wait, on", "wait, off")}
    for _ in range(rounds):
        for name, offloaded in (("on", False), ("off", True)):
            found[f"loop, {name}"].append(asyncio.run(_loop_time(check, times, offloaded=offloaded)))
            found[f"wait, {name}"] += asyncio.run(_latencies(check, times // 4, offloaded=offloaded))
    return {name: statistics.median(taken) for name, taken in found.items()}


def measure(*, quick: bool) -> dict[str, Any]:
    rounds, seconds, times = (1, 0.02, 20) if quick else (7, 0.2, 200)
    found: dict[str, dict[str, float]] = {}
    candidates: dict[str, Callable[[], Check]] = {
        "nothing at all": lambda: int,
        **ALGORITHMS,
        "what holds the lock": hold_lock,
    }
    for name, made in candidates.items():
        check = made()
        found[name] = {
            "seconds": smallest_time(check, times),
            "lets go": lets_go(check, times),
            "parallel": parallel_rate(check, rounds=rounds, seconds=seconds),
            **compare(check, rounds=rounds, times=times),
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


def render(results: dict[str, Any]) -> str:
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
    results = measure(quick=options.quick)
    print(render(results))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if not options.quick:
        keep("offload", results)


if __name__ == "__main__":
    main()
