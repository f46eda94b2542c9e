"""The rules of the file, and with an app the summary of its audit."""

from __future__ import annotations

from typing import Any, Final

from scopeguard.adapter.declarations import ServeLayer
from scopeguard.audit.findings import audit_app
from scopeguard.doctor.finding import Finding, error, ok, warning
from scopeguard.guard import Guard

SUBJECT: Final = "rules"


def check_rules(guard: Guard, *, audited: bool = False) -> Finding:
    """Count the rules of the file. Without any, every valid token suffices, unless the app declares requirements.

    *audited*: whether the audit of the app finds these requirements.
    """
    rules = () if guard.rules is None else guard.rules.all
    operations = () if guard.mcp is None else guard.mcp.rules
    if guard.mcp is None and (guard.rules is None or not guard.rules.deny_unmatched):
        if audited:
            return ok(SUBJECT, "rules", "none in the file; the audit shows the requirements of the app")
        text = "the file has no [[rules]]: without decorators in the app, any valid token opens every route"
        return warning(SUBJECT, "rules", text, fix="add [[rules]], or name the app, as in scopeguard doctor module:app")
    count = len(rules) + len(operations)
    return ok(SUBJECT, "rules", f"{count} rule{'' if count == 1 else 's'}; everything else is denied")


def check_app(app: Any, target: str, file: str, guard: Guard) -> Finding:
    """Audit *app* behind *guard*, as ``scopeguard serve`` runs it. ``scopeguard audit`` shows each problem."""
    report = audit_app(ServeLayer(app, guard), target=target)
    fix = f"see scopeguard audit {target} --config {file}"
    if report.errors:
        return error(SUBJECT, "audit", f"{target}: {report.summary}", fix=fix)
    if report.warnings:
        return warning(SUBJECT, "audit", f"{target}: {report.summary}", fix=fix)
    return ok(SUBJECT, "audit", f"{target}: {report.summary}")
