"""Settings of the places where a request may carry its access token or its API key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from scopeguard.config.body_limits import FORM_TIMEOUT, LARGEST_FORM
from scopeguard.config.checks import (
    Converted,
    converted,
    items,
    member,
    positive,
    strings,
    whole,
)
from scopeguard.config.trusted_proxies import Proxies
from scopeguard.errors import ConfigurationError

if TYPE_CHECKING:
    from scopeguard.config.api_keys import ApiKeys

LARGEST_TOKEN: Final = 16 * 1024
"""Bytes of a token in a request, unless ``max_token_bytes`` says otherwise, and of a token in a file."""


class TokenSource(StrEnum):
    """A place in a request where an access token may be."""

    HEADER = "header"  # the Authorization field (RFC 6750 §2.1)
    QUERY = "query"  # the parameter access_token of the URL (RFC 6750 §2.3)
    FORM = "form"  # the parameter access_token of a form in the body (RFC 6750 §2.2)
    FORWARDED = "forwarded"  # X-Forwarded-Authorization, for gateways that need Authorization for themselves
    SUBPROTOCOL = "subprotocol"  # Sec-WebSocket-Protocol, the only field that a browser can set for a websocket
    API_KEY = "api_key"  # an API key instead of a token, in the field that ApiKeys.header names


class StrayQueryToken(StrEnum):
    """The treatment of ``?access_token=`` if the query is not a token source."""

    IGNORE = "ignore"  # OAuth 2.1 §5.1
    REFUSE = "refuse"  # with 400 (FAPI 2.0 §5.3.4)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SourceLimit:
    """The places that a profile allows.

    * ``allowed``: the places.
    * ``refuse_query``: refuse tokens in the query with 400, instead of ignoring them.
    * ``profile``: the profile and its standard, for messages.
    """

    allowed: frozenset[TokenSource]
    refuse_query: bool
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSources:
    """The places in a request that may hold the token. A request with tokens in more than one of them is refused.

    * ``methods``: one or more :class:`TokenSource` or their values. The attribute has the members. All but ``"header"``
      are opt-in:

      * ``"query"``: URLs are stored in logs and browser histories, and sent in ``Referer`` fields (RFC 6750 §5.3).
      * ``"form"``: the body is read before the app runs.
      * ``"forwarded"``: ``X-Forwarded-Authorization: Bearer <token>``. It is read from ``trusted_proxies`` only and
        ignored from others. The gateway must remove the field from the requests of its own callers. Otherwise they
        choose the token, and the check of the gateway has no effect.
      * ``"subprotocol"``: the token of a websocket, in either form of :mod:`scopeguard.spec.subprotocol`. ASGI only.
      * ``"api_key"``: an API key instead of a token. The guard needs ``api_keys``. Alone, it refuses tokens.

      Credentials of the last three are removed from the request before the app runs.

    * ``stray_query_token``: the treatment of ``?access_token=`` if ``"query"`` is not among ``methods``: a
      :class:`StrayQueryToken` or its value. The attribute is the member.
    * ``max_token_bytes``: the largest token.
    * ``max_form_bytes``: the largest form that may carry a token. A larger one gets 413.
    * ``max_parameters``: the largest number of parameters in a query or a form. More are refused with 400.
    * ``form_timeout``: seconds within which the form must arrive. Afterwards the answer is 408. ASGI only: a WSGI app
      cannot stop waiting for its server.
    * ``trusted_proxies``: the senders whose ``X-Forwarded-Authorization`` is read: IP addresses, networks, ``"unix"``
      for a Unix socket, or ``"*"`` alone for every sender.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    methods: Converted[Iterable[str], frozenset[TokenSource]] = converted(frozenset((TokenSource.HEADER,)))
    stray_query_token: Converted[str, StrayQueryToken] = converted(StrayQueryToken.IGNORE)
    max_token_bytes: int = LARGEST_TOKEN
    max_form_bytes: int = LARGEST_FORM
    max_parameters: int = 1000
    form_timeout: float = FORM_TIMEOUT
    trusted_proxies: Converted[Iterable[str], tuple[str, ...]] = converted(())
    # The same as ``methods``. Each request looks at them, and hashing a member of an enumeration takes longer.
    in_header: bool = field(init=False, repr=False, compare=False)
    in_query: bool = field(init=False, repr=False, compare=False)
    in_form: bool = field(init=False, repr=False, compare=False)
    in_forwarded: bool = field(init=False, repr=False, compare=False)
    in_subprotocol: bool = field(init=False, repr=False, compare=False)
    in_api_key: bool = field(init=False, repr=False, compare=False)
    _proxies: Proxies | None = field(init=False, repr=False, compare=False)  # None trusts every sender
    limit: SourceLimit | None = field(default=None, init=False, repr=False, compare=False)
    # The API keys of the guard, even on routes that take tokens only: a request with both credentials is refused.
    api_keys: ApiKeys | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", check_sources(self.methods, "token_sources"))
        for source in TokenSource:
            object.__setattr__(self, f"in_{source.value}", source in self.methods)
        stray = member(StrayQueryToken, self.stray_query_token, "stray_query_token")
        object.__setattr__(self, "stray_query_token", stray)
        for name in ("max_token_bytes", "max_form_bytes", "max_parameters"):
            whole(getattr(self, name), name)
        positive(self.form_timeout, "form_timeout")
        if stray is StrayQueryToken.REFUSE and self.in_query:
            raise ConfigurationError(
                "token_sources: stray_query_token = 'refuse' contradicts the token source 'query'; remove one"
            )
        senders = strings(self.trusted_proxies, "token_sources: trusted_proxies")
        object.__setattr__(self, "trusted_proxies", senders)
        trusts_all = "*" in senders
        if trusts_all and len(senders) > 1:
            raise ConfigurationError(
                'token_sources: trusted_proxies: "*" includes all other senders; remove "*" or the others'
            )
        proxies = None if trusts_all else Proxies(senders, "token_sources: trusted_proxies")
        object.__setattr__(self, "_proxies", proxies)

    def check_senders(self) -> None:
        """Raise :class:`ConfigurationError` if a source lacks a setting: trusted senders, or the API keys."""
        if self.in_api_key and self.api_keys is None:
            raise ConfigurationError('token_sources: "api_key" needs api_keys, as in Guard(api_keys=ApiKeys(...))')
        if self.in_forwarded and not self.trusted_proxies:
            raise ConfigurationError(
                'token_sources: "forwarded" needs trusted_proxies, the senders of X-Forwarded-Authorization, as in '
                'TokenSources(methods=["forwarded"], trusted_proxies=["10.0.0.0/8"])'
            )

    def trusts(self, sender: str | None) -> bool:
        """Return whether ``X-Forwarded-Authorization`` is read from *sender*. ``None`` is a Unix socket."""
        return self._proxies is None or self._proxies.trusts(sender)

    def with_methods(self, methods: Iterable[str]) -> Self:
        """Return these settings with other *methods*, for a route with token sources of its own.

        They may include the query, even with ``stray_query_token="refuse"``. If a profile does not allow a place, this
        raises :class:`ConfigurationError`.
        """
        chosen = check_sources(methods, "token_sources")
        stray = StrayQueryToken.IGNORE if TokenSource.QUERY in chosen else self.stray_query_token
        changed = replace(self, methods=chosen, stray_query_token=stray).with_api_keys(self.api_keys)
        return changed if self.limit is None else changed.limit_to(self.limit)

    def with_api_keys(self, api_keys: ApiKeys | None) -> Self:
        """Return these settings for a guard with *api_keys*."""
        if api_keys is self.api_keys:
            return self
        changed = replace(self)
        object.__setattr__(changed, "limit", self.limit)
        object.__setattr__(changed, "api_keys", api_keys)
        return changed

    @property
    def only_api_keys(self) -> bool:
        """Whether API keys are accepted, and tokens are not."""
        return self.in_api_key and len(self.methods) == 1

    def limit_to(self, limit: SourceLimit) -> Self:
        """Return these settings with *limit*. Raises :class:`ConfigurationError` for a place that it does not allow."""
        refused = sorted(self.methods - limit.allowed)
        if refused:
            raise ConfigurationError(
                f"token_sources: {', '.join(refused)} contradicts {limit.profile}, which allows "
                f"{', '.join(sorted(limit.allowed))}; remove it"
            )
        stray = StrayQueryToken.REFUSE if limit.refuse_query else self.stray_query_token
        changed = replace(self, stray_query_token=stray).with_api_keys(self.api_keys)
        object.__setattr__(changed, "limit", limit)
        return changed


