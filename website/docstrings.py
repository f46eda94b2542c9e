"""An extension of griffe that turns the docstrings of scopeguard into Markdown.

Docstrings mark names as ``:class:`Guard```, introduce code with ``::``, and contain examples with ``>>>``. References
to public names become links, and paths of pages under docs/ as well.
"""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

from website.reference import CANONICAL, members_of

_ROLE: Final = re.compile(r":(?:class|meth|func|attr|data|exc|mod):`([^`]+)`")
_TARGET: Final = re.compile(r"(?:(?P<text>.*?)\s*<(?P<target>[\w.]+)>|~?(?P<name>[\w.]+))$", re.DOTALL)
_PAGE: Final = re.compile(r"\bdocs/([\w/-]+\.md)")


def as_markdown(text: str, owner: str) -> str:
    """Return the docstring *text* of the object with the path *owner* as Markdown."""
    text = _ROLE.sub(lambda match: _reference(match[1], owner), text)
    text = _PAGE.sub(lambda match: f"[{match[0]}](../../{match[1]})", text)
    lines: list[str] = []
    in_session = False
    for line in text.splitlines():
        stripped = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        if not in_session and stripped.startswith(">>>"):
            lines.append(f"{indent}```pycon")
            in_session = True
        elif in_session and not stripped:
            lines.append("```")
            in_session = False
        if stripped == "::":
            continue
        lines.append(line[:-1] if line.endswith("::") and not in_session else line)
    return "\n".join([*lines, "```"] if in_session else lines)


def _reference(marked: str, owner: str) -> str:
    match = _TARGET.match(marked)
    if match is None:
        return f"`{marked}`"
    target = match["target"] or match["name"]
    text = " ".join((match["text"] or (target.rpartition(".")[2] if marked.startswith("~") else target)).split())
    public = find_public(target, owner)
    return f"`{text}`" if public is None else f"[`{text}`][{public}]"


def find_public(target: str, owner: str) -> str | None:
    """Return the public path of *target*, a name as the object *owner* sees it, or ``None`` if it is not public."""
    parts = owner.split(".")
    for end in range(len(parts), -1, -1):
        path = ".".join((*parts[:end], target))
        if path in CANONICAL:
            return CANONICAL[path]
        inside, _, member = path.rpartition(".")
        if inside in CANONICAL and member in members_of(CANONICAL[inside]):
            return f"{CANONICAL[inside]}.{member}"
    ends = [public for public in CANONICAL.values() if public.rpartition(".")[2] == target]
    return ends[0] if ends else None


class Docstrings(griffe.Extension):
    """Rewrites each docstring when its object has been loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value, obj.path)
