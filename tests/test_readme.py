"""What the README shows is true: its Python runs, its TOML is read, its commands exist, its defaults are ours."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import scopeguard
from environment import ROOT, plain_environment
from loopback import Certificates
from scopeguard import (
    Guard,
    Introspection,
    Issuer,
    IssuerResolver,
    KeySetPolicy,
    RefusalLog,
    RevocationPolicy,
    StatusListPolicy,
    TokenCachePolicy,
    TokenSources,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.cli.commands import cli
from scopeguard.config.file import settings_from
from scopeguard.config.file.tables import TABLES
from scopeguard.devserver import Client
from scopeguard.edge.http import HttpxTransport
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority

README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
PROVIDERS = (ROOT / "docs" / "providers.md").read_text("utf-8")
ISSUER, API = "https://auth.example.com", "https://api.example.com"


@dataclass(frozen=True)
class Block:
    """A block of code, the name above it, and the line it begins at."""

    name: str
    language: str
    source: str
    line: int


BLOCKS = {
    block.name: block
    for found in re.finditer(r"(?:<!-- test: (\w+) -->\n)?```(\w+)\n(.*?)```\n", README, re.DOTALL)
    for line in [README.count("\n", 0, found.start(3)) + 1]
    for block in [Block(found[1] or f"line {line}", found[2], found[3], line)]
}


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """The authorization server of the README, reachable for guards and clients made with their defaults."""
    authority = FakeAuthority(ISSUER, audience=API, scopes=["bigquery.insertdata"])
    for module in ("scopeguard.guard", "scopeguard.client.fetching"):
        monkeypatch.setattr(f"{module}.HttpxTransport", lambda: authority.transport)
    return authority


def run(name: str, **given: Any) -> dict[str, Any]:
    """The names that block *name* defines, run as it stands with *given* defined before."""
    block = BLOCKS[name]
    namespace: dict[str, Any] = {"__name__": f"readme_{name}", **given}
    exec(compile("\n" * (block.line - 1) + block.source, "README.md", "exec"), namespace)
    return namespace


def asgi_app() -> Starlette:
    async def answer(_: Any) -> PlainTextResponse:
        token = scopeguard.current_access_token_or_none()
        return PlainTextResponse("nobody" if token is None else str(token.client_id))

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


def wsgi_app(_: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_every_block_is_named_and_every_name_is_tested():
    untested = (
        {name for name, block in BLOCKS.items() if block.language in ("python", "toml")}
        - set(CHECKS)
        - {
            "file",
            "network",
            "shared",
            "testing",
            "takeover",
        }
    )
    assert not untested
    assert len(BLOCKS) == len(CHECKS) + 5


def _check_asgi(authority: FakeAuthority) -> None:
    client = TestClient(run("asgi", app=asgi_app())["app"])
    assert client.get("/healthz").text == "nobody"
    assert client.get("/rows").headers["www-authenticate"] == 'Bearer realm="api"'
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"


def _check_wsgi(authority: FakeAuthority) -> None:
    app = run("wsgi", application=wsgi_app)["application"]
    with httpx.Client(transport=httpx.WSGITransport(app=app), base_url=API) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/rows").status_code == 401
        assert client.get("/rows", headers=authority.bearer("read")).status_code == 200


def _check_starlette(authority: FakeAuthority) -> None:
    client = TestClient(run("starlette")["app"])
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery.insertdata")).json() == {"client": "client"}


def _check_fastapi(authority: FakeAuthority) -> None:
    client = TestClient(run("fastapi")["app"])
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery.insertdata")).json() == {"client": "client"}
    assert client.get("/rows", headers=authority.bearer("bigquery", subject="ann")).json() == {"subject": "ann"}
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["OAuth2"]["flows"]["clientCredentials"]["tokenUrl"] == f"{ISSUER}/token"


def _check_flask(authority: FakeAuthority) -> None:
    client = run("flask")["app"].test_client()
    assert client.get("/healthz").status_code == 404  # public, and there is no such route
    assert client.post("/insert").status_code == 401
    assert client.post("/insert", headers=authority.bearer("read")).status_code == 403
    assert client.post("/insert", headers=authority.bearer("bigquery")).json == {"client": "client"}


def _check_rules(authority: FakeAuthority) -> None:
    client = TestClient(run("rules", app=asgi_app())["app"])
    reader = authority.bearer("bigquery.readonly")
    assert client.get("/tables/x/rows", headers=reader).status_code == 200
    assert client.post("/tables/x/rows", headers=reader).status_code == 403
    token = authority.mint("bigquery.readonly")
    assert client.get("/tables/x/export", params={"access_token": token}).status_code == 200
    assert client.get("/tables/x/rows", params={"access_token": token}).status_code == 401
    assert client.get("/me", headers=authority.bearer()).text == "client"
    assert client.get("/news/today").text == "nobody"
    assert client.get("/news/today", headers=authority.bearer(expires_in=-60)).status_code == 401
    assert client.get("/elsewhere", headers=reader).status_code == 403
    assert client.get("/healthz").status_code == 200


def _check_client(authority: FakeAuthority) -> None:
    """The API of the block is answered here, the token request by the authority."""
    seen: list[str] = []

    def send(_: object, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{API}/insert"
        seen.append(request.headers["authorization"])
        return httpx.Response(200, request=request)

    loader = Client(client_id="loader", secret="a password", scopes=["bigquery.insertdata"])
    authority.authority.registry.add_client(loader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.HTTPTransport, "handle_request", send)
        patch.setenv("CLIENT_SECRET", "a password")
        run("client")
    assert len(seen) == 1
    assert authority.authority.tokens.find(seen[0].removeprefix("Bearer ")) is not None


def _check_introspection(authority: FakeAuthority) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_SECRET", authority.api.secret)
        guard = run("introspection")["guard"]
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    opaque = {"authorization": f"Bearer {authority.mint('read', token_format='opaque')}"}
    assert client.get("/rows", headers=opaque).text == "client"
    assert client.get("/rows", headers=opaque).text == "client"
    assert authority.transport.count("introspection") == 1
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"
    assert authority.transport.count("introspection") == 1
    guard.close()


def _check_revocation(authority: FakeAuthority) -> None:
    guard = Guard(authority.issuer, clock=authority.clock)
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    token = authority.mint("read")
    revoked = [{"authorization": f"Bearer {token}"}, authority.bearer("read", subject="ann")]
    others = [authority.bearer("read"), authority.bearer("read", client_id="loader")]
    for headers in (*revoked, *others):
        assert client.get("/rows", headers=headers).status_code == 200
    run("revocation", guard=guard, token=token)
    assert [client.get("/rows", headers=headers).status_code for headers in revoked] == [401, 401]
    assert client.get("/rows", headers=others[0]).status_code == 200
    guard.close()


def _check_contract(authority: FakeAuthority) -> None:
    scopes = {"read": "Read rows"}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "rows", "version": "1"},
        "components": {
            "securitySchemes": {
                "oauth": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": scopes}}}
            }
        },
        "paths": {"/rows": {"get": {"security": [{"oauth": ["read"]}], "responses": {}}, "post": {"responses": {}}}},
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("openapi.json").write_text(json.dumps(document), "utf-8")
        guard = run("contract")["guard"]
    client = TestClient(GuardMiddleware(asgi_app(), guard=guard))
    assert client.get("/rows").status_code == 401
    assert client.get("/rows", headers=authority.bearer("read")).text == "client"
    for refused in (
        client.get("/rows", headers=authority.bearer("other")),
        client.post("/rows", headers=authority.bearer("read")),  # "deny"
        client.get("/else", headers=authority.bearer("read")),
    ):
        assert refused.status_code == 403


CHECKS: Mapping[str, Callable[[FakeAuthority], None]] = {
    "asgi": _check_asgi,
    "wsgi": _check_wsgi,
    "starlette": _check_starlette,
    "fastapi": _check_fastapi,
    "flask": _check_flask,
    "rules": _check_rules,
    "contract": _check_contract,
    "client": _check_client,
    "introspection": _check_introspection,
    "revocation": _check_revocation,
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_block_runs_and_does_what_the_text_says(name: str, authority: FakeAuthority):
    CHECKS[name](authority)


def test_the_tests_of_the_readme_pass(tmp_path: Path):
    app = """
