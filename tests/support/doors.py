"""The API of the scenarios behind every door that runs in this process.

A door is a way for a request to reach a guard: a method of the guard, a middleware or an adapter.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import anyio

from kept import keep
from scenarios import REALM, Answered, Exchange, Scenario, tokens, verify
from scopeguard import (
    AUTHENTICATED,
    OPTIONAL,
    AccessToken,
    ChallengeStyle,
    Granted,
    Guard,
    HeaderList,
    MissingCredentials,
    Reason,
    RequestView,
    Requirement,
    Rule,
    Rules,
    access_token_or_none,
    all_of,
    any_of,
    asgi,
    wsgi,
)
from scopeguard.adapter.asgi_messages import FormBody
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority

BOTH = all_of("read", "write")
ANY = any_of("admin", all_of("read", "write"))
GOLD = all_of("read", acr="gold", max_age=300)
EVERYWHERE = ("header", "query", "form")


def guard_for(authority: FakeAuthority, **settings: Any) -> Guard:
    """The guard of the scenarios' API."""
    return Guard(
        authority.issuer,
        challenge=ChallengeStyle(realm=REALM),
        transport=authority.transport,
        clock=authority.clock,
        **settings,
    )


def rules(guard: Guard | None = None, *, with_scopes: bool = True) -> Rules:
    """The routes of the API as rules; without scopes where a decorator or a dependency asks for them.

    If *guard* checks proofs of possession, ``/bound`` requires one.
    """
    routes = [
        Rule("/both", BOTH) if with_scopes else Rule("/both"),
        Rule("/any", ANY) if with_scopes else Rule("/any"),
        Rule("/gold", GOLD) if with_scopes else Rule("/gold"),
        Rule("/none"),
        Rule("/query", token_sources=("header", "query")),
        Rule("/form", token_sources=("header", "form")),
        Rule("/both-places", token_sources=EVERYWHERE),
        Rule("/optional", OPTIONAL),
    ]
    if guard is not None and engine_of(guard).checks_proofs:
        routes.append(Rule("/bound", BOTH if with_scopes else AUTHENTICATED, dpop="required"))
    return Rules(routes, public=["/public"])


def describe_request(token: AccessToken | None, query: bytes, body: bytes) -> bytes:
    """The response of the app behind the guard, which describes the request."""
    return json.dumps(
        {
            "client": token.client_id if token else None,
            "scopes": sorted(token.scopes) if token else None,
            "query": query.decode("latin-1"),
            "body": body.decode("latin-1"),
        }
    ).encode()


# ASGI


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The API as a plain ASGI app."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    assert access_token_or_none() is scope["state"]["access_token"]
    content = describe_request(scope["state"]["access_token"], scope["query_string"], body)
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=60")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


async def call_asgi(app: Any, exchange: Exchange) -> Answered:
    """Send *exchange* to *app* in two body messages, as a server would."""
    path, _, query = exchange.target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": exchange.method,
        "scheme": exchange.scheme,
        "path": unquote_to_bytes(path).decode(),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"api.test"), *exchange.headers],
        "client": ("192.0.2.1", 50000),
        "server": ("api.test", 443),
        "state": {},
    }
    half = len(exchange.body) // 2
    waiting: list[dict[str, Any]] = [
        {"type": "http.request", "body": exchange.body[:half], "more_body": True},
        {"type": "http.request", "body": exchange.body[half:], "more_body": False},
    ]
    sent: list[Any] = []
    complete = anyio.Event()

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        # The ASGI specification promises this message to an app that receives after its response. Quart waits for it.
        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            complete.set()

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, sent  # exactly one response
    headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in starts[0]["headers"])
    content = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return Answered(status=starts[0]["status"], headers=headers, body=content)


# WSGI


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The API as a plain WSGI app."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    assert access_token_or_none() is environ.get("scopeguard.access_token")
    content = describe_request(environ.get("scopeguard.access_token"), environ["QUERY_STRING"].encode("latin-1"), body)
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "public, max-age=60")])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else content]


