"""The effective switches of guards, and which change of a switch makes a guard enforce less.

``tests/data/switches.json`` records them for a default guard, each profile and each preset, and
``tests/test_never_less.py`` compares. To record a change: ``python tests/support/switches.py``. If a switch becomes
looser, this needs a reason: ``--because "..."``. The reason is added to the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from preset_arguments import API, ARGUMENTS
from scopeguard import Guard, Introspection, Issuer, Profile, Resource, StatusListPolicy, TokenSources
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY
from scopeguard.config.profiles import DEMANDS, limit_sources, tighten_issuer
from scopeguard.guard import engine_of
from scopeguard.presets import PRESETS

RECORD: Final = Path(__file__).parents[1] / "data" / "switches.json"
Switches = dict[str, Any]
"""The values of switches in JSON, by name."""


# Each function takes the old and the new value of a switch and returns whether the new one enforces less.


def grew(old: list[str], new: list[str]) -> bool:
    """For lists of what is accepted."""
    return not set(new) <= set(old)


def shrank(old: list[str], new: list[str]) -> bool:
    """For lists of what is required or refused."""
    return not set(old) <= set(new)


def expects_less(old: Mapping[str, list[Any]], new: Mapping[str, list[Any]]) -> bool:
    """For names with the values that they must have."""
    return any(name not in new or not set(map(str, new[name])) <= set(map(str, old[name])) for name in old)


def accepts_more(old: Mapping[str, list[Any]], new: Mapping[str, list[Any]]) -> bool:
    """For names with the values that they bring."""
    return any(name not in old or not set(map(str, new[name])) <= set(map(str, old[name])) for name in new)


def needs_less(old: list[str], new: list[str]) -> bool:
    """For a list of which one must be there; an empty list needs nothing."""
    return bool(old) and (not new or grew(old, new))


def was_switched_on(old: bool, new: bool) -> bool:
    """For flags that give up a check."""
    return new and not old


def was_switched_off(old: bool, new: bool) -> bool:
    """For flags that add a check."""
    return old and not new


def became_longer(old: float | None, new: float | None) -> bool:
    """For limits; ``None`` is no limit."""
    return old is not None and (new is None or new > old)


def became_shorter(old: float, new: float) -> bool:
    """For times for which something is remembered against a token."""
    return new < old


def has_changed(old: object, new: object) -> bool:
    """For values without an order: each change needs a reason."""
    return old != new


OF_ISSUER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "audience": grew,
    "algorithms": grew,
    "typ": grew,
    "audience_claims": grew,
    "aliases": accepts_more,
    "scope_claims": grew,
    "role_claims": grew,
    "client_id_claims": grew,
    "subject_claims": has_changed,
    "header_claims": grew,
    "implies": accepts_more,
    "internal_hosts": grew,
    "insecure_http_dangerously": grew,
    "required_claims": shrank,
    "forbidden_claims": shrank,
    "forbidden_headers": shrank,
    "past_claims": shrank,
    "expected_claims": expects_less,
    "expected_headers": expects_less,
    "claim_prefixes": expects_less,
    "any_claims": needs_less,
    "dpop": has_changed,
    "mutual_tls": was_switched_on,
    "single_audience": was_switched_off,
    "require_sender_constraint": was_switched_off,
    "canonicalize_audience": was_switched_on,
    "merge_scope_claims": was_switched_on,
    "roles_as_scopes": was_switched_on,
    "accept_id_tokens_dangerously": was_switched_on,
    "issuer_claim_optional_dangerously": was_switched_on,
    "padded_segments": was_switched_on,
    "leeway": became_longer,
    "max_lifetime": became_longer,
    "validate": has_changed,
    "token_header": has_changed,
    "scope_prefix": has_changed,
    "machine_signs": has_changed,
}
OF_PARTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "introspection.require_audience": was_switched_off,
    "introspection.signed": was_switched_off,
    "introspection.ttl": became_longer,
    "introspection.dialect": has_changed,
    "experimental_status_list.required": was_switched_off,
    "experimental_status_list.fail_open_dangerously": was_switched_on,
    "key_set.max_stale": became_longer,
    "key_set.max_seed_age": became_longer,
    "key_set.max_ttl": became_longer,
    "key_set.padded": was_switched_on,
}
OF_GUARD: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "token_sources": grew,
    "stray_query_token": has_changed,
    "max_token_bytes": became_longer,
    "require_https": was_switched_off,
    "forward_token_dangerously": was_switched_on,
    "keep_token_for_exchange": was_switched_on,
    "api_keys": was_switched_on,
    "insecure_http_dangerously of the guard": grew,
    "cors_preflight": has_changed,
    "resource": was_switched_off,
    "revocation.retention": became_shorter,
    "revocation.max_lag": became_longer,
    "revocation.fail_open_dangerously": was_switched_on,
    "revocation_status": was_switched_off,
}
KINDS: Final = {**OF_ISSUER, **OF_PARTS, **OF_GUARD}
# Settings of an issuer that decide where something is, and not what is enforced.
PLACES: Final = frozenset(
    (
        "url", "jwks_uri", "jwks_file", "jwks_seed", "keys", "metadata_url", "key_url_template", "jwks_ca_file",
        "jwks_bearer_file", "opaque_prefixes", "hints", "key_set", "introspection", "experimental_status_list",
    )
)  # fmt: skip


def _to_json(value: Any) -> Any:
    """Return *value* of a setting in JSON."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return str(value)
        case Mapping():
            return {str(name): _to_json(of_name) for name, of_name in sorted(value.items())}
        case Iterable():
            return sorted("" if item is None else item if isinstance(item, str) else repr(item) for item in value)
        case _:
            return repr(value)


