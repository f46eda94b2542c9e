"""Prepare a guard for its first request: import, fetch keys, and take over caches from the guard that it replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Flow
from scopeguard.flow.keys import warm as warm_issuer
from scopeguard.flow.revocation import sync

if TYPE_CHECKING:
    from scopeguard.core.engine import Engine


def prepare(engine: Engine) -> None:
    """Import what the first outbound request needs, without sending one. Servers call this first.

    Otherwise the first outbound request would block the event loop while an HTTP client is imported.
    """
    load = getattr(engine.runtime.transport, "prepare", None)
    if load is not None:
        load()


async def aprepare(engine: Engine) -> None:
    """:func:`prepare` for asyncio and trio. It also imports the part of anyio that waits, which takes 30 ms."""
    from scopeguard.edge import aio

    prepare(engine)
    aio.prepare()


def warm(engine: Engine) -> None:
    """See :meth:`Guard.warm <scopeguard.guard.Guard.warm>`."""
    failures: list[AuthorityUnavailable] = []
    for flow in _flows_at_start(engine):
        try:
            engine.perform(flow)
        except AuthorityUnavailable as error:
            failures.append(error)
    if failures:
        raise failures[0]


async def awarm(engine: Engine) -> None:
    """:func:`warm` for asyncio and trio."""
    failures: list[AuthorityUnavailable] = []
    for flow in _flows_at_start(engine):
        try:
            await engine.aperform(flow)
        except AuthorityUnavailable as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _flows_at_start(engine: Engine) -> list[Flow[None]]:
    return [*(warm_issuer(record, engine.clock) for record in engine.issuers.all), *_flows_for_api_keys(engine)]


def _flows_for_api_keys(engine: Engine) -> list[Flow[None]]:
    """Return the flow that reads the file of API keys, if there is one."""
    state = engine.context.api_keys
    if state is None:
        return []
    from scopeguard.flow.api_key import warm_keys

    return [warm_keys(state, engine.clock)]


def take_over(engine: Engine, previous: Engine) -> None:
    """Take over the caches of *previous*, which *engine* replaces. Servers that reload settings call this.

    Issuers with equal settings keep their keys and answers, revocations stay in force, and used proofs stay used.
    The keys of all other issuers are fetched, and the shared log of revocations is read. Raises
    :class:`AuthorityUnavailable` if that fails: keep *previous* and call this again later.
    """
    own, old = engine.context.possession, previous.context.possession
    if own is not None and old is not None:
        own.memory.take_over(old.memory)
    for record in engine.issuers.take_over(previous.issuers):
        engine.perform(warm_issuer(record, engine.clock))
    for flow in _flows_for_api_keys(engine):
        engine.perform(flow)
    if engine.store is not None and not engine.settings.revocation.fail_open_dangerously:
        engine.perform(sync(engine.context))
