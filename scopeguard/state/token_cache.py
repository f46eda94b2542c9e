"""Tokens whose signature was verified before, recognised by their digest.

Remembered is that a key signed a token and what the token says; never a decision. Whoever recalls one looks at the
time, at whether the key is still held, at revocations and at scopes again, with every request. Only what was verified
gets in here, so nobody can fill it without the authority's help, and a flood of valid tokens evicts and never grows.

Two forms. *Packed*: one ``bytes`` object a token, which the garbage collector does not even visit, so that a million of
them stall nothing; that is all that a token gets which is seen once. *Ready*: the :class:`AccessToken` itself, made
when the token comes again. Each form lives in two generations: when the young one is full it becomes the old one, and
what is used moves back to the young. That costs the same for any size, which evicting one at a time does not.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from scopeguard.access_token import AccessToken, Unverified
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.spec import jwt
from scopeguard.spec.jwks import VerificationKey
from scopeguard.spec.strict_json import parse_object
from scopeguard.state.issuers import TrustedIssuer, TrustedIssuers
from scopeguard.state.keyring import Held

V = TypeVar("V")

# When it was verified, until when it may be used (seconds since the epoch), and the number of its seal.
_PACKED: Final = struct.Struct("<ddI")
# A digest, a place in a dict that is two thirds full, and the object itself.
_OVERHEAD: Final = 200
# What objects take that were parsed from so many octets of JSON, the access token around them, and both names.
_READY_OVERHEAD: Final = 2304
_READY_FACTOR: Final = 6
# A header that was parsed, and what is kept beside it.
_SEAL_OVERHEAD: Final = 1024


@dataclass(slots=True, kw_only=True, eq=False)
class CachedToken:
    """A token that was verified: what it says, the trust in whose name, the key that signed it, the header under which
    it came, and the field it came in (``location``, ``None`` for ``Authorization``).

    Usable from ``since`` on, so that a clock that is set back asks again, and before ``until``. ``held``: what the key
    ring held when the key was seen there last. ``cleared``: how many revocations there were when none of them covered
    it. ``instant``: whether the time, the key and revocations are all there is to look at. ``size``: what it takes in
    memory, in bytes, roughly. ``name``: the SHA-256 of the header field that it is recalled by, if it is.
    """

    access: AccessToken
    trust: TrustedIssuer
    key: VerificationKey
    header: Mapping[str, Any] = field(repr=False)
    location: str | None
    since: float
    until: float
    held: Held | None = field(default=None, repr=False)
    cleared: int = -1
    instant: bool = False
    size: int = 0
    name: bytes = field(default=b"", repr=False)


class _Generations(Generic[V]):
    """A dict that forgets what was not used for long, bounded by entries and by estimated bytes.

    ``named``: what of the young generation goes by another key as well. Such a name may outlive what it names, until
    the generation ends: whoever comes by it has to look at everything.
    """

    __slots__ = ("_bytes", "_lock", "_max_bytes", "_max_entries", "named", "old", "young")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        # Each generation has half; one entry at least, or nothing would ever be found again.
        self._max_entries = max(1, max_entries // 2)
        self._max_bytes = max_bytes // 2
        self.young: dict[bytes, V] = {}
        self.old: dict[bytes, V] = {}
        self.named: dict[bytes, V] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, key: bytes, value: V, size: int) -> None:
        """Keep *value*, of about *size* bytes, unless it alone is too large."""
        if size > self._max_bytes:
            return
        with self._lock:
            if len(self.young) >= self._max_entries or self._bytes + size > self._max_bytes:
                self.old, self.young, self.named, self._bytes = self.young, {}, {}, 0
            if key not in self.young:  # requests with the same token may all have verified it
                self._bytes += size
            self.young[key] = value

    def name(self, name: bytes, key: bytes) -> None:
        """What is young under *key* goes by *name*, too."""
        with self._lock:
            value = self.young.get(key)
            if value is not None:
                self.named[name] = value

    def discard(self, key: bytes, name: bytes = b"") -> None:
        """Forget *key*, and the *name* of the same."""
        with self._lock:
            self.young.pop(key, None)
            self.old.pop(key, None)
            self.named.pop(name, None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seal:
    """What tokens have in common that one key signed, under one header."""

    trust: TrustedIssuer
    key: VerificationKey
    header: Mapping[str, Any]
    location: str | None
    instant: bool


class _Packed:
    """The packed tokens, and the seals that they name by number; replaced as a whole."""

    __slots__ = ("_left", "_lock", "_numbers", "_seals", "tokens")

    def __init__(self, policy: TokenCachePolicy) -> None:
        # The ready ones have a quarter.
        self.tokens: _Generations[bytes] = _Generations(policy.max_entries, policy.max_bytes * 5 // 8)
        self._left = policy.max_bytes // 8
        self._lock = threading.Lock()
        self._seals: list[_Seal] = []
        self._numbers: dict[tuple[int, int, bytes, str | None], int] = {}

    def number(
        self,
        token: Unverified,
        trust: TrustedIssuer,
        key: VerificationKey,
        location: str | None,
        trusts: TrustedIssuers,
    ) -> int | None:
        """The number of the seal of *token*; ``None`` when there is no room for it, as where the header of each token
        is another one."""
        name = (id(trust), id(key), token.segment, location)
        number = self._numbers.get(name)
        if number is not None:
            return number
        instant = location is None and trust.status_lists is None and trusts.is_configured(trust)
        with self._lock:
            number = self._numbers.get(name)  # of somebody who came first
            if number is None:
                size = _SEAL_OVERHEAD + _READY_FACTOR * len(token.segment)
                if size > self._left:
                    return None
                self._left -= size
                # Holds trust and key, so that no other object has their ids; and no token, which may be large.
                seal = _Seal(trust=trust, key=key, header=token.header, location=location, instant=instant)
                self._seals.append(seal)
                self._numbers[name] = number = len(self._seals) - 1
            return number

    def seal(self, number: int) -> _Seal:
        """What the tokens under *number* have in common."""
        return self._seals[number]


class TokenCache:
    """The memory for verified tokens of one guard; safe to use from any thread."""

    def __init__(self, policy: TokenCachePolicy) -> None:
        self._policy = policy
        self.clear()

    def __len__(self) -> int:
        """How many tokens are remembered, in whatever form. Counts them all: for tests and benchmarks."""
        ready, packed = self._ready, self._packed.tokens
        return len({*ready.young, *ready.old, *packed.young, *packed.old})

    def clear(self) -> None:
        """Forget everything; in a child process after a fork, the locks as well."""
        policy = self._policy
        self._ready: _Generations[CachedToken] = _Generations(policy.ready_entries, policy.max_bytes // 4)
        self._packed = _Packed(policy)

    def lookup_field(self, field: bytes) -> CachedToken | None:
        """What *field*, a whole header field, brings, if that was said to be expected. It is found however old it is,
        and whatever became of its key: to look at that is up to the caller."""
        return self._ready.named.get(sha256(field).digest())

    def expect(self, digest: bytes, found: CachedToken, field: bytes) -> None:
        """Let :meth:`lookup_field` find *found*, the token under *digest*, by the header *field*.

        *field* is the only header field for this token. :meth:`lookup_field` checks nothing else about the token.
        """
        if not found.name:
            found.name = sha256(field).digest()
        if self._ready.named.get(found.name) is not found:
            self._ready.name(found.name, digest)

    def find(self, key: bytes, now: float) -> CachedToken | None:
        """What is remembered under *key*, the SHA-256 of a token, if it may be used at *now*."""
        found = self._ready.young.get(key) or self._ready.old.get(key)
        if found is None:
            packed = self._packed
            record = packed.tokens.young.get(key) or packed.tokens.old.get(key)
            if record is None:
                return None
            since, until, number = _PACKED.unpack_from(record)
            if not since <= now < until:
                self.discard(key)
                return None
            payload = record[_PACKED.size :]
            found = _unpacked(packed.seal(number), payload, key, since, until)
            packed.tokens.put(key, record, len(record) + _OVERHEAD)
            self._ready.put(key, found, found.size)
        elif not found.since <= now < found.until:
            self.discard(key)
            return None
        elif key not in self._ready.young:
            self._ready.put(key, found, found.size)
        return found

    def add(
        self,
        digest: bytes,
        token: Unverified,
        trust: TrustedIssuer,
        key: VerificationKey,
        trusts: TrustedIssuers,
        *,
        location: str | None,
        since: float,
        until: float,
    ) -> None:
        """Remember under *digest*, its SHA-256, that *token* was verified: *key* of *trust*, one of *trusts*, signed
        it. *location*: the field it came in, as in :class:`CachedToken`; *since* and *until* as there."""
        packed = self._packed  # another thread may replace it meanwhile, and numbers mean nothing in another one
        number = packed.number(token, trust, key, location, trusts)
        if number is None:
            # Headers that differ from token to token, or very many keys. What is ready stays.
            self._packed = _Packed(self._policy)
            return
        record = _PACKED.pack(since, until, number) + token.payload
        packed.tokens.put(digest, record, len(record) + _OVERHEAD)

    def discard(self, digest: bytes) -> None:
        """Forget the token under *digest*."""
        found = self._ready.young.get(digest)
        self._ready.discard(digest, b"" if found is None else found.name)
        self._packed.tokens.discard(digest)


def _ready_size(payload: bytes) -> int:
    return _READY_OVERHEAD + _READY_FACTOR * len(payload)


def _unpacked(seal: _Seal, payload: bytes, key: bytes, since: float, until: float) -> CachedToken:
    issuer, claims = seal.trust.issuer, parse_object(payload)
    for name in issuer.header_claims:
        if name in seal.header:
            claims.setdefault(name, seal.header[name])
    token = Unverified(header=seal.header, claims=claims, signed=b"", signature=b"", fingerprint=key[:6].hex())
    return CachedToken(
        access=jwt.accept(token, issuer, seal.trust.vocabulary),
        trust=seal.trust,
        key=seal.key,
        header=seal.header,
        location=seal.location,
        since=since,
        until=until,
        # What the key ring holds now is looked at by whoever recalls it.
        held=None,
        instant=seal.instant,
        size=_ready_size(payload),
    )
