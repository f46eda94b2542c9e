"""Check a DPoP proof for a resource server: RFC 9449 §4.3 and §7.

The checks are in the order of their cost, so that a malformed proof costs no signature verification. The nonce and the
earlier use of a proof are checked last, in :mod:`scopeguard.flow.possession`. "Item" in a comment is an item of the
list in §4.3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from scopeguard.config.dpop import DPoP
from scopeguard.errors import InvalidProof, InvalidToken
from scopeguard.numeric_date import LATEST_DATE
from scopeguard.reasons import Reason
from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.jwks import VerificationKey, parse_proof_key
from scopeguard.spec.jws import check_header, has_type, parse_header, split_compact
from scopeguard.spec.request_uri import normalise_uri
from scopeguard.spec.strict_json import MalformedJSON, parse_object

_MAX_IDENTIFIER: Final = 1024
_KNOWN_HEADERS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof whose signature, method, URI, token and form are checked.

    ``identity`` is a digest of (key, URI, ``jti``): RFC 9449 §11.1 speaks of a ``jti`` "in the context of the target
    URI". ``nonce`` is the value in the proof. It is not checked, and may be of any type.
    """

    thumbprint: str
    issued_at: float
    identity: bytes = field(repr=False)
    nonce: object = field(repr=False)


def single_proof(values: Sequence[bytes], max_bytes: int) -> str:
    """Return the proof in *values*, the field lines called ``DPoP``.

    RFC 9449 §4.3: "There is not more than one DPoP HTTP request header field." Servers and proxies join field lines
    with a comma, so a comma separates two proofs. Raises :class:`InvalidProof`.
    """
    if not values:
        raise InvalidProof(Reason.PROOF_MISSING)
    if len(values) > 1 or b"," in values[0]:
        found = f"{len(values)} fields" if len(values) > 1 else "one field with a comma"
        raise InvalidProof(Reason.PROOF_REPEATED, found=found)
    value = values[0].strip(b" \t")
    if len(value) > max_bytes:
        raise InvalidProof(Reason.PROOF_TOO_LARGE, bytes=len(value), limit=max_bytes)
    if not value.isascii():
        raise InvalidProof(Reason.PROOF_MALFORMED, problem="not ASCII")
    return value.decode("ascii")


def check_proof(proof: str, *, policy: DPoP, method: str, uri: str, token: str, jkt: str | None, now: float) -> Proof:
    """Check *proof* for a request with *method* to the normalised *uri*, which carries the access *token*.

    *jkt* is the thumbprint to which the token is bound, ``None`` if it is bound to no key. *now* is in seconds since
    the epoch. NOT checked: ``nonce``, ``iat`` if the policy takes the age from the nonce, and replay.

    Raises :class:`InvalidProof`, and :class:`InvalidToken` if the token is not bound to the key of the proof: RFC 9449
    §7.1 uses ``invalid_token`` for "an invalid token (e.g. [...] its binding)".
    """
    found = verify_proof(proof, policy=policy, method=method, uri=uri, token=token, now=now)
    # Item 12: "confirm that the public key to which the access token is bound matches the public key from the DPoP
    # proof"
    if jkt != found.thumbprint:
        raise InvalidToken(Reason.WRONG_PROOF_KEY, bound="no" if jkt is None else "to another key")
    return found


def verify_proof(proof: str, *, policy: DPoP, method: str, uri: str, token: str | None, now: float) -> Proof:
    """Check *proof* as :func:`check_proof` does, but not the key to which a token is bound.

    *token* is ``None`` for a request for a token (RFC 9449 §5), whose proof needs no ``ath``. Raises
    :class:`InvalidProof`.
    """
    try:
        header_text, payload, signed, signature = split_compact(proof)
        algorithms = tuple(policy.algorithms)
        algorithm, _ = _read_header(header_text, algorithms)
        claims = parse_object(payload)
    except InvalidToken as error:
        malformed = InvalidProof(Reason.PROOF_MALFORMED, cause=error.reason.value)
        malformed.take_facts(error)
        raise malformed from None
    except MalformedJSON as error:
        raise InvalidProof(Reason.PROOF_MALFORMED, problem=f"claims: {error}") from None
    identifier = _check_claims(claims, policy=policy, method=method, uri=uri, token=token, now=now)
    # Item 6: "the JWT signature verifies with the public key contained in the jwk JOSE Header Parameter", and item 7:
    # "the jwk JOSE Header Parameter does not contain a private key".
    key = _key(header_text, algorithms)
    if not key.verify(algorithm, signed, signature):
        raise InvalidProof(Reason.PROOF_SIGNATURE)
    # A JSON array: no value of one member can look like the beginning of another.
    identity = hashlib.sha256(json.dumps([key.thumbprint, uri, identifier]).encode()).digest()
    return Proof(
        thumbprint=key.thumbprint, issued_at=float(claims["iat"]), identity=identity, nonce=claims.get("nonce")
    )


