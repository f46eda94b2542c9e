"""Other uses of a catalog: FastAPI's document, and the registration of clients at the development authority."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi import FastAPI, Security

from scopeguard import ConfigurationError, Guard, ScopeCatalog
from scopeguard.cli.devserver import catalog_from
from scopeguard.devserver import Authority, Client, ServiceAccount
from scopeguard.fastapi import Protected
from scopeguard.testing import FakeAuthority

CATALOG = ScopeCatalog(descriptions={"read": "Look", "write": "Change"}, prefix="https://scopes.test/")


def client(*scopes: str) -> Client:
    return Client(client_id="loader", secret="sg-secret-1", scopes=scopes)


def test_the_authority_refuses_clients_with_scopes_that_are_not_in_the_catalog():
    Authority(audience="https://api.test", clients=[client("read", "https://scopes.test/write")], catalog=CATALOG)
    with pytest.raises(ConfigurationError, match=r"scopes: .raed. is not in the catalog; did you mean"):
        Authority(audience="https://api.test", clients=[client("read", "raed")], catalog=CATALOG)
    with pytest.raises(ConfigurationError, match=r"'admin' is not in the catalog; add it to the catalog"):
        Authority(audience="https://api.test", clients=[client("admin")], catalog=CATALOG)
    Authority(audience="https://api.test", clients=[client("admin")])


def test_authority_refuses_service_accounts_with_scopes_that_are_not_in_the_catalog():
    key = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42 + "E"}
    account = ServiceAccount(email="robot@test", public_key=key, scopes=["admin"])
    with pytest.raises(ConfigurationError, match=r"account .robot@test., scopes: .admin. is not in"):
        Authority(audience="https://api.test", service_accounts=[account], catalog=CATALOG)


def test_the_command_reads_a_catalog_from_three_kinds_of_files(tmp_path: Path):
    openapi = {"openapi": "3.1.0", "components": {"securitySchemes": {"o": {"flows": {"x": {"scopes": {"read": ""}}}}}}}
    files = {
        "scopes.toml": '[descriptions]\nread = ""',
        "openapi.json": json.dumps(openapi),
        "discovery.json": json.dumps({"auth": {"oauth2": {"scopes": {"read": {"description": ""}}}}}),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
        assert catalog_from(str(tmp_path / name)).names == ("read",)


def test_fastapi_describes_the_scopes_of_the_guards_catalog():
    guard = Guard(FakeAuthority().issuer, catalog=CATALOG)
    for given, expected in ((None, {"read": "Look", "write": "Change"}), ({"read": "Own"}, {"read": "Own"})):
        app = FastAPI()
        protected = Protected(guard, token_url="https://as.test/token", scopes=given)
        app.get("/", dependencies=[Security(protected)])(lambda: None)
        flows = app.openapi()["components"]["securitySchemes"]["OAuth2"]["flows"]
        assert flows["clientCredentials"]["scopes"] == expected
