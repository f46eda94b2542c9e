"""The settings of an issuer: how its access tokens are verified.

Settings that cannot work are refused when an :class:`Issuer` is constructed, before any request.

Longer than 400 lines because the description of each setting is next to its check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config import checks
from scopeguard.config.algorithms import DEFAULT_ALGORITHMS, check_algorithms
from scopeguard.config.checks import (
    Converted,
    PathObject,
    accepted_values,
    converted,
    field_name,
    flag,
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
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.hosts import host_names, insecure_hosts
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.leeway import LEEWAY, MAX_LEEWAY
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.config.urls import check_url
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError
from scopeguard.reasons import Reason

if TYPE_CHECKING:
    from scopeguard.config.introspection import Introspection
    from scopeguard.config.status_list import StatusListPolicy

_KEY_SET: Final = KeySetPolicy()
_KEY_PLACES: Final = ("keys", "jwks_file", "jwks_uri", "key_url_template")
_MOST_KEY_SETS: Final = 4
_SPIFFE: Final = "spiffe://"
_TRUST_DOMAIN: Final = r"spiffe://[a-z0-9._\-]{1,255}"
_FILES: Final = {
    "jwks_file": "a JWK Set",
    "jwks_ca_file": "certificates as PEM",
    "jwks_bearer_file": "a bearer token",
}


class AudienceOptOut(Enum):
    """See :data:`ANY_AUDIENCE_DANGEROUSLY`."""

    ANY = "any audience, dangerously"


ANY_AUDIENCE_DANGEROUSLY: Final = AudienceOptOut.ANY
"""Accept tokens with any audience, or with none. Needs ``expected_claims`` that bind tokens to this API.

