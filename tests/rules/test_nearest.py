"""The rule that the log names for a request that no rule allows."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard import Guard, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.request import HeaderList, RequestView
from scopeguard.rules import DENIED
from scopeguard.rules.nearest import describe_nearest
from scopeguard.testing import FakeAuthority

RULES = Rules(
    [
        Rule("/rows", all_of("read"), ["GET"]),
        Rule("/rows/{id}", all_of("read"), ["GET", "POST"]),
        Rule("/tables/{table}/rows/{row}"),
        Rule("/files/{rest:path}"),
        Rule("/internal/{rest:path}", DENIED),
        Rule("/items/"),
    ]
)
METHOD, SLASH = {"differs": "the method"}, {"differs": "the final slash"}


@pytest.mark.parametrize(
    ("method", "path", "nearest", "differs"),
    [
        ("POST", "/rows", "GET /rows", METHOD),
        ("DELETE", "/rows/7", "GET,POST /rows/{id}", METHOD),
        ("GET", "/rows/", "GET /rows", SLASH),
        ("GET", "/items", "* /items/", SLASH),
        ("GET", "/rows/5/", "GET,POST /rows/{id}", {}),
        ("GET", "/row", "GET /rows", {}),
        ("GET", "/rosw", "GET /rows", {}),
        ("GET", "/Rows", "GET /rows", {}),
        ("GET", "/file/a", "* /files/{rest:path}", {}),
        ("GET", "/api/rows", "GET /rows", {}),
        ("GET", "/v1/tables/5/rows/3", "* /tables/{table}/rows/{row}", {}),
        ("GET", "/tables/5/row/3", "* /tables/{table}/rows/{row}", {}),
    ],
)
def test_nearest_rule(method: str, path: str, nearest: str, differs: dict[str, str]):
    assert describe_nearest([RULES], method, path) == {"nearest": nearest, **differs}


@pytest.mark.parametrize("path", ["/", "/other", "/other/5", "/rows/1/2/3", "/.git/config", "/" + "a/" * 9000, "*", ""])
def test_nothing_is_near(path: str):
    assert describe_nearest([RULES], "GET", path) == {}
    assert describe_nearest([], "GET", path) == {}


def test_rule_that_denies_is_named():
    assert describe_nearest([RULES], "GET", "/internal/x") == {"denied_by": "* /internal/{rest:path}"}


@given(st.text(max_size=300), st.sampled_from(["GET", "get", "", "\u0130"]))
def test_any_path_is_compared_without_an_exception(path: str, method: str):
    assert set(describe_nearest([RULES], method, "/" + path)) <= {"nearest", "differs", "denied_by"}


def test_line_names_the_rule_and_the_client_does_not_see_it(caplog: pytest.LogCaptureFixture):
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    GuardMiddleware(app, guard=guard, rules=RULES)
    token = authority.mint("read").encode()
    view = RequestView(method="POST", path="/rows", headers=HeaderList([(b"authorization", b"Bearer " + token)]))
    with caplog.at_level(logging.WARNING):
        decision = guard.check(view, closed=True)
    assert "no_rule (nearest=GET /rows, differs=the method)" in caplog.text
    answer = getattr(decision, "response", None)
    assert answer is not None
    assert (answer.status, b"/rows" in answer.body) == (403, False)
