"""docs/metrics.md lists every metric with its type and labels, every label, and every obstacle."""

from __future__ import annotations

import re

from environment import ROOT
from scopeguard import Obstacle, Reason
from scopeguard.edge.watching import STORE
from scopeguard.flow.effects import Lane
from scopeguard.metrics.instruments import ATTRIBUTES, INSTRUMENTS

PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")


def rows(first: str) -> list[list[str]]:
    """Return the cells of the table whose first column is *first*."""
    lines = PAGE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_metric_is_listed_with_its_type_and_labels():
    listed = [(names(name)[0], kind, tuple(names(labels))) for name, kind, labels, _ in rows("metric")]
    assert listed == [(each.prometheus_name, each.kind.value, each.labels) for each in INSTRUMENTS]


def test_every_label_is_explained():
    assert {names(name)[0] for name, _ in rows("label")} == set(ATTRIBUTES)
    kinds = next(text for name, text in rows("label") if name == "`kind`")
    assert set(re.findall(r"`([\w ]+)`", kinds)) == {*(lane.value for lane in Lane), STORE}


def test_every_obstacle_is_explained():
    assert [names(name)[0] for name, *_ in rows("obstacle")] == [obstacle.value for obstacle in Obstacle]


def test_reasons_and_metrics_in_the_text_exist():
    known = {each.prometheus_name for each in INSTRUMENTS}
    assert {name.removesuffix("_count") for name in re.findall(r"scopeguard_\w+", PAGE)} <= known
    reasons = {reason.value for reason in Reason}
    assert {"proof_used", "proof_memory_full", "token_expired", "authority_timed_out"} <= reasons