# All proofs of a client have the same header. Parsing its key takes as long as everything else but the signature.
@lru_cache(maxsize=_KNOWN_HEADERS)
def _read_header(text: bytes, algorithms: tuple[str, ...]) -> tuple[str, Mapping[str, Any]]:
    """Return the algorithm and the key of the header *text*, a segment of a proof. The key is not checked."""
    header = parse_header(text)
    # Item 4: "the typ JOSE Header Parameter has the value dpop+jwt"
    if not has_type(header, "dpop+jwt"):
        raise InvalidProof(Reason.PROOF_MALFORMED, problem="typ is not dpop+jwt")
    # Item 5: "the alg JOSE Header Parameter indicates a registered asymmetric digital signature algorithm [...], is not
    # none, is supported by the application, and is acceptable per local policy"
    algorithm, _ = check_header(header, algorithms=algorithms)
    jwk = header.get("jwk")
    if not isinstance(jwk, Mapping):
        raise InvalidProof(Reason.PROOF_MALFORMED, problem="no jwk in the header")
    return algorithm, jwk


@lru_cache(maxsize=_KNOWN_HEADERS)
def _key(text: bytes, algorithms: tuple[str, ...]) -> VerificationKey:
    """Return the key in the header *text*. Raises :class:`InvalidProof`."""
    algorithm, jwk = _read_header(text, algorithms)
    try:
        key = parse_proof_key(jwk)
    except ValueError as error:
        raise InvalidProof(Reason.PROOF_KEY, problem=str(error)) from None
    if algorithm not in key.algorithms:
        raise InvalidProof(Reason.PROOF_KEY, problem=f"the key is not for {algorithm}")
    return key


def _check_claims(
    claims: Mapping[str, Any], *, policy: DPoP, method: str, uri: str, token: str | None, now: float
) -> str:
    """Check the claims of RFC 9449 §4.2 and return ``jti``."""
    identifier = _text(claims, "jti")
    if len(identifier) > _MAX_IDENTIFIER:
        raise InvalidProof(Reason.PROOF_MALFORMED, problem=f"jti is longer than {_MAX_IDENTIFIER} characters")
    # Item 8: "the htm claim matches the HTTP method of the current request": method names are case-sensitive.
    if _text(claims, "htm") != method:
        raise InvalidProof(Reason.PROOF_MISMATCH, claim="htm", request=method, found=claims["htm"])
    # Item 9: "the htu claim matches the HTTP URI value for the HTTP request in which the JWT was received, ignoring any
    # query and fragment parts"
    if normalise_uri(_text(claims, "htu"), strict=policy.strict_htu) != uri:
        raise InvalidProof(Reason.PROOF_MISMATCH, claim="htu", request=uri, found=claims["htu"].partition("?")[0])
    if token is not None and _text(claims, "ath") != token_hash(token):
        raise InvalidProof(Reason.PROOF_MISMATCH, claim="ath")
    issued_at = _time(claims, "iat")
    # Item 11: "the creation time of the JWT, as determined by either the iat claim or a server managed timestamp via
    # the nonce claim, is within an acceptable window"
    if not policy.trust_nonce_time and not -policy.max_skew <= now - issued_at <= policy.max_age:
        raise InvalidProof(Reason.PROOF_EXPIRED, age=f"{now - issued_at:.0f} s", limit=f"{policy.max_age:.0f} s")
    if "exp" in claims and now >= _time(claims, "exp") + policy.max_skew:
        raise InvalidProof(Reason.PROOF_EXPIRED, claim="exp")
    if "nbf" in claims and now + policy.max_skew < _time(claims, "nbf"):
        raise InvalidProof(Reason.PROOF_EXPIRED, claim="nbf")
    return identifier


def token_hash(token: str) -> str:
    """Return the ``ath`` of *token*: RFC 9449 §4.2, "the base64url encoding [...] of the SHA-256 hash of the ASCII
    encoding of the associated access token's value"."""
    return encode_base64url(hashlib.sha256(token.encode("ascii")).digest())


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidProof(Reason.PROOF_MALFORMED, problem=f"{name} is missing or not a string")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST_DATE:
        raise InvalidProof(Reason.PROOF_MALFORMED, problem=f"{name} is missing or not a time")
    return float(value)
