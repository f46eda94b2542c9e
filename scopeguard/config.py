"""Settings, as frozen values. What cannot work is refused here, at construction, never at request time (law 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum, StrEnum
from typing import Any, Final, Self

from scopeguard.checks import checked_url, field_name, mapping, media_type, member, number, positive, strings
from scopeguard.errors import ConfigurationError, Reason
from scopeguard.introspection import Introspection, Validation
from scopeguard.scopes import ScopeVocabulary
from scopeguard.status_list import StatusListPolicy, checked_policy

DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""Signature algorithms accepted unless an issuer says otherwise (RFC 9068 section 2.1 makes RS256 mandatory)."""

SUPPORTED_ALGORITHMS: Final = frozenset(
    (*DEFAULT_ALGORITHMS, "RS384", "RS512", "PS384", "PS512", "ES512", "ES256K")
)  # "none" and HS* are not here and cannot be configured (J-11, J-39, P-21).

MAX_LEEWAY: Final = 300.0  # RFC 7519 section 4.1.4: "no more than a few minutes" (J-53)


class AudienceOptOut(Enum):
    """See :data:`ANY_AUDIENCE_DANGEROUSLY`."""

    ANY = "any audience, dangerously"


ANY_AUDIENCE_DANGEROUSLY: Final = AudienceOptOut.ANY
"""Accept tokens whatever their audience. Needs another binding beside it (``expected_claims``): without one, a token
that any other API of the same authorization server received could be replayed against this one (RFC 9700 2.3)."""


class TokenSource(StrEnum):
    """A place of RFC 6750 section 2 where an access token may be sent."""

    HEADER = "header"
    QUERY = "query"
    FORM = "form"


class StrayQueryToken(StrEnum):
    """What to do with ``?access_token=`` where the query is not a token source."""

    IGNORE = "ignore"  # OAuth 2.1 section 5.1 (B-14)
    REFUSE = "refuse"  # FAPI 2.0 section 5.3.4 (B-15)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSources:
    """Where tokens are looked for. More than one *enabled* place used in one request is refused (B-13).

    The query and the form are opt-in, for an API or for a route: a URL ends up in logs, histories and Referer
    headers, and reading a form means reading the body. Sizes are in bytes, ``form_timeout`` in seconds (ASGI only: a
    WSGI app cannot stop waiting for its server).
    """

    methods: frozenset[TokenSource] = frozenset((TokenSource.HEADER,))
    stray_query_token: StrayQueryToken = StrayQueryToken.IGNORE
    max_token_bytes: int = 16 * 1024
    max_form_bytes: int = 64 * 1024
    max_parameters: int = 1000
    form_timeout: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", checked_sources(self.methods, "token_sources"))
        stray = member(StrayQueryToken, self.stray_query_token, "stray_query_token")
        object.__setattr__(self, "stray_query_token", stray)
        for name in ("max_token_bytes", "max_form_bytes", "max_parameters", "form_timeout"):
            positive(getattr(self, name), name)
        if stray is StrayQueryToken.REFUSE and TokenSource.QUERY in self.methods:
            raise ConfigurationError("token_sources: stray_query_token = 'refuse' forbids the enabled query; drop one")

    def only(self, methods: Iterable[str]) -> Self:
        """These settings with other *methods*, for a route that has its own: a token in its query is no stray one."""
        chosen = checked_sources(methods, "token_sources")
        stray = StrayQueryToken.IGNORE if TokenSource.QUERY in chosen else self.stray_query_token
        return replace(self, methods=chosen, stray_query_token=stray)


def checked_sources(methods: Iterable[str], setting: str) -> frozenset[TokenSource]:
    """*methods* as token sources; :class:`ConfigurationError` names *setting* and the values it may have."""
    if isinstance(methods, str):
        raise ConfigurationError(f'{setting}: write a list, as in ["header"], not one string')
    chosen = frozenset(member(TokenSource, method, setting) for method in methods)
    if not chosen:
        raise ConfigurationError(f'{setting}: name at least one place where a token may be sent, as in ["header"]')
    return chosen


