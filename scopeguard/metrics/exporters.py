"""Connect a guard to the library that exports its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scopeguard.config.checks import instance
from scopeguard.extras import explain_missing
from scopeguard.guard import Guard, engine_of
from scopeguard.metrics.recorder import connect

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from prometheus_client import CollectorRegistry


def prometheus(guard: Guard, *, registry: CollectorRegistry | None = None) -> None:
    """Export metrics about *guard* to *registry*, by default that of ``prometheus_client``.

    Call it once for each guard, when the guard is created. A second call for the same guard and registry changes
    nothing. Several guards in one registry share the metrics: counts are added, and the longest age or pause is used.

    Counters and histograms work in the multiprocess mode of ``prometheus_client``. Gauges are read when they are
    scraped, from the process that is scraped, so that mode has none.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, and :class:`ModuleNotFoundError` without the
    extra ``prometheus``.
    """
    instance(guard, Guard, "metrics.prometheus: guard", "a scopeguard.Guard")
    try:
        import prometheus_client  # noqa: PLC0415 - an optional dependency

        from scopeguard.metrics.with_prometheus import EXPORTERS  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise explain_missing(
            error, "prometheus", library="prometheus_client", needed_by="scopeguard.metrics"
        ) from None
    if registry is None:
        registry = prometheus_client.REGISTRY
    instance(registry, prometheus_client.CollectorRegistry, "registry", "a prometheus_client.CollectorRegistry")
    connect(engine_of(guard), EXPORTERS.find(registry))


def opentelemetry(guard: Guard, *, meter: Meter | None = None) -> None:
    """Export metrics about *guard* with *meter*, by default one of the global meter provider.

    Call it once for each guard. The app or its agent sets up the meter provider and its exporter; without one, nothing
    is exported. A second call for the same guard and meter changes nothing. Several guards with one meter share the
    metrics: counts are added, and the longest age or pause is used.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, and :class:`ModuleNotFoundError` without the
    extra ``otel``.
    """
    instance(guard, Guard, "metrics.opentelemetry: guard", "a scopeguard.Guard")
    try:
        from opentelemetry.metrics import Meter  # noqa: PLC0415 - an optional dependency

        from scopeguard.metrics.with_opentelemetry import EXPORTERS, default_meter  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise explain_missing(error, "otel", library="opentelemetry", needed_by="scopeguard.metrics") from None
    if meter is None:
        meter = default_meter()
    kind: Any = Meter
    instance(meter, kind, "meter", "an opentelemetry.metrics.Meter")
    connect(engine_of(guard), EXPORTERS.find(meter))
