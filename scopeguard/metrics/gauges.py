"""The values of gauges: the state of guards at the time of a scrape. Nothing here waits or does I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scopeguard.core.engine import Engine
from scopeguard.flow.effects import Lane
from scopeguard.metrics import instruments
from scopeguard.metrics.instruments import Instrument
from scopeguard.state.readiness import assess

Reading = tuple[Instrument, tuple[str, ...], float]
"""A metric, the values of its labels, and its value."""

Readings = Mapping[Instrument, Mapping[tuple[str, ...], float]]


def read_all(engines: Iterable[Engine]) -> Readings:
    """Return the gauges of *engines*, combined."""
    found: dict[Instrument, dict[tuple[str, ...], list[float]]] = {}
    for engine in engines:
        for instrument, labels, value in read(engine):
            found.setdefault(instrument, {}).setdefault(labels, []).append(value)
    return {
        instrument: {labels: instrument.combine(values) for labels, values in series.items()}
        for instrument, series in found.items()
    }


def read(engine: Engine) -> list[Reading]:
    """Return the gauges of *engine*. A gauge that does not apply to it is left out."""
    now, issuers = engine.clock.monotonic(), engine.issuers
    readiness = assess(issuers, now)
    readings: list[Reading] = [(instruments.READY, (), float(readiness.ready))]
    readings += [(instruments.ISSUER_READY, (each.issuer,), float(each.ready)) for each in readiness.issuers]
    for record in issuers.all:
        url, rings = record.issuer.url, [each.ring for each in (record, *record.others)]
        ages = [age for ring in rings if (age := ring.age(now)) is not None]
        if ages:
            readings.append((instruments.KEY_SET_AGE, (url,), max(ages)))
        readings.append((instruments.PAUSE, (Lane.KEYS, url), max(ring.pause(now) for ring in rings)))
        if record.introspection is not None:
            pause = record.introspection.breaker.remaining(now)
            readings.append((instruments.PAUSE, (Lane.INTROSPECTION, url), pause))
    for point in list(engine.context.points.values()):
        readings.append((instruments.PAUSE, (Lane.DECISIONS, point.settings.url), point.breaker.remaining(now)))
    if engine.context.token_cache is not None:
        readings.append((instruments.TOKEN_CACHE_ENTRIES, (), float(engine.context.token_cache.most_entries)))
    if engine.context.possession is not None:
        readings.append((instruments.REPLAY_MEMORY_PROOFS, (), float(len(engine.context.possession.memory))))
    readings.append((instruments.REVOCATIONS, (), float(len(issuers.revocations))))
    if issuers.shared:
        readings.append((instruments.PAUSE, ("store", ""), issuers.revocations.breaker.remaining(now)))
        if issuers.revocations.position is not None or issuers.revocations.generation:
            age = now - issuers.revocations.synced_at
            readings.append((instruments.REVOCATION_LOG_AGE, (), age))
    return readings
