"""The TokenReview API of Kubernetes: the request, and the answer as one of introspection (RFC 7662)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from scopeguard.spec.strict_json import MalformedJSON, parse_object

_API: Final = "authentication.k8s.io/v1"
_INVALID: Final = "invalid bearer token"
# Verdicts on a token that the cluster has issued, after its signature was verified.
_VERDICT: Final = re.compile(
    r"(?:service account token|Token|ServiceAccount [^ ]+) "
    r"(?:has expired|has been invalidated|has been deleted|is not valid yet)"
)
# Quoted names of accounts may be any words. The first group is what stays: the URL of a request.
_QUOTED: Final = re.compile(r'("https?://[^"]*")|"[^"]*"')
# What the libraries of the API server write, in lower case, when they could not ask a webhook or fetch the keys of an
# OIDC provider.
_NOT_ASKED: Final = (
    *('get "http', 'post "http', "get http", "post http"),  # a request that failed
    *("deadline exceeded", "timeout", "timed out", "canceled"),
    *("dial tcp", "dial udp", "dial unix", "no such host", "server misbehaving"),
    *("connection refused", "connection reset", "connection lost", "broken pipe", "no route to host", "unreachable"),
    *("x509:", "tls:", "http2:", "unexpected eof", ": eof"),
    *("unable to handle the request", "unable to return a response", "an error on the server", "internal error"),
    *("too many requests", "rate limiter"),
    *("could not find the requested resource", "cannot post path"),  # the webhook is configured wrongly
    *("fetching keys", "get keys failed", "not initialized", "etcdserver:"),
)


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

    ``status.error`` together with ``authenticated: false`` is a verdict or an outage ("the token couldn't be checked");
    see :func:`_is_verdict`.

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
    if problem and (authenticated or not _is_verdict(problem)):
        raise MalformedReview("the answer says that the token could not be checked (status.error)")
    if not authenticated:
        return None
    return _describe_user(status)


def _is_verdict(problem: str) -> bool:
    """Return whether *problem*, the ``status.error`` of a refused token, says that the token is invalid.

    The API server asks its authenticators one after the other, and joins their errors, as in ``[invalid bearer token,
    Post "https://webhook": context deadline exceeded]``. "Invalid bearer token" is the error of those that do not know
    the token. One of the others may have known it, so it is not a verdict if another one could not be reached.
    The API does not separate the two kinds, so they are recognised by their texts. A webhook that answers 401 counts as
    a verdict ("the server has asked for the client to provide credentials"): some webhooks refuse tokens in this way.
    """
    if _VERDICT.search(problem):
        return True
    described = _QUOTED.sub(r"\1", problem).lower()
    return _INVALID in problem and not any(sign in described for sign in _NOT_ASKED)


def _describe_user(status: dict[str, Any]) -> dict[str, Any]:
    user, audiences = status.get("user"), status.get("audiences", [])
    if not isinstance(user, dict) or not isinstance(user.get("username"), str) or not user["username"]:
        raise MalformedReview("the answer has no status.user.username")
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise MalformedReview("the answer has status.audiences that are not a list of strings")
    members = {"active": True, "sub": user["username"]}
    members.update({name: user[name] for name in ("uid", "groups", "extra") if name in user})
    return {**members, "aud": audiences} if audiences else members
