"""``scopeguard explain``: every check of a token, and a token that is never printed."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from scopeguard.cli.commands import cli
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.testing import FakeAuthority, ProofKey, bad_tokens

SETTINGS = """
resource = "https://api.test"

[[issuers]]
url = "{url}"

[[rules]]
path = "/rows/{{id}}"
methods = ["POST"]
any_of = ["write", "admin"]
"""
AUTHORITY = FakeAuthority()


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    exit_code: object
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def failed_checks(self) -> list[str]:
        return [check["name"] for check in self.json["checks"] if check["outcome"] in ("failed", "undecided")]


class Terminal(io.StringIO):
    """Standard input of a person."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the settings, as ``settings.toml``, and the keys of the authority, as ``keys.json``."""
    (tmp_path / "settings.toml").write_text(SETTINGS.format(url=AUTHORITY.url), "utf-8")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [AUTHORITY.key().public_jwk()]}), "utf-8")
    return tmp_path


@pytest.fixture
def explain(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """``explain(token, "--path", "/rows/7")`` runs the command offline, with the keys of the authority."""

    def run(
        stdin: str | io.StringIO, *options: str, config: Path | None = None, keys: bool = True, app: str | None = None
    ) -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        local = ["--offline", "--jwks", str(files / "keys.json")] if keys else []
        named = ["--config", str(config or files / "settings.toml"), *local]
        if app is not None:
            named = ["--app", app, *([] if config is None else ["--config", str(config)])]
        arguments = ["explain", *named, *options]
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments, prog_name="scopeguard")
        return Done(ended.value.code, *capsys.readouterr())

    return run


def test_accepted_token_exits_with_0_and_is_not_printed(explain: Callable[..., Done]):
    token = AUTHORITY.mint("read write")
    done = explain(token)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("Accepted\n")
    assert "passed" in done.stdout
    assert "failed" not in done.stdout
    assert token not in done.stdout
    assert token.split(".")[1] not in done.stdout


def test_refused_token_exits_with_1_and_shows_all_faults(explain: Callable[..., Done]):
    token = AUTHORITY.mint("read", expires_in=-3600, audience="https://other.test")
    done = explain(token, "--path", "/rows/7?x=1", "--method", "post")
    assert done.exit_code == 1
    assert done.stdout.startswith("Refused: wrong_audience   HTTP 401\n")
    for text in ("aud=https://other.test", "token_expired", "insufficient_scope", "POST /rows/7", "/rows/{id}"):
        assert text in done.stdout
    assert "§4.1.4" in done.stdout
    rows = explain(token, "--path", "/rows/7", "--method", "POST", "--json")
    assert rows.failed_checks() == ["audience", "expiry", "scopes"]
    assert rows.json["rule"] == "/rows/{id}"


@pytest.mark.parametrize(
    ("scope", "sentence"), [("write", "No fault was found."), ("read", "A fault was found, see below.")]
)
def test_undecided_token_says_whether_a_fault_was_found(explain: Callable[..., Done], scope: str, sentence: str):
    done = explain(AUTHORITY.mint(scope), "--path", "/rows/7", "--method", "POST", "--offline", keys=False)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (3, "Not decided")
    assert done.stdout.splitlines()[1] == f"{sentence} Checks that need the network were left out (--offline)."


def test_accepted_token_says_which_requirements_were_not_checked(explain: Callable[..., Done], files: Path):
    token = AUTHORITY.mint("write")
    assert "Not checked: what the route requires." in explain(token).stdout
    assert "Not checked:" not in explain(token, "--path", "/rows/7", "--method", "POST").stdout
    bare = files / "bare.toml"
    bare.write_text(SETTINGS.format(url=AUTHORITY.url).partition("[[rules]]")[0], "utf-8")
    assert "what decorators and dependencies of the app require" in explain(token, "--path", "/x", config=bare).stdout


APPS = """
import flask
from fastapi import FastAPI, Security
from scopeguard import PUBLIC, Guard, Issuer, Rule, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard, public, requires
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

guard = Guard(Issuer("{url}", audience="https://api.test", jwks_file="{folder}/keys.json"), audit="off")
extension = flask.Flask("extension")

@extension.get("/rows/<row>")
@requires("read")
def rows(row): return ""

@extension.get("/any")
def any_token(): return ""

@extension.get("/open")
@public
def open_view(): return ""

ScopeGuard(extension, guard)
dependencies = FastAPI()

@dependencies.get("/rows/{{row}}")
def read(row: str, token=Security(Protected(guard), scopes=["read"])): return ""

middleware = GuardMiddleware(
    dependencies, guard=guard, rules=[Rule("/rows/{{row}}", all_of("row")), Rule("/open", PUBLIC)]
)
inside = FastAPI()
inside.add_middleware(GZipMiddleware)
inside.add_middleware(GuardMiddleware, guard=guard)

@inside.get("/rows/{{row}}")
def read_inside(row: str, token=Security(Protected(guard), scopes=["read"])): return ""

bare = flask.Flask("bare")
mounted = Starlette(routes=[Mount("/v1", middleware)])
other = Guard(Issuer("https://other.test", audience="b"), audit="off")
two = GuardMiddleware(middleware, guard=other)

def make(): return middleware
"""


