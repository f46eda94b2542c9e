"""The FastAPI adapter: the dependency, its refusals and the OpenAPI document.

Annotations are evaluated here: FastAPI reads them, and could not find the names of a test's own among the globals.
"""

import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Annotated, Any

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, Header, Request, Response, Security, WebSocket
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect

from doors import call_asgi
from scenarios import Exchange
from scopeguard import (
    OPTIONAL,
    PUBLIC,
    AccessToken,
    AuthorityUnavailable,
    ChallengeStyle,
    ConfigurationError,
    Decision,
    DPoP,
    Guard,
    InsufficientScope,
    Issuer,
    Rule,
    all_of,
    any_of,
)
from scopeguard.fastapi import AccessRefused, GuardMiddleware, Protected, access_token, access_token_or_none
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority

EVERYTHING = "/{path:path}"


class Item(BaseModel):
    count: int


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def guard(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock)


@pytest.fixture
def protected(guard: Guard) -> Protected:
    return Protected(guard, token_url="https://as.test/token", scopes={"read": "See things", "write": "Change things"})


@pytest.fixture
def app(protected: Protected) -> FastAPI:
    app = FastAPI()
    Caller = Annotated[AccessToken, Security(protected, scopes=["read", "write"])]  # noqa: N806 - a type

    async def caller(token: Annotated[AccessToken, Security(protected, scopes=["write"])]) -> AccessToken:
        return token

    @app.get("/async")
    async def in_loop(token: Caller) -> Any:
        assert token is access_token()
        return token.client_id

    @app.get("/sync")
    def in_thread(token: Caller) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        assert token is access_token()
        return token.client_id

    @app.get("/nested")
    async def nested(token: Annotated[AccessToken, Security(caller, scopes=["read"])]) -> Any:
        return token.client_id

    @app.get("/requires")
    async def requirement(token: Annotated[AccessToken, Depends(protected.requires("read", "write"))]) -> Any:
        return token.client_id

    @app.get("/route", dependencies=[Security(protected, scopes=["read", "write"])])
    async def in_decorator() -> Any:
        return access_token().client_id

    router = APIRouter(prefix="/router", dependencies=[Depends(protected.requires("read", "write"))])

    @router.get("/")
    def inside() -> Any:
        return access_token().client_id

    app.include_router(router)

    @app.get("/any")
    async def some(
        token: Annotated[AccessToken, Depends(protected.requires(any_of("admin", all_of("read", "write"))))],
    ):
        return token.client_id

    @app.get("/none")
    async def none(token: Annotated[AccessToken, Depends(protected)]) -> Any:
        return token.client_id

    @app.post("/item")
    async def item(item: Item, token: Caller) -> Any:
        return item.count

    return app


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="https://api.test")


KINDS = ["/async", "/sync", "/requires", "/route", "/router/", "/nested"]


@pytest.mark.rule("G-11", "B-42", "B-43", "B-44", "G-13")
@pytest.mark.parametrize("path", KINDS)
def test_each_way_to_declare_the_dependency_guards_its_route(authority: FakeAuthority, client: TestClient, path: str):
    granted = client.get(path, headers=authority.bearer("write read more", client_id="robot"))
    assert (granted.status_code, granted.json()) == (200, "robot")
    lacking = client.get(path, headers=authority.bearer("read"))
    assert lacking.status_code == 403
    assert lacking.headers["www-authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", '
        'error_description="The access token lacks a scope that this operation needs", scope="read write"'
    )
    assert lacking.headers["content-type"] == "application/problem+json"
    assert lacking.headers["cache-control"] == "no-store"
    assert lacking.json()["error"] == "insufficient_scope"


@pytest.mark.rule("B-11", "B-33", "G-13")
@pytest.mark.parametrize("path", KINDS)
def test_request_without_a_token_is_refused(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="api", scope="read write"'
    assert "error" not in answer.json()


@pytest.mark.rule("G-11")
@pytest.mark.parametrize(("scopes", "status"), [("admin", 200), ("write read", 200), ("read", 403), (None, 403)])
def test_requirements_may_be_expressions(authority: FakeAuthority, client: TestClient, scopes: Any, status: int):
    answer = client.get("/any", headers=authority.bearer(scopes))
    assert answer.status_code == status
    if status == 403:
        assert 'scope="admin"' in answer.headers["www-authenticate"]


def test_a_requirement_and_the_scopes_of_security_add_up(authority: FakeAuthority, guard: Guard):
    app = FastAPI()
    either = Protected(guard).requires(any_of("a", "b")).requires("c")

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(either, scopes=["d"])]) -> Any:
        return token.client_id

    client = TestClient(app)
    assert client.get("/", headers=authority.bearer("b c d")).status_code == 200
    for scopes in ("a b", "a b c", "a b d", "c d"):
        answer = client.get("/", headers=authority.bearer(scopes))
        assert answer.status_code == 403
        assert 'scope="a c d"' in answer.headers["www-authenticate"]


def test_dependency_without_scopes_needs_only_a_token(authority: FakeAuthority, client: TestClient):
    assert client.get("/none", headers=authority.bearer()).json() == "client"
    assert client.get("/none").status_code == 401


@pytest.mark.rule("H-19")
def test_an_outage_is_503(authority: FakeAuthority, client: TestClient):
    with authority.outage():
        answer = client.get("/async", headers=authority.bearer("read write"))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "www-authenticate" not in answer.headers


@pytest.mark.rule("B-62")
def test_hidden_operation_is_404(authority: FakeAuthority):
    hiding = ChallengeStyle(realm="api", hide_forbidden=True)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, challenge=hiding)
    app = FastAPI(dependencies=[Security(Protected(guard), scopes=["read"])])
    app.add_api_route("/", lambda: 1)
    answer = TestClient(app).get("/", headers=authority.bearer())
    assert answer.status_code == 404
    assert "www-authenticate" not in answer.headers


