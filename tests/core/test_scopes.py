"""Requirements compared with truth tables, and settings for scopes that include others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of, check_scope, require

GOOGLE = "https://www.googleapis.com/auth/"


def has(*scopes: str) -> frozenset[str]:
    return frozenset(scopes)


def raw_requirement(alternatives: Any, first: Any) -> Requirement:
    """Build a requirement from values that a type checker refuses."""
    return Requirement(alternatives, first)


def subsets(names: str) -> list[frozenset[str]]:
    return [*map(frozenset, chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))]


# -- one scope


NO_SCOPES = ["r\u00e9ad", 'a"b', "a\\b", "a\tb", "a\nb", "read\n", "a\x00b", "a\x7fb", "a\xa0b", "\u2003", "\ud800"]


@pytest.mark.rule("B-38", "X-24")
@pytest.mark.parametrize("scope", ["", *NO_SCOPES], ids=ascii)
def test_text_that_no_challenge_can_hold_is_not_a_scope(scope):
    for build in (all_of, any_of, require, lambda item: all_of("a") | item, lambda item: item & all_of("a")):
        with pytest.raises(ConfigurationError, match="is not a scope"):
            build(scope)
    with pytest.raises(ConfigurationError, match=r"implies: .* is not a scope"):
        ScopeVocabulary(implies={scope: ["read"]})
    with pytest.raises(ConfigurationError, match=r"implies\['write'\]: .* is not a scope"):
        ScopeVocabulary(implies={"write": [scope]})


@pytest.mark.rule("B-38")
@pytest.mark.parametrize("prefix", [*NO_SCOPES, "a b", b"a", 7], ids=ascii)
def test_prefix_must_consist_of_scope_characters(prefix):
    with pytest.raises(ConfigurationError, match="scope_prefix: "):
        ScopeVocabulary(prefix=prefix)


@pytest.mark.rule("B-38")
def test_each_character_of_the_grammar_is_accepted():
    every = "".join(map(chr, [0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)]))
    assert check_scope(every, "here") == every


def test_several_scopes_in_one_string_are_refused_with_advice():
    with pytest.raises(ConfigurationError, match=r"any_of: 'read write' holds several scopes; pass each as its own"):
        any_of("read write")


@pytest.mark.parametrize("item", [7, None, b"read", ["read"], ("read", "write"), True], ids=ascii)
def test_scope_must_be_a_string(item):
    for build in (all_of, any_of, require, lambda item: all_of("a") | item, lambda item: all_of("a") & item):
        with pytest.raises(ConfigurationError, match=f"a scope must be a string, not {type(item).__name__}"):
            build(item)


@pytest.mark.parametrize("items", [["read"], ("read", "write"), {"read"}, frozenset()], ids=ascii)
def test_collection_in_place_of_a_scope_is_refused_with_advice(items):
    with pytest.raises(ConfigurationError, match=r"requires: a scope must be a string, not \w+; pass each as its own"):
        require(items)


@pytest.mark.parametrize("decorated", [lambda request: None, type("Endpoint", (), {})], ids=["function", "class"])
def test_decorator_without_parentheses_is_refused_with_advice(decorated):
    with pytest.raises(ConfigurationError, match=r'requires: .*; a decorator needs .*, as in @requires\("read"\)'):
        require(decorated)


def test_request_in_place_of_a_scope_is_refused_with_advice():
    """A framework calls ``before(requires)`` or ``auth=TokenAuth`` with the request, as if it were the hook itself."""
    request: Any = SimpleNamespace(headers={})
    with pytest.raises(ConfigurationError, match=r'not SimpleNamespace; it was called .*, as in requires\("read"\)'):
        require(request)


# -- what a requirement allows


@pytest.mark.rule("G-02", "G-03", "G-04", "G-07")
@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        pytest.param(["read", "write"], True, id="both"),
        pytest.param(["write", "read"], True, id="in another order"),
        pytest.param(["x", "write", "y", "read"], True, id="among others"),
        pytest.param(["Read", "write"], False, id="in another case"),
        pytest.param(["read"], False, id="one of two"),
        pytest.param([], False, id="none"),
        pytest.param(["read:all", "readonly", "write"], False, id="a longer one"),
        pytest.param(["rea", "write"], False, id="a shorter one"),
        pytest.param(["*", "read*", "write"], False, id="wildcards"),
        pytest.param(["read write"], False, id="two in one"),
        pytest.param(["r\u00e9ad", 'a"b', "write"], False, id="outside the grammar"),
        pytest.param(["read\twrite"], False, id="with a tab between them"),
    ],
)
def test_scopes_are_compared_whole_and_exactly(granted, allowed):
    assert all_of("read", "write").allows(frozenset(granted)) is allowed


@pytest.mark.rule("G-11")
@pytest.mark.parametrize(
    ("requirement", "minimal"),
    [
        pytest.param(all_of("a"), ["a"], id="one"),
        pytest.param(all_of("a", "b"), ["ab"], id="all"),
        pytest.param(require("a", "b"), ["ab"], id="requires() is all"),
        pytest.param(any_of("a", "b"), ["a", "b"], id="any"),
        pytest.param(all_of("a", "b") | any_of("c", "d"), ["ab", "c", "d"], id="all or any"),
        pytest.param(any_of("a", "b") & any_of("c", "d"), ["ac", "ad", "bc", "bd"], id="any and any"),
        pytest.param(any_of(all_of("a", "b"), all_of("c", any_of("d", "e"))), ["ab", "cd", "ce"], id="nested"),
        pytest.param("a" | all_of("b", "c"), ["a", "bc"], id="a string before |"),
        pytest.param("a" & any_of("b", "c"), ["ab", "ac"], id="a string before &"),
        pytest.param(any_of("a", "b") | "c", ["a", "b", "c"], id="a string behind |"),
        pytest.param(any_of("a", "b") & "c", ["ac", "bc"], id="a string behind &"),
        pytest.param(all_of("a", "a"), ["a"], id="twice the same"),
        pytest.param(all_of(AUTHENTICATED, "a"), ["a"], id="authenticated and a scope"),
        pytest.param(AUTHENTICATED, [""], id="authenticated"),
        pytest.param(all_of(AUTHENTICATED), [""], id="all of authenticated"),
    ],
)
def test_requirement_allows_exactly_the_sets_that_contain_an_alternative(requirement, minimal):
    for scopes in subsets("abcde"):
        assert requirement.allows(scopes) is any(set(needed) <= scopes for needed in minimal)


@dataclass(frozen=True)
class Expression:
    """A requirement, and the equivalent predicate without the algebra under test."""

    built: Requirement
    holds: Callable[[frozenset[str]], bool]
    first: tuple[str, ...]


def leaf(scope: str) -> Expression:
    return Expression(all_of(scope), lambda scopes: scope in scopes, (scope,))


def combine(parts: list[Expression], how: str) -> Expression:
    every = how in ("all_of", "&")
    built = parts[0].built
    if how in ("all_of", "any_of"):
        built = (all_of if every else any_of)(*(part.built for part in parts))
    for part in parts[1:] if how in "&|" else ():
        built = built & part.built if every else built | part.built
    verdict = all if every else any
    first = tuple(dict.fromkeys(s for part in parts for s in part.first)) if every else parts[0].first
    return Expression(built, lambda scopes: verdict(part.holds(scopes) for part in parts), first)


EXPRESSIONS = st.recursive(
    st.sampled_from("abcde").map(leaf),
    lambda inner: st.builds(
        combine, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["all_of", "any_of", "&", "|"])
    ),
    max_leaves=8,
)


@pytest.mark.rule("G-11")
@given(EXPRESSIONS)
def test_any_combination_matches_its_truth_table(expression):
    for scopes in subsets("abcde"):
        assert expression.built.allows(scopes) is expression.holds(scopes)
    assert not expression.built.allows(frozenset())


@pytest.mark.rule("B-44", "G-13")
@given(EXPRESSIONS)
def test_challenge_lists_one_complete_alternative_in_the_order_written(expression):
    assert expression.built.challenge_scopes == expression.first
    assert expression.built.allows(frozenset(expression.built.challenge_scopes))
    assert set(expression.built.challenge_scopes) <= expression.built.scopes


@given(EXPRESSIONS)
def test_repr_of_a_requirement_evaluates_to_it(expression):
    again = eval(repr(expression.built), {"all_of": all_of, "any_of": any_of})
    assert again == expression.built
    assert hash(again) == hash(expression.built)
    assert repr(AUTHENTICATED) == "AUTHENTICATED"


def test_the_scopes_of_a_requirement_are_those_of_every_alternative():
    assert (all_of("a", "b") | "c").scopes == has("a", "b", "c")
    assert AUTHENTICATED.scopes == has()
    assert AUTHENTICATED.challenge_scopes == ()


# -- requirements that admit every token, or none


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(all_of, r"all_of\(\) needs at least one scope; use AUTHENTICATED", id="all of nothing"),
        pytest.param(any_of, r"any_of\(\) needs at least one scope", id="any of nothing"),
        pytest.param(require, r"requires\(\) needs at least one scope; use .*AUTHENTICATED", id="requires nothing"),
        pytest.param(lambda: any_of(AUTHENTICATED, "a"), r"any_of\(AUTHENTICATED, \.\.\.\) admits any token", id="or"),
        pytest.param(lambda: all_of("a") | AUTHENTICATED, "admits any token", id="or, last"),
        pytest.param(lambda: any_of("a", all_of(AUTHENTICATED)), "admits any token", id="or, wrapped"),
        pytest.param(lambda: Requirement((), ()), "needs at least one scope; use AUTHENTICATED", id="no alternative"),
        pytest.param(lambda: Requirement((has("a"), has()), ("a",)), "admits any token", id="an empty one"),
        pytest.param(lambda: Requirement((has(), has()), ()), "admits any token", id="empty ones"),
        pytest.param(lambda: Requirement((has("a b"),), ("a b",)), "a requirement: .* several scopes", id="by hand"),
        pytest.param(lambda: Requirement((has("r\u00e9ad"),), ("r\u00e9ad",)), "is not a scope", id="by hand, charset"),
        pytest.param(lambda: Requirement((has("a"),), ("b",)), "first must list the scopes", id="other first"),
        pytest.param(lambda: Requirement((has("a"),), ()), "first must list the scopes", id="no first"),
        pytest.param(lambda: raw_requirement(("ab",), ("ab",)), "tuple of frozensets", id="a string for a set"),
        pytest.param(lambda: raw_requirement("ab", ("ab",)), "tuple of frozensets", id="a string for all"),
        pytest.param(lambda: raw_requirement([has("a")], ("a",)), "tuple of frozensets", id="a list of sets"),
        pytest.param(lambda: raw_requirement(({"a"},), ("a",)), "tuple of frozensets", id="a set that may change"),
        pytest.param(lambda: raw_requirement((), ()), "at least one scope", id="none"),
        pytest.param(lambda: raw_requirement(None, ()), "tuple of frozensets", id="nothing"),
        pytest.param(lambda: raw_requirement((frozenset((1,)),), ()), "int is neither", id="a number"),
        pytest.param(lambda: raw_requirement((frozenset((b"a",)),), ()), "bytes is neither", id="bytes"),
        pytest.param(lambda: raw_requirement((has("a"),), ["a"]), "first must be a tuple", id="a list for first"),
        pytest.param(lambda: raw_requirement((has("a"),), "a"), "first must be a tuple", id="a string for first"),
        pytest.param(lambda: raw_requirement((has("a"),), (None,)), "first must be a tuple", id="nothing in first"),
    ],
)
def test_empty_requirement_is_refused_at_construction(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_size_of_a_requirement_is_limited():
    pairs = [any_of(f"a{number}", f"b{number}") for number in range(11)]
    assert len(all_of(*pairs[:10]).alternatives) == 1024
    with pytest.raises(ConfigurationError, match="more than 1024 alternatives"):
        all_of(*pairs)
    assert len(any_of(*map(str, range(1024))).alternatives) == 1024
    with pytest.raises(ConfigurationError, match="more than 1024 alternatives"):
        any_of(*map(str, range(1025)))


@pytest.mark.rule("G-14")
def test_offline_access_as_a_required_scope_causes_a_warning():
    for build in (all_of, any_of, require, lambda item: all_of("a") | item):
        with pytest.warns(UserWarning, match="offline_access asks .* for a refresh token.*require another scope"):
            build("offline_access")


# -- scopes that include others


@pytest.mark.rule("G-12")
def test_broader_scope_satisfies_a_narrower_one_only_if_declared():
    declared = ScopeVocabulary(implies={"files:write": ["files:read"]})
    assert all_of("files:read").allows(declared.effective(["files:write"]))
    assert not all_of("files:write").allows(declared.effective(["files:read"]))
    assert not all_of("files:read").allows(ScopeVocabulary().effective(["files:write"]))


@pytest.mark.rule("G-04")
@pytest.mark.parametrize(
    "granted", ["read:all", "read.all", "read/all", "read-all", "re", "READ", "*", "read*", "r\u00e9ad"]
)
def test_spelling_of_a_scope_implies_nothing(granted):
    assert ScopeVocabulary().effective([granted]) == has(granted)


NAMES = "abcdef"
GRAPHS = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3), max_size=6)


def find_reachable(granted: set[str], edges: dict[str, list[str]]) -> set[str]:
    found = set(granted)
    while more := {implied for scope in found for implied in edges.get(scope, ())} - found:
        found |= more
    return found


@pytest.mark.rule("G-12")
@given(GRAPHS, st.sets(st.sampled_from(NAMES)))
def test_implications_are_transitive(edges, granted):
    assert ScopeVocabulary(implies=edges).effective(granted) == find_reachable(granted, edges)


@pytest.mark.rule("G-12")
@given(GRAPHS, GRAPHS, st.sets(st.sampled_from(NAMES)), st.sampled_from(["", "p.", GOOGLE]))
def test_implications_of_the_api_are_added_to_those_of_the_issuer(of_issuer, of_api, granted, prefix):
    """This holds for each spelling of the prefix in the settings and in the token."""
    both = {name: [*of_issuer.get(name, ()), *of_api.get(name, ())] for name in NAMES}
    long = {prefix + name: [prefix + implied for implied in implies] for name, implies in of_api.items()}
    for api in (of_api, long):
        vocabulary = ScopeVocabulary(prefix=prefix, implies=of_issuer).with_implications(api)
        expected = find_reachable(granted, both)
        for tokens in (granted, {prefix + scope for scope in granted}):
            assert vocabulary.effective(tokens) == expected | {prefix + scope for scope in expected}


@pytest.mark.rule("G-12")
def test_implications_apply_only_to_their_issuer():
    ours, theirs = ScopeVocabulary(implies={"admin": ["read"]}), ScopeVocabulary()
    added = theirs.with_implications({"write": ["read"]})
    assert ours.effective(["admin"]) == has("admin", "read")
    assert added.effective(["admin"]) == has("admin")
    assert theirs.effective(["write"]) == has("write")


def test_implications_may_be_any_iterable():
    vocabulary = ScopeVocabulary(implies={"a": (scope for scope in "bc")})
    assert vocabulary.effective(["a"]) == has("a", "b", "c")
    assert vocabulary.with_implications({"c": iter("d")}).effective(["a"]) == has("a", "b", "c", "d")


def test_implications_are_copied_at_construction():
    mine = {"a": ["b"]}
    vocabulary = ScopeVocabulary(implies=mine)
    mine["a"].append("admin")
    mine["b"] = ["admin"]
    assert vocabulary.with_implications({}).effective(["a"]) == has("a", "b")


@pytest.mark.parametrize(
    ("implies", "message"),
    [
        pytest.param({"a": "b"}, r"implies\['a'\]: must be a list of scopes", id="one string"),
        pytest.param({"a": 7}, r"implies\['a'\]: must be a list of scopes", id="a number"),
        pytest.param({"a": ["b c"]}, r"implies\['a'\]: 'b c' holds several scopes", id="two in one"),
        pytest.param({"a": [7]}, r"implies\['a'\]: a scope must be a string, not int", id="not a string"),
        pytest.param({"a": b"b"}, r"implies\['a'\]: a scope must be a string, not int", id="bytes"),
        pytest.param(["a", "b"], "implies: must map scopes", id="a list"),
        pytest.param({7: ["a"]}, "implies: a scope must be a string, not int", id="a number for a scope"),
    ],
)
def test_invalid_implications_are_refused(implies, message):
    with pytest.raises(ConfigurationError, match=message):
        ScopeVocabulary(implies=implies)
    with pytest.raises(ConfigurationError, match=message):
        ScopeVocabulary().with_implications(implies)


# -- the optional prefix


@pytest.mark.parametrize(
    ("prefix", "granted", "needed", "allowed"),
    [
        pytest.param(GOOGLE, GOOGLE + "bigquery", "bigquery", True, id="long granted, short needed"),
        pytest.param(GOOGLE, "bigquery", GOOGLE + "bigquery", True, id="short granted, long needed"),
        pytest.param(GOOGLE, "bigquery", "bigquery", True, id="both short"),
        pytest.param(GOOGLE, GOOGLE + "bigquery", GOOGLE + "bigquery", True, id="both long"),
        pytest.param("", GOOGLE + "bigquery", "bigquery", False, id="no prefix was set"),
        pytest.param(GOOGLE, GOOGLE.upper() + "bigquery", "bigquery", False, id="the prefix in another case"),
        pytest.param(GOOGLE, "https://evil.example/auth/bigquery", "bigquery", False, id="another prefix"),
        pytest.param(GOOGLE, GOOGLE + "bigquery.readonly", "bigquery", False, id="a longer scope"),
        pytest.param(GOOGLE, "https://mail.google.com/", "https://mail.google.com/", True, id="a URL as a scope"),
        pytest.param(
            GOOGLE, "https://mail.google.com/", GOOGLE + "https://mail.google.com/", False, id="URL behind it"
        ),
        pytest.param(
            GOOGLE, GOOGLE + "https://mail.google.com/", "https://mail.google.com/", False, id="URL, stripped"
        ),
        pytest.param(GOOGLE, GOOGLE, GOOGLE, True, id="the prefix itself"),
        pytest.param(GOOGLE, GOOGLE + GOOGLE + "x", "x", False, id="twice, short needed"),
        pytest.param(GOOGLE, GOOGLE + GOOGLE + "x", GOOGLE + "x", False, id="twice, long needed"),
        pytest.param(GOOGLE, GOOGLE + GOOGLE + "x", GOOGLE + GOOGLE + "x", True, id="twice, twice needed"),
        pytest.param("api.", "api.api.x", "x", False, id="dotted, twice, short needed"),
        pytest.param("api.", "api.api.x", "api.x", False, id="dotted, twice, long needed"),
        pytest.param("api.", "api.api.x", "api.api.x", True, id="dotted, twice, twice needed"),
        pytest.param("api://app/", "api://app/read", "read", True, id="an application's own prefix"),
        pytest.param("api.", "apiread", "read", False, id="a scope that only begins like the prefix"),
    ],
)
def test_scopes_with_and_without_the_prefix_are_equal(prefix, granted, needed, allowed):
    assert all_of(needed).allows(ScopeVocabulary(prefix=prefix).effective([granted])) is allowed


@pytest.mark.rule("G-12")
@pytest.mark.parametrize("granted", ["cloud-platform", GOOGLE + "cloud-platform"])
@pytest.mark.parametrize(
    "implies", [{"cloud-platform": ["bigquery"]}, {GOOGLE + "cloud-platform": [GOOGLE + "bigquery"]}]
)
def test_implications_and_the_prefix_work_together(granted, implies):
    effective = ScopeVocabulary(prefix=GOOGLE, implies=implies).effective(iter([granted]))
    assert effective == {start + scope for start in ("", GOOGLE) for scope in ("cloud-platform", "bigquery")}


@given(
    st.lists(st.text("ab.:/", max_size=8).filter(bool), max_size=3), st.sampled_from(["", "a.", "a", "a://", "a://b/"])
)
def test_access_token_keeps_all_granted_scopes(granted, prefix):
    effective = ScopeVocabulary(prefix=prefix).effective(granted)
    assert effective >= set(granted)
    # It gets no scope that differs from all of them by more than one prefix.
    assert all({s, prefix + s, s.removeprefix(prefix)} & set(granted) for s in effective)
