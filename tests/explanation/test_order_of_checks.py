"""The table of checks against the reasons, and against the hostile tokens that each check must find by itself."""

from __future__ import annotations

from collections import Counter

import pytest

from scopeguard import DPoP, Guard, HeaderList, Reason, RequestView
from scopeguard.explanation import CHECKS, Outcome, Verdict
from scopeguard.explanation.explainer import Explainer
from scopeguard.explanation.order_of_checks import OF_ANSWERS, OF_JWTS
from scopeguard.explanation.probes import PROBES
from scopeguard.explanation.shown_values import TEXTS
from scopeguard.guard import engine_of
from scopeguard.testing import BadProof, BadToken, FakeAuthority, bad_proofs, bad_tokens

AUTHORITY = FakeAuthority()
BAD = bad_tokens(AUTHORITY)


@pytest.fixture(scope="module")
def guard() -> Guard:
    """One guard for all tokens, without a log of refusals."""
    return Guard(AUTHORITY.issuer, transport=AUTHORITY.transport, clock=AUTHORITY.clock, audit="off", refusal_log="off")


def request_with(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())]))


def test_each_reason_belongs_to_one_check():
    owners = Counter(reason for kind in CHECKS for reason in kind.reasons)
    assert set(owners) == set(Reason)
    assert {reason for reason, number in owners.items() if number > 1} == set()
    assert all(kind.reasons.isdisjoint(kind.shared) for kind in CHECKS)


def test_names_of_checks_are_unique_and_every_check_of_the_content_has_its_texts():
    names = [kind.name for kind in CHECKS]
    assert len(names) == len(set(names))
    assert set(PROBES) == set(TEXTS) == {*OF_JWTS, *OF_ANSWERS} <= set(names)


@pytest.mark.parametrize("name", BAD)
def test_first_failed_check_of_a_bad_token_has_the_reason_of_the_engine(name: str, guard: Guard):
    bad: BadToken = BAD[name]
    request = request_with(bad.token)
    decision = guard.check(request)
    explainer = Explainer(engine_of(guard), request)
    explanation = explainer.explain()
    reason = explanation.reason
    assert reason is getattr(decision, "error").reason, bad.why  # noqa: B009 - every bad token is refused
    first = explanation.failed[0]
    assert (first.reason, first.decides) == (reason, True)
    # The check found the fault itself: the engine's reason was not put there afterwards.
    assert not explainer.is_completed
    assert len(bad.token) < 40 or bad.token not in str(explanation.as_json())


def test_each_check_passes_for_a_good_token(guard: Guard):
    explanation = guard.explain(request_with(AUTHORITY.mint("read")))
    assert (explanation.verdict, explanation.reason, explanation.status) == (Verdict.ACCEPTED, None, None)
    assert {check.outcome for check in explanation.checks} == {Outcome.PASSED}
    assert [check.name for check in explanation.checks] == [
        *("credentials", "form", "issuer", "algorithm", "header", "type", "audience", "dates", "expiry", "issued_at"),
        *("required_claims", "token_kind", "scope_claim", "keys", "key", "signature"),
    ]


def test_reason_that_no_check_found_is_added_to_its_check(guard: Guard, monkeypatch: pytest.MonkeyPatch):
    """A check that is added to the engine only must not make an explanation wrong."""
    blind = {**PROBES, "expiry": lambda content: None}
    monkeypatch.setattr("scopeguard.explanation.explainer.PROBES", blind)
    explanation = guard.explain(request_with(AUTHORITY.mint("read", expires_in=-3600)))
    (failed,) = explanation.failed
    assert (failed.name, failed.reason, failed.decides) == ("expiry", Reason.TOKEN_EXPIRED, True)


PROOF_AUTHORITY = FakeAuthority()
BAD_PROOFS = bad_proofs(PROOF_AUTHORITY, uri="https://api.test/rows")


@pytest.fixture(scope="module")
def proof_guard() -> Guard:
    authority = PROOF_AUTHORITY
    return Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock, audit="off", refusal_log="off",
        resource="https://api.test", dpop=DPoP(mode="allowed"),
    )  # fmt: skip


@pytest.mark.parametrize("name", BAD_PROOFS)
def test_first_failed_check_of_a_bad_proof_has_the_reason_of_the_engine(name: str, proof_guard: Guard):
    bad: BadProof = BAD_PROOFS[name]
    headers = HeaderList([(name.lower().encode(), value.encode()) for name, value in bad.headers])
    request = RequestView(method="GET", path="/rows", headers=headers, raw_path=b"/rows")
    explainer = Explainer(engine_of(proof_guard), request)
    explanation = explainer.explain()
    decision = proof_guard.check(request)
    first = explanation.failed[0]
    assert explanation.reason is getattr(decision, "error").reason is first.reason, bad.why  # noqa: B009
    assert first.decides
    assert not explainer.is_completed
    assert not any(proof in str(explanation.as_json()) for proof in bad.proofs if len(proof) > 20)
