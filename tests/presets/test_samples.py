"""Sample tokens of real providers, checked by each preset: accepted or refused as listed, and never by another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers import JSON, SAMPLES, World, mint_sample, sample, shift
from scopeguard import Denied, Granted, Introspection, Issuer, Reason, presets
from scopeguard.flow.effects import Answer, Send

API = "https://api.example.com"
TENANT, APP = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "2f6b7c1e-6f53-4a3c-9d2a-1b1d0f5e9a77"
KEYCLOAK = ("https://sso.example.com", "acme", "bigquery-api")
AUTHENTIK = ("https://auth.example.com/application/o/bigquery-api/", "bqapiclientid")
COGNITO = ("eu-central-1", "eu-central-1_AbCdEfGhI", ["57cbishk4j24pabc1234567890"])
ASKING = Introspection(client_id="api", client_secret="s", endpoint="https://as.example/introspect")

AUTH0 = presets.auth0("tenant.us.auth0.com", API)
AUTHELIA = presets.authelia("https://auth.example.com", API)
ENTRA = presets.entra(TENANT, APP, app_roles=True)
JWTS: dict[str, Issuer] = {
    "apple-identity": presets.apple("com.example.app"),
    "auth0-default-profile": AUTH0,
    "auth0-rfc9068-profile": AUTH0,
    "authelia-jwt": AUTHELIA,
    "authelia-jwt-before-12372": AUTHELIA,
    "authentik": presets.authentik(*AUTHENTIK),
    "aws-alb": presets.aws_alb(
        "eu-central-1",
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/acme/6284be65b827c598",
        "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
        "4fmvht22tjrgd7d3k3tghttct7",
    ),
    "clerk-m2m": presets.clerk_m2m("clerk.example.com", "mch_receiver"),
    "cloudflare-access-service": presets.cloudflare_access(
        "acme", "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"
    ),
    "cognito-m2m": presets.cognito(*COGNITO, resource_server=API),
    "dex": presets.dex("https://dex.example.com", "ingest"),
    "duende-m2m": presets.duende("https://ids.example.com", "bigquery"),
    "entra-v2-app": ENTRA,
    "entra-v2-user": ENTRA,
    "firebase": presets.firebase("acme-prod"),
    "github-actions": presets.github_actions(API, repository_ids="74", refs="refs/heads/main", environments="prod"),
    "google-iap": presets.google_iap("/projects/123456789012/global/backendServices/1111222233334444"),
    "google-oidc-identity": presets.google_oidc(API, "ingest@acme-prod.iam.gserviceaccount.com"),
    "google-selfsigned-serviceaccount": presets.google_self_signed("ingest@acme-prod.iam.gserviceaccount.com"),
    "hydra-jwt": presets.hydra("https://hydra.example.com", client_ids="ingest"),
    "keycloak-service-account": presets.keycloak(*KEYCLOAK, roles_from="client:bigquery-api"),
    "keycloak-service-account-rfc9068": presets.keycloak(*KEYCLOAK),
    "kubernetes-projected": presets.kubernetes(API, namespaces="etl", service_accounts="etl/ingest"),
    "mcp-server": presets.mcp("https://mcp.example.com/mcp", "https://auth.example.com"),
    "node-oidc-provider": presets.node_oidc_provider("https://op.example.com", API),
    "okta-custom-as": presets.okta("acme.okta.com", API, authorization_server="aus9o8wzkhckw9TLa0h7z"),
    "pingone": presets.pingone("5caa81af-ec05-41ff-a709-c7378007a99c", API),
    "spring-authorization-server": presets.spring_as(
        "http://auth-server:9000", "ingest", jwks_uri="https://auth-server.example/oauth2/jwks"
    ),
    "supabase": presets.supabase("abc123"),
    "workos-session": presets.workos_session("client_01ENVIRONMENT", "org_01"),
}
ASKED: dict[str, Issuer] = {
    "authentik-introspection": presets.authentik(*AUTHENTIK, introspection=ASKING),
    "gitlab-token-info": presets.gitlab("https://gitlab.example.com", "1cb242f4"),
    "google-serviceaccount-tokeninfo": presets.google_tokeninfo("104857600000000000001"),
    "google-user-tokeninfo-v1v2": presets.google_tokeninfo("926872579832-abc.apps.googleusercontent.com"),
    "google-user-tokeninfo-v3": presets.google_tokeninfo("926872579832-abc.apps.googleusercontent.com"),
    "zitadel-opaque": presets.zitadel("https://acme.zitadel.cloud", "258000000000000456", introspection=ASKING),
}
# With the reason, and what the operator's log says about it.
REFUSED: dict[str, tuple[Issuer, Reason, str]] = {
    "auth0-opaque-jwe": (AUTH0, Reason.ENCRYPTED_TOKEN, "requested no audience"),
    "keycloak-lightweight": (presets.keycloak(*KEYCLOAK), Reason.MISSING_CLAIM, "needs introspection"),
    "neg-cognito-id-token": (presets.cognito(*COGNITO), Reason.UNEXPECTED_CLAIM, "an ID token"),
    "neg-entra-app-without-roles": (ENTRA, Reason.MISSING_CLAIM, "assign it an app role"),
    "neg-keycloak-default-aud": (presets.keycloak(*KEYCLOAK), Reason.WRONG_AUDIENCE, "add an audience mapper"),
    "neg-kubernetes-legacy-secret": (presets.kubernetes(API), Reason.UNKNOWN_ISSUER, "mount a projected"),
}
GOOGLE_REFUSED = "google-tokeninfo-invalid"
# Opaque tokens of services without an audience and a preset: they are not introspected.
NO_PRESET = ("github-oauth-app", "slack")

# Where the rule of the preset stands above the sample: names of machines are not permissions.
SCOPES: dict[str, list[str]] = {"clerk-m2m": []}
ROLES = {
    "dex": {"bigquery-writers"},
    "entra-v2-app": {"bigquery.insertdata"},
    "keycloak-service-account": {"writer"},
    "supabase": {"authenticated"},
    "workos-session": {"member"},
}


def test_each_sample_is_tested():
    judged = (*JWTS, *ASKED, *REFUSED, GOOGLE_REFUSED, *NO_PRESET)
    assert sorted(judged) == sorted(path.stem for path in SAMPLES.glob("*.json"))


def check_expected(decision: Any, name: str) -> None:
    assert isinstance(decision, Granted), decision
    token, expected = decision.access_token, sample(name)["expect"]
    scopes = SCOPES.get(name, expected["scopes"])
    assert token.issuer == expected["issuer"]
    assert token.subject == expected["subject"]
    assert token.client_id == expected["client_id"]
    assert expected["audience_binding"] in (None, *token.audience)
    assert set(scopes) <= token.scopes
    assert set(expected.get("scopes_stripped", ())) | set(expected.get("scopes_short", ())) <= token.scopes
    assert list(token.granted_scopes or ()) == ([] if name == "entra-v2-app" else scopes)
    assert token.roles == ROLES.get(name, set())
    assert token.machine is expected["machine"]


@pytest.mark.parametrize("name", JWTS)
def test_sample_is_accepted_with_its_values(name: str):
    world = World(JWTS[name])
    check_expected(world.judge_sample(name), name)
    assert len(world.internet.sends) <= 2  # metadata, keys


def answer_with(name: str, now: float) -> Any:
    """An authority that answers for any token with the sample, dated now."""
    given = sample(name)["introspection_response"]
    body = shift(given["body"], now - sample(name)["time_base"])

    def answer(request: Send) -> Answer:
        return Answer(given["status"], json.dumps(body).encode(), JSON)

    return answer


@pytest.mark.parametrize("name", ASKED)
def test_introspected_sample_is_accepted_with_its_values(name: str):
    world = World(ASKED[name])
    world.internet.introspects = answer_with(name, world.now)
    token = mint_sample("authentik" if name == "authentik-introspection" else name, world.now)
    check_expected(world.judge(token), name)
    (asked,) = world.internet.sends
    assert token not in asked.url
    assert (asked.form is None) == (name == "gitlab-token-info")
    assert isinstance(world.judge(token), Granted)
    assert len(world.internet.sends) == 1  # known for a while


@pytest.mark.parametrize("name", REFUSED)
def test_sample_that_must_be_refused_is_refused_and_the_log_has_the_fix(name: str, caplog: pytest.LogCaptureFixture):
    issuer, reason, hint = REFUSED[name]
    caplog.set_level("INFO", "scopeguard")
    world = World(issuer)
    decision = world.judge_sample(name)
    assert isinstance(decision, Denied)
    assert decision.error.reason is reason
    assert decision.response.status == 401
    assert hint in caplog.text
    assert hint not in repr(decision.response)
    assert world.internet.sends == []  # decided by the text alone


def test_google_400_is_a_refusal_of_the_token():
    world = World(ASKED["google-user-tokeninfo-v3"])
    world.internet.introspects = answer_with(GOOGLE_REFUSED, world.now)
    decision = world.judge_sample(GOOGLE_REFUSED)
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.TOKEN_NOT_ACTIVE


@pytest.mark.parametrize("name", NO_PRESET)
def test_opaque_token_without_a_preset_is_not_introspected(name: str):
    world = World(ASKED["google-user-tokeninfo-v3"])
    assert isinstance(world.judge_sample(name), Denied)
    assert world.internet.sends == []


def test_load_balancer_tokens_and_user_pool_tokens_are_not_confused():
    world = World(JWTS["cognito-m2m"], JWTS["aws-alb"])  # of one name
    ours, theirs = mint_sample("cognito-m2m", world.now), mint_sample("aws-alb", world.now)
    assert isinstance(world.judge(theirs), Denied)
    assert isinstance(world.judge(ours, "x-amzn-oidc-data"), Denied)
    assert world.internet.sends == []
    check_expected(world.judge(theirs, "x-amzn-oidc-data"), "aws-alb")
    check_expected(world.judge(ours), "cognito-m2m")


def have_one_provider(one: str, other: str) -> bool:
    def provider(name: str) -> str:
        return str(sample(name)["provider"]).removesuffix("-identity")

    return provider(one) == provider(other)


@pytest.mark.rule("P-18")
@pytest.mark.parametrize("name", [*JWTS, *ASKED])
def test_preset_refuses_the_tokens_of_all_others_without_a_fetch(name: str):
    world = World({**JWTS, **ASKED}[name])
    for other, theirs in JWTS.items():
        if theirs is not JWTS.get(name) and not have_one_provider(name, other):
            decision = world.judge_sample(other)
            assert isinstance(decision, Denied), other
    assert world.internet.sends == []


@pytest.mark.parametrize("name", JWTS)
def test_a_token_for_another_audience_is_refused(name: str):
    """Only kinds with an audience; test_presets.py covers the bindings of the others."""
    issuer = JWTS[name]
    if issuer.audiences is not None:
        other = dict.fromkeys((claim.removeprefix("header:") for claim in issuer.audience_claims), "somebody-else")
        in_header = issuer.audience_claims[0].startswith("header:")
        decision = World(issuer).judge_sample(name, **{"header" if in_header else "claims": other})
        assert isinstance(decision, Denied)
        assert decision.error.reason in (Reason.WRONG_AUDIENCE, Reason.UNEXPECTED_CLAIM)


@pytest.mark.parametrize("name", JWTS)
def test_token_with_a_forged_signature_is_refused(name: str):
    world = World(JWTS[name])
    token = mint_sample(name, world.now)
    head, body, signature = token.split(".")
    turned = ("B" if signature[0] == "A" else "A") + signature[1:]
    decision = world.judge(f"{head}.{body}.{turned}", sample(name).get("request_header", "Authorization"))
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("name", JWTS)
def test_token_without_exp_is_refused(name: str):
    decision = World(JWTS[name]).judge_sample(name, claims={"exp": None}, header={"exp": None})
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.MISSING_CLAIM
