"""A policy decision point (AuthZEN Authorization API 1.0) for tests, in process and without sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from scopeguard.config.authzen import AuthZen
from scopeguard.config.urls import check_url
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.reasons import Reason
from scopeguard.spec.authzen import EVALUATION, EVALUATIONS, REQUEST_ID, metadata_url
from scopeguard.testing.transport import RecordingTransport

Decision: TypeAlias = bool | Mapping[str, Any]
"""``True``, ``False``, or the members of an answer, as in ``{"decision": False, "context": {...}}``."""


class FakeDecisionPoint:
    """A policy decision point that a test controls.

    *decide* is a decision for all evaluation requests, or a function that takes an evaluation (a mapping with
    ``subject``, ``action``, ``resource`` and ``context``) and returns one. It may be replaced at any time.
    ``evaluations`` has the evaluations in order; a request may have several.

    >>> from scopeguard import Guard, Rule
    >>> from scopeguard.testing import FakeAuthority, FakeDecisionPoint, Network
    >>> authority = FakeAuthority()
    >>> pdp = FakeDecisionPoint(decide=lambda evaluation: evaluation["subject"]["id"] == "alice")
    >>> rules = [Rule("/tables", decide=pdp.authzen())]
    >>> guard = Guard(authority.issuer, rules=rules, transport=Network(authority, pdp), clock=authority.clock)

    :meth:`answer`, :meth:`hang` and :meth:`go_down` cause faults until :meth:`recover`.
    """

    def __init__(
        self, url: str = "https://pdp.test", *, decide: Decision | Callable[[Mapping[str, Any]], Decision] = True
    ) -> None:
        if not callable(decide) and not isinstance(decide, bool | Mapping):
            raise ConfigurationError(
                f"decide: must be true, false, the members of an answer or a function, not {type(decide).__name__}"
            )
        self.url: str = check_url(url, "url", query=False)
        self.decide: Decision | Callable[[Mapping[str, Any]], Decision] = decide
        self.evaluations: list[Mapping[str, Any]] = []
        self.transport: RecordingTransport = _Transport(self)
        self._fault: Answer | AuthorityUnavailable | None = None

    def authzen(self, **settings: Any) -> AuthZen:
        """Return the settings of this decision point for a rule, with more *settings*."""
        return AuthZen(self.url, **settings)

    def answer(self, status: int, body: bytes | str = b"", **headers: str) -> None:
        """Answer every request with *status* and *body*. ``content_type`` and the like are *headers*."""
        content = body.encode("utf-8") if isinstance(body, str) else body
        fields = {"content_type": "application/json", **headers}
        self._fault = Answer(status, content, {name.replace("_", "-"): value for name, value in fields.items()})

    def hang(self) -> None:
        """Let every request time out, without waiting."""
        self._fault = AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, self.url)
        self._fault.sent = True

    def go_down(self) -> None:
        """Refuse every connection."""
        self._fault = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, self.url)
        self._fault.sent = False

    def recover(self) -> None:
        """Answer requests again."""
        self._fault = None

    def respond(self, request: Send) -> Answer:
        """Return the answer to *request*. The transport calls it."""
        if isinstance(self._fault, AuthorityUnavailable):
            failure = AuthorityUnavailable(self._fault.reason, request.authority, url=request.url)
            failure.sent = self._fault.sent
            raise failure
        if self._fault is not None:
            return self._fault
        if request.url == metadata_url(self.url):
            return self._json(self._metadata())
        path = urlsplit(request.url).path.removeprefix(urlsplit(self.url).path.removesuffix("/"))
        if request.content is None or path not in (EVALUATION, EVALUATIONS):
            return Answer(404, b"")
        document = json.loads(request.content)
        identifier = dict(request.headers).get(REQUEST_ID, "")
        if path == EVALUATION:
            return self._json(self._decide(document), identifier)
        defaults = {name: document[name] for name in ("subject", "action", "resource", "context") if name in document}
        found = [self._decide({**defaults, **item}) for item in document["evaluations"]]
        return self._json({"evaluations": found}, identifier)

    def _metadata(self) -> dict[str, str]:
        base = self.url.removesuffix("/")
        return {
            "policy_decision_point": self.url,
            "access_evaluation_endpoint": base + EVALUATION,
            "access_evaluations_endpoint": base + EVALUATIONS,
        }

    def _decide(self, evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
        self.evaluations.append(evaluation)
        found = self.decide(evaluation) if callable(self.decide) else self.decide
        return {"decision": found} if isinstance(found, bool) else found

    @staticmethod
    def _json(members: Mapping[str, Any], identifier: str = "") -> Answer:
        headers = {"content-type": "application/json"} | ({REQUEST_ID: identifier} if identifier else {})
        return Answer(200, json.dumps(members).encode("ascii"), headers)


class _Transport(RecordingTransport):
    def __init__(self, point: FakeDecisionPoint) -> None:
        super().__init__(point.url)
        self._point = point

    def respond(self, request: Send) -> Answer:
        return self._point.respond(request)