@pytest.mark.rule("B-52")
@pytest.mark.anyio
@pytest.mark.parametrize("before", [[], ["the same dependency"]])
async def test_head_is_refused_like_get_without_a_body(authority: FakeAuthority, protected: Protected, before: Any):
    app = FastAPI(dependencies=[*(Depends(protected) for _ in before), Security(protected, scopes=["read"])])
    app.add_api_route("/", lambda: 1, methods=["GET", "HEAD"])
    bearer = (b"authorization", authority.bearer("write")["Authorization"].encode())
    for headers in ((), (bearer,)):
        get, head = [await call_asgi(app, Exchange(method=m, target="/", headers=headers)) for m in ("GET", "HEAD")]
        assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
        assert head.all("content-length") == [str(len(get.body))]


def test_validation_errors_are_reported_only_to_callers_with_a_token(authority: FakeAuthority, client: TestClient):
    assert client.post("/item", json={"count": "many"}).status_code == 401
    assert client.post("/item", json={"count": "many"}, headers=authority.bearer("read")).status_code == 403
    assert client.post("/item", json={"count": "many"}, headers=authority.bearer("read write")).status_code == 422
    assert client.post("/item", json={"count": 1}, headers=authority.bearer("read write")).json() == 1


def test_other_dependencies_of_a_route_run_after_the_token_check(
    client: TestClient, app: FastAPI, protected: Protected
):
    def number(x: Annotated[int, Header()]) -> int:
        return x

    @app.get("/numbers")
    async def numbers(x: Annotated[int, Depends(number)], token: Annotated[AccessToken, Depends(protected)]) -> Any:
        return x

    assert client.get("/numbers").status_code == 401


# refusals


def test_exception_handlers_of_the_app_do_not_change_a_refusal(
    authority: FakeAuthority, app: FastAPI, client: TestClient
):
    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: Exception) -> Response:
        return Response("go away")

    app.add_exception_handler(401, plain)
    app.add_exception_handler(403, plain)
    assert client.get("/nowhere").text == "go away"
    assert client.get("/async").status_code == 401
    assert client.get("/async", headers=authority.bearer()).status_code == 403


def test_exception_handler_for_access_denied_is_used(authority: FakeAuthority, app: FastAPI, client: TestClient):
    @app.exception_handler(AccessRefused)
    async def ours(request: Request, error: AccessRefused) -> Response:
        error.response.headers["x-reason"] = error.refusal.error.reason
        return error.response

    answer = client.get("/async", headers=authority.bearer("read"))
    assert (answer.status_code, answer.headers["x-reason"]) == (403, "insufficient_scope")
    assert "www-authenticate" in answer.headers


def test_exception_of_a_refusal_has_its_details(authority: FakeAuthority, app: FastAPI, client: TestClient):
    seen: list[AccessRefused] = []

    @app.exception_handler(AccessRefused)
    async def ours(request: Request, error: AccessRefused) -> Response:
        seen.append(error)
        return error.response

    client.get("/async", headers=authority.bearer("read"))
    authority.rotate()
    with authority.outage():
        client.get("/async", headers=authority.bearer("read"))
    assert isinstance(seen[0].refusal.error, InsufficientScope)
    assert isinstance(seen[1].refusal.error, AuthorityUnavailable)
    assert str(seen[0]).startswith("insufficient_scope")


def test_mounted_app_handles_its_refusals(authority: FakeAuthority, app: FastAPI):
    outer = FastAPI()
    outer.mount("/inner", app)
    client = TestClient(outer)
    assert client.get("/inner/async").status_code == 401
    assert client.get("/inner/async", headers=authority.bearer("read write")).json() == "client"


# one decision per request


@pytest.fixture
def decisions() -> list[Decision]:
    return []


@pytest.fixture
def counting_guard(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch) -> tuple[Guard, list[Any]]:
    """Return a guard and the list of the requests that it has decided."""
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    judged: list[Any] = []
    acheck = engine_of(guard).acheck

    async def count_and_check(*args: Any, **kwargs: Any) -> Decision:
        judged.append(args)
        return await acheck(*args, **kwargs)

    monkeypatch.setattr(engine_of(guard), "acheck", count_and_check)
    return guard, judged


def test_several_dependencies_share_one_decision(authority: FakeAuthority, counting_guard: tuple[Guard, list[Any]]):
    guard, judged = counting_guard
    protected = Protected(guard)
    app = FastAPI(dependencies=[Depends(protected)])

    @app.get("/", dependencies=[Security(protected, scopes=["a"]), Depends(protected.requires("b"))])
    async def endpoint(token: Annotated[AccessToken, Security(Protected(guard), scopes=["c"])]) -> Any:
        return token.client_id

    client = TestClient(app)
    assert client.get("/", headers=authority.bearer("a b c")).status_code == 200
    assert len(judged) == 1
    for lacking, named in (("b c", "a"), ("a c", "b"), ("a b", "c")):
        answer = client.get("/", headers=authority.bearer(lacking))
        assert answer.status_code == 403
        assert f'scope="{named}"' in answer.headers["www-authenticate"]


def test_dependencies_with_different_token_sources_decide_separately(authority: FakeAuthority, guard: Guard):
    app = FastAPI(dependencies=[Depends(Protected(guard)), Depends(Protected(guard, token_sources=["query"]))])
    app.add_api_route("/", lambda: 1)
    client = TestClient(app)
    assert client.get("/", headers=authority.bearer()).status_code == 401
    assert client.get(f"/?access_token={authority.mint()}").status_code == 401
    assert client.get(f"/?access_token={authority.mint()}", headers=authority.bearer()).status_code == 200


