"""The middleware and the decorators of Django: users, CSRF, login decorators, other middleware, settings, checks."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required, permission_required
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.test import AsyncClient, Client
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View

from django_project import GUARD_MIDDLEWARE, USUAL_MIDDLEWARE, LoginRequiredMixin, handler, project, url_conf
from scopeguard import (
    PUBLIC,
    AccessToken,
    ConfigurationError,
    DecisionEvent,
    DPoP,
    Guard,
    Issuer,
    Resource,
    Rule,
    TokenSources,
    wsgi,
)
from scopeguard.django import (
    GuardMiddleware,
    TokenUser,
    access_token_or_none,
    get_guard,
    optional,
    public,
    requires,
)
from scopeguard.django.requests import read_form, request_view
from scopeguard.errors import InvalidRequest, RequestTooLarge
from scopeguard.testing import FakeAuthority


@pytest.fixture(scope="module")
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, **settings)


def describe(request: Any, **_: Any) -> JsonResponse:
    token = access_token_or_none()
    assert token is request.access_token
    return JsonResponse({"user": str(getattr(request, "user", "")), "token": token and token.subject})


def view() -> Any:
    """Return a view of its own: a decorator marks the function."""

    def describe_request(request: Any, **rest: Any) -> JsonResponse:
        return describe(request, **rest)

    return describe_request


def calls(authority: FakeAuthority, *scopes: str, **claims: Any) -> dict[str, str]:
    return authority.bearer(" ".join(scopes), **claims)


class Rows(View):
    @requires("read")
    def get(self, request: Any) -> Any:
        return describe(request)

    @method_decorator(requires("write"))
    def post(self, request: Any) -> Any:
        return describe(request)

    @public
    def put(self, request: Any) -> Any:
        return describe(request)


@requires("base")
class Base(View):
    def get(self, request: Any) -> Any:
        return describe(request)


@requires("more")
class Derived(Base):
    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self.get(request)


class AsyncRows(View):
    @requires("read")
    async def get(self, request: Any) -> Any:
        return describe(request)


@public
class Open(View):
    def get(self, request: Any) -> Any:
        return describe(request)


class NotOpen(Open):
    pass


VIEWS: dict[str, Any] = {
    "/rows": Rows.as_view(),
    "/base": Base.as_view(),
    "/derived": Derived.as_view(),
    "/named": method_decorator(requires("read"), name="dispatch")(
        type("Named", (View,), {"get": lambda self, request: describe(request)})
    ).as_view(),
    "/async": AsyncRows.as_view(),
    "/open": Open.as_view(),
    "/not-open": NotOpen.as_view(),
    "/plain": view(),
    "/two": requires("read")(requires("write")(view())),
    "/optional": optional(view()),
    "/both": public(requires("read")(view())),
}


# -- decorators


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("method", "at", "scopes", "status", "named"),
    [
        ("GET", "/rows", "read", 200, ""),
        ("HEAD", "/rows", "read", 200, ""),
        ("GET", "/rows", "write", 403, "read"),
        ("HEAD", "/rows", "write", 403, "read"),
        ("POST", "/rows", "write", 200, ""),
        ("POST", "/rows", "read", 403, "write"),
        ("PUT", "/rows", None, 200, ""),
        ("GET", "/rows", None, 401, "read"),
        ("GET", "/base", "base", 200, ""),
        ("GET", "/derived", "base", 403, "more base"),
        ("GET", "/derived", "base more", 200, ""),
        ("GET", "/named", "", 403, "read"),
        ("GET", "/named", "read", 200, ""),
        ("GET", "/async", "", 403, "read"),
        ("GET", "/async", "read", 200, ""),
        ("GET", "/open", None, 200, ""),
        ("GET", "/not-open", None, 401, ""),
        ("GET", "/plain", None, 401, ""),
        ("GET", "/plain", "", 200, ""),
        ("GET", "/two", "read", 403, "read write"),
        ("GET", "/two", "read write", 200, ""),
        ("GET", "/optional", None, 200, ""),
        ("GET", "/both", None, 401, "read"),
        ("GET", "/nowhere", None, 401, ""),
        ("GET", "/nowhere", "", 404, ""),
    ],
)
def test_views_get_what_they_require(
    authority: FakeAuthority, asynchronous: bool, method: str, at: str, scopes: str | None, status: int, named: str
):
    headers = {} if scopes is None else calls(authority, scopes)
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        if asynchronous:
            answer: Any = asyncio.run(AsyncClient().generic(method, at, headers=headers))
        else:
            answer = Client().generic(method, at, headers=headers)
    assert answer.status_code == status
    if status in (401, 403):
        challenge = answer.headers["WWW-Authenticate"]
        assert (f'scope="{named}"' in challenge) if named else "scope=" not in challenge
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_view_that_is_called_without_the_middleware_is_refused_and_not_run(authority: FakeAuthority):
    request = SimpleNamespace(META={}, method="GET", path_info="/", is_secure=lambda: True)
    with pytest.raises(ConfigurationError, match=r"add scopeguard\.django\.GuardMiddleware"):
        VIEWS["/two"](request)
    with pytest.raises(ConfigurationError, match="must be the request"):
        requires("read")(view())()
    for wrong in (int, 5):
        with pytest.raises(ConfigurationError, match="is not a view"):
            requires("read")(wrong)
    with pytest.raises(ConfigurationError, match="public: must decorate a view"):
        public(5)


@pytest.mark.parametrize("at", ["/two", "/async", "/named", "/derived"])
def test_decorators_work_behind_middleware_around_the_application(authority: FakeAuthority, at: str):
    guard = guard_of(authority)
    with project(url_conf(VIEWS), {}, MIDDLEWARE=[]):
        client = Client()
        client.handler = Behind(wsgi.GuardMiddleware(handler(), guard=guard), client)
        assert client.get(at, headers=calls(authority, "other")).status_code == 403
        assert client.get(at, headers={}).status_code == 401


class Behind:
    """A handler for the test client that sends requests through middleware."""

    def __init__(self, app: Any, client: Client) -> None:
        self.app = app
        self.enforce_csrf_checks = False
        self.client = client

    def __call__(self, environ: Any) -> Any:
        started: list[Any] = []
        content = b"".join(self.app({**environ}, lambda status, headers: started.append((status, headers))))
        status, headers = started[0]
        response: Any = HttpResponse(content, status=int(status.split()[0]), headers=dict(headers))
        response.request = environ
        response.wsgi_request = SimpleNamespace()
        return response


# -- users


def test_the_default_user_is_the_token_and_has_no_permissions(authority: FakeAuthority):
    seen: list[TokenUser] = []

    def keep(request: Any) -> HttpResponse:
        seen.append(request.user)
        return HttpResponse(asyncio.run(request.auser()).username)

    with project(url_conf({"/": keep}), {"GUARD": guard_of(authority)}):
        answer = Client().get("/", headers=calls(authority, subject="ann"))
        Client().get("/", headers=calls(authority, subject="ben"))
    assert answer.content == b"ann"
    ann, ben = seen
    assert (ann.is_authenticated, ann.is_active, ann.is_anonymous) == (True, True, False)
    assert (ann.is_staff, ann.is_superuser) == (False, False)
    assert [ann.has_perm("x"), ann.has_perms(["x"]), ann.has_module_perms("x"), ann.has_perms([])] == [
        *[False] * 3,
        True,
    ]
    assert ann.identity == (authority.url, "ann") == ann.token.identity
    assert [ann, hash(ann)] == [TokenUser(ann.token), hash(TokenUser(ann.token))]
    assert ann != ben
    assert ann.get_username() == str(ann) == "ann"


USERS = {"ann": SimpleNamespace(is_authenticated=True, is_active=True), "off": SimpleNamespace(is_active=False)}
found: list[tuple[str, str | None]] = []


def find_user(token: AccessToken) -> Any:
    found.append(token.identity)
    return USERS.get(token.subject or "")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_users_are_found_by_issuer_and_subject_of_verified_tokens_only(authority: FakeAuthority, asynchronous: bool):
    found.clear()
    users: list[Any] = []

    def check(request: Any) -> HttpResponse:
        users.append(request.user.is_authenticated)
        return HttpResponse()

    async def check_async(request: Any) -> HttpResponse:
        users.append((await request.auser()).is_authenticated)
        return HttpResponse()

    views = {"/": check_async if asynchronous else check, "/unread": view()}
    with project(url_conf(views), {"GUARD": guard_of(authority), "USER": find_user}):
        client: Any = AsyncClient() if asynchronous else Client()

        def get(at: str, headers: dict[str, str]) -> Any:
            sent = client.get(at, headers=headers)
            return asyncio.run(sent) if asynchronous else sent

        for name in ("ann", "off", "nobody"):
            assert get("/", calls(authority, subject=name)).status_code == 200
        assert get("/", {"Authorization": "Bearer " + authority.mint(subject="ann")[:-4] + "AAAA"}).status_code == 401
    assert users == [True, False, False]
    assert found == [(authority.url, name) for name in ("ann", "off", "nobody")]


@pytest.mark.parametrize("position", ["first", "last"])
def test_the_user_of_the_token_replaces_that_of_the_session(authority: FakeAuthority, position: str):
    others = [name for name in USUAL_MIDDLEWARE if name != GUARD_MIDDLEWARE]
    middleware = [GUARD_MIDDLEWARE, *others] if position == "first" else [*others, GUARD_MIDDLEWARE]
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}, MIDDLEWARE=middleware):
        answer = Client().get("/plain", headers=calls(authority, subject="ann"))
        anonymous = Client().get("/optional")
    assert answer.json() == {"user": "ann", "token": "ann"}
    assert anonymous.json() == {"user": "AnonymousUser", "token": None}


# -- forged requests


@pytest.mark.parametrize(
    ("target", "settings", "status"),
    [
        ("/plain", {}, 200),
        ("/plain", {"ENFORCE_CSRF": True}, 403),
        ("/query", {"RULES": [Rule("/query", token_sources=("header", "query"))]}, 403),
    ],
)
def test_csrf_cookie_is_needed_unless_the_token_is_in_the_authorization_field(
    authority: FakeAuthority, target: str, settings: dict[str, Any], status: int
):
    guard, token = guard_of(authority), authority.mint()
    with project(url_conf({"/plain": view(), "/query": view()}), {"GUARD": guard, **settings}):
        client = Client(enforce_csrf_checks=True)
        where = f"/query?access_token={token}" if target == "/query" else target
        headers = {} if target == "/query" else {"Authorization": f"Bearer {token}"}
        for _ in range(2):  # from the token cache as well
            assert client.post(where, headers=headers).status_code == status
        if target == "/query":  # the same route, with the token in the field
            assert client.post("/query", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_csrf_cookie_is_needed_without_a_token(authority: FakeAuthority):
    with project(url_conf({"/optional": optional(view()), "/open": public(view())}), {"GUARD": guard_of(authority)}):
        client = Client(enforce_csrf_checks=True)
        assert client.post("/optional").status_code == 403
        assert client.post("/optional", headers=calls(authority)).status_code == 200
        assert client.post("/open", headers=calls(authority)).status_code == 403  # the guard has not looked at it


def test_csrf_cookie_is_needed_for_a_token_that_a_proxy_adds(authority: FakeAuthority):
    issuer = authority.issuer
    guard = Guard(
        Issuer(issuer.url, audience=issuer.audience, jwks_uri=issuer.jwks_uri, token_header="X-Proxy-Token"),
        transport=authority.transport,
        clock=authority.clock,
    )
    with project(url_conf({"/": view()}), {"GUARD": guard}):
        client = Client(enforce_csrf_checks=True)
        assert client.post("/", headers={"X-Proxy-Token": authority.mint()}).status_code == 403
        assert client.get("/", headers={"X-Proxy-Token": authority.mint()}).status_code == 200


# -- Django's own checks


class Members(LoginRequiredMixin, View):
    def get(self, request: Any) -> Any:
        return describe(request)


def raises(request: Any) -> Any:
    raise PermissionDenied


CHECKED: dict[str, Any] = {
    "/login": optional(login_required(view())),
    "/members": optional(Members.as_view()),
    "/permission": permission_required("auth.add_user")(view()),
    "/raises": permission_required("auth.add_user", raise_exception=True)(view()),
    "/denied": optional(raises),
    "/page": public(login_required(view())),
    "/elsewhere": optional(lambda request: HttpResponseRedirect("/accounts/login/?x=1")),
    "/other": optional(lambda request: HttpResponseRedirect("/other/?next=/")),
}


@pytest.mark.parametrize(
    ("at", "anonymous", "with_token"),
    [
        ("/login", 401, 200),
        ("/members", 401, 200),
        ("/permission", 401, 403),
        ("/raises", 401, 403),
        ("/denied", 401, 403),
        ("/page", 302, 302),
        ("/elsewhere", 302, 302),
        ("/other", 302, 302),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_checks_of_django_get_a_challenge_and_no_redirect(
    authority: FakeAuthority, asynchronous: bool, at: str, anonymous: int, with_token: int
):
    events: list[DecisionEvent] = []
    guard = guard_of(authority, on_decision=events.append)
    with project(url_conf(CHECKED), {"GUARD": guard}):
        for headers, status in (({}, anonymous), (calls(authority), with_token)):
            if asynchronous:
                answer: Any = asyncio.run(AsyncClient().get(at, headers=headers))
            else:
                answer = Client().get(at, headers=headers)
            assert answer.status_code == status
            if status in (401, 403):
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert ("WWW-Authenticate" in answer.headers) is (status == 401)
                assert events[-1].status == status
    refused = [event for event in events if event.status is not None]
    assert len(refused) == [anonymous, with_token].count(401) + [anonymous, with_token].count(403)
    assert len(events) <= 2
    assert all(event.adapter == "django" for event in events)


def test_login_url_without_a_route_is_no_error_of_the_guard(authority: FakeAuthority):
    with project(url_conf(CHECKED), {"GUARD": guard_of(authority)}, LOGIN_URL="no-such-route"):
        assert Client().get("/other").status_code == 302


# -- other middleware


def rewrites(get_response: Any) -> Any:
    """Middleware that changes what Django will call."""

    def middleware(request: Any) -> Any:
        request.path_info = request.headers.get("X-Path", request.path_info)
        request.method = request.headers.get("X-Method", request.method)
        return get_response(request)

    return middleware


@pytest.mark.parametrize(
    ("method", "at", "headers", "scopes", "status"),
    [
        ("GET", "/open", {"X-Path": "/two"}, None, 401),
        ("GET", "/open", {"X-Path": "/two"}, "read write", 200),
        ("GET", "/plain", {"X-Path": "/two"}, "read", 403),
        ("GET", "/plain", {"X-Path": "/two"}, "read write", 200),
        ("GET", "/plain", {"X-Path": "/open"}, "", 200),
        ("GET", "/rows", {"X-Method": "POST"}, "read", 403),
        ("GET", "/rows", {"X-Method": "POST"}, "read write", 200),
        ("PUT", "/rows", {"X-Method": "GET"}, None, 401),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_view_that_django_calls_decides(
    authority: FakeAuthority,
    asynchronous: bool,
    method: str,
    at: str,
    headers: dict[str, str],
    scopes: str | None,
    status: int,
):
    headers = headers if scopes is None else headers | calls(authority, scopes)
    middleware = [GUARD_MIDDLEWARE, f"{rewrites.__module__}.rewrites"]
    with pytest.MonkeyPatch.context() as patch, project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        patch.setitem(sys.modules, rewrites.__module__, SimpleNamespace(rewrites=rewrites))
        patch.setattr("django.conf.settings.MIDDLEWARE", middleware)
        if asynchronous:
            answer: Any = asyncio.run(AsyncClient().generic(method, at, headers=headers))
        else:
            answer = Client().generic(method, at, headers=headers)
    assert answer.status_code == status


def test_cached_pages_are_not_shared_by_callers(authority: FakeAuthority):
    cache = "django.middleware.cache."
    middleware = [f"{cache}UpdateCacheMiddleware", GUARD_MIDDLEWARE, f"{cache}FetchFromCacheMiddleware"]
    with project(url_conf({"/": view()}), {"GUARD": guard_of(authority)}, MIDDLEWARE=middleware):
        client = Client()
        for subject in ("ann", "ben", "ann"):
            assert client.get("/", headers=calls(authority, subject=subject)).json()["token"] == subject
        assert client.get("/").status_code == 401


@pytest.mark.parametrize("around", [False, True], ids=["alone", "in-another-guard"])
@pytest.mark.parametrize("place", ["forwarded", "token-header", "query"])
def test_cached_pages_are_not_shared_by_callers_with_tokens_in_other_places(
    authority: FakeAuthority, place: str, *, around: bool
):
    settings: dict[str, Any] = {"transport": authority.transport, "clock": authority.clock}
    issuer = authority.issuer
    if place == "token-header":
        issuer = replace(issuer, token_header="x-assertion")
    elif place == "query":
        settings["token_sources"] = ["query"]
    else:
        settings["token_sources"] = TokenSources(methods=["forwarded"], trusted_proxies=["127.0.0.1"])
    guard = Guard(issuer, **settings)
    cache = "django.middleware.cache."
    middleware = [f"{cache}UpdateCacheMiddleware", GUARD_MIDDLEWARE, f"{cache}FetchFromCacheMiddleware"]
    store = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": f"{place}{around}"}
    with project(url_conf({"/": view()}), {"GUARD": guard}, MIDDLEWARE=middleware, CACHES={"default": store}):
        client = Client()
        if around:
            client.handler = Behind(wsgi.GuardMiddleware(handler(), guard=guard), client)
        for subject in ("ann", "ben", "ann"):
            token = authority.mint(subject=subject)
            query, fields = {}, {}
            if place == "query":
                query = {"access_token": token}
            elif place == "forwarded":
                fields = {"X-Forwarded-Authorization": f"Bearer {token}"}
            else:
                fields = {"X-Assertion": token}
            assert client.get("/", query, headers=fields).json()["token"] == subject


def test_a_forged_environ_does_not_replace_the_check(authority: FakeAuthority):
    with project(url_conf(VIEWS), {"GUARD": guard_of(authority)}):
        assert (
            Client().get("/plain", headers={"Scopeguard.Guard": "x", "Scopeguard.Access_Token": "x"}).status_code == 401
        )


def test_token_of_the_guard_around_the_application_is_used(authority: FakeAuthority):
    events: list[DecisionEvent] = []
    guard = guard_of(authority, on_decision=events.append)
    with project(url_conf(VIEWS), {"GUARD": guard}):
        client = Client()
        client.handler = Behind(wsgi.GuardMiddleware(handler(), guard=guard), client)
        assert client.get("/two", headers=calls(authority, "read write")).status_code == 200
        assert client.get("/two", headers=calls(authority, "read")).status_code == 403
    assert [(event.status, event.adapter, event.route) for event in events] == [
        (None, "django", "/two"),
        (403, "django", None),
    ]


# -- events, metadata, preflights


def test_one_event_for_each_request_names_the_route(authority: FakeAuthority):
    events: list[DecisionEvent] = []
    urls = url_conf({}, path("v1/", include([path("rows/<int:row>/", requires("read")(view()))])))
    with project(urls, {"GUARD": guard_of(authority, on_decision=events.append)}):
        for _ in range(2):
            assert Client().get("/v1/rows/7/", headers=calls(authority, "read")).status_code == 200
        assert Client().get("/v1/rows/7/", headers=calls(authority)).status_code == 403
        assert asyncio.run(AsyncClient().get("/v1/rows/7/", headers=calls(authority, "read"))).status_code == 200
    assert [(event.status, event.route, event.path, event.adapter) for event in events] == [
        (None, "/v1/rows/<int:row>/", "/v1/rows/7/", "django"),
        (None, "/v1/rows/<int:row>/", "/v1/rows/7/", "django"),
        (403, None, "/v1/rows/7/", "django"),
        (None, "/v1/rows/<int:row>/", "/v1/rows/7/", "django"),
    ]


def test_metadata_of_the_resource_names_the_scopes_of_the_views(authority: FakeAuthority):
    guard = guard_of(authority, resource=Resource(authority.audience))
    with project(url_conf(VIEWS), {"GUARD": guard}):
        answer = Client().get("/.well-known/oauth-protected-resource")
        assert set(answer.json()["scopes_supported"]) == {"read", "write", "base", "more"}
        assert "resource_metadata=" in Client().get("/plain").headers["WWW-Authenticate"]
        assert Client().get("/.well-known/other").status_code == 401


def test_preflights_pass_if_the_guard_lets_them(authority: FakeAuthority):
    headers = {"Origin": "https://spa.test", "Access-Control-Request-Method": "GET"}
    rules = {"RULES": [Rule("/plain"), Rule("/rows", "read", methods=["GET"])]}
    for setting, status in (("pass", 200), ("guard", 401)):
        with project(url_conf(VIEWS), {"GUARD": guard_of(authority, cors_preflight=setting), **rules}):
            assert Client().options("/rows", headers=headers).status_code == status
            assert Client().options("/nowhere", headers=headers).status_code == 401
            assert Client().options("/rows").status_code == 401
            exposed = Client().get("/rows", headers=headers).headers.get("Access-Control-Expose-Headers")
            assert exposed == ("WWW-Authenticate" if setting == "pass" else None)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["wsgi", "asgi"])
def test_function_does_not_run_for_a_preflight(authority: FakeAuthority, *, asynchronous: bool):
    called: list[str] = []

    def wipe(request: Any) -> HttpResponse:
        called.append(request.method)
        return HttpResponse()

    def answer_preflights(get_response: Any) -> Any:
        return lambda request: HttpResponse("ok") if "HTTP_X_ANSWER" in request.META else get_response(request)

    headers = {"Origin": "https://spa.test", "Access-Control-Request-Method": "POST"}
    guard = guard_of(authority, cors_preflight="pass")
    vars(sys.modules[__name__])["answer_preflights"] = answer_preflights
    middleware = [GUARD_MIDDLEWARE, f"{__name__}.answer_preflights"]
    urls = url_conf({"/wipe": wipe, "/open": public(view())})
    with project(
        urls, {"GUARD": guard, "RULES": [Rule("/wipe", "admin"), Rule("/open", PUBLIC)]}, MIDDLEWARE=middleware
    ):

        def options(at: str, **more: str) -> int:
            sent = {**headers, **more}
            if asynchronous:
                return int(asyncio.run(AsyncClient().options(at, headers=sent)).status_code)
            return int(Client().options(at, headers=sent).status_code)

        assert options("/wipe") == 401
        assert options("/wipe", **calls(authority, "read")) == 403
        assert called == []
        assert options("/wipe", **{"X-Answer": "1"}) == 200
        assert options("/wipe", **calls(authority, "admin")) == 200
        assert options("/open") == 200
    assert called == ["OPTIONS"]


# -- settings and system checks


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (None, "SCOPEGUARD is missing in the settings"),
        (5, "SCOPEGUARD: "),
        ({}, "needs either GUARD, a scopeguard.Guard, or FILE"),
        ({"GUARD": "x", "FILE": "x"}, "needs either GUARD"),
        ({"GUARD": 5}, "GUARD: must be a scopeguard.Guard"),
        ({"GUARD": "no.such.guard"}, "GUARD: 'no.such.guard' cannot be imported"),
        ({"FILE": 5}, "FILE: must be the path of a TOML file"),
        ({"GUARDS": 5}, "unknown key 'GUARDS'; the keys are GUARD, FILE, PUBLIC, RULES, USER, ENFORCE_CSRF, DEBUG"),
        ({"GUARD": ..., "USER": 5}, "USER: must be a function of an access token"),
        ({"GUARD": ..., "ENFORCE_CSRF": 1}, "ENFORCE_CSRF: must be true or false"),
        ({"GUARD": ..., "PUBLIC": "/x"}, "public: must be a list"),
        ({"GUARD": ..., "RULES": [5]}, "rules: "),
    ],
)
def test_errors_in_the_setting_prevent_the_start_and_name_the_key(authority: FakeAuthority, setting: Any, message: str):
    if isinstance(setting, dict):
        setting = {key: guard_of(authority) if value is ... else value for key, value in setting.items()}
    with project(url_conf(VIEWS), setting):
        with pytest.raises(ConfigurationError, match=message):
            GuardMiddleware(lambda request: HttpResponse())
        (error,) = [message for message in run_checks() if message.id and message.id.startswith("scopeguard")]
        assert error.id == "scopeguard.E001"


def test_guard_from_a_file(authority: FakeAuthority, tmp_path: Path):
    file = tmp_path / "scopeguard.toml"
    file.write_text(f"""
