"""Write the configurations of proxies that ask ``scopeguard authorize``: ``python examples/proxies/generate.py``.

All of them come from the same :class:`Places` and the same names of claim fields, and are tested with the real proxies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLAIMS = ("X-Auth-Subject", "X-Auth-Client", "X-Auth-Scopes", "X-Auth-Issuer")
METADATA = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The ports of the proxy, the API and ``scopeguard authorize``, all on this machine."""

    proxy: int = 8080
    api: int = 8000
    authorize: int = 9080


def nginx(places: Places) -> str:
    """Return ``nginx.conf``."""
    variables = {name: "$" + name.lower().replace("-", "_") for name in CLAIMS}
    read = "\n".join(
        f"            auth_request_set {variable} $upstream_http_{variable[1:]};" for variable in variables.values()
    )
    # An empty value removes the field, and this line replaces what the client sent under the name.
    write = "\n".join(f"            proxy_set_header {name} {variable};" for name, variable in variables.items())
    statuses = "\n".join(
        f"            if ($authorize_status = {status}) {{ return {status}; }}"
        for status in (400, 404, 405, 408, 413, 431)
    )
    return f"""\
events {{}}

http {{
    access_log off;
    large_client_header_buffers 4 16k;
    underscores_in_headers off;         # X_Auth_Subject is X-Auth-Subject to some servers

    server {{
        listen 127.0.0.1:{places.proxy};

        location / {{
            auth_request /_authorize;
            auth_request_set $authorize_status $upstream_status;
            auth_request_set $authorize_challenge $upstream_http_www_authenticate;
            auth_request_set $authorize_retry $upstream_http_retry_after;
            auth_request_set $authorize_nonce $upstream_http_dpop_nonce;
{read}
            add_header DPoP-Nonce $authorize_nonce always;
            error_page 403 = @forbidden;        # nginx passes the challenge on with 401 only
            error_page 500 = @not_authorized;   # nginx turns any other refusal into 500

            proxy_pass http://127.0.0.1:{places.api};       # without a path, which would be decoded
            proxy_set_header Host $http_host;
{write}
        }}

        location = /_authorize {{
            internal;
            proxy_pass http://127.0.0.1:{places.authorize}/authorize;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-Host $http_host;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}

        location @forbidden {{
            add_header WWW-Authenticate $authorize_challenge always;
            add_header DPoP-Nonce $authorize_nonce always;
            return 403;
        }}

        location @not_authorized {{
            add_header WWW-Authenticate $authorize_challenge always;
            add_header Retry-After $authorize_retry always;
{statuses}
            return 503;         # an outage, of an authorization server or of scopeguard authorize
        }}

        location {METADATA} {{
            proxy_pass http://127.0.0.1:{places.authorize};
        }}
    }}
}}
"""


def envoy(places: Places) -> str:
    """Return ``envoy.json``."""
    filters = "type.googleapis.com/envoy.extensions.filters.http"
    network = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    sent = (
        "authorization",
        "dpop",
        "cookie",
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
    )
    asked = [*sent, "x-forwarded-proto", "x-forwarded-for"]
    service = {
        "server_uri": {"uri": f"http://127.0.0.1:{places.authorize}", "cluster": "authorize", "timeout": "10s"},
        "path_prefix": "/authorize",
        "authorization_response": {"allowed_upstream_headers": _exactly(list(CLAIMS))},
    }
    chain = [
        {
            "name": "remove_claims",
            "typed_config": {
                "@type": f"{filters}.header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": [{"remove": name} for name in CLAIMS]},
            },
        },
        {
            "name": "authorize",
            "typed_config": {
                "@type": f"{filters}.ext_authz.v3.ExtAuthz",
                "http_service": service,
                "allowed_headers": _exactly(asked),
                "status_on_error": {"code": "ServiceUnavailable"},
                "failure_mode_allow": False,
            },
        },
        {"name": "router", "typed_config": {"@type": f"{filters}.router.v3.Router"}},
    ]
    manager: dict[str, Any] = {
        "@type": f"{network}.HttpConnectionManager",
        "stat_prefix": "api",
        "use_remote_address": True,
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "http_filters": chain,
        "route_config": {
            "virtual_hosts": [
                {"name": "api", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}]}
            ]
        },
    }
    listener = {
        "name": "api",
        "address": _address(places.proxy),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [_cluster("api", places.api), _cluster("authorize", places.authorize)]
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}, indent=2) + "\n"


