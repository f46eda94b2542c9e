"""``scopeguard token``: only the token on standard output, and the secret from safe sources."""

from __future__ import annotations

import base64
import io
import json
import logging
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from loopback import Certificates, Loopback, answer_with, json_response
from scopeguard import Denied, DPoP, Granted, Guard, HeaderList, Issuer, NonceRequired, RequestView, all_of
from scopeguard.cli.commands import cli
from scopeguard.client import DPoPKey
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.guard import Decision

SECRET = "the password of a test"  # Not of the form that the leak search finds.


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    client = Client(client_id="robot", secret=SECRET, scopes=["read", "write"], lifetime=600, token_format="opaque")
    signer = Client(client_id="signer", secret=SECRET, scopes=["read"])
    with DevServer(Authority(audience="https://api.test", clients=[client, signer], keys=KeyRing("ES256"))) as running:
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

    def ask(url: str, *options: str, secret: str | None = "env:SECRET", stdin: str = "", endpoint: bool = True) -> Done:
        arguments = ["--client-id", "robot", *([] if secret is None else ["--client-secret", secret])]
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


def test_an_authorization_server_that_is_down_is_a_failure_that_is_printed_once(
    run: Callable[..., Done], caplog: pytest.LogCaptureFixture
):
    done = run("http://127.0.0.1:1")
    assert caplog.messages == []
    assert logging.getLogger("scopeguard").filters == []
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
        (("--proof-for", "GET", "https://api.test/"), True, "Error: --proof-for: has no effect without --dpop-key"),
        (("--dpop-algorithm", "PS256"), True, "Error: --dpop-algorithm: has no effect without --dpop-key"),
        (
            ("--dpop-key", "k.pem", "--proof-for", "GET", "https://api.test/"),
            True,
            "Error: --proof-for: has no effect without --header",
        ),
        (("--dpop-key", "k.pem", "--nonce", "n"), True, "Error: --nonce: has no effect without --proof-for"),
        (("--dpop-optional",), True, "Error: dpop_optional: has no effect without dpop"),
        (("--cert-key", "k.pem"), True, "Error: --cert-key: has no effect without --cert"),
        (("--private-key", "none.pem"), True, "Error: --private-key: 'none.pem' cannot be read: No such file"),
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
        with Loopback(answer_with(json_response(answer))) as server:
            assert run(server.url).exit_code == 1
            done = run(server.url, *option, "--parameter", "resource=11111111-2222=", "--parameter", "empty=")
            assert (done.exit_code, done.stdout) == (0, f"{answer['access_token']}\n")
            assert b"resource=11111111-2222%3D" in server.requests[-1]
            assert b"empty" not in server.requests[-1]


# -- keys and certificates


def header_lines(done: Done) -> dict[str, str]:
    assert done.exit_code == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_bound_token_and_its_proof_open_an_api(run: Callable[..., Done], server: DevServer, tmp_path: Path):
    file, url = tmp_path / "dpop.pem", "https://api.test/rows"
    options = ("--client-id", "signer", "--scope", "read", "--dpop-key", str(file), "--header")
    guard = Guard(
        Issuer(server.url, audience="https://api.test"),
        dpop=DPoP(base_url="https://api.test", nonce_keys=["a secret of the operator, 32 bytes or more"]),
        audit="off",
    )

    def send(*more: str) -> Decision:
        done = run(server.url, *options, "--proof-for", "GET", url, *more)
        fields = [(name.lower().encode(), value.encode()) for name, value in header_lines(done).items()]
        return guard.check(RequestView(method="GET", path="/rows", headers=HeaderList(fields)), all_of("read"))

    with closing(guard):
        first = send()
        key = DPoPKey(file=file)  # written by the command
        assert isinstance(first, Denied)
        assert isinstance(first.error, NonceRequired)
        assert isinstance(send("--nonce", str(first.error.nonce)), Granted)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert DPoPKey(file=file).thumbprint == key.thumbprint
    done = run(server.url, *options)
    assert header_lines(done).keys() == {"Authorization"}
    assert done.stdout.startswith("Authorization: DPoP ")
    assert json.loads(run(server.url, *options[:-1], "--json").stdout)["token_type"] == "DPoP"


