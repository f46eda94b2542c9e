"""Builds tokens from valid parts, the keys of an authority and the keys of an attacker."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.config.leeway import LEEWAY
from scopeguard.config.token_sources import LARGEST_TOKEN
from scopeguard.devserver.keys import SigningKey, base64url, json_bytes
from scopeguard.testing.fake import FakeAuthority

ATTACKER: Final = "https://attacker.test"
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

Part = Mapping[str, Any] | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BadToken:
    """A token that must be refused.

    * ``why``: the reason to refuse it.
    * ``rules``: the rules that it violates, listed in ``docs/rules.md``.
    * ``strict``: only ``Issuer(..., typ="at+jwt")`` refuses it. By default, ``typ`` may also be ``JWT`` or absent,
      because most authorization servers do not send ``at+jwt``.
    """

    name: str
    token: str = field(repr=False)
    rules: tuple[str, ...]
    why: str
    strict: bool = False

    @property
    def error(self) -> str:
        """The expected error code of RFC 6750 section 3.1.

        ``invalid_request`` if it is not in the form of a bearer token or is larger than 16 KiB, else
        ``invalid_token``.
        """
        well_formed = _TOKEN68.fullmatch(self.token) and len(self.token) <= LARGEST_TOKEN
        return "invalid_token" if well_formed else "invalid_request"

    @property
    def status(self) -> int:
        """The expected HTTP status: 400 for ``invalid_request``, 401 for ``invalid_token``."""
        return 401 if self.error == "invalid_token" else 400

    @property
    def headers(self) -> dict[str, str]:
        """Request headers with the token."""
        return {"Authorization": f"Bearer {self.token}"}


class Corpus:
    """Collects bad tokens by name."""

    def __init__(self) -> None:
        self.tokens: dict[str, BadToken] = {}

    def bad(self, name: str, token: str, why: str, *rules: str, strict: bool = False) -> None:
        """Add a token. Raises :class:`ValueError` for a name in use."""
        if name in self.tokens:
            raise ValueError(f"two tokens have the name {name}")
        self.tokens[name] = BadToken(name=name, token=token, why=why, rules=rules, strict=strict)


@functools.cache
def attacker_key(algorithm: str) -> SigningKey:
    """Return a key that no authority publishes. It is cached, because generating RSA keys is slow."""
    return SigningKey.generate(algorithm, kid="attacker")


class Forge:
    """Makes valid and forged tokens of an authority. ``leeway`` is that of the guard, in seconds.

    The constructor makes the authority publish the keys for the genuine signatures.
    """

    def __init__(self, authority: FakeAuthority, *, leeway: float = LEEWAY) -> None:
        self.authority = authority
        self.leeway = leeway
        self.now: int = int(authority.clock.wall())
        self.rsa: SigningKey = authority.key("RS256")
        self.ec: SigningKey = authority.key("ES256")
        self.ed: SigningKey = authority.key("EdDSA")

    def claims(self, *without: str, **overrides: Any) -> dict[str, Any]:
        """Return the claims of a valid token, with *overrides* and without the names in *without*."""
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
        """Return the header of a valid token for *key*, with *overrides* and without the names in *without*."""
        signer = key or self.ec
        good = {"typ": "at+jwt", "alg": signer.algorithm, "kid": signer.kid}
        return {name: value for name, value in {**good, **overrides}.items() if name not in without}

    def sign(self, header: Part | None = None, claims: Part | None = None, key: SigningKey | None = None) -> str:
        """Return a token with any header and payload, signed with *key*, by default the authority's ES256 key."""
        return self.signed_text(self.text(header, claims, key), key)

    def text(self, header: Part | None = None, claims: Part | None = None, key: SigningKey | None = None) -> str:
        """Return the first two segments of a token."""
        first = self.header(key) if header is None else header
        second = self.claims() if claims is None else claims
        return f"{encode(first)}.{encode(second)}"

    def signed_text(self, text: str, key: SigningKey | None = None) -> str:
        """Return *text* with its signature."""
        return f"{text}.{base64url((key or self.ec).sign(text.encode('ascii')))}"

    def with_signature(self, signature: bytes, header: Part) -> str:
        """Return a token that is valid except for its *header* and *signature*."""
        return f"{self.text(header)}.{base64url(signature)}"

    def raw_claims(self, **raw: str) -> bytes:
        """Return the claims of a valid token with members in raw JSON, which ``json`` would write differently."""
        members = json_bytes(self.claims(*raw))[1:-1].decode("ascii")
        return ("{" + ",".join([members, *(f'"{name}":{value}' for name, value in raw.items())]) + "}").encode()

    def raw_header(self, **raw: str) -> bytes:
        """Return the header of a valid token with members in raw JSON."""
        members = json_bytes(self.header(None, *raw))[1:-1].decode("ascii")
        return ("{" + ",".join([members, *(f'"{name}":{value}' for name, value in raw.items())]) + "}").encode()


def encode(part: Part) -> str:
    """Return *part* as a segment of a token."""
    return base64url(part if isinstance(part, bytes) else json_bytes(part))
