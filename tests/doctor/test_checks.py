"""The pure checks: keys, clocks, failures, files, proxies, versions."""

from __future__ import annotations

import os
import stat
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scopeguard.devserver.keys import SigningKey
from scopeguard.doctor.advisories import ADVISORIES, PYTHON_ENDS, TESTED, known_advisories, release
from scopeguard.doctor.clocks import check_clock, server_offset
from scopeguard.doctor.environment import check_python, check_versions, installed_versions
from scopeguard.doctor.files import check_files, named_files, written_secrets
from scopeguard.doctor.finding import Diagnosis, Finding, Level, error, ok, warning
from scopeguard.doctor.issuers import check_connections
from scopeguard.doctor.keys import check_keys, key_type
from scopeguard.doctor.outages import advise
from scopeguard.doctor.proxies import ServerAddress, check_server, check_trusted
from scopeguard.doctor.tracing_transport import Connection, Exchange
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import Answer
from scopeguard.reasons import Reason
from scopeguard.spec.jwks import parse_key_set

URL = "https://as.example"


def levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


# -- findings


def test_exit_status_is_1_for_errors_and_with_strict_for_warnings():
    good, doubtful, bad = ok("a", "b", "c"), warning("a", "b", "c", fix="d"), error("a", "b", "c", fix="d")

    def status(*findings: Finding, strict: bool = False) -> int:
        return Diagnosis(file="f", findings=findings).status(strict=strict)

    assert status(good) == status(good, strict=True) == status(doubtful) == 0
    assert status(good, doubtful, strict=True) == status(good, bad) == 1


@pytest.mark.parametrize(("level", "fix"), [("ok", "do it"), ("warning", None), ("error", None)])
def test_every_problem_has_a_fix_and_nothing_else_has_one(level: str, fix: str | None):
    with pytest.raises(ConfigurationError, match="fix"):
        Finding(subject="a", check="b", level=Level(level), text="c", fix=fix)


# -- keys


def key_set(*jwks: dict[str, Any]) -> Any:
    return parse_key_set({"keys": list(jwks)})


EC = {**SigningKey.generate("ES256", kid="ec").public_jwk()}
ED = {**SigningKey.generate("EdDSA", kid="ed").public_jwk()}


def test_keys_are_counted_with_kid_type_and_algorithms():
    [finding] = check_keys(URL, key_set(EC, ED), ["ES256", "EdDSA"], "https://as.example/jwks")
    assert finding.level is Level.OK
    assert finding.text == (
        "2 of 2 from https://as.example/jwks can verify tokens: kid 'ec' (EC, ES256), kid 'ed' (OKP, EdDSA)"
    )


@pytest.mark.parametrize(("algorithm", "kty"), [("RS256", "RSA"), ("ES384", "EC"), ("Ed25519", "OKP")])
def test_type_of_a_key_is_named(algorithm: str, kty: str):
    keys = key_set(SigningKey.generate(algorithm, kid="a").public_jwk())
    [finding] = check_keys(URL, keys, [algorithm], "jwks")
    assert f"({kty}, {algorithm})" in finding.text


def test_type_of_a_post_quantum_key_is_akp():
    key: Any = SimpleNamespace(algorithms=frozenset({"ML-DSA-44"}))  # old versions of cryptography cannot make one
    assert key_type(key) == "AKP"


def test_key_that_no_algorithm_uses_is_a_warning():
    used, idle = check_keys(URL, key_set(EC, ED), ["ES256"], "jwks")
    assert (used.level, idle.level) == (Level.OK, Level.WARNING)
    assert idle.text.startswith("kid 'ed' (OKP) is not used")
    assert idle.fix is not None
    assert "EdDSA" in idle.fix


def test_set_without_a_key_for_the_algorithms_is_an_error():
    first, *_ = check_keys(URL, key_set(EC), ["RS256"], "jwks")
    assert first.level is Level.ERROR
    assert "every token is refused" in first.text
    assert first.fix is not None
    assert "['ES256']" in first.fix


def test_ignored_keys_are_named_with_the_reason_and_only_bad_ones_are_warnings():
    encryption = {**EC, "kid": "enc", "use": "enc"}
    private = {**EC, "kid": "leaked", "d": "x"}
    _, for_encryption, leaked = check_keys(URL, key_set(EC, encryption, private), ["ES256"], "jwks")
    assert (for_encryption.level, for_encryption.text) == (
        Level.OK,
        "kid 'enc' (number 2) is ignored: use is 'enc'",
    )
    assert leaked.level is Level.WARNING
    assert "its secret is published" in leaked.text


