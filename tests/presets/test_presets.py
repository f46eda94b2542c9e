"""The additional checks of each preset beyond the samples, and common mistakes of operators."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from preset_arguments import ARGUMENTS
from providers import JSON, World, jwk, mint_sample, sample, segment, sign
from scopeguard import ConfigurationError, Denied, Granted, Guard, Introspection, Issuer, Reason, Unavailable, presets
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision
from scopeguard.presets import PRESETS
from scopeguard.tokens import AccessToken

API = "https://api.example.com"
TENANT, OTHER_TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "00000000-2b34-4da1-9baa-8bc8c9d6a490"
APP = "2f6b7c1e-6f53-4a3c-9d2a-1b1d0f5e9a77"
V1, V2 = f"https://sts.windows.net/{TENANT}/", f"https://login.microsoftonline.com/{TENANT}/v2.0"
ASKING = Introspection(client_id="api", client_secret="s", endpoint="https://as.example/introspect")
REFUSALS = Reason.UNEXPECTED_CLAIM, Reason.WRONG_AUDIENCE, Reason.MISSING_CLAIM


def expect_token(decision: Decision) -> AccessToken:
    assert isinstance(decision, Granted), decision
    return decision.access_token


def refusal_reason(decision: Decision) -> Reason:
    assert isinstance(decision, Denied), decision
    return decision.error.reason


def hint(decision: Decision) -> str:
    assert isinstance(decision, Denied), decision
    return decision.error.detail["hint"]


def token(issuer: Issuer, now: float, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """A token that *issuer* could have issued at *now*, with *claims*."""
    algorithm = "RS256" if "RS256" in issuer.algorithms else "ES256"
    head = {"alg": algorithm, "kid": "k", **(header or {})}
    if "typ" not in head and None not in issuer.types:
        head["typ"] = "JWT" if "jwt" in issuer.types else "at+jwt"
    body = {"iss": issuer.url, "iat": int(now), "exp": int(now) + 600, **claims}
    return sign(head, {name: value for name, value in body.items() if value is not None})


def judge_token(issuer: Issuer, *, header: Mapping[str, Any] | None = None, **claims: Any) -> Decision:
    world = World(issuer)
    return world.judge(token(issuer, world.now, header=header, **claims), issuer.token_header or "Authorization")


def answers(status: int, **members: Any) -> Any:
    def answer(request: Send) -> Answer:
        return Answer(status, json.dumps(members).encode(), JSON)

    return answer


# -- all of them


def test_each_preset_is_tested():
    assert set(ARGUMENTS) == set(PRESETS) == set(presets.__all__) - {"PRESETS"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_plain_data_that_can_be_changed(name: str):
    issuer = PRESETS[name](**ARGUMENTS[name])
    assert type(issuer) is Issuer
    assert issuer == PRESETS[name](**ARGUMENTS[name])
    assert replace(issuer, leeway=5).leeway == 5
    assert not any(algorithm.startswith("HS") for algorithm in issuer.algorithms)
    assert all(len(said) < 250 and said.isascii() for said in issuer.hints.values())
    assert inspect.getdoc(PRESETS[name])


@pytest.mark.parametrize("name", PRESETS)
def test_preset_refuses_an_empty_or_invalid_argument(name: str):
    required = [
        key for key, p in inspect.signature(PRESETS[name]).parameters.items() if p.default is inspect.Parameter.empty
    ]
    for key in required:
        with pytest.raises(ConfigurationError):
            PRESETS[name](**{**ARGUMENTS[name], key: ""})
    for key in {"domain", "team", "frontend_api", "my_domain", "authkit_domain", "region", "realm"} & set(required):
        with pytest.raises(ConfigurationError, match=f"^{key}: "):
            PRESETS[name](**{**ARGUMENTS[name], key: "https://evil.example/x"})


# -- those that can be minted here, one good token and what each of its checks refuses

GOOD: dict[str, dict[str, Any]] = {
    "clerk": {"aud": API, "client_id": "c", "sub": "u", "scp": ["read"]},
    "clerk_session": {"azp": "https://app.example.com", "sub": "u", "sid": "s"},
    "cloudflare_access": {"aud": ["32ea"], "type": "app", "email": "a@b.example", "sub": "u"},
    "generic_rfc9068": {"aud": API, "client_id": "c", "sub": "u", "jti": "1", "scope": "read"},
    "github_actions": {"aud": API, "sub": "repo:a/b", "repository_id": "74", "repository_owner_id": "65"},
    "gitlab_ci": {"aud": API, "sub": "project_path:a/b", "project_id": "22", "ref_protected": "true"},
    "google_oidc": {"aud": API, "sub": "1", "email": "a@acme.iam.gserviceaccount.com", "email_verified": True},
    "hydra": {"aud": [], "client_id": "ingest", "sub": "ingest", "scp": ["read"]},
    "kubernetes": {"aud": [API], "sub": "system:serviceaccount:etl:ingest", "kubernetes.io": {}},
    "pingam": {"aud": "client", "tokenName": "access_token", "scope": ["read"], "sub": "client"},
    "salesforce": {"aud": [API], "client_id": "c", "scp": "read"},
    "stytch": {"aud": ["project-live-1"], "nbf": 1, "sub": "m2m-client-1", "scope": "read"},
    "supabase": {"aud": "authenticated", "sub": "u", "role": "authenticated", "is_anonymous": False},
    "workos": {"aud": "client_01", "client_id": "c", "scope": "read", "permissions": ["x"]},
    "workos_session": {"org_id": "org_01", "sid": "s", "sub": "u", "permissions": ["read"]},
    "zitadel": {"aud": ["258"], "client_id": "c", "jti": "1", "sub": "2"},
    "authentik": {"aud": "api", "azp": "api", "uid": "1", "sub": "2", "nonce": "n", "at_hash": "h"},
    "google_iap": {"aud": "/projects/1/apps/acme", "sub": "accounts.google.com:1", "email": "u@example.com"},
    "firebase": {"aud": "acme-prod", "sub": "u", "auth_time": 1},
}
HEADERS = {"salesforce": {"tty": "sfdc-core-token"}}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("clerk", {"aud": None}),
    ("clerk_session", {"azp": "https://evil.example"}),
    ("clerk_session", {"sid": None}),
    ("cloudflare_access", {"type": "org"}),
    ("github_actions", {"repository_owner_id": "66"}),
    ("github_actions", {"repository_owner_id": 65}),
    ("gitlab_ci", {"project_id": "23"}),
    ("google_oidc", {"email": "b@acme.iam.gserviceaccount.com"}),
    ("google_oidc", {"email_verified": False}),
    ("google_oidc", {"email_verified": 1}),
    ("google_oidc", {"email_verified": "true"}),
    ("hydra", {"client_id": "somebody"}),
    ("kubernetes", {"sub": "u"}),
    ("kubernetes", {"sub": 7}),
    ("kubernetes", {"kubernetes.io": None}),
    ("pingam", {"tokenName": "id_token"}),
    ("stytch", {"scope": None}),
    ("supabase", {"is_anonymous": True}),
    ("supabase", {"is_anonymous": 0}),
    ("supabase", {"role": "anon"}),
    ("workos_session", {"org_id": "org_02"}),
    ("zitadel", {"aud": ["c"]}),
    ("zitadel", {"jti": None}),
    ("zitadel", {"client_id": None}),
    ("authentik", {"uid": None}),
    ("authentik", {"azp": None}),
    ("google_iap", {"email": None}),
    ("firebase", {"sub": ""}),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_token_that_the_provider_would_issue_is_accepted(name: str):
    issuer = PRESETS[name](**ARGUMENTS[name])
    found = expect_token(judge_token(issuer, header=HEADERS.get(name), **GOOD[name]))
    says = {"scp", "scope"} & set(GOOD[name]) or name == "workos_session"
    assert found.granted_scopes == (("read",) if says else None)


@pytest.mark.parametrize(("name", "wrong"), BAD, ids=[f"{name} {next(iter(wrong))}" for name, wrong in BAD])
def test_token_without_its_binding_claims_is_refused(name: str, wrong: dict[str, Any]):
    issuer = PRESETS[name](**ARGUMENTS[name])
    assert refusal_reason(judge_token(issuer, header=HEADERS.get(name), **{**GOOD[name], **wrong})) in REFUSALS


def test_salesforce_marks_its_tokens_in_the_header():
    issuer = PRESETS["salesforce"](**ARGUMENTS["salesforce"])
    assert refusal_reason(judge_token(issuer, **GOOD["salesforce"])) is Reason.HEADER_REFUSED


def test_firebase_refuses_a_future_auth_time():
    issuer = presets.firebase("acme-prod")
    wrong = {**GOOD["firebase"], "auth_time": 4_000_000_000}
    assert refusal_reason(judge_token(issuer, **wrong)) is Reason.TOKEN_ISSUED_IN_FUTURE


# -- Entra


def entra_user(world: World, **claims: Any) -> Decision:
    return world.judge_sample("entra-v2-user", claims=claims)


def test_entra_pairs_version_and_issuer():
    world = World(presets.entra(TENANT, APP))
    assert expect_token(entra_user(world, iss=V1, ver="1.0")).issuer == V2  # one issuer under two names
    assert refusal_reason(entra_user(world, ver="1.0")) is Reason.UNEXPECTED_CLAIM
    assert refusal_reason(entra_user(world, iss=V1)) is Reason.UNEXPECTED_CLAIM
    assert refusal_reason(entra_user(world, tid=OTHER_TENANT)) is Reason.UNEXPECTED_CLAIM
    assert refusal_reason(entra_user(world, iss=V2.replace(TENANT, OTHER_TENANT))) is Reason.UNKNOWN_ISSUER


def test_entra_token_of_another_version_is_refused_with_advice():
    newer, older = World(presets.entra(TENANT, APP, version="2.0")), World(presets.entra(TENANT, APP, version="1.0"))
    assert "accessTokenAcceptedVersion" in hint(entra_user(newer, iss=V1, ver="1.0"))
    assert expect_token(entra_user(older, iss=V1, ver="1.0")).issuer == V1
    assert older.internet.sends[0].url == f"https://login.microsoftonline.com/{TENANT}/.well-known/openid-configuration"
    assert refusal_reason(entra_user(older)) is Reason.UNKNOWN_ISSUER


def test_entra_tokens_for_graph_are_recognised_by_their_header():
    world = World(presets.entra(TENANT, APP))
    assert "Microsoft Graph" in hint(world.judge_sample("entra-v2-user", header={"nonce": "n"}))


def test_entra_roles_of_an_app_are_scopes_only_if_configured_and_those_of_users_never():
    plain, asked = World(presets.entra(TENANT, APP)), World(presets.entra(TENANT, APP, app_roles=True))
    app = expect_token(plain.judge_sample("entra-v2-app"))
    assert (sorted(app.scopes), sorted(app.roles)) == ([], ["bigquery.insertdata"])
    app = expect_token(asked.judge_sample("entra-v2-app"))
    assert sorted(app.scopes) == sorted(app.roles) == ["bigquery.insertdata"]
    assert app.granted_scopes is None  # so that it can be distinguished from a user's token
    user = expect_token(entra_user(asked, roles=["admin"]))
    assert (sorted(user.scopes), sorted(user.roles)) == (["Jobs.Read", "bigquery.insertdata"], ["admin"])


def test_entra_accepts_the_uri_of_the_application_too():
    world = World(presets.entra(TENANT, [APP, "https://api.example.com"]))
    for audience in (APP, f"api://{APP}", "https://api.example.com"):
        expect_token(entra_user(world, aud=audience))
    assert refusal_reason(entra_user(world, aud="api://https://api.example.com")) is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize(
    ("issuer", "fits"),
    [
        (V2, True),
        ("https://login.microsoftonline.com/{tenantid}/v2.0", True),
        (V2.replace(TENANT, OTHER_TENANT), False),
        ("https://sts.windows.net/{tenantid}/", False),
        ("{tenantid}", False),
    ],
)
def test_key_verifies_only_tokens_of_the_issuer_it_was_published_for(issuer: str, fits: bool):
    world = World(
        presets.entra(TENANT, APP), keys=[jwk("RS256", sample("entra-v2-user")["header"]["kid"], issuer=issuer)]
    )
    decision = entra_user(world)
    assert isinstance(decision, Granted) is fits
    assert fits or refusal_reason(decision) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "common"},
        {"tenant": "contoso.onmicrosoft.com"},
        {"version": "3.0"},
        {"authority": "https://login.microsoftonline.us"},
    ],
)
def test_entra_needs_one_tenant_and_a_known_version(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))}: "):
        presets.entra(**{"tenant": TENANT, "audience": APP, **wrong})


def test_entra_of_another_cloud_has_its_own_authority():
    issuer = presets.entra(TENANT, APP, version="2.0", authority="https://login.microsoftonline.us")
    assert issuer.url == f"https://login.microsoftonline.us/{TENANT}/v2.0"


# -- others with a dialect of their own


def test_auth0_permissions_are_scopes_only_if_configured():
    more = {"permissions": ["bigquery.insertdata", "admin"]}
    plain, rbac = (World(presets.auth0("tenant.us.auth0.com", API, rbac=rbac)) for rbac in (False, True))
    assert "admin" not in expect_token(plain.judge_sample("auth0-default-profile", claims=more)).scopes
    assert "admin" in expect_token(rbac.judge_sample("auth0-default-profile", claims=more)).scopes


def test_okta_names_the_org_server_and_the_id_token(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "scopeguard")
    world = World(presets.okta("acme.okta.com", API, authorization_server="aus9o8wzkhckw9TLa0h7z"))
    internal = {"typ": "application/okta-internal-at+jwt"}
    org = world.judge_sample("okta-custom-as", header=internal, claims={"iss": "https://acme.okta.com"})
    assert refusal_reason(org) is Reason.UNKNOWN_ISSUER
    assert "custom authorization server" in hint(org)
    assert refusal_reason(world.judge_sample("okta-custom-as", header=internal)) is Reason.TYPE_REFUSED
    assert "ID token" in hint(world.judge_sample("okta-custom-as", claims={"cid": None}))
    assert world.internet.sends == []
    assert "custom authorization server" in caplog.text
    assert isinstance(org, Denied)
    assert "okta" not in repr(org.response).lower()


def test_keycloak_distinguishes_kinds_of_tokens_and_reads_configured_roles():
    acme = ("https://sso.example.com/", "acme", "bigquery-api")
    world = World(presets.keycloak(*acme, roles_from="realm"))
    assert "uma_authorization" in expect_token(world.judge_sample("keycloak-service-account")).roles
    assert expect_token(World(presets.keycloak(*acme)).judge_sample("keycloak-service-account")).roles == frozenset()
    for kind in ("ID", "Refresh", "Offline", None):
        assert (
            refusal_reason(world.judge_sample("keycloak-service-account", claims={"typ": kind}))
            is Reason.UNEXPECTED_CLAIM
        )


@pytest.mark.parametrize("roles_from", ["", "client:", "client:a.b", "everybody"])
def test_keycloak_roles_need_a_source(roles_from: str):
    if roles_from == "":
        assert presets.keycloak("https://sso.example.com", "acme", "api").role_claims == ()
    else:
        with pytest.raises(ConfigurationError, match=r"^roles_from: "):
            presets.keycloak("https://sso.example.com", "acme", "api", roles_from=roles_from)


def test_keycloak_is_for_an_api_and_not_for_account():
    with pytest.raises(ConfigurationError, match="audience mapper"):
        presets.keycloak("https://sso.example.com", "acme", ["api", "account"])


def test_keycloak_lightweight_tokens_are_introspected():
    says = {"active": True, "aud": ["bigquery-api"], "typ": "Bearer", "sub": "1", "client_id": "admin-cli"}
    issuer = presets.keycloak("https://sso.example.com", "acme", "bigquery-api", introspection=ASKING)
    world = World(issuer, introspects=answers(200, **says))
    found = expect_token(world.judge_sample("keycloak-lightweight"))
    assert (found.client_id, found.subject) == ("admin-cli", "1")


def test_cognito_binds_to_the_client_and_has_no_audience():
    world = World(presets.cognito("eu-central-1", "eu-central-1_AbCdEfGhI", "57cbishk4j24pabc1234567890"))
    assert refusal_reason(world.judge_sample("cognito-m2m", claims={"client_id": "other"})) is Reason.WRONG_AUDIENCE
    assert refusal_reason(world.judge_sample("cognito-m2m", claims={"client_id": None})) is Reason.MISSING_CLAIM
    assert refusal_reason(world.judge_sample("cognito-m2m", claims={"aud": "x"})) is Reason.FORBIDDEN_CLAIM


def test_hydra_has_one_binding_and_no_refresh_tokens():
    with pytest.raises(ConfigurationError, match=r"^audience, client_ids: "):
        presets.hydra("https://hydra.example.com")
    with pytest.raises(ConfigurationError, match=r"^audience, client_ids: "):
        presets.clerk("clerk.example.com", API, client_ids="c")
    by_audience = World(presets.hydra("https://hydra.example.com", API))
    expect_token(by_audience.judge_sample("hydra-jwt", claims={"aud": [API]}))
    assert refusal_reason(by_audience.judge_sample("hydra-jwt", claims={"aud": [API + "/"]})) is Reason.WRONG_AUDIENCE
    says = {"active": True, "client_id": "ingest", "sub": "ingest", "aud": [API], "scope": "read"}
    for use, fits in (("access_token", True), ("refresh_token", False)):
        issuer = presets.hydra("https://hydra.example.com", API, introspection=ASKING)
        world = World(issuer, introspects=answers(200, **says, iat=1, token_use=use))
        assert isinstance(world.judge("ory_at_abc"), Granted) is fits


def test_pingfederate_id_tokens_reported_as_active_are_refused():
    issuer = presets.pingfederate("https://ping.example.com", API, ASKING)
    says = {"active": True, "aud": API, "client_id": "c"}
    assert refusal_reason(World(issuer, introspects=answers(200, **says)).judge("opaque")) is Reason.MISSING_CLAIM
    assert expect_token(World(issuer, introspects=answers(200, **says, scope="read")).judge("opaque")).client_id == "c"


# Opaque tokens in the form that each server gives them; the characters of its own, the length of a short one.
OPAQUE_FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "authelia": ({}, "authelia_at_7Hc9TeV_2kD-xyzABCDEF.k3JQ9_mLs-0"),
    "authentik": ({"introspection": ASKING}, "pL3bWnCwq0ZtA9xYd7sVh2Kj5mRf8uGe"),
    "gitlab": ({}, "dbaf9757982a9e738f05d249b7b5b4a266b3a139049317c4909f2f263572c781"),
    "google_tokeninfo": ({}, "ya29.a0AfB_byC-1x2Y3z4_QrsTuvWxyz0169"),
    "hydra": ({"introspection": ASKING}, "ory_at_GE9EiDT2jL0fXnJfyE-Tq3GkG4xkdS2o.aBc_DeF-0"),
    "keycloak": ({"introspection": ASKING}, "sg-opaque-lightweight"),
    "node_oidc_provider": ({"introspection": ASKING}, "Z3xN0bqS_-cT8uYw1Kp5JmVr2LaHd7GfEi4OkQs6tXo"),
    "okta": ({"introspection": ASKING}, "oaw2d3e4F-5g6H_7i8J9k0"),
    "pingfederate": ({}, "0001tPq6Zc8kYl2WmXe4Vb1Rn9Uo"),
    "salesforce": ({"introspection": ASKING}, "00Dxx0000001gER!AQ4AQFrDSwk7.opaque_a"),
    "zitadel": ({"introspection": ASKING}, "VjVxyCZmRmWYqd3_F5db9Pb9mHR5fqzhn"),
}


@pytest.mark.parametrize("name", OPAQUE_FORMS)
def test_token_in_the_form_of_its_server_is_introspected_there(name: str):
    more, text = OPAQUE_FORMS[name]
    world = World(PRESETS[name](**{**ARGUMENTS[name], **more}), introspects=answers(200, active=False, scope=[]))
    world.judge(text)
    (asked,) = world.internet.sends
    assert text in (*dict(asked.form or ()).values(), (asked.authorization or "").removeprefix("Bearer "))


def test_each_introspecting_preset_has_a_token_form_in_the_table():
    takes = {
        name
        for name, preset in PRESETS.items()
        if name in ("gitlab", "google_tokeninfo") or "introspection" in inspect.signature(preset).parameters
    }
    assert takes == set(OPAQUE_FORMS)


# As Salesforce documents its answer: neither aud nor iss.
SALESFORCE_SAYS: dict[str, Any] = {
    "active": True,
    "scope": "api id",
    "client_id": "3MVG9-caller",
    "username": "ann@acme.example",
    "sub": "https://login.salesforce.com/id/00Dxx0000001gEREAY/005xx000001SwiUAAS",
    "token_type": "access_token",
    "iat": 1,
    "nbf": 1,
}
SALESFORCE_TOKEN = "00Dxx0000001gER!AQ4AQFrDSwk7.opaque_a"
CALLER = "3MVG9-caller"


def judge_salesforce(issuer: Issuer, **changes: Any) -> Decision:
    says = {name: value for name, value in {**SALESFORCE_SAYS, **changes}.items() if value is not None}
    return World(issuer, introspects=answers(200, **says)).judge(SALESFORCE_TOKEN)


def test_salesforce_opaque_tokens_are_bound_by_the_clients_that_may_call():
    by_client = presets.salesforce("acme.my.salesforce.com", client_ids=CALLER, introspection=ASKING)
    by_both = presets.salesforce("acme.my.salesforce.com", API, client_ids=[CALLER, "x"], introspection=ASKING)
    for issuer, wrong in ((by_client, Reason.WRONG_AUDIENCE), (by_both, Reason.UNEXPECTED_CLAIM)):
        found = expect_token(judge_salesforce(issuer))
        assert (found.client_id, sorted(found.scopes)) == (CALLER, ["api", "id"])
        assert refusal_reason(judge_salesforce(issuer, client_id="3MVG9-other")) is wrong
        assert refusal_reason(judge_salesforce(issuer, token_type="refresh_token")) is Reason.NOT_AN_ACCESS_TOKEN
        assert isinstance(judge_salesforce(issuer, client_id=None), Denied)
    assert refusal_reason(judge_salesforce(by_both, aud="https://other.example")) is Reason.WRONG_AUDIENCE


def test_salesforce_without_client_ids_relies_on_the_right_to_introspect():
    issuer = presets.salesforce("acme.my.salesforce.com", API, introspection=ASKING)
    assert expect_token(judge_salesforce(issuer)).client_id == CALLER
    assert refusal_reason(judge_salesforce(issuer, aud="https://other.example")) is Reason.WRONG_AUDIENCE
    assert refusal_reason(judge_salesforce(issuer, client_id=None)) is Reason.MISSING_CLAIM
    assert refusal_reason(judge_salesforce(issuer, token_type="refresh_token")) is Reason.NOT_AN_ACCESS_TOKEN


def test_salesforce_jwts_need_the_configured_claims():
    def decide(issuer: Issuer, **claims: Any) -> Decision:
        return judge_token(issuer, header=HEADERS["salesforce"], **{**GOOD["salesforce"], **claims})

    by_client = presets.salesforce("acme.my.salesforce.com", client_ids="c")
    expect_token(decide(by_client, aud=None))
    assert refusal_reason(decide(by_client, client_id="d")) is Reason.WRONG_AUDIENCE
    by_both = presets.salesforce("acme.my.salesforce.com", API, client_ids="c")
    expect_token(decide(by_both))
    assert refusal_reason(decide(by_both, aud=None)) is Reason.MISSING_CLAIM
    assert refusal_reason(decide(by_both, client_id="d")) is Reason.UNEXPECTED_CLAIM
    with pytest.raises(ConfigurationError, match=r"^audience, client_ids: give at least one"):
        presets.salesforce("acme.my.salesforce.com", introspection=ASKING)


def test_salesforce_introspects_only_tokens_that_start_with_an_organization_id():
    issuer = presets.salesforce("acme.my.salesforce.com", API, introspection=ASKING)
    world = World(issuer, introspects=answers(200, **SALESFORCE_SAYS))
    assert refusal_reason(world.judge("opaque!of-somebody-else")) is Reason.MALFORMED_TOKEN
    assert world.internet.sends == []


@pytest.mark.parametrize("preset", ["authentik", "supabase"])
def test_shared_secrets_are_refused_with_the_alternative_setting(preset: str):
    issuer = PRESETS[preset](**ARGUMENTS[preset])
    world = World(issuer)
    _, body, signature = token(issuer, world.now, aud=sorted(issuer.audiences or ())).split(".")
    head = segment(json.dumps({"alg": "HS256", "kid": "k", "typ": "JWT"}).encode())
    assert "signing key" in hint(world.judge(f"{head}.{body}.{signature}"))


# -- workloads and proxies


def test_github_and_kubernetes_can_be_narrowed():
    with pytest.raises(ConfigurationError, match=r"^repository_ids, owner_ids: "):
        presets.github_actions(API)
    world = World(presets.github_actions(API, repository_ids=["74"], environments=["prod"]))
    assert (
        refusal_reason(world.judge_sample("github-actions", claims={"environment": "test"})) is Reason.UNEXPECTED_CLAIM
    )
    assert (
        refusal_reason(world.judge_sample("github-actions", claims={"repository_id": "75"})) is Reason.UNEXPECTED_CLAIM
    )
    world = World(presets.kubernetes(API, namespaces=["etl"]))
    assert (
        refusal_reason(world.judge_sample("kubernetes-projected", claims={"sub": "system:serviceaccount:etl2:ingest"}))
        is Reason.UNEXPECTED_CLAIM
    )
    world = World(presets.kubernetes(API, service_accounts=["etl/ingest"]))
    assert (
        refusal_reason(world.judge_sample("kubernetes-projected", claims={"sub": "system:serviceaccount:etl:other"}))
        is Reason.UNEXPECTED_CLAIM
    )
    with pytest.raises(ConfigurationError, match=r"^service_accounts: "):
        presets.kubernetes(API, service_accounts=["ingest"])


def test_gitlab_jobs_can_be_limited_to_protected_refs():
    issuer = presets.gitlab_ci("https://gitlab.example.com", API, project_ids="22", refs="main", protected_only=True)
    good: dict[str, Any] = {"aud": API, "sub": "p", "project_id": "22", "ref": "main", "ref_protected": "true"}
    expect_token(judge_token(issuer, **good))
    wrongs: list[dict[str, Any]] = [{"ref": "other"}, {"ref_protected": "false"}, {"ref_protected": True}]
    for wrong in wrongs:
        assert refusal_reason(judge_token(issuer, **{**good, **wrong})) is Reason.UNEXPECTED_CLAIM


def test_token_of_a_proxy_is_accepted_only_from_its_header():
    proxy, server = presets.cloudflare_access("acme", "32ea"), presets.authelia("https://auth.example.com", API)
    world = World(proxy, server)
    good = token(proxy, world.now, **GOOD["cloudflare_access"])
    expect_token(world.judge(good, "CF-Access-JWT-Assertion"))
    assert refusal_reason(world.judge(good)) is Reason.UNKNOWN_ISSUER
    theirs = mint_sample("authelia-jwt", world.now)
    assert refusal_reason(world.judge(theirs, "Cf-Access-Jwt-Assertion")) is Reason.UNKNOWN_ISSUER
    assert refusal_reason(World(proxy).judge(theirs)) is Reason.NO_CREDENTIALS  # Authorization is not looked at
    world.guard.revoke(token=good)
    assert refusal_reason(world.judge(good, "Cf-Access-Jwt-Assertion")) is Reason.TOKEN_REVOKED


def test_text_that_is_not_a_jwt_in_a_proxy_header_is_not_introspected():
    world = World(presets.cloudflare_access("acme", "32ea"), presets.google_tokeninfo(OURS))
    assert refusal_reason(world.judge("ya29.secret", "Cf-Access-Jwt-Assertion")) is Reason.MALFORMED_TOKEN
    assert world.internet.sends == []


def test_iap_signs_with_elliptic_curves_only():
    issuer = presets.google_iap("/projects/1/apps/acme")
    wrong = judge_token(issuer, header={"alg": "RS256"}, **GOOD["google_iap"])
    assert refusal_reason(wrong) is Reason.ALGORITHM_REFUSED


def test_two_proxies_may_share_an_issuer_with_separate_headers():
    one = presets.cloudflare_access("acme", "32ea")
    other = replace(one, token_header=None)
    world = World(one, other)
    good = token(one, world.now, **GOOD["cloudflare_access"])
    expect_token(world.judge(good))
    expect_token(world.judge(good, "Cf-Access-Jwt-Assertion"))
    with pytest.raises(ConfigurationError, match="configured twice"):
        World(one, replace(one, leeway=1))
    world.guard.revoke(subject="u", issuer=one.url)
    assert refusal_reason(world.judge(good)) is Reason.TOKEN_REVOKED


@pytest.mark.parametrize("name", ["Authorization", "x y", "", "x:", 3])
def test_token_header_must_not_be_authorization(name: Any):
    with pytest.raises(ConfigurationError, match=r"^token_header: "):
        Issuer("https://as.example", audience=API, token_header=name)


# -- Google


def test_google_has_two_issuer_names_and_needs_a_binding():
    world = World(presets.google_oidc(API, ["ingest@acme-prod.iam.gserviceaccount.com"]))
    expect_token(world.judge_sample("google-oidc-identity", claims={"iss": "accounts.google.com"}))
    made: Any = presets.google_oidc
    with pytest.raises(TypeError):
        made(API)


def test_a_self_signed_token_has_scopes_or_an_audience():
    name, me = "google-selfsigned-serviceaccount", "ingest@acme-prod.iam.gserviceaccount.com"
    scoped, bound = World(presets.google_self_signed(me)), World(presets.google_self_signed(me, API))
    assert "bigquery.insertdata" in expect_token(scoped.judge_sample(name)).scopes
    assert refusal_reason(scoped.judge_sample(name, claims={"aud": API})) is Reason.FORBIDDEN_CLAIM
    assert refusal_reason(scoped.judge_sample(name, claims={"scope": None, "aud": API})) in (
        *REFUSALS,
        Reason.FORBIDDEN_CLAIM,
    )
    expect_token(bound.judge_sample(name, claims={"scope": None, "aud": API}))
    assert refusal_reason(bound.judge_sample(name)) is Reason.MISSING_CLAIM
    assert refusal_reason(scoped.judge_sample(name, claims={"sub": "somebody@else"})) is Reason.UNEXPECTED_CLAIM
    late = {"exp": int(scoped.now) + 3700}
    assert refusal_reason(scoped.judge_sample(name, claims=late)) is Reason.TOKEN_LIFETIME_TOO_LONG


OURS = "926872579832-abc.apps.googleusercontent.com"


def tokeninfo(status: int, **members: Any) -> tuple[World, Decision]:
    world = World(presets.google_tokeninfo(OURS), introspects=answers(status, **members))
    return world, world.judge("ya29.secret")


def test_tokeninfo_answers_are_accepted_only_for_configured_clients():
    world, decision = tokeninfo(200, aud="other.apps.googleusercontent.com", exp="4000000000", scope="x")
    assert refusal_reason(decision) is Reason.WRONG_AUDIENCE
    assert "client" in hint(decision)
    (send,) = world.internet.sends
    assert send.form == ()  # a POST, and the token stands in no URL
    assert send.authorization == "Bearer ya29.secret"
    assert "ya29" not in send.url + repr(send)
    assert refusal_reason(tokeninfo(200, exp="4000000000", scope="x")[1]) is Reason.MISSING_CLAIM
    with pytest.raises(ConfigurationError, match=r"^client_ids: "):
        presets.google_tokeninfo([])


def test_issuer_with_introspection_only_fetches_no_keys():
    world = World(presets.google_tokeninfo(OURS))
    world.guard.warm()
    assert world.internet.sends == []
    signed_answers = replace(ASKING, signed=True)
    world = World(presets.pingfederate("https://ping.example.com", API, signed_answers))
    world.guard.warm()
    assert len(world.internet.sends) == 2


def test_tokeninfo_times_may_be_strings():
    assert expect_token(tokeninfo(200, aud=OURS, exp="4000000000")[1]).expires_at == 4_000_000_000
    assert refusal_reason(tokeninfo(200, aud=OURS, exp="1000000000")[1]) is not Reason.WRONG_AUDIENCE


@pytest.mark.parametrize(
    ("status", "members"),
    [
        (500, {}),
        (429, {}),
        (401, {}),
        (400, {"error": "quota"}),
        (200, {"aud": OURS}),
        (200, {"aud": OURS, "exp": "x"}),
    ],
)
def test_empty_tokeninfo_answer_is_an_outage(status: int, members: dict[str, Any]):
    assert isinstance(tokeninfo(status, **members)[1], Unavailable)


# -- GitLab's OAuth tokens


def gitlab(status: int, **members: Any) -> tuple[World, Decision]:
    world = World(presets.gitlab("https://gitlab.example.com/", "app"), introspects=answers(status, **members))
    return world, world.judge("sg-opaque")


def test_gitlab_is_called_with_the_token_and_accepts_only_configured_applications():
    about = {"resource_owner_id": 7, "scope": ["api", "read_user"], "expires_in": 60}
    world, decision = gitlab(200, **about, application={"uid": "app"})
    token = expect_token(decision)
    assert (token.issuer, token.subject, token.client_id) == ("https://gitlab.example.com", "7", "app")
    assert token.scopes == {"api", "read_user"}
    assert token.expires_at == int(world.now) + 60
    (send,) = world.internet.sends
    assert send.url == "https://gitlab.example.com/oauth/token/info"
    assert send.form is None
    assert send.authorization == "Bearer sg-opaque"
    assert "opaque" not in send.url + repr(send)
    assert refusal_reason(gitlab(200, **about, application={"uid": "other"})[1]) is Reason.WRONG_AUDIENCE
    assert "client_ids" in hint(gitlab(200, **about, application={"uid": "other"})[1])


@pytest.mark.parametrize("application", [None, {}, {"uid": ["app"]}])
def test_a_personal_access_token_of_gitlab_is_refused(application: object):
    decision = gitlab(200, resource_owner_id=7, scope=["api"], expires_in=None, application=application)[1]
    assert refusal_reason(decision) is Reason.MISSING_CLAIM


def test_token_unknown_to_gitlab_is_refused():
    assert refusal_reason(gitlab(401, error="invalid_token")[1]) is Reason.TOKEN_NOT_ACTIVE


@pytest.mark.parametrize(
    ("status", "members"),
    [(401, {"error": "nobody"}), (400, {"error": "invalid_token"}), (500, {}), (404, {}), (200, {"expires_in": "x"})],
)
def test_empty_gitlab_answer_is_an_outage(status: int, members: dict[str, Any]):
    assert isinstance(gitlab(status, **members)[1], Unavailable)


# -- two of them for one issuer


def test_two_policies_for_one_issuer_are_refused_with_a_fix():
    again = presets.clerk_m2m("clerk.example.com", "mch_1"), presets.clerk("clerk.example.com", API)
    with pytest.raises(
        ConfigurationError, match=r"configured twice.*let one Issuer accept both.*make a Guard for each"
    ):
        Guard(*again)


def test_proxy_and_its_issuer_may_have_the_same_name():
    access = presets.cloudflare_access("acme", "32ea")
    Guard(access, Issuer(access.url, audience=API))