def test_dependency_behind_middleware_of_the_same_guard_uses_its_token(
    authority: FakeAuthority, counting_guard: tuple[Guard, list[Any]]
):
    guard, judged = counting_guard
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        token: Annotated[AccessToken, Security(Protected(guard), scopes=["a"])], request: Request
    ) -> Any:
        assert token is request.state.access_token
        return token.client_id

    app.add_middleware(GuardMiddleware, guard=guard)
    client = TestClient(app)
    assert client.get("/", headers=authority.bearer("a")).json() == "client"
    assert client.get("/", headers=authority.bearer("b")).status_code == 403
    assert len(judged) == 1  # the middleware verifies the second token, which has a known header, at once
    assert client.get("/nowhere").status_code == 401
    assert client.get("/docs").status_code == 401


def test_dependency_decides_on_a_path_that_is_public_for_the_middleware(
    authority: FakeAuthority, app: FastAPI, guard: Guard
):
    app.add_middleware(GuardMiddleware, guard=guard, public=[EVERYTHING])
    client = TestClient(app)
    assert client.get("/async", headers=authority.bearer("read write")).json() == "client"
    assert client.get("/async").status_code == 401


@pytest.mark.rule("H-18")
def test_dependency_behind_middleware_of_another_guard_decides_again(
    authority: FakeAuthority, app: FastAPI, guard: Guard
):
    other = FakeAuthority("https://other.test")
    app.add_middleware(GuardMiddleware, guard=Guard(other.issuer, transport=other.transport, clock=other.clock))
    client = TestClient(app)
    assert client.get("/async", headers=other.bearer("read write")).status_code == 401
    assert client.get("/async", headers=authority.bearer("read write")).status_code == 401


@pytest.mark.rule("H-18")
def test_optional_dependency_without_a_token_does_not_hide_it_from_the_next(authority: FakeAuthority):
    """The next one reads the query, from which the middleware has removed the token."""
    guard = Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock, token_sources=["header", "query"]
    )
    maybe = Protected(guard, optional=True, token_sources=["header", "query"])
    app = FastAPI(dependencies=[Depends(maybe)])

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Depends(Protected(guard))]) -> Any:
        return token.client_id

    app.add_middleware(GuardMiddleware, guard=guard)
    client, token = TestClient(app), authority.mint("read", client_id="robot")
    for _ in range(3):
        assert client.get("/", params={"access_token": token}).json() == "robot"
    assert client.get("/").status_code == 401


@pytest.mark.rule("H-18")
def test_foreign_object_in_the_place_of_the_token_is_not_used(authority: FakeAuthority, app: FastAPI, guard: Guard):
    class Meddling:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["state"]["access_token"] = "anything"
            await self.app(scope, receive, send)

    app.add_middleware(Meddling)
    app.add_middleware(GuardMiddleware, guard=guard, public=[EVERYTHING])
    assert TestClient(app).get("/async").status_code == 401


# optional


@pytest.fixture
def maybe(guard: Guard) -> TestClient:
    app = FastAPI()
    optional = Protected(guard, optional=True)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken | None, Security(optional, scopes=["read"])]) -> Any:
        assert token is access_token_or_none()
        return token and token.client_id

    @app.get("/both", dependencies=[Depends(optional)])
    async def both(token: Annotated[AccessToken, Depends(Protected(guard))]) -> Any:
        return token.client_id

    return TestClient(app)


@pytest.mark.rule("B-55")
def test_optional_authentication_accepts_only_an_absent_token(authority: FakeAuthority, maybe: TestClient):
    assert maybe.get("/").json() is None
    assert maybe.get("/", headers=authority.bearer("read")).json() == "client"
    assert maybe.get("/", headers=authority.bearer("write")).status_code == 403
    assert maybe.get("/", headers=authority.bearer("read", expires_in=-60)).status_code == 401
    assert maybe.get("/", headers={"Authorization": "Basic dTpw"}).status_code == 401
    assert maybe.get("/", headers={"Authorization": "Bearer"}).status_code == 400
    with authority.outage():
        authority.rotate()
        assert maybe.get("/", headers=authority.bearer("read")).status_code == 503


def test_required_dependency_beside_an_optional_one_needs_a_token(authority: FakeAuthority, maybe: TestClient):
    assert maybe.get("/both").status_code == 401
    assert maybe.get("/both", headers=authority.bearer()).json() == "client"


@pytest.mark.rule("B-55")
def test_optional_route_behind_middleware_is_optional_in_both(authority: FakeAuthority, guard: Guard):
    app = FastAPI()

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken | None, Depends(Protected(guard, optional=True))]) -> Any:
        return token and token.client_id

    app.add_middleware(GuardMiddleware, guard=guard, rules=[Rule("/", OPTIONAL)])
    client = TestClient(app)
    assert client.get("/").json() is None
    assert client.get("/", headers=authority.bearer()).json() == "client"
    assert client.get("/", headers=authority.bearer(expires_in=-60)).status_code == 401


# token sources


