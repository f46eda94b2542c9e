"""The public types as type checkers of users see them: code that works at run time is not an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from environment import ROOT, plain_environment

# Code of a user. Lines that end in "# wrong" are mistakes that a checker must find.
SOURCE = """
from __future__ import annotations

from dataclasses import replace
from typing import assert_type

from scopeguard import (
    ClientAuthentication,
    Guard,
    Introspection,
    Issuer,
    Preflight,
    ScopeClaim,
    ScopeForm,
    StrayQueryToken,
    TokenSource,
    TokenSources,
    Validation,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.client import ClientAuthentication as ClientsAuthentication
from scopeguard.client import ClientCredentials
from scopeguard.config.introspection import Dialect
from scopeguard.testing import FakeAuthority


def token() -> str:
    return "token"


async def fresh_token() -> str:
    return "token"


nobody = Introspection(auth="none", dialect="rfc7662")
secret = Introspection(client_id="api", client_secret="s", auth=ClientAuthentication.CLIENT_SECRET_POST)
secret = replace(secret, auth=ClientsAuthentication.CLIENT_SECRET_POST)
ClientCredentials("https://as.test/token", "api", "s", auth_method=ClientsAuthentication.CLIENT_SECRET_POST)
bearers = [Introspection(auth="bearer", bearer_token=source) for source in ("token", token, fresh_token)]
issuer = Issuer(
    "https://as.test",
    audience="x",
    validate="auto",
    introspection=nobody,
    scope_claims=(ScopeClaim("scope"), ScopeClaim("scp", "list"), ScopeClaim("scopes", form=ScopeForm.COMMA)),
)
asked = replace(issuer, validate="introspection")
local = Issuer("https://as.test", audience="x", validate=Validation.JWT)
strict = TokenSources(methods=["header"], stray_query_token="refuse")
lenient = TokenSources(methods={TokenSource.HEADER, TokenSource.QUERY}, stray_query_token=StrayQueryToken.IGNORE)
guard = Guard(issuer, token_sources=("header", "query"))
Guard(issuer, token_sources=lenient.with_methods(["form"]))
FakeAuthority().mint("read", token_format="opaque")


async def app(scope: object, receive: object, send: object) -> None: ...


GuardMiddleware(app, guard=guard, cors_preflight="pass")
GuardMiddleware(app, guard=guard, cors_preflight=Preflight.GUARD)

assert_type(issuer.validate, Validation)
assert_type(nobody.auth, ClientAuthentication)
assert_type(nobody.dialect, Dialect)
assert_type(ScopeClaim("scp", "list").form, ScopeForm)
assert_type(strict.methods, frozenset[TokenSource])
assert_type(strict.stray_query_token, StrayQueryToken)

Issuer("https://as.test", audience="x", validate=7)  # wrong
Introspection(auth=None)  # wrong
Introspection(auth="bearer", bearer_token=b"token")  # wrong
TokenSources(methods=7)  # wrong
ScopeClaim("scp", None)  # wrong
issuer.validate = "jwt"  # wrong
"""
WRONG = {number for number, line in enumerate(SOURCE.splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture
def users_code(tmp_path: Path) -> Path:
    file = tmp_path / "users_code.py"
    file.write_text(SOURCE, "utf-8")
    return file


def _output(*command: str, cwd: Path) -> str:
    environment = plain_environment() | {"PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


def test_mypy_finds_exactly_the_mistakes(users_code: Path, pytestconfig: pytest.Config):
    cache = pytestconfig.cache
    assert cache is not None
    options = ("--strict", "--config-file=", "--no-error-summary", "--output=json")
    output = _output(
        sys.executable, "-m", "mypy", *options, f"--cache-dir={cache.mkdir('mypy')}", str(users_code),
        cwd=users_code.parent,
    )  # fmt: skip
    found = [json.loads(line) for line in output.splitlines()]
    ours = [error for error in found if Path(error["file"]).name == users_code.name and error["severity"] == "error"]
    assert {error["line"] for error in ours} == WRONG, ours


def test_pyright_finds_exactly_the_mistakes(users_code: Path):
    (users_code.parent / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}), "utf-8"
    )
    output = _output(
        sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, cwd=users_code.parent
    )
    found = json.loads(output)["generalDiagnostics"]
    errors = [error for error in found if error["severity"] == "error"]
    assert {error["range"]["start"]["line"] + 1 for error in errors} == WRONG, errors
