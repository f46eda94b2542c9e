"""Settings, as frozen values. What cannot work is refused here, at construction, never at request time.

Longer than 400 lines because the settings of an issuer stand beside the checks of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

from scopeguard.config import checks
from scopeguard.config.checks import (
    Converted,
    accepted,
    checked_url,
    converted,
    field_name,
    flag,
    host_names,
    insecure_hosts,
    instance,
    items,
    mapping,
    media_type,
    member,
    number,
    positive,
    strings,
    text,
)
from scopeguard.config.introspection import Introspection, Validation
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.config.status_list import StatusListPolicy, checked_policy
from scopeguard.errors import ConfigurationError, Reason
from scopeguard.scopes import ScopeVocabulary

DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""Signature algorithms accepted unless an issuer says otherwise (RFC 9068 section 2.1 makes RS256 mandatory)."""

SUPPORTED_ALGORITHMS: Final = frozenset(
    (*DEFAULT_ALGORITHMS, "RS384", "RS512", "PS384", "PS512", "ES512", "ES256K")
)  # "none" and HS* are not here and cannot be configured.

MAX_LEEWAY: Final = 300.0  # RFC 7519 section 4.1.4: "no more than a few minutes"

_KEY_SET: Final = KeySetPolicy()
_KEY_PLACES: Final = ("keys", "jwks_file", "jwks_uri", "key_url_template")
_MOST_KEY_SETS: Final = 4
_FILES: Final = {
    "jwks_file": "a JWK Set",
    "jwks_ca_file": "certificates as PEM",
    "jwks_bearer_file": "a bearer token",
}


class AudienceOptOut(Enum):
    """See :data:`ANY_AUDIENCE_DANGEROUSLY`."""

    ANY = "any audience, dangerously"


ANY_AUDIENCE_DANGEROUSLY: Final = AudienceOptOut.ANY
"""Accept tokens whatever their audience. Needs another binding beside it (``expected_claims``): without one, a token
that any other API of the same authorization server received could be replayed against this one (RFC 9700 2.3)."""


class ScopeForm(StrEnum):
    """How a claim spells several scopes."""

    SPACE = "space"  # RFC 8693 section 4.2: one string, separated by single spaces
    LIST = "list"  # an array of strings
    SPACE_OR_LIST = "space_or_list"
    COMMA = "comma"


