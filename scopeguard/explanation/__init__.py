"""Explanations: every check of a request and its token, passed or failed, with what was found and what is wanted.

    explanation = guard.explain(request)
    if explanation.verdict is not Verdict.ACCEPTED:
        print(explanation.reason, [check.name for check in explanation.failed])

``scopeguard explain`` prints them. The verdict is the engine's own. The checks show all faults of a token at once,
while the engine stops at the first.
"""

from __future__ import annotations

from scopeguard.explanation.order_of_checks import CHECKS, CheckKind
from scopeguard.explanation.result import Check, Explanation, Outcome, Verdict

__all__ = ["CHECKS", "Check", "CheckKind", "Explanation", "Outcome", "Verdict"]