class ScopeForm(StrEnum):
    """How a claim spells several scopes."""

    SPACE = "space"  # RFC 8693 section 4.2: one string, separated by single spaces
    LIST = "list"  # an array of strings
    SPACE_OR_LIST = "space_or_list"
    COMMA = "comma"


@dataclass(frozen=True, slots=True)
class ScopeClaim:
    """A claim that carries scopes, and its form."""

    claim: str
    form: ScopeForm = ScopeForm.SPACE

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", member(ScopeForm, self.form, f"scope_claims[{self.claim!r}]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetPolicy:
    """How the keys of an issuer are kept fresh. Times are in seconds, sizes in bytes.

    * ``ttl``: how long a key set is fresh when the answer has no ``Cache-Control``; with ``max-age``, that value
      clamped to ``min_ttl`` ... ``max_ttl``. The refresh is started at ``refresh_ahead`` of it, beside a request.
    * ``max_stale``: how long keys are used after the last good fetch while refreshing fails; then 503.
    * ``refetch_burst``, ``refetch_interval``: an unknown key id, or a bad signature under a known one, may cause a
      fetch from this budget: so many at once, then one per interval. Failed fetches use it up as well.
    * ``negative_kids``, ``negative_ttl``: key ids known to be absent are remembered, so many and so long.
    * ``first_backoff``, ``max_backoff``: the pause after a failed fetch, doubled with each further one.
    * ``max_bytes``, ``max_keys``, ``timeout``: bounds of one answer.
    """

    ttl: float = 600.0
    min_ttl: float = 60.0
    max_ttl: float = 3600.0
    refresh_ahead: float = 0.8
    max_stale: float = 86400.0
    refetch_burst: int = 3
    refetch_interval: float = 10.0
    negative_kids: int = 128
    negative_ttl: float = 10.0
    first_backoff: float = 0.25
    max_backoff: float = 30.0
    max_bytes: int = 512 * 1024
    max_keys: int = 100
    timeout: float = 5.0

    def __post_init__(self) -> None:
        for setting in fields(self):
            positive(getattr(self, setting.name), f"key_set.{setting.name}")
        if not self.min_ttl <= self.ttl <= self.max_ttl <= self.max_stale:
            raise ConfigurationError("key_set: needs min_ttl <= ttl <= max_ttl <= max_stale")
        if self.refresh_ahead > 1:
            raise ConfigurationError("key_set.refresh_ahead: a fraction of the ttl, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPolicy:
    """How revocations are kept and shared. Times are in seconds.

    * ``retention``: how long a revocation is remembered: at least as long as the longest-lived token lives. The same
      in all processes that share a store.
    * ``max_lag``: with a store, how far a process may be behind what another has revoked.
    * ``fail_open_dangerously``: while the store does not answer, accept what is not known to be revoked, instead of
      answering 503.
    """

    retention: float = 86400.0
    max_lag: float = 1.0
    fail_open_dangerously: bool = False

    def __post_init__(self) -> None:
        positive(self.retention, "revocation.retention")
        positive(self.max_lag, "revocation.max_lag")
        for name in ("fail_open_dangerously",):
            if not isinstance(getattr(self, name), bool):  # "false" is true
                raise ConfigurationError(f"revocation.{name}: true or false, not {type(getattr(self, name)).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One authorization server this API trusts, and how its access tokens are judged: plain data.

    Keys come from exactly one place: ``keys`` (a JWK Set as a dict), ``jwks_file`` (a path), ``jwks_uri``, or, with
    none of them given, the metadata that *url* leads to (RFC 8414, OpenID Connect Discovery).

    * ``url``: the issuer identifier, compared byte for byte with ``iss`` (RFC 9068 section 4). ``aliases``: further
      spellings of ``iss``, each with claims that must then have the given values; *url* itself may be among them.
    * ``audience``: identifiers of this API; one of them must be among the token's ``aud``. ``audience_claims``: the
      claims that carry it, ``"header:signer"`` for a header parameter.
    * ``algorithms``: the only ones accepted.
    * ``typ``: accepted ``typ`` header values, ``None`` in the tuple for its absence. The default takes ``at+jwt``
      under the full rules of RFC 9068, and ``JWT`` or nothing under the checks that tell an access token from
      an ID token. ``typ="at+jwt"`` takes only the first.
    * ``required_claims``: ``None`` stands for all seven of RFC 9068 section 2.2 on an ``at+jwt``, and for ``iss``,
      ``exp`` and an audience on others. ``exp`` and ``iss`` are needed always.
    * ``expected_claims`` / ``expected_headers``: must be there with one of the values; ``any_claims``: one of them
      must be there; ``forbidden_claims`` / ``forbidden_headers``: must not be there; ``claim_prefixes``: must be
      strings that begin with one of the values; ``past_claims``: dates that must not lie ahead.
    * ``scope_claims``: the first that is present is read; with ``merge_scope_claims`` all of them.
    * ``role_claims``: paths (``"realm_access.roles"``) read into ``AccessToken.roles``. ``roles_as_scopes``: of a
      token without any scope claim, they count as scopes too; ``granted_scopes`` stays ``None`` (G-15).
    * ``client_id_claims``, ``subject_claims``: the first that holds a non-empty string is it.
    * ``accept_id_tokens_dangerously``: skip the checks that refuse ID tokens, for providers whose access tokens
      *are* ID tokens.
    * ``validate``: ``"jwt"``, ``"introspection"`` or ``"auto"``; the latter two with ``introspection``.
      ``opaque_prefixes``: what tokens of this issuer that are no JWTs begin with; needed where several issuers have
      such tokens, so that none is shown to the wrong one (I-28).
    * ``token_header``: the header field in which a proxy passes these tokens on, without a scheme. They are accepted
      there and nowhere else, and no other issuer's tokens are.
    * ``hints``: what the operator's log says beside a refusal, by its reason (``"wrong_audience"``) or the reason with
      what it is about (``"missing_claim:aud"``). Clients never see them.
    * ``experimental_status_list``: look up the ``status`` of JWTs; ``None`` ignores that claim.
    * ``leeway``: clock skew in seconds, at most 300. ``max_lifetime``: refuse tokens issued for longer, in seconds.
    """

    url: str = field(kw_only=False)
    audience: str | Iterable[str] | AudienceOptOut
    jwks_uri: str | None = None
    jwks_file: str | None = None
    keys: Mapping[str, Any] | None = field(default=None, repr=False)
    metadata_url: str | None = None
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    audience_claims: tuple[str, ...] = ("aud",)
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    typ: str | Iterable[str | None] = ("at+jwt", "JWT", None)
    required_claims: tuple[str, ...] | None = None
    expected_claims: Mapping[str, Iterable[str | bool]] = field(default_factory=dict)
    expected_headers: Mapping[str, Iterable[str]] = field(default_factory=dict)
    any_claims: tuple[str, ...] = ()
    forbidden_claims: tuple[str, ...] = ()
    forbidden_headers: tuple[str, ...] = ()
    claim_prefixes: Mapping[str, Iterable[str]] = field(default_factory=dict)
    past_claims: tuple[str, ...] = ()
    scope_claims: tuple[ScopeClaim, ...] = (ScopeClaim("scope"), ScopeClaim("scp", ScopeForm.SPACE_OR_LIST))
    merge_scope_claims: bool = False
    role_claims: tuple[str, ...] = ()
    roles_as_scopes: bool = False
    client_id_claims: tuple[str, ...] = ("client_id", "azp", "cid", "appid")
    subject_claims: tuple[str, ...] = ("sub",)
    scope_prefix: str = ""
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    accept_id_tokens_dangerously: bool = False
    leeway: float = 30.0
    max_lifetime: float | None = None
    key_set: KeySetPolicy = KeySetPolicy()
    validate: Validation = Validation.JWT
    introspection: Introspection | None = field(default=None, repr=False)
    opaque_prefixes: tuple[str, ...] = ()
    token_header: str | None = None
    hints: Mapping[str, str] = field(default_factory=dict, repr=False)
    experimental_status_list: StatusListPolicy | None = None

    def __post_init__(self) -> None:
        self._check_validation()
        self._check_url()
        self._check_keys()
        self._set("audience", self._checked_audience())
        self._set("algorithms", self._checked_algorithms())
        self._set("typ", self._checked_types())
        self._check_claims()
        if not 0 <= number(self.leeway, "leeway") <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway: {self.leeway} seconds; it must lie between 0 and {MAX_LEEWAY:.0f}")
        if self.max_lifetime is not None:
            positive(self.max_lifetime, "max_lifetime")
        for name in ("merge_scope_claims", "roles_as_scopes", "accept_id_tokens_dangerously"):
            if not isinstance(getattr(self, name), bool):  # "false" is true
                raise ConfigurationError(f"{name}: true or false, not {type(getattr(self, name)).__name__}")
        self._set("implies", self.vocabulary.implies)
        checked_policy(self.experimental_status_list, self.url, self.validate)
        if self.token_header is not None:
            self._set("token_header", field_name(self.token_header, "token_header"))
        strings(mapping(self.hints, "hints").values(), "hints")
        for key in self.hints:
            member(Reason, key.partition(":")[0], f"hints[{key!r}]")

    def _check_validation(self) -> None:
        self._set("validate", member(Validation, self.validate, "validate"))
        self._set("opaque_prefixes", tuple(dict.fromkeys(strings(self.opaque_prefixes, "opaque_prefixes"))))
        if not all(self.opaque_prefixes):
            raise ConfigurationError("opaque_prefixes: an empty prefix fits every token; leave it out")
        if self.validate is Validation.JWT:
            if self.introspection is not None or self.opaque_prefixes:
                raise ConfigurationError(
                    'introspection: has no use with validate = "jwt"; say "introspection" or "auto"'
                )
        elif not isinstance(self.introspection, Introspection):
            raise ConfigurationError(
                f"validate = {self.validate.value!r} needs introspection settings: who asks, with what secret (I-03)"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def vocabulary(self) -> ScopeVocabulary:
        """How the scopes of this issuer are read."""
        return ScopeVocabulary(prefix=self.scope_prefix, implies=self.implies)

    @property
    def audiences(self) -> frozenset[str] | None:
        """The audiences that are this API's; ``None`` for :data:`ANY_AUDIENCE_DANGEROUSLY`."""
        return self.audience if isinstance(self.audience, frozenset) else None

    @property
    def types(self) -> frozenset[str | None]:
        """The accepted types, lower case and without ``application/``."""
        return self.typ if isinstance(self.typ, frozenset) else frozenset()

    def _check_url(self) -> None:
        if not isinstance(self.url, str) or not self.url:
            raise ConfigurationError("issuer: an issuer is the URL of its authorization server, as its tokens name it")
        if self._discovers and self.metadata_url is None:
            # RFC 8414 section 2: https, no query, no fragment. Only where we derive a URL from it: tokens of
            # some providers name their issuer in other ways, and then the key set is configured.
            checked_url(self.url, "issuer", query=False)
        if self.metadata_url is not None:
            checked_url(self.metadata_url, "metadata_url")

    @property
    def _discovers(self) -> bool:
        return self.keys is None and self.jwks_file is None and self.jwks_uri is None

    def _check_keys(self) -> None:
        given = [name for name in ("keys", "jwks_file", "jwks_uri", "metadata_url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigurationError(f"issuer {self.url!r}: {' and '.join(given)} are alternatives; keep one")
        if self.jwks_uri is not None:
            checked_url(self.jwks_uri, "jwks_uri")
        if self.jwks_file is not None and (not isinstance(self.jwks_file, str) or not self.jwks_file):
            raise ConfigurationError("jwks_file: the path of a file that holds a JWK Set")
        if self.keys is not None and not (isinstance(self.keys, Mapping) and isinstance(self.keys.get("keys"), list)):
            raise ConfigurationError('keys: a JWK Set, as in {"keys": [{"kty": "RSA", ...}]}')

    def _checked_audience(self) -> frozenset[str] | AudienceOptOut:
        if isinstance(self.audience, AudienceOptOut):
            if not self.expected_claims:
                raise ConfigurationError(
                    f"issuer {self.url!r}: ANY_AUDIENCE_DANGEROUSLY needs another binding beside it; name the claims "
                    "that tie a token to this API in expected_claims"
                )
            return self.audience
        audiences = frozenset(strings(self.audience, "audience"))
        if not audiences:
            raise ConfigurationError(
                f"issuer {self.url!r}: audience is missing; name what its tokens for this API carry in aud"
            )
        for audience in audiences:
            if not audience or "*" in audience:
                raise ConfigurationError(f"audience: {audience!r} is not an identifier; audiences are compared exactly")
        return audiences

    def _checked_algorithms(self) -> tuple[str, ...]:
        algorithms = strings(self.algorithms, "algorithms")
        if not algorithms:
            raise ConfigurationError("algorithms: name at least one; the default list is a good one")
        for algorithm in algorithms:
            if algorithm.startswith("HS"):
                raise ConfigurationError(
                    f"algorithms: {algorithm} is symmetric: whoever can verify could forge; use a public-key algorithm"
                )
            if algorithm not in SUPPORTED_ALGORITHMS:
                known = ", ".join(sorted(SUPPORTED_ALGORITHMS))
                raise ConfigurationError(f"algorithms: {algorithm!r} is not supported; known are {known}")
        return algorithms

    def _checked_types(self) -> frozenset[str | None]:
        given = (self.typ,) if isinstance(self.typ, str) else tuple(self.typ) if isinstance(self.typ, Iterable) else ()
        if not given:
            raise ConfigurationError('typ: name at least one accepted type, as in typ="at+jwt"')
        types = {media_type(typ) for typ in strings((typ for typ in given if typ is not None), "typ")}
        return frozenset(types | {None} if None in given else types)

    def _check_claims(self) -> None:
        for name in ("expected_claims", "expected_headers", "claim_prefixes"):
            given = mapping(getattr(self, name), name)
            wanted = {key: _accepted(values, f"{name}[{key!r}]", name) for key, values in given.items()}
            if not all(wanted.values()):
                raise ConfigurationError(f"{name}: each entry needs at least one accepted value")
            self._set(name, wanted)
        for alias, companions in mapping(self.aliases, "aliases").items():
            strings(mapping(companions, f"aliases[{alias!r}]").values(), f"aliases[{alias!r}]")
        tuples = (
            "audience_claims", "any_claims", "forbidden_claims", "forbidden_headers", "past_claims",
            "role_claims", "client_id_claims", "subject_claims",
        )  # fmt: skip
        for name in tuples:
            self._set(name, strings(getattr(self, name), name))
        if self.required_claims is not None:
            self._set("required_claims", strings(self.required_claims, "required_claims"))
        self._set("scope_claims", tuple(self.scope_claims))
        if not all(isinstance(source, ScopeClaim) for source in self.scope_claims):
            raise ConfigurationError('scope_claims: every item is a ScopeClaim, as in ScopeClaim("scope")')
        if not self.audience_claims:
            raise ConfigurationError('audience_claims: name the claim that carries the audience, as in ("aud",)')


def _accepted(values: object, setting: str, kind: str) -> frozenset[str | bool]:
    """The accepted *values* of one member; only claims can be true or false, and an empty prefix fits everything."""
    items = (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    flags = frozenset(item for item in items if isinstance(item, bool) and kind == "expected_claims")
    texts = strings((item for item in items if not (flags and isinstance(item, bool))), setting)
    return flags | frozenset(text for text in texts if text or kind != "claim_prefixes")
