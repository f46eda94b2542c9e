"""The command line: its error messages and the help texts of all commands."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from environment import ROOT, plain_environment
from scopeguard import __version__
from scopeguard.cli.commands import cli
from scopeguard.config.file import settings_from
from scopeguard.devserver import Authority
from scopeguard.devserver.lifetimes import TOKEN_LIFETIME

CONFIG = str(ROOT / "examples" / "scopeguard.toml")


def test_each_command_and_option_has_a_help_text():
    names = {"api-key", "audit", "authorize", "demo", "devserver", "doctor", "explain", "pack-keys", "serve", "token"}
    assert set(cli.commands) == names
    for command in cli.commands.values():
        assert command.help
        for option in command.params:
            assert isinstance(option, click.Argument) or getattr(option, "help", None)


def test_version_option_prints_the_version():
    assert CliRunner().invoke(cli, ["--version"]).output == f"scopeguard, version {__version__}\n"


def _without(*packages: str) -> subprocess.CompletedProcess[str]:
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["scopeguard", "demo"]
from scopeguard.cli import main
main()
"""
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=plain_environment(), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", ["click", "rich", "uvicorn"])
def test_plain_installation_names_the_missing_extra_on_one_line(package: str):
    run = _without(package)
    assert run.returncode == 2
    assert run.stderr == (
        'scopeguard: the command line needs more packages: pip install "scopeguard-oauth2[cli]", or in a checkout '
        'pip install ".[cli]"\n'
    )
    assert run.stdout == ""


def test_other_missing_module_is_not_reported_as_a_missing_extra():
    run = _without("starlette")
    assert run.returncode == 1
    assert "No module named 'starlette" in run.stderr


def test_python_m_scopeguard_runs_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "scopeguard", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0
    assert run.stdout.startswith("Usage: scopeguard [OPTIONS] COMMAND")


