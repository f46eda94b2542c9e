"""DPoP in the client: proofs, nonces and redirects, against a guarded API and a token endpoint that demand them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import httpx2
import jwt
import pytest

from scopeguard import ConfigurationError, DPoP, Guard, Issuer
from scopeguard import asgi as asgi_door
from scopeguard import wsgi as wsgi_door
from scopeguard.client import (
    ClientCredentials,
    DPoPKey,
    OriginNotAllowed,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenExchange,
)
from scopeguard.client.httpx_auth import with_proof, without_proof
from scopeguard.client.proofs import MOST_NONCES, Proofs
from scopeguard.devserver import Client
from scopeguard.flow.effects import Answer, Send
from scopeguard.spec.dpop import token_hash
from scopeguard.spec.jwks import thumbprint
from scopeguard.testing import FakeAuthority

TOKEN_URL = "https://as.example/token?tenant=1"
RES = "https://api.example/v1"
NONCE_KEY = "a secret of the operator, 32 bytes or more"
KEY = DPoPKey()


def claims_of(proof: str) -> dict[str, Any]:
    """Return the claims of *proof*, whose signature is verified with the key in its header."""
    header = jwt.get_unverified_header(proof)
    assert header["typ"] == "dpop+jwt"
    assert set(header) == {"typ", "alg", "jwk"}
    assert "d" not in header["jwk"]
    claims: dict[str, Any] = jwt.decode(
        proof, jwt.PyJWK(header["jwk"], algorithm=header["alg"]).key, [header["alg"]], options={"verify_iat": False}
    )
    claims["jkt"] = thumbprint(header["jwk"])
    return claims


@dataclass
class AuthorizationServer:
    """A token endpoint that binds its tokens to the key of the proof, and demands ``nonce``, if it is set.

    After a token, ``next_nonce`` replaces it. ``forgetful``: it demands another nonce each time.
    """

    authority: FakeAuthority
    nonce: str | None = "as-1"
    next_nonce: str | None = None
    forgetful: bool = False
    token_type: str = "DPoP"
    status_of_demand: int = 400
    busy: int = 0
    seen: list[Send] = field(default_factory=list)
    proofs: list[dict[str, Any]] = field(default_factory=list)

    def send(self, request: Send, /) -> Answer:
        self.seen.append(request)
        claims = claims_of(dict(request.headers)["dpop"])
        self.proofs.append(claims)
        if self.busy:
            self.busy -= 1
            return Answer(503, b"")
        if self.forgetful:
            self.nonce = f"as-{len(self.seen)}"
        if self.nonce is not None and (self.forgetful or claims.get("nonce") != self.nonce):
            body = json.dumps({"error": "use_dpop_nonce"}).encode()
            return Answer(self.status_of_demand, body, {"dpop-nonce": self.nonce})
        renewed = {} if self.next_nonce is None else {"dpop-nonce": self.next_nonce}
        self.nonce, self.next_nonce = self.next_nonce or self.nonce, None
        binding = {"cnf": {"jkt": claims["jkt"]}, "client_id": "client-1"}
        token = self.authority.mint("read", claims=binding if self.token_type.lower() == "dpop" else None)
        members = {"access_token": token, "token_type": self.token_type, "expires_in": 300}
        return Answer(200, json.dumps(members).encode(), {"content-type": "application/json", **renewed})

    def close(self) -> None:
        pass


@dataclass
class Scripted:
    """A transport that answers by a function."""

    respond: Callable[[Send], Answer]

    def send(self, request: Send, /) -> Answer:
        return self.respond(request)

    def close(self) -> None:
        pass


REDIRECTS = {
    "/v1/first": "/v1/second",
    "/v1/second": "/v1/rows",
    "/v1/loop": "/v1/loop",
    "/v1/away": "https://evil.example/rows",
}


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    location = REDIRECTS.get(scope["path"])
    headers = [(b"location", location.encode())] if location else []
    await send({"type": "http.response.start", "status": 307 if location else 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"rows"})


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    location = REDIRECTS.get(environ["PATH_INFO"])
    start_response("307 Moved" if location else "200 OK", [("Location", location)] if location else [])
    return [b"rows"]


@dataclass
class World:
    """The API behind a guard with DPoP, the authorization server, and a client of them."""

    runtime: str
    library: Any
    authority: FakeAuthority
    server: AuthorizationServer
    guard: Guard
    seen: list[Any] = field(default_factory=list)
    elsewhere: list[Any] = field(default_factory=list)

    def auth(self, **settings: Any) -> ClientCredentials:
        made = ClientCredentials(
            TOKEN_URL,
            "client-1",
            "sg-secret-1",
            **{"dpop": KEY, "transport": self.server, "clock": self.authority.clock, **settings},
        )
        made._fetcher._transport._sleep = lambda _: None
        return made

    def call(self, auth: Any, url: str = RES + "/rows?x=1#y", method: str = "GET", **options: Any) -> Any:
        outer = self

        def record(request: Any) -> Any:
            outer.seen.append((request.url, dict(request.headers)))
            if request.url.host != "api.example":
                outer.elsewhere.append(dict(request.headers))
                return outer.library.Response(200)
            return None

        if self.runtime == "blocking":
            inner = self.library.WSGITransport(app=wsgi_door.GuardMiddleware(_wsgi_app, guard=self.guard))

            def handle(_: Any, request: Any) -> Any:
                return record(request) or inner.handle_request(request)

            recording = type("Recording", (self.library.BaseTransport,), {"handle_request": handle})
            with self.library.Client(transport=recording(), auth=auth, follow_redirects=True) as client:
                return client.request(method, url, **options)
        async_inner = self.library.ASGITransport(app=asgi_door.GuardMiddleware(_asgi_app, guard=self.guard))

        async def handle_async(_: Any, request: Any) -> Any:
            return record(request) or await async_inner.handle_async_request(request)

        async def main() -> Any:
            recording = type("Recording", (self.library.AsyncBaseTransport,), {"handle_async_request": handle_async})
            async with self.library.AsyncClient(transport=recording(), auth=auth, follow_redirects=True) as client:
                return await client.request(method, url, **options)

        return anyio.run(main, backend=self.runtime)

    @property
    def proofs(self) -> list[dict[str, Any]]:
        """The claims of the proofs that the API received."""
        return [claims_of(headers["dpop"]) for _, headers in self.seen if "dpop" in headers]


@pytest.fixture(params=[("blocking", httpx), ("asyncio", httpx), ("asyncio", httpx2), ("blocking", httpx2)])
def world(request):
    return make_world(*request.param)


def make_world(runtime: str = "blocking", library: Any = httpx, **policy: Any) -> World:
    authority = FakeAuthority(audience=RES)
    guard = Guard(
        Issuer(authority.url),
        resource=RES,
        dpop=DPoP(mode="required", **(policy or {"nonce_keys": [NONCE_KEY]})),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    return World(runtime, library, authority, AuthorizationServer(authority), guard)


@pytest.mark.rule("C-34", "C-35")
def test_each_server_gets_proofs_with_its_own_nonces_only(world):
    auth = world.auth()
    assert world.call(auth).status_code == 200
    assert world.call(auth, method="POST", content=b"x").status_code == 200
    # The demands cost one request at each server; later requests have the nonce at once.
    assert [proof.get("nonce") for proof in world.server.proofs] == [None, "as-1"]
    first, second, third = world.proofs
    assert "nonce" not in first
    assert second["nonce"] == third["nonce"] != "as-1"
    token = auth.token().access_token
    assert (first["htm"], third["htm"]) == ("GET", "POST")
    for proof in world.proofs:
        assert proof["htu"] == RES + "/rows"
        assert proof["ath"] == token_hash(token)
        assert proof["iat"] == int(world.authority.clock.wall())
    for proof in world.server.proofs:
        assert (proof["htm"], proof["htu"]) == ("POST", "https://as.example/token")
        assert "ath" not in proof
    identifiers = [proof["jti"] for proof in world.proofs + world.server.proofs]
    assert len(set(identifiers)) == 5
    assert [headers["authorization"] for _, headers in world.seen] == [f"DPoP {token}"] * 3


def test_a_fake_authority_issues_tokens_for_the_key():
    world = make_world()
    world.authority.authority.registry.add_client(Client(client_id="client-1", secret="sg-secret-1", scopes=["read"]))
    auth = ClientCredentials.from_issuer(
        world.authority.url,
        "client-1",
        "sg-secret-1",
        audience=RES,
        dpop=KEY,
        transport=world.authority.transport,
        clock=world.authority.clock,
    )
    assert world.call(auth).status_code == 200
    assert auth.token().token_type == "DPoP"


@pytest.mark.rule("C-34")
def test_nonces_are_renewed_from_successful_responses(world):
    auth = world.auth()
    world.call(auth)
    world.authority.clock.advance(200)  # more than half of the lifetime of a nonce
    assert world.call(auth).status_code == 200
    assert world.call(auth).status_code == 200
    demanded, first, late, renewed = (proof.get("nonce") for proof in world.proofs)
    assert demanded is None
    assert first == late != renewed


@pytest.mark.rule("C-34")
def test_the_nonce_of_a_token_response_is_used_for_the_next_request():
    world = make_world()
    world.server.next_nonce = "as-2"
    auth = world.auth()
    auth.token()
    world.authority.clock.advance(299)
    auth.token()
    auth._fetcher._outside.close()  # waits for the renewal in the background
    assert [proof.get("nonce") for proof in world.server.proofs] == [None, "as-1", "as-2"]


@pytest.mark.rule("C-34")
@pytest.mark.parametrize("status", [400, 401])
def test_a_token_endpoint_that_always_demands_another_nonce_gets_two_requests(status):
    world = make_world()
    world.server.forgetful = True
    world.server.status_of_demand = status
    with pytest.raises(TokenEndpointError) as raised:
        world.auth().token()
    assert raised.value.error == "use_dpop_nonce"
    assert [proof.get("nonce") for proof in world.server.proofs] == [None, "as-1"]


@pytest.mark.rule("C-34")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, b'{"error": "use_dpop_nonce"}', {}),
        Answer(400, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": 'quo"te'}),
        Answer(400, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": "a, b"}),
        Answer(400, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": "x" * 1025}),
        Answer(400, b'{"error": "invalid_dpop_proof"}', {"dpop-nonce": "as-1"}),
        Answer(403, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": "as-1"}),
    ],
)
def test_other_answers_of_a_token_endpoint_demand_no_nonce(credentials, endpoint, answer):
    endpoint.script = [answer] * 2
    with pytest.raises(TokenEndpointError):
        credentials(dpop=KEY).token()
    assert len(endpoint.seen) == 1


DEMAND = ("www-authenticate", 'Bearer, DPoP algs="ES256", error="use_dpop_nonce"')


@pytest.mark.rule("C-34", "C-35")
def test_an_api_that_always_demands_another_nonce_gets_two_requests(call, api):
    world = make_world()
    service = api((401, [DEMAND, ("dpop-nonce", "rs-1")]), (401, [DEMAND, ("dpop-nonce", "rs-2")]))
    auth = world.auth()
    assert call(auth, service).status_code == 401
    assert [claims_of(proof).get("nonce") for proof in service.proofs] == [None, "rs-1"]
    assert call(auth, service).status_code == 401
    assert [claims_of(proof).get("nonce") for proof in service.proofs] == [None, "rs-1", "rs-2", "rs-2"]
    assert len(world.server.seen) == 2


@pytest.fixture
def api(library):
    """An API with fixed answers that copies the proof of each request."""

    class Api:
        def __init__(self, *answers: Any) -> None:
            self.answers = [a if isinstance(a, tuple) else (a, {}) for a in answers or (200,)]
            self.proofs: list[Any] = []
            self.seen: list[dict[str, str]] = []

        def __call__(self, request: Any) -> Any:
            self.proofs.append(request.headers.get("dpop"))
            self.seen.append(dict(request.headers))
            status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return library.Response(status, headers=headers)

    return Api


@pytest.fixture
def call(library):
    """Send one request with an auth object to ``api``, with the library of ``api``."""

    def send(
        auth: Any, service: Any, url: str = "https://api.example/", *, follow_redirects: bool = False, **options: Any
    ) -> Any:
        transport = service if isinstance(service, library.BaseTransport) else library.MockTransport(service)
        with library.Client(transport=transport, auth=auth, follow_redirects=follow_redirects) as client:
            return client.request(options.pop("method", "GET"), url, **options)

    return send


@pytest.mark.rule("C-34")
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, [DEMAND]),
        (401, [DEMAND, ("dpop-nonce", "a"), ("dpop-nonce", "b")]),
        (401, [("www-authenticate", "Bearer error=use_dpop_nonce"), ("dpop-nonce", "a")]),
        (401, [("www-authenticate", "DPoP error=invalid_dpop_proof"), ("dpop-nonce", "a")]),
        (400, [DEMAND, ("dpop-nonce", "a")]),
        (403, [DEMAND, ("dpop-nonce", "a")]),
    ],
)
def test_other_answers_of_an_api_demand_no_nonce(call, api, status, headers):
    service = api((status, headers), 200)
    assert call(make_world().auth(), service).status_code == status
    assert len(service.seen) == 1


@pytest.mark.rule("C-34")
def test_a_stream_is_not_sent_again_and_the_next_request_has_the_nonce(library, call, api):
    service = api((401, [DEMAND, ("dpop-nonce", "rs-1")]), 200)

    # A mock transport reads the stream, after which it can be repeated.
    unread = type("Unread", (library.BaseTransport,), {"handle_request": lambda _, request: service(request)})
    auth = make_world().auth()
    assert call(auth, unread(), method="POST", content=iter([b"x"])).status_code == 401
    assert call(auth, unread(), method="POST", content=iter([b"x"])).status_code == 200
    assert [claims_of(proof).get("nonce") for proof in service.proofs] == [None, "rs-1"]


@pytest.mark.rule("C-35", "C-42")
@pytest.mark.parametrize(
    "challenge", ['DPoP error="invalid_token"', 'Bearer error="invalid_token", DPoP algs="ES256"', None]
)
def test_a_refused_token_is_replaced_and_sent_with_a_fresh_proof(call, api, challenge):
    world = make_world()
    service = api((401, {"www-authenticate": challenge} if challenge else {}), 200)
    assert call(world.auth(), service).status_code == 200
    first, second = (claims_of(proof) for proof in service.proofs)
    assert first["jti"] != second["jti"]
    assert first["ath"] != second["ath"]
    assert service.seen[1]["authorization"].startswith("DPoP ")
    assert len(world.server.seen) == 3


@pytest.mark.rule("C-35")
def test_each_attempt_at_the_token_endpoint_has_a_fresh_proof():
    world = make_world()
    world.server.busy = 2
    world.auth().token()
    proofs = world.server.proofs
    assert len(proofs) == len({proof["jti"] for proof in proofs}) == 4


# -- token_type


@pytest.mark.rule("C-33")
@pytest.mark.parametrize("token_type", ["Bearer", "mac", "DPoP2"])
def test_a_token_that_is_not_bound_is_refused(token_type):
    world = make_world()
    world.server.token_type = token_type
    with pytest.raises(TokenEndpointError, match="token_type is not DPoP although a proof was sent"):
        world.auth().token()


@pytest.mark.rule("C-33")
@pytest.mark.parametrize("token_type", ["DPoP", "dpop", "DPOP"])
def test_a_bound_token_is_accepted_in_any_case(token_type):
    world = make_world()
    world.server.token_type = token_type
    assert world.call(world.auth()).status_code == 200


@pytest.mark.rule("C-33")
def test_with_dpop_optional_a_bearer_token_is_sent_as_one(call, api):
    world = make_world()
    world.server.token_type = "Bearer"
    service = api(200)
    call(world.auth(dpop_optional=True), service, headers={"DPoP": "kept"})
    assert service.seen[0]["authorization"].startswith("Bearer ")
    assert service.proofs == ["kept"]


def test_without_dpop_no_proof_is_sent_and_a_bound_token_is_refused(credentials, endpoint, call, api):
    service = api(200)
    call(credentials(), service)
    assert service.proofs == [None]
    assert endpoint.seen[0].headers == ()
    endpoint.script = [endpoint.answer(access_token="x", token_type="DPoP")]
    with pytest.raises(TokenEndpointError, match="token_type is not Bearer"):
        credentials().token()


# -- redirects


@pytest.mark.rule("C-41")
def test_a_redirect_to_another_origin_takes_neither_header(world):
    auth = world.auth()
    response = world.call(auth, RES + "/away")
    assert response.status_code == 200
    (headers,) = world.elsewhere
    assert not {"authorization", "dpop"} & set(headers)


@pytest.mark.rule("C-41")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_within_the_origin_is_followed_with_a_new_proof(world, method):
    auth = world.auth()
    response = world.call(auth, RES + "/first", method, **CONTENT[method])
    assert response.status_code == 200
    assert response.request.url.path == "/v1/rows"
    uris = [proof["htu"].removeprefix(RES) for proof in world.proofs]
    assert uris == ["/first", "/first", "/second", "/rows"]
    assert len({proof["jti"] for proof in world.proofs}) == 4


CONTENT: dict[str, dict[str, Any]] = {"GET": {}, "POST": {"content": b"x"}}


@pytest.mark.rule("C-41")
def test_endless_redirects_are_limited(world):
    auth = world.auth()
    with pytest.raises((httpx.TooManyRedirects, httpx2.TooManyRedirects)):
        world.call(auth, RES + "/loop")
    assert len(world.seen) < 100


@pytest.mark.rule("C-41")
def test_nonce_of_another_origin_is_not_kept(call, api, library):
    service = api((307, {"location": "https://evil.example/"}), (401, [DEMAND, ("dpop-nonce", "evil-1")]), 200)
    auth = make_world().auth()
    assert call(auth, service, follow_redirects=True).status_code == 401
    assert service.proofs[1] is None
    assert "authorization" not in service.seen[1]
    call(auth, service)
    assert "nonce" not in claims_of(service.proofs[2])


@pytest.mark.rule("C-41")
def test_an_origin_that_is_not_allowed_gets_nothing(call, api):
    auth, service = make_world().auth(origins=["https://api.example"]), api(200)
    with pytest.raises(OriginNotAllowed):
        call(auth, service, url="https://evil.example/")
    assert service.seen == []


@pytest.mark.rule("C-41")
def test_only_the_request_itself_has_the_proof_and_no_copy(library):
    request = library.Request("GET", "https://api.example/", headers={"DPoP": "from the caller", "X": "1"})
    request.headers = with_proof(request.headers, "sg-proof")
    fields = request.headers
    assert fields["dpop"] == fields.get("DPoP") == "sg-proof"
    assert (b"DPoP", b"sg-proof") in fields.raw
    assert fields.get_list("dpop", split_commas=True) == ["sg-proof"]
    assert "dpop" in fields
    assert list(fields) == list(fields.keys()) == ["host", "x", "dpop"]
    assert list(fields.values()) == ["api.example", "1", "sg-proof"]
    assert dict(fields.items()) == dict(fields.multi_items())
    assert len(fields) == 3
    fields["Y"] = "2"
    for copied in (library.Headers(fields), fields.copy(), pickle.loads(pickle.dumps(fields)), without_proof(fields)):
        assert type(copied) is library.Headers
        assert "dpop" not in copied
        assert copied["y"] == "2"
    assert "sg-proof" not in repr(fields)


# -- nonces


def test_nonces_are_kept_for_the_latest_origins(clock):
    proofs = Proofs(KEY, clock)
    for number in range(MOST_NONCES + 1):
        assert proofs.learn(f"https://a{number}.example/x", [f"n{number}"])
    assert not proofs.learn("https://a1.example/x", [])
    assert "nonce" not in claims_of(proofs.make("GET", "https://a0.example"))
    assert claims_of(proofs.make("GET", "https://A1.example:443/other"))["nonce"] == "n1"
    assert "nonce" not in claims_of(proofs.make("GET", "http://a1.example:8080/"))


# -- the key


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
def test_the_algorithms_of_keys_are_accepted_by_the_guard(algorithm):
    world = make_world()
    assert world.call(world.auth(dpop=DPoPKey(algorithm=algorithm))).status_code == 200


def test_a_key_from_pem_text_or_a_file_has_the_same_thumbprint(tmp_path):
    pem = KEY._key.material
    assert isinstance(pem, str)
    file = tmp_path / "dpop.pem"
    file.write_text(pem)
    assert {DPoPKey(pem=pem).thumbprint, DPoPKey(file=file).thumbprint, DPoPKey(file=str(file)).thumbprint} == {
        KEY.thumbprint
    }
    assert DPoPKey().thumbprint != DPoPKey().thumbprint
    assert claims_of(DPoPKey(pem=pem).proof("GET", RES))["jkt"] == KEY.thumbprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda pem, tmp: DPoPKey(pem=pem, file="x"), "dpop: pem and file: set one of them"),
        (lambda pem, tmp: DPoPKey(pem=pem, algorithm="EdDSA"), "dpop: pem: not a private key for EdDSA"),
        (
            lambda pem, tmp: DPoPKey(algorithm="RS256"),
            "dpop: algorithm: 'RS256' is not one of ES256, EdDSA, ML-",
        ),
        (lambda pem, tmp: DPoPKey(pem="sg-secret"), "dpop: pem: not a private key for ES256"),
        (lambda pem, tmp: DPoPKey(file=tmp / "none.pem"), "none.pem' is not a readable PEM file: No such file"),
        (lambda pem, tmp: DPoPKey(file=_binary(tmp)), "is not a readable PEM file: not ASCII"),
        (lambda pem, tmp: DPoPKey(pem=WEAK, algorithm="PS256"), "dpop: the key cannot be used: .*1024"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_without_quoting_it(make, message, tmp_path):
    pem = KEY._key.material
    with pytest.raises(ConfigurationError, match=message) as raised:
        make(pem, tmp_path)
    assert "PRIVATE" not in str(raised.value)
    assert "sg-secret" not in str(raised.value)


def _binary(folder: Any) -> Any:
    file = folder / "binary.pem"
    file.write_bytes(b"\xff\xfe")
    return file


def _weak_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    encoded: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()


WEAK: str = _weak_key()


@pytest.mark.rule("C-28")
def test_the_private_key_is_not_shown(credentials, caplog):
    caplog.set_level("DEBUG")
    world = make_world()
    auth = world.auth()
    world.call(auth)
    pem = str(KEY._key.material)
    secret = pem.splitlines()[1]
    shown = (repr(KEY), str(KEY), repr(auth), repr(vars(auth)), repr(auth._policy), repr(auth._proofs), caplog.text)
    for text in shown:
        assert secret not in text
    assert repr(KEY) == f"DPoPKey(algorithm='ES256', thumbprint='{KEY.thumbprint}')"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(KEY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dpop": "key"}, "dpop: must be a DPoPKey, not str"),
        ({"dpop": None, "dpop_optional": True}, "dpop_optional: has no effect without dpop"),
        ({"token_types": ["BearerToken"]}, "token_types: has no effect with dpop"),
        ({"token_type_optional": True}, "token_type_optional: has no effect with dpop"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        make_world().auth(**settings)


# -- token exchange


def test_an_exchanged_token_is_bound_and_sent_with_proofs():
    world = make_world()

    def send(request: Send) -> Answer:
        answer = world.server.send(request)
        if answer.status != 200:
            return answer
        members = json.loads(answer.body) | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        return Answer(200, json.dumps(members).encode(), answer.headers)

    exchange = TokenExchange(
        TOKEN_URL, "client-1", "s", dpop=KEY, transport=Scripted(send), clock=world.authority.clock, audience="x"
    )
    assert world.call(exchange.for_token("sg-opaque-of-the-caller")).status_code == 200
    assert world.call(exchange.for_token("sg-opaque-of-another")).status_code == 200
    nonces = [proof.get("nonce") for proof in world.proofs]
    assert nonces[0] is None
    assert nonces[1] == nonces[2] is not None
    assert [proof.get("nonce") for proof in world.server.proofs] == [None, "as-1", "as-1"]


def test_an_identity_assertion_is_redeemed_with_the_key_of_the_other_client(call, api):
    """The second server issues the token, so it is bound to the key of ``redeem_with``."""
    world = make_world()
    world.server.nonce = None
    redeem_with = world.auth()
    make: Callable[..., TokenExchange] = TokenExchange.identity_assertion
    exchange = make(TOKEN_URL, "c", "s", redeem_with=redeem_with, audience="x", transport=Scripted(_identity_provider))
    service = api(200)
    call(exchange.for_token("sg-opaque-of-the-caller"), service)
    assert claims_of(service.proofs[0])["jkt"] == KEY.thumbprint
    assert service.seen[0]["authorization"].startswith("DPoP ")
    with pytest.raises(ConfigurationError, match="dpop: set it in redeem_with"):
        make(TOKEN_URL, "c", "s", redeem_with=redeem_with, audience="x", dpop=KEY)


def _identity_provider(request: Send) -> Answer:
    assert not request.headers
    members = {
        "access_token": "sg-assertion",
        "token_type": "N_A",
        "issued_token_type": "urn:ietf:params:oauth:token-type:id-jag",
    }
    return Answer(200, json.dumps(members).encode(), {"content-type": "application/json"})


def test_an_outage_after_a_demand_is_an_outage():
    world = make_world()

    def send(request: Send) -> Answer:
        world.server.seen.append(request)
        if len(world.server.seen) == 1:
            return Answer(400, b'{"error": "use_dpop_nonce"}', {"dpop-nonce": "a"})
        return Answer(503, b"")

    with pytest.raises(TokenEndpointUnavailable):
        world.auth(retries=0, transport=Scripted(send)).token()
    assert len(world.server.seen) == 2
