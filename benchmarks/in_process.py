"""Measures a request inside the process: each framework bare, with scopeguard, and with its peers.

    python -m benchmarks.in_process [--rounds N] [--algorithm RS256] [--cold] [NAME ...]

*Warm*: one token is sent again and again, as clients with client credentials do. *Cold*: no token is cached. The
installed peers (``benchmarks/peers``) that support the algorithm take part. Before the measurement, all contestants
except the bare ones must refuse bad tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from benchmarks import contestants, peers
from benchmarks.contestants import COLD, Contestant, Message, all_contestants
from benchmarks.material import Claims, Material, asgi_scope, wsgi_environ
from benchmarks.measuring import Measured, Ratio, Turn, figure, machine, measure_in_turns, now, silence, table


class Driver:
    """Sends requests to an app one after the other, in one task or one thread, and records the statuses."""

    def __init__(self, contestant: Contestant, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.name = contestant.name
        self.run = self._wsgi if contestant.wsgi else self._asgi
        self._app = app
        self._loop = loop
        self._statuses: list[int] = []

    def statuses(self, tokens: Iterable[str]) -> list[int]:
        """Return the status of the response for each of *tokens*."""
        self.run(list(tokens))
        return list(self._statuses)

    def turn(self, tokens: Iterable[str]) -> Turn:
        """Return a turn that sends good tokens in order."""
        following = iter(tokens)

        def turn(times: int) -> float:
            taken = self.run([next(following) for _ in range(times)])
            if self._statuses != [200] * times:
                raise SystemExit(f"{self.name}: responses to good tokens were {sorted(set(self._statuses))}")
            return taken

        return turn

    def _asgi(self, tokens: list[str]) -> float:
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if "status" in message:
                statuses.append(message["status"])

        async def serve(scopes: list[Message]) -> float:
            app = self._app
            begun = now()
            for scope in scopes:
                await app(scope, receive, send)
            return now() - begun

        taken = self._loop.run_until_complete(serve([asgi_scope(token) for token in tokens]))
        self._statuses = statuses
        return taken

    def _wsgi(self, tokens: list[str]) -> float:
        statuses: list[int] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
            statuses.append(int(status[:3]))

        app, environs = self._app, [wsgi_environ(token) for token in tokens]
        begun = now()
        for environ in environs:
            body = app(environ, start_response)
            for _ in body:
                pass
            if hasattr(body, "close"):
                body.close()
        taken = now() - begun
        self._statuses = statuses
        return taken


def examine(contestant: Contestant, driver: Driver, material: Material) -> None:
    """End this run if *contestant* accepts a bad token or refuses a good one."""
    if driver.statuses([material.token(claims=contestant.claims)]) != [200]:
        raise SystemExit(f"{contestant.name}: a good token was refused")
    if not contestant.guards:
        return
    bad = material.bad_tokens(claims=contestant.claims)
    for what, status in zip(bad, driver.statuses(bad.values()), strict=True):
        # Flask-JWT-Extended answers 422 for a wrong audience or signature.
        if status not in {400, 401, 403, 422}:
            raise SystemExit(f"{contestant.name}: a token {what} was answered {status}")


def least_turn(token: str) -> Turn:
    """Return a turn with the minimum for a known token: one digest and one look-up."""
    octets = token.encode()
    known = {sha256(octets).digest(): token}

    def turn(times: int) -> float:
        begun = now()
        for _ in range(times):
            known.get(sha256(octets).digest())
        return now() - begun

    return turn


LEAST = "one sha256 of the token and a look-up"


ALONE = "the same where the token is found, hashed and shown, and nothing judged"


def compare(taking_part: list[Contestant], material: Material, *, cold: bool, rounds: int) -> dict[str, Measured]:
    """Test and then measure all contestants in turns."""
    loop = asyncio.new_event_loop()
    pools: dict[Claims | None, list[str]] = {}
    turns: dict[str, Turn] = {}
    for contestant in taking_part:
        claims = contestant.claims
        if claims not in pools:
            pools[claims] = material.tokens(contestants.COLD_TOKENS if cold else 1, claims=claims)
        driver = Driver(contestant, contestant.app(material), loop)
        examine(contestant, driver, material)
        turns[contestant.name] = driver.turn(itertools.cycle(pools[claims]))
    if not cold:
        turns[LEAST] = least_turn(material.token())
    found = measure_in_turns(turns, rounds=rounds)
    loop.close()
    return found


def describe(taking_part: list[Contestant], found: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    """Return each contestant compared with its base. Times are in seconds."""
    rows = {}
    for contestant in taking_part:
        mine, base = found[contestant.name], found[contestant.base]
        ratio = mine.ratio(base)
        rows[contestant.name] = {
            "base": contestant.base,
            "peer": contestant.peer,
            "smallest": mine.smallest,
            "median": mine.median,
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "smallest_ratio": mine.smallest / base.smallest,
        }
    return rows


# The bounds of warm requests, with the base that the peers share.
WANTED = (
    ("warm request, Starlette + scopeguard ÷ bare Starlette", "Starlette + scopeguard", "<= 1.4"),
    ("warm request, Flask + scopeguard ÷ bare Flask", "Flask + scopeguard", "<= 1.2"),
    ("warm request, FastAPI + Security(protected) ÷ empty dependency", "FastAPI + scopeguard", "<= 1.1"),
)


NEW = "request with a new RS256 token, Starlette + scopeguard ÷ bare Starlette"


def figures_of_new_tokens(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures for requests with new RS256 tokens in process."""
    peers_here = [(row["ratio"], name) for name, row in rows.items() if row["peer"] and row["base"] == "Starlette"]
    best, best_name = min(peers_here, default=(None, ""))
    guarded, fast, alone = (
        f"Starlette{more}" for more in (" + scopeguard", " + scopeguard, fast", ", signature alone")
    )
    lines = []
    if guarded in rows:
        lines.append(figure(NEW, rows[guarded]["ratio"], "<= 6", peer=best, peer_name=best_name))
    if fast in rows:
        lines.append(figure("the same with fast=True", rows[fast]["ratio"], ""))
    if alone in rows:
        lines.append(figure("the same with the check of the signature alone", rows[alone]["ratio"], ""))
    return lines


