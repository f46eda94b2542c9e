"""What is known at run time about the trusted issuers: their keys, their answers, and which of them is meant."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from scopeguard.config import Issuer
from scopeguard.errors import ConfigurationError
from scopeguard.introspection import Introspection, Validation
from scopeguard.resolver import IssuerResolver
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.discovery import Metadata
from scopeguard.state.answers import Answers
from scopeguard.state.breaker import Breaker
from scopeguard.state.keyring import KeyRing
from scopeguard.state.revocations import Revocations
from scopeguard.state.statuses import Statuses

# No issuer has a longer name, and what strangers make up is kept.
_MOST_CHARACTERS: Final = 512
_FAILURE_LASTS: Final = 1.0
_FAILURE_LASTS_AT_MOST: Final = 30.0


@dataclass(slots=True, kw_only=True, eq=False)
class Asking:
    """What introspection needs at run time. ``context`` sets this configuration apart in a cache that others share
    (I-26); ``new_id`` makes identifiers that are used once. What the store holds from before ``dropped_at`` (seconds
    since the epoch) is not used."""

    settings: Introspection
    answers: Answers
    breaker: Breaker
    context: str
    key: AssertionKey | None = field(repr=False)
    new_id: Callable[[], str] = field(repr=False)
    dropped_at: float = float("-inf")

    def drop(self, now: float) -> None:
        """Use no answer in this process that was given before *now*; tokens are asked about again (E-16)."""
        self.dropped_at = now
        self.answers.clear()


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
    statuses: Statuses | None = None
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


@dataclass(frozen=True, slots=True)
class Resolved:
    """What came of looking an issuer up: a trust, nobody, or no answer; to be believed until then (monotonic)."""

    until: float
    trust: Trust | None = None
    failed: bool = False


class Resolving:
    """The issuers that *resolver* finds, as they are needed; *new_trust* begins to trust one.

    Bounded, the one used longest ago goes first. Refusals and failures have a place of their own, so that made-up
    names push out no issuer.
    """

    def __init__(self, resolver: IssuerResolver, new_trust: Callable[[Issuer], Trust]) -> None:
        self._resolver = resolver
        self._new_trust = new_trust
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Resolved] = OrderedDict()
        self._others: OrderedDict[str, Resolved] = OrderedDict()

    @property
    def found(self) -> tuple[Trust, ...]:
        """The trusts that are held."""
        with self._lock:
            return tuple(entry.trust for entry in self._found.values() if entry.trust is not None)

    def accepts(self, name: str) -> bool:
        """Whether *name* may be looked up. Anything but true and false would be a mistake that lets everybody pass:
        a function that was not awaited, say."""
        if not name or len(name) > _MOST_CHARACTERS:
            return False
        answer: object = self._resolver.accepts(name)
        if not isinstance(answer, bool):
            raise ConfigurationError(f"resolver.accepts: returns True or False, not {type(answer).__name__}")
        return answer

    def resolve(self, name: str) -> Issuer | Awaitable[Issuer | None] | None:
        """What the operator's function says; may block, and belongs into a flight."""
        return self._resolver.resolve(name)

    def lookup(self, name: str, now: float) -> Resolved | None:
        """What is known of *name*; ``None``: look it up."""
        with self._lock:
            for kept in (self._found, self._others):
                entry = kept.get(name)
                if entry is not None and now < entry.until:
                    kept.move_to_end(name)
                    return entry
        return None

    def absorb(self, name: str, issuer: object, now: float) -> Resolved:
        """*issuer* was found under *name*. Equal settings keep keys and answers."""
        resolver = self._resolver
        if issuer is None:
            entry = Resolved(now + resolver.negative_ttl)
        else:
            entry = Resolved(now + resolver.ttl, self._trusting(_checked(name, issuer)))
        self._keep(name, entry)
        return entry

    def fail(self, name: str, now: float, *, retry_after: float | None) -> None:
        """Looking *name* up failed: not again for a moment. Others are looked up all the same (P-19)."""
        pause = max(_FAILURE_LASTS, min(retry_after or 0.0, _FAILURE_LASTS_AT_MOST))
        self._keep(name, Resolved(now + pause, failed=True))

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def _trusting(self, issuer: Issuer) -> Trust:
        held = self._found.get(issuer.url)
        if held is not None and held.trust is not None and held.trust.issuer == issuer:
            return held.trust
        return self._new_trust(issuer)

    def _keep(self, name: str, entry: Resolved) -> None:
        with self._lock:
            if not entry.failed:  # what failed may be the same as before
                self._found.pop(name, None)
            self._others.pop(name, None)
            kept = self._others if entry.trust is None else self._found
            kept[name] = entry
            while len(kept) > self._resolver.max_issuers:
                kept.popitem(last=False)


