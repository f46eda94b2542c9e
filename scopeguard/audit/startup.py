"""The audit when an app starts: once, before the first request is judged, and for nothing afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from scopeguard.audit.findings import audit_app
from scopeguard.audit.report import Code, Finding, Report, Severity
from scopeguard.config.audit import AuditMode
from scopeguard.errors import ConfigurationError, printable
from scopeguard.guard import Guard, engine_of
from scopeguard.state.fork import Locked

log: Final = logging.getLogger("scopeguard")

# Warnings about what keeps an app from working, and about what it may read otherwise than the guard.
_LOUD: Final = (Code.CORS_INSIDE_GUARD, Code.ROOT_PATH, Code.UNKNOWN_PATH, Code.METHOD_OVERRIDE)

MOST_LINES: Final = 20
"""Findings that are logged one by one; ``scopeguard audit`` shows all."""

is_checked_outside: Final[ContextVar[bool]] = ContextVar("scopeguard_is_checked_outside", default=False)
"""Whether middleware around the app that starts will check it, with all that is inside."""


class StartCheck(Locked):
    """The check of *app* by *guard*'s setting ``audit``. Constructing it looks at nothing.

    *public*: templates of paths that are meant to be open. ``pending`` is all that a request has to look at.
    """

    __slots__ = ("_app", "_mode", "_problem", "_public", "pending")

    def __init__(self, app: Any, guard: Guard, *, public: Iterable[str] = ()) -> None:
        super().__init__()
        self._app = app
        self._public = tuple(public)
        self._mode = engine_of(guard).settings.audit
        self._problem: str | None = None
        self.pending: bool = self._mode is not AuditMode.OFF

    def run(self) -> None:
        """Check, unless that was done. Raises :class:`ConfigurationError` if there are errors and the setting is
        ``error``, at every call: nothing is to be served then."""
        with self._lock:
            if not self.pending:
                return
            if self._problem is None:
                self._problem = self._checked()
            if self._problem is None:
                self.pending = False
                return
        raise ConfigurationError(self._problem)

    def _checked(self) -> str | None:
        try:
            report = audit_app(self._app, public=self._public) if self._public else audit_app(self._app)
        except Exception as bug:
            # An app may be made of anything, and a report is no reason to keep it from starting.
            if self._mode is AuditMode.ERROR:
                return f"audit: the routes of the app cannot be read ({type(bug).__name__})"
            log.warning("audit: the routes of the app cannot be read", exc_info=True)
            return None
        _log(report)
        if self._mode is AuditMode.ERROR and report.errors:
            more = "" if len(report.errors) == 1 else f" (and {len(report.errors) - 1} more errors)"
            return f"audit: {_line(report.errors[0])}{more}"
        return None


def _log(report: Report) -> None:
    for finding in report.findings[:MOST_LINES]:
        is_loud = finding.severity is Severity.ERROR or finding.code in _LOUD
        log.log(logging.WARNING if is_loud else logging.INFO, "audit: %s", _line(finding))
    if len(report.findings) > MOST_LINES:
        log.warning("audit: and %d more; scopeguard audit shows them", len(report.findings) - MOST_LINES)


def _line(finding: Finding) -> str:
    return f"{printable(finding.where)}: {printable(finding.message)}: {finding.fix}"
