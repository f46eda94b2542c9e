"""docs/reasons.md has an entry for every reason code, and its texts are those of the catalog that the log uses."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import scopeguard
import scopeguard.errors
from documentation import PAGES
from environment import ROOT
from reasons_page import write_page
from scopeguard import AccessDenied, AuthorityUnavailable, Reason
from scopeguard.core.causes_and_fixes import CATALOG, SECTIONS, Entry, entry_of
from scopeguard.rules.mcp import McpPolicy

PAGE = PAGES["docs/reasons.md"]
ERRORS = {
    name: value
    for name, value in vars(scopeguard.errors).items()
    if isinstance(value, type) and issubclass(value, AccessDenied | AuthorityUnavailable)
}


def test_page_is_written_from_the_catalog():
    assert write_page() == PAGE, "run: make reasons"


def test_page_and_catalog_have_every_reason_once():
    reasons = sorted(Reason)
    assert sorted(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == [reason.value for reason in reasons]
    assert sorted(entry.reason for _, entries in SECTIONS for entry in entries) == reasons
    assert sorted(CATALOG) == reasons


def _find_raised() -> dict[Reason, set[str]]:
    """Return the classes that the source constructs with each reason."""
    found: dict[Reason, set[str]] = {}
    for path in (ROOT / "scopeguard").rglob("*.py"):
        source = path.read_text("utf-8")
        if "Reason." not in source:
            continue
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS and call.args:
                for node in ast.walk(call.args[0]):
                    if (
                        isinstance(node, ast.Attribute)
                        and isinstance(node.value, ast.Name)
                        and node.value.id == "Reason"
                    ):
                        found.setdefault(Reason[node.attr], set()).add(call.func.id)
    return found


def test_each_reason_has_the_status_of_the_error_that_is_raised_with_it():
    raised = _find_raised()
    assert len(raised) > 60
    for reason, names in raised.items():
        assert names == {entry_of(reason).error.__name__}, reason


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.reason.value)
def test_texts_are_short_sentences_in_ascii(entry: Entry):
    assert entry.advice.isascii()
    assert entry.advice.isprintable()
    assert "`" not in entry.advice
    for text in (entry.cause, entry.fix):
        assert text.endswith(".")
        assert text.count("`") % 2 == 0
    assert len(entry.cause) <= 110
    assert len(entry.fix) <= 220


def test_settings_that_a_fix_names_exist():
    known = {"McpPolicy": McpPolicy, **{name: getattr(scopeguard, name) for name in scopeguard.__all__}}
    named = re.findall(r"`(\w+)\((\w+)=[^`]*\)`", "".join(entry.fix for entry in CATALOG.values()))
    assert len(named) > 20
    for owner, setting in named:
        assert setting in inspect.signature(known[owner]).parameters, f"{owner}({setting}=)"
