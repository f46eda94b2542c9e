"""The whole examination: with a fake authorization server and its faults, and over real connections."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from loopback import Certificates, Loopback, answer_with, json_response, response
from redis_server import RedisServer
from scopeguard import ApiKeys, Guard
from scopeguard.cli.commands import cli
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.doctor.examination import Request, examine
from scopeguard.doctor.finding import Diagnosis, Finding, Level
from scopeguard.doctor.report import as_json, as_text
from scopeguard.doctor.store import PERMISSIONS, check_facts, check_store, check_url
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import engine_of
from scopeguard.reasons import Reason
from scopeguard.stores.memory import MemoryStore
from scopeguard.stores.redis import RedisStore
from scopeguard.stores.redis_facts import ServerFacts
from scopeguard.stores.redis_servers import Kind
from scopeguard.testing import FakeAuthority

SECRET = "sg-secret-api"
SETTINGS = """
resource = "https://api.test"
public = ["/healthz"]

[[issuers]]
url = "https://as.test"
"""
INTROSPECTION = """validate = "auto"
[issuers.introspection]
client_id = "api"
client_secret = "{secret}"
"""


class Doctor:
    """Examines a file in *folder* with the fake *authority*."""

    def __init__(self, folder: Path) -> None:
        self.authority = FakeAuthority()
        self.file = folder / "scopeguard.toml"

    def examine(self, settings: str = SETTINGS, *, arguments: Any = None, **request: Any) -> Diagnosis:
        self.file.write_text(settings, "utf-8")
        self.file.chmod(0o600)
        overrides = {"transport": self.authority.transport, "clock": self.authority.clock, **(arguments or {})}
        return examine(Request(file=str(self.file), overrides=overrides, **request))

    def find(self, check: str, settings: str = SETTINGS, **request: Any) -> list[Finding]:
        return [finding for finding in self.examine(settings, **request).findings if finding.check == check]

    def one(self, check: str, settings: str = SETTINGS, **request: Any) -> Finding:
        [finding] = self.find(check, settings, **request)
        return finding

    def date(self, offset: float = 0.0) -> Answer:
        """The key set, with the date of a server whose clock is *offset* seconds ahead."""
        keys = self.authority.authority.keys.key_set(self.authority.clock.wall())
        date = format_datetime(datetime.fromtimestamp(self.authority.clock.wall() + offset, UTC), usegmt=True)
        return Answer(200, json.dumps(keys).encode(), {"content-type": "application/json", "date": date})


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


# -- the authorization server


def test_healthy_server_has_no_problem(doctor: Doctor):
    findings = [f for f in doctor.examine().findings if f.subject == "https://as.test"]
    assert [(finding.check, finding.level) for finding in findings] == [
        ("connection", Level.OK),
        ("metadata", Level.OK),
        ("keys", Level.OK),
        ("clock", Level.SKIPPED),
    ]
    assert "https://as.test/.well-known/oauth-authorization-server names exactly this issuer" in findings[1].text
    assert doctor.authority.key().kid in findings[2].text


@pytest.mark.rule("A-20")
@pytest.mark.parametrize(
    ("listed", "levels"),
    [
        (["https://other.test"], [Level.OK, Level.WARNING]),
        ([], [Level.OK, Level.WARNING]),
        (["https://other.test", "https://api.test"], [Level.OK]),
        ("https://other.test", [Level.OK]),  # not a list, so it says nothing
    ],
)
def test_resource_that_the_authorization_server_does_not_list_is_a_warning(
    doctor: Doctor, listed: Any, levels: list[Level]
):
    metadata = {"issuer": "https://as.test", "jwks_uri": "https://as.test/jwks", "protected_resources": listed}
    answer = Answer(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    with doctor.authority.mode("metadata", answer):
        findings = [f for f in doctor.find("metadata") if f.subject == "https://as.test"]
        assert [finding.level for finding in findings] == levels
        unnamed = SETTINGS.replace("resource = ", "realm = ") + 'audience = "https://api.test"\n'
        assert [f.level for f in doctor.find("metadata", unnamed) if f.subject == "https://as.test"] == [Level.OK]
    if Level.WARNING in levels:
        assert "does not list https://api.test" in findings[1].text


def test_metadata_without_keys_are_named_although_the_search_went_on(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    send, place = doctor.authority.transport.send, "https://as.test/.well-known/oauth-authorization-server"
    metadata = {"issuer": "https://as.test", "protected_resources": ["https://other.test"]}

    def publish(request: Send, /) -> Answer:
        if request.url == place:
            return Answer(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
        if "/.well-known/" in request.url:
            return Answer(404, b"<html>", {"content-type": "text/html"})
        return send(request)

    monkeypatch.setattr(doctor.authority.transport, "send", publish)
    findings = [f for f in doctor.examine().findings if f.subject == "https://as.test"]
    found = [(finding.check, finding.level) for finding in findings]
    assert found[1:4] == [("metadata", Level.OK), ("metadata", Level.WARNING), ("keys", Level.ERROR)]
    assert findings[1].text == f"{place} names exactly this issuer"


def test_unreachable_server_is_one_error(doctor: Doctor):
    with doctor.authority.outage():
        findings = [f for f in doctor.examine().findings if f.subject == "https://as.test"]
    assert [(finding.check, finding.level) for finding in findings] == [
        ("connection", Level.ERROR),
        ("metadata", Level.SKIPPED),
        ("keys", Level.SKIPPED),
    ]


def test_server_that_answers_503_is_reached_and_is_an_error(doctor: Doctor):
    with doctor.authority.outage("unavailable"):
        findings = [f for f in doctor.examine().findings if f.subject == "https://as.test"]
    assert [finding.level for finding in findings if finding.check == "connection"] == [Level.OK]
    errors = [finding for finding in findings if finding.level is Level.ERROR]
    assert {finding.check for finding in errors} == {"metadata", "keys"}
    assert all("status 503" in finding.text for finding in errors)


def test_slow_server_is_an_error_beyond_the_timeout(doctor: Doctor):
    with doctor.authority.slow(60):
        finding = doctor.one("connection")
    assert finding.level is Level.ERROR
    assert "authority_timed_out" in finding.text
    assert finding.fix is not None
    assert "key_set.timeout" in finding.fix


@pytest.mark.parametrize(
    ("endpoint", "mode", "words"),
    [
        ("metadata", "wrong_issuer", "must be exactly equal"),
        ("metadata", "garbage", "authority_answer_invalid"),
        ("metadata", "redirect", "no metadata at"),
        ("metadata", "oversize", "larger than"),
        ("jwks", "garbage", "content type"),
        ("jwks", "truncated", "not a JWK Set"),
        ("jwks", "empty", "not a JWK Set"),
        ("jwks", "server_error", "status 500"),
        ("jwks", "redirect", "status 302"),
    ],
)
def test_each_fault_is_an_error_with_its_cause(doctor: Doctor, endpoint: str, mode: str, words: str):
    with doctor.authority.mode(endpoint, mode):
        findings = doctor.find("metadata" if endpoint == "metadata" else "keys")
    finding = next(f for f in findings if f.subject == "https://as.test")
    assert finding.level is Level.ERROR
    assert words in finding.text


def test_keys_for_no_accepted_algorithm_are_an_error(doctor: Doctor):
    finding, _ = doctor.find("keys", SETTINGS + 'algorithms = ["RS512"]\n')
    assert finding.level is Level.ERROR
    assert "every token is refused" in finding.text


@pytest.mark.parametrize(("offset", "level"), [(0, Level.OK), (15, Level.WARNING), (300, Level.ERROR)])
def test_clock_is_compared_with_the_date_of_the_answers(doctor: Doctor, offset: float, level: Level):
    with doctor.authority.mode("jwks", doctor.date(offset)):
        assert doctor.one("clock").level is level


def test_keys_and_urls_in_the_settings_need_no_metadata(doctor: Doctor):
    assert doctor.find("metadata", SETTINGS + 'jwks_uri = "https://as.test/jwks"\n')[0].text.startswith("not needed")
    keys = json.dumps(doctor.authority.authority.keys.key_set(0)["keys"][0]).replace(":", " =").replace('" =', '" = ')
    settings = SETTINGS + f"keys = {{ keys = [{keys}] }}\n"
    assert "the setting keys" in doctor.find("keys", settings)[0].text
    assert "the setting keys" not in str(doctor.find("metadata", settings)[0])


@pytest.mark.parametrize(
    ("named", "levels"),
    [
        ("https://as.test/jwks", [Level.OK, Level.OK]),
        ("https://as.test/keys/2", [Level.OK, Level.WARNING]),
        (None, [Level.OK]),
    ],
)
def test_jwks_uri_is_compared_with_that_of_the_metadata(doctor: Doctor, named: str | None, levels: list[Level]):
    settings = SETTINGS + 'jwks_uri = "https://as.test/jwks"\n'
    metadata = {"issuer": "https://as.test", **({} if named is None else {"jwks_uri": named})}
    answer = Answer(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    with doctor.authority.mode("metadata", answer):
        findings = [f for f in doctor.find("metadata", settings) if f.subject == "https://as.test"]
    assert [finding.level for finding in findings] == levels
    if Level.WARNING in levels:
        assert "jwks_uri is https://as.test/jwks, and the metadata names https://as.test/keys/2" in findings[1].text


def test_jwks_uri_of_a_server_without_metadata_is_no_problem(doctor: Doctor):
    with doctor.authority.mode("metadata", Answer(404, b"", {})):
        findings = doctor.examine(SETTINGS + 'jwks_uri = "https://as.test/jwks"\n').findings
    about = [(f.check, f.level) for f in findings if f.subject == "https://as.test"]
    assert about == [
        ("connection", Level.OK),
        ("metadata", Level.OK),
        ("keys", Level.OK),
        ("clock", Level.SKIPPED),
    ]


def test_file_of_keys_that_does_not_exist_is_an_error(doctor: Doctor):
    finding = doctor.find("keys", SETTINGS + 'jwks_file = "keys.json"\n')[0]
    assert finding.level is Level.ERROR
    assert "keys.json: No such file" in finding.text


def test_keys_that_are_fetched_one_by_one_are_tried_with_an_unknown_name(doctor: Doctor):
    settings = SETTINGS + 'key_url_template = "https://as.test/keys/{kid}"\n'
    assert doctor.find("keys", settings)[0].level is Level.OK
    with doctor.authority.outage("unavailable"):
        assert doctor.find("keys", settings)[0].level is Level.ERROR


# -- introspection


def test_introspection_credentials_are_tried_with_a_made_up_token(doctor: Doctor):
    finding = doctor.one("introspection", SETTINGS + INTROSPECTION.format(secret=doctor.authority.api.secret))
    assert (finding.level, finding.text) == (Level.OK, "the credentials are accepted (client_secret_basic)")
    [sent] = [send for send in doctor.authority.transport.sends if send.form]
    assert dict(sent.form or ())["token"].startswith("scopeguard-doctor-")


def test_wrong_introspection_credentials_are_an_error(doctor: Doctor):
    finding = doctor.one("introspection", SETTINGS + INTROSPECTION.format(secret="wrong"))
    assert finding.level is Level.ERROR
    assert "refuses the credentials" in finding.text
    assert finding.fix == "check client_id, the secret or key, and auth"


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (Answer(400, b"{}", {"content-type": "application/json"}), Level.WARNING, "made-up token with 400"),
        (Answer(403, b"", {}), Level.ERROR, "not allowed to introspect"),
        (Answer(200, b'{"active": true}', {"content-type": "application/json"}), Level.ERROR, "accept any token"),
        (Answer(500, b"", {}), Level.ERROR, "status 500"),
        (Answer(400, b'{"error": "invalid_client"}', {"content-type": "application/json"}), Level.ERROR, "status 400"),
    ],
)
def test_each_introspection_answer_has_its_finding(doctor: Doctor, answer: Answer, level: Level, words: str):
    with doctor.authority.mode("introspection", answer):
        finding = doctor.one("introspection", SETTINGS + INTROSPECTION.format(secret=SECRET))
    assert finding.level is level
    assert words in finding.text


def test_missing_introspection_endpoint_is_an_error(doctor: Doctor):
    metadata = {"issuer": "https://as.test", "jwks_uri": "https://as.test/jwks"}
    answer = Answer(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    with doctor.authority.mode("metadata", answer):
        finding = doctor.one("introspection", SETTINGS + INTROSPECTION.format(secret=SECRET))
    assert finding.level is Level.ERROR
    assert "introspection_endpoint" in finding.text


def test_opaque_tokens_only_need_no_keys(doctor: Doctor):
    settings = SETTINGS + INTROSPECTION.replace("auto", "introspection").format(secret=doctor.authority.api.secret)
    findings = doctor.examine(settings).findings
    assert [f.text for f in findings if f.check == "keys"] == ["not needed: every token is introspected"]
    assert any("names exactly this issuer" in finding.text for finding in findings)


# -- the file, the resource, the rules


def test_mistake_in_the_file_is_an_error_and_ends_the_examination(doctor: Doctor):
    diagnosis = doctor.examine(SETTINGS + 'audiense = "x"\n')
    assert diagnosis.findings[-1].check == "settings"
    assert diagnosis.findings[-1].level is Level.ERROR
    assert "did you mean audience?" in diagnosis.findings[-1].text
    assert diagnosis.status(strict=False) == 1


def test_file_that_does_not_exist_is_an_error(tmp_path: Path):
    diagnosis = examine(Request(file=str(tmp_path / "none.toml")))
    assert "cannot be read" in diagnosis.findings[-1].text


def test_dangerous_settings_are_warnings(doctor: Doctor):
    finding = doctor.find("settings", "forward_token_dangerously = true\n" + SETTINGS)[-1]
    assert finding.level is Level.WARNING
    assert "forward_token_dangerously" in finding.text


def test_metadata_of_the_api_are_compared_with_the_published_ones(doctor: Doctor):
    url = "https://api.test/.well-known/oauth-protected-resource"
    assert f"{url} names https://as.test" in next(
        f.text for f in doctor.examine().findings if (f.subject, f.check) == ("resource", "metadata")
    )
    assert doctor.one("published").level is Level.WARNING  # the fake server is not at that URL


@pytest.fixture(scope="module")
def devserver() -> Iterator[DevServer]:
    client = Client(client_id="api", secret=SECRET, introspects=("http://127.0.0.1:1",))
    with DevServer(Authority(audience="http://127.0.0.1:1", clients=[client], keys=KeyRing("ES256"))) as server:
        yield server


def examine_published(document: object, devserver: DevServer, tmp_path: Path) -> Finding:
    """Return the finding about an API that publishes *document*, with the names of the configuration in it."""
    with Loopback(lambda connection, request: None) as api:
        resource = f"{api.url}/v1"
        text = json.dumps(document).replace("API", resource).replace("AS", devserver.url)
        api.respond = answer_with(
            response(status="404 Not Found") if document is None else json_response(json.loads(text))
        )
        file = tmp_path / "scopeguard.toml"
        file.write_text(f'resource = "{resource}"\n[[issuers]]\nurl = "{devserver.url}"\n', "utf-8")
        return next(f for f in examine(Request(file=str(file))).findings if f.check == "published")


@pytest.mark.parametrize(
    ("document", "level", "words"),
    [
        ({"resource": "API", "authorization_servers": ["AS"]}, Level.OK, "is what this configuration serves"),
        ({"resource": "https://other.test"}, Level.WARNING, "names the resource 'https://other.test'"),
        (["not metadata"], Level.WARNING, "names the resource None"),
        (None, Level.WARNING, "answers 404, without metadata"),
        ({"resource": "API", "authorization_servers": []}, Level.WARNING, "does not name the authorization servers"),
    ],
)
def test_published_metadata_that_differ_are_a_warning(
    devserver: DevServer, tmp_path: Path, document: object, level: Level, words: str
):
    finding = examine_published(document, devserver, tmp_path)
    assert (finding.level, words in finding.text) == (level, True), finding


def test_published_document_that_is_nested_too_deeply_is_a_warning(devserver: DevServer, tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    with Loopback(answer_with(response(b"[" * 100_000))) as api:
        file.write_text(f'resource = "{api.url}"\n[[issuers]]\nurl = "{devserver.url}"\n', "utf-8")
        (finding,) = [f for f in examine(Request(file=str(file))).findings if f.check == "published"]
    assert (finding.level, "names the resource None" in finding.text) == (Level.WARNING, True)


def test_file_without_rules_is_a_warning(doctor: Doctor):
    assert doctor.one("rules").level is Level.WARNING
    rules = SETTINGS + '[[rules]]\npath = "/tables"\nany_of = ["read"]\n'
    assert doctor.one("rules", rules).text == "2 rules; everything else is denied"
    app = Starlette(routes=[Route("/rows", lambda request: Response())])
    assert doctor.one("rules", app=app, target="my:app").level is Level.OK  # the audit says what is open


def test_app_is_audited(doctor: Doctor):
    rules = SETTINGS + '[[rules]]\npath = "/tables"\nany_of = ["read"]\n'
    app = Starlette(routes=[Route("/rows", lambda request: Response())])
    finding = doctor.one("audit", rules, app=app, target="my:app")
    assert finding.text.startswith("my:app: ")
    assert finding.level is Level.ERROR
    assert finding.fix == f"see scopeguard audit my:app --config {doctor.file}"
    good = [Route(path, lambda request: Response()) for path in ("/tables", "/healthz")]
    assert doctor.one("audit", rules, app=Starlette(routes=good), target="my:app").level is Level.OK
    query = rules + 'token_sources = ["query"]\n'
    assert doctor.one("audit", query, app=Starlette(routes=good), target="my:app").level is Level.WARNING


def test_everyone_as_a_trusted_proxy_of_certificates_is_an_error(doctor: Doctor):
    mutual_tls = 'mutual_tls = { source = "nginx", trusted_proxies = ["0.0.0.0/0"] }\n'
    finding = doctor.find("proxies", mutual_tls + SETTINGS)[-1]
    assert finding.level is Level.ERROR
    assert finding.text.startswith("mutual_tls.trusted_proxies 0.0.0.0/0")


def test_required_https_without_a_proxy_is_an_error(doctor: Doctor):
    finding = doctor.one("proxies", "require_https = true\n" + SETTINGS, host="0.0.0.0")
    assert finding.level is Level.ERROR


def test_offline_sends_nothing_and_says_what_is_skipped(doctor: Doctor):
    diagnosis = doctor.examine(SETTINGS + INTROSPECTION.format(secret=SECRET), offline=True)
    assert doctor.authority.requests == []
    assert {(f.subject, f.check) for f in diagnosis.findings if f.level is Level.SKIPPED} == {
        ("https://as.test", "network"),
        ("resource", "published"),
    }


# -- policy decision points

DECIDE = """
[authzen]
url = "https://pdp.example.com"
{extra}
[[rules]]
path = "/tables"
any_of = ["read"]
decide = true
"""


def decision_point_findings(doctor: Doctor, answer: Answer | None, extra: str = "") -> dict[str, Finding]:
    """Return the findings about the decision point. Without an *answer*, it cannot be reached."""

    class Both:
        def send(self, request: Send, /) -> Answer:
            if not request.url.startswith("https://pdp.example.com/"):
                return doctor.authority.transport.send(request)
            assert request.url.endswith("/.well-known/authzen-configuration")  # and no evaluation request
            if answer is None:
                raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, url=request.url)
            return answer

        def close(self) -> None:
            pass

    doctor.file.write_text(SETTINGS + DECIDE.format(extra=extra), "utf-8")
    found = examine(Request(file=str(doctor.file), overrides={"transport": Both()}))
    return {finding.check: finding for finding in found.findings if finding.subject == "https://pdp.example.com"}


def test_decision_point_is_reached_without_an_evaluation(doctor: Doctor):
    found = decision_point_findings(doctor, Answer(404, b"", {}))
    assert {check: finding.level for check, finding in found.items()} == {"connection": Level.OK}


def test_decision_point_that_cannot_be_reached_is_an_error(doctor: Doctor):
    for extra in ("", "discover = true"):
        found = decision_point_findings(doctor, None, extra)
        assert {check: finding.level for check, finding in found.items()} == {"connection": Level.ERROR}


@pytest.mark.parametrize(
    ("name", "level"), [("https://pdp.example.com", Level.OK), ("https://other.example.com", Level.ERROR)]
)
def test_metadata_of_a_decision_point_are_read_where_they_are_used(doctor: Doctor, name: str, level: Level):
    members = {"policy_decision_point": name, "access_evaluation_endpoint": "https://pdp.example.com/evaluate"}
    answer = Answer(200, json.dumps(members).encode(), {"content-type": "application/json"})
    assert decision_point_findings(doctor, answer, "discover = true")["metadata"].level is level


# -- output


def test_outputs_name_every_finding_and_no_secret(doctor: Doctor):
    settings = SETTINGS + INTROSPECTION.format(secret="sg-secret-that-is-wrong")
    diagnosis = doctor.examine(settings)
    text, document = as_text(diagnosis), as_json(diagnosis)
    for finding in diagnosis.findings:
        assert finding.text in text
        assert finding.fix is None or f"fix: {finding.fix}" in text
    assert len(document["findings"]) == len(diagnosis.findings) == sum(document["summary"].values())
    assert "sg-secret" not in text + json.dumps(document)
    assert re.search(r": \d+ ok, \d warnings, 1 error, 1 skipped\. Advisories as known on \d{4}-\d\d-\d\d\.", text)


def test_command_prints_json_and_exits_by_the_findings(devserver: DevServer, tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    issuer = f'[[issuers]]\nurl = "{devserver.url}"\naudience = "http://127.0.0.1:1"\n'
    file.write_text(issuer + INTROSPECTION.format(secret=SECRET), "utf-8")
    file.chmod(0o600)
    run = CliRunner().invoke(cli, ["doctor", "--config", str(file), "--json"])
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    found = {(f["subject"], f["check"]): f for f in document["findings"]}
    assert found[devserver.url, "clock"]["level"] == "ok"
    assert found[devserver.url, "introspection"]["level"] == "ok"
    assert "127.0.0.1 in " in found[devserver.url, "connection"]["text"]
    assert CliRunner().invoke(cli, ["doctor", "--config", str(file), "--strict", "--offline"]).exit_code == 1
    file.write_text(issuer + INTROSPECTION.format(secret="wrong"), "utf-8")
    assert CliRunner().invoke(cli, ["doctor", "--config", str(file)]).exit_code == 1


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def connection(tls: ssl.SSLContext, tmp_path: Path, *, ca: Path | None, name: str = "localhost") -> Finding:
    """Return the finding about the connection to a server with *tls*, whose key set is an empty document."""
    with Loopback(answer_with(json_response({})), tls=tls, name=name) as server:
        file = tmp_path / "scopeguard.toml"
        issuer = f'[[issuers]]\nurl = "{server.url}"\naudience = "api"\njwks_uri = "{server.url}/jwks"\n'
        file.write_text(issuer + (f'[transport]\nca_file = "{ca}"\n' if ca else ""), "utf-8")
        found = examine(Request(file=str(file)))
        return next(f for f in found.findings if f.check == "connection")


def test_connection_names_tls_version_and_end_of_the_certificate(certificates: Certificates, tmp_path: Path):
    finding = connection(certificates.server(), tmp_path, ca=certificates.bundle)
    assert finding.level is Level.WARNING  # the certificate ends tomorrow
    assert "TLSv1.3 in " in finding.text
    assert "(0 days)" in finding.text
    assert finding.fix is not None
    assert finding.fix.startswith("renew the certificate")


@pytest.mark.parametrize(
    ("options", "trusted", "fix"),
    [
        ({"expired": True}, True, "renew the certificate"),
        ({"name": "other.test"}, True, "use a host name"),
        ({}, False, "set ca_file"),
        ({"self_signed": True}, True, "set ca_file"),
    ],
)
def test_wrong_certificate_is_an_error_with_its_fix(
    certificates: Certificates, tmp_path: Path, options: dict[str, Any], trusted: bool, fix: str
):
    finding = connection(certificates.server(**options), tmp_path, ca=certificates.bundle if trusted else None)
    assert finding.level is Level.ERROR
    assert finding.fix is not None
    assert finding.fix.startswith(fix), finding


# -- Redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def store_findings(doctor: Doctor, url: str, extra: str = "") -> dict[str, Finding]:
    settings = f'{extra}\n{SETTINGS}\n[store]\nredis = "{url}"\ntimeout = 5\n'
    return {f.check: f for f in doctor.examine(settings).findings if f.subject == "store"}


def test_store_is_used_as_a_guard_would(doctor: Doctor, redis: RedisServer):
    found = store_findings(doctor, redis.url, 'dpop = "required"')
    assert [*found] == ["url", "connection", "version", "role", "memory", "clock"]
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found["version"].text.startswith(("Redis", "Valkey"))
    assert "appendonly is off" in found["memory"].text
    assert all(0 < left <= 1000 for _, left in redis.dump().values())


@pytest.mark.parametrize("extra", ["", 'dpop = "required"'], ids=["without proofs", "with proofs"])
def test_proof_is_remembered_only_where_proofs_are_checked(
    doctor: Doctor, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, extra: str
):
    claimed: list[float] = []

    def claim(store: RedisStore, identity: bytes, owner: str, /, **limits: Any) -> str:
        claimed.append(limits["seconds"])
        return "new"

    monkeypatch.setattr(RedisStore, "claim", claim)
    store_findings(doctor, redis.url, extra)
    assert claimed == ([1] if extra else [])


def test_eviction_is_an_error_where_used_proofs_are_remembered(doctor: Doctor, redis: RedisServer):
    with redis.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert store_findings(doctor, redis.url)["memory"].level is Level.WARNING
        finding = store_findings(doctor, redis.url, 'dpop = "required"')["memory"]
    finally:
        with redis.client() as client:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert (finding.level, finding.fix) == (Level.ERROR, "set maxmemory-policy noeviction in Redis")


def test_wrong_password_is_an_error_that_does_not_show_it(doctor: Doctor, redis: RedisServer):
    with redis.client() as client:
        client.config_set("requirepass", "right")  # this connection stays open, and needs no password
        try:
            found = store_findings(doctor, redis.url.replace("//", "//:sg-secret-wrong@"))["connection"]
        finally:
            client.config_set("requirepass", "")
    assert found.level is Level.ERROR
    assert found.fix == "correct the user and password in the URL of the store"
    assert "sg-secret" not in repr(found)


def test_user_with_the_permissions_that_doctor_names_can_do_everything(doctor: Doctor, redis: RedisServer):
    def set_commands(*commands: str) -> RedisStore:
        with redis.client() as client:
            client.execute_command("ACL", "SETUSER", "api", "reset", "on", ">sg-secret", "~scopeguard:*", *commands)
        return RedisStore(redis.url.replace("//", "//api:sg-secret@"), timeout=5)

    commands = [word.strip(",") for word in PERMISSIONS.split() if word.startswith("+")]
    try:
        for fewer in (commands, [name for name in commands if name != "+zcount"], ["+ping"]):
            set_commands(*fewer)
            url = redis.url.replace("//", "//api:sg-secret@")
            found = store_findings(doctor, url, 'dpop = "required"')
            if fewer is commands:
                assert {finding.level for finding in found.values()} == {Level.OK}
            else:
                assert str(found["connection"].fix).startswith(PERMISSIONS)
            assert "sg-secret" not in repr(found)
        store = set_commands(*commands)
        store.append(b"revoked", seconds=1)
        assert store.read(None)[1] == [b"revoked"]
        claim = partial(store.claim, b"proof", "key", holder="me", seconds=1, total=9, per_owner=9, per_holder=9)
        assert (claim(), claim()) == ("new", "used")
        store.close()
    finally:
        with redis.client() as client:
            client.execute_command("ACL", "DELUSER", "api")


def test_each_permission_that_doctor_names_is_needed(redis: RedisServer):
    store = RedisStore(redis.url.replace("//", "//api:sg-secret@"), timeout=5)

    def use_everything() -> None:
        store.put("answer", b"value", seconds=1)
        store.get("answer")
        store.append(b"revoked", seconds=1)
        store.read(None)
        store.claim(b"proof", "key", holder="me", seconds=1, total=1, per_owner=9, per_holder=9)
        store.facts()

    def is_refused(commands: set[str]) -> bool:
        with redis.client() as client:
            client.flushall()
            client.zadd("scopeguard:{proofs}:all", {"expired": 1})
            client.execute_command("ACL", "SETUSER", "api", "reset", "on", ">sg-secret", "~scopeguard:*", *commands)
        try:
            use_everything()
        except AuthorityUnavailable:
            return True
        return False

    commands = {word.strip(",") for word in PERMISSIONS.split() if word.startswith("+")}
    try:
        assert not is_refused(commands)
        assert {name for name in commands if is_refused(commands - {name})} == commands
    finally:
        with redis.client() as client:
            client.execute_command("ACL", "DELUSER", "api")
        store.close()


def test_store_that_is_down_is_an_error(doctor: Doctor):
    finding = store_findings(doctor, "redis://127.0.0.1:1/0")["connection"]
    assert (finding.level, finding.text) == (Level.ERROR, "the store cannot be used: ConnectionError")


@pytest.mark.parametrize(
    ("url", "level", "words"),
    [
        ("redis://redis.test:6379/0", Level.WARNING, "redis.test is reached in cleartext"),
        ("redis+sentinel://127.0.0.1,redis.test/tokens", Level.WARNING, "redis.test are reached in cleartext"),
        ("rediss+cluster://a.test,b.test", Level.WARNING, "a.test, b.test are reached without a password"),
        ("rediss://redis.test:6379/0", Level.WARNING, "without a password"),
        ("rediss://:password@redis.test:6379/0", Level.OK, "with TLS and a password"),
        ("unix:///run/redis.sock", Level.OK, "on this machine"),
    ],
)
def test_url_of_the_store_is_checked(doctor: Doctor, url: str, level: Level, words: str):
    finding = check_url(RedisStore(url, replicas=0))
    assert finding.level is level
    assert words in finding.text


FACTS: dict[str, Any] = {
    "product": "Redis", "version": "7.0.15", "role": "master", "is_cluster": False, "replicas": 0,
    "policy": "noeviction", "max_memory": 0, "is_append_only": True, "time": 1000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("different", "check", "level"),
    [
        ({"version": "6.0.16"}, "version", Level.ERROR),
        ({"version": "6.\u00b2"}, "version", Level.ERROR),
        ({"role": "slave"}, "role", Level.ERROR),
        ({"is_cluster": True}, "role", Level.ERROR),
        ({"time": 1010.0}, "clock", Level.WARNING),
        ({"time": 990.0}, "clock", Level.WARNING),
        ({"policy": "volatile-ttl", "max_memory": 1}, "memory", Level.ERROR),
    ],
)
def test_each_fact_has_its_finding(different: dict[str, Any], check: str, level: Level):
    good = check_facts([ServerFacts(**FACTS)], 1000.0, claims=True)
    assert {finding.level for finding in good} == {Level.OK}
    servers = [ServerFacts(**FACTS), ServerFacts(**{**FACTS, **different}), ServerFacts(**FACTS)]
    found = {f.check: f.level for f in check_facts(servers, 1000.0, claims=True)}
    assert found == {**{f.check: Level.OK for f in good}, check: level}


@pytest.mark.parametrize(
    ("kind", "found", "replicas", "claims", "level", "words"),
    [
        (Kind.CLUSTER, 1, 0, True, Level.WARNING, "node:1 has 1 replica, and none confirms used proofs"),
        (Kind.CLUSTER, 1, 0, False, Level.OK, "node:1 has 1 replica; 0 must confirm"),
        (Kind.CLUSTER, 1, 1, True, Level.OK, "node:1 has 1 replica; 1 must confirm"),
        (Kind.SENTINEL, 2, 1, True, Level.OK, "2 replicas, of which 1 must confirm"),
        (Kind.SENTINEL, 0, 0, True, Level.WARNING, "0 replicas, and none confirms"),
        (Kind.SERVER, 0, 1, True, Level.ERROR, "0 replicas, and 1 must confirm"),
        (Kind.SERVER, 1, 0, True, None, ""),
    ],
)
def test_replicas_must_be_able_to_confirm(
    kind: Kind, found: int, replicas: int, claims: bool, level: Level | None, words: str
):
    facts = ServerFacts(**{**FACTS, "name": "node:1", "is_cluster": kind is Kind.CLUSTER, "replicas": found})
    findings = {f.check: f for f in check_facts([facts], 1000.0, claims=claims, kind=kind, replicas=replicas)}
    finding = findings.get("replicas")
    assert (finding and finding.level) == level
    assert finding is None or words in finding.text
    assert findings["role"].level is Level.OK


def test_other_store_is_not_checked(tmp_path: Path):
    authority = FakeAuthority()
    guard = Guard(authority.issuer, store=MemoryStore(authority.clock), transport=authority.transport)
    [finding] = check_store(engine_of(guard), authority.clock.monotonic)
    assert finding.level is Level.SKIPPED


# -- API keys

KEYS = SETTINGS.replace('public = ["/healthz"]', '[api_keys]\nprefix = "acme"\nkeys_file = "keys.toml"')
KEY_RULE = '\n[[rules]]\npath = "/rows"\nauthenticated = true\ntoken_sources = ["api_key"]\n'


def key_entry(letter: str, expires_at: str, more: str = "") -> str:
    table = f'[[keys]]\nid = "{letter * 16}"\nsha256 = "{"0" * 64}"\nsubject = "alice"\nexpires_at = {expires_at}\n'
    return table + more


def key_findings(diagnosis: Diagnosis) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in diagnosis.findings if finding.subject == "API keys"]


def test_file_of_api_keys_is_read(doctor: Doctor, tmp_path: Path):
    soon = datetime.fromtimestamp(doctor.authority.clock.wall() + 86400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    past = "1990-01-01T00:00:00Z"
    file = tmp_path / "keys.toml"
    file.write_text(
        key_entry("a", '"never"')
        + key_entry("b", soon)
        + key_entry("c", past)
        + key_entry("d", soon, "revoked = true\n")
    )
    file.chmod(0o644)
    diagnosis = doctor.examine(KEYS + KEY_RULE)
    assert key_findings(diagnosis) == [
        (Level.OK, "4 in the file, 2 of them valid"),
        (Level.WARNING, f"never expire: {'a' * 16}"),
        (Level.WARNING, f"expire within 14 days: {'b' * 16}"),
    ]
    (permissions,) = [finding for finding in diagnosis.findings if "keys.toml" in finding.subject]
    assert "every user of this machine can read the secret of api_keys.keys_file" in permissions.text


def test_long_list_of_endless_keys_is_cut(doctor: Doctor, tmp_path: Path):
    (tmp_path / "keys.toml").write_text("".join(key_entry(letter, '"never"') for letter in "abcdefg"))
    assert key_findings(doctor.examine(KEYS + KEY_RULE))[1][1].endswith(f"{'e' * 16} and 2 more")


def test_file_of_api_keys_with_a_mistake_is_an_error(doctor: Doctor, tmp_path: Path):
    (tmp_path / "keys.toml").write_text("[[keys]]\n")
    ((level, text),) = key_findings(doctor.examine(KEYS + KEY_RULE))
    assert (level, text) == (Level.ERROR, "[[keys]] 1: expires_at is missing")


def test_keys_that_no_rule_accepts_are_a_warning(doctor: Doctor, tmp_path: Path):
    (tmp_path / "keys.toml").write_text("")
    assert key_findings(doctor.examine(KEYS))[0] == (Level.WARNING, "no rule accepts API keys")


def test_keys_behind_a_function_are_not_looked_up(doctor: Doctor):
    keys = ApiKeys(prefix="acme", lookup=lambda _: None)
    diagnosis = doctor.examine(SETTINGS, arguments={"api_keys": keys, "token_sources": ["header", "api_key"]})
    assert key_findings(diagnosis) == [(Level.SKIPPED, "not checked: a function looks them up")]
