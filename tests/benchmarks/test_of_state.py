"""Storms, scaling, imports, instructions, threads and shared state: their benchmarks run, with tiny settings. Nothing
here looks at how long anything took."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from environment import ROOT, skip_or_fail
from scopeguard import Granted
from scopeguard.spec.jwks import VerificationKey
from scopeguard.testing import make_token


@pytest.fixture(autouse=True)
def import_afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    yield
    logging.disable(logging.NOTSET)
    logging.getLogger("scopeguard").setLevel(logging.NOTSET)
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def import_benchmark(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


def expect_figures(rows: list[dict[str, Any]]) -> None:
    """The functions of each benchmark that ``make bench`` calls."""
    assert rows
    for row in rows:
        assert isinstance(row["value"], int | float)
        assert all(isinstance(row[name], str) for name in ("figure", "must", "unit"))
    json.dumps(rows)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_storms_are_counted(backend: str, monkeypatch: pytest.MonkeyPatch):
    storms = import_benchmark("storms")
    monkeypatch.setattr(storms, "HERD", 6)
    monkeypatch.setattr(storms, "STRANGERS", 3)
    found = storms.one(backend, quick=True)
    assert found["upstream"] == {
        "cold": {"keys": 1, "metadata": 1, "Granted": 6},
        "unknown": {"keys": found["upstream"]["unknown"]["keys"], "Granted": 3, "Denied": 3},
        "introspection": {"calls": 1, "Granted": 6},
    }
    assert found["upstream"]["unknown"]["keys"] <= 3
    assert found["rotation"] == 1
    expect_figures(storms.figures(backend, found))


@pytest.mark.timeout(180)
def test_floods_are_counted(monkeypatch: pytest.MonkeyPatch):
    floods = import_benchmark("floods")
    monkeypatch.setattr(floods, "SLOW", 0.01)
    monkeypatch.setattr(
        floods, "time_beside", lambda edge, seconds: floods._summarize({"JWT": [(0.001, 200)]}, _Flood())
    )
    found = floods.measure(("threads", "asyncio"), quick=True)
    asked = {(row["edge"], row["kind"]): (row["asked at once"], row["asked in turn"]) for row in found["junk"]}
    for edge in ("threads", "asyncio"):
        assert asked[edge, "random opaque"] == (40, 40)
        assert asked[edge, "JWT, name for a resolver"] == (40, 40)
        assert asked[edge, "JWT, unknown issuer"] == (0, 0)
        for kind in ("JWT, known issuer, unknown key id", "JWT, bad signature under a known key id"):
            assert max(asked[edge, kind]) <= 3
    assert "random opaque" in floods.render(found)
    json.dumps(found)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("edge", ["threads", "asyncio"])
def test_good_requests_are_measured_beside_a_flood(edge: str):
    found = import_benchmark("floods").time_beside(edge, seconds=0.2)
    assert found["JWT of another issuer"]["refused"] == 0
    assert found["opaque, known"]["of"] > 0


class _Flood:
    statuses: ClassVar[dict[int, int]] = {}


def test_tool_rules_are_measured():
    mcp_tools = import_benchmark("mcp_tools")
    assert len(mcp_tools.body()) == 1024
    expect_figures(mcp_tools.measure(rounds=1)["figures"])


def test_proofs_are_measured():
    expect_figures(import_benchmark("proofs").measure(rounds=1)["figures"])


def test_growth_is_measured():
    scaling = import_benchmark("scaling")
    made = scaling.Made()
    sizes = {**scaling.measure_sizes([600], 1), **scaling.measure_keys([1, 3], 1), **scaling.measure_scopes([1, 4], 1)}
    results = {
        "times": {name: {"smallest": each.smallest, "median": each.median} for name, each in sizes.items()},
        "rules": scaling.measure_rules((3,), 1),
        "issuers": scaling.measure_issuers((2,), 1),
        "memory": {"at": 60, **scaling.memory_of(made, 60, ready=2)},
        "packed memory": {"at": 60, **scaling.memory_of(made, 60, ready=2)},
        "remembered": {"60": scaling.costs_of(made, 60)},
    }
    results["figures"] = list(scaling.figures(results, "60"))
    expect_figures(results["figures"])
    assert "| 4 scopes, warm " in "\n".join(scaling.render(results))


def test_cold_starts_of_a_function_are_timed():
    found = import_benchmark("serverless").starts(1)
    assert len(found) == 4
    assert all(len(taken) == 1 and min(taken[0]) > 0 for taken in found.values())


def test_imports_are_timed():
    imports = import_benchmark("imports")
    assert imports.time_import("import json", "import decimal", "process_time") >= 0
    names = [name for name, _ in imports.find_heaviest(100)]
    assert "scopeguard.guard" in names
    assert "jwt.algorithms" not in names


def test_signatures_on_and_off_the_loop_are_compared(monkeypatch: pytest.MonkeyPatch):
    offload = import_benchmark("offload")
    monkeypatch.setattr(offload, "ALGORITHMS", {"ES256": offload.ALGORITHMS["ES256"]})
    results = offload.measure(quick=True)
    assert results["offload"]["what holds the lock"]["lets go"] == 0
    expect_figures(results["figures"])
    assert "| ES256 " in offload.render(results)


@pytest.mark.timeout(180)
def test_processes_that_share_a_redis_ask_once():
    if shutil.which("redis-server") is None:
        skip_or_fail("no redis-server: make system installs it")
    results = import_benchmark("shared").measure(quick=True, workers=2)
    assert results["introspections"]["calls, one worker after the other"] == 1
    assert results["introspections"]["calls, all at once"] in (1, 2)
    assert {"hit", "PING", "find no answer", "remember a proof, confirmed by a replica"} < results["operations"].keys()
    assert len(results["requests with proofs"]) == 6
    expect_figures(results["figures"])


@pytest.mark.timeout(180)
@pytest.mark.rule("D-58", "D-60", "E-15")
def test_nothing_is_accepted_twice_or_after_its_revocation_during_failovers():
    """The primary is killed, then frozen until another has replaced it, and a replica is killed, under load."""
    if shutil.which("redis-server") is None:
        skip_or_fail("no redis-server: make system installs it")
    results = import_benchmark("failover").measure("cluster", quick=True)
    assert results["wrong"] == {}
    counts = results["counts"]
    assert counts["new proof: granted"] > 60
    assert counts["replay: proof_used"]
    figures = {row["figure"]: row["value"] for row in results["figures"]}
    assert [figures[f"{kind}: failures"] for kind in ("primary killed", "primary frozen", "replica killed")] == [
        1,
        1,
        1,
    ]
    expect_figures(results["figures"])


def test_model_notices_wrong_acceptances():
    failover = import_benchmark("failover")
    granted = Granted(make_token("read"))
    model, attempt = failover.Model(), failover.Attempt(request=None, sent_at=0.0)
    for _ in range(2):
        model.note_proof("replay", attempt, granted)
    assert model.wrong == {"replay: a proof was accepted again": 1}


def test_shared_state_is_not_measured_without_redis(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert import_benchmark("shared").measure(quick=True) == {"missing": "redis-server", "figures": []}


# -- hooks


def test_hooks_are_measured_in_all_kinds_of_guards(monkeypatch: pytest.MonkeyPatch):
    hooks, instructions = import_benchmark("hooks"), import_benchmark("instructions")
    marks: list[None] = []
    monkeypatch.setattr(instructions.os, "getpgrp", lambda: marks.append(None))
    try:
        hooks.run(instructions.prepare(1), 1)
    finally:
        gc.enable()
    assert len(marks) == 1 + 2 * len(hooks.KINDS)
    rows = hooks.times_of(2)
    assert [kind for kind, *_ in rows] == list(hooks.KINDS)
    assert rows[0][-1].startswith("1.00 ")


# -- instructions


class Gate:
    """``benchmarks/instructions.py`` with counts of the test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = import_benchmark("instructions")
        self.counts = dict.fromkeys(self.module.PATHS, 1000.0)
        monkeypatch.setattr(self.module, "MEASURE", folder / "instructions.json")
        monkeypatch.setattr(self.module, "valgrind", lambda: "valgrind-0")
        monkeypatch.setattr(self.module, "count_instructions", lambda times=1: dict(self.counts))
        monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(tmp_path, monkeypatch)


