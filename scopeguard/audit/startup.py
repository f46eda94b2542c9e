"""The audit when an app starts. It runs once, before the first request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final

from scopeguard.audit.findings import audit_app
from scopeguard.audit.report import Code, Finding, Report, Severity
from scopeguard.config.audit import AuditMode
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.log_values import printable
from scopeguard.state.fork import Locked

log: Final = logging.getLogger("scopeguard")

# Warnings that are logged as such: the app may not work, or may read requests differently from the guard.
_LOUD: Final = (Code.CORS_INSIDE_GUARD, Code.ROOT_PATH, Code.UNKNOWN_PATH, Code.METHOD_OVERRIDE)

MOST_LINES: Final = 20
"""The greatest number of findings that are logged one by one. ``scopeguard audit`` shows all."""

is_checked_outside: Final[ContextVar[bool]] = ContextVar("scopeguard_is_checked_outside", default=False)
"""True while middleware around the starting app audits it."""


class StartCheck(Locked):
    """The audit of *app* that the setting ``audit`` of *guard* requires. The constructor does not inspect the app.

    * *public*: templates of paths that are open on purpose.
    * *check*: a further check of the complete app, whatever the setting. It raises :class:`ConfigurationError`.

    ``pending``: whether :meth:`run` must be called before a request.
    """

    __slots__ = ("_app", "_check", "_mode", "_problem", "_public", "pending")

    def __init__(
        self, app: Any, guard: Guard, *, public: Iterable[str] = (), check: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self._app = app
        self._public = tuple(public)
        self._mode = engine_of(guard).settings.audit
        self._problem: str | None = None
        self._check = check
        self.pending: bool = self._mode is not AuditMode.OFF or check is not None

    def run(self) -> None:
        """Run the audit once.

        With the setting ``error``, every call raises :class:`ConfigurationError` if there are errors, so that the app
        serves no request. So does every call if *check* raised one.
        """
        with self._lock:
            if not self.pending:
                return
            if self._problem is None:
                self._problem = self._find_problem()
            if self._problem is None:
                self.pending = False
                return
        raise ConfigurationError(self._problem)

    def _find_problem(self) -> str | None:
        if self._check is not None:
            try:
                self._check()
            except ConfigurationError as error:
                return str(error)
        if self._mode is AuditMode.OFF:
            return None
        try:
            report = audit_app(self._app, public=self._public) if self._public else audit_app(self._app)
        except Exception as bug:
            # The audit may fail on an app of an unknown kind. Only the setting "error" then prevents the start.
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
