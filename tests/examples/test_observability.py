"""examples/observability: each query of the dashboard names metrics and labels that scopeguard exports.

``make observability`` asks them of a real Prometheus.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from environment import ROOT
from scopeguard.metrics.instruments import INSTRUMENTS, Instrument, Kind

FOLDER = ROOT / "examples" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES: list[tuple[str, str, str]] = [
    (panel["title"], target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]
]
EXPORTED: dict[str, Instrument] = {
    name: each
    for each in INSTRUMENTS
    for name in (
        [f"{each.prometheus_name}_{suffix}" for suffix in ("bucket", "count", "sum")]
        if each.kind is Kind.HISTOGRAM
        else [each.prometheus_name]
    )
}
# Prometheus adds the first two to everything that it scrapes.
OF_PROMETHEUS = {"job", "instance", "le"}
SELECTOR = re.compile(r"(?P<metric>\w+)\{(?P<matchers>[^}]*)\}")


def names_in(expression: str) -> Iterator[str]:
    """Yield the words of *expression* outside of selectors and ranges that may be the name of a metric."""
    for word in re.findall(r"\b[a-z]\w+\b", re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)):
        if word.startswith("scopeguard"):
            yield word


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES)
def test_query_names_only_exported_metrics_and_labels(title: str, expression: str, legend: str):
    del title
    names = list(names_in(expression))
    assert names
    assert set(names) <= set(EXPORTED)
    labels = {label for name in names for label in EXPORTED[name].labels} | OF_PROMETHEUS
    selectors = list(SELECTOR.finditer(expression))
    assert [found["metric"] for found in selectors] == names, "each metric is selected by its job"
    for found in selectors:
        matched = dict(re.findall(r'(\w+)(?:=~|!=|=)("[^"]*")', found["matchers"]))
        assert set(matched) <= {*EXPORTED[found["metric"]].labels, "job"}
        assert matched["job"] == '"$job"'
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
    assert grouped <= labels
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES)
def test_counters_are_shown_as_rates_and_gauges_as_they_are(title: str, expression: str, legend: str):
    del title, legend
    for found in SELECTOR.finditer(expression):
        is_gauge = EXPORTED[found["metric"]].kind is Kind.GAUGE
        inside_a_rate = expression[: found.start()].endswith("rate(")
        assert inside_a_rate is not is_gauge
        assert expression[found.end() :].startswith("[$__rate_interval]") is not is_gauge


def test_every_metric_is_on_the_dashboard():
    shown = {EXPORTED[name].name for _, expression, _ in QUERIES for name in names_in(expression)}
    assert shown == {each.name for each in INSTRUMENTS}


def test_panels_explain_themselves_and_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"observability_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_api_exports_both_guards_to_one_registry():
    registry = CollectorRegistry()
    app = load("api").make_app("http://127.0.0.1:1", "http://127.0.0.1:2", "for development", registry)
    client = TestClient(app)
    assert [client.get(path).status_code for path in ("/tables/a", "/proofs/")] == [401, 401]
    labels = {
        "outcome": "denied",
        "reason": "no_credentials",
        "adapter": "asgi",
        "issuer": "",
        "route": "",
        "credential": "",
    }
    assert registry.get_sample_value("scopeguard_decisions_total", labels) == 2.0


def test_picture_draws_panels_with_and_without_data(tmp_path: Any):
    from dataclasses import dataclass

    @dataclass
    class Series:
        name: str
        times: list[float]
        values: list[float]

    found = {
        panel["id"]: [Series("granted", [1.0, 2.0], [0.5, 0.00002]), Series("b", [2.0], [3.0])] for panel in PANELS
    }
    found[PANELS[0]["id"]] = []
    picture = tmp_path / "dashboard.png"
    load("picture").draw(DASHBOARD, found, picture, note="a note")
    assert picture.read_bytes().startswith(b"\x89PNG")
