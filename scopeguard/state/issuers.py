"""The run-time state of the trusted issuers, and the search for the one that a token belongs to.

Longer than 400 lines because one issuer, those that a resolver finds, and the collection of both share their rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.issuer import Issuer
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError
from scopeguard.spec import jwt
from scopeguard.spec.discovery import Metadata
from scopeguard.spec.signatures import Backends
from scopeguard.spec.spiffe import trust_domain_of
from scopeguard.state.bounded import BoundedMap
from scopeguard.state.fork import Locked
from scopeguard.state.keys import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.state.similar_names import SimilarNames
from scopeguard.tokens import LateFields, Unverified

if TYPE_CHECKING:
    from scopeguard.config.resolver import IssuerResolver
    from scopeguard.state.introspection import IntrospectionState
    from scopeguard.state.key_by_id import KeysById
    from scopeguard.state.status_list import StatusLists

K = TypeVar("K")
T = TypeVar("T")

# The bound for an issuer's name, because names that strangers choose are cached.
_MOST_CHARACTERS: Final = 512
# There is about one header for each key.
_MOST_REMEMBERED: Final = 256
# In characters. The scopes of real tokens are shorter.
_LONGEST_SCOPE_TEXT: Final = 1024
_FAILURE_LASTS: Final = 1.0
_FAILURE_LASTS_AT_MOST: Final = 30.0
# The account of outbound work for all issuers that a resolver found and that have no accepted token yet.
_NEWCOMERS: Final = "newcomers"
_MOST_SHOWN_KEYS: Final = 5


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class IssuerRecord:
    """One issuer with its key ring, its cached metadata and its introspection state. Issuers share no state.

    ``metadata`` holds the documents that were needed so far: the introspection endpoint and the key set may be named by
    different documents. The tuple is replaced and never changed, so that it is read without a lock. It is used until
    ``metadata_until`` (monotonic seconds). ``keys_moved``: its key set could not be fetched, so the next fetch searches
    for another one.

    ``newcomer``: a resolver found the issuer, and none of its tokens was accepted yet. Strangers can name any number of
    such issuers, so the outbound work for all of them counts as that of one account, and none of it has priority.
    """

    issuer: Issuer
    vocabulary: ScopeVocabulary
    ring: KeyRing
    introspection: IntrospectionState | None = None
    status_lists: StatusLists | None = None
    backends: Backends = ()  # tried before ``cryptography``
    metadata: tuple[Metadata, ...] = ()
    metadata_until: float = 0.0
    keys_moved: bool = False
    newcomer: bool = False
    found_until: float = 0.0  # the time at which the resolver's result expires, in monotonic seconds
    # The end of a pause of verify_at_once() after a bad signature, in monotonic seconds.
    left_to_flow_until: float = 0.0
    # For the encoded headers of accepted tokens: whether the rules of RFC 9068 applied.
    headers: dict[bytes, bool] = field(default_factory=dict)
    # For values of Issuer.scope_text_claim in accepted tokens: the scopes in them.
    scope_texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    late_fields: LateFields = field(init=False)  # for jwt.accept()
    by_id: KeysById | None = field(init=False)  # replaces the ring if each key has its own URL
    jwks_uri: str | None = None  # the configured URL of the ring's key set
    # The same issuer with its other key sets: each has its own ring, and all share the rest.
    others: tuple[IssuerRecord, ...] = ()

    def __post_init__(self) -> None:
        self.late_fields = partial(jwt.late_fields, issuer=self.issuer)
        self.by_id = None
        if self.issuer.key_url_template is not None:
            from scopeguard.state.key_by_id import KeysById

            self.by_id = KeysById(self.issuer.key_set)
        uris = self.issuer.jwks_uris
        if self.jwks_uri is None and uris:
            self.jwks_uri = uris[0]

    @property
    def account(self) -> str:
        """The name under which outbound work for this issuer is counted; see :class:`SingleFlight`."""
        return _NEWCOMERS if self.newcomer else self.issuer.url

    def includes(self, record: IssuerRecord) -> bool:
        """Return whether *record* is this object, or the same issuer with another of its key sets."""
        return record is self or record in self.others

    def describe_keys(self) -> dict[str, str]:
        """Return where the key set comes from, and the ids of its keys, for a log line."""
        issuer, held = self.issuer, self.ring.current
        url = self.jwks_uri or next((found.jwks_uri for found in self.metadata if found.jwks_uri is not None), None)
        place = "the settings" if issuer.keys is not None else issuer.jwks_file or url or issuer.url
        keys = () if held is None else held.keys.keys
        shown = [key.kid or "(without kid)" for key in keys[:_MOST_SHOWN_KEYS]]
        if len(keys) > _MOST_SHOWN_KEYS:
            shown.append(f"and {len(keys) - _MOST_SHOWN_KEYS} more")
        return {"key_set": str(place), "its_keys": " ".join(shown) or "none"}

    @property
    def needs_computation_only(self) -> bool:
        """Whether a token with an accepted header needs no effect, while keys are cached and nothing is revoked."""
        issuer = self.issuer
        return (
            issuer.validate is not Validation.INTROSPECTION
            and issuer.dpop is not DPoPMode.REQUIRED
            and issuer.token_header is None
            and self.by_id is None
            and self.status_lists is None
            and not self.others
        )

    def remember_header(self, token: Unverified, *, rfc9068: bool) -> None:
        """Cache the header of *token*, which was accepted: the next token with this header skips its checks."""
        if not jwt.replicates_claims(token.header):
            _keep(self.headers, token.segment, rfc9068)

    def remember_scopes(self, claims: Mapping[str, Any], granted: tuple[str, ...] | None) -> None:
        """Cache *granted*, the scopes in *claims*, which are those of an accepted token."""
        name = self.issuer.scope_text_claim
        text = None if name is None else claims.get(name)
        if type(text) is str and granted is not None and len(text) <= _LONGEST_SCOPE_TEXT:
            _keep(self.scope_texts, text, granted)

    def cached_metadata(self, now: float, wanted: Callable[[Metadata], bool]) -> Metadata | None:
        """Return a cached document that may still be used and for which *wanted* returns true."""
        return next(filter(wanted, self.metadata), None) if now < self.metadata_until else None

    def learn(self, metadata: Metadata, now: float, wanted: Callable[[Metadata], bool]) -> None:
        """Cache *metadata* for at most the longest lifetime of a key set.

        It replaces documents for which *wanted* returns true. A document that was cached for another purpose is kept.
        """
        if now < self.metadata_until:
            others = tuple(known for known in self.metadata if not wanted(known))
            self.metadata = (*others[-1:], metadata)
        else:
            self.metadata = (metadata,)
            self.metadata_until = now + self.issuer.key_set.max_ttl

    def take_over(self, other: IssuerRecord) -> None:
        """Take over the caches of *other*, whose issuer has equal settings. A key file is read again."""
        self.introspection, self.status_lists = other.introspection, other.status_lists
        if self.backends != other.backends:  # a cached key works with the backends of its record only
            return
        self.by_id = other.by_id
        if self.issuer.jwks_file is None:
            self.ring, self.metadata, self.metadata_until = other.ring, other.metadata, other.metadata_until
            self.keys_moved = other.keys_moved
            for mine, known in zip(self.others, other.others, strict=True):
                mine.ring = known.ring


def _keep(memo: dict[K, T], key: K, value: T) -> None:
    """Add to *memo*, and clear it first if it is full: it is useless if every accepted token has a different key."""
    if key not in memo:
        if len(memo) >= _MOST_REMEMBERED:
            memo.clear()
        memo[key] = value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KnownHeader:
    """The header of accepted tokens: their issuer, its parameters, and whether the rules of RFC 9068 applied."""

    record: IssuerRecord
    header: Mapping[str, Any]
    rfc9068: bool
    kid: str | None
    algorithm: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Resolution:
    """A cached look-up of an issuer: found, unknown (no ``record``) or failed. ``until``: its end (monotonic)."""

    until: float
    record: IssuerRecord | None = None
    failed: bool = False


class ResolvedIssuers(Locked):
    """The issuers that *resolver* finds; *new_record* builds the state of one. None of them is named
    *reserved*.

    At most ``max_issuers`` with an accepted token are held, and the least recently used one is evicted first. Issuers
    without an accepted token (newcomers) get the remaining places, and at least one. A name in an unverified token
    therefore never evicts an issuer with an accepted token. Unknown names and failures have a map of their own with the
    same bound.
    """

    def __init__(
        self,
        resolver: IssuerResolver,
        new_record: Callable[[Issuer], IssuerRecord],
        *,
        reserved: str | None = None,
    ) -> None:
        super().__init__()
        self.resolver: IssuerResolver = resolver
        self._reserved = reserved
        self._new_record = new_record
        self._found: BoundedMap[str, Resolution] = BoundedMap(resolver.max_issuers)
        self._newcomers: BoundedMap[str, Resolution] = BoundedMap(resolver.max_issuers)
        self._others: BoundedMap[str, Resolution] = BoundedMap(resolver.max_issuers)

    @property
    def found(self) -> tuple[IssuerRecord, ...]:
        """The issuers that were found."""
        with self._lock:
            held = (*self._found.items(), *self._newcomers.items())
            return tuple(entry.record for _, entry in held if entry.record is not None)

    def has_accepted(self, name: str) -> bool:
        """Return whether a token of the issuer *name* was accepted before, even if the look-up has expired."""
        return name in self._found

    def accepts(self, name: str) -> bool:
        """Return whether the resolver accepts *name*.

        Raises :class:`ConfigurationError` unless the resolver returns a bool: a coroutine that was not awaited would be
        true for every name.
        """
        if not name or len(name) > _MOST_CHARACTERS or name == self._reserved:
            return False
        answer: object = self.resolver.accepts(name)
        if not isinstance(answer, bool):
            raise ConfigurationError(f"resolver.accepts: must return True or False, not {type(answer).__name__}")
        return answer

    def resolve(self, name: str) -> Issuer | Awaitable[Issuer | None] | None:
        """Call the function of the configuration. It may block, so call it in a flight."""
        return self.resolver.resolve(name)

    def lookup(self, name: str, now: float) -> Resolution | None:
        """Return the cached look-up of *name*, or ``None`` if there is none."""
        with self._lock:
            for kept in (self._found, self._newcomers, self._others):
                entry = kept.peek(name)
                if entry is not None and now < entry.until:
                    return kept.get(name)
        return None

    def absorb(self, name: str, issuer: object, now: float) -> Resolution:
        """Cache *issuer*, which the resolver returned for *name*. If its settings are unchanged, its state is kept."""
        resolver = self.resolver
        if issuer is None:
            entry = Resolution(now + resolver.negative_ttl)
        else:
            entry = Resolution(now + resolver.ttl, self._record_of(_check_result(name, issuer), now + resolver.ttl))
        self._keep(name, entry)
        return entry

    def fail(self, name: str, now: float, *, retry_after: float | None) -> None:
        """Record that the look-up of *name* failed. It is paused; other names are not."""
        pause = max(_FAILURE_LASTS, min(retry_after or 0.0, _FAILURE_LASTS_AT_MOST))
        self._keep(name, Resolution(now + pause, failed=True))

    def accept(self, record: IssuerRecord) -> None:
        """Record that a token of *record* was accepted, so that it is no longer a newcomer.

        It is added again if others have evicted it since it was found, unless the resolver has returned another result.
        """
        if not record.newcomer:
            return
        name = record.issuer.url
        with self._lock:
            for each in (record, *record.others):
                each.newcomer = False
            held = self._found.peek(name) or self._newcomers.peek(name) or self._others.peek(name)
            kept = record if held is None else held.record
            # The token may have been verified with another key set of the issuer than the first.
            if kept is not None and kept.includes(record):
                self._newcomers.pop(name)
                self._found.put(name, Resolution(kept.found_until, kept))
                self._make_room()

    def _record_of(self, issuer: Issuer, until: float) -> IssuerRecord:
        held = self._found.peek(issuer.url) or self._newcomers.peek(issuer.url)
        if held is not None and held.record is not None and held.record.issuer == issuer:
            record = held.record
        else:
            record = self._new_record(issuer)
            for each in (record, *record.others):
                each.newcomer = True
        for each in (record, *record.others):
            each.found_until = until
        return record

    def _keep(self, name: str, entry: Resolution) -> None:
        with self._lock:
            if not entry.failed:  # after a failure, the issuer may be unchanged
                self._found.pop(name)
                self._newcomers.pop(name)
            self._others.pop(name)
            if entry.record is None:
                self._others.put(name, entry)
            elif entry.record.newcomer:
                self._newcomers.put(name, entry)
            else:
                self._found.put(name, entry)
            self._make_room()

    def _make_room(self) -> None:
        self._newcomers.shrink(max(1, self.resolver.max_issuers - len(self._found)))


def _check_result(name: str, issuer: object) -> Issuer:
    """Return *issuer* if it is a valid result for *name*."""
    if not isinstance(issuer, Issuer):
        raise ConfigurationError(f"resolver.resolve: must return an Issuer or None, not {type(issuer).__name__}")
    if issuer.url != name:
        raise ConfigurationError(f"resolver.resolve: was called with {name!r} and returned {issuer.url!r}")
    if issuer.token_header is not None or issuer.opaque_prefixes:
        raise ConfigurationError(
            f"resolver.resolve: {name!r} has token_header or opaque_prefixes, which determine the issuer of a token; "
            "an issuer that is found by the name in its token cannot have them"
        )
    return issuer


class Issuers:
    """All trusted issuers, by the names in their tokens and by the prefixes of their opaque tokens.

    A token belongs to at most one issuer. A token of an unknown issuer is denied without I/O; tokens are never tried
    with one issuer after the other, because that would show a token to the wrong authorization server.
    """

    def __init__(
        self,
        records: Iterable[IssuerRecord],
        *,
        revocations: Revocations,
        shared: bool = False,
        resolved: ResolvedIssuers | None = None,
    ) -> None:
        self._by_name: dict[tuple[str | None, str], IssuerRecord] = {}
        self._prefixes: dict[str, IssuerRecord] = {}
        # By the header field that issuers use, None for Authorization, and the trust domain of SPIFFE.
        self.trust_domains: dict[tuple[str | None, str], IssuerRecord] = {}
        self._any_opaque: IssuerRecord | None = None
        self._forms: dict[str | None, tuple[bool, tuple[str, ...]]] = {}
        self._headers: dict[bytes, Mapping[str, Any]] = {}
        # By encoded header. Only headers of accepted tokens that verify_at_once() can verify.
        self.accepted: dict[bytes, KnownHeader] = {}
        self.resolved = resolved
        self.revocations = revocations
        self.shared = shared  # True if a store shares revocations and answers with other processes
        for record in records:
            self._add(record)
        # A look-up tries each length once, for any number of prefixes.
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))
        # True if an issuer introspects opaque tokens.
        self.takes_opaque: bool = bool(self._prefixes) or self._any_opaque is not None
        # The header fields that may hold a token; None for Authorization.
        headers = dict.fromkeys(record.issuer.token_header for record in self.all)
        self.headers: tuple[str | None, ...] = tuple(headers if resolved is None else {**headers, None: None})
        # The issuer that allows tokens without iss, and the hints for tokens of any issuer.
        nameless = [record for record in self.all if record.issuer.issuer_claim_optional_dangerously]
        if nameless and (len(self.all) > 1 or resolved is not None):
            raise ConfigurationError(
                f"issuer_claim_optional_dangerously: issuer {nameless[0].issuer.url!r} has to be the only one; a token "
                "without iss does not name its issuer"
            )
        self.nameless: IssuerRecord | None = nameless[0] if nameless else None
        self.names: SimilarNames = SimilarNames(name for _, name in self._by_name)
        self.hints: dict[str, str] = {
            key: hint for record in reversed(self.all) for key, hint in record.issuer.hints.items()
        }

    def _add(self, record: IssuerRecord) -> None:
        for name in dict.fromkeys((record.issuer.url, *record.issuer.aliases)):
            if self._by_name.setdefault((record.issuer.token_header, name), record) is not record:
                raise ConfigurationError(
                    f"issuer {name!r} is configured twice; one issuer has one policy: let one Issuer accept both kinds "
                    "of tokens (audience, expected_claims and typ take several values), or make a Guard for each "
                    "policy and guard its routes with it"
                )
        if record.issuer.trust_domain is not None:
            self.trust_domains[record.issuer.token_header, record.issuer.trust_domain] = record
        header, form = record.issuer.token_header, (record.issuer.padded_segments, record.issuer.header_claims)
        if self._forms.setdefault(header, form) != form:
            raise ConfigurationError(
                f"token_header: {header!r} is shared by issuers that differ in padded_segments or header_claims; the "
                "field alone determines how a token in it is read; give both the same values"
            )
        if record.issuer.validate is Validation.JWT:
            return
        for prefix in record.issuer.opaque_prefixes:
            if self._prefixes.setdefault(prefix, record) is not record:
                raise ConfigurationError(
                    f"opaque_prefixes: {prefix!r} is set for two issuers; give each issuer prefixes of its own"
                )
        if not record.issuer.opaque_prefixes:
            if self._any_opaque is not None:
                raise ConfigurationError(
                    f"issuers {self._any_opaque.issuer.url!r} and {record.issuer.url!r} both introspect any opaque "
                    "token; give one of them opaque_prefixes, so that no token is shown to the wrong one"
                )
            self._any_opaque = record

    def by_trust_domain(self, claims: Mapping[str, Any], header: str | None) -> IssuerRecord | None:
        """Return the issuer whose SPIFFE trust domain is that of ``sub`` in unverified *claims*, if there is one."""
        domain = trust_domain_of(claims)
        return None if domain is None else self.trust_domains.get((header, domain))

    @property
    def all(self) -> tuple[IssuerRecord, ...]:
        """The configured issuers, in the order of configuration."""
        return tuple(dict.fromkeys(self._by_name.values()))

    def peek(self, token: str, header: str | None, mark: str | None = None) -> Unverified:
        """Parse *token* in the form that the field *header* requires; see :func:`scopeguard.spec.jwt.peek`."""
        padded, header_claims = self._forms.get(header, (False, ()))
        return jwt.peek(token, padded=padded, header_claims=header_claims, headers=self._headers, mark=mark)

    def remember_header(self, token: Unverified, record: IssuerRecord) -> None:
        """Cache the parsed header of *token* of *record*, which was accepted: other tokens share it."""
        _keep(self._headers, token.segment, token.header)
        if (
            record.needs_computation_only
            and self.nameless is None
            and self.is_configured(record)
            and not jwt.replicates_claims(token.header)
        ):
            known = KnownHeader(
                record=record,
                header=token.header,
                rfc9068=record.headers[token.segment],
                kid=token.header.get("kid"),
                algorithm=token.header["alg"],
            )
            _keep(self.accepted, token.segment, known)

    def is_configured(self, record: IssuerRecord) -> bool:
        """Return whether *record* is one of the configured issuers, which never expire."""
        found = self._by_name.get((record.issuer.token_header, record.issuer.url))
        return found is not None and found.includes(record)

    def holds(self, record: IssuerRecord, now: float) -> bool:
        """Return whether *record* is trusted at *now* (monotonic seconds).

        A record is trusted if it is configured, or if it is the cached result of the resolver for its name.
        """
        if self.is_configured(record):
            return True
        found = None if self.resolved is None else self.resolved.lookup(record.issuer.url, now)
        return found is not None and found.record is not None and found.record.includes(record)

    def leeway(self, issuer: str, now: float) -> float:
        """Return the leeway in seconds for tokens of *issuer*, named as in the configuration.

        It is the longest one if several header fields have different leeways, and 0 for an issuer that is unknown at
        *now* (monotonic seconds).
        """
        return max((record.issuer.leeway for record in self._records_named(issuer, now)), default=0.0)

    def dpop_mode(self, issuer: str, now: float) -> DPoPMode | None:
        """Return the DPoP mode of *issuer*, named as in the configuration; ``None`` if it has no mode of its own.

        If several header fields have different modes, ``DPoPMode.REQUIRED`` takes precedence.
        """
        modes = [record.issuer.dpop for record in self._records_named(issuer, now)]
        return DPoPMode.REQUIRED if DPoPMode.REQUIRED in modes else next(iter(modes), None)

    def _records_named(self, issuer: str, now: float) -> list[IssuerRecord]:
        records = [self._by_name.get((header, issuer)) for header in self.headers]
        found = None if self.resolved is None else self.resolved.lookup(issuer, now)
        if found is not None:
            records.append(found.record)
        return [record for record in records if record is not None]

    def is_caught_up(self, now: float) -> bool:
        """Return whether no read of the shared revocation log is due at *now* (monotonic seconds)."""
        revocations = self.revocations
        return not self.shared or now - revocations.synced_at < revocations.max_lag / 2

    def by_name(self, issuer: str, header: str | None = None) -> IssuerRecord | None:
        """Return the configured issuer with exactly the name *issuer* whose tokens come in the field *header*."""
        return self._by_name.get((header, issuer))

    def nearest(self, issuer: str, header: str | None) -> dict[str, str]:
        """Describe an *issuer* that is not trusted in the field *header*, for the log.

        Returns the ``configured`` name that resembles it, and how it ``differs``.
        """
        for other in self.headers:
            if other != header and (other, issuer) in self._by_name:
                differs = f"its tokens are accepted in the field {other or 'Authorization'} only"
                return {"configured": issuer, "differs": differs}
        return self.names.nearest(issuer)

    def by_opaque_token(self, token: str) -> IssuerRecord | None:
        """Return the issuer that introspects the opaque *token*: by the longest prefix, else the one without."""
        for length in self._prefix_lengths:
            record = self._prefixes.get(token[:length])
            if record is not None:
                return record
        return self._any_opaque

    def take_over(self, other: Issuers) -> tuple[IssuerRecord, ...]:
        """Take over revocations and the caches of issuers with equal settings from *other*.

        Returns the issuers whose key rings are empty.
        """
        self.revocations.take_over(other.revocations)
        empty: list[IssuerRecord] = []
        for record in self.all:
            held = next((held for held in other.all if held.issuer == record.issuer), None)
            if held is not None:
                record.take_over(held)
            if held is None or record.ring is not held.ring:
                empty.append(record)
        return tuple(empty)