def test_several_keys_without_kid_are_a_warning():
    other = SigningKey.generate("ES256", kid="other").public_jwk()
    nameless = [{name: value for name, value in key.items() if name != "kid"} for key in (EC, other)]
    assert levels(check_keys(URL, key_set(*nameless), ["ES256"], "jwks")) == [Level.OK, Level.WARNING]
    assert levels(check_keys(URL, key_set(nameless[0]), ["ES256"], "jwks")) == [Level.OK]


# -- clocks


def exchange(headers: dict[str, str], at: float) -> Exchange:
    return Exchange(url=URL, seconds=0.0, at=at, answer=Answer(200, b"", headers))


@pytest.mark.parametrize(
    ("headers", "offset"),
    [
        ({"date": "Thu, 01 Jan 1970 00:16:40 GMT"}, 0.5),
        ({"date": "Thu, 01 Jan 1970 00:15:40 GMT", "age": "60"}, 0.5),
        ({"date": "yesterday"}, None),
        ({"date": "Thu, 01 Jan 1970 00:16:40 GMT", "age": "old"}, None),
        ({"date": "Thu, 01 Jan 1970 00:16:40 GMT", "age": "9" * 400}, None),
        ({}, None),
    ],
)
def test_offset_is_read_from_date_and_age(headers: dict[str, str], offset: float | None):
    assert server_offset(exchange(headers, at=1000.0)) == offset


def test_failed_exchange_says_nothing_about_the_clock():
    assert server_offset(Exchange(url=URL, seconds=0.0, at=0.0)) is None


@pytest.mark.parametrize(
    ("offset", "level", "words"),
    [
        (4.0, Level.OK, "within 5 s"),
        (-4.0, Level.OK, "within 5 s"),
        (20.0, Level.WARNING, "20 s behind"),
        (-20.0, Level.WARNING, "20 s ahead of"),
        (90.0, Level.ERROR, "new tokens are refused for 60 s"),
        (-90.0, Level.ERROR, "refused 60 s before they expire"),
    ],
)
def test_clock_is_compared_with_the_leeway(offset: float, level: Level, words: str):
    finding = check_clock(URL, offset, leeway=30.0)
    assert finding.level is level
    assert words in finding.text


# -- failures


@pytest.mark.parametrize(
    ("detail", "fix"),
    [
        ({"problem": "ConnectError: [Errno -2] Name or service not known"}, "correct the host name"),
        ({"problem": "ConnectError: [Errno 111] Connection refused"}, "in a container, 127.0.0.1 is the container"),
        (
            {"problem": "ConnectError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"},
            "renew the certificate",
        ),
        ({"problem": "ConnectError: certificate verify failed: Hostname mismatch"}, "use a host name"),
        ({"problem": "ConnectError: certificate verify failed: self-signed certificate"}, "ca_file"),
        ({"problem": "ConnectError: [SSL: WRONG_VERSION_NUMBER]"}, "TLS 1.2"),
        (
            {"problem": "the issuer in the metadata is 'x', but 'y' is configured; they must be exactly equal"},
            "set url",
        ),
        (
            {"problem": "its metadata names no introspection_endpoint; set introspection.endpoint"},
            "set introspection.end",
        ),
        ({"problem": "its metadata lists x but not introspection.auth = 'bearer'"}, "set introspection.auth"),
        ({"problem": "introspection.bearer_token raised ValueError"}, "bearer_token"),
        ({"problem": "the content of jwks_bearer_file is not a token"}, "one token into the file"),
        ({"status": 405}, "does not take such requests"),
        ({"status": 404}, "no such document"),
        ({"status": 302}, "redirects are not followed"),
        ({"status": 503}, "log of the authorization server"),
        ({"status": 418}, "login page"),
        ({}, "login page"),
    ],
)
def test_each_failure_has_its_fix(detail: dict[str, Any], fix: str):
    assert fix in advise(AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, URL, **detail))


def test_timeout_names_the_network_and_the_setting():
    assert "key_set.timeout" in advise(AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, URL))


# -- connections


