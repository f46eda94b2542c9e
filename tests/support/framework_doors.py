"""The API of the scenarios once more, written in the idiom of each framework."""

import json
import types
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

import falcon
import falcon.asgi
import fastapi
import flask
import quart
from aiohttp import web
from django.http import HttpRequest, HttpResponse
from litestar import HttpMethod, Litestar, route
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiohttp_calls import RunningApp
from django_project import GUARD_MIDDLEWARE, make_application, url_conf
from doors import ANY, BOTH, EVERYWHERE, GOLD, Door, call_asgi, call_in_loop, call_wsgi, describe_request, rules
from kept import keep
from lambda_events import http_api, load_balancer, rest_api
from lambda_events import send as send_event
from scenarios import Answered, Exchange
from scopeguard import AUTHENTICATED, AccessToken, Guard, Requirement, Rule, aws_lambda
from scopeguard.aiohttp import access_token_or_none as aiohttp_access_token_or_none
from scopeguard.aiohttp import optional as aiohttp_optional
from scopeguard.aiohttp import public as aiohttp_public
from scopeguard.aiohttp import requires as aiohttp_requires
from scopeguard.aiohttp import setup
from scopeguard.django import access_token_or_none as django_access_token_or_none
from scopeguard.django import optional as django_optional
from scopeguard.django import public as django_public
from scopeguard.django import requires as django_requires
from scopeguard.falcon import access_token_or_none as falcon_access_token_or_none
from scopeguard.falcon import protect
from scopeguard.falcon import requires as falcon_requires
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard, access_token_or_none, optional, public
from scopeguard.flask import requires as flask_requires
from scopeguard.litestar import ScopeGuard as LitestarScopeGuard
from scopeguard.litestar import access_token_or_none as litestar_access_token_or_none
from scopeguard.litestar import requires as litestar_requires
from scopeguard.quart import ScopeGuard as QuartScopeGuard
from scopeguard.quart import access_token_or_none as quart_access_token_or_none
from scopeguard.quart import optional as quart_optional
from scopeguard.quart import public as quart_public
from scopeguard.quart import requires as quart_requires
from scopeguard.starlette import GuardMiddleware
from scopeguard.starlette import requires as starlette_requires

Send = Callable[[Exchange], Answered]

METHODS = ["GET", "POST", "HEAD"]
SCOPED: dict[str, Requirement] = {"/both": BOTH, "/any": ANY, "/gold": GOLD, "/bound": BOTH}
SOURCES = {"/query": ("header", "query"), "/form": ("header", "form"), "/both-places": EVERYWHERE}
ALL = ("/both", "/any", "/gold", "/bound", "/none", "/query", "/form", "/both-places", "/optional", "/public")


def _starlette(backend: str) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        async def endpoint(request: Request) -> Response:
            return Response(
                describe_request(request.state.access_token, request.scope["query_string"], await request.body())
            )

        routes = [
            Route(path, starlette_requires(SCOPED[path])(endpoint) if path in SCOPED else endpoint, methods=METHODS)
            for path in ALL
        ]
        middleware: Any = Middleware(GuardMiddleware, guard=guard, rules=rules(guard, with_scopes=False))
        return call_in_loop(backend, call_asgi, Starlette(routes=routes, middleware=[middleware]))

    return open_door


def _with_length(exchange: Exchange) -> Exchange:
    """*exchange* as most clients send it; in FastAPI forms are not read without."""
    length = (b"content-length", str(len(exchange.body)).encode())
    return replace(exchange, headers=(*exchange.headers, length)) if exchange.body else exchange


def _fastapi_app(guard: Guard, *, behind_middleware: bool) -> fastapi.FastAPI:
    protected = Protected(guard)
    dependencies: dict[str, Any] = {
        "/both": fastapi.Security(protected, scopes=["read", "write"]),
        "/any": fastapi.Depends(protected.requires(ANY)),
        "/bound": fastapi.Depends(protected.requires(BOTH)),
        "/gold": fastapi.Depends(protected.requires("read", acr="gold", max_age=300)),
        "/none": fastapi.Depends(protected),
        "/optional": fastapi.Depends(Protected(guard, optional=True)),
        "/public": fastapi.Depends(lambda: None),
    }
    for path, sources in SOURCES.items():
        own = protected if behind_middleware else Protected(guard, token_sources=sources)
        dependencies[path] = fastapi.Depends(own)
    app = fastapi.FastAPI()
    for path, dependency in dependencies.items():

        async def endpoint(request: fastapi.Request, token: Annotated[AccessToken | None, dependency]) -> Any:
            return json.loads(describe_request(token, request.scope["query_string"], await request.body()))

        app.add_api_route(path, endpoint, methods=METHODS, name=path)
    if behind_middleware:
        app.add_middleware(GuardMiddleware, guard=guard, rules=rules(guard, with_scopes=False))
    return app


def _fastapi(backend: str, *, behind_middleware: bool) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        app = _fastapi_app(guard, behind_middleware=behind_middleware)
        send = call_in_loop(backend, call_asgi, app)
        return lambda exchange: send(_with_length(exchange))

    return open_door


