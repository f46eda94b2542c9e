"""RSA keys for tests, with primes from ``tests/data/rsa_primes.json``: to generate one takes up to a second.

``python tests/support/rsa_keys.py BITS EXPONENT`` adds a key to the file.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from environment import ROOT

_FILE: Final = ROOT / "tests" / "data" / "rsa_primes.json"


@functools.cache
def _read() -> dict[str, list[list[str]]]:
    primes: dict[str, list[list[str]]] = json.loads(_FILE.read_text("utf-8"))
    return primes


@functools.cache
def rsa_key(bits: int = 2048, exponent: int = 65537, *, number: int = 0) -> rsa.RSAPrivateKey:
    """Return a key of this size and exponent; keys of different *number* are different."""
    p, q = (int(prime, 16) for prime in _read()[f"{bits} {exponent}"][number])
    d = rsa.rsa_recover_private_exponent(exponent, p, q)
    return rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(exponent, p * q),
    ).private_key(unsafe_skip_rsa_key_validation=True)


def _add(bits: int, exponent: int) -> None:
    primes = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else {}
    numbers = rsa.generate_private_key(exponent, bits).private_numbers()
    primes.setdefault(f"{bits} {exponent}", []).append([f"{numbers.p:x}", f"{numbers.q:x}"])
    _FILE.write_text(json.dumps(dict(sorted(primes.items())), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    _add(int(sys.argv[1]), int(sys.argv[2]))
