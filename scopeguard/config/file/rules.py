"""Read the ``[[rules]]`` tables and the public paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scopeguard.config.authzen import AuthZen
from scopeguard.config.file.access import read_access
from scopeguard.config.file.place import Place
from scopeguard.config.file.tables import RULE
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import Requirement


def read_rules(values: Mapping[str, Any], place: Place, of_contracts: Sequence[Rule], point: AuthZen | None) -> Rules:
    """Return the rules of ``[[rules]]`` tables and ``public``, and those *of_contracts* after them."""
    rules = tuple(
        _rule(table, place.inner(f"[[rules]] {number}"), point)
        for number, table in enumerate(values.get("rules", ()), 1)
    )
    # "rules = []" denies every route. Without rules and contract, the file may still have public paths.
    given = (*rules, *of_contracts) if "rules" in values or "contract" in values else None
    return place.construct("public", lambda: Rules(given, public=values.get("public", ())))


def _rule(table: Mapping[str, Any], place: Place, point: AuthZen | None) -> Rule:
    given = place.read(table, RULE)
    if "path" not in given:
        raise place.error("path", f"is missing; set it, as in: path = {RULE['path'].example}")
    name, access = read_access(given, place, "path", RULE)
    place.construct("path", lambda: Rule(given["path"], access))
    decide = point if "decide" in given else None
    if "decide" in given and decide is None:
        raise place.error("decide", "needs a policy decision point; add [authzen] with its url")
    if decide is not None and not isinstance(access, Requirement):
        raise place.error("decide", f"needs an access token, and {name} requires none")
    sources = given.get("token_sources")
    source = f"{place.file}: {place.table}"
    extensions = given.get("extension_methods", ())
    if "dpop" in given:
        place.construct("dpop", lambda: Rule(given["path"], access, dpop=given["dpop"]))
    rest: dict[str, Any] = {"decide": decide, "dpop": given.get("dpop")}
    methods = "methods" if "methods" in given else "extension_methods"
    return place.construct(
        methods,
        lambda: Rule(given["path"], access, given.get("methods"), sources, source, extensions, **rest),
    )
