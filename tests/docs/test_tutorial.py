"""The tutorial, step by step: its files, its commands, and what they print. test_blocks.py runs its tests."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from documentation import MANUAL, NAMED, run
from scopeguard.cli.commands import cli
from scopeguard.devserver.authority import Authority
from scopeguard.testing import FakeAuthority

PAGE = MANUAL["docs/tutorial.md"]
CURL = re.findall(r"^    (curl .*)$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with the files of the app."""
    (tmp_path / "scopeguard.toml").write_text(NAMED["tutorial_file"].source, "utf-8")
    (tmp_path / "app.py").write_text(NAMED["tutorial_app"].source, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority("http://127.0.0.1:9000", audience="http://127.0.0.1:8000")


@pytest.fixture
def names(folder: Path, authority: FakeAuthority) -> Iterator[dict[str, Any]]:
    """The names of the app, whose guard is connected to *authority*."""
    names = run("tutorial_app")
    with authority.takes_over(names["guard"]):
        yield names
    names["guard"].close()


def test_authorization_server_has_the_clients_that_the_steps_use():
    (line,) = re.findall(r"^    scopeguard devserver (.*)$", PAGE, re.MULTILINE)
    arguments = shlex.split(line)
    assert arguments[::2] == ["--client", "--client"]
    clients = {name: (secret, scopes.split()) for name, secret, scopes in (a.split(":") for a in arguments[1::2])}
    assert clients == {
        "reader": ("first secret", ["rows.read"]),
        "writer": ("second secret", ["rows.read", "rows.write"]),
    }
    assert Authority("http://127.0.0.1:9000", audience="x").issuer == "http://127.0.0.1:9000"


def call(line: str, names: dict[str, Any], token: str) -> Any:
    """Perform a line for curl, and return the response."""
    _, *arguments = shlex.split(line.replace("$TOKEN", token))
    method = arguments[arguments.index("-X") + 1] if "-X" in arguments else "GET"
    field = arguments[arguments.index("-H") + 1] if "-H" in arguments else ": "
    name, _, value = field.partition(": ")
    with TestClient(names["app"], base_url="http://127.0.0.1:8000") as client:
        return client.request(method, arguments[-1], headers={name: value} if name else {})


def test_calls_are_answered_as_the_page_says(
    names: dict[str, Any], authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    token = authority.mint("rows.read", client_id="reader")
    nothing, read, write = [call(line, names, token) for line in CURL]
    challenges = re.findall(r"^    www-authenticate: (.*)$", PAGE, re.MULTILINE)
    assert (nothing.status_code, nothing.headers["www-authenticate"]) == (401, challenges[0])
    assert (read.status_code, read.text) == (200, '["Mendlesham","Wattisham"]')
    assert (write.status_code, write.headers["www-authenticate"]) == (403, challenges[1])
    (logged,) = re.findall(r"^    (denied with 403: .*)$", PAGE, re.MULTILINE)
    mark = r"token=\w{12}"
    assert re.sub(mark, "", caplog.messages[-1]) == re.sub(mark, "", logged)
    with authority.outage():
        assert call(CURL[1], names, token).status_code == 200  # the guard has the keys
    assert names["app"].routes
    with TestClient(names["app"]) as client:
        assert client.get("/healthz").status_code == 200


def test_explain_prints_the_beginning_of_the_page(
    folder: Path, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: authority.transport)
    (line,) = re.findall(r"^    echo .* \| scopeguard (explain .*)$", PAGE, re.MULTILINE)
    sys.modules.pop("app", None)
    token = authority.mint("rows.read", client_id="reader")
    printed = CliRunner().invoke(cli, shlex.split(line), input=token).stdout
    del sys.modules["app"]
    beginning = re.findall(r"^    (Refused: .*|  (?:issuer|request|rule|requires) .*)$", PAGE, re.MULTILINE)
    assert len(beginning) == 5
    for expected in beginning:
        assert expected in printed.splitlines(), printed


def test_audit_prints_the_table_of_the_page(folder: Path):
    sys.modules.pop("app", None)  # another test may have imported a module of this name
    printed = CliRunner().invoke(cli, ["audit", "app:app"]).stdout
    del sys.modules["app"]
    table = re.findall(r"^    (method  path .*|------  .*|(?:GET|POST)  .*)$", PAGE, re.MULTILINE)
    assert len(table) == 5
    for line in table:
        assert line in printed.splitlines(), printed