def test_new_key_fits_the_algorithm_and_is_written_only_where_it_can_be(
    run: Callable[..., Done], server: DevServer, tmp_path: Path
):
    file = tmp_path / "dpop.pem"
    done = run(server.url, "--dpop-key", str(file), "--dpop-algorithm", "EdDSA")
    assert is_issued(server, done.stdout.strip())
    assert f"wrote a new key to {file}" in done.stderr
    assert "wrote" not in run(server.url, "--dpop-key", str(file), "--dpop-algorithm", "EdDSA").stderr
    for options, message in (
        (("--dpop-key", str(file)), "dpop: file"),
        (("--dpop-key", str(tmp_path / "none" / "key.pem")), "cannot be written: No such file or directory"),
        (("--dpop-key", str(tmp_path / "new.pem"), "--dpop-algorithm", "HS256"), "dpop: algorithm: 'HS256'"),
    ):
        done = run(server.url, *options)
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["dpop.pem"]


def test_bearer_token_is_accepted_beside_a_key_only_if_it_is_optional(run: Callable[..., Done], tmp_path: Path):
    options = ("--dpop-key", str(tmp_path / "dpop.pem"), "--header")
    proof = ("--proof-for", "GET", "https://api.test/")
    with Loopback(answer_with(json_response({"access_token": "sg-opaque-1", "token_type": "Bearer"}))) as server:
        refused = run(server.url, *options)
        assert (refused.exit_code, refused.stdout) == (1, "")
        done = run(server.url, *options, "--dpop-optional", *proof)
        assert (done.exit_code, done.stdout) == (0, "Authorization: Bearer sg-opaque-1\n")  # it needs no proof


@pytest.mark.parametrize("form", ["PEM", "JWK"])
def test_client_authenticates_with_a_private_key(run: Callable[..., Done], tmp_path: Path, form: str):
    key, file = ec.generate_private_key(ec.SECP256R1()), tmp_path / "key"
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(encoding, kind, serialization.NoEncryption()).decode()
    file.write_text(pem if form == "PEM" else ECAlgorithm.to_jwk(key))
    options = ("--private-key", str(file), "--key-algorithm", "ES256", "--key-id", "one")
    with Loopback(answer_with(json_response({"access_token": "sg-opaque-1", "token_type": "Bearer"}))) as server:
        missing = run(server.url, *options, secret=None)
        assert (missing.exit_code, missing.stdout) == (2, "")
        assert "assertion_audience: is missing" in missing.stderr
        done = run(server.url, *options, "--assertion-audience", "https://as.test", secret=None)
        assert (done.exit_code, done.stdout) == (0, "sg-opaque-1\n")
        assertion = parse_qs(server.requests[-1].decode().partition("\r\n\r\n")[2])["client_assertion"][0]
    claims = jwt.decode(assertion, key.public_key(), algorithms=["ES256"], audience="https://as.test")
    assert (claims["iss"], claims["sub"]) == ("robot", "robot")
    assert jwt.get_unverified_header(assertion)["kid"] == "one"


def test_private_key_that_is_none_is_not_echoed(run: Callable[..., Done], tmp_path: Path):
    file = tmp_path / "key"
    for content in ('{"kty": "EC", "d": "a secret"', "a secret"):
        file.write_text(content)
        done = run(
            "https://as.test", "--private-key", str(file), "--assertion-audience", "https://as.test", secret=None
        )
        assert (done.exit_code, done.stdout) == (2, "")
        assert "a secret" not in done.stderr


@pytest.mark.parametrize("split", [False, True], ids=["one file", "two files"])
def test_client_authenticates_with_a_certificate(run: Callable[..., Done], tmp_path: Path, split: bool):
    certificates = Certificates(tmp_path)
    context = certificates.server()
    context.load_verify_locations(certificates.bundle)
    context.verify_mode = ssl.CERT_REQUIRED
    both = certificates.issue("robot")
    options: tuple[str, ...] = ("--ca-file", str(certificates.bundle), "--cert", str(both))
    if split:
        key, mark, certificate = both.read_text().partition("-----BEGIN CERTIFICATE")
        (tmp_path / "key.pem").write_text(key)
        (tmp_path / "client.pem").write_text(mark + certificate)
        options = (*options[:3], str(tmp_path / "client.pem"), "--cert-key", str(tmp_path / "key.pem"))
    answer = answer_with(json_response({"access_token": "sg-opaque-1", "token_type": "Bearer"}))
    with Loopback(answer, tls=context, name="localhost") as server:
        assert run(server.url, *options[:2]).exit_code == 1
        done = run(server.url, *options, secret=None)
        assert (done.exit_code, done.stdout) == (0, "sg-opaque-1\n"), done.stderr
        head, _, form = server.requests[-1].decode().partition("\r\n\r\n")
        assert "authorization" not in head.lower()
        assert parse_qs(form)["client_id"] == ["robot"]


def test_client_without_secret_key_and_certificate_is_refused(run: Callable[..., Done]):
    done = run("https://as.test", secret=None)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr == "Error: --client-secret, --private-key, --cert: give one of them, to authenticate the client\n"
    )
