"""The algorithms of ML-DSA (FIPS 204) with the names and sizes of RFC 9964, and whether they can be verified here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from scopeguard.errors import ConfigurationError
from scopeguard.extras import upgrade_command

SEED_OCTETS: Final = 32
"""The length of ``priv`` in a JWK (RFC 9964 section 4)."""


class ParameterSet(NamedTuple):
    """The sizes of a parameter set in octets: RFC 9964 section 5, table 1."""

    number: int
    public_key: int
    signature: int


ML_DSA: Final[Mapping[str, ParameterSet]] = MappingProxyType(
    {
        "ML-DSA-44": ParameterSet(number=44, public_key=1312, signature=2420),
        "ML-DSA-65": ParameterSet(number=65, public_key=1952, signature=3309),
        "ML-DSA-87": ParameterSet(number=87, public_key=2592, signature=4627),
    }
)
"""The parameter sets by the name of their algorithm in JOSE. No default list of algorithms contains them."""


def load_class(algorithm: str, kind: str) -> Any:
    """Return the class of ``cryptography`` for the keys of *algorithm*; *kind* is ``"PublicKey"`` or ``"PrivateKey"``.

    Raises :class:`ImportError` if ``cryptography`` is older than 47.
    """
    # Imported here because few issuers use ML-DSA.
    from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415

    return getattr(mldsa, f"MLDSA{ML_DSA[algorithm].number}{kind}")


@cache
def is_available() -> bool:
    """Return whether ``cryptography`` has ML-DSA and was built with a library that supports it.

    Version 47 has the classes, but with OpenSSL their methods raise ``UnsupportedAlgorithm``.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        load_class("ML-DSA-44", "PrivateKey").from_seed_bytes(bytes(SEED_OCTETS))
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


def check_available(algorithms: Iterable[str], setting: str) -> None:
    """Raise :class:`ConfigurationError` if *algorithms*, the value of *setting*, needs ML-DSA but it is missing."""
    for algorithm in algorithms:
        if algorithm in ML_DSA and not is_available():
            raise ConfigurationError(
                f"{setting}: {algorithm} needs cryptography 48 or newer with OpenSSL 3.5 or newer; "
                + upgrade_command("cryptography", "48")
            )
