"""Fixtures for the tests of the audit: a guard, and short forms of reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scopeguard import Guard, Issuer
from scopeguard.audit.findings import audit_app
from scopeguard.audit.report import Report

Lines = Callable[..., dict[str, str]]


@pytest.fixture
def guard() -> Guard:
    return Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))


@pytest.fixture
def lines() -> Lines:
    """``lines(app)`` returns the requirement of each route, by method and path."""

    def read(app: Any, **options: Any) -> dict[str, str]:
        return {entry.where: entry.access for entry in audit_app(app, **options).entries}

    return read


@pytest.fixture
def codes() -> Callable[[Any], dict[str, list[str]]]:
    """``codes(app)`` returns the places of each kind of finding."""

    def read(app: Any, **options: Any) -> dict[str, list[str]]:
        report: Report = app if isinstance(app, Report) else audit_app(app, **options)
        found: dict[str, list[str]] = {}
        for finding in report.findings:
            found.setdefault(finding.code.value, []).append(finding.where)
        return found

    return read
