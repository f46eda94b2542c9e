"""What was revoked before it expired: a token, everything of a subject, everything of a client. And what is not
revoked, but must be asked about again: what an authority said of a subject.

Entries are digests: neither a token nor a name of a person is kept here or in a shared store. Each one ends by itself
when the last token it could concern has expired, so the set is bounded by what is revoked in that time (E-15).
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from enum import StrEnum

from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.state.breaker import Breaker


class Revoked(StrEnum):
    """What a revocation names. An entry of a kind that a reader does not know is passed over."""

    TOKEN = "token"
    JTI = "jti"
    SUBJECT = "subject"
    CLIENT = "client"
    ANSWERS = "answers"  # what introspection said of a subject (of everybody: ""); no token is refused by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry. ``digest`` stands for what is revoked (:func:`digest_of`); a subject's and a client's tokens are
    refused when they were issued at ``at`` or before, and answers not used when they were asked for before it.
    ``until``: when it may be forgotten. Seconds since the epoch."""

    kind: Revoked
    digest: str
    at: float
    until: float

    def to_bytes(self) -> bytes:
        """For a store: plain JSON, never a pickle (X-68)."""
        return json.dumps({"kind": self.kind, "digest": self.digest, "at": self.at, "until": self.until}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Revocation | None:
        """The entry that *data* describes, ``None`` for anything else."""
        try:
            members = parse_object(data)
            kind, digest = Revoked(members["kind"]), members["digest"]
            at, until = float(members["at"]), float(members["until"])
        except (MalformedJSON, KeyError, TypeError, ValueError, OverflowError):
            return None
        return cls(kind=kind, digest=digest, at=at, until=until) if isinstance(digest, str) else None


def digest_of(kind: Revoked, issuer: str, value: str) -> str:
    """A digest over length-prefixed parts: what *value* of *issuer* is known by here (E-17, X-61)."""
    state = hashlib.sha256()
    for part in (kind.value, issuer, value):
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """What of a judged token a revocation may name."""

    issuer: str
    token: str = field(repr=False)
    jti: str | None
    subject: str | None
    client_id: str | None
    issued_at: float | None


class Revocations:
    """The revocations this process knows of; safe to use from any thread.

    With a shared store, they are at most *max_lag* seconds behind it. *fail_open_dangerously*: while the store does
    not answer, go on with what is known, so that a token revoked elsewhere meanwhile is accepted here.
    """

    def __init__(self, *, max_lag: float = 1.0, fail_open_dangerously: bool = False) -> None:
        self.max_lag = max_lag
        self.fail_open_dangerously = fail_open_dangerously
        self.breaker: Breaker = Breaker(threshold=1, first_pause=0.1, max_pause=1.0, probe_lasts=2.0)
        self._lock = threading.Lock()
        self._entries: dict[tuple[Revoked, str], Revocation] = {}
        self._next_sweep = 0
        self.changes: int = 0  # counts what was added, so that who was not covered need not be looked for again
        self._answers_at = float("-inf")  # the latest "at" of all entries about answers
        # Of a shared log: how far it was read, and when (monotonic seconds).
        self.position: str | None = None
        self.synced_at: float = float("-inf")
        self.generation: int = 0

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()
        self.breaker.after_fork()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Revocation, now: float) -> None:
        """Remember *entry*; of two that name the same the later and longer holds."""
        with self._lock:
            if entry.kind is Revoked.ANSWERS:
                self._answers_at = max(self._answers_at, entry.at)
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
        """Know what *other* knows. How far a shared log was read is not taken over: it may be another log."""
        with other._lock:
            entries = tuple(other._entries.values())
        for entry in entries:
            self.add(entry, float("-inf"))  # which ones are over, others sweep

    def covers(self, bearer: Bearer) -> bool:
        """Whether *bearer*'s token was revoked."""
        if not self._entries:
            return False
        if self.names(bearer.issuer, bearer.token):
            return True
        if bearer.jti is not None and self._find(Revoked.JTI, bearer.issuer, bearer.jti):
            return True
        for kind, value in ((Revoked.SUBJECT, bearer.subject), (Revoked.CLIENT, bearer.client_id)):
            entry = None if value is None else self._find(kind, bearer.issuer, value)
            # A token that does not say when it was issued cannot show that it is newer (E-10).
            if entry is not None and (bearer.issued_at is None or bearer.issued_at <= entry.at):
                return True
        return False

    def names(self, issuer: str, token: str) -> bool:
        """Whether *token* of *issuer* was revoked by its own text, which is all that need be known of it."""
        return bool(self._entries) and self._find(Revoked.TOKEN, issuer, token) is not None

    def outdates(self, issuer: str, subject: str | None, asked_at: float) -> bool:
        """Whether something has happened to *subject* since *issuer* was asked about a token at *asked_at*.

        An answer that names no subject may be about anybody (E-16).
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
        """The shared log was read to its end, as it was at *now*."""
        with self._lock:
            self.synced_at = now
            self.generation += 1

    def record_failed_sync(self) -> None:
        """The shared log could not be read."""
        with self._lock:
            self.generation += 1
