"""The Quart adapter: the extension, the decorators, the accessor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest
from quart import Blueprint, Quart, Request, Response, websocket
from quart.asgi import ASGIHTTPConnection
from quart.testing.connections import WebsocketResponseError
from quart.views import MethodView, View

from scopeguard import DENIED, PUBLIC, ConfigurationError, DecisionEvent, Guard, Rule
from scopeguard.asgi import GuardMiddleware
from scopeguard.quart import (
    REQUIREMENT,
    ScopeGuard,
    access_token,
    access_token_or_none,
    optional,
    public,
    renew,
    requires,
)
from scopeguard.testing import FakeAuthority

EVERYTHING = "/{path:path}"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, **{"audit": "off", **settings})


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return guard_of(authority)


async def subject() -> str:
    token = access_token_or_none()
    return "anonymous" if token is None else str(token.subject)


def new_view() -> Callable[[], Coroutine[Any, Any, str]]:
    """Return a view of its own, which a decorator may mark."""

    async def view(**_: Any) -> str:
        return await subject()

    return view


def an_app() -> Quart:
    return Quart("an_app", static_folder=None)


def calls(app: Any, path: str, *given: dict[str, str], method: str = "GET") -> list[Any]:
    """Send a request with each of the given headers. Return the responses."""

    async def call() -> list[Any]:
        client = app.test_client()
        found = []
        for headers in given:
            response = await client.open(path, method=method, headers=headers, scheme="https")
            response.text = (await response.get_data()).decode()
            found.append(response)
        return found

    return asyncio.run(call())


def statuses(app: Any, path: str, *given: dict[str, str], method: str = "GET") -> list[int]:
    return [response.status_code for response in calls(app, path, *given, method=method)]


def app_with_views_of_each_kind() -> Quart:
    """Return an app with a view of each kind under ``/<kind>`` that needs ``read`` and ``write``."""
    app = an_app()
    both = requires("read", "write")

    @app.get("/function")
    @both
    async def function() -> str:
        return await subject()

    @app.get("/in-thread")
    @both
    def in_thread() -> str:
        return str(access_token().subject)

    @app.get("/twice")
    @requires("read")
    @requires("write")
    async def twice() -> str:
        return await subject()

    class Decorated(MethodView):
        decorators = [both]  # noqa: RUF012 - as Quart has it

        async def get(self) -> str:
            return await subject()

    class ByMethod(MethodView):
        @both
        async def get(self) -> str:
            return await subject()

    @both
    class Whole(View):
        async def dispatch_request(self, **_: Any) -> str:
            return await subject()

    class Inherited(Whole):
        decorators = []  # noqa: RUF012 - as Quart has it

    for kind in (Decorated, ByMethod, Whole, Inherited):
        app.add_url_rule(f"/{kind.__name__.lower()}", view_func=kind.as_view(kind.__name__))
    outer, inner = Blueprint("outer", "an_app"), Blueprint("inner", "an_app")

    @outer.before_request
    @requires("write")
    async def writers() -> None:
        return None

    inner.add_url_rule("/blueprint", "view", requires("read")(new_view()))
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    return app


KINDS = ("function", "in-thread", "twice", "decorated", "bymethod", "whole", "inherited", "blueprint")


@pytest.mark.parametrize("inside", [True, False], ids=["extension", "middleware"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_view_can_require_scopes(authority: FakeAuthority, guard: Guard, kind: str, *, inside: bool):
    app: Any = app_with_views_of_each_kind()
    if inside:
        ScopeGuard(app, guard)
    else:
        app.asgi_app = GuardMiddleware(app.asgi_app, guard=guard)
    granted, forbidden, missing = calls(app, f"/{kind}", authority.bearer("read write"), authority.bearer("read"), {})
    assert (granted.status_code, granted.text) == (200, "client")
    for refused, status in ((forbidden, 403), (missing, 401)):
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"
    scopes = [set(value.split('scope="')[1].split('"')[0].split()) for value in (
        forbidden.headers["www-authenticate"], missing.headers["www-authenticate"]
    )]  # fmt: skip
    assert scopes[1] == {"read", "write"}
    assert scopes[0] == {"read", "write"} or not inside


def test_public_and_optional_open_views_methods_classes_and_blueprints(authority: FakeAuthority, guard: Guard):
    app = an_app()
    bad = {"authorization": "Bearer bad"}
    for decorator in (public, optional):
        name = decorator.__name__

        class Whole(MethodView):
            async def get(self) -> str:
                return await subject()

        class ByMethod(MethodView):
            async def get(self) -> str:
                return await subject()

            async def post(self) -> str:
                return await subject()

        class Below(Whole):
            pass

        decorator(Whole)
        decorator(ByMethod.get)
        outer, inner = Blueprint(f"{name}-outer", "an_app"), Blueprint(f"{name}-inner", "an_app")
        inner.add_url_rule("/inner", "view", new_view())
        inner.add_url_rule("/required", "required", requires("read")(new_view()))
        outer.register_blueprint(inner)
        app.register_blueprint(decorator(outer), url_prefix=f"/{name}")
        app.add_url_rule(f"/{name}/function", f"{name}-function", decorator(new_view()))
        for kind in (Whole, ByMethod, Below):
            app.add_url_rule(f"/{name}/{kind.__name__.lower()}", view_func=kind.as_view(f"{name}-{kind.__name__}"))
    ScopeGuard(app, guard)
    for path in ("inner", "function", "whole", "bymethod"):
        assert statuses(app, f"/public/{path}", {}, bad) == [200, 200]
        assert statuses(app, f"/optional/{path}", {}, bad) == [200, 401]
        assert calls(app, f"/optional/{path}", authority.bearer())[0].text == "client"
    for name in ("public", "optional"):
        assert statuses(app, f"/{name}/below", {}) == [401]
        assert statuses(app, f"/{name}/bymethod", {}, method="POST") == [401]
        assert statuses(app, f"/{name}/required", {}, authority.bearer("read")) == [401, 200]
    assert calls(app, "/optional/inner", {})[0].headers["vary"] == "Authorization"


def test_no_handler_or_hook_of_the_app_changes_a_refusal(authority: FakeAuthority, guard: Guard):
    app, ran = an_app(), list[Any]()
    app.add_url_rule("/", "view", requires("read")(new_view()))

    @app.errorhandler(Exception)
    async def replace(error: Exception) -> tuple[str, int]:
        return "replaced", 200

    @app.before_request
    async def note() -> None:
        ran.append(1)

    for status in (401, 403, 404):
        app.register_error_handler(status, replace)
    ScopeGuard(app, guard)
    assert statuses(app, "/", {}, authority.bearer()) == [401, 403]
    assert statuses(app, "/nowhere", {}) == [401]
    assert ran == []
    assert calls(app, "/nowhere", authority.bearer())[0].text == "replaced"


def test_websocket_is_refused_before_it_is_accepted_and_its_token_can_be_renewed(
    authority: FakeAuthority, guard: Guard
):
    app, private = an_app(), Blueprint("private", "an_app")

    async def live() -> None:
        while True:
            decision = await renew(str(await websocket.receive()))
            await websocket.send(f"{type(decision).__name__} {sorted(access_token().scopes)}")

    app.add_websocket("/decorated", "decorated", requires("read")(live))
    app.add_websocket("/open", "open", public(new_view()))
    private.before_websocket(requires("read")(fresh_hook()))
    private.add_websocket("/hook", "hook", live)
    app.register_blueprint(private)
    ScopeGuard(app, guard, close_streams="expiry")

    async def connect(path: str) -> None:
        client = app.test_client()
        for headers, status in (({}, 401), (authority.bearer("more"), 403)):
            with pytest.raises(WebsocketResponseError) as refused:
                async with client.websocket(path, headers=headers, scheme="wss") as socket:
                    await socket.receive()
            assert refused.value.response.status_code == status
            assert 'scope="read"' in refused.value.response.headers["www-authenticate"]
        async with client.websocket(path, headers=authority.bearer("read"), scheme="wss") as socket:
            for scopes, answer in (("read more", "Granted ['more', 'read']"), ("more", "Denied ['more', 'read']")):
                await socket.send(authority.mint(scopes))
                assert await socket.receive() == answer

    for path in ("/decorated", "/hook"):
        asyncio.run(connect(path))


def fresh_hook() -> Callable[[], Coroutine[Any, Any, None]]:
    async def hook() -> None:
        return None

    return hook


def test_websocket_behind_the_middleware_is_refused_by_its_decorator(authority: FakeAuthority, guard: Guard):
    app: Any = an_app()
    app.add_websocket("/", "live", requires("read")(new_view()))
    app.asgi_app = GuardMiddleware(app.asgi_app, guard=guard)

    async def connect() -> None:
        with pytest.raises(WebsocketResponseError) as refused:
            async with app.test_client().websocket("/", headers=authority.bearer()) as socket:
                await socket.receive()
        assert refused.value.response.status_code == 403
        assert 'scope="read"' in refused.value.response.headers["www-authenticate"]

    asyncio.run(connect())


def test_stream_ends_with_its_token(authority: FakeAuthority, guard: Guard):
    app = an_app()

    @app.get("/")
    async def events() -> Response:
        async def endless() -> AsyncIterator[str]:
            yield "data: first\n\n"
            guard.revoke(subject="client")
            await asyncio.sleep(3600)
            yield "never"

        return Response(endless(), content_type="text/event-stream")

    ScopeGuard(app, guard, close_streams="revocation")
    (answer,) = calls(app, "/", authority.bearer())
    assert (answer.status_code, answer.text) == (200, "data: first\n\n")


def test_token_is_current_in_background_tasks(authority: FakeAuthority, guard: Guard):
    app, told = an_app(), list[str]()

    @app.get("/")
    async def view() -> str:
        app.add_background_task(work)
        return "begun"

    async def work() -> None:
        told.append(await subject())

    ScopeGuard(app, guard)

    async def call() -> None:
        async with app.test_app() as running:
            await running.test_client().get("/", headers=authority.bearer(), scheme="https")

    asyncio.run(call())
    assert told == ["client"]


def test_stricter_of_a_rule_and_a_view_holds(authority: FakeAuthority, guard: Guard):
    app = an_app()
    for path, view in {
        "/ruled": requires("view")(new_view()),
        "/open": requires("view")(new_view()),
        "/closed": public(new_view()),
        "/view": requires("view")(new_view()),
        "/neither": new_view(),
    }.items():
        app.add_url_rule(path, path, view)
    ScopeGuard(app, guard, rules=[Rule("/ruled", "rule"), Rule("/open", PUBLIC), Rule("/closed", DENIED)])
    bearers = [authority.bearer(scopes) for scopes in ("rule", "view", "rule view")]
    assert statuses(app, "/ruled", {}, *bearers) == [401, 403, 403, 200]
    assert statuses(app, "/open", {}, *bearers) == statuses(app, "/view", {}, *bearers) == [401, 403, 200, 200]
    assert statuses(app, "/closed", {}, *bearers) == statuses(app, "/neither", {}, *bearers) == [401, 403, 403, 403]


def test_preflight_passes_a_view_and_its_hooks_and_other_options_do_not(authority: FakeAuthority, guard: Guard):
    app, private = an_app(), Blueprint("private", "an_app")
    private.before_request(requires("read")(fresh_hook()))
    private.add_url_rule("/rows", "rows", new_view(), methods=["GET", "POST"])
    app.register_blueprint(private)
    ScopeGuard(app, guard, cors_preflight="pass")
    asked = {"origin": "https://spa.test", "access-control-request-method": "POST"}
    assert statuses(app, "/rows", asked, {}, authority.bearer("read"), method="OPTIONS") == [200, 401, 200]
    assert statuses(app, "/rows", asked, method="GET") == [401]
    ruled = an_app()
    ruled.add_url_rule("/open", "open", requires("read")(new_view()))
    ScopeGuard(ruled, guard, rules=[Rule("/open", PUBLIC, methods=["OPTIONS"])])
    assert statuses(ruled, "/open", {}, method="OPTIONS") == [200]  # Quart answers, and the view does not run
    assert statuses(ruled, "/open", {}, method="GET") == [401]


def test_token_sources_of_a_view_count_and_without_the_extension_they_raise(authority: FakeAuthority, guard: Guard):
    app: Any = an_app()
    app.add_url_rule("/", "view", requires("read", token_sources=["query"])(new_view()))
    token = authority.mint("read")
    bare = app.asgi_app
    app.asgi_app = GuardMiddleware(bare, guard=guard)
    assert statuses(app, "/", authority.bearer("read")) == [500]
    app.asgi_app = bare
    ScopeGuard(app, guard)
    assert statuses(app, f"/?access_token={token}", {}) == [200]
    assert statuses(app, "/", authority.bearer("read")) == [401]


def test_profile_refuses_token_sources_of_a_view_at_the_start(authority: FakeAuthority):
    guard = guard_of(authority, profile="oauth21")
    app = an_app()
    ScopeGuard(app, guard)
    app.add_url_rule("/", "view", requires("read", token_sources=["query"])(new_view()))

    async def start() -> None:
        async with app.test_app():
            pass

    with pytest.raises(Exception, match="query"):
        asyncio.run(start())


def test_event_has_the_template_of_the_route_for_refusals_too(authority: FakeAuthority):
    events: list[DecisionEvent] = []
    app = an_app()
    app.add_url_rule("/rows/<int:number>", "rows", requires("read")(new_view()))
    ScopeGuard(app, guard_of(authority, on_decision=events.append))
    calls(app, "/rows/7", {}, authority.bearer("read"))
    calls(app, "/nowhere", {})
    found = [(event.route, str(event.adapter)) for event in events]
    assert found == [("/rows/<int:number>", "quart"), ("/rows/<int:number>", "quart"), (None, "quart")]


@pytest.mark.parametrize("headers", [{"host": "a b"}, {"host": "\u00e4"}])
def test_request_that_quart_cannot_route_needs_a_token(guard: Guard, headers: dict[str, str]):
    app: Any = an_app()
    app.add_url_rule("/", "view", public(new_view()))
    ScopeGuard(app, guard, rules=[])
    sent: list[Any] = []

    async def call() -> None:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": "/",
            "query_string": b"\xff",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, asyncio.Event().wait, send)

    asyncio.run(call())
    assert sent[0]["status"] == 401


class ReadsOverride(Request):
    """A request class that reads the method from a field, as Quart's users do for HTML forms."""

    @property
    def method(self) -> str:
        return str(self.headers.get("x-http-method", self._sent))

    @method.setter
    def method(self, sent: str) -> None:
        self._sent = sent


