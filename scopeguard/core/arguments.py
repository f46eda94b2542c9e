"""The arguments of a guard, and their checks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config.audit import AuditMode
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import flag, instance, member, methods, plain_function, text
from scopeguard.config.cors import Preflight
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.issuer import Issuer
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.config.token_sources import TokenSources
from scopeguard.config.urls import check_url
from scopeguard.core.issuer_checks import check_proofs, check_unprofiled
from scopeguard.errors import ConfigurationError
from scopeguard.request import RequestView
from scopeguard.rules import Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.resource_metadata_url import metadata_url
from scopeguard.spec.signatures import Backends, SignatureBackend

if TYPE_CHECKING:
    from scopeguard.config.api_keys import ApiKeys
    from scopeguard.config.dpop import DPoP
    from scopeguard.config.mutual_tls import MutualTLS
    from scopeguard.config.profiles import Profile
    from scopeguard.config.resource import Resource
    from scopeguard.rules.mcp import McpPolicy

log: Final = logging.getLogger("scopeguard")

_KINDS: Final[dict[str, tuple[type, str]]] = {
    "catalog": (ScopeCatalog, "a ScopeCatalog"),
    "challenge": (ChallengeStyle, "a ChallengeStyle (for a realm alone, set realm)"),
    "implies": (Mapping, 'a table of lists, as in {"cloud-platform": ["bigquery"]}'),
    "revocation": (RevocationPolicy, "a RevocationPolicy"),
}
_FLAGS: Final = ("require_https", "keep_token_for_exchange", "forward_token_dangerously", "fast")
_METHODS: Final = {
    "store": (("get", "put", "append", "read", "close"), "RedisStore(url)"),
    "transport": (("send", "close"), 'HttpxTransport(verify="ca.pem")'),
    "clock": (("wall", "monotonic"), "FakeClock()"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Settings:
    """The arguments of :class:`~scopeguard.guard.Guard`, checked, except for its issuers and connections."""

    resource: Resource | None
    sources: TokenSources
    style: ChallengeStyle
    rules: Rules | None
    mcp: McpPolicy | None
    catalog: ScopeCatalog
    require_https: bool
    keep_token_for_exchange: bool
    forward_token_dangerously: bool
    revocation: RevocationPolicy
    token_cache: TokenCachePolicy | None
    backends: Backends
    parse_claims: Callable[[bytes], dict[str, Any]]
    decode_segment: Callable[[bytes], bytes]
    audit: AuditMode
    cors_preflight: Preflight
    insecure_hosts: frozenset[str]
    dpop: DPoP | None = None
    mutual_tls: MutualTLS | None = None
    profile: Profile | None = None
    # True if the guard has a store or a revocation policy, so that revocations reach it.
    revocable: bool = False

    def __post_init__(self) -> None:
        self.sources.check_senders()

    @property
    def api_keys(self) -> ApiKeys | None:
        """The API keys, with the issuer of their access tokens."""
        return self.sources.api_keys

    def apply_profile(self, issuer: Issuer) -> Issuer:
        """Return *issuer* with what the profile demands. Raises :class:`ConfigurationError` for a contradiction."""
        profile = self.profile
        if profile is None:
            check_unprofiled(issuer)
            return issuer
        from scopeguard.config.profiles import DEMANDS, tighten_issuer

        if DEMANDS[profile].exact_audience:
            check_unprofiled(issuer)
        return tighten_issuer(profile, issuer, self.resource, revocable=self.revocable)


def choose_backends(chosen: Iterable[SignatureBackend | str], *, fast: bool) -> Backends:
    """Return the libraries that verify signatures instead of ``cryptography``. Most guards have none."""
    if chosen == () and not fast:
        return ()
    from scopeguard.core.signature_backends import load_backends

    return load_backends(chosen, fast=fast)


def choose_profile(profile: Profile | str | None) -> Profile | None:
    """Return the member that *profile* names. Raises :class:`ConfigurationError` if there is none."""
    if profile is None:
        return None
    from scopeguard.config.profiles import Profile

    return member(Profile, profile, "profile")


def apply_profile(
    settings: Settings,
    issuers: Sequence[Issuer],
    *,
    revocation: RevocationPolicy | None,
    transport: object,
) -> Settings:
    """Return *settings* with what their profile demands.

    *revocation* and *transport*: the arguments of the guard. Raises :class:`ConfigurationError` for a contradiction
    in them or in *issuers*.
    """
    profile = settings.profile
    if profile is not None:
        from scopeguard.config.profiles import DEMANDS, check_api, limit_sources, widen_proof_window

        check_api(
            profile,
            issuers,
            resource=settings.resource,
            revocation=revocation,
            dangers={
                "insecure_http_dangerously": sorted(settings.insecure_hosts),
                "forward_token_dangerously": settings.forward_token_dangerously,
                "dpop.replay_fail_open_dangerously": settings.dpop is not None
                and settings.dpop.replay_fail_open_dangerously,
            },
            proof_algorithms=() if settings.dpop is None else tuple(settings.dpop.algorithms),
            skips_tls_verification=getattr(transport, "skips_tls_verification", False),
        )
        settings = replace(
            settings,
            sources=limit_sources(profile, settings.sources),
            require_https=settings.require_https or DEMANDS[profile].require_https,
            dpop=None if settings.dpop is None else widen_proof_window(profile, settings.dpop),
        )
        for rule in () if settings.rules is None else settings.rules.all:
            if rule.sources is not None:
                settings.sources.with_methods(rule.sources)
    for issuer in [settings.apply_profile(issuer) for issuer in issuers]:
        check_proofs(profile, issuer, settings.dpop, settings.mutual_tls)
    return settings


def check_resource(
    resource: Resource | str | None, issuers: Sequence[Issuer], insecure: frozenset[str]
) -> Resource | None:
    """Return *resource* if it can be validated and advertised as one value, else raise :class:`ConfigurationError`.

    *insecure*: hosts with ports that may be reached by http.
    """
    if resource is None:
        for issuer in issuers:
            if issuer.audience is None:
                raise ConfigurationError(
                    f"issuer {issuer.url!r}: audience is missing; name what its tokens for this API carry in aud, or "
                    "give the guard a resource"
                )
        return None
    from scopeguard.config.resource import Resource

    if isinstance(resource, str):
        resource = Resource(resource)
    instance(resource, Resource, "resource", "the URL of the API, or a Resource")
    check_url(resource.url, "resource", insecure=insecure)
    for issuer in issuers:
        if issuer.audiences is not None and resource.url not in issuer.audiences and not resource.audience_differs:
            raise ConfigurationError(
                f"issuer {issuer.url!r}: audience does not contain the resource {resource.url!r}, for which clients "
                "request tokens; leave audience out, or add the resource to it. If the authorization server writes "
                "another identifier into aud, set Resource(..., audience_differs=True)"
            )
        resource.warn_of_keys_of(issuer.jwks_uris)
    return resource


def check_api_keys(api_keys: ApiKeys | None, issuers: Sequence[Issuer], resource: Resource | None) -> ApiKeys | None:
    """Return *api_keys* with the issuer of their access tokens, the identifier of *resource* if they name none.

    Raises :class:`ConfigurationError` if neither the keys nor *resource* name an issuer, if that is one of *issuers*,
    or if opaque tokens of *issuers* begin like keys.
    """
    if api_keys is None:
        return None
    if api_keys.issuer is None and resource is None:
        raise ConfigurationError(
            "api_keys.issuer: is missing; give the guard a resource, or set issuer to a name of this API, which the "
            "access tokens of its keys then have as their issuer"
        )
    named = api_keys.issuer if resource is None or api_keys.issuer is not None else resource.url
    for issuer in issuers:
        if named in (issuer.url, *issuer.aliases):
            raise ConfigurationError(
                f"api_keys.issuer: {named!r} is a trusted issuer; set another name, because a user is identified by "
                "issuer and subject, and a key must not pass for a token of that issuer"
            )
        clash = [prefix for prefix in issuer.opaque_prefixes if f"{api_keys.prefix}_".startswith(prefix)]
        clash += [prefix for prefix in issuer.opaque_prefixes if prefix.startswith(f"{api_keys.prefix}_")]
        if clash:
            raise ConfigurationError(
                f"api_keys.prefix: tokens of issuer {issuer.url!r} begin with {clash[0]!r} as well; set another prefix"
            )
    return replace(api_keys, issuer=named)


def choose_sources(token_sources: TokenSources | Iterable[str], api_keys: ApiKeys | None) -> TokenSources:
    """Return the token sources of a guard with *api_keys*."""
    chosen = token_sources if isinstance(token_sources, TokenSources) else TokenSources(methods=token_sources)
    return chosen.with_api_keys(api_keys)


def choose_dpop(
    dpop: object, issuers: Sequence[Issuer], resource: Resource | None, rules: Rules | None, store: object
) -> DPoP | None:
    """Return the policy for proofs of possession, or ``None`` if none is checked.

    An issuer or a rule with a mode of its own needs a policy as well, and gets the default one. Raises
    :class:`ConfigurationError` without a URL to compare proofs with, and if *store* cannot remember proofs.
    """
    modes = {issuer.dpop for issuer in issuers} | {rule.dpop for rule in (rules.all if rules is not None else ())}
    is_used = modes - {None, DPoPMode.OFF}
    if dpop is None and not is_used:
        return None
    from scopeguard.config.dpop import DPoP

    policy = DPoP() if dpop is None else dpop
    if not isinstance(policy, DPoP):
        raise ConfigurationError(f'dpop: must be a DPoP, as in DPoP(mode="required"), not {type(dpop).__name__}')
    if policy.mode is DPoPMode.OFF and not is_used:
        return None
    if policy.base_url is None and resource is None:
        raise ConfigurationError(
            "dpop: base_url is missing; give the guard a resource, or set base_url to the URL of the API, with which "
            "the htu of proofs is compared"
        )
    if store is not None:
        methods(store, ("claim",), "store")
    return policy


def check_arguments(issuers: Sequence[object], **arguments: Any) -> None:
    """Check the kinds of the arguments of :class:`~scopeguard.guard.Guard`.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, and for two that exclude each other.
    """
    if not issuers and arguments["resolver"] is None:
        raise ConfigurationError("Guard needs at least one Issuer: the authorization server whose tokens it accepts")
    if arguments["challenge"] is not None and arguments["realm"] is not None:
        raise ConfigurationError("realm and challenge are alternatives; put the realm into the ChallengeStyle")
    for issuer in issuers:
        if isinstance(issuer, str):
            raise ConfigurationError(
                "issuers: must be Issuer objects, not a string: write Guard(Issuer(url, audience=...)) with the "
                "audience that tokens for this API carry"
            )
        if isinstance(issuer, list | tuple):
            raise ConfigurationError("issuers: must be Issuer objects, not a list of them: write Guard(*issuers)")
        instance(issuer, Issuer, "issuers", "Issuer objects")
    for name, value in arguments.items():
        if name in _FLAGS:
            flag(value, name)
        elif value is None:
            continue
        elif name == "mcp":
            from scopeguard.rules.mcp import McpPolicy  # imported only when needed: it takes 4 ms

            instance(value, McpPolicy, name, "an McpPolicy, as in McpPolicy(rules=[...])")
        elif name == "api_keys":
            from scopeguard.config.api_keys import ApiKeys

            instance(value, ApiKeys, name, 'an ApiKeys, as in ApiKeys(prefix="acme", keys_file="keys.toml")')
        elif name == "resolver":
            from scopeguard.config.resolver import IssuerResolver

            instance(value, IssuerResolver, name, "an IssuerResolver, as in IssuerResolver(accepts=..., resolve=...)")
        elif name == "mutual_tls":
            from scopeguard.config.mutual_tls import MutualTLS

            instance(value, MutualTLS, name, "a MutualTLS")
        elif name in _KINDS:
            instance(value, _KINDS[name][0], name, _KINDS[name][1])
        elif name in _METHODS:
            names, example = _METHODS[name]
            methods(value, names, name, example)
        elif name == "on_decision":
            plain_function(value, name, "a function that takes a DecisionEvent")
        else:
            text(value, name)


def check_call(request: object, requirement: object) -> None:
    """Raise :class:`ConfigurationError` unless *request* and *requirement* are of the kinds that a check needs."""
    instance(request, RequestView, "request", "a RequestView, as in RequestView(method=..., path=..., headers=...)")
    check_requirement(requirement)


def check_requirement(requirement: object) -> None:
    """Raise :class:`ConfigurationError` unless *requirement* is a requirement or ``None``."""
    if requirement is not None:
        instance(requirement, Requirement, "requirement", 'a requirement, as in all_of("rows.read")')


def challenge_style(
    challenge: ChallengeStyle | None, realm: str | None, resource: Resource | None, rules: Rules, dpop: DPoP | None
) -> ChallengeStyle:
    """Return the style of challenges. It names the URL of the metadata of *resource*, and the algorithms of *dpop*."""
    style = challenge
    if style is None:
        default = "api" if resource is None else resource.url
        style = ChallengeStyle(realm=realm or default, body=rules.error_body)
    if dpop is not None:
        style = replace(style, dpop_algorithms=dpop.algorithms, dpop_only=dpop.mode is DPoPMode.REQUIRED)
    if resource is None or not resource.serve_metadata or style.resource_metadata is not None:
        return style
    return replace(style, resource_metadata=metadata_url(resource.url))


def warn_of_dangers(settings: Settings) -> Settings:
    """Log a warning for each of *settings* that exposes tokens, and return *settings*."""
    if settings.sources.in_query:
        log.warning("access tokens are accepted in the query string on every route: logs often contain URLs")
    if settings.forward_token_dangerously:
        log.warning(
            "forward_token_dangerously: code of the app can read the tokens of its callers; another API that gets such "
            "a token can act as the user here"
        )
    return settings
