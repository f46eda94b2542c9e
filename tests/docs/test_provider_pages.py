"""The pages of providers: the decoded token is a tested sample that is accepted, and each mistake has its reason."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Security
from starlette.testclient import TestClient

from documentation import MANUAL, NAMED, run
from providers import World, sample
from scopeguard import Denied, Granted
from scopeguard.fastapi import Protected
from scopeguard.testing import FakeAuthority

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
    decision = world_of(page).judge_sample(name)
    assert isinstance(decision, Granted), decision


def test_app_runs_with_the_development_server_and_is_tested_without_the_provider(tmp_path: Path):
    authorities = [
        FakeAuthority("http://127.0.0.1:9000", audience="http://127.0.0.1:8000"),
        FakeAuthority("https://tenant.us.auth0.com/", audience="https://api.example.com", algorithm="RS256"),
    ]
    for name, authority in zip(("development", "production"), authorities, strict=True):
        file = tmp_path / f"{name}.toml"
        file.write_text(NAMED[f"without_provider_{name}"].source, "utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SCOPEGUARD_FILE", str(file))
            guard = run("without_provider")["guard"]
        app = FastAPI()
        protected = Protected(guard)
        app.post("/rows/{table}", dependencies=[Security(protected, scopes=["rows.write"])])(lambda table: table)
        with authority.takes_over(guard):
            client = TestClient(app)
            given = [authority.bearer(scope) for scope in ("rows.write", "rows.read")]
            assert [client.post("/rows/a", headers=headers).status_code for headers in given] == [200, 403]
    run("without_provider_testing", app=app, guard=guard)["test_permission_of_a_user_is_a_scope"]()


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
    decision = world_of(page).judge_sample(sample_of(page)[0], claims=claims)
    assert isinstance(decision, Denied)
    assert decision.error.reason == reason
    assert re.search(rf"^\| `{reason}`", MANUAL[page], re.MULTILINE)


def test_every_page_has_a_mistake_that_is_tried():
    assert {f"docs/providers/{provider}.md" for provider, *_ in MISTAKES} == set(PAGES)
