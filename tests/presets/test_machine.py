"""The signs by which each preset distinguishes tokens of machines, beyond the samples."""

from __future__ import annotations

from typing import Any

import pytest

from providers import JSON, World
from scopeguard import ConfigurationError, Granted, Introspection, Issuer, MachineSign, presets
from scopeguard.flow.effects import Answer, Send
from scopeguard.presets import PRESETS
from scopeguard.spec import jwt
from scopeguard.tokens import AccessToken, Unverified

API = "https://api.example.com"
TENANT = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"
ASKING = Introspection(client_id="api", client_secret="s", endpoint="https://as.example/introspect")
PLAIN = Issuer("https://as.example", audience=API)
KEYCLOAK = presets.keycloak("https://sso.example.com", "acme", "api")
KEYCLOAK_ASKED = presets.keycloak("https://sso.example.com", "acme", "api", introspection=ASKING)
PINGAM = presets.pingam("https://am.example.com:443/am/oauth2", "client")
GOOGLE = presets.google_tokeninfo("c")


def machine(issuer: Issuer, **claims: Any) -> bool | None:
    token = Unverified(header={}, claims=claims, signed=b"", signature=b"", fingerprint="")
    return jwt.accept(token, issuer, issuer.vocabulary).machine


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"sub": "c", "client_id": "c"}, True),
        ({"sub": "c", "azp": "c"}, True),
        ({"sub": "u", "client_id": "c"}, None),
        ({"sub": "c"}, None),
        ({"client_id": "c"}, None),
        ({}, None),
        ({"sub": "", "client_id": ""}, None),
    ],
)
def test_by_default_a_token_whose_subject_is_the_client_is_a_machine(claims: Any, expected: bool | None):
    assert machine(PLAIN, **claims) is expected


USERS: list[tuple[str, Issuer, dict[str, Any], bool | None]] = [
    ("auth0 user", presets.auth0("t.auth0.com", API), {"sub": "auth0|7", "azp": "c"}, False),
    ("auth0 by gty", presets.auth0("t.auth0.com", API), {"sub": "x", "gty": "client-credentials"}, True),
    ("auth0 unknown", presets.auth0("t.auth0.com", API), {"sub": "x"}, None),
    ("okta user", presets.okta("acme.okta.com"), {"sub": "a@b", "cid": "c", "uid": "00u"}, False),
    ("okta user called like the client", presets.okta("acme.okta.com"), {"sub": "c", "cid": "c", "uid": "0"}, False),
    ("entra idtyp", presets.entra(TENANT, "a"), {"sub": "s", "idtyp": "app", "scp": "x"}, True),
    ("entra user with roles", presets.entra(TENANT, "a"), {"sub": "s", "scp": "x", "roles": ["r"]}, False),
    ("keycloak user", KEYCLOAK, {"sub": "s", "azp": "c", "preferred_username": "ann"}, False),
    ("keycloak user without profile", KEYCLOAK, {"sub": "s", "azp": "c", "sid": "7"}, None),
    ("keycloak session with a client_id", KEYCLOAK, {"sub": "s", "client_id": "c", "sid": "7"}, None),
    ("keycloak answer about a user", KEYCLOAK_ASKED, {"sub": "s", "client_id": "c"}, None),
    ("keycloak answer", KEYCLOAK_ASKED, {"client_id": "c", "preferred_username": "service-account-c"}, True),
    (
        "cognito user",
        presets.cognito("eu-west-1", "eu-west-1_p", "c"),
        {"sub": "s", "client_id": "c", "username": "ann"},
        False,
    ),
    ("pingone user", presets.pingone(TENANT, API), {"sub": "s", "client_id": "c"}, False),
    ("pingam machine", PINGAM, {"sub": "c", "grant_type": "client_credentials"}, True),
    ("pingam user", PINGAM, {"sub": "ann", "grant_type": "authorization_code"}, False),
    ("pingam unknown", PINGAM, {"sub": "ann"}, None),
    ("hydra user", presets.hydra("https://h.example", API), {"sub": "ann", "client_id": "c"}, False),
    ("authelia user", presets.authelia("https://a.example", API), {"sub": "u", "client_id": "c"}, False),
    ("dex user", presets.dex("https://d.example", "ingest"), {"sub": "CgNhbm4SBGxkYXA", "azp": "ingest"}, None),
    ("dex client of a long name", presets.dex("https://d.example", "c" * 128), {"sub": "x"}, None),
    ("duende user", presets.duende("https://d.example", API), {"sub": "7", "client_id": "c"}, False),
    (
        "zitadel user",
        presets.zitadel("https://z.example", "7"),
        {"sub": "1", "client_id": "2@p", "username": "a"},
        None,
    ),
    ("salesforce", presets.salesforce("a.my.salesforce.com", API), {"sub": "x", "client_id": "x"}, None),
    ("stytch", presets.stytch("project-live-1"), {"sub": "m2m-client-live-7"}, True),
    ("workos user", presets.workos("a.authkit.app", "c"), {"sub": "user_01", "client_id": "c"}, False),
    ("clerk user", presets.clerk("clerk.example.com", API), {"sub": "user_01", "client_id": "c"}, False),
    ("cloudflare user", presets.cloudflare_access("acme", "32ea"), {"sub": "7755", "email": "a@b.example"}, False),
    ("google user", presets.google_oidc(API, "a@b.example"), {"sub": "1", "azp": "2", "email": "a@b.example"}, False),
    ("google lookalike", presets.google_oidc(API, "a@b.example"), {"email": "a@xgserviceaccount.com"}, False),
    ("tokeninfo account", GOOGLE, {"sub": "1", "azp": "2.a", "email": "a@p.iam.gserviceaccount.com"}, True),
    ("tokeninfo without sub", GOOGLE, {"azp": "1.apps.googleusercontent.com"}, None),
    ("gitlab without an owner", presets.gitlab("https://g.example", "a"), {"client_id": "a"}, True),
]


