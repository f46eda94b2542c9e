"""One rule: a path template, methods, and the requirement for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Self

from scopeguard.conditions import Condition
from scopeguard.config.checks import Converted, converted, instance, is_async, member, strings, text
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.policy import Decide, Policy
from scopeguard.config.suggestions import nearest
from scopeguard.config.token_sources import TokenSource, check_sources
from scopeguard.errors import ConfigurationError
from scopeguard.rules.path_matching import NEVER, Tree
from scopeguard.rules.template_syntax import Template
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, check_scope
from scopeguard.spec.error_body import ErrorBody

if TYPE_CHECKING:
    from scopeguard.config.authzen import AuthZen

# fmt: off
METHODS: Final = frozenset((
    "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "CONNECT", "COPY", "DELETE",
    "GET", "HEAD", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR",
    "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "OPTIONS", "ORDERPATCH", "PATCH", "POST",
    "PROPFIND", "PROPPATCH", "PUT", "QUERY", "REBIND", "REPORT", "SEARCH", "TRACE",
    "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
))
# fmt: on
"""The methods of the IANA registry (RFC 9110 §16.1). PRI is left out: no request may use it (RFC 9113 §3.4)."""

_ACCESS: Final = 'a requirement, as in all_of("rows.read"), or PUBLIC, OPTIONAL or DENIED'
_EXTENSION_METHOD: Final = r"[A-Z][A-Z0-9]*(?:[-_][A-Z0-9]+)*"


class Access(Enum):
    """Access without a requirement."""

    PUBLIC = "public"  # the request is not searched for a token
    OPTIONAL = "optional"  # without a token the caller is anonymous; a bad token is refused
    DENIED = "denied"  # every request is denied; later rules are not considered


PUBLIC: Final = Access.PUBLIC
OPTIONAL: Final = Access.OPTIONAL
DENIED: Final = Access.DENIED


def strictest(first: Requirement | Access, *others: Requirement | Access) -> Requirement | Access:
    """Return the access that grants no more than any of the given ones.

    ``DENIED`` overrides everything, requirements override ``OPTIONAL``, and ``OPTIONAL`` overrides ``PUBLIC``. Several
    requirements must all be met. Raises :class:`ConfigurationError` if that takes more alternatives than a
    :class:`Requirement` may have.
    """
    given = (first, *others)
    if DENIED in given:
        return DENIED
    requirements = [access for access in given if isinstance(access, Requirement)]
    if requirements:
        return all_of(*requirements)
    return OPTIONAL if OPTIONAL in given else PUBLIC


def check_access(access: object, where: str, wanted: str) -> Requirement | Access:
    """Return *access*, which may also be one scope or a condition, as a requirement or an :class:`Access`.

    Raises :class:`ConfigurationError` that names *where* and *wanted*.
    """
    if isinstance(access, str):
        text(access, where, empty=False)
        if access in {item.value for item in Access}:
            raise ConfigurationError(f"{where}: write {access.upper()}, not a scope {access!r}")
        return all_of(check_scope(access, where))
    if isinstance(access, Condition):
        return all_of(access)
    if isinstance(access, Requirement | Access):
        return access
    raise ConfigurationError(f"{where}: must be {wanted}, not {type(access).__name__}")


@dataclass(frozen=True, slots=True)
class Rule:
    """The *access* to paths that match the template *path*, with one of *methods*.

    A template is a path in which parameters stand for text:

    * ``{name}``: one segment, or one character or more of it: ``{table}:insertAll``, ``{file}.{format}``.
    * ``{name:segments}``, where a segment begins: one or more whole segments, none of them empty. Only text may follow
      in the last of them: ``/v1/{resource:segments}:getIamPolicy``.
    * ``{name:path}``, after the last slash: the rest, which may be empty.

    Templates are case-sensitive. For a router that ignores case, write a rule for each spelling or, safer,
    rules for the open paths only, and leave the rest denied.

    *methods*: those that the IANA registry lists, in capitals; all methods, registered or not, if neither these nor
    *extension_methods* are given. ``GET`` includes ``HEAD``. The handshake of a websocket is a ``GET``
    (RFC 6455 §4.1) and obeys the same rule as other requests. *extension_methods*: methods that the registry does not
    list, as in ``extension_methods=["PURGE"]``; afterwards they are among *methods*. *token_sources*: where this route
    takes tokens, instead of the guard's setting. *dpop*: whether this route needs a proof of possession, instead of the
    mode of the guard; not with ``PUBLIC``. *source*: where the rule was declared, for audits and logs; it does
    not count in comparisons. *error_body*: the error format of the contract that the rule comes from.

    *decide*: decides about a request whose token satisfies *access*: an :class:`~scopeguard.AuthZen`, or a function,
    sync or async, that takes the :class:`~scopeguard.AccessToken` and a :class:`~scopeguard.PolicyRequest`. ``True``
    allows the request and ``False`` denies it. It may raise a denial (:class:`~scopeguard.AccessDenied`) instead. Every
    other value or exception is an error of the app. *access* must then require a token.
    """

    path: str
    access: Converted[Requirement | Condition | Access | str, Requirement | Access] = converted(AUTHENTICATED)
    methods: Iterable[str] | None = None
    token_sources: Iterable[str] | None = None
    source: str | None = field(default=None, compare=False)
    extension_methods: Iterable[str] = field(default=(), compare=False)  # *methods* has them too
    error_body: ErrorBody | None = field(default=None, compare=False)
    decide: AuthZen | Decide | None = None
    dpop: Converted[str | None, DPoPMode | None] = converted(None)
    template: Template = field(init=False, repr=False, compare=False)
    # Adapters read these at every request: the requirement, and whether it is the only setting of the rule.
    requirement: Requirement | None = field(init=False, repr=False, compare=False)
    is_plain: bool = field(init=False, repr=False, compare=False)
    policies: tuple[Policy, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", Template.parse(self.path))
        where = f"rule {self.path!r}: access"
        access = check_access(self.access, where, _ACCESS)
        object.__setattr__(self, "access", access)
        if self.dpop is not None:
            object.__setattr__(self, "dpop", member(DPoPMode, self.dpop, f"rule {self.path!r}: dpop"))
            if access is PUBLIC:
                raise ConfigurationError(
                    f"rule {self.path!r}: dpop: has no effect with PUBLIC, which reads no token; write OPTIONAL or a "
                    "requirement"
                )
        if self.error_body is not None:
            member(ErrorBody, self.error_body, f"rule {self.path!r}: error_body")
        if self.source is not None:
            text(self.source, f"rule {self.path!r}: source")
        extensions = self._check_extensions(self.extension_methods)
        object.__setattr__(self, "extension_methods", extensions)
        if self.methods is not None or extensions:
            named = () if self.methods is None else self.methods
            object.__setattr__(self, "methods", self._check_methods(named, extensions))
        if self.token_sources is not None:
            sources = check_sources(self.token_sources, f"rule {self.path!r}: token_sources")
            object.__setattr__(self, "token_sources", sources)
        requirement = access if isinstance(access, Requirement) else None
        object.__setattr__(self, "requirement", requirement)
        self._set_policies(() if self.decide is None else (self._policy(self.decide),))

    def _set_policies(self, policies: tuple[Policy, ...]) -> None:
        object.__setattr__(self, "policies", policies)
        has_more = self.token_sources is not None or self.dpop is not None or policies
        is_plain = self.requirement is not None and not has_more
        object.__setattr__(self, "is_plain", is_plain)

    def _policy(self, decide: AuthZen | Decide) -> Policy:
        if isinstance(self.access, Access):
            raise ConfigurationError(
                f"rule {self.path!r}: decide: needs an access token, and {self.access.name} requires none; write a "
                "requirement, or leave access out for any valid token"
            )
        if not callable(decide):
            from scopeguard.config.authzen import AuthZen  # few rules ask a policy decision point

            wanted = "an AuthZen or a function that takes an AccessToken and a PolicyRequest"
            instance(decide, AuthZen, f"rule {self.path!r}: decide", wanted)
        if isinstance(decide, type):
            raise ConfigurationError(f"rule {self.path!r}: decide: must be an object, not the class {decide.__name__}")
        return Policy(decide=decide, route=self.path, is_async=is_async(decide))

    def with_policies(self, policies: tuple[Policy, ...]) -> Self:
        """Return a copy of this rule, which requires a token, with *policies* instead of its own."""
        copied = copy(self)
        copied._set_policies(policies)
        return copied

    def _check_extensions(self, given: Iterable[str]) -> frozenset[str]:
        extensions = frozenset(strings(given, f"rule {self.path!r}: extension_methods"))
        for method in extensions:
            if not re.fullmatch(_EXTENSION_METHOD, method):
                raise ConfigurationError(
                    f"rule {self.path!r}: extension_methods: {method!r} is not a method; write it in capitals"
                )
        return extensions

    def _check_methods(self, given: Iterable[str], extensions: frozenset[str]) -> frozenset[str]:
        named = frozenset(strings(given, f"rule {self.path!r}: methods"))
        methods = named | extensions
        if "WEBSOCKET" in methods:
            raise ConfigurationError(f"rule {self.path!r}: the handshake of a websocket is a GET; write GET")
        for method in named - METHODS:
            if method.upper() in METHODS:
                raise ConfigurationError(f"rule {self.path!r}: {method!r} is not a method; write it in capitals")
            near = nearest(method.upper(), METHODS)
            hint = f"did you mean {near}? " if near else ""
            raise ConfigurationError(
                f"rule {self.path!r}: {method!r} is not an HTTP method; {hint}"
                "Methods that are not registered belong in extension_methods"
            )
        if not methods:
            raise ConfigurationError(f"rule {self.path!r}: name a method, or leave methods out for all of them")
        return methods | {"HEAD"} if "GET" in methods else methods

    @property
    def mode(self) -> DPoPMode | None:
        """Whether this route needs a proof of possession; ``None`` for the guard's setting."""
        return self.dpop if isinstance(self.dpop, DPoPMode) else None

    @property
    def sources(self) -> frozenset[TokenSource] | None:
        """The token sources of this route, or ``None`` to use those of the guard."""
        return self.token_sources if isinstance(self.token_sources, frozenset) else None

    def matches(self, method: str, path: str) -> bool:
        """Return whether this rule is for *method*, in capitals, and matches the decoded *path*.

        This is for tools. Only :meth:`Rules.find` returns the rule that decides, because earlier rules override this
        one, and some paths match no rule.
        """
        if not path.startswith("/"):
            return False
        found = Tree([(self.template, self.methods)]).terminals(path[1:].split("/"))
        return min((terminal.first(method) for terminal in found), default=NEVER) == 0
