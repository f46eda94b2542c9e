"""Checks of policy decision points. They request no decision, because such a request may have effects."""

from __future__ import annotations

from scopeguard.core.engine import Engine
from scopeguard.doctor.finding import Finding, error, ok
from scopeguard.doctor.issuers import check_connections
from scopeguard.doctor.outages import advise, describe
from scopeguard.doctor.tracing_transport import TracingTransport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.authzen import find_endpoint
from scopeguard.flow.effects import Send, ask
from scopeguard.spec.authzen import metadata_url
from scopeguard.state.authzen import DecisionPoint


def check_decision_point(point: DecisionPoint, engine: Engine, watch: TracingTransport) -> list[Finding]:
    """Connect to *point*, and read its metadata if ``discover`` says so."""
    settings, begun = point.settings, len(watch.exchanges)
    found: list[Finding] = []
    try:
        if settings.discover:
            engine.perform(find_endpoint(point, engine.clock))
            found.append(ok(settings.url, "metadata", f"{watch.exchanges[-1].url} names exactly this decision point"))
        else:
            place, insecure = metadata_url(settings.url), settings.insecure_http_dangerously
            engine.perform(ask(Send(url=place, authority=settings.url, insecure=insecure, timeout=settings.timeout)))
    except AuthorityUnavailable as outage:
        if settings.discover and watch.exchanges[-1].reached:
            found.append(error(settings.url, "metadata", describe(outage), fix=advise(outage)))
    return [*check_connections(settings.url, watch.exchanges[begun:], engine.clock.wall()), *found]
