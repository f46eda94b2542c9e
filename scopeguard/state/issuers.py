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
# The account of outbound work for issuers that a resolver found and none of whose tokens was accepted yet.
_NEWCOMERS: Final = "newcomers"


@dataclass(slots=True, kw_only=True, eq=False)
class TrustedIssuer:
    """One issuer's policy with its key ring and the metadata learned so far; nothing is shared between issuers (P-19).

    ``metadata`` are the documents it publishes, as far as they are needed: the endpoint of introspection and the key
    set may be in two. The tuple is replaced whole and read without a lock. It is used until ``metadata_until``
    (monotonic seconds). ``keys_moved``: the key set it leads to could not be fetched, so the next fetch looks for
    another one.

    ``newcomer``: a resolver found the issuer, and none of its tokens was accepted yet. Strangers can name any number of
    such issuers, so the outbound work for all of them is counted as that of one, and none of it has priority.
    """

    issuer: Issuer
    vocabulary: ScopeVocabulary
    ring: KeyRing
    introspection: IntrospectionState | None = None
    status_lists: StatusLists | None = None
    backends: Backends = ()  # who verifies with its keys, before ``cryptography``
    metadata: tuple[Metadata, ...] = field(default=(), repr=False)
    metadata_until: float = 0.0
    keys_moved: bool = False
    newcomer: bool = False
    found_until: float = 0.0  # how long what the resolver said is believed, in monotonic seconds
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

    @property
    def account(self) -> str:
        """The name under which outbound work for this issuer is counted; see :class:`SingleFlight`."""
        return _NEWCOMERS if self.newcomer else self.issuer.url

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

    def learn(self, metadata: Metadata, now: float, wanted: Callable[[Metadata], bool]) -> None:
        """Keep *metadata* for as long as the policy keeps a key set at most.

        It replaces documents that are *wanted*, and stands beside one that was learned for another purpose.
        """
        if now < self.metadata_until:
            others = tuple(known for known in self.metadata if not wanted(known))
            self.metadata = (*others[-1:], metadata)
        else:
            self.metadata = (metadata,)
            self.metadata_until = now + self.issuer.key_set.max_ttl

    def take_over(self, other: TrustedIssuer) -> None:
        """Go on with what *other*, whose issuer has equal settings, has learned. A key file is read again: whoever
        says that settings are new may mean it."""
        self.introspection, self.status_lists = other.introspection, other.status_lists
        if self.backends != other.backends:  # what keys are verified with is prepared in them
            return
        self.by_id = other.by_id
        if self.issuer.jwks_file is None:
            self.ring, self.metadata, self.metadata_until = other.ring, other.metadata, other.metadata_until
            self.keys_moved = other.keys_moved
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

    At most ``max_issuers`` are held whose tokens were accepted; the one used longest ago makes room. The others
    (newcomers) get the room that is left, and always room for one. So a name in a token that was not verified never
    pushes out an issuer whose tokens were accepted. Refusals and failures are held apart, within the same bound.
    """

    def __init__(self, resolver: IssuerResolver, new_trust: Callable[[Issuer], TrustedIssuer]) -> None:
        self.resolver: IssuerResolver = resolver
        self._new_trust = new_trust
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Resolution] = OrderedDict()
        self._newcomers: OrderedDict[str, Resolution] = OrderedDict()
        self._others: OrderedDict[str, Resolution] = OrderedDict()

    @property
    def found(self) -> tuple[TrustedIssuer, ...]:
        """The trusts that are held."""
        with self._lock:
            held = (*self._found.values(), *self._newcomers.values())
            return tuple(entry.trust for entry in held if entry.trust is not None)

    def has_accepted(self, name: str) -> bool:
        """Whether a token of the issuer *name* was accepted before, even if the issuer has to be looked up again."""
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
            for kept in (self._found, self._newcomers, self._others):
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
            entry = Resolution(now + resolver.ttl, self._trusting(_checked(name, issuer), now + resolver.ttl))
        self._keep(name, entry)
        return entry

    def fail(self, name: str, now: float, *, retry_after: float | None) -> None:
        """Looking *name* up failed: not again for a moment. Others are looked up all the same (P-19)."""
        pause = max(_FAILURE_LASTS, min(retry_after or 0.0, _FAILURE_LASTS_AT_MOST))
        self._keep(name, Resolution(now + pause, failed=True))

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    def accept(self, trust: TrustedIssuer) -> None:
        """A token of *trust* was accepted: it is a newcomer no longer.

        It is held again if others have pushed it out since it was found, unless the resolver has said something else.
        """
        if not trust.newcomer:
            return
        name = trust.issuer.url
        with self._lock:
            for each in (trust, *trust.others):
                each.newcomer = False
            held = self._found.get(name) or self._newcomers.get(name) or self._others.get(name)
            if held is None or held.trust is trust:
                self._newcomers.pop(name, None)
                self._found[name] = Resolution(trust.found_until, trust)
                self._make_room()

    def _trusting(self, issuer: Issuer, until: float) -> TrustedIssuer:
        held = self._found.get(issuer.url) or self._newcomers.get(issuer.url)
        if held is not None and held.trust is not None and held.trust.issuer == issuer:
            trust = held.trust
        else:
            trust = self._new_trust(issuer)
            for each in (trust, *trust.others):
                each.newcomer = True
        trust.found_until = until
        return trust

    def _keep(self, name: str, entry: Resolution) -> None:
        with self._lock:
            if not entry.failed:  # what failed may be the same as before
                self._found.pop(name, None)
                self._newcomers.pop(name, None)
            self._others.pop(name, None)
            if entry.trust is None:
                self._others[name] = entry
            elif entry.trust.newcomer:
                self._newcomers[name] = entry
            else:
                self._found[name] = entry
            self._make_room()

    def _make_room(self) -> None:
        most = self.resolver.max_issuers
        for kept, room in (
            (self._found, most),
            (self._newcomers, max(1, most - len(self._found))),
            (self._others, most),
        ):
            while len(kept) > room:
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