@pytest.mark.parametrize("by", ["view", "rule"])
def test_view_of_the_method_that_the_request_class_says_is_checked(guard: Guard, by: str):
    # Fault: what is checked and what runs are chosen by two different readings of one request.
    app = an_app()
    app.request_class = ReadsOverride

    class Rows(MethodView):
        async def get(self) -> str:
            return "read"

        async def post(self) -> str:
            return "written"

    rules = [Rule("/rows", PUBLIC, methods=["GET"]), Rule("/rows", "write", methods=["POST"])]
    if by == "view":
        public(Rows.get)
    app.add_url_rule("/rows", view_func=Rows.as_view("rows"))
    ScopeGuard(app, guard, rules=None if by == "view" else rules, cors_preflight="pass")
    preflight = {"origin": "https://app.test", "access-control-request-method": "GET"}
    assert statuses(app, "/rows", {}, {"x-http-method": "POST"}) == [200, 401]
    assert statuses(app, "/rows", {"x-http-method": "POST", **preflight}, method="OPTIONS") == [401]


@pytest.mark.parametrize("change", [{"path": "/secret"}, {"method": "POST"}, {"headers": [(b"host", b"other.test")]}])
def test_request_that_inner_middleware_changes_to_another_view_is_not_served(
    guard: Guard, change: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    # Fault: the view is looked up at the outside, and something in between decides anew.
    app: Any = Quart("an_app", static_folder=None, host_matching=True)
    app.add_url_rule("/", "open", public(new_view()), host="localhost")
    app.add_url_rule("/", "other", new_view(), host="other.test")
    app.add_url_rule("/", "post", new_view(), host="localhost", methods=["POST"])
    app.add_url_rule("/secret", "secret", new_view(), host="localhost")
    inner, changes = app.asgi_app, dict[str, Any]()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, **changes}, receive, send)

    app.asgi_app = middleware
    ScopeGuard(app, guard)
    assert statuses(app, "/", {}) == [200]
    changes.update(change)
    assert statuses(app, "/", {}) == [500]
    assert "put that middleware around app.asgi_app after" in str(caplog.records[-1].exc_info)