async def my_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""
    (tmp_path / "test_it.py").write_text(app + BLOCKS["testing"].source, "utf-8")
    (tmp_path / "myapp.py").write_text(BLOCKS["fastapi"].source, "utf-8")
    (tmp_path / "test_takeover.py").write_text(BLOCKS["takeover"].source, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("4 passed")


def test_the_configuration_file_is_read():
    issuers, arguments = settings_from(tomllib.loads(BLOCKS["file"].source), ROOT)
    guard = Guard(*issuers, **arguments)
    assert guard.resource == API
    assert guard.rules is not None
    assert guard.rules.deny_unmatched


def test_what_a_network_needs_is_read_from_the_file(tmp_path: Path):
    Certificates(tmp_path).bundle.rename(tmp_path / "corporate-ca.pem")
    inside = {"url": "http://keycloak:8080", "audience": API}
    document = {"issuers": [inside], **tomllib.loads(BLOCKS["network"].source)}
    (issuer,), arguments = settings_from(
        document, tmp_path, environment={"OUTBOUND_PROXY": "http://proxy.example.com:3128"}
    )
    assert issuer.insecure_http_dangerously == {"keycloak:8080"}
    assert isinstance(arguments["transport"], HttpxTransport)


def test_what_several_processes_share_is_read_from_the_file():
    document = {"issuers": [{"url": ISSUER, "audience": API}], **tomllib.loads(BLOCKS["shared"].source)}
    environment = {"REDIS_URL": "redis://127.0.0.1", "STORE_SECRET": "sg-secret-of-the-store"}
    _, arguments = settings_from(document, ROOT, environment=environment)
    assert isinstance(arguments["store"], RedisStore)
    assert arguments["revocation"] == RevocationPolicy()


COMMANDS = re.findall(r"^    scopeguard (\w.*)$", README, re.MULTILINE)


def test_every_command_is_shown():
    assert {line.split()[0] for line in COMMANDS} == set(cli.commands)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_understood(line: str):
    name, *arguments = shlex.split(line)
    cli.commands[name].make_context(name, arguments).close()


def test_what_is_to_be_typed_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^    make ([a-z-]+)|`make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for extra in re.findall(r'"\.\[(\w+)\]"', README):
        assert extra in extras


# -- the tables of settings


def _rows() -> dict[tuple[str, str], str]:
    """Every row of the tables of settings: whose it is, its name, and the default as it is written."""
    text = SETTINGS
    found: dict[tuple[str, str], str] = {}
    home = ""
    for heading, names, default in re.findall(r"^`(\w+)\(|^\| (`[^|]*`) \| ([^|]+) \| ", text, re.MULTILINE):
        home = heading or home
        found |= {(home, name): default for name in re.findall(r"`(\w+)`", names)}
    return found


ROWS = _rows()
CLASSES = (
    Issuer,
    TokenSources,
    KeySetPolicy,
    Introspection,
    StatusListPolicy,
    IssuerResolver,
    RevocationPolicy,
    RefusalLog,
    TokenCachePolicy,
)
CALLABLES = (Guard, RedisStore)
TAKEN = {"issuers", "url"}  # stand in the heading of their table


def _written(home: str, name: str) -> Any:
    default = ROWS[home, name]
    return MISSING if default == "required" else eval(default.strip("`"), vars(scopeguard).copy())


@pytest.mark.parametrize(
    ("home", "name"),
    [
        pytest.param(home, name, id=f"{home.__name__} {name}")
        for home in CALLABLES
        for name in inspect.signature(home).parameters
        if name not in TAKEN
    ],
)
def test_the_arguments_are_there_with_their_defaults(home: Any, name: str):
    assert _written(home.__name__, name) == inspect.signature(home).parameters[name].default


@pytest.mark.parametrize(
    ("home", "name"),
    [
        pytest.param(home, setting.name, id=f"{home.__name__}.{setting.name}")
        for home in CLASSES
        for setting in fields(home)
        if setting.name not in TAKEN and setting.init
    ],
)
def test_the_settings_are_there_with_their_defaults(home: Any, name: str):
    (setting,) = [setting for setting in fields(home) if setting.name == name]
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    assert _written(home.__name__, name) == default


# Of these tables of the file there is no class in Python, so that the page has them in a chapter of its own.
OF_THE_FILE = ("[[rules]]", "[contract]", "[scopes]", "[challenge]", "[transport]")


def _first_cells(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("table", OF_THE_FILE)
def test_every_table_of_the_file_is_there_with_all_its_keys(table: str):
    (rows,) = re.findall(rf"^`{re.escape(table)}`: .*\n\n((?:\|.*\n)+)", SETTINGS, re.MULTILINE)
    assert _first_cells(rows) == set(TABLES[table])


@pytest.mark.parametrize(
    ("table", "key"), [pytest.param(table, key, id=f"{table} {key}") for table, keys in TABLES.items() for key in keys]
)
def test_every_key_that_the_file_may_have_stands_on_the_page(table: str, key: str):
    elsewhere = {"url": "`Issuer(url, ...)`", "any_audience_dangerously": "`any_audience_dangerously = true`"}
    elsewhere["redis"] = "with the URL as `redis`"
    assert key in _first_cells(SETTINGS) or elsewhere[key] in SETTINGS


def test_no_table_has_a_setting_that_is_gone():
    known = {(home.__name__, setting.name) for home in CLASSES for setting in fields(home) if setting.init}
    known |= {(home.__name__, name) for home in CALLABLES for name in inspect.signature(home).parameters}
    assert set(ROWS) <= known


DOCS = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))}


