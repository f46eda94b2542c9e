"""A pytest plugin for runs under coverage: it stops the measurement where it costs time and shows nothing.

Tracing nearly doubles the time of the code that is traced, whether it is measured or not.

In every run, tests with random examples or races are not measured: the branches that they take differ from run to run.

``make test-core`` measures the core alone. There, the tests of the folders in :data:`_CORE` are measured, and only the
test functions: neither fixtures nor pytest itself. Of a test that runs on asyncio and trio, the run on asyncio is
measured, because the core does no I/O. So the core has to be covered by fewer tests, never by more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import coverage
import pytest

from environment import ROOT

_CORE: Final = {ROOT / "tests" / name for name in ("core", "flow", "presets", "spec", "state")}


def _takes_chances(item: pytest.Item) -> bool:
    return item.get_closest_marker("hypothesis") is not None or ROOT / "tests" / "attacks" in item.path.parents


def _on_trio(item: pytest.Item) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(value == "trio" or (isinstance(value, tuple) and value[:1] == ("trio",)) for value in parameters)


class _AllButChance:
    """The plugin of runs that measure everything.

    Coverage stops for good in a thread that is alive meanwhile; no thread outlives a test.
    """

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        measuring = coverage.Coverage.current() if _takes_chances(item) else None
        if measuring is None:
            return (yield)
        measuring.stop()
        try:
            return (yield)
        finally:
            measuring.start()


class _Core:
    """The plugin of runs that measure the core.

    It takes the trace function out and back in: ``Coverage.start()`` looks at every imported module each time. A
    Python in which coverage needs no trace function measures everything.
    """

    def __init__(self) -> None:
        self._tracer: Any = None

    def pytest_collection_finish(self) -> None:
        self._tracer = sys.gettrace()  # has seen the import of the modules
        sys.settrace(None)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        if _CORE.isdisjoint(item.path.parents) or _takes_chances(item) or _on_trio(item):
            return (yield)
        sys.settrace(self._tracer)
        try:
            return (yield)
        finally:
            sys.settrace(None)


def pytest_configure(config: pytest.Config) -> None:
    measuring = coverage.Coverage.current()
    if measuring is not None:
        config.pluginmanager.register(_Core() if measuring.get_option("run:include") else _AllButChance())
