"""The warning about hosts that are reached by http, which ``insecure_http_dangerously`` names."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

log: Final = logging.getLogger("scopeguard")


def warn_of_insecure_hosts(authority: str, hosts: Iterable[str]) -> None:
    """Log a warning for each of *hosts*, which ``insecure_http_dangerously`` names for *authority*."""
    for host in sorted(hosts):
        log.warning(
            "insecure_http_dangerously: http://%s is reached in cleartext for %s; a machine that can change this "
            "traffic can forge tokens, and one that can read it sees the credentials in it",
            host,
            authority,
        )
