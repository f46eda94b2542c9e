"""Tokens that are bound to a client certificate (RFC 8705)."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environment import ROOT
from scopeguard import (
    CertificateSource,
    ConfigurationError,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    MutualTLS,
    Reason,
    RequestView,
)
from scopeguard.adapter.connection_certificate import certificate_in_environ, certificate_in_scope
from scopeguard.guard import Decision, engine_of
from scopeguard.request import ProofNotes
from scopeguard.spec.certificate_fields import MAX_BYTES, from_field, from_pem, thumbprint
from scopeguard.spec.response_headers import add_proof_headers
from scopeguard.testing import FakeAuthority, ProofKey

PEM = Path(ROOT / "tests" / "data" / "rfc8705-appendix-a.pem").read_text("ascii")
DER = ssl.PEM_cert_to_DER_cert(PEM)
OTHER = b"another certificate"
THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
PROXY, STRANGER = "10.1.2.3", "192.0.2.1"
FIELDS = {
    "client-cert": ("client-cert", lambda der: f":{base64.b64encode(der).decode()}:"),
    "nginx": ("x-ssl-client-cert", lambda der: quote(ssl.DER_cert_to_PEM_cert(der))),
    "envoy": ("x-forwarded-client-cert", lambda der: f'Hash={hashlib.sha256(der).hexdigest()};Subject="CN=a,O=b"'),
    "haproxy": ("x-ssl-client-der", lambda der: base64.b64encode(der).decode()),
}


class Api:
    def __init__(self, source: str = "connection", *, bound: str = THUMBPRINT, **settings: Any) -> None:
        self.authority = FakeAuthority(audience="https://api.test")
        proxies: dict[str, Any] = {} if source == "connection" else {"trusted_proxies": ["10.0.0.0/8"]}
        issuer = settings.pop("issuer", self.authority.issuer)
        self.guard = Guard(
            issuer,
            mutual_tls=MutualTLS(source=source, **proxies),
            transport=self.authority.transport,
            clock=self.authority.clock,
            audit="off",
            **settings,
        )
        self.token = self.authority.mint("read", claims={"cnf": {"x5t#S256": bound}})

    def send(self, *fields: tuple[str, str], client: str | None = PROXY, **view: Any) -> Decision:
        pairs = [(b"authorization", f"Bearer {self.token}".encode())]
        pairs += [(name.encode(), value.encode("latin-1")) for name, value in fields]
        request = RequestView(method="GET", path="/", headers=HeaderList(pairs), client=client, **view)
        return self.guard.check(request)


def is_refused(decision: Decision, reason: Reason = Reason.WRONG_CERTIFICATE) -> bool:
    assert isinstance(decision, Denied), decision
    challenge = dict(decision.response.headers)["www-authenticate"]
    assert (decision.response.status, challenge.startswith("Bearer ")) == (401, True)
    assert 'error="invalid_token"' in challenge
    return decision.error.reason is reason


@pytest.mark.rule("M-01", "M-02", "M-03", "M-07", "M-08", "M-20", "M-21")
def test_the_certificate_of_the_connection_must_be_the_bound_one():
    api = Api()
    for _ in range(3):  # from the token cache as well
        assert isinstance(api.send(certificate=THUMBPRINT), Granted)
        assert is_refused(api.send(certificate=thumbprint(OTHER)))
        assert is_refused(api.send())
    decision = api.send(certificate=THUMBPRINT)
    assert isinstance(decision, Granted)
    assert decision.access_token.sender_constrained is True


@pytest.mark.rule("M-04")
def test_the_example_of_the_rfc_is_reproduced():
    assert (from_pem(PEM), thumbprint(DER)) == (THUMBPRINT, THUMBPRINT)
    assert from_pem(PEM + " " * MAX_BYTES) is None


def test_escapes_of_octets_that_are_not_text_are_refused():
    assert from_field([b"%ff"], CertificateSource.NGINX) is None
    assert from_field([b'Cert="%ff"'], CertificateSource.ENVOY) is None


@pytest.mark.rule("M-05")
@pytest.mark.parametrize("value", [THUMBPRINT + "=", hashlib.sha256(DER).hexdigest(), 7, None, "", THUMBPRINT + "\n"])
def test_a_thumbprint_in_another_form_refuses_the_token(value: Any):
    api = Api(bound=value)
    assert is_refused(api.send(certificate=THUMBPRINT), Reason.SENDER_CONSTRAINT_UNPROVEN)


@pytest.mark.rule("M-06")
def test_the_confirmation_of_an_introspection_response_is_enforced():
    api = Api()
    introspection = Introspection(client_id="api", client_secret=api.authority.api.secret)
    issuer = Issuer(
        api.authority.url, audience="https://api.test", validate="introspection", introspection=introspection
    )
    guarded = Api(issuer=issuer)
    guarded.guard = Guard(
        issuer, mutual_tls=MutualTLS(), transport=api.authority.transport, clock=api.authority.clock, audit="off"
    )
    guarded.token = api.authority.mint("read", claims={"cnf": {"x5t#S256": THUMBPRINT}}, token_format="opaque")
    assert isinstance(guarded.send(certificate=THUMBPRINT), Granted)
    assert is_refused(guarded.send(certificate=thumbprint(OTHER)))
    assert is_refused(guarded.send())


@pytest.mark.rule("M-09", "M-11")
def test_without_the_setting_a_bound_token_is_refused():
    api = Api()
    api.guard = Guard(api.authority.issuer, transport=api.authority.transport, clock=api.authority.clock, audit="off")
    field = ("client-cert", FIELDS["client-cert"][1](DER))
    assert is_refused(api.send(field, certificate=THUMBPRINT), Reason.SENDER_CONSTRAINT_UNPROVEN)
    assert is_refused(Api().send(field))  # a field is not a source unless it is configured


@pytest.mark.rule("M-10")
def test_unbound_tokens_may_be_refused():
    authority = FakeAuthority(audience="https://api.test")
    api = Api(issuer=Issuer(authority.url, audience="https://api.test", require_sender_constraint=True))
    assert isinstance(api.send(certificate=THUMBPRINT), Granted)
    api.token = api.authority.mint("read")
    assert is_refused(api.send(certificate=THUMBPRINT), Reason.SENDER_CONSTRAINT_MISSING)


@pytest.mark.rule("M-12", "M-16")
@pytest.mark.parametrize("source", list(FIELDS))
def test_a_field_is_read_from_a_trusted_proxy_only(source: str):
    api, (name, write) = Api(source), FIELDS[source]
    good, wrong = (name, write(DER)), (name, write(OTHER))
    assert isinstance(api.send(good), Granted)
    assert is_refused(api.send(wrong))
    assert is_refused(api.send())
    for client in (STRANGER, None, "10.1.2.3.evil.example"):
        assert is_refused(api.send(good, client=client))


@pytest.mark.rule("M-19")
def test_the_certificate_of_the_connection_comes_before_a_field():
    name, write = FIELDS["client-cert"]
    api = Api("client-cert")
    assert isinstance(api.send((name, write(OTHER)), certificate=THUMBPRINT), Granted)
    assert is_refused(api.send((name, write(DER)), certificate=thumbprint(OTHER)))


@pytest.mark.rule("M-13", "M-14", "M-16", "M-17")
@pytest.mark.parametrize("source", list(FIELDS))
def test_another_format_is_not_guessed_and_a_second_line_is_refused(source: str):
    api, (name, write) = Api(source), FIELDS[source]
    for other, (_, write_other) in FIELDS.items():
        granted = isinstance(api.send((name, write_other(DER))), Granted)
        assert granted is (other == source)
    if source != "envoy":
        assert is_refused(api.send((name, write(DER)), (name, write(DER))))
        assert is_refused(api.send((name, f"{write(DER)}, {write(DER)}")))
    assert is_refused(api.send(("client-cert-chain", write(DER))))
    assert is_refused(api.send((name, PEM.replace("\n", " "))))
    assert is_refused(api.send((name, write(DER) + "\u00e9")))


@pytest.mark.rule("M-18")
def test_only_the_last_element_of_envoy_counts():
    api, (name, write) = Api("envoy"), FIELDS["envoy"]
    mine, other = write(DER), write(OTHER)
    assert is_refused(api.send((name, f"{mine},{other}")))
    assert isinstance(api.send((name, f"{other},{mine}")), Granted)
    assert isinstance(api.send((name, other), (name, mine)), Granted)
    assert is_refused(api.send((name, mine), (name, other)))
    assert is_refused(api.send((name, f'{other};Subject="{mine}')))  # an open quote
    assert is_refused(api.send((name, f'By="a\\",{mine}"')))
    cert = f'Cert="{quote(PEM)}"'
    assert isinstance(api.send((name, cert)), Granted)
    assert isinstance(api.send((name, f"{cert};{mine}")), Granted)
    for bad in (f"{cert};{other}", f"{mine};{mine}", "Hash=abc", "By=x", "Hash", "", ",", "Cert=x"):
        assert is_refused(api.send((name, bad))), bad


@pytest.mark.rule("D-63")
def test_a_token_that_is_bound_twice_needs_both():
    key, api = ProofKey(), Api(dpop=DPoP(base_url="https://api.test"))
    api.token = api.authority.mint("read", claims={"cnf": {"jkt": key.thumbprint, "x5t#S256": THUMBPRINT}})
    for certificate in (THUMBPRINT, thumbprint(OTHER)):
        for is_proven in (True, False):
            headers = key.headers(api.token, "GET", "https://api.test/", at=api.authority.clock.wall())
            fields = headers if is_proven else {"Authorization": f"Bearer {api.token}"}
            pairs = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
            view = RequestView(method="GET", path="/", headers=HeaderList(pairs), certificate=certificate)
            granted = isinstance(api.guard.check(view), Granted)
            assert granted is (is_proven and certificate == THUMBPRINT)


@pytest.mark.rule("M-22")
def test_the_metadata_announces_certificate_bound_tokens():
    for mutual_tls, expected in ((MutualTLS(), True), (None, False)):
        guard = Guard(Issuer("https://as.test"), resource="https://api.test", mutual_tls=mutual_tls)
        metadata = engine_of(guard).metadata
        assert metadata is not None
        answer = metadata.answer("GET", "/.well-known/oauth-protected-resource")
        assert answer is not None
        assert (b'"tls_client_certificate_bound_access_tokens":true' in answer.body) is expected


@pytest.mark.rule("M-23")
@given(st.binary(max_size=300), st.sampled_from(list(CertificateSource)[1:]))
def test_any_field_is_a_thumbprint_or_none(value: bytes, source: CertificateSource):
    assert from_field([value], source) is None or isinstance(from_field([value], source), str)
    assert from_field([b"A" * (MAX_BYTES + 1)], source) is None


def test_adapters_find_the_certificate_of_the_connection():
    assert certificate_in_scope({"extensions": {"tls": {"client_cert_chain": [PEM, "x"]}}}) == THUMBPRINT
    unusable: list[Any] = [
        None,
        {},
        {"tls": {}},
        {"tls": {"client_cert_chain": []}},
        {"tls": {"client_cert_chain": [b"x"]}},
    ]
    for extensions in unusable:
        assert certificate_in_scope({"extensions": extensions}) is None
    assert certificate_in_environ({"SSL_CLIENT_CERT": PEM, "HTTP_SSL_CLIENT_CERT": "x"}) == THUMBPRINT

    class Socket:
        def __init__(self, der: bytes | Exception | None) -> None:
            self.der = der

        def getpeercert(self, *, binary_form: bool) -> bytes | None:
            assert binary_form
            if isinstance(self.der, Exception):
                raise self.der
            return self.der

    for der, expected in ((DER, THUMBPRINT), (None, None), (b"", None), (ValueError("handshake"), None)):
        assert certificate_in_environ({"gunicorn.socket": Socket(der)}) == expected
    assert certificate_in_environ({"gunicorn.socket": object(), "SSL_CLIENT_CERT": ""}) is None
    assert certificate_in_environ({"HTTP_SSL_CLIENT_CERT": PEM}) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MutualTLS(source="apache"), "mutual_tls: source"),
        (lambda: MutualTLS(source="nginx"), "trusted_proxies: must name the proxies"),
        (lambda: MutualTLS(trusted_proxies=["10.0.0.0/8"]), "has no effect with source 'connection'"),
        (lambda: MutualTLS(header="X"), "has no effect with source 'connection'"),
        (lambda: MutualTLS(source="nginx", trusted_proxies=["proxy"]), "trusted_proxies"),
        (lambda: Guard(Issuer("https://as.test", audience="a", mutual_tls=True)), "set mutual_tls on the guard"),
    ],
)
def test_a_source_that_cannot_work_is_a_configuration_error(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.rule("M-15")
def test_the_field_of_the_certificate_is_noted_for_vary():
    api = Api("nginx")
    name, encode = FIELDS["nginx"]
    notes = ProofNotes()
    assert isinstance(api.send((name, encode(DER)), proofs=notes), Granted)
    assert (notes.vary, notes.changes_response) == (name, True)
    connection = ProofNotes()
    assert isinstance(api.send(certificate=THUMBPRINT, proofs=connection), Granted)
    assert (connection.vary, connection.changes_response) == (None, False)


@pytest.mark.rule("M-15")
def test_headers_for_a_nonce_and_a_certificate_are_added_to_those_of_the_app():
    given = [("vary", "Accept"), ("cache-control", "public")]
    assert add_proof_headers(None, None, given) == given
    assert add_proof_headers(None, "client-cert", given) == [*given, ("vary", "client-cert")]
    assert add_proof_headers("n", "client-cert", given) == [
        ("vary", "Accept"),
        ("vary", "client-cert"),
        ("dpop-nonce", "n"),
        ("cache-control", "no-store"),
    ]


def _xfcc(der: bytes) -> str:
    return f'Hash={hashlib.sha256(der).hexdigest()};Cert="{quote(ssl.DER_cert_to_PEM_cert(der), safe="")}"'


@pytest.mark.rule("M-18")
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(lambda own: own, id="an element"),
        pytest.param(lambda own: own + ',X="', id="a quote that is never closed"),
        pytest.param(lambda own: own + ';X="\\', id="a backslash in the open quote"),
        pytest.param(lambda own: own + "\\", id="a backslash before the comma"),
        pytest.param(lambda own: own + ';X="a\\"', id="an escaped quote"),
        pytest.param(lambda own: own + ";", id="a semicolon before the comma"),
        pytest.param(lambda own: own + ",,", id="empty elements"),
        pytest.param(lambda own: '"' + own, id="a quote in front"),
        pytest.param(lambda own: own + ';X="', id="an open quote"),
    ],
)
@pytest.mark.parametrize("lines", [1, 2])
def test_elements_of_the_client_do_not_hide_that_of_envoy(sent: Callable[[str], str], lines: int):
    """Fault: a proxy that appends, and a client whose element would swallow or replace the appended one."""
    api = Api("envoy")
    own, appended = sent(_xfcc(DER)), "By=spiffe://api;" + _xfcc(OTHER)
    for name in ("CN=b", r"CN=\"b", r"CN=\"b\"", r"CN=b\\", r"CN=\"\\", r"CN=a\,\"b\;"):  # RFC 2253 escapes a quote
        theirs = f'{appended};Subject="{name}";URI=spiffe://b'
        values = [own, theirs] if lines == 2 else [f"{own},{theirs}"]
        assert is_refused(api.send(*(("x-forwarded-client-cert", value) for value in values)))
        assert from_field([theirs.encode()], CertificateSource.ENVOY) == thumbprint(OTHER)


@pytest.mark.parametrize("holds_certificate", [True, False])
def test_a_certificate_does_not_replace_the_proof_of_a_token_that_is_bound_to_both(holds_certificate: bool):
    authority = FakeAuthority(audience="https://api.test")
    key = ProofKey()
    guard = Guard(
        authority.issuer,
        mutual_tls=MutualTLS(),
        dpop=DPoP(base_url="https://api.test"),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    token = authority.mint(claims={"cnf": {**key.confirmation["cnf"], "x5t#S256": THUMBPRINT}})

    def send(scheme: str, certificate: str | None, *proofs: str) -> Decision:
        fields = [(b"authorization", f"{scheme} {token}".encode()), *((b"dpop", proof.encode()) for proof in proofs)]
        view = RequestView(method="GET", path="/", headers=HeaderList(fields), certificate=certificate)
        return guard.check(view)

    certificate = THUMBPRINT if holds_certificate else None
    proof = key.proof(token, "GET", "https://api.test/", at=authority.clock.wall())
    assert isinstance(send("Bearer", certificate), Denied)
    assert isinstance(send("Bearer", certificate, proof), Denied)
    assert isinstance(send("DPoP", certificate), Denied)
    assert isinstance(send("DPoP", certificate, proof), Granted if holds_certificate else Denied)
