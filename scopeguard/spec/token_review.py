"""The TokenReview API of Kubernetes: the request, and the answer as one of introspection (RFC 7662)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from scopeguard.spec.strict_json import MalformedJSON, parse_object

_API: Final = "authentication.k8s.io/v1"
_INVALID: Final = "invalid bearer token"


class MalformedReview(ValueError):
    """The answer is malformed, or says that the token could not be checked. The message quotes nothing from it."""


def content(token: str, audiences: Iterable[str]) -> bytes:
    """Return the content of the request about *token*, which has to be for one of *audiences*."""
    spec = {"token": token, "audiences": sorted(audiences)}
    return json.dumps({"apiVersion": _API, "kind": "TokenReview", "spec": spec}).encode("ascii")


def read(body: bytes) -> dict[str, Any] | None:
    """Return the members of an introspection answer for *body*, a TokenReview; ``None`` for a token that is not valid.

    They are ``active``, ``sub`` (the name of the user), ``uid``, ``groups`` and ``extra`` as far as the user has them,
    and ``aud``: the audiences that the API server found. "If a TokenReview returns an empty status.audience field where
    status.authenticated is "true", the token is valid against the audience of the Kubernetes API server": then there is
    no ``aud``, and the check of the audience refuses the token.

    ``status.error`` beside ``authenticated: false`` is an outage ("the token couldn't be checked"), unless it says that
    the token is invalid, as the API server does for expired tokens and those of deleted pods.

    Raises :class:`MalformedReview`.
    """
    try:
        review = parse_object(body)
    except MalformedJSON as error:
        raise MalformedReview(f"the answer is {error}") from None
    status = review.get("status")
    if review.get("kind") != "TokenReview" or not isinstance(status, dict):
        raise MalformedReview("the answer is not a TokenReview with a status")
    authenticated, problem = status.get("authenticated", False), status.get("error", "")
    if type(authenticated) is not bool or not isinstance(problem, str):
        raise MalformedReview("the answer has an authenticated or an error of the wrong type")
    if problem and (authenticated or _INVALID not in problem):
        raise MalformedReview("the answer says that the token could not be checked (status.error)")
    if not authenticated:
        return None
    return _describe_user(status)


def _describe_user(status: dict[str, Any]) -> dict[str, Any]:
    user, audiences = status.get("user"), status.get("audiences", [])
    if not isinstance(user, dict) or not isinstance(user.get("username"), str) or not user["username"]:
        raise MalformedReview("the answer has no status.user.username")
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise MalformedReview("the answer has status.audiences that are not a list of strings")
    members = {"active": True, "sub": user["username"]}
    members.update({name: user[name] for name in ("uid", "groups", "extra") if name in user})
    return {**members, "aud": audiences} if audiences else members
