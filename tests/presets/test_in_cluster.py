"""Keys from the API server of a cluster: certificate authority and credentials of the pod, over real TLS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopback import Certificates, Loopback, answer_with, json_response, response
from providers import mint_sample, published_keys
from scopeguard import ConfigurationError, Granted, Guard, HeaderList, Issuer, RequestView, Unavailable, presets
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Send
from scopeguard.guard import Decision
from scopeguard.testing import FakeClock

API = "https://api.example.com"
IN_CLUSTER = presets.kubernetes(API, in_cluster=True, namespaces="etl")
POD = "/var/run/secrets/kubernetes.io/serviceaccount"


class Cluster:
    """An API server, a pod's files, and a guard in that pod."""

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder)
        self.token, self.bundle = folder / "token", folder / "ca.crt"
        self.token.write_text("sg-secret-pod-1\n")
        self.bundle.write_bytes(self.certificates.bundle.read_bytes())
        self.server = Loopback(
            answer_with(json_response({"keys": published_keys()})), tls=self.certificates.server("127.0.0.1")
        )
        self.clock = FakeClock()
        self.transport = HttpxTransport()

    @property
    def issuer(self) -> Issuer:
        return replace(
            IN_CLUSTER,
            jwks_uri=f"{self.server.url}/openid/v1/jwks",
            jwks_ca_file=str(self.bundle),
            jwks_bearer_file=str(self.token),
        )

    def judge(self, guard: Guard | None = None) -> Decision:
        guard = guard or Guard(self.issuer, transport=self.transport, clock=self.clock)
        token = mint_sample("kubernetes-projected", self.clock.wall())
        fields = HeaderList([(b"authorization", f"Bearer {token}".encode())])
        return guard.check(RequestView(method="GET", path="/", headers=fields))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    with cluster.server:
        yield cluster
    cluster.transport.close()


def authorizations(server: Loopback) -> list[str]:
    lines = [line for request in server.requests for line in request.decode("latin-1").split("\r\n")]
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("authorization:")]


def test_the_preset_names_the_files_of_the_pod_and_the_api_server():
    assert IN_CLUSTER.jwks_uri == "https://kubernetes.default.svc/openid/v1/jwks"
    assert (IN_CLUSTER.jwks_ca_file, IN_CLUSTER.jwks_bearer_file) == (f"{POD}/ca.crt", f"{POD}/token")
    for place in ({"jwks_uri": "https://k.example/jwks"}, {"jwks_file": "keys.json"}):
        with pytest.raises(ConfigurationError, match="in_cluster: sets the place of the keys"):
            presets.kubernetes(API, in_cluster=True, **place)


def test_keys_are_fetched_with_the_token_of_the_pod_by_the_authority_of_the_cluster(cluster: Cluster):
    assert isinstance(cluster.judge(), Granted)
    assert authorizations(cluster.server) == ["Bearer sg-secret-pod-1"]
    (request,) = cluster.server.requests
    assert request.startswith(b"GET /openid/v1/jwks HTTP/1.1\r\n")


def test_the_token_is_read_again_for_each_fetch(cluster: Cluster):
    guard = Guard(cluster.issuer, transport=cluster.transport, clock=cluster.clock)
    assert isinstance(cluster.judge(guard), Granted)
    cluster.token.write_text("sg-secret-pod-2")
    cluster.clock.advance(cluster.issuer.key_set.max_ttl)  # past its lifetime: the next request waits
    assert isinstance(cluster.judge(guard), Granted)
    assert authorizations(cluster.server) == ["Bearer sg-secret-pod-1", "Bearer sg-secret-pod-2"]


@pytest.mark.rule("A-23")
def test_server_with_a_certificate_of_another_authority_gets_no_request(cluster: Cluster, tmp_path: Path):
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    cluster.bundle.write_bytes(Certificates(elsewhere).bundle.read_bytes())
    assert isinstance(cluster.judge(), Unavailable)
    assert cluster.server.requests == []
    cluster.bundle.write_bytes(cluster.certificates.bundle.read_bytes())  # read again, too
    assert isinstance(cluster.judge(), Granted)


