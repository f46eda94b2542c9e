"""The form of each argument, in Python and in the configuration file: an error names the argument, its kind and the
fix, and what can only mean one thing is accepted."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from preset_arguments import API, APP, ARGUMENTS, TENANT
from scopeguard import ConfigurationError, Issuer, presets
from scopeguard.config.file import settings_from
from scopeguard.presets import PRESETS

TAG = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"


def in_file(name: str, arguments: Mapping[str, Any]) -> str:
    """*arguments* as a table of the configuration file; JSON and TOML agree about strings, lists and booleans."""
    rows = [f"{key} = {json.dumps(value)}" for key, value in arguments.items()]
    return "\n".join(("[[issuers]]", f'preset = "{name}"', *rows))


def from_file(name: str, arguments: Mapping[str, Any]) -> Issuer:
    (issuer,), _ = settings_from(tomllib.loads(in_file(name, arguments)), Path("."), environment={})
    return issuer


def problem(name: str, arguments: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        PRESETS[name](**arguments)
    return str(raised.value)


# -- mistakes

URL, HOST = "https://as.example.com", "as.example.com"
WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    # the preset, the argument that is named, what is given, and a part of what is said
    ("auth0", "domain", {"domain": "acme"}, "a host name with its domain"),
    ("auth0", "domain", {"domain": "https://tenant.us.auth0.com/api/v2/"}, "not a URL with a path"),
    ("auth0", "domain", {"domain": "http://tenant.us.auth0.com"}, "not a URL"),
    ("auth0", "domain", {"domain": "ann@tenant.us.auth0.com"}, "not an e-mail address"),
    ("auth0", "domain", {"domain": "https://ann:pw@tenant.us.auth0.com"}, "not a URL"),
    ("auth0", "domain", {"domain": "tenant..auth0.com"}, "not another kind of text"),
    ("auth0", "audience", {"domain": API, "audience": "tenant.us.auth0.com"}, "swap the two"),
    ("auth0", "audience", {"domain": API, "audience": "login.example.com"}, "write domain without https://"),
    ("auth0", "rbac", {"rbac": "false"}, "true or false"),
    ("okta", "domain", {"domain": "acme"}, "a host name with its domain"),
    ("okta", "domain", {"domain": "https://acme.okta.com/oauth2/default"}, "not a URL with a path"),
    ("okta", "domain", {"domain": "acme-admin.okta.com"}, "leave out -admin"),
    ("okta", "audience", {"domain": API, "audience": "https://acme.okta.com"}, "swap the two"),
    ("okta", "authorization_server", {"authorization_server": "https://acme.okta.com/oauth2/x"}, "a URL with a path"),
    ("entra", "tenant", {"tenant": "contoso.onmicrosoft.com"}, "not a host name"),
    ("entra", "tenant", {"tenant": "common"}, "one issuer for each tenant"),
    ("entra", "tenant", {"tenant": "api://" + APP}, "not a URL"),
    ("entra", "tenant", {"tenant": TENANT[:-1]}, "a GUID"),
    ("entra", "audience", {"audience": TENANT.upper()}, "not the tenant's id"),
    ("entra", "audience", {"audience": "https://graph.microsoft.com/"}, "Microsoft Graph"),
    ("entra", "audience", {"audience": "00000003-0000-0000-C000-000000000000"}, "Microsoft Graph"),
    ("entra", "authority", {"authority": "login.microsoftonline.us", "version": "2.0"}, "not a host name"),
    ("entra", "app_roles", {"app_roles": 1}, "true or false"),
    ("cognito", "region", {"region": "eu-central-1_AbC", "pool_id": "eu-central-1"}, "a region of AWS"),
    ("cognito", "pool_id", {"pool_id": "AbCdEfGhI"}, "with its region"),
    ("cognito", "pool_id", {"pool_id": "us-east-1_AbC"}, "is not that of the argument region"),
    ("cognito", "client_ids", {"client_ids": "eu-central-1_AbC"}, "not a pool id"),
    ("cognito", "client_ids", {"client_ids": [API]}, "not a URL"),
    ("cognito", "resource_server", {"resource_server": ""}, "an empty string"),
    ("pingone", "environment_id", {"environment_id": API, "audience": APP}, "a GUID"),
    ("pingone", "environment_id", {"environment_id": "acme"}, "a GUID"),
    ("pingone", "region", {"region": "eu-central-1"}, "the end of the domain"),
    ("pingone", "region", {"region": "https://auth.pingone.eu"}, "not a URL"),
    ("salesforce", "my_domain", {"my_domain": "acme"}, "a host name with its domain"),
    ("salesforce", "my_domain", {"my_domain": "https://login.salesforce.com"}, "My Domain"),
    ("salesforce", "my_domain", {"my_domain": "acme.lightning.force.com"}, "My Domain"),
    ("salesforce", "audience", {"my_domain": API, "audience": "acme.my.salesforce.com"}, "swap the two"),
    ("salesforce", "client_ids", {"client_ids": [API]}, "not a URL"),
    ("stytch", "project_id", {"project_id": API}, "a project id"),
    ("stytch", "project_id", {"project_id": "live-1"}, "a project id"),
    ("workos", "authkit_domain", {"authkit_domain": "client_01", "audience": "acme.authkit.app"}, "a host name"),
    ("workos", "audience", {"authkit_domain": API, "audience": "acme.authkit.app"}, "swap the two"),
    ("workos", "organizations", {"organizations": "acme"}, "an organization id"),
    ("workos_session", "client_id", {"client_id": "org_01", "organizations": "client_01"}, "a client id of WorkOS"),
    ("workos_session", "organizations", {"organizations": ["org_01", "client_01"]}, "an organization id"),
    ("clerk", "frontend_api", {"frontend_api": "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"}, "a host name"),
    ("clerk_session", "origins", {"frontend_api": API, "origins": "clerk.example.com"}, "not a host name"),
    ("clerk_session", "origins", {"origins": "https://app.example.com/path"}, "a URL with a path"),
    ("clerk_m2m", "machine_id", {"machine_id": "user_01"}, "a machine id of Clerk"),
    ("supabase", "project_ref", {"project_ref": "https://abc123.supabase.co/auth/v1"}, "a URL with a path"),
    ("supabase", "project_ref", {"project_ref": "https://supabase.com/dashboard/project/abc123"}, "a URL with a path"),
    ("firebase", "project_id", {"project_id": "123456789012"}, "not a number"),
    ("firebase", "project_id", {"project_id": "acme-prod.firebaseapp.com"}, "not a host name"),
    ("apple", "client_id", {"client_id": "https://example.com"}, "not a URL"),
    ("keycloak", "base_url", {"base_url": "https://sso.example.com/realms/acme"}, "without /realms/acme"),
    ("keycloak", "base_url", {"base_url": "https://sso.example.com/auth/realms/acme/"}, "without /realms/acme"),
    ("keycloak", "base_url", {"base_url": "https://sso.example.com/admin/acme/console"}, "without /admin/acme"),
    ("keycloak", "base_url", {"base_url": "https://sso.example.com/realms/acme/protocol/openid-connect"}, "without /r"),
    ("keycloak", "base_url", {"base_url": "sso.example.com"}, "not a host name"),
    ("keycloak", "base_url", {"base_url": "acme", "realm": "https://sso.example.com"}, "a URL is needed"),
    ("keycloak", "realm", {"realm": "https://sso.example.com/realms/acme"}, "a URL with a path"),
    ("keycloak", "realm", {"realm": "realms/acme"}, "not a path"),
    ("zitadel", "project_id", {"project_id": "my project"}, "a number"),
    ("zitadel", "issuer", {"issuer": "258", "project_id": "https://acme.zitadel.cloud"}, "a URL is needed"),
    ("zitadel", "roles", {"roles": "yes"}, "true or false"),
    ("authentik", "client_id", {"client_id": "https://auth.example.com/application/o/api/"}, "a client id"),
    ("authentik", "introspection", {"introspection": "https://as.example/i"}, "an Introspection"),
    ("gitlab", "client_ids", {"client_ids": "https://gitlab.example.com"}, "not a URL"),
    ("mcp", "resource_url", {"resource_url": "mcp.example.com"}, "not a host name"),
    ("github_actions", "repository_ids", {"repository_ids": "acme/api"}, "not a path"),
    ("github_actions", "owner_ids", {"owner_ids": ["65", "acme"]}, "a numeric id"),
    ("github_actions", "refs", {"refs": "main"}, "refs/heads/main"),
    ("gitlab_ci", "project_ids", {"project_ids": ["acme/api"]}, "not a path"),
    ("gitlab_ci", "refs", {"refs": "refs/heads/main"}, "without refs/heads/"),
    ("gitlab_ci", "protected_only", {"protected_only": "true"}, "true or false"),
    ("kubernetes", "namespaces", {"namespaces": "etl/ingest"}, "not a path"),
    ("kubernetes", "service_accounts", {"service_accounts": "ingest"}, '"namespace/name"'),
    ("kubernetes", "in_cluster", {"in_cluster": "no"}, "true or false"),
    ("cloudflare_access", "team", {"team": TAG, "aud_tags": "acme"}, "a team's name"),
    ("cloudflare_access", "team", {"team": "acme.example.com"}, "not a host name"),
    ("cloudflare_access", "aud_tags", {"aud_tags": "acme"}, "AUD tag is needed"),
    ("aws_alb", "region", {"region": "eu-central-1a"}, "a region of AWS"),
    ("aws_alb", "client_ids", {"client_ids": "https://idp.example"}, "not a URL"),
    ("google_iap", "audience", {"audience": API}, "begins with the number of a project"),
    ("google_iap", "audience", {"audience": "/projects/acme-prod/apps/acme-prod"}, "the number of a project"),
    ("google_oidc", "audience", {"audience": "a@b.iam.gserviceaccount.com", "emails": API}, "not an e-mail address"),
    ("google_oidc", "emails", {"emails": "acme-prod"}, "an e-mail address"),
    ("google_self_signed", "email", {"email": "ann@example.com"}, "the address of a service account"),
    ("google_tokeninfo", "client_ids", {"client_ids": "a@b.iam.gserviceaccount.com"}, "not an e-mail address"),
]  # fmt: skip
WITH_ISSUER = [name for name in PRESETS if "issuer" in inspect.signature(PRESETS[name]).parameters]
WRONG += [
    (name, "issuer", {"issuer": wrong}, said)
    for name in WITH_ISSUER
    for wrong, said in (
        (HOST, "not a host name"),
        ("acme", "a URL is needed"),
        (URL + "/.well-known/openid-configuration", "leave out /.well-known/"),
        (URL + "?x=1", "a URL is needed"),
        (URL + " ", "a URL is needed"),
        ("https://ann:hush@as.example.com", "a URL is needed"),
        ("ftp://as.example.com", "a URL is needed"),
    )
]


@pytest.mark.parametrize(("name", "argument", "given", "said"), WRONG, ids=[f"{w[0]} {w[1]} {w[2]}" for w in WRONG])
def test_a_wrong_argument_is_named_with_its_kind_and_the_fix(
    name: str, argument: str, given: dict[str, Any], said: str
):
    arguments = {**ARGUMENTS[name], **given}
    text = problem(name, arguments)
    assert text.startswith(f"{argument}: ")
    assert said in text
    assert "hush" not in text
    if all(isinstance(value, str | list | bool) for value in arguments.values()):
        with pytest.raises(ConfigurationError) as raised:
            from_file(name, arguments)
        assert f"[[issuers]] 1: {argument}: " in str(raised.value)


# -- arguments in the place of others

STRINGS = ("str", "str | Iterable[str]")
# Two arguments of one form, which no check can tell apart.
ALIKE = {
    ("entra", "tenant", "audience"),  # two GUIDs
    ("keycloak", "realm", "audience"),  # two names
    ("generic_rfc9068", "issuer", "audience"),  # two URLs, and so below
    ("authelia", "issuer", "audience"),
    ("gitlab_ci", "issuer", "audience"),
    ("mcp", "resource_url", "issuer"),
    ("node_oidc_provider", "issuer", "audience"),
    ("pingfederate", "issuer", "audience"),
}
SWAPS = [
    (name, *pair)
    for name, preset in PRESETS.items()
    for pair in combinations(
        [
            key
            for key, p in inspect.signature(preset).parameters.items()
            if p.annotation in STRINGS and p.default is inspect.Parameter.empty
        ],
        2,
    )
]


def test_indistinguishable_pairs_of_arguments_are_listed_correctly():
    assert set(SWAPS) >= ALIKE


@pytest.mark.parametrize(("name", "one", "other"), SWAPS)
def test_swapped_arguments_are_refused_if_they_are_distinguishable(name: str, one: str, other: str):
    right = ARGUMENTS[name]
    text = {key: value[0] if isinstance(value, list) else value for key, value in right.items()}
    swapped = {**right, one: text[other], other: text[one]}
    if (name, one, other) in ALIKE:
        PRESETS[name](**swapped)
    else:
        assert problem(name, swapped).partition(":")[0] in (one, other)


KINDS: list[object] = [7, 1.5, True, b"x", None, {"a": "b"}, [7], [None], ["a", 7], object()]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("wrong", KINDS, ids=lambda wrong: type(wrong).__name__)
def test_a_value_of_another_type_is_a_configuration_error_that_names_the_argument(name: str, wrong: object):
    for key, parameter in inspect.signature(PRESETS[name]).parameters.items():
        if (wrong is None and "None" in parameter.annotation) or (wrong is True and parameter.annotation == "bool"):
            continue
        with pytest.raises(ConfigurationError) as raised:
            PRESETS[name](**{**ARGUMENTS[name], key: wrong})
        assert key in str(raised.value)


# Values that are never intended, for each text argument. These accept any text that a server may be configured with:
FREE = {"audience", "environments", "resource_server", "clients", "jwks_file"}
FILES = ("jwks_file", "bearer_file", "ca_file")
FREE_HERE = {("dex", "client_ids"), ("hydra", "client_ids")}
NAMES = {("keycloak", "realm"), ("okta", "authorization_server")}  # an operator may choose dots and digits
NEVER = ["", "\x00", "x\n", "x\x00y", " x", "A" * 3000]
ODD = [
    "../../x", "..", ".", "x/../y", "x?x=1", "h.test?x=1", "x#f", "[::1]", "%2e%2e", "http://", "https://", "//x",
    "x//y", "é.example", "\\", "A" * 300, "https://[::1", "https://as.example/#f",
]  # fmt: skip
ADDRESSES = [
    "127.0.0.1",
    "127.0.0.1:8443",
    "10.0.0.1",
    "0.0.0.0",
    "1.2.3.4.",
    "as.example.com:0",
    "as.example.com:99999",
]
TEXTS = [
    (name, key)
    for name, preset in PRESETS.items()
    for key, parameter in inspect.signature(preset).parameters.items()
    if "str" in str(parameter.annotation) and key != "validate"
]


@pytest.mark.parametrize(("name", "key"), TEXTS)
def test_odd_values_are_refused_in_each_argument(name: str, key: str):
    free = key in (*FREE, *FILES) or (name, key) in FREE_HERE
    refused = [] if key in FILES else list(NEVER)
    if not free:
        refused += ODD if name != "github_actions" or key != "refs" else ["refs/heads/" + odd for odd in ODD[:5]]
        refused += [] if (name, key) in NAMES or key == "refs" else ADDRESSES
        if key in ("client_id", "client_ids"):  # a host name may be one
            refused = [odd for odd in refused if odd not in ADDRESSES[-3:]]
    if key == "refs":
        refused = [odd for odd in refused if odd not in ("%2e%2e", "refs/heads/x#f", "x#f")]
    for odd in refused:
        problem(name, {**ARGUMENTS[name], key: odd})


# -- what can only mean one thing

SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("auth0", {"domain": "https://tenant.us.auth0.com/"}, {"domain": "tenant.us.auth0.com"}),
    ("auth0", {"domain": "tenant.us.auth0.com/"}, {"domain": "tenant.us.auth0.com"}),
    ("auth0", {"domain": "Tenant.US.Auth0.com"}, {"domain": "tenant.us.auth0.com"}),
    ("okta", {"domain": "https://acme.okta.com"}, {"domain": "acme.okta.com"}),
    ("salesforce", {"my_domain": "https://Acme.my.salesforce.com"}, {"my_domain": "acme.my.salesforce.com"}),
    ("workos", {"authkit_domain": "https://acme.authkit.app/"}, {"authkit_domain": "acme.authkit.app"}),
    ("clerk", {"frontend_api": "https://clerk.example.com"}, {"frontend_api": "clerk.example.com"}),
    ("clerk_session", {"origins": "https://App.example.com/"}, {"origins": "https://app.example.com"}),
    ("cloudflare_access", {"team": "https://acme.cloudflareaccess.com/"}, {"team": "acme"}),
    ("cloudflare_access", {"team": "Acme", "aud_tags": TAG.upper()}, {"team": "acme", "aud_tags": TAG}),
    ("supabase", {"project_ref": "https://abc123.supabase.co"}, {"project_ref": "abc123"}),
    ("supabase", {"project_ref": "abc123.supabase.co"}, {"project_ref": "abc123"}),
    ("entra", {"tenant": TENANT.upper(), "audience": APP.upper()}, {"tenant": TENANT, "audience": APP}),
    (
        "entra",
        {"authority": "https://login.microsoftonline.us/", "version": "2.0"},
        {"authority": "https://login.microsoftonline.us", "version": "2.0"},
    ),
    (
        "pingone",
        {"environment_id": "5CAA81AF-EC05-41FF-A709-C7378007A99C", "region": "EU"},
        {"environment_id": "5caa81af-ec05-41ff-a709-c7378007a99c", "region": "eu"},
    ),
    ("keycloak", {"base_url": "https://sso.example.com/auth/"}, {"base_url": "https://sso.example.com/auth"}),
    ("zitadel", {"issuer": "https://acme.zitadel.cloud/"}, {"issuer": "https://acme.zitadel.cloud"}),
    (
        "authentik",
        {"issuer": "https://as.example/application/o/api"},
        {"issuer": "https://as.example/application/o/api/"},
    ),
    ("gitlab", {"issuer": "https://gitlab.example.com/"}, {"issuer": "https://gitlab.example.com"}),
    ("gitlab_ci", {"issuer": "https://gitlab.example.com/"}, {"issuer": "https://gitlab.example.com"}),
    (
        "kubernetes",
        {"service_accounts": "system:serviceaccount:etl:ingest"},
        {"service_accounts": "etl/ingest"},
    ),
]


@pytest.mark.parametrize(("name", "given", "meant"), SAME, ids=[f"{same[0]} {same[1]}" for same in SAME])
def test_unambiguous_variants_are_accepted(name: str, given: dict[str, Any], meant: dict[str, Any]):
    arguments, plain = {**ARGUMENTS[name], **given}, {**ARGUMENTS[name], **meant}
    assert PRESETS[name](**arguments) == PRESETS[name](**plain)
    assert from_file(name, arguments) == PRESETS[name](**plain)


def test_entra_takes_the_uri_of_an_application_in_capitals_as_it_is_and_in_lower_case():
    found = presets.entra(TENANT, f"api://{APP.upper()}").audiences
    assert found == frozenset({f"api://{APP.upper()}", f"api://{APP}"})
    assert presets.entra(TENANT, "https://acme.com/api").audiences == frozenset({"https://acme.com/api"})


def test_an_issuer_whose_slash_is_a_part_of_its_name_keeps_it():
    for name in ("hydra", "authelia", "duende", "node_oidc_provider", "generic_rfc9068", "dex", "spring_as"):
        for issuer in ("https://as.example.com", "https://as.example.com/", "https://as.example.com/tenants/a/"):
            assert PRESETS[name](**{**ARGUMENTS[name], "issuer": issuer}).url == issuer


def test_a_server_for_development_may_have_no_domain():
    assert presets.auth0("localhost:8443", API).url == "https://localhost:8443/"
    assert presets.keycloak("http://localhost:8080", "acme", "api").url == "http://localhost:8080/realms/acme"
