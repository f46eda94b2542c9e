"""Apps decode a path at different times; if that makes a difference, no rule matches."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import Guard, Issuer
from scopeguard.asgi import GuardMiddleware as GuardASGI
from scopeguard.flask import ScopeGuard
from scopeguard.rules import PUBLIC, Rule, Rules
from scopeguard.scopes import all_of
from scopeguard.wsgi import GuardMiddleware as GuardWSGI

RULES = Rules(
    [
        Rule("/admin/{x}", all_of("admin")),
        Rule("/static/{x}", PUBLIC),
        Rule("/{t}:open", PUBLIC),
        Rule("/caf\u00e9 {x}", PUBLIC),
        Rule("/o/{name:segments}", all_of("read")),
        Rule("/f/{x}", all_of("file")),
        Rule("/{db}/{table}", all_of("read")),
        Rule("/{rest:path}", PUBLIC),
    ]
)


@pytest.mark.rule("H-06", "X-74")
@pytest.mark.parametrize(
    ("path", "sent", "expected"),
    [
        # unambiguous paths
        ("/admin/x", b"/admin/x", "/admin/{x}"),
        ("/admin/x y", b"/admin/x%20y", "/admin/{x}"),
        ("/admin/\u00e9", "/admin/\u00e9".encode(), "/admin/{x}"),
        ("/admin/\u00e9", b"/admin/%C3%A9", "/admin/{x}"),
        ("/admin/\u00e9", b"/admin/%c3%a9", "/admin/{x}"),
        ("/caf\u00e9 x", b"/caf%C3%A9%20x", "/caf\u00e9 {x}"),
        ("/admin/a:b", b"/admin/a%3Ab", "/admin/{x}"),
        ("/admin/a.b", b"/admin/a%2Eb", "/admin/{x}"),
        ("/admin/~a", b"/admin/%7Ea", "/admin/{x}"),
        ("/admin/5%", b"/admin/5%25", "/admin/{x}"),
        ("/admin/%zz", b"/admin/%zz", "/admin/{x}"),
        ("/admin/a%20b", b"/admin/a%2520b", "/admin/{x}"),
        ("/o/a/b", b"/o/a%2Fb", "/o/{name:segments}"),
        # an encoded slash, for routers that split before or after decoding
        ("/admin/x", b"/admin%2Fx", None),
        ("/admin/x", b"/admin%2fx", None),
        ("/a/b/c", b"/a/b%2Fc", None),
        ("/static/a/b", b"/static/a%2Fb", None),
        ("/static/x", b"%2Fstatic/x", None),
        # letters that needed no encoding, for routers that do not decode before routing
        ("/static/x", b"/%73tatic/x", None),
        ("/x:open", b"/x%3Aopen", None),
        ("/x:open", b"/x:open", "/{t}:open"),
        ("/admin/x", b"/%61dmin/x", None),
        # decoded twice
        ("/f/a%2Fb", b"/f/a%252Fb", None),
        ("/%66/x", b"/%2566/x", None),
        ("/%66/x", None, None),
        ("/f/%2e%2e/x", None, None),
        ("/f/%252e%252e", None, None),
        ("/f/%ff", None, None),
        ("/f/a%20b", None, "/f/{x}"),
        ("/admin\\x", b"/admin%5Cx", None),
        ("/admin/x\x00", b"/admin/x%00", None),
        ("/admin/../f/x", b"/admin/%2e%2e/f/x", None),
        # parts that servers add
        ("/admin/x", b"/admin/x?a=/%2F", "/admin/{x}"),
        ("/admin/x y", b"/admin/x%20y?a=%2F", "/admin/{x}"),
        ("/o/a/b", b"/o/a%2Fb?a=b", "/o/{name:segments}"),
        ("/admin/x", b"/mount/admin/x", "/admin/{x}"),
        ("/admin/x:y", b"/mo%75nt/admin/x%3Ay", "/admin/{x}"),
        ("/static/x", b"/mount/%73tatic/x", None),
        ("/static/x", b"/mount%2Fstatic/x", None),
        ("/admin/x:y", b"https://api.test/admin/x%3Ay", "/admin/{x}"),
        ("/admin/x:y", b"https://api.test%2f/admin/x%3Ay?b", "/admin/{x}"),
        ("/f/x", b"http://f/x", "/f/{x}"),
        ("/f/%41", b"http://f/%41", None),
        # rewritten paths: the path that the app sees counts unless it is ambiguous
        ("/admin/x", b"/old", "/admin/{x}"),
        ("/admin/x", b"", "/admin/{x}"),
        ("/admin/x", b"/old%20one", "/admin/{x}"),
        ("/admin/x", b"/%6Fld", None),
        ("/admin/x", b"/static/../admin/x/", None),
        ("/static/x", b"/admin/../static/x", None),
        ("/static/x", b"//static/x", None),
        ("/static/x", b"/admin/%2e%2e/static/x", None),
        ("/static/x", b"/admin%5cstatic/x", None),
        ("/static/x", b"/admin\\static/x", None),
    ],
    ids=ascii,
)
def test_rule_matches_only_if_each_reading_of_the_path_does(path: str, sent: bytes | None, expected: str | None):
    found = RULES.find("GET", path, sent)
    assert (None if found is None else found.path) == expected


def test_literal_paths_are_matched_against_the_raw_path_too():
    rules = Rules([Rule("/health", PUBLIC), Rule("/{x}", all_of("read"))])
    assert rules.find("GET", "/health", b"/health") is rules.all[0]
    assert rules.find("GET", "/health", b"/health?x") is rules.all[0]
    assert rules.find("GET", "/health", b"/he%61lth") is None


# -- raw paths from the adapters

GUARD = Guard(Issuer("https://as.test", audience="https://api.test"))


@pytest.mark.anyio
@pytest.mark.rule("H-06")
@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({}, 200),
        ({"raw_path": None}, 200),
        ({"raw_path": b"/static/x"}, 200),
        ({"raw_path": b"/static/x?a=%2F"}, 200),
        ({"raw_path": b"/static%2Fx"}, 401),
        ({"path": "/api/static/x", "root_path": "/api", "raw_path": b"/api/static/x"}, 200),
        ({"path": "/api/static/x", "root_path": "/api", "raw_path": b"/static/x"}, 200),
        ({"path": "/api/static/x", "root_path": "/api", "raw_path": b"/api/static%2Fx"}, 401),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_asgi_apps_are_guarded_by_the_raw_path(kind: str, members: dict[str, Any], status: int):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    scope = {
        "type": kind, "method": "GET", "path": "/static/x", "headers": [], "query_string": b"",
        "extensions": {"websocket.http.response": {}}, **members,
    }  # fmt: skip
    await GuardASGI(app, guard=GUARD, rules=RULES)(scope, receive, send)
    assert sent[0]["status"] == status


WSGI_CASES: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    ({"RAW_URI": "/static/x?a=%2F"}, 200),
    ({"RAW_URI": "/static%2Fx"}, 401),
    ({"REQUEST_URI": "/static%2Fx"}, 401),
    ({"REQUEST_URI": "http://api.test/static/x"}, 200),
    ({"REQUEST_URI": "http://api.test/%73tatic/x"}, 401),
    ({"SCRIPT_NAME": "/api", "REQUEST_URI": "/api/static/x"}, 200),
    ({"SCRIPT_NAME": "/api", "REQUEST_URI": "/api/%73tatic/x"}, 401),
    ({"SCRIPT_NAME": "/api", "REQUEST_URI": "/api%2Fstatic/x"}, 401),
]


@pytest.mark.rule("H-06")
@pytest.mark.parametrize(("members", "status"), WSGI_CASES, ids=ascii)
def test_wsgi_apps_are_guarded_by_the_raw_path(members: dict[str, str], status: int):
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    statuses: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/static/x", **members}
    GuardWSGI(app, guard=GUARD, rules=RULES)(environ, lambda answer, headers: statuses.append(answer))
    assert int(statuses[0].split()[0]) == status


@pytest.mark.rule("H-06")
@pytest.mark.parametrize(("members", "status"), WSGI_CASES, ids=ascii)
def test_flask_apps_are_guarded_by_the_raw_path(members: dict[str, str], status: int):
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__, static_folder=None)
    app.add_url_rule("/static/<x>", view_func=lambda x: x)
    ScopeGuard(app, GUARD, rules=RULES)
    given = {"RAW_URI": "", "REQUEST_URI": "", **members}
    assert app.test_client().get("/static/x", environ_overrides=given).status_code == status