@pytest.fixture
def places(guard: Guard) -> FastAPI:
    app = FastAPI()
    query = Protected(guard, token_sources=["header", "query"])
    form = Protected(guard, token_sources=["header", "form"])
    header = Protected(guard)

    @app.get("/query")
    async def by_query(token: Annotated[AccessToken, Depends(query)], request: Request, a: str = "") -> Any:
        return [request.scope["query_string"].decode(), str(request.url), dict(request.query_params), a]

    @app.get("/later", dependencies=[Depends(query), Depends(query.requires("read"))])
    async def later() -> Any:
        return 1

    @app.get("/response")
    async def own_response(token: Annotated[AccessToken, Depends(header)]) -> Response:
        return JSONResponse(1, headers={"cache-control": "public"})

    @app.get("/header")
    async def by_header(token: Annotated[AccessToken, Depends(header)]) -> Any:
        return 1

    @app.post("/form")
    async def by_form(
        token: Annotated[AccessToken, Security(form, scopes=["read"])], a: Annotated[list[str], Form()]
    ) -> Any:
        return a

    @app.post("/raw")
    async def raw(token: Annotated[AccessToken, Depends(form)], request: Request) -> Any:
        return (await request.body()).decode(), (await request.form()).multi_items()

    @app.post("/json")
    async def json(token: Annotated[AccessToken, Depends(form)], item: Item) -> Any:
        return item.count

    return app


@pytest.mark.rule("B-14", "B-28", "B-30", "B-31")
def test_query_token_is_accepted_only_on_routes_that_allow_it(authority: FakeAuthority, places: FastAPI):
    client = TestClient(places, base_url="https://api.test")
    token = authority.mint()
    answer = client.get(f"/query?a=1&access_token={token}&b=2")
    assert answer.json() == ["a=1&b=2", "https://api.test/query?a=1&b=2", {"a": "1", "b": "2"}, "1"]
    assert answer.headers["cache-control"] == "private"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.get(f"/header?access_token={token}").status_code == 401
    header = client.get("/query", headers=authority.bearer())
    assert header.status_code == 200
    assert "cache-control" not in header.headers


@pytest.mark.rule("B-13", "B-30", "B-31")
def test_refusals_of_query_tokens_are_private(authority: FakeAuthority, places: FastAPI):
    client = TestClient(places)
    expired = client.get(f"/query?access_token={authority.mint(expires_in=-60)}")
    assert expired.status_code == 401
    assert expired.headers["cache-control"] == "no-store"
    assert expired.headers["referrer-policy"] == "no-referrer"
    assert client.get(f"/query?access_token={authority.mint()}", headers=authority.bearer()).status_code == 400
    lacking = client.get(f"/later?access_token={authority.mint()}")
    assert lacking.status_code == 403
    assert lacking.headers["referrer-policy"] == "no-referrer"


@pytest.mark.rule("B-28", "B-30")
def test_middleware_makes_responses_of_the_endpoint_private(authority: FakeAuthority, places: FastAPI, guard: Guard):
    places.add_middleware(GuardMiddleware, guard=guard, rules=[Rule("/response", token_sources=["header", "query"])])
    answer = TestClient(places).get(f"/response?access_token={authority.mint()}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "private")
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("audit", ["off", "warn"])
def test_response_of_the_endpoint_to_a_token_in_another_field_is_private(authority: FakeAuthority, audit: str):
    issuer = replace(authority.issuer, token_header="x-assertion")
    guard = Guard(issuer, transport=authority.transport, clock=authority.clock, audit=audit)
    app = FastAPI(dependencies=[Depends(Protected(guard))])

    @app.get("/response")
    async def own_response() -> Response:
        return JSONResponse(1, headers={"cache-control": "public, max-age=60"})

    client = TestClient(app)
    for _ in range(2):  # the first request audits the app
        answer = client.get("/response", headers={"x-assertion": authority.mint()})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "max-age=60, private")


@pytest.mark.rule("B-54")
def test_response_of_an_optional_endpoint_varies_with_the_token(authority: FakeAuthority, guard: Guard):
    app, optional = FastAPI(), Protected(guard, optional=True)

    @app.get("/response", dependencies=[Depends(optional), Depends(optional.requires("read"))])
    async def own_response() -> Response:
        return JSONResponse(1, headers={"cache-control": "public", "vary": "accept"})

    @app.get("/value", dependencies=[Depends(optional)])
    async def value() -> int:
        return 1

    @app.get("/open")
    async def open_to_all() -> int:
        return 1

    client = TestClient(app)
    for sent in ({}, authority.bearer("read")):
        assert client.get("/response", headers=sent).headers.get_list("vary") == ["accept", "Authorization"]
        assert client.get("/value", headers=sent).headers.get_list("vary") == ["Authorization"]
        assert "vary" not in client.get("/open", headers=sent).headers


def test_dependency_with_other_token_sources_decides_again(authority: FakeAuthority, places: FastAPI, guard: Guard):
    places.add_middleware(GuardMiddleware, guard=guard, rules=[Rule("/form", token_sources=["header", "query"])])
    by_query = TestClient(places).post(f"/form?access_token={authority.mint('read')}", data={"a": "1"})
    assert by_query.status_code == 401  # The middleware accepted it; the route accepts only headers and forms.


@pytest.mark.rule("B-16", "B-20", "B-27")
def test_form_token_is_read_and_the_endpoint_still_gets_the_form(authority: FakeAuthority, places: FastAPI):
    client = TestClient(places)
    token = authority.mint("read")
    urlencoded = {"content-type": "application/x-www-form-urlencoded"}
    body = f"a=1&access_token={token}&b=%20"
    raw = client.post("/raw", content=body, headers=urlencoded)
    assert raw.json() == [body, [["a", "1"], ["access_token", token], ["b", " "]]]
    assert client.post("/raw", content=body.encode() + b"&c=\xe9", headers=urlencoded).status_code == 400
    assert client.post("/raw", content=body).status_code == 401
    parsed = client.post("/form", data={"a": ["\u00e4 b", "c"], "access_token": token})
    assert parsed.json() == ["\u00e4 b", "c"]
    assert client.post("/form", data={"a": "1", "access_token": [token, token]}).status_code == 400
    assert client.post("/form", data={"a": "1", "access_token": token}, headers=authority.bearer()).status_code == 400
    assert client.post("/form", data={"a": "1"}).status_code == 401
    assert client.post("/form", data={"a": "1"}, headers=authority.bearer("read")).json() == ["1"]
    assert client.post("/json", json={"count": 3}, headers=authority.bearer()).json() == 3


