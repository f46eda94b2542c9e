"""The proxies whose header fields are trusted, and the fields that show that a request came through a proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from scopeguard.config.checks import strings
from scopeguard.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNIX: Final = "unix"
SIGNS_OF_A_PROXY: Final = (
    "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
    "x-forwarded-server", "x-forwarded-by", "x-forwarded-prefix", "x-forwarded-scheme", "x-forwarded-ssl",
    "x-original-forwarded-for", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip",
    "x-envoy-external-address", "x-cluster-client-ip",
)  # fmt: skip
"""Fields that proxies add. A request with one of them did not come straight from a program on this machine.

Only their presence counts. Their values are not read.
"""


class Proxies:
    """A set of trusted proxies.

    *addresses* are IP addresses, networks (``10.0.0.0/8``), or ``unix`` for any sender on the server's Unix socket.
    Host names are not accepted. Raises :class:`ConfigurationError`, with *setting* as its name.
    """

    def __init__(self, addresses: Iterable[str] = (), setting: str = "trusted_proxies") -> None:
        given = strings(addresses, setting)
        self._unix = _UNIX in given
        try:
            self._networks = tuple(ipaddress.ip_network(address) for address in given if address != _UNIX)
        except ValueError as problem:
            raise ConfigurationError(
                f"{setting}: {problem}; write an IP address, a network as in 10.0.0.0/8, or unix"
            ) from None

    def trusts(self, sender: str | None) -> bool:
        """Return whether *sender*, an address, is trusted. ``None`` is the other end of a Unix socket."""
        if sender is None:
            return self._unix
        address = address_of(sender)
        return address is not None and any(
            address in network for network in self._networks if network.version == address.version
        )


def address_of(text: str) -> Address | None:
    """Return the address in *text*, without its port, or ``None``. An IPv4-mapped IPv6 address becomes IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # A scope id is valid on the sender's machine only, and ipaddress accepts any text as one.
    return None if address.scope_id is not None else address.ipv4_mapped or address