@pytest.mark.parametrize(("name", "issuer", "claims", "expected"), USERS, ids=[case[0] for case in USERS])
def test_preset_distinguishes_machines_from_users(
    name: str, issuer: Issuer, claims: dict[str, Any], expected: bool | None
):
    assert machine(issuer, **claims) is expected


@pytest.mark.parametrize("name", ["gitlab_ci", "google_self_signed", "kubernetes", "github_actions", "clerk_m2m"])
def test_workloads_are_always_machines(name: str):
    issuer: dict[str, Any] = {
        "gitlab_ci": {"issuer": "https://g.example", "audience": API, "project_ids": "7"},
        "google_self_signed": {"email": "a@b.iam.gserviceaccount.com"},
        "kubernetes": {"audience": API},
        "github_actions": {"audience": API, "owner_ids": "7"},
        "clerk_m2m": {"frontend_api": "clerk.example.com", "machine_id": "mch_1"},
    }
    assert machine(PRESETS[name](**issuer[name])) is True


def test_machine_is_set_for_introspected_tokens_too():
    issuer = Issuer("https://as.example", audience=API, validate="introspection", introspection=ASKING)
    world = World(issuer, introspects=about(b'{"active": true, "aud": "%s", "sub": "c", "client_id": "c"}'))
    assert expect_token(world).machine is True
    world = World(issuer, introspects=about(b'{"active": true, "aud": "%s", "sub": "u", "client_id": "c"}'))
    assert expect_token(world).machine is None


def about(body: bytes) -> Any:
    def answer(request: Send) -> Answer:
        return Answer(200, body % API.encode(), JSON)

    return answer


def expect_token(world: World) -> AccessToken:
    decision = world.judge("opaque")
    assert isinstance(decision, Granted), decision
    return decision.access_token


# -- the signs themselves


@pytest.mark.parametrize(
    ("sign", "shown", "not_shown"),
    [
        ({}, [{}, {"sub": "x"}], []),
        ({"present": {"a": "x+"}}, [{"a": "xx"}], [{}, {"a": "y"}, {"a": "xxy"}, {"a": "x\n"}, {"a": ["x"]}, {"a": 7}]),
        ({"present": {"a": ".+", "b": ".+"}}, [{"a": "x", "b": "y\n"}], [{"a": "x"}, {"a": "", "b": "y"}]),
        ({"absent": "a"}, [{}, {"a": None}, {"a": ""}], [{"a": "x"}, {"a": 0}, {"a": []}, {"a": False}]),
        ({"equal": ("a", "b")}, [{"a": "x", "b": "x"}], [{}, {"a": "x"}, {"a": "", "b": ""}, {"a": 1, "b": 1}]),
        ({"present": {"a": "x"}, "absent": "b"}, [{"a": "x"}], [{"a": "x", "b": "y"}, {}]),
    ],
)
def test_sign_matches_only_if_all_its_parts_match(sign: Any, shown: list[Any], not_shown: list[Any]):
    found = MachineSign(machine=True, **sign)
    assert all(found.applies(claims, "s", "c") for claims in shown)
    assert not any(found.applies(claims, "s", "c") for claims in not_shown)


def test_first_matching_sign_decides():
    signs = MachineSign(machine=False, present={"a": "x"}), MachineSign(machine=True)
    issuer = Issuer("https://as.example", audience=API, machine_signs=signs)
    assert machine(issuer, a="x", sub="c", client_id="c") is False
    assert machine(issuer) is True


@pytest.mark.parametrize(
    ("sign", "problem"),
    [
        ({"machine": "false"}, "machine_signs: machine: must be true or false, not str"),
        ({"subject_is_client": 1}, "machine_signs: subject_is_client: must be true or false, not int"),
        ({"present": ["a"]}, "machine_signs: present: must be a table"),
        ({"present": {"a": "("}}, r"machine_signs: present\['a'\]: must be a regular expression .*unterminated"),
        ({"present": {"a": 7}}, r"machine_signs: present\['a'\]: must be a regular expression .*not int"),
        ({"absent": 7}, "machine_signs: absent: must be a string or a list"),
        ({"equal": ("a",)}, "machine_signs: equal: must name at least two claims"),
    ],
)
def test_empty_sign_is_refused(sign: Any, problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        MachineSign(**{"machine": True, **sign})


def test_signs_of_another_type_are_refused():
    no_sign: Any = {"machine": True}
    with pytest.raises(ConfigurationError, match="machine_signs: every item must be a MachineSign"):
        Issuer("https://as.example", audience=API, machine_signs=(no_sign,))
