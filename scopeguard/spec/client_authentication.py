"""How a client proves to an authorization server who it is: RFC 6749 section 2.3, RFC 7521, RFC 7523, RFC 8705.

Used for introspection. Credentials never enter a URL, and a request carries exactly one method (I-05).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurve, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import get_default_algorithms

from scopeguard.errors import ConfigurationError
from scopeguard.spec.token_endpoint import basic_authorization

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME: Final = 60  # seconds (I-35)
# What each algorithm signs with (RFC 7518 §3.1, RFC 8037 §3.1).
_SIGNING: Final[Mapping[str, tuple[type, type[EllipticCurve] | None]]] = {
    "RS256": (RSAPrivateKey, None),
    "PS256": (RSAPrivateKey, None),
    "ES256": (EllipticCurvePrivateKey, SECP256R1),
    "ES384": (EllipticCurvePrivateKey, SECP384R1),
    "EdDSA": (Ed25519PrivateKey, None),
}
_pyjwt: Final = get_default_algorithms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a request carries to authenticate the client: an ``Authorization`` value, or further form parameters."""

    authorization: str | None = field(default=None, repr=False)
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionKey:
    """A private key for ``private_key_jwt``, read once.

    *material*: PEM text or a JWK as a dict. *algorithm*: one of RS256, PS256, ES256, ES384, EdDSA. *kid*: named in the
    header, so that the server finds the public part. Raises :class:`ConfigurationError`.
    """

    material: str | Mapping[str, Any] = field(repr=False)
    algorithm: str = "RS256"
    kid: str | None = None
    _key: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.algorithm not in _SIGNING:
            raise ConfigurationError(f"private_key_jwt: algorithm {self.algorithm!r} is not one of {sorted(_SIGNING)}")
        implementation = _pyjwt[self.algorithm]
        try:
            if isinstance(self.material, str):
                key = implementation.prepare_key(self.material)
            else:
                key = implementation.from_jwk(dict(self.material))
        except Exception:  # noqa: BLE001 - the cause would quote key material
            key = None
        if not _signs_with(self.algorithm, key):
            raise ConfigurationError(
                f"private_key_jwt: not a private key for {self.algorithm}; PEM text or a private JWK is needed"
            )
        object.__setattr__(self, "_key", key)

    def sign(self, message: bytes) -> bytes:
        """The signature of *message*."""
        signature: bytes = _pyjwt[self.algorithm].sign(message, self._key)
        return signature


def _signs_with(algorithm: str, key: object) -> bool:
    """Whether *key* is a private key for *algorithm*. PyJWT before 2.11 loads any PEM text under any algorithm."""
    kind, curve = _SIGNING[algorithm]
    return isinstance(key, kind) and (curve is None or isinstance(getattr(key, "curve", None), curve))


def basic(client_id: str, secret: str) -> Proof:
    """``client_secret_basic``: both parts form-urlencoded before Base64 (RFC 6749 section 2.3.1, I-04)."""
    return Proof(authorization=basic_authorization(client_id, secret))


def post(client_id: str, secret: str) -> Proof:
    """``client_secret_post``."""
    return Proof(parameters=(("client_id", client_id), ("client_secret", secret)))


def bearer(token: str) -> Proof:
    """A separate access token authorizes the caller (RFC 7662 section 2.1, I-06)."""
    return Proof(authorization=f"Bearer {token}")


def named(client_id: str) -> Proof:
    """``tls_client_auth`` and ``none``: the client is named, and the connection, if anything, proves it (C-32)."""
    return Proof(parameters=(("client_id", client_id),))


def assertion(
    client_id: str, key: AssertionKey, *, audience: str, now: float, identifier: str, typ: str | None
) -> Proof:
    """``private_key_jwt``: a signed statement of who asks (RFC 7523 section 2.2, I-32).

    *audience* is the issuer identifier, alone (I-33): an endpoint's URL could be another server's, who would then
    have an assertion to use. *identifier* is unique to this call (I-35); *now* is in seconds since the epoch.
    """
    header: dict[str, Any] = {"alg": key.algorithm}
    if typ is not None:
        header["typ"] = typ
    if key.kid is not None:
        header["kid"] = key.kid
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + ASSERTION_LIFETIME,
        "jti": identifier,
    }
    signed = b".".join(_segment(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    token = (signed + b"." + _segment(key.sign(signed))).decode("ascii")
    return Proof(parameters=(("client_assertion_type", ASSERTION_TYPE), ("client_assertion", token)))


def _segment(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
