"""Presets in the configuration file: their arguments, and errors about invalid ones."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from scopeguard import ConfigurationError, Introspection, Issuer, presets
from scopeguard.config.file import settings_from
from scopeguard.config.file.presets import arguments_of
from scopeguard.presets import PRESETS

TENANT, APP = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "2f6b7c1e-6f53-4a3c-9d2a-1b1d0f5e9a77"


def issuer(text: str, *, top: str = "") -> Issuer:
    document = tomllib.loads(f"{top}\n[[issuers]]\n{text}")
    (found,), _ = settings_from(document, Path("."), environment={"TENANT": TENANT, "SECRET": "s"})
    return found


def problem(text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        issuer(text)
    return str(raised.value)


def test_a_preset_is_named_with_its_arguments_beside_it():
    assert issuer(f'preset = "entra"\ntenant = "env:TENANT"\naudience = "{APP}"\napp_roles = true') == presets.entra(
        TENANT, APP, app_roles=True
    )
    assert issuer(
        'preset = "cognito"\nregion = "eu-west-1"\npool_id = "eu-west-1_p"\nclient_ids = ["a", "b"]'
    ) == presets.cognito("eu-west-1", "eu-west-1_p", ["a", "b"])
    assert issuer('preset = "kubernetes"\naudience = "a"\njwks_file = "keys.json"') == presets.kubernetes(
        "a", jwks_file="keys.json"
    )


def test_preset_accepts_introspection_like_any_issuer():
    text = 'preset = "hydra"\nissuer = "https://as.example"\naudience = "a"\nintrospection = {}'
    found = issuer(text.format('{ client_id = "api", client_secret = "env:SECRET" }'))
    asking = Introspection(client_id="api", client_secret="s")
    assert found == presets.hydra("https://as.example", "a", introspection=asking)


def test_resource_is_the_default_audience_of_a_preset():
    top = 'resource = "https://api.example.com"'
    assert issuer('preset = "auth0"\ndomain = "t.auth0.com"', top=top).audiences == frozenset(
        {"https://api.example.com"}
    )
    assert issuer('preset = "okta"\ndomain = "acme.okta.com"', top=top).audiences == frozenset({"api://default"})
    hydra = 'preset = "hydra"\nissuer = "https://hydra.example.com"'
    assert issuer(hydra, top=top).audiences == frozenset({"https://api.example.com"})
    assert issuer(f'{hydra}\nclient_ids = "c"', top=top).audiences == frozenset({"c"})
    assert issuer('preset = "salesforce"\nmy_domain = "acme.my.salesforce.com"', top=top).audiences == frozenset(
        {"https://api.example.com"}
    )
    assert issuer('preset = "auth0"\ndomain = "t.auth0.com"\naudience = "a"', top=top).audiences == frozenset({"a"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("preset = 7", "preset: must be a string, as in"),
        ('preset = "entrra"', "preset: 'entrra' is not a preset; did you mean entra?"),
        ('preset = "zzzzzz"', "preset: 'zzzzzz' is not a preset; use one of apple, auth0"),
        ('preset = "mycompany"', "preset: 'mycompany' is not a preset; use one of apple, auth0"),
        ('preset = "auth0"', "domain: is missing; the preset auth0 needs it"),
        ('preset = "auth0"\ndomain = "d.example"', "audience: is missing; the preset auth0 needs it"),
        ('preset = "auth0"\ndomian = "d"', "domian: unknown key; did you mean domain?"),
        ('preset = "auth0"\ndomain = 7', "domain: must be a string"),
        (
            'preset = "auth0"\nleeway = 7',
            "leeway: is not an argument of the preset auth0, which takes domain, audience",
        ),
        ('preset = "auth0"\nrealm = "x"', "realm: belongs in the top level"),
        (
            'preset = "auth0"\ndomain = "https://d"\naudience = "a"',
            "[[issuers]] 1: domain: a host name with its domain",
        ),
    ],
)
def test_invalid_argument_is_named(text: str, says: str):
    found = problem(text)
    assert says in found
    assert "[[issuers]] 1: " in found


@pytest.mark.parametrize("name", PRESETS)
def test_each_argument_of_each_preset_can_be_set_in_the_file(name: str):
    assert arguments_of(PRESETS[name])


def test_an_issuer_of_a_preset_is_compared_like_any_other():
    plain = presets.mcp("https://mcp.example.com/mcp", "https://as.example")
    assert plain == replace(plain)
