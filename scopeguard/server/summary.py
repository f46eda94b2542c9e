"""The lines that ``scopeguard serve`` prints at start: the configuration and warnings."""

from __future__ import annotations

from collections import Counter
from typing import Final

from scopeguard.config.hosts import is_loopback
from scopeguard.errors import AuthorityUnavailable
from scopeguard.guard import Guard
from scopeguard.rules import Access, Rule
from scopeguard.rules.mcp import OperationRule
from scopeguard.scopes import AUTHENTICATED

_MOST_RULES: Final = 25


def introduction(guard: Guard, target: str, url: str, config: str) -> list[str]:
    """Return a description of the configuration, with a line for each issuer and for each of the first 25 rules."""
    lines = [f"{target} on {url}, realm {guard.style.realm!r}, tokens from: {', '.join(sorted(guard.sources.methods))}"]
    for issuer in guard.issuers:
        audience = "any (dangerously)" if issuer.audiences is None else ", ".join(sorted(issuer.audiences))
        keys = issuer.jwks_file or ", ".join(issuer.jwks_uris) or ("configured" if issuer.keys else "discovered")
        lines.append(f"  issuer {issuer.url}, audience {audience}, keys: {keys}")
    rules = () if guard.rules is None else guard.rules.all
    if rules:
        # The source of a contract's rule names its document and operation: "openapi.json: POST /tables".
        places = Counter((rule.source or config).partition(": ")[0] for rule in rules)
        lines.append(f"  rules: {', '.join(f'{count} from {place}' for place, count in places.items())}")
    lines += [f"  {describe_rule(rule)}" for rule in rules[:_MOST_RULES]]
    if len(rules) > _MOST_RULES:
        lines.append(f"  and {len(rules) - _MOST_RULES} more; scopeguard audit lists them all")
    operations = () if guard.mcp is None else guard.mcp.rules
    lines += [f"  {describe_operation(rule)}" for rule in operations[:_MOST_RULES]]
    if len(operations) > _MOST_RULES:
        lines.append(f"  and {len(operations) - _MOST_RULES} more; scopeguard audit lists them all")
    closed = guard.mcp is not None or (guard.rules is not None and guard.rules.deny_unmatched)
    lines.append("  everything else: denied" if closed else "  everything else: any valid token")
    return lines


def describe_operation(rule: OperationRule) -> str:
    """Return *rule*, for operations of an MCP server, as one line of text."""
    access = "denied" if rule.requirement is None else repr(rule.requirement)
    return f"MCP {rule.kind} {rule.pattern}: {'any valid token' if rule.requirement == AUTHENTICATED else access}"


def describe_rule(rule: Rule) -> str:
    """Return *rule*, for routes, as one line of text."""
    methods = ",".join(sorted(rule.methods)) if rule.methods else "any method"
    if isinstance(rule.access, Access):
        texts = {"public": "public, no token", "optional": "a valid token or none", "denied": "denied"}
        access = texts[rule.access.value]
    else:
        access = "any valid token" if rule.access == AUTHENTICATED else repr(rule.access)
    sources = f" (tokens from: {', '.join(sorted(rule.sources))})" if rule.sources else ""
    return f"{methods} {rule.path}: {access}{sources}"


def fetch_keys(guard: Guard) -> list[str]:
    """Fetch the keys of the issuers. Return warnings if that fails."""
    try:
        guard.warm()
    except AuthorityUnavailable as problem:
        return [f"no keys yet; requests with a token are answered 503 until keys can be fetched: {problem}"]
    return []


def warnings(guard: Guard, host: str | None) -> list[str]:
    """Return warnings about valid settings that may have unexpected effects. *host* is ``None`` for a Unix socket."""
    found: list[str] = []
    rules = () if guard.rules is None else guard.rules.all
    if not any(isinstance(rule.access, Access) for rule in rules):
        found.append('no path is public, so health checks need a token; to open a path, write public = ["/healthz"]')
    if guard.mcp is None and (guard.rules is None or not guard.rules.deny_unmatched):
        found.append("no [[rules]]: any valid token opens every route, with any scopes")
    if host is not None and not is_loopback(host):
        found.append(f"{host}: plain http; put TLS in front, or tokens can be read on the network")
    return found
