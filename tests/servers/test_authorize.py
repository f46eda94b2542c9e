"""``scopeguard authorize`` without a proxy: which descriptions of a request it accepts, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from scopeguard import PUBLIC, ApiKey, ApiKeys, ConfigurationError, DPoP, Guard, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.cli.commands import cli
from scopeguard.server.authorize import Proxy, ProxyRequests, Settings, answer, check_guard
from scopeguard.spec.api_key import make_key
from scopeguard.spec.challenge_parser import parse_challenges
from scopeguard.testing import FakeAuthority

RULES = Rules([Rule("/public", PUBLIC), Rule("/secret", all_of("secret")), Rule("/{rest:path}", PUBLIC)])
FIELDS = {
    "x-original-method": "GET",
    "x-original-host": "api.test",
    "x-original-uri": "/public",
    "x-forwarded-proto": "https",
}


class Scene:
    def __init__(self, *, proxy: Proxy = Proxy.NGINX, claim_headers: tuple[str, ...] = (), **settings: Any) -> None:
        self.authority = FakeAuthority()
        self.guard = Guard(
            self.authority.issuer, transport=self.authority.transport, clock=self.authority.clock, **settings
        )
        middleware = GuardMiddleware(answer, guard=self.guard, rules=RULES)
        trusted = ("10.0.0.0/8",)
        self.app = ProxyRequests(middleware, Settings(proxy=proxy, trusted=trusted, claim_headers=claim_headers))

    def ask(
        self, fields: list[tuple[str, str]], *, peer: str = "10.1.2.3", path: str = "/authorize", method: str = "GET"
    ) -> tuple[int, list[tuple[str, str]]]:
        """Return the status and the headers."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        raw, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields],
            "client": (peer, 1),
        }
        anyio.run(self.app, scope, receive, send)
        return sent[0]["status"], [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_a_complete_description_is_answered_with_empty_claims(scene: Scene):
    status, headers = scene.ask([*FIELDS.items()])
    assert status == 200
    claims = [(name, value) for name, value in headers if name.startswith("x-auth-")]
    assert claims == [("x-auth-subject", ""), ("x-auth-client", ""), ("x-auth-scopes", ""), ("x-auth-issuer", "")]


@pytest.mark.parametrize("name", [*FIELDS])
def test_a_missing_or_repeated_field_denies(scene: Scene, name: str):
    assert scene.ask([(key, value) for key, value in FIELDS.items() if key != name])[0] == 403
    assert scene.ask([*FIELDS.items(), (name, FIELDS[name])])[0] == 403
    assert scene.ask([*{**FIELDS, name: ""}.items()])[0] == 403


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-original-method", "G ET"),
        ("x-original-method", "GET, POST"),
        ("x-original-host", "api.test/secret"),
        ("x-original-host", "a, b"),
        ("x-original-uri", "public"),
        ("x-original-uri", "https://api.test/public"),
        ("x-original-uri", "/public /x"),
        ("x-original-uri", "/public#x"),
        ("x-original-uri", "/p\xfcblic"),
        ("x-original-uri", "/secret;a=b"),
        ("x-original-uri", "/secret%3Ba=b"),
        ("x-original-uri", "/public/../secret"),
        ("x-original-uri", "/public/%2e%2e/secret"),
        ("x-original-uri", "//secret"),
        ("x-original-uri", "/%2fsecret"),
        ("x-forwarded-proto", "ftp"),
        ("x-forwarded-proto", "https,http"),
    ],
)
def test_a_malformed_or_ambiguous_description_denies(scene: Scene, name: str, value: str):
    assert scene.ask([*{**FIELDS, name: value}.items()])[0] in (401, 403)


def test_a_stranger_is_refused(scene: Scene):
    assert scene.ask([*FIELDS.items()], peer="192.0.2.1")[0] == 403


def test_the_route_and_the_method_are_those_of_the_original_request(scene: Scene):
    fields = {**FIELDS, "x-original-uri": "/secret?x=1"}
    assert scene.ask([*fields.items()])[0] == 401
    token = scene.authority.mint("secret")
    assert scene.ask([*fields.items(), ("authorization", f"Bearer {token}")])[0] == 200
    weak = scene.authority.mint("read")
    status, headers = scene.ask([*fields.items(), ("authorization", f"Bearer {weak}")])
    assert (status, len([name for name, _ in headers if name == "www-authenticate"])) == (403, 1)


def test_several_challenges_are_one_field():
    scene = Scene(dpop=DPoP(base_url="https://api.test"))
    _, headers = scene.ask([*{**FIELDS, "x-original-uri": "/secret"}.items()])
    (challenge,) = (value for name, value in headers if name == "www-authenticate")
    assert {one.scheme for one in parse_challenges([challenge])} == {"bearer", "dpop"}


