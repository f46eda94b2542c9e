"""The decisions of a guard, and their reports: the log gets refusals, and the listeners get one event for each
request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config.refusal_log import RefusalLog
from scopeguard.errors import AccessDenied, AuthorityUnavailable
from scopeguard.flow.observation import CredentialKind, Observation, TokenCheck
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec.challenge import Response
from scopeguard.state.log_rate_limit import LogRateLimit
from scopeguard.tokens import AccessToken, Anonymous

if TYPE_CHECKING:
    from scopeguard.rules import Rule

log: Final = logging.getLogger("scopeguard")
refusals: Final = logging.getLogger("scopeguard.decisions")


@dataclass(frozen=True, slots=True)
class Granted:
    """The request carries a valid access token, and the token satisfies the requirement if there was one."""

    access_token: AccessToken


@dataclass(frozen=True, slots=True)
class Denied:
    """The request is refused, for the reason in ``error``. ``response`` is the response to send."""

    error: AccessDenied
    response: Response


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The token could not be validated, because its authorization server or the store did not answer.

    ``error`` names the cause. ``response`` is the 503 to send.
    """

    error: AuthorityUnavailable
    response: Response


Decision = Granted | Anonymous | Denied | Unavailable
"""The result of :meth:`Guard.check`, for ``match``. ``Anonymous`` occurs only with ``optional`` or on public routes."""


class Adapter(StrEnum):
    """The part of scopeguard through which a request was decided."""

    ASGI = "asgi"
    WSGI = "wsgi"
    STARLETTE = "starlette"
    FASTAPI = "fastapi"
    FLASK = "flask"
    FALCON = "falcon"
    AIOHTTP = "aiohttp"
    GRPC = "grpc"
    DJANGO = "django"
    LITESTAR = "litestar"
    QUART = "quart"
    MCP = "mcp"
    GUARD = "guard"
    """The app called :meth:`Guard.check <scopeguard.Guard.check>` or a similar method itself."""


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class DecisionEvent:
    """The decision about one request, for ``Guard(on_decision=...)``.

    * ``decision``: what the request got.
    * ``reason``: the code of the refusal, ``None`` for an admitted request.
    * ``status``: the HTTP status of the refusal, ``None`` for an admitted request, whose status the app decides. Some
      servers refuse every websocket with 403 instead.
    * ``method``, ``path``: the method and the path of the request, ``None`` if they are not known. The path has no
      query. Both are what the client sent, so do not use them as labels of a metric.
    * ``route``: the template of the framework's route, or of the rule; ``None`` if neither is known.
    * ``adapter``: the innermost layer that took part in the decision.
    * ``issuer``: the trusted issuer that the token names, ``None`` if there is none. A refused token may be forged.
    * ``client_id``: the client in a verified token, ``None`` without such a token and if the token names no client.
    * ``duration``: the seconds that the guard took, waiting included, without the time of the app.
    * ``token_check``: how much work the check of the token was, ``None`` if the request has no token.
    * ``credential``: whether the request has a token or an API key, ``None`` if neither was found. For an API key,
      ``issuer`` is the one that :class:`~scopeguard.ApiKeys` names.
    """

    decision: Decision
    reason: Reason | None = field(init=False)
    status: int | None = field(init=False)
    method: str | None
    path: str | None
    route: str | None
    adapter: Adapter
    issuer: str | None
    client_id: str | None
    duration: float
    token_check: TokenCheck | None
    credential: CredentialKind | None

    def __init__(
        self,
        *,
        decision: Decision,
        method: str | None = None,
        path: str | None = None,
        route: str | None = None,
        adapter: Adapter = Adapter.GUARD,
        issuer: str | None = None,
        client_id: str | None = None,
        duration: float = 0.0,
        token_check: TokenCheck | None = None,
        credential: CredentialKind | None = None,
    ) -> None:
        # As in AccessToken, the fields are assigned while the object has a class that is not frozen, which is faster.
        # Each request makes an event.
        target: Any = self
        object.__setattr__(self, "__class__", _Unfrozen)
        target.decision = decision
        if isinstance(decision, Denied | Unavailable):
            target.reason = decision.error.reason
            target.status = decision.response.status
        else:
            target.reason = target.status = None
        target.method = method
        target.path = path
        target.route = route
        target.adapter = adapter
        target.issuer = issuer
        target.client_id = client_id
        target.duration = duration
        target.token_check = token_check
        target.credential = credential
        target.__class__ = DecisionEvent


class _Unfrozen:
    __slots__ = tuple(item.name for item in fields(DecisionEvent))


Listener = Callable[[DecisionEvent], None]


def _write_nothing(*_: object) -> None:
    """Write nothing, for a guard without a log of refusals."""


