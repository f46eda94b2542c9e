"""A pytest plugin: the workers of pytest-xdist send the report of each call, and others only if they say something.

pytest-xdist sends six messages for each test. To write and read them takes longer than most tests. Of a set-up or
teardown that passed at once, nothing is shown, so it is not sent. Neither is the news that a test begins or has ended.
"""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

_NOTICEABLE = 0.005  # seconds; `--durations` hides less


class _FewReports:
    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed or report.duration >= _NOTICEABLE:
                item.ihook.pytest_runtest_logreport(report=report)
        return True


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_FewReports())
