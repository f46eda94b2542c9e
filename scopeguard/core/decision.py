"""What a guard decides about a request, and how that is told: refusals to the log, each request once to a listener."""

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

    ``method``, ``path`` and ``route`` describe the request for listeners (``on_decision``). ``path`` is without query.
    ``route`` is the template of the route or of the rule, ``None`` where neither is known. They do not count in
    comparisons.
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
    """The request was judged and refused; ``response`` is what to send. For the rest see :class:`Granted`."""

    error: AccessDenied
    response: Response
    method: str | None = field(default=None, compare=False, kw_only=True)
    path: str | None = field(default=None, compare=False, kw_only=True)
    route: str | None = field(default=None, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The token could not be judged because its authority did not answer; ``response`` is a 503. For the rest see
    :class:`Granted`."""

    error: AuthorityUnavailable
    response: Response
    method: str | None = field(default=None, compare=False, kw_only=True)
    path: str | None = field(default=None, compare=False, kw_only=True)
    route: str | None = field(default=None, compare=False, kw_only=True)


Decision = Granted | Anonymous | Denied | Unavailable
"""What :meth:`Guard.check` returns; take it apart with ``match``. ``Anonymous`` comes only where it was asked for."""


class Reporter:
    """Tells of the decisions of one guard."""

    def __init__(self, listener: Callable[[Decision], None] | None, policy: RefusalLog | None) -> None:
        self.listener = listener
        self._policy = policy
        # Failures of the listener are written within a limit as well.
        limits = policy or RefusalLog()
        self._lines = LineBudget(limits.burst, limits.interval)

    def log_refusal(self, error: AccessDenied | AuthorityUnavailable, route: str, now: float) -> None:
        """Write the line about a refused request. *route* begins it; *now* is in monotonic seconds."""
        policy = self._policy
        if policy is None or not refusals.isEnabledFor(policy.number):
            return
        left_out = self._lines.spend(error.reason, now)
        if left_out is None:
            return
        verdict = "not judged" if isinstance(error, AuthorityUnavailable) else f"denied with {error.status}"
        more = f" [and {left_out} more with this reason since the last such line]" if left_out else ""
        refusals.log(policy.number, "%s: %s%s%s", verdict, route, error, more)

    def decided(self, decision: Decision, request: RequestView | None, now: float, *, again: bool = False) -> None:
        """Tell the listener of *decision*, or put it into the report of the request that is being served.

        *again*: a token that was judged before was looked at once more, by a layer inside of the one that judged it.
        """
        report = self.open_report()
        if report is not None and report.add(decision, again=again):
            return
        if request is not None:
            decision = replace(decision, method=request.method, path=request.path)
        self.tell(decision, now)

    def open_report(self) -> Report | None:
        """The report of the request that is being served, if this guard has one."""
        report = _current.get()
        while report is not None and (report.reporter is not self or report.has_ended):
            report = report.outer
        return report

    def tell(self, decision: Decision, now: float) -> None:
        """Call the listener. Its failure is logged and changes nothing: the decision has been made."""
        if self.listener is None:
            return
        try:
            self.listener(decision)
        except Exception:
            if self._lines.spend("on_decision", now) is not None:
                log.exception("on_decision failed; the request goes on as decided")


class Report:
    """The one decision about a request: what layers around each other decide is told when the response begins.

    A refusal takes the place of a grant: a route may refuse what middleware has let in. It is the current report of its
    task or thread from its construction to :meth:`leave`.
    """

    __slots__ = (
        "_before", "_clock", "_decision", "_is_told", "_method", "_path", "_route", "has_ended", "outer", "reporter",
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
        self._is_told = False
        self._before: Token[Report | None] = _current.set(self)

    def add(self, decision: Decision, *, again: bool) -> bool:
        """Whether *decision* needs no telling of its own."""
        refused = isinstance(decision, Denied | Unavailable)
        if self._is_told:
            return again and not refused
        if refused or not isinstance(self._decision, Granted | Denied | Unavailable):
            self._decision = decision
        return True

    def tell(self, route: str | None = None) -> None:
        """Tell the listener now, if it was not told before. *route* is more precise than the one given before."""
        decision, self._decision = self._decision, None
        if decision is not None and not self._is_told:
            described = replace(decision, method=self._method, path=self._path, route=route or self._route)
            self._is_told = True
            self.reporter.tell(described, self._clock())

    def leave(self) -> None:
        """End the report; tells the listener if that has not happened yet."""
        self.tell()
        self.has_ended = True
        try:
            _current.reset(self._before)
        except ValueError:
            pass  # in another context than it began in, which goes on to see a report that has ended


_current: Final[ContextVar[Report | None]] = ContextVar("scopeguard_report", default=None)
