"""Internal networks: an authorization server over http, a private certificate authority, an outbound proxy.

Kinds: a URL that is http is refused unless its host and port are named; every exchange (metadata, keys, introspection,
token endpoint) goes by the same certificate authority and the same proxy, however they are configured.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from click.testing import CliRunner

from loopback import Certificates, Connection, Loopback, answer_with, response
from scopeguard import (
    ConfigurationError,
    Granted,
    Guard,
    HttpxTransport,
    Introspection,
    Issuer,
    IssuerResolver,
    KeySetPolicy,
    StatusListPolicy,
    Unavailable,
    presets,
)
from scopeguard.cli.commands import cli
from scopeguard.client import ClientCredentials, OriginNotAllowed
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.flow.effects import Send
from scopeguard.spec.discovery import MalformedMetadata, parse_metadata
from storms import request_with

HOSTS = ["keycloak:8080"]
INSIDE = "http://keycloak:8080/realms/x"
API = "https://api.test"
SECRET = "the password of a test"  # Not of the form that the leak search finds.
ASKING = Introspection(client_id="api", client_secret=SECRET)


def authority(issuer: str) -> Authority:
    robot = Client(client_id="robot", secret=SECRET, scopes=["read"])
    opaque = Client(client_id="opaque", secret=SECRET, scopes=["read"], token_format="opaque")
    api = Client(client_id="api", secret=SECRET, scopes=[], introspects=[API])
    return Authority(issuer, audience=API, clients=[robot, opaque, api], keys=KeyRing("ES256"))


# -- hosts over http


MAKERS: dict[str, Callable[[str, Any], Any]] = {
    "the issuer": lambda url, hosts: Issuer(url, audience="a", insecure_http_dangerously=hosts),
    "jwks_uri": lambda url, hosts: Issuer("x", audience="a", jwks_uri=url, insecure_http_dangerously=hosts),
    "metadata_url": lambda url, hosts: Issuer("x", audience="a", metadata_url=url, insecure_http_dangerously=hosts),
    "key_url_template": lambda url, hosts: Issuer(
        "x", audience="a", key_url_template=url + "/{kid}", insecure_http_dangerously=hosts
    ),
    "introspection.endpoint": lambda url, hosts: Issuer(
        "https://as.test",
        audience="a",
        validate="introspection",
        introspection=Introspection(client_id="a", client_secret=SECRET, endpoint=url),
        insecure_http_dangerously=hosts,
    ),
    "status lists": lambda url, hosts: Issuer(
        "https://as.test",
        audience="a",
        experimental_status_list=StatusListPolicy(allowed_origins=[url.removesuffix(urlsplit(url).path)]),
        insecure_http_dangerously=hosts,
    ),
    "resource": lambda url, hosts: Guard(Issuer("https://as.test"), resource=url, insecure_http_dangerously=hosts),
    "token_url": lambda url, hosts: ClientCredentials(url, "id", SECRET, insecure_http_dangerously=hosts),
    "a client's issuer": lambda url, hosts: ClientCredentials.from_issuer(
        url, "id", SECRET, insecure_http_dangerously=hosts
    ),
    "origins": lambda url, hosts: ClientCredentials(
        "https://as.test/token",
        "id",
        SECRET,
        origins=url.removesuffix(urlsplit(url).path) if isinstance(url, str) else url,
        insecure_http_dangerously=hosts,
    ),
    "preset": lambda url, hosts: presets.generic_rfc9068(url, "a", insecure_http_dangerously=hosts),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        (INSIDE, HOSTS),
        ("http://KEYCLOAK:8080/realms/x", HOSTS),
        (INSIDE, ["other:1", "Keycloak:8080"]),
        ("http://keycloak/realms/x", ("keycloak:80",)),
        ("http://10.1.2.3:8080/x", ["10.1.2.3:8080"]),
        ("http://[fd00::1]:8080/x", ["[fd00::1]:8080"]),
        ("https://as.test/x", HOSTS),
    ],
)
def test_configured_host_may_be_reached_over_http(maker: str, url: str, hosts: Any):
    MAKERS[maker](url, hosts)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("url", "hosts", "fix"),
    [
        (INSIDE, [], "keycloak:8080"),
        (INSIDE, ["keycloak:8081"], "keycloak:8080"),
        (INSIDE, ["keycloak:80"], "keycloak:8080"),
        (INSIDE, ["cloak:8080", "keycloak.test:8080"], "keycloak:8080"),
        ("http://keycloak.evil:8080/x", HOSTS, "keycloak.evil:8080"),
        ("http://evil.keycloak:8080/x", HOSTS, "evil.keycloak:8080"),
        ("http://keycloak/x", HOSTS, "keycloak:80"),
        ("http://[fd00::1]/x", HOSTS, "[fd00::1]:80"),
    ],
)
def test_other_host_is_refused_with_a_hint_at_the_setting(maker: str, url: str, hosts: Any, fix: str):
    with pytest.raises(ConfigurationError) as caught:
        MAKERS[maker](url, hosts)
    assert f'set insecure_http_dangerously = ["{fix}"]' in str(caught.value)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "hosts",
    [
        "keycloak:8080",
        ["keycloak"],
        ["http://keycloak:8080"],
        ["keycloak:8080/"],
        ["*:8080"],
        ["keycloak:*"],
        ["keycloak:0"],
        ["keycloak:65536"],
        ["fd00::1:8080"],
        ["a@keycloak:8080"],
        [""],
        [8080],
        7,
        None,
    ],
    ids=str,
)
def test_malformed_list_of_hosts_is_refused(maker: str, hosts: Any):
    with pytest.raises(ConfigurationError, match="insecure_http_dangerously"):
        MAKERS[maker](INSIDE, hosts)


def test_error_about_a_url_does_not_quote_its_credentials():
    with pytest.raises(ConfigurationError) as caught:
        Issuer("http://me:hunter2@keycloak:8080/x", audience="a", insecure_http_dangerously=HOSTS)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["jwks_uri", "token_endpoint", "introspection_endpoint"])
@pytest.mark.parametrize(
    ("url", "is_usable"),
    [
        ("http://keycloak:8080/x", True),
        ("https://keycloak:8080/x", True),
        ("https://as.test/x", True),
        ("http://keycloak:8081/x", False),
        ("http://localhost:8080/x", False),
        ("http://other:8080/x", False),
        ("http://10.0.0.1:8080/x", False),
        ("https://10.0.0.1:8080/x", False),
    ],
)
@pytest.mark.parametrize("issuer", [INSIDE, "https://as.test"])
def test_metadata_may_name_only_configured_http_hosts(issuer: str, name: str, url: str, is_usable: bool):
    document = f'{{"issuer": "{issuer}", "{name}": "{url}"}}'.encode()
    if is_usable:
        assert getattr(parse_metadata(document, issuer, insecure=frozenset(HOSTS)), name) == url
    else:
        with pytest.raises(MalformedMetadata):
            parse_metadata(document, issuer, insecure=frozenset(HOSTS))


def test_transport_refuses_http_to_hosts_that_the_exchange_does_not_allow():
    transport = HttpxTransport()
    with pytest.raises(ConfigurationError, match="cleartext"):
        transport.send(Send(url="http://keycloak:8080/", authority="a", insecure=frozenset({"keycloak:8081"})))


def test_status_lists_may_be_at_the_http_origin_of_the_issuer():
    Issuer(INSIDE, audience="a", experimental_status_list=StatusListPolicy(), insecure_http_dangerously=HOSTS)


def test_keycloak_realm_is_called_internally_under_its_external_issuer():
    found = presets.keycloak(
        "http://localhost:8080", "shop", "a", internal_url="http://keycloak:8080", insecure_http_dangerously=HOSTS
    )
    assert found.url == "http://localhost:8080/realms/shop"
    assert found.jwks_uri == "http://keycloak:8080/realms/shop/protocol/openid-connect/certs"
    asked = presets.keycloak(
        "http://localhost:8080",
        "shop",
        "a",
        introspection=ASKING,
        internal_url="http://keycloak:8080/",
        insecure_http_dangerously=HOSTS,
    )
    assert asked.introspection is not None
    assert asked.introspection.endpoint == ("http://keycloak:8080/realms/shop/protocol/openid-connect/token/introspect")
    own = Introspection(client_id="api", client_secret=SECRET, endpoint="https://keycloak.test/introspect")
    assert (
        presets.keycloak(
            "http://localhost:8080", "shop", "a", introspection=own, internal_url="https://keycloak.test"
        ).introspection
        == own
    )


# -- the warning


def test_construction_warns_about_the_http_hosts(caplog: pytest.LogCaptureFixture):
    trusted = Issuer(INSIDE, audience="a", insecure_http_dangerously=HOSTS)
    found = Issuer("http://tenant:80", audience="a", insecure_http_dangerously=["tenant:80"])
    for _ in range(2):
        caplog.clear()
        resolver = IssuerResolver(accepts=lambda name: name == found.url, resolve=lambda name: found)
        guard = Guard(trusted, resolver=resolver, insecure_http_dangerously=["b:2"])
        ClientCredentials("http://c:3/token", "id", SECRET, insecure_http_dangerously=["c:3"])
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [line.split(" ")[1] for line in warnings] == ["http://b:2", "http://keycloak:8080", "http://c:3"]
        assert all(line.startswith("insecure_http_dangerously: ") for line in warnings)
        assert guard.issuers[0].insecure_http_dangerously == {"b:2", "keycloak:8080"}


def test_issuer_without_http_hosts_causes_no_warning(caplog: pytest.LogCaptureFixture):
    Guard(Issuer("https://as.test", audience="a"))
    ClientCredentials("https://as.test/token", "id", SECRET)
    assert caplog.records == []


# -- by host name, from end to end


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the issuer of a server with the host name ``keycloak``, as in a network of containers."""
    look_up = socket.getaddrinfo

    def resolve_name(host: Any, *rest: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host in ("keycloak", b"keycloak") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with DevServer(authority(f"http://keycloak:{port}"), port=port) as server:
        assert server.url == f"http://keycloak:{port}"
        yield server.url


@pytest.mark.parametrize("validate", ["jwt", "introspection"])
def test_tokens_of_an_internal_server_are_fetched_and_verified(inside: str, validate: str, tmp_path: Path):
    host = inside.removeprefix("http://")
    client = "robot" if validate == "jwt" else "opaque"
    asking = f'[issuers.introspection]\nclient_id = "api"\nclient_secret = "{SECRET}"\n' if validate != "jwt" else ""
    file = tmp_path / "scopeguard.toml"
    file.write_text(
        f'resource = "{API}"\ninsecure_http_dangerously = ["{host}"]\n'
        f'[[issuers]]\nurl = "{inside}"\nvalidate = "{validate}"\n{asking}'
    )
    credentials = ClientCredentials.from_issuer(inside, client, SECRET, insecure_http_dangerously=[host])
    token = credentials.token().access_token
    guard = Guard.from_file(str(file))
    assert isinstance(guard.check(request_with(token)), Granted)
    guard.close()


def test_client_sends_its_token_over_http_only_to_the_configured_host():
    credentials = ClientCredentials(
        "https://as.test/token", "id", SECRET, insecure_http_dangerously=["api:8000"], origins=["http://api:8000"]
    )
    credentials._check(httpx.Request("GET", "http://api:8000/x"))
    for url in ("http://api:8001/x", "http://other:8000/x", "http://api/x"):
        with pytest.raises(OriginNotAllowed, match="insecure_http_dangerously"):
            credentials._check(httpx.Request("GET", url))


# -- a certificate authority and a proxy, for every exchange


def answer_for(authority: Authority) -> Callable[[Connection, bytes], None]:
    """Answer requests as *authority* does, also those in absolute form for proxies."""

    def answer(connection: Connection, received: bytes) -> None:
        head, _, body = received.partition(b"\r\n\r\n")
        (method, target, _), *lines = (line.split(" ") for line in head.decode().split("\r\n"))
        fields = {name.lower().removesuffix(":"): " ".join(value) for name, *value in lines}
        form = tuple(parse_qsl(body.decode())) if method == "POST" else None
        done = authority.respond(method, urlsplit(target).path, form=form, authorization=fields.get("authorization"))
        headers = [f"{name}: {value}" for name, value in done.headers.items() if name != "content-type"]
        connection.send(response(done.body, *headers, status=f"{done.status} X"))

    return answer


class Corporate:
    """A company network: its authorization server, and the two settings that make it reachable."""

    def __init__(self, server: Loopback, issuer: str, *, ca_file: Path | None, proxy: str | None) -> None:
        self.server = server
        self.issuer = issuer
        self.hosts = [issuer.removeprefix("http://")] if ca_file is None else []
        self.ca_file = ca_file
        self.proxy = proxy
        self.transport = HttpxTransport(verify=None if ca_file is None else str(ca_file), proxy=proxy)

    @property
    def paths(self) -> list[str]:
        return [urlsplit(line.split(b" ")[1].decode()).path for line in self.server.requests]

    @property
    def toml(self) -> str:
        lines = [] if self.ca_file is None else ['ca_file = "corporate.pem"']
        return "\n".join(["[transport]", *lines, *([f'proxy = "{self.proxy}"'] if self.proxy else [])])

    @property
    def options(self) -> list[str]:
        hosts = [argument for host in self.hosts for argument in ("--insecure-http-dangerously", host)]
        ca_file = [] if self.ca_file is None else ["--ca-file", str(self.ca_file)]
        return [*hosts, *ca_file, *(["--proxy", self.proxy] if self.proxy else [])]


@pytest.fixture(params=["certificate authority", "proxy"])
def corporate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Corporate]:
    if request.param == "proxy":
        issuer = "http://as.corp.test:8080"
        with Loopback(answer_for(authority(issuer))) as server:
            yield Corporate(server, issuer, ca_file=None, proxy=f"http://127.0.0.1:{server.port}")
    else:
        certificates = Certificates(tmp_path)
        bundle = certificates.bundle.rename(tmp_path / "corporate.pem")
        with Loopback(lambda *_: None, tls=certificates.server(), name="localhost") as server:
            server.respond = answer_for(authority(server.url))
            yield Corporate(server, server.url, ca_file=bundle, proxy=None)


