"""The authorization endpoint and its login page: authorization codes with PKCE, over HTTP as a browser uses them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from starlette.testclient import TestClient

from scopeguard import ConfigurationError, ScopeCatalog
from scopeguard.devserver import Authority, Client, KeyRing, create_app
from scopeguard.devserver.authorization_codes import AuthorizationCodes, Login
from scopeguard.devserver.issued_tokens import IssuedTokens
from scopeguard.devserver.lifetimes import CODE_LIFETIME
from scopeguard.testing import FakeClock

ISSUER = "http://127.0.0.1:9000"
API = "https://api.example"
OTHER_API = "https://other.example"
CALLBACK = "http://127.0.0.1:8000/docs/oauth2-redirect"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REQUEST = {
    "response_type": "code",
    "client_id": "swagger",
    "redirect_uri": CALLBACK,
    "scope": "rows.read rows.write",
    "state": "a&b=c <é>",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


@pytest.fixture
def authority() -> Authority:
    swagger = Client(
        client_id="swagger",
        scopes=["rows.read", "rows.write", "rows.drop"],
        audiences=[API, OTHER_API],
        redirect_uris=[CALLBACK, "com.example.app:/callback", "https://app.example/cb?tenant=1"],
        auth_methods=["none"],
    )
    web = Client(client_id="web", secret="sg-secret-web", scopes=["rows.read"], redirect_uris=[CALLBACK])
    return Authority(
        ISSUER,
        audience=API,
        clients=[swagger, web, Client(client_id="robot", secret="sg-secret-robot")],
        subjects=["bob", "alice"],
        keys=KeyRing("ES256"),
        clock=FakeClock(1_800_000_000),
        catalog=ScopeCatalog(descriptions={"rows.read": "Read <rows>", "rows.write": "", "rows.drop": ""}),
    )


@pytest.fixture
def browser(authority) -> TestClient:
    return new_browser(authority)


def new_browser(authority: Authority) -> TestClient:
    app = create_app(authority)
    return TestClient(app, base_url=ISSUER, client=("127.0.0.1", 50000), follow_redirects=False)


def fields_of(page: str) -> list[tuple[str, str]]:
    """Return the fields that a browser sends with the form as it is shown."""
    inputs = re.findall(r"<input ([^>]*)>", page)
    found = [(re.search('name="([^"]*)"', tag), re.search('value="([^"]*)"', tag), tag) for tag in inputs]
    return [
        (name[1], unescape(value[1]))
        for name, value, tag in found
        if name is not None and value is not None and ('type="hidden"' in tag or " checked" in tag)
    ]


def press(browser: TestClient, fields: list[tuple[str, str]], decision: str = "allow", **headers: str) -> Any:
    form: dict[str, list[str]] = {}
    for name, value in [*fields, ("login_decision", decision)]:
        form.setdefault(name, []).append(value)
    return browser.post("/authorize", data=form, headers={"origin": ISSUER, **headers})


def sign_in(browser: TestClient, drop: str = "", **changes: Any) -> dict[str, str]:
    """Allow the request and return what the client receives."""
    page = browser.get("/authorize", params={**REQUEST, **changes})
    assert page.status_code == 200, page.text
    answer = press(browser, [pair for pair in fields_of(page.text) if pair != ("login_scope", drop)])
    assert answer.status_code == 303
    return parse_redirect(answer, changes.get("redirect_uri", CALLBACK))


def parse_redirect(answer: Any, redirect_uri: str = CALLBACK) -> dict[str, str]:
    location = answer.headers["location"]
    assert location.startswith(redirect_uri)
    return dict(parse_qsl(urlsplit(location).query, strict_parsing=True))


def exchange(browser: TestClient, issued: str, /, **changes: Any) -> Any:
    form = {
        "grant_type": "authorization_code",
        "code": issued,
        "client_id": "swagger",
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    merged = {name: value for name, value in {**form, **changes}.items() if value is not None}
    return browser.post("/token", data=merged)


def test_user_signs_in_and_the_client_gets_a_token_with_the_chosen_scopes(authority, browser):
    answer = sign_in(browser, drop="rows.write")
    assert answer["state"] == REQUEST["state"]
    assert answer["iss"] == ISSUER  # RFC 9207
    token = exchange(browser, answer["code"])
    assert (token.status_code, token.json()["scope"]) == (200, "rows.read")
    claims = authority.tokens.find(token.json()["access_token"]).claims
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("alice", "swagger", API)


def test_page_shows_who_asks_for_what_and_needs_no_script(browser):
    page = browser.get("/authorize", params=REQUEST)
    assert "<script" not in page.text
    assert "Read &lt;rows&gt;" in page.text
    for shown in ("swagger", API, CALLBACK, "rows.read", "rows.write", "alice", "bob", "FOR DEVELOPMENT ONLY"):
        assert shown in page.text
    assert "rows.drop" not in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in policy
    assert policy.endswith("form-action 'self' http://127.0.0.1:8000")
    assert (page.headers["cache-control"], page.headers["referrer-policy"]) == ("no-store", "same-origin")
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie


def test_page_escapes_what_the_client_sends(browser):
    page = browser.get("/authorize", params={**REQUEST, "state": '"><script>alert(1)</script>'})
    assert "<script" not in page.text
    assert sign_in(browser, state='"><script>')["state"] == '"><script>'


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"redirect_uri": "http://localhost:8000/docs/oauth2-redirect"},
        {"redirect_uri": "https://evil.example/"},
        {"client_id": "robot"},
        {"redirect_uri": [CALLBACK, "https://evil.example/"]},
        {"state": ["a", "b"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("sent", ["query", "form"])
def test_request_without_a_registered_redirect_uri_is_never_redirected(browser, changes, sent):
    parameters = {name: value for name, value in {**REQUEST, **changes}.items() if value is not None}
    answer = (
        browser.get("/authorize", params=parameters) if sent == "query" else browser.post("/authorize", data=parameters)
    )
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "rows.read admin"}, "invalid_scope"),
        ({"resource": "https://nobody.example"}, "invalid_target"),
        ({"request": "x"}, "request_not_supported"),
        ({"request_uri": "https://evil.example"}, "request_uri_not_supported"),
        ({"prompt": "none"}, "login_required"),
    ],
    ids=str,
)
def test_other_mistakes_are_reported_to_the_client(browser, changes, error):
    parameters = {name: value for name, value in {**REQUEST, **changes}.items() if value is not None}
    answer = parse_redirect(browser.get("/authorize", params=parameters))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, REQUEST["state"], ISSUER)
    assert "code" not in answer


def test_user_can_refuse(browser):
    fields = fields_of(browser.get("/authorize", params=REQUEST).text)
    assert parse_redirect(press(browser, fields, "deny"))["error"] == "access_denied"
    stranger = [pair for pair in fields if pair[0] != "login_user"]
    assert parse_redirect(press(browser, [*stranger, ("login_user", "mallory")]))["error"] == "access_denied"
    assert parse_redirect(press(browser, stranger))["error"] == "access_denied"


def test_form_of_another_site_or_browser_is_refused(authority, browser):
    fields = fields_of(browser.get("/authorize", params=REQUEST).text)
    assert press(browser, fields, origin="https://evil.example").status_code == 403
    assert press(browser, fields, origin="null").status_code == 403
    assert press(browser, [pair for pair in fields if pair[0] != "login_token"]).status_code == 403
    assert press(browser, [*fields, ("login_token", "x")]).status_code == 403
    # Without the cookie, as SameSite sends the form of another site, and with the cookie of another browser.
    other = new_browser(authority)
    assert press(other, fields).status_code == 403
    other.get("/authorize", params=REQUEST)
    assert press(other, fields).status_code == 403
    assert press(browser, fields).status_code == 303


def test_form_cannot_add_scopes_that_the_page_did_not_show(browser):
    fields = fields_of(browser.get("/authorize", params={**REQUEST, "scope": "rows.read"}).text)
    answer = parse_redirect(press(browser, [*fields, ("login_scope", "rows.drop")]))
    assert exchange(browser, answer["code"]).json()["scope"] == "rows.read"


def test_second_page_in_a_browser_leaves_the_first_usable(browser):
    first = fields_of(browser.get("/authorize", params=REQUEST).text)
    browser.get("/authorize", params=REQUEST)
    assert press(browser, first).status_code == 303


def test_code_is_used_once_and_the_second_use_revokes_the_token(authority, browser):
    code = sign_in(browser)["code"]
    token = exchange(browser, code).json()["access_token"]
    now = authority.clock.wall()
    assert authority.tokens.active(token, now) is not None
    again = exchange(browser, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert authority.tokens.active(token, now) is None


def test_flood_of_logins_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scopeguard.devserver.authorization_codes.MOST_CODES", 3)
    monkeypatch.setattr("scopeguard.devserver.issued_tokens.MOST_TOKENS", 3)
    login = Login(
        client_id="swagger", redirect_uri=CALLBACK, code_challenge=CHALLENGE, subject="alice", scopes=(), audiences=()
    )
    codes, tokens = AuthorizationCodes(), IssuedTokens()
    issued = [codes.add(login, 0.0) for _ in range(5)]
    assert [codes.take(code, 1.0)[0] for code in issued] == [None, None, login, login, login]
    last = codes.add(login, CODE_LIFETIME)
    assert codes.take(issued[3], CODE_LIFETIME) == (None, None)  # removed with the expired ones
    assert codes.take(last, CODE_LIFETIME)[0] == login
    for number in range(5):
        tokens.add(f"t{number}", {"exp": 60.0}, 0.0)
    assert [tokens.find(f"t{number}") is not None for number in range(5)] == [False, False, True, True, True]


def test_code_expires(authority, browser):
    code, other = sign_in(browser)["code"], sign_in(browser)["code"]
    authority.clock.advance(CODE_LIFETIME - 1)
    assert exchange(browser, other).status_code == 200
    authority.clock.advance(1)
    assert exchange(browser, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "unknown"},
        {"code_verifier": "w" * 43},
        {"code_verifier": CHALLENGE},
        {"code_verifier": "é" * 43},
        {"redirect_uri": "https://app.example/cb?tenant=1"},
    ],
    ids=str,
)
def test_every_wrong_attempt_is_refused_and_uses_the_code_up(browser, changes):
    code = sign_in(browser)["code"]
    assert exchange(browser, code, **changes).json()["error"] == "invalid_grant"
    if "code" not in changes:
        assert exchange(browser, code).json()["error"] == "invalid_grant"


def test_short_verifier_is_refused_even_if_it_matches(browser):
    short = base64.urlsafe_b64encode(hashlib.sha256(b"short").digest()).rstrip(b"=").decode()
    code = sign_in(browser, code_challenge=short)["code"]
    assert exchange(browser, code, code_verifier="short").json()["error"] == "invalid_grant"


@pytest.mark.parametrize("name", ["code", "redirect_uri", "code_verifier"])
def test_token_request_needs_every_parameter(browser, name):
    code = sign_in(browser)["code"]
    assert exchange(browser, code, **{name: None}).json()["error"] == "invalid_request"


def test_confidential_client_must_authenticate_and_a_code_is_for_one_client(browser):
    code = sign_in(browser, client_id="web", scope="rows.read")["code"]
    assert exchange(browser, code, client_id="web").status_code == 401
    assert exchange(browser, code, client_id="web", client_secret="sg-secret-wrong").status_code == 401
    assert exchange(browser, code, client_id="web", client_secret="sg-secret-web").status_code == 200
    stolen = sign_in(browser, client_id="web", scope="rows.read")["code"]
    assert exchange(browser, stolen).json()["error"] == "invalid_grant"


def test_public_client_gets_no_token_by_client_credentials(browser):
    for form in ({}, {"client_secret": ""}, {"client_secret": "x"}):
        answer = browser.post("/token", data={"grant_type": "client_credentials", "client_id": "swagger", **form})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_resource_of_the_request_is_the_audience(authority, browser):
    code = sign_in(browser, resource=OTHER_API)["code"]
    token = exchange(browser, code).json()["access_token"]
    assert authority.tokens.find(token).claims["aud"] == OTHER_API
    code = sign_in(browser, resource=OTHER_API)["code"]
    assert exchange(browser, code, resource=API).json()["error"] == "invalid_target"


def test_redirect_uris_keep_their_query_and_may_have_the_scheme_of_an_app(browser):
    answer = sign_in(browser, redirect_uri="https://app.example/cb?tenant=1")
    assert answer["tenant"] == "1"
    page = browser.get("/authorize", params={**REQUEST, "redirect_uri": "com.example.app:/callback"})
    assert page.headers["content-security-policy"].endswith("form-action 'self' com.example.app:")
    assert press(browser, fields_of(page.text)).headers["location"].startswith("com.example.app:/callback?code=")


def test_cookie_is_secure_over_https(authority):
    secure = Authority(
        "https://as.example",
        audience=API,
        clients=authority.registry.clients.values(),
        subjects=["alice"],
        keys=authority.keys,
    )
    browser = TestClient(create_app(secure), base_url="https://as.example")
    assert "; Secure" in browser.get("/authorize", params=REQUEST).headers["set-cookie"]


def test_server_without_users_says_so():
    app = Client(
        client_id="swagger", scopes=["rows.read", "rows.write"], redirect_uris=[CALLBACK], auth_methods=["none"]
    )
    authority = Authority(ISSUER, audience=API, clients=[app], keys=KeyRing("ES256"))
    page = new_browser(authority).get("/authorize", params=REQUEST)
    assert page.status_code == 400
    assert "--user" in page.text


def test_metadata_names_the_endpoint_only_if_a_client_can_use_it(authority, bench):
    document = authority.metadata()
    assert document["authorization_endpoint"] == f"{ISSUER}/authorize"
    assert document["response_types_supported"] == ["code"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert "authorization_code" in document["grant_types_supported"]
    assert "none" in document["token_endpoint_auth_methods_supported"]
    assert "none" not in document["introspection_endpoint_auth_methods_supported"]
    without = bench.authority.metadata()
    assert "authorization_endpoint" not in without
    assert "authorization_code" not in without["grant_types_supported"]
    assert "none" not in without["token_endpoint_auth_methods_supported"]


@pytest.mark.parametrize("path", ["/token", "/.well-known/oauth-authorization-server"])
def test_pages_of_registered_redirect_uris_may_use_the_token_endpoint(browser, path):
    def allowed_origin(origin: str) -> str | None:
        answer = browser.options(path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        found: str | None = answer.headers.get("access-control-allow-origin")
        return found

    assert allowed_origin("https://app.example") == "https://app.example"
    assert allowed_origin("http://127.0.0.1:8000") == "http://127.0.0.1:8000"
    assert allowed_origin("https://evil.example") is None
    assert allowed_origin("http://app.example") is None


def test_login_page_may_not_be_read_by_other_pages(browser):
    page = browser.get("/authorize", params=REQUEST, headers={"Origin": "http://127.0.0.1:8000"})
    assert "access-control-allow-origin" not in page.headers


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Client(client_id="c", auth_methods=["none"], secret="x"), "public client has no secret"),
        (lambda: Client(client_id="c", auth_methods=["none", "client_secret_post"]), "public client has no secret"),
        (lambda: Client(client_id="c"), "secret is empty"),
        (lambda: Client(client_id="c", secret="x", redirect_uris=["/callback"]), "redirect_uris"),
        (lambda: Client(client_id="c", secret="x", redirect_uris=["javascript:alert(1)"]), "redirect_uris"),
        (lambda: Client(client_id="c", secret="x", redirect_uris=["https://a.example/#f"]), "redirect_uris"),
        (lambda: Client(client_id="c", secret="x", redirect_uris=["com.example:/a b"]), "redirect_uris"),
        (lambda: Client(client_id="c", secret="x", redirect_uris="https://a.example/"), "write a list"),
    ],
)
def test_mistakes_in_clients_are_reported(build: Callable[[], Client], message: str):
    with pytest.raises(ConfigurationError, match=message):
        build()
