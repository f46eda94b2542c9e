"""Hosts that are not on the public internet: special-purpose addresses (RFC 6890) and special-use names (RFC 6761).

The lists are those of the IANA registries "IPv4 Special-Purpose Address Space", "IPv6 Special-Purpose Address Space",
and "Special-Use Domain Names", with what networks use besides. They are written out, because what :mod:`ipaddress`
calls global differs between versions of Python, and includes addresses that another protocol maps to internal ones.
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
            "168.63.129.16/32",  # not in the registry: the host of every virtual machine of Azure
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
# Global unicast is 2000::/3 (RFC 4291 section 2.4). Outside of it are loopback, unique local, link-local, site-local,
# and multicast addresses, and every prefix that stands for IPv4: mapped, compatible, SIIT, NAT64.
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
# RFC 5214 section 6.1: the last 64 bits of an ISATAP address contain an IPv4 address behind these.
_ISATAP: Final = frozenset((0x00005EFE, 0x02005EFE))

# Top-level domains that the public DNS does not have. "test" and "example" are not among them: "application software
# SHOULD NOT recognize" those as special (RFC 6761 sections 6.2 and 6.5).
_NOT_PUBLIC: Final = frozenset(
    (
        # RFC 6761, RFC 6762, RFC 7686, RFC 9476; arpa, with home.arpa (RFC 8375), names no servers
        "alt", "arpa", "invalid", "local", "localhost", "onion",
        # reserved by ICANN for networks of one's own, in 2024 and 2018
        "internal", "corp", "home", "mail",
        # RFC 6762 appendix G, and what systems and clusters use
        "intranet", "lan", "private", "localdomain", "localdomain4", "localdomain6", "domain", "workgroup",
        "svc", "pod", "cluster", "default", "consul", "docker",
    )
)  # fmt: skip

_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")


def is_special(host: str) -> bool:
    """Whether *host*, an address or a name in canonical form, is special-purpose.

    A name is judged by itself: it is not looked up, and one of the public DNS may lead to an internal address.
    """
    try:
        return _is_special_address(ip_address(host))
    except ValueError:
        pass
    # No public name has a single label, and no top-level domain begins with a digit: such a text is an address, as in
    # "127.1" and "0x7f000001".
    top = host.rpartition(".")[2]
    return not _NAME.fullmatch(host) or top[0].isdigit() or top in _NOT_PUBLIC


def _is_special_address(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in _IPV4)
    return (
        address.scope_id is not None
        or address not in _GLOBAL_UNICAST
        or any(address in network for network in _IPV6)
        or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    )