def of_issuer(issuer: Issuer) -> Switches:
    """Return the switches of *issuer*."""
    found = {name: _to_json(getattr(issuer, name)) for name in OF_ISSUER}
    if issuer.audience is ANY_AUDIENCE_DANGEROUSLY:
        found["audience"] = ["any"]
    if issuer.required_claims is None:
        found["required_claims"] = ["those of RFC 9068"]
    for name in OF_PARTS:
        part, _, member = name.partition(".")
        settings: Introspection | StatusListPolicy | Any = getattr(issuer, part)
        if settings is not None:
            found[name] = _to_json(getattr(settings, member))
    return found


def of_guard(guard: Guard) -> Switches:
    """Return the switches of *guard* that belong to no issuer."""
    settings = engine_of(guard).settings
    return {
        **_of_sources(settings.sources),
        "require_https": settings.require_https,
        "forward_token_dangerously": settings.forward_token_dangerously,
        "keep_token_for_exchange": settings.keep_token_for_exchange,
        "api_keys": settings.api_keys is not None,
        "insecure_http_dangerously of the guard": _to_json(settings.insecure_hosts),
        "cors_preflight": _to_json(settings.cors_preflight),
        "revocation.retention": settings.revocation.retention,
        "revocation.max_lag": settings.revocation.max_lag,
        "revocation.fail_open_dangerously": settings.revocation.fail_open_dangerously,
    }


def _of_sources(sources: TokenSources) -> Switches:
    return {
        "token_sources": _to_json(sources.methods),
        "stray_query_token": _to_json(sources.stray_query_token),
        "max_token_bytes": sources.max_token_bytes,
    }


def of_profile(profile: Profile) -> Switches:
    """Return the switches that *profile* sets for default settings. No guard is needed: fapi2 cannot have one."""
    demands = DEMANDS[profile]
    issuer = Issuer("https://as.example", audience=API)
    return {
        **of_issuer(tighten_issuer(profile, issuer, Resource(API), revocable=True)),
        **_of_sources(limit_sources(profile, TokenSources())),
        "require_https": demands.require_https,
        "resource": demands.resource,
        "revocation_status": demands.revocation_status,
    }


def current_switches() -> dict[str, Switches]:
    """Return the switches of this version: of a default guard, and of each profile and preset."""
    default = Guard(Issuer("https://as.example", audience=API))
    return {
        "default": {**of_issuer(default.issuers[0]), **of_guard(default)},
        **{f"profile {profile.value}": of_profile(profile) for profile in Profile},
        **{f"preset {name}": of_issuer(PRESETS[name](**ARGUMENTS[name])) for name in sorted(PRESETS)},
    }


def find_loosened(old: Mapping[str, Switches], new: Mapping[str, Switches]) -> list[str]:
    """Return each switch of *old* that enforces less in *new*, as ``"preset x: leeway: 30 -> 60"``.

    A switch that is missing in *new* counts. What is missing in *old* is new, and loosens nothing.
    """
    found = []
    for name, switches in old.items():
        for switch, value in switches.items():
            now = new.get(name, {})
            if switch not in now:
                found.append(f"{name}: {switch}: {json.dumps(value)} -> missing")
            elif KINDS[switch](value, now[switch]):
                found.append(f"{name}: {switch}: {json.dumps(value)} -> {json.dumps(now[switch])}")
    return found


def record(because: str | None) -> None:
    """Write the current switches. Exits with an error for one that became looser, unless *because* is a reason."""
    old = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {"loosened": [], "switches": {}}
    new = current_switches()
    looser = find_loosened(old["switches"], new)
    if looser and not because:
        sys.exit("\n".join((*looser, 'these enforce less; if that is intended: --because "the reason"')))
    entries = [*old["loosened"], *({"switch": switch, "because": because} for switch in looser)]
    document = {"loosened": entries, "switches": new}
    RECORD.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    record(sys.argv[2] if sys.argv[1:2] == ["--because"] else None)
