"""``scopeguard audit``: its formats, its exit statuses, and no findings in the examples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from environment import ROOT
from scopeguard import __version__
from scopeguard.cli.commands import cli
from scopeguard.devserver import Authority, Client, DevServer

CONTRACT = str(ROOT / "examples" / "contract" / "scopeguard.toml")
CONFIG = str(ROOT / "examples" / "scopeguard.toml")
APPS = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from scopeguard import Guard, Issuer, Introspection, OPTIONAL, Rule
from scopeguard.starlette import GuardMiddleware

async def rows(request): ...
guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com", validate="introspection",
    introspection=Introspection(client_id="api", client_secret="sg-secret-of-the-api", bearer_token=None)))
bare = Starlette(routes=[Route("/rows", rows), Route("/docs", rows)])
def make(): return Starlette(routes=[Route("/rows", rows)], middleware=[Middleware(GuardMiddleware, guard=guard)])
lax = GuardMiddleware(bare, guard=guard, rules=[Rule("/{rest:path}", OPTIONAL)])
number = 7
"""


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``audit(target, *options)`` in a folder with the module ``apps``."""
    (tmp_path / "apps.py").write_text(APPS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    monkeypatch.delitem(sys.modules, "apps", raising=False)
    return lambda *arguments: CliRunner().invoke(cli, ["audit", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [f"examples.{path.stem}:app"]
            for path in sorted((ROOT / "examples").glob("*_app.py"))
            if path.stem != "aiohttp_app"
        ),
        ["--factory", "examples.aiohttp_app:make_app"],
        ["examples.protected.app:app", "--config", CONFIG],
        ["examples.protected.app:app", "--config", CONTRACT],
    ],
    ids=lambda arguments: arguments[-1],
)
def test_examples_have_no_findings(audit: Callable[..., Result], arguments: list[str]):
    if arguments == ["examples.django_app:app"]:  # a process has one set of Django's settings
        command = [sys.executable, "-m", "scopeguard", "audit", *arguments, "--format", "json"]
        child = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        printed = child.stdout
    else:
        run = audit(*arguments, "--format", "json")
        assert run.exit_code == 0, run.output
        printed = run.stdout
    report = json.loads(printed)
    assert report["summary"]["errors"] == 0
    assert {"bigquery.insertdata", "bigquery.readonly"} <= set(report["scopes"])
    assert "/healthz" in {route["path"] for route in report["routes"] if route["access"] == "public"}


def test_demo_has_no_errors(audit: Callable[..., Result], tmp_path: Path):
    (tmp_path / "shown.py").write_text(
        "from scopeguard import Guard, Issuer\n"
        "from scopeguard.cli.demo.api import guarded_app\n"
        'app = guarded_app(Guard(Issuer("https://auth.example.com", audience="https://api.example.com")))\n'
    )
    assert audit("shown:app").exit_code == 0
    assert audit("shown:app", "--strict").exit_code == 1  # Its download link accepts tokens in the query.


def test_exit_status_1_means_errors(audit: Callable[..., Result]):
    assert audit("apps:bare").exit_code == 1
    assert audit("apps:bare", "--public", "/rows").exit_code == 1
    assert audit("apps:bare", "--public", "/rows", "--public", "/docs").exit_code == 0
    assert audit("apps:make", "--factory").exit_code == 0
    assert audit("apps:lax").exit_code == 0
    assert audit("apps:lax", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "write MODULE:APP"),
        (["nowhere:app"], "there is no module nowhere"),
        (["apps:number"], "must be an app, not int"),
        (["apps:bare", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["apps:bare", "--output", "no/such/folder"], "--output: cannot write no/such/folder: No such file"),
        (["apps:bare", "--public", "docs"], "'docs'"),
        (["apps:bare", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_exit_status_2_means_an_unreadable_app(audit: Callable[..., Result], arguments: list[str], message: str):
    run = audit(*arguments)
    assert run.exit_code == 2, run.output
    assert message in run.output


def test_a_configuration_is_audited_as_serve_would_use_it(audit: Callable[..., Result], tmp_path: Path):
    (tmp_path / "guard.toml").write_text(
        'resource = "https://api.example.com"\npublic = ["/docs"]\n'
        '[[issuers]]\nurl = "https://auth.example.com"\n'
        '[[rules]]\npath = "/row"\nany_of = ["read"]\n'
    )
    run = audit("apps:bare", "--config", "guard.toml", "--format", "json")
    report = json.loads(run.stdout)
    assert run.exit_code == 1
    assert [(finding["code"], finding["where"]) for finding in report["findings"]] == [
        ("rule-without-route", "* /row"),
        ("route-without-rule", "GET /rows"),
    ]


def test_the_shape_of_the_json_is_stable(audit: Callable[..., Result]):
    report = json.loads(audit("apps:lax", "--format", "json").stdout)
    assert report == {
        "version": 1,
        "target": "apps:lax",
        "summary": {"routes": 2, "errors": 0, "warnings": 2},
        "guards": [{"realm": "api", "issuers": ["https://auth.example.com"]}],
        "scopes": [],
        "findings": [
            {
                "severity": "warning",
                "code": "optional-token",
                "where": f"GET {path}",
                "message": "requests without a token are accepted as anonymous",
                "fix": "make sure that the code of the route expects them",
            }
            for path in ("/rows", "/docs")
        ],
        "routes": [
            {
                "method": "GET",
                "path": path,
                "access": "optional",
                "any_of": [],
                "token_sources": ["header"],
                "declared": ["rule /{rest:path}"],
                "by_default": False,
                "exceptions": [],
                "endpoint": "apps.rows",
                "opaque": False,
            }
            for path in ("/rows", "/docs")
        ],
    }


@pytest.mark.parametrize("name", ["table", "json", "markdown", "html"])
def test_every_format_can_be_written_to_a_file_and_holds_no_secret(
    audit: Callable[..., Result], name: str, tmp_path: Path
):
    run = audit("apps:make", "--factory", "--format", name, "--output", "report")
    assert run.stdout == ""
    assert run.stderr == "apps:make: 1 route, 0 errors, 0 warnings\n"
    text = (tmp_path / "report").read_text("utf-8")
    assert "/rows" in text
    assert "sg-secret" not in text
    assert text == audit("apps:make", "--factory", "--format", name).stdout


def test_page_names_the_configuration_file(audit: Callable[..., Result]):
    page = audit("examples.protected.app:app", "--config", CONFIG, "--format", "html").stdout
    assert f"scopeguard {__version__} · configuration: <code>{CONFIG}</code></p>" in page
    assert "configuration: that of the app</p>" in audit("apps:make", "--factory", "--format", "html").stdout


def test_scopes_are_read_from_the_metadata_of_the_issuer(audit: Callable[..., Result], tmp_path: Path):
    client = Client(client_id="loader", secret="a password", scopes=["read"])
    with DevServer(Authority(audience="https://api.example.com", clients=[client])) as server:
        (tmp_path / "guard.toml").write_text(
            f'resource = "https://api.example.com"\n[[issuers]]\nurl = "{server.url}"\n'
            '[[rules]]\npath = "/rows"\nall_of = ["raed"]\n[[rules]]\npath = "/docs"\nall_of = ["read"]\n'
        )
        arguments = ("apps:bare", "--config", "guard.toml", "--format", "json")
        assert audit(*arguments).exit_code == 0
        run = audit(*arguments, "--online")
        told: list[Any] = json.loads(run.stdout)["findings"]
        assert [(finding["code"], finding["where"]) for finding in told] == [("ungrantable-scope", "GET /rows")]
    run = audit(*arguments, "--online")
    assert run.exit_code == 2
    assert "--online: " in run.output
