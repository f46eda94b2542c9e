"""docs/rules.md lists each rule that the tests or the code name, and no other."""

from __future__ import annotations

import re
import tomllib

from environment import ROOT

PAGE = (ROOT / "docs" / "rules.md").read_text("utf-8")
TOML = tomllib.loads((ROOT / "tests" / "rules.toml").read_text("utf-8"))
FAMILIES = "|".join(TOML["checklist"])
RULE = re.compile(rf"\b(?:{FAMILIES})-\d\d\b")
LISTED = re.findall(rf"^\| ((?:{FAMILIES})-\d\d) \| .+ \| .+ \| .+ \|$", PAGE, re.MULTILINE)
# These two hold made-up marks, to test the search for marks itself.
OWN_TESTS = {"test_rules.py", "test_rules_page.py"}


def _find_named() -> set[str]:
    named = set(RULE.findall(str(TOML["not_here"])))
    for folder in ("scopeguard", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name not in OWN_TESTS and "node_modules" not in path.parts:
                named |= set(RULE.findall(path.read_text("utf-8")))
    return named


def test_page_has_exactly_the_rules_that_are_named():
    assert len(LISTED) > 400
    assert set(LISTED) == _find_named()


def test_no_rule_is_on_the_page_twice():
    assert len(LISTED) == len(set(LISTED))


def test_the_page_refers_to_no_rule_that_it_lacks():
    assert set(RULE.findall(PAGE)) == set(LISTED)


def test_the_page_explains_each_code_of_a_result_that_it_uses():
    legend = set(re.findall(r"^\| ([A-Z]+\d*) \| ", PAGE, re.MULTILINE))
    results = re.findall(r"\| [^|\n]+ \|$", PAGE, re.MULTILINE)
    used = {code for cell in results for code in re.findall(r"→ ([A-Z]{2,}|[A-Z]\d{3})\b", cell)}
    assert legend >= {"PASS", "IT", "UNAV"}
    assert used <= legend | {"URL", "GET", "POST"}
