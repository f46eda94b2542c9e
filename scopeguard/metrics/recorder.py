"""Turns events of a guard into metrics with bounded labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

from scopeguard.core.decision import DecisionEvent, Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.edge.watching import Exchange
from scopeguard.tokens import Anonymous

Target = TypeVar("Target")
Made = TypeVar("Made")

OTHER: Final = "other"
"""The label for an issuer or an authority that is not in the configuration."""
MOST_ROUTES: Final = 1000
"""The greatest number of routes that have a label of their own."""

_OUTCOMES: Final[dict[type, str]] = {
    Granted: "granted",
    Anonymous: "anonymous",
    Denied: "denied",
    Unavailable: "unavailable",
}


class Exporter(ABC):
    """The instruments of one library. The values of labels are in the order of the instrument's ``labels``."""

    def __init__(self) -> None:
        self.engines: WeakSet[Engine] = WeakSet()
        """The engines whose gauges are read at each scrape."""

    @abstractmethod
    def count_decision(self, labels: tuple[str, ...], /) -> None: ...
    @abstractmethod
    def observe_decision(self, seconds: float, labels: tuple[str, ...], /) -> None: ...
    @abstractmethod
    def observe_exchange(self, seconds: float, labels: tuple[str, ...], /) -> None: ...


class Exporters(Generic[Target, Made]):
    """The exporters for each registry or meter, which can have each metric only once. *make* constructs one."""

    def __init__(self, make: Callable[[Target], Made]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[Target, Made] = WeakKeyDictionary()
        self._lock = Lock()

    def find(self, target: Target) -> Made:
        """Return the exporter for *target*. The first call constructs it."""
        with self._lock:
            exporter = self._made.get(target)
            if exporter is None:
                exporter = self._made[target] = self._make(target)
            return exporter


def connect(engine: Engine, exporter: Exporter) -> None:
    """Record the decisions and outbound requests of *engine* with *exporter*, once."""
    if engine not in exporter.engines:
        exporter.engines.add(engine)
        recorder = Recorder(engine, exporter)
        engine.add_listener(recorder.record_decision)
        engine.runtime.watchers += (recorder.record_exchange,)


class Recorder:
    """Records the events of one engine."""

    def __init__(self, engine: Engine, exporter: Exporter) -> None:
        self._exporter = exporter
        self._issuers = {record.issuer.url: record.issuer.url for record in engine.issuers.all}
        keys = engine.settings.api_keys
        if keys is not None and keys.issuer is not None:
            self._issuers[keys.issuer] = keys.issuer
        self._engine = ref(engine)  # the engine refers to this object
        self._routes: set[str] = set()

    def record_decision(self, event: DecisionEvent) -> None:
        """Count *event* and its duration."""
        outcome = _OUTCOMES[type(event.decision)]
        reason = "" if event.reason is None else event.reason.value
        issuer = "" if event.issuer is None else self._issuers.get(event.issuer, OTHER)
        kind = "" if event.credential is None else event.credential.value
        self._exporter.count_decision((outcome, reason, event.adapter.value, issuer, self._route(event.route), kind))
        check = "" if event.token_check is None else event.token_check.value
        self._exporter.observe_decision(event.duration, (outcome, check))

    def record_exchange(self, exchange: Exchange) -> None:
        """Count *exchange* and its duration."""
        authority = exchange.authority
        if authority and authority not in self._issuers and not self._is_point(authority):
            authority = OTHER
        self._exporter.observe_exchange(exchange.duration, (exchange.kind, authority, exchange.result))

    def _is_point(self, url: str) -> bool:
        engine = self._engine()
        # Rules that are added later add decision points.
        return engine is not None and any(point.settings.url == url for point in list(engine.context.points.values()))

    def _route(self, route: str | None) -> str:
        """Return the label of *route*, a template. Only the first :data:`MOST_ROUTES` templates have a label."""
        if route is None:
            return ""
        if route not in self._routes:
            if len(self._routes) >= MOST_ROUTES:
                return ""
            self._routes.add(route)
        return route
