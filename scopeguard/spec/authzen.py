"""Evaluation requests to a policy decision point and its answers: AuthZEN Authorization API 1.0.

Section numbers in this file are those of the Authorization API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from scopeguard.config.authzen import AuthZen, Semantics
from scopeguard.errors import (
    AccessDenied,
    InsufficientUserAuthentication,
    PolicyDenied,
)
from scopeguard.request import PolicyRequest
from scopeguard.spec.discovery import MalformedMetadata, check_endpoint
from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.tokens import AccessToken

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
REQUEST_ID: Final = "x-request-id"
_WELL_KNOWN: Final = "/.well-known/authzen-configuration"
_UNDERSTOOD: Final = frozenset(("reason_admin", "reason_user"))
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "subject": ("type", "id"),
    "action": ("name",),
    "resource": ("type", "id"),
}
# Keys of an object of reasons, in the order of preference. The examples of the specification have the status; those of
# its drafts have a language, or a language and the status.
_REASON_KEYS: Final = ("403", "en-403", "en")
# RFC 9470 section 3: acr_values is a space-separated list inside a quoted-string.
_ACR_VALUE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,200}")
_MOST_ACR_VALUES: Final = 10  # in a challenge, whose length servers limit
_MOST_SECONDS: Final = 2**31 - 1


class MalformedDecision(ValueError):
    """The response is not a decision. The message quotes nothing from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """The body of an evaluation request. *count*: its number of evaluations, ``None`` for a single evaluation."""

    body: bytes = field(repr=False)
    count: int | None = None

    @property
    def digest(self) -> bytes:
        """The key of the decision in a cache."""
        return sha256(self.body).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A decision, and the context that belongs to it."""

    permits: bool
    context: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def endpoint_of(settings: AuthZen) -> str:
    """Return the URL of the endpoint if no metadata names one."""
    return settings.url.removesuffix("/") + (EVALUATION if settings.evaluations is None else EVALUATIONS)


def metadata_url(url: str) -> str:
    """Return the URL of the metadata of the policy decision point *url* (section 9.2)."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, _WELL_KNOWN + parts.path.removesuffix("/"), "", ""))


def parse_metadata(document: bytes, settings: AuthZen, insecure: Collection[str] = ()) -> str:
    """Return the URL of the endpoint for the evaluation requests of *settings*, which the metadata *document* names.

    Checked: it is a strict JSON object, ``policy_decision_point`` equals the configured URL code point by code point,
    and the endpoint is https (or http as *insecure* says) and not at an internal address. Raises
    :class:`MalformedDecision`.
    """
    try:
        members = parse_object(document)
    except MalformedJSON as error:
        raise MalformedDecision(f"the metadata is {error}") from None
    # Otherwise one policy decision point could answer for another on the same host.
    if members.get("policy_decision_point") != settings.url:
        raise MalformedDecision(
            f"policy_decision_point in the metadata is not the configured URL {settings.url!r}; they must be equal"
        )
    name = "access_evaluation_endpoint" if settings.evaluations is None else "access_evaluations_endpoint"
    try:
        endpoint = check_endpoint(members, name, settings.url, (), insecure)
    except MalformedMetadata as error:
        raise MalformedDecision(str(error)) from None
    if endpoint is None:
        raise MalformedDecision(f"the metadata names no {name}")
    return endpoint


def subject_of(token: AccessToken) -> str | None:
    """Return the id of the subject of *token*: its ``sub``, or its client; ``None`` if it names neither."""
    return token.subject if token.subject is not None else token.client_id


def build_evaluation_request(settings: AuthZen, token: AccessToken, request: PolicyRequest) -> EvaluationRequest:
    """Return the evaluation request about *request*, whose token is *token* (sections 6.1 and 7.1).

    Raises :class:`PolicyDenied` for a token without a subject and a client, unless ``subject`` is configured. Raises
    :class:`TypeError` or :class:`ValueError` if a function of *settings* returns a wrong value. Exceptions that the
    functions raise are not caught.
    """
    parts: dict[str, Any] = {
        "subject": _default_subject(settings, token) if settings.subject is None else settings.subject(token, request),
        "action": {"name": request.method} if settings.action is None else settings.action(token, request),
        "resource": {"type": settings.resource_type, "id": request.route}
        if settings.resource is None
        else settings.resource(token, request),
        "context": {"path": request.path, "method": request.method}
        if settings.context is None
        else settings.context(token, request),
    }
    for name, part in parts.items():
        _check_part(name, part)
    if settings.evaluations is None:
        return EvaluationRequest(body=_encode(parts))
    items = tuple(settings.evaluations(token, request))
    if not items:
        raise ValueError("authzen.evaluations: the function returned no evaluation")
    for item in items:
        if not isinstance(item, Mapping):
            raise TypeError(f"authzen.evaluations: the function returned a {type(item).__name__} among its items")
        for name, part in item.items():
            if name not in parts:
                raise ValueError("authzen.evaluations: an item may have subject, action, resource and context only")
            _check_part(name, part)
    options = {"evaluations_semantic": settings.semantics.value}
    return EvaluationRequest(body=_encode({**parts, "evaluations": items, "options": options}), count=len(items))


