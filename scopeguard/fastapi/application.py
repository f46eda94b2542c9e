"""Completes the OpenAPI document of apps that use ``Protected``, and audits them when they start.

FastAPI calls a dependency for each request, but does not say which app uses it or when that app starts. So the first
``Protected`` wraps two methods of the class ``FastAPI``, as instrumentation does. ``openapi()`` adds the refusals and
the scopes of all operations to the document. ``build_middleware_stack()`` runs the audit when the app starts, switches
PKCE on in Swagger UI, and adds renewed nonces, ``Cache-Control`` and ``Vary`` to responses, because FastAPI drops the
headers of a dependency if the endpoint returns a ``Response``. Both ignore apps without ``Protected``. The constructor
of ``Security`` is wrapped to check its scopes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from fastapi import FastAPI, params

from scopeguard.adapter.cors import expose_headers_in_send
from scopeguard.adapter.declarations import DeclaringDependency, Layer, refuse_instance
from scopeguard.adapter.resource_metadata import first_found
from scopeguard.asgi import (
    GUARD_KEY,
    PROOFS_KEY,
    RULE_KEY,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    add_proof_headers_in_send,
    answer_metadata,
    change_headers_in_send,
    check_at_startup,
    encode_headers,
    headers_of,
    send_response,
)
from scopeguard.audit.fastapi_routes import expand_routes, guarding_dependencies
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck, is_checked_outside
from scopeguard.config.audit import AuditMode
from scopeguard.config.checks import items
from scopeguard.core.engine import Engine
from scopeguard.core.resource_metadata import ResourceMetadata
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.request import ProofNotes
from scopeguard.rules import OPTIONAL, Rule
from scopeguard.scopes import check_scope
from scopeguard.spec.resource_metadata_url import WELL_KNOWN
from scopeguard.spec.response_headers import uncached_headers


class DocumentedDependency(Protocol):
    """The part of ``Protected`` that this module uses."""

    @property
    def guard(self) -> Guard:
        """The guard that checks tokens."""
        ...

    @property
    def scheme_names(self) -> tuple[str, ...]:
        """The names of the security schemes in the document."""
        ...

    @property
    def uses_codes(self) -> bool:
        """Whether Swagger UI can get tokens with authorization codes."""
        ...

    @property
    def forbids(self) -> bool:
        """Whether a valid token may get 403 for a reason other than the scopes in the document."""
        ...

    @property
    def responses(self) -> Mapping[int | str, dict[str, Any]]:
        """The refusals by status."""
        ...


VARY_KEY: Final = "scopeguard.fastapi.vary"
"""The key in the scope of a list of the request fields on which the response depends. Dependencies add to it."""

_STRICTEST: Final = (AuditMode.ERROR, AuditMode.WARN)
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_completed: Final[WeakKeyDictionary[FastAPI, dict[str, Any]]] = WeakKeyDictionary()
_PKCE: Final = "usePkceWithAuthorizationCodeGrant"
_WRAPPED: Final = "__scopeguard__"


def wrap_fastapi(kind: type[DeclaringDependency]) -> None:
    """Wrap the methods of ``FastAPI`` for apps with dependencies of *kind*. Further calls do nothing."""
    if hasattr(FastAPI.openapi, _WRAPPED):
        return
    document, build = FastAPI.openapi, FastAPI.build_middleware_stack

    @functools.wraps(document)
    def openapi(self: FastAPI) -> dict[str, Any]:
        return _complete_once(self, document(self), kind)

    @functools.wraps(build)
    def build_middleware_stack(self: FastAPI) -> ASGIApp:
        for item in self.user_middleware:
            refuse_instance(item.cls)
        own = vars(self).get("openapi")
        if own is not None:  # an app sets this attribute to change its document, as FastAPI recommends
            setattr(self, "openapi", lambda: _complete_once(self, own(), kind))  # noqa: B010
        _use_pkce(self, kind)
        return _StartCheckingStack(_GuardedStack(build(self), self, kind), self, kind)

    _wrap_security(kind)
    setattr(openapi, _WRAPPED, True)
    setattr(FastAPI, "openapi", openapi)  # noqa: B010 - type checkers reject an assignment to a method
    setattr(FastAPI, "build_middleware_stack", build_middleware_stack)  # noqa: B010


def _wrap_security(kind: type[DeclaringDependency]) -> None:
    """Make ``Security(protected, scopes="a.b")`` raise.

    FastAPI would read the string as a list of letters, and the route would need the scopes ``a``, ``.`` and ``b``.
    During a request, such a list looks like a correct one.
    """
    init = params.Security.__init__

    @functools.wraps(init)
    def init_and_check(self: params.Security, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        dependency: object = self.dependency
        if isinstance(dependency, kind) and self.scopes is not None:
            for scope in items(self.scopes, "Security: scopes", 'a list, as in scopes=["tables.read"]'):
                check_scope(scope, "Security: scopes")

    setattr(params.Security, "__init__", init_and_check)  # noqa: B010


def _guarding_dependencies(app: FastAPI, kind: type[DeclaringDependency]) -> list[Any]:
    """Return the dependencies of *kind* that the routes of *app* name, without those of mounted apps."""
    found: dict[int, Any] = {}
    for route in expand_routes(app.router):
        dependant = getattr(route, "dependant", None)
        if dependant is not None:
            found |= {id(dependency): dependency for dependency in guarding_dependencies(dependant)}
    return [dependency for dependency in found.values() if isinstance(dependency, kind)]


def _use_pkce(app: FastAPI, kind: type[DeclaringDependency]) -> None:
    """Let Swagger UI send a PKCE challenge with ``S256``, unless *app* sets this option itself."""
    dependencies: list[DocumentedDependency] = _guarding_dependencies(app, kind)
    if any(dependency.uses_codes for dependency in dependencies):
        app.swagger_ui_init_oauth = {_PKCE: True, **(app.swagger_ui_init_oauth or {})}


def _complete_once(app: FastAPI, schema: dict[str, Any], kind: type[DeclaringDependency]) -> dict[str, Any]:
    if _completed.get(app) is not schema:
        _complete(schema, _guarding_dependencies(app, kind), _forbidding_operations(app, kind))
        _completed[app] = schema
    return schema


def _forbidding_operations(app: FastAPI, kind: type[DeclaringDependency]) -> set[tuple[str, str]]:
    """Return the paths and methods of operations that may refuse a valid token whatever its scopes are.

    Conditions do not appear in the document, so they are read from the dependencies of the routes.
    """
    found: set[tuple[str, str]] = set()
    for route in expand_routes(app.router):
        dependant, path = getattr(route, "dependant", None), getattr(route, "path_format", None)
        if dependant is None or path is None:
            continue
        ours: list[Any] = [item for item in guarding_dependencies(dependant) if isinstance(item, kind)]
        if any(dependency.forbids for dependency in ours):
            found |= {(path, method.lower()) for method in getattr(route, "methods", None) or ()}
    return found


def _complete(schema: dict[str, Any], guarding: list[DocumentedDependency], forbidding: set[tuple[str, str]]) -> None:
    """Add the refusals to each guarded operation of *schema*, and the scopes of operations to their schemes.

    Swagger UI offers only the scopes of a scheme. *forbidding*: operations with 403 although they need no scope.
    """
    by_scheme = {name: dependency for dependency in guarding for name in dependency.scheme_names}
    schemes = schema.get("components", {}).get("securitySchemes", {})
    for path, item in schema.get("paths", {}).items():
        for method, operation in ((method, item[method]) for method in _METHODS if method in item):
            needed = [(name, scopes) for group in operation.get("security", ()) for name, scopes in group.items()]
            ours = [(name, scopes) for name, scopes in needed if name in by_scheme]
            may_forbid = (path, method) in forbidding or any(scopes for _, scopes in ours)
            for name, scopes in ours:
                catalog = by_scheme[name].guard.catalog
                for flow in schemes.get(name, {}).get("flows", {}).values():
                    for scope in scopes:
                        flow["scopes"].setdefault(scope, catalog.describe(scope) or "")
                for status, response in by_scheme[name].responses.items():
                    if status not in (403, 404) or may_forbid:
                        operation["responses"].setdefault(str(status), response)


def rule_of_middleware(guard: Guard, scope: Scope) -> Rule | None:
    """Return the rule that the middleware with *guard* has applied, if it has a mode for proofs or a policy.

    Raises :class:`ConfigurationError` if the guard has rules and no middleware has applied them.
    """
    if guard.rules is not None and (scope.get("state") or {}).get(GUARD_KEY) is not guard:
        raise ConfigurationError(
            "Protected: the rules of the guard have no effect without GuardMiddleware; add "
            "app.add_middleware(GuardMiddleware, guard=guard), or give Protected a guard without rules"
        )
    found, rule = scope.get(RULE_KEY, (None, None))
    return rule if found is guard else None


class _GuardedStack:
    """The middleware *stack* of *app*, with the additions of the guards that its routes name.

    These are the metadata of their resources, renewed nonces for proofs, and the fields for shared caches.
    """

    def __init__(self, stack: ASGIApp, app: FastAPI, kind: type[DeclaringDependency]) -> None:
        self._stack = stack
        self._app = app
        self._kind = kind
        self._documents: list[ResourceMetadata] | None = None
        self._adds_headers = self._exposes_headers = False
        self._has_optional = False
        self._with_other_fields: list[Engine] = []
        self._routes: RouteRequirements | None = None  # the documents hold it weakly

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(WELL_KNOWN):
            answer = first_found(answer_metadata(document, scope) for document in self._find())
            if answer is not None:
                await send_response(answer, encode_headers(answer.headers), scope, send)
                return
        if self._documents is None:
            self._find()
        if self._has_optional and scope["type"] == "http":
            send = _add_vary_to_response(send, scope.setdefault(VARY_KEY, []))
        if self._with_other_fields and scope["type"] == "http":
            headers = headers_of(scope)
            if any(engine.has_other_field(headers) for engine in self._with_other_fields):
                send = change_headers_in_send(send, uncached_headers)
        if self._adds_headers and scope["type"] != "lifespan":
            if self._exposes_headers and headers_of(scope).get_all("origin"):
                send = expose_headers_in_send(send)
            # Set here, because middleware between this and the dependency may copy the scope.
            send = add_proof_headers_in_send(send, scope.setdefault(PROOFS_KEY, ProofNotes()))
        await self._stack(scope, receive, send)

    def unwrap_if_unneeded(self) -> ASGIApp:
        """Return the inner stack if the guards add nothing, else this one. Call it when the app has all its routes."""
        adds = self._find() or self._adds_headers or self._has_optional or self._with_other_fields
        return self if adds else self._stack

    def _find(self) -> list[ResourceMetadata]:
        if self._documents is None:
            self._routes = RouteRequirements(self._app)
            dependencies = _guarding_dependencies(self._app, self._kind)
            engines = {engine_of(found.guard) for found in dependencies}
            self._has_optional = any(found.declare(()).access is OPTIONAL for found in dependencies)
            self._documents = [engine.metadata for engine in engines if engine.metadata is not None]
            for document in self._documents:
                document.add(self._routes)
            self._with_other_fields = [engine for engine in engines if engine.other_fields]
            adding = [engine for engine in engines if engine.adds_proof_headers]
            self._adds_headers = bool(adding)
            self._exposes_headers = any(engine.passes_preflights() for engine in adding)
        return self._documents


def _add_vary_to_response(send: Send, fields: list[str]) -> Send:
    """Return a send function that names *fields* in ``Vary``, with what the list contains by then."""

    async def send_with_vary(message: Message) -> None:
        if fields and message["type"] == "http.response.start":
            vary = (b"vary", ", ".join(dict.fromkeys(fields)).encode("ascii"))
            message = {**message, "headers": [*message.get("headers", ()), vary]}
        await send(message)

    return send_with_vary


class _StartCheckingStack:
    """The middleware *stack* of *app*, with an audit at the start if the guard of a dependency requires one."""

    def __init__(self, stack: _GuardedStack, app: FastAPI, kind: type[DeclaringDependency]) -> None:
        self.app: ASGIApp = stack
        self._stack = stack
        self._owner = app
        self._kind = kind
        self._check: StartCheck | None = None
        self._pending = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pending:
            if scope["type"] == "lifespan":
                send = send if is_checked_outside.get() else check_at_startup(self, send)
            elif GUARD_KEY in (scope.get("state") or ()):
                self._end()  # the middleware around the app runs the audit, for all apps in it
            else:
                self.run()
        await self.app(scope, receive, send)

    def run(self) -> None:
        """Run the audit once, if it is due. Raises as :meth:`StartCheck.run`."""
        if self._check is None:
            guards = [found.guard for found in _guarding_dependencies(self._owner, self._kind)]
            by_mode = {engine_of(guard).settings.audit: guard for guard in reversed(guards)}
            guard: Guard | None = next((by_mode[mode] for mode in _STRICTEST if mode in by_mode), None)
            if guard is None or _has_middleware(self._owner):
                self._end()
                return
            self._check = StartCheck(self._owner, guard, public=_documentation_paths(self._owner))
        self._check.run()
        self._end()

    def _end(self) -> None:
        """Remove this wrapper from the app."""
        self._pending = False
        if self._owner.middleware_stack is self:
            self._owner.middleware_stack = self._stack.unwrap_if_unneeded()


def _has_middleware(app: FastAPI) -> bool:
    return any(isinstance(item.cls, type) and issubclass(item.cls, Layer) for item in app.user_middleware)


def _documentation_paths(app: FastAPI) -> list[str]:
    """Return the paths of FastAPI's own pages, which stay open without middleware, as the guide says."""
    pages = (app.openapi_url, app.docs_url, app.swagger_ui_oauth2_redirect_url, app.redoc_url)
    return [page for page in pages if page and page.startswith("/")]
