"""A pytest plugin: it reports the call of each test, and a set-up or teardown only if there is something to say.

To report takes a good part of the time of a short test, and the reports stay in memory, where each garbage collection
traverses them. Of a set-up or teardown that passed at once, nothing is shown. The workers of pytest-xdist, which send
each report to another process, do not send the news that a test begins or has ended either.
"""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

_NOTICEABLE = 0.005  # seconds; `--durations` hides less


class _FewReports:
    def __init__(self, *, sent: bool) -> None:
        self._sent = sent

    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        if not self._sent:
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed or report.duration >= _NOTICEABLE:
                item.ihook.pytest_runtest_logreport(report=report)
        if not self._sent:
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def pytest_configure(config: pytest.Config) -> None:
    sent = hasattr(config, "workerinput")
    if sent or config.option.xmlpath is None:  # a JUnit file has the output of each teardown
        config.pluginmanager.register(_FewReports(sent=sent))
