"""Templates compared with templates: each rule that could decide about a path of a route is found."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard import Rule, Rules
from scopeguard.audit.matching import Index, common_path, example_path

SEGMENTS = ["a", "b", "a:go", "{x}", "{x}:go", "a{x}", "{x}.{y}", "a{x}:{y}go"]
TEXTS = ["a", "b", "a:go", "ab", "c", "a.b:go"]
templates = st.builds(
    lambda segments, tail: "/" + "/".join([*segments, *tail]),
    st.lists(st.sampled_from(SEGMENTS), max_size=3),
    st.sampled_from([[], [], ["{rest:path}"]]),
)


@pytest.mark.parametrize(
    ("route", "rule", "path"),
    [
        ("/users/{id}", "/users/me", "/users/me"),
        ("/users/me", "/users/{id}", "/users/me"),
        ("/{a}/x", "/y/{b}", "/y/x"),
        ("/{a}:go", "/{b}", "/something-else:go"),
        ("/a/{rest:path}", "/a/b/c", "/a/b/c"),
        ("/a/b/c", "/a/{rest:path}", "/a/b/c"),
        ("/v1/{a}/{b}:go", "/v1/{name:segments}:go", "/v1/something-else/something-else:go"),
        ("/a", "/b", None),
        ("/a", "/a/b", None),
        ("/{a}:go", "/{b}:stop", None),
    ],
)
def test_overlapping_templates_have_a_common_path(route: str, rule: str, path: str | None):
    assert common_path(route, rule) == path


@given(templates, templates)
def test_common_path_matches_both_templates(route: str, rule: str):
    path = common_path(route, rule)
    if path is not None and "//" not in path:
        assert Rule(rule).matches("GET", path), path
        assert Rule(route).matches("GET", path), path


@given(
    templates,
    st.lists(templates, max_size=6),
    st.lists(st.sampled_from(["a", "b", "a:go", "ab", "c", "a.b:go"]), max_size=4),
)
def test_the_index_misses_no_rule(route: str, paths: list[str], segments: list[str]):
    rules = Rules([Rule(path) for path in paths])
    path = "/" + "/".join(segments)
    if Rule(route).matches("GET", path):
        candidates = {id(rule) for rule in Index(rules).candidates(route)}
        assert not [rule for rule in rules.all if rule.matches("GET", path) and id(rule) not in candidates]


@given(templates)
def test_a_filled_template_matches_itself(template: str):
    assert Rule(template).matches("GET", example_path(template))
    assert not re.search(r"[{}]", example_path(template))