[[issuers]]
url = "{authority.url}"
audience = "{authority.audience}"

[[rules]]
path = "/plain"
any_of = ["read"]
""")
    for given in (file, str(file)):
        with project(url_conf(VIEWS), {"FILE": given}), authority.takes_over(get_guard()):
            assert Client().get("/plain", headers=calls(authority)).status_code == 403
            assert Client().get("/plain", headers=calls(authority, "read")).status_code == 200


def messages() -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for message in run_checks(include_deployment_checks=True):
        if message.id and message.id.startswith("scopeguard"):
            found.setdefault(message.id, set()).add(message.obj)
    return found


def test_system_checks_audit_the_routes(authority: FakeAuthority):
    guard = guard_of(authority)
    urls = url_conf({**VIEWS, "/passed": describe})
    guarded = requires("read")(describe)
    with project(urls, {"GUARD": guard, "PUBLIC": ["/plain"]}):
        found = messages()
    assert guarded is not None
    assert found["scopeguard.I001"] == {"* /open", "* /optional", "* /plain", "PUT /rows"}
    assert found["scopeguard.decorator-passed-by"] == {"* /passed"}
    assert found["scopeguard.optional-token"]
    with project(urls, {"GUARD": guard}, MIDDLEWARE=[]):
        assert set(messages()) >= {"scopeguard.E002"}
    cache = "django.middleware.cache.FetchFromCacheMiddleware"
    with project(url_conf({}), {"GUARD": guard}, MIDDLEWARE=[cache, GUARD_MIDDLEWARE]):
        assert set(messages()) == {"scopeguard.E003"}


def test_rules_with_async_functions_need_asgi(authority: FakeAuthority):
    async def decide(token: AccessToken, request: Any) -> bool:
        return token.subject == "ann"

    with project(url_conf(VIEWS), {"GUARD": guard_of(authority), "RULES": [Rule("/plain", decide=decide)]}):
        with pytest.raises(ConfigurationError, match="decide"):
            Client().get("/plain")
        client = AsyncClient()
        for subject, status in (("ann", 200), ("ben", 403)):
            assert asyncio.run(client.get("/plain", headers=calls(authority, subject=subject))).status_code == status


def test_a_public_page_keeps_its_own_403(authority: FakeAuthority):
    def forbids(request: Any) -> Any:
        raise PermissionDenied

    with project(url_conf({"/": public(forbids)}), {"GUARD": guard_of(authority)}):
        answer = Client().get("/", headers=calls(authority))
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/html; charset=utf-8")


def test_a_path_with_two_readings_is_denied_although_its_view_is_public(authority: FakeAuthority):
    urls = url_conf({"/<path:rest>": public(view())})
    with project(urls, {"GUARD": guard_of(authority), "RULES": [Rule("/area/{name}", "read")]}):
        client = Client()
        assert client.get("/area/x").status_code == 401
        assert client.get("/other/x").status_code == 200
        for headers, status in (({}, 401), (calls(authority, "read"), 403)):
            assert client.get("/area/x", headers=headers, REQUEST_URI="/area%2Fx").status_code == status


def test_a_form_without_a_length_is_read_up_to_the_limit():
    sizes: list[int] = []

    def read(size: int = -1) -> bytes:
        sizes.append(size)
        return b"x" * (11 if size < 0 else size)

    stream = io.BytesIO()
    with pytest.raises(RequestTooLarge):
        read_form(SimpleNamespace(META={}, read=read, _stream=stream), 10)
    assert (sizes, stream.closed) == ([11], True)
    for length in ("x", "12"):  # no number, and more bytes than the client has sent
        request = SimpleNamespace(META={"CONTENT_LENGTH": length}, read=lambda _: b"a=1", _stream=io.BytesIO())
        with pytest.raises(InvalidRequest):
            read_form(request, 20)


@pytest.mark.parametrize("secure", [False, True])
def test_the_guard_reads_the_path_and_the_scheme_that_django_uses(secure: bool):
    meta = {"REQUEST_METHOD": "GET", "PATH_INFO": "/sent", "wsgi.url_scheme": "http"}
    scope = {"type": "http", "path": "/sent", "scheme": "http", "headers": []}
    for more in ({}, {"scope": scope}):
        request = SimpleNamespace(META=meta, method="GET", path_info="/routed", is_secure=lambda: secure, **more)
        found = request_view(request)
        assert (found.path, found.secure, found.method) == ("/routed", secure, "GET")


def test_csrf_cookie_is_needed_if_only_the_guard_around_the_application_knows_where_the_token_was(
    authority: FakeAuthority,
):
    guard = guard_of(authority)
    with project(url_conf(VIEWS), {"GUARD": guard}):
        client = Client()
        client.handler = Behind(wsgi.GuardMiddleware(handler(), guard=guard), client)
        assert client.get("/plain", headers=calls(authority)).status_code == 200
        assert client.post("/plain", headers=calls(authority)).status_code == 403


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_changed_path_may_need_a_proof_of_possession(
    authority: FakeAuthority, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
):
    guard = guard_of(authority, dpop=DPoP(base_url=authority.audience))
    rules = [Rule("/bound", dpop="required"), Rule("/plain")]
    monkeypatch.setitem(sys.modules, rewrites.__module__, SimpleNamespace(rewrites=rewrites))
    middleware = [GUARD_MIDDLEWARE, f"{rewrites.__module__}.rewrites"]
    with project(
        url_conf({"/bound": view(), "/plain": view()}), {"GUARD": guard, "RULES": rules}, MIDDLEWARE=middleware
    ):
        headers = calls(authority) | {"X-Path": "/bound"}
        if asynchronous:
            answer: Any = asyncio.run(AsyncClient().get("/plain", headers=headers))
        else:
            answer = Client().get("/plain", headers=headers)
        assert Client().get("/plain", headers=calls(authority)).status_code == 200
    assert answer.status_code == 401
