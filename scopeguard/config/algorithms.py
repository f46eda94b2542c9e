"""The signature algorithms that settings may name, and those that are accepted by default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scopeguard.config.checks import strings
from scopeguard.config.ml_dsa import ML_DSA, check_available
from scopeguard.errors import ConfigurationError

DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""Signature algorithms accepted unless an issuer says otherwise (RFC 9068 section 2.1 makes RS256 mandatory)."""

SUPPORTED_ALGORITHMS: Final = frozenset(
    (*DEFAULT_ALGORITHMS, "RS384", "RS512", "PS384", "PS512", "ES512", "ES256K", *ML_DSA)
)
"""Every algorithm that can be configured. ``none`` and the symmetric ``HS*`` cannot."""

DPOP_ALGORITHMS: Final = ("ES256", "PS256", "EdDSA", "Ed25519")
"""The algorithms of proofs that are accepted unless a setting says otherwise. All are asymmetric (RFC 9449 §4.3)."""

SUPPORTED_DPOP_ALGORITHMS: Final = frozenset((*DPOP_ALGORITHMS, "ES384", "ES512", "PS384", "PS512", "RS256", *ML_DSA))


def check_algorithms(given: Iterable[str]) -> tuple[str, ...]:
    """Return *given*, the setting ``algorithms`` of an issuer.

    Raises :class:`ConfigurationError` unless each is supported.
    """
    algorithms = strings(given, "algorithms")
    if not algorithms:
        raise ConfigurationError("algorithms: must not be empty; remove the setting to use the default list")
    for algorithm in algorithms:
        if algorithm.startswith("HS"):
            raise ConfigurationError(
                f"algorithms: {algorithm} is symmetric, so every verifier could forge tokens; use a public-key "
                "algorithm such as RS256"
            )
        if algorithm not in SUPPORTED_ALGORITHMS:
            known = ", ".join(sorted(SUPPORTED_ALGORITHMS))
            raise ConfigurationError(f"algorithms: {algorithm!r} is not supported; use one of {known}")
    check_available(algorithms, "algorithms")
    return algorithms
