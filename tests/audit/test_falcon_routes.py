"""Resources, suffixes, hooks, sinks and static files of Falcon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import falcon
import falcon.asgi

from scopeguard import Guard, Rule, all_of
from scopeguard.audit.findings import audit_app
from scopeguard.audit.inspection import inspect_app
from scopeguard.falcon import protect, requires


class Rows:
    @falcon.before(requires("hook"))
    def on_get(self, req: Any, resp: Any, **_: str) -> None: ...

    @requires("outer")
    @falcon.before(requires("inner"))
    def on_post(self, req: Any, resp: Any, **_: str) -> None: ...

    @falcon.before(requires("outer"))
    @requires("inner")
    def on_put(self, req: Any, resp: Any, **_: str) -> None: ...

    def on_delete(self, req: Any, resp: Any, **_: str) -> None: ...

    @requires("batch")
    def on_post_batch(self, req: Any, resp: Any, **_: str) -> None: ...


@falcon.before(requires("whole"))
class Whole:
    async def on_get(self, req: Any, resp: Any) -> None: ...

    @falcon.after(lambda *_: None)
    @requires("more")
    async def on_post(self, req: Any, resp: Any) -> None: ...

    async def on_websocket(self, req: Any, ws: Any) -> None: ...


class Later(Whole):
    async def on_put(self, req: Any, resp: Any) -> None: ...


@requires("sink")
def sink(req: Any, resp: Any, **_: str) -> None: ...


def test_each_responder_has_a_line(guard: Guard, lines: Any, tmp_path: Path):
    app = falcon.App()
    rows = Rows()
    app.add_route("/rows/{row:int}", rows)
    app.add_route("/files/{name}/{rest:path}", rows, suffix="batch")
    app.add_sink(sink, "/sink")
    app.add_sink(lambda req, resp, **_: None, r"/(?P<other>\d+)")
    app.add_static_route("/static", tmp_path)
    assert lines(protect(app, guard=guard)) == {
        "GET /rows/{row}": "hook",
        "POST /rows/{row}": "inner + outer",
        "PUT /rows/{row}": "inner + outer",
        "DELETE /rows/{row}": "any valid token",
        "POST /files/{name}/{rest:path}": "batch",
        "* /sink/{path:path}": "sink",
        "* /{path:path}": "any valid token",
        "GET /static/{path:path}": "any valid token",
    }


def test_each_responder_of_an_asgi_app_has_a_line(guard: Guard, lines: Any):
    app = falcon.asgi.App()
    app.add_route("/whole", Whole())
    app.add_route("/later", Later())
    assert lines(protect(app, guard=guard)) == {
        "GET /whole": "whole",
        "POST /whole": "more + whole",
        "WEBSOCKET /whole": "whole",
        "GET /later": "whole",
        "POST /later": "more + whole",
        "WEBSOCKET /later": "whole",
        "PUT /later": "any valid token",  # a hook on a class covers what the class has
    }


def test_router_of_the_app_is_reported_as_opaque(guard: Guard):
    class Router:
        def add_route(self, *_: Any, **__: Any) -> None: ...

        def find(self, uri: str, req: Any = None) -> None: ...

    router: Any = Router()
    app = protect(falcon.App(router=router), guard=guard)
    (entry,) = audit_app(app).entries
    assert entry.where == "* /{path:path}"
    assert inspect_app(app).unknown


def test_components_that_change_the_path_are_found(guard: Guard):
    class Harmless:
        def process_request(self, req: Any, resp: Any) -> None:
            resp.set_header("x", "y")

    class Rewrites:
        def process_request(self, req: Any, resp: Any) -> None:
            req.path = req.path.removeprefix("/api")

    class Strips(falcon.Request):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.path = "/"

    rules = [Rule("/{rest:path}"), Rule("/admin", all_of("admin"))]
    assert not inspect_app(protect(falcon.App(middleware=[Harmless()]), guard=guard, rules=rules)).unknown
    assert inspect_app(protect(falcon.App(middleware=[Rewrites()]), guard=guard, rules=rules)).unknown
    assert inspect_app(protect(falcon.App(request_type=Strips), guard=guard, rules=rules)).unknown
    app = falcon.App()
    app.add_middleware(Harmless())
    before = inspect_app(app).watched
    app.add_middleware(Rewrites())
    assert [getattr(owner, name) for owner, name, _ in before] != [value for _, _, value in before]


def test_cors_inside_the_guard_is_found(guard: Guard, codes: Any):
    app = falcon.App(cors_enable=True)
    app.add_route("/rows", Rows())
    assert list(codes(protect(app, guard=guard))) == ["cors-inside-guard"]
    assert not codes(protect(app, guard=guard, cors_preflight="pass"))
