"""Hosts of URLs and settings: which ones are loopback, how they are compared, and how they are written with a port."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from scopeguard.config.checks import strings
from scopeguard.errors import ConfigurationError

# These two are compiled when a setting needs them, which few settings do.
_HOST: Final = r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*:[0-9a-f:.]*"
_HOST_AND_PORT: Final = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"
# The sender of each request without TLS is checked, and ip_address() takes up to 12 microseconds.
_USUAL_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost", "::ffff:127.0.0.1")
_BEGINNINGS_OF_LOOPBACK: Final = ("127.", "::1", "::ffff:127.", "::ffff:7f", "0")


def is_loopback(host: str) -> bool:
    """Return whether *host* is a loopback address or ``localhost``. Names are not resolved.

    Loopback addresses are 127.0.0.0/8 (RFC 6890 §2.2.2), ::1, and the IPv4-mapped addresses that a socket for both
    address families reports. An address with a zone, as in ``::1%lo``, is not:
    ``ipaddress`` accepts any text as a zone.
    """
    if host in _USUAL_LOOPBACK:
        return True
    if not host.startswith(_BEGINNINGS_OF_LOOPBACK):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        return address.scope_id is None and (address.ipv4_mapped or address).is_loopback
    return address.is_loopback


def canonical_host(host: str) -> str:
    """Return *host* of a URL in a form for comparisons: lower case, without a final dot, addresses in shortest form."""
    lowered = host.lower().rstrip(".")
    try:
        address = ip_address(lowered)
    except ValueError:
        return lowered
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"


def host_and_port(url: str) -> str:
    """Return ``"name:port"`` of *url*, a valid URL, in lower case. The default port of its scheme is added."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    return join_host_port(host, port)


def join_host_port(host: str, port: int) -> str:
    """Return *host* and *port* as URLs contain them, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def origin_of(url: str) -> str:
    """Return the origin of *url*, a valid URL, with its port (RFC 6454 §4)."""
    return f"{urlsplit(url).scheme}://{host_and_port(url)}"


def insecure_hosts(values: object) -> frozenset[str]:
    """Return *values*, a list of ``"name:port"``, in lower case.

    Raises :class:`ConfigurationError` for a single string, a URL, a name without a port and a pattern.
    """
    setting = "insecure_http_dangerously"
    if isinstance(values, str):
        raise ConfigurationError(f'{setting}: must be a list, as in ["keycloak:8080"], not a string')
    found = strings(values, setting)
    for item in found:
        if not re.fullmatch(_HOST_AND_PORT, item) or not 0 < int(item.rpartition(":")[2]) < 65536:
            raise ConfigurationError(
                f'{setting}: {item!r} is not a host with a port; write it as in "keycloak:8080", without a scheme, '
                "a path or a wildcard"
            )
    return frozenset(item.lower() for item in found)


def host_names(values: object, setting: str) -> tuple[str, ...]:
    """Return *values*, host names or addresses, in their canonical form and without duplicates."""
    hosts = strings(values, setting)
    for host in hosts:
        if not re.fullmatch(_HOST, canonical_host(host.removeprefix("[").removesuffix("]"))):
            raise ConfigurationError(
                f"{setting}: {host!r} is not a host; write a name or an address, without a scheme and a port"
            )
    return tuple(dict.fromkeys(canonical_host(host.removeprefix("[").removesuffix("]")) for host in hosts))
