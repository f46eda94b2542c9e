"""Each bad proof of the testing kit, through each door: always refused, and the responses and logs show nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from doors import DOORS, Door, call_check
from framework_doors import FRAMEWORK_DOORS
from proof_doors import ORIGIN, ProofApi, challenges, errors
from scenarios import Exchange
from scopeguard import ConfigurationError, RefusalLog
from scopeguard.testing import BadProof, FakeAuthority, bad_proofs

URI = f"{ORIGIN}/none"


class Attacked:
    """An API behind one door, and the corpus against it."""

    def __init__(self, door: Door, authority: FakeAuthority, corpus: Mapping[str, BadProof]) -> None:
        self.api = ProofApi(door, authority=authority)
        self.corpus = corpus


def exchange(bad: BadProof) -> Exchange:
    headers = tuple((name.lower().encode(), value.encode()) for name, value in bad.headers)
    return Exchange(target="/none", headers=headers)


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture(scope="module")
def corpus(authority: FakeAuthority) -> Mapping[str, BadProof]:
    return bad_proofs(authority, uri=URI)


@pytest.fixture(scope="module", params=[*DOORS, *FRAMEWORK_DOORS], ids=lambda door: door.name)
def attacked(request: pytest.FixtureRequest, authority: FakeAuthority, corpus: Mapping[str, BadProof]) -> Attacked:
    return Attacked(request.param, authority, corpus)


def test_corpus_is_large_and_each_entry_has_a_description():
    corpus = bad_proofs(FakeAuthority())
    assert len(corpus) >= 120
    for name, bad in corpus.items():
        assert (bad.name, bad.status) == (name, 401)
        assert bad.why, name
        assert bad.rules, name
        assert bad.token not in repr(bad)


@pytest.mark.rule(
    "D-03", "D-04", "D-05", "D-06", "D-07", "D-08", "D-09", "D-11", "D-12", "D-13", "D-14", "D-15", "D-16"
)
@pytest.mark.rule("D-17", "D-24", "D-25", "D-37", "D-38", "D-40", "D-41", "D-42", "D-43", "D-44", "D-45", "D-46")
@pytest.mark.rule("D-56", "D-61", "D-64", "D-66", "D-71", "D-73")
def test_each_adapter_refuses_each_bad_proof(attacked: Attacked):
    api, wrong = attacked.api, []
    for name, bad in attacked.corpus.items():
        answer = api.send(exchange(bad))
        other = {"DPoP": "Bearer", "Bearer": "DPoP"}[bad.scheme]
        if answer.status != bad.status or errors(answer) != {bad.scheme: bad.error, other: None}:
            wrong.append(f"{name}: {answer.status} {challenges(answer)} ({bad.why})")
        text = answer.body.decode("latin-1") + "".join(value for _, value in answer.headers)
        segments = [segment for value in (bad.token, *bad.proofs) for segment in value.split(".")]
        if any(len(segment) > 12 and segment in text for segment in segments):
            wrong.append(f"{name}: the response shows the token or the proof")
    assert not wrong, "\n".join(wrong)
    # None of them has used up an identifier or a quota.
    assert api.send(api.good("/none")).status == 200


@pytest.mark.rule("D-74", "X-77")
def test_log_shows_no_bad_proof(caplog: pytest.LogCaptureFixture):
    api = ProofApi(DOORS[0], settings={"refusal_log": RefusalLog(interval=0)})
    corpus = bad_proofs(api.authority, uri=URI)
    with caplog.at_level(logging.DEBUG):
        for bad in corpus.values():
            call_check(api.guard, exchange(bad))
    records = [record for record in caplog.records if record.name == "scopeguard.decisions"]
    assert len(records) == len(corpus)
    for record in records:
        text = record.getMessage() + (record.exc_text or "")
        assert text.isprintable(), text
        assert text.isascii(), text
        for bad in corpus.values():
            assert not any(len(value) > 20 and value in text for value in (bad.token, *bad.proofs)), text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_good_proof_beside_the_corpus_is_accepted(method: str):
    api = ProofApi(DOORS[0])
    corpus = bad_proofs(api.authority, uri=URI, method=method)
    assert corpus["htm-other"].error == "invalid_dpop_proof"
    assert api.send(api.good("/none", method)).status == 200


def test_a_uri_with_a_query_is_refused():
    with pytest.raises(ConfigurationError, match="uri"):
        bad_proofs(FakeAuthority(), uri="https://api.test/?a=1")