@pytest.mark.rule("B-26")
def test_form_is_read_up_to_the_limit(authority: FakeAuthority, places: FastAPI):
    client = TestClient(places)
    token = authority.mint("read")
    assert client.post("/raw", data={"a": "x" * 70_000, "access_token": token}).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield f"access_token={token}".encode()

    urlencoded = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/raw", content=chunks(), headers=urlencoded).status_code == 413


@pytest.mark.rule("X-31")
@pytest.mark.anyio
async def test_form_that_does_not_arrive_is_refused_after_a_time_limit(authority: FakeAuthority):
    from scopeguard import TokenSources

    guard = Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock,
        token_sources=TokenSources(form_timeout=0.01).with_methods(["form"]),
    )  # fmt: skip
    app = FastAPI(dependencies=[Depends(Protected(guard))])
    app.add_api_route("/", lambda: 1, methods=["POST"])
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"10")]
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers, "scheme": "https",
    }  # fmt: skip

    async def receive() -> Any:
        await anyio.sleep_forever()

    await app(scope, receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.rule("B-26")
@pytest.mark.parametrize("length", [b"70000", b"1" * 5000, b"", b"x"], ids=["70000", "5000 digits", "none", "x"])
@pytest.mark.anyio
async def test_form_with_an_invalid_length_is_not_read(authority: FakeAuthority, length: bytes):
    guard = Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock, token_sources=["header", "form"]
    )
    app = FastAPI(dependencies=[Depends(Protected(guard))])
    app.add_api_route("/", lambda: 1, methods=["POST"])
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", length)]
    await app(
        {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers, "scheme": "https"},
        receive,
        send,
    )
    assert sent[0]["status"] == 413


# mistakes


def test_invalid_arguments_are_refused_at_once(guard: Guard):
    no_guard: Any = "https://as.test"
    with pytest.raises(ConfigurationError, match=r"Protected\(guard\)"):
        Protected(no_guard)
    with pytest.raises(ConfigurationError, match="token_sources"):
        Protected(guard, token_sources=["cookie"])
    with pytest.raises(ConfigurationError, match="token_url"):
        Protected(guard, scopes={"a": "b"})
    with pytest.raises(ConfigurationError, match="cleartext"):
        Protected(guard, token_url="http://as.test/token")
    with pytest.raises(ConfigurationError, match="openid_connect_url"):
        Protected(guard, openid_connect_url="as.test")
    with pytest.raises(ConfigurationError, match="several scopes"):
        Protected(guard, token_url="/token", scopes={"a b": ""})
    with pytest.raises(ConfigurationError, match="several scopes"):
        Protected(guard).requires("a b")
    with pytest.raises(ConfigurationError, match="at least one scope"):
        Protected(guard).requires()
    with pytest.raises(ConfigurationError, match="at least one scope"):
        Protected(guard).requires("a").requires()


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        ("tables.read", "must be a list, as in .*, not str"),  # FastAPI iterates over the letters of a string.
        (b"ab", "must be a list, as in .*, not bytes"),
        ({"tables.read": ""}, "must be a list, as in .*, not dict"),
        (7, "must be a list, as in .*, not int"),
        (["read write"], "several scopes"),
        ([7], "a scope must be a string, not int"),
        ([""], "is not a scope"),
    ],
)
def test_malformed_scopes_are_refused_at_construction(protected: Protected, scopes: Any, message: str):
    for dependency in (protected, protected.requires("a")):
        with pytest.raises(ConfigurationError, match=f"^Security: scopes: .*{message}"):
            Security(dependency, scopes=scopes)


def test_scopes_of_other_security_dependencies_do_not_count(protected: Protected):
    del protected  # The first dependency makes FastAPI's Security check its scopes.
    assert Security(lambda: None, scopes="ab").scopes == "ab"
    assert Security(None, scopes=["read write"]).scopes == ["read write"]


