"""A new token for a connection in progress: which tokens may replace which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scopeguard import AccessDenied, AuthorityUnavailable, InvalidToken, Reason, TokenSource
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.renewal import holder_of, renew
from scopeguard.state.issuers import Issuers
from scopeguard.state.revocation import Revocations
from scopeguard.testing import FakeAuthority


def try_to_renew(bench: Any, held: str, token: object, header: str | None = None) -> Any:
    context = Context(issuers=Issuers([bench.record], revocations=Revocations()), clock=bench.clock)
    credential = Credential(token=held, source=TokenSource.HEADER, header=header)
    return bench.script.play(renew(token, credential, bench.judge(held), 8192, context))


def test_token_of_the_same_holder_is_returned(bench: Any, authority: FakeAuthority):
    held, token = authority.mint("read", subject="ann"), authority.mint("write", subject="ann")
    assert try_to_renew(bench, held, token).scopes == {"write"}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (b"bytes", Reason.MALFORMED_CREDENTIALS),
        (None, Reason.MALFORMED_CREDENTIALS),
        ("", Reason.EMPTY_CREDENTIALS),
        ("a b", Reason.MALFORMED_CREDENTIALS),
        ("ä\ud800", Reason.MALFORMED_CREDENTIALS),
        ("x" * 8193, Reason.TOKEN_TOO_LARGE),
        ("opaque!", Reason.MALFORMED_CREDENTIALS),
    ],
)
def test_malformed_token_is_denied(bench: Any, authority: FakeAuthority, token: object, reason: Reason):
    with pytest.raises(AccessDenied) as denial:
        try_to_renew(bench, authority.mint(), token)
    assert denial.value.reason is reason


@pytest.mark.parametrize(
    "other",
    [{"subject": "bob"}, {"client_id": "other", "subject": "ann"}, {"subject": "ann", "claims": {"client_id": None}}],
)
def test_token_of_another_holder_is_denied(new_bench: Any, authority: FakeAuthority, other: dict[str, Any]):
    bench = new_bench(authority, replace(authority.issuer, required_claims=()))
    with pytest.raises(AccessDenied) as denial:
        try_to_renew(bench, authority.mint(subject="ann"), authority.mint(**other))
    assert denial.value.reason is Reason.RENEWAL_MISMATCH
    assert len(denial.value.detail["token"]) == 12


def test_token_that_names_no_holder_is_denied(new_bench: Any, authority: FakeAuthority):
    bench = new_bench(authority, replace(authority.issuer, required_claims=()))
    nameless = {"sub": None, "client_id": None}
    with pytest.raises(AccessDenied) as denial:
        try_to_renew(bench, authority.mint(claims=nameless), authority.mint(claims=nameless))
    assert denial.value.reason is Reason.RENEWAL_MISMATCH


def test_holder_is_also_the_key_that_a_token_is_bound_to(bench: Any, authority: FakeAuthority):
    access = bench.judge(authority.mint())
    bound = replace(access, claims={**access.claims, "cnf": {"jkt": "x"}})
    assert len({holder_of(access), holder_of(replace(access, sender_constrained=True))}) == 2
    assert holder_of(access) != holder_of(bound)
    assert holder_of(bound) == holder_of(replace(bound, scopes=frozenset(("a",))))


def test_refusals_and_outages_name_the_token_by_its_fingerprint(new_bench: Any, authority: FakeAuthority):
    held = authority.mint()
    with pytest.raises(InvalidToken) as denial:
        try_to_renew(new_bench(authority), held, authority.mint(expires_in=-100))
    assert len(denial.value.detail["token"]) == 12
    context = Context(issuers=Issuers([new_bench(authority).record], revocations=Revocations()), clock=authority.clock)
    access, credential = new_bench(authority).judge(held), Credential(token=held, source=TokenSource.HEADER)
    bench = new_bench(authority)
    with authority.outage(), pytest.raises(AuthorityUnavailable) as outage:
        bench.script.play(renew(authority.mint(), credential, access, 8192, context))
    assert len(outage.value.detail["token"]) == 12


def test_token_of_a_field_of_its_own_may_be_padded(new_bench: Any, authority: FakeAuthority):
    bench = new_bench(authority)
    with pytest.raises(AccessDenied) as denial:
        try_to_renew(bench, authority.mint(), "a=.b=.c=", header="x-token")
    assert denial.value.reason is not Reason.MALFORMED_CREDENTIALS
