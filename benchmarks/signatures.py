"""Measures one signature check with each backend, compared with a ``verify`` of ``cryptography`` with prepared
arguments.

    python -m benchmarks.signatures [--rounds N]

The key comes from a key set. It verifies with the backends of a guard: none, which is ``cryptography``, or those of the
extra ``fast``. PyJWT's algorithm classes are measured for comparison. The signed text has 640 bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from jwt.algorithms import get_default_algorithms

from benchmarks.measuring import Measured, machine, measure_in_turns, table, turn_of
from scopeguard.core.signature_backends import load_backends
from scopeguard.devserver.keys import SigningKey
from scopeguard.spec.jwks import parse_key_set
from scopeguard.spec.signatures import der_signature

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
SIGNED = b"x" * 640
RAW = "cryptography, one verify"


def raw_check(algorithm: str, public: Any, signature: bytes) -> Callable[[], object]:
    match algorithm:
        case "RS256":
            return partial(public.verify, signature, SIGNED, PKCS1v15(), SHA256())
        case "PS256":
            return partial(public.verify, signature, SIGNED, PSS(MGF1(SHA256()), 32), SHA256())
        case "EdDSA":
            return partial(public.verify, signature, SIGNED)
    method = ECDSA(SHA256() if algorithm == "ES256" else SHA384())
    return partial(public.verify, der_signature(signature), SIGNED, method)


def compare(algorithm: str, *, rounds: int) -> dict[str, Measured]:
    key = SigningKey.generate(algorithm)
    public, signature = key.private_key.public_key(), key.sign(SIGNED)
    pyjwt = get_default_algorithms()[algorithm]
    works: dict[str, Callable[[], object]] = {
        RAW: raw_check(algorithm, public, signature),
        "PyJWT, its algorithm class": partial(pyjwt.verify, SIGNED, public, signature),
    }
    for names in ((), ("awscrt",), ("pynacl",)):
        backends = load_backends(names)
        if all(backend.prepare(algorithm, public) for backend in backends):
            (ready,) = parse_key_set({"keys": [key.public_jwk()]}, backends=backends).keys
            name = f"scopeguard, {names[0] if names else 'cryptography'}"
            works[name] = partial(ready.verify, algorithm, SIGNED, signature)
    return measure_in_turns({name: turn_of(work) for name, work in works.items()}, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    for algorithm in ALGORITHMS:
        found = compare(algorithm, rounds=rounds)
        rows = [
            [name, f"{one.smallest * 1e6:.1f}", f"{one.median * 1e6:.1f}", str(one.ratio(found[RAW]))]
            for name, one in found.items()
        ]
        print(table(f"A signature, {algorithm}", ["computed by", "smallest, µs", "median, µs", "ratio"], rows))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main()