def call_wsgi(app: Any, exchange: Exchange) -> Answered:
    """Send *exchange* to *app* as PEP 3333 has it: repeated headers joined by a comma."""
    path, _, query = exchange.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": exchange.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "api.test",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "api.test",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": exchange.scheme,
        "wsgi.input": io.BytesIO(exchange.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if exchange.body:
        environ["CONTENT_LENGTH"] = str(len(exchange.body))
    for name, value in exchange.headers:
        key = name.decode().upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    result = app(environ, start_response)
    content = b"".join(result)
    if hasattr(result, "close"):
        result.close()
    assert len(started) == 1, started
    status, headers = started[0]
    return Answered(status=int(status.split()[0]), headers=tuple((k.lower(), v) for k, v in headers), body=content)


# The guard itself


def _rule_of(guard: Guard, exchange: Exchange) -> tuple[RequestView, Rule | None]:
    path, _, query = exchange.target.partition("?")
    view = RequestView(method=exchange.method, path=path, headers=HeaderList(exchange.headers), query=query.encode())
    return view, rules(guard).find(view.method, view.path)


def _answer(decision: Any, rule: Rule | None) -> Answered:
    match decision:
        case Granted():
            return Answered(status=200, headers=(), body=b"{}")
        case _ if (
            rule is not None
            and rule.access is OPTIONAL
            and isinstance(decision.error, MissingCredentials)
            and decision.error.reason is Reason.NO_CREDENTIALS
        ):
            return Answered(status=200, headers=(), body=b"{}")
        case _:
            response = decision.response
            return Answered(status=response.status, headers=response.headers, body=response.body)


def call_check(guard: Guard, exchange: Exchange) -> Answered:
    """Ask the guard in this thread, as an adapter would."""
    view, rule = _rule_of(guard, exchange)
    if rule is not None and rule.path == "/public":
        return Answered(status=200, headers=(), body=b"{}")
    requirement = rule.access if rule is not None and isinstance(rule.access, Requirement) else None
    sources = guard.sources if rule is None or rule.sources is None else guard.sources.with_methods(rule.sources)

    def read_form(limit: int) -> bytes:
        return wsgi.read_form(
            {"wsgi.input": io.BytesIO(exchange.body), "CONTENT_LENGTH": str(len(exchange.body))}, limit
        )

    mode = None if rule is None else rule.mode
    decision = engine_of(guard).check(view, requirement, sources=sources, read_form=read_form, dpop=mode)
    return _answer(decision, rule)


async def call_acheck(guard: Guard, exchange: Exchange) -> Answered:
    """Ask the guard in this task."""
    view, rule = _rule_of(guard, exchange)
    if rule is not None and rule.path == "/public":
        return Answered(status=200, headers=(), body=b"{}")
    requirement = rule.access if rule is not None and isinstance(rule.access, Requirement) else None
    sources = guard.sources if rule is None or rule.sources is None else guard.sources.with_methods(rule.sources)
    scope = {"headers": list(exchange.headers)}
    messages = iter([{"type": "http.request", "body": exchange.body, "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    body = FormBody(scope, receive, sources)
    mode = None if rule is None else rule.mode
    decision = await engine_of(guard).acheck(view, requirement, sources=sources, read_form=body.read, dpop=mode)
    return _answer(decision, rule)


@dataclass(frozen=True, slots=True)
class Door:
    """A way to reach a guard. *opened* builds it around one and returns a function that sends an exchange."""

    name: str
    opened: Callable[[Guard], Callable[[Exchange], Answered]]
    knows_route: bool = True
    saw: bool = True
    # Scenarios that this door cannot have, each with its reason.
    without: dict[str, str] = field(default_factory=dict)


def call_in_loop(
    backend: str, call: Callable[[Any, Exchange], Coroutine[Any, Any, Answered]], target: Any
) -> Callable[[Exchange], Answered]:
    """Return a function that passes *target* and an exchange to *call*, in an event loop of *backend*.

    With asyncio it is the same loop until the last test of the file has ended. With trio it is a new one each time.
    """
    runner = keep(asyncio.Runner()) if backend == "asyncio" else None

    def send(exchange: Exchange) -> Answered:
        if runner is None:
            return anyio.run(partial(call, target, exchange), backend=backend)
        return runner.run(call(target, exchange))

    return send


def _open_blocking(guard: Guard) -> Callable[[Exchange], Answered]:
    return partial(call_check, guard)


def _open_async(backend: str) -> Callable[[Guard], Callable[[Exchange], Answered]]:
    return lambda guard: call_in_loop(backend, call_acheck, guard)


def _asgi(backend: str) -> Callable[[Guard], Callable[[Exchange], Answered]]:
    return lambda guard: call_in_loop(
        backend, call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard, rules=rules(guard))
    )


def _wsgi(guard: Guard) -> Callable[[Exchange], Answered]:
    return partial(call_wsgi, wsgi.GuardMiddleware(wsgi_app, guard=guard, rules=rules(guard)))


DOORS: tuple[Door, ...] = (
    Door("blocking", _open_blocking, saw=False),
    Door("asyncio", _open_async("asyncio"), saw=False),
    Door("trio", _open_async("trio"), saw=False),
    Door("asgi-asyncio", _asgi("asyncio")),
    Door("asgi-trio", _asgi("trio")),
    Door("wsgi", _wsgi),
)


class Api:
    """The API behind one door, with the tokens its scenarios name. *remembers*: whether its guard has a token cache."""

    def __init__(self, door: Door, *, remembers: bool) -> None:
        self.door = door
        self.remembers = remembers
        self.authority = FakeAuthority()
        self.guard = guard_for(self.authority) if remembers else guard_for(self.authority, token_cache="off")
        self.send = door.opened(self.guard)
        self.tokens = tokens(self.authority)

    def run(self, scenario: Scenario) -> None:
        """*scenario* with a token that was never seen; then with one that is remembered: the answers are equal."""
        if scenario.name in self.door.without:
            return
        exchange = scenario.send.fill(self.tokens)
        cache = engine_of(self.guard).context.token_cache
        if cache is not None:
            cache.clear()
        answer = self.send(exchange)
        verify(scenario, answer, self.tokens, knows_route=self.door.knows_route, saw=self.door.saw)
        if self.remembers:
            for name in ("T", "READ"):
                known = Exchange(target="/none", headers=((b"authorization", b"Bearer " + self.tokens[name].encode()),))
                assert self.send(known).status == 200
            assert self.send(exchange) == answer


CACHES = {"cache-on": True, "cache-off": False}


def apis(doors: Iterable[Door]) -> dict[str, tuple[Door, bool]]:
    """Every door with a token cache and without, by name."""
    return {f"{door.name}-{cache}": (door, remembers) for door in doors for cache, remembers in CACHES.items()}
