"""Requirements for the tools, prompts, resources and methods of an MCP server.

The first rule of a kind that matches decides. An operation that no rule names is denied.

Longer than 400 lines because the kinds of rules and the comparison of names are read together.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlsplit

from scopeguard.conditions import Condition
from scopeguard.config.body_limits import LARGEST_MCP_MESSAGE, MCP_MESSAGE_TIMEOUT
from scopeguard.config.checks import Converted, converted, is_async, items, positive, strings, text, whole
from scopeguard.errors import ConfigurationError, Forbidden
from scopeguard.reasons import Reason
from scopeguard.rules.path_readings import ESCAPE, SUSPICIOUS
from scopeguard.rules.rule import DENIED, Access, check_access
from scopeguard.scopes import AUTHENTICATED, Requirement
from scopeguard.spec.mcp import NAME_MEMBERS, Message

Decide = Callable[[Mapping[str, Any]], "Requirement | Condition | Access | str"]
"""A function that returns the requirement of one request from its arguments. It is not asynchronous."""

_NO_INDEX: Final = 1 << 30
# The greatest length of a name that is compared with patterns, in characters. Unicode normalisation sorts combining
# marks in quadratic time, so that one name as long as a body would block the event loop for minutes.
_LONGEST_NAME: Final = 2048
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#@\s]+")
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(?://([^/?#]*))?(.*)", re.DOTALL)
# Slash, backslash, question mark, number sign and percent sign: decoded, they would be delimiters of the URI.
_ENCODED_DELIMITER: Final = re.compile(r"%(?:2[fF35]|5[cC]|3[fF])")
_PLAIN_AUTHORITY: Final = re.compile(r"[a-z0-9_*.:\[\]\-]*")
_DEFAULT_PORTS: Final = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}


@dataclass(frozen=True, slots=True)
class OperationRule:
    """One rule: *pattern* and the *access* to what it matches. The base of :class:`Tool` and the others.

    *access* is a requirement, one scope, a condition, ``DENIED``, or a function that gets the arguments of the request
    and returns one of these. The function is not asynchronous. If it raises an exception, the request is denied.
    """

    pattern: str
    access: Requirement | Condition | Access | str | Decide
    requirement: Requirement | None = field(init=False, repr=False, compare=False)
    """The requirement; ``None`` if the rule denies, or a function decides."""
    decide: Decide | None = field(init=False, repr=False, compare=False)

    kind: ClassVar[str]
    setting: ClassVar[str] = "name"

    def __post_init__(self) -> None:
        where = f"{type(self).__name__}({self.pattern!r})"
        text(self.pattern, f"{type(self).__name__}: {self.setting}", empty=False)
        access: Any = self.access
        decide = None
        if callable(access) and not isinstance(access, Requirement | Condition | Access | type):
            if is_async(access):
                raise ConfigurationError(f"{where}: access: must not be asynchronous")
            decide = access
        else:
            access = check_operation_access(access, f"{where}: access")
            object.__setattr__(self, "access", access)
        object.__setattr__(self, "decide", decide)
        object.__setattr__(self, "requirement", access if isinstance(access, Requirement) else None)
        self._check_pattern(where)

    def _check_pattern(self, where: str) -> None:
        """Raise :class:`ConfigurationError` for a pattern that this kind of rule cannot have."""

    def matcher(self) -> _Glob:
        """Return the pattern as an object that compares texts with it."""
        return _Glob(self.pattern)

    def find_requirement(self, message: Message) -> Requirement | Access:
        """Return the requirement for *message*, or ``DENIED``.

        Raises :class:`~scopeguard.errors.Forbidden` if the function of the rule fails, or returns something else.
        """
        if self.decide is None:
            return self.requirement or DENIED
        found: Any = None
        try:
            found = self.decide(message.arguments)
            return check_operation_access(found, "the result")
        except Exception as error:  # noqa: BLE001 - the function of the API may raise anything
            # Without a traceback and the text of the error, which may contain arguments of the request.
            failure = Forbidden(Reason.RULE_FAILED, rule=self.pattern, error=type(error).__name__)
        if inspect.iscoroutine(found):
            found.close()
        raise failure


class Tool(OperationRule):
    """The *access* to the tools whose names match *pattern* (``tools/call``).

    ::

        Tool("delete_*", all_of("files:write"))
        Tool("transfer", lambda arguments: all_of("pay:large") if arguments["amount"] > 1000 else all_of("pay"))

    ``*`` stands for any printable text, in a name of at most 2048 characters. Names are case-sensitive. A name that
    a pattern with ``*`` matches is denied if an earlier rule matches it without regard to case and to compatible
    characters of Unicode: the server may take both for one name.
    """

    __slots__ = ()
    kind = "tool"


class Prompt(OperationRule):
    """The *access* to the prompts whose names match *pattern* (``prompts/get``). Patterns as for :class:`Tool`."""

    __slots__ = ()
    kind = "prompt"


class ResourceUri(OperationRule):
    """The *access* to the resources whose URIs match *pattern*.

    It holds for ``resources/read``, ``resources/subscribe`` and ``resources/unsubscribe``. ``*`` stands for text
    without a slash. ``**`` after the last slash stands for the rest, and may be the whole pattern::

        ResourceUri("file:///reports/**", all_of("reports:read"))
        ResourceUri("db://*/schema", all_of("schema:read"))

    URIs are compared in one form: scheme and host in lower case, without the default port, and percent-decoded. A URI
    with dot segments, doubled or encoded slashes, backslashes or control characters matches only a rule with exactly
    its text. Raises :class:`ConfigurationError` for such a pattern with ``*``.
    """

    __slots__ = ()
    kind = "resource"
    setting = "uri"

    def _check_pattern(self, where: str) -> None:
        if "*" not in self.pattern:
            return
        if "**" in self.pattern.removesuffix("**") or not (
            self.pattern == "**" or self.pattern.endswith("/**") or "**" not in self.pattern
        ):
            raise ConfigurationError(f"{where}: ** may only come after the last slash, as in file:///reports/**")
        if self.pattern != "**" and canonical_uri(self.pattern) is None:
            raise ConfigurationError(f"{where}: not an unambiguous URI; write scheme, host and plain segments")

    def matcher(self) -> _Glob:
        """Return the pattern as an object that compares canonical URIs with it."""
        return _UriGlob(self.pattern)


class Method(OperationRule):
    """The *access* to the methods that match *pattern*, except those that act on one tool, prompt or resource.

    ::

        Method("tools/list", AUTHENTICATED)
        Method("completion/complete", all_of("files:read"))

    ``*`` stands for any printable text. ``tools/call``, ``prompts/get``, ``resources/read``, ``resources/subscribe``
    and ``resources/unsubscribe`` are decided by the other rules only: :class:`Tool`, :class:`Prompt` and
    :class:`ResourceUri`. The messages in :data:`PROTOCOL_METHODS` need only a valid token if no rule names them.
    """

    __slots__ = ()
    kind = "method"

    def _check_pattern(self, where: str) -> None:
        if self.pattern in NAME_MEMBERS:
            kind = {"t": "Tool", "p": "Prompt", "r": "ResourceUri"}[self.pattern[0]]
            raise ConfigurationError(f"{where}: write {kind}(...) instead, because this method acts on a named object")


PROTOCOL_METHODS: Final = (
    "initialize",
    "ping",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
)
"""The methods that need a valid token, and nothing else, unless a :class:`Method` rule says otherwise.

