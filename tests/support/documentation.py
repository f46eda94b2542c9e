"""The README and the pages under docs/: their texts, blocks of code, headings and links."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from environment import ROOT

PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("*.md")),
    )
}
README = PAGES["README.md"]
# The pages whose blocks run. The examples have tests of their own.
MANUAL = {name: text for name, text in PAGES.items() if name == "README.md" or name.startswith("docs/")}


@dataclass(frozen=True)
class Block:
    """A block of code: the name in the comment above it, its page, and the line it begins at."""

    name: str | None
    language: str
    source: str
    page: str
    line: int


BLOCKS = [
    Block(found[1], found[2], found[3], page, text.count("\n", 0, found.start(3)) + 1)
    for page, text in MANUAL.items()
    for found in re.finditer(r"(?:<!-- test: (\w+) -->\n)?```(\w+)\n(.*?)```\n", text, re.DOTALL)
]
NAMED = {block.name: block for block in BLOCKS if block.name}


def run(name: str, **given: Any) -> dict[str, Any]:
    """Run the block called *name* with the names in *given*, and return the names it defines.

    The block may also import these names from ``myapp``, the module of the reader.
    """
    block = NAMED[name]
    namespace: dict[str, Any] = {"__name__": f"block_{name}", **given}
    sys.modules["myapp"] = module = ModuleType("myapp")
    vars(module).update(given)
    try:
        exec(compile("\n" * (block.line - 1) + block.source, block.page, "exec", dont_inherit=True), namespace)
    finally:
        del sys.modules["myapp"]
    return namespace


def undefined_names(source: str, known: AbstractSet[str] = frozenset()) -> set[str]:
    """Return the global names that the code *source* reads, and that are neither *known* nor defined in it.

    A statement must come after the definitions of the names that it reads. A function may read names that are defined
    after it.
    """
    defined = {*dir(builtins), "__name__", *known}
    missing: set[str] = set()
    for statement in ast.parse(source).body:
        symbols = symtable.symtable(ast.unparse(statement), "block", "exec").get_symbols()
        read = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
        bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
        is_simple = isinstance(statement, ast.Assign | ast.AnnAssign | ast.Expr)
        missing |= read - defined - (set() if is_simple else bound)  # a loop may read what it binds
        defined |= bound
    inner = symtable.symtable(source, "block", "exec").get_children()
    return missing | (set().union(*map(_globals_of, inner)) - defined)


def _globals_of(scope: symtable.SymbolTable) -> set[str]:
    """Return the global names that a function or a class reads, and those that are in it."""
    own = {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return own.union(*map(_globals_of, scope.get_children()))


def prose(text: str) -> str:
    """Return *text* without blocks of code and indented commands, in which ``#`` and brackets mean something else."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, made as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = 0
        while (numbered := f"{anchor}-{count}" if count else anchor) in found:
            count += 1
        found.add(numbered)
    return found


def links(text: str) -> list[str]:
    """The targets of the links and images of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def target_of(page: str, link: str) -> tuple[Path, str]:
    """The file and the anchor that *link* on *page* leads to."""
    path, _, anchor = link.partition("#")
    here = ROOT / page
    return (here if not path else (here.parent / path).resolve()), anchor