@pytest.mark.parametrize(
    ("url", "seconds", "ends", "level", "words"),
    [
        ("https://as.test/jwks", 0.1, 90, Level.OK, "10.0.0.7 in 2 ms, TLSv1.3 in 3 ms, certificate until 1970-04-01"),
        ("https://as.test/jwks", 0.1, 13, Level.WARNING, "(13 days)"),
        ("https://as.test/jwks", 1.5, 90, Level.WARNING, "slowest answer in 1500 ms"),
        ("http://as.test/jwks", 0.1, None, Level.WARNING, "in cleartext"),
        ("http://[::1]:9000/jwks", 0.1, None, Level.OK, "http://[::1]:9000"),
    ],
)
def test_connection_has_its_facts(url: str, seconds: float, ends: int | None, level: Level, words: str):
    end = None if ends is None else datetime.fromtimestamp(ends * 86400 + 1, UTC)
    encryption = None if ends is None else "TLSv1.3"
    opened = Connection(
        address="10.0.0.7", connecting=0.002, handshake=0.003, encryption=encryption, certificate_ends=end
    )
    exchanges = [Exchange(url=url, seconds=seconds, at=0.0, connection=opened, answer=Answer(200, b""))]
    [finding] = check_connections(URL, exchanges, now=0.0)
    assert (finding.level, words in finding.text) == (level, True), finding


# -- files

SECRET = "sg-secret-written-in-the-file"


def test_named_files_are_found_with_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KEYS", "keys.json")
    document = {
        "issuers": [
            {"url": "env:ISSUER", "introspection": {"client_secret": "file:secret"}, "jwks_file": "env:KEYS"},
            {"url": "https://two.example", "jwks_bearer_file": "token"},
        ],
        "realm": "file:realm",
    }
    found = {(each.setting, each.path.name, each.secret) for each in named_files(document, tmp_path)}
    assert found == {
        ("issuers.introspection.client_secret", "secret", True),
        ("issuers.jwks_file", "keys.json", False),
        ("issuers.jwks_bearer_file", "token", True),
        ("realm", "realm", False),
    }


def test_written_secrets_are_named_and_references_are_not():
    document = {
        "store": {"redis": "redis://:password@127.0.0.1/0", "secret": "env:STORE_SECRET"},
        "transport": {"proxy": "http://proxy.example.com:3128"},
        "issuers": [{"introspection": {"private_key": {"kty": "EC", "d": SECRET}, "client_secret": "file:s"}}],
    }
    assert written_secrets(document) == ["store.redis", "issuers.introspection.private_key"]


