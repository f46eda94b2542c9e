"""A pytest plugin: in CI a skipped test is a failed one, so that a green run means that every test ran."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

from environment import in_ci

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def fail_skipped(report: Report) -> Report:
    """*report*, failed if it is of a skip and this is CI."""
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI runs every test: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_skipped((yield))