Without such a binding, another API of the same authorization server could replay the tokens that it receives
(RFC 9700 §2.3)."""


class ScopeForm(StrEnum):
    """The form in which a claim contains several scopes."""

    SPACE = "space"  # one string, separated by single spaces (RFC 8693 §4.2)
    LIST = "list"  # an array of strings
    SPACE_OR_LIST = "space_or_list"  # either of the two
    COMMA = "comma"  # one string, separated by commas


def _identifier_hint(url: str) -> str:
    """Return the identifier that the metadata at *url* probably has, for the end of a sentence."""
    # OpenID Connect Discovery section 4 appends the well-known path to the identifier.
    appended = url.removesuffix("/.well-known/openid-configuration")
    if appended != url:
        return f", probably {appended!r}"
    # RFC 8414 section 3.1 inserts it "between the host component and the path component, if any".
    origin, inserted, path = url.partition("/.well-known/oauth-authorization-server")
    return f", probably {origin + path!r}" if inserted else ""


@dataclass(frozen=True, slots=True)
class ScopeClaim:
    """A claim that carries scopes, as in ``ScopeClaim("scp", "list")``.

    * ``claim``: the name of the claim.
    * ``form``: a :class:`ScopeForm` or its value. The attribute is the :class:`ScopeForm`.

    Raises :class:`ConfigurationError` for an empty name or an unknown form.
    """

    claim: str
    form: Converted[str, ScopeForm] = converted(ScopeForm.SPACE)

    def __post_init__(self) -> None:
        text(self.claim, "scope_claims: claim", empty=False)
        object.__setattr__(self, "form", member(ScopeForm, self.form, f"scope_claims[{self.claim!r}]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An authorization server whose access tokens this API accepts, and how they are verified.

    Settings are checked when they are given. Nothing is fetched and no file is read before the first token. Where a
    setting takes one string or several, it also takes any iterable of strings.

    **The issuer and its keys.** Keys come from one place: ``keys``, ``jwks_file``, ``jwks_uri``,
    ``key_url_template``, or the metadata of the issuer (RFC 8414, OpenID Connect Discovery) if none of them is given.

    * ``url``: the issuer identifier. It is compared with ``iss`` byte by byte (RFC 9068 §4). It must be an https URL
      without query and fragment if the metadata is looked up by it. The id of a SPIFFE trust domain
      (``spiffe://prod.example.com``) makes it one of JWT-SVIDs: the trust domain in ``sub`` selects the keys, ``iss``
      is ignored, and the key set is the bundle of the trust domain; see :func:`scopeguard.presets.spiffe`.
    * ``aliases``: further values of ``iss`` that are accepted, each with claims and the values that they must have in
      such a token. ``url`` may be one of them, and then needs these claims too.
    * ``metadata_url``: the URL of the metadata, instead of the well-known places under ``url``. The metadata must
      still name ``url`` as its issuer (RFC 8414 §3.3).
    * ``jwks_uri``: the URL of a JWK Set, or up to four URLs if the issuer signs with keys of several sets (Azure AD B2C
      has one for each user flow). A token is accepted if a key of any set signed it. Each set is fetched and cached
      separately: while one is unavailable, tokens signed with keys of the others are still accepted, and a token whose
      key may be in the missing set gets 503.
    * ``jwks_file``: the path of a JWK Set. It need not exist yet. It is read again when a URL would be fetched again.
    * ``keys``: a JWK Set as a mapping. It is never refreshed.
    * ``jwks_seed``: a key set that was packed at build time (``scopeguard pack-keys``), as a mapping or as the path of
      a file: an object with ``issuer``, ``fetched_at`` and ``keys``. The first request uses it and starts a fetch, and
      does not wait. A token whose key it lacks waits for the fetch. A set that cannot be used is logged and ignored;
      ``key_set.max_seed_age`` says when it is too old.
    * ``key_url_template``: a URL that ends in ``/{kid}`` and returns one key as PEM. A ``kid`` must be a lower-case
      UUID. Nothing else of a token becomes part of a URL.
    * ``jwks_ca_file``: the path of a PEM file with the certificate authorities for the server of ``jwks_uri``. They
      replace the default ones. The file is read again for each fetch. Only with ``jwks_uri``.
    * ``jwks_bearer_file``: the path of a file whose content is sent to ``jwks_uri`` as a bearer token, and to no other
      URL. The file is read again for each fetch. Only with ``jwks_uri``.
    * ``internal_hosts``: names or addresses of internal hosts, without ports, that the metadata may point to. The
      issuer's own host is always allowed, other internal hosts are refused. URLs in these settings are not restricted.
    * ``insecure_http_dangerously``: hosts with ports (``["keycloak:8080"]``) that may be reached by http through
      ``url``, the other URLs here, those in ``introspection``, and those in the metadata. An attacker who can change
      this traffic can forge tokens. A warning is logged at every start.
    * ``key_set``: the settings for caching and refreshing keys; see :class:`~scopeguard.KeySetPolicy`.

    **The content that a token must have.**

    * ``audience``: one or more identifiers of this API. A token needs one of them in its audience; they are compared
      exactly. The default is the resource of the guard. :data:`ANY_AUDIENCE_DANGEROUSLY` skips the check and needs
      ``expected_claims``.
    * ``audience_claims``: the claims that carry the audience. ``"header:NAME"`` is a header parameter.
    * ``single_audience``: refuse tokens with further audiences. With several audiences, a token does not say for which
      of them its scopes are meant (RFC 9068 §5), and each of them could use it here.
    * ``require_sender_constraint``: accept only tokens that are bound to a key (FAPI 2.0 Security Profile §5.3.4). The
      guard needs a ``dpop`` that checks proofs.
    * ``canonicalize_audience``: compare audiences that are URLs without the case of their scheme and host. Only with
      ``Guard(profile="mcp")``, because the other standards compare audiences exactly.
    * ``algorithms``: the signature algorithms that are accepted. ``none`` and symmetric algorithms cannot be
      configured (RFC 8725 §3.1). ``ML-DSA-44``, ``ML-DSA-65`` and ``ML-DSA-87`` (RFC 9964) need ``cryptography`` 48.
    * ``typ``: the accepted ``typ`` header values. ``None`` among them stands for a token without ``typ``. ``at+jwt``
      applies all rules of RFC 9068. For other types, the claims must distinguish an access token from an ID token.
      ``typ="at+jwt"`` accepts RFC 9068 tokens only. The types of other kinds of tokens (``logout+jwt``,
      ``txntoken+jwt`` and the like) are refused even if they are listed here, unless ``expected_headers`` names them
      too.
    * ``required_claims``: claims that must be present and not empty. ``exp`` and ``iss`` are always required, except as
      ``issuer_claim_optional_dangerously`` says. ``None`` requires the seven claims of RFC 9068 §2.2 of an ``at+jwt``,
      and no further claims of other types.
    * ``expected_claims``, ``expected_headers``: names, each with its accepted values. The token must have one of them.
      Claims may also be compared with true and false.
    * ``any_claims``: the token must have at least one of these claims, with any value.
    * ``forbidden_claims``, ``forbidden_headers``: the token must not have any of these, whatever the value.
    * ``claim_prefixes``: claims that must be strings, each with its accepted beginnings.
    * ``past_claims``: claims that must not be dates in the future. They may be missing.
    * ``leeway``: clock skew in seconds, from 0 to 300, allowed for every date (RFC 7519 §4.1.4).
    * ``max_lifetime``: the longest lifetime in seconds, from ``iat`` (or now, without it) to ``exp``. ``None`` sets
      no limit.
    * ``accept_id_tokens_dangerously``: skip the checks that refuse ID tokens, for providers whose access tokens are ID
      tokens. Refresh, offline and logout tokens are still refused.
    * ``issuer_claim_optional_dangerously``: accept JWTs without ``iss``, which some servers issue. Then only the key
      identifies the issuer. So no other issuer may be configured, and the keys must not sign for another service. An
      ``iss`` that is present must match, and an ``at+jwt`` must have one (RFC 9068 §2.2).

    * ``dpop``: whether tokens may (``"allowed"``) or must (``"required"``) be bound to a key of the client, or whether
      bound tokens are refused (``"off"``); see :class:`~scopeguard.DPoP`. A guard that requires proofs requires them
      for every issuer. Default: the setting of the guard.
    * ``mutual_tls``: accept tokens that are bound to a client certificate (RFC 8705). The guard sets it for all issuers
      if it has ``mutual_tls``, which says where the certificate is found.

    **The content of a token.**

    * ``scope_claims``: the claims with the scopes, as :class:`ScopeClaim`. The first that is present is read.
    * ``merge_scope_claims``: read all scope claims that are present, instead of the first only.
    * ``scope_prefix``: a prefix that may be left out of every scope, in tokens and in requirements.
    * ``implies``: scopes that include others, as in ``{"write": ["read"]}``. Nothing is inferred from their names.
    * ``role_claims``: paths (``"realm_access.roles"``) to the claims that are read into ``AccessToken.roles``.
    * ``roles_as_scopes``: use the roles as scopes if the token has no scope claim. ``AccessToken.granted_scopes`` stays
      ``None``.
    * ``client_id_claims``, ``subject_claims``: the claims with the client id and the subject. The first claim that is a
      non-empty string is used.
    * ``machine_signs``: the signs that distinguish tokens of machines from tokens of users. The first
      :class:`~scopeguard.MachineSign` that applies sets ``AccessToken.machine``.

    **The source and the validation of tokens.**

    * ``validate``: ``"jwt"`` verifies tokens locally. ``"introspection"`` asks the issuer about every token. ``"auto"``
      asks about tokens that are not JWTs. The attribute is a :class:`~scopeguard.Validation`.
    * ``introspection``: the settings for introspection requests (RFC 7662); see :class:`~scopeguard.Introspection`.
      Required unless ``validate`` is ``"jwt"``, which refuses it.
    * ``opaque_prefixes``: the beginnings of this issuer's tokens that are not JWTs. They are required if several
      issuers introspect, so that no issuer sees the tokens of another.
    * ``token_header``: the header field in which a proxy passes on this issuer's tokens, without a scheme. They are
      accepted in no other place, and tokens of other issuers are not accepted there.
    * ``padded_segments``: accept base64url with padding, which RFC 7515 §2 forbids. Only with ``token_header``.
    * ``header_claims``: header parameters that count as claims. If a claim has the same name, the values must be equal.
      Only with ``token_header``.
    * ``experimental_status_list``: check the ``status`` of JWTs; see :class:`~scopeguard.StatusListPolicy`. ``None``
      ignores the claim.
    * ``hints``: texts that are logged with a refusal, by reason (``"wrong_audience"``) or by reason and subject
      (``"missing_claim:aud"``). Callers never see them.

    Raises :class:`ConfigurationError`, with the name of the setting, for a missing, wrong or contradictory setting.
    """

    url: str = field(kw_only=False)
    audience: str | Iterable[str] | AudienceOptOut | None = None
    jwks_uri: str | Iterable[str] | None = None
    jwks_file: Converted[str | PathObject | None, str | None] = converted(None)
    keys: Mapping[str, Any] | None = field(default=None, repr=False)
    jwks_seed: Converted[Mapping[str, Any] | str | PathObject | None, Mapping[str, Any] | str | None] = field(
        default=converted(None), repr=False
    )
    metadata_url: str | None = None
    key_url_template: str | None = None
    internal_hosts: Converted[Iterable[str], tuple[str, ...]] = converted(())
    jwks_ca_file: Converted[str | PathObject | None, str | None] = converted(None)
    jwks_bearer_file: Converted[str | PathObject | None, str | None] = converted(None)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    audience_claims: Converted[Iterable[str], tuple[str, ...]] = converted(("aud",))
    single_audience: bool = False
    require_sender_constraint: bool = False
    canonicalize_audience: bool = False
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
    dpop: Converted[str | None, DPoPMode | None] = converted(None)
    mutual_tls: bool = False
    leeway: float = LEEWAY
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
    # Derived from the settings, because every token needs them.
    jwks_uris: tuple[str, ...] = field(init=False, repr=False, compare=False)
    audiences: frozenset[str] | None = field(init=False, repr=False, compare=False)
    has_member_rules: bool = field(init=False, repr=False, compare=False)
    audience_is_aud: bool = field(init=False, repr=False, compare=False)
    limits_dates: bool = field(init=False, repr=False, compare=False)
    scope_text_claim: str | None = field(init=False, repr=False, compare=False)
    trust_domain: str | None = field(init=False, repr=False, compare=False)  # of SPIFFE

    def __post_init__(self) -> None:
        self._set("insecure_http_dangerously", insecure_hosts(self.insecure_http_dangerously))
        self._check_validation()
        self._check_url()
        self._check_keys()
        self._set("audience", self._check_audience())
        if self.dpop is not None:
            self._set("dpop", member(DPoPMode, self.dpop, "dpop"))
        self._set("algorithms", check_algorithms(self.algorithms))
        self._set("typ", self._check_types())
        self._check_claims()
        # None for ANY_AUDIENCE_DANGEROUSLY.
        self._set("audiences", self.audience if isinstance(self.audience, frozenset) else None)
        if self.audience is ANY_AUDIENCE_DANGEROUSLY and self._reviews_tokens:
            raise ConfigurationError(
                "audience: ANY_AUDIENCE_DANGEROUSLY contradicts the dialect kubernetes_token_review, which asks for it"
            )
        self._set("has_member_rules", bool(self.expected_claims or self.claim_prefixes or self.forbidden_claims))
        self._set("audience_is_aud", self.audience_claims == ("aud",))
        self._set("limits_dates", bool(self.past_claims) or self.max_lifetime is not None)
        self._set("scope_text_claim", self._find_scope_text_claim())
        if not 0 <= number(self.leeway, "leeway") <= MAX_LEEWAY:
            raise ConfigurationError(f"leeway: must be from 0 to {MAX_LEEWAY:.0f} seconds, not {self.leeway}")
        if self.max_lifetime is not None:
            positive(self.max_lifetime, "max_lifetime")
        for name in (
            "single_audience",
            "canonicalize_audience",
            "require_sender_constraint",
            "mutual_tls",
            "merge_scope_claims",
            "roles_as_scopes",
            "accept_id_tokens_dangerously",
            "padded_segments",
            "issuer_claim_optional_dangerously",
        ):
            flag(getattr(self, name), name)
        text(self.scope_prefix, "scope_prefix")
        self._set("implies", self.vocabulary.implies)
        self._check_status_list()
        if self.token_header is not None:
            self._set("token_header", field_name(self.token_header, "token_header"))
        elif self.padded_segments or self.header_claims:
            name = "padded_segments" if self.padded_segments else "header_claims"
            raise ConfigurationError(f"{name}: has no effect without token_header; set token_header, or remove {name}")
        strings(mapping(self.hints, "hints").values(), "hints")
        for key in self.hints:
            member(Reason, key.partition(":")[0], f"hints[{key!r}]")

    def _check_validation(self) -> None:
        self._set("validate", member(Validation, self.validate, "validate"))
        self._set("opaque_prefixes", tuple(dict.fromkeys(strings(self.opaque_prefixes, "opaque_prefixes"))))
        if not all(self.opaque_prefixes):
            raise ConfigurationError("opaque_prefixes: an empty prefix matches every token; remove it")
        if self.validate is Validation.JWT:
            if self.introspection is not None or self.opaque_prefixes:
                name = "opaque_prefixes" if self.introspection is None else "introspection"
                raise ConfigurationError(
                    f'{name}: has no effect with validate = "jwt"; set "introspection" or "auto", or remove {name}'
                )
        else:
            self._check_introspection()

    def _check_introspection(self) -> None:
        from scopeguard.config.introspection import Introspection  # most issuers need no introspection

        if not isinstance(self.introspection, Introspection):
            given = "" if self.introspection is None else f", not {type(self.introspection).__name__}"
            raise ConfigurationError(
                f"introspection: validate = {self.validate.value!r} needs an Introspection{given}, as in "
                'Introspection(client_id="api", client_secret=...)'
            )
        if self.introspection.endpoint is not None:
            check_url(self.introspection.endpoint, "introspection.endpoint", insecure=self.insecure_http_dangerously)

    def _check_status_list(self) -> None:
        if self.experimental_status_list is None:
            return
        from scopeguard.config.status_list import check_policy  # most issuers have no status lists

        check_policy(self.experimental_status_list, self.url, self.validate, self.insecure_http_dangerously)

    def _find_scope_text_claim(self) -> str | None:
        """Return the scope claim that takes precedence if spaces separate its scopes, otherwise ``None``."""
        if self.merge_scope_claims or not self.scope_claims:
            return None
        first = self.scope_claims[0]
        return first.claim if first.form in (ScopeForm.SPACE, ScopeForm.SPACE_OR_LIST) else None

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def vocabulary(self) -> ScopeVocabulary:
        """The prefix and the implications of this issuer's scopes."""
        return ScopeVocabulary(prefix=self.scope_prefix, implies=self.implies)

    @property
    def types(self) -> frozenset[str | None]:
        """The accepted types, in lower case and without ``application/``."""
        return self.typ if isinstance(self.typ, frozenset) else frozenset()

    def _check_url(self) -> None:
        if not isinstance(self.url, str) or not self.url:
            raise ConfigurationError(
                "issuer: must be the URL of the authorization server, as its tokens name it in iss, "
                f"not {'an empty string' if self.url == '' else type(self.url).__name__}"
            )
        self._set("trust_domain", self._find_trust_domain())
        if self._discovers and self.metadata_url is None:
            # RFC 8414 §2: "a URL that uses the "https" scheme and has no query or fragment components". Some providers
            # use identifiers that are not URLs. They are allowed if no URL is derived from the identifier.
            check_url(self.url, "issuer", query=False, insecure=self.insecure_http_dangerously)
            if "/.well-known/" in self.url:
                raise ConfigurationError(
                    f"issuer: {self.url!r} is the URL of a document; write the identifier that tokens have in iss"
                    f"{_identifier_hint(self.url)}. metadata_url takes the URL of metadata, and jwks_uri that of keys"
                )
        if self.metadata_url is not None:
            check_url(self.metadata_url, "metadata_url", insecure=self.insecure_http_dangerously)

    @property
    def _reviews_tokens(self) -> bool:
        return self.introspection is not None and self.introspection.reviews_tokens

    def _find_trust_domain(self) -> str | None:
        if not self.url.startswith(_SPIFFE):
            return None
        if not re.fullmatch(_TRUST_DOMAIN, self.url):
            raise ConfigurationError(
                f"issuer: {self.url!r} is not the id of a trust domain; write it as in spiffe://prod.example.com"
            )
        if self.jwks_uri is None and self.jwks_file is None and self.keys is None:
            raise ConfigurationError(
                f"issuer {self.url!r}: set jwks_uri or jwks_file to the bundle of the trust domain"
            )
        if self.aliases or self.validate is not Validation.JWT or self.issuer_claim_optional_dangerously:
            raise ConfigurationError(
                f"issuer {self.url!r}: the trust domain in sub selects the keys of JWT-SVIDs; leave out aliases, "
                "validate and issuer_claim_optional_dangerously"
            )
        return self.url.removeprefix(_SPIFFE)

    @property
    def _discovers(self) -> bool:
        return all(getattr(self, name) is None for name in _KEY_PLACES)

    def _check_keys(self) -> None:
        instance(self.key_set, KeySetPolicy, "key_set", "a KeySetPolicy")
        given = [name for name in (*_KEY_PLACES, "metadata_url") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigurationError(f"issuer {self.url!r}: {' and '.join(given)} exclude each other; keep one")
        uris = () if self.jwks_uri is None else tuple(dict.fromkeys(strings(self.jwks_uri, "jwks_uri")))
        if self.jwks_uri is not None and not 1 <= len(uris) <= _MOST_KEY_SETS:
            raise ConfigurationError(
                f"jwks_uri: must be one URL, or a list of 1 to {_MOST_KEY_SETS} URLs, not of {len(uris)}"
            )
        for uri in uris:
            check_url(uri, "jwks_uri", insecure=self.insecure_http_dangerously)
        self._set("jwks_uri", uris[0] if len(uris) == 1 else uris or None)
        self._set("jwks_uris", uris)
        if self.key_url_template is not None:
            text(self.key_url_template, "key_url_template")
            start, placeholder, rest = self.key_url_template.partition("{kid}")
            if not start.endswith("/") or not placeholder or rest:
                raise ConfigurationError("key_url_template: must end in /{kid}, as in https://keys.example.com/{kid}")
            check_url(start, "key_url_template", query=False, insecure=self.insecure_http_dangerously)
        for name, content in _FILES.items():
            path = getattr(self, name)
            if path is not None:
                self._set(name, checks.path(path, name, f"the path of a file that holds {content}"))
            if path is not None and name != "jwks_file" and self.jwks_uri is None:
                raise ConfigurationError(f"{name}: has no effect without jwks_uri; set jwks_uri, or remove {name}")
        self._check_seed()
        if self.keys is not None and not (isinstance(self.keys, Mapping) and isinstance(self.keys.get("keys"), list)):
            given_kind = (
                "a table without a list of keys" if isinstance(self.keys, Mapping) else type(self.keys).__name__
            )
            raise ConfigurationError(
                f'keys: must be a JWK Set, as in {{"keys": [{{"kty": "RSA", ...}}]}}, not {given_kind}'
            )

    def _check_seed(self) -> None:
        if self.jwks_seed is None:
            return
        other = next((name for name in ("keys", "jwks_file", "key_url_template") if getattr(self, name)), None)
        if other is not None or len(self.jwks_uris) > 1:
            other = other or "several jwks_uri"
            raise ConfigurationError(f"jwks_seed: has no effect with {other}; it is for keys that one URL provides")
        if not isinstance(self.jwks_seed, Mapping):
            wanted = "a packed key set, or the path of a file that holds one"
            self._set("jwks_seed", checks.path(self.jwks_seed, "jwks_seed", wanted))
        elif not {"issuer", "fetched_at", "keys"} <= self.jwks_seed.keys():
            raise ConfigurationError(
                "jwks_seed: must have issuer, fetched_at and keys; write it with scopeguard pack-keys"
            )
        elif self.jwks_seed["issuer"] != self.url:
            raise ConfigurationError(f"jwks_seed: holds the keys of another issuer; pack those of {self.url!r}")

    def _check_audience(self) -> frozenset[str] | AudienceOptOut | None:
        if self.audience is None:
            return None
        if isinstance(self.audience, AudienceOptOut):
            if not self.expected_claims:
                raise ConfigurationError(
                    f"issuer {self.url!r}: audience = ANY_AUDIENCE_DANGEROUSLY needs expected_claims with the claims "
                    "that bind a token to this API"
                )
            return self.audience
        audiences = frozenset(strings(self.audience, "audience"))
        if not audiences:
            raise ConfigurationError(
                f"issuer {self.url!r}: audience is missing; set it to the aud of this issuer's tokens for this API"
            )
        for audience in audiences:
            if not audience or "*" in audience:
                raise ConfigurationError(
                    f"audience: {audience!r} is not an identifier; audiences are compared exactly, so write the whole "
                    "aud of tokens for this API"
                )
        return audiences

    def _check_types(self) -> frozenset[str | None]:
        given = (self.typ,) if isinstance(self.typ, str) else items(self.typ, "typ", 'a type or a list, as in "at+jwt"')
        if not given:
            raise ConfigurationError('typ: must not be empty; name the accepted types, as in typ="at+jwt"')
        types = {media_type(typ) for typ in strings((typ for typ in given if typ is not None), "typ", empty=False)}
        return frozenset(types | {None} if None in given else types)

    def _check_claims(self) -> None:
        for name in ("expected_claims", "expected_headers", "claim_prefixes"):
            given = mapping(getattr(self, name), name)
            wanted = {key: accepted_values(values, f"{name}[{key!r}]", name) for key, values in given.items()}
            if not all(wanted.values()):
                raise ConfigurationError(
                    f"{name}: every name needs at least one accepted value, which must not be empty"
                )
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
            raise ConfigurationError(
                'audience_claims: must not be empty; name the claim with the audience, as in ["aud"]'
            )
