"""The protected resource: its identifier and the settings of its metadata (RFC 9728)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from scopeguard.config.checks import Converted, converted, flag, instance, mapping, strings, text, whole
from scopeguard.config.urls import check_form
from scopeguard.errors import ConfigurationError

# RFC 5646 in its usual extent: "en", "pt-BR", "zh-Hant-TW".
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class Resource:
    """The protected resource that a guard stands in front of: one identifier for validation and for metadata.

    * *url*: the resource identifier (RFC 8707, RFC 9728): the https URL of the API, as clients know it, with its path
      and without a fragment. It is the audience of every issuer that has no ``audience`` of its own, the ``resource``
      in the metadata, and the source of the metadata's own URL. It never comes from a request.
    * *name*: a name for people. *names*: by language, as in ``{"it": "Tabelle"}``.
    * *documentation*, *policy_uri*, *tos_uri*: URLs of pages for developers and users.
    * *scopes*: the scopes in ``scopes_supported``. Default: the scopes that the rules, decorators, dependencies and
      contracts in force require. *hidden_scopes* are required and not listed.
    * *authorization_servers*: the issuer identifiers that are listed. Default: the issuers of the guard. Needed for
      issuers that a resolver finds.
    * *jwks_uri*: the URL of the keys of this resource, not of the authorization server.
    * *signing_algorithms*: the algorithms by which the API signs responses (``resource_signing_alg_values_supported``).
    * *signing_key*: a private key, as PEM text or a JWK, with which the metadata is signed as well
      (``signed_metadata``). *signing_algorithm*, *signing_key_id*: its algorithm and its ``kid``.
    * *max_age*: the seconds for which clients may cache the metadata.
    * *serve_metadata*: whether the metadata is served and named in challenges.
    * *audience_differs*: allow issuers whose ``audience`` does not contain *url*, because their authorization server
      writes another identifier into ``aud``.

    Not checked here: that the URL is https; the guard checks that, because it has ``insecure_http_dangerously``. Raises
    :class:`ConfigurationError`. Warns about a query in *url* (RFC 9728 section 1.2: "SHOULD NOT").
    """

    url: str
    name: str | None = field(default=None, kw_only=True)
    names: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    documentation: str | None = field(default=None, kw_only=True)
    policy_uri: str | None = field(default=None, kw_only=True)
    tos_uri: str | None = field(default=None, kw_only=True)
    scopes: Converted[Iterable[str] | None, tuple[str, ...] | None] = field(default=converted(None), kw_only=True)
    hidden_scopes: Converted[Iterable[str], tuple[str, ...]] = field(default=converted(()), kw_only=True)
    authorization_servers: Converted[Iterable[str] | None, tuple[str, ...] | None] = field(
        default=converted(None), kw_only=True
    )
    jwks_uri: str | None = field(default=None, kw_only=True)
    signing_algorithms: Converted[Iterable[str], tuple[str, ...]] = field(default=converted(()), kw_only=True)
    signing_key: str | Mapping[str, Any] | None = field(default=None, repr=False, kw_only=True)
    signing_algorithm: str = field(default="ES256", kw_only=True)
    signing_key_id: str | None = field(default=None, kw_only=True)
    max_age: int = field(default=3600, kw_only=True)
    serve_metadata: bool = field(default=True, kw_only=True)
    audience_differs: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        text(self.url, "resource", empty=False)
        parts = check_form(self.url, "resource")
        if parts.query:
            warnings.warn(
                "resource: RFC 9728 section 1.2 advises against a query in a resource identifier; use a path",
                stacklevel=3,
            )
        for name in ("name", "signing_key_id"):
            if getattr(self, name) is not None:
                text(getattr(self, name), f"resource: {name}", empty=False)
        text(self.signing_algorithm, "resource: signing_algorithm", empty=False)
        for name in ("documentation", "policy_uri", "tos_uri", "jwks_uri"):
            if getattr(self, name) is not None:
                text(getattr(self, name), f"resource: {name}", empty=False)
                check_form(getattr(self, name), f"resource: {name}")
        object.__setattr__(self, "names", MappingProxyType(_check_names(self.names)))
        for name in ("scopes", "hidden_scopes", "authorization_servers", "signing_algorithms"):
            value = getattr(self, name)
            if value is not None or name not in ("scopes", "authorization_servers"):
                object.__setattr__(self, name, strings(value, f"resource: {name}", empty=False))
        if "none" in self.signing_algorithms:
            # RFC 9728 section 2: "The value none MUST NOT be included."
            raise ConfigurationError("resource: signing_algorithms: 'none' must not be included")
        if self.signing_key is not None:
            instance(self.signing_key, (str, Mapping), "resource: signing_key", "PEM text or a JWK")
            if isinstance(self.signing_key, str):
                text(self.signing_key, "resource: signing_key", empty=False)
        whole(self.max_age, "resource: max_age", least=0)
        flag(self.serve_metadata, "resource: serve_metadata")
        flag(self.audience_differs, "resource: audience_differs")

    def warn_of_keys_of(self, key_sets: Collection[str]) -> None:
        """Warn if ``jwks_uri`` is one of *key_sets*, which are those of an issuer."""
        if self.jwks_uri in key_sets:
            warnings.warn(
                "resource: jwks_uri is the key set of an issuer; RFC 9728 section 2 means the keys of the resource "
                "itself, with which it signs responses",
                stacklevel=5,
            )


def _check_names(names: object) -> dict[str, str]:
    checked = dict(mapping(names, "resource: names"))
    for language, name in checked.items():
        text(name, f"resource: names[{language!r}]", empty=False)
        if not _LANGUAGE.fullmatch(language):
            raise ConfigurationError(f'resource: names: {language!r} is not a language tag such as "it" or "pt-BR"')
    return checked
