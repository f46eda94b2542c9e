"""A resource server up to the signature: what tests about tokens and keys together need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import pytest

from scopeguard.config import SUPPORTED_ALGORITHMS
from scopeguard.errors import InvalidToken
from scopeguard.spec.jwks import MalformedKeySet, parse_key_set
from scopeguard.spec.jws import check_header, parse_compact


class Judge(Protocol):
    def __call__(
        self, token: str, jwks: Mapping[str, Any] | bytes, *, algorithms: Collection[str] = SUPPORTED_ALGORITHMS
    ) -> str: ...


def _judge(token: str, jwks: Mapping[str, Any] | bytes, *, algorithms: Collection[str] = SUPPORTED_ALGORITHMS) -> str:
    try:
        jws = parse_compact(token)
        algorithm, kid = check_header(jws.header, algorithms=algorithms)
    except InvalidToken as denied:
        return denied.reason.value
    try:
        candidates = parse_key_set(jwks).candidates(kid, algorithm)
    except MalformedKeySet:
        return "no usable key"
    if not candidates:
        return "no candidate"
    if any(key.verify(algorithm, jws.signed, jws.signature) for key in candidates):
        return "accepted"
    return "bad signature"


@pytest.fixture(scope="session")
def judge() -> Judge:
    """``judge(token, jwks)`` is ``"accepted"``, or says at which step the token or the keys were refused."""
    return _judge
