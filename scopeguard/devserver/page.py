"""The start page of the development server: what it is, who its clients are, and lines to paste into a shell."""

from __future__ import annotations

import shlex
from html import escape

from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Mode, Outage
from scopeguard.devserver.registry import Client

WARNING = "FOR DEVELOPMENT ONLY"

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem}"
    ".warning{background:#b00020;color:#fff;padding:1rem;font-weight:bold}"
    "pre{background:#8882;padding:.75rem;overflow:auto}"
    "table{border-collapse:collapse}td,th{border:1px solid #8888;padding:.25rem .5rem;text-align:left}"
)


def start_page(authority: Authority, *, show_secrets: bool, control: bool) -> str:
    """The page as HTML; *show_secrets* is for readers on the machine itself."""
    sections = [_clients(authority, show_secrets=show_secrets), _endpoints(authority)]
    if control:
        sections.append(_switches(authority))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>scopeguard development server</title>'
        f"<style>{_STYLE}</style></head><body>"
        f'<p class="warning">{WARNING}. This authorization server hands out tokens for secrets that everybody on this '
        "machine can read, and can be told to misbehave. Never let anything that matters trust it.</p>"
        f"<h1>scopeguard development server</h1><p>Issuer: <code>{escape(authority.issuer)}</code>, default audience: "
        f"<code>{escape(authority.audience)}</code></p>{''.join(sections)}</body></html>"
    )


def _clients(authority: Authority, *, show_secrets: bool) -> str:
    rows = [
        f"<tr><td><code>{escape(client.client_id)}</code></td>"
        f"<td><code>{escape(client.secret) if show_secrets else 'not shown to other machines'}</code></td>"
        f"<td><code>{escape(' '.join(client.scopes))}</code></td>"
        f"<td><code>{escape(' '.join(client.audiences or (authority.audience,)))}</code></td>"
        f"<td>{escape(str(client.token_format))}, {client.lifetime} s</td></tr>"
        for client in authority.registry.clients.values()
    ]
    accounts = ", ".join(f"<code>{escape(email)}</code>" for email in authority.registry.service_accounts)
    lines = [_token_line(authority, client) for client in authority.registry.clients.values()] if show_secrets else []
    return (
        "<h2>Clients</h2><table><tr><th>client_id</th><th>secret</th><th>scopes</th><th>audiences</th><th>tokens</th>"
        f"</tr>{''.join(rows)}</table>"
        + (f"<p>Service accounts (JWT bearer): {accounts}</p>" if accounts else "")
        + "".join(f"<pre>{escape(line)}</pre>" for line in lines)
    )


def _token_line(authority: Authority, client: Client) -> str:
    credentials = shlex.quote(f"{client.client_id}:{client.secret}")
    return f"curl -s -u {credentials} -d grant_type=client_credentials {authority.url(Endpoint.TOKEN)}"


def _endpoints(authority: Authority) -> str:
    places = [authority.url(endpoint) for endpoint in (Endpoint.METADATA, Endpoint.JWKS)]
    return "<h2>Metadata and keys</h2>" + "".join(f"<pre>curl -s {escape(place)}</pre>" for place in places)


def _switches(authority: Authority) -> str:
    bodies = {
        "rotate": '{"overlap": 0}',
        "revoke": '{"token": "..."}',
        "outage": '{"kind": "unavailable"}',
        "slow": '{"seconds": 3}',
        "mode": '{"endpoint": "jwks", "mode": "garbage"}',
        "reset": "{}",
    }
    base = authority.issuer.rstrip("/")
    lines = "".join(
        f"<pre>curl -s -H 'Content-Type: application/json' -d {escape(shlex.quote(body))} "
        f"{escape(base)}/control/{action}</pre>"
        for action, body in bodies.items()
    )
    return (
        "<h2>Make it misbehave</h2>"
        f"<p>Endpoints: {', '.join(Endpoint)}. Modes: {', '.join(Mode)}. Outages: {', '.join(Outage)}, "
        f"or null to end one.</p>{lines}"
    )
