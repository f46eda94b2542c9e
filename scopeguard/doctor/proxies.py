"""Compare the trusted proxies with the address that the server listens on. Does no I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scopeguard.config.hosts import is_loopback
from scopeguard.config.trusted_proxies import Proxies, address_of
from scopeguard.doctor.finding import Finding, error, ok, warning

_CHECK: Final = "proxies"
_SERVER: Final = "server"
_UNIX: Final = "unix"
_BROAD: Final = {4: 8, 6: 16}  # prefix lengths; a shorter one covers more than any private network


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """The address of the server, and the senders that it trusts.

    * ``host``: the address that it listens on; ``None`` for a Unix socket.
    * ``trusted``: the proxies whose header fields it trusts.
    * ``needs_https``: whether the guard refuses tokens that come in cleartext (``require_https``).
    """

    host: str | None
    trusted: tuple[str, ...] = ()
    needs_https: bool = False


def check_server(server: ServerAddress) -> list[Finding]:
    """Check the address and the trusted proxies of *server*, as the options of ``scopeguard serve`` give them."""
    findings = [*check_trusted(_SERVER, "--trusted-proxy", server.trusted), *_check_reach(server)]
    if not server.trusted and not (server.host is not None and is_loopback(server.host)):
        findings.append(_check_unproxied(server))
    if not findings:
        listens = "a Unix socket" if server.host is None else server.host
        findings.append(ok(_SERVER, _CHECK, f"{listens}, trusted proxies: {', '.join(server.trusted) or 'none'}"))
    return findings


def check_trusted(subject: str, setting: str, trusted: Sequence[str]) -> list[Finding]:
    """Check that *trusted*, the value of *setting*, does not cover everyone. Raises ``ConfigurationError``."""
    Proxies(trusted, setting)
    findings: list[Finding] = []
    for text in trusted:
        network = None if text == _UNIX else ipaddress.ip_network(text)
        if network is not None and network.prefixlen < _BROAD[network.version]:
            found = f"{setting} {text}: any sender in this network can set the client's address and the scheme"
            fix = "name the addresses of the proxies, or the network that only they are in"
            make = error if network.prefixlen == 0 else warning
            findings.append(make(subject, _CHECK, found, fix=fix))
    return findings


def _check_reach(server: ServerAddress) -> list[Finding]:
    """Report trusted proxies that cannot be the sender of a request to this server."""
    findings: list[Finding] = []
    if server.host is None:
        if server.trusted and _UNIX not in server.trusted:
            text = (
                "the server listens on a Unix socket, and no trusted proxy is named unix: forwarded fields are removed"
            )
            findings.append(warning(_SERVER, _CHECK, text, fix="add --trusted-proxy unix"))
        return findings
    if _UNIX in server.trusted:
        text = "the trusted proxy unix has no effect without a Unix socket"
        findings.append(warning(_SERVER, _CHECK, text, fix="remove it, or listen on a Unix socket (--uds)"))
    networks = [ipaddress.ip_network(text) for text in server.trusted if text != _UNIX]
    far = [str(network) for network in networks if not network.is_loopback]
    if is_loopback(server.host) and far:
        text = f"the server listens on {server.host}, which {', '.join(far)} cannot reach"
        findings.append(warning(_SERVER, _CHECK, text, fix="trust 127.0.0.1, or listen on an address of that network"))
    return findings


def _check_unproxied(server: ServerAddress) -> Finding:
    listens = "on a Unix socket" if server.host is None else f"on {server.host}, in cleartext,"
    if server.needs_https:
        text = f"the server listens {listens} and trusts no proxy: require_https refuses every token from another host"
        return error(_SERVER, _CHECK, text, fix="name the proxy that ends TLS with --trusted-proxy")
    address = None if server.host is None else address_of(server.host)
    where = "other machines can read tokens on the network" if address is not None else "the app sees no client address"
    fix = "put a proxy that ends TLS in front, and name it with --trusted-proxy"
    return warning(_SERVER, _CHECK, f"the server listens {listens} and trusts no proxy: {where}", fix=fix)
