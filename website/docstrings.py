"""An extension of griffe that turns the docstrings of scopeguard into Markdown.

Docstrings mark names as ``:class:`Guard```, introduce code with ``::``, and contain examples with ``>>>``. References
to public names become links, and paths of pages under docs/ as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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


def _argument_type(annotation: Any) -> Any:
    """Return what a constructor accepts for a field with *annotation*: ``A`` for ``Converted[A, B]``."""
    match annotation:
        case griffe.ExprSubscript(left=griffe.ExprName(name="Converted"), slice=griffe.ExprTuple(elements=[first, *_])):
            return first
    return annotation


def _default(value: Any) -> Any:
    """Return the default of a field with *value*: ``x`` for ``converted(x)``, without ``field(...)`` around it."""
    match value:
        case griffe.ExprCall(function=griffe.ExprName(name="converted"), arguments=[first, *_]):
            return first
        case griffe.ExprCall(function=griffe.ExprName(name="field"), arguments=arguments):
            for each in arguments:
                if isinstance(each, griffe.ExprKeyword) and each.name == "default":
                    each.value = _default(each.value)
    return value


class Docstrings(griffe.Extension):
    """Rewrites each docstring when its object has been loaded, and shows the fields of settings as they are given."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value, obj.path)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        attr.annotation = _argument_type(attr.annotation)
        attr.value = _default(attr.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for each in _classes(pkg):
            constructor = each.members.get("__init__")
            if isinstance(constructor, griffe.Function):
                for parameter in constructor.parameters:
                    field = each.members.get(parameter.name)
                    if isinstance(field, griffe.Attribute) and _is_positional(field.value):
                        parameter.kind = griffe.ParameterKind.positional_or_keyword


def _classes(module: griffe.Object) -> Iterator[griffe.Class]:
    for member in module.members.values():
        if isinstance(member, griffe.Class):
            yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _classes(member)


def _is_positional(value: Any) -> bool:
    """Return whether *value* is ``field(kw_only=False)``, which griffe does not distinguish."""
    return isinstance(value, griffe.ExprCall) and any(
        isinstance(each, griffe.ExprKeyword) and each.name == "kw_only" and str(each.value) == "False"
        for each in value.arguments
    )
