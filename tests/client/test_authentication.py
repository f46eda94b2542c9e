"""The client authenticates by a signed assertion or by its certificate, instead of a secret."""

from __future__ import annotations

import json
import ssl
import traceback
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loopback import Certificates, Loopback, answer_with, json_response
from scopeguard import ConfigurationError
from scopeguard.client import ClientCredentials, DPoPKey, TokenEndpointError, TokenExchange
from scopeguard.flow.effects import Answer, Send
from scopeguard.spec.client_authentication import ASSERTION_TYPE
from scopeguard.transport import HttpxTransport

ISSUER = "https://as.example"
TOKEN_URL = "https://as.example/token"
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
SIGNS: dict[str, Any] = {"auth_method": "private_key_jwt", "private_key": PEM, "key_algorithm": "ES256"}


class OwnTransport:
    """A transport that is not ours, so it may have a certificate. It serves metadata and tokens."""

    def __init__(self, **metadata: Any) -> None:
        self.metadata = {"issuer": ISSUER, "token_endpoint": TOKEN_URL, **metadata}
        self.seen: list[Send] = []
        self.script: list[Answer] = []

    def send(self, request: Send, /) -> Answer:
        if request.form is None:
            return Answer(200, json.dumps(self.metadata).encode(), {"content-type": "application/json"})
        self.seen.append(request)
        if self.script:
            return self.script.pop(0)
        members = {
            "access_token": "sg-opaque-1",
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        return Answer(200, json.dumps(members).encode(), {})

    def close(self) -> None:
        pass

    @property
    def assertions(self) -> list[dict[str, Any]]:
        """The claims of the assertions, whose signatures are verified."""
        found = []
        for request in self.seen:
            form = dict(request.form or ())
            assert form["client_assertion_type"] == ASSERTION_TYPE
            assert request.authorization is None
            assert "client_secret" not in form
            options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
            found.append(jwt.decode(form["client_assertion"], KEY.public_key(), ["ES256"], options=options))
        return found


def make(transport: OwnTransport, clock: Any, **settings: Any) -> ClientCredentials:
    auth = ClientCredentials.from_issuer(ISSUER, "client-1", transport=transport, clock=clock, **settings)
    auth._fetcher._transport._sleep = lambda _: None
    return auth


@pytest.mark.rule("C-31")
def test_each_request_has_an_assertion_of_its_own_for_the_issuer(clock):
    transport = OwnTransport()
    transport.script = [Answer(503, b""), Answer(503, b"")]
    make(transport, clock, **SIGNS, key_id="key-1").token()
    assert len(transport.assertions) == 3
    for claims in transport.assertions:
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("client-1", "client-1", ISSUER)
        assert claims["iat"] == int(clock.wall())
        assert 0 < claims["exp"] - claims["iat"] <= 60
    assert len({claims["jti"] for claims in transport.assertions}) == 3
    header = jwt.get_unverified_header(dict(transport.seen[0].form or ())["client_assertion"])
    assert header == {"alg": "ES256", "typ": "client-authentication+jwt", "kid": "key-1"}


@pytest.mark.rule("C-31")
def test_the_audience_can_be_set_and_must_be_known(clock):
    transport = OwnTransport()
    settings = {**SIGNS, "transport": transport, "clock": clock}
    with pytest.raises(ConfigurationError, match="assertion_audience: is missing; set it to the issuer identifier"):
        ClientCredentials(TOKEN_URL, "client-1", **settings)
    ClientCredentials(TOKEN_URL, "client-1", assertion_audience=ISSUER, assertion_typ=None, **settings).token()
    assert transport.assertions[0]["aud"] == ISSUER
    header = jwt.get_unverified_header(dict(transport.seen[0].form or ())["client_assertion"])
    assert header == {"alg": "ES256"}


@pytest.mark.rule("C-31")
def test_an_assertion_and_a_proof_go_together(clock):
    transport = OwnTransport()
    answer = Answer(200, b'{"access_token": "sg-opaque-1", "token_type": "DPoP"}', {})
    transport.script = [Answer(400, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": "n"}), answer]
    assert make(transport, clock, **SIGNS, dpop=DPoPKey()).token().token_type == "DPoP"
    first, second = transport.assertions
    assert first["jti"] != second["jti"]
    assert all(dict(request.headers)["dpop"] for request in transport.seen)


@pytest.mark.rule("C-31")
def test_a_token_exchange_has_an_assertion_too(clock):
    transport = OwnTransport()
    exchange = TokenExchange.from_issuer(ISSUER, "client-1", transport=transport, clock=clock, **SIGNS)
    exchange.for_token("sg-opaque-of-the-caller").token()
    assert transport.assertions[0]["aud"] == ISSUER


@pytest.mark.rule("C-32")
@pytest.mark.parametrize(
    ("metadata", "url"),
    [
        (
            {"mtls_endpoint_aliases": {"token_endpoint": "https://mtls.as.example/token"}},
            "https://mtls.as.example/token",
        ),
        ({"mtls_endpoint_aliases": {"revocation_endpoint": "https://mtls.as.example/revoke"}}, TOKEN_URL),
        ({"mtls_endpoint_aliases": "https://mtls.as.example/token"}, TOKEN_URL),
        ({}, TOKEN_URL),
    ],
)
def test_a_client_with_a_certificate_sends_its_id_to_the_alias(clock, metadata, url):
    transport = OwnTransport(**metadata)
    make(transport, clock, auth_method="tls_client_auth").token()
    (request,) = transport.seen
    assert request.url == url
    assert request.authorization is None
    assert dict(request.form or ()) == {"grant_type": "client_credentials", "client_id": "client-1"}


@pytest.mark.rule("C-32")
def test_another_client_does_not_use_the_alias(clock):
    transport = OwnTransport(mtls_endpoint_aliases={"token_endpoint": "https://mtls.as.example/token"})
    make(transport, clock, **SIGNS).token()
    assert transport.seen[0].url == TOKEN_URL


@pytest.mark.rule("C-32")
@pytest.mark.parametrize("alias", ["http://as.example/token", "https://169.254.169.254/token", 1])
def test_an_alias_that_must_not_be_called_is_refused(clock, alias):
    transport = OwnTransport(mtls_endpoint_aliases={"token_endpoint": alias})
    with pytest.raises(TokenEndpointError, match="in the metadata, token_endpoint"):
        make(transport, clock, auth_method="tls_client_auth").token()
    assert transport.seen == []


@pytest.mark.rule("C-32")
def test_the_server_sees_the_certificate(tmp_path):
    certificates = Certificates(tmp_path)
    context = certificates.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.bundle)
    transport = HttpxTransport(verify=str(certificates.bundle), cert=str(certificates.issue("client-1")))
    tokens = json_response({"access_token": "sg-opaque-1", "token_type": "Bearer"})
    with Loopback(answer_with(tokens), tls=context) as server:
        auth = ClientCredentials(f"{server.url}/token", "client-1", auth_method="tls_client_auth", transport=transport)
        assert auth.token().access_token == "sg-opaque-1"
    transport.close()
    (request,) = server.requests
    assert b"client_id=client-1" in request
    assert b"authorization" not in request.lower()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "client_secret: is missing; auth_method='client_secret_basic' needs it"),
        ({"auth_method": "private_key_jwt"}, "private_key: is missing; auth_method='private_key_jwt' needs it"),
        ({**SIGNS, "client_secret": "s"}, "client_secret: has no effect with auth_method='private_key_jwt'"),
        (
            {"private_key": PEM, "client_secret": "s"},
            "private_key: has no effect with auth_method",
        ),
        ({**SIGNS, "key_algorithm": "RS256"}, "private_key: not a private key for RS256"),
        ({**SIGNS, "key_algorithm": "HS256"}, "private_key: algorithm 'HS256' is not one of"),
        ({"auth_method": "tls_client_auth"}, "transport: auth_method='tls_client_auth' needs a client certificate"),
        (
            {"auth_method": "tls_client_auth", "transport": HttpxTransport()},
            "transport: auth_method='tls_client_auth' needs a client certificate",
        ),
        ({"auth_method": "none", "client_secret": "s"}, "auth_method: 'none' is not one of"),
        ({"auth_method": "bearer", "client_secret": "s"}, "auth_method: 'bearer' is not one of"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        ClientCredentials.from_issuer(ISSUER, "client-1", **settings)
    assert "PRIVATE" not in str(raised.value)


@pytest.mark.rule("C-28")
def test_the_private_key_is_not_shown(clock, caplog):
    caplog.set_level("DEBUG")
    transport = OwnTransport()
    description = "unknown client"
    body = json.dumps({"error": "invalid_client", "error_description": description}).encode()
    transport.script = [Answer(401, body)]
    auth = make(transport, clock, **SIGNS)
    with pytest.raises(TokenEndpointError) as raised:
        auth.token()
    assert raised.value.error_description == description
    frames = [
        repr(frame.f_locals) for frame, _ in traceback.walk_tb(raised.tb) if "/tests/" not in frame.f_code.co_filename
    ]
    secret = PEM.splitlines()[1]
    (assertion,) = (dict(request.form or ())["client_assertion"] for request in transport.seen)
    for text in (repr(auth), repr(vars(auth)), repr(auth._policy), repr(transport.seen), caplog.text, *frames):
        assert secret not in text
        assert assertion not in text