@pytest.mark.rule("H-05")
def test_exception_of_the_guard_refuses_the_request(client: TestClient, guard: Guard, monkeypatch: pytest.MonkeyPatch):
    async def raise_bug(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(engine_of(guard), "acheck", raise_bug)
    with pytest.raises(RuntimeError, match="a bug"):
        client.get("/async")


def test_a_dependency_can_be_replaced_in_tests(app: FastAPI, client: TestClient, protected: Protected):
    token = AccessToken(
        issuer="", subject=None, client_id="fake", audience=(), scopes=frozenset(), granted_scopes=None,
        expires_at=None, claims={},
    )  # fmt: skip
    app.dependency_overrides[protected] = lambda: token
    assert client.get("/nested").json() == "fake"


def test_replacing_a_dependency_replaces_derived_ones(authority: FakeAuthority, guard: Guard):
    protected = Protected(guard)
    app = FastAPI()

    @app.get("/rows/{name}", dependencies=[Depends(protected)])  # noqa: FAST003 - the override takes it
    def rows(token: Annotated[Any, Depends(protected.requires(any_of("read", "all")).requires("more"))]) -> Any:
        return token

    def header(x: Annotated[str, Header()]) -> str:
        return x

    async def override(
        name: str, x: Annotated[str, Depends(header)], request: Request, security_scopes: SecurityScopes
    ) -> AsyncIterator[Any]:
        seen.append("begun")
        yield [name, x, request.url.path, security_scopes.scopes]
        seen.append("ended")

    seen: list[str] = []
    client = TestClient(app)
    assert client.get("/rows/a").status_code == 401
    app.dependency_overrides[protected] = override
    assert client.get("/rows/a", headers={"x": "1"}).json() == ["a", "1", "/rows/a", ["read", "more"]]
    assert seen.count("begun") == seen.count("ended") > 0
    assert client.get("/rows/a").json()["detail"][0]["loc"] == ["header", "x"]
    app.dependency_overrides[header] = lambda: "2"
    assert client.get("/rows/a").json()[1] == "2"
    app.dependency_overrides.clear()
    assert client.get("/rows/a", headers={"x": "1"}).status_code == 401


def test_dependency_can_be_replaced_by_that_of_another_guard(authority: FakeAuthority, guard: Guard):
    real = Protected(Guard(Issuer("https://auth.example.com", audience="https://api.example.com")))
    app = FastAPI()

    @app.get("/rows")
    def rows(token: Annotated[AccessToken, Depends(real.requires(any_of("read", "all")))]) -> Any:
        return token.client_id

    client = TestClient(app)
    for override in (Protected(guard), Protected(guard).requires("more")):
        app.dependency_overrides[real] = override
        statuses = [client.get("/rows", headers=authority.bearer(s)).status_code for s in ("read more", "more", "")]
        assert statuses == [200, 403, 403]
        assert client.get("/rows").status_code == 401
    app.dependency_overrides[real] = real  # It decides itself, once.
    assert client.get("/rows").status_code == 401


# isolation of requests


@pytest.mark.rule("H-14")
@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_hundred_concurrent_requests_do_not_mix(authority: FakeAuthority, protected: Protected, kind: str):
    everybody_is_here = anyio.Event()
    waiting = 0
    app = FastAPI()

    async def meeting(token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 100:
            everybody_is_here.set()
        await everybody_is_here.wait()
        assert token is access_token()
        return token.client_id

    def in_thread(token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> Any:
        anyio.from_thread.run(anyio.lowlevel.checkpoint)
        assert token is access_token()
        return token.client_id

    app.add_api_route("/", meeting if kind == "async" else in_thread)
    answers: dict[str, bytes] = {}

    async def call(name: str) -> None:
        bearer = authority.bearer("read", client_id=name)["Authorization"].encode()
        answers[name] = (await call_asgi(app, Exchange(target="/", headers=((b"authorization", bearer),)))).body

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(call, f"client-{number}")
    assert answers == {f"client-{n}": f'"client-{n}"'.encode() for n in range(100)}


@pytest.mark.rule("H-14")
@pytest.mark.anyio
async def test_no_state_of_a_request_remains_after_it(authority: FakeAuthority, app: FastAPI, guard: Guard):
    @app.get("/bug")
    async def bug(token: Annotated[AccessToken, Depends(Protected(guard))]) -> Any:
        raise ValueError(token.client_id)

    headers = ((b"authorization", authority.bearer("read write")["Authorization"].encode()),)
    for path in ("/async", "/sync"):
        assert (await call_asgi(app, Exchange(target=path, headers=headers))).status == 200
        assert access_token_or_none() is None
    with pytest.raises(ValueError, match="client"):
        await call_asgi(app, Exchange(target="/bug", headers=headers))
    assert access_token_or_none() is None


def test_a_streamed_response_sees_its_token(authority: FakeAuthority, app: FastAPI, client: TestClient, guard: Guard):
    @app.get("/stream", dependencies=[Depends(Protected(guard))])
    async def stream() -> Response:
        async def lines() -> AsyncIterator[str]:
            yield access_token().client_id or ""

        return StreamingResponse(lines())

    assert client.get("/stream", headers=authority.bearer()).text == "client"


# websockets


@pytest.fixture
def chat(app: FastAPI, protected: Protected) -> FastAPI:
    @app.websocket("/chat")
    async def chat(websocket: WebSocket, token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> None:
        await websocket.accept()
        await websocket.send_text(f"{token.client_id} {access_token().client_id}")
        await websocket.close()

    return app


@pytest.mark.rule("H-02")
def test_websocket_opens_with_sufficient_scopes(authority: FakeAuthority, chat: FastAPI):
    with TestClient(chat).websocket_connect("/chat", headers=authority.bearer("read")) as websocket:
        assert websocket.receive_text() == "client client"


@pytest.mark.rule("H-02", "H-03")
def test_handshake_without_the_scopes_is_refused_before_acceptance(authority: FakeAuthority, chat: FastAPI):
    for headers, status in (({}, 401), (authority.bearer("write"), 403)):
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            TestClient(chat).websocket_connect("/chat", headers=headers),
        ):
            raise AssertionError("it was accepted")
        denial: Any = refused.value  # TestClient has the extension for denial responses, and answers like HTTP......
        assert denial.status_code == status
        assert 'scope="read"' in denial.headers["www-authenticate"]


@pytest.mark.rule("H-03")
@pytest.mark.anyio
async def test_server_without_denial_responses_closes_the_websocket(chat: FastAPI):
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket", "path": "/chat", "headers": [], "query_string": b"", "scheme": "wss", "extensions": {},
    }  # fmt: skip
    await chat(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Unauthorized"}]


# the OpenAPI document


def security(app: FastAPI, path: str, method: str = "get") -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] = app.openapi()["paths"][path][method]["security"]
    return found


@pytest.mark.rule("O-01", "O-02", "O-04")
def test_document_has_the_security_schemes(app: FastAPI):
    assert app.openapi()["components"]["securitySchemes"] == {
        "OAuth2": {
            "type": "oauth2",
            "flows": {
                "clientCredentials": {
                    "tokenUrl": "https://as.test/token",
                    # OpenAPI requires all scopes of operations here, described or not.
                    "scopes": {"read": "See things", "write": "Change things", "admin": ""},
                }
            },
        },
        "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }


@pytest.mark.rule("O-07", "O-11")
@pytest.mark.parametrize("path", KINDS)
def test_document_has_the_scopes_of_each_route(app: FastAPI, path: str):
    found = security(app, path)
    assert [set(item) for item in found] == [{"OAuth2"}, {"Bearer"}]  # Either suffices.
    assert all(sorted(scopes) == ["read", "write"] for item in found for scopes in item.values())


@pytest.mark.rule("O-06", "O-08", "O-11")
def test_each_alternative_is_a_separate_requirement(app: FastAPI):
    assert security(app, "/any") == [
        {"OAuth2": ["admin"]},
        {"Bearer": ["admin"]},
        {"OAuth2": ["read", "write"]},
        {"Bearer": ["read", "write"]},
    ]


@pytest.mark.rule("O-08", "O-11")
def test_alternatives_include_the_scopes_required_around_them(guard: Guard):
    protected = Protected(guard)
    app = FastAPI(dependencies=[Depends(protected)])
    either = protected.requires(any_of(all_of("b", "a"), "c"))
    app.add_api_route("/", lambda: 1, dependencies=[Security(either, scopes=["d"])])
    assert security(app, "/") == [{"Bearer": ["d", "b", "a"]}, {"Bearer": ["d", "c"]}]


@pytest.mark.rule("O-03", "O-05")
def test_other_schemes_appear_only_if_enabled(guard: Guard):
    everything = Protected(
        guard,
        token_sources=["query"],
        token_url="token",
        openid_connect_url="https://as.test/.well-known/openid-configuration",
        scheme_prefix="Stream",
    )
    app = FastAPI()
    app.add_api_route("/", lambda: 1, dependencies=[Depends(everything)])
    assert app.openapi()["components"]["securitySchemes"] == {
        "StreamOAuth2": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "token", "scopes": {}}}},
        "StreamOpenIDConnect": {
            "type": "openIdConnect",
            "openIdConnectUrl": "https://as.test/.well-known/openid-configuration",
        },
        "StreamQueryToken": {"type": "apiKey", "in": "query", "name": "access_token"},
    }
    assert security(app, "/") == [{"StreamOAuth2": []}, {"StreamOpenIDConnect": []}, {"StreamQueryToken": []}]


