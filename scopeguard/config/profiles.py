"""Profiles: sets of settings that a standard demands of a resource server.

A profile tightens settings that have their default. A setting that contradicts it raises
:class:`~scopeguard.errors.ConfigurationError`. It never loosens a setting.

:data:`DEMANDS` is the data, and the functions apply it: :func:`limit_sources`, :func:`tighten_issuer` and
:func:`check_api`. A guard calls them for all issuers, including those that a resolver finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from scopeguard.config.algorithms import DEFAULT_ALGORITHMS
from scopeguard.config.dpop import DPoP
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import AudienceOptOut, Issuer
from scopeguard.config.resource import Resource
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.token_sources import SourceLimit, StrayQueryToken, TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError


class Profile(StrEnum):
    """A standard whose demands on resource servers a guard follows."""

    OAUTH21 = "oauth21"  # OAuth 2.1 (draft-ietf-oauth-v2-1)
    FAPI2 = "fapi2"  # FAPI 2.0 Security Profile
    MCP = "mcp"  # Model Context Protocol, revision 2026-07-28


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a profile demands in addition to the settings that are safe by default.

    * ``standard``: the name of the standard, for messages.
    * ``token_sources``: the places where tokens may be accepted.
    * ``stray_query_token``: the least strict treatment of ``?access_token=``.
    * ``token_header``: whether an issuer may have a ``token_header``.
    * ``require_https``: whether tokens that come in cleartext are refused.
    * ``resource``: whether the guard needs a resource with metadata, which is the only audience.
    * ``exact_audience``: whether audiences are compared exactly, so that ``canonicalize_audience`` is refused.
    * ``algorithms``: the signature algorithms that may be accepted; ``None`` for all.
    * ``leeway``: the smallest leeway, and the limit that it must stay below, in seconds.
    * ``introspection_ttl``: the default and the longest time that an introspection answer is used, in seconds.
    * ``revocation_status``: whether the revocation status of every token must be known.
    * ``sender_constraint``: whether every token must be bound to a key.
    * ``forbidden_headers``: header parameters that no token may have.
    """

    standard: str
    token_sources: frozenset[TokenSource]
    stray_query_token: StrayQueryToken = StrayQueryToken.IGNORE
    token_header: bool = True
    require_https: bool = False
    resource: bool = False
    exact_audience: bool = True
    algorithms: tuple[str, ...] | None = None
    leeway: tuple[float, float] | None = None
    introspection_ttl: tuple[float, float] | None = None
    revocation_status: bool = False
    sender_constraint: bool = False
    forbidden_headers: tuple[str, ...] = ()


DEMANDS: Final[Mapping[Profile, Demands]] = MappingProxyType(
    {
        # Section 5.1: tokens in the header or in a form; a resource server "MUST ignore" one in the query. Section 1.5:
        # https.
        Profile.OAUTH21: Demands(
            standard="OAuth 2.1",
            token_sources=frozenset(TokenSource) - {TokenSource.QUERY, TokenSource.API_KEY},
            require_https=True,
        ),
        # Sections 5.3.4 (tokens), 5.4.1 (algorithms), 5.4.2 (x5u and jku) and 5.3.2.1 (dates up to 10 seconds ahead are
        # accepted, 60 seconds or more are not).
        Profile.FAPI2: Demands(
            standard="the FAPI 2.0 Security Profile",
            token_sources=frozenset((TokenSource.HEADER,)),
            stray_query_token=StrayQueryToken.REFUSE,
            token_header=False,
            require_https=True,
            algorithms=("PS256", "ES256", "EdDSA", "Ed25519"),
            leeway=(10.0, 60.0),
            introspection_ttl=(0.0, 10.0),
            revocation_status=True,
            sender_constraint=True,
            forbidden_headers=("x5u", "jku"),
        ),
        # "MCP client MUST use the Authorization request header field". A proxy may pass that field on.
        Profile.MCP: Demands(
            standard="the Model Context Protocol",
            token_sources=frozenset((TokenSource.HEADER, TokenSource.FORWARDED)),
            resource=True,
            exact_audience=False,  # "implementations SHOULD accept uppercase scheme and host components"
        ),
    }
)


