"""The pages of providers: the decoded token is a tested sample that is accepted, and each mistake has its reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from documentation import MANUAL, run
from providers import World, sample
from scopeguard import Denied, Granted

PAGES = sorted(page for page in MANUAL if page.startswith("docs/providers/"))


def world_of(page: str) -> World:
    """Return a world with the issuer of the guard on *page*. The keys come from its network, not from a cluster."""
    name = page.removeprefix("docs/providers/").removesuffix(".md").replace("-", "_")
    [issuer] = run(f"provider_{name}")["guard"].issuers
    return World(replace(issuer, jwks_ca_file=None, jwks_bearer_file=None))


def sample_of(page: str) -> tuple[str, Any]:
    """Return the name of the sample on *page*, and what the page shows of it."""
    [(name, block)] = re.findall(r"<!-- sample: ([\w-]+) -->\n```json\n(.*?)```", MANUAL[page], re.DOTALL)
    return name, json.loads(block)


@pytest.mark.parametrize("page", PAGES)
def test_decoded_token_is_the_sample_and_is_accepted(page: str):
    name, shown = sample_of(page)
    assert shown == {"header": sample(name)["header"], "payload": sample(name)["claims"]}
    decision = world_of(page).judged(name)
    assert isinstance(decision, Granted), decision


MISTAKES = [
    ("auth0", {"iss": "https://tenant.us.auth0.com"}, "unknown_issuer"),
    ("auth0", {"aud": "https://other.example.com"}, "wrong_audience"),
    ("entra", {"aud": "https://graph.microsoft.com"}, "wrong_audience"),
    ("entra", {"scp": None}, "missing_claim"),
    ("entra", {"iss": "https://login.microsoftonline.com/11111111-2b34-4da1-9baa-8bc8c9d6a490/v2.0"}, "unknown_issuer"),
    ("entra", {"aud": "75dbe77f-10a3-4e59-85fd-8c127544f17c", "scp": None}, "wrong_audience"),
    ("keycloak", {"aud": "account"}, "wrong_audience"),
    ("keycloak", {"iss": "http://localhost:8080/realms/acme"}, "unknown_issuer"),
    ("keycloak", {"azp": None}, "missing_claim"),
    ("okta", {"iss": "https://acme.okta.com"}, "unknown_issuer"),
    ("okta", {"aud": "api://default"}, "wrong_audience"),
    ("cognito", {"token_use": "id"}, "unexpected_claim"),
    ("cognito", {"client_id": "other"}, "wrong_audience"),
    ("cognito", {"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Other"}, "unknown_issuer"),
    ("github-actions", {"aud": "https://github.com/acme"}, "wrong_audience"),
    ("github-actions", {"repository_id": "75"}, "unexpected_claim"),
    ("github-actions", {"ref": "refs/heads/other"}, "unexpected_claim"),
    ("kubernetes", {"iss": "kubernetes/serviceaccount"}, "unknown_issuer"),
    ("kubernetes", {"aud": ["https://kubernetes.default.svc"]}, "wrong_audience"),
]


@pytest.mark.parametrize(("provider", "claims", "reason"), MISTAKES)
def test_mistake_has_the_reason_of_the_page(provider: str, claims: dict[str, Any], reason: str):
    page = f"docs/providers/{provider}.md"
    decision = world_of(page).judged(sample_of(page)[0], claims=claims)
    assert isinstance(decision, Denied)
    assert decision.error.reason == reason
    assert re.search(rf"^\| `{reason}`", MANUAL[page], re.MULTILINE)


def test_every_page_has_a_mistake_that_is_tried():
    assert {f"docs/providers/{provider}.md" for provider, *_ in MISTAKES} == set(PAGES)
