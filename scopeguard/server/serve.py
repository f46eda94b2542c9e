"""``scopeguard serve`` and ``authorize``: run an app, or answers for a proxy, behind a guard on a server."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import click

from scopeguard import asgi, wsgi
from scopeguard.asgi import ASGIApp
from scopeguard.config.hosts import join_host_port
from scopeguard.config.suggestions import nearest
from scopeguard.edge.listener import listen, unix_listener
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard
from scopeguard.mcp import McpMiddleware
from scopeguard.rules.prefix_removal import check_root_path
from scopeguard.server import authorize
from scopeguard.server.access_log import AccessLog, ASGIAccessLog, DiagnosticFormatter, Format, WSGIAccessLog, note
from scopeguard.server.forwarded_fields import ASGIForwarded, Proxies, WSGIForwarded
from scopeguard.server.readyz import ASGIReadyz, Probe, WSGIReadyz
from scopeguard.server.reload import NOT_RELOADED, ASGISwitch, Reloader, Switch, WSGISwitch
from scopeguard.server.servers import serve_asgi, serve_wsgi
from scopeguard.server.summary import fetch_keys, introduction, warnings
from scopeguard.server.supervisor import Supervisor
from scopeguard.wsgi import WSGIApp

log: Final = logging.getLogger("scopeguard.serve")

_BACKLOG: Final = 2048
_PAUSE: Final = 0.1  # seconds between two rounds of ending waiting requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line.

    ``uds`` replaces ``host`` and ``port``. ``threads`` (WSGI only) and ``connections`` apply to each worker. With
    ``authorize``, ``target`` is only a name, and the server answers a proxy instead of running an app. ``grace``
    is in seconds. Raises :class:`ConfigurationError` for a wrong option.
    """

    target: str
    config: str
    wsgi: bool
    factory: bool
    host: str
    port: int
    uds: str | None
    workers: int
    threads: int
    grace: int
    connections: int
    access_log: Format
    log_subjects: bool
    trusted_proxies: tuple[str, ...]
    root_path: str | None = None
    readyz: str | None = None
    authorize: authorize.Settings | None = None

    def __post_init__(self) -> None:
        check_root_path(self.root_path)
        if self.readyz is not None and (not self.readyz.startswith("/") or "?" in self.readyz):
            raise ConfigurationError(f"--readyz: must be a path, as in /readyz, not {self.readyz!r}")
        if self.workers > 1 and not hasattr(os, "fork"):
            raise ConfigurationError("--workers: this system cannot fork; start several servers instead")
        if self.uds is not None and not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError("--uds: this system has no Unix sockets; use --host and --port")


def run(options: Options) -> None:
    """Serve until SIGINT or SIGTERM. Raises :class:`ConfigurationError` for wrong options or a wrong configuration."""
    server = _Serving(options)
    with _listener(options) as (listener, url):
        for line in introduction(server.guard, options.target, url, options.config):
            _print(options, line)
        for line in warnings(server.guard, None if options.uds else options.host):
            log.warning("%s", line)
        if options.workers == 1:
            signal.signal(signal.SIGTERM, _stop)
            with contextlib.suppress(KeyboardInterrupt):
                server.work(listener, lambda: log.info("ready"))
        else:
            Supervisor(
                count=options.workers,
                work=partial(server.work, listener),
                reload=server.reload,
                listener=listener,
                grace=options.grace,
            ).run()


def _print(options: Options, line: str) -> None:
    """Print *line* of the configuration, or log it if the log is JSON."""
    if options.access_log is Format.JSON:
        log.info("%s", line.strip())
    else:
        click.echo(line, err=True)


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


