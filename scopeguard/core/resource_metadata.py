"""The metadata of a guard's resource (RFC 9728), collected from the settings and the routes behind its adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet

from scopeguard.config.dpop import DPoP
from scopeguard.config.resource import Resource
from scopeguard.config.token_sources import TokenSource
from scopeguard.rules import Rule, Rules
from scopeguard.spec.challenge import Response
from scopeguard.spec.resource_metadata import (
    NOT_FOUND,
    MetadataResponse,
    build_metadata,
    parse_signing_key,
    sign_metadata,
)
from scopeguard.spec.resource_metadata_url import WELL_KNOWN, metadata_paths

_BELOW = f"{WELL_KNOWN}/"


class GuardedRoutes(Protocol):
    """The routes behind one adapter, with their requirements and token sources."""

    rules: Rules

    def declared_rules(self) -> Iterable[Rule]:
        """Return the declarations of decorators and dependencies as rules."""
        ...


class ResourceMetadata:
    """The document of one resource, served without a token at the paths that belong to its identifier.

    ``scopes_supported`` lists the scopes that the routes of all adapters require. Adapters are added when they are
    constructed, and their routes are read at the first request after that, when the app is complete.
    """

    __slots__ = (
        "_binds_certificates",
        "_dpop",
        "_issuers",
        "_key",
        "_methods",
        "_paths",
        "_resource",
        "_response",
        "_routes",
        "_rules",
    )

    def __init__(
        self,
        resource: Resource,
        issuers: Iterable[str],
        methods: Iterable[TokenSource],
        rules: Rules | None,
        dpop: DPoP | None = None,
        *,
        binds_certificates: bool = False,
    ) -> None:
        self._resource = resource
        self._issuers = tuple(issuers)
        self._methods = frozenset(methods)
        self._rules = rules
        self._dpop = dpop
        self._binds_certificates = binds_certificates
        self._key = parse_signing_key(resource)
        self._paths = frozenset(metadata_paths(resource.url))
        self._routes: WeakSet[GuardedRoutes] = WeakSet()
        self._response: MetadataResponse | None = None

    def add(self, routes: GuardedRoutes) -> None:
        """Include the requirements of *routes*, which are held weakly."""
        self._routes.add(routes)
        self._response = None

    def answer(
        self, method: str, path: str, query: str = "", *, if_none_match: str = "", is_preflight: bool = False
    ) -> Response | None:
        """Return the response, or ``None`` if *path* is not below the well-known prefix of RFC 9728.

        *path* is the whole path of the URL, and *query* its query without the question mark. *is_preflight*: the
        request has ``Access-Control-Request-Method``.
        """
        if path != WELL_KNOWN and not path.startswith(_BELOW):
            return None
        if (path, query) not in self._paths and (path, "") not in self._paths:
            return NOT_FOUND
        response = self._response
        if response is None:
            response = self._response = self._build()
        return response.answer(method, if_none_match=if_none_match, is_preflight=is_preflight)

    def _build(self) -> MetadataResponse:
        routes = list(self._routes)
        given = [*([] if self._rules is None else [self._rules]), *(one.rules for one in routes)]
        rules = [rule for each in given for rule in each.all]
        for one in routes:
            rules += one.declared_rules()
        requirements = [rule.requirement for rule in rules if rule.requirement is not None]
        methods = self._methods.union(*(rule.sources or () for rule in rules))
        members = build_metadata(
            self._resource,
            self._issuers,
            methods,
            requirements,
            self._dpop,
            binds_certificates=self._binds_certificates,
        )
        return MetadataResponse(
            members if self._key is None else sign_metadata(members, self._key), self._resource.max_age
        )
