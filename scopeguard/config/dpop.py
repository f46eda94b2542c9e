"""Proof of possession with DPoP (RFC 9449): which proofs are accepted, and for which tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from scopeguard.config.algorithms import DPOP_ALGORITHMS, SUPPORTED_DPOP_ALGORITHMS
from scopeguard.config.checks import Converted, converted, flag, member, number, positive, strings, whole
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.ml_dsa import ML_DSA, check_available
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError

_MIN_KEY_BYTES: Final = 32
# The members of the header of a proof other than the key, and the claims, in bytes.
_OTHER_MEMBERS: Final = len('{"typ":"dpop+jwt","alg":"ML-DSA-65","jwk":{"kty":"AKP","alg":"ML-DSA-65","pub":""}}')
_ROOM_FOR_CLAIMS: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DPoP:
    """Which DPoP proofs (RFC 9449) a guard accepts: ``Guard(..., dpop=DPoP(mode="required"))``.

    * *mode*: ``"allowed"`` accepts bearer tokens as well, ``"required"`` refuses them. A rule may say
      otherwise for its requests, and an issuer may require more for its tokens. A token that is bound to a key is
      refused without a proof in both modes.
    * *base_url*: scheme, host, port and, if a proxy removes a prefix from paths, that prefix, as clients see them. The
      ``htu`` of a proof is compared with it and with the path of the request. Default: the origin of the guard's
      resource. It is never taken from ``Host`` or a forwarded field.
    * *algorithms*: the signature algorithms of proofs. ``ML-DSA-44``, ``ML-DSA-65`` and ``ML-DSA-87`` (RFC 9964) need
      ``cryptography`` 48.
    * *max_age*: for how many seconds after its ``iat`` a proof is accepted. *max_skew*: how many seconds an ``iat`` may
      be in the future.
    * *max_proof_bytes*: the greatest length of a proof, in bytes. Proofs of ``ML-DSA-65`` and ``ML-DSA-87`` have more
      than 8 KiB.
    * *strict_htu*: refuse an ``htu`` with a query or fragment instead of ignoring both.
    * *nonce_keys*: secrets of at least 32 bytes. With them, every proof needs a nonce of this API (RFC 9449 §9), which
      any process with the same secrets issues and recognises. The first secret seals new nonces: add a new secret
      before it, and remove the old one after *nonce_lifetime*.
    * *nonce_lifetime*: for how many seconds a nonce is accepted. After half of it, responses carry a new one.
    * *trust_nonce_time*: take the age of a proof from its nonce instead of its ``iat``, for clients with a wrong clock.
      Only with *nonce_keys*.
    * *max_proofs*: how many proofs are remembered against replay. *max_proofs_per_key*: how many of one key. A proof
      beyond either is answered with 503 until older proofs have expired: no proof is forgotten before. A client can
      have many keys. So once half of *max_proofs* are remembered, one subject or client may have an eighth of them.
      With a store, the limits hold for all processes together. If proofs are accepted for longer than the default of
      70 seconds, limits that have their default values grow with that time, up to ten times.
    * *replay_fail_open_dangerously*: accept proofs while the store that remembers them is unavailable.

    Not covered by a proof: the body, the query and the header fields of the request (RFC 9449 §11.7).

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    mode: Converted[str, DPoPMode] = converted(DPoPMode.ALLOWED)
    base_url: str | None = None
    algorithms: Converted[Iterable[str], tuple[str, ...]] = converted(DPOP_ALGORITHMS)
    max_age: float = 60.0
    max_skew: float = 10.0
    max_proof_bytes: int = 8192
    strict_htu: bool = False
    nonce_keys: Converted[Iterable[str], tuple[str, ...]] = field(default=converted(()), repr=False)
    nonce_lifetime: float = 300.0
    trust_nonce_time: bool = False
    max_proofs: int = 100_000
    max_proofs_per_key: int = 1000
    replay_fail_open_dangerously: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", member(DPoPMode, self.mode, "dpop: mode"))
        if self.base_url is not None:
            check_url(self.base_url, "dpop: base_url", query=False)
        algorithms = strings(self.algorithms, "dpop: algorithms", empty=False)
        if not algorithms:
            raise ConfigurationError("dpop: algorithms: must not be empty; remove it to use the default list")
        for algorithm in algorithms:
            if algorithm not in SUPPORTED_DPOP_ALGORITHMS:
                known = ", ".join(sorted(SUPPORTED_DPOP_ALGORITHMS))
                raise ConfigurationError(f"dpop: algorithms: {algorithm!r} is not supported; use one of {known}")
        check_available(algorithms, "dpop: algorithms")
        object.__setattr__(self, "algorithms", algorithms)
        positive(self.max_age, "dpop: max_age")
        if number(self.max_skew, "dpop: max_skew") < 0:
            raise ConfigurationError(f"dpop: max_skew: must be at least 0 seconds, not {self.max_skew}")
        positive(self.nonce_lifetime, "dpop: nonce_lifetime")
        for name in ("max_proof_bytes", "max_proofs", "max_proofs_per_key"):
            whole(getattr(self, name), f"dpop: {name}")
        for algorithm in algorithms:
            if self.max_proof_bytes < (needed := _usual_length(algorithm)):
                raise ConfigurationError(
                    f"dpop: max_proof_bytes: a proof of {algorithm} has about {needed} bytes, more than "
                    f"{self.max_proof_bytes}; set 16384"
                )
        for name in ("strict_htu", "trust_nonce_time", "replay_fail_open_dangerously"):
            flag(getattr(self, name), f"dpop: {name}")
        keys = strings(self.nonce_keys, "dpop: nonce_keys", empty=False)
        if any(len(key.encode()) < _MIN_KEY_BYTES for key in keys):
            raise ConfigurationError(f"dpop: nonce_keys: each must be a secret of at least {_MIN_KEY_BYTES} bytes")
        object.__setattr__(self, "nonce_keys", keys)
        if self.trust_nonce_time and not keys:
            raise ConfigurationError("dpop: trust_nonce_time: has no effect without nonce_keys; set nonce_keys")


def _usual_length(algorithm: str) -> int:
    """Return the length of a proof with ML-DSA in bytes; 0 for another *algorithm*. It encodes its key twice."""
    sizes = ML_DSA.get(algorithm)
    if sizes is None:
        return 0
    header = _base64url_length(_base64url_length(sizes.public_key) + _OTHER_MEMBERS)
    return header + _ROOM_FOR_CLAIMS + _base64url_length(sizes.signature)


def _base64url_length(octets: int) -> int:
    """Return the length of *octets* in base64url without padding."""
    return (octets * 8 + 5) // 6
