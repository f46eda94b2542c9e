"""Compiled rules give the same results as matching the templates one after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Rule, Rules, Shadowed
from scopeguard.rules.path_matching import Tree, fits
from scopeguard.rules.path_readings import SUSPICIOUS
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of

ADMIN, READ = all_of("admin"), all_of("read")
METHODS = ("GET", "HEAD", "POST", "PUT")

SEGMENTS = (
    "a", "b", "{x}", "{x}:a", "{x}:b", "a{x}", "a:{x}", "{x}.{y}", "{x}{y}", "a{x}b", "{x}.a.{y}", "a{x}.{y}:b",
    "{s:segments}", "{s:segments}:a", "{s:segments}.",
)  # fmt: skip
TEMPLATES = st.builds(
    lambda segments, last: "/" + "/".join([*segments, *last]),
    st.lists(st.sampled_from(SEGMENTS), max_size=4),
    st.sampled_from(([""], ["{r:path}"], ["{x}"], ["a"], ["{s:segments}:b"])),
)
RULES = st.lists(
    st.builds(
        Rule,
        TEMPLATES,
        st.sampled_from((ADMIN, READ, AUTHENTICATED, PUBLIC, OPTIONAL, DENIED)),
        st.none() | st.sets(st.sampled_from(("GET", "POST", "PUT")), min_size=1),
    ),
    max_size=12,
)
PATHS = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end,
    st.lists(st.sampled_from(("a", "b", "c", "aa", "c:a", "c:b", ":a", "a:b", "c.c", "a.a.a", "acb", "ac.c:b", "c."))),
    st.sampled_from(("", "/")),
) | st.text("ab:./", max_size=12).map(lambda text: "/" + text)


def pattern(template: str) -> re.Pattern[str]:
    """Return a pattern for *template*, derived from the grammar independently of the package."""
    text = re.escape(template)
    text = re.sub(r"\\\{[a-z]:path\\\}", ".*", text)
    text = re.sub(r"\\\{[a-z]:segments\\\}", "[^/]+(/[^/]+)*", text)
    return re.compile(re.sub(r"\\\{[a-z]\\\}", "[^/]+", text), re.DOTALL)


def first(rules: Sequence[Rule], method: str, path: str) -> int | None:
    for index, rule in enumerate(rules):
        if (rule.methods is None or method in rule.methods) and pattern(rule.path).fullmatch(path):
            return index
    return None


def find_first(rules: Sequence[Rule], method: str, path: str) -> Rule | None:
    """Return the first rule that matches, unless an earlier one is stricter for the path with the other ending."""
    found = first(rules, method, path)
    if found is None or SUSPICIOUS.search(path):
        return None
    if rules[found].access is DENIED:
        return rules[found]
    other = first(rules, method, path[:-1] if path.endswith("/") else path + "/")
    if other is not None and other < found and "{" in rules[found].path:
        shapes = {re.sub(r"\{[a-z]", "{", rules[index].path).rstrip("/") for index in (found, other)}
        access = rules[other].access
        strict = isinstance(access, Requirement) or access is DENIED
        if strict and access != rules[found].access and len(shapes) == 2:
            return rules[other] if access is DENIED else None
    return rules[found]


@pytest.mark.rule("H-06", "H-08", "H-09")
@settings(max_examples=200)
@given(RULES, st.lists(PATHS, min_size=1, max_size=8))
@example([Rule("/{s:segments}:a/{x}", READ), Rule("/{s:segments}/a", ADMIN)], ["/c/c:a/a", "/c:a/c:a/b"])
@example([Rule("/a/", ADMIN), Rule("/{x}", PUBLIC)], ["/a", "/a/", "/b"])
@example([Rule("/a/", ADMIN), Rule("/{x}", DENIED)], ["/a", "/a/", "/b"])
@example([Rule("/a/", DENIED), Rule("/{x}", PUBLIC)], ["/a", "/a/", "/b"])
@example([Rule("/a/", ADMIN, ["GET"]), Rule("/{r:path}", READ), Rule("/a", ADMIN)], ["/a"])
def test_compiled_rules_give_the_same_result_as_a_linear_search(listed, paths):
    rules = Rules(listed)
    for path in paths:
        for method in METHODS:
            assert rules.find(method, path) is find_first(listed, method, path), (method, path)
            assert rules.find(method, path, path.encode()) is rules.find(method, path)


@given(TEMPLATES, PATHS)
def test_single_rule_matches_its_methods_and_paths(template, path):
    assert Rule(template).matches("GET", path) == (pattern(template).fullmatch(path) is not None)
    assert not Rule(template, methods=["POST"]).matches("GET", path)
    assert not Rule(template).matches("GET", path[1:]) or path.startswith("//")


@given(RULES, PATHS, st.sampled_from(METHODS))
def test_raw_path_can_only_remove_a_rule_or_deny(listed, path, method):
    rules = Rules(listed)
    sent = "".join(f"%{ord(c):02X}" if n % 3 == 1 else c for n, c in enumerate(path)).encode()
    found, usual = rules.find(method, path, sent), rules.find(method, path)
    assert found is None or found is usual or found.access is DENIED


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("/{a}.{b}", ["/x.y", "/x.y.z", "/..."], ["/x", "/.y", "/x.", "/x.y/z", "/."]),
        ("/{a}{b}", ["/xy", "/xyz"], ["/x", "/"]),
        ("/a{b}-{c}d", ["/ax-xd", "/a---d"], ["/a-xd", "/ax-d", "/ax-x", "/ax-xd/"]),
        (
            "/{t}:insertAll",
            ["/x:insertAll", "/x:insertAll:insertAll"],
            ["/:insertAll", "/x:insertall", "/x/y:insertAll"],
        ),
        ("/v1/{r:segments}", ["/v1/a", "/v1/a/b/c"], ["/v1/", "/v1", "/v1/a/", "/v1/a/b/"]),
        (
            "/v1/{r:segments}:getIamPolicy",
            ["/v1/a:getIamPolicy", "/v1/a/b:getIamPolicy", "/v1/a:b/c:getIamPolicy"],
            ["/v1/:getIamPolicy", "/v1/a/:getIamPolicy", "/v1/a:getIamPolicy/", "/v1/a/b", "/v1/a/b:getIamPolic"],
        ),
        (
            "/{r:segments}/x/{s:segments}",
            ["/a/x/b", "/x/x/x", "/a/x/x", "/a/b/x/c/d"],
            ["/x/x", "/a/x", "/a/x/", "/x/a"],
        ),
        ("/{r:segments}/{rest:path}", ["/a/", "/a/b", "/a/b/"], ["/a", "/"]),
        ("/{r:segments}/", ["/a/", "/a/b/"], ["/a", "/"]),
    ],
)
def test_templates_with_partial_and_multiple_segments_match(template, matching, others):
    rules = Rules([Rule(template)])
    assert [path for path in [*matching, *others] if rules.find("GET", path)] == matching


@pytest.mark.parametrize(
    "template",
    ["/a{b:segments}", "/{a:segments}{b}", "/{a:segments}:x{b}", "/{b}{a:segments}", "/{a:segments}{b:segments}"],
)
def test_multi_segment_parameter_takes_at_least_one_segment(template):
    with pytest.raises(ConfigurationError, match=r"\{name:segments\} must begin a segment, and only text may follow"):
        Rule(template)


@pytest.mark.rule("H-02")
def test_rule_for_websockets_only_is_refused():
    with pytest.raises(ConfigurationError, match="rule '/live': the handshake of a websocket is a GET; write GET"):
        Rule("/live", methods=["WEBSOCKET"])


def test_source_of_a_rule_is_not_part_of_its_value():
    rule = Rule("/a", READ, source="openapi.json: GET /a")
    assert rule == Rule("/a", READ)
    assert hash(rule) == hash(Rule("/a", READ))
    assert rule.source == "openapi.json: GET /a"
    no_text: Any = 7
    with pytest.raises(ConfigurationError, match="rule '/a': source: must be a string, not int"):
        Rule("/a", source=no_text)


@pytest.mark.rule("H-06")
@pytest.mark.parametrize(
    ("earlier", "later", "path", "holds"),
    [
        pytest.param("/admin/", "/{page}", "/admin", False, id="a parameter"),
        pytest.param("/a/{x}", "/{rest:path}", "/a/1/", False, id="the rest"),
        pytest.param("/a/{x}/", "/{s:segments}", "/a/1", False, id="several segments"),
        pytest.param("/a/{x}/", "/a/{y:segments}", "/a/1", False, id="several segments, one of them"),
        pytest.param("/a/{x}/", "/a/{y}", "/a/1", True, id="both spelled out"),
        pytest.param("/{x}/", "/a", "/a", True, id="a path spelled out"),
        pytest.param("/b/{x}", "/{rest:path}", "/a/1/", True, id="another path"),
    ],
)
def test_trailing_slash_does_not_hide_a_stricter_rule(earlier, later, path, holds):
    for access in (ADMIN, DENIED):
        rules = Rules([Rule(earlier, access), Rule(later, PUBLIC)])
        found = rules.find("GET", path)
        assert found is (rules.all[1] if holds else rules.all[0] if access is DENIED else None)
        assert rules.closes(found) is not holds
    assert Rules([Rule(earlier, ADMIN), Rule(later, ADMIN)]).find("GET", path) is not None
    assert Rules([Rule(later, PUBLIC), Rule(earlier, ADMIN)]).find("GET", path) is not None


KEYS, TOKENS = frozenset({"api_key"}), frozenset({"header"})


@pytest.mark.parametrize("first", [KEYS, TOKENS])
@pytest.mark.parametrize("then", [None, KEYS, TOKENS, KEYS | TOKENS])
def test_trailing_slash_does_not_open_a_path_to_another_kind_of_credential(first, then):
    rules = Rules([Rule("/a", token_sources=first), Rule("/{rest:path}", token_sources=then)])
    assert rules.find("GET", "/a/") is (rules.all[1] if first == then else None)
    assert rules.find("GET", "/b/") is rules.all[1]


def test_place_of_a_token_does_not_matter_for_the_trailing_slash():
    rules = Rules([Rule("/a", token_sources=["form"]), Rule("/{rest:path}", token_sources=["header", "query"])])
    assert rules.find("GET", "/a/") is rules.all[1]


# -- costs of long paths


@pytest.fixture
def visits(monkeypatch):
    """Count the nodes that the look-ups of a test visit."""
    counts: list[int] = []
    step = Tree.step

    def count_and_step(self, active, segment, found):
        counts.append(len(active))
        return step(self, active, segment, found)

    monkeypatch.setattr(Tree, "step", count_and_step)
    return counts


BRANCHING = [
    "/{a:segments}/{b:segments}/{c:segments}/{d:segments}:x",
    "/{a:segments}/a/{b:segments}/a/{c:segments}/{d}/b",
    "/{a:segments}a/{b:segments}a/{c:segments}a/c",
    "/a/{b}/a/{rest:path}",
    "/{a}/{b:segments}/a{c}/{rest:path}",
]


@pytest.mark.parametrize("segment", ["a", "aa", "aaaaaaaaaa"])
def test_visited_nodes_grow_linearly_with_the_path(visits, segment):
    rules = Rules(Rule(template) for template in BRANCHING)
    # A segment of a template is one node, and several segments are two.
    nodes = 1 + sum(template.count("/") + template.count(":segments") for template in BRANCHING)
    for length in (10, 100, 1000, 10_000):
        visits.clear()
        rules.find("GET", f"/{segment}" * length + "/:y")
        assert max(visits) <= nodes
        assert len(visits) <= 2 * (length + 1)  # The path with the other ending is looked up too.
        assert sum(visits) <= 2 * nodes * (length + 1)


def test_a_segment_is_searched_once_for_each_text_in_a_template():
    class Counted(str):
        __slots__ = ()
        searches = 0

        def find(self, *args):
            Counted.searches += 1
            return super().find(*args)

    inner = ("a",) * 20
    assert fits(inner, Counted("a" * 42), 0, 42)
    assert not fits((*inner, "b"), Counted("a" * 50_000), 0, 50_000)
    assert Counted.searches <= 2 * len(inner) + 1


@given(st.lists(st.text("ab", max_size=2), max_size=4), st.text("ab", max_size=12))
def test_first_occurrence_of_each_text_is_used(inner, segment):
    expected = re.fullmatch("".join(f".+{text}" for text in inner) + ".+", segment) is not None
    assert (fits(inner, segment, 0, len(segment)) if segment else False) == expected or not inner


@settings(max_examples=50)
@given(
    st.lists(st.text("ab.", max_size=3), min_size=1, max_size=40, unique=True), st.text("ab.", min_size=1, max_size=9)
)
def test_texts_between_parameters_are_found_among_many(texts, segment):
    listed = [Rule(f"/x/{{a}}{text}{{b}}") for text in texts]
    assert Rules(listed).find("GET", f"/x/{segment}") is find_first(listed, "GET", f"/x/{segment}")


KINDS = {
    "literal": ("/v1/t{}/rows", "/v1/t{}/rows"),
    "parameter": ("/v1/t{}/{{a}}/{{b}}", "/v1/t{}/x/y"),
    "parameter first": ("/{{a}}/t{}/{{b}}", "/x/t{}/y"),
    "tail": ("/v1/{{a}}:do{}", "/v1/x:do{}"),
    "head": ("/v1/do{}.{{a}}", "/v1/do{}.x"),
    "middle": ("/v1/{{a}}.do{}.{{b}}", "/v1/x.do{}.y"),
    "segments": ("/v1/{{a:segments}}:do{}", "/v1/x/y:do{}"),
    "methods": ("/v1/{{a}}/{{b}}", "/v1/x/y"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_visited_nodes_do_not_grow_with_the_number_of_rules(visits, kind):
    template, path = KINDS[kind]
    looked = []
    for count in (10, 300):
        rules = Rules(
            Rule(template.format(number), extension_methods=[f"M-{chr(65 + number % 26)}"]) for number in range(count)
        )
        visits.clear()
        assert rules.find(f"M-{chr(65 + 7)}", path.format(7)) is not None
        looked.append(list(visits))
    assert looked[0] == looked[1]


# -- shadowed rules


def find_shadowed(*rules: Rule) -> list[tuple[str, list[str]]]:
    return [(item.rule.path, [by.path for by in item.by]) for item in Rules(rules).find_shadowed()]


def test_shadowed_rule_is_reported_with_the_rule_before_it():
    assert find_shadowed(Rule("/a"), Rule("/b"), Rule("/{x}"), Rule("/{x}/a")) == []
    assert find_shadowed(Rule("/a"), Rule("/a")) == [("/a", ["/a"])]
    assert find_shadowed(Rule("/{x}"), Rule("/{y}"), Rule("/a"), Rule("/a:{b}")) == [
        ("/{y}", ["/{x}"]), ("/a", ["/{x}"]), ("/a:{b}", ["/{x}"]),
    ]  # fmt: skip
    assert find_shadowed(Rule("/{x:path}"), Rule("/a/{y:path}"), Rule("/a/"), Rule("/{s:segments}:x")) == [
        ("/a/{y:path}", ["/{x:path}"]), ("/a/", ["/{x:path}"]), ("/{s:segments}:x", ["/{x:path}"]),
    ]  # fmt: skip
    assert find_shadowed(Rule("/{s:segments}:x"), Rule("/a/{y}:x"), Rule("/{s:segments}/b:x"), Rule("/a/{y}.x")) == [
        ("/a/{y}:x", ["/{s:segments}:x"]), ("/{s:segments}/b:x", ["/{s:segments}:x"]),
    ]  # fmt: skip
    assert find_shadowed(Rule("/a/{x:path}"), Rule("/a")) == []
    assert find_shadowed(Rule("/{s:segments}"), Rule("/a/")) == []


def test_rule_is_shadowed_only_if_all_its_methods_are():
    get, post = Rule("/{x}", methods=["GET"]), Rule("/{x:path}", methods=["POST"])
    assert find_shadowed(get, post, Rule("/a", methods=["POST", "GET"])) == [("/a", ["/{x}", "/{x:path}"])]
    assert find_shadowed(get, post, Rule("/a", methods=["HEAD"])) == [("/a", ["/{x}"])]
    assert find_shadowed(get, post, Rule("/a", methods=["PUT", "GET"])) == []
    assert find_shadowed(get, post, Rule("/a")) == []
    assert find_shadowed(Rule("/a"), Rule("/a", methods=["GET"])) == [("/a", ["/a"])]


def test_public_paths_precede_all_rules():
    rules = Rules([Rule("/a/b", READ)], public=["/a/{x}"])
    assert rules.find_shadowed() == (Shadowed(rule=rules.all[1], by=(rules.all[0],)),)


TEXTS = ("a", ":", ".", "aa", "a:", ":a", "a:a", "a.a", "::a", "aab", "ab")
EVERY_PATH = [
    f"/{'/'.join(segments)}{end}"
    for segments in [
        [], *([one] for one in TEXTS), *([one, two] for one in TEXTS for two in TEXTS),
        *([one, two, three] for one in TEXTS[:7] for two in TEXTS[:7] for three in TEXTS[:7]),
    ]
    for end in ("", "/")
    if segments or not end
]  # fmt: skip


@settings(max_examples=60)
@given(RULES)
def test_rule_reported_as_shadowed_never_decides(listed):
    listed = [rule for number, rule in enumerate(listed) if rule not in listed[:number]]
    rules = Rules(listed)
    patterns = [(rule, pattern(rule.path)) for rule in listed]
    for item in rules.find_shadowed():
        index = listed.index(item.rule)
        assert all(listed.index(by) < index for by in item.by)
        for path in EVERY_PATH:
            if patterns[index][1].fullmatch(path):
                for method in item.rule.methods or METHODS:
                    assert any(
                        found.fullmatch(path) and (by.methods is None or method in by.methods)
                        for by, found in patterns[:index]
                    )


@settings(max_examples=60)
@given(TEMPLATES, TEMPLATES)
def test_template_covering_agrees_with_matching(general, special):
    found = Rules([Rule(general), Rule(special)]).find_shadowed()
    outside = [path for path in EVERY_PATH if pattern(special).fullmatch(path) and not pattern(general).fullmatch(path)]
    assert not (found and outside)
