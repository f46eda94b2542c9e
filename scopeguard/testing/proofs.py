"""DPoP proofs for tests: a client key that signs good proofs, and bad ones on request."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from scopeguard.devserver.keys import SigningKey, compact
from scopeguard.spec.dpop import token_hash
from scopeguard.spec.jwks import thumbprint, thumbprint_members


class ProofKey:
    """The key of a client that sends DPoP proofs (RFC 9449). *algorithm* is that of its signatures.

    >>> key = ProofKey()
    >>> token = authority.mint("read", bound_to=key)
    >>> headers = key.headers(token, "GET", "https://api.test/rows", at=authority.clock.wall())
    """

    def __init__(self, algorithm: str = "ES256") -> None:
        self.signing: SigningKey = SigningKey.generate(algorithm, kid="proof")
        self.jwk: dict[str, Any] = dict(thumbprint_members(self.signing.public_jwk()))
        self.thumbprint: str = thumbprint(self.jwk)

    @property
    def confirmation(self) -> dict[str, Any]:
        """The claims that bind a token to this key."""
        return {"cnf": {"jkt": self.thumbprint}}

    def proof(
        self,
        token: str,
        method: str,
        uri: str,
        *,
        at: float,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a proof for one request. It is valid, unless *claims* or *headers* make it invalid.

        *at* is the time of the request, in seconds since the epoch. *claims* and *headers* replace members of the
        proof and of its header; ``None`` removes a member.
        """
        content = {
            "jti": secrets.token_urlsafe(12),
            "htm": method,
            "htu": uri,
            "iat": int(at),
            "ath": token_hash(token),
            **(claims or {}),
        }
        header = {"typ": "dpop+jwt", "alg": self.signing.algorithm, "jwk": self.jwk, **(headers or {})}
        return compact(present(header), present(content), self.signing)

    def headers(self, token: str, method: str, uri: str, *, at: float, **overrides: Any) -> dict[str, str]:
        """Return the two header fields of a request with *token* and its proof."""
        return {
            "Authorization": f"DPoP {token}",
            "DPoP": self.proof(token, method, uri, at=at, **overrides),
        }


def present(members: dict[str, Any]) -> dict[str, Any]:
    """Return *members* without those that are ``None``."""
    return {name: value for name, value in members.items() if value is not None}
