"""What an API's scopes are: their names and what they mean, which include which, and the prefix that may go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config import checks
from scopeguard.errors import ConfigurationError, printable
from scopeguard.scopes import ScopeVocabulary, check_scope, is_scope

# A guard has a catalog, if an empty one; most are not read from anywhere. What reads (tomllib, pathlib, documents) and
# compares (difflib) is imported by who uses it: that is 5 ms of an import.
if TYPE_CHECKING:
    from scopeguard.config.documents import Document, DocumentOrPath

GOOGLE_PREFIX: Final = "https://www.googleapis.com/auth/"
"""What most scopes of Google's APIs begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeCatalog:
    """The scopes of an API. It grants nothing; a :class:`~scopeguard.guard.Guard` reads scopes with it.

    * *descriptions*: what each scope means, for people; an empty text where nobody wrote one.
    * *implies*: which includes which, as of :class:`~scopeguard.scopes.ScopeVocabulary`.
    * *prefix*: what may be left out at the beginning of a scope, in tokens and in requirements alike.

    ``scope in catalog`` and :meth:`describe` take a scope in either spelling. ``|`` joins two catalogs; where both
    describe a scope, the right one does. Raises :class:`ConfigurationError` for what is no scope, and for two prefixes.
    """

    descriptions: Mapping[str, str] = field(default_factory=dict)
    implies: Mapping[str, Iterable[str]] = field(default_factory=dict)
    prefix: str = ""
    _vocabulary: ScopeVocabulary = field(init=False, repr=False, compare=False)
    _by_any_name: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            raise ConfigurationError("prefix: a string, as in 'https://www.googleapis.com/auth/'")
        if self.prefix:
            check_scope(self.prefix, "prefix")
        if not isinstance(self.descriptions, Mapping):
            raise ConfigurationError('descriptions: write what each scope means, as in {"read": "Read tables"}')
        descriptions = dict(self.descriptions)
        for scope, text in descriptions.items():
            check_scope(scope, "descriptions")
            if not isinstance(text, str):
                raise ConfigurationError(f"descriptions[{scope!r}]: a text, not {type(text).__name__}")
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
        """Every scope it knows, as written: the described ones first."""
        implied = (name for scope, included in self.implies.items() for name in (scope, *included))
        return tuple(dict.fromkeys((*self.descriptions, *implied)))

    def vocabulary_of(self, issuer: ScopeVocabulary) -> ScopeVocabulary:
        """How scopes of an *issuer* are read: by its own prefix if it has one, and with the implications of both."""
        merged = self._vocabulary.with_implications(issuer.implies)
        return ScopeVocabulary(prefix=issuer.prefix or self.prefix, implies=merged.implies)

    def __contains__(self, scope: object) -> bool:
        return scope in self._by_any_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def describe(self, scope: str) -> str | None:
        """What *scope* means, ``None`` where the catalog does not say."""
        known = self._by_any_name.get(scope, scope)
        spellings = (known, *sorted(self._spellings(known)))
        return next((text for name in spellings if (text := self.descriptions.get(name))), None)

    def nearest(self, scope: str) -> str | None:
        """The known scope that looks most like *scope*, for messages."""
        from difflib import get_close_matches  # noqa: PLC0415

        near = get_close_matches(scope, self._by_any_name, n=1, cutoff=0.6)
        return near[0] if near else None

    def __or__(self, other: ScopeCatalog) -> ScopeCatalog:
        if not isinstance(other, ScopeCatalog):
            return NotImplemented
        if self.prefix and other.prefix and self.prefix != other.prefix:
            raise ConfigurationError(f"prefix: {self.prefix!r} and {other.prefix!r} cannot both be left out; keep one")
        vocabulary = self._vocabulary.with_implications(other.implies)
        described = {**self.descriptions, **{scope: text for scope, text in other.descriptions.items() if text}}
        return ScopeCatalog(
            descriptions={**dict.fromkeys(other.descriptions, ""), **described},
            implies=vocabulary.implies,
            prefix=self.prefix or other.prefix,
        )

    @classmethod
    def from_openapi(cls, document: DocumentOrPath) -> ScopeCatalog:
        """The scopes that the ``oauth2`` security schemes of an OpenAPI 3 document declare, flow by flow.

        What is no single scope, as in ``"read write"``, is left out: no token can carry it. OpenAPI knows neither
        implications nor prefixes. Raises :class:`ConfigurationError`.
        """
        from scopeguard.config.documents import read_document  # noqa: PLC0415

        found = read_document(document, "OpenAPI document")
        descriptions: dict[str, Any] = {}
        for scheme in _objects(found, "components", "securitySchemes"):
            for flow in _values(scheme.get("flows")):
                descriptions.update(_scopes_of(found, flow.get("scopes", {})))
        return cls(descriptions={name: text for name, text in descriptions.items() if is_scope(name)})

    @classmethod
    def from_google_discovery(cls, document: DocumentOrPath) -> ScopeCatalog:
        """The scopes of a Google discovery document. Where some begin with Google's prefix, it may be left out."""
        from scopeguard.config.documents import read_document  # noqa: PLC0415

        found = read_document(document, "discovery document")
        described: dict[str, Any] = {}
        for kind in _objects(found, "auth"):
            scopes = _scopes_of(found, kind.get("scopes", {}))
            described.update((name, about.get("description", "")) for name, about in scopes.items() if is_scope(name))
        prefixed = any(scope.startswith(GOOGLE_PREFIX) for scope in described)
        return cls(descriptions=described, prefix=GOOGLE_PREFIX if prefixed else "")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> ScopeCatalog:
        """The catalog in a TOML file: ``prefix``, ``[descriptions]`` and ``[implies]``, of which each may be missing.

        Raises :class:`ConfigurationError` that names the file and the key.
        """
        import tomllib  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        checks.path(path, "path", "the path of a TOML file")
        name = Path(path).name
        try:
            with Path(path).open("rb") as file:
                document = tomllib.load(file)
        except OSError as problem:
            raise ConfigurationError(f"{name}: cannot be read: {problem.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise ConfigurationError(f"{name}: not TOML: {problem}") from None
        keys = ("prefix", "descriptions", "implies")
        for key in document:
            if key not in keys:
                raise ConfigurationError(f"{name}: {printable(key)}: unknown key; known are {', '.join(keys)}")
        try:
            return cls(**document)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


def _values(value: Any) -> list[Mapping[str, Any]]:
    """The members of an object that are objects, ``x-`` extensions aside."""
    members = value.items() if isinstance(value, Mapping) else ()
    return [member for name, member in members if isinstance(member, Mapping) and not str(name).startswith("x-")]


def _objects(document: Document, *path: str) -> list[Mapping[str, Any]]:
    value: Any = document.content
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return _values(value)


def _scopes_of(document: Document, scopes: Any) -> dict[str, Any]:
    if not isinstance(scopes, Mapping):
        raise document.error("scopes: an object with a description for each scope is needed")
    return dict(scopes)
