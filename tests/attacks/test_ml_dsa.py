"""The attacks of the testing kit on an API that accepts ML-DSA. Not collected if ``cryptography`` lacks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scopeguard import Denied, DPoP, Granted, Guard, HeaderList, Issuer, KeySetPolicy, Reason, RequestView
from scopeguard.config.algorithms import DEFAULT_ALGORITHMS
from scopeguard.config.ml_dsa import ML_DSA
from scopeguard.guard import Decision
from scopeguard.testing import BadProof, BadToken, FakeAuthority, bad_keys, bad_proofs, bad_tokens

RES = "https://api.test"
URI = f"{RES}/rows"


class Api:
    """An API that accepts ML-DSA beside the default algorithms, for tokens and for proofs."""

    def __init__(self) -> None:
        self.authority = FakeAuthority(audience=RES, algorithm="ML-DSA-65")
        issuer = Issuer(self.authority.url, algorithms=(*DEFAULT_ALGORITHMS, *ML_DSA), typ="at+jwt")
        self.guard = Guard(
            replace(issuer, key_set=KeySetPolicy(refetch_burst=1000)),
            resource=RES,
            dpop=DPoP(algorithms=(*DPoP().algorithms, *ML_DSA), max_proof_bytes=16384),
            transport=self.authority.transport,
            clock=self.authority.clock,
            audit="off",
        )

    def send(self, headers: Mapping[str, str] | list[tuple[str, str]]) -> Decision:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        fields = HeaderList([(name.lower().encode(), value.encode()) for name, value in pairs])
        return self.guard.check(RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=fields))


def refusals(api: Api, corpus: Mapping[str, BadToken] | Mapping[str, BadProof]) -> dict[str, tuple[Reason, Any]]:
    """Return the reason for which *api* refuses each entry of *corpus*, and its details."""
    found: dict[str, tuple[Reason, Any]] = {}
    for name, bad in corpus.items():
        decision = api.send(bad.headers)
        assert isinstance(decision, Denied), (name, bad.why)
        assert (decision.error.status, decision.error.error) == (bad.status, bad.error), name
        found[name] = decision.error.reason, decision.error.detail
    return found


@pytest.mark.rule("PQ-02", "PQ-03", "PQ-04", "X-01")
def test_each_hostile_token_is_refused_for_its_own_reason():
    api = Api()
    corpus = bad_tokens(api.authority, strict=True)
    found = refusals(api, corpus)
    ours = {name: reason for name, (reason, _) in found.items() if "ml-dsa-" in name and name != "alg-ml-dsa-65"}
    assert len(ours) >= 40
    expected = {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY, Reason.ALGORITHM_REFUSED, Reason.MALFORMED_TOKEN}
    assert set(ours.values()) == expected
    unsigned = {name for name, reason in ours.items() if reason is Reason.MALFORMED_TOKEN}
    assert unsigned == {"ml-dsa-65-unsigned", "ml-dsa-key-as-none"}
    named = {name for name, reason in ours.items() if reason is Reason.ALGORITHM_REFUSED}
    assert all(name.startswith(("ml-dsa-alg-", "hs256-")) for name in named), named
    assert isinstance(api.send(api.authority.bearer("read")), Granted)
    assert isinstance(api.send(api.authority.bearer("read", algorithm="ML-DSA-44")), Granted)


@pytest.mark.rule("PQ-01")
def test_no_hostile_key_is_used():
    api = Api()
    corpus = {name: bad for name, bad in bad_keys(api.authority).items() if "ml-dsa" in name or "akp" in name}
    assert len(corpus) >= 13
    found = refusals(api, corpus)
    # The key of one entry is sound, and is not the one that signed its token. The others have no usable key.
    assert {name for name, (reason, _) in found.items() if reason is Reason.BAD_SIGNATURE} == {
        "key-ml-dsa-pub-of-another"
    }
    assert {reason for reason, _ in found.values()} == {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY}
    assert isinstance(api.send(api.authority.bearer("read")), Granted)


@pytest.mark.rule("PQ-01", "PQ-02", "PQ-03", "PQ-04")
def test_each_bad_proof_is_refused_for_its_own_reason():
    api = Api()
    corpus = bad_proofs(api.authority, uri=URI, scope="read")
    found = refusals(api, {name: bad for name, bad in corpus.items() if name != "large"})  # of 9 kB
    ours = {name: reason for name, (reason, _) in found.items() if name.startswith("ml-dsa-")}
    assert Counter(ours.values()) == {Reason.PROOF_KEY: 10, Reason.PROOF_SIGNATURE: 7, Reason.PROOF_MALFORMED: 2}
    assert {name for name, reason in ours.items() if reason is Reason.PROOF_MALFORMED} == {
        "ml-dsa-alg-lower-case",
        "ml-dsa-hs256",
    }
