"""Tokens that arrive unencrypted: refuse them, or log the first one (RFC 6750 section 5.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scopeguard.config.token_sources import TokenSources
from scopeguard.errors import InvalidRequest
from scopeguard.flow.credentials import Credential
from scopeguard.log_values import printable
from scopeguard.reasons import Reason
from scopeguard.request import RequestView

if TYPE_CHECKING:
    from scopeguard.config.mutual_tls import MutualTLS

log: Final = logging.getLogger("scopeguard")

_LOOPBACK: Final = ("127.0.0.1", "::1")
_MOST_QUIET_PEERS: Final = 64


class CleartextTokens:
    """Decides about tokens that came in cleartext from another host.

    With *require_https* all of them are refused, otherwise the first one is logged. *certificates* are the settings for
    client certificates, which name trusted proxies.
    """

    watches: bool
    """False after the first one was logged."""
    quiet_peers: set[str]
    """The addresses whose cleartext is not logged: loopback, and proxies that sent ``X-Forwarded-Proto: https``."""

    def __init__(self, *, require_https: bool, certificates: MutualTLS | None) -> None:
        self._require_https = require_https
        self._certificates = certificates
        self.watches = True
        self.quiet_peers = set(_LOOPBACK)

    def without_logging(self) -> CleartextTokens:
        """Return a copy that refuses the same tokens and does not log."""
        silent = CleartextTokens(require_https=self._require_https, certificates=self._certificates)
        silent.watches = False
        return silent

    def check_before(
        self, following: Callable[[Credential], None] | None, request: RequestView, sources: TokenSources
    ) -> Callable[[Credential], None]:
        """Return a function that checks the unencrypted *request* once its token is found, and calls *following*."""

        def check(credential: Credential) -> None:
            self._refuse_or_log(request, sources)
            if following is not None:
                following(credential)

        return check

    def _refuse_or_log(self, request: RequestView, sources: TokenSources) -> None:
        if self._require_https:
            raise InvalidRequest(Reason.HTTPS_REQUIRED, scheme="http", client=request.client)
        if not self.watches:
            return
        certificates = self._certificates
        is_proxy = sources.trusts(request.client) or (certificates is not None and certificates.trusts(request.client))
        if is_proxy and request.headers.get_all("x-forwarded-proto") == [b"https"]:
            if request.client is not None and len(self.quiet_peers) < _MOST_QUIET_PEERS:
                self.quiet_peers.add(request.client)
            return
        self.watches = False
        log.warning(
            "%s sent a token in cleartext http; put TLS in front, and set require_https; if that is a proxy which ends "
            "TLS, let the server trust its X-Forwarded-Proto (docs/servers.md)",
            printable(request.client, 60),
        )