def test_what_is_counted_is_served(monkeypatch: pytest.MonkeyPatch):
    instructions = import_benchmark("instructions")
    monkeypatch.setattr(VerificationKey, "verify", VerificationKey.verify)  # so that it is put back
    marks: list[None] = []
    monkeypatch.setattr(instructions.os, "getpgrp", lambda: marks.append(None))
    try:
        instructions.run(instructions.prepare(3), 1)
    finally:
        gc.enable()
    assert len(marks) == 1 + 2 * len(instructions.PATHS)


@pytest.mark.parametrize(("more", "status"), [(1.0, 0), (0.5, 0), (1.049, 0), (1.051, 1)])
def test_a_path_that_takes_five_per_cent_more_fails(
    gate: Gate, capsys: pytest.CaptureFixture[str], more: float, status: int
):
    gate.module.keep(gate.counts)
    gate.counts["warm ASGI request"] *= more
    assert gate.module.gate() == status
    assert ("warm ASGI request: 1,051 instructions, +5.1%" in capsys.readouterr().err) == bool(status)


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("1", 1)])
def test_gate_without_valgrind_fails_in_ci_only(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, status: int
):
    monkeypatch.setattr(gate.module, "valgrind", lambda: "")
    monkeypatch.setenv("CI", ci)
    assert gate.module.gate() == status
    assert "valgrind is not installed" in capsys.readouterr().out


def test_counts_of_another_python_are_not_compared(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gate.module.keep({name: count / 10 for name, count in gate.counts.items()})
    monkeypatch.setattr(gate.module, "place", lambda: "another Python")
    assert gate.module.gate() == 0
    assert "has no record for another Python" in capsys.readouterr().out


def test_keeping_counts_keeps_those_of_other_pythons(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    gate.module.keep(gate.counts)
    here = gate.module.place()
    monkeypatch.setattr(gate.module, "place", lambda: "another Python")
    gate.module.keep(gate.counts)
    assert set(gate.module.load_counts()) == {here, "another Python"}


def test_other_tools_are_named(gate: Gate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    gate.module.keep(gate.counts)
    monkeypatch.setattr(gate.module, "valgrind", lambda: "valgrind-1")
    assert gate.module.gate() == 0
    printed = capsys.readouterr().out
    assert "recorded with valgrind-0" in printed
    assert "counted with valgrind-1" in printed


def test_the_counts_that_are_kept_have_every_path():
    instructions = import_benchmark("instructions")
    assert instructions.load_counts()
    for counts in instructions.load_counts().values():
        assert set(counts) == {*instructions.PATHS, "tools"}


def test_totals_are_read_from_what_callgrind_writes(tmp_path: Path):
    instructions = import_benchmark("instructions")
    path = tmp_path / "out.1"
    path.write_text("version: 1\nevents: Ir\nsummary: 123\n\ntotals: 123\n")
    assert instructions._total(path) == 123
    path.write_text("version: 1\n")
    with pytest.raises(SystemExit):
        instructions._total(path)
