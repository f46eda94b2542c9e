"""Requirements beyond scopes: sign-in of the user, authorization details, delegation, user or machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from scopeguard import (
    AUTHENTICATED,
    MACHINE,
    NOT_DELEGATED,
    USER,
    AccessToken,
    AuthorizationDetail,
    ConfigurationError,
    DelegatedTo,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    MachineSign,
    Reason,
    RequestView,
    Requirement,
    UserAuthentication,
    all_of,
    any_of,
    contracts,
)
from scopeguard.guard import Decision
from scopeguard.testing import FakeAuthority

GOLD, SILVER = "urn:example:gold", "urn:example:silver"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def decide(
    authority: FakeAuthority,
    requirement: Requirement,
    claims: Mapping[str, Any] | None = None,
    scope: str = "read",
    *,
    opaque: bool = False,
    issuer: Issuer | None = None,
    subject: str | None = "alice",
    **issuer_settings: Any,
) -> Decision:
    """Judge a token with *claims* against *requirement*, validated locally or by introspection."""
    settings: dict[str, Any] = {"audience": authority.audience, **issuer_settings}
    if opaque:
        settings |= {
            "validate": "introspection",
            "introspection": Introspection(client_id="api", client_secret=authority.api.secret),
        }
    chosen = issuer or Issuer(authority.url, **settings)
    guard = Guard(chosen, transport=authority.transport, clock=authority.clock, audit="off")
    token = authority.mint(scope, subject=subject, claims=claims, token_format="opaque" if opaque else "jwt")
    headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
    first = guard.check(RequestView(method="GET", path="/", headers=headers), requirement)
    again = guard.check(RequestView(method="GET", path="/", headers=headers), requirement)
    assert type(first) is type(again)  # a cached token is judged by the same conditions
    guard.close()
    return first


def challenge_of(decision: Decision) -> tuple[int, str]:
    assert isinstance(decision, Denied)
    headers = dict(decision.response.headers)
    return decision.response.status, headers.get("www-authenticate", "")


# Step-up authentication (RFC 9470)


@pytest.mark.rule("S-01", "S-02", "S-03", "S-04", "S-05", "S-07", "S-08", "S-16", "I-16", "P-16")
@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "introspection"])
@pytest.mark.parametrize(
    ("acr", "age", "needed", "parameters"),
    [
        (GOLD, 10, {"acr": [GOLD]}, None),
        (SILVER, 10, {"acr": [GOLD, SILVER]}, None),
        (SILVER, 10, {"acr": any_of(GOLD, SILVER)}, None),
        (SILVER, 10, {"acr": GOLD}, f'acr_values="{GOLD}"'),
        (GOLD, 10, {"acr": SILVER}, f'acr_values="{SILVER}"'),  # no order of levels is implied
        (GOLD.upper(), 10, {"acr": GOLD}, f'acr_values="{GOLD}"'),
        (None, 10, {"acr": [GOLD, SILVER]}, f'acr_values="{GOLD} {SILVER}"'),
        (None, 300, {"max_age": 300}, None),
        (None, 301, {"max_age": 300}, 'max_age="300"'),
        (None, None, {"max_age": 300}, 'max_age="300"'),
        (SILVER, 301, {"acr": GOLD, "max_age": 300}, f'acr_values="{GOLD}", max_age="300"'),
    ],
)
def test_a_sign_in_must_be_strong_and_recent_enough(
    authority: FakeAuthority,
    acr: str | None,
    age: int | None,
    needed: dict[str, Any],
    parameters: str | None,
    *,
    opaque: bool,
):
    now = int(authority.clock.wall())
    claims = {"acr": acr, "auth_time": None if age is None else now - age}
    decision = decide(authority, all_of("read", **needed), claims, opaque=opaque, leeway=0)
    if parameters is None:
        assert isinstance(decision, Granted)
        assert decision.access_token.acr == acr
        return
    status, challenge = challenge_of(decision)
    assert status == 401
    assert challenge.startswith('Bearer realm="api", error="insufficient_user_authentication"')
    assert challenge.endswith(parameters)  # and no scope, because the token has those it needs


@pytest.mark.rule("S-12")
@pytest.mark.parametrize("auth_time", ["1800000000", True, [], {}, 1e300, -1e300, "later"])
def test_auth_time_that_is_not_in_the_past_does_not_suffice(authority: FakeAuthority, auth_time: Any):
    value = authority.clock.wall() + 3600 if auth_time == "later" else auth_time
    status, challenge = challenge_of(decide(authority, all_of("read", max_age=300), {"auth_time": value}))
    assert (status, 'max_age="300"' in challenge) == (401, True)


@pytest.mark.rule("S-03", "S-12", "S-14")
def test_leeway_of_the_issuer_is_added_to_both_ends(authority: FakeAuthority):
    now = authority.clock.wall()
    for offset, granted in ((-331, False), (-330, True), (30, True), (31, False)):
        decision = decide(authority, all_of("read", max_age=300), {"auth_time": now + offset}, leeway=30)
        assert isinstance(decision, Granted) is granted, offset


@pytest.mark.rule("S-09")
def test_missing_scopes_are_named_beside_the_sign_in(authority: FakeAuthority):
    status, challenge = challenge_of(decide(authority, all_of("write", "read", acr=GOLD)))
    assert (status, 'error="insufficient_user_authentication"' in challenge) == (401, True)
    assert challenge.endswith(f'acr_values="{GOLD}", scope="write read"')


def test_with_the_sign_in_missing_scopes_are_insufficient_scope(authority: FakeAuthority):
    status, challenge = challenge_of(decide(authority, all_of("write", acr=GOLD), {"acr": GOLD}))
    assert (status, 'error="insufficient_scope"' in challenge, "acr_values" in challenge) == (403, True, False)


@pytest.mark.rule("S-10")
def test_a_caller_without_a_valid_token_does_not_learn_the_sign_in(authority: FakeAuthority):
    expired = {"exp": int(authority.clock.wall()) - 100}
    status, challenge = challenge_of(decide(authority, all_of("read", acr=GOLD), expired))
    assert (status, 'error="invalid_token"' in challenge, GOLD in challenge) == (401, True, False)


@pytest.mark.rule("S-06", "S-13")
@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"max_age": -1}, "max_age"),
        ({"max_age": 1.5}, "max_age"),
        ({"max_age": True}, "max_age"),
        ({"max_age": "300"}, "max_age"),
        ({"acr": "a b"}, "acr"),
        ({"acr": 'a"b'}, "acr"),
        ({"acr": "a\\b"}, "acr"),
        ({"acr": "g\u00f6ld"}, "acr"),
        ({"acr": ""}, "acr"),
        ({"acr": 7}, "acr"),
        ({"acr": all_of("a", "b")}, "acr: must be any_of"),
        ({"acr": any_of("a", MACHINE)}, "acr: must be any_of"),
        ({}, "requires|needs at least one"),
    ],
)
def test_a_sign_in_that_no_challenge_can_name_is_a_configuration_error(settings: dict[str, Any], names: str):
    with pytest.raises(ConfigurationError, match=names):
        all_of(**settings)


def test_user_authentication_without_content_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="needs acr, max_age or both"):
        UserAuthentication()


@pytest.mark.rule("S-14")
def test_max_age_0_warns():
    with pytest.warns(UserWarning, match="max_age=0"):
        all_of("read", max_age=0)


@pytest.mark.rule("S-15")
def test_amr_is_readable_and_required_by_nothing(authority: FakeAuthority):
    decision = decide(authority, all_of("read", acr=GOLD), {"acr": GOLD, "amr": ["pwd", "otp", 7]})
    assert isinstance(decision, Granted)
    assert decision.access_token.amr == ("pwd", "otp")


# Authorization details (RFC 9396)

PAYMENT = {
    "type": "payment_initiation",
    "actions": ["initiate", "status"],
    "locations": ["https://api.test"],
    "datatypes": ["iban"],
    "privileges": ["admin"],
    "identifier": "account-1",
    "amount": {"value": 10},
}
CAFE = "caf\u00e9"


@pytest.mark.rule("G-16", "G-17", "G-18", "G-19", "G-20", "G-21")
@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "introspection"])
@pytest.mark.parametrize(
    ("details", "needed", "granted"),
    [
        ([PAYMENT], AuthorizationDetail("payment_initiation"), True),
        ([{"type": "x"}, PAYMENT], AuthorizationDetail("payment_initiation", actions=["initiate"]), True),
        ([PAYMENT], AuthorizationDetail("payment_initiation", actions=["initiate", "delete"]), False),
        ([PAYMENT], AuthorizationDetail("payment_initiation", datatypes="iban", privileges=["admin"]), True),
        ([PAYMENT], AuthorizationDetail("payment_initiation", datatypes=["bic"]), False),
        ([PAYMENT], AuthorizationDetail("payment_initiation", identifier="account-1"), True),
        ([PAYMENT], AuthorizationDetail("payment_initiation", identifier="account-2"), False),
        ([PAYMENT], AuthorizationDetail("payment_initiation", locations=["https://api.test"]), True),
        ([PAYMENT], AuthorizationDetail("payment_initiation", locations=["https://other.test"]), False),
        ([{**PAYMENT, "locations": ["https://other.test"]}], AuthorizationDetail("payment_initiation"), False),
        ([{**PAYMENT, "locations": []}], AuthorizationDetail("payment_initiation"), False),
        ([{**PAYMENT, "locations": "https://api.test"}], AuthorizationDetail("payment_initiation"), False),
        ([{**PAYMENT, "actions": "initiate"}], AuthorizationDetail("payment_initiation", actions="initiate"), False),
        (
            [{**PAYMENT, "actions": [["initiate"]]}],
            AuthorizationDetail("payment_initiation", actions="initiate"),
            False,
        ),
        ([{"type": "x"}], AuthorizationDetail("payment_initiation"), False),
        ([{"type": CAFE}], AuthorizationDetail(CAFE), True),
        ([{"type": "cafe\u0301"}], AuthorizationDetail(CAFE), False),
        ([], AuthorizationDetail("payment_initiation"), False),
        (None, AuthorizationDetail("payment_initiation"), False),
        ([PAYMENT], AuthorizationDetail("payment_initiation", where=lambda d: d["amount"]["value"] <= 10), True),
        ([PAYMENT], AuthorizationDetail("payment_initiation", where=lambda d: d["amount"]["value"] > 10), False),
    ],
)
def test_an_authorization_detail_must_contain_all_that_is_needed(
    authority: FakeAuthority, details: Any, needed: AuthorizationDetail, *, granted: bool, opaque: bool
):
    decision = decide(authority, all_of("read", needed), {"authorization_details": details}, opaque=opaque)
    if granted:
        assert isinstance(decision, Granted)
        assert decision.access_token.authorization_details[-1]["type"] == needed.type
        return
    status, challenge = challenge_of(decision)
    assert (status, 'error="insufficient_scope"' in challenge, "scope=" in challenge) == (403, True, False)
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.INSUFFICIENT_AUTHORIZATION_DETAILS


@pytest.mark.rule("G-21")
def test_a_detail_does_not_replace_a_scope(authority: FakeAuthority):
    requirement = all_of("write", AuthorizationDetail("payment_initiation"))
    status, challenge = challenge_of(decide(authority, requirement, {"authorization_details": [PAYMENT]}))
    assert (status, challenge.endswith('scope="write"')) == (403, True)


@pytest.mark.rule("G-16")
@pytest.mark.parametrize("details", ["payment_initiation", {"type": "x"}, ["x"], [{}], [{"type": 7}], 7, [None]])
def test_malformed_details_make_the_token_invalid_where_they_matter(authority: FakeAuthority, details: Any):
    claims = {"authorization_details": details}
    status, challenge = challenge_of(decide(authority, all_of(AuthorizationDetail("x")), claims))
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    assert isinstance(decide(authority, all_of("read"), claims), Granted)


def test_a_predicate_that_returns_no_boolean_is_an_error(authority: FakeAuthority):
    async def waits() -> bool:
        return False

    result: Any = waits()
    needed = AuthorizationDetail("payment_initiation", where=lambda _: result)
    with pytest.raises(TypeError, match="True or False, not coroutine"):
        decide(authority, all_of(needed), {"authorization_details": [PAYMENT]})
    result.close()


# Delegation (RFC 8693 section 4.1)

CHAIN = {"sub": "agent", "iss": "https://as.test", "exp": 1, "aud": "x", "act": {"sub": "gateway"}}


@pytest.mark.rule("G-22", "G-23", "G-26")
def test_only_the_outermost_actor_counts(authority: FakeAuthority):
    granted = decide(authority, all_of("read", DelegatedTo("agent")), {"act": CHAIN})
    assert isinstance(granted, Granted)
    token = granted.access_token
    assert token.subject == "alice"
    assert token.actor is not None
    assert token.actor.actor is not None
    assert (token.actor.subject, token.actor.issuer, token.actor.client_id) == ("agent", "https://as.test", None)
    assert (token.actor.actor.subject, token.actor.actor.actor) == ("gateway", None)
    assert challenge_of(decide(authority, all_of("read", DelegatedTo("gateway")), {"act": CHAIN})) == (403, "")


@pytest.mark.parametrize(
    ("condition", "act", "granted"),
    [
        (DelegatedTo("agent", "https://as.test"), CHAIN, True),
        (DelegatedTo("agent", "https://other.test"), CHAIN, False),
        (DelegatedTo("agent"), {"client_id": "agent"}, False),
        (DelegatedTo("agent"), None, False),
        (NOT_DELEGATED, None, True),
        (NOT_DELEGATED, CHAIN, False),
        (NOT_DELEGATED, {}, False),
    ],
)
def test_the_acting_party_is_required_or_excluded(authority: FakeAuthority, condition: Any, act: Any, *, granted: bool):
    decision = decide(authority, all_of("read", condition), {"act": act})
    assert isinstance(decision, Granted) is granted
    if isinstance(decision, Denied):
        assert decision.error.reason is Reason.ACTOR_REFUSED


@pytest.mark.rule("G-24")
@pytest.mark.parametrize("opaque", [False, True], ids=["jwt", "introspection"])
@pytest.mark.parametrize("act", ["agent", ["agent"], 7, True])
def test_act_claim_that_is_not_an_object_makes_the_token_invalid(authority: FakeAuthority, act: Any, *, opaque: bool):
    status, challenge = challenge_of(decide(authority, AUTHENTICATED, {"act": act}, opaque=opaque))
    assert (status, 'error="invalid_token"' in challenge) == (401, True)


@pytest.mark.rule("G-25")
def test_may_act_grants_nothing(authority: FakeAuthority):
    decision = decide(authority, all_of("read", DelegatedTo("agent")), {"may_act": {"sub": "agent"}})
    assert challenge_of(decision) == (403, "")


# Users and machines


@pytest.mark.rule("G-30", "P-17")
def test_a_client_token_is_not_taken_for_a_user(authority: FakeAuthority):
    signs = [MachineSign(machine=True, subject_is_client=True), MachineSign(machine=False, present={"uid": ".+"})]
    machine = decide(authority, all_of("read", USER), subject="client", machine_signs=signs)
    assert isinstance(machine, Denied)
    assert (machine.response.status, machine.error.reason) == (403, Reason.USER_REQUIRED)
    unknown = decide(authority, all_of("read", USER), machine_signs=signs)
    assert isinstance(unknown, Denied)  # no sign shows that it is a user
    assert isinstance(decide(authority, all_of("read", USER), {"uid": "7"}, machine_signs=signs), Granted)
    assert isinstance(decide(authority, all_of("read", MACHINE), subject="client", machine_signs=signs), Granted)
    user = decide(authority, all_of("read", MACHINE), {"uid": "7"}, machine_signs=signs)
    assert isinstance(user, Denied)
    assert user.error.reason is Reason.MACHINE_REQUIRED


# OpenAPI documents


def _document(security: Any, extension: Any) -> dict[str, Any]:
    operation = {"security": security, "x-scopeguard": extension}
    schemes = {"oauth": {"type": "openIdConnect", "openIdConnectUrl": "https://as.test"}}
    return {"openapi": "3.1.0", "components": {"securitySchemes": schemes}, "paths": {"/pay": {"post": operation}}}


def test_an_operation_adds_conditions_to_its_security():
    extension = {"acr": [GOLD], "max_age": 300, "machine": False}
    (rule,) = contracts.openapi(_document([{"oauth": ["pay"]}], extension)).rules
    assert rule.access == all_of("pay", USER, acr=GOLD, max_age=300)


@pytest.mark.parametrize(
    ("security", "extension", "message"),
    [
        ([], {"acr": [GOLD]}, "needs security that requires a token"),
        ([{"oauth": ["pay"]}], ["acr"], "an object is needed"),
        ([{"oauth": ["pay"]}], {}, "an object is needed"),
        ([{"oauth": ["pay"]}], {"arc": [GOLD]}, "arc is unknown; it may have acr, max_age, machine"),
        ([{"oauth": ["pay"]}], {"machine": "no"}, "machine: must be true or false"),
        ([{"oauth": ["pay"]}], {"max_age": "soon"}, "max_age: must be a number"),
    ],
)
def test_an_extension_that_means_nothing_is_a_configuration_error(security: Any, extension: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        contracts.openapi(_document(security, extension))


# The algebra


def test_alternatives_with_conditions_are_judged_one_by_one(authority: FakeAuthority):
    requirement = any_of("admin", all_of("read", UserAuthentication(acr=GOLD)))
    assert isinstance(decide(authority, requirement, scope="admin"), Granted)
    assert isinstance(decide(authority, requirement, {"acr": GOLD}), Granted)
    # The refusal is about the alternative whose scopes the token has.
    status, challenge = challenge_of(decide(authority, requirement))
    assert (status, f'acr_values="{GOLD}"' in challenge) == (401, True)
    status, challenge = challenge_of(decide(authority, requirement, scope="other"))
    assert (status, 'scope="admin"' in challenge) == (403, True)


def test_operators_take_conditions_on_both_sides():
    gold = UserAuthentication(acr=GOLD)
    assert all_of("read") & gold == gold & all_of("read") == all_of("read", gold)
    assert all_of("read") | USER == any_of("read", USER)
    assert USER | all_of("read") == any_of(USER, "read")
    assert AUTHENTICATED & gold == all_of(gold)
    assert all_of(gold).scopes == frozenset()
    assert all_of("b", "a", gold, USER).terms == (("a", "b", "a user", f"acr {GOLD}"),)
    assert not all_of("read", gold).allows(frozenset(("read",)))  # the scopes alone do not suffice


def test_a_requirement_with_conditions_is_readable():
    requirement = any_of("admin", all_of("read", AuthorizationDetail("pay", actions=["a"]), DelegatedTo("x")))
    assert repr(requirement).startswith("any_of('admin', all_of('read', AuthorizationDetail(")
    assert requirement.terms == (("admin",), ("read", "authorization_details pay, actions a", "delegated to x"))
    texts = [str(c) for c in (MACHINE, NOT_DELEGATED, UserAuthentication(acr=[GOLD, SILVER], max_age=5))]
    assert texts == ["a machine", "not delegated", f"acr {GOLD} or {SILVER}, max_age 5"]


def test_any_condition_may_stand_alone_in_a_rule():
    from scopeguard import Rule

    assert Rule("/x", USER).access == all_of(USER)
    assert isinstance(AccessToken.actor, property)
