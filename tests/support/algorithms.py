"""The signature algorithms that the installed ``cryptography`` can verify."""

from __future__ import annotations

from typing import Final

from scopeguard.config.algorithms import SUPPORTED_ALGORITHMS
from scopeguard.config.ml_dsa import ML_DSA, is_available

ML_DSA_HERE: Final = tuple(ML_DSA) if is_available() else ()
"""The algorithms of ML-DSA; none with the oldest ``cryptography`` that is supported."""

CLASSIC: Final = SUPPORTED_ALGORITHMS - set(ML_DSA)
USABLE: Final = CLASSIC.union(ML_DSA_HERE)