def limit_sources(profile: Profile, sources: TokenSources) -> TokenSources:
    """Return *sources* with the limit of *profile*, which also holds for routes with sources of their own.

    Raises :class:`ConfigurationError` if *sources* have a place that the profile forbids.
    """
    demands = DEMANDS[profile]
    return sources.limit_to(
        SourceLimit(
            allowed=demands.token_sources,
            refuse_query=demands.stray_query_token is StrayQueryToken.REFUSE,
            profile=f"profile {profile.value!r} ({demands.standard})",
        )
    )


def tighten_issuer(profile: Profile, issuer: Issuer, resource: Resource | None, *, revocable: bool) -> Issuer:
    """Return *issuer* with the settings that *profile* demands.

    *resource*: that of the guard. *revocable*: the guard has a store or a revocation policy, so that revocations reach
    it. Raises :class:`ConfigurationError`, with the names of the setting and the profile, for a contradiction.
    """
    demands = DEMANDS[profile]
    _refuse_dangers(profile, issuer, f"issuer {issuer.url!r}: ")
    if isinstance(issuer.audience, AudienceOptOut):
        raise _contradiction(
            profile, issuer, "audience", "ANY_AUDIENCE_DANGEROUSLY", "name the identifier of this API in its tokens"
        )
    if issuer.introspection is not None and not issuer.introspection.require_audience:
        raise _contradiction(
            profile, issuer, "introspection.require_audience", "False", "let the server answer with aud"
        )
    if issuer.token_header is not None and not demands.token_header:
        raise _contradiction(
            profile, issuer, "token_header", repr(issuer.token_header), "send tokens in the Authorization field"
        )
    if demands.resource:
        _check_audience(profile, issuer, resource)
    changes: dict[str, Any] = {}
    if demands.algorithms is not None:
        changes["algorithms"] = _algorithms(profile, issuer, demands.algorithms)
    if demands.leeway is not None and not demands.leeway[0] <= issuer.leeway < demands.leeway[1]:
        least, most = demands.leeway
        raise _contradiction(
            profile, issuer, "leeway", f"{issuer.leeway:g}", f"set it to at least {least:g} and less than {most:g}"
        )
    if demands.algorithms is not None and issuer.introspection is not None and issuer.introspection.private_key:
        _check_own_algorithm(
            profile, issuer, "introspection.key_algorithm", issuer.introspection.key_algorithm, demands.algorithms
        )
    if demands.introspection_ttl is not None and issuer.introspection is not None:
        changes["introspection"] = _short_answers(profile, issuer, issuer.introspection, demands.introspection_ttl)
    if demands.revocation_status and not revocable and issuer.validate is not Validation.INTROSPECTION:
        changes["experimental_status_list"] = _required_status(profile, issuer)
    if demands.forbidden_headers:
        changes["forbidden_headers"] = tuple(dict.fromkeys((*issuer.forbidden_headers, *demands.forbidden_headers)))
    if demands.sender_constraint:
        changes["require_sender_constraint"] = True
    return replace(issuer, **changes) if changes else issuer


def check_api(
    profile: Profile,
    issuers: Collection[Issuer],
    *,
    resource: Resource | None,
    revocation: RevocationPolicy | None,
    dangers: Mapping[str, object],
    proof_algorithms: Collection[str],
    skips_tls_verification: bool,
) -> None:
    """Check the settings of a guard that belong to no issuer.

    * *dangers*: those with ``dangerously`` in their name.
    * *proof_algorithms*: the algorithms of DPoP proofs.
    * *skips_tls_verification*: whether its transport does not verify certificates.

    Raises :class:`ConfigurationError`, with the names of the setting and the profile, for a contradiction.
    """
    demands = DEMANDS[profile]
    if demands.resource:
        _check_resource(profile, resource, issuers)
    if demands.algorithms is not None and resource is not None and resource.signing_key is not None:
        _check_own_algorithm(
            profile, None, "resource: signing_algorithm", resource.signing_algorithm, demands.algorithms
        )
    if revocation is not None:
        _refuse_dangers(profile, revocation, "revocation.")
    for algorithm in () if demands.algorithms is None else proof_algorithms:
        _check_own_algorithm(profile, None, "dpop.algorithms", algorithm, demands.algorithms or ())
    for name, value in dangers.items():
        if value:
            raise _contradiction(profile, None, name, repr(value), "remove it")
    if skips_tls_verification:
        raise _contradiction(
            profile,
            None,
            "transport",
            "dangerously_skip_tls_verification",
            "name the certificate authority, as in HttpxTransport(verify='ca.pem')",
        )


