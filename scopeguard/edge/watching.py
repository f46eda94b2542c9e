"""Tells watchers about outbound work: how long it took, and how it ended. Metrics are derived from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Clock
from scopeguard.reasons import Reason

T = TypeVar("T")

log: Final = logging.getLogger("scopeguard")

STORE: Final = "store"
"""The kind of an operation of the shared store. Other kinds are the values of ``Lane``."""
OK: Final = "ok"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Exchange:
    """One piece of outbound work that has ended, such as fetching a key set with the metadata that names it.

    ``kind``: what it was for. ``authority``: the issuer or decision point as configured, or a name that the resolver
    has found; empty for the shared store. ``duration`` is in seconds. ``result``: ``"ok"``, the code of the
    :class:`~scopeguard.reasons.Reason`, or ``"failed"`` for an unexpected exception.
    """

    kind: str
    authority: str
    duration: float
    result: str


Watcher = Callable[[Exchange], None]
"""Called in the thread that did the work. An exception in it is logged and changes nothing."""


def watch(work: Callable[[], T], kind: str, authority: str, watchers: tuple[Watcher, ...], clock: Clock) -> T:
    """Return the result of *work*, and tell *watchers* about it, unless a pause has prevented it."""
    began, result = clock.monotonic(), FAILED
    try:
        value = work()
        result = OK
        return value
    except AuthorityUnavailable as error:
        result = error.reason.value
        raise
    finally:
        if result != Reason.AUTHORITY_BACKING_OFF:
            _tell(Exchange(kind, authority, clock.monotonic() - began, result), watchers)


def _tell(exchange: Exchange, watchers: tuple[Watcher, ...]) -> None:
    for watcher in watchers:
        try:
            watcher(exchange)
        except Exception:
            log.exception("a watcher of outbound requests failed")
