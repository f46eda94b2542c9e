"""Differences between a contract and an app, in both directions."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Security

from scopeguard import AUTHENTICATED, AccessToken, ConfigurationError, Guard, Rule, Rules, all_of, any_of
from scopeguard.contracts import Difference, DifferenceKind, compare, openapi
from scopeguard.fastapi import Protected
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC
from scopeguard.testing import FakeAuthority


def summarise(*differences: Difference) -> set[tuple[str, str, str]]:
    return {(each.kind.value, each.method, each.path) for each in differences}


RULES = (
    Rule("/a/{id}", any_of("read", "write"), ["GET"]),
    Rule("/a/{id}", all_of("write"), ["DELETE"]),
    Rule("/b", PUBLIC, ["GET", "POST"]),
)


def test_equivalent_rules_do_not_differ():
    other = Rules(
        [
            Rule("/a/{name}", any_of("write", "read"), ["GET"], source="elsewhere"),
            Rule("/a/{name}", all_of("write"), ["DELETE"]),
            Rule("/b", PUBLIC, ["GET"]),
            Rule("/b", PUBLIC, ["POST"]),
        ]
    )
    assert compare(RULES, other) == compare(other, RULES) == compare(RULES, RULES) == ()


def test_missing_extra_and_different_operations_are_listed_once():
    other = (
        Rule("/a/{id}", all_of("read"), ["GET"]),
        Rule("/b", PUBLIC, ["GET"]),
        Rule("/c/{rest:path}", AUTHENTICATED, ["GET"]),
        Rule("/d/{all:segments}:x", OPTIONAL, ["PUT"]),
        Rule("/b", DENIED, ["DELETE"]),
    )
    found = compare(RULES, other)
    assert summarise(*found) == {
        ("different", "GET", "/a/{id}"),
        ("missing", "DELETE", "/a/{id}"),
        ("missing", "POST", "/b"),
        ("extra", "GET", "/c/{rest:path}"),
        ("extra", "PUT", "/d/{all:segments}:x"),
    }
    assert [str(each) for each in found][:3] == [
        "different: GET /a/{id}: read or write is expected, read is found",
        "missing: DELETE /a/{id}: write is expected, denied is found",
        "missing: POST /b: public is expected, denied is found",
    ]
    (extra, _) = [each for each in found if each.kind is DifferenceKind.EXTRA]
    assert str(extra) == "extra: GET /c/{rest:path}: denied is expected, any valid token is found"


def test_a_rule_for_all_methods_is_compared_method_by_method():
    found = compare([Rule("/a", all_of("x"), ["GET"])], [Rule("/a", all_of("x"))])
    assert {each.kind for each in found} == {DifferenceKind.EXTRA}
    assert {"POST", "DELETE", "HEAD"} <= {each.method for each in found} | {"HEAD"}
    assert "GET" not in {each.method for each in found}


AUTHORITY = FakeAuthority()
PROTECTED = Protected(Guard(AUTHORITY.issuer), token_url="https://as.test/token", scopes={"read": "", "write": ""})
Writer = Annotated[AccessToken, Security(PROTECTED, scopes=["read", "write"])]
Reader = Annotated[AccessToken, Security(PROTECTED, scopes=["read"])]
Either = Annotated[AccessToken, Security(PROTECTED.requires(any_of("read", "write")))]


async def insert(table: str, token: Writer) -> None: ...


async def careless_insert(table: str, token: Reader) -> None: ...


async def tables(token: Either) -> None: ...


async def forgotten() -> None: ...


def app(*, drift: bool) -> FastAPI:
    api = FastAPI()
    api.get("/tables")(tables)
    api.post("/tables/{table}")(careless_insert if drift else insert)
    if drift:
        api.get("/forgotten")(forgotten)
    return api


def test_document_of_a_fastapi_app_is_enforced_like_its_dependencies():
    rules = Rules(openapi(app(drift=False).openapi()).rules)
    found = [rules.find("POST", "/tables/x"), rules.find("GET", "/tables")]
    assert [rule and rule.access for rule in found] == [all_of("read", "write"), any_of("read", "write")]
    assert rules.find("GET", "/docs") is None


def test_deviations_of_an_app_from_its_contract_are_found():
    contract = openapi(app(drift=False).openapi())
    assert compare(contract, app(drift=False)) == ()
    assert compare(contract, app(drift=False).openapi()) == ()
    found = compare(contract, app(drift=True))
    assert summarise(*found) == {("different", "POST", "/tables/{table}"), ("extra", "GET", "/forgotten")}
    assert "denied is expected, public is found" in str(found[1])


@pytest.mark.parametrize("nothing", [7, object(), None])
def test_object_that_describes_no_api_is_refused(nothing: Any):
    with pytest.raises(ConfigurationError, match="describes no API"):
        compare(RULES, nothing)