def test_certificate_authority_of_the_cluster_is_trusted_only_for_it(cluster: Cluster):
    assert isinstance(cluster.judge(), Granted)
    with pytest.raises(AuthorityUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        cluster.transport.send(Send(url=cluster.server.url, authority="x"))


@pytest.mark.rule("A-23")
def test_verification_stays_on_with_a_configured_certificate_authority(cluster: Cluster, tmp_path: Path):
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    cluster.bundle.write_bytes(Certificates(elsewhere).bundle.read_bytes())
    careless = HttpxTransport(dangerously_skip_tls_verification=True)
    assert isinstance(cluster.judge(Guard(cluster.issuer, transport=careless, clock=cluster.clock)), Unavailable)
    careless.close()


def test_token_is_not_sent_after_a_redirect_and_not_logged(cluster: Cluster, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with Loopback(answer_with(json_response({"keys": published_keys()}))) as elsewhere:
        location = f"Location: {elsewhere.url}/openid/v1/jwks"
        cluster.server.respond = answer_with(response(b"", location, status="307 Temporary Redirect"))
        decision = cluster.judge()
        assert isinstance(decision, Unavailable)
        assert elsewhere.connections == 0
    assert authorizations(cluster.server) == ["Bearer sg-secret-pod-1"]
    assert "sg-secret" not in caplog.text + repr(decision) + repr(decision.error.__dict__)


@pytest.mark.parametrize(
    "content", [b"", b"two words", b"line\r\nX-Evil: 1", b"\xff\xfe", b"a" * 17000, None], ids=repr
)
def test_file_without_a_token_is_an_outage_and_is_not_quoted(
    cluster: Cluster, content: bytes | None, caplog: pytest.LogCaptureFixture
):
    if content is None:
        cluster.token.unlink()
    else:
        cluster.token.write_bytes(content)
    assert isinstance(cluster.judge(), Unavailable)
    assert cluster.server.requests == []
    assert "words" not in caplog.text
    assert "Evil" not in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_cannot_be_read_is_an_outage_that_names_it(
    cluster: Cluster, content: bytes | None, caplog: pytest.LogCaptureFixture
):
    if content is None:
        cluster.bundle.unlink()
    else:
        cluster.bundle.write_bytes(content)
    assert isinstance(cluster.judge(), Unavailable)
    assert "not a readable bundle of certificates" in caplog.text
    assert cluster.server.connections == 0


def test_no_connection_is_left_open(cluster: Cluster):
    guard = Guard(cluster.issuer, transport=cluster.transport, clock=cluster.clock)
    for _ in range(3):
        assert isinstance(cluster.judge(guard), Granted)
        cluster.clock.advance(cluster.issuer.key_set.max_ttl)
    assert cluster.server.connections == 3
    assert cluster.transport._client is None


@pytest.mark.parametrize("name", ["jwks_ca_file", "jwks_bearer_file"])
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "has no effect without jwks_uri"),
        ({"metadata_url": "https://as.example/m"}, "has no effect without jwks_uri"),
        ({"jwks_file": "keys.json"}, "has no effect without jwks_uri"),
        ({"keys": {"keys": []}}, "has no effect without jwks_uri"),
    ],
)
def test_credentials_are_sent_only_to_the_configured_url(name: str, settings: Any, problem: str):
    with pytest.raises(ConfigurationError, match=f"{name}: {problem}"):
        Issuer("https://as.example", audience=API, **{name: "some-file", **settings})


@pytest.mark.parametrize("path", ["", 7, ["a"]])
def test_file_setting_must_be_a_path(path: Any):
    with pytest.raises(
        ConfigurationError, match="jwks_bearer_file: must be the path of a file that holds a bearer token"
    ):
        Issuer("https://as.example", audience=API, jwks_uri="https://as.example/k", jwks_bearer_file=path)