class Reporter:
    """Writes refusals to the log and passes decisions to the listeners of one guard."""

    def __init__(self, listener: Listener | None, policy: RefusalLog | None) -> None:
        self.listeners: tuple[Listener, ...] = () if listener is None else (listener,)
        self._policy = policy
        # Other lines that any caller may cause are limited as well.
        limits = policy or RefusalLog()
        self._lines = LogRateLimit(limits.burst, limits.interval)
        self._write: Callable[..., None] = _write_nothing
        if policy is not None:
            # Not imported at the top of the module, because the catalog of reasons is long; nor during a request, which
            # would wait for it.
            from scopeguard.core.refusal_line import write_refusal  # noqa: PLC0415

            self._write = write_refusal

    def log_refusal(self, refusal: Denied | Unavailable, request: RequestView | None, now: float) -> None:
        """Log *refusal*, the answer to *request*, unless too many lines have its reason.

        *now* is in monotonic seconds.
        """
        policy = self._policy
        if policy is None or not refusals.isEnabledFor(policy.number):
            return
        left_out = self._lines.spend(refusal.error.reason, now)
        if left_out is not None:
            self._write(policy.number, refusal.error, refusal.response, request, left_out)

    def report(
        self,
        decision: Decision,
        request: RequestView | None,
        now: float,
        *,
        observation: Observation | None = None,
        token: AccessToken | None = None,
        again: bool = False,
    ) -> None:
        """Add *decision* to the report of the current request. Without a report, pass it to the listeners at once.

        *now* is in monotonic seconds. *token*: the token that was verified before the request was refused. *again*: an
        inner layer has checked a token that an outer layer had validated.
        """
        report = self.current_report()
        if report is not None and report.add(decision, now, observation=observation, token=token, again=again):
            return
        facts = _Facts()
        facts.add(decision, observation, token)
        if observation is not None and observation.began is not None:
            facts.duration = now - observation.began
        self.notify(
            facts.event(
                decision,
                None if request is None else request.method,
                None if request is None else request.path,
                None,
                Adapter.GUARD if report is None else report.adapter,
            ),
            now,
        )

    def current_report(self) -> Report | None:
        """Return the report of this guard for the current request, if there is one."""
        report = _current.get()
        while report is not None and (report.reporter is not self or report.has_ended):
            report = report.outer
        return report

    def may_log(self, kind: str, now: float) -> bool:
        """Return whether another line of *kind*, which any caller may cause, may be logged."""
        return self._lines.spend(kind, now) is not None

    def notify(self, event: DecisionEvent, now: float) -> None:
        """Call the listeners. An exception in one is logged, and changes neither the decision nor the other calls."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                if self.may_log("on_decision", now):
                    log.exception("on_decision failed; the decision stands")


class _Facts:
    """What is known about the token of a request, from all decisions about it."""

    __slots__ = ("client_id", "credential", "duration", "issuer", "token_check")

    def __init__(self) -> None:
        self.issuer: str | None = None
        self.client_id: str | None = None
        self.duration: float = 0.0
        self.token_check: TokenCheck | None = None
        self.credential: CredentialKind | None = None

    def add(self, decision: Decision, observation: Observation | None, token: AccessToken | None) -> None:
        if isinstance(decision, Granted):
            token = decision.access_token
        if token is not None:
            self.issuer, self.client_id = token.issuer, token.client_id
        elif observation is not None and observation.issuer is not None:
            self.issuer, self.client_id = observation.issuer, None
        if observation is not None and observation.token_check is not None:
            self.token_check = observation.token_check
        if observation is not None and observation.credential is not None:
            self.credential = observation.credential

    def event(
        self, decision: Decision, method: str | None, path: str | None, route: str | None, adapter: Adapter
    ) -> DecisionEvent:
        return DecisionEvent(
            decision=decision,
            method=method,
            path=path,
            route=route,
            adapter=adapter,
            issuer=self.issuer,
            client_id=self.client_id,
            duration=self.duration,
            token_check=self.token_check,
            credential=self.credential,
        )


class Report:
    """Selects, from the decisions of nested layers about a request, the one that the listeners get.

    The listeners are called when the response begins. A refusal replaces a grant: a route may refuse a request that
    middleware has admitted. From its construction to :meth:`end`, it is the current report of its task or thread.
    """

    __slots__ = (
        "_before", "_began", "_clock", "_decision", "_facts", "_is_published", "_method", "_path", "_route", "adapter",
        "handed_to", "has_ended", "outer", "reporter", "rule",
    )  # fmt: skip

    def __init__(
        self,
        reporter: Reporter,
        adapter: Adapter,
        method: str | None,
        path: str | None,
        route: str | None,
        clock: Callable[[], float],
    ) -> None:
        self.reporter: Reporter = reporter
        self.has_ended: bool = False
        self.outer: Report | None = _current.get()
        self.adapter: Adapter = adapter
        """The innermost layer that has begun to check the request."""
        self.handed_to: object = None
        """The middleware that calls itself with this report, until it has taken :attr:`rule`."""
        self.rule: Rule | None = None
        """The rule that :attr:`handed_to` has found for the request, so that it does not look twice."""
        self._route = route
        self._method = method
        self._path = path
        self._clock = clock
        self._began: float | None = clock()
        self._decision: Decision | None = None
        self._facts = _Facts()
        self._is_published = False
        self._before: Token[Report | None] = _current.set(self)

    def add(
        self,
        decision: Decision,
        now: float,
        *,
        observation: Observation | None,
        token: AccessToken | None,
        again: bool,
    ) -> bool:
        """Add *decision*. Return false if the caller has to pass it to the listeners itself."""
        refused = isinstance(decision, Denied | Unavailable)
        if self._is_published:
            return again and not refused
        facts = self._facts
        # The first decision began with the report. The time before a later one may have been spent in the app.
        began, self._began = self._began, None
        if observation is not None and observation.began is not None:
            began = observation.began
        if began is not None:
            facts.duration += now - began
        if refused or not isinstance(self._decision, Granted | Denied | Unavailable):
            self._decision = decision
            facts.add(decision, observation, token)
        return True

    def publish(self, route: str | None = None) -> None:
        """Pass the decision to the listeners, once. *route* is more precise than the one given at construction."""
        decision, self._decision = self._decision, None
        if decision is not None and not self._is_published:
            self._is_published = True
            event = self._facts.event(decision, self._method, self._path, route or self._route, self.adapter)
            self.reporter.notify(event, self._clock())

    def end(self) -> None:
        """Publish the decision if that has not happened, and end the report."""
        self.publish()
        self.has_ended = True
        try:
            _current.reset(self._before)
        except ValueError:
            pass  # This call is in another context. That context ignores the report, because the report has ended.


_current: Final[ContextVar[Report | None]] = ContextVar("scopeguard_report", default=None)
