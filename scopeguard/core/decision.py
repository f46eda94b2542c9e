"""The decisions of a guard, and their reports: the log gets refusals, and the listener gets one decision for each
request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from typing import Any, Final

from scopeguard.access_token import AccessToken, Anonymous
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.errors import AccessDenied, AuthorityUnavailable
from scopeguard.request import RequestView
from scopeguard.spec.challenge import Response
from scopeguard.state.line_budget import LineBudget

log: Final = logging.getLogger("scopeguard")
refusals: Final = logging.getLogger("scopeguard.decisions")


@dataclass(frozen=True, slots=True, init=False)
class Granted:
    """The request carries a valid access token, and the token satisfies the requirement if there was one.

    ``method``, ``path`` and ``route`` describe the request for listeners (``on_decision``). ``path`` has no query.
    ``route`` is the path template of the route or of the rule, ``None`` if neither is known. Comparisons ignore these
    three.
    """

    access_token: AccessToken
    method: str | None = field(default=None, compare=False, kw_only=True)
    path: str | None = field(default=None, compare=False, kw_only=True)
    route: str | None = field(default=None, compare=False, kw_only=True)

    def __init__(
        self,
        access_token: AccessToken,
        *,
        method: str | None = None,
        path: str | None = None,
        route: str | None = None,
    ) -> None:
        # As in AccessToken: a frozen object is filled while its class is not frozen. One is made for each request.
        target: Any = self
        object.__setattr__(self, "__class__", _Unfrozen)
        target.access_token = access_token
        target.method = method
        target.path = path
        target.route = route
        target.__class__ = Granted


class _Unfrozen:
    __slots__ = ("access_token", "method", "path", "route")


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is refused. ``response`` is the response to send. For the other fields see :class:`Granted`."""

    error: AccessDenied
    response: Response
    method: str | None = field(default=None, compare=False, kw_only=True)
    path: str | None = field(default=None, compare=False, kw_only=True)
    route: str | None = field(default=None, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The token could not be validated, because its authorization server or the store did not answer.

    ``response`` is the 503 to send. For the other fields see :class:`Granted`.
    """

    error: AuthorityUnavailable
    response: Response
    method: str | None = field(default=None, compare=False, kw_only=True)
    path: str | None = field(default=None, compare=False, kw_only=True)
    route: str | None = field(default=None, compare=False, kw_only=True)


Decision = Granted | Anonymous | Denied | Unavailable
"""The result of :meth:`Guard.check`, for ``match``. ``Anonymous`` occurs only with ``optional`` or on public routes."""


class Reporter:
    """Writes refusals to the log and passes decisions to the listener of one guard."""

    def __init__(self, listener: Callable[[Decision], None] | None, policy: RefusalLog | None) -> None:
        self.listener = listener
        self._policy = policy
        # Failures of the listener are limited as well.
        limits = policy or RefusalLog()
        self._lines = LineBudget(limits.burst, limits.interval)

    def log_refusal(self, error: AccessDenied | AuthorityUnavailable, route: str, now: float) -> None:
        """Log the refusal of a request. The line begins with *route*; *now* is in monotonic seconds."""
        policy = self._policy
        if policy is None or not refusals.isEnabledFor(policy.number):
            return
        left_out = self._lines.spend(error.reason, now)
        if left_out is None:
            return
        verdict = "not judged" if isinstance(error, AuthorityUnavailable) else f"denied with {error.status}"
        more = f" [and {left_out} more with this reason since the last such line]" if left_out else ""
        refusals.log(policy.number, "%s: %s%s%s", verdict, route, error, more)

    def report(self, decision: Decision, request: RequestView | None, now: float, *, again: bool = False) -> None:
        """Add *decision* to the report of the current request. Without a report, pass it to the listener at once.

        *again*: an inner layer has checked a token that an outer layer had validated.
        """
        report = self.current_report()
        if report is not None and report.add(decision, again=again):
            return
        if request is not None:
            decision = replace(decision, method=request.method, path=request.path)
        self.notify(decision, now)

    def current_report(self) -> Report | None:
        """Return the report of this guard for the current request, if there is one."""
        report = _current.get()
        while report is not None and (report.reporter is not self or report.has_ended):
            report = report.outer
        return report

    def notify(self, decision: Decision, now: float) -> None:
        """Call the listener. An exception in it is logged and does not change the decision."""
        if self.listener is None:
            return
        try:
            self.listener(decision)
        except Exception:
            if self._lines.spend("on_decision", now) is not None:
                log.exception("on_decision failed; the decision stands")


class Report:
    """Selects, from the decisions of nested layers about a request, the one that the listener gets.

    The listener is called when the response begins. A refusal replaces a grant: a route may refuse a request that
    middleware has admitted. From its construction to :meth:`end`, it is the current report of its task or thread.
    """

    __slots__ = (
        "_before", "_clock", "_decision", "_is_published", "_method", "_path", "_route", "has_ended", "outer",
        "reporter",
    )  # fmt: skip

    def __init__(
        self, reporter: Reporter, method: str, path: str, route: str | None, clock: Callable[[], float]
    ) -> None:
        self.reporter: Reporter = reporter
        self.has_ended: bool = False
        self._route = route
        self.outer: Report | None = _current.get()
        self._method = method
        self._path = path
        self._clock = clock
        self._decision: Decision | None = None
        self._is_published = False
        self._before: Token[Report | None] = _current.set(self)

    def add(self, decision: Decision, *, again: bool) -> bool:
        """Add *decision*. Return false if the caller has to pass it to the listener itself."""
        refused = isinstance(decision, Denied | Unavailable)
        if self._is_published:
            return again and not refused
        if refused or not isinstance(self._decision, Granted | Denied | Unavailable):
            self._decision = decision
        return True

    def publish(self, route: str | None = None) -> None:
        """Pass the decision to the listener, once. *route* is more precise than the one given at construction."""
        decision, self._decision = self._decision, None
        if decision is not None and not self._is_published:
            described = replace(decision, method=self._method, path=self._path, route=route or self._route)
            self._is_published = True
            self.reporter.notify(described, self._clock())

    def end(self) -> None:
        """Publish the decision if that has not happened, and end the report."""
        self.publish()
        self.has_ended = True
        try:
            _current.reset(self._before)
        except ValueError:
            pass  # This call is in another context. That context ignores the report, because the report has ended.


_current: Final[ContextVar[Report | None]] = ContextVar("scopeguard_report", default=None)
