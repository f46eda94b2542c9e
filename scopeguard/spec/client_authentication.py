"""Authenticate a client to an authorization server: RFC 6749 section 2.3, RFC 7521, RFC 7523, RFC 8705.

Used for introspection and at the token endpoint. Credentials never enter a URL. "The client MUST NOT use more than one
authentication method in each request" (RFC 6749 section 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurve, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from scopeguard.config.ml_dsa import ML_DSA, check_available
from scopeguard.errors import ConfigurationError
from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.certificate_fields import from_pem
from scopeguard.spec.ml_dsa import MLDSAAlgorithm
from scopeguard.spec.token_endpoint import basic_authorization

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME: Final = 60
"""Seconds. An assertion is used for one request."""
# The key type and the curve that each algorithm requires (RFC 7518 section 3.1, RFC 8037 section 3.1).
_SIGNING: Final[Mapping[str, tuple[type, type[EllipticCurve] | None]]] = {
    "RS256": (RSAPrivateKey, None),
    "PS256": (RSAPrivateKey, None),
    "ES256": (EllipticCurvePrivateKey, SECP256R1),
    "ES384": (EllipticCurvePrivateKey, SECP384R1),
    "EdDSA": (Ed25519PrivateKey, None),
}

_PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e", "alg", "pub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The client authentication of one request: an ``Authorization`` value, or additional form parameters."""

    authorization: str | None = field(default=None, repr=False)
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionKey:
    """A private key for ``private_key_jwt``, parsed once.

    *material* is PEM text or a JWK as a dict. *algorithm* is one of RS256, PS256, ES256, ES384, EdDSA and, with
    ``cryptography`` 48, ML-DSA-44, ML-DSA-65, ML-DSA-87. *kid* goes into the header, so that the server finds the
    public key. *certificate* is PEM text: the header then has ``x5t#S256`` (RFC 7515 section 4.1.8), for servers that
    know keys by their certificates. Raises :class:`ConfigurationError` if *material* is not a private key for
    *algorithm*, or if *certificate* is for another key. *setting* is the name of the key in the message.
    """

    material: str | Mapping[str, Any] = field(repr=False)
    algorithm: str = "RS256"
    kid: str | None = None
    certificate: str | None = field(default=None, repr=False)
    setting: str = field(default="private_key_jwt", repr=False, compare=False)
    x5t: str | None = field(default=None, init=False)
    _key: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.algorithm not in _SIGNING and self.algorithm not in ML_DSA:
            known = sorted((*_SIGNING, *ML_DSA))
            raise ConfigurationError(f"{self.setting}: algorithm {self.algorithm!r} is not one of {known}")
        check_available((self.algorithm,), self.setting)
        implementation = _implementation(self.algorithm)
        try:
            if isinstance(self.material, str):
                key = implementation.prepare_key(self.material)
            else:
                key = implementation.from_jwk(dict(self.material))
        except Exception:  # noqa: BLE001 - a library's error may quote the key
            key = None
        if not _fits(self.algorithm, key):
            raise ConfigurationError(
                f"{self.setting}: not a private key for {self.algorithm}; PEM text or a private JWK is needed"
            )
        object.__setattr__(self, "_key", key)
        if self.certificate is not None:
            object.__setattr__(self, "x5t", _thumbprint_of(self.certificate, key))

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*."""
        signature: bytes = _implementation(self.algorithm).sign(message, self._key)
        return signature

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK with the members that its thumbprint needs (RFC 7638 section 3.2)."""
        exported = _implementation(self.algorithm).to_jwk(self._key.public_key(), as_dict=True)
        return {name: exported[name] for name in _PUBLIC_MEMBERS if name in exported}


def _implementation(algorithm: str) -> Any:
    """Return PyJWT's implementation of *algorithm*, or that of :mod:`scopeguard.spec.ml_dsa`, which PyJWT lacks.

    PyJWT is imported here because the import takes 20 ms and only ``private_key_jwt`` needs it.
    """
    if algorithm in ML_DSA:
        return MLDSAAlgorithm(algorithm)
    from jwt.algorithms import get_default_algorithms  # noqa: PLC0415

    return get_default_algorithms()[algorithm]


def _fits(algorithm: str, key: object) -> bool:
    """Return whether *key* is a private key for *algorithm*. PyJWT before 2.11 does not check this for PEM text."""
    if algorithm in ML_DSA:
        return MLDSAAlgorithm(algorithm).fits(key)
    kind, curve = _SIGNING[algorithm]
    return isinstance(key, kind) and (curve is None or isinstance(getattr(key, "curve", None), curve))


def _thumbprint_of(certificate: str, key: Any) -> str:
    """Return the thumbprint of *certificate*, PEM text. Raise :class:`ConfigurationError` if it is not for *key*."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - few clients have a certificate

    found = from_pem(certificate)
    try:
        public = None if found is None else load_pem_x509_certificate(certificate.encode()).public_key()
    except ValueError:
        public = None
    if found is None or public is None:
        raise ConfigurationError("certificate: must be one certificate as PEM text")
    one, other = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in (public, key.public_key())
    )
    if one != other:
        raise ConfigurationError("certificate: must be for the key in private_key, and is for another one")
    return found


def basic(client_id: str, secret: str) -> Proof:
    """Authenticate by ``client_secret_basic``: both parts are form-urlencoded, then Base64 (RFC 6749 section 2.3.1)."""
    return Proof(authorization=basic_authorization(client_id, secret))


def post(client_id: str, secret: str) -> Proof:
    """Authenticate by ``client_secret_post``: the secret is a form parameter (RFC 6749 section 2.3.1)."""
    return Proof(parameters=(("client_id", client_id), ("client_secret", secret)))


def bearer(token: str) -> Proof:
    """Authorize the call by a separate access token (RFC 7662 section 2.1)."""
    return Proof(authorization=f"Bearer {token}")


def client_id_only(client_id: str) -> Proof:
    """Send only the client's id: for ``none``, and for ``tls_client_auth``, where TLS authenticates it (RFC 8705)."""
    return Proof(parameters=(("client_id", client_id),))


def assertion(
    client_id: str, key: AssertionKey, *, audience: str, now: float, identifier: str, typ: str | None
) -> Proof:
    """Authenticate by ``private_key_jwt``: a signed JWT that names the client (RFC 7523 section 2.2).

    *audience* must be the issuer identifier, not the URL of an endpoint: the endpoint could belong to another server,
    which could then use the assertion. *identifier* becomes the ``jti`` and must be unique. *now* is in seconds since
    the epoch. *typ* is the type in the header, if any.
    """
    header: dict[str, Any] = {"alg": key.algorithm}
    if typ is not None:
        header["typ"] = typ
    if key.kid is not None:
        header["kid"] = key.kid
    if key.x5t is not None:
        header["x5t#S256"] = key.x5t
    # RFC 7523 section 3: "For client authentication, the subject MUST be the "client_id" of the OAuth client."
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": int(now),
        "exp": int(now) + ASSERTION_LIFETIME,
        "jti": identifier,
    }
    token = sign_jwt(header, claims, key)
    return Proof(parameters=(("client_assertion_type", ASSERTION_TYPE), ("client_assertion", token)))


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: AssertionKey) -> str:
    """Return a JWT in compact serialization (RFC 7515 section 3.1), signed with *key*."""
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    signed = ".".join(map(encode_base64url, parts))
    return f"{signed}.{encode_base64url(key.sign(signed.encode('ascii')))}"
