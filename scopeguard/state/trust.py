"""What is known at run time about one trusted issuer: its keys, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from scopeguard.config import Issuer
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec.discovery import Metadata
from scopeguard.state.keyring import KeyRing


@dataclass(slots=True, kw_only=True, eq=False)
class Trust:
    """One issuer's policy with its key ring and the metadata learned so far; nothing is shared between issuers (P-19).

    ``metadata`` is replaced whole and read without a lock; it is used until ``metadata_until`` (monotonic seconds),
    and forgotten when the key set it leads to cannot be had, because the authority may have moved it.
    """

    issuer: Issuer
    vocabulary: ScopeVocabulary
    ring: KeyRing
    metadata: Metadata | None = field(default=None, repr=False)
    metadata_until: float = 0.0

    def known_metadata(self, now: float) -> Metadata | None:
        """The metadata, while it may be used."""
        return self.metadata if now < self.metadata_until else None

    def learn(self, metadata: Metadata, now: float) -> None:
        """Keep *metadata* for as long as the policy keeps a key set at most."""
        self.metadata = metadata
        self.metadata_until = now + self.issuer.key_set.max_ttl

    def forget(self) -> None:
        """Ask for the metadata again next time."""
        self.metadata_until = 0.0
