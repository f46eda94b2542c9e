"""Recognize hosts outside the public internet: special-purpose addresses (RFC 6890), special-use names (RFC 6761).

The lists follow the IANA registries "IPv4 Special-Purpose Address Space", "IPv6 Special-Purpose Address Space" and
"Special-Use Domain Names", and add what clouds, networks and clusters use. :mod:`ipaddress` is not used for this,
because its ``is_global`` differs between versions of Python and includes addresses that other protocols map to internal
ones.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_IPV4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; metadata of Alibaba Cloud
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # not in the registry; the host of each virtual machine in Azure
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast tunneling
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
# Global unicast is 2000::/3 (RFC 4291 section 2.4). Loopback, unique local, link-local, site-local and multicast
# addresses are outside of it, and so are the prefixes for IPv4 addresses: mapped, compatible, SIIT, NAT64.
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_IPV6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo and ORCHID among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which contains an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # 6bone, no longer in use
            "3fff::/20",  # documentation
        ),
    )
)
# RFC 5214 section 6.1: these 32 bits and an IPv4 address are the last 64 bits of an ISATAP address.
_ISATAP: Final = frozenset((0x00005EFE, 0x02005EFE))

# Top-level domains that the public DNS does not have. "test" is not listed. RFC 6761 section 6.2: "Application software
# SHOULD NOT recognize test names as special, and SHOULD use test names as they would other domain names." Section 6.5
# says the same of "example".
_NOT_PUBLIC: Final = frozenset(
    (
        # RFC 6761, RFC 6762, RFC 7686, RFC 9476. arpa is listed because of home.arpa (RFC 8375);
        # no public server has a name below it.
        "alt", "arpa", "invalid", "local", "localhost", "onion",
        # reserved by ICANN for private networks, in 2024 and 2018
        "internal", "corp", "home", "mail",
        # RFC 6762 appendix G, and names that operating systems and clusters use
        "intranet", "lan", "private", "localdomain", "localdomain4", "localdomain6", "domain", "workgroup",
        "svc", "pod", "cluster", "default", "consul", "docker",
    )
)  # fmt: skip

_NAME: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+"


def is_special(host: str) -> bool:
    """Return whether *host*, an address or a name in canonical form, is outside the public internet.

    NOT checked: which address a name resolves to. A public name may resolve to an internal address.
    """
    try:
        return _is_special_address(ip_address(host))
    except ValueError:
        pass
    # A public name has several labels, and no top-level domain begins with a digit. Resolvers read "127.1" and
    # "0x7f000001" as addresses.
    top = host.rpartition(".")[2]
    return not re.fullmatch(_NAME, host) or top[0].isdigit() or top in _NOT_PUBLIC


def _is_special_address(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in _IPV4)
    return (
        address.scope_id is not None
        or address not in _GLOBAL_UNICAST
        or any(address in network for network in _IPV6)
        or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    )
