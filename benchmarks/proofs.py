"""Measures what a proof of possession (DPoP) adds to a request with a token that was verified before.

    python -m benchmarks.proofs [--rounds N]

Each contestant answers the same GET behind ``GuardMiddleware`` with a policy for proofs. *bearer* sends an unbound
token, the others send a bound token and a new proof of one client with each request. Proofs are made before the time is
taken. *verification* is the verification of one ES256 signature by a key that is parsed already. The figure is what a
request with a proof takes beyond a bearer token and one verification, as the difference of the smallest times. *pydpop*
is the verification of a proof by that library, if it is installed, with a set of the used ``jti`` as its store, and
without a request or a token.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import Turn, figure, measure_in_turns, now, silence, table
from scopeguard import DPoP, Guard
from scopeguard.asgi import GuardMiddleware
from scopeguard.spec.jwks import parse_proof_key
from scopeguard.testing import FakeAuthority, ProofKey

API = "https://api.example.com"
NONCE_KEY = "a secret of the operator, 32 bytes or more"
MUST = "<= 60"
MANY = 10**9
PEER = "pydpop"


async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def verification(key: ProofKey) -> Turn:
    """Return a turn that verifies one signature again and again."""
    public, message = parse_proof_key(key.jwk), b"m" * 400
    signature = key.signing.sign(message)

    def turn(times: int) -> float:
        begun = now()
        for _ in range(times):
            if not public.verify("ES256", message, signature):
                raise SystemExit("a good signature was refused")
        return now() - begun

    return turn


class UsedProofs:
    """A store of ``pydpop``. The one that it has visits all used proofs for each new one."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def seen(self, jti: str) -> bool:
        return jti in self._used

    def add(self, jti: str) -> None:
        self._used.add(jti)


def pydpop(make_proof: Callable[[], str], token: str, at: float) -> Turn:
    """Return a turn that verifies a new proof each time with ``pydpop``."""
    from pydpop import verify_proof

    store = UsedProofs()

    def turn(times: int) -> float:
        proofs = [make_proof() for _ in range(times)]
        begun = now()
        for proof in proofs:
            verify_proof(proof=proof, htm="GET", htu=f"{API}/rows", access_token=token, jti_store=store, now=int(at))
        return now() - begun

    return turn


def contestants(loop: asyncio.AbstractEventLoop) -> dict[str, Turn]:
    authority = FakeAuthority("https://auth.example.com", audience=API)
    clock, key = authority.clock, ProofKey()
    bound, unbound = authority.mint("read", bound_to=key), authority.mint("read")

    def turn_of(middleware: Any, make_fields: Callable[[], list[tuple[bytes, bytes]]]) -> Turn:
        async def run(scopes: list[dict[str, Any]]) -> float:
            statuses: set[int] = set()

            async def send(message: dict[str, Any]) -> None:
                statuses.add(message.get("status", 200))

            begun = now()
            for scope in scopes:
                await middleware(scope, None, send)
            taken = now() - begun
            if statuses != {200}:
                raise SystemExit(f"responses to good requests were {sorted(statuses)}")
            return taken

        def turn(times: int) -> float:
            scopes: list[dict[str, Any]] = [
                {
                    "type": "http", "method": "GET", "scheme": "https", "path": "/rows", "raw_path": b"/rows",
                    "query_string": b"", "root_path": "", "headers": make_fields(), "client": ("192.0.2.1", 1),
                    "state": {},
                }
                for _ in range(times)
            ]  # fmt: skip
            return loop.run_until_complete(run(scopes))

        return turn

    def middleware(**policy: Any) -> GuardMiddleware:
        dpop = DPoP(base_url=API, max_proofs=MANY, max_proofs_per_key=MANY, nonce_lifetime=MANY, **policy)
        guard = Guard(authority.issuer, transport=authority.transport, clock=clock, dpop=dpop, audit="off")
        return GuardMiddleware(app, guard=guard)

    def with_proof(**claims: Any) -> list[tuple[bytes, bytes]]:
        proof = key.proof(bound, "GET", f"{API}/rows", at=clock.wall(), claims=claims)
        return [(b"host", b"api.example.com"), (b"authorization", f"DPoP {bound}".encode()), (b"dpop", proof.encode())]

    bearer = [(b"host", b"api.example.com"), (b"authorization", f"Bearer {unbound}".encode())]
    with_nonces = middleware(nonce_keys=[NONCE_KEY])
    nonce = _nonce(loop, with_nonces, with_proof())
    peers = {}
    if importlib.util.find_spec(PEER) is not None:
        peers[PEER] = pydpop(lambda: key.proof(bound, "GET", f"{API}/rows", at=clock.wall()), bound, clock.wall())
    return {
        **peers,
        "bearer": turn_of(middleware(), lambda: bearer),
        "proof": turn_of(middleware(), with_proof),
        "proof with a nonce": turn_of(with_nonces, lambda: with_proof(nonce=nonce)),
        "verification": verification(key),
    }


def _nonce(loop: asyncio.AbstractEventLoop, middleware: Any, fields: list[tuple[bytes, bytes]]) -> str:
    """Return the nonce that *middleware* issues with its first refusal."""
    found: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        found.extend(value.decode() for name, value in message.get("headers", ()) if name == b"dpop-nonce")

    scope = {
        "type": "http", "method": "GET", "scheme": "https", "path": "/rows", "raw_path": b"/rows",
        "query_string": b"", "root_path": "", "headers": fields, "client": ("192.0.2.1", 1), "state": {},
    }  # fmt: skip
    loop.run_until_complete(middleware(scope, None, send))
    return found[0]


def measure(*, quick: bool = False, rounds: int | None = None) -> dict[str, Any]:
    loop = asyncio.new_event_loop()
    try:
        found = measure_in_turns(contestants(loop), rounds=rounds or (5 if quick else 100))
    finally:
        loop.close()
    base = found["bearer"].smallest + found["verification"].smallest
    added = {name: (one.smallest - base) * 1e6 for name, one in found.items() if name.startswith("proof")}
    peer = found[PEER].smallest - found["verification"].smallest if PEER in found else None
    rows = [
        [name, f"{one.smallest * 1e6:.2f}", f"{added[name]:+.2f}" if name in added else ""]
        for name, one in found.items()
    ]
    beside: dict[str, Any] = {} if peer is None else {"peer": peer * 1e6, "peer_name": PEER}
    return {
        "rows": rows,
        "figures": [
            figure(
                f"DPoP: what a {name} adds to a warm request, besides one verification, µs", value, must=MUST, **beside
            )
            for name, value in added.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    silence()
    print(
        table(
            "A proof of possession",
            ["contestant", "µs per request", "more than bearer and verification"],
            measure(rounds=parser.parse_args().rounds)["rows"],
        )
    )


if __name__ == "__main__":
    main()