def _exactly(names: list[str]) -> dict[str, Any]:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def caddy(places: Places) -> str:
    """Return the ``Caddyfile``."""
    # Some servers take X_Auth_Subject for X-Auth-Subject, and Caddy passes both.
    names = [name.replace("-", first, 1) for name in CLAIMS for first in "-_"]
    spellings = sorted({second.join(name.rsplit("-", 1)) for name in names for second in "-_"})
    removed = "\n".join(f"\t\trequest_header -{name}" for name in spellings)
    return f"""\
{{
	admin off
	auto_https off
}}

http://:{places.proxy} {{
	bind 127.0.0.1
	route {{
{removed}
		reverse_proxy {METADATA}* 127.0.0.1:{places.authorize}
		forward_auth 127.0.0.1:{places.authorize} {{
			uri /authorize
			copy_headers {" ".join(CLAIMS)}
		}}
		reverse_proxy 127.0.0.1:{places.api}
	}}
	handle_errors {{
		respond 503
	}}
}}
"""


def haproxy(places: Places) -> str:
    """Return ``haproxy.cfg``, which loads ``haproxy.lua`` from the current directory."""
    variables = {name: "txn.authorize." + name.lower().replace("-", "_") for name in CLAIMS}
    # HAProxy has all names in lower case. Some servers take X_Auth_Subject for X-Auth-Subject.
    pattern = "|".join(name.lower().replace("-", "[-_]") for name in CLAIMS)
    write = "\n".join(
        f"    http-request set-header {name} %[var({variable})] if {{ var({variable}) -m found }}"
        for name, variable in variables.items()
    )
    return f"""\
global
    lua-load-per-thread haproxy.lua

defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s

frontend api
    bind 127.0.0.1:{places.proxy}
    acl metadata path_beg {METADATA}
    http-request del-header ^({pattern})$ -m reg
    http-request lua.authorize http://127.0.0.1:{places.authorize}/authorize unless metadata
    http-request deny deny_status 503 unless metadata or {{ var(txn.authorized) -m bool }}
{write}
    http-request set-uri %[pathq] unless metadata       # what was judged, without the host of an absolute URI
    http-response set-header DPoP-Nonce %[var(txn.authorize.dpop_nonce)] if {{ var(txn.authorize.dpop_nonce) -m found }}
    use_backend authorize if metadata
    default_backend api

backend api
    server api 127.0.0.1:{places.api}

backend authorize
    server authorize 127.0.0.1:{places.authorize}
"""


def traefik(places: Places) -> str:
    """Return ``traefik.yaml``, the static configuration."""
    return f"""\
entryPoints:
  api:
    address: 127.0.0.1:{places.proxy}
    http:
      sanitizePath: false               # rules and DPoP proofs are compared with the path that the client sent
      aliasHeadersStrategy: delete      # X_Auth_Subject is X-Auth-Subject to some servers
providers:
  file:
    filename: traefik-routes.yaml
"""


def traefik_routes(places: Places) -> str:
    """Return ``traefik-routes.yaml``, the dynamic configuration."""
    names = "\n".join(f"          - {name}" for name in CLAIMS)
    return f"""\
http:
  routers:
    api:
      rule: PathPrefix(`/`)
      middlewares: [authorize]
      service: api
    metadata:
      rule: PathPrefix(`{METADATA}`)
      service: authorize
  middlewares:
    authorize:
      forwardAuth:
        address: http://127.0.0.1:{places.authorize}/authorize
        authResponseHeaders:            # these replace what the client sent under the names
{names}
  services:
    api:
      loadBalancer:
        servers:
          - url: http://127.0.0.1:{places.api}
    authorize:
      loadBalancer:
        servers:
          - url: http://127.0.0.1:{places.authorize}
"""


FILES = {
    "nginx.conf": nginx,
    "envoy.json": envoy,
    "Caddyfile": caddy,
    "haproxy.cfg": haproxy,
    "traefik.yaml": traefik,
    "traefik-routes.yaml": traefik_routes,
}

if __name__ == "__main__":
    for name, write in FILES.items():
        (Path(__file__).parent / name).write_text(write(Places()), "utf-8")
