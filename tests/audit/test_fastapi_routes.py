"""Dependencies are found in each place where FastAPI accepts them."""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a test.

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from starlette.endpoints import HTTPEndpoint

from scopeguard import AccessToken, Guard, Rule, all_of, any_of
from scopeguard.audit.findings import audit_app
from scopeguard.fastapi import GuardMiddleware, Protected, public

BARE: Any = {"docs_url": None, "redoc_url": None, "openapi_url": None}


def test_dependencies_of_app_router_and_route_add_up(guard: Guard, lines: Any):
    protected = Protected(guard)
    app = FastAPI(**BARE, dependencies=[Depends(protected)])
    inner = APIRouter(prefix="/inner", dependencies=[Security(protected, scopes=["inner"])])
    outer = APIRouter(prefix="/outer", dependencies=[Depends(protected.requires("outer"))])

    @inner.get("/rows/{row}")
    def rows(row: str, token: Annotated[AccessToken, Security(protected, scopes=["rows"])]) -> None: ...

    @inner.websocket("/live")
    async def live(websocket: WebSocket) -> None: ...

    @app.get("/plain")
    def plain() -> None: ...

    outer.include_router(inner, prefix="/v1", dependencies=[Depends(protected.requires("included"))])
    app.include_router(outer, prefix="/api")
    assert lines(app) == {
        "GET /api/outer/v1/inner/rows/{row}": "included + inner + outer + rows",
        "WEBSOCKET /api/outer/v1/inner/live": "included + inner + outer",
        "GET /plain": "any valid token",
    }


def test_scopes_of_nested_dependencies_count(guard: Guard, lines: Any):
    protected = Protected(guard)

    def user(token: Annotated[AccessToken, Security(protected, scopes=["profile"])]) -> str:
        return str(token.subject)

    app = FastAPI(**BARE)

    @app.get("/me")
    def me(name: Annotated[str, Security(user, scopes=["me"])]) -> None: ...

    @app.get("/either", dependencies=[Depends(protected.requires(any_of("a", all_of("b", "c"))))])
    def either() -> None: ...

    @app.get("/anonymous", dependencies=[Depends(Protected(guard, optional=True))])
    def anonymous() -> None: ...

    assert lines(app) == {
        "GET /me": "me + profile",
        "GET /either": "a or b + c",
        "GET /anonymous": "a valid token or none",
    }


def test_routes_without_a_dependency_are_unguarded_including_the_documentation(guard: Guard, codes: Any, lines: Any):
    app = FastAPI()

    @app.get("/open")
    def unguarded() -> None: ...

    @app.get("/healthz")
    @public
    def healthz() -> None: ...

    @app.get("/guarded", dependencies=[Depends(Protected(guard))])
    @public
    def guarded() -> None: ...

    documents = ["GET /openapi.json", "GET /docs", "GET /docs/oauth2-redirect", "GET /redoc"]
    assert codes(app) == {"unguarded": ["GET /open"], "open-documentation": documents}
    assert lines(app)["GET /healthz"] == "public"
    assert lines(app)["GET /guarded"] == "any valid token"
    app.add_middleware(GuardMiddleware, guard=guard, public=["/docs/{rest:path}"])
    assert codes(app) == {}
    assert lines(app)["GET /docs/oauth2-redirect"] == "public"
    assert lines(app)["GET /docs"] == lines(app)["GET /open"] == "any valid token"


def test_documentation_is_a_warning_that_a_declaration_removes(guard: Guard, codes: Any):
    app = FastAPI(docs_url="/manual", redoc_url=None, dependencies=[Depends(Protected(guard))])
    app.add_api_route("/rows", lambda: None)
    report = audit_app(app)
    assert report.errors == ()
    assert [(finding.code.value, finding.where) for finding in report.warnings] == [
        ("open-documentation", f"GET {path}") for path in ("/openapi.json", "/manual", "/docs/oauth2-redirect")
    ]
    assert "--public" in report.warnings[0].fix
    assert codes(app, public=["/openapi.json", "/manual", "/docs/oauth2-redirect"]) == {}


def test_route_of_the_app_at_the_path_of_the_documentation_is_an_error(codes: Any):
    app = FastAPI(**BARE)
    app.add_api_route("/docs", lambda: None)
    assert codes(app) == {"unguarded": ["GET /docs"]}


def test_declaration_of_an_endpoint_class_does_not_apply_to_subclasses(lines: Any):
    @public
    class Health(HTTPEndpoint):
        async def get(self, request: Any) -> None: ...

    class Report(Health): ...

    @public
    class Probe:
        async def __call__(self) -> None: ...

    class Inside(Probe): ...

    app: Any = FastAPI(**BARE)
    app.add_route("/health", Health)
    app.add_route("/report", Report)
    app.add_api_route("/probe", Probe())
    app.add_api_route("/inside", Inside())
    assert lines(app) == {
        "GET /health": "public",
        "GET /report": "unguarded",
        "GET /probe": "public",
        "GET /inside": "unguarded",
    }


def test_dependency_guards_a_route_that_the_middleware_leaves_open(guard: Guard, lines: Any, codes: Any):
    app = FastAPI(**BARE)

    @app.get("/rows", dependencies=[Security(Protected(guard), scopes=["read"])])
    def rows() -> None: ...

    outside = GuardMiddleware(app, guard=guard, rules=[Rule("/other")], public=["/rows"])
    assert lines(outside) == {"GET /rows": "read"}
    assert codes(outside) == {"rule-without-route": ["* /other"]}


def test_token_sources_of_dependencies_are_reported(guard: Guard, codes: Any):
    app = FastAPI(**BARE)

    @app.get("/download", dependencies=[Depends(Protected(guard, token_sources=["header", "query"]))])
    def download() -> None: ...

    assert codes(app) == {"query-tokens": ["GET /download"]}


def test_files_that_fastapi_serves_are_routes(guard: Guard, tmp_path: Any, lines: Any):
    app = FastAPI(**BARE)
    if not hasattr(app, "frontend"):
        return
    (tmp_path / "index.html").write_text("hello")
    app.frontend("/site", directory=tmp_path)
    router = APIRouter(dependencies=[Depends(Protected(guard))])
    router.frontend("/inside", directory=tmp_path)
    app.include_router(router, prefix="/more")
    assert lines(app) == {
        "GET /site/{path:path}": "unguarded",
        "GET /more/inside/{path:path}": "any valid token",
    }
