"""Parse public keys that are published one by one as PEM, at URLs that end in the ``kid`` (AWS load balancers)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scopeguard.spec.jwks import MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.spec.signatures import Backends

# Lower case only, so that a key has one id and is cached once.
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ONE_PUBLIC_KEY: Final = re.compile(rb"\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*")


def key_url(template: str, kid: object) -> tuple[str, str] | None:
    """Return *kid* and the URL of its key, or ``None`` unless *kid* is a UUID in lower case.

    *template* ends in ``{kid}``. This is the only place where a part of a token becomes a part of a URL. A UUID cannot
    change the path or the host, as RFC 8725 section 3.10 demands of a ``kid`` that is used for a look-up.
    """
    if not isinstance(kid, str) or not _KEY_ID.fullmatch(kid):
        return None
    return kid, template.removesuffix("{kid}") + kid


def parse_public_key(
    document: bytes, kid: str, algorithms: Collection[str], backends: Backends = ()
) -> VerificationKey:
    """Return the key in *document*: one ``PUBLIC KEY`` block of PEM (RFC 7468 section 13), RSA or elliptic curve.

    The key is checked like a key of a JWK Set. Raises :class:`MalformedKeySet` for anything else (a certificate, a
    private key, several keys), for a weak key, and for a key that cannot verify any of *algorithms*.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - few issuers need it

    key: object = None
    if _ONE_PUBLIC_KEY.fullmatch(document):
        try:
            key = load_pem_public_key(document)
        except (ValueError, UnsupportedAlgorithm):
            pass  # raised below: a chained error could quote the document
    jwk = _jwk(key)
    if jwk is None:
        raise MalformedKeySet("not one PEM public key of type RSA or elliptic curve")
    (found,) = parse_key_set(json.dumps({"keys": [{**jwk, "kid": kid}]}).encode(), backends=backends).keys
    if found.algorithms.isdisjoint(algorithms):
        raise MalformedKeySet("the key cannot verify any algorithm of its issuer")
    return found


def _jwk(key: object) -> dict[str, Any] | None:
    """Return *key* as a JWK, or ``None`` if it is of another type or on a curve without a name in RFC 7518."""
    # PyJWT takes 20 ms to import, and only issuers with keys by id need it.
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm  # noqa: PLC0415
    from jwt.exceptions import InvalidKeyError  # noqa: PLC0415

    try:
        match key:
            case EllipticCurvePublicKey():
                jwk = ECAlgorithm.to_jwk(key, as_dict=True)
            case RSAPublicKey():
                jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
            case _:
                return None
    except InvalidKeyError:
        return None
    return {name: value for name, value in jwk.items() if name != "key_ops"}