def test_changed_name_inside_quart_lets_nothing_pass(authority: FakeAuthority, guard: Guard):
    # Fault: names that Quart does not document may go. No request may then be taken for one without a view.
    class Renamed(ASGIHTTPConnection):
        @property
        def _create_request_from_scope(self) -> Any:
            raise AttributeError("renamed")

    app = an_app()
    app.add_url_rule("/", "view", public(new_view()))
    app.asgi_http_class = Renamed
    ScopeGuard(app, guard, public=["/"])
    for headers in ({}, authority.bearer()):
        with pytest.raises(AttributeError, match="renamed"):
            calls(app, "/", headers)


def test_app_factory(authority: FakeAuthority, guard: Guard):
    extension = ScopeGuard(guard=guard, public=["/open"])
    for _ in range(2):
        app = an_app()
        app.add_url_rule("/open", "open", new_view())
        app.add_url_rule("/closed", "closed", new_view())
        extension.init_app(app)
        assert (statuses(app, "/open", {}), statuses(app, "/closed", {})) == ([200], [401])


def test_decorator_without_a_guard_raises(caplog: pytest.LogCaptureFixture):
    app = an_app()
    app.add_url_rule("/", "view", requires("read")(new_view()))
    assert statuses(app, "/", {}) == [500]
    assert "needs ScopeGuard(app, guard)" in str(caplog.records[-1].exc_info)


def test_wrong_arguments_are_refused(guard: Guard):
    app, wrong = an_app(), cast("Any", "wrong")
    with pytest.raises(ConfigurationError, match="app: must be a Quart app"):
        ScopeGuard(wrong, guard)
    with pytest.raises(ConfigurationError, match="guard: must be a"):
        ScopeGuard(app, wrong)
    with pytest.raises(ConfigurationError, match="guard: must be a"):
        ScopeGuard(app)
    ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="has a ScopeGuard already"):
        ScopeGuard(app, guard)
    for item in (Blueprint("b", "an_app"), object(), dict):
        with pytest.raises(ConfigurationError, match="is not a view"):
            requires("read")(item)
    with pytest.raises(ConfigurationError, match="public: must decorate a view"):
        public(7)
    assert hasattr(requires("read")(new_view()), REQUIREMENT)
