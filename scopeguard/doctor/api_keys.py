"""Checks of the API keys of a guard."""

from __future__ import annotations

from typing import Final

from scopeguard.config.token_sources import TokenSource
from scopeguard.doctor.finding import Finding, error, ok, skipped, warning
from scopeguard.doctor.thresholds import DAYS_LEFT
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.api_key import read_keys
from scopeguard.guard import Guard, engine_of

SUBJECT: Final = "API keys"


def check_api_keys(guard: Guard) -> list[Finding]:
    """Read the file of keys, and look for keys that never expire, have expired or will soon expire."""
    engine = engine_of(guard)
    state = engine.context.api_keys
    if state is None:
        return []
    rules = () if guard.rules is None else guard.rules.all
    takes = [guard.sources.in_api_key, *(TokenSource.API_KEY in (rule.sources or ()) for rule in rules)]
    findings: list[Finding] = []
    if not any(takes):
        fix = 'add "api_key" to the token_sources of a rule, unless code of the app does so'
        findings.append(warning(SUBJECT, "routes", "no rule accepts API keys", fix=fix))
    if state.settings.lookup is not None:
        return [*findings, skipped(SUBJECT, "keys", "not checked: a function looks them up")]
    try:
        keys = engine.perform(read_keys(state, engine.clock)).values()
    except AuthorityUnavailable as problem:
        fix = "correct the file: until then, every request with an API key gets 503"
        return [*findings, error(SUBJECT, "keys", problem.detail.get("problem", str(problem)), fix=fix)]
    now = engine.clock.wall()
    usable = [key for key in keys if not key.revoked and (key.expires_at is None or key.expires_at > now)]
    findings.append(ok(SUBJECT, "keys", f"{len(keys)} in the file, {len(usable)} of them valid"))
    endless = [key.id for key in usable if key.expires_at is None]
    soon = [key.id for key in usable if key.expires_at is not None and key.expires_at - now < DAYS_LEFT * 86400]
    if endless:
        fix = "replace them by keys that expire: scopeguard api-key new --expires 90d"
        findings.append(warning(SUBJECT, "expiry", f"never expire: {_list_ids(endless)}", fix=fix))
    if soon:
        fix = "give their clients new keys"
        findings.append(warning(SUBJECT, "expiry", f"expire within 14 days: {_list_ids(soon)}", fix=fix))
    return findings


def _list_ids(ids: list[str]) -> str:
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return ", ".join(ids[:5]) + more