They open a connection and keep it up, and read nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpPolicy:
    """What an MCP server requires of requests, and the bounds within which they are read.

    * *rules*: :class:`Tool`, :class:`Prompt`, :class:`ResourceUri` and :class:`Method` rules. The first of a kind that
      matches decides. An operation that no rule names is denied.
    * *allowed_origins*: the origins of web pages that may send requests, as in ``"https://app.example.com"``, besides
      that of the resource. Requests without an ``Origin`` are not from a web page, and pass.
    * *max_body_bytes*: the greatest length of a message (413).
    * *body_timeout*: the seconds within which a message must arrive (408).

    Raises :class:`ConfigurationError` for a value of the wrong kind, and for a rule that could never decide.
    """

    rules: Converted[Iterable[OperationRule], tuple[OperationRule, ...]] = field(default=converted(()))
    allowed_origins: Converted[Iterable[str], frozenset[str]] = field(default=converted(frozenset()))
    max_body_bytes: int = LARGEST_MCP_MESSAGE
    body_timeout: float = MCP_MESSAGE_TIMEOUT
    _finders: Mapping[str, _Finder] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wanted = "a list of Tool, Prompt, ResourceUri and Method rules"
        rules = items(self.rules, "rules", wanted, OperationRule)
        object.__setattr__(self, "rules", rules)
        origins = frozenset(canonical_origin(o) for o in strings(self.allowed_origins, "allowed_origins", empty=False))
        object.__setattr__(self, "allowed_origins", origins)
        whole(self.max_body_bytes, "max_body_bytes")
        positive(self.body_timeout, "body_timeout")
        named = {rule.pattern for rule in rules if isinstance(rule, Method)}
        defaults = [Method(name, AUTHENTICATED) for name in PROTOCOL_METHODS if name not in named]
        kinds = (Tool, Prompt, ResourceUri)
        finders = {kind.kind: _Finder([rule for rule in rules if isinstance(rule, kind)]) for kind in kinds}
        finders[Method.kind] = _Finder([rule for rule in rules if isinstance(rule, Method)], defaults)
        object.__setattr__(self, "_finders", finders)

    def find(self, message: Message) -> OperationRule | None:
        """Return the rule for *message*, which has a method. ``None`` if no rule names the operation."""
        method = message.method or ""
        if method not in NAME_MEMBERS:
            # A server that ignores case would act on the named object.
            if _is_comparable(method) and _fold(method).strip() in NAME_MEMBERS:
                return None
            return self._finders["method"].find(method, method)
        name = message.name or ""
        if method == "tools/call":
            return self._finders["tool"].find(name, name)
        if method == "prompts/get":
            return self._finders["prompt"].find(name, name)
        return self._finders["resource"].find(name, canonical_uri(name))

    def find_tool(self, name: str) -> OperationRule | None:
        """Return the rule for the tool *name*. ``None`` if no rule names it."""
        return self._finders["tool"].find(name, name)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The requirements of all rules, except those that functions decide."""
        return tuple(rule.requirement for rule in self.rules if rule.requirement is not None)


def check_operation_access(access: object, where: str) -> Requirement | Access:
    """Return *access* as a requirement or ``DENIED``. Raises :class:`ConfigurationError` for anything else."""
    required = check_access(access, where, "a requirement, a scope, DENIED, or a function of the arguments")
    if isinstance(required, Access) and required is not DENIED:
        raise ConfigurationError(f"{where}: every MCP request needs a token; write AUTHENTICATED, not {required.name}")
    return required


def canonical_origin(origin: str) -> str:
    """Return *origin* as browsers send it. Raises :class:`ConfigurationError` unless it is an origin."""
    if not _ORIGIN.fullmatch(origin):
        raise ConfigurationError(
            f"allowed_origins: {origin!r} is not an origin; write scheme and host, as in https://app.example.com"
        )
    return browser_origin(origin)


def browser_origin(url: str) -> str:
    """Return the origin of *url*, as browsers send it: in lower case, and without the default port."""
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ' '))}"


def canonical_uri(uri: str) -> str | None:
    """Return the one form in which *uri* is compared. ``None`` if two parsers could read it differently."""
    match = _URI.fullmatch(uri)
    if match is None or not uri.isprintable() or _ENCODED_DELIMITER.search(uri):
        return None
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    try:
        rest = unquote(rest, errors="strict")
    except UnicodeDecodeError:
        return None
    if ESCAPE.search(rest) or SUSPICIOUS.search(rest) or not rest.isprintable() or rest.startswith(("./", "../")):
        return None
    if authority is None:
        return f"{scheme}:{rest}"
    authority = authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, " "))
    if not _PLAIN_AUTHORITY.fullmatch(authority) or authority.endswith((".", ":")):
        return None
    if scheme == "file" and authority == "localhost":
        authority = ""
    if scheme in _DEFAULT_PORTS and rest[:1] != "/":
        rest = f"/{rest}"
    return f"{scheme}://{authority}{rest}"


class _Glob:
    """Compares texts with a pattern in which ``*`` stands for any text. The work is linear in the text."""

    __slots__ = ("_parts", "is_plain", "pattern", "probe")

    def __init__(self, pattern: str) -> None:
        self.pattern: str = pattern
        self.probe: str = pattern
        """A text that another pattern matches only if it matches all texts of this one."""
        self.is_plain: bool = "*" not in pattern
        self._parts = pattern.split("*")

    def fold(self) -> _Glob:
        """Return the glob that compares folded texts (:func:`_fold`)."""
        return type(self)(_fold(self.pattern))

    def matches(self, given: str) -> bool:
        return _matches(self._parts, given)


class _UriGlob(_Glob):
    """Compares canonical URIs with a pattern, segment by segment."""

    __slots__ = ("_open", "_segments")

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern if pattern == "**" else canonical_uri(pattern) or pattern)
        segments = self.pattern.split("/")
        self._open = segments[-1] == "**"
        if self._open:
            self.probe = f"{self.pattern}/*"
        self._segments = [segment.split("*") for segment in (segments[:-1] if self._open else segments)]

    def matches(self, given: str) -> bool:
        segments = given.split("/")
        least = len(self._segments)
        if (len(segments) <= least) if self._open else (len(segments) != least):
            return False
        return all(_matches(parts, segment) for parts, segment in zip(self._segments, segments, strict=False))


def _matches(parts: list[str], given: str) -> bool:
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return given == first
    begin, end = len(first), len(given) - len(last)
    if begin > end or not given.startswith(first) or not given.endswith(last):
        return False
    for part in parts[1:-1]:
        at = given.find(part, begin, end)
        if at < 0:
            return False
        begin = at + len(part)
    return True


def _is_comparable(given: str) -> bool:
    return len(given) <= _LONGEST_NAME and given.isprintable()


def _fold(given: str) -> str:
    return unicodedata.normalize("NFKC", given).casefold()


class _Finder:
    """Finds the first rule of one kind that matches. *defaults* are considered after all *rules*."""

    __slots__ = ("_has_case", "_literal", "_patterns", "_rules")

    def __init__(self, rules: list[OperationRule], defaults: Iterable[OperationRule] = ()) -> None:
        self._rules = [*rules, *defaults]
        self._literal: dict[str, int] = {}
        self._patterns: list[tuple[int, _Glob, _Glob]] = []
        for index, rule in enumerate(self._rules):
            glob = rule.matcher()
            hidden = self._patterns and any(earlier.matches(glob.probe) for _, earlier, _ in self._patterns)
            if index < len(rules) and (hidden or glob.pattern in self._literal):
                name = f"{type(rule).__name__}({rule.pattern!r})"
                raise ConfigurationError(f"rules: {name} can never decide, because an earlier rule matches the same")
            if glob.is_plain:
                self._literal.setdefault(glob.pattern, index)
                self._literal.setdefault(rule.pattern, index)
            else:
                self._patterns.append((index, glob, glob.fold()))
        self._has_case = any(_fold(rule.pattern) != rule.pattern for rule in self._rules)

    def find(self, given: str, compared: str | None) -> OperationRule | None:
        """Return the rule for *given*. *compared*: the form that patterns see, ``None`` if only its exact text counts.

        A literal rule needs no further check. A name that matches a pattern is denied if it would match an earlier rule
        in another case: the server may ignore case.
        """
        literal = self._literal.get(given if compared is None else compared, _NO_INDEX)
        for index, glob, _ in self._patterns if compared is not None and _is_comparable(compared) else ():
            if index > literal:
                break
            if glob.matches(compared or ""):
                return self._rules[index] if self._first_folded(compared or "", index) == index else None
        return None if literal == _NO_INDEX else self._rules[literal]

    def _first_folded(self, given: str, found: int) -> int:
        """Return the index of the first rule that matches *given* regardless of case, which is *found* or earlier."""
        if not self._has_case and given.isascii() and given == given.lower():
            return found
        folded = _fold(given)
        literal = min((index for name, index in self._literal.items() if _fold(name) == folded), default=found)
        patterns = (index for index, _, glob in self._patterns if glob.matches(folded))
        return min(literal, next(patterns, found), found)
