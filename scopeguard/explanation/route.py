"""The route of a request: the rule that decides, its requirement, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.policy import Policy
from scopeguard.config.token_sources import TokenSources
from scopeguard.errors import AccessDenied, AuthorityUnavailable, Forbidden, InsufficientScope
from scopeguard.errors import InsufficientUserAuthentication as SignIn
from scopeguard.explanation.collector import Collector, Refusal
from scopeguard.explanation.order_of_checks import OWNER
from scopeguard.explanation.result import Outcome
from scopeguard.explanation.shown_values import list_values, show
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.scopes import Requirement, conditions_in
from scopeguard.tokens import AccessToken

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a route requires.

    ``rule`` is the rule that decides, ``None`` if none does. ``is_closed``: every request is denied. ``is_ruled``:
    there are rules. ``others``: the methods for which a rule opens the same path.
    """

    method: str = ""
    path: str = ""
    rule: Rule | None = None
    requirement: Requirement | None = None
    is_closed: bool = False
    is_ruled: bool = False
    others: tuple[str, ...] = ()

    @classmethod
    def find(cls, rules: Rules | None, requirement: Requirement | None, request: RequestView) -> Self:
        """Return the route of *request*: by *rules*, or with *requirement* if there are no rules."""
        method, path = request.method, request.path
        if rules is None:
            return cls(method=method, path=path, requirement=requirement)
        rule = rules.find(method, path, request.raw_path)
        others = [other for other in _METHODS if not rules.closes(rules.find(other, path, request.raw_path))]
        return cls(
            method=method,
            path=path,
            rule=rule,
            requirement=None if rule is None else rule.requirement,
            is_closed=rules.closes(rule),
            is_ruled=rule is not None or rules.deny_unmatched,
            others=tuple(others),
        )

    @property
    def access(self) -> Requirement | Access | None:
        """The access of the rule."""
        return None if self.rule is None else self.rule.access

    @property
    def is_optional(self) -> bool:
        """Whether requests without a token are accepted."""
        return self.access is OPTIONAL or self.access is PUBLIC

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The functions and policy decision points that decide after the token."""
        return () if self.rule is None else self.rule.policies

    @property
    def dpop(self) -> DPoPMode | None:
        """Whether the route needs a proof of possession; ``None`` for the setting of the guard."""
        return None if self.rule is None else self.rule.mode

    @property
    def title(self) -> str | None:
        """The path template of the rule."""
        return None if self.rule is None else self.rule.path

    @property
    def requires(self) -> str | None:
        """What the route requires, as text."""
        if self.requirement is not None:
            return requirement_text(self.requirement)
        return self.access.value if isinstance(self.access, Access) else None

    def sources(self, sources: TokenSources) -> TokenSources:
        """Return the places in which this route takes tokens: those of its rule, or *sources*."""
        return sources if self.rule is None or self.rule.sources is None else sources.with_methods(self.rule.sources)

    def check(
        self, results: Collector, access: AccessToken | None, now: float, leeway: float, error: Refusal | None
    ) -> None:
        """Add the checks of the route to *results*.

        *access* is the token, if it can be read, and *error* the refusal of the request.
        """
        self._check_rule(results)
        if self.requirement is not None:
            self._check_requirement(results, self.requirement, access, now, leeway)
        if self.policies:
            _check_policy(results, self.policies, error)

    def _check_rule(self, results: Collector) -> None:
        if not self.is_ruled:
            return
        request = f"{show(self.method)} {show(self.path)}"
        if self.rule is None:
            note = f"rules for this path: {', '.join(self.others)}" if self.others else "no rule is for this path"
            wanted = "a rule for this method and path"
            results.add("rule", Outcome.FAILED, Forbidden(Reason.NO_RULE), found=request, wanted=wanted, note=note)
            return
        methods = "every method" if self.rule.methods is None else list_values(sorted(self.rule.methods), " ")
        rule = f"{methods} {self.rule.path}"
        note = f"from {show(self.rule.source)}" if self.rule.source else ""
        if self.rule.access is DENIED:
            error = Forbidden(Reason.NO_RULE)
            results.add("rule", Outcome.FAILED, error, found=request, wanted=f"{rule} denies every request", note=note)
        else:
            results.add("rule", Outcome.PASSED, found=request, wanted=rule, note=note)

    def _check_requirement(
        self, results: Collector, requirement: Requirement, access: AccessToken | None, now: float, leeway: float
    ) -> None:
        wanted = requirement_text(requirement)
        has_conditions = any(conditions_in(needed) for needed in requirement.alternatives)
        names = [name for name, has in (("scopes", requirement.scopes), ("conditions", has_conditions)) if has]
        if access is None:
            for name in names:
                results.skip(name, "checked for tokens that can be read", wanted=wanted)
            return
        refusal = requirement.refuse(access, now, leeway)
        lacks_scopes = isinstance(refusal, InsufficientScope) or (isinstance(refusal, SignIn) and bool(refusal.scopes))
        for name in names:
            found = _scopes(access) if name == "scopes" else ""
            if name == "scopes" and lacks_scopes:
                missing = InsufficientScope(requirement.challenge_scopes)
                results.add(name, Outcome.FAILED, missing, found=found, wanted=wanted)
            elif name == "conditions" and refusal is not None and not isinstance(refusal, InsufficientScope):
                results.add(name, Outcome.FAILED, refusal, found=_facts(refusal), wanted=wanted)
            elif name == "conditions" and refusal is not None:
                results.skip(name, "checked for tokens with the scopes", wanted=wanted)
            else:
                results.add(name, Outcome.PASSED, found=found, wanted=wanted)


def requirement_text(requirement: Requirement) -> str:
    """Return *requirement* as text."""
    return list_values((" and ".join(terms) or "any valid token" for terms in requirement.terms), " or ")


def _scopes(access: AccessToken) -> str:
    if access.granted_scopes is None and not access.scopes:
        return "no scope claim"
    implied = sorted(access.scopes - set(access.granted_scopes or ()))
    granted = list_values(access.granted_scopes or (), " ") or "none"
    return granted + (f"; implied: {list_values(implied, ' ')}" if implied else "")


def _facts(refusal: AccessDenied) -> str:
    hidden = ("token", "client_id", "acr_values", "max_age", "needed")
    return list_values(f"{name}={value}" for name, value in refusal.detail.items() if name not in hidden)


def _check_policy(results: Collector, policies: tuple[Policy, ...], error: Refusal | None) -> None:
    wanted = list_values(policy.title for policy in policies)
    if error is None:
        results.add("policy", Outcome.PASSED, wanted=wanted)
    elif OWNER[error.reason] != "policy":
        results.skip("policy", "applied to requests that pass all other checks", wanted=wanted)
    elif isinstance(error, AuthorityUnavailable):
        results.add_outage("policy", error, wanted=wanted)
    else:
        results.add("policy", Outcome.FAILED, error, wanted=wanted)
