"""The metrics as instruments of an OpenTelemetry meter."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from threading import Lock
from typing import Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation, get_meter

from scopeguard.core.engine import Engine
from scopeguard.metrics.gauges import read_all
from scopeguard.metrics.instruments import (
    ATTRIBUTES,
    DECISION_DURATION,
    DECISIONS,
    EXCHANGE_DURATION,
    GAUGES,
    Instrument,
)
from scopeguard.metrics.recorder import Exporter, Exporters

Attributes = dict[str, str]


class OpenTelemetryExporter(Exporter):
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._decisions = meter.create_counter(DECISIONS.name, DECISIONS.unit, DECISIONS.text)
        self._decision_duration = _histogram(DECISION_DURATION, meter)
        self._exchange_duration = _histogram(EXCHANGE_DURATION, meter)
        self._counted: dict[tuple[str, ...], Attributes] = {}
        self._timed: dict[tuple[str, ...], Attributes] = {}
        for gauge in GAUGES:
            meter.create_observable_gauge(gauge.name, [partial(_observe, gauge, self.engines)], gauge.unit, gauge.text)

    def count_decision(self, labels: tuple[str, ...], /) -> None:
        attributes = self._counted.get(labels)
        if attributes is None:
            attributes = self._counted[labels] = attributes_of(DECISIONS, labels)
        self._decisions.add(1, attributes)

    def observe_decision(self, seconds: float, labels: tuple[str, ...], /) -> None:
        attributes = self._timed.get(labels)
        if attributes is None:
            attributes = self._timed[labels] = attributes_of(DECISION_DURATION, labels)
        self._decision_duration.record(seconds, attributes)

    def observe_exchange(self, seconds: float, labels: tuple[str, ...], /) -> None:
        self._exchange_duration.record(seconds, attributes_of(EXCHANGE_DURATION, labels))


def attributes_of(instrument: Instrument, labels: tuple[str, ...]) -> Attributes:
    """Return *labels*, the values of the labels of *instrument*, as attributes.

    An attribute without a value is left out. So is ``error.type`` of an exchange that succeeded: it is for errors only.
    """
    pairs = zip(instrument.labels, labels, strict=True)
    return {ATTRIBUTES[name]: value for name, value in pairs if value and (name, value) != ("result", "ok")}


def _observe(gauge: Instrument, engines: WeakSet[Engine], options: CallbackOptions) -> Iterable[Observation]:
    del options
    series = read_all(list(engines)).get(gauge, {})
    return [Observation(value, attributes_of(gauge, labels)) for labels, value in series.items()]


def _histogram(instrument: Instrument, meter: Meter) -> Histogram:
    return meter.create_histogram(
        instrument.name,
        instrument.unit,
        instrument.text,
        explicit_bucket_boundaries_advisory=instrument.boundaries,
    )


def default_meter() -> Meter:
    """Return the meter of this package, from the global meter provider."""
    global _meter  # noqa: PLW0603
    with _lock:
        if _meter is None:
            _meter = get_meter("scopeguard")
        return _meter


_meter: Meter | None = None
_lock: Final = Lock()
EXPORTERS: Final[Exporters[Meter, OpenTelemetryExporter]] = Exporters(OpenTelemetryExporter)
