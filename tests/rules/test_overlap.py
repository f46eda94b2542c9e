"""Comparisons of templates agree with the paths that they match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.rules.overlap import Overlaps, is_narrower, may_meet
from scopeguard.rules.path_matching import Tree
from scopeguard.rules.template_syntax import Template

SEGMENTS = ["", "a", "ab", "a.b", "{x}", "a{x}", "{x}b", "{x}.{y}", "a{x}.{y}b", "{x}a{y}b{z}", "{x:segments}b"]
TEXTS = ["", "a", "b", "ab", "aab", "a.b", "aa.bb", "aabb", "xaybz", "x"]

segments = st.sampled_from(SEGMENTS)
# Only the last segment may be empty.
templates = st.builds(
    lambda inner, last: Template.parse("/" + "/".join([*inner, last])),
    st.lists(st.sampled_from(SEGMENTS[1:]), max_size=2),
    segments,
)


def matches(template: Template, texts: list[str]) -> bool:
    return bool(Tree([(template, None)]).terminals(texts))


@given(segments, segments, st.sampled_from(TEXTS))
def test_a_segment_of_the_narrower_step_matches_the_other(one: str, other: str, text: str):
    narrow, wide = Template.parse(f"/{one}"), Template.parse(f"/{other}")
    if is_narrower(narrow.steps[0], wide.steps[0]) and matches(narrow, [text]):
        assert matches(wide, [text])


@given(st.sampled_from(SEGMENTS[:-1]), st.sampled_from(SEGMENTS[:-1]), st.sampled_from(TEXTS))
def test_steps_that_match_the_same_segment_overlap(one: str, other: str, text: str):
    left, right = Template.parse(f"/{one}"), Template.parse(f"/{other}")
    if matches(left, [text]) and matches(right, [text]):
        assert may_meet(left.steps[0], right.steps[0])


@given(st.lists(templates, max_size=5), templates, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
def test_templates_that_match_the_same_path_are_found(stored: list[Template], wanted: Template, path: list[str]):
    overlaps = Overlaps[int]()
    for number, template in enumerate(stored):
        overlaps.add(template.steps, number)
    found = overlaps.find_overlaps(wanted.steps)
    if matches(wanted, path):
        assert {number for number, template in enumerate(stored) if matches(template, path)} <= set(found)
    assert len(found) == len(set(found))


# Random templates seldom match one path.
@pytest.mark.parametrize(
    "stored", ["/a/{x:segments}", "/a/{x:segments}d", "/a/{x:path}", "/{x:segments}d", "/{x:path}"]
)
@pytest.mark.parametrize("wanted", ["/a/b/cd", "/a/{y}/{z}d", "/{y}/b/cd"])
def test_template_for_several_segments_is_found(stored: str, wanted: str):
    overlaps = Overlaps[str]()
    overlaps.add(Template.parse("/other").steps, "other")
    overlaps.add(Template.parse(stored).steps, "several")
    assert overlaps.find_overlaps(Template.parse(wanted).steps) == ["several"]
