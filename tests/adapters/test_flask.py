"""The Flask adapter: the extension, the decorators, the accessor."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from flask import Blueprint, Flask, Request, Response, copy_current_request_context, request, stream_with_context
from flask.testing import FlaskClient
from flask.views import MethodView, View
from werkzeug.datastructures import Headers
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from scopeguard import (
    AUTHENTICATED,
    OPTIONAL,
    PUBLIC,
    ChallengeStyle,
    ConfigurationError,
    Decision,
    DecisionEvent,
    Guard,
    Issuer,
    Rule,
    all_of,
    any_of,
)
from scopeguard.audit.findings import audit_app
from scopeguard.flask import REQUIREMENT, ScopeGuard, access_token, access_token_or_none, optional, public, requires
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware

EVERYTHING = "/{path:path}"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock)


@pytest.fixture
def app() -> Flask:
    """Return an app with a view of each kind under ``/<kind>`` that needs ``read`` and ``write``, and some others."""
    app = Flask(__name__, static_folder=None)
    app.testing = True

    @app.get("/function")
    @requires("read", "write")
    def function() -> Any:
        return {"client": access_token().client_id}

    @app.get("/async")
    @requires("read", "write")
    async def in_a_loop() -> Any:
        return {"client": access_token().client_id}

    class Decorated(MethodView):
        decorators = [requires("read", "write")]  # noqa: RUF012 - as Flask has it

        def get(self) -> Any:
            return {"client": access_token().client_id}

    class ByMethod(MethodView):
        @requires("read", "write")
        def get(self) -> Any:
            return {"client": access_token().client_id}

        @requires("read", "write")
        async def put(self) -> Any:
            return {"client": access_token().client_id}

        def post(self) -> Any:
            return {"client": access_token().client_id}

    @requires("read", "write")
    class Whole(View):
        def dispatch_request(self) -> Any:
            return {"client": access_token().client_id}

    app.add_url_rule("/decorators", view_func=Decorated.as_view("decorators"))
    app.add_url_rule("/method", view_func=ByMethod.as_view("method"))
    app.add_url_rule("/class", view_func=Whole.as_view("class"))
    private = Blueprint("private", __name__, url_prefix="/blueprint")

    @private.before_request
    @requires("read", "write")
    def readers_and_writers() -> None:
        return None

    @private.get("/")
    def inside() -> Any:
        return {"client": access_token().client_id}

    app.register_blueprint(private)

    @app.get("/plain")
    def plain() -> Any:
        return {"client": access_token().client_id}

    return app


KINDS = ["/function", "/async", "/decorators", "/method", "/class", "/blueprint/"]


def wrap(app: Any, guard: Guard) -> None:
    """Wrap ``app.wsgi_app`` as Flask documents it. To type checkers it is a method, which cannot be assigned."""
    app.wsgi_app = GuardMiddleware(app.wsgi_app, guard=guard)


def make_client(app: Flask, guard: Guard, **settings: Any) -> FlaskClient:
    ScopeGuard(app, guard, **settings)
    return app.test_client()


@pytest.fixture(params=["extension", "middleware"])
def client(app: Flask, guard: Guard, request: pytest.FixtureRequest) -> FlaskClient:
    if request.param == "extension":
        return make_client(app, guard)
    wrap(app, guard)
    return app.test_client()


@pytest.mark.rule("G-11", "B-42", "B-43", "B-44", "G-13")
@pytest.mark.parametrize("path", KINDS)
def test_each_kind_of_view_is_guarded(authority: FakeAuthority, client: FlaskClient, path: str):
    granted = client.get(path, headers=authority.bearer("write read more", client_id="robot"))
    assert (granted.status_code, granted.get_json()["client"]) == (200, "robot")
    lacking = client.get(path, headers=authority.bearer("read"))
    assert lacking.status_code == 403
    (challenge,) = lacking.headers.getlist("WWW-Authenticate")
    assert challenge == (
        'Bearer realm="api", error="insufficient_scope", '
        'error_description="The access token lacks a scope that this operation needs", scope="read write"'
    )
    assert lacking.headers["Content-Type"] == "application/problem+json"
    assert lacking.headers["Cache-Control"] == "no-store"
    assert lacking.get_json()["error"] == "insufficient_scope"


def test_async_methods_are_awaited(authority: FakeAuthority, client: FlaskClient):
    assert client.put("/method", headers=authority.bearer("read write")).json == {"client": "client"}
    assert client.put("/method", headers=authority.bearer("read")).status_code == 403


def test_an_async_view_sees_the_current_token(authority: FakeAuthority, client: FlaskClient):
    answer = client.get("/async", headers=authority.bearer("read write"))
    assert answer.json == {"client": "client"}


@pytest.mark.rule("B-11", "B-33", "H-07")
@pytest.mark.parametrize("path", [*KINDS, "/plain"])
def test_request_without_a_token_is_refused(client: FlaskClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="api"')
    assert "error" not in answer.headers["WWW-Authenticate"]


@pytest.mark.rule("G-13")
@pytest.mark.parametrize("path", ["/function", "/async", "/decorators", "/method", "/class"])
def test_challenge_to_callers_without_a_token_lists_the_scopes(app: Flask, guard: Guard, path: str):
    answer = make_client(app, guard).get(path)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="api", scope="read write"'


def test_view_without_the_decorator_needs_only_a_token(authority: FakeAuthority, client: FlaskClient):
    assert client.get("/plain", headers=authority.bearer()).json == {"client": "client"}
    assert client.post("/method", headers=authority.bearer()).json == {"client": "client"}


@pytest.mark.rule("B-52")
@pytest.mark.parametrize("headers", [{}, {"scope": "read"}])
def test_head_is_refused_like_get_without_a_body(
    authority: FakeAuthority, client: FlaskClient, headers: dict[str, str]
):
    for path in ("/function", "/method"):
        sent = authority.bearer(**headers) if headers else {}
        get, head = (client.open(path, method=method, headers=sent) for method in ("GET", "HEAD"))
        assert (head.status_code, head.headers, head.data) == (get.status_code, get.headers, b"")
        assert int(head.headers["Content-Length"]) == len(get.data)


@pytest.mark.rule("G-13")
def test_stacked_decorators_add_up_and_the_challenge_lists_all_scopes(
    authority: FakeAuthority, app: Flask, client: Any
):
    @requires("a")
    @requires(any_of("b", "c"))
    def view() -> Any:
        return ""

    app.add_url_rule("/stacked", view_func=view)
    assert client.get("/stacked", headers=authority.bearer("a c")).status_code == 200
    for scopes in ("a", "b", "c", None):
        answer = client.get("/stacked", headers=authority.bearer(scopes))
        assert answer.status_code == 403
        assert 'scope="a b"' in answer.headers["WWW-Authenticate"]


def test_outer_decorator_does_not_change_the_scopes(authority: FakeAuthority, app: Flask, client: FlaskClient):
    @requires("read")
    def view() -> str:
        return "in"

    @app.get("/hidden")
    def hidden() -> str:
        return view()

    assert client.get("/hidden", headers=authority.bearer("write")).status_code == 403
    assert client.get("/hidden", headers=authority.bearer("read")).text == "in"


@pytest.mark.rule("B-62")
def test_hidden_operation_is_404(authority: FakeAuthority, app: Flask):
    hiding = ChallengeStyle(realm="api", hide_forbidden=True)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, challenge=hiding)
    answer = make_client(app, guard).get("/function", headers=authority.bearer("read"))
    assert answer.status_code == 404
    assert "WWW-Authenticate" not in answer.headers


def test_error_handlers_of_the_app_do_not_change_a_refusal(authority: FakeAuthority, app: Flask, client: FlaskClient):
    app.register_error_handler(401, lambda error: ("log in, please", 200))
    app.register_error_handler(403, lambda error: ("go away", 200))
    assert client.get("/function").status_code == 401
    assert client.get("/function", headers=authority.bearer("read")).status_code == 403


# the extension: deny by default


@pytest.mark.rule("B-61", "H-07")
@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("DELETE", "/function"), ("OPTIONS", "/function")])
def test_unknown_routes_need_a_token_before_404(
    authority: FakeAuthority, app: Flask, guard: Guard, method: str, path: str
):
    client = make_client(app, guard)
    assert client.open(path, method=method).status_code == 401
    expected = {"GET": 404, "DELETE": 405, "OPTIONS": 200}[method]
    assert client.open(path, method=method, headers=authority.bearer("read write")).status_code == expected


def test_no_code_of_the_app_runs_for_a_refused_request(app: Flask, guard: Guard, authority: FakeAuthority):
    ran: list[str] = []
    app.before_request(lambda: ran.append("before"))
    client = make_client(app, guard)
    assert client.get("/plain").status_code == 401
    assert ran == []
    client.get("/plain", headers=authority.bearer())
    assert ran == ["before"]


@pytest.mark.rule("H-05")
def test_exception_of_the_guard_refuses_the_request(app: Flask, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    client = make_client(app, guard)
    app.testing = False

    def raise_bug(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine_of(guard), "check", raise_bug)
    assert client.get("/plain").status_code == 500


def test_public_paths_need_no_token_and_static_files_need_one(authority: FakeAuthority, guard: Guard, tmp_path: Any):
    (tmp_path / "page.txt").write_text("a page")
    app = Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
    client = make_client(app, guard)
    assert client.get("/static/page.txt").status_code == 401
    other = Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
    open_files = make_client(other, guard, public=["/static/{name:path}"])
    with open_files.get("/static/page.txt") as answer:
        assert answer.data == b"a page"
    assert open_files.get("/static/../static/page.txt").status_code == 401


def test_public_marks_views_methods_classes_and_blueprints(authority: FakeAuthority, app: Flask, guard: Guard):
    @app.get("/open")
    @public
    def view() -> Any:
        assert access_token_or_none() is None
        return "open"

    class Half(MethodView):
        @public
        def get(self) -> Any:
            return "open"

        def post(self) -> Any:
            return "closed"

    @public
    class Open(MethodView):
        def get(self) -> Any:
            return "open"

    blueprint = public(Blueprint("pages", __name__, url_prefix="/pages"))
    blueprint.add_url_rule("/", view_func=lambda: "open", endpoint="index")
    app.register_blueprint(blueprint)
    app.add_url_rule("/half", view_func=Half.as_view("half"))
    app.add_url_rule("/open-class", view_func=Open.as_view("open-class"))
    client = make_client(app, guard)
    for path in ("/open", "/half", "/open-class", "/pages/"):
        assert client.get(path).text == "open"
        assert client.head(path).status_code == 200
        assert client.get(path, headers={"Authorization": "Bearer nonsense"}).text == "open"
    assert client.post("/half").status_code == 401


@pytest.mark.rule("B-54", "B-55")
@pytest.mark.parametrize("how", ["decorator", "rule"])
def test_optional_authentication_accepts_only_an_absent_token(
    authority: FakeAuthority, app: Flask, guard: Guard, how: str
):
    def view() -> Any:
        token = access_token_or_none()
        return {"client": token and token.client_id}

    app.add_url_rule("/maybe", view_func=optional(view) if how == "decorator" else view)
    rules = None if how == "decorator" else [Rule("/maybe", OPTIONAL)]
    client = make_client(app, guard, rules=rules)
    anonymous = client.get("/maybe")
    assert anonymous.json == {"client": None}
    assert anonymous.headers["Vary"] == "Authorization"
    assert client.get("/maybe", headers=authority.bearer()).json == {"client": "client"}
    assert client.get("/maybe", headers=authority.bearer(expires_in=-60)).status_code == 401
    assert client.get("/maybe", headers={"Authorization": "Basic dTpw"}).status_code == 401
    assert client.get("/maybe", headers={"Authorization": "Bearer"}).status_code == 400


def test_stricter_of_rule_and_view_applies(authority: FakeAuthority, app: Flask, guard: Guard):
    app.add_url_rule("/admin/public", "admin-public", public(lambda: "in"))
    app.add_url_rule("/maybe/public", "maybe-public", public(lambda: "in"))
    app.add_url_rule("/admin/scoped", "admin-scoped", requires("read")(lambda: "in"))
    app.add_url_rule("/open/scoped", "open-scoped", requires("read")(lambda: "in"))
    app.add_url_rule("/maybe/scoped", "maybe-scoped", requires("read")(lambda: "in"))
    rules = [
        Rule("/admin/{path:path}", any_of("admin")),
        Rule("/maybe/{path:path}", OPTIONAL),
        Rule("/plain"),
    ]
    client = make_client(app, guard, rules=rules, public=["/open/{path:path}"])

    def status(path: str, scope: str | None = None, *, anonymous: bool = False) -> int:
        return client.get(path, headers={} if anonymous else authority.bearer(scope)).status_code

    assert [status("/admin/public", anonymous=True), status("/admin/public"), status("/admin/public", "admin")] == [
        401,
        403,
        200,
    ]
    assert [status("/admin/scoped", s) for s in ("admin", "read", "read admin")] == [403, 403, 200]
    assert [status("/open/scoped", anonymous=True), status("/open/scoped"), status("/open/scoped", "read")] == [
        401,
        403,
        200,
    ]
    assert [status("/maybe/scoped", anonymous=True), status("/maybe/scoped", "read")] == [401, 200]
    assert status("/maybe/public", anonymous=True) == 200
    bad = {"Authorization": "Bearer nonsense"}
    assert client.get("/maybe/public", headers=bad).status_code == 401
    both = client.get("/admin/scoped", headers=authority.bearer())
    assert 'scope="admin read"' in both.headers["WWW-Authenticate"]


def test_app_may_be_open_except_for_decorated_views(authority: FakeAuthority, app: Flask, guard: Guard):
    app.add_url_rule("/open", view_func=lambda: "open", endpoint="open")
    client = make_client(app, guard, public=[EVERYTHING])
    assert client.get("/open").text == "open"
    assert client.get("/nowhere").status_code == 404
    for path in KINDS:
        assert client.get(path).status_code == 401
        assert client.get(path, headers=authority.bearer("read")).status_code == (
            401 if path == "/blueprint/" else 403  # Its decorator is not on the view, so no token was read.
        )


@pytest.mark.rule("H-07")
def test_route_without_a_rule_or_a_declaration_is_denied(authority: FakeAuthority, app: Flask, guard: Guard):
    client = make_client(app, guard, rules=[Rule("/somewhere")])
    assert client.get("/plain").status_code == 401
    denied = client.get("/plain", headers=authority.bearer("read write"))
    assert denied.status_code == 403
    assert "WWW-Authenticate" not in denied.headers
    assert client.get("/function", headers=authority.bearer("read write")).status_code == 200


def test_the_rules_of_the_guard_are_the_default(authority: FakeAuthority, app: Flask):
    from scopeguard import Rules

    guard = Guard(
        authority.issuer,
        transport=authority.transport,
        clock=authority.clock,
        rules=Rules([Rule("/plain", all_of("read"))]),
    )
    client = make_client(app, guard)
    assert client.get("/plain", headers=authority.bearer("write")).status_code == 403
    assert client.get("/plain", headers=authority.bearer("read")).status_code == 200


def test_extension_may_be_created_before_the_app_and_serve_several(authority: FakeAuthority, guard: Guard):
    extension = ScopeGuard(guard=guard, public=["/healthz"])
    for name in ("one", "two"):
        app = Flask(name)
        app.add_url_rule("/healthz", "healthz", lambda: "ok")
        extension.init_app(app)
        assert app.extensions["scopeguard"] is extension
        assert app.test_client().get("/healthz").text == "ok"
        assert app.test_client().get("/").status_code == 401
    late = Flask("late")
    ScopeGuard().init_app(late, guard)
    assert late.test_client().get("/").status_code == 401


def test_several_layers_share_one_decision(authority: FakeAuthority, app: Flask):
    decisions: list[DecisionEvent] = []
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, on_decision=decisions.append)
    client = make_client(app, guard)
    client.get("/function", headers=authority.bearer("read write"))
    assert len(decisions) == 1


def test_extension_behind_middleware_of_the_same_guard_uses_its_token(
    authority: FakeAuthority, app: Flask, guard: Guard, monkeypatch: pytest.MonkeyPatch
):
    judged: list[Any] = []
    check = engine_of(guard).check

    def count_and_check(*args: Any, **kwargs: Any) -> Decision:
        judged.append(args)
        return check(*args, **kwargs)

    monkeypatch.setattr(engine_of(guard), "check", count_and_check)
    ScopeGuard(app, guard)
    wrap(app, guard)
    answer = app.test_client().get("/function", headers=authority.bearer("read write"))
    assert (answer.status_code, len(judged)) == (200, 1)


@pytest.mark.rule("H-18")
def test_extension_behind_middleware_of_another_guard_decides_again(authority: FakeAuthority, app: Flask, guard: Guard):
    other = FakeAuthority("https://other.test")
    ScopeGuard(app, Guard(other.issuer, transport=other.transport, clock=other.clock))
    wrap(app, guard)
    assert app.test_client().get("/plain", headers=authority.bearer()).status_code == 401


# token sources


@pytest.fixture
def places(app: Flask) -> Flask:
    @app.route("/query", methods=["GET", "POST"])
    @requires(AUTHENTICATED, token_sources=["header", "query"])
    def query() -> Any:
        seen = [request.query_string.decode(), request.environ["QUERY_STRING"], request.url, request.full_path]
        answer = {"seen": seen, "args": request.args.to_dict(flat=False), "values": sorted(request.values)}
        return answer, {"Cache-Control": "public, max-age=60"}

    @app.post("/form")
    @requires("read", token_sources=["header", "form"])
    def form() -> Any:
        return {"fields": request.form.to_dict(flat=False)}

    @app.post("/raw")
    @requires("read", token_sources=["form"])
    def raw() -> Any:
        return request.get_data()

    @app.get("/slash/")
    @requires("read", token_sources=["query"])
    def slash() -> Any:
        return ""

    return app


@pytest.mark.rule("B-14", "B-28", "B-30", "B-31")
def test_query_token_is_accepted_only_on_routes_that_allow_it(authority: FakeAuthority, places: Flask, guard: Guard):
    client = make_client(places, guard)
    token = authority.mint("read")
    answer = client.get(f"/query?a=1&access_token={token}&b=2")
    assert answer.json == {
        "seen": ["a=1&b=2", "a=1&b=2", "http://localhost/query?a=1&b=2", "/query?a=1&b=2"],
        "args": {"a": ["1"], "b": ["2"]},
        "values": ["a", "b"],
    }
    assert answer.headers["Cache-Control"] == "max-age=60, private"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert client.get(f"/plain?access_token={token}").status_code == 401
    header = client.get("/query", headers=authority.bearer())
    assert (header.status_code, header.headers["Cache-Control"]) == (200, "public, max-age=60")


@pytest.mark.rule("B-31")
def test_token_removed_from_a_request_that_was_read_before(authority: FakeAuthority, places: Flask, guard: Guard):
    seen: list[object] = []

    @places.url_value_preprocessor
    def look(endpoint: str | None, values: dict[str, Any] | None) -> None:
        seen.extend((request.args, request.values, request.url, request.full_path))

    answer = make_client(places, guard).get(f"/query?a=1&access_token={authority.mint('read')}&b=2")
    assert len(seen) == 4
    told = answer.get_json()
    assert told["args"] == {"a": ["1"], "b": ["2"]}
    assert told["values"] == ["a", "b"]
    assert all("access_token" not in text for text in told["seen"])


@pytest.mark.rule("B-13", "B-30", "B-31")
def test_refusals_of_query_tokens_are_private(authority: FakeAuthority, places: Flask, guard: Guard):
    client = make_client(places, guard)
    expired = client.get(f"/query?access_token={authority.mint(expires_in=-60)}")
    assert expired.status_code == 401
    assert expired.headers["Cache-Control"] == "no-store"
    assert expired.headers["Referrer-Policy"] == "no-referrer"
    assert client.get(f"/query?access_token={authority.mint()}", headers=authority.bearer()).status_code == 400


@pytest.mark.rule("B-50")
def test_redirect_of_the_router_does_not_repeat_the_token(
    authority: FakeAuthority, places: Flask, guard: Guard, no_leaks: Any
):
    rules = [Rule("/slash", token_sources=["query"])]
    client = make_client(places, guard, rules=rules)
    answer = client.get(f"/slash?a=1&access_token={authority.mint('read')}")
    assert (answer.status_code, answer.headers["Location"]) == (308, "http://localhost/slash/?a=1")
    bare = client.get(f"/slash?access_token={authority.mint('read')}")
    assert bare.headers["Location"] == "http://localhost/slash/"
    no_leaks(answer.text + bare.text)


@pytest.mark.rule("B-16", "B-27")
def test_form_token_is_read_and_the_view_still_gets_the_form(authority: FakeAuthority, places: Flask, guard: Guard):
    client = make_client(places, guard)
    token = authority.mint("read")
    answer = client.post("/form", data={"a": "\u00e4 b", "access_token": token})
    assert answer.status_code == 200
    assert answer.get_json()["fields"]["a"] == ["\u00e4 b"]
    body = f"a=1&access_token={token}&b=%20"
    urlencoded = "application/x-www-form-urlencoded"
    assert client.post("/raw", data=body, content_type=urlencoded).data == body.encode()
    assert client.post("/raw", data=body, content_type="text/plain").status_code == 401
    assert client.post("/query", data={"access_token": token}).status_code == 401
    assert client.post("/raw", headers=authority.bearer("read")).status_code == 401


@pytest.mark.rule("B-26")
def test_form_is_read_up_to_the_limit(authority: FakeAuthority, places: Flask, guard: Guard):
    answer = make_client(places, guard).post("/form", data={"a": "x" * 70_000, "access_token": authority.mint("read")})
    assert answer.status_code == 413


def test_token_sources_without_effect_are_an_error(authority: FakeAuthority, places: Flask, guard: Guard):
    wrap(places, guard)
    with pytest.raises(ConfigurationError, match="token_sources had no effect"):
        places.test_client().get("/query", headers=authority.bearer())


def test_token_sources_behind_another_decorator_are_an_error(authority: FakeAuthority, app: Flask, guard: Guard):
    @requires("read", token_sources=["query"])
    def view() -> str:
        return "in"

    @app.get("/hidden")
    def hidden() -> str:
        return view()

    client = make_client(app, guard)
    with pytest.raises(ConfigurationError, match="token_sources had no effect"):
        client.get("/hidden", headers=authority.bearer("read"))


def test_method_may_have_other_token_sources(authority: FakeAuthority, app: Flask, guard: Guard):
    class Stream(MethodView):
        @requires("read", token_sources=["query"])
        def get(self) -> Any:
            return access_token().client_id

        @requires("read")
        def post(self) -> Any:
            return access_token().client_id

    app.add_url_rule("/stream", view_func=Stream.as_view("stream"))
    client = make_client(app, guard)
    query = f"/stream?access_token={authority.mint('read')}"
    assert client.get(query).text == "client"
    assert client.head(query).status_code == 200
    assert client.post(query).status_code == 401


# mistakes


@pytest.mark.parametrize("path", KINDS)
def test_decorated_view_without_a_guard_is_refused(authority: FakeAuthority, app: Flask, path: str):
    for headers in ({}, authority.bearer("read write")):
        with pytest.raises(ConfigurationError, match="no guard has checked this request"):
            app.test_client().get(path, headers=headers)
    app.testing = False
    assert app.test_client().get(path, headers=authority.bearer("read write")).status_code == 500


@pytest.mark.rule("H-18")
def test_environ_keys_cannot_be_set_by_a_client(app: Flask):
    app.testing = False
    sent = {"scopeguard.guard": "1", "scopeguard.access_token": "1", "Scopeguard-Guard": "1"}
    assert app.test_client().get("/function", headers=sent).status_code == 500


def test_invalid_arguments_are_refused_at_once(app: Flask, guard: Guard):
    with pytest.raises(ConfigurationError, match=r"ScopeGuard\(app, guard\)"):
        ScopeGuard(app)
    no_guard: Any = "https://as.test"
    with pytest.raises(ConfigurationError, match=r"ScopeGuard\(app, guard\)"):
        ScopeGuard(app, no_guard)
    ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="has a ScopeGuard already"):
        ScopeGuard(app, guard)
    with pytest.raises(ConfigurationError, match="before_request"):
        requires("a")(Blueprint("b", __name__))
    with pytest.raises(ConfigurationError, match="is not a view"):
        requires("a")(dict)
    with pytest.raises(ConfigurationError, match="is not a view"):
        requires("a")("view")
    with pytest.raises(ConfigurationError, match="at least one scope"):
        requires()
    with pytest.raises(ConfigurationError, match="token_sources"):
        requires("a", token_sources=["cookie"])
    with pytest.raises(ConfigurationError, match="list of paths"):
        ScopeGuard(guard=guard, public="/healthz")


def test_requirement_can_be_read_from_the_view(app: Flask):
    for endpoint in ("function", "in_a_loop", "decorators", "class"):
        assert getattr(app.view_functions[endpoint], REQUIREMENT) == all_of("read", "write")
    assert app.view_functions["function"].__name__ == "function"


def test_accessor_without_a_token_raises_an_error_with_advice(app: Flask, guard: Guard):
    with pytest.raises(ConfigurationError, match="no access token here"):
        access_token()
    assert access_token_or_none() is None
    app.add_url_rule("/open", "open", public(lambda: {"client": access_token().client_id}))
    with pytest.raises(ConfigurationError, match="allows anonymous"):
        make_client(app, guard).get("/open")


# isolation of requests


@pytest.mark.rule("H-14")
def test_no_state_of_a_request_remains_after_it(authority: FakeAuthority, app: Flask, guard: Guard):
    app.add_url_rule("/bug", "bug", lambda: str(1 / 0))
    app.add_url_rule("/open", "open", public(lambda: {"current": access_token_or_none() is not None}))
    app.testing = False
    client = make_client(app, guard)
    for path, status in (("/plain", 200), ("/bug", 500), ("/nowhere", 404)):
        assert client.get(path, headers=authority.bearer()).status_code == status
        assert access_token_or_none() is None
        assert access_token_or_none() is None
        assert client.get("/open").json == {"current": False}
    with client:
        client.get("/plain", headers=authority.bearer())
        assert access_token().client_id == "client"  # Flask keeps the request for the test.
    assert access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_nested_request_has_a_separate_token(authority: FakeAuthority, app: Flask, guard: Guard):
    @app.get("/outer")
    def outer() -> Any:
        inner = app.test_client().get("/plain", headers=authority.bearer(client_id="inner"))
        return {"inner": inner.json, "outer": access_token().client_id}

    answer = make_client(app, guard).get("/outer", headers=authority.bearer(client_id="outer"))
    assert answer.json == {"inner": {"client": "inner"}, "outer": "outer"}


@pytest.mark.rule("H-14")
def test_hundred_concurrent_requests_do_not_mix(authority: FakeAuthority, app: Flask, guard: Guard):
    together = threading.Barrier(10)

    @app.get("/meeting")
    @requires("read")
    def meeting() -> Any:
        before = access_token()
        together.wait(timeout=30)
        assert before is access_token()
        return {"client": before.client_id}

    ScopeGuard(app, guard)
    bearers = {f"client-{n}": authority.bearer("read", client_id=f"client-{n}") for n in range(100)}
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda b: app.test_client().get("/meeting", headers=b).json, bearers.values()))
    assert answers == [{"client": name} for name in bearers]


def test_a_streamed_response_sees_its_token(authority: FakeAuthority, app: Flask, guard: Guard):
    @app.get("/stream")
    @requires("read")
    def stream() -> Response:
        def lines() -> Iterator[str]:
            yield access_token().client_id or ""
            yield access_token().subject or ""

        return Response(stream_with_context(lines()))

    answer = make_client(app, guard).get("/stream", headers=authority.bearer("read", subject="alice"))
    assert answer.text == "clientalice"
    assert access_token_or_none() is None


# the scope and the lifetime of the current token


def whoami_beside(guarded_app: Flask) -> tuple[Any, Any]:
    """Return a WSGI app with *guarded_app* under ``/api`` beside one without a guard, and what the latter sees."""
    beside = Flask("beside")
    beside.add_url_rule("/whoami", "whoami", lambda: {"current": access_token_or_none() is not None})
    return DispatcherMiddleware(beside, {"/api": guarded_app}), {"current": False}


def get(site: Any, path: str, headers: dict[str, str] | None = None) -> Any:
    environ = EnvironBuilder(path=path, headers=Headers(list((headers or {}).items()))).get_environ()
    chunks, status, _ = run_wsgi_app(site, environ, buffered=True)
    return status.partition(" ")[0], b"".join(chunks).decode()


@pytest.mark.rule("H-14")
@pytest.mark.parametrize("wait", [True, False], ids=["during the request", "after the request"])
def test_job_with_a_copied_request_context_leaves_no_current_token(
    authority: FakeAuthority, app: Flask, guard: Guard, wait: bool
):
    jobs: list[Any] = []
    may_run = threading.Event()

    def job() -> str | None:
        may_run.wait(30)
        return access_token().client_id

    with ThreadPoolExecutor(1) as pool:

        @app.get("/job")
        def start() -> Any:
            jobs.append(pool.submit(copy_current_request_context(job)))
            if wait:
                may_run.set()
                jobs[-1].result()
            return {"current": access_token().client_id}

        ScopeGuard(app, guard)
        site, nobody = whoami_beside(app)
        status, body = get(site, "/api/job", authority.bearer(client_id="alice"))
        assert (status, json.loads(body)) == ("200", {"current": "alice"})
        may_run.set()
        assert jobs[0].result() == "alice"
        assert pool.submit(access_token_or_none).result() is None
        assert json.loads(get(site, "/whoami")[1]) == nobody
        assert access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_a_job_in_the_thread_of_the_request_does_not_end_the_request(
    authority: FakeAuthority, app: Flask, guard: Guard
):
    @app.get("/job")
    def job() -> Any:
        inside = copy_current_request_context(lambda: access_token().client_id)()
        return {"inside": inside, "after": access_token().client_id}

    answer = make_client(app, guard).get("/job", headers=authority.bearer(client_id="alice"))
    assert answer.json == {"inside": "alice", "after": "alice"}
    assert access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_teardown_that_raises_leaves_no_current_token(authority: FakeAuthority, app: Flask, guard: Guard):
    ScopeGuard(app, guard)

    @app.teardown_request
    def raise_bug(error: BaseException | None) -> None:
        raise RuntimeError("the teardown of the app")

    site, nobody = whoami_beside(app)
    with pytest.raises(RuntimeError, match="the teardown of the app"):
        get(site, "/api/plain", authority.bearer())
    assert access_token_or_none() is None
    assert json.loads(get(site, "/whoami")[1]) == nobody


@pytest.mark.rule("H-14")
def test_request_that_ends_in_another_context_leaves_no_current_token(
    authority: FakeAuthority, app: Flask, guard: Guard
):
    ScopeGuard(app, guard)

    def serve() -> None:
        context = app.request_context(
            EnvironBuilder(path="/plain", headers=Headers(list(authority.bearer().items()))).get_environ()
        )
        context.push()
        assert app.preprocess_request() is None
        assert access_token_or_none() is not None
        # Flask raises because the context was pushed elsewhere, after it has called the teardown functions.
        with pytest.raises(ValueError, match="different Context"):
            copy_context().run(context.pop)
        assert access_token_or_none() is None

    copy_context().run(serve)


# declarations of a class and its subclasses


@pytest.mark.rule("H-07")
@pytest.mark.parametrize("say", [public, optional])
def test_declaration_that_opens_a_view_class_does_not_open_subclasses(
    authority: FakeAuthority, app: Flask, guard: Guard, say: Any
):
    @say
    class Health(MethodView):
        def get(self) -> str:
            return "fine"

    class Report(Health):
        def get(self) -> str:
            return "secret"

    class Status(Report):
        pass

    @say
    class Open(Report):
        pass

    for view_class in (Health, Report, Status, Open):
        app.add_url_rule(f"/{view_class.__name__}", view_func=view_class.as_view(view_class.__name__))
    client = make_client(app, guard)
    statuses = {name: client.get(f"/{name}").status_code for name in ("Health", "Report", "Status", "Open")}
    assert statuses == {"Health": 200, "Report": 401, "Status": 401, "Open": 200}
    report = audit_app(app)
    kinds = {entry.path: entry.kind.value for entry in report.entries}
    assert kinds["/Health"] == kinds["/Open"] == say.__name__
    assert kinds["/Report"] == kinds["/Status"] == "authenticated"


@pytest.mark.rule("G-13")
@pytest.mark.parametrize("by", ["extension", "middleware"])
def test_declaration_that_closes_a_view_class_closes_subclasses(
    authority: FakeAuthority, app: Flask, guard: Guard, by: str
):
    seen: list[str] = []

    class Base(MethodView):
        def __init_subclass__(cls, **arguments: Any) -> None:
            super().__init_subclass__(**arguments)
            seen.append(cls.__name__)

        def get(self) -> str:
            return "in"

    @requires("a")
    class Guarded(Base):
        pass

    class Own(Guarded):
        decorators = []  # noqa: RUF012 - as Flask has it

    @requires("b")
    class More(Own):
        pass

    class Both(More):
        decorators = [requires("c")]  # noqa: RUF012

    for view_class in (Guarded, Own, More, Both):
        app.add_url_rule(f"/{view_class.__name__}", view_func=view_class.as_view(view_class.__name__))
    client: Any = make_client(app, guard) if by == "extension" else Client(GuardMiddleware(app, guard=guard))

    def views_opened_by(scopes: str) -> list[str]:
        names = ("Guarded", "Own", "More", "Both")
        return [name for name in names if client.get(f"/{name}", headers=authority.bearer(scopes)).status_code == 200]

    assert views_opened_by("x") == views_opened_by("c") == []
    assert views_opened_by("a") == ["Guarded", "Own"]
    assert views_opened_by("a b") == ["Guarded", "Own", "More"]
    assert views_opened_by("a b c") == ["Guarded", "Own", "More", "Both"]
    assert seen == ["Guarded", "Own", "More", "Both"]


@pytest.mark.rule("F-02", "N-06")
@pytest.mark.parametrize("audit", ["off", "warn"])
def test_app_whose_view_takes_tokens_that_the_profile_refuses_serves_no_request(audit: str):
    def view() -> str:
        return "served"

    def client(**settings: Any) -> FlaskClient:
        app = Flask(__name__)
        app.testing = True
        ScopeGuard(app, Guard(Issuer("https://as.test", audience="https://api.test"), audit=audit, **settings))
        app.add_url_rule("/open", "open", public(view))
        app.add_url_rule("/query", "query", requires("read", token_sources=["header", "query"])(view))
        return app.test_client()

    assert client().get("/open").status_code == 200
    refused = client(profile="oauth21")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="query contradicts profile 'oauth21'"):
            refused.get("/open")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("/admin", 403),
        ("/%61dmin", 403),
        ("/opened", 403),
        ("/open%65d", 403),
        ("/own/x", 200),  # no reading matches a rule, so that the view decides
        ("/ow%6E/x", 200),
        ("/own/a%2Db", 200),
    ],
)
def test_another_spelling_of_a_path_does_not_replace_its_rule_by_the_view(sent: str, status: int):
    """Flask routes on the decoded path, and a view's own declaration must not stand for the rule as well."""
    authority = FakeAuthority(audience="https://api.test")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    app = Flask("app")
    app.add_url_rule("/admin", view_func=requires("read")(lambda: "admin"), endpoint="admin")
    app.add_url_rule("/opened", view_func=public(lambda: "open"), endpoint="open")
    app.add_url_rule("/own/<name>", view_func=requires("read")(lambda name: name), endpoint="own")
    ScopeGuard(app, guard, rules=[Rule("/admin", "admin"), Rule("/opened", "admin")])
    headers = {"Authorization": f"Bearer {authority.mint('read')}"}
    response = app.test_client().get(
        sent, base_url="https://api.test", headers=headers, environ_overrides={"RAW_URI": sent, "REQUEST_URI": sent}
    )
    assert response.status_code == status


