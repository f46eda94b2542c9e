"""The header of each example names an install command, and the other commands in it need nothing else.

Fault: a command of a package that only the environment of the tests has.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from environment import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OTHER_PROGRAMS = {"curl", "grpcurl"}  # each needs an installation of its own
OURS = "scopeguard-oauth2"

# To find these, the metadata of all installed distributions is read.
owners_of_modules = cache(packages_distributions)


@cache
def owners_of_scripts() -> dict[str, str]:
    return {
        script.name: canonicalize_name(script.dist.name)
        for script in entry_points(group="console_scripts")
        if script.dist is not None
    }


@cache
def requirements_of(name: str, extras: frozenset[str]) -> frozenset[str]:
    """Return the distributions that ``pip install name[extras]`` installs."""
    found = {name}
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker, other = requirement.marker, canonicalize_name(requirement.name)
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            found |= requirements_of(other, frozenset(requirement.extras))
    return frozenset(found)


def commands_in(file: Path) -> Iterator[list[str]]:
    header = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    for line in re.sub(r"\\\n\s*", " ", header).splitlines():
        words = shlex.split(line, comments=True) if line.startswith("    ") else []
        while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "export"):
            del words[0]
        if words:
            yield words


def find_installed(command: list[str]) -> set[str]:
    assert command[:2] == ["pip", "install"], f"the first command must be pip install, not {command}"
    found: set[str] = set()
    for word in command[2:]:
        own = re.fullmatch(r"\.(?:\[([a-z0-9,]+)\])?", word)
        if own is None:
            found |= requirements_of(canonicalize_name(word), frozenset())
        else:
            found |= requirements_of(OURS, frozenset((own[1] or "").split(",")) - {""})
    return found


def imports_of(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {f.stem for f in EXAMPLES}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_commands_and_imports_need_only_what_the_header_installs(file: Path):
    install, *commands = commands_in(file)
    installed, needed = find_installed(install), imports_of(file)
    assert commands, "the header has no command that runs the example"
    for command in commands:
        program, *arguments = command
        if program in OTHER_PROGRAMS:
            continue
        if program != "python":
            assert owners_of_scripts()[program] in installed, f"{program} is not installed by {install}"
        elif arguments[0] == "-m":
            needed.add(arguments[1].partition(".")[0])
        for word in arguments:
            assert not word.startswith("examples/") or (ROOT / word).is_file(), f"there is no {word}"
    for name in needed - {"scopeguard"}:
        owners = {canonicalize_name(owner) for owner in owners_of_modules()[name]}
        assert owners & installed, f"{name} is not installed by {install}"
