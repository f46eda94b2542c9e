"""A resource server reduced to keys and signatures, for tests that need a token and a key set together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import pytest

from compact import parse_compact
from scopeguard.config.algorithms import SUPPORTED_ALGORITHMS
from scopeguard.core.signature_backends import load_backends
from scopeguard.errors import InvalidToken
from scopeguard.spec.jwks import MalformedKeySet, parse_key_set
from scopeguard.spec.jws import check_header
from scopeguard.spec.signatures import Backends


class Judge(Protocol):
    def __call__(
        self,
        token: str,
        jwks: Mapping[str, Any] | bytes,
        *,
        algorithms: Collection[str] = SUPPORTED_ALGORITHMS,
        backends: Backends = (),
    ) -> str: ...


def _judge(
    token: str,
    jwks: Mapping[str, Any] | bytes,
    *,
    algorithms: Collection[str] = SUPPORTED_ALGORITHMS,
    backends: Backends = (),
) -> str:
    try:
        jws = parse_compact(token)
        algorithm, kid = check_header(jws.header, algorithms=algorithms)
    except InvalidToken as denied:
        return denied.reason.value
    try:
        candidates = parse_key_set(jwks, backends=backends).candidates(kid, algorithm)
    except MalformedKeySet:
        return "no usable key"
    if not candidates:
        return "no candidate"
    if any(key.verify(algorithm, jws.signed, jws.signature) for key in candidates):
        return "accepted"
    return "bad signature"


@pytest.fixture(scope="session")
def judge() -> Judge:
    """``judge(token, jwks)`` is ``"accepted"``, or the step at which the token or the key set is refused."""
    return _judge


@pytest.fixture(scope="session", params=["cryptography", "awscrt", "pynacl"])
def backends(request: pytest.FixtureRequest) -> Backends:
    """Run the test with each signature backend; all must give the same results."""
    return () if request.param == "cryptography" else load_backends([request.param])