def test_the_refusal_of_a_head_request_announces_no_body(scene: Scene):
    fields = {**FIELDS, "x-original-uri": "/secret", "x-original-method": "HEAD"}
    status, headers = scene.ask([*fields.items()])
    assert (status, "content-length" in dict(headers)) == (401, False)


def test_an_outage_is_503_with_retry_after():
    scene = Scene()
    fields = {**FIELDS, "x-original-uri": "/secret", "authorization": f"Bearer {scene.authority.mint('secret')}"}
    with scene.authority.outage():
        status, headers = scene.ask([*fields.items()])
    assert (status, "retry-after" in dict(headers)) == (503, True)


def test_resource_metadata_is_a_page_and_no_permission():
    scene = Scene(resource="https://api.test")
    path = "/.well-known/oauth-protected-resource"
    assert scene.ask([("host", "api.test")], path=path)[0] == 200
    assert scene.ask([*{**FIELDS, "x-original-uri": path}.items()])[0] == 403
    assert scene.ask([("host", "api.test")], path="/.well-known/other")[0] == 403


def test_envoy_describes_the_request_by_its_own():
    scene = Scene(proxy=Proxy.ENVOY)
    fields = [("host", "api.test"), ("x-forwarded-proto", "https")]
    assert scene.ask(fields, path="/authorize/public")[0] == 200
    assert scene.ask(fields, path="/authorize/secret?a=b")[0] == 401
    assert scene.ask(fields, path="/public")[0] == 403
    assert scene.ask(fields, path="/authorizepublic")[0] == 403
    assert scene.ask(fields, path="/authorize//secret")[0] in (401, 403)


def test_claims_are_in_the_fields_that_are_named():
    scene = Scene(claim_headers=("subject=Remote-User", "scopes=X-Scopes"))
    token = scene.authority.mint("secret", subject="alice")
    fields = {**FIELDS, "x-original-uri": "/secret", "authorization": f"Bearer {token}"}
    _, headers = scene.ask([*fields.items()])
    assert [name for name, _ in headers[:4]] == ["remote-user", "x-auth-client", "x-scopes", "x-auth-issuer"]
    assert [headers[0][1], headers[2][1]] == ["alice", "secret"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "subject",
        "subject=",
        "tenant=X-Tenant",
        "subject=1-User",
        "subject=Remote User",
        "subject=Remote_User",
        "subject=Content-Length",
        "subject=DPoP-Nonce",
        "subject=x-auth-client",
    ],
)
def test_a_claim_needs_a_field_name_of_its_own(text: str):
    with pytest.raises(ConfigurationError, match=r"^--claim-header"):
        Settings(proxy=Proxy.NGINX, trusted=("127.0.0.1",), claim_headers=(text,))


def test_an_api_key_is_answered_with_its_claims():
    identifier, key, digest = make_key("acme", lambda size: b"x" * size)
    entry = ApiKey(id=identifier, sha256=digest, client_id="reports", scopes=["secret"], expires_at=None)
    keys = ApiKeys(prefix="acme", lookup={identifier: entry}.get)
    scene = Scene(resource="https://api.test", api_keys=keys, token_sources=["header", "api_key"])
    asked = {**FIELDS, "x-original-uri": "/secret", "x-api-key": key}
    status, headers = scene.ask([*asked.items()])
    claims = {name: value for name, value in headers if name.startswith("x-auth-")}
    assert status == 200
    assert (claims["x-auth-client"], claims["x-auth-issuer"]) == ("reports", "https://api.test")
    assert scene.ask([*{**asked, "x-api-key": f"{key[:-1]}!"}.items()])[0] == 401
    status, headers = scene.ask([*asked.items(), ("authorization", "Bearer x")])
    assert status == 400
    assert not any(name.startswith("x-auth-") for name, _ in headers)


def test_no_trusted_proxy_is_refused():
    with pytest.raises(ConfigurationError, match="--trusted-proxy"):
        Settings(proxy=Proxy.NGINX, trusted=())


def test_forms_are_refused_at_start(tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.write_text(
        'token_sources = ["header", "form"]\n[[issuers]]\nurl = "https://as.test"\naudience = "https://api.test"\n'
    )
    run = CliRunner().invoke(
        cli, ["authorize", "--config", str(file), "--proxy", "nginx", "--trusted-proxy", "::1", "--port", "0"]
    )
    assert (run.exit_code, "token_sources: scopeguard authorize" in run.output) == (2, True)


def test_forms_of_a_rule_are_refused_at_start():
    rules = [Rule("/a", all_of("a"), token_sources=["form"])]
    with pytest.raises(ConfigurationError, match="token_sources"):
        check_guard(Guard(FakeAuthority().issuer, rules=rules))
