"""OpenAPI documents become equivalent rules, or are refused with the name of the operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scopeguard import AUTHENTICATED, ConfigurationError, Requirement, Rules, all_of, any_of
from scopeguard.contracts import openapi
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access

FLOWS = {"clientCredentials": {"tokenUrl": "https://as.test/token", "scopes": {"read": "Read", "write": "Write"}}}
SCHEMES: dict[str, Any] = {
    "oauth": {"type": "oauth2", "flows": FLOWS},
    "oidc": {"type": "openIdConnect", "openIdConnectUrl": "https://as.test/.well-known/openid-configuration"},
    "bearer": {"type": "http", "scheme": "Bearer"},
    "query": {"type": "apiKey", "in": "query", "name": "access_token"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "basic": {"type": "http", "scheme": "basic"},
    "mutual": {"type": "mutualTLS"},
    "alias": {"$ref": "#/components/securitySchemes/oauth"},
}
ABSENT = object()


def document(
    paths: dict[str, Any], *, version: str = "3.1.0", security: Any = ABSENT, **members: Any
) -> dict[str, Any]:
    found = {"openapi": version, "info": {"title": "Shop", "version": "1"}, "paths": paths, **members}
    found.setdefault("components", {})["securitySchemes"] = SCHEMES
    return found if security is ABSENT else {**found, "security": security}


def access(
    given: dict[str, Any], method: str = "GET", path: str = "/a", **settings: Any
) -> Requirement | Access | None:
    """Return the requirement, ``None`` if every request is denied."""
    rules = Rules(openapi(given, **settings).rules)
    rule = rules.find(method, path)
    return None if rule is None or rules.closes(rule) else rule.access


def read_security(security: Any, **settings: Any) -> Requirement | Access | None:
    """Return the requirement of an operation with *security*."""
    (rule,) = openapi(document({"/a": {"get": {"security": security}}}), **settings).rules
    return rule.access


def refusal(given: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        openapi(given, **settings)
    return str(caught.value)


# -- security


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ([], PUBLIC),
        ([{}], PUBLIC),
        ([{}, {}], PUBLIC),
        ([{}, {"oauth": ["read"]}], OPTIONAL),
        ([{"bearer": []}, {}], OPTIONAL),
        ([{"oauth": ["read"]}], all_of("read")),
        ([{"oauth": ["read", "write"]}], all_of("read", "write")),
        ([{"oauth": ["read"]}, {"oauth": ["write"]}], any_of("read", "write")),
        ([{"oauth": ["read"], "oidc": ["openid"]}], all_of("read", "openid")),
        ([{"oauth": ["read"], "bearer": []}], all_of("read")),
        ([{"oauth": ["read"]}, {"oidc": ["read"]}], all_of("read")),
        ([{"oauth": ["read"]}, {"oidc": ["read", "more"]}], any_of("read", all_of("read", "more"))),
        ([{"oauth": []}], AUTHENTICATED),
        ([{"oidc": []}], AUTHENTICATED),
        ([{"bearer": []}], AUTHENTICATED),
        ([{"bearer": []}, {"oauth": []}], AUTHENTICATED),
        ([{"bearer": ["role"]}], all_of("role")),
        ([{"query": ["read"]}, {"bearer": ["read"]}], all_of("read")),
        ([{"alias": ["read"]}], all_of("read")),
        ([{"#/components/securitySchemes/oauth": ["read"]}], all_of("read")),
    ],
)
def test_alternatives_are_or_and_members_are_and(security: Any, expected: Requirement | Access):
    found = read_security(security)
    assert found == expected
    if isinstance(expected, Requirement) and isinstance(found, Requirement):
        assert found.challenge_scopes == expected.challenge_scopes


@pytest.mark.parametrize("weak", [{"bearer": []}, {"oauth": []}, {"oidc": [], "bearer": []}])
def test_alternative_without_scopes_beside_one_with_scopes_is_refused(weak: dict[str, list[str]]):
    said = refusal(document({"/a": {"get": {"security": [{"oauth": ["write"]}, weak], "operationId": "getA"}}}))
    assert said.startswith("Shop: GET /a (getA): security: ")
    assert "ignore_schemes" in said


def test_security_of_an_operation_overrides_that_of_the_document():
    given = document(
        {"/a": {"get": {}, "post": {"security": [{"oauth": ["write"]}]}, "put": {"security": []}}},
        security=[{"oauth": ["read"]}],
    )
    found = [access(given, method) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")]
    assert found == [all_of("read"), all_of("read"), all_of("write"), PUBLIC, None]


def test_operation_without_security_is_an_error_unless_configured():
    given = document({"/a": {"post": {"operationId": "makeA"}}})
    said = refusal(given)
    assert "Shop: POST /a (makeA): the document declares no security for it" in said
    assert 'undeclared = "authenticated"' in said
    for word, expected in (("public", PUBLIC), ("authenticated", AUTHENTICATED), ("deny", DENIED)):
        assert openapi(given, undeclared=word).rules[0].access == expected
    assert "undeclared: 'open' is not one of" in refusal(given, undeclared="open")


@pytest.mark.parametrize(("name", "kind"), [("key", "apiKey"), ("basic", "http basic"), ("mutual", "mutualTLS")])
def test_unsupported_scheme_is_refused_or_ignored_by_name(name: str, kind: str):
    paths = {
        "/a": {"get": {"security": [{name: []}, {"oauth": ["read"]}]}},
        "/b": {"get": {"security": [{name: [], "oauth": ["read"]}]}},
        "/{any}": {"get": {"security": []}},
    }
    said = refusal(document(paths))
    assert said.startswith(f"Shop: GET /a: security: {name} is {kind}, which scopeguard cannot check; ")
    assert access(document(paths), ignore_schemes=[name]) == all_of("read")
    # Denied, although a more general template allows it.
    assert access(document(paths), path="/b", ignore_schemes=[name]) is None
    assert access(document(paths), path="/c", ignore_schemes=[name]) == PUBLIC


def test_ignored_scheme_must_exist():
    assert "ignore_schemes: bearr is not a security scheme of the document; did you mean bearer?" in refusal(
        document({}), ignore_schemes=["bearr"]
    )
    assert "must be a list of names" in refusal(document({}), ignore_schemes="key")


def test_empty_alternative_stays_public_after_dropping_another():
    assert read_security([{}, {"key": []}], ignore_schemes=["key"]) == PUBLIC
    assert read_security([{"bearer": []}, {"oauth": ["read"]}], ignore_schemes=["bearer"]) == all_of("read")


@pytest.mark.parametrize(
    ("security", "message"),
    [
        ({}, "security: must be a list of objects"),
        (["oauth"], "security: must be a list of objects"),
        (None, "the document declares no security for it"),
        ([{"other": []}], "security: other is not a security scheme of the document"),
        ([{"oauth": "read"}], "security: oauth: must be a list of scopes"),
        ([{"oauth": [True]}], "security: oauth: must be a list of scopes"),
        ([{"oauth": ["read write"]}], "'read write' holds several scopes"),
        ([{"oauth": [f"s{n}"]} for n in range(1025)], "more than 1024 alternatives"),
    ],
)
def test_unusable_security_is_refused_with_its_operation(security: Any, message: str):
    said = refusal(document({"/a": {"get": {"security": security}}}))
    assert said.startswith("Shop: GET /a: ")
    assert message in said


# -- operations and paths


def test_only_operations_are_read_and_each_kind_of_them():
    secured = {"security": [{"oauth": ["read"]}], "callbacks": {"done": {"{$url}": {"post": {}}}}}
    methods = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
    item = {**dict.fromkeys(methods, secured), "summary": "x", "x-internal": {}, "parameters": []}
    extra = {"query": secured, "additionalOperations": {"COPY": secured, "VERSION-CONTROL": secured, "PURGE": secured}}
    webhooks: dict[str, Any] = {"sold": {"post": {}}}
    older = openapi(document({"/a": item, "x-other": {}}, version="3.1.1", webhooks=webhooks))
    assert {*(next(iter(rule.methods or ())) for rule in older.rules if rule.methods != {"GET", "HEAD"}), "GET"} == {
        method.upper() for method in methods
    }
    newer = Rules(openapi(document({"/a": {**item, **extra}}, version="3.2.0", webhooks=webhooks)).rules)
    assert all(newer.find(method, "/a") for method in ("QUERY", "COPY", "VERSION-CONTROL", "PURGE", "GET"))
    assert newer.find("LINK", "/a") is None
    given = document({"/a": {"additionalOperations": {"Post": secured}}}, version="3.2.0")
    assert "/a: additionalOperations: Post has a member of its own" in refusal(given)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({}, "describes no operation"),
        ({"/a": {}}, "describes no operation"),
        ({"/a": {"parameters": []}, "x-other": {"get": {}}}, "describes no operation"),
        ({"/a": {"GET": {}}}, "/a: GET is not a member of this object; did you mean get?"),
        ({"/a": {"get": {}, "Delete": {}}}, "/a: Delete is not a member of this object; did you mean delete?"),
        ({"/a": {"get": {}, "gte": {}}}, "/a: gte is not a member of this object; it has get, put, "),
        ({"/a": {"get": {}, "purge": {}}}, "/a: purge is not a member of this object; it has get, put, "),
        ({"/a": {"get": {}, "query": {}}}, "/a: query is not a member of this object; it has get, put, "),
        ({"/a": {"get": {}, "additionalOperations": {}}}, "/a: additionalOperations is not a member of this object"),
        ({"/a": {"get": {}, "server": []}}, "/a: server is not a member of this object; did you mean servers?"),
        ({"/a": {"get": {}, None: {}}}, "/a: None is not a member of this object"),
        ({"/a": {"get": {"securtiy": []}}}, "GET /a: securtiy is not a member of this object; did you mean security?"),
        ({"/a": {"get": {"Security": []}}}, "GET /a: Security is not a member of this object; did you mean security?"),
    ],
)
def test_a_document_that_describes_nothing_or_misspells_a_member_is_refused(paths: Any, said: str):
    """Otherwise a mistake would leave a route undescribed, or described by a more general part of the document."""
    assert said in refusal(document(paths), undeclared="deny")


@pytest.mark.parametrize("name", ["path", "Paths", "securty", "component", "Servers"])
def test_a_misspelled_member_of_the_document_is_refused(name: str):
    given = {**document({"/a": {"get": {}}}), name: {}}
    assert f"the document: {name} is not a member of this object; did you mean" in refusal(given, undeclared="deny")


def test_extension_members_are_ignored_if_no_decision_depends_on_them():
    operation = {"security": [], "consumes": ["application/json"], "x-securty": 1}
    given = {**document({"/a": {"get": operation}}), "host": "api.test", "schemes": ["https"]}
    assert access(given) is PUBLIC


def test_null_security_is_refused_if_the_document_has_security():
    given = document({"/a": {"get": {"security": None}}}, security=[{"oauth": ["read"]}])
    assert "GET /a: security: must be a list of objects" in refusal(given, undeclared="authenticated")


def test_additional_operations_must_be_an_object():
    given = document({"/a": {"get": {}, "additionalOperations": ["COPY"]}}, version="3.2.0")
    assert "/a: additionalOperations: must be an object with operations" in refusal(given, undeclared="deny")


def test_head_may_have_separate_security():
    item = {"get": {"security": [{"oauth": ["read"]}]}, "head": {"security": []}}
    found = [access(document({"/a": item}), method) for method in ("GET", "HEAD")]
    assert found == [all_of("read"), PUBLIC]


def test_concrete_paths_precede_templated_ones():
    def path_item_for(scope: str) -> dict[str, Any]:
        return {"get": {"security": [{"oauth": [scope]}]}}

    given = document(
        {
            "/{a}/{b}": path_item_for("any"),
            "/x/{b}": path_item_for("x"),
            "/x/{b}.json": path_item_for("json"),
            "/x/y.json": path_item_for("exact"),
            "/x/{name}:run": path_item_for("run"),
        }
    )
    paths = ("/p/q", "/x/q", "/x/q.json", "/x/y.json", "/x/q:run")
    assert [access(given, path=path) for path in paths] == [
        all_of(scope) for scope in ("any", "x", "json", "exact", "run")
    ]


def test_of_two_equally_concrete_templates_both_apply():
    paths = {
        "/users/{id}/posts": {"get": {"security": [{"oauth": ["posts"]}], "operationId": "posts"}},
        "/users/me/{section}": {"get": {"security": [{"oauth": ["me"]}, {"oauth": ["admin"]}], "operationId": "me"}},
        "/users/{id}/open": {"get": {"security": []}},
    }
    both = access(document(paths), path="/users/me/posts")
    assert both == all_of("posts", any_of("me", "admin"))
    assert access(document(paths), path="/users/me/open") == any_of("me", "admin")
    assert access(document(paths), path="/users/1/posts") == all_of("posts")
    assert access(document(paths), path="/users/me/x") == any_of("me", "admin")
    assert access(document(paths), path="/users/1/open") == PUBLIC
    (rule,) = [rule for rule in openapi(document(paths)).rules if rule.path == "/users/me/posts"]
    assert rule.source == "Shop: GET /users/{id}/posts (posts) and GET /users/me/{section} (me)"
    assert not Rules(openapi(document(paths)).rules).find_shadowed()


def test_of_two_operations_equal_for_a_server_both_apply():
    paths = {
        "/a/{id}": {"put": {"security": [{"oauth": ["write"]}]}},
        "/a/{other}#share": {"put": {"security": [{"oauth": ["share"]}]}},
        "/a/{id}?mode=x": {"put": {"security": [{}]}},
    }
    (rule,) = openapi(document(paths)).rules
    assert (rule.path, rule.access) == ("/a/{id}", all_of("write", "share"))


@pytest.mark.parametrize(
    ("servers", "paths"),
    [
        (ABSENT, ["/a"]),
        ([], ["/a"]),
        ([{"url": "/"}], ["/a"]),
        ([{"url": "https://api.test"}], ["/a"]),
        ([{"url": "https://api.test/v1/"}], ["/v1/a"]),
        ([{"url": "https://api.test/my%20api"}], ["/my api/a"]),
        ([{"url": "https://one.test/v1"}, {"url": "https://two.test/v1"}, {"url": "/v2"}], ["/v1/a", "/v2/a"]),
        (
            [{"url": "https://{host}:{port}/{v}", "variables": {"port": {"default": "8443"}, "host": {"default": "x"},
              "v": {"default": "v3", "enum": ["v3", "v4"]}}}],
            ["/v3/a"],
        ),
    ],
)  # fmt: skip
def test_paths_start_with_the_path_of_the_server(servers: Any, paths: list[str]):
    members = {} if servers is ABSENT else {"servers": servers}
    given = document({"/a": {"get": {"security": []}}}, **members)
    assert [rule.path for rule in openapi(given).rules] == paths
    assert [rule.path for rule in openapi(given, base_path="/own/").rules] == ["/own/a"]
    assert [rule.path for rule in openapi(given, base_path="").rules] == ["/a"]


def test_paths_and_operations_may_have_separate_servers():
    open_to_all: dict[str, Any] = {"security": []}
    item = {"servers": [{"url": "/two"}], "get": open_to_all, "put": {**open_to_all, "servers": [{"url": "/three"}]}}
    given = document({"/a": item, "/b": {"get": open_to_all}}, servers=[{"url": "/one"}])
    assert {rule.path for rule in openapi(given).rules} == {"/two/a", "/three/a", "/one/b"}


@pytest.mark.parametrize("url", ["v1", "../v1", "https://api.test/{version}", "{", "http://[x"])
def test_server_without_a_path_needs_a_base_path(url: str):
    given = document({"/a": {"get": {"security": []}}}, servers=[{"url": url}])
    assert "set base_path" in refusal(given)
    assert openapi(given, base_path="/v1").rules[0].path == "/v1/a"


def test_parameters_may_have_any_name():
    given = document({"/a%20b/{user-id}/{1}.{format}": {"get": {"security": []}}})
    assert access(given, path="/a b/x/y.json") == PUBLIC


def test_references_within_the_document_are_followed():
    item = {"get": {"security": [{"oauth": ["read"]}]}}
    given = document(
        {"/a": {"$ref": "#/components/pathItems/A"}, "/b": {"$ref": "#/paths/~1a"}},
        components={"pathItems": {"A": item}},
    )
    assert [access(given, path=path) for path in ("/a", "/b")] == [all_of("read")] * 2


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"$ref": "other.json#/paths/~1a"}, "leads to another document"),
        ({"$ref": "https://x.test/a"}, "leads to another document"),
        ({"$ref": 7}, "leads to another document"),
        ({"$ref": "#/components/none"}, "does not exist in the document"),
        ({"$ref": "#/paths/~1a"}, "leads to itself"),
        ({"$ref": "#/components/x", "get": {}}, "are ambiguous"),
        ([], "must be an object, not list"),
        ({"get": []}, "GET /a: must be an object, not list"),
    ],
)
def test_malformed_part_is_refused_with_its_path(item: Any, message: str):
    said = refusal(document({"/a": item}))
    assert "/a: " in said
    assert message in said


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"openapi": "2.0"}, "must be OpenAPI 3.0, 3.1 or 3.2, not 2.0"),
        ({"openapi": 3.1}, "must be OpenAPI 3.0, 3.1 or 3.2, not 3.1"),
        ({"openapi": None, "swagger": "2.0"}, "Swagger 2.0 is not supported; convert the document"),
        ({"openapi": "4.0.0"}, "must be OpenAPI 3.0"),
        ({"paths": []}, "paths: must be an object"),
        ({"paths": {"a": {}}}, "paths: a: a path must begin with /"),
        ({"paths": {"/a/*": {"get": {"security": []}}}}, "GET /a/*: rule '/a/*': wildcards are not supported"),
        ({"paths": {"/a//b": {"get": {"security": []}}}}, "GET /a//b: rule '/a//b': must be a decoded path"),
        ({"paths": {"/a": {"get": {"security": []}}}, "servers": {}}, "GET /a"),
    ],
)
def test_other_documents_are_refused(members: dict[str, Any], message: str):
    if members.get("servers") == {}:
        assert openapi({**document({}), **members}).rules[0].path == "/a"
    else:
        assert message in refusal({**document({}), **members})


@pytest.mark.parametrize("base_path", ["v1", "/{x}", "/a?b", 7])
def test_base_path_must_be_a_path(base_path: Any):
    assert "base_path: must be a path that begins with /" in refusal(document({}), base_path=base_path)


def test_rules_have_their_source_and_the_catalog_has_the_descriptions(tmp_path: Path):
    given = document({"/a/{id}": {"get": {"security": [{"oauth": ["read"]}], "operationId": "getA"}}})
    path = tmp_path / "shop.json"
    path.write_text(json.dumps(given), "utf-8")
    contract = openapi(path)
    assert (contract.name, contract.rules[0].source) == ("shop.json", "shop.json: GET /a/{id} (getA)")
    assert dict(contract.catalog.descriptions) == {"read": "Read", "write": "Write"}
    assert openapi(given).name == "Shop"


@pytest.mark.parametrize("version", ["3.0.0", "3.0.4", "3.1.0", "3.1.2", "3.2.0"])
def test_three_versions_are_read(version: str):
    assert access(document({"/a": {"get": {"security": [{"bearer": ["x"]}]}}}, version=version)) == all_of("x")
