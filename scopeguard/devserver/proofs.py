"""The DPoP proofs of token requests to the development server (RFC 9449 section 5), without nonces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scopeguard.config.algorithms import SUPPORTED_DPOP_ALGORITHMS
from scopeguard.config.dpop import DPoP
from scopeguard.config.ml_dsa import ML_DSA, is_available
from scopeguard.devserver.registry import OAuthError
from scopeguard.devserver.token_requests import UsedAssertions
from scopeguard.errors import InvalidProof
from scopeguard.spec.dpop import single_proof, verify_proof
from scopeguard.spec.request_uri import normalise_uri

PROOFS: Final = DPoP(
    algorithms=sorted(SUPPORTED_DPOP_ALGORITHMS if is_available() else SUPPORTED_DPOP_ALGORITHMS - set(ML_DSA)),
    max_proof_bytes=16384,
)
"""Which proofs the server accepts."""

_ERROR: Final = "invalid_dpop_proof"


def check_proof(proofs: Sequence[str], url: str, used: UsedAssertions, now: float) -> str | None:
    """Return the thumbprint of the key that has signed the proof of a token request, ``None`` without a proof.

    *url* is that of the token endpoint. RFC 9449 section 5: if the proof is invalid, the answer has the error code
    "invalid_dpop_proof".
    """
    if not proofs:
        return None
    uri = normalise_uri(url) or ""
    try:
        value = single_proof([proof.encode("latin-1") for proof in proofs], PROOFS.max_proof_bytes)
        proof = verify_proof(value, policy=PROOFS, method="POST", uri=uri, token=None, now=now)
    except InvalidProof as error:
        raise OAuthError(_ERROR, f"{error.description} ({error.reason.value})") from None
    until = now + PROOFS.max_age + PROOFS.max_skew
    if not used.use(proof.thumbprint, proof.identity.hex(), until, now):
        raise OAuthError(_ERROR, "The DPoP proof was used before")
    return proof.thumbprint
