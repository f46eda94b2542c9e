"""The benchmark of many issuers runs. Here, and not with the other benchmarks, because it needs no peers."""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import ModuleType

import pytest

from environment import ROOT


@pytest.fixture
def benchmark_of_issuers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_issuers", ROOT / "benchmarks" / "issuers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_benchmark_of_issuers_runs(benchmark_of_issuers: ModuleType, capsys: pytest.CaptureFixture[str]):
    level = logging.getLogger("scopeguard").level
    try:
        benchmark_of_issuers.main(["1", "5"], loops=2)
    finally:
        logging.getLogger("scopeguard").setLevel(level)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["issuers", "construct"]
    assert [row.split()[0] for row in rows] == ["1", "5", "5"]
    assert [row.split()[-2:] for row in rows] == [["0", "2"], ["0", "6"], ["0", "6"]]
