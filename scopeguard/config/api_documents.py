"""Read API documents from files: JSON, and YAML if PyYAML is installed.

An object with the same member twice is refused, because parsers differ in which one they use. Nothing is fetched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from scopeguard.config import checks
from scopeguard.config.suggestions import nearest
from scopeguard.edge.files import read_bytes
from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command
from scopeguard.log_values import printable

DocumentOrPath: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]

_YAML_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Document:
    """The *content* of an API document, and its *name* in messages: the file name or a title."""

    name: str
    content: Mapping[str, Any] = field(repr=False)

    def error(self, problem: str) -> ConfigurationError:
        """Return an error about *problem* with the name of the document."""
        return ConfigurationError(f"{self.name}: {problem}")

    def refuse_unknown(self, given: Iterable[Any], known: Iterable[str], place: str) -> None:
        """Raise :class:`ConfigurationError` if *given*, the members of *place*, has one that is not *known*.

        Extensions (``x-...``) are allowed.
        """
        names = tuple(known)
        for name in given:
            if name not in names and not (isinstance(name, str) and name.startswith("x-")):
                near = _nearest(name, names)
                hint = f"did you mean {near}?" if near else f"it has {', '.join(names)} and x- extensions"
                raise self.error(f"{place}: {printable(name)} is not a member of this object; {hint}")

    def refuse_misspelled(self, given: Iterable[Any], decisive: Iterable[str], place: str) -> None:
        """Raise :class:`ConfigurationError` if *given*, the members of *place*, has a near miss of a *decisive* one.

        Other members are ignored, because documents often have members of other tools and versions.
        """
        names = tuple(decisive)
        for name in given:
            near = None if name in names else _nearest(name, names)
            if near and not str(name).startswith("x-"):
                raise self.error(f"{place}: {printable(name)} is not a member of this object; did you mean {near}?")


# The same few members are in thousands of objects of a document.
@lru_cache(maxsize=512, typed=True)
def _nearest(name: Any, names: tuple[str, ...]) -> str | None:
    folded = {known.lower(): known for known in names}
    near = nearest(str(name).lower(), folded, similarity=0.8)
    return None if near is None else folded[near]


def read_document(source: DocumentOrPath, name: str = "document") -> Document:
    """Return *source*, a parsed document with the name *name* or the path of a file, as a :class:`Document`.

    A file named ``*.yaml`` or ``*.yml`` is read as YAML, and every other file as JSON. Its size is not checked. Raises
    :class:`ConfigurationError`, with the name of the file, if it cannot be read or parsed, is not an object, or has an
    object with the same member twice.
    """
    if isinstance(source, Mapping):
        return Document(name, source)
    checks.path(source, "document", "a document or the path of one")
    try:
        path = Path(source)
        data = read_bytes(path)
    except OSError as problem:
        raise ConfigurationError(f"{printable(source)}: cannot be read: {problem.strerror}") from None
    content = _yaml(path.name, data) if path.suffix.lower() in _YAML_SUFFIXES else _json(path.name, data)
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{path.name}: the document must be an object, not {type(content).__name__}")
    return Document(path.name, content)


class _Twice(Exception):
    """An object has the same member twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _json(name: str, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except _Twice as twice:
        raise ConfigurationError(f"{name}: an object has the member {printable(str(twice))} twice") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"{name}: must be JSON in UTF-8 (YAML is read from files named .yaml or .yml)"
        ) from None


def _yaml(name: str, data: bytes) -> Any:
    try:
        import yaml  # noqa: PLC0415 - PyYAML is an extra
    except ImportError:
        raise ConfigurationError(
            f"{name}: reading YAML needs PyYAML; {install_command('yaml')}; or convert the document to JSON"
        ) from None

    # CSafeLoader is missing if PyYAML was built without libyaml.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
    try:
        node = loader.get_single_node()
        _refuse_repeated(node)
        return None if node is None else loader.construct_document(node)
    except _Twice as twice:
        raise ConfigurationError(f"{name}: an object has the member {printable(str(twice))} twice") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigurationError(f"{name}: not YAML") from None
    finally:
        loader.dispose()


def _refuse_repeated(root: Any) -> None:
    """Raise :class:`_Twice` if a mapping of a YAML document has the same member twice, apart from the merge key."""
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in seen or not isinstance(value := getattr(node, "value", None), list):
            continue
        seen.add(id(node))  # an alias is the same node again
        pairs = [item for item in value if isinstance(item, tuple)]
        todo += [child for pair in pairs for child in pair] or value
        names = [key.value for key, _ in pairs if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str)]
        if len(set(names)) != len(names):
            raise _Twice(next(name for name in names if names.count(name) > 1))
