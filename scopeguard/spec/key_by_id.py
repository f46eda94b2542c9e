"""Keys that an authority publishes one by one, each as PEM under a URL that ends in its id: AWS load balancers do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from scopeguard.spec.jwks import MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.spec.signatures import Backends

# Lower case only: one key has one name, and one place in what is remembered.
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ONE_PUBLIC_KEY: Final = re.compile(rb"\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*")


def key_url(template: str, kid: object) -> tuple[str, str] | None:
    """*kid* and where that key is, by *template*, which ends in ``{kid}``; ``None`` unless it is a UUID in lower case.

    The one place where something of a token becomes a part of a URL, and this is all that can.
    """
    if not isinstance(kid, str) or not _KEY_ID.fullmatch(kid):
        return None
    return kid, template.removesuffix("{kid}") + kid


def parse_public_key(
    document: bytes, kid: str, algorithms: Collection[str], backends: Backends = ()
) -> VerificationKey:
    """The key in *document*: one ``PUBLIC KEY`` block of PEM (RFC 7468 section 13), RSA or elliptic curve.

    Judged as a key of a JWK Set is. Raises :class:`MalformedKeySet` for anything else (a certificate, a private key,
    several keys), for a key that is weak, and for one that can verify none of *algorithms*.
    """
    key: object = None
    if _ONE_PUBLIC_KEY.fullmatch(document):
        try:
            key = load_pem_public_key(document)
        except (ValueError, UnsupportedAlgorithm):
            pass  # told below, without quoting it
    try:
        jwk = _jwk(key)
    except InvalidKeyError:
        jwk = None
    if jwk is None:
        raise MalformedKeySet("not one public key as PEM, RSA or elliptic curve")
    (found,) = parse_key_set(json.dumps({"keys": [{**jwk, "kid": kid}]}).encode(), backends=backends).keys
    if found.algorithms.isdisjoint(algorithms):
        raise MalformedKeySet("a key that cannot verify the algorithms of its issuer")
    return found


def _jwk(key: object) -> dict[str, Any] | None:
    match key:
        case EllipticCurvePublicKey():
            jwk = ECAlgorithm.to_jwk(key, as_dict=True)
        case RSAPublicKey():
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        case _:
            return None
    return {name: value for name, value in jwk.items() if name != "key_ops"}