APPS = """
from examples.protected.app import app as asgi
def wsgi(environ, start_response): ...
def make(): return asgi
def anything(*arguments): ...
number = 7
class Holder: app = asgi
"""
SERVE = [
    ("nothing", [], "'nothing': write MODULE:APP, as in example.main:app"),
    ("nowhere:app", [], "nowhere:app: there is no module nowhere in the current directory or installed"),
    ("apps.sub:app", [], "apps.sub:app: there is no module apps.sub in the current"),
    ("apps:asgl", [], "apps:asgl: apps has no attribute asgl; did you mean asgi?"),
    ("apps:nope", [], "apps:nope: apps has no attribute nope"),
    ("apps:Holder.nope", [], "apps:Holder.nope: apps has no attribute Holder.nope"),
    ("apps:number", [], "apps:number: must be an app, not int, which is not callable"),
    ("apps:wsgi", [], "apps:wsgi: an ASGI app takes 3 arguments, this takes 2; for WSGI add --wsgi"),
    ("apps:asgi", ["--wsgi"], "apps:asgi: a WSGI app takes 2 arguments, this takes 3; leave out --wsgi"),
    ("apps:make", [], "apps:make: an ASGI app takes 3 arguments, this takes 0; is it a function that makes the app?"),
    ("apps:asgi", ["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 8000: "),
    ("apps:asgi", ["--config", "nowhere.toml"], "nowhere.toml: cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("target", "options", "message"), SERVE, ids=[f"{t} {' '.join(o)}" for t, o, _ in SERVE])
def test_serve_refuses_invalid_options_on_one_line(
    target: str, options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "apps.py").write_text(APPS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    monkeypatch.delitem(sys.modules, "apps", raising=False)
    run = CliRunner().invoke(cli, ["serve", target, "--config", CONFIG, *options])
    assert run.exit_code == 2, run.output
    assert run.output.startswith(f"Error: {message}")
    assert run.output.count("\n") == 1


def test_exception_during_the_import_of_an_app_is_shown_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken.py").write_text("import no_such_library", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run = CliRunner().invoke(cli, ["serve", "broken:app", "--config", CONFIG])
    assert isinstance(run.exception, ModuleNotFoundError)
    assert run.exception.name == "no_such_library"


DEVSERVER = [
    (["--client", "a:b"], "--client: write three parts, ID:SECRET:SCOPES"),
    (["--client", "a::read"], "--client: 'a' has no secret and no --redirect-uri"),
    (["--client", "a::read", "--redirect-uri", "a"], "--redirect-uri: write ID=URI, as in swagger=http://127.0.0.1"),
    (["--client", "a::read", "--redirect-uri", "=b"], "--redirect-uri: write ID=URI, as in swagger=http://127.0.0.1"),
    (["--client", "a:b:", "--redirect-uri", "c=http://d/"], "--redirect-uri: 'c' is not a client; the clients are a"),
    (["--client", "a:b:", "--redirect-uri", "a=/d"], "client 'a', redirect_uris: the value is not an https URL"),
    (["--api", "a"], "--api: write two parts, ID:SECRET, as in 'api:another secret'"),
    (["--api", ":b"], "--api: write two parts, ID:SECRET, as in 'api:another secret'"),
    (["--opaque"], "--opaque: an API needs a client to check the tokens by introspection; name it: --api ID:SECRET"),
    (["--user", "demo"], "client 'demo': a user has this subject; choose another client_id"),
    (["--client", "a:b:\x7f"], "client 'a', scopes: '\\x7f' is not a scope"),
    (["--host", "192.0.2.1"], "host: '192.0.2.1' is not a loopback address"),
    (
        ["--host", "0.0.0.0", "--issuer", "http://authority:9000"],
        "or, if that is what you want, allow_remote=True (--allow-remote)",
    ),
    (
        ["--host", "0.0.0.0", "--allow-remote"],
        "issuer: other machines cannot reach this server as '0.0.0.0'; set the URL",
    ),
    (
        ["--host", "0.0.0.0", "--allow-remote", "--issuer", "authority:9000"],
        "issuer: the value is not an https URL",
    ),
    (["--service-account", "a:b"], "--service-account: write three parts, FILE:EMAIL:SCOPES"),
    (["--service-account", ":b:c"], "--service-account: write three parts, FILE:EMAIL:SCOPES"),
    (["--service-account", f"{__file__}:a@b:read"], "service account file: not a key file of 'a@b' for this server"),
    (["--service-account", "/no/such/folder/a:a@b:read"], "service account file: cannot be created"),
    (["--host", "127.0.0.1", "--port", "1"], "cannot listen on 127.0.0.1 port 1: "),
]


@pytest.mark.parametrize(("options", "message"), DEVSERVER, ids=[" ".join(o) for o, _ in DEVSERVER])
def test_devserver_refuses_invalid_options(
    options: list[str], message: str, no_leaks: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("socket.create_server", _refuse_privileged)
    run = CliRunner().invoke(cli, ["devserver", *options])
    assert run.exit_code == 2, run.output
    assert message in run.output.splitlines()[-1]
    assert "DEVELOPMENT" not in run.output  # No message that suggests it runs.
    no_leaks(run.output)


def test_devserver_uses_the_configured_issuer(monkeypatch: pytest.MonkeyPatch):
    served: list[str] = []

    def serve(authority: Authority, host: str, port: int, *, allow_remote: bool, ready: Callable[[], None]) -> None:
        served.append(f"{authority.issuer} on {host}:{port}, {allow_remote}")
        ready()

    monkeypatch.setattr("scopeguard.cli.devserver.serve", serve)
    options = ["--host", "0.0.0.0", "--port", "9000", "--allow-remote", "--issuer", "http://authority:9000/as"]
    run = CliRunner().invoke(cli, ["devserver", *options])
    assert run.exit_code == 0, run.output
    assert served == ["http://authority:9000/as on 0.0.0.0:9000, True"]
    for line in (
        "metadata   http://authority:9000/.well-known/oauth-authorization-server/as",
        '    insecure_http_dangerously = ["authority:9000"]',
        '    url = "http://authority:9000/as"',
    ):
        assert line in run.output.splitlines()
    assert "http://authority:9000/as/token" in run.output


@pytest.mark.parametrize(("options", "users"), [([], "alice"), (["--user", "bob", "--user", "carol"], "bob, carol")])
def test_devserver_registers_users_and_redirect_uris(monkeypatch: pytest.MonkeyPatch, options: list[str], users: str):
    served: list[Authority] = []

    def serve(authority: Authority, host: str, port: int, *, allow_remote: bool, ready: Callable[[], None]) -> None:
        served.append(authority)
        ready()

    monkeypatch.setattr("scopeguard.cli.devserver.serve", serve)
    client = ["--client", "swagger::read a:b", "--redirect-uri", "swagger=http://127.0.0.1:8000/back?a=b"]
    run = CliRunner().invoke(cli, ["devserver", *client, *options])
    assert run.exit_code == 0, run.output
    [authority] = served
    swagger = authority.registry.clients["swagger"]
    assert swagger.is_public
    assert swagger.redirect_uris == ("http://127.0.0.1:8000/back?a=b",)
    assert swagger.scopes == ("read", "a:b")
    assert f"users, who sign in without a password: {users}" in run.output.splitlines()
    assert "    returns to http://127.0.0.1:8000/back?a=b" in run.output.splitlines()
    assert "curl" not in run.output


@pytest.mark.parametrize(("options", "token_format"), [([], "jwt"), (["--opaque"], "opaque")])
def test_devserver_registers_the_api_that_introspects(
    monkeypatch: pytest.MonkeyPatch, options: list[str], token_format: str
):
    served: list[Authority] = []

    def serve(authority: Authority, host: str, port: int, *, allow_remote: bool, ready: Callable[[], None]) -> None:
        served.append(authority)
        ready()

    monkeypatch.setattr("scopeguard.cli.devserver.serve", serve)
    run = CliRunner().invoke(cli, ["devserver", "--client", "loader:s:read", "--api", "api:a:b", *options])
    assert run.exit_code == 0, run.output
    [authority] = served
    api, loader = authority.registry.clients["api"], authority.registry.clients["loader"]
    assert (api.secret, api.introspects, api.scopes) == ("a:b", ("http://127.0.0.1:8000",), ())
    assert (loader.token_format, loader.introspects) == (token_format, ())
    lines = [line.strip() for line in run.output.splitlines()]
    beginning = lines.index('resource = "http://127.0.0.1:8000"')
    settings = [line for line in lines[beginning:] if " = " in line or line.startswith("[")]
    (issuer,), _ = settings_from(tomllib.loads("\n".join(settings)), ROOT, environment={"API_SECRET": "a:b"})
    assert issuer.introspection is not None
    assert issuer.introspection.client_id == "api"
    assert "a:b" not in run.output


@pytest.mark.parametrize(("options", "lifetime"), [([], TOKEN_LIFETIME), (["--lifetime", "60"], 60)])
def test_devserver_gives_its_clients_the_lifetime_of_tokens(
    monkeypatch: pytest.MonkeyPatch, options: list[str], lifetime: int
):
    served: list[Authority] = []
    monkeypatch.setattr("scopeguard.cli.devserver.serve", lambda authority, *_, **__: served.append(authority))
    run = CliRunner().invoke(cli, ["devserver", *options])
    assert run.exit_code == 0, run.output
    assert {client.lifetime for client in served[0].registry.clients.values()} == {lifetime}
    # The command does not import the development server to show its help.
    text = " ".join(CliRunner().invoke(cli, ["devserver", "--help"]).output.split())
    assert f"Lifetime of tokens in seconds. [default: {TOKEN_LIFETIME}]" in text


@pytest.mark.parametrize("command", ["audit", "demo", "devserver", "serve", "token"])
def test_help_texts_contain_no_formatting_marks(command: str):
    run = CliRunner().invoke(cli, [command, "--help"])
    assert run.exit_code == 0
    assert "\\" not in run.output
    assert "\b" not in run.output
    if "Exit status:" in run.output:
        assert "\n  Exit status:\n    0  " in run.output  # a list, one line for each


def _refuse_privileged(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")  # tests may run as root