class OverridingRequest(Request):
    """Takes the method from a field."""

    @property
    def method(self) -> str:
        return str(self.headers.get("X-Verb", self.environ["REQUEST_METHOD"]))

    @method.setter
    def method(self, sent: str) -> None: ...


def overriding_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    app.request_class = OverridingRequest

    class Rows(MethodView):
        def get(self) -> str:
            return "read"

        def post(self) -> str:
            return "written"

        def delete(self) -> str:
            return "deleted"

    app.add_url_rule("/rows", view_func=Rows.as_view("rows"))
    app.add_url_rule("/job", "job", lambda: "started", methods=["POST"])
    return app


def test_rules_hold_for_the_method_that_a_request_class_reads(authority: FakeAuthority, guard: Guard):
    app = overriding_app()
    rules = [Rule("/rows", "write", methods=["POST"]), Rule("/rows", PUBLIC, methods=["GET"]), Rule("/rows", "admin")]
    ScopeGuard(app, guard, rules=rules)
    client, writer = app.test_client(), authority.bearer("write")
    assert client.get("/rows").text == "read"
    assert client.post("/rows", headers=writer).text == "written"
    for method in ("GET", "POST"):
        for verb in ("DELETE", "GET", "POST"):
            answer = client.open("/rows", method=method, headers={"X-Verb": verb, **writer})
            assert answer.status_code == (200 if verb == method else 403)
    assert client.post("/rows", headers={"X-Verb": "GET"}).status_code == 401


@pytest.mark.parametrize("inside", [False, True])
def test_only_a_request_sent_as_a_preflight_is_one(guard: Guard, *, inside: bool):
    app = overriding_app()
    app.add_url_rule("/guarded", "guarded", requires("write")(lambda: "started"), methods=["POST"])
    announced = {"Origin": "https://spa.test", "Access-Control-Request-Method": "POST"}
    if inside:
        ScopeGuard(app, guard, cors_preflight="pass")
        client = app.test_client()
        assert client.post("/job", headers={"X-Verb": "OPTIONS", **announced}).status_code == 401
    else:
        client = app.test_client()
        wrapped: Any = app
        wrapped.wsgi_app = GuardMiddleware(app.wsgi_app, guard=guard, cors_preflight="pass")
    assert client.options("/guarded", headers=announced).status_code == 200
    assert client.options("/guarded", headers={"X-Verb": "POST", **announced}).status_code == 401
