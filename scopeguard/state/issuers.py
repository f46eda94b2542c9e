"""What is known at run time about the trusted issuers: their keys, their answers, and which of them is meant.

Longer than 400 lines because one issuer, those that are found by name, and all of them together share their rules.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from scopeguard.access_token import Unverified
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import Issuer
from scopeguard.config.resolver import IssuerResolver
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec import jwt
from scopeguard.spec.discovery import Metadata
from scopeguard.spec.signatures import Backends
from scopeguard.state.introspection import IntrospectionState
from scopeguard.state.issuer_names import IssuerNames
from scopeguard.state.key_by_id import KeysById
from scopeguard.state.keyring import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.state.status_list import StatusLists

T = TypeVar("T")

# No issuer has a longer name, and what strangers make up is kept.
_MOST_CHARACTERS: Final = 512
# There is one header for each key, about.
_MOST_HEADERS: Final = 256
_FAILURE_LASTS: Final = 1.0
_FAILURE_LASTS_AT_MOST: Final = 30.0


@dataclass(slots=True, kw_only=True, eq=False)
class TrustedIssuer:
    """One issuer's policy with its key ring and the metadata learned so far; nothing is shared between issuers (P-19).

    ``metadata`` are the documents it publishes, as far as they are needed: the endpoint of introspection and the key
    set may be in two. The tuple is replaced whole and read without a lock. It is used until ``metadata_until``
    (monotonic seconds), and forgotten when the key set it leads to cannot be fetched, because it may have moved.
    """

    issuer: Issuer
    vocabulary: ScopeVocabulary
    ring: KeyRing
    introspection: IntrospectionState | None = None
    status_lists: StatusLists | None = None
    backends: Backends = ()  # who verifies with its keys, before ``cryptography``
    metadata: tuple[Metadata, ...] = field(default=(), repr=False)
    metadata_until: float = 0.0
    # Headers of tokens that were accepted, by their text, and whether the rules of RFC 9068 applied to them.
    headers: dict[bytes, bool] = field(default_factory=dict, repr=False)
    by_id: KeysById | None = field(init=False, repr=False)  # instead of the ring, where each key has its own URL
    jwks_uri: str | None = None  # where the set of the ring is, if that is configured
    # The same issuer with its other key sets: each of them has a ring of its own, and shares the rest.
    others: tuple[TrustedIssuer, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        self.by_id = None if self.issuer.key_url_template is None else KeysById(self.issuer.key_set)
        uris = self.issuer.jwks_uris
        if self.jwks_uri is None and uris:
            self.jwks_uri = uris[0]

    def is_or_has(self, trust: TrustedIssuer) -> bool:
        """Whether *trust* is this one, or the same issuer with another of its key sets."""
        return trust is self or trust in self.others

    def after_fork(self) -> None:
        """In a child process, which has none of the threads."""
        for trust in (self, *self.others):
            trust.ring.forget_flights()
        if self.by_id is not None:
            self.by_id.after_fork()
        if self.introspection is not None:
            self.introspection.after_fork()
        if self.status_lists is not None:
            self.status_lists.after_fork()

    def remember_header(self, token: Unverified, *, rfc9068: bool) -> None:
        """A token was accepted, so the next one under the same header need not have it looked at again."""
        if not jwt.repeats_claims(token.header):
            _keep(self.headers, token.segment, rfc9068)

    def known_metadata(self, now: float, wanted: Callable[[Metadata], bool]) -> Metadata | None:
        """A document that is *wanted*, while it may be used."""
        return next(filter(wanted, self.metadata), None) if now < self.metadata_until else None

    def learn(self, metadata: Metadata, now: float) -> None:
        """Keep *metadata*, beside a document that was learned before, for as long as the policy keeps a key set at
        most."""
        if now < self.metadata_until:
            self.metadata = (*self.metadata[-1:], metadata)
        else:
            self.metadata = (metadata,)
            self.metadata_until = now + self.issuer.key_set.max_ttl

    def forget(self) -> None:
        """Ask for the metadata again next time."""
        self.metadata_until = 0.0

    def take_over(self, other: TrustedIssuer) -> None:
        """Go on with what *other*, whose issuer has equal settings, has learned. A key file is read again: whoever
        says that settings are new may mean it."""
        self.introspection, self.status_lists = other.introspection, other.status_lists
        if self.backends != other.backends:  # what keys are verified with is prepared in them
            return
        self.by_id = other.by_id
        if self.issuer.jwks_file is None:
            self.ring, self.metadata, self.metadata_until = other.ring, other.metadata, other.metadata_until
            for mine, known in zip(self.others, other.others, strict=True):
                mine.ring = known.ring


def _keep(memo: dict[bytes, T], segment: bytes, value: T) -> None:
    """Only what comes with an accepted token gets here; where each has a header of its own, the memo is of no use."""
    if segment not in memo:
        if len(memo) >= _MOST_HEADERS:
            memo.clear()
        memo[segment] = value


@dataclass(frozen=True, slots=True)
class Resolution:
    """What came of looking an issuer up: a trust, nobody, or no answer; to be believed until then (monotonic)."""

    until: float
    trust: TrustedIssuer | None = None
    failed: bool = False


class ResolvedIssuers:
    """The issuers that *resolver* finds, as they are needed; *new_trust* begins to trust one.

    Bounded, the one used longest ago goes first. Refusals and failures have a place of their own, so that made-up
    names push out no issuer.
    """

    def __init__(self, resolver: IssuerResolver, new_trust: Callable[[Issuer], TrustedIssuer]) -> None:
        self.resolver: IssuerResolver = resolver
        self._new_trust = new_trust
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Resolution] = OrderedDict()
        self._others: OrderedDict[str, Resolution] = OrderedDict()

    @property
    def found(self) -> tuple[TrustedIssuer, ...]:
        """The trusts that are held."""
        with self._lock:
            return tuple(entry.trust for entry in self._found.values() if entry.trust is not None)

    def has_found(self, name: str) -> bool:
        """Whether an issuer was found under *name* before, even if that has to be looked up again."""
        return name in self._found

    def accepts(self, name: str) -> bool:
        """Whether *name* may be looked up. Anything but true and false would be a mistake that lets everybody pass:
        a function that was not awaited, say."""
        if not name or len(name) > _MOST_CHARACTERS:
            return False
        answer: object = self.resolver.accepts(name)
        if not isinstance(answer, bool):
            raise ConfigurationError(f"resolver.accepts: returns True or False, not {type(answer).__name__}")
        return answer

    def resolve(self, name: str) -> Issuer | Awaitable[Issuer | None] | None:
        """What the operator's function says; may block, and belongs into a flight."""
        return self.resolver.resolve(name)

    def lookup(self, name: str, now: float) -> Resolution | None:
        """What is known of *name*; ``None``: look it up."""
        with self._lock:
            for kept in (self._found, self._others):
                entry = kept.get(name)
                if entry is not None and now < entry.until:
                    kept.move_to_end(name)
                    return entry
        return None

    def absorb(self, name: str, issuer: object, now: float) -> Resolution:
        """*issuer* was found under *name*. Equal settings keep keys and answers."""
        resolver = self.resolver
        if issuer is None:
            entry = Resolution(now + resolver.negative_ttl)
        else:
            entry = Resolution(now + resolver.ttl, self._trusting(_checked(name, issuer)))
        self._keep(name, entry)
        return entry

    def fail(self, name: str, now: float, *, retry_after: float | None) -> None:
        """Looking *name* up failed: not again for a moment. Others are looked up all the same (P-19)."""
        pause = max(_FAILURE_LASTS, min(retry_after or 0.0, _FAILURE_LASTS_AT_MOST))
        self._keep(name, Resolution(now + pause, failed=True))

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def _trusting(self, issuer: Issuer) -> TrustedIssuer:
        held = self._found.get(issuer.url)
        if held is not None and held.trust is not None and held.trust.issuer == issuer:
            return held.trust
        return self._new_trust(issuer)

    def _keep(self, name: str, entry: Resolution) -> None:
        with self._lock:
            if not entry.failed:  # what failed may be the same as before
                self._found.pop(name, None)
            self._others.pop(name, None)
            kept = self._others if entry.trust is None else self._found
            kept[name] = entry
            while len(kept) > self.resolver.max_issuers:
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


