"""``scopeguard token``: only the token on standard output, and the secret from safe sources."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loopback import Loopback, answering, json_response
from scopeguard.cli.commands import cli
from scopeguard.devserver import Authority, Client, DevServer, KeyRing

SECRET = "the password of a test"  # Not of the form that the leak search finds.


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    client = Client(client_id="robot", secret=SECRET, scopes=["read", "write"], lifetime=600, token_format="opaque")
    with DevServer(Authority(audience="https://api.test", clients=[client], keys=KeyRing("ES256"))) as running:
        yield running


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    exit_code: object
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """``run(url, "--scope", "read")`` requests a token from the server at *url*."""

    def ask(url: str, *options: str, secret: str = "env:SECRET", stdin: str = "", endpoint: bool = True) -> Done:
        arguments = ["--client-id", "robot", "--client-secret", secret]
        arguments += ["--token-url", f"{url}/token"] if endpoint else []
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("SECRET", SECRET)
        with pytest.raises(SystemExit) as ended:
            cli.main(["token", *arguments, *options], prog_name="scopeguard")
        return Done(ended.value.code, *capsys.readouterr())

    return ask


def is_issued(server: DevServer, token: str) -> bool:
    return server.authority.tokens.find(token) is not None


def test_standard_output_has_only_the_token(run: Callable[..., Done], server: DevServer):
    done = run(server.url, "--scope", "read", "--scope", "write")
    assert done.exit_code == 0
    assert done.stdout.endswith("\n")
    (line,) = done.stdout.splitlines()
    assert is_issued(server, line)
    assert done.stderr == "scopes: read write; 600 seconds\n"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_audience_and_authentication_method_can_be_set(run: Callable[..., Done], server: DevServer, method: str):
    done = run(server.url, "--auth-method", method, "--resource", "https://api.test", "--audience", "https://api.test")
    assert is_issued(server, done.stdout.strip())


def test_secret_is_read_from_standard_input_or_a_file(run: Callable[..., Done], server: DevServer, tmp_path: Path):
    (tmp_path / "secret").write_text(f"{SECRET}\n", "utf-8")
    for where, stdin in (("-", f"{SECRET}\n"), (f"file:{tmp_path / 'secret'}", "")):
        assert is_issued(server, run(server.url, secret=where, stdin=stdin).stdout.strip())


@pytest.mark.parametrize(
    ("options", "secret", "status", "message"),
    [
        ((), SECRET, 2, "Error: --client-secret: write env:NAME, file:PATH or -, not the secret itself"),
        ((), "env:NOT_THERE", 2, "--client-secret: the environment variable NOT_THERE is not set"),
        ((), "-", 2, "Error: client_secret: must not be empty"),
        (("--scope", "a b"), "env:SECRET", 2, "Error: scopes: 'a b' holds several scopes"),
        (("--scope", "admin"), "env:SECRET", 1, "invalid_scope"),
        (("--client-id", "nobody"), "env:SECRET", 1, "invalid_client"),
        (("--token-url", "http://api.example.com"), "env:SECRET", 2, "Error: token_url: 'http://api.example.com' is"),
    ],
)
def test_failure_prints_nothing_on_standard_output_and_sets_the_exit_status(
    run: Callable[..., Done], server: DevServer, options: tuple[str, ...], secret: str, status: int, message: str
):
    done = run(server.url, *options, secret=secret)
    assert (done.exit_code, done.stdout) == (status, "")
    assert message in done.stderr
    assert SECRET not in done.stderr
    assert base64.b64encode(SECRET.encode()).decode() not in done.stderr


def test_an_authorization_server_that_is_down_is_a_failure(run: Callable[..., Done]):
    done = run("http://127.0.0.1:1")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: no token: http://127.0.0.1:1/token: ")


def test_whole_response_can_be_printed_as_json(run: Callable[..., Done], server: DevServer):
    done = run(server.url, "--scope", "read", "--json")
    answer = json.loads(done.stdout)
    assert is_issued(server, answer.pop("access_token"))
    assert answer == {"token_type": "Bearer", "expires_in": 600, "scope": "read"}
    assert done.stderr == ""


def test_header_line_for_curl_can_be_printed(run: Callable[..., Done], server: DevServer):
    done = run(server.url, "--scope", "read", "--header")
    name, _, value = done.stdout.removesuffix("\n").partition(": ")
    assert (name, value.partition(" ")[0]) == ("Authorization", "Bearer")
    assert is_issued(server, value.partition(" ")[2])


def test_token_endpoint_is_found_through_the_issuer(server: DevServer, run: Callable[..., Done]):
    done = run(server.url, "--issuer", server.url, endpoint=False)
    assert is_issued(server, done.stdout.strip())


@pytest.mark.parametrize(
    ("options", "endpoint", "message"),
    [
        (("--json", "--header"), True, "Error: --json and --header: give one of them"),
        (("--parameter", "resource"), True, "Error: --parameter: write NAME=VALUE"),
        (("--parameter", "=x"), True, "Error: --parameter: write NAME=VALUE"),
        (("--parameter", "a=x", "--parameter", "a=y"), True, "Error: --parameter: a name occurs twice"),
        (("--token-type", "DPoP"), True, "Error: token_types: 'DPoP' is the name of another type"),
        (("--issuer", "https://as.test"), True, "Error: --token-url, --issuer: give exactly one of them"),
        ((), False, "Error: --token-url, --issuer: give exactly one of them"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    run: Callable[..., Done], server: DevServer, options: tuple[str, ...], endpoint: bool, message: str
):
    done = run(server.url, *options, endpoint=endpoint)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--scope", "admin"), "request fewer scopes with --scope"),
        (("--client-id", "nobody"), "check --client-id and the secret"),
        (("--resource", "https://other.test"), "check --resource"),
        (("--token-url", "http://127.0.0.1:1"), "check the URL, and that this machine can reach it"),
    ],
)
def test_refusal_comes_with_a_hint(run: Callable[..., Done], server: DevServer, options: tuple[str, ...], advice: str):
    done = run(server.url, *options)
    assert done.exit_code == 1
    assert advice in done.stderr


def test_deviating_server_is_supported_with_its_options(run: Callable[..., Done]):
    answers: list[dict[str, object]] = [
        {"access_token": "sg-opaque-1", "token_type": "BearerToken"},
        {"access_token": "sg-opaque-2"},
        {"access_token": "sg-opaque-3", "token_type": "Bearer", "scope": ["read"]},
    ]
    options = [("--token-type", "BearerToken"), ("--token-type-optional",), ("--scope-list",)]
    for answer, option in zip(answers, options, strict=True):
        with Loopback(answering(json_response(answer))) as server:
            assert run(server.url).exit_code == 1
            done = run(server.url, *option, "--parameter", "resource=11111111-2222=", "--parameter", "empty=")
            assert (done.exit_code, done.stdout) == (0, f"{answer['access_token']}\n")
            assert b"resource=11111111-2222%3D" in server.requests[-1]
            assert b"empty" not in server.requests[-1]