def test_file_that_others_can_change_is_an_error(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.touch()
    file.chmod(0o646)
    [finding] = check_files(file, {}, tmp_path)
    assert (finding.level, finding.fix) == (Level.ERROR, f"chmod o-w {file}")
    file.chmod(0o644)
    assert levels(check_files(file, {}, tmp_path)) == [Level.OK]


def test_folder_in_which_others_can_replace_the_file_is_an_error(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.touch(mode=0o600)
    tmp_path.chmod(0o777)
    [finding] = check_files(file, {}, tmp_path)
    assert (finding.level, finding.fix) == (Level.ERROR, f"chmod o-w {tmp_path}")
    tmp_path.chmod(0o777 | stat.S_ISVTX)
    assert levels(check_files(file, {}, tmp_path)) == [Level.OK]


def test_secret_that_others_can_read_is_a_warning_and_is_not_shown(tmp_path: Path):
    file, secret = tmp_path / "scopeguard.toml", tmp_path / "client-secret"
    for each in (file, secret):
        each.touch()
        each.chmod(0o644)
    document = {"issuers": [{"introspection": {"client_secret": "file:client-secret"}}], "store": {"secret": SECRET}}
    written, named = check_files(file, document, tmp_path)
    assert (written.level, written.fix) == (Level.WARNING, f"chmod o-r {file}")
    assert "store.secret" in written.text
    assert (named.level, named.fix) == (Level.WARNING, f"chmod o-r {secret}")
    assert SECRET not in repr((written, named))
    for each in (file, secret):
        each.chmod(0o640)
    assert levels(check_files(file, document, tmp_path)) == [Level.OK, Level.OK]


def test_file_that_does_not_exist_is_a_warning(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.touch(mode=0o600)
    _, missing = check_files(file, {"issuers": [{"jwks_file": "keys.json"}]}, tmp_path)
    assert (missing.level, missing.text) == (Level.WARNING, "cannot be read: No such file or directory")


def test_text_that_cannot_be_a_path_is_a_warning(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.write_text("")
    _, named = check_files(file, {"issuers": [{"jwks_file": "keys\0.json"}]}, tmp_path)
    assert (named.level, named.text) == (Level.WARNING, "cannot be read: not a path")


def test_permissions_are_not_checked_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "name", "nt")
    assert levels(check_files(tmp_path / "scopeguard.toml", {}, tmp_path)) == [Level.SKIPPED]


# -- proxies


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (ServerAddress(host="127.0.0.1"), [(Level.OK, "trusted proxies: none")]),
        (ServerAddress(host="0.0.0.0", trusted=("10.0.0.0/8",)), [(Level.OK, "10.0.0.0/8")]),
        (ServerAddress(host=None, trusted=("unix",)), [(Level.OK, "Unix socket")]),
        (ServerAddress(host="0.0.0.0"), [(Level.WARNING, "can read tokens")]),
        (ServerAddress(host="0.0.0.0", needs_https=True), [(Level.ERROR, "refuses every token")]),
        (ServerAddress(host=None), [(Level.WARNING, "no client address")]),
        (ServerAddress(host=None, trusted=("10.0.0.7",)), [(Level.WARNING, "no trusted proxy is named unix")]),
        (ServerAddress(host="0.0.0.0", trusted=("unix",)), [(Level.WARNING, "without a Unix socket")]),
        (
            ServerAddress(host="127.0.0.1", trusted=("10.0.0.7", "127.0.0.1")),
            [(Level.WARNING, "10.0.0.7/32 cannot reach")],
        ),
        (ServerAddress(host="0.0.0.0", trusted=("0.0.0.0/0",)), [(Level.ERROR, "any sender")]),
        (ServerAddress(host="::", trusted=("2000::/3",)), [(Level.WARNING, "any sender")]),
    ],
)
def test_proxies_are_compared_with_the_address(server: ServerAddress, expected: list[tuple[Level, str]]):
    findings = check_server(server)
    assert levels(findings) == [level for level, _ in expected]
    for finding, (_, words) in zip(findings, expected, strict=True):
        assert words in finding.text


def test_trusted_proxies_of_certificates_are_checked_alike():
    [finding] = check_trusted("server", "mutual_tls.trusted_proxies", ["::/0"])
    assert (finding.level, finding.text.partition(":")[0]) == (Level.ERROR, "mutual_tls.trusted_proxies ")


# -- versions


@pytest.mark.parametrize(
    ("running", "today", "level"),
    [
        ((3, 12), date(2026, 11, 29), Level.OK),
        ((3, 11), date(2027, 9, 1), Level.WARNING),
        ((3, 11), date(2027, 11, 1), Level.ERROR),
        ((3, 99), date(2026, 11, 29), Level.WARNING),
    ],
)
def test_python_is_compared_with_its_schedule(running: tuple[int, int], today: date, level: Level):
    assert check_python(running, today).level is level


def test_every_tested_python_has_an_end():
    assert set(TESTED) <= set(PYTHON_ENDS)


def test_versions_before_a_fix_are_warnings_that_name_all_advisories():
    clean, old = check_versions({"h11": "0.16.0", "pyjwt": "2.10.1"})
    assert clean.level is Level.OK
    assert "h11 0.16.0" in clean.text
    assert old.level is Level.WARNING
    assert "CVE-2026-32597" in old.text
    assert "CVE-2026-48523" in old.text
    assert old.fix == "update to 2.13.0 or newer"
    assert known_advisories("pyjwt", "2.13.0") == []


def test_the_table_has_well_formed_rows():
    for advisory in ADVISORIES:
        assert release(advisory.fixed)
        assert advisory.identifier.startswith(("CVE-", "PYSEC-", "GHSA-"))
    assert {advisory.package for advisory in ADVISORIES} <= set(installed_versions())


@pytest.mark.parametrize(("text", "numbers"), [("2.13.0", (2, 13, 0)), ("3.0.1rc1", (3, 0, 1)), ("unknown", ())])
def test_release_numbers_are_read(text: str, numbers: tuple[int, ...]):
    assert release(text) == numbers