def widen_proof_window(profile: Profile, dpop: DPoP) -> DPoP:
    """Return *dpop* with the window of *profile*, unless it has one of its own.

    The DPoP extension of the Model Context Protocol: a server accepts an ``iat`` within five minutes.
    """
    has_own_window = (dpop.max_age, dpop.max_skew) != (DPoP().max_age, DPoP().max_skew)
    return dpop if profile is not Profile.MCP or has_own_window else replace(dpop, max_age=300.0, max_skew=300.0)


def _contradiction(profile: Profile, issuer: Issuer | None, setting: str, given: str, fix: str) -> ConfigurationError:
    where = "" if issuer is None else f"issuer {issuer.url!r}: "
    return ConfigurationError(
        f"{where}{setting}: {given} contradicts profile {profile.value!r} ({DEMANDS[profile].standard}); {fix}"
    )


def _refuse_dangers(profile: Profile, settings: Any, where: str) -> None:
    """Refuse settings with ``dangerously`` in their name: each gives up a check that every profile demands."""
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if setting.name == "experimental_status_list" and value is not None:
            _refuse_dangers(profile, value, f"{where}experimental_status_list.")
        elif setting.name.endswith("_dangerously") and value:
            given = repr(sorted(value)) if isinstance(value, frozenset) else repr(value)
            raise _contradiction(profile, None, f"{where}{setting.name}", given, "remove it")


def _algorithms(profile: Profile, issuer: Issuer, allowed: tuple[str, ...]) -> tuple[str, ...]:
    given = tuple(issuer.algorithms)
    if given == DEFAULT_ALGORITHMS:
        return tuple(name for name in given if name in allowed)
    refused = [name for name in given if name not in allowed]
    if refused:
        raise _contradiction(profile, issuer, "algorithms", " ".join(refused), f"use some of {', '.join(allowed)}")
    return given


def _check_own_algorithm(
    profile: Profile, issuer: Issuer | None, setting: str, given: str, allowed: tuple[str, ...]
) -> None:
    """Check an algorithm with which the API itself signs. It is not changed, because it has to fit the key."""
    if given not in allowed:
        raise _contradiction(profile, issuer, setting, given, f"use one of {', '.join(allowed)}")


def _short_answers(
    profile: Profile, issuer: Issuer, introspection: Introspection, limits: tuple[float, float]
) -> Introspection:
    default, longest = limits
    if introspection.ttl == introspection.__dataclass_fields__["ttl"].default:
        return replace(introspection, ttl=default)
    if introspection.ttl > longest:
        raise _contradiction(
            profile, issuer, "introspection.ttl", f"{introspection.ttl:g}", f"set it to at most {longest:g} seconds"
        )
    return introspection


def _required_status(profile: Profile, issuer: Issuer) -> Any:
    """Return the status list policy, changed to apply to every JWT: nothing else shows that a JWT is revoked."""
    policy = issuer.experimental_status_list
    if policy is None:
        raise _contradiction(
            profile,
            issuer,
            "validate",
            f"{issuer.validate.value!r} without a way to learn of revocations",
            'set validate = "introspection" or experimental_status_list, or give the guard a store or a revocation '
            "policy and revoke with Guard.revoke or SecurityEventReceiver",
        )
    return replace(policy, required=True)


def _check_audience(profile: Profile, issuer: Issuer, resource: Resource | None) -> None:
    if resource is not None and issuer.audiences is not None and issuer.audiences != {resource.url}:
        raise _contradiction(
            profile,
            issuer,
            "audience",
            " ".join(sorted(issuer.audiences)),
            f"leave it out, so that it is the resource, {resource.url}",
        )


def _check_resource(profile: Profile, resource: Resource | None, issuers: Collection[Issuer]) -> None:
    if resource is None:
        raise _contradiction(
            profile, None, "resource", "None", "name the server, as in resource='https://mcp.example.com/mcp'"
        )
    if not resource.serve_metadata:
        raise _contradiction(
            profile, None, "resource", "serve_metadata=False", "remove it; clients find the authorization server there"
        )
    servers = resource.authorization_servers
    if servers is None:
        servers = tuple(issuer.url for issuer in issuers)
    if not servers:
        raise _contradiction(
            profile, None, "resource", "authorization_servers=[]", "name at least one authorization server"
        )
    if resource.audience_differs:
        raise _contradiction(
            profile,
            None,
            "resource",
            "audience_differs=True",
            "let the server write the resource into aud",
        )
