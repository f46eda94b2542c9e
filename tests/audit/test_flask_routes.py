"""Views, view classes, blueprints and the extension of Flask."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from scopeguard import OPTIONAL, PUBLIC, Guard, Rule, all_of
from scopeguard.audit.findings import audit_app
from scopeguard.flask import ScopeGuard, optional, public, requires
from scopeguard.wsgi import GuardMiddleware


def a_flask() -> Flask:
    app = Flask("an_app", static_folder=None)

    @app.get("/plain/<int:number>")
    def plain(number: int) -> Any: ...

    @app.route("/both", methods=["GET", "POST"])
    @requires("both")
    def both() -> Any: ...

    @app.get("/files/<path:rest>")
    @public
    def files(rest: str) -> Any: ...

    @app.get("/maybe")
    @optional
    def maybe() -> Any: ...

    class Rows(MethodView):
        @requires("read")
        def get(self) -> Any: ...

        def post(self) -> Any: ...

    @requires("whole")
    class Whole(MethodView):
        def get(self) -> Any: ...

    app.add_url_rule("/rows", view_func=Rows.as_view("rows"))
    app.add_url_rule("/whole", view_func=Whole.as_view("whole"))
    outer, inner = Blueprint("outer", "an_app"), Blueprint("inner", "an_app")

    @outer.before_request
    @requires("hook")
    def check() -> None: ...

    @inner.get("/deep")
    @requires("deep")
    def deep() -> Any: ...

    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    open_to_all = Blueprint("open", "an_app")

    @open_to_all.get("/open")
    def opened() -> Any: ...

    app.register_blueprint(public(open_to_all))
    return app


def test_each_view_has_a_line(guard: Guard, lines: Any, codes: Any):
    app = a_flask()
    ScopeGuard(app, guard)
    assert lines(app) == {
        "GET /plain/{number}": "any valid token",
        "GET /both": "both",
        "POST /both": "both",
        "GET /files/{rest:path}": "public",
        "GET /maybe": "a valid token or none",
        "GET /rows": "read",
        "POST /rows": "any valid token",
        "GET /whole": "whole",
        "GET /outer/inner/deep": "deep + hook",
        "GET /open": "public",
    }
    assert codes(app) == {"optional-token": ["GET /maybe"]}


def test_rules_and_views_of_the_extension_both_apply(guard: Guard, lines: Any, codes: Any):
    app = a_flask()
    rules = [Rule("/both", all_of("rule"), ["POST"]), Rule("/files/{rest:path}", OPTIONAL), Rule("/rows", PUBLIC)]
    ScopeGuard(app, guard, rules=rules)
    found = lines(app)
    assert found["GET /both"] == "both"
    assert found["POST /both"] == "both + rule"
    assert found["GET /files/{rest:path}"] == "a valid token or none"
    assert found["GET /rows"] == "read"
    assert found["POST /rows"] == "public"
    assert found["GET /plain/{number}"] == "denied to all"
    assert codes(app)["route-without-rule"] == ["GET /plain/{number}"]
    assert "decorator-on-public" not in codes(app)  # The stricter one applies.


def test_middleware_in_place_of_wsgi_app_is_found(guard: Guard, lines: Any, codes: Any):
    app: Any = a_flask()  # type checkers treat wsgi_app as a method, which cannot be assigned
    app.wsgi_app = GuardMiddleware(app.wsgi_app, guard=guard, public=["/both"])
    assert lines(app)["GET /rows"] == "read"
    assert lines(app)["GET /files/{rest:path}"] == "any valid token"
    assert codes(app) == {"decorator-on-public": ["GET,POST /both"]}


def test_without_a_guard_a_view_is_open_or_broken(codes: Any):
    app = a_flask()
    assert codes(app) == {
        "unguarded": ["GET /plain/{number}", "POST /rows"],
        "decorator-without-guard": ["GET,POST /both", "GET /rows", "GET /whole", "GET /outer/inner/deep"],
        "optional-token": ["GET /maybe"],
    }


def test_a_decorator_above_the_route_is_found(guard: Guard, codes: Any, lines: Any):
    app = Flask("an_app", static_folder=None)
    ScopeGuard(app, guard)

    @requires("late")
    @app.get("/late")
    def late() -> Any: ...

    @requires("outer")
    @app.get("/half")
    @requires("inner")
    def half() -> Any: ...

    @app.get("/right")
    @requires("outer")
    @requires("inner")
    def right() -> Any: ...

    assert codes(app) == {"decorator-passed-by": ["GET /late", "GET /half"]}
    assert lines(app) == {"GET /late": "any valid token", "GET /half": "inner", "GET /right": "inner + outer"}


def test_apps_mounted_side_by_side_are_found(guard: Guard, lines: Any):
    first, second = a_flask(), Flask("second", static_folder=None)
    second.add_url_rule("/x", view_func=lambda: "")
    both = DispatcherMiddleware(first, {"/second": GuardMiddleware(second, guard=guard)})
    assert lines(both)["GET /second/x"] == "any valid token"
    assert lines(both)["GET /plain/{number}"] == "unguarded"


def test_static_files_are_labelled(guard: Guard):
    app = Flask("an_app")
    ScopeGuard(app, guard)
    (entry,) = audit_app(app).entries
    assert (entry.where, entry.endpoint) == ("GET /static/{filename:path}", "static files")
