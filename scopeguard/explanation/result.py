"""The result of an explanation, and its form as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scopeguard.reasons import Reason


class Verdict(StrEnum):
    """The decision about a request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # 4xx
    UNDECIDED = "undecided"  # 503: the authorization server or the store did not answer, or was not asked (offline)


class Outcome(StrEnum):
    """The result of one check."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"  # an outage
    NOT_CHECKED = "not_checked"  # "note" says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check and its result.

    * ``name``: the stable name, for scripts. ``title``: the name for people.
    * ``outcome``: see :class:`Outcome`.
    * ``found``, ``wanted``: the value in the request and what the configuration demands, escaped and cut to a few
      hundred characters. They may be empty.
    * ``reason``: why it failed or is undecided, else ``None``.
    * ``decides``: whether this check is the one for which the request is refused. The others do not change the answer.
    * ``note``: more facts, such as why the check was not performed.
    * ``cause``, ``fix``: what the reason means, and what to do; empty unless the check failed or is undecided.
    * ``reference``: the section of the standard; empty if the check is one of scopeguard's own.
    """

    name: str
    title: str
    outcome: Outcome
    found: str = ""
    wanted: str = ""
    reason: Reason | None = None
    decides: bool = False
    note: str = ""
    cause: str = ""
    fix: str = ""
    reference: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return this check in JSON types."""
        return {
            "name": self.name,
            "title": self.title,
            "outcome": self.outcome.value,
            "decides": self.decides,
            "reason": None if self.reason is None else self.reason.value,
            "found": self.found,
            "wanted": self.wanted,
            "note": self.note,
            "cause": self.cause,
            "fix": self.fix,
            "reference": self.reference,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Every check of one request, in the order of the engine. It contains no token.

    * ``verdict``: see :class:`Verdict`. ``reason``: the reason of a refusal or an outage, else ``None``.
    * ``status``: the HTTP status of the refusal; ``None`` if the request is accepted.
    * ``method``, ``path``: those of the request; ``None`` if only a token is explained.
    * ``rule``: the path template of the rule that decides, ``None`` if there is none. ``requires``: what the route
      requires, as text.
    * ``fingerprint``: 12 hexadecimal digits of the SHA-256 of the token; ``None`` if the request has no token.
    * ``kind``: ``"jwt"``, ``"opaque"`` or ``"api_key"``; ``None`` if the request has no token or it cannot be read.
    * ``issuer``: the URL of the configured issuer; ``None`` if the token belongs to none.
    * ``nearest``: the configured issuer that is most like the one in the token; ``None`` if ``issuer`` is known.
    * ``checks``: the checks that apply to this token and this configuration.
    """

    verdict: Verdict
    reason: Reason | None = None
    status: int | None = None
    method: str | None = None
    path: str | None = None
    rule: str | None = None
    requires: str | None = None
    fingerprint: str | None = None
    kind: str | None = None
    issuer: str | None = None
    nearest: str | None = None
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed or are undecided."""
        return tuple(check for check in self.checks if check.outcome in (Outcome.FAILED, Outcome.UNDECIDED))

    def as_json(self) -> dict[str, Any]:
        """Return this explanation in JSON types. The names of members are stable."""
        return {
            "verdict": self.verdict.value,
            "reason": None if self.reason is None else self.reason.value,
            "status": self.status,
            "method": self.method,
            "path": self.path,
            "rule": self.rule,
            "requires": self.requires,
            "fingerprint": self.fingerprint,
            "kind": self.kind,
            "issuer": self.issuer,
            "nearest": self.nearest,
            "checks": [check.as_json() for check in self.checks],
        }