@pytest.mark.rule("O-10")
def test_document_can_list_the_refusals(protected: Protected):
    app = FastAPI(responses=protected.responses)
    app.add_api_route("/", lambda: 1, dependencies=[Depends(protected)])
    responses = app.openapi()["paths"]["/"]["get"]["responses"]
    for status in ("401", "403"):
        assert "WWW-Authenticate" in responses[status]["headers"]
        assert list(responses[status]["content"]) == ["application/problem+json"]


def test_document_describes_the_body_of_refusals(authority: FakeAuthority):
    style = ChallengeStyle(realm="api", body="google")
    guard = Guard(authority.issuer, challenge=style, transport=authority.transport, clock=authority.clock)
    assert list(Protected(guard).responses[401]["content"]) == ["application/json"]


@pytest.mark.rule("O-04", "O-10")
def test_document_is_complete_without_further_calls(guard: Guard):
    protected = Protected(guard, token_url="https://as.test/token")
    app = FastAPI()
    router = APIRouter(dependencies=[Security(protected, scopes=["all"])])

    def nested(token: Annotated[Any, Security(protected, scopes=["deep"])]) -> Any:
        return token

    @router.get("/rows", responses={403: {"description": "said by the app"}})
    def rows(token: Annotated[Any, Depends(protected.requires(any_of("read", all_of("a", "b"))))]) -> None: ...

    @app.post("/insert")
    def insert(token: Annotated[Any, Security(nested, scopes=["write"])]) -> None: ...

    @app.get("/any", dependencies=[Depends(protected)])
    def any_token() -> None: ...

    @app.get("/open")
    def unguarded() -> None: ...

    app.include_router(router, prefix="/v1")
    schema = app.openapi()
    flow = schema["components"]["securitySchemes"]["OAuth2"]["flows"]["clientCredentials"]
    assert set(flow["scopes"]) == {"all", "read", "a", "b", "write", "deep"}
    operations = {path: next(iter(item.values())) for path, item in schema["paths"].items()}
    statuses = {path: set(operation["responses"]) for path, operation in operations.items()}
    assert {path: found & {"401", "403", "503"} for path, found in statuses.items()} == {
        "/v1/rows": {"401", "403", "503"},
        "/insert": {"401", "403", "503"},
        "/any": {"401", "503"},
        "/open": set(),
    }
    assert schema["paths"]["/v1/rows"]["get"]["responses"]["403"]["description"] == "said by the app"
    assert "Retry-After" in schema["paths"]["/any"]["get"]["responses"]["503"]["headers"]
    assert app.openapi() is schema

    @app.delete("/rows")
    def late(token: Annotated[Any, Security(protected, scopes=["late"])]) -> None: ...

    app.openapi_schema = None
    later = app.openapi()
    assert "late" in later["components"]["securitySchemes"]["OAuth2"]["flows"]["clientCredentials"]["scopes"]
    assert TestClient(app).get("/openapi.json").json() == later


