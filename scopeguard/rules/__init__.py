"""Requirements for the routes of an app, declared outside its code.

The first rule that matches decides. If rules are given, a route that matches none of them is denied, and an empty list
of rules denies every route. If no rules are given, every route needs a valid token.

Two parsers could read some paths differently: those with dot segments, doubled or encoded slashes, or control
characters. Such a path matches no rule. Where the reading depends on when an app decodes the path, all readings must
lead to the same rule; see :mod:`scopeguard.rules.path_readings`. Many routers serve a path with and without a final
slash by the same code. So a rule with parameters does not match a path if an earlier rule needs other scopes for the
same path with, or without, its final slash.

Rules are compiled when they are constructed. A look-up among ten thousand rules takes as long as among ten.
"""

from __future__ import annotations

from scopeguard.rules.rule import DENIED, OPTIONAL, PUBLIC, Access, Rule
from scopeguard.rules.rules import Rules
from scopeguard.rules.shadows import Shadowed

__all__ = ["DENIED", "OPTIONAL", "PUBLIC", "Access", "Rule", "Rules", "Shadowed"]