@dataclass(frozen=True, slots=True)
class ScopeClaim:
    """A claim that carries scopes, and its form: ``ScopeClaim("scp", "list")``. Read back is the :class:`ScopeForm`."""

    claim: str
    form: Converted[str, ScopeForm] = converted(ScopeForm.SPACE)

    def __post_init__(self) -> None:
        text(self.claim, "scope_claims: claim", empty=False)
        object.__setattr__(self, "form", member(ScopeForm, self.form, f"scope_claims[{self.claim!r}]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One authorization server this API trusts, and how its access tokens are judged: plain data.

    Keys come from exactly one place: ``keys`` (a JWK Set as a dict), ``jwks_file`` (a path), ``jwks_uri``,
    ``key_url_template``, or, with none of them given, the metadata that *url* leads to (RFC 8414, OpenID Connect
    Discovery).

    * ``url``: the issuer identifier, compared byte for byte with ``iss`` (RFC 9068 section 4). ``aliases``: further
      spellings of ``iss``, each with claims that must then have the given values; *url* itself may be among them.
    * ``internal_hosts``: names or addresses of internal hosts, without ports, that the metadata of this issuer may
      point to. Others than these and the issuer's own are refused, so that metadata does not lead requests into the
      network of this API.
    * ``jwks_uri``: several, four at most, where an issuer signs with keys of several sets (Azure AD B2C has one for
      each user flow). A token is accepted if a key of any of them signed it. Each set is fetched and kept by itself:
      while one cannot be fetched, tokens of the others are judged, and a key that may be in it is an outage.
    * ``jwks_ca_file``: the certificate authorities that the server of ``jwks_uri`` is verified with, instead of the
      usual ones. ``jwks_bearer_file``: a file whose content goes to ``jwks_uri``, and nowhere else, as a bearer token.
      Both are paths, read again for each fetch.
    * ``key_url_template``: ends in ``/{kid}`` and leads to one key as PEM. A ``kid`` must be a UUID in lower case;
      nothing else of a token ever becomes a part of a URL.
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
      token without any scope claim, they count as scopes too; ``granted_scopes`` stays ``None``.
    * ``client_id_claims``, ``subject_claims``: the first that holds a non-empty string is it.
    * ``machine_signs``: what tells tokens of clients acting for themselves; see :class:`~scopeguard.MachineSign`. The
      first that a token shows decides ``AccessToken.machine``.
    * ``accept_id_tokens_dangerously``: skip the checks that refuse ID tokens, for providers whose access tokens
      *are* ID tokens. Refresh, offline and logout tokens are still refused.
    * ``issuer_claim_optional_dangerously``: accept JWTs without ``iss``, which some servers issue. Then only the key
      identifies the issuer, so no other issuer may be configured, and the keys must not sign for another service. An
      ``iss`` that is present must match, and an ``at+jwt`` must have one (RFC 9068 §2.2).
    * ``validate``: ``"jwt"``, ``"introspection"`` or ``"auto"``; the latter two with ``introspection``. Read back is
      the member of :class:`Validation`.
      ``opaque_prefixes``: what tokens of this issuer that are no JWTs begin with; needed where several issuers have
      such tokens, so that none is shown to the wrong one.
    * ``token_header``: the header field in which a proxy passes these tokens on, without a scheme. They are accepted
      there and nowhere else, and no other issuer's tokens are. Only with it: ``padded_segments``, base64url *with* its
      padding, and ``header_claims``, header parameters that count as claims (equal, where both are there).
    * ``hints``: what the operator's log says beside a refusal, by its reason (``"wrong_audience"``) or the reason with
      what it is about (``"missing_claim:aud"``). Clients never see them.
    * ``experimental_status_list``: look up the ``status`` of JWTs; ``None`` ignores that claim.
    * ``insecure_http_dangerously``: hosts with their ports (``["keycloak:8080"]``) that may be asked by http: by *url*,
      by the other URLs here and in ``introspection``, and by those that the metadata name. An attacker who can
      change that traffic can forge tokens. A warning is logged at every start.
    * ``leeway``: clock skew in seconds, at most 300. ``max_lifetime``: refuse tokens issued for longer, in seconds.
    """

    url: str = field(kw_only=False)
    audience: str | Iterable[str] | AudienceOptOut
    jwks_uri: str | Iterable[str] | None = None
    jwks_file: str | None = None
    keys: Mapping[str, Any] | None = field(default=None, repr=False)
    metadata_url: str | None = None
    key_url_template: str | None = None
    internal_hosts: Converted[Iterable[str], tuple[str, ...]] = converted(())
    jwks_ca_file: str | None = None
    jwks_bearer_file: str | None = None
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    audience_claims: Converted[Iterable[str], tuple[str, ...]] = converted(("aud",))
    algorithms: Converted[Iterable[str], tuple[str, ...]] = converted(DEFAULT_ALGORITHMS)
    typ: str | Iterable[str | None] = ("at+jwt", "JWT", None)
    required_claims: Converted[Iterable[str] | None, tuple[str, ...] | None] = converted(None)
    expected_claims: Mapping[str, Iterable[str | bool]] = field(default_factory=dict)
    expected_headers: Mapping[str, Iterable[str]] = field(default_factory=dict)
    any_claims: Converted[Iterable[str], tuple[str, ...]] = converted(())
    forbidden_claims: Converted[Iterable[str], tuple[str, ...]] = converted(())
    forbidden_headers: Converted[Iterable[str], tuple[str, ...]] = converted(())
    claim_prefixes: Mapping[str, Iterable[str]] = field(default_factory=dict)
    past_claims: Converted[Iterable[str], tuple[str, ...]] = converted(())
    scope_claims: Converted[Iterable[ScopeClaim], tuple[ScopeClaim, ...]] = converted(
        (ScopeClaim("scope"), ScopeClaim("scp", ScopeForm.SPACE_OR_LIST))
    )
    merge_scope_claims: bool = False
    role_claims: Converted[Iterable[str], tuple[str, ...]] = converted(())
    roles_as_scopes: bool = False
    client_id_claims: Converted[Iterable[str], tuple[str, ...]] = converted(("client_id", "azp", "cid", "appid"))
    subject_claims: Converted[Iterable[str], tuple[str, ...]] = converted(("sub",))
    machine_signs: Converted[Iterable[MachineSign], tuple[MachineSign, ...]] = converted((SUBJECT_IS_CLIENT,))
    scope_prefix: str = ""
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    accept_id_tokens_dangerously: bool = False
    issuer_claim_optional_dangerously: bool = False
    leeway: float = 30.0
    max_lifetime: float | None = None
    key_set: KeySetPolicy = _KEY_SET
    validate: Converted[str, Validation] = converted(Validation.JWT)
    introspection: Introspection | None = field(default=None, repr=False)
    opaque_prefixes: Converted[Iterable[str], tuple[str, ...]] = converted(())
    token_header: str | None = None
    padded_segments: bool = False
    header_claims: Converted[Iterable[str], tuple[str, ...]] = converted(())
    hints: Mapping[str, str] = field(default_factory=dict, repr=False)
    experimental_status_list: StatusListPolicy | None = None
    insecure_http_dangerously: Converted[Iterable[str], frozenset[str]] = converted(frozenset())
    # Of the settings, in the form in which every token meets them.
    jwks_uris: tuple[str, ...] = field(init=False, repr=False, compare=False)
    audiences: frozenset[str] | None = field(init=False, repr=False, compare=False)
    has_member_rules: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._set("insecure_http_dangerously", insecure_hosts(self.insecure_http_dangerously))
        self._check_validation()
        self._check_url()
        self._check_keys()
        self._set("audience", self._checked_audience())
        self._set("algorithms", self._checked_algorithms())
        self._set("typ", self._checked_types())
        self._check_claims()
        # None for ANY_AUDIENCE_DANGEROUSLY.
        self._set("audiences", self.audience if isinstance(self.audience, frozenset) else None)
        self._set("has_member_rules", bool(self.expected_claims or self.claim_prefixes or self.forbidden_claims))
        if not 0 <= number(self.leeway, "leeway") <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway: {self.leeway} seconds; it must lie between 0 and {MAX_LEEWAY:.0f}")
        if self.max_lifetime is not None:
            positive(self.max_lifetime, "max_lifetime")
        for name in (
            "merge_scope_claims",
            "roles_as_scopes",
            "accept_id_tokens_dangerously",
            "padded_segments",
            "issuer_claim_optional_dangerously",
        ):
            flag(getattr(self, name), name)
        text(self.scope_prefix, "scope_prefix")
        self._set("implies", self.vocabulary.implies)
        checked_policy(self.experimental_status_list, self.url, self.validate, self.insecure_http_dangerously)
        if self.token_header is not None:
            self._set("token_header", field_name(self.token_header, "token_header"))
        elif self.padded_segments or self.header_claims:
            raise ConfigurationError("padded_segments and header_claims: only with token_header; set it")
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
                f"validate = {self.validate.value!r} needs introspection settings: who asks, with what secret"
            )
        elif self.introspection.endpoint is not None:
            checked_url(self.introspection.endpoint, "introspection.endpoint", insecure=self.insecure_http_dangerously)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def vocabulary(self) -> ScopeVocabulary:
        """How the scopes of this issuer are read."""
        return ScopeVocabulary(prefix=self.scope_prefix, implies=self.implies)

    @property
    def types(self) -> frozenset[str | None]:
        """The accepted types, lower case and without ``application/``."""
        return self.typ if isinstance(self.typ, frozenset) else frozenset()

    def _check_url(self) -> None:
        if not isinstance(self.url, str) or not self.url:
            raise ConfigurationError(
                "issuer: must be the URL of the authorization server, as its tokens name it in iss, "
                f"not {'an empty string' if self.url == '' else type(self.url).__name__}"
            )
        if self._discovers and self.metadata_url is None:
            # RFC 8414 section 2: https, no query, no fragment. Only where we derive a URL from it: tokens of
            # some providers name their issuer in other ways, and then the key set is configured.
            checked_url(self.url, "issuer", query=False, insecure=self.insecure_http_dangerously)
        if self.metadata_url is not None:
            checked_url(self.metadata_url, "metadata_url", insecure=self.insecure_http_dangerously)

    @property
    def _discovers(self) -> bool:
        return all(getattr(self, name) is None for name in _KEY_PLACES)

    def _check_keys(self) -> None:
        instance(self.key_set, KeySetPolicy, "key_set", "a KeySetPolicy")
        given = [name for name in (*_KEY_PLACES, "metadata_url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigurationError(f"issuer {self.url!r}: {' and '.join(given)} are alternatives; keep one")
        uris = () if self.jwks_uri is None else tuple(dict.fromkeys(strings(self.jwks_uri, "jwks_uri")))
        if self.jwks_uri is not None and not 1 <= len(uris) <= _MOST_KEY_SETS:
            raise ConfigurationError(f"jwks_uri: one URL, or a list of up to {_MOST_KEY_SETS}")
        for uri in uris:
            checked_url(uri, "jwks_uri", insecure=self.insecure_http_dangerously)
        self._set("jwks_uri", uris[0] if len(uris) == 1 else uris or None)
        self._set("jwks_uris", uris)
        if self.key_url_template is not None:
            template: object = self.key_url_template
            start, placeholder, rest = template.partition("{kid}") if isinstance(template, str) else ("", "", "")
            if not start.endswith("/") or not placeholder or rest:
                raise ConfigurationError("key_url_template: ends in /{kid}, as in https://keys.example.com/{kid}")
            checked_url(start, "key_url_template", query=False, insecure=self.insecure_http_dangerously)
        for name, content in _FILES.items():
            path = getattr(self, name)
            if path is not None:
                checks.path(path, name, f"the path of a file that holds {content}")
                text(path, name)
            if path is not None and name != "jwks_file" and self.jwks_uri is None:
                raise ConfigurationError(f"{name}: only with jwks_uri, the one place it is for; set that")
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
        given = (self.typ,) if isinstance(self.typ, str) else items(self.typ, "typ", 'a type or a list, as in "at+jwt"')
        if not given:
            raise ConfigurationError('typ: name at least one accepted type, as in typ="at+jwt"')
        types = {media_type(typ) for typ in strings((typ for typ in given if typ is not None), "typ", empty=False)}
        return frozenset(types | {None} if None in given else types)

    def _check_claims(self) -> None:
        for name in ("expected_claims", "expected_headers", "claim_prefixes"):
            given = mapping(getattr(self, name), name)
            wanted = {key: accepted(values, f"{name}[{key!r}]", name) for key, values in given.items()}
            if not all(wanted.values()):
                raise ConfigurationError(f"{name}: each entry needs at least one accepted value")
            self._set(name, wanted)
        for alias, companions in mapping(self.aliases, "aliases").items():
            strings(mapping(companions, f"aliases[{alias!r}]").values(), f"aliases[{alias!r}]")
        self._set("internal_hosts", host_names(self.internal_hosts, "internal_hosts"))
        tuples = (
            "audience_claims", "any_claims", "forbidden_claims", "forbidden_headers", "past_claims",
            "role_claims", "client_id_claims", "subject_claims", "header_claims",
        )  # fmt: skip
        for name in tuples:
            self._set(name, strings(getattr(self, name), name, empty=False))
        if self.required_claims is not None:
            self._set("required_claims", strings(self.required_claims, "required_claims", empty=False))
        example = 'a list of ScopeClaim, as in [ScopeClaim("scope")]'
        self._set("scope_claims", items(self.scope_claims, "scope_claims", example, ScopeClaim))
        example = "a list of MachineSign, as in [MachineSign(machine=True)]"
        self._set("machine_signs", items(self.machine_signs, "machine_signs", example, MachineSign))
        if not self.audience_claims:
            raise ConfigurationError('audience_claims: name the claim that carries the audience, as in ("aud",)')
