"""Make DPoP proofs and read DPoP nonces, for a client: RFC 9449 §4.2, §7.1, §8 and §9."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from scopeguard.spec.client_authentication import AssertionKey, sign_jwt
from scopeguard.spec.dpop import token_hash
from scopeguard.spec.request_uri import DEFAULT_PORTS

USE_DPOP_NONCE: Final = "use_dpop_nonce"
"""The error by which a server asks for a proof with its nonce (RFC 9449 §8 and §9)."""

# RFC 9449 §8.1: "nonce = 1*NQCHAR"; RFC 6749 appendix A defines NQCHAR. The length is limited because the nonce becomes
# part of a header field.
_NONCE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,1024}")
_SCHEMES: Final = {"ws": "http", "wss": "https"}


def make_proof(
    key: AssertionKey,
    jwk: Mapping[str, str],
    *,
    method: str,
    uri: str,
    now: float,
    identifier: str,
    token: str | None = None,
    nonce: str | None = None,
) -> str:
    """Return a DPoP proof for one request with *method* to *uri* (RFC 9449 §4.2).

    *jwk* is the public key of *key*. *now* is in seconds since the epoch. *identifier* becomes the ``jti`` and must be
    unique. *token* is the access token of the request, ``None`` at the token endpoint. *nonce* is the latest nonce of
    the server, if it sent one.
    """
    header = {"typ": "dpop+jwt", "alg": key.algorithm, "jwk": jwk}
    claims: dict[str, Any] = {"jti": identifier, "htm": method, "htu": proof_uri(uri), "iat": int(now)}
    if token is not None:
        claims["ath"] = token_hash(token)
    if nonce is not None:
        claims["nonce"] = nonce
    return sign_jwt(header, claims, key)


def proof_uri(url: str) -> str:
    """Return *url*, an absolute URL, without user information, query, fragment and default port.

    RFC 9449 §4.2: "The HTTP target URI (Section 7.1 of [RFC9110]) of the request to which the JWT is attached, without
    query and fragment parts." The path stays as it is sent. A websocket has the URI of its handshake, which is HTTP.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    host = parts.hostname or ""
    authority = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != DEFAULT_PORTS.get(scheme):
        authority += f":{parts.port}"
    return f"{scheme}://{authority}{parts.path or '/'}"


def read_nonce(values: Sequence[str]) -> str | None:
    """Return the nonce in *values*, the field lines of ``DPoP-Nonce``; ``None`` unless there is exactly one.

    A value that is not a nonce (RFC 9449 §8.1), or is longer than 1024 characters, is ignored.
    """
    return values[0] if len(values) == 1 and _NONCE.fullmatch(values[0]) else None
