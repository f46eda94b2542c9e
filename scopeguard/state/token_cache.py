"""A cache of tokens whose signature was verified, by their digest.

The cache holds the claims of a token and the key that signed it, but no decision. The caller checks the time, the
key, revocations and scopes for every request. Only verified tokens enter, so that a stranger cannot fill the cache. A
flood of valid tokens evicts others, but the cache does not grow.

There are two forms. *Packed*: one ``bytes`` object per token, which the garbage collector does not visit, so that a
million tokens cause no pause. Every token starts in this form. *Ready*: the :class:`AccessToken`, built when the token
is seen again. Each form has two generations: when the young one is full, it becomes the old one; an entry that is used
moves back to the young one. The cost does not depend on the size, unlike that of evicting entries one by one.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.log_values import FINGERPRINT_OCTETS
from scopeguard.spec import jwt
from scopeguard.spec.jwks import VerificationKey
from scopeguard.spec.strict_json import parse_object
from scopeguard.state.fork import renew_after_fork
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.keys import Held
from scopeguard.tokens import AccessToken, Unverified

V = TypeVar("V")

# The time of verification, the end of use (seconds since the epoch), and the number of the seal.
_PACKED: Final = struct.Struct("<ddI")
# The bytes for a digest, a slot in a dict that is two thirds full, and the object itself.
_OVERHEAD: Final = 200
# The bytes for an access token and its keys, and the factor between JSON and the objects parsed from it.
_READY_OVERHEAD: Final = 2304
_READY_FACTOR: Final = 6
# The bytes for a parsed header and its seal.
_SEAL_OVERHEAD: Final = 1024


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class CachedToken:
    """A verified token: its claims, its issuer, the key that signed it, its header, and the request field it came in.

    ``location`` is that field, ``None`` for ``Authorization``. The entry may be used from ``since``, so that a clock
    that is set back causes a new verification, and before ``until``. ``held``: the key set that contained the key when
    it was last checked. ``cleared``: the number of revocations when it was last checked against them. ``instant``:
    whether only time, key and revocations have to be checked. ``size``: the approximate memory in bytes.
    """

    access: AccessToken
    record: IssuerRecord
    key: VerificationKey
    header: Mapping[str, Any]
    location: str | None
    since: float
    until: float
    held: Held | None = None
    cleared: int = -1
    instant: bool = False
    size: int = 0


class _Generations(Generic[V]):
    """A dict in two generations, bounded by entries and by estimated bytes."""

    __slots__ = ("_bytes", "_lock", "_max_bytes", "_max_entries", "old", "young")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        # Each generation has half of the entries, and at least one, without which nothing could be found.
        self._max_entries = max(1, max_entries // 2)
        self._max_bytes = max_bytes // 2
        self.young: dict[bytes, V] = {}
        self.old: dict[bytes, V] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, key: bytes, value: V, size: int) -> None:
        """Add *value*, of about *size* bytes, unless it alone is too large."""
        if size > self._max_bytes:
            return
        with self._lock:
            if len(self.young) >= self._max_entries or self._bytes + size > self._max_bytes:
                self.old, self.young, self._bytes = self.young, {}, 0
            if key not in self.young:  # concurrent requests may have verified the same token
                self._bytes += size
            self.young[key] = value

    def discard(self, key: bytes) -> None:
        """Remove *key*."""
        with self._lock:
            self.young.pop(key, None)
            self.old.pop(key, None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Seal:
    """The properties that all tokens with the same signing key and header share."""

    record: IssuerRecord
    key: VerificationKey
    header: Mapping[str, Any]
    location: str | None
    instant: bool


class _Packed:
    """The packed tokens, and the seals to which their numbers refer. It is replaced as a whole."""

    __slots__ = ("_left", "_lock", "_numbers", "_seals", "tokens")

    def __init__(self, policy: TokenCachePolicy) -> None:
        # Ready tokens may use a quarter of the bytes.
        self.tokens: _Generations[bytes] = _Generations(policy.max_entries, policy.max_bytes * 5 // 8)
        self._left = policy.max_bytes // 8
        self._lock = threading.Lock()
        self._seals: list[_Seal] = []
        self._numbers: dict[tuple[int, int, bytes, str | None], int] = {}

    def number(
        self,
        token: Unverified,
        record: IssuerRecord,
        key: VerificationKey,
        location: str | None,
        issuers: Issuers,
    ) -> int | None:
        """Return the number of the seal of *token*, or ``None`` if there is no room for another seal.

        That happens if every token has a different header.
        """
        name = (id(record), id(key), token.segment, location)
        number = self._numbers.get(name)
        if number is not None:
            return number
        instant = (
            location is None
            and record.status_lists is None
            and record.issuer.dpop is not DPoPMode.REQUIRED
            and issuers.is_configured(record)
        )
        with self._lock:
            number = self._numbers.get(name)  # another thread may have been first
            if number is None:
                size = _SEAL_OVERHEAD + _READY_FACTOR * len(token.segment)
                if size > self._left:
                    return None
                self._left -= size
                # The seal keeps record and key alive, so that their ids stay unique, but not the token.
                seal = _Seal(record=record, key=key, header=token.header, location=location, instant=instant)
                self._seals.append(seal)
                self._numbers[name] = number = len(self._seals) - 1
            return number

    def seal(self, number: int) -> _Seal:
        """Return the seal *number*."""
        return self._seals[number]


class TokenCache:
    """The cache of verified tokens of one guard. Safe to use from any thread."""

    def __init__(self, policy: TokenCachePolicy) -> None:
        self._policy = policy
        self.clear()
        renew_after_fork(self)

    def __len__(self) -> int:
        """The number of cached tokens in both forms. Counts them one by one: for tests and benchmarks."""
        ready, packed = self._ready, self._packed.tokens
        return len({*ready.young, *ready.old, *packed.young, *packed.old})

    @property
    def most_entries(self) -> int:
        """At least the number of cached tokens: one that was used again may count twice. Takes no time."""
        packed = self._packed.tokens
        return len(packed.young) + len(packed.old)

    def clear(self) -> None:
        """Remove all tokens and replace the locks."""
        policy = self._policy
        self._ready: _Generations[CachedToken] = _Generations(policy.ready_entries, policy.max_bytes // 4)
        self._packed = _Packed(policy)

    after_fork = clear  # a thread of the parent may have been changing the maps

    def recall(self, digest: bytes) -> CachedToken | None:
        """Return the ready token under *digest*, the SHA-256 of its text, if it was used recently.

        Not checked here: whether the token has expired and whether its key is still published. :meth:`find` also
        returns tokens in other forms.
        """
        return self._ready.young.get(digest)

    def holds(self, digest: bytes) -> bool:
        """Return whether a token is cached under *digest*, in any form and of any age."""
        ready, packed = self._ready, self._packed.tokens
        return digest in packed.young or digest in packed.old or digest in ready.young or digest in ready.old

    def find(self, key: bytes, now: float) -> CachedToken | None:
        """Return the token under *key*, its SHA-256, if it may be used at *now* (seconds since the epoch)."""
        found = self._ready.young.get(key) or self._ready.old.get(key)
        if found is None:
            packed = self._packed
            entry = packed.tokens.young.get(key) or packed.tokens.old.get(key)
            if entry is None:
                return None
            since, until, number = _PACKED.unpack_from(entry)
            if not since <= now < until:
                self.discard(key)
                return None
            payload = entry[_PACKED.size :]
            found = _unpack(packed.seal(number), payload, key, since, until)
            packed.tokens.put(key, entry, len(entry) + _OVERHEAD)
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
        record: IssuerRecord,
        key: VerificationKey,
        issuers: Issuers,
        *,
        location: str | None,
        since: float,
        until: float,
    ) -> None:
        """Add *token* under *digest*, its SHA-256. *key* of *record*, one of *issuers*, signed it.

        *location*, *since* and *until* are those of :class:`CachedToken`.
        """
        packed = self._packed  # another thread may replace it, and a number is valid in one object only
        number = packed.number(token, record, key, location, issuers)
        if number is None:
            # Every token has a different header, or there are very many keys. Ready tokens stay.
            self._packed = _Packed(self._policy)
            return
        entry = _PACKED.pack(since, until, number) + token.payload
        packed.tokens.put(digest, entry, len(entry) + _OVERHEAD)

    def discard(self, digest: bytes) -> None:
        """Remove the token under *digest*."""
        self._ready.discard(digest)
        self._packed.tokens.discard(digest)


def _ready_size(payload: bytes) -> int:
    return _READY_OVERHEAD + _READY_FACTOR * len(payload)


def _unpack(seal: _Seal, payload: bytes, key: bytes, since: float, until: float) -> CachedToken:
    issuer, claims = seal.record.issuer, parse_object(payload)
    for name in issuer.header_claims:
        if name in seal.header:
            claims.setdefault(name, seal.header[name])
    mark = key[:FINGERPRINT_OCTETS].hex()
    token = Unverified(header=seal.header, claims=claims, signed=b"", signature=b"", fingerprint=mark)
    access = jwt.accept(token, issuer, seal.record.vocabulary, late=seal.record.late_fields)
    return CachedToken(
        access=access,
        record=seal.record,
        key=seal.key,
        header=seal.header,
        location=seal.location,
        since=since,
        until=until,
        # The caller compares it with the key ring's current set.
        held=None,
        instant=seal.instant and not access.sender_constrained,
        size=_ready_size(payload),
    )