def test_each_exchange_uses_the_certificate_authority_and_the_proxy(corporate: Corporate, tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.write_text(
        f'resource = "{API}"\ninsecure_http_dangerously = {corporate.hosts}\n{corporate.toml}\n'
        f'[[issuers]]\nurl = "{corporate.issuer}"\nvalidate = "auto"\n'
        f'[issuers.introspection]\nclient_id = "api"\nclient_secret = "{SECRET}"\n'
    )
    issuer = Issuer(
        corporate.issuer,
        audience=API,
        validate="auto",
        introspection=ASKING,
        insecure_http_dangerously=corporate.hosts,
    )
    for guard in (Guard.from_file(str(file)), Guard(issuer, transport=corporate.transport)):
        for client in ("robot", "opaque"):
            credentials = ClientCredentials.from_issuer(
                corporate.issuer,
                client,
                SECRET,
                transport=corporate.transport,
                insecure_http_dangerously=corporate.hosts,
            )
            assert isinstance(guard.check(request_with(credentials.token().access_token)), Granted)
        guard.close()
    metadata = "/.well-known/oauth-authorization-server"
    assert {path: corporate.paths.count(path) for path in set(corporate.paths)} == {
        metadata: 6,  # Of each client and each guard.
        "/token": 4,
        "/jwks": 2,
        "/introspect": 2,
    }


@pytest.mark.parametrize("where", ["--issuer", "--token-url"])
def test_command_line_fetches_a_token_through_the_proxy(
    corporate: Corporate, where: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECRET", SECRET)
    url = corporate.issuer if where == "--issuer" else f"{corporate.issuer}/token"
    run = CliRunner().invoke(
        cli, ["token", where, url, "--client-id", "robot", "--client-secret", "env:SECRET", *corporate.options]
    )
    assert run.exit_code == 0, run.output
    assert "scopes: read" in run.stderr
    assert corporate.paths[-1] == "/token"


def test_without_these_settings_the_server_is_unreachable(corporate: Corporate, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(corporate.ca_file))
    monkeypatch.setenv("HTTP_PROXY", str(corporate.proxy))
    issuer = Issuer(
        corporate.issuer,
        audience=API,
        insecure_http_dangerously=corporate.hosts,
        key_set=KeySetPolicy(timeout=0.5),
    )
    token = authority(corporate.issuer)
    issued = token.respond(
        "POST",
        "/token",
        form=(("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", SECRET)),
    ).body.decode()
    guard = Guard(issuer)
    assert isinstance(guard.check(request_with(issued.split('"')[3])), Unavailable)
    guard.close()
    assert corporate.paths == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--ca-file", "/nowhere/ca.pem"], "--ca-file: '/nowhere/ca.pem' is not a readable bundle"),
        (["--proxy", "proxy:3128"], "proxy: write a URL"),
        (["--proxy", "env:NOPE"], "--proxy: the environment variable NOPE is not set"),
        (["--insecure-http-dangerously", "keycloak"], "insecure_http_dangerously: 'keycloak' is not a host"),
    ],
)
def test_invalid_options_are_refused(options: list[str], problem: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", SECRET)
    arguments = ["--token-url", "https://as.test/token", "--client-id", "robot", "--client-secret", "env:SECRET"]
    run = CliRunner().invoke(cli, ["token", *arguments, *options])
    assert run.exit_code == 2
    assert problem in run.output


@pytest.mark.parametrize("proxy", ["http://me:hunter2@[::1", "gopher://me:hunter2@proxy", "http://me:hunter2@p/x", 7])
def test_invalid_proxy_is_refused_without_showing_its_password(proxy: Any):
    with pytest.raises(ConfigurationError, match="proxy: ") as caught:
        HttpxTransport(proxy=proxy)
    assert "hunter2" not in str(caught.value)


def test_proxy_that_refuses_is_an_outage_without_logging_its_password(caplog: pytest.LogCaptureFixture):
    with Loopback(answer_with(response(b"no", status="407 Proxy Authentication Required"))) as proxy:
        transport = HttpxTransport(proxy=f"http://me:hunter2@127.0.0.1:{proxy.port}")
        guard = Guard(Issuer("https://as.corp.test", audience=API), transport=transport)
        token = authority("https://as.corp.test")
        issued = token.respond(
            "POST",
            "/token",
            form=(("grant_type", "client_credentials"), ("client_id", "robot"), ("client_secret", SECRET)),
        ).body.decode()
        decision = guard.check(request_with(issued.split('"')[3]))
        guard.close()
    assert isinstance(decision, Unavailable)
    assert "hunter2" not in caplog.text + str(decision.error) + repr(transport)
    assert proxy.requests[0].startswith(b"CONNECT as.corp.test:443")
