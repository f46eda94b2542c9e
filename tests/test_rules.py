"""tests/rules.toml and the tests agree, in both directions.

The marks are read from the source, so that the answer does not depend on which tests a run selected.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import TypeGuard

import pytest

from environment import ROOT

TESTS = ROOT / "tests"
RULES = tomllib.loads((TESTS / "rules.toml").read_text("utf-8"))
CHECKLIST = {f"{family}-{n:02}" for family, count in RULES["checklist"].items() for n in range(1, count + 1)}
ANSWERED = {f"{family}-{n:02}" for family, count in RULES["answered"].items() for n in range(1, count + 1)}
NOT_HERE: dict[str, str] = RULES["not_here"]
_MARK = re.compile(r"\bmark\s*\.\s*rule\b")


def _is_rule(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and node.attr == "rule" and ast.unparse(node) == "pytest.mark.rule"


def _marks(node: ast.AST) -> list[ast.Call]:
    return [call for call in ast.walk(node) if isinstance(call, ast.Call) and _is_rule(call.func)]


def _names(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _tests(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, list[ast.expr]]]:
    """The test functions of *body*, and its test classes that have any, with their decorators."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node, node.decorator_list
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inside = list(_tests(node.body))
            if inside:
                yield node, node.decorator_list
            yield from inside


def claims(source: str, filename: str = "test_example.py") -> tuple[set[str], list[str]]:
    """The rules that the tests of a file claim, and what is wrong with its marks.

    A mark counts in a decorator of a test function or of a class of tests: ``@pytest.mark.rule("B-13")``, or as
    ``marks=`` of a ``pytest.param`` there, or in a table of the module that such a decorator names.
    """
    tree = ast.parse(source)
    is_test_file = filename.startswith("test_")
    decorators = [item for _, items in _tests(tree.body) for item in items] if is_test_file else []
    used = set().union(*map(_names, decorators)) if decorators else set()
    tables = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and used & {name for target in _targets(node) for name in _names(target)} - {"pytestmark"}
    ]
    good = [call for place in (*decorators, *tables) for call in _marks(place)]
    called = {id(call.func) for call in good}
    wrong = [
        f"{filename}:{node.lineno}: a rule is marked where it marks no test"
        for node in ast.walk(tree)
        if _is_rule(node) and id(node) not in called
    ]
    claimed: set[str] = set()
    for call in good:
        ids = [item.value for item in call.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        if not ids or len(ids) != len(call.args) or call.keywords:
            wrong.append(f'{filename}:{call.lineno}: write the ids out, as in @pytest.mark.rule("B-13", "B-14")')
        wrong += [f"{filename}:{call.lineno}: the checklist has no {rule}" for rule in ids if rule not in CHECKLIST]
        claimed.update(ids)
    return claimed & CHECKLIST, wrong


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


@cache
def _all_claims() -> tuple[set[str], list[str]]:
    claimed: set[str] = set()
    wrong: list[str] = []
    for path in sorted(TESTS.rglob("*.py")):
        source = path.read_text("utf-8")
        if not _MARK.search(source):
            continue  # without a mark, and parsing takes longest
        of_file, wrong_of_file = claims(source, path.name)
        claimed |= of_file
        wrong += [f"{path.parent.name}/{line}" for line in wrong_of_file]
    return claimed, wrong


def test_every_mark_is_at_a_test_and_names_a_rule_of_the_checklist():
    _, wrong = _all_claims()
    assert not wrong, "\n".join(wrong)


def test_every_rule_answered_for_has_a_test_or_a_reason():
    claimed, _ = _all_claims()
    silent = sorted(ANSWERED - claimed - NOT_HERE.keys())
    assert not silent, f"{len(silent)} rules have neither a test nor a reason: {' '.join(silent)}"


def test_no_rule_has_both_a_test_and_a_reason():
    claimed, _ = _all_claims()
    both = sorted(claimed & NOT_HERE.keys())
    assert not both, f"take these out of [not_here] in tests/rules.toml, tests claim them: {' '.join(both)}"


def test_every_reason_is_a_sentence_about_an_answered_rule():
    unknown = sorted(NOT_HERE.keys() - ANSWERED)
    assert not unknown, f"[not_here] in tests/rules.toml names what is not answered for: {' '.join(unknown)}"
    for rule, reason in NOT_HERE.items():
        assert len(reason.split()) >= 4, f"{rule}: say why it is not here, and where it will come"


def test_answered_rules_are_in_the_checklist():
    assert ANSWERED <= CHECKLIST


@pytest.mark.parametrize(
    ("source", "claimed", "wrong"),
    [
        ('@pytest.mark.rule("B-01", "B-02")\ndef test_it(): ...', {"B-01", "B-02"}, 0),
        ('class TestIt:\n  @pytest.mark.rule("B-01")\n  async def test_it(self): ...', {"B-01"}, 0),
        ('@pytest.mark.rule("B-01")\nclass TestIt:\n  def test_it(self): ...', {"B-01"}, 0),
        (
            '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.rule("B-03"))])\ndef test_it(x): ...',
            {"B-03"},
            0,
        ),
        (
            """T = [pytest.param(1, marks=pytest.mark.rule("B-03"))]
@pytest.mark.parametrize("x", T)
def test_it(x): ...""",
            {"B-03"},
            0,
        ),
        ('T = [pytest.param(1, marks=pytest.mark.rule("B-03"))]\ndef test_it(): ...', set(), 1),
        ('@pytest.mark.rule("B-01")\ndef helper(): ...', set(), 1),
        ('@pytest.mark.rule("B-01")\nclass TestNothing: ...', set(), 1),
        ('def test_it():\n  @pytest.mark.rule("B-01")\n  def test_inner(): ...', set(), 1),
        ('pytestmark = pytest.mark.rule("B-01")\ndef test_it(): ...', set(), 1),
        ("rule = pytest.mark.rule\n@rule('B-01')\ndef test_it(): ...", set(), 1),
        ("@pytest.mark.rule\ndef test_it(): ...", set(), 1),
        ("@pytest.mark.rule()\ndef test_it(): ...", set(), 1),
        ("@pytest.mark.rule(RULE)\ndef test_it(): ...", set(), 1),
        ('@pytest.mark.rule("B-99")\ndef test_it(): ...', set(), 1),
        ('@pytest.mark.rule("B-1")\ndef test_it(): ...', set(), 1),
    ],
    ids=lambda value: None,
)
def test_a_mark_counts_only_at_a_test(source: str, claimed: set[str], wrong: int):
    found, complaints = claims(source)
    assert found == claimed
    assert len(complaints) == wrong


def test_marks_outside_of_test_files_are_refused():
    assert claims('@pytest.mark.rule("B-01")\ndef test_it(): ...', "conftest.py")[1]
