"""Files of service accounts, as Google's libraries read them, and the option of the command line that makes them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner

from scopeguard import ConfigurationError
from scopeguard.cli.commands import cli
from scopeguard.devserver import GOOGLE_TOKEN_AUDIENCE, Authority, Client, GoogleServiceAccount

EMAIL = "robot@local.iam.gserviceaccount.com"
TOKEN_URI = "http://127.0.0.1:9000/token"
ROBOT = GoogleServiceAccount.generate(EMAIL, scopes=["urn:a:read", "write"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "robot.json"


def test_the_key_in_the_file_signs_what_the_authority_accepts(bench: Any, path: Path):
    bench.authority.registry.add_service_account(ROBOT.account)
    ROBOT.write(path, token_uri=TOKEN_URI)
    info = json.loads(path.read_text("utf-8"))
    assert (info["type"], info["client_email"], info["token_uri"]) == ("service_account", EMAIL, TOKEN_URI)
    # What google-auth writes: its constant audience, an hour, scopes separated by spaces.
    claims = {"iss": EMAIL, "aud": GOOGLE_TOKEN_AUDIENCE, "iat": bench.now, "exp": bench.now + 3600, "scope": "write"}
    text = jwt.encode(claims, info["private_key"], "RS256", headers={"kid": info["private_key_id"]})
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    answer = bench.post("/token", None, grant_type=grant, assertion=text)
    assert answer.status == 200
    assert bench.read(answer)["scope"] == "write"


def test_the_file_is_private_and_never_written_over(path: Path):
    ROBOT.write(path, token_uri=TOKEN_URI)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="cannot be created"):
        GoogleServiceAccount.generate(EMAIL, scopes=[]).write(path, token_uri=TOKEN_URI)
    assert path.read_bytes() == before


def test_a_file_is_read_back_with_its_key(path: Path):
    ROBOT.write(path, token_uri=TOKEN_URI)
    read = GoogleServiceAccount.read(path, EMAIL, scopes=["write"], token_uri=TOKEN_URI)
    assert read.key.public_jwk() == ROBOT.key.public_jwk()
    assert read.account.scopes == ("write",)


@pytest.mark.parametrize(
    "change",
    [
        {"client_email": "other@x"},
        {"token_uri": GOOGLE_TOKEN_AUDIENCE},
        {"type": "authorized_user"},
        {"private_key": "quoted by nobody"},
        {"private_key": None},
        {"private_key_id": 7},
        None,
    ],
    ids=str,
)
def test_file_of_another_kind_is_refused_and_not_quoted(path: Path, change: dict[str, Any] | None):
    info = ROBOT.info(TOKEN_URI)
    path.write_text("quoted by nobody" if change is None else json.dumps({**info, **change}), "utf-8")
    with pytest.raises(ConfigurationError, match="not a key file of") as caught:
        GoogleServiceAccount.read(path, EMAIL, scopes=["write"], token_uri=TOKEN_URI)
    assert "quoted by nobody" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_private_key_is_not_shown():
    assert "PRIVATE" not in repr(ROBOT)
    assert "private_key=" not in repr(ROBOT)


def serve_at_once(served: list[Authority]) -> Callable[..., None]:
    """Replace the server, which would listen until it is stopped."""

    def serve(authority: Authority, *_: object, ready: Callable[[], None], **__: object) -> None:
        served.append(authority)
        ready()

    return serve


def test_the_command_line_makes_the_file_and_uses_it_again(path: Path, monkeypatch: pytest.MonkeyPatch):
    served: list[Authority] = []
    monkeypatch.setattr("scopeguard.cli.devserver.serve", serve_at_once(served))
    option = f"{path}:{EMAIL}:https://a.example/read write"
    for _ in range(2):
        run = CliRunner().invoke(cli, ["devserver", "--port", "9123", "--service-account", option])
        assert run.exit_code == 0, run.output
        assert f"service account {EMAIL}, scopes: https://a.example/read write" in run.output
    first, second = (authority.registry.service_accounts[EMAIL] for authority in served)
    assert first.public_key == second.public_key
    assert first.scopes == ("https://a.example/read", "write")
    assert served[0].registry.clients == {}, "the client of the demo is there only when nobody is named"
    assert json.loads(path.read_text("utf-8"))["token_uri"] == "http://127.0.0.1:9123/token"


def test_accounts_and_clients_may_be_named_together(path: Path, monkeypatch: pytest.MonkeyPatch):
    served: list[Authority] = []
    monkeypatch.setattr("scopeguard.cli.devserver.serve", serve_at_once(served))
    options = ["--service-account", f"{path}:{EMAIL}:read", "--client", "a:sg-secret-a:read"]
    assert CliRunner().invoke(cli, ["devserver", *options]).exit_code == 0
    (client,) = served[0].registry.clients.values()
    assert isinstance(client, Client)
    assert list(served[0].registry.service_accounts) == [EMAIL]