def _proof_rules(guard: Guard) -> list[Rule] | None:
    """Return rules for what no decorator says: the route that requires a proof."""
    modes = [rule for rule in rules(guard).all if rule.dpop is not None]
    return [*modes, Rule("/none")] if modes else None


def _flask(guard: Guard) -> Send:
    app = flask.Flask(__name__, static_folder=None)
    app.testing = True
    ScopeGuard(app, guard, rules=_proof_rules(guard))

    def view() -> Any:
        answer = describe_request(access_token_or_none(), flask.request.query_string, flask.request.get_data())
        return answer, {"Cache-Control": "public, max-age=60"}

    @optional
    def for_anybody() -> Any:
        return view()

    @public
    def for_everybody() -> Any:
        return view()

    views: dict[str, Any] = {path: flask_requires(requirement)(view) for path, requirement in SCOPED.items()}
    views |= {path: flask_requires(AUTHENTICATED, token_sources=sources)(view) for path, sources in SOURCES.items()}
    views |= {"/none": view, "/optional": for_anybody, "/public": for_everybody}
    for path, guarded in views.items():
        app.add_url_rule(path, path, guarded, methods=METHODS)
    return lambda exchange: call_wsgi(app, exchange)


def _django(*, asynchronous: bool) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        def view(request: HttpRequest) -> HttpResponse:
            assert django_access_token_or_none() is request.access_token
            answer = describe_request(request.access_token, request.META["QUERY_STRING"].encode(), request.body)
            return HttpResponse(answer, headers={"Cache-Control": "public, max-age=60"})

        async def view_async(request: HttpRequest) -> HttpResponse:
            return view(request)

        plain = view_async if asynchronous else view
        views: dict[str, Any] = dict.fromkeys((*SOURCES, "/none"), plain)
        views |= {path: django_requires(requirement)(plain) for path, requirement in SCOPED.items()}
        views |= {"/optional": django_optional(_copy_of(plain)), "/public": django_public(_copy_of(plain))}
        places = [Rule(path, token_sources=sources) for path, sources in SOURCES.items()]
        scopeguard = {"GUARD": guard, "RULES": [*places, *(_proof_rules(guard) or [Rule("/none")])]}
        app = make_application(url_conf(views), scopeguard, asynchronous=asynchronous, MIDDLEWARE=[GUARD_MIDDLEWARE])
        return call_in_loop("asyncio", call_asgi, app) if asynchronous else lambda exchange: call_wsgi(app, exchange)

    return open_door


def _falcon_answer(req: Any, resp: Any, body: bytes) -> None:
    token = req.context.access_token
    assert falcon_access_token_or_none() is token
    resp.data = describe_request(token, req.query_string.encode(), body)
    resp.set_headers({"Content-Type": "application/json", "Cache-Control": "public, max-age=60"})


class _FalconResource:
    """The routes of the API, each with a suffix, and with hooks and decorators in turn."""

    def on_get(self, req: Any, resp: Any) -> None:
        _falcon_answer(req, resp, req.bounded_stream.read())

    on_head = on_post = on_get
    on_get_both = on_post_both = on_head_both = falcon.before(falcon_requires(BOTH))(on_get)
    on_get_any = on_post_any = on_head_any = falcon_requires(ANY)(on_get)
    on_get_gold = on_post_gold = on_head_gold = falcon.before(falcon_requires(GOLD))(on_get)


class _FalconAsyncResource:
    async def on_get(self, req: Any, resp: Any) -> None:
        _falcon_answer(req, resp, await req.stream.read())

    on_head = on_post = on_get
    on_get_both = on_post_both = on_head_both = falcon_requires(BOTH)(on_get)
    on_get_any = on_post_any = on_head_any = falcon.before(falcon_requires(ANY))(on_get)
    on_get_gold = on_post_gold = on_head_gold = falcon_requires(GOLD)(on_get)


def _falcon(*, asynchronous: bool) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        app: Any = falcon.asgi.App() if asynchronous else falcon.App()
        resource = _FalconAsyncResource() if asynchronous else _FalconResource()
        suffixes = {"/both": "both", "/bound": "both", "/any": "any", "/gold": "gold"}
        for path in ALL:
            app.add_route(path, resource, suffix=suffixes.get(path))
        guarded: Any = protect(app, guard=guard, rules=rules(guard, with_scopes=False))
        return (
            call_in_loop("asyncio", call_asgi, guarded)
            if asynchronous
            else lambda exchange: call_wsgi(guarded, exchange)
        )

    return open_door


def _aiohttp(guard: Guard) -> Send:
    async def handler(request: web.Request) -> web.StreamResponse:
        token = request["access_token"]
        assert aiohttp_access_token_or_none() is token
        answer = describe_request(token, request.query_string.encode(), await request.read())
        return web.Response(body=answer, headers={"Cache-Control": "public, max-age=60"})

    handlers: dict[str, Any] = dict.fromkeys((*SOURCES, "/none"), handler)
    handlers |= {path: aiohttp_requires(requirement)(handler) for path, requirement in SCOPED.items()}
    handlers |= {"/optional": aiohttp_optional(_copy_of(handler)), "/public": aiohttp_public(_copy_of(handler))}
    places = [Rule(path, token_sources=sources) for path, sources in SOURCES.items()]
    given = [*places, *(_proof_rules(guard) or [Rule("/none")])]

    def make_app() -> web.Application:
        app = web.Application()
        for path, each in handlers.items():
            app.router.add_get(path, each)
            app.router.add_post(path, each)
        setup(app, guard, rules=given)
        return app

    return keep(RunningApp(make_app)).send


