"""Issuers that are not known when the guard is constructed, such as one for each tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scopeguard.config.checks import positive, whole
from scopeguard.config.issuer import Issuer
from scopeguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerResolver:
    """Finds the :class:`Issuer` for an ``iss`` that no configured issuer has.

    The ``iss`` comes from a token that is not verified yet, and any caller can choose it. ``accepts`` limits which
    look-ups a caller can cause. So it must match the whole text, as ``re.fullmatch`` does. Do not fetch anything from
    the ``iss`` itself.

    * ``accepts``: a function that returns whether the ``iss`` may belong to an issuer of yours. It is called for every
      token of an unknown issuer, even in the event loop, so it must not do I/O.
    * ``resolve``: a function that returns the :class:`Issuer`, or ``None`` if there is none. The ``url`` of the issuer
      must be exactly the ``iss``. It is called once for all waiting requests. It may block, because it never runs in an
      event loop. An awaitable that it returns runs in an event loop of its own (asyncio, by ``anyio.run``), where
      connections of the app's loop cannot be used; for the same reason ``Guard.check`` cannot be called in a running
      loop, but ``Guard.acheck`` can. It has no time limit unless it sets one.
    * ``max_issuers``: the number of resolved issuers that are kept, and of names that resolved to ``None``. The least
      recently used issuer is dropped first, with its keys. An issuer without any accepted token replaces only another
      such issuer.
    * ``ttl``: seconds after which an issuer is resolved again. Its keys are kept if the settings are equal.
    * ``negative_ttl``: seconds for which ``None`` is remembered.

    If ``resolve`` raises :class:`~scopeguard.errors.AuthorityUnavailable`, requests get 503. Any other exception of the
    two functions reaches the server, which answers 500. The same happens if the issuer has another ``url``, or
    ``token_header`` or ``opaque_prefixes``, which are needed before a token is read. After a failure the same ``iss``
    is not resolved for a second (503). No failure admits a request.

    Raises :class:`ConfigurationError` for a wrong value.
    """

    accepts: Callable[[str], bool]
    resolve: Callable[[str], Issuer | Awaitable[Issuer | None] | None]
    max_issuers: int = 1000
    ttl: float = 3600.0
    negative_ttl: float = 30.0

    def __post_init__(self) -> None:
        for name in ("accepts", "resolve"):
            if not callable(getattr(self, name)):
                kind = type(getattr(self, name)).__name__
                raise ConfigurationError(
                    f"resolver.{name}: must be a function that takes the iss, a string, not {kind}"
                )
        whole(self.max_issuers, "resolver.max_issuers")
        for name in ("ttl", "negative_ttl"):
            positive(getattr(self, name), f"resolver.{name}")
