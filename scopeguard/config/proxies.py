"""The senders whose header fields are believed: known proxies, by address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

from scopeguard.config.checks import strings
from scopeguard.errors import ConfigurationError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNIX: Final = "unix"


class Proxies:
    """The proxies to believe: *addresses* are IP addresses, networks, or ``unix`` for everybody who can open our Unix
    socket.

    Raises :class:`ConfigurationError` that names *setting*.
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
        """Whether *sender* is one of them; ``None`` is the other end of a Unix socket."""
        if sender is None:
            return self._unix
        address = address_of(sender)
        return address is not None and any(
            address in network for network in self._networks if network.version == address.version
        )


def address_of(text: str) -> Address | None:
    """The address that *text* is, with or without a port; an IPv4 address that is written as IPv6 is the former."""
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
    # A scope id means something on the sender's machine only, and ipaddress takes any text for one.
    return None if address.scope_id is not None else address.ipv4_mapped or address
