"""``Guard.explain``: all faults at once, the verdict of the engine, and no trace in logs, reports or proof memories."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from scopeguard import (
    AUTHENTICATED,
    DENIED,
    OPTIONAL,
    PUBLIC,
    ConfigurationError,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    Reason,
    RequestView,
    Requirement,
    Rule,
    Rules,
    UserAuthentication,
    all_of,
    any_of,
)
from scopeguard.explanation import Check, Explanation, Outcome, Verdict
from scopeguard.explanation.explainer import Explainer
from scopeguard.guard import engine_of
from scopeguard.inbound_tokens import to_serve
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority, ProofKey


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard_of(authority: FakeAuthority) -> Callable[..., Guard]:
    """``guard_of(**arguments)`` returns a guard that trusts the authority."""

    def build(issuer: Issuer | None = None, **arguments: Any) -> Guard:
        given: dict[str, Any] = {
            "transport": authority.transport,
            "clock": authority.clock,
            "audit": "off",
            **arguments,
        }
        return Guard(issuer or authority.issuer, **given)

    return build


def view(token: str | None, method: str = "GET", path: str = "/", *more: tuple[str, str]) -> RequestView:
    headers = [] if token is None else [("authorization", f"Bearer {token}")]
    pairs = [(name.encode(), value.encode()) for name, value in (*headers, *more)]
    return RequestView(method=method, path=path, headers=HeaderList(pairs), raw_path=path.encode())


def check_of(explanation: Explanation, name: str) -> Check:
    (found,) = [check for check in explanation.checks if check.name == name]
    return found


def outcomes(explanation: Explanation) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in explanation.checks}


def reasons(explanation: Explanation) -> list[tuple[str, Reason | None]]:
    return [(check.name, check.reason) for check in explanation.failed]


def explain_offline(guard: Guard, request: RequestView, requirement: Requirement | None = None) -> Explanation:
    return Explainer(engine_of(guard), request, requirement, offline=True).explain()


def test_all_faults_of_a_token_show_at_once_and_one_decides(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard = guard_of(rules=Rules([Rule("/rows", all_of("write"))]))
    token = authority.mint("read", expires_in=-3600, audience="https://other.test", claims={"jti": None, "nbf": 2**40})
    explanation = guard.explain(view(token[:-8] + "AAAAAAAA", "GET", "/rows"))
    assert explanation.verdict is Verdict.REFUSED
    assert (explanation.reason, explanation.status) == (Reason.WRONG_AUDIENCE, 401)
    assert reasons(explanation) == [
        ("audience", Reason.WRONG_AUDIENCE),
        ("expiry", Reason.TOKEN_EXPIRED),
        ("not_before", Reason.TOKEN_NOT_YET_VALID),
        ("required_claims", Reason.MISSING_CLAIM),
        ("signature", Reason.BAD_SIGNATURE),
        ("scopes", Reason.INSUFFICIENT_SCOPE),
    ]
    assert [check.name for check in explanation.checks if check.decides] == ["audience"]
    audience = check_of(explanation, "audience")
    assert (audience.found, audience.wanted) == ("aud=https://other.test", "https://api.test")
    assert audience.reference == "RFC 9068 section 4"
    assert check_of(explanation, "expiry").found.endswith("60 minutes ago")
    assert check_of(explanation, "required_claims").found == "jti absent"
    scopes = check_of(explanation, "scopes")
    assert (scopes.found, scopes.wanted) == ("read", "write")


def test_a_token_of_an_unknown_issuer_is_compared_with_the_nearest_and_causes_no_request(
    authority: FakeAuthority, guard_of: Callable[..., Guard]
):
    token = authority.mint("read", expires_in=-3600, claims={"iss": "https://as.test/"})
    explanation = guard_of().explain(view(token))
    assert (explanation.issuer, explanation.nearest) == (None, "https://as.test")
    assert reasons(explanation) == [("issuer", Reason.UNKNOWN_ISSUER), ("expiry", Reason.TOKEN_EXPIRED)]
    assert "only in the slash at the end" in check_of(explanation, "issuer").note
    assert outcomes(explanation)["signature"] is Outcome.NOT_CHECKED
    assert authority.requests == []


def test_a_token_of_a_foreign_issuer_ends_at_the_issuer_if_several_are_configured(authority: FakeAuthority):
    others = [Issuer(f"https://{name}.test", audience="https://api.test") for name in ("one", "two")]
    guard = Guard(*others, transport=authority.transport, clock=authority.clock, audit="off")
    explanation = guard.explain(view(authority.mint("read")))
    assert reasons(explanation) == [("issuer", Reason.UNKNOWN_ISSUER)]
    assert explanation.nearest is None
    assert explanation.checks[-1].wanted == "https://one.test or https://two.test"


def test_no_key_is_used_for_a_refused_algorithm(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    token = authority.mint("read", headers={"alg": "HS256"})
    explanation = guard_of().explain(view(token))
    assert reasons(explanation) == [("algorithm", Reason.ALGORITHM_REFUSED)]
    assert check_of(explanation, "signature").note == "the header of the token is refused"
    assert authority.requests == []


def test_rule_that_decides_is_named_and_the_methods_of_a_path_without_one(
    authority: FakeAuthority, guard_of: Callable[..., Guard]
):
    guard = guard_of(rules=Rules([Rule("/rows/{id}", any_of("read", "admin"), methods=["GET"]), Rule("/x", DENIED)]))
    token = authority.mint("read")
    accepted = guard.explain(view(token, "GET", "/rows/7"))
    assert (accepted.verdict, accepted.rule, accepted.requires) == (Verdict.ACCEPTED, "/rows/{id}", "read or admin")
    assert check_of(accepted, "rule").wanted == "GET HEAD /rows/{id}"
    wrong_method = guard.explain(view(token, "POST", "/rows/7"))
    assert (wrong_method.verdict, wrong_method.reason, wrong_method.status) == (Verdict.REFUSED, Reason.NO_RULE, 403)
    assert check_of(wrong_method, "rule").note == "rules for this path: GET, HEAD"
    assert check_of(guard.explain(view(token, "GET", "/y")), "rule").note == "no rule is for this path"
    assert check_of(guard.explain(view(token, "GET", "/x")), "rule").reason is Reason.NO_RULE


def test_requirement_of_the_caller_replaces_the_rules(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard = guard_of(rules=Rules([Rule("/rows", DENIED)]))
    token = authority.mint("read")
    explanation = guard.explain(view(token, "GET", "/rows"), all_of("read", "write"))
    assert reasons(explanation) == [("scopes", Reason.INSUFFICIENT_SCOPE)]
    assert explanation.requires == "read and write"
    assert guard.explain(view(token), AUTHENTICATED).verdict is Verdict.ACCEPTED


def test_conditions_have_a_check_of_their_own(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard, requirement = guard_of(), all_of("read", UserAuthentication(acr=["gold"]))
    without = guard.explain(view(authority.mint("read", claims={"acr": "silver"})), requirement)
    assert reasons(without) == [("conditions", Reason.INSUFFICIENT_USER_AUTHENTICATION)]
    assert (check_of(without, "conditions").found, check_of(without, "scopes").outcome) == (
        "acr=silver",
        Outcome.PASSED,
    )
    both = guard.explain(view(authority.mint("other")), requirement)
    assert both.reason is Reason.INSUFFICIENT_USER_AUTHENTICATION
    assert {name for name, _ in reasons(both)} == {"scopes", "conditions"}
    assert guard.explain(view(authority.mint("read", claims={"acr": "gold"})), requirement).failed == ()


def test_public_and_optional_routes(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard = guard_of(rules=Rules([Rule("/open", PUBLIC), Rule("/both", OPTIONAL), Rule("/rows", all_of("read"))]))
    assert guard.explain(view(None, path="/open")).verdict is Verdict.ACCEPTED
    ignored = guard.explain(view("nonsense", path="/open"))
    assert (ignored.verdict, ignored.reason) == (Verdict.ACCEPTED, None)
    assert not any(check.decides for check in ignored.checks)
    anonymous = guard.explain(view(None, path="/both"))
    assert (anonymous.verdict, anonymous.requires) == (Verdict.ACCEPTED, "optional")
    assert guard.explain(view("nonsense", path="/both")).reason is Reason.MALFORMED_TOKEN
    missing = guard.explain(view(None, path="/rows"))
    assert reasons(missing) == [("credentials", Reason.NO_CREDENTIALS)]
    assert check_of(missing, "scopes").outcome is Outcome.NOT_CHECKED


def test_policy_is_applied_last(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    calls: list[str] = []

    def decide(token: object, request: object) -> bool:
        calls.append("called")
        return False

    guard = guard_of(rules=Rules([Rule("/rows", all_of("read"), decide=decide)]))
    refused = guard.explain(view(authority.mint("read"), path="/rows"))
    assert reasons(refused) == [("policy", Reason.POLICY_DENIED)]
    assert "decide" in check_of(refused, "policy").wanted
    assert calls == ["called"]
    lacking = guard.explain(view(authority.mint("other"), path="/rows"))
    assert check_of(lacking, "policy").outcome is Outcome.NOT_CHECKED
    assert calls == ["called"]


def test_async_function_decides_in_aexplain_only(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    async def decide(token: object, request: object) -> bool:
        await anyio.lowlevel.checkpoint()
        return False

    guard = guard_of(rules=Rules([Rule("/rows", all_of("read"), decide=decide)]))
    request = view(authority.mint("read"), path="/rows")
    with pytest.raises(ConfigurationError, match="use aexplain"):
        guard.explain(request)
    for backend in ("asyncio", "trio"):
        assert reasons(anyio.run(guard.aexplain, request, backend=backend)) == [("policy", Reason.POLICY_DENIED)]


def test_an_outage_is_undecided_and_not_a_refusal(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    with authority.outage():
        explanation = guard_of().explain(view(authority.mint("read")))
    assert (explanation.verdict, explanation.status) == (Verdict.UNDECIDED, 503)
    assert reasons(explanation) == [("keys", Reason.AUTHORITY_UNREACHABLE)]
    assert check_of(explanation, "keys").outcome is Outcome.UNDECIDED
    assert check_of(explanation, "signature").outcome is Outcome.NOT_CHECKED


def test_offline_checks_everything_but_the_signature(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard = guard_of()
    good = explain_offline(guard, view(authority.mint("read")), all_of("write"))
    assert (good.verdict, good.reason, good.status) == (Verdict.UNDECIDED, None, None)
    assert outcomes(good)["signature"] is Outcome.NOT_CHECKED
    assert reasons(good) == [("scopes", Reason.INSUFFICIENT_SCOPE)]
    expired = explain_offline(guard, view(authority.mint("read", expires_in=-3600)))
    assert (expired.verdict, expired.reason) == (Verdict.REFUSED, Reason.TOKEN_EXPIRED)
    assert authority.requests == []


def test_offline_with_local_keys_decides(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    key = authority.key()
    issuer = Issuer(authority.url, audience=authority.audience, keys={"keys": [key.public_jwk()]})
    guard = guard_of(issuer, store=MemoryStore(authority.clock))
    explanation = explain_offline(guard, view(authority.mint("read")))
    # The revocations are in the store.
    assert (explanation.verdict, explanation.reason) == (Verdict.UNDECIDED, None)
    assert outcomes(explanation)["signature"] is Outcome.PASSED
    assert outcomes(explanation)["revocation"] is Outcome.NOT_CHECKED
    assert explain_offline(guard_of(issuer), view(authority.mint("read"))).verdict is Verdict.ACCEPTED


def test_a_revoked_token_fails_in_its_check(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard, token = guard_of(), authority.mint("read", subject="alice")
    guard.revoke(subject="alice")
    assert reasons(guard.explain(view(token))) == [("revocation", Reason.TOKEN_REVOKED)]
    other = guard.explain(view(authority.mint("read", subject="bob")))
    assert outcomes(other)["revocation"] is Outcome.PASSED


@pytest.fixture
def introspecting_issuer(authority: FakeAuthority) -> Issuer:
    settings = Introspection(client_id="api", client_secret="sg-secret-api")
    return Issuer(authority.url, audience=authority.audience, validate="auto", introspection=settings)


def test_an_opaque_token_is_introspected(
    authority: FakeAuthority, guard_of: Callable[..., Guard], introspecting_issuer: Issuer
):
    guard = guard_of(introspecting_issuer)
    token = authority.mint("read", token_format="opaque")
    active = guard.explain(view(token), all_of("read"))
    assert (active.verdict, active.kind, active.issuer) == (Verdict.ACCEPTED, "opaque", authority.url)
    assert check_of(active, "introspection").found.startswith("active")
    assert {"audience", "expiry", "scopes"} <= set(outcomes(active))
    assert "signature" not in outcomes(active)
    authority.revoke(token)
    authority.clock.advance(3600)
    inactive = guard.explain(view(token), all_of("read"))
    assert reasons(inactive) == [("introspection", Reason.TOKEN_NOT_ACTIVE)]


def test_an_active_answer_for_another_api_is_refused_for_its_audience(
    authority: FakeAuthority, guard_of: Callable[..., Guard], introspecting_issuer: Issuer
):
    token = authority.mint("read", token_format="opaque", audience=["https://api.test", "https://other.test"])
    issuer = Issuer(
        authority.url,
        audience="https://other-name.test",
        validate="auto",
        introspection=introspecting_issuer.introspection,
    )
    explanation = guard_of(issuer).explain(view(token))
    assert reasons(explanation) == [("audience", Reason.WRONG_AUDIENCE)]


def test_an_outage_of_introspection_is_undecided(
    authority: FakeAuthority, guard_of: Callable[..., Guard], introspecting_issuer: Issuer
):
    token = authority.mint("read", token_format="opaque")
    guard = guard_of(introspecting_issuer)
    with authority.outage():
        explanation = guard.explain(view(token))
    assert reasons(explanation) == [("introspection", Reason.AUTHORITY_UNREACHABLE)]
    assert explain_offline(guard_of(introspecting_issuer), view(token)).reason is None


def test_a_bound_token_needs_a_proof_and_does_not_use_it_up(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    guard, key = guard_of(resource=authority.audience, dpop=DPoP(mode="allowed")), ProofKey()
    token = authority.mint("read", claims=key.confirmation)
    bare = guard.explain(view(token))
    assert reasons(bare) == [("proof", Reason.SENDER_CONSTRAINT_UNPROVEN)]
    assert check_of(bare, "proof").found == "no DPoP proof"
    assert check_of(bare, "proof").wanted == "a DPoP proof by the key of cnf.jkt"
    headers = key.headers(token, "GET", f"{authority.audience}/rows", at=authority.clock.wall())
    request = view(None, "GET", "/rows", *((name.lower(), value) for name, value in headers.items()))
    for _ in range(2):
        explanation = guard.explain(request)
        assert (explanation.verdict, explanation.failed) == (Verdict.ACCEPTED, ())
        assert check_of(explanation, "replay").outcome is Outcome.NOT_CHECKED
    assert isinstance(guard.check(request), Granted)


def test_nothing_is_logged_reported_or_handed_over(
    authority: FakeAuthority, guard_of: Callable[..., Guard], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "scopeguard")
    decisions: list[object] = []
    guard = guard_of(on_decision=decisions.append, keep_token_for_exchange=True)
    for token in (authority.mint("read"), authority.mint("read", expires_in=-60), "nonsense"):
        guard.explain(view(token))
    assert decisions == []
    assert [record for record in caplog.records if record.name.startswith("scopeguard")] == []
    # The text of the token is not left for an adapter, which would serve it to the app.
    request = view(authority.mint("read"))
    access = [getattr(guard.check(request), "access_token") for _ in range(2)][1]  # noqa: B009 - it is granted
    assert to_serve(access) is not access
    guard.explain(request)
    assert to_serve(access) is access


def test_values_of_strangers_are_escaped_and_bounded(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    issuer = Issuer(authority.url, audience=authority.audience, expected_claims={"tenant": ["one"]})
    token = authority.mint(
        "read \x1b[31m" + "x" * 3000,
        audience=[f"https://{number}.test" for number in range(500)],
        claims={"tenant": "\x1b]0;title\x07\n\u202e" + "y" * 3000, "sub": "a person"},
    )
    explanation = guard_of(issuer).explain(view(token, "GET\x1b[31m", "/\x1b]0;title\x07"), all_of("write"))
    text = json.dumps(explanation.as_json())
    assert text.isascii()
    assert "\\u001b" not in text
    assert "a person" not in text  # no check reads the subject
    longest = max(len(value) for check in explanation.checks for value in (check.found, check.wanted, check.note))
    assert longest < 600
    assert token not in text


def test_json_has_every_member_of_the_explanation(authority: FakeAuthority, guard_of: Callable[..., Guard]):
    document = guard_of().explain(view(authority.mint("read", expires_in=-60))).as_json()
    assert set(document) == set(Explanation.__dataclass_fields__)
    assert set(document["checks"][0]) == set(Check.__dataclass_fields__)
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_aexplain_gives_the_same(authority: FakeAuthority, guard_of: Callable[..., Guard], backend: str):
    guard = guard_of()
    request = view(authority.mint("read", expires_in=-60))

    async def explain() -> Explanation:
        return await guard.aexplain(request)

    assert anyio.run(explain, backend=backend) == guard.explain(request)


def test_arguments_of_other_kinds_are_refused(guard_of: Callable[..., Guard]):
    header: Any = "Bearer x"
    with pytest.raises(ConfigurationError, match="request"):
        guard_of().explain(header)
