"""Revocations: of a token, of all tokens of a subject or a client, and of cached introspection answers.

Entries are digests: neither this process nor a shared store holds a token or the name of a person. An entry is dropped
when the last token that it can concern has expired, so the set does not grow forever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.state.breaker import Breaker
from scopeguard.state.fork import Locked


class Revoked(StrEnum):
    """The kind of thing that a revocation names. A reader ignores entries of an unknown kind."""

    TOKEN = "token"
    JTI = "jti"
    SUBJECT = "subject"
    CLIENT = "client"
    ANSWERS = "answers"  # cached answers about a subject ("": about all subjects); denies no token


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry. Times are seconds since the epoch.

    ``digest`` identifies the revoked token, subject or client (:func:`digest_of`). Tokens of a subject or a client are
    denied if they were issued at ``at`` or earlier; answers are not used if the introspection request was sent before
    ``at``. The entry may be dropped after ``until``.
    """

    kind: Revoked
    digest: str
    at: float
    until: float

    def to_bytes(self) -> bytes:
        """Return the entry as JSON, for a store: reading a pickle from a store would run its code."""
        return json.dumps({"kind": self.kind, "digest": self.digest, "at": self.at, "until": self.until}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Revocation | None:
        """Return the entry that *data* describes, or ``None`` if it is malformed."""
        try:
            members = parse_object(data)
            kind, digest = Revoked(members["kind"]), members["digest"]
            at, until = float(members["at"]), float(members["until"])
        except (MalformedJSON, KeyError, TypeError, ValueError, OverflowError):
            return None
        return cls(kind=kind, digest=digest, at=at, until=until) if isinstance(digest, str) else None


def digest_of(kind: Revoked, issuer: str, value: str) -> str:
    """Return the digest that identifies *value* of *issuer*.

    Each part is preceded by its length, so that no two different inputs are joined to the same text.
    """
    state = hashlib.sha256()
    for part in (kind.value, issuer, value):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """The properties of a validated token that a revocation may name."""

    issuer: str
    token: str = field(repr=False)
    jti: str | None
    subject: str | None
    client_id: str | None
    issued_at: float | None


_OF_ONE_TOKEN: Final = frozenset((Revoked.TOKEN, Revoked.JTI))


def keys_of(bearer: Bearer) -> tuple[tuple[Revoked, str], ...]:
    """Return the keys of the entries that name *bearer*, for a caller that looks for them more than once."""
    named = (
        (Revoked.TOKEN, bearer.token),
        (Revoked.JTI, bearer.jti),
        (Revoked.SUBJECT, bearer.subject),
        (Revoked.CLIENT, bearer.client_id),
    )
    return tuple((kind, digest_of(kind, bearer.issuer, value)) for kind, value in named if value is not None)


class Revocations(Locked):
    """The revocations that this process knows. Safe to use from any thread.

    With a shared store, they are at most *max_lag* seconds old. *fail_open_dangerously*: during an outage of the store,
    continue with the known revocations, so that a token revoked elsewhere in that time is accepted.
    """

    def __init__(self, *, max_lag: float = 1.0, fail_open_dangerously: bool = False) -> None:
        super().__init__()
        self.max_lag = max_lag
        self.fail_open_dangerously = fail_open_dangerously
        self.breaker: Breaker = Breaker(threshold=1, first_pause=0.1, max_pause=1.0, probe_lasts=2.0)
        self._entries: dict[tuple[Revoked, str], Revocation] = {}
        self._next_sweep = 0
        self.changes: int = 0  # counts additions, so that a cleared token need not be rechecked
        self.discards: int = 0  # counts those that discard answers
        self._answers_at = float("-inf")  # the latest "at" of the entries about answers
        # The position in the shared log, and when it was read (monotonic seconds).
        self.position: str | None = None
        self.synced_at: float = float("-inf")
        self.generation: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Revocation, now: float) -> None:
        """Add *entry*. Of two entries for the same digest, the later times count."""
        with self._lock:
            if entry.kind is Revoked.ANSWERS:
                self._answers_at = max(self._answers_at, entry.at)
                self.discards += 1
            known = self._entries.get((entry.kind, entry.digest))
            if known is not None:
                entry = Revocation(
                    kind=entry.kind,
                    digest=entry.digest,
                    at=max(known.at, entry.at),
                    until=max(known.until, entry.until),
                )
            self._entries[entry.kind, entry.digest] = entry
            self.changes += 1
            if len(self._entries) >= self._next_sweep:
                self._entries = {key: kept for key, kept in self._entries.items() if now < kept.until}
                self._next_sweep = max(1024, 2 * len(self._entries))

    def take_over(self, other: Revocations) -> None:
        """Add the entries of *other*. Its position in the shared log is not taken over: the logs may differ."""
        with other._lock:
            entries = tuple(other._entries.values())
        for entry in entries:
            self.add(entry, float("-inf"))  # expired entries are removed later

    def covers(self, bearer: Bearer) -> bool:
        """Return whether the token that *bearer* describes was revoked."""
        return bool(self._entries) and self.covers_keys(keys_of(bearer), bearer.issued_at)

    def covers_keys(self, keys: Iterable[tuple[Revoked, str]], issued_at: float | None) -> bool:
        """Return whether a token with *keys* (:func:`keys_of`) that was issued at *issued_at* was revoked."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue
            # A token without iat cannot prove that it is newer than the revocation of all tokens until then.
            if key[0] in _OF_ONE_TOKEN or issued_at is None or issued_at <= entry.at:
                return True
        return False

    def names(self, issuer: str, token: str) -> bool:
        """Return whether *token* of *issuer* was revoked by its text. Needs no claims of the token."""
        return bool(self._entries) and self._find(Revoked.TOKEN, issuer, token) is not None

    def outdates(self, issuer: str, subject: str | None, asked_at: float) -> bool:
        """Return whether an answer about *subject*, which was requested from *issuer* at *asked_at*, was revoked later.

        An answer without a subject may be about any subject, so every revocation counts.
        """
        if asked_at >= self._answers_at:
            return False
        if subject is None:
            return True
        found = (self._find(Revoked.ANSWERS, issuer, name) for name in (subject, ""))
        return any(entry is not None and asked_at < entry.at for entry in found)

    def _find(self, kind: Revoked, issuer: str, value: str) -> Revocation | None:
        return self._entries.get((kind, digest_of(kind, issuer, value)))

    def record_sync(self, now: float) -> None:
        """Record that the shared log was read to its end as of *now*."""
        with self._lock:
            self.synced_at = now
            self.generation += 1

    def record_failed_sync(self) -> None:
        """Record that the shared log could not be read."""
        with self._lock:
            self.generation += 1