class _Serving:
    """The state of a serving process. It is created before the workers, so that all have the same configuration."""

    def __init__(self, options: Options) -> None:
        self._options = options
        _log_to_stderr(options)  # reading the configuration may log warnings
        self._proxies = Proxies(options.trusted_proxies)
        self.guard = self._read()
        # Several workers load the app themselves, because its threads and connections would not survive the fork.
        self._app = self._load() if options.workers == 1 else None
        self._log = AccessLog(options.access_log, subjects=options.log_subjects)

    def _read(self) -> Guard:
        guard = Guard.from_file(self._options.config, on_decision=note)
        if guard.mcp is not None and self._options.wsgi:
            raise ConfigurationError("[mcp]: an MCP server is an ASGI app; leave --wsgi out")
        if self._options.authorize is not None:
            authorize.check_guard(guard)
        return guard

    def _load(self) -> Any:
        options = self._options
        if options.authorize is not None:
            return authorize.answer
        app = load(options.target, factory=options.factory)
        check_interface(app, options.target, wsgi=options.wsgi)
        return app

    def _protect(self, middleware: Any, app: Any, guard: Guard) -> Any:
        if guard.mcp is not None:
            middleware = McpMiddleware
        return middleware(app, guard=guard, root_path=self._options.root_path)

    def reload(self) -> bool:
        """Read the configuration again in the parent process, for new workers. Return whether it is valid."""
        try:
            self.guard = self._read()
        except ConfigurationError as problem:
            log.error(NOT_RELOADED, problem)  # noqa: TRY400 - the message is complete; a traceback would hide it
            return False
        except Exception as bug:  # must not stop the workers
            log.exception(NOT_RELOADED, type(bug).__name__)
            return False
        return True

    def work(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve on *listener*, and call *ready* when the server accepts requests."""
        options = self._options
        app = self._load() if self._app is None else self._app
        for line in fetch_keys(self.guard):
            log.warning("%s", line)
        if options.wsgi:
            wsgi_switch = WSGISwitch(self.guard, partial(self._protect, wsgi.GuardMiddleware, app))
            Reloader(wsgi_switch, self._read).start()
            wsgi_app: WSGIApp = WSGIForwarded(
                WSGIAccessLog(wsgi_switch, self._log), self._proxies, unix=options.uds is not None
            )
            if options.readyz is not None:
                wsgi_app = WSGIReadyz(wsgi_app, options.readyz, Probe(wsgi_switch))
            serve_wsgi(
                wsgi_app,
                listener,
                threads=options.threads,
                grace=options.grace,
                connections=options.connections,
                ready=ready,
                on_shutdown=partial(_end_waits, wsgi_switch),
            )
        else:
            asgi_switch = ASGISwitch(self.guard, partial(self._protect, asgi.GuardMiddleware, app))
            Reloader(asgi_switch, self._read).start()
            asgi_app: ASGIApp = ASGIForwarded(ASGIAccessLog(asgi_switch, self._log), self._proxies)
            if options.authorize is not None:
                asgi_app = authorize.ProxyRequests(asgi_app, options.authorize)
            if options.readyz is not None:
                asgi_app = ASGIReadyz(asgi_app, options.readyz, Probe(asgi_switch))
            serve_asgi(
                asgi_app,
                listener,
                grace=options.grace,
                connections=options.connections,
                ready=ready,
                on_shutdown=partial(_end_waits, asgi_switch),
            )


def _end_waits(switch: Switch[Any]) -> None:
    """Answer requests that wait for an authorization server with 503 from now on, so that they end.

    Otherwise they would delay the shutdown until their time limits.
    """

    def work() -> None:
        while True:
            switch.guard.stop_waiting()
            time.sleep(_PAUSE)

    threading.Thread(target=work, name="scopeguard-ending", daemon=True).start()


def _log_to_stderr(options: Options) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiagnosticFormatter(options.access_log, pid=options.workers > 1))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


@contextmanager
def _listener(options: Options) -> Iterator[tuple[socket.socket, str]]:
    """Open the listening socket, and yield it with its URL."""
    if options.uds is not None:
        with contextlib.ExitStack() as stack:
            try:
                listener = stack.enter_context(unix_listener(options.uds, backlog=_BACKLOG))
            except OSError as problem:
                reason = problem.strerror or problem
                raise ConfigurationError(f"--uds: cannot listen on {options.uds}: {reason}") from None
            yield listener, f"unix:{options.uds}"
        return
    host = options.host
    try:
        listener = listen(host, options.port, backlog=_BACKLOG)
    except OSError as problem:
        raise ConfigurationError(f"cannot listen on {host} port {options.port}: {problem.strerror}") from None
    with listener:
        yield listener, f"http://{join_host_port(host, listener.getsockname()[1])}"


def load(target: str, *, factory: bool) -> Any:
    """Return the app at ``module:attribute``. Exceptions that its module raises are not caught.

    Raises :class:`ConfigurationError` if there is no such module or attribute, or if it is not callable.
    """
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
            near = nearest(name, dir(found))
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigurationError(f"{target}: {module_name} has no attribute {attribute}{hint}") from None
    if factory:
        found = found()
    if not callable(found):
        raise ConfigurationError(f"{target}: must be an app, not {type(found).__name__}, which is not callable")
    return found


def check_interface(app: Any, target: str, *, wsgi: bool) -> None:
    """Raise :class:`ConfigurationError` if *app* has the signature of the other interface."""
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
    hints = {
        0: "is it a function that makes the app? then add --factory",
        2: "for WSGI add --wsgi",
        3: "leave out --wsgi",
    }
    expected = "a WSGI app takes 2 arguments" if wsgi else "an ASGI app takes 3 arguments"
    raise ConfigurationError(f"{target}: {expected}, this takes {needed}; {hints.get(needed, 'is it an app?')}")
