"""The metrics: their names, kinds, labels and meaning. ``docs/metrics.md`` has the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The kind of a metric."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


ATTRIBUTES: Final = {
    "adapter": "scopeguard.adapter",
    "authority": "scopeguard.authority",
    "credential": "scopeguard.credential",
    "issuer": "scopeguard.issuer",
    "kind": "scopeguard.exchange.kind",
    "outcome": "scopeguard.outcome",
    "reason": "error.type",
    "result": "error.type",
    "route": "http.route",
    "token_check": "scopeguard.token_check",
}
"""The attribute of OpenTelemetry for each label of Prometheus."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. ``name`` and ``unit`` are those of OpenTelemetry, ``labels`` those of Prometheus.

    ``boundaries``: the upper bounds of a histogram. ``combine``: combines the values of several guards.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    text: str
    boundaries: tuple[float, ...] = ()
    combine: Callable[[Iterable[float]], float] = sum

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, as the exporters of OpenTelemetry translate ``name``."""
        unit = "_seconds" if self.unit == "s" else ""
        return self.name.replace(".", "_") + unit + ("_total" if self.kind is Kind.COUNTER else "")


DECISIONS: Final = Instrument(
    "scopeguard.decisions",
    Kind.COUNTER,
    "{decision}",
    ("outcome", "reason", "adapter", "issuer", "route", "credential"),
    "Decisions about requests, one for each request to a route that is not public.",
)
DECISION_DURATION: Final = Instrument(
    "scopeguard.decision.duration",
    Kind.HISTOGRAM,
    "s",
    ("outcome", "token_check"),
    "Time that the guard took for a decision, with the requests that it waited for.",
    (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EXCHANGE_DURATION: Final = Instrument(
    "scopeguard.exchange.duration",
    Kind.HISTOGRAM,
    "s",
    ("kind", "authority", "result"),
    "Time of outbound work: keys, introspection, status lists, decision points, the shared store.",
    (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
READY: Final = Instrument(
    "scopeguard.ready", Kind.GAUGE, "1", (), "1 if tokens of at least one issuer can be checked.", combine=min
)
ISSUER_READY: Final = Instrument(
    "scopeguard.issuer.ready",
    Kind.GAUGE,
    "1",
    ("issuer",),
    "1 if new tokens of the issuer can be checked.",
    combine=min,
)
KEY_SET_AGE: Final = Instrument(
    "scopeguard.key_set.age", Kind.GAUGE, "s", ("issuer",), "Time since the key set was fetched.", combine=max
)
PAUSE: Final = Instrument(
    "scopeguard.pause",
    Kind.GAUGE,
    "s",
    ("kind", "authority"),
    "Time for which no request is sent after failures; 0 if requests are sent.",
    combine=max,
)
TOKEN_CACHE_ENTRIES: Final = Instrument(
    "scopeguard.token_cache.entries",
    Kind.GAUGE,
    "{token}",
    (),
    "Upper bound of the number of verified tokens in the cache.",
)
REPLAY_MEMORY_PROOFS: Final = Instrument(
    "scopeguard.replay_memory.proofs",
    Kind.GAUGE,
    "{proof}",
    (),
    "Used proofs of possession in the memory of the process.",
)
REVOCATIONS: Final = Instrument(
    "scopeguard.revocations", Kind.GAUGE, "{revocation}", (), "Revocations that the process knows, with expired ones."
)
REVOCATION_LOG_AGE: Final = Instrument(
    "scopeguard.revocation_log.age",
    Kind.GAUGE,
    "s",
    (),
    "Time since the shared log of revocations was read to its end.",
    combine=max,
)

GAUGES: Final = (
    READY, ISSUER_READY, KEY_SET_AGE, PAUSE, TOKEN_CACHE_ENTRIES, REPLAY_MEMORY_PROOFS, REVOCATIONS, REVOCATION_LOG_AGE,
)  # fmt: skip
INSTRUMENTS: Final = (DECISIONS, DECISION_DURATION, EXCHANGE_DURATION, *GAUGES)
