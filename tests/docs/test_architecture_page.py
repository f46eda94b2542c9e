"""docs/architecture.md describes the present tree: files exist, folders are complete, arrows are imports."""

from __future__ import annotations

import ast
import re
from functools import cache

from documentation import PAGES
from environment import ROOT

PAGE = PAGES["docs/architecture.md"]
PACKAGE = ROOT / "scopeguard"
(PICTURE,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
# Too general to stand in the picture, or the face of the package.
NOT_IN_PICTURE = {"__init__", "__main__", "extras"}


def _rooms() -> set[str]:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")}


def _nodes() -> dict[str, set[str]]:
    """The rooms that each node of the picture stands for: its own name and those in front of the colon."""
    nodes = {name: {name} for line in PICTURE.splitlines() for name in re.findall(r"\b([a-z_]+)(?=\[| -->|$)", line)}
    for name, label in re.findall(r'([a-z_]+)\["([^"]+)"\]', PICTURE):
        nodes[name] |= set(re.findall(r"\w+", label.partition(":")[0])) & _rooms()
    return nodes


@cache
def _imports(room: str) -> set[str]:
    paths = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted((PACKAGE / room).rglob("*.py"))
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scopeguard."):
                found.add(str(node.module).split(".")[1])
    return found - {room}


def test_every_room_is_in_the_picture_and_no_other():
    shown = set().union(*_nodes().values())
    assert shown == _rooms() - NOT_IN_PICTURE


def test_every_arrow_of_the_picture_is_an_import():
    nodes = _nodes()
    arrows = re.findall(r"([a-z_]+)(?:\[[^\]]*\])? --> ([a-z_]+)", PICTURE)
    assert len(arrows) > 20
    for start, end in arrows:
        assert set().union(*map(_imports, nodes[start])) & nodes[end], f"{start} --> {end}"


def test_the_table_answers_twenty_questions():
    (table,) = re.findall(r"^\| … \| open \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert len(table.splitlines()) >= 20
    assert all("`scopeguard/" in row for row in table.splitlines())


def test_the_steps_of_a_request_are_twelve_and_name_their_files():
    steps = re.findall(r"^\d+\. \*\*.*?(?=^\d+\. |^$)", PAGE, re.MULTILINE | re.DOTALL)
    assert len(steps) == 12
    assert all("`scopeguard/" in step for step in steps)


def test_the_public_modules_exist():
    (sentence,) = re.findall(r"These modules are public: (.*?)\. Everything", PAGE, re.DOTALL)
    names = [name.removeprefix("scopeguard").lstrip(".") for name in re.findall(r"`([\w.]+)`", sentence)]
    assert len(names) == 23
    for name in filter(None, names):
        path = PACKAGE / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name
