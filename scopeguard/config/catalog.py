"""The scopes of an API: names, descriptions, implications, and a prefix that may be left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config import checks
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.suggestions import nearest
from scopeguard.errors import ConfigurationError
from scopeguard.log_values import printable
from scopeguard.scopes import check_scope, is_scope

# Every guard has a catalog, and most are not read from a file. So the modules that only some functions need (tomllib,
# pathlib, difflib, documents) are imported in these functions, which saves 5 ms.
if TYPE_CHECKING:
    from scopeguard.config.api_documents import Document, DocumentOrPath

GOOGLE_PREFIX: Final = "https://www.googleapis.com/auth/"
"""The prefix of most scopes of Google's APIs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeCatalog:
    """The scopes of an API. A catalog grants nothing, and does not restrict which scopes a route may require.

    * ``descriptions``: the scopes, each with a text about its meaning, which may be empty.
    * ``implies``: scopes that include others, as in ``{"write": ["read"]}``; see
      :class:`~scopeguard.config.implied_scopes.ScopeVocabulary`.
    * ``prefix``: a prefix that may be left out of every scope, in tokens and in requirements.

    ``scope in catalog`` and :meth:`describe` accept a scope with or without the prefix. ``|`` joins two catalogs. If
    both describe a scope, the description of the right one is used. Raises :class:`ConfigurationError` for a text that
    is not a scope, and for joined catalogs with different prefixes.
    """

    descriptions: Mapping[str, str] = field(default_factory=dict)
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    prefix: str = ""
    _vocabulary: ScopeVocabulary = field(init=False, repr=False, compare=False)
    _by_any_name: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            raise ConfigurationError(
                f"prefix: must be a string, as in 'https://www.googleapis.com/auth/', not {type(self.prefix).__name__}"
            )
        if self.prefix:
            check_scope(self.prefix, "prefix")
        if not isinstance(self.descriptions, Mapping):
            raise ConfigurationError(
                'descriptions: must be a table of scopes and texts, as in {"read": "Read tables"}, '
                f"not {type(self.descriptions).__name__}"
            )
        descriptions = dict(self.descriptions)
        for scope, text in descriptions.items():
            check_scope(scope, "descriptions")
            if not isinstance(text, str):
                raise ConfigurationError(f"descriptions[{scope!r}]: must be a string, not {type(text).__name__}")
        vocabulary = ScopeVocabulary(prefix=self.prefix, implies=self.implies)
        object.__setattr__(self, "descriptions", MappingProxyType(descriptions))
        object.__setattr__(self, "implies", MappingProxyType(dict(vocabulary.implies)))
        object.__setattr__(self, "_vocabulary", vocabulary)
        by_any_name = {name: scope for scope in reversed(self.names) for name in self._spellings(scope)}
        object.__setattr__(self, "_by_any_name", by_any_name)

    def _spellings(self, scope: str) -> frozenset[str]:
        return ScopeVocabulary(prefix=self.prefix).effective((scope,)) | {scope, scope.removeprefix(self.prefix)}

    @property
    def names(self) -> tuple[str, ...]:
        """Every scope of the catalog, as it was written. Scopes with a description come first."""
        implied = (name for scope, included in self.implies.items() for name in (scope, *included))
        return tuple(dict.fromkeys((*self.descriptions, *implied)))

    def vocabulary_of(self, issuer: ScopeVocabulary) -> ScopeVocabulary:
        """Return the vocabulary for tokens of an *issuer*: with its own prefix if it has one, and all implications."""
        merged = self._vocabulary.with_implications(issuer.implies)
        return ScopeVocabulary(prefix=issuer.prefix or self.prefix, implies=merged.implies)

    def __contains__(self, scope: object) -> bool:
        return scope in self._by_any_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def describe(self, scope: str) -> str | None:
        """Return the description of *scope*, or ``None`` if there is none."""
        known = self._by_any_name.get(scope, scope)
        spellings = (known, *sorted(self._spellings(known)))
        return next((text for name in spellings if (text := self.descriptions.get(name))), None)

    def nearest(self, scope: str) -> str | None:
        """Return the scope of the catalog that looks most like *scope*, or ``None``. It is for messages."""
        return nearest(scope, self._by_any_name)

    def __or__(self, other: ScopeCatalog) -> ScopeCatalog:
        if not isinstance(other, ScopeCatalog):
            return NotImplemented
        if self.prefix and other.prefix and self.prefix != other.prefix:
            raise ConfigurationError(
                f"prefix: the catalogs have different prefixes, {self.prefix!r} and {other.prefix!r}; keep one"
            )
        vocabulary = self._vocabulary.with_implications(other.implies)
        described = {**self.descriptions, **{scope: text for scope, text in other.descriptions.items() if text}}
        return ScopeCatalog(
            descriptions={**dict.fromkeys(other.descriptions, ""), **described},
            implies=vocabulary.implies,
            prefix=self.prefix or other.prefix,
        )

    @classmethod
    def from_openapi(cls, document: DocumentOrPath) -> ScopeCatalog:
        """Return the scopes that the ``oauth2`` security schemes of an OpenAPI 3 document declare.

        *document*: a parsed document, or the path of a file. Texts that are not a single scope (``"read write"``) are
        left out, because no token can contain them. OpenAPI has neither implications nor prefixes. Raises
        :class:`ConfigurationError` if the file cannot be read or ``scopes`` is not an object.
        """
        from scopeguard.config.api_documents import read_document  # noqa: PLC0415

        found = read_document(document, "OpenAPI document")
        descriptions: dict[str, Any] = {}
        for scheme in _objects(found, "components", "securitySchemes"):
            for flow in _values(scheme.get("flows")):
                descriptions.update(_scopes_of(found, flow.get("scopes", {})))
        return cls(descriptions={name: text for name, text in descriptions.items() if is_scope(name)})

    @classmethod
    def from_google_discovery(cls, document: DocumentOrPath) -> ScopeCatalog:
        """Return the scopes of a Google discovery document.

        *document*: a parsed document, or the path of a file. If a scope begins with :data:`GOOGLE_PREFIX`, that is the
        prefix of the catalog. Raises :class:`ConfigurationError` if the file cannot be read or ``scopes`` is not an
        object.
        """
        from scopeguard.config.api_documents import read_document  # noqa: PLC0415

        found = read_document(document, "discovery document")
        described: dict[str, Any] = {}
        for kind in _objects(found, "auth"):
            scopes = _scopes_of(found, kind.get("scopes", {}))
            described.update((name, about.get("description", "")) for name, about in scopes.items() if is_scope(name))
        prefixed = any(scope.startswith(GOOGLE_PREFIX) for scope in described)
        return cls(descriptions=described, prefix=GOOGLE_PREFIX if prefixed else "")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> ScopeCatalog:
        """Return the catalog in a TOML file: ``prefix``, ``[descriptions]`` and ``[implies]``, all of them optional.

        Raises :class:`ConfigurationError`, with the names of the file and the key, if the file cannot be read, is not
        TOML, or has another key.
        """
        import tomllib  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        checks.path(path, "path", "the path of a TOML file")
        name = Path(path).name
        try:
            from scopeguard.edge.files import open_regular  # noqa: PLC0415

            with open_regular(path) as file:
                document = tomllib.load(file)
        except OSError as problem:
            raise ConfigurationError(f"{name}: cannot be read: {problem.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise ConfigurationError(f"{name}: not TOML: {problem}") from None
        keys = ("prefix", "descriptions", "implies")
        for key in document:
            if key not in keys:
                raise ConfigurationError(f"{name}: {printable(key)}: unknown key; use one of {', '.join(keys)}")
        try:
            return cls(**document)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


def _values(value: Any) -> list[Mapping[str, Any]]:
    """Return the members of *value* that are objects, without ``x-`` extensions."""
    members = value.items() if isinstance(value, Mapping) else ()
    return [member for name, member in members if isinstance(member, Mapping) and not str(name).startswith("x-")]


def _objects(document: Document, *path: str) -> list[Mapping[str, Any]]:
    value: Any = document.content
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return _values(value)


def _scopes_of(document: Document, scopes: Any) -> dict[str, Any]:
    if not isinstance(scopes, Mapping):
        raise document.error(
            f"scopes: must be an object with a description for each scope, not {type(scopes).__name__}"
        )
    return dict(scopes)
