"""Issuers that are not known when the guard is made: one for each tenant, say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scopeguard.config.checks import positive, whole
from scopeguard.config.issuer import Issuer
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerResolver:
    """Finds the :class:`Issuer` for an ``iss`` that none of the configured issuers has. Times are in seconds.

    The ``iss`` comes from a token that nobody has verified: *accepts* is what keeps strangers from having anything
    looked up, so match the whole of it, as ``re.fullmatch`` does, and never fetch what it names.

    * ``accepts``: whether it may be one of yours: ``True`` or ``False``, from the text alone. Called for every token
      of an issuer that is not known, in the event loop too: no I/O.
    * ``resolve``: its settings, whose ``url`` must then be that very text, or ``None``, "not ours". Called once for
      all who wait, never in an event loop: it may block. If it returns an awaitable, that is run in an event loop of
      its own (asyncio, by ``anyio.run``): connections that belong to the app's loop cannot be used in it. For the same
      reason ``Guard.check`` cannot be called where an event loop runs; ``Guard.acheck`` can. Give it a time limit of
      its own: none is set here.
    * ``max_issuers``: so many are held, and so many "not ours"; the one used longest ago goes first, with its keys.
      An issuer of which no token was accepted yet gets the room that is left, at least for one more, and pushes out
      only others like it.
    * ``ttl``: after so long it is asked again. Settings that are equal keep the keys.
    * ``negative_ttl``: how long "not ours" is believed.

    :class:`~scopeguard.errors.AuthorityUnavailable` raised by ``resolve`` is answered 503. Any other exception of
    either function is a mistake that the server answers with 500; so is an issuer with another ``url``, with
    ``token_header`` or with ``opaque_prefixes``, which would be needed before there is a token. After any failure the
    same ``iss`` is not looked up for a second (503), others are. Nothing of it lets anybody in.
    """

    accepts: Callable[[str], bool]
    resolve: Callable[[str], Issuer | Awaitable[Issuer | None] | None]
    max_issuers: int = 1000
    ttl: float = 3600.0
    negative_ttl: float = 30.0

    def __post_init__(self) -> None:
        for name in ("accepts", "resolve"):
            if not callable(getattr(self, name)):
                raise ConfigurationError(f"resolver.{name}: a function of the iss, a string")
        whole(self.max_issuers, "resolver.max_issuers")
        for name in ("ttl", "negative_ttl"):
            positive(getattr(self, name), f"resolver.{name}")
