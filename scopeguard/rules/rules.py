"""The ordered rules of an API: the look-up of the first one that matches, and checks of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.config.checks import items, text
from scopeguard.errors import ConfigurationError
from scopeguard.rules.final_slash import find_slash_conflicts, hides, other_spelling
from scopeguard.rules.path_matching import NEVER, Terminal, Tree
from scopeguard.rules.path_readings import is_suspicious, other_readings
from scopeguard.rules.rule import DENIED, PUBLIC, Rule
from scopeguard.rules.shadows import Shadowed, find_shadowed
from scopeguard.spec.error_body import ErrorBody

# Stands for every method that no rule names. A rule cannot name it.
_OTHER: Final = "*"
_EXAMPLE: Final = 'Rule("/rows", all_of("rows.read"))'


class Rules:
    """An ordered list of rules.

    * *rules*: a route that matches none of them is denied. An empty list denies every route that is not public.
      ``None`` differs from an empty list: every route then needs a valid token.
    * *public*: templates of paths that need no token with any method. They come first. They open the paths they name
      and change nothing for all others.
    """

    __slots__ = ("_all", "_deny_unmatched", "_exact", "_public", "_rules", "_slash_matters", "_tree")

    def __init__(self, rules: Iterable[Rule] | None = None, *, public: Iterable[str] = ()) -> None:
        paths = items(public, "public", 'a list of paths, as in ["/healthz"]')
        for path in paths:
            text(path, "public: a path")
        given = None if rules is None else items(rules, "rules", "a list of Rule")
        self._compile(tuple(Rule(path, PUBLIC) for path in paths), given)

    def _compile(self, public: tuple[Rule, ...], given: tuple[Rule, ...] | None) -> None:
        rules = given or ()
        for rule in rules:
            if not isinstance(rule, Rule):
                raise ConfigurationError(
                    f"rules: every item must be a Rule, as in {_EXAMPLE}, not {type(rule).__name__}"
                )
        self._deny_unmatched = given is not None
        self._public, self._rules, self._all = public, rules, (*public, *rules)
        self._tree = Tree((rule.template, rule.methods) for rule in self._all)
        self._slash_matters = find_slash_conflicts(self._all)
        # The rules for paths without parameters, by method, with the path in the bytes that clients send.
        self._exact = {
            rule.path: (rule.path.encode("utf-8", "replace"), self._decide_each_method(rule.path))
            for rule in self._all
            if rule.template.literal
        }

    @classmethod
    def of(cls, rules: Rules | Iterable[Rule] | None) -> Rules:
        """Return *rules* as :class:`Rules`. ``None`` means no rules were given; an empty iterable is an empty list."""
        return rules if isinstance(rules, Rules) else cls(rules)

    @classmethod
    def choose(cls, own: Rules | Iterable[Rule] | None, default: Rules | Iterable[Rule] | None) -> Rules:
        """Return the rules of an adapter that was given *own* and whose guard has *default*.

        *own* replaces *default*, even if it is empty. :class:`Rules` that only name public paths are added to
        *default*.
        """
        if own is None:
            return cls.of(default)
        rules = cls.of(own)
        if rules._deny_unmatched:
            return rules
        return cls.of(default).with_public(rule.path for rule in rules._public)

    @property
    def error_body(self) -> ErrorBody:
        """The error format that clients of the API expect: that of the first rule whose contract names one."""
        named = (rule.error_body for rule in self._all if rule.error_body is not None)
        return next(named, ErrorBody.PROBLEM)

    def with_public(self, public: Iterable[str]) -> Rules:
        """Return these rules with more *public* paths before them."""
        more = Rules(public=public)
        if more._public:
            more._compile((*more._public, *self._public), self._rules if self._deny_unmatched else None)
            return more
        return self

    def find(self, method: str, path: str, raw_path: bytes | None = None) -> Rule | None:
        """Return the rule for a request. If it is ``None``, :attr:`deny_unmatched` decides.

        *path* is decoded once and has no mount prefix. *raw_path* is the path as it was sent, if known. It can only
        make the result stricter: ``None``, or a rule that denies.
        """
        exact = self._exact.get(path)
        if exact is None:
            if not self._all:
                return None
            return self._agree(method.upper(), path, None if raw_path == path.encode("utf-8", "replace") else raw_path)
        as_is, by_method = exact
        if raw_path is not None and raw_path != as_is:
            return self._agree(method.upper(), path, raw_path)
        if method in by_method:
            return by_method[method]
        # Some frameworks treat "delete" as DELETE.
        return by_method.get(method.upper(), by_method[_OTHER])

    def closes(self, rule: Rule | None) -> bool:
        """Return whether *rule*, the result of :meth:`find`, denies a request even with a valid token."""
        return self._deny_unmatched if rule is None else rule.access is DENIED

    def find_shadowed(self) -> tuple[Shadowed, ...]:
        """Return the rules that can never decide because earlier rules match all their paths.

        Every rule in the result is shadowed. A rule that several others shadow only together may be missing.
        """
        return find_shadowed(self._all, self._tree)

    @property
    def deny_unmatched(self) -> bool:
        """True if a request that matches no rule is denied: if rules were given, even an empty list."""
        return self._deny_unmatched

    @property
    def all(self) -> tuple[Rule, ...]:
        """Every rule in the order of decision, public paths first."""
        return self._all

    def _agree(self, method: str, path: str, raw_path: bytes | None) -> Rule | None:
        """Return the rule that decides about every reading of the path.

        If a rule denies one of the readings, return that rule. If the readings differ otherwise, return ``None``.
        """
        if not path.startswith("/") or is_suspicious(path):
            return None
        if not isinstance(raw_path, bytes):  # some servers send text or nothing
            raw_path = None
        segments = path[1:].split("/")
        found = self._first(method, segments, self._tree.terminals(segments))
        if found is None or found.access is DENIED or (raw_path is None and "%" not in path):
            return found
        others = other_readings(path, raw_path)
        if others is None:
            return None
        answers = [self._first(method, other, self._tree.terminals(other)) for other in others]
        denied = next((rule for rule in answers if rule is not None and rule.access is DENIED), None)
        if denied is not None:
            return denied
        return found if all(rule is found for rule in answers) else None

    def _decide_each_method(self, path: str) -> dict[str, Rule | None]:
        segments = path[1:].split("/")
        terminals = self._tree.terminals(segments)
        # A rule for one method of the other spelling may hide a rule for all methods of this one.
        others = self._tree.terminals(other_spelling(segments)) if len(segments) > (segments[-1] == "") else ()
        methods = {_OTHER}.union(*(terminal.by_method for terminal in (*terminals, *others)))
        return {method: self._first(method, segments, terminals) for method in methods}

    def _first(self, method: str, segments: Sequence[str], terminals: Sequence[Terminal]) -> Rule | None:
        index = _lowest(method, terminals)
        if index == NEVER:
            return None
        rule = self._all[index]
        # A final slash is an empty last segment. "/" alone has no other spelling.
        slashed = segments[-1] == ""
        if rule.access is not DENIED and len(segments) > slashed and index in self._slash_matters[slashed]:
            other = _lowest(method, self._tree.terminals(other_spelling(segments)))
            if other < index and hides(rule, self._all[other]):
                return self._all[other] if self._all[other].access is DENIED else None
        return rule


def _lowest(method: str, terminals: Iterable[Terminal]) -> int:
    index = NEVER
    for terminal in terminals:
        index = min(index, terminal.first(method))
    return index
