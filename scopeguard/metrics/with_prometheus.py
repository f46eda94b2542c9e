"""The metrics in a registry of ``prometheus_client``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from scopeguard.metrics.gauges import Readings, read_all
from scopeguard.metrics.instruments import DECISION_DURATION, DECISIONS, EXCHANGE_DURATION, GAUGES, Instrument
from scopeguard.metrics.recorder import Exporter, Exporters


class PrometheusExporter(Exporter, Collector):
    """The instruments in one registry, and the collector of its gauges."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._decisions = Counter(DECISIONS.prometheus_name, DECISIONS.text, DECISIONS.labels, registry=registry)
        self._decision_duration = _histogram(DECISION_DURATION, registry)
        self._exchange_duration = _histogram(EXCHANGE_DURATION, registry)
        # Keep the children: labels() takes a lock, and costs as much as the increment itself.
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._durations: dict[tuple[str, ...], Histogram] = {}
        registry.register(self)

    def count_decision(self, labels: tuple[str, ...], /) -> None:
        counter = self._counters.get(labels)
        if counter is None:
            counter = self._counters[labels] = self._decisions.labels(*labels)
        counter.inc()

    def observe_decision(self, seconds: float, labels: tuple[str, ...], /) -> None:
        duration = self._durations.get(labels)
        if duration is None:
            duration = self._durations[labels] = self._decision_duration.labels(*labels)
        duration.observe(seconds)

    def observe_exchange(self, seconds: float, labels: tuple[str, ...], /) -> None:
        self._exchange_duration.labels(*labels).observe(seconds)

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without values, so that the registry finds a name that is used twice."""
        return [_family(gauge, {}) for gauge in GAUGES]

    def collect(self) -> Iterable[Metric]:
        """Return the gauges of all guards."""
        readings = read_all(list(self.engines))
        return [_family(gauge, readings) for gauge in GAUGES if gauge in readings]


def _histogram(instrument: Instrument, registry: CollectorRegistry) -> Histogram:
    return Histogram(
        instrument.prometheus_name,
        instrument.text,
        instrument.labels,
        registry=registry,
        buckets=instrument.boundaries,
    )


def _family(gauge: Instrument, readings: Readings) -> GaugeMetricFamily:
    family = GaugeMetricFamily(gauge.prometheus_name, gauge.text, labels=gauge.labels)
    for labels, value in readings.get(gauge, {}).items():
        family.add_metric(list(labels), value)
    return family


EXPORTERS: Final[Exporters[CollectorRegistry, PrometheusExporter]] = Exporters(PrometheusExporter)
