"""The options and the help of ``scopeguard authorize``."""

from __future__ import annotations

from typing import Any

import click

from scopeguard.cli.options import shared


@click.command()
@shared.config
@click.option(
    "--proxy",
    required=True,
    type=click.Choice(["nginx", "haproxy", "traefik", "caddy", "envoy"]),
    help="The proxy that asks. It determines where the original method, host and path are.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    required=True,
    metavar="ADDRESS",
    help="The IP address or network of the proxy, or unix for --uds. May be given several times. Others get 403.",
)
@click.option(
    "--claim-header",
    "claim_headers",
    multiple=True,
    metavar="CLAIM=NAME",
    help="The field for subject, client, scopes or issuer, instead of X-Auth-Subject and so on.",
)
@shared.host
@shared.port(9080)
@shared.uds
@shared.workers
@shared.readyz
@shared.access_log
def authorize(
    *, proxy: str, trusted_proxies: tuple[str, ...], claim_headers: tuple[str, ...], access_log: str, **options: Any
) -> None:
    """Answer a proxy that asks whether a request may reach an API, in any language.

    For auth_request of nginx, a Lua action of HAProxy, ForwardAuth of Traefik, forward_auth of Caddy and ext_authz of
    Envoy (HTTP). The answer is 200 with the claims of the token, or the refusal. Reload, stop and exit status are those
    of serve.
    """
    from scopeguard.server.access_log import Format
    from scopeguard.server.authorize import Proxy, Settings
    from scopeguard.server.serve import Options, run

    settings = Settings(proxy=Proxy[proxy.upper()], trusted=trusted_proxies, claim_headers=claim_headers)
    fixed: dict[str, Any] = {
        "wsgi": False,
        "factory": False,
        "threads": 1,
        "grace": shared.GRACE,
        "connections": shared.CONNECTIONS,
        "log_subjects": False,
    }
    log = Format(access_log)
    run(Options(target=proxy, access_log=log, trusted_proxies=trusted_proxies, authorize=settings, **fixed, **options))
