"""``scopeguard serve``: an app behind a guard, on a server, with its configuration read back to whoever started it."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import signal
import socket
import sys
from contextlib import closing
from typing import Any, Final, NoReturn

import click
import uvicorn
import waitress  # type: ignore[import-untyped]  # it comes without types

from scopeguard import asgi, wsgi
from scopeguard.checks import is_loopback
from scopeguard.cli.access_log import ASGIAccessLog, WSGIAccessLog
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.guard import Guard
from scopeguard.rules import Access, Rule
from scopeguard.scopes import AUTHENTICATED

GRACE: Final = 10
"""Seconds that requests may take to end when the server is told to stop (waitress: 5)."""


def run(target: str, *, config: str, wsgi: bool, factory: bool, host: str, port: int) -> None:
    """Serve *target* until interrupted (SIGINT, SIGTERM). Raises :class:`ConfigurationError`."""
    guard = Guard.from_file(config)
    app = load(target, factory=factory)
    check_interface(app, target, wsgi=wsgi)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {problem.strerror}") from None
    signal.signal(signal.SIGTERM, _stop)
    try:
        with listener, closing(guard):
            shown_host = f"[{host}]" if ":" in host else host
            for line in introduction(guard, target, f"http://{shown_host}:{listener.getsockname()[1]}"):
                click.echo(line, err=True)
            for line in warnings(guard, host):
                click.secho(f"warning: {line}", err=True, fg="yellow")
            (_serve_wsgi if wsgi else _serve_asgi)(app, guard, listener)
    except KeyboardInterrupt:
        pass


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


def _serve_asgi(app: Any, guard: Guard, listener: socket.socket) -> None:
    guarded = ASGIAccessLog(asgi.GuardMiddleware(app, guard=guard))
    config = uvicorn.Config(
        guarded,
        # uvicorn's own lines show query strings, of websockets too; and who a caller is, no header tells.
        access_log=False,
        log_config=None,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise SystemExit(3)  # the lifespan of the app failed, and uvicorn has said so


def _serve_wsgi(app: Any, guard: Guard, listener: socket.socket) -> None:
    guarded = WSGIAccessLog(wsgi.GuardMiddleware(app, guard=guard))
    server = waitress.create_server(guarded, sockets=[listener], ident="", clear_untrusted_proxy_headers=True)
    with closing(server):
        server.run()


def load(target: str, *, factory: bool) -> Any:
    """The app that ``module:attribute`` names. What its module raises is its own and passes through."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"{target!r}: write MODULE:APP, as in example.main:app")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise
        raise ConfigurationError(
            f"{target}: there is no module {missing.name} in the current directory or installed"
        ) from None
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"{target}: {module_name} has no {attribute}") from None
    if factory:
        found = found()
    if not callable(found):
        raise ConfigurationError(f"{target}: not an app but a {type(found).__name__}, which cannot be called")
    return found


def check_interface(app: Any, target: str, *, wsgi: bool) -> None:
    """Refuse an app that takes the arguments of the other interface: it would fail at every request."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return
    needed = sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)
    if needed == (2 if wsgi else 3):
        return
    guesses = {
        0: "is it a function that makes the app? then add --factory",
        2: "for WSGI add --wsgi",
        3: "leave out --wsgi",
    }
    wanted = "a WSGI app takes 2 arguments" if wsgi else "an ASGI app takes 3 arguments"
    raise ConfigurationError(f"{target}: {wanted}, this takes {needed}; {guesses.get(needed, 'is it an app?')}")


def introduction(guard: Guard, target: str, url: str) -> list[str]:
    """What the configuration says, as the guard understood it: one line for each issuer and each rule."""
    lines = [f"{target} on {url}, realm {guard.style.realm!r}, tokens from: {', '.join(sorted(guard.sources.methods))}"]
    for issuer in guard.issuers:
        audience = "any (dangerously)" if issuer.audiences is None else ", ".join(sorted(issuer.audiences))
        keys = issuer.jwks_file or issuer.jwks_uri or ("configured" if issuer.keys else "discovered")
        lines.append(f"  issuer {issuer.url}, audience {audience}, keys: {keys}")
    rules = () if guard.rules is None else guard.rules.all
    lines += [f"  {described(rule)}" for rule in rules]
    closed = guard.rules is not None and guard.rules.deny_unmatched
    lines.append("  everything else: denied" if closed else "  everything else: any valid token")
    return lines


def described(rule: Rule) -> str:
    """*rule* in a line."""
    methods = ",".join(sorted(rule.methods)) if rule.methods else "any method"
    if isinstance(rule.access, Access):
        access = {"public": "public, no token", "optional": "a valid token or none"}[rule.access.value]
    else:
        access = "any valid token" if rule.access == AUTHENTICATED else repr(rule.access)
    sources = f" (tokens from: {', '.join(sorted(rule.sources))})" if rule.sources else ""
    return f"{methods} {rule.path}: {access}{sources}"


def warnings(guard: Guard, host: str) -> list[str]:
    """What is allowed and may still surprise."""
    found: list[str] = []
    try:
        guard.warm()
    except AuthorityUnavailable as problem:
        found.append(f"no keys yet, and requests with a token are answered 503 until there are some: {problem}")
    rules = () if guard.rules is None else guard.rules.all
    if not any(isinstance(rule.access, Access) for rule in rules):
        found.append('nothing is public, so a health check needs a token too; public = ["/healthz"] is how to say it')
    if guard.rules is None or not guard.rules.deny_unmatched:
        found.append("no [[rules]]: any valid token opens every route, whatever its scopes")
    if not is_loopback(host):
        found.append(f"{host}: plain http; tokens that arrive here without TLS in front can be read on the way")
    return found
