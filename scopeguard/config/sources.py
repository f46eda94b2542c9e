"""Where a request may carry its access token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from scopeguard.config.checks import (
    Converted,
    converted,
    items,
    member,
    positive,
    strings,
    whole,
)
from scopeguard.config.proxies import Proxies
from scopeguard.errors import ConfigurationError


class TokenSource(StrEnum):
    """A place where an access token may be sent: those of RFC 6750 section 2, and two that are opt-in as well."""

    HEADER = "header"
    QUERY = "query"
    FORM = "form"
    FORWARDED = "forwarded"  # X-Forwarded-Authorization, of gateways that use Authorization for themselves
    SUBPROTOCOL = "subprotocol"  # Sec-WebSocket-Protocol, all that a browser can set for a websocket


class StrayQueryToken(StrEnum):
    """What to do with ``?access_token=`` where the query is not a token source."""

    IGNORE = "ignore"  # OAuth 2.1 section 5.1
    REFUSE = "refuse"  # FAPI 2.0 section 5.3.4


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSources:
    """Where tokens are looked for. More than one *enabled* place used in one request is refused.

    The query and the form are opt-in, for an API or for a route: a URL ends up in logs, histories and Referer
    headers, and reading a form means reading the body. Sizes are in bytes, ``form_timeout`` in seconds (ASGI only: a
    WSGI app cannot stop waiting for its server).

    ``"forwarded"`` is the field ``X-Forwarded-Authorization: Bearer <token>``. It is read only from senders in
    *trusted_proxies* (addresses, networks, ``"unix"``, or ``"*"`` for everybody), and from others it is as if it was
    not there. A gateway that does not remove the field from requests of its own callers lets them say whose request it
    is, beside what the gateway says. ``"subprotocol"`` is the token of a websocket, in either form of
    :mod:`scopeguard.spec.subprotocol`. Tokens are taken out of both before the app runs.

    ``methods`` and ``stray_query_token`` may be given as strings; read back are members of their enumerations.
    """

    methods: Converted[Iterable[str], frozenset[TokenSource]] = converted(frozenset((TokenSource.HEADER,)))
    stray_query_token: Converted[str, StrayQueryToken] = converted(StrayQueryToken.IGNORE)
    max_token_bytes: int = 16 * 1024
    max_form_bytes: int = 64 * 1024
    max_parameters: int = 1000
    form_timeout: float = 10.0
    trusted_proxies: Converted[Iterable[str], tuple[str, ...]] = converted(())
    # The same as ``methods``, for every request to look at: hashing a member of an enumeration takes longer.
    in_header: bool = field(init=False, repr=False, compare=False)
    in_query: bool = field(init=False, repr=False, compare=False)
    in_form: bool = field(init=False, repr=False, compare=False)
    in_forwarded: bool = field(init=False, repr=False, compare=False)
    in_subprotocol: bool = field(init=False, repr=False, compare=False)
    _proxies: Proxies | None = field(init=False, repr=False, compare=False)  # None for everybody

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", checked_sources(self.methods, "token_sources"))
        for source in TokenSource:
            object.__setattr__(self, f"in_{source.value}", source in self.methods)
        stray = member(StrayQueryToken, self.stray_query_token, "stray_query_token")
        object.__setattr__(self, "stray_query_token", stray)
        for name in ("max_token_bytes", "max_form_bytes", "max_parameters"):
            whole(getattr(self, name), name)
        positive(self.form_timeout, "form_timeout")
        if stray is StrayQueryToken.REFUSE and self.in_query:
            raise ConfigurationError("token_sources: stray_query_token = 'refuse' forbids the enabled query; drop one")
        senders = strings(self.trusted_proxies, "token_sources: trusted_proxies")
        object.__setattr__(self, "trusted_proxies", senders)
        everybody = "*" in senders
        if everybody and len(senders) > 1:
            raise ConfigurationError('token_sources: trusted_proxies = ["*"] stands alone; drop it or the others')
        proxies = None if everybody else Proxies(senders, "token_sources: trusted_proxies")
        object.__setattr__(self, "_proxies", proxies)

    def check_senders(self) -> None:
        """Raise :class:`ConfigurationError` where a field is a source and no sender of it is believed."""
        if self.in_forwarded and not self.trusted_proxies:
            raise ConfigurationError(
                'token_sources: "forwarded" needs trusted_proxies: whose X-Forwarded-Authorization is believed, as in '
                'TokenSources(methods=["forwarded"], trusted_proxies=["10.0.0.0/8"])'
            )

    def believes(self, sender: str | None) -> bool:
        """Whether ``X-Forwarded-Authorization`` from *sender*, an address or ``None`` for a Unix socket, is read."""
        return self._proxies is None or self._proxies.trusts(sender)

    def only(self, methods: Iterable[str]) -> Self:
        """These settings with other *methods*, for a route that has its own: a token in its query is no stray one."""
        chosen = checked_sources(methods, "token_sources")
        stray = StrayQueryToken.IGNORE if TokenSource.QUERY in chosen else self.stray_query_token
        return replace(self, methods=chosen, stray_query_token=stray)


def checked_sources(methods: Iterable[str], setting: str) -> frozenset[TokenSource]:
    """*methods* as token sources; :class:`ConfigurationError` names *setting* and the values it may have."""
    if isinstance(methods, str):
        raise ConfigurationError(f'{setting}: write a list, as in ["header"], not one string')
    listed = items(methods, setting, 'a list of places, as in ["header"]')
    chosen = frozenset(member(TokenSource, method, setting) for method in listed)
    if not chosen:
        raise ConfigurationError(f'{setting}: name at least one place where a token may be sent, as in ["header"]')
    return chosen