def _default_subject(settings: AuthZen, token: AccessToken) -> dict[str, Any]:
    found = subject_of(token)
    if found is None:
        raise PolicyDenied(problem="the token names neither a subject nor a client, so there is nothing to evaluate")
    properties: dict[str, Any] = {"issuer": token.issuer, "scopes": sorted(token.granted_scopes or ())}
    if token.client_id is not None:
        properties["client_id"] = token.client_id
    return {"type": settings.subject_type, "id": found, "properties": properties}


def _check_part(name: str, part: object) -> None:
    if not isinstance(part, Mapping):
        raise TypeError(f"authzen.{name}: the function must return a mapping, not {type(part).__name__}")
    for needed in _REQUIRED.get(name, ()):
        if not isinstance(part.get(needed), str):
            raise TypeError(f"authzen.{name}: the mapping needs {needed!r}, a string")


def _encode(value: Mapping[str, Any]) -> bytes:
    # Sorted, so that equal requests have equal bytes. Claims of a token are proxies, which json does not know.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_thaw).encode("ascii")


def _thaw(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"authzen: an evaluation request must consist of JSON values, not of a {type(value).__name__}")


def parse_answer(body: bytes, evaluation: EvaluationRequest, settings: AuthZen) -> Outcome:
    """Return the decision in *body*, the answer to *evaluation*.

    Unknown members are ignored. Raises :class:`MalformedDecision` if *body* is not a strict JSON object, if a
    ``decision`` is not ``true`` or ``false``, if evaluations are missing or too many, and for a context of a permit
    that ``strict_context`` rejects.
    """
    try:
        members = parse_object(body)
    except MalformedJSON as error:
        raise MalformedDecision(f"the answer is {error}") from None
    if evaluation.count is None:
        outcome = _parse_decision(members)
    else:
        outcome = _combine(members.get("evaluations"), evaluation.count, settings.semantics)
    if outcome.permits and settings.strict_context and not outcome.context.keys() <= _UNDERSTOOD:
        raise MalformedDecision("the permit has a context that is not understood, and strict_context is set")
    return outcome


def _parse_decision(members: object) -> Outcome:
    decision = members.get("decision") if isinstance(members, dict) else None
    # Section 5.5: the decision is a boolean. The string "true" and the number 1 are not.
    if not isinstance(members, dict) or not isinstance(decision, bool):
        raise MalformedDecision("the answer has no decision that is true or false")
    context = members.get("context")
    if context is not None and not isinstance(context, dict):
        raise MalformedDecision("the context in the answer is not an object")
    return Outcome(permits=decision, context=MappingProxyType(context or {}))


def _combine(items: object, count: int, semantics: Semantics) -> Outcome:
    """Return the one decision that *items*, the answers to *count* evaluations, amount to (section 7.2)."""
    if not isinstance(items, list) or not 0 < len(items) <= count:
        raise MalformedDecision(f"the answer does not have the {count} evaluations of the request")
    outcomes = [_parse_decision(item) for item in items]
    decisive = semantics is Semantics.PERMIT_ON_FIRST_PERMIT  # the decision that may end the evaluation
    found = next((outcome for outcome in outcomes if outcome.permits is decisive), None)
    if len(items) < count and (found is None or semantics is Semantics.EXECUTE_ALL):
        raise MalformedDecision(f"the answer does not have the {count} evaluations of the request")
    if found is not None:
        return found
    if decisive:
        return outcomes[-1]
    # Every context belongs to the permit.
    contexts: dict[str, Any] = {}
    for outcome in outcomes:
        contexts.update(outcome.context)
    return Outcome(permits=True, context=MappingProxyType(contexts))


def denial_of(outcome: Outcome, settings: AuthZen) -> AccessDenied:
    """Return the refusal for *outcome*, which is a denial.

    It is an :class:`InsufficientUserAuthentication` (RFC 9470) with ``step_up`` and valid ``acr_values`` or ``max_age``
    in the context, otherwise a :class:`PolicyDenied`.
    """
    context = outcome.context
    admin = context.get("reason_admin")
    facts: dict[str, Any] = {"decided_by": settings.url}
    if admin is not None:
        facts["reason_admin"] = admin if isinstance(admin, str) else json.dumps(admin)
    if settings.step_up:
        acr_values, max_age = _acr_values(context.get("acr_values")), _max_age(context.get("max_age"))
        if acr_values or max_age is not None:
            return InsufficientUserAuthentication(acr_values=acr_values, max_age=max_age, **facts)
    return PolicyDenied(_user_text(context.get("reason_user")), **facts)


def _acr_values(value: object) -> tuple[str, ...]:
    """Return the values in *value*, a list or a string with spaces; empty unless a challenge can contain all."""
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > _MOST_ACR_VALUES:
        return ()
    if not all(isinstance(item, str) and _ACR_VALUE.fullmatch(item) for item in values):
        return ()
    return tuple(dict.fromkeys(values))


def _max_age(value: object) -> int | None:
    """Return *value* if it is a whole number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_SECONDS:
        return None
    return value


def _user_text(reason: object) -> str | None:
    """Return the text for the client in *reason*: a string, or an object of strings by status or language.

    :class:`PolicyDenied` checks that it is plain text.
    """
    if isinstance(reason, dict):
        reason = next((reason[key] for key in (*_REASON_KEYS, *reason) if key in reason), None)
    return reason if isinstance(reason, str) else None