@pytest.fixture
def apps(files: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with apps."""
    (files / "explained_apps.py").write_text(APPS.format(url=AUTHORITY.url, folder=files), "utf-8")
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "explained_apps", raising=False)
    return "explained_apps"


@pytest.mark.parametrize(
    ("app", "path", "scopes", "requires"),
    [
        ("extension", "/rows/7", "read", "read"),
        ("extension", "/any", "", None),
        ("dependencies", "/rows/7", "read", "read"),
        ("dependencies", "/elsewhere", "", "nothing"),
        ("middleware", "/rows/7", "read row", "read and row"),
        ("inside", "/rows/7", "read", "read"),
        ("inside", "/elsewhere", "", None),
    ],
)
def test_app_has_its_guard_and_what_its_routes_require(
    explain: Callable[..., Done], apps: str, app: str, path: str, scopes: str, requires: str | None
):
    found = explain(AUTHORITY.mint(scopes), "--path", path, "--json", app=f"{apps}:{app}").json
    assert (found["verdict"], found["requires"] or None) == ("accepted", requires)
    if found["rule"] is not None:
        refused = explain(AUTHORITY.mint("other"), "--path", path, "--json", app=f"{apps}:{app}").json
        assert (refused["reason"], refused["rule"]) == ("insufficient_scope", "/rows/{row}")


def test_view_that_its_decorator_opens_is_public(explain: Callable[..., Done], apps: str):
    found = explain(AUTHORITY.mint(), "--path", "/open", "--json", app=f"{apps}:extension").json
    assert (found["rule"], found["requires"]) == ("/open", "public")


@pytest.mark.parametrize(
    ("app", "path", "is_open"),
    [("dependencies", "/elsewhere", True), ("dependencies", "/rows/7", False), ("inside", "/elsewhere", False)],
)
@pytest.mark.parametrize("expires_in", [60, -60])
def test_route_that_no_dependency_guards_is_named(
    explain: Callable[..., Done], apps: str, app: str, path: str, is_open: bool, expires_in: int
):
    done = explain(AUTHORITY.mint("read", expires_in=expires_in), "--path", path, app=f"{apps}:{app}")
    assert (f"it needs no token. See: scopeguard audit {apps}:{app}" in done.stdout) is is_open
    if path == "/elsewhere":
        assert "it needs no token" not in explain(AUTHORITY.mint(), app=f"{apps}:{app}").stdout


def test_route_of_an_app_that_no_rule_names_is_refused(explain: Callable[..., Done], apps: str):
    found = explain(AUTHORITY.mint("read row"), "--path", "/x", "--json", "--factory", app=f"{apps}:make").json
    assert (found["verdict"], found["reason"]) == ("refused", "no_rule")


def test_app_with_a_file_has_the_guard_of_the_file(explain: Callable[..., Done], apps: str, files: Path):
    config = files / "settings.toml"
    token = AUTHORITY.mint("read write")
    found = explain(token, "--path", "/rows/7", "--method", "POST", "--json", app=f"{apps}:bare", config=config)
    assert found.json["rule"] == "/rows/{id}"


@pytest.mark.parametrize(("app", "message"), [("bare", "no guard"), ("two", "several guards"), ("mounted", "at /v1")])
def test_app_without_one_guard_is_a_usage_error(explain: Callable[..., Done], apps: str, app: str, message: str):
    done = explain(AUTHORITY.mint(), app=f"{apps}:{app}")
    assert (done.exit_code, done.stderr.startswith("Error: --app: "), message in done.stderr) == (2, True, True)


def test_json_without_a_path_has_no_route(explain: Callable[..., Done]):
    document = explain(AUTHORITY.mint("read"), "--json").json
    assert (document["verdict"], document["method"], document["path"], document["rule"]) == (
        "accepted",
        None,
        None,
        None,
    )
    assert "rule" not in [check["name"] for check in document["checks"]]


@pytest.mark.parametrize("before", ["", "Bearer ", "Authorization: Bearer ", "  authorization:bearer ", "\n"])
def test_token_may_have_its_header_line_before_it(explain: Callable[..., Done], before: str):
    assert explain(f"{before}{AUTHORITY.mint('read')}\n").exit_code == 0


def test_token_may_be_an_argument_and_a_dash_reads_standard_input(explain: Callable[..., Done]):
    token = AUTHORITY.mint("read")
    assert explain("", token).exit_code == 0
    assert explain(Terminal(token), "-").exit_code == 0


def test_prompt_of_a_terminal_does_not_show_the_token(explain: Callable[..., Done], monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append({"text": text, **options})
        return AUTHORITY.mint("read")

    monkeypatch.setattr(click, "prompt", prompt)
    assert explain(Terminal()).exit_code == 0
    assert asked == [{"text": "Access token (not shown)", "hide_input": True, "err": True}]


@pytest.mark.parametrize(
    ("stdin", "options", "message"),
    [
        ("", (), "TOKEN: there is none"),
        ("Bearer", ("--method", "GET"), "--method: needs --path"),
        ("x", ("--proof", "y"), "--proof: needs --path"),
        ("x", ("--path", "rows"), "--path: must begin with a slash"),
        ("x", ("--path", "/", "--proof", "env:NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE is not set"),
        ("x", ("--config", "no/such.toml"), "no/such.toml"),
        ("x", ("--jwks", "no/such.json"), "--jwks"),
    ],
)
def test_usage_errors_exit_with_2(explain: Callable[..., Done], stdin: str, options: tuple[str, ...], message: str):
    done = explain(stdin, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_offline_without_keys_exits_with_3(explain: Callable[..., Done]):
    done = explain(AUTHORITY.mint("read"), "--offline", keys=False)
    assert done.exit_code == 3
    assert done.stdout.startswith("Not decided\n")
    assert "not checked" in done.stdout
    assert explain(AUTHORITY.mint("read", expires_in=-60), "--offline", keys=False).exit_code == 1


def test_unknown_issuer_is_shown_with_the_nearest(explain: Callable[..., Done]):
    done = explain(AUTHORITY.mint("read", claims={"iss": "https://as.test/"}))
    assert done.exit_code == 1
    assert "not trusted; compared with the nearest one, https://as.test" in done.stdout
    assert "only in the slash at the end" in done.stdout


def test_hostile_tokens_are_refused_and_not_printed(explain: Callable[..., Done]):
    for bad in list(bad_tokens(AUTHORITY).values())[::25]:
        done = explain(bad.token, "--path", "/rows/7", "--method", "POST")
        assert done.exit_code == 1, bad.why
        assert len(bad.token) < 40 or bad.token not in done.stdout
        assert re.fullmatch(r"[\n -~\u00a7]*", done.stdout), bad.why


def test_bound_token_needs_its_proof(explain: Callable[..., Done], files: Path):
    key, config = ProofKey(), files / "proofs.toml"
    config.write_text(SETTINGS.format(url=AUTHORITY.url) + '\n[dpop]\nmode = "allowed"\n', "utf-8")
    token = AUTHORITY.mint("write", claims=key.confirmation)
    bare = explain(token, "--path", "/rows/7", "--method", "POST", config=config)
    assert bare.exit_code == 1
    assert "pass it with --proof" in bare.stdout
    uri = f"{AUTHORITY.audience}/rows/7"
    (files / "proof").write_text(key.proof(token, "POST", uri, at=time.time()), "utf-8")
    given = ("--path", "/rows/7", "--method", "POST", "--proof", f"file:{files / 'proof'}")
    assert explain(token, *given, config=config).exit_code == 0
    assert explain(token, "--path", "/rows/8", *given[2:], config=config).exit_code == 1


def test_token_of_a_proxy_goes_into_its_field(explain: Callable[..., Done], files: Path):
    config = files / "proxy.toml"
    config.write_text(f"""
        [[issuers]]
        url = "{AUTHORITY.url}"
        audience = "{AUTHORITY.audience}"
        token_header = "x-proxy-token"
        """)
    done = explain(AUTHORITY.mint("read"), "--json", config=config)
    assert done.json["verdict"] == "accepted"
    assert done.json["checks"][0]["found"] == "the field x-proxy-token"


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    client = Client(client_id="robot", secret="the password of a test", scopes=["read"])
    with DevServer(Authority(audience="https://api.test", clients=[client], keys=KeyRing("ES256"))) as running:
        yield running


def test_keys_are_fetched_and_an_outage_exits_with_3(explain: Callable[..., Done], server: DevServer, files: Path):
    config = files / "live.toml"
    config.write_text(SETTINGS.format(url=server.url), "utf-8")
    authority = server.authority
    token = FakeAuthority(server.url).mint("read", key=authority.keys.signing_key())
    live = explain(token, "--json", config=config, keys=False)
    assert (live.exit_code, live.json["issuer"]) == (0, server.url)
    assert f"{server.url}/jwks" in live.stdout
    with authority.faults.outage("unavailable"):
        down = explain(token, config=config, keys=False)
    assert down.exit_code == 3
    assert "Not decided: authority_unreachable   HTTP 503" in down.stdout
