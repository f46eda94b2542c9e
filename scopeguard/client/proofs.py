"""The DPoP proofs of a client, with the nonces of the servers that it calls: RFC 9449 §8 and §9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from scopeguard.client.dpop import DPoPKey
from scopeguard.client.settings import origin
from scopeguard.flow.effects import Clock
from scopeguard.spec.dpop_client import read_nonce
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked

MOST_NONCES: Final = 64
"""The number of origins whose nonces are kept. The least recently used one is dropped first."""


class Proofs(Locked):
    """Signs proofs with one key, with the latest nonce of each origin.

    There is one object for the authorization server and one for the APIs, because "the nonce values" of one are not for
    the other (RFC 9449 §9), even at one origin.
    """

    def __init__(self, key: DPoPKey, clock: Clock) -> None:
        super().__init__()
        self._key = key
        self._clock = clock
        self._nonces: BoundedMap[str, str] = BoundedMap(MOST_NONCES)

    def make(self, method: str, url: str, token: str | None = None) -> str:
        """Return a new proof for a request with *method* to *url*, which carries the access *token*."""
        with self._lock:
            nonce = self._nonces.get(_origin(url))
        return self._key.proof(method, url, token=token, nonce=nonce, now=self._clock.wall())

    def learn(self, url: str, values: Sequence[str]) -> bool:
        """Keep the nonce in *values*, the ``DPoP-Nonce`` lines of a response from *url*. Return whether there is one.

        RFC 9449 §8.2: a server "can supply new nonces" with any response, and the client uses the latest.
        """
        nonce = read_nonce(values)
        if nonce is None:
            return False
        with self._lock:
            self._nonces.put(_origin(url), nonce)
        return True


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return origin(parts.scheme, parts.hostname or "", parts.port)
