"""Google discovery documents become rules. The real documents are in test_published_google.py."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import (
    AUTHENTICATED,
    ChallengeStyle,
    ConfigurationError,
    ErrorBody,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    RequestView,
    Requirement,
    Rule,
    Rules,
    all_of,
    any_of,
)
from scopeguard.contracts import google_discovery
from scopeguard.rules import DENIED, PUBLIC
from scopeguard.testing import FakeAuthority

BASE = "https://www.googleapis.com/auth/"
READ, WRITE = BASE + "shop.readonly", BASE + "shop"


def method(path: str, *scopes: str, verb: str = "GET", pattern: str | None = None, **members: Any) -> dict[str, Any]:
    found = {"id": f"shop.{path}", "path": path, "httpMethod": verb, "scopes": list(scopes or (READ,)), **members}
    return found if pattern is None else {**found, "parameters": {"name": {"pattern": pattern, "location": "path"}}}


def document(*methods: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "kind": "discovery#restDescription",
        "id": "shop:v1",
        "servicePath": "shop/v1/",
        "batchPath": "batch/shop/v1",
        "auth": {"oauth2": {"scopes": {READ: {"description": "Look"}, WRITE: {"description": "Change"}}}},
        "methods": {str(number): each for number, each in enumerate(methods)},
        **members,
    }


def paths(*methods: dict[str, Any], **settings: Any) -> set[tuple[str, str]]:
    """Return the method and the path of each rule except that of the batch path."""
    rules = google_discovery(document(*methods), **settings).rules
    return {(min(rule.methods or ()), rule.path) for rule in rules if rule.access is not DENIED}


def test_scopes_are_alternatives_and_resources_may_hold_resources():
    inner = {"resources": {"b": {"methods": {"x": method("b/{id}", READ, WRITE, verb="delete")}}}}
    contract = google_discovery(document(method("a"), resources={"a": inner}))
    rules = Rules(contract.rules)
    found = rules.find("DELETE", "/shop/v1/b/7")
    assert found is not None
    assert found.access == any_of(READ, WRITE)
    assert found.source == "shop:v1: DELETE /shop/v1/b/{id} (shop.b/{id})"
    assert rules.find("HEAD", "/shop/v1/a") is not None
    assert rules.find("GET", "/a") is None
    assert (contract.name, contract.catalog.prefix) == ("shop:v1", BASE)


def test_batch_path_is_denied_for_any_token():
    rules = google_discovery(document(method("a"))).rules
    batch = ("/batch/shop/v1", {"POST"}, DENIED)
    described = ("/shop/v1/a", {"GET", "HEAD"}, any_of(READ))
    assert [(rule.path, rule.methods, rule.access) for rule in rules] == [batch, described]


def test_document_without_methods_is_refused():
    for empty in (document(), document(methods={}), document(resources={"a": {"resources": {}}})):
        with pytest.raises(ConfigurationError, match="shop:v1: describes no operation"):
            google_discovery(empty, undeclared="deny")


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("{+name}", r"^projects/[^/]+$", "/shop/v1/projects/{name_2}"),
        ("{+name}:run", r"^projects/[^/]+/jobs/[^/]+$", "/shop/v1/projects/{name_2}/jobs/{name_4}:run"),
        ("{+name}/items", r"^projects/[^/]+/global$", "/shop/v1/projects/{name_2}/global/items"),
        ("{+name}", r"^operations/.*$", "/shop/v1/operations/{name_2:segments}"),
        ("{+name}:cancel", r"^operations/.*$", "/shop/v1/operations/{name_2:segments}:cancel"),
        ("{+name}", r"folders/[0-9]{0,20}", "/shop/v1/folders/{name_2}"),
        ("{+name}/x", r"a/([a-z](?:[-a-z0-9]{0,61}[a-z0-9])?|[1-9][0-9]{0,19})", "/shop/v1/a/{name_2}/x"),
        ("{+name}/x", r"[a-z](?:[-a-zA-Z0-9/]{0,255}[a-zA-Z0-9])?", "/shop/v1/{name_1:segments}/x"),
        ("{+name}", r"^(a/b|c)/[^/]+$", "/shop/v1/{name_1:segments}/{name_2}"),
        ("{+name}", r"^a\/b/[^x]+$", "/shop/v1/{name_1:segments}/{name_2:segments}"),
        ("{+name}", r"^a/\S+$", "/shop/v1/a/{name_2:segments}"),
        ("{+name}", None, "/shop/v1/{name:segments}"),
        ("{name}", r"^operations/.*$", "/shop/v1/{name}"),
        ("v1/{+name}/$export", r"^a/[^/]+$", "/shop/v1/v1/a/{name_2}/$export"),
        ("a/{user-id}", None, "/shop/v1/a/{user_id}"),
    ],
)
def test_a_reserved_parameter_has_the_segments_of_its_pattern(path: str, pattern: str | None, expected: str):
    assert paths(method(path, pattern=pattern)) == {("GET", expected)}


def test_parameters_of_the_whole_api_have_patterns_too():
    given = document(method("{+name}"), parameters={"name": {"pattern": "^a/[^/]+$"}})
    assert "/shop/v1/a/{name_2}" in [rule.path for rule in google_discovery(given).rules]


def test_uploads_and_downloads_take_the_scopes_of_their_method():
    protocols = {
        "simple": {"path": "/upload/shop/v1/a/{+name}"},
        "resumable": {"path": "/resumable/upload/shop/v1/a/{+name}"},
    }
    given = method("a/{+name}", verb="POST", pattern="^[^/]+$", mediaUpload={"protocols": protocols})
    for settings, base in (({}, "/shop/v1"), ({"base_path": "/own"}, "/own"), ({"base_path": ""}, "")):
        assert paths(given, **settings) == {
            ("POST", f"{base}/a/{{name_1}}"),
            *((verb, f"/upload{base}/a/{{name_1}}") for verb in ("POST", "PUT", "DELETE")),
            *((verb, f"/resumable/upload{base}/a/{{name_1}}") for verb in ("POST", "PUT", "DELETE")),
        }
    assert paths(method("b/{id}", useMediaDownloadService=True)) == {
        ("GET", "/shop/v1/b/{id}"),
        ("GET", "/download/shop/v1/b/{id}"),
    }


def test_uploads_of_an_api_without_a_service_path_have_their_prefix():
    given = method("v1/a", verb="POST", mediaUpload={"protocols": {"simple": {"path": "/upload/v1/a"}}})
    rules = google_discovery(document(given, servicePath=""), base_path="/own").rules
    assert {rule.path for rule in rules} == {"/own/v1/a", "/upload/own/v1/a", "/batch/shop/v1"}


def test_methods_without_scopes_are_an_error_unless_configured():
    given = document(method("a", scopes=[]))
    with pytest.raises(ConfigurationError, match=r"shop:v1: shop.a: the document declares no security for it"):
        google_discovery(given)
    for word, expected in (("public", PUBLIC), ("authenticated", AUTHENTICATED), ("deny", DENIED)):
        assert expected in [rule.access for rule in google_discovery(given, undeclared=word).rules]


def test_verbs_and_concrete_paths_precede_more_general_rules():
    given = document(
        method("{+name}", READ, pattern="^a/[^/]+$"),
        method("{+name}:run", WRITE, pattern="^a/.*$"),
        method("a/default", WRITE),
        method("{+name}", BASE + "rest"),
        method("a/b/{id}", READ),
    )
    rules = Rules(google_discovery(given).rules)
    expected = {
        "a/x": all_of(READ),
        "a/default": all_of(WRITE),
        "a/x:run": all_of(WRITE),
        "a/c/x:run": all_of(WRITE),
        "a/c/d/x:run": all_of(WRITE),
        "b/c/d": all_of(BASE + "rest"),
        "a/c": all_of(READ),
        "a/b/x": all_of(READ),
        # An id with a colon, or a verb after two segments: a router may choose either.
        "a/b/x:run": all_of(READ, WRITE),
    }
    found = {path: rules.find("GET", f"/shop/v1/{path}") for path in expected}
    assert {path: rule and rule.access for path, rule in found.items()} == expected


def test_templates_that_overlap_at_each_length_are_refused():
    given = document(
        method("{+name}:run", WRITE),
        method("a/{+name}", READ),
    )
    with pytest.raises(ConfigurationError, match=r"match the same texts, and neither is more concrete"):
        google_discovery(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "discovery#directoryList"}, "must be a discovery document"),
        ({"openapi": "3.1.0"}, "must be a discovery document"),
        (document({"id": "x", "path": "a"}), "shop:v1: x: needs a path and an httpMethod"),
        (document(method("a", scopes="x")), "shop:v1: shop.a: scopes: must be a list of strings"),
        (document(method("a", "x y")), "shop:v1: shop.a: scopes"),
        (document(method("a/*")), "wildcards are not supported"),
        (document(method("a", verb="GTE")), "shop:v1: shop.a: GTE is not an HTTP method"),
        (document(method("a", verb="")), "shop:v1: shop.a:  is not an HTTP method"),
        (document(method("a", scope=["x"])), "shop:v1: shop.a: scope is not a member of this object"),
        (document(method("a"), resource={}), "the document: resource is not a member of this object"),
        (document(method("a"), resources={"b": {"method": {}}}), "resource b: method is not a member of this object"),
        (document(method("a"), methods=[method("a")]), "the document: methods: must be an object of objects"),
        (document(method("a"), methods={"a": 1}), "the document: methods: must be an object of objects"),
        (document(method("a"), resources={"b": None}), "the document: resources: must be an object of objects"),
        (document(method("a", *(f"s{number}" for number in range(1025)))), "more than 1024 alternatives"),
    ],
)
def test_other_documents_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError) as caught:
        google_discovery(given)
    assert message in str(caught.value) or "holds several scopes" in str(caught.value)


def test_short_scope_names_are_equal_with_the_catalog():
    authority = FakeAuthority()
    contract = google_discovery(document(method("a")))
    (access,) = [rule.access for rule in contract.rules if isinstance(rule.access, Requirement)]
    for catalog, allowed in ((contract.catalog, True), (None, False)):
        guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, catalog=catalog)
        bearer = authority.bearer("shop.readonly")["Authorization"].encode()
        request = RequestView(method="GET", path="/shop/v1/a", headers=HeaderList([(b"authorization", bearer)]))
        assert isinstance(guard.check(request, access), Granted) is allowed


def test_guard_with_the_rules_uses_google_error_bodies_unless_configured():
    contract = google_discovery(document(method("a")))
    issuer = Issuer("https://as.test", audience="a")
    rules = Rules([Rule("/own", AUTHENTICATED), *contract.rules])
    assert contract.error_body is ErrorBody.GOOGLE
    assert Guard(issuer, rules=rules, realm="it").style == ChallengeStyle(realm="it", body="google")
    assert Guard(issuer, rules=rules, challenge=ChallengeStyle(realm="it")).style.body == "problem"
    assert Guard(issuer, rules=Rules([Rule("/own", AUTHENTICATED)])).style.body == "problem"
    assert Guard(issuer).style.body == "problem"
