"""Calls of each kind to a sync and an async gRPC server: the same decisions and challenges as over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf import descriptor_pb2, descriptor_pool

from doors import asgi_app, call_asgi, call_in_loop, guard_for, rules
from grpc_servers import KINDS, GrpcServer, Outcome, parsed, serve_blocking
from loopback import Certificates
from scenarios import SCENARIOS, Exchange, Scenario, tokens
from scopeguard import (
    OPTIONAL,
    ApiKeys,
    ChallengeStyle,
    ConfigurationError,
    DecisionEvent,
    DPoP,
    Guard,
    MutualTLS,
    PolicyRequest,
    Rule,
    TokenSources,
    all_of,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.grpc import AsyncGuardInterceptor, GuardInterceptor
from scopeguard.spec.certificate_fields import thumbprint
from scopeguard.testing import FakeAuthority, ProofKey

Status = grpc.StatusCode
READ = [Rule(f"/{service}/{{method}}", all_of("read")) for service in ("plain", "writing", "blocking", "missing")]
KEYS = ApiKeys(prefix="acme", lookup=lambda _: None, issuer="https://api.test/keys")
HEALTH = "/grpc.health.v1.Health/{method}"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


# -- the scenarios, with the answers of ASGI

OTHER_PLACES = ("/query", "/form", "/both-places")


def can_be_called(scenario: Scenario) -> bool:
    """Return whether *scenario* is about a header field and a path. A call has no query and no form, and is a POST."""
    sent = scenario.send
    plain = all(0x20 <= octet < 0x7F for _, value in sent.headers for octet in value)  # clients refuse other metadata
    plain = plain and all(len(value) < 8000 for _, value in sent.headers)  # servers refuse longer ones
    return plain and "?" not in sent.target and sent.target not in OTHER_PLACES and sent.method in ("GET", "POST")


CALLED = [scenario for scenario in SCENARIOS if can_be_called(scenario)]


class Pair:
    """The API of the scenarios behind an interceptor and behind ASGI middleware, with the same guard."""

    def __init__(self, server: GrpcServer, authority: FakeAuthority, **settings: Any) -> None:
        self.server, self.authority = server, authority
        self.guard: Guard = guard_for(authority, **settings)
        # The routes for other places of tokens are not called, and gRPC has no such places.
        kept = [rule for rule in rules(self.guard).all if rule.sources is None and rule.path != "/public"]
        self._name = server.add_guarded(self.guard, rules=kept, public=["/public"])
        middleware = GuardMiddleware(asgi_app, guard=self.guard, rules=rules(self.guard))
        self._send = call_in_loop("asyncio", call_asgi, middleware)

    def compare(self, exchange: Exchange) -> Outcome:
        """Send *exchange* both ways, and return the outcome of the call, after the answers were compared."""
        metadata = [(name.decode().lower(), value.decode()) for name, value in exchange.headers]
        outcome = self.server.call(self._name, exchange.target, metadata)
        answer = self._send(replace(exchange, method="POST", body=b""))
        expected = {
            200: Status.OK,
            400: Status.UNAUTHENTICATED,
            401: Status.UNAUTHENTICATED,
            403: Status.PERMISSION_DENIED,
        }
        assert outcome.code is expected[answer.status], (outcome, answer)
        assert outcome.all("www-authenticate") == answer.all("www-authenticate")
        if answer.status != 200:
            assert outcome.details == answer.json["detail"]
        return outcome


@pytest.mark.rule("B-11", "B-12", "B-42", "B-43", "X-71")
@pytest.mark.parametrize("remembers", [True, False], ids=["cache-on", "cache-off"])
def test_calls_are_decided_like_requests(grpc_server: GrpcServer, authority: FakeAuthority, remembers: bool):
    pair = Pair(grpc_server, authority, **({} if remembers else {"token_cache": "off"}))
    known = tokens(authority)
    assert len(CALLED) > 50
    for scenario in CALLED:
        for _ in range(2):  # a token that was never seen, and one that is remembered
            outcome = pair.compare(scenario.send.fill(known))
        assert (outcome.code is Status.OK) is (scenario.expects == "PASS"), scenario.name
        for token in known.values():
            assert not any(token in str(value) for _, value in outcome.trailing)
        if scenario.expects == "PASS" and "client" in scenario.saw:
            assert outcome.responses == [f"{scenario.saw['client'] or 'nobody'} a,b".encode()], scenario.name


def test_outage_is_a_status_that_clients_retry(grpc_server: GrpcServer, authority: FakeAuthority):
    name = grpc_server.add_guarded(guard_for(authority), rules=READ)
    authority.outage()
    for kind in KINDS:
        outcome = grpc_server.call(name, f"/plain/{kind}", bearer(authority.mint("read")), kind=kind)
        assert outcome.code is Status.UNAVAILABLE
        (seconds,) = outcome.all("retry-after")
        assert outcome.all("grpc-retry-pushback-ms") == [f"{seconds}000"]
        assert outcome.all("www-authenticate") == []


def test_call_with_a_token_and_an_api_key_is_refused(grpc_server: GrpcServer, authority: FakeAuthority):
    keys = ApiKeys(prefix="acme", lookup=lambda _: None, issuer="https://api.test/keys")
    name = grpc_server.add_guarded(guard_for(authority, api_keys=keys), rules=READ)
    token, key = bearer(authority.mint("read")), (("x-api-key", "acme_x"),)
    for _ in range(3):  # until the token is remembered
        assert grpc_server.call(name, "/plain/unary_unary", token).code is Status.OK
    for _ in range(2):
        assert grpc_server.call(name, "/plain/unary_unary", (*token, *key)).code is Status.UNAUTHENTICATED
        assert grpc_server.call(name, "/plain/unary_unary", key).code is Status.UNAUTHENTICATED


# -- kinds of calls and handlers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("service", ["plain", "writing", "blocking"])
def test_each_kind_of_call_is_guarded(grpc_server: GrpcServer, authority: FakeAuthority, kind: str, service: str):
    """``writing`` and ``blocking`` are other kinds of handlers of the async server."""
    if service == "writing" and not kind.endswith("stream"):
        service = "plain"
    name = grpc_server.add_guarded(guard_for(authority), rules=READ)
    expected = [b"client a", b"client b"] if kind.endswith("stream") else [b"client a,b"]
    method = f"/{service}/{kind}"
    granted = grpc_server.call(name, method, bearer(authority.mint("read")), kind=kind)
    assert (granted.code, granted.responses) == (Status.OK, expected)
    parsed.clear()
    for metadata, code in (((), Status.UNAUTHENTICATED), (bearer(authority.mint("other")), Status.PERMISSION_DENIED)):
        refused = grpc_server.call(name, method, metadata, kind=kind)
        assert (refused.code, refused.responses, len(refused.all("www-authenticate"))) == (code, [], 1)
    assert parsed == []


def test_message_that_cannot_be_parsed_is_an_internal_error(grpc_server: GrpcServer, authority: FakeAuthority):
    """As without an interceptor: gRPC parses messages before it calls a handler."""
    name = grpc_server.add_guarded(guard_for(authority), rules=READ)
    for service in ("plain", "blocking"):
        outcome = grpc_server.call(name, f"/{service}/x", bearer(authority.mint("read")), b"malformed")
        assert (outcome.code, outcome.details) == (Status.INTERNAL, "Exception deserializing request!")


def test_method_without_a_rule_is_denied_whether_it_exists_or_not(grpc_server: GrpcServer, authority: FakeAuthority):
    name = grpc_server.add_guarded(guard_for(authority), rules=READ)
    good, unknown = bearer(authority.mint("read")), ("/plain", "/other/unary_unary", "/plain/unary_unary/x", "/Plain/x")
    for method in unknown:
        assert grpc_server.call(name, method).code is Status.UNAUTHENTICATED
        outcome = grpc_server.call(name, method, good)
        assert (outcome.code, outcome.all("www-authenticate")) == (Status.PERMISSION_DENIED, [])
    assert grpc_server.call(name, "/missing/x").code is Status.UNAUTHENTICATED
    missing = grpc_server.call(name, "/missing/x", good)
    assert (missing.code, missing.details) == (Status.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize("more", ["?", "?x", "#x", "?/plain/unary_unary"])
def test_path_with_more_than_a_method_is_denied(grpc_server: GrpcServer, authority: FakeAuthority, more: str):
    """A handler may forward calls to a server that ignores the query: the rule for all methods must not open it."""
    strict = Rule("/plain/unary_unary", all_of("admin"))
    name = grpc_server.add_guarded(guard_for(authority), rules=[strict, *READ], public=["/public/{method}"])
    good = bearer(authority.mint("read"))
    assert grpc_server.call(name, "/plain/stream_unary", good).code is Status.OK
    for method in ("/plain/unary_unary", f"/plain/unary_unary{more}", f"/public/unary_unary{more}"):
        assert grpc_server.call(name, method).code is Status.UNAUTHENTICATED
        assert grpc_server.call(name, method, good).code is Status.PERMISSION_DENIED
    assert grpc_server.call(name, "/public/unary_unary").code is Status.OK


def test_hidden_refusal_looks_like_an_unknown_method(grpc_server: GrpcServer, authority: FakeAuthority):
    guard = Guard(
        authority.issuer,
        challenge=ChallengeStyle(realm="x", hide_forbidden=True),
        transport=authority.transport,
        clock=authority.clock,
    )
    name = grpc_server.add_guarded(guard, rules=READ)
    hidden = grpc_server.call(name, "/plain/x", bearer(authority.mint("other")))
    missing = grpc_server.call(name, "/missing/x", bearer(authority.mint("read")))
    assert (hidden.code, hidden.details, hidden.trailing) == (missing.code, missing.details, missing.trailing)


def test_public_and_optional_methods(grpc_server: GrpcServer, authority: FakeAuthority):
    guard = guard_for(authority)
    name = grpc_server.add_guarded(guard, rules=[Rule("/plain/{method}", OPTIONAL)], public=[HEALTH])
    expired = bearer(authority.mint("read", expires_in=-3600))
    for metadata in ((), expired, bearer(authority.mint("read"))):
        for kind in KINDS:
            outcome = grpc_server.call(name, f"/grpc.health.v1.Health/{kind}", metadata, kind=kind)
            assert (outcome.code, outcome.responses[0][:6]) == (Status.OK, b"nobody")
    calls = [grpc_server.call(name, "/plain/x", metadata) for metadata in ((), bearer(authority.mint("read")), expired)]
    assert [call.code for call in calls] == [Status.OK, Status.OK, Status.UNAUTHENTICATED]
    assert [call.responses for call in calls[:2]] == [[b"nobody a,b"], [b"client a,b"]]


def test_token_is_taken_from_one_value_of_one_place(grpc_server: GrpcServer, authority: FakeAuthority):
    places = TokenSources(methods=["header", "query", "form", "subprotocol"])
    name = grpc_server.add_guarded(guard_for(authority, token_sources=places), rules=READ)
    token = authority.mint("read")
    for metadata, code in (
        ([("authorization", f"Bearer {token}")], Status.OK),
        ([("authorization", f"Bearer {token}")] * 2, Status.UNAUTHENTICATED),
        ([("authorization", f"Bearer {token}"), ("authorization", "Basic dTpw")], Status.UNAUTHENTICATED),
        ([("authorization", f"Bearer {token},Bearer {token}")], Status.UNAUTHENTICATED),
        ([("authorization-bin", f"Bearer {token}".encode())], Status.UNAUTHENTICATED),
        ([("x-forwarded-authorization", f"Bearer {token}")], Status.UNAUTHENTICATED),
        ([("access_token", token)], Status.UNAUTHENTICATED),
        ([("sec-websocket-protocol", f"bearer,{token}")], Status.UNAUTHENTICATED),
        ([("content-type", "application/x-www-form-urlencoded")], Status.UNAUTHENTICATED),
    ):
        outcome = grpc_server.call(name, "/plain/x", metadata, f"access_token={token}".encode())
        assert outcome.code is code, metadata


def test_api_keys_are_not_accepted_and_not_beside_a_token(grpc_server: GrpcServer, authority: FakeAuthority):
    keys = ApiKeys(prefix="acme", lookup=lambda _: None, issuer="https://keys.test")
    name = grpc_server.add_guarded(guard_for(authority, api_keys=keys), rules=READ)
    token, key = bearer(authority.mint("read")), (("x-api-key", "acme_unknown"),)
    calls = [grpc_server.call(name, "/plain/x", sent).code for sent in (token, token, key, (*token, *key))]
    assert calls == [Status.OK, Status.OK, Status.UNAUTHENTICATED, Status.UNAUTHENTICATED]


def test_policy_of_a_rule_decides(grpc_server: GrpcServer, authority: FakeAuthority):
    asked: list[PolicyRequest] = []

    def decide(token: Any, request: PolicyRequest) -> bool:
        asked.append(request)
        return bool(token.subject == "ann")

    name = grpc_server.add_guarded(guard_for(authority), rules=[Rule("/plain/{method}", all_of("read"), decide=decide)])
    codes = [
        grpc_server.call(name, "/plain/x", bearer(authority.mint("read", subject=who))).code for who in ("ann", "bo")
    ]
    assert codes == [Status.OK, Status.PERMISSION_DENIED]
    assert {(request.method, request.path, request.client) for request in asked} == {("POST", "/plain/x", "127.0.0.1")}


def test_async_policy_is_for_async_servers(authority: FakeAuthority):
    async def decide(token: Any, request: PolicyRequest) -> bool:
        return True

    given: Any = {"rules": [Rule("/plain/{method}", all_of("read"), decide=decide)]}
    with pytest.raises(ConfigurationError, match="decide"):
        GuardInterceptor(guard_for(authority), **given)
    AsyncGuardInterceptor(guard_for(authority), **given)


def test_listener_gets_one_decision_for_each_call(grpc_server: GrpcServer, authority: FakeAuthority):
    events: list[DecisionEvent] = []
    name = grpc_server.add_guarded(guard_for(authority, on_decision=events.append), rules=READ)
    for metadata in (bearer(authority.mint("read")), bearer(authority.mint("read")), bearer("x"), ()):
        grpc_server.call(name, "/plain/unary_stream", metadata, kind="unary_stream")
    found = [(type(event.decision).__name__, event.method, event.path, event.route, event.adapter) for event in events]
    place = ("POST", "/plain/unary_stream", "/plain/{method}", "grpc")
    assert found == [("Granted", *place)] * 2 + [("Denied", *place)] * 2


# -- proofs of possession

KEY = ProofKey()


class ProofCalls:
    """A guard that accepts proofs, and calls with a token that is bound to :data:`KEY`."""

    def __init__(self, server: GrpcServer, authority: FakeAuthority, **policy: Any) -> None:
        self.server, self.authority = server, authority
        guard = guard_for(authority, dpop=DPoP(base_url="https://api.test", **policy))
        self._name = server.add_guarded(guard, rules=[*READ, Rule("/bound/{method}", all_of("read"), dpop="required")])
        self.token = authority.mint("read", bound_to=KEY)

    def call(self, *proofs: str, scheme: str = "DPoP", token: str = "", method: str = "/plain/x") -> Outcome:
        fields = [("authorization", f"{scheme} {token or self.token}"), *(("dpop", proof) for proof in proofs)]
        return self.server.call(self._name, method, fields)

    def proof(self, uri: str = "https://api.test/plain/x", method: str = "POST", **claims: Any) -> str:
        return KEY.proof(self.token, method, uri, at=self.authority.clock.wall(), claims=claims)


@pytest.mark.rule("D-17", "D-44", "D-45", "D-46", "D-54")
def test_proof_is_for_the_post_request_of_the_call(grpc_server: GrpcServer, authority: FakeAuthority):
    calls = ProofCalls(grpc_server, authority)
    once = calls.proof()
    assert [calls.call(once).code for _ in range(2)] == [Status.OK, Status.UNAUTHENTICATED]
    wrong = [
        calls.call(),
        calls.call(calls.proof(), calls.proof()),
        calls.call(calls.proof(method="GET")),
        calls.call(calls.proof("https://api.test/plain/y")),
        calls.call(calls.proof("https://evil.test/plain/x")),
        calls.call(calls.proof("http://127.0.0.1/plain/x")),
        calls.call(calls.proof(), scheme="Bearer"),
        calls.call(scheme="Bearer", token=authority.mint("read"), method="/bound/x"),
    ]
    for outcome in wrong:
        assert outcome.code is Status.UNAUTHENTICATED
        assert [value.partition(" ")[0] for value in outcome.all("www-authenticate")] == ["Bearer", "DPoP"]
    assert calls.call(calls.proof("https://api.test/bound/x"), method="/bound/x").code is Status.OK


@pytest.mark.rule("D-26", "D-32")
def test_nonce_is_in_the_trailing_metadata(grpc_server: GrpcServer, authority: FakeAuthority):
    calls = ProofCalls(grpc_server, authority, nonce_keys=["a secret of the operator, 32 bytes or more"])
    refused = calls.call(calls.proof())
    assert refused.code is Status.UNAUTHENTICATED
    (nonce,) = refused.all("dpop-nonce")
    young = calls.call(calls.proof(nonce=nonce))
    assert (young.code, young.all("dpop-nonce")) == (Status.OK, [])
    authority.clock.advance(200)
    for kind in ("x", "unary_unary"):
        renewed = calls.call(calls.proof(f"https://api.test/plain/{kind}", nonce=nonce), method=f"/plain/{kind}")
        assert renewed.code is Status.OK
        assert len(renewed.all("dpop-nonce")) == 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("grpc"))


@pytest.fixture(scope="module")
def over_tls(certificates: Certificates) -> Iterator[GrpcServer]:
    """A server that asks its clients for certificates, and a client with one."""
    bundle, options = certificates.bundle.read_bytes(), (("grpc.ssl_target_name_override", "localhost"),)
    server, client = certificates.issue("localhost").read_bytes(), client_pem(certificates).read_bytes()
    asking = grpc.ssl_server_credentials([(server, server)], bundle, require_client_auth=True)
    with serve_blocking(asking, grpc.ssl_channel_credentials(bundle, client, client), options) as running:
        yield running


def client_pem(certificates: Certificates) -> Path:
    """Return the file of the one certificate of the client."""
    made = certificates.bundle.parent / "client.pem"
    if not made.exists():
        made.write_bytes(certificates.issue("client").read_bytes())
    return made


@pytest.mark.rule("M-01", "M-03")
def test_token_is_bound_to_the_certificate_of_the_connection(
    over_tls: GrpcServer, certificates: Certificates, authority: FakeAuthority
):
    der = x509.load_pem_x509_certificate(client_pem(certificates).read_bytes()).public_bytes(Encoding.DER)
    guard = guard_for(authority, mutual_tls=MutualTLS(), require_https=True)
    name = over_tls.add_guarded(guard, rules=READ)
    for digest, code in ((thumbprint(der), Status.OK), (thumbprint(b"other"), Status.UNAUTHENTICATED)):
        token = authority.mint("read", claims={"cnf": {"x5t#S256": digest}})
        assert over_tls.call(name, "/plain/x", bearer(token)).code is code
    assert over_tls.call(name, "/plain/x", bearer(authority.mint("read"))).code is Status.OK


def test_bound_token_needs_a_certificate(grpc_server: GrpcServer, authority: FakeAuthority):
    name = grpc_server.add_guarded(guard_for(authority, mutual_tls=MutualTLS()), rules=READ)
    token = authority.mint("read", claims={"cnf": {"x5t#S256": thumbprint(b"any")}})
    assert grpc_server.call(name, "/plain/x", bearer(token)).code is Status.UNAUTHENTICATED


# -- configuration


@pytest.mark.parametrize("make", [GuardInterceptor, AsyncGuardInterceptor])
def test_mistakes_are_named(make: Any, authority: FakeAuthority):
    guard = guard_for(authority)
    for given, message in (
        ({"guard": object(), "rules": READ}, "must be a scopeguard.Guard"),
        ({"guard": guard}, "must name the methods of the server"),
        ({"guard": guard, "public": [HEALTH]}, "must name the methods of the server"),
        ({"guard": guard, "rules": [Rule("/a/b", token_sources=("header", "form"))]}, "token_sources"),
        ({"guard": guard, "rules": [Rule("/a/b", dpop="required")]}, "checks no proofs"),
        # Fault: an adapter that replaces the places of the guard, and so opens one that the guard closes.
        ({"guard": guard_for(authority, api_keys=KEYS, token_sources=["api_key"]), "rules": READ}, "lacks 'header'"),
        ({"guard": guard_for(authority, token_sources=["query"]), "rules": READ}, "lacks 'header'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            make(**given)
    assert make(guard_for(authority, rules=READ))
    assert make(guard, rules=[])


def service(*methods: str) -> Any:
    """Return the descriptor of a service, as generated code has it."""
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", package="rows.v1")
    file.message_type.add(name="Row")
    described = file.service.add(name="Rows")
    for method in methods:
        described.method.add(name=method, input_type=".rows.v1.Row", output_type=".rows.v1.Row")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("rows.v1.Rows")


def test_each_method_of_a_service_has_a_rule(authority: FakeAuthority):
    interceptor = GuardInterceptor(
        guard_for(authority), rules=[Rule("/rows.v1.Rows/Insert", all_of("write"))], public=["/rows.v1.Rows/Count"]
    )
    interceptor.check_services(service("Insert", "Count"))
    with pytest.raises(ConfigurationError, match=r"no rule matches /rows\.v1\.Rows/Read, /rows\.v1\.Rows/insert;"):
        interceptor.check_services(service("Insert", "Count"), service("Read", "insert"))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[::1]:50000", "::1"),
        ("unix:/run/api.sock", None),
        ("unix-abstract:name", None),
        ("unknown", "unknown"),
        ("vsock:2:50000", "vsock:2:50000"),
    ],
)
def test_address_of_the_peer(peer: str, address: str | None):
    class Context:
        def invocation_metadata(self) -> None: ...

        def auth_context(self) -> dict[str, Any]:
            return {}

        def peer(self) -> str:
            return peer

    from scopeguard.grpc.calls import request_view

    view = request_view("/a/b", Context(), with_proofs=False)
    assert (view.client, view.secure, view.method, view.path) == (address, False, "POST", "/a/b")


def test_cleartext_from_another_machine_is_refused_if_the_guard_requires_tls(authority: FakeAuthority):
    class Context:
        trailing: Any = ()

        def invocation_metadata(self) -> Any:
            return bearer(authority.mint("read"))

        def auth_context(self) -> dict[str, Any]:
            return {"transport_security_type": [kind]}

        def peer(self) -> str:
            return "ipv4:192.0.2.1:50000"

        def set_trailing_metadata(self, fields: Any) -> None:
            self.trailing = fields

        def abort(self, code: Any, details: str) -> None:
            raise RuntimeError(code)

    interceptor = GuardInterceptor(guard_for(authority, require_https=True), rules=READ)
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"in")
    details = type("Details", (), {"method": "/plain/x", "invocation_metadata": ()})
    guarded = interceptor.intercept_service(lambda _: handler, details)
    kind = b"ssl"
    assert guarded.unary_unary(b"", Context()) == b"in"
    kind = b"insecure"
    with pytest.raises(RuntimeError, match="UNAUTHENTICATED"):
        guarded.unary_unary(b"", Context())


# -- the interceptor for the other kind of server


def test_async_server_refuses_the_blocking_interceptor(authority: FakeAuthority):
    async def serve() -> None:
        grpc.aio.server(interceptors=[GuardInterceptor(Guard(authority.issuer), rules=READ)])

    # gRPC looks at the class before anything of scopeguard runs; the guide for gRPC explains this error.
    with pytest.raises(ValueError, match="Interceptor must be ServerInterceptor"):
        asyncio.run(serve())


def test_blocking_server_refuses_each_call_with_the_async_interceptor_and_logs_the_other(
    authority: FakeAuthority, caplog: pytest.LogCaptureFixture
):
    with serve_blocking() as server:
        name = server.add(AsyncGuardInterceptor(Guard(authority.issuer), rules=READ))
        outcome = server.call(name, "/plain/unary_unary", bearer(authority.mint("read")))
    assert (outcome.code, outcome.responses) == (Status.UNKNOWN, [])
    assert "ConfigurationError: AsyncGuardInterceptor is for grpc.aio.server; give grpc.server a Guard" in caplog.text
