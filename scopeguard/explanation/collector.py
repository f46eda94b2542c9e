"""Performs checks, and collects their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.errors import AccessDenied, AuthorityUnavailable
from scopeguard.explanation.order_of_checks import BY_NAME
from scopeguard.explanation.result import Check, Outcome

Refusal = AccessDenied | AuthorityUnavailable

# The facts of an error that "found" and "wanted" do not show.
_FACTS: Final = ("problem", "claim", "parameter", "differs", "cause", "url", "status", "hint")
_TIMES: Final = ("expiry", "not_before", "issued_at")  # "found" shows how a time differs from now


class Collector:
    """The results of checks, by name. *offline*: nothing may be fetched, so an outage is not a result."""

    def __init__(self, *, offline: bool) -> None:
        self.offline: bool = offline
        self.checks: dict[str, Check] = {}

    def add(
        self,
        name: str,
        outcome: Outcome,
        error: Refusal | None = None,
        *,
        found: str = "",
        wanted: str = "",
        note: str = "",
    ) -> bool:
        """Add the result of the check *name*; return whether it passed."""
        kind = BY_NAME[name]
        detail = {} if error is None else error.detail
        shown = [key for key in _FACTS if key in detail and not (key == "differs" and name in _TIMES)]
        facts = [f"{key}: {detail[key]}" for key in shown]
        self.checks[name] = Check(
            name=name,
            title=kind.title,
            outcome=outcome,
            found=found,
            wanted=wanted,
            reason=None if error is None else error.reason,
            note="; ".join(filter(None, (note, *facts))),
            cause="" if error is None else entry_of(error.reason).cause.replace("`", ""),
            fix="" if error is None else entry_of(error.reason).fix.replace("`", ""),
            reference=kind.reference,
        )
        return outcome is Outcome.PASSED

    def run(self, name: str, call: Callable[[], object], *, found: str = "", wanted: str = "") -> bool:
        """Perform the check *name* with *call*, which raises if it fails; return whether it passed."""
        kind = BY_NAME[name]
        try:
            call()
        except AuthorityUnavailable as error:
            return self.add_outage(name, error, found=found, wanted=wanted)
        except AccessDenied as error:
            if error.reason not in kind.reasons | kind.shared:  # another check reports this fault
                return self.skip(name, "an earlier check failed", found=found, wanted=wanted)
            return self.add(name, Outcome.FAILED, error, found=found, wanted=wanted)
        return self.add(name, Outcome.PASSED, found=found, wanted=wanted)

    def add_outage(self, name: str, error: AuthorityUnavailable, *, found: str = "", wanted: str = "") -> bool:
        """Add the check *name* as undecided, or as not performed if nothing may be fetched."""
        if self.offline:
            return self.skip(name, "offline: nothing is fetched", found=found, wanted=wanted)
        return self.add(name, Outcome.UNDECIDED, error, found=found, wanted=wanted)

    def skip(self, name: str, note: str, *, found: str = "", wanted: str = "") -> bool:
        """Add the check *name* as not performed, with the reason in *note*."""
        return self.add(name, Outcome.NOT_CHECKED, found=found, wanted=wanted, note=note)

    def has_not_passed(self, names: Iterable[str]) -> bool:
        """Return whether one of the checks *names* failed, is undecided or was not performed."""
        found = (self.checks.get(name) for name in names)
        return any(check is not None and check.outcome is not Outcome.PASSED for check in found)

    def mark(self, name: str) -> None:
        """Mark the check *name* as the one for which the request is refused."""
        self.checks[name] = replace(self.checks[name], decides=True)