def _lambda(shape: Callable[..., Any]) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        @aws_lambda.protect(guard, rules=rules(guard))
        def handler(event: Any, _: Any) -> Any:
            if "rawQueryString" in event:
                query = event["rawQueryString"]
            else:
                query = urlencode(event["multiValueQueryStringParameters"] or {}, doseq=True)
            text = event["body"] or ""
            body = b64decode(text) if event["isBase64Encoded"] else text.encode()
            headers = {"content-type": "application/json", "cache-control": "public, max-age=60"}
            content = describe_request(access_token_or_none(), query.encode(), body).decode()
            return {"statusCode": 200, "headers": headers, "body": content}

        return lambda exchange: send_event(handler, shape, exchange)

    return open_door


def _copy_of(view: Any) -> Any:
    return types.FunctionType(view.__code__, view.__globals__, view.__name__, closure=view.__closure__)


def _litestar(guard: Guard) -> Send:
    methods = [HttpMethod.GET, HttpMethod.POST, HttpMethod.HEAD]

    def handler(path: str, **declared: Any) -> Any:
        async def answer(request: LitestarRequest[Any, Any, Any]) -> LitestarResponse[bytes]:
            assert litestar_access_token_or_none() is request.scope["state"]["access_token"]
            assert request.user is request.auth
            content = describe_request(
                litestar_access_token_or_none(), request.scope["query_string"], await request.body()
            )
            headers = {"Cache-Control": "public, max-age=60"}
            return LitestarResponse(
                b"" if request.method == "HEAD" else content,
                media_type="application/json",
                headers=headers,
                status_code=200,
            )

        return route(path, http_method=methods, **declared)(answer)

    handlers = [handler(path, guards=[litestar_requires(requirement)]) for path, requirement in SCOPED.items()]
    handlers += [handler(path) for path in (*SOURCES, "/none")]
    handlers += [handler("/optional", scopeguard="optional"), handler("/public", opt={"scopeguard": "public"})]
    app = Litestar(handlers, openapi_config=None, logging_config=None)
    places = [Rule(path, token_sources=sources) for path, sources in SOURCES.items()]
    LitestarScopeGuard(app, guard, rules=[*places, *(_proof_rules(guard) or [Rule("/none")])])
    return call_in_loop("asyncio", call_asgi, app)


def _quart(guard: Guard) -> Send:
    app = quart.Quart(__name__, static_folder=None)
    QuartScopeGuard(app, guard, rules=_proof_rules(guard))

    async def view() -> Any:
        body: Any = await quart.request.get_data()
        answer = describe_request(quart_access_token_or_none(), quart.request.query_string, body)
        return answer, {"Cache-Control": "public, max-age=60"}

    views: dict[str, Any] = {path: quart_requires(requirement)(view) for path, requirement in SCOPED.items()}
    views |= {path: quart_requires(AUTHENTICATED, token_sources=sources)(view) for path, sources in SOURCES.items()}
    views |= {"/none": view, "/optional": quart_optional(_copy_of(view)), "/public": quart_public(_copy_of(view))}
    for path, guarded in views.items():
        app.add_url_rule(path, path, guarded, methods=METHODS)
    return call_in_loop("asyncio", call_asgi, app)


# Without the middleware, routing answers what no route does.
LEFT_TO_ROUTING = (
    "an unknown path without a token",
    "an unknown method without a token",
    "OPTIONS without a token",
    "behind the public path",
    "below the public path",
    "dots out of the public path",
)
FRAMEWORK_DOORS: tuple[Door, ...] = (
    Door("starlette-asyncio", _starlette("asyncio"), knows_route=False),
    Door("starlette-trio", _starlette("trio"), knows_route=False),
    Door(
        "fastapi-asyncio",
        _fastapi("asyncio", behind_middleware=False),
        without=dict.fromkeys(LEFT_TO_ROUTING, "a dependency guards the routes that name it"),
    ),
    Door("fastapi-behind-middleware", _fastapi("trio", behind_middleware=True), knows_route=False),
    Door("flask", _flask),
    Door("django-wsgi", _django(asynchronous=False)),
    Door("django-asgi", _django(asynchronous=True)),
    Door("aiohttp", _aiohttp),
    Door("falcon-wsgi", _falcon(asynchronous=False)),
    Door("falcon-asgi", _falcon(asynchronous=True)),
    Door("lambda-rest-api", _lambda(rest_api)),
    Door("lambda-http-api", _lambda(http_api)),
    Door("lambda-load-balancer", _lambda(load_balancer)),
    Door("litestar", _litestar),
    Door("quart", _quart),
)
