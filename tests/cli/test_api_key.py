"""``scopeguard api-key new`` and ``explain`` with a key: the key appears once, and only its digest is kept."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scopeguard.cli.api_key import add_to_file, entry_of, read_expiry
from scopeguard.cli.commands import cli
from scopeguard.config.api_keys import ApiKey
from scopeguard.errors import ConfigurationError
from scopeguard.spec.api_key import id_of, key_from_field, read_keys

CONFIG = """resource = "https://api.test"
[api_keys]
prefix = "acme"
keys_file = "keys.toml"
[[issuers]]
url = "https://as.test"
[[rules]]
path = "/rows"
any_of = ["read"]
token_sources = ["header", "api_key"]
[[rules]]
path = "/tokens"
authenticated = true
[[rules]]
path = "/keys"
authenticated = true
token_sources = ["api_key"]
"""
WHO = ("--subject", "alice")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "scopeguard.toml"
    file.write_text(CONFIG)
    return file


def new(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["api-key", "new", *arguments])


def test_key_is_printed_once_and_its_digest_is_kept(config: Path, tmp_path: Path):
    done = new(
        "--config", str(config), *WHO, "--client-id", "reports", "--scope", "read", "--scope", "b", "--expires", "12h"
    )
    assert done.exit_code == 0, done.output
    text = key_from_field([done.stdout.strip().encode()], "acme")
    file = tmp_path / "keys.toml"
    assert text not in file.read_text() + done.stderr
    assert text[22:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = read_keys(file.read_bytes()).values()
    assert (key.id, key.subject, key.client_id, key.scopes) == (id_of(text), "alice", "reports", ("read", "b"))
    assert key.expires_at is not None
    assert key.issued_at is not None
    assert key.expires_at - key.issued_at == 12 * 3600


def test_key_for_a_look_up_has_the_checksum_of_the_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHECKSUM_SECRET", "sg-secret-for-checksums")
    done = new("--prefix", "acme", "--checksum-secret", "env:CHECKSUM_SECRET", *WHO)
    assert done.exit_code == 0, done.output
    assert key_from_field([done.stdout.strip().encode()], "acme", b"sg-secret-for-checksums")
    assert "sg-secret" not in done.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--checksum-secret", "sg-secret-for-checksums"], "must be env:NAME or file:PATH, not the secret itself"),
        (["--checksum-secret", "env:NOT_SET"], "--checksum-secret: the environment variable NOT_SET is not set"),
        (["--checksum-secret", "env:SHORT"], "api_keys.checksum_secret: must have at least 16 characters"),
        (
            ["--checksum-secret", "env:SHORT", "--keys-file", "keys.toml"],
            "is for keys that a lookup finds",
        ),
    ],
)
def test_secret_of_checksums_is_named_and_not_written(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
):
    monkeypatch.setenv("SHORT", "sg-secret")
    done = new("--prefix", "acme", *arguments, *WHO)
    assert done.exit_code == 2
    assert problem in done.output
    assert "sg-secret" not in done.output


def test_further_keys_are_added_and_the_file_keeps_its_mode_and_comments(tmp_path: Path):
    file = tmp_path / "keys.toml"
    file.write_text("# mine")
    file.chmod(0o640)
    for _ in range(2):
        assert new("--prefix", "acme", "--keys-file", str(file), *WHO).exit_code == 0
    assert file.read_text().startswith("# mine\n")
    assert len(read_keys(file.read_bytes())) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["keys.toml"]


def test_without_a_file_the_entry_is_printed_beside_the_key():
    done = new("--prefix", "acme", *WHO, "--expires", "never")
    (table,) = tomllib.loads(done.stderr)["keys"]
    assert (table["subject"], table["expires_at"], table["scopes"]) == ("alice", "never", [])
    assert done.stdout.startswith(f"acme_{table['id']}_")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (WHO, "--prefix: is missing"),
        (("--prefix", "Acme", *WHO), "api_keys.prefix"),
        (("--prefix", "acme"), "subject: is missing"),
        (("--prefix", "acme", *WHO, "--scope", "a b"), "scopes: every item"),
        (("--prefix", "acme", *WHO, "--expires", "soon"), "--expires: must be as in"),
        (("--prefix", "acme", *WHO, "--expires", "2030-01-01T00:00:00"), "with a time zone"),
        (("--prefix", "acme", *WHO, "--expires", "2020-01-01T00:00:00Z"), "is in the past"),
        (("--config", "{config}", "--prefix", "acme", *WHO), "leave --keys-file and --prefix out"),
        (("--config", "{plain}", *WHO), "api_keys: is missing"),
        (("--prefix", "acme", "--keys-file", "{broken}", *WHO), "it is not TOML"),
        (("--prefix", "acme", "--keys-file", "{folder}/none/keys.toml", *WHO), "cannot be written: No such file"),
    ],
)
def test_wrong_command_line_makes_no_key(config: Path, tmp_path: Path, arguments: tuple[str, ...], problem: str):
    (tmp_path / "broken.toml").write_text("[[keys]")
    (tmp_path / "plain.toml").write_text('[[issuers]]\nurl = "https://as.test"\naudience = "a"\n')
    places = {
        "config": config, "plain": tmp_path / "plain.toml", "broken": tmp_path / "broken.toml", "folder": tmp_path,
    }  # fmt: skip
    done = new(*(argument.format(**places) for argument in arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert problem in done.stderr


def test_odd_names_survive_the_file(tmp_path: Path):
    odd = 'a"b\\c\nd\te\u007f\u2028😀é'
    key = ApiKey(id="k" * 16, sha256="0" * 64, subject=odd, client_id="'", scopes=["s"], expires_at=5.0)
    file = tmp_path / "keys.toml"
    add_to_file(file, key)
    assert read_keys(file.read_bytes()) == {key.id: key}
    assert odd not in entry_of(key)


def test_id_that_is_there_already_is_not_added_again(tmp_path: Path):
    key = ApiKey(id="k" * 16, sha256="0" * 64, subject="a", expires_at=None)
    add_to_file(tmp_path / "keys.toml", key)
    before = (tmp_path / "keys.toml").read_bytes()
    with pytest.raises(ConfigurationError, match="given twice"):
        add_to_file(tmp_path / "keys.toml", key)
    assert (tmp_path / "keys.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "seconds"), [("1d", 86400), ("90d", 90 * 86400), ("2h", 7200), ("1970-01-01T03:00:00+02:00", 3600)]
)
def test_times_of_expiry(text: str, seconds: float):
    now = 0.0
    assert read_expiry(text, now) == seconds


# -- explain


def explain(config: Path, key: str, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["explain", "--config", str(config), "--json", "--offline", *arguments], input=key)
    assert key not in done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def test_key_is_explained_in_place_of_a_token(config: Path):
    key = new("--config", str(config), *WHO, "--scope", "read").stdout.strip()
    explained = explain(config, key)
    assert (explained["verdict"], explained["kind"], explained["issuer"]) == ("accepted", "api_key", "https://api.test")
    for path, reason in (("/rows", None), ("/keys", None), ("/tokens", "api_key_refused")):
        assert explain(config, key, "--path", path)["reason"] == reason
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert explain(config, wrong)["reason"] == "api_key_malformed"
    shown = CliRunner().invoke(cli, ["explain", "--config", str(config), "--path", "/rows"], input=key)
    assert "an API key, fingerprint" in shown.output
    assert shown.exit_code == 0


def test_token_is_refused_where_only_keys_are_accepted(config: Path):
    assert explain(config, "abc", "--path", "/keys")["reason"] == "no_credentials"