@pytest.mark.parametrize("page", DOCS)
def test_a_page_names_no_machine_and_its_commands_and_links_are_right(page: str):
    text = DOCS[page]
    assert not re.search(r"/work/|/home/|pypi\.org|pythonhosted", text)
    for line in re.findall(r"^    scopeguard (.*)$", text, re.MULTILINE):
        name, *arguments = shlex.split(line)
        cli.commands[name].make_context(name, arguments).close()
    (path,) = [path for path in (ROOT / "docs").rglob("*.md") if path.name == page and path.read_text("utf-8") == text]
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / link).exists(), link


def test_the_page_on_servers_names_those_that_the_suite_runs_on_and_those_with_a_catch():
    text = DOCS["servers.md"]
    commands = re.findall(
        r'^    Kind\(\s*"(\w+)', (ROOT / "tests/servers/test_servers.py").read_text("utf-8"), re.MULTILINE
    )
    assert commands
    for server in (*commands, "gunicorn", "cheroot", "daphne", "uWSGI", "mod_wsgi", "nginx"):
        assert server in text
    assert "WSGIPassAuthorization On" in text


def test_the_readme_names_no_machine_and_stays_readable():
    assert len(README.splitlines()) <= 620
    assert not re.search(r"/work|/tmp|/home|pypi\.|pythonhosted", README + SETTINGS + PROVIDERS)
