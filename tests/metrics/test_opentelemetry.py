"""The metrics of a guard as instruments of an OpenTelemetry meter."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from scopeguard import ConfigurationError, Guard, HeaderList, RequestView, metrics
from scopeguard.metrics.instruments import ATTRIBUTES, DECISIONS, INSTRUMENTS, Kind
from scopeguard.metrics.with_opentelemetry import attributes_of, default_meter
from scopeguard.testing import FakeAuthority

URL = "https://as.test"
Points = dict[tuple[tuple[str, str], ...], Any]


class Scene:
    """A guard with metrics of a meter provider of its own."""

    def __init__(self, **settings: Any) -> None:
        self.authority = FakeAuthority(URL)
        self.guard = self.another(**settings)
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")
        metrics.opentelemetry(self.guard, meter=self.meter)

    def another(self, **settings: Any) -> Guard:
        settings = {"transport": self.authority.transport, "clock": self.authority.clock, **settings}
        return Guard(self.authority.issuer, **settings)

    def check(self, token: str | None, guard: Guard | None = None) -> None:
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        (guard or self.guard).check(RequestView(method="GET", path="/secret", headers=HeaderList(headers)))

    def read(self) -> dict[str, tuple[str, Points]]:
        """Return the unit of each metric, and its points by their attributes."""
        data: Any = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: (
                metric.unit,
                {tuple(sorted(point.attributes.items())): point for point in metric.data.data_points},
            )
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def test_decisions_have_attributes_of_the_conventions():
    scene = Scene()
    token = scene.authority.mint()
    for _ in range(2):
        scene.check(token)
    scene.check(None)
    found = scene.read()
    unit, points = found["scopeguard.decisions"]
    granted = (
        ("scopeguard.adapter", "guard"),
        ("scopeguard.credential", "token"),
        ("scopeguard.issuer", URL),
        ("scopeguard.outcome", "granted"),
    )
    denied = (("error.type", "no_credentials"), ("scopeguard.adapter", "guard"), ("scopeguard.outcome", "denied"))
    assert unit == "{decision}"
    assert {attributes: point.value for attributes, point in points.items()} == {granted: 2, denied: 1}
    unit, points = found["scopeguard.decision.duration"]
    assert unit == "s"
    cached = points[("scopeguard.outcome", "granted"), ("scopeguard.token_check", "cached")]
    assert (cached.count, cached.explicit_bounds[0]) == (1, 1e-5)


def test_exchange_has_an_error_type_only_if_it_failed():
    scene = Scene()
    scene.check(scene.authority.mint())
    with scene.authority.outage():
        scene.check(scene.authority.mint(headers={"kid": "new"}))
    points = scene.read()["scopeguard.exchange.duration"][1]
    about = (("scopeguard.authority", URL), ("scopeguard.exchange.kind", "keys"))
    assert set(points) == {about, (("error.type", "authority_unreachable"), *about)}


def test_attribute_without_a_value_is_left_out():
    labels = ("granted", "", "asgi", "", "/rows/{row}", "")
    assert attributes_of(DECISIONS, labels) == {
        "scopeguard.outcome": "granted",
        "scopeguard.adapter": "asgi",
        "http.route": "/rows/{row}",
    }


def test_gauges_are_read_at_the_collection():
    scene = Scene()
    scene.check(scene.authority.mint())
    scene.authority.clock.advance(60)
    found = scene.read()
    age = found["scopeguard.key_set.age"]
    assert age[0] == "s"
    assert [point.value for point in age[1].values()] == [60.0]
    assert list(age[1]) == [(("scopeguard.issuer", URL),)]
    assert [point.value for point in found["scopeguard.ready"][1].values()] == [1.0]


def test_names_and_units_follow_the_conventions():
    """OpenTelemetry: dotted names in lower case, units in seconds or in braces, and no unit in the name."""
    for each in INSTRUMENTS:
        assert each.name.startswith("scopeguard.")
        assert each.name == each.name.lower()
        assert "seconds" not in each.name
        assert "total" not in each.name
        assert each.unit in ("s", "1") or (each.unit[0], each.unit[-1]) == ("{", "}")
        assert set(each.labels) <= set(ATTRIBUTES)
        assert bool(each.boundaries) is (each.kind is Kind.HISTOGRAM)


def test_several_guards_share_a_meter_and_a_second_call_changes_nothing(caplog: pytest.LogCaptureFixture):
    scene = Scene()
    other = scene.another()
    metrics.opentelemetry(other, meter=scene.meter)
    metrics.opentelemetry(other, meter=scene.meter)
    for guard in (scene.guard, other):
        scene.check(scene.authority.mint(), guard)
    found = scene.read()
    assert [point.value for point in found["scopeguard.decisions"][1].values()] == [2]
    assert [point.value for point in found["scopeguard.token_cache.entries"][1].values()] == [2.0]
    assert caplog.text == ""


def test_default_meter_is_that_of_the_global_provider():
    guard = Guard(FakeAuthority().issuer)
    metrics.opentelemetry(guard)  # there is no provider, so nothing is exported
    assert default_meter() is default_meter()
    assert guard.ready().ready is False


@pytest.mark.parametrize("wrong", ["meter", 3])
def test_arguments_of_the_wrong_kind_are_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="guard"):
        metrics.opentelemetry(wrong)
    with pytest.raises(ConfigurationError, match="meter"):
        metrics.opentelemetry(Guard(FakeAuthority().issuer), meter=wrong)


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.delitem(sys.modules, "scopeguard.metrics.with_opentelemetry", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"scopeguard-oauth2\[otel\]"):
        metrics.opentelemetry(Guard(FakeAuthority().issuer))
