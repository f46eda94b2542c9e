"""The requirement of each route, and that no spelling of a path gets a weaker one."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.scopes import AUTHENTICATED, all_of, any_of

ADMIN, READ = all_of("admin"), all_of("read")


def access(rules: Rules, path: str, method: str = "GET") -> Any:
    rule = rules.find(method, path)
    return None if rule is None else rule.access


# -- templates


@pytest.mark.rule("H-08")
@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        pytest.param("/", ["/"], ["", "//", "/x"], id="root"),
        pytest.param(
            "/health",
            ["/health"],
            ["/healthz-admin", "/health/", "/health/x", "/healt", "/Health", "/xhealth", "health", "/health "],
            id="exact",
        ),
        pytest.param(
            "/a/{b}", ["/a/x", "/a/x y", "/a/{b}", "/a/\u00e9"], ["/a/", "/a", "/a/x/y", "/a/x/"], id="a segment"
        ),
        pytest.param("/{a}/{b}/c", ["/1/2/c"], ["/1/c", "/1/2/3/c", "//2/c"], id="two segments"),
        pytest.param(
            "/t/{t}:insertAll", ["/t/x:insertAll"], ["/t/x", "/t/:insertAll", "/t/x/y:insertAll"], id="a part"
        ),
        pytest.param("/s/{rest:path}", ["/s/", "/s/a", "/s/a/b/", "/s/a.b"], ["/s", "/sa", "/x/s/a"], id="the rest"),
        pytest.param("/{rest:path}", ["/", "/a", "/a/b"], ["", "a"], id="everything"),
        pytest.param("/a.b+c(d)|e[f]^g$", ["/a.b+c(d)|e[f]^g$"], ["/axb+c(d)|e[f]^g$", "/a.b"], id="no pattern"),
        pytest.param("/caf\u00e9", ["/caf\u00e9"], ["/cafe\u0301", "/CAF\u00c9"], id="not normalised"),
    ],
)
def test_a_template_matches_whole_paths_and_segments(template, matching, others):
    rules = Rules([Rule(template, READ)])
    assert [access(rules, path) for path in matching] == [READ] * len(matching)
    assert [access(rules, path) for path in others] == [None] * len(others)
    public = Rules(public=[template])
    assert [access(public, path) for path in matching] == [PUBLIC] * len(matching)
    assert [access(public, path) for path in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "a path must begin with /"),
        ("x", "a path must begin with /"),
        ("https://api.example/x", "a path must begin with /"),
        ("{x}", "a path must begin with /"),
        (7, "a path"),
        (None, "a path"),
        ("/*", r"wildcards are not supported; write \{name:path\} at the end for the rest"),
        ("/a/**/b", "wildcards are not supported"),
        ("//a", "must be a decoded path without //, dot segments, query and fragment"),
        ("/a//b", "a decoded path"),
        ("/a/../b", "a decoded path"),
        ("/a/.", "a decoded path"),
        ("/a\\b", "a decoded path"),
        ("/a%2Fb", "a decoded path"),
        ("/a%20b", "a decoded path"),
        ("/a%c3%a9", "a decoded path"),
        ("/a\x00b", "a decoded path"),
        ("/a\n", "a decoded path"),
        ("/a?b=c", "a decoded path"),
        ("/a#b", "a decoded path"),
        ("/a/{", "parameters are written {name}, {name:path}, {name:segments}"),
        ("/a/}", "parameters are written"),
        ("/a/{}", "parameters are written"),
        ("/a/{b-c}", "parameters are written"),
        ("/a/{b:int}", "parameters are written"),
        ("/a/{b-c}/{d}", "parameters are written"),
        ("/a{/{b}", "parameters are written"),
        ("/a}/{b}", "parameters are written"),
        ("/a/{{b}}", "parameters are written"),
        ("/a/{b}}", "parameters are written"),
        ("/a/<b>/{1}", "parameters are written"),
        ("/{rest:path}/b", r"\{name:path\} must stand alone after the last slash"),
        ("/{a:path}/{b:path}", "must stand alone after the last slash"),
        ("/health{rest:path}", "must stand alone after the last slash"),
        ("/{a}{rest:path}", "must stand alone after the last slash"),
    ],
    ids=ascii,
)
def test_ambiguous_template_is_refused(template, message):
    with pytest.raises(ConfigurationError, match=message):
        Rule(template)
    with pytest.raises(ConfigurationError, match=message):
        Rules(public=[template])


@given(st.lists(st.sampled_from(["a", "{b}", "c:d", "{e}:f", "g.h"]), max_size=5), st.booleans(), st.data())
def test_filled_template_is_matched_with_its_parameters(segments, rest, data):
    template = "/" + "/".join([*segments, *(["{rest:path}"] if rest else [])])
    texts = st.text("ab.:-", min_size=1, max_size=3).filter(lambda text: text not in (".", ".."))
    filled = ["".join(data.draw(texts) if "{" in part else part for part in _split(segment)) for segment in segments]
    path = "/" + "/".join([*filled, *([data.draw(texts) + "/" + data.draw(texts)] if rest else [])])
    assert access(Rules([Rule(template, READ)]), path) == READ


def _split(segment: str) -> list[str]:
    return ["{x}", segment.partition("}")[2]] if segment.startswith("{") else [segment]


# -- which rule decides


def test_the_first_rule_that_matches_decides():
    rules = Rules([Rule("/a/special", ADMIN), Rule("/a/{name}", READ), Rule("/a/late", PUBLIC)], public=["/a/open"])
    assert access(rules, "/a/special") == ADMIN
    assert access(rules, "/a/other") == READ
    assert access(rules, "/a/late") == READ
    assert access(rules, "/a/open") is PUBLIC
    assert [rule.path for rule in rules.all] == ["/a/open", "/a/special", "/a/{name}", "/a/late"]


@pytest.mark.rule("H-07", "G-11")
def test_unmatched_route_is_denied_with_rules_and_needs_a_token_without():
    assert Rules([Rule("/a", PUBLIC)]).deny_unmatched
    assert access(Rules([Rule("/a", PUBLIC)]), "/b") is None
    assert not Rules().deny_unmatched
    assert not Rules(public=["/healthz"]).deny_unmatched
    assert Rules(public=["/healthz"]).find("GET", "/b") is None


@pytest.mark.rule("H-07")
@pytest.mark.parametrize(
    "empty", [[], (), set(), iter(()), filter(None, [])], ids=["list", "tuple", "set", "iterator", "filter"]
)
def test_empty_list_of_rules_differs_from_no_rules(empty: Any):
    """``None`` and an empty list differ: the empty list denies every route."""
    rules = Rules.of(empty)
    assert rules.deny_unmatched
    assert rules.closes(rules.find("GET", "/a"))
    opened = rules.with_public(["/healthz"])
    assert opened.deny_unmatched
    assert (access(opened, "/healthz"), access(opened, "/a")) == (PUBLIC, None)
    assert not Rules.of(None).deny_unmatched
    assert not Rules(None, public=["/healthz"]).with_public(["/b"]).deny_unmatched


def test_rules_of_an_adapter_replace_those_of_the_guard_even_if_there_are_none():
    of_the_guard = Rules([Rule("/a", READ)], public=["/b"])
    assert Rules.choose(None, of_the_guard) is of_the_guard
    assert not Rules.choose(None, None).deny_unmatched
    none = Rules.choose([], of_the_guard)
    assert (none.all, none.deny_unmatched) == ((), True)
    # Public paths alone are not rules: those of the guard still apply.
    added = Rules.choose(Rules(public=["/c"]), of_the_guard)
    assert [access(added, path) for path in ("/a", "/b", "/c", "/d")] == [READ, PUBLIC, PUBLIC, None]
    assert added.deny_unmatched
    assert not Rules.choose(Rules(), None).deny_unmatched


def test_rule_without_a_requirement_needs_a_token():
    assert Rule("/a").access == AUTHENTICATED
    for said in (READ, any_of("a", "b"), AUTHENTICATED, PUBLIC, OPTIONAL, DENIED):
        assert Rule("/a", said).access == said


@pytest.mark.parametrize("said", [None, True, frozenset(("read",)), "public", "denied", "", []], ids=ascii)
def test_other_requirements_of_a_rule_are_refused(said):
    with pytest.raises(ConfigurationError, match="rule '/a': access: "):
        Rule("/a", said)


@pytest.mark.rule("H-09")
def test_rule_for_get_applies_to_head_and_no_other_method():
    rules = Rules([Rule("/a", READ, methods=["GET"]), Rule("/a", ADMIN, methods=["POST", "DELETE"])])
    assert [access(rules, "/a", method) for method in ("GET", "HEAD")] == [READ, READ]
    assert [access(rules, "/a", method) for method in ("POST", "DELETE")] == [ADMIN, ADMIN]
    assert [access(rules, "/a", method) for method in ("PUT", "OPTIONS", "GETX", "")] == [None] * 4
    assert access(Rules([Rule("/a", READ, methods="POST")]), "/a", "HEAD") is None
    assert access(Rules([Rule("/a", READ)]), "/a", "ANYTHING") == READ


@pytest.mark.rule("H-09")
def test_method_in_lower_case_gets_the_rule_of_its_upper_case_form():
    rules = Rules([Rule("/a", ADMIN, methods=["DELETE"]), Rule("/{rest:path}", PUBLIC)])
    assert [access(rules, "/a", method) for method in ("DELETE", "delete", "Delete")] == [ADMIN] * 3


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        pytest.param(["get"], "'get' is not a method; write it in capitals", id="small letters"),
        pytest.param([], "name a method, or leave methods out for all of them", id="none"),
        pytest.param([""], "'' is not an HTTP method", id="empty"),
        pytest.param(["GET\n"], "is not an HTTP method", id="a line feed behind"),
        pytest.param(["GET POST"], "'GET POST' is not an HTTP method", id="two in one"),
        pytest.param(["*"], r"'\*' is not an HTTP method", id="wildcard"),
        pytest.param([7], "methods: every item must be a string, not int", id="a number"),
        pytest.param(["\u0130"], "is not an HTTP method", id="not ASCII"),
    ],
)
def test_malformed_methods_are_refused(methods, message):
    with pytest.raises(ConfigurationError, match=f"rule '/a': .*{message}"):
        Rule("/a", READ, methods=methods)


@pytest.mark.parametrize("method", ["VERSION-CONTROL", "QUERY", "PROPFIND"])
def test_each_registered_method_is_accepted(method: str):
    rules = Rules([Rule("/a", READ, methods=[method])])
    assert (access(rules, "/a", method), access(rules, "/a", "POST")) == (READ, None)


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("GTE", "did you mean GET?"),
        ("DELTE", "did you mean DELETE?"),
        ("PURGE", "belong in extension_methods"),
        ("X", "belong in extension_methods"),
        ("get", "write it in capitals"),
        ("Post", "write it in capitals"),
        ("", "belong in extension_methods"),
        (7, "methods: every item must be a string, not int"),
    ],
)
def test_unregistered_method_is_refused(method: Any, hint: str):
    """It would match no request, and a later rule would decide instead."""
    with pytest.raises(ConfigurationError, match=f"rule '/a': .*{re.escape(hint)}"):
        Rule("/a", READ, methods=["GET", method])


def test_extension_methods_must_be_declared():
    only = Rule("/a", READ, extension_methods=["PURGE"])
    both = Rule("/a", READ, methods=["GET"], extension_methods="M-SEARCH")
    assert only.methods == {"PURGE"}
    assert both.methods == {"GET", "HEAD", "M-SEARCH"}
    rules = Rules([only, both])
    assert [access(rules, "/a", method) for method in ("PURGE", "M-SEARCH", "GET", "POST")] == [READ, READ, READ, None]
    assert only != both
    wrong: Any
    for wrong in (["purge"], ["PURGE "], [""], [7], ["WEBSOCKET"]):
        with pytest.raises(ConfigurationError, match="rule '/a': "):
            Rule("/a", READ, extension_methods=wrong)


# -- one path, two readings

SUSPICIOUS = [
    "//admin", "/x//admin", "/admin//", "/admin/../public", "/public/../admin", "/./admin", "/admin/.", "/admin/..",
    "/..", "/.", "/public\\..\\admin", "\\admin", "/admin\\", "/admin\x00", "/admin\n", "/admin\r", "/admin\t",
    "/admin\x7f", "/admin\ufffd", "/admin%2Fx", "/admin%2fx", "/%2e%2e/admin", "/%2E/admin", "/admin%5cx", "/x%5C..",
    "", "admin", "*", "http://api.example/admin",
]  # fmt: skip


@pytest.mark.rule("H-06", "H-08")
@pytest.mark.parametrize("path", SUSPICIOUS, ids=ascii)
def test_ambiguous_path_is_never_public(path):
    assert Rules([Rule("/{rest:path}", PUBLIC)], public=["/{rest:path}"]).find("GET", path) is None


@pytest.mark.parametrize(
    "path", ["/a.b", "/.well-known/x", "/a..b", "/...", "/a%20b", "/a;b", "/a b", "/%", "/caf\u00e9"]
)
def test_unusual_but_unambiguous_path_is_matched(path):
    assert access(Rules([Rule("/{rest:path}", READ)]), path) == READ


@pytest.mark.rule("H-06")
@pytest.mark.parametrize(
    ("first", "path"),
    [
        ("/admin", "/admin/"),
        ("/admin/", "/admin"),
        ("/items/{id}", "/items/7/"),
        ("/items/{id}/", "/items/7"),
        ("/admin/{rest:path}", "/admin"),
    ],
)
@pytest.mark.parametrize("weaker", [PUBLIC, OPTIONAL, AUTHENTICATED, READ], ids=str)
def test_trailing_slash_does_not_bypass_a_rule(first, path, weaker):
    """Werkzeug without ``strict_slashes`` serves both spellings with the same view."""
    rules = Rules([Rule(first, ADMIN), Rule("/{rest:path}", weaker)])
    assert access(rules, path) is None


@pytest.mark.rule("H-06")
def test_rest_parameter_may_be_empty():
    rules = Rules([Rule("/admin/{rest:path}", ADMIN), Rule("/{rest:path}", PUBLIC)])
    assert access(rules, "/admin/") == ADMIN
    assert access(rules, "/admin/x") == ADMIN


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        pytest.param([Rule("/a", ADMIN), Rule("/a/", READ)], "/a/", READ, id="both spelled out"),
        pytest.param([Rule("/a/", ADMIN), Rule("/a", READ)], "/a", READ, id="both spelled out, the other one"),
        pytest.param([Rule("/a", READ), Rule("/{rest:path}", READ)], "/a/", READ, id="the same requirement"),
        pytest.param([Rule("/a", PUBLIC), Rule("/{rest:path}", READ)], "/a/", READ, id="a stricter one"),
        pytest.param(
            [Rule("/a", OPTIONAL), Rule("/{rest:path}", READ)], "/a/", READ, id="a stricter one than optional"
        ),
        pytest.param([Rule("/{rest:path}", READ), Rule("/a", ADMIN)], "/a/", READ, id="a rule that never decides"),
        pytest.param([Rule("/a", ADMIN, methods=["POST"]), Rule("/{rest:path}", READ)], "/a/", READ, id="other method"),
        pytest.param([Rule("/a", ADMIN), Rule("/{rest:path}", READ)], "/b/", READ, id="another path"),
        pytest.param([Rule("/", ADMIN), Rule("/{rest:path}", READ)], "/", ADMIN, id="the root"),
    ],
)
def test_rules_may_distinguish_paths_by_the_trailing_slash(rules, path, expected):
    assert access(Rules(rules), path) == expected


PATHS = st.text("abm/.%2F\\\x00i;", max_size=12).map(lambda text: "/" + text)


@pytest.mark.rule("H-06", "H-08")
@given(PATHS | st.text(max_size=8))
def test_only_public_paths_are_exempt(path):
    rules = Rules([Rule("/{rest:path}", READ)], public=["/a", "/b/{i}"])
    found = access(rules, path)
    exempt = path == "/a" or (path.startswith("/b/") and path.count("/") == 2 and len(path) > 3)
    assert found is PUBLIC if exempt and found is not None else found in (READ, None)


# -- settings


def test_rules_of_another_type_are_refused():
    no_rules: Any = ["/healthz"]
    with pytest.raises(ConfigurationError, match=r"rules: every item must be a Rule, as in Rule.*, not str"):
        Rules(no_rules)
    with pytest.raises(ConfigurationError, match=r"access: must be a requirement, as in all_of\(.*, not list"):
        Rule("/rows", no_rules)
    with pytest.raises(ConfigurationError, match=r"public: must be a list of paths, as in \[\"/healthz\"\], not str"):
        Rules(public="/healthz")


def test_rules_may_be_given_as_rules_as_a_list_or_not_at_all():
    rules = Rules([Rule("/a")])
    assert Rules.of(rules) is rules
    assert [rule.path for rule in Rules.of([Rule("/a")]).all] == ["/a"]
    assert Rules.of(None).all == ()
    assert Rules.of(()).all == ()


def test_additional_public_paths_come_first_and_do_not_change_the_rules():
    rules = Rules([Rule("/a", READ), Rule("/b", READ)], public=["/c"])
    more = rules.with_public(["/a"])
    assert (access(more, "/a"), access(more, "/b"), access(more, "/c")) == (PUBLIC, READ, PUBLIC)
    assert more.deny_unmatched
    assert access(rules, "/a") == READ


@pytest.mark.rule("B-14")
def test_rule_may_have_separate_token_sources():
    assert Rule("/a").sources is None
    assert Rule("/a", token_sources=["query", "header"]).sources == frozenset((TokenSource.QUERY, TokenSource.HEADER))
    with pytest.raises(ConfigurationError, match="rule '/a': token_sources: 'cookie' is not one of"):
        Rule("/a", token_sources=["cookie"])
    with pytest.raises(ConfigurationError, match="rule '/a': token_sources: write a list"):
        Rule("/a", token_sources="query")


def test_a_rule_is_a_value():
    assert Rule("/a", READ, methods=["GET"]) == Rule("/a", READ, methods=["HEAD", "GET"])
    assert "pattern" not in repr(Rule("/a"))
    assert dataclasses.replace(Rule("/a", READ), path="/b").matches("GET", "/b")
