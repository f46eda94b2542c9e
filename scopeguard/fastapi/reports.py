"""Reports about the decisions on a request, for ``on_decision`` and metrics. They end with the request."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from scopeguard.asgi import Scope, framework_route
from scopeguard.core.decision import Adapter, Report
from scopeguard.core.engine import Engine

REQUEST_STACK: Final = "fastapi_inner_astack"
"""The key in the scope of the exit stack that FastAPI closes when the request ends."""


def begin_report(engine: Engine, scope: Scope) -> None:
    """Begin the report for a request. It ends with the request, after the decisions of all dependencies."""
    stack = scope.get(REQUEST_STACK)
    if isinstance(stack, AsyncExitStack):
        report = engine.begin_report(Adapter.FASTAPI, scope.get("method", "GET"), scope["path"], None)
        if report is not None:
            stack.callback(_end_report, report, scope)


def _end_report(report: Report, scope: Scope) -> None:
    report.publish(framework_route(scope))
    report.end()
