"""The decision about CORS preflights: which of them need no token (the Fetch standard).

A browser sends a preflight without credentials, before the request that it announces. If the setting ``cors_preflight``
is ``"pass"``, a preflight passes unless the rules deny the announced request to everyone. The token of the announced
request is checked when that request arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from scopeguard.rules import DENIED, Access
from scopeguard.scopes import Requirement

PREFLIGHT_KEY: Final = "scopeguard.preflight"
"""The key in a WSGI environ that says whether the request is a preflight that needs no token."""


def announces_allowed_request(
    method: str | None, own_access: Access | Requirement | None, is_closed: Callable[[str], bool]
) -> bool:
    """Return whether a preflight announces a request that is not denied to everyone.

    * *method*: the announced method (``Access-Control-Request-Method``), ``None`` if the request is not a preflight.
    * *own_access*: what the rule for the preflight itself, with the method OPTIONS, requires; ``None`` without a rule.
    * *is_closed*: returns whether requests to the path with the given method are denied to everyone.
    """
    return method is not None and own_access is not DENIED and not is_closed(method)