def check_sources(methods: Iterable[str], setting: str) -> frozenset[TokenSource]:
    """Return *methods* as token sources. Raises :class:`ConfigurationError` that names *setting*."""
    if isinstance(methods, str):
        raise ConfigurationError(f'{setting}: write a list, as in ["header"], not one string')
    listed = items(methods, setting, 'a list of places, as in ["header"]')
    chosen = frozenset(member(TokenSource, method, setting) for method in listed)
    if not chosen:
        raise ConfigurationError(f'{setting}: name at least one place where a token may be sent, as in ["header"]')
    return chosen


def kinds_of_credentials(sources: frozenset[TokenSource] | None) -> tuple[bool, bool] | None:
    """Return whether *sources* accept API keys, and whether they accept tokens. The place of a token is irrelevant.

    The result is ``None`` for the sources of the guard.
    """
    return None if sources is None else (TokenSource.API_KEY in sources, sources != {TokenSource.API_KEY})


def join_sources(
    first: frozenset[TokenSource] | None, other: frozenset[TokenSource] | None
) -> frozenset[TokenSource] | None:
    """Return the sources for a request to which two settings apply: *first*, unless they disagree about API keys.

    ``None`` is the setting of the guard. If one of them accepts API keys or refuses tokens, the result is what both
    accept, which may be nothing: a setting must not open a route to another kind of credential. Otherwise *first*
    holds, because the place of a token grants no rights.
    """
    if first is None:
        return first if other is None or TokenSource.API_KEY in other else other
    if other is None:
        return first - {TokenSource.API_KEY}
    return first & other if TokenSource.API_KEY in first | other else first