def _checked(name: str, issuer: object) -> Issuer:
    """*issuer*, if it is what was asked for."""
    if not isinstance(issuer, Issuer):
        raise ConfigurationError(f"resolver.resolve: returns an Issuer or None, not {type(issuer).__name__}")
    if issuer.url != name:
        raise ConfigurationError(f"resolver.resolve: was asked for {name!r} and returned {issuer.url!r}")
    if issuer.token_header is not None or issuer.opaque_prefixes:
        raise ConfigurationError(
            f"resolver.resolve: {name!r} has token_header or opaque_prefixes, which say whose a token is; an issuer "
            "that is found by the name in its token cannot have them"
        )
    return issuer


class Trusts:
    """Every trusted issuer, by the names its tokens give it and by what its opaque tokens begin with.

    A token that names another issuer, or fits nobody, belongs to none: it is refused before anything is asked of
    anybody, and never tried with one issuer after the other (P-18, I-28, I-29).
    """

    def __init__(
        self,
        trusts: Iterable[Trust],
        *,
        revocations: Revocations,
        shared: bool = False,
        resolving: Resolving | None = None,
    ) -> None:
        self._by_name: dict[tuple[str | None, str], Trust] = {}
        self._prefixes: dict[str, Trust] = {}
        self._any_opaque: Trust | None = None
        self.resolving = resolving
        self.revocations = revocations
        self.shared = shared  # whether revocations and answers are shared with other processes
        for trust in trusts:
            self._add(trust)
        # So that a look-up costs as much as there are lengths, not prefixes.
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))
        # The header fields that tokens come in; None for Authorization.
        headers = dict.fromkeys(trust.issuer.token_header for trust in self.all)
        self.headers: tuple[str | None, ...] = tuple(headers if resolving is None else {**headers, None: None})
        # For tokens that belong to none of them: whoever has something to say.
        self.hints: dict[str, str] = {
            key: hint for trust in reversed(self.all) for key, hint in trust.issuer.hints.items()
        }

    def _add(self, trust: Trust) -> None:
        for name in dict.fromkeys((trust.issuer.url, *trust.issuer.aliases)):
            if self._by_name.setdefault((trust.issuer.token_header, name), trust) is not trust:
                raise ConfigurationError(f"issuer {name!r} is configured twice; one issuer has one policy")
        if trust.issuer.validate is Validation.JWT:
            return
        for prefix in trust.issuer.opaque_prefixes:
            if self._prefixes.setdefault(prefix, trust) is not trust:
                raise ConfigurationError(f"opaque_prefixes: {prefix!r} stands for two issuers; a token goes to one")
        if not trust.issuer.opaque_prefixes:
            if self._any_opaque is not None:
                raise ConfigurationError(
                    f"issuers {self._any_opaque.issuer.url!r} and {trust.issuer.url!r} both introspect any opaque "
                    "token; give one of them opaque_prefixes, so that no token is shown to the wrong one"
                )
            self._any_opaque = trust

    @property
    def all(self) -> tuple[Trust, ...]:
        """Every configured trust once, in the order of configuration."""
        return tuple(dict.fromkeys(self._by_name.values()))

    def named(self, issuer: str, header: str | None = None) -> Trust | None:
        """The trust whose tokens call their issuer *issuer*, letter by letter, and come in the field *header*."""
        return self._by_name.get((header, issuer))

    def of_opaque(self, token: str) -> Trust | None:
        """The trust that introspects *token*, which is no JWT: by the longest prefix, else the one without any."""
        for length in self._prefix_lengths:
            trust = self._prefixes.get(token[:length])
            if trust is not None:
                return trust
        return self._any_opaque

    def after_fork(self) -> None:
        """In a child process, which has none of the threads."""
        found: tuple[Trust, ...] = ()
        if self.resolving is not None:
            self.resolving.after_fork()
            found = self.resolving.found
        for trust in (*self.all, *found):
            trust.ring.forget_flights()
