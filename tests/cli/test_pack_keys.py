"""``scopeguard pack-keys``: the keys of an issuer, for the setting ``jwks_seed``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scopeguard import Guard, HeaderList, RequestView
from scopeguard.cli.commands import cli
from scopeguard.core.decision import Granted
from scopeguard.flow.effects import Answer
from scopeguard.testing import FakeAuthority

FILE = """
resource = "https://api.test"
[[issuers]]
url = "https://as.test"
jwks_seed = "keys.json"
"""
Run = Callable[..., Result]


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    authority = FakeAuthority("https://as.test", audience="https://api.test")
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: authority.transport)
    return authority


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, text: str = FILE) -> Result:
        (tmp_path / "api.toml").write_text(text, "utf-8")
        return CliRunner().invoke(cli, ["pack-keys", "--config", str(tmp_path / "api.toml"), *arguments])

    return run


def test_guard_uses_the_written_file(authority: FakeAuthority, run: Run, tmp_path: Path):
    done = run("--output", str(tmp_path / "keys.json"))
    assert (done.exit_code, done.stderr) == (0, f"{tmp_path / 'keys.json'}: 1 key\n")
    guard = Guard.from_file(str(tmp_path / "api.toml"))
    headers = HeaderList([(b"authorization", authority.bearer("read")["Authorization"].encode())])
    with authority.outage():
        assert isinstance(guard.check(RequestView(method="GET", path="/", headers=headers)), Granted)
        guard.close()


def test_only_usable_keys_are_printed(authority: FakeAuthority, run: Run):
    keys = authority.authority.keys.key_set(authority.clock.wall())["keys"]
    bad = {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"}
    answer = json.dumps({"keys": [bad, *keys]}).encode()
    with authority.mode("jwks", Answer(200, answer, {"content-type": "application/json"})):
        done = run()
    packed = json.loads(done.stdout)
    assert packed["keys"] == keys
    assert (packed["issuer"], done.exit_code) == ("https://as.test", 0)
    assert packed["fetched_at"] > 1.7e9


def test_outage_is_a_failure_and_writes_no_file(authority: FakeAuthority, run: Run, tmp_path: Path):
    with authority.outage():
        done = run("--output", str(tmp_path / "keys.json"))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: no keys: ")
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ((), FILE.replace('jwks_seed = "keys.json"', 'jwks_file = "keys.json"'), "has no single key set at a URL"),
        (("--issuer", "https://other.test"), FILE, "issuer: name one that was given to the guard"),
        (("--output", "/nowhere/keys.json"), FILE, "--output: '/nowhere/keys.json' cannot be written: No such file"),
    ],
)
def test_usage_error_is_one_line(run: Run, arguments: tuple[str, ...], text: str, message: str):
    done = run(*arguments, text=text)
    assert done.exit_code == 2
    assert message in done.stderr
