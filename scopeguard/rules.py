"""Which requirement holds for which route, for apps whose code is not to be touched.

The first rule that matches decides. With rules present, a route that matches none is denied; with none, every route
needs a valid token. A path that two parsers could read differently (dot segments, doubled or encoded slashes, control
characters) matches no rule at all, so it can only ever meet the strictest answer (H-06, H-08, X-74). Nor does one that
only a ``{rest:path}`` matches, while a rule before it needs other scopes for the same path with, or without, a slash
at its end: many routers serve both by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from scopeguard.config import TokenSource, checked_sources
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import AUTHENTICATED, Requirement

_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
_PARAMETER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(:path)?\}")
_SUSPICIOUS: Final = re.compile(r"//|\\|[\x00-\x1f\x7f\ufffd]|(?:^|/)\.{1,2}(?:/|$)|%2[fF]|%5[cC]|%2[eE]")
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")


class Access(Enum):
    """What a rule may say instead of a requirement."""

    PUBLIC = "public"  # no token is looked for
    OPTIONAL = "optional"  # no token: anonymous; a token: judged, and refused if it is bad (B-55)


PUBLIC: Final = Access.PUBLIC
OPTIONAL: Final = Access.OPTIONAL


@dataclass(frozen=True, slots=True)
class Rule:
    """*access* for requests whose path matches the template *path* and whose method is among *methods*.

    A template is a path in which ``{name}`` stands for one segment (or a part of one, as in ``{table}:insertAll``)
    and ``{name:path}``, behind the last slash, for the rest, which may be empty. *methods*: all of them if not given;
    ``GET`` includes ``HEAD`` (H-09). *token_sources*: where this route takes tokens, instead of the guard's setting.
    """

    path: str
    access: Requirement | Access = AUTHENTICATED
    methods: Iterable[str] | None = None
    token_sources: Iterable[str] | None = None
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pattern", _compiled(self.path))
        if not isinstance(self.access, Requirement | Access):
            raise ConfigurationError(f"rule {self.path!r}: a requirement, PUBLIC or OPTIONAL is needed")
        if self.methods is not None:
            methods = frozenset((self.methods,) if isinstance(self.methods, str) else self.methods)
            for method in methods:
                if not isinstance(method, str) or not _METHOD.fullmatch(method):
                    raise ConfigurationError(f"rule {self.path!r}: {method!r} is not a method; write it in capitals")
            if not methods:
                raise ConfigurationError(f"rule {self.path!r}: name a method, or leave methods out for all of them")
            object.__setattr__(self, "methods", methods | {"HEAD"} if "GET" in methods else methods)
        if self.token_sources is not None:
            sources = checked_sources(self.token_sources, f"rule {self.path!r}: token_sources")
            object.__setattr__(self, "token_sources", sources)

    @property
    def sources(self) -> frozenset[TokenSource] | None:
        """The token sources of this route, ``None`` for the guard's own."""
        return self.token_sources if isinstance(self.token_sources, frozenset) else None

    def matches(self, method: str, path: str) -> bool:
        """Whether this rule decides about *method*, in capitals, on the decoded *path*."""
        return (self.methods is None or method in self.methods) and self._pattern.fullmatch(path) is not None


class Rules:
    """Rules in order. *public* are templates of paths that need no token, whatever the method; they come first."""

    __slots__ = ("_public", "_rules")

    def __init__(self, rules: Iterable[Rule] = (), *, public: Iterable[str] = ()) -> None:
        if isinstance(public, str):
            raise ConfigurationError('public: write a list of paths, as in ["/healthz"], not one string')
        self._public = tuple(Rule(path, PUBLIC) for path in public)
        self._rules = tuple(rules)
        for rule in self._rules:
            if not isinstance(rule, Rule):
                raise ConfigurationError(f"rules: holds a {type(rule).__name__}; every item is a Rule")

    @classmethod
    def of(cls, rules: Rules | Iterable[Rule] | None) -> Rules:
        """*rules* as :class:`Rules`."""
        return rules if isinstance(rules, Rules) else cls(rules or ())

    def with_public(self, public: Iterable[str]) -> Rules:
        """These rules with more *public* paths before them."""
        more = Rules(public=public)
        more._public += self._public
        more._rules = self._rules
        return more

    def find(self, method: str, path: str) -> Rule | None:
        """The rule for a request, ``None`` where none decides: then :attr:`deny_unmatched` does."""
        if not path.startswith("/") or _SUSPICIOUS.search(path):
            return None
        # Some frameworks read "delete" as DELETE.
        method = method.upper()
        for rule in self.all:
            if rule.matches(method, path):
                return None if self._hides(rule, method, path) else rule
        return None

    def _hides(self, found: Rule, method: str, path: str) -> bool:
        """Whether *found*, by ``{rest:path}``, overrides what an earlier rule says of *path* but for its last slash."""
        if not found.path.endswith(":path}"):
            return False
        other = path[:-1] if path.endswith("/") else f"{path}/"
        first = next((rule for rule in self.all if rule is found or rule.matches(method, other)), found)
        return isinstance(first.access, Requirement) and first.access != found.access

    @property
    def deny_unmatched(self) -> bool:
        """Whether a request that matches no rule is denied whatever its token (H-07)."""
        return bool(self._rules)

    @property
    def all(self) -> tuple[Rule, ...]:
        """Every rule in the order of decision, public paths first."""
        return (*self._public, *self._rules)


def _compiled(template: str) -> re.Pattern[str]:
    if not isinstance(template, str) or not template.startswith("/"):
        raise ConfigurationError(f"rule {template!r}: a path begins with /")
    if "*" in template:
        raise ConfigurationError(f"rule {template!r}: no wildcards; {{name:path}} at the end stands for the rest")
    if _SUSPICIOUS.search(template) or _ENCODED.search(template) or "?" in template or "#" in template:
        raise ConfigurationError(f"rule {template!r}: a decoded path without //, dot segments, query and fragment")
    pattern, position = "", 0
    for parameter in _PARAMETER.finditer(template):
        pattern += _literal(template, position, parameter.start())
        position = parameter.end()
        if parameter[1] is None:
            pattern += "[^/]+"
        elif position == len(template) and template[parameter.start() - 1] == "/":
            pattern += ".*"
        else:
            raise ConfigurationError(f"rule {template!r}: {{name:path}} stands alone behind the last slash")
    return re.compile(pattern + _literal(template, position, len(template)), re.DOTALL)


def _literal(template: str, start: int, end: int) -> str:
    text = template[start:end]
    if "{" in text or "}" in text:
        raise ConfigurationError(f"rule {template!r}: parameters are written {{name}} or {{name:path}}")
    return re.escape(text)
