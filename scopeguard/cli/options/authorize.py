"""The options and the help of ``scopeguard authorize``."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--config", required=True, metavar="FILE", help="The TOML file with issuers and rules.")
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
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead; the umask sets its permissions.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 512), help="Number of processes.")
@click.option("--readyz", metavar="PATH", help="Answer GET requests for this path: 200 when tokens can be checked.")
@click.option(
    "--access-log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json", "off"]),
    help="Write a line for each answer to standard output.",
)
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
        "grace": 30,
        "connections": 1000,
        "log_subjects": False,
    }
    log = Format(access_log)
    run(Options(target=proxy, access_log=log, trusted_proxies=trusted_proxies, authorize=settings, **fixed, **options))
