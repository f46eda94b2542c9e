"""Builds the run-time state of a guard from its configuration. Performs no I/O.

A guard imports introspection, proofs of possession, API keys, status lists, policy decision points, keys by URL
and packed keys only if its settings need them, which saves other guards 12 ms at start. The functions that build
the state of such a part import the part and its flow, so that no request waits for an import.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import member
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.issuer import Issuer
from scopeguard.core.arguments import Settings
from scopeguard.core.issuer_checks import check_proofs
from scopeguard.edge.insecure_http import warn_of_insecure_hosts
from scopeguard.errors import ConfigurationError
from scopeguard.flow.context import Context
from scopeguard.flow.effects import Clock
from scopeguard.rules import Rules
from scopeguard.spec.jwks import parse_configured_key_set
from scopeguard.spec.signatures import Backends
from scopeguard.spec.spiffe import key_use
from scopeguard.state.issuers import IssuerRecord, Issuers, ResolvedIssuers
from scopeguard.state.keys import KeyRing
from scopeguard.state.revocation import Revocations
from scopeguard.state.token_cache import TokenCache

if TYPE_CHECKING:
    from scopeguard.config.authzen import AuthZen
    from scopeguard.config.dpop import DPoP
    from scopeguard.config.introspection import Introspection
    from scopeguard.config.resolver import IssuerResolver
    from scopeguard.config.status_list import StatusListPolicy
    from scopeguard.flow.possession import Possession
    from scopeguard.state.api_keys import ApiKeyState
    from scopeguard.state.authzen import DecisionPoint
    from scopeguard.state.introspection import IntrospectionState
    from scopeguard.state.proofs import ProofLimits
    from scopeguard.state.status_list import StatusLists

_NO_PROOFS: Final = (None, DPoPMode.OFF)
_MOST_TIMES_THE_DEFAULT: Final = 10.0  # the bound for the memory that a long window of proofs takes


def build_context(
    settings: Settings, issuers: Iterable[Issuer], resolver: IssuerResolver | None, clock: Clock, *, shared: bool
) -> Context:
    """Return the context for *issuers* and for those that *resolver* will find, with empty caches.

    *shared*: a store shares revocations and introspection answers with other processes.
    """
    issuers = tuple(issuers)
    inherited = None if settings.dpop is None else settings.dpop.mode
    if inherited is DPoPMode.OFF and any(rule.mode not in _NO_PROOFS for rule in Rules.of(settings.rules).all):
        inherited = DPoPMode.ALLOWED  # the rules decide, and their routes take tokens of every issuer

    def build(issuer: Issuer) -> IssuerRecord:
        if issuer.audience is None:
            if settings.resource is None:
                raise ConfigurationError(f"issuer {issuer.url!r}: audience is missing, and the guard has no resource")
            issuer = replace(issuer, audience=settings.resource.url)
        if issuer.dpop is None and inherited is not None:
            issuer = replace(issuer, dpop=inherited)
        if settings.mutual_tls is not None:
            issuer = replace(issuer, mutual_tls=True)
        hosts = issuer.insecure_http_dangerously | settings.insecure_hosts
        if hosts != issuer.insecure_http_dangerously:
            issuer = replace(issuer, insecure_http_dangerously=hosts)
        issuer = settings.apply_profile(issuer)
        check_proofs(settings.profile, issuer, settings.dpop, settings.mutual_tls)
        return build_issuer_record(issuer, settings.catalog, settings.backends)

    reserved = None if settings.api_keys is None else settings.api_keys.issuer
    policy, possession = settings.revocation, build_possession(settings, shared=shared)
    if possession is not None and any(issuer.dpop not in _NO_PROOFS for issuer in issuers):
        possession = possession.for_issuers()
    return Context(
        issuers=Issuers(
            map(build, issuers),
            resolved=None if resolver is None else ResolvedIssuers(resolver, build, reserved=reserved),
            revocations=Revocations(max_lag=policy.max_lag, fail_open_dangerously=policy.fail_open_dangerously),
            shared=shared,
        ),
        clock=clock,
        possession=possession,
        api_keys=build_api_keys(settings),
        parse_claims=settings.parse_claims,
        decode_segment=settings.decode_segment,
        token_cache=None if settings.token_cache is None else TokenCache(settings.token_cache),
    )


def build_api_keys(settings: Settings) -> ApiKeyState | None:
    """Return the state of the API keys, or ``None`` if there are none. The arguments have set their issuer."""
    keys = settings.api_keys
    if keys is None or keys.issuer is None:
        return None
    import_module("scopeguard.flow.api_key")
    from scopeguard.spec.api_key import Grantor
    from scopeguard.state.api_keys import ApiKeyState

    audience = keys.issuer if settings.resource is None else settings.resource.url
    vocabulary = settings.catalog.vocabulary_of(ScopeVocabulary())
    return ApiKeyState(keys, Grantor(issuer=keys.issuer, audience=audience, vocabulary=vocabulary))


def build_possession(settings: Settings, *, shared: bool) -> Possession | None:
    """Return what the checks of proofs and certificates share, or ``None`` if there are none."""
    if settings.dpop is None and settings.mutual_tls is None:
        return None
    from scopeguard.config.dpop import DPoP
    from scopeguard.flow.possession import Possession
    from scopeguard.spec.nonce import DPOP, NonceSealer
    from scopeguard.spec.request_uri import normalise_uri
    from scopeguard.state.proofs import ProofMemory

    policy = settings.dpop or DPoP(mode="off")
    base = policy.base_url
    if base is None:
        # Without the path of the resource: the path of a request includes it, unless a proxy removes a prefix.
        parts = urlsplit("https://unused.invalid" if settings.resource is None else settings.resource.url)
        base = f"{parts.scheme}://{parts.netloc}"
    normal = normalise_uri(base)
    if normal is None:
        raise ConfigurationError(f"dpop: base_url: {base!r} is not an absolute URL")
    path = urlsplit(normal).path
    return Possession(
        policy=policy,
        mode=member(DPoPMode, policy.mode, "dpop: mode"),
        origin=normal.removesuffix(path),
        prefix=path.rstrip("/"),
        sealer=NonceSealer(policy.nonce_keys, DPOP, policy.nonce_lifetime, secrets.token_bytes)
        if policy.nonce_keys
        else None,
        memory=ProofMemory(_proof_limits(policy)),
        shared=shared,
        certificates=settings.mutual_tls,
    )


def _proof_limits(policy: DPoP) -> ProofLimits:
    """Return how many proofs are remembered.

    The defaults are for the default window of 70 seconds. For a longer one they grow with it, up to ten times, so that
    a client can send as many requests a second.
    """
    from scopeguard.config.dpop import DPoP
    from scopeguard.state.proofs import ProofLimits

    usual = DPoP()
    window = 2 * policy.nonce_lifetime if policy.trust_nonce_time else policy.max_age + policy.max_skew
    factor = min(max(1.0, window / (usual.max_age + usual.max_skew)), _MOST_TIMES_THE_DEFAULT)

    def scale(given: int, default: int) -> int:
        return math.ceil(given * factor) if given == default else given

    return ProofLimits(
        total=scale(policy.max_proofs, usual.max_proofs),
        per_owner=scale(policy.max_proofs_per_key, usual.max_proofs_per_key),
    )


def build_issuer_record(issuer: Issuer, catalog: ScopeCatalog, backends: Backends) -> IssuerRecord:
    """Return the state for *issuer*, with empty caches; *catalog* names its scopes."""
    static = None
    if issuer.keys is not None:
        use = key_use(issuer.trust_domain)
        static = parse_configured_key_set(issuer.keys, padded=issuer.key_set.padded, backends=backends, use=use)
    if issuer.key_url_template is not None:
        import_module("scopeguard.flow.key_by_id")
    if issuer.jwks_seed is not None:
        import_module("scopeguard.flow.packed_keys")
    policy = issuer.experimental_status_list
    warn_of_insecure_hosts(issuer.url, issuer.insecure_http_dangerously)
    record = IssuerRecord(
        issuer=issuer,
        vocabulary=catalog.vocabulary_of(issuer.vocabulary),
        # The jitter keeps the processes of a fleet from refreshing at the same time. It needs no secure randomness.
        ring=KeyRing(issuer.key_set, jitter=random.uniform(-1, 1), static=static),
        introspection=None if issuer.introspection is None else _introspection_state(issuer, issuer.introspection),
        status_lists=None if policy is None else _build_status_lists(policy),
        backends=backends,
    )
    sets = (
        record,
        *(
            replace(record, jwks_uri=uri, ring=KeyRing(issuer.key_set, jitter=random.uniform(-1, 1)))
            for uri in issuer.jwks_uris[1:]
        ),
    )
    for each in sets:
        each.others = tuple(other for other in sets if other is not each)
    return record


def build_decision_point(settings: AuthZen) -> DecisionPoint:
    """Return the state for the policy decision point with *settings*, without kept decisions."""
    import_module("scopeguard.flow.authzen")
    from scopeguard.state.authzen import DecisionPoint, Decisions
    from scopeguard.state.breaker import PROBE_TIMEOUTS, Breaker

    warn_of_insecure_hosts(settings.url, settings.insecure_http_dangerously)
    return DecisionPoint(
        settings=settings,
        breaker=Breaker(probe_lasts=PROBE_TIMEOUTS * settings.timeout),
        decisions=Decisions(ttl=settings.ttl, max_entries=settings.max_entries),
        new_id=lambda: secrets.token_urlsafe(16),
    )


def _build_status_lists(policy: StatusListPolicy) -> StatusLists:
    import_module("scopeguard.flow.status_list")
    from scopeguard.state.status_list import MOST_LARGE_LISTS, StatusLists

    return StatusLists(max_bytes=MOST_LARGE_LISTS * policy.max_bytes, jitter=random.uniform(0, 0.1))


def _introspection_state(issuer: Issuer, settings: Introspection) -> IntrospectionState:
    import_module("scopeguard.flow.introspection")
    from scopeguard.spec.client_authentication import AssertionKey
    from scopeguard.state.accepted_tokens import AcceptedTokens
    from scopeguard.state.breaker import PROBE_TIMEOUTS, Breaker
    from scopeguard.state.introspection import IntrospectionCache, IntrospectionState

    key = None
    if settings.private_key is not None:
        key = AssertionKey(material=settings.private_key, algorithm=settings.key_algorithm, kid=settings.key_id)
    audience = sorted(issuer.audiences) if issuer.audiences is not None else None
    return IntrospectionState(
        settings=settings,
        cache=IntrospectionCache(
            ttl=settings.ttl, negative_ttl=settings.negative_ttl, max_entries=settings.max_entries
        ),
        accepted=AcceptedTokens(settings.max_entries),
        breaker=Breaker(probe_lasts=PROBE_TIMEOUTS * settings.timeout),
        # Another client, endpoint or audience may get another answer (RFC 7662 section 2.2), so each has its own.
        context=json.dumps([issuer.url, settings.endpoint, settings.client_id, audience, settings.signed]),
        key=key,
        new_id=lambda: secrets.token_urlsafe(16),
    )
