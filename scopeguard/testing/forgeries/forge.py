"""The workbench: valid parts, the keys of the authority, the keys of an attacker, and ways to put them together."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.devserver.keys import SigningKey, base64url, json_bytes
from scopeguard.testing.fake import FakeAuthority

MAX_TOKEN: Final = 16 * 1024
ATTACKER: Final = "https://attacker.test"
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

Part = Mapping[str, Any] | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BadToken:
    """A token that must be refused.

    * ``rules``: the lines of the standards checklist it violates; ``why``: what an app that accepts it gets wrong.
    * ``strict``: it is refused only by ``Issuer(..., typ="at+jwt")``; by default other kinds of access tokens are
      let in, because most authorization servers send no better ``typ``.
    """

    name: str
    token: str = field(repr=False)
    rules: tuple[str, ...]
    why: str
    strict: bool = False

    @property
    def error(self) -> str:
        """The error code of RFC 6750 section 3.1 it deserves: ``invalid_request`` (400) for what is no bearer
        credential at all or larger than 16 KiB, else ``invalid_token`` (401)."""
        well_formed = _TOKEN68.fullmatch(self.token) and len(self.token) <= MAX_TOKEN
        return "invalid_token" if well_formed else "invalid_request"

    @property
    def status(self) -> int:
        """The HTTP status that goes with ``error``."""
        return 401 if self.error == "invalid_token" else 400

    @property
    def headers(self) -> dict[str, str]:
        """Request headers that carry it."""
        return {"Authorization": f"Bearer {self.token}"}


class Corpus:
    """Bad tokens by name; a name given twice would hide a token."""

    def __init__(self) -> None:
        self.tokens: dict[str, BadToken] = {}

    def bad(self, name: str, token: str, why: str, *rules: str, strict: bool = False) -> None:
        """Add a token."""
        if name in self.tokens:
            raise ValueError(f"two tokens are called {name}")
        self.tokens[name] = BadToken(name=name, token=token, why=why, rules=rules, strict=strict)


@functools.cache
def attacker_key(algorithm: str) -> SigningKey:
    """A key that no authority publishes. One for all tests: making RSA keys takes time."""
    return SigningKey.generate(algorithm, kid="attacker")


class Forge:
    """Everything needed to forge tokens of one authority. ``leeway`` is the one of the guard, in seconds.

    The keys it uses for the genuine signatures are published by the authority from then on.
    """

    def __init__(self, authority: FakeAuthority, *, leeway: float = 30.0) -> None:
        self.authority = authority
        self.leeway = leeway
        self.now: int = int(authority.clock.wall())
        self.rsa: SigningKey = authority.key("RS256")
        self.ec: SigningKey = authority.key("ES256")
        self.ed: SigningKey = authority.key("EdDSA")

    def claims(self, *without: str, **overrides: Any) -> dict[str, Any]:
        """The claims of a good token, less and changed."""
        good = {
            "iss": self.authority.url,
            "exp": self.now + 3600,
            "aud": self.authority.audience,
            "sub": "alice",
            "client_id": "client",
            "iat": self.now,
            "jti": "0123456789",
            "scope": "read write admin",
        }
        return {name: value for name, value in {**good, **overrides}.items() if name not in without}

    def header(self, key: SigningKey | None = None, /, *without: str, **overrides: Any) -> dict[str, Any]:
        """The header of a good token signed by *key*, less and changed."""
        signer = key or self.ec
        good = {"typ": "at+jwt", "alg": signer.algorithm, "kid": signer.kid}
        return {name: value for name, value in {**good, **overrides}.items() if name not in without}

    def signed(self, header: Part | None = None, claims: Part | None = None, key: SigningKey | None = None) -> str:
        """A token genuinely signed by *key* (the authority's ES256 key), with whatever header and payload."""
        return self.signed_text(self.text(header, claims, key), key)

    def text(self, header: Part | None = None, claims: Part | None = None, key: SigningKey | None = None) -> str:
        """The first two segments."""
        first = self.header(key) if header is None else header
        second = self.claims() if claims is None else claims
        return f"{encoded(first)}.{encoded(second)}"

    def signed_text(self, text: str, key: SigningKey | None = None) -> str:
        """*text* and the signature over it."""
        return f"{text}.{base64url((key or self.ec).sign(text.encode('ascii')))}"

    def with_signature(self, signature: bytes, header: Part | None = None, claims: Part | None = None) -> str:
        """A token with *signature*, whatever it is."""
        return f"{self.text(header, claims)}.{base64url(signature)}"

    def raw_claims(self, **raw: str) -> bytes:
        """The claims of a good token with members written out by hand, for what ``json`` would not write."""
        members = json_bytes(self.claims(*raw))[1:-1].decode("ascii")
        return ("{" + ",".join([members, *(f'"{name}":{value}' for name, value in raw.items())]) + "}").encode()

    def raw_header(self, **raw: str) -> bytes:
        """The header of a good token with members written out by hand."""
        members = json_bytes(self.header(None, *raw))[1:-1].decode("ascii")
        return ("{" + ",".join([members, *(f'"{name}":{value}' for name, value in raw.items())]) + "}").encode()


def encoded(part: Part) -> str:
    """*part* as a segment."""
    return base64url(part if isinstance(part, bytes) else json_bytes(part))