@pytest.mark.rule("O-04")
def test_document_customised_by_the_app_is_complete_when_served(guard: Guard):
    app: Any = FastAPI()
    protected = Protected(guard, token_url="https://as.test/token")
    app.add_api_route("/", lambda: 1, dependencies=[Security(protected, scopes=["read"])])
    app.openapi = lambda: get_openapi(title="ours", version="1", routes=app.routes)
    served = TestClient(app).get("/openapi.json").json()
    assert served["info"]["title"] == "ours"
    flow = served["components"]["securitySchemes"]["OAuth2"]["flows"]["clientCredentials"]
    assert flow["scopes"] == {"read": ""}
    assert {"401", "403", "503"} <= set(served["paths"]["/"]["get"]["responses"])


def test_document_of_an_app_without_a_guard_is_unchanged():
    app = FastAPI()
    app.add_api_route("/", lambda: 1, dependencies=[Security(HTTPBearer(scheme_name="Bearer"), scopes=["x"])])
    assert set(app.openapi()["paths"]["/"]["get"]["responses"]) == {"200"}


def test_schemes_of_others_with_the_same_name_are_unchanged(guard: Guard):
    app = FastAPI()
    app.add_api_route("/ours", lambda: 1, dependencies=[Security(Protected(guard), scopes=["x"])])
    app.add_api_route("/other", lambda: 1, dependencies=[Security(HTTPBasic(scheme_name="Basic"), scopes=["x"])])
    assert set(app.openapi()["paths"]["/other"]["get"]["responses"]) == {"200"}


def test_document_of_an_open_route_has_no_security(app: FastAPI):
    app.add_api_route("/open", lambda: 1)
    assert "security" not in app.openapi()["paths"]["/open"]["get"]


@pytest.mark.rule("H-06", "X-74")
@pytest.mark.parametrize("path", ["/secret", "/api/secret"])
def test_app_with_a_root_path_is_guarded_on_the_path_it_routes_on(guard: Guard, authority: FakeAuthority, path: str):
    app = FastAPI()
    app.root_path = "/api"  # As its deprecated argument does.

    @app.get("/secret")
    def secret() -> str:
        return "secret"

    rules = [Rule("/secret", all_of("admin")), Rule("/{rest:path}", PUBLIC)]
    wrapped = GuardMiddleware(GuardMiddleware(app, guard=guard, public=["/{rest:path}"]), guard=guard, rules=rules)
    with TestClient(wrapped) as client:
        assert client.get(path).status_code == 401
        assert client.get(path, headers=authority.bearer("read")).status_code == 403
        assert client.get(path, headers=authority.bearer("admin")).json() == "secret"


# -- rules


@pytest.mark.parametrize(
    "rule",
    [Rule("/x", all_of("read")), Rule("/x", dpop="required"), Rule("/x", decide=lambda _token, _request: True)],
    ids=["scopes", "proofs", "policy"],
)
def test_guard_with_rules_needs_the_middleware_that_applies_them(authority: FakeAuthority, rule: Rule):
    guard = Guard(
        authority.issuer,
        rules=[rule],
        resource="https://api.test",
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    app = FastAPI()

    @app.get("/x", dependencies=[Depends(Protected(guard, token_sources=("form", "header")))])
    @app.get("/y", dependencies=[Depends(Protected(guard))])
    async def endpoint() -> None: ...

    client, headers = TestClient(app), authority.bearer("read")
    elsewhere = TestClient(GuardMiddleware(FastAPI(), guard=guard))
    for _ in range(3):  # afterwards the token is found by its field
        elsewhere.get("/x", headers=headers)
    for path in ("/x", "/y"):
        with pytest.raises(ConfigurationError, match="the rules of the guard have no effect without GuardMiddleware"):
            client.get(path, headers=headers)
    app.middleware_stack = None  # as before the first request
    app.add_middleware(GuardMiddleware, guard=guard)
    assert TestClient(app).get("/y", headers=headers).status_code == 403  # no rule opens it
    assert TestClient(app).get("/x", headers=headers).status_code == (401 if rule.dpop else 200)


def test_mode_and_policy_of_a_rule_hold_for_tokens_from_other_places(authority: FakeAuthority):
    def refuse_alice(token: AccessToken, _: object) -> bool:
        return token.subject != "alice"

    rules = [Rule("/proven", OPTIONAL, dpop="required"), Rule("/decided", decide=refuse_alice), Rule("/free")]

    async def endpoint() -> None: ...

    guard = Guard(
        authority.issuer,
        resource="https://api.test",
        dpop=DPoP(),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    protected = Protected(guard, token_sources=("form",))
    app = FastAPI()
    for path in ("/proven", "/decided", "/free"):
        app.add_api_route(path, endpoint, methods=["POST"], dependencies=[Depends(protected)])
    app.add_middleware(GuardMiddleware, guard=guard, rules=rules)
    client = TestClient(app)

    def post(path: str, subject: str, **headers: str) -> int:
        form = {"access_token": authority.mint("read", subject=subject)}
        return client.post(path, data=form, headers=headers).status_code

    assert post("/proven", "bob") == 401
    bob = authority.bearer("read", subject="bob")
    assert [post("/decided", subject, **bob) for subject in ("bob", "alice")] == [200, 403]
    assert [post("/free", subject, **bob) for subject in ("bob", "alice")] == [200, 200]


def test_instance_in_the_place_of_the_class_is_an_error_with_the_fix():
    guard = Guard(Issuer("https://as.test", audience="https://api.test"))
    app = FastAPI(dependencies=[Depends(Protected(guard))])
    middleware: Any = GuardMiddleware(app, guard=guard)
    app.add_middleware(middleware)
    with pytest.raises(ConfigurationError, match="pass the class GuardMiddleware and its arguments, not an instance"):
        TestClient(app).get("/")
