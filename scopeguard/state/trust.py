"""What is known at run time about the trusted issuers: their keys, their answers, and which of them is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from scopeguard.config import Issuer
from scopeguard.errors import ConfigurationError
from scopeguard.introspection import Validation
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.discovery import Metadata
from scopeguard.state.answers import Answers
from scopeguard.state.breaker import Breaker
from scopeguard.state.keyring import KeyRing
from scopeguard.state.revocations import Revocations


@dataclass(slots=True, kw_only=True, eq=False)
class Asking:
    """What introspection needs at run time. ``context`` sets this configuration apart in a cache that others share
    (I-26); ``new_id`` makes identifiers that are used once."""

    answers: Answers
    breaker: Breaker
    context: str
    key: AssertionKey | None = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)


@dataclass(slots=True, kw_only=True, eq=False)
class Trust:
    """One issuer's policy with its key ring and the metadata learned so far; nothing is shared between issuers (P-19).

    ``metadata`` is replaced whole and read without a lock; it is used until ``metadata_until`` (monotonic seconds),
    and forgotten when the key set it leads to cannot be had, because the authority may have moved it.
    """

    issuer: Issuer
    vocabulary: ScopeVocabulary
    ring: KeyRing
    asking: Asking | None = None
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


class Trusts:
    """Every trusted issuer, by the names its tokens give it and by what its opaque tokens begin with.

    A token that names another issuer, or fits nobody, belongs to none: it is refused before anything is asked of
    anybody, and never tried with one issuer after the other (P-18, I-28, I-29).
    """

    def __init__(self, trusts: Iterable[Trust], *, revocations: Revocations, shared: bool = False) -> None:
        self._by_name: dict[str, Trust] = {}
        self._prefixes: list[tuple[str, Trust]] = []
        self._any_opaque: Trust | None = None
        self.revocations = revocations
        self.shared = shared  # whether revocations and answers are shared with other processes
        for trust in trusts:
            self._add(trust)
        self._prefixes.sort(key=lambda entry: -len(entry[0]))

    def _add(self, trust: Trust) -> None:
        for name in (trust.issuer.url, *trust.issuer.aliases):
            if name in self._by_name:
                raise ConfigurationError(f"issuer {name!r} is configured twice; one issuer has one policy")
            self._by_name[name] = trust
        if trust.issuer.validate is Validation.JWT:
            return
        for prefix in trust.issuer.opaque_prefixes:
            if any(prefix == known for known, _ in self._prefixes):
                raise ConfigurationError(f"opaque_prefixes: {prefix!r} stands for two issuers; a token goes to one")
            self._prefixes.append((prefix, trust))
        if not trust.issuer.opaque_prefixes:
            if self._any_opaque is not None:
                raise ConfigurationError(
                    f"issuers {self._any_opaque.issuer.url!r} and {trust.issuer.url!r} both introspect any opaque "
                    "token; give one of them opaque_prefixes, so that no token is shown to the wrong one"
                )
            self._any_opaque = trust

    @property
    def all(self) -> tuple[Trust, ...]:
        """Every trust once, in the order of configuration."""
        return tuple(dict.fromkeys(self._by_name.values()))

    def named(self, issuer: str) -> Trust | None:
        """The trust whose tokens call their issuer *issuer*, letter by letter."""
        return self._by_name.get(issuer)

    def of_opaque(self, token: str) -> Trust | None:
        """The trust that introspects *token*, which is no JWT: by the longest prefix, else the one without any."""
        for prefix, trust in self._prefixes:
            if token.startswith(prefix):
                return trust
        return self._any_opaque