class TrustedIssuers:
    """Every trusted issuer, by the names its tokens give it and by what its opaque tokens begin with.

    A token that names another issuer, or fits nobody, belongs to none: it is refused before anything is asked of
    anybody, and never tried with one issuer after the other (P-18, I-28, I-29).
    """

    def __init__(
        self,
        trusts: Iterable[TrustedIssuer],
        *,
        revocations: Revocations,
        shared: bool = False,
        resolved: ResolvedIssuers | None = None,
    ) -> None:
        self._by_name: dict[tuple[str | None, str], TrustedIssuer] = {}
        self._prefixes: dict[str, TrustedIssuer] = {}
        self._any_opaque: TrustedIssuer | None = None
        self._forms: dict[str | None, tuple[bool, tuple[str, ...]]] = {}
        self._headers: dict[bytes, Mapping[str, Any]] = {}
        self.resolved = resolved
        self.revocations = revocations
        self.shared = shared  # whether revocations and answers are shared with other processes
        for trust in trusts:
            self._add(trust)
        # So that a look-up costs as much as there are lengths, not prefixes.
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))
        # Whether any issuer is asked about tokens that are not JWTs.
        self.takes_opaque = bool(self._prefixes) or self._any_opaque is not None
        # The header fields that tokens come in; None for Authorization.
        headers = dict.fromkeys(trust.issuer.token_header for trust in self.all)
        self.headers: tuple[str | None, ...] = tuple(headers if resolved is None else {**headers, None: None})
        # For tokens that belong to none of them: whoever has something to say.
        nameless = [trust for trust in self.all if trust.issuer.issuer_claim_optional_dangerously]
        if nameless and (len(self.all) > 1 or resolved is not None):
            raise ConfigurationError(
                f"issuer_claim_optional_dangerously: issuer {nameless[0].issuer.url!r} has to be the only one; a token "
                "without iss does not say whose it is"
            )
        self.nameless: TrustedIssuer | None = nameless[0] if nameless else None  # whose tokens need no iss
        self.names = IssuerNames(name for _, name in self._by_name)
        self.hints: dict[str, str] = {
            key: hint for trust in reversed(self.all) for key, hint in trust.issuer.hints.items()
        }

    def _add(self, trust: TrustedIssuer) -> None:
        for name in dict.fromkeys((trust.issuer.url, *trust.issuer.aliases)):
            if self._by_name.setdefault((trust.issuer.token_header, name), trust) is not trust:
                raise ConfigurationError(
                    f"issuer {name!r} is configured twice; one issuer has one policy: let one Issuer accept both kinds "
                    "of tokens (audience, expected_claims and typ take several values), or make a Guard for each "
                    "policy and guard its routes with it"
                )
        header, form = trust.issuer.token_header, (trust.issuer.padded_segments, trust.issuer.header_claims)
        if self._forms.setdefault(header, form) != form:
            raise ConfigurationError(
                f"token_header: {header!r} is shared by issuers that differ in padded_segments or header_claims; the "
                "field alone tells how a token in it is read, so let them agree"
            )
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
    def all(self) -> tuple[TrustedIssuer, ...]:
        """Every configured trust once, in the order of configuration."""
        return tuple(dict.fromkeys(self._by_name.values()))

    def peek(self, token: str, header: str | None, mark: str | None = None) -> Unverified:
        """*token*, read as tokens in the field *header* are; see :func:`scopeguard.spec.jwt.peek`."""
        padded, header_claims = self._forms.get(header, (False, ()))
        return jwt.peek(token, padded=padded, header_claims=header_claims, headers=self._headers, mark=mark)

    def remember_header(self, token: Unverified) -> None:
        """*token* was accepted, so its header, which others share, need not be parsed again."""
        _keep(self._headers, token.segment, token.header)

    def is_configured(self, trust: TrustedIssuer) -> bool:
        """Whether *trust* is one of those it began with, which hold for good."""
        found = self._by_name.get((trust.issuer.token_header, trust.issuer.url))
        return found is not None and found.is_or_has(trust)

    def holds(self, trust: TrustedIssuer, now: float) -> bool:
        """Whether *trust* is one that holds at *now* (monotonic seconds): a configured one, or what the resolver finds
        under that name."""
        if self.is_configured(trust):
            return True
        found = None if self.resolved is None else self.resolved.lookup(trust.issuer.url, now)
        return found is not None and found.trust is not None and found.trust.is_or_has(trust)

    def leeway(self, issuer: str, now: float) -> float:
        """The leeway in seconds for tokens of *issuer*, named as in the configuration; of several header fields, the
        longest. 0 for an issuer that is not known at *now* (monotonic seconds)."""
        trusts = [self._by_name.get((header, issuer)) for header in self.headers]
        found = None if self.resolved is None else self.resolved.lookup(issuer, now)
        if found is not None:
            trusts.append(found.trust)
        return max((trust.issuer.leeway for trust in trusts if trust is not None), default=0.0)

    def is_caught_up(self, now: float) -> bool:
        """Whether no revocation has to be asked for at *now* (monotonic seconds)."""
        revocations = self.revocations
        return not self.shared or now - revocations.synced_at < revocations.max_lag / 2

    def by_name(self, issuer: str, header: str | None = None) -> TrustedIssuer | None:
        """The trust whose tokens call their issuer *issuer*, letter by letter, and come in the field *header*."""
        return self._by_name.get((header, issuer))

    def nearest(self, issuer: str, header: str | None) -> dict[str, str]:
        """For the operator's log, of an *issuer* that is not trusted in the field *header*: what is ``configured``, and
        how that ``differs``."""
        for other in self.headers:
            if other != header and (other, issuer) in self._by_name:
                differs = f"its tokens are accepted in the field {other or 'Authorization'} only"
                return {"configured": issuer, "differs": differs}
        return self.names.nearest(issuer)

    def by_opaque_token(self, token: str) -> TrustedIssuer | None:
        """The trust that introspects *token*, which is no JWT: by the longest prefix, else the one without any."""
        for length in self._prefix_lengths:
            trust = self._prefixes.get(token[:length])
            if trust is not None:
                return trust
        return self._any_opaque

    def take_over(self, other: TrustedIssuers) -> tuple[TrustedIssuer, ...]:
        """Go on with what *other* has learned of issuers with equal settings, and with its revocations; the trusts
        that begin anew."""
        self.revocations.take_over(other.revocations)
        anew: list[TrustedIssuer] = []
        for trust in self.all:
            held = next((held for held in other.all if held.issuer == trust.issuer), None)
            if held is not None:
                trust.take_over(held)
            if held is None or trust.ring is not held.ring:
                anew.append(trust)
        return tuple(anew)

    def after_fork(self) -> None:
        """In a child process, which has none of the threads."""
        found: tuple[TrustedIssuer, ...] = ()
        if self.resolved is not None:
            self.resolved.after_fork()
            found = self.resolved.found
        for trust in (*self.all, *found):
            trust.after_fork()
        self.revocations.after_fork()
