"""The start page of the development server: a warning, its clients, and commands to paste into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Mode, Outage
from scopeguard.devserver.html import Html, fill
from scopeguard.devserver.registry import Client

WARNING: Final = "FOR DEVELOPMENT ONLY"

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scopeguard development server</title>
<style>
:root { color-scheme: light dark }
html { background: Canvas; color: CanvasText }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem }
.warning { background: #b00020; color: #fff; padding: 1rem; font-weight: bold }
pre { background: #8882; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere }
p { overflow-wrap: anywhere }
.wide { overflow: auto }
table { border-collapse: collapse }
td, th { border: 1px solid #8888; padding: .25rem .5rem; text-align: left }
</style>
</head>
<body>
<main>
<p class="warning">$warning. Every user of this machine can read the client secrets below, get tokens with them, and
make this server misbehave. Do not let a production system trust its tokens.</p>
<h1>scopeguard development server</h1>
<p>Issuer: <code>$issuer</code>, default audience: <code>$audience</code></p>
<h2>Clients</h2>
<div class="wide" role="region" aria-label="Clients" tabindex="0">
<table>
<tr><th>client_id</th><th>secret</th><th>scopes</th><th>audiences</th><th>tokens</th></tr>
$clients
</table>
</div>
$users
$service_accounts
$token_commands
<h2>Metadata and keys</h2>
$endpoints
$switches
</main>
</body>
</html>
"""
_CLIENT: Final = (
    "<tr><td><code>$client_id</code></td><td><code>$secret</code></td><td><code>$scopes</code></td>"
    "<td><code>$audiences</code></td><td>$token_format, $lifetime seconds</td></tr>"
)
_USERS: Final = "<p>Users, who sign in without a password: <code>$users</code></p>"
_SERVICE_ACCOUNTS: Final = "<p>Service accounts (JWT bearer grant): <code>$emails</code></p>"
_COMMAND: Final = "<pre>$command</pre>"
_SWITCHES: Final = """<h2>Make it misbehave</h2>
<p>Endpoints: $endpoints. Modes: $modes. Outages: $outages, or null to end one.</p>
$commands"""
_CONTROL_BODIES: Final = {
    "rotate": '{"overlap": 0}',
    "revoke": '{"token": "..."}',
    "outage": '{"kind": "unavailable"}',
    "slow": '{"seconds": 3}',
    "mode": '{"endpoint": "jwks", "mode": "garbage"}',
    "reset": "{}",
}


def _commands(lines: Iterable[str]) -> Html:
    return Html("\n".join(fill(_COMMAND, command=line) for line in lines))


def start_page(authority: Authority, *, show_secrets: bool, control: bool) -> str:
    """Return the page as HTML.

    * *show_secrets*: whether it contains the secrets of the clients. Pass ``True`` only for readers on this machine.
    * *control*: whether it shows the commands of the control endpoint.
    """
    clients = tuple(authority.registry.clients.values())
    subjects = authority.registry.subjects
    emails = ", ".join(authority.registry.service_accounts)
    return fill(
        _PAGE,
        warning=WARNING,
        issuer=authority.issuer,
        audience=authority.audience,
        clients=Html("\n".join(_client_row(authority, client, show_secret=show_secrets) for client in clients)),
        users=fill(_USERS, users=", ".join(sorted(subjects))) if subjects else Html(),
        service_accounts=fill(_SERVICE_ACCOUNTS, emails=emails) if emails else Html(),
        token_commands=_commands(
            _token_command(authority, client) for client in clients if show_secrets and not client.is_public
        ),
        endpoints=_commands(f"curl -s {authority.url(endpoint)}" for endpoint in (Endpoint.METADATA, Endpoint.JWKS)),
        switches=_switches(authority) if control else Html(),
    )


def _client_row(authority: Authority, client: Client, *, show_secret: bool) -> Html:
    return fill(
        _CLIENT,
        client_id=client.client_id,
        secret=_secret(client, show=show_secret),
        scopes=" ".join(client.scopes),
        audiences=" ".join(client.audiences or (authority.audience,)),
        token_format=str(client.token_format),
        lifetime=str(client.lifetime),
    )


def _secret(client: Client, *, show: bool) -> str:
    if client.is_public:
        return "none, a public client"
    return client.secret if show else "not shown to other machines"


def _token_command(authority: Authority, client: Client) -> str:
    credentials = shlex.quote(f"{client.client_id}:{client.secret}")
    return f"curl -s -u {credentials} -d grant_type=client_credentials {authority.url(Endpoint.TOKEN)}"


def _switches(authority: Authority) -> Html:
    base = authority.issuer.rstrip("/")
    return fill(
        _SWITCHES,
        endpoints=", ".join(Endpoint),
        modes=", ".join(Mode),
        outages=", ".join(Outage),
        commands=_commands(
            f"curl -s -H 'Content-Type: application/json' -d {shlex.quote(body)} {base}/control/{action}"
            for action, body in _CONTROL_BODIES.items()
        ),
    )