def figures(rows: Mapping[str, Mapping[str, Any]], found: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Return the figures for warm requests in process."""
    lines = []
    if "raw ASGI + scopeguard" in found:
        title = "warm request, raw ASGI: added time ÷ one sha256 of the token and a look-up"
        lines.append(figure(title, cost_in_hashes(found, "raw ASGI + scopeguard"), "<= 3.5"))
        lines.append(figure(ALONE, cost_in_hashes(found, "raw ASGI, digest alone"), ""))
    for title, name, must in WANTED:
        if name in rows:
            base = rows[name]["base"]
            ratios = [(row["ratio"], peer) for peer, row in rows.items() if row["peer"] and row["base"] == base]
            best, best_name = min(ratios, default=(None, ""))
            lines.append(figure(title, rows[name]["ratio"], must, peer=best, peer_name=best_name))
            alone = rows.get(name.replace(" + scopeguard", ", digest alone"))
            if alone is not None:
                lines.append(figure(ALONE, alone["ratio"], ""))
    return lines


def cost_in_hashes(found: Mapping[str, Measured], name: str) -> float:
    """Return what *name* takes beyond raw ASGI, as a multiple of one digest and one look-up."""
    guarded, bare, least = (found[each].seconds for each in (name, "raw ASGI", LEAST))
    return Ratio.of([(mine - its) / one for mine, its, one in zip(guarded, bare, least, strict=True)]).median


def measure(*, quick: bool) -> dict[str, Any]:
    """Measure warm requests with RS256 and cold ones, with all that is installed."""
    rounds = 8 if quick else 100
    taking_part, absent = all_contestants("RS256")
    found = compare(taking_part, Material("RS256"), cold=False, rounds=rounds)
    warm = describe(taking_part, found)
    results: dict[str, Any] = {"warm_RS256": warm, "absent": absent, "peers": peers.versions()}
    for algorithm in ("RS256",) if quick else ("RS256", "ES256", "EdDSA"):
        taking_part, _ = all_contestants(algorithm)
        cold = compare(taking_part, Material(algorithm, settings=COLD), cold=True, rounds=rounds // 2)
        results[f"cold_{algorithm}"] = describe(taking_part, cold)
    return {**results, "figures": [*figures(warm, found), *figures_of_new_tokens(results["cold_RS256"])]}


def render(title: str, found: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{row['smallest'] * 1e6:.1f}",
            f"{row['median'] * 1e6:.1f}",
            "" if name == row["base"] else f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            "" if name == row["base"] else f"{row['smallest_ratio']:.2f}",
        ]
        for name, row in found.items()
    ]
    return table(title, ["", "min µs", "median µs", "÷ bare, median (middle half)", "÷ bare, of minima"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names of contestants; all of them if not given")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--algorithm", default="RS256")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    silence()
    taking_part, absent = contestants.choose(options.names, options.algorithm)
    material = Material(options.algorithm, settings=COLD if options.cold else {})
    found = compare(taking_part, material, cold=options.cold, rounds=options.rounds)
    rows = describe(taking_part, found)
    kind = "cold" if options.cold else "warm"
    print(render(f"In process, {kind}, {options.algorithm}", rows))
    for name, why in absent.items():
        print(f"{name}: {why}")
    for line in figures_of_new_tokens(rows) if options.cold else figures(rows, found):
        print(f"{line['figure']}: {line['value']:.2f}, must be {line['must'] or 'shown'}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
