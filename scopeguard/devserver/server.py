"""Serve the development authorization server on a port, in the foreground or for a ``with`` block."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from scopeguard.config.checks import flag, function, instance, text, whole
from scopeguard.config.hosts import is_loopback, join_host_port
from scopeguard.devserver.app import create_app
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.start_page import WARNING
from scopeguard.edge.listener import listen
from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command

if TYPE_CHECKING:
    from scopeguard.devserver.uvicorn_server import Serving

log: Final = logging.getLogger("scopeguard.devserver")


def serve(
    authority: Authority,
    host: str = "127.0.0.1",
    port: int = 9000,
    *,
    control: bool = True,
    allow_remote: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve *authority* on *host* and *port* until interrupted.

    An issuer that is only a path is completed with ``http://host:port``.

    * *control*: whether there is a control endpoint. It serves requests from this machine only.
    * *allow_remote*: permit an address that is not loopback. Every machine that reaches the port can then get tokens,
      and the issuer must be a complete URL.
    * *ready*: called when the port accepts connections and the issuer is complete.

    Raises :class:`ConfigurationError` for an address that is not loopback without *allow_remote*, and
    :class:`OSError` if the port is taken.
    """
    check_address(authority, host, allow_remote=allow_remote)
    flag(control, "control")
    _check_port(port)
    function(ready, "ready", "a function without arguments")
    with listen(host, port) as listener:
        serving = _build_server(authority, listener, host, control=control)
        ready()
        serving.run()


class DevServer:
    """Serves *authority* on a loopback port, in a thread, for the length of a ``with`` block.

    ``port=0`` takes a free port. Inside the block, the port accepts connections and ``url`` is the complete issuer.
    ``authority.requests`` records the requests. Raises :class:`ConfigurationError` for an address that is not loopback.
    """

    def __init__(self, authority: Authority, *, host: str = "127.0.0.1", port: int = 0, control: bool = True) -> None:
        check_address(authority, host, allow_remote=False)
        flag(control, "control")
        _check_port(port)
        self.authority = authority
        self._host = host
        self._port = port
        self._control = control
        self._serving: Serving | None = None

    @property
    def url(self) -> str:
        """The issuer, as in tokens and metadata."""
        return self.authority.issuer

    def __enter__(self) -> Self:
        listener = listen(self._host, self._port)
        self._port = listener.getsockname()[1]  # entering the block again takes the same port
        try:
            serving = _build_server(self.authority, listener, self._host, control=self._control)
        except BaseException:
            listener.close()
            raise
        self._serving = serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.__exit__(kind, error, trace)


def check_address(authority: Authority, host: str, *, allow_remote: bool) -> None:
    """Raise :class:`ConfigurationError` if serving *authority* on *host* is not allowed or would not work."""
    instance(authority, Authority, "authority", "an Authority")
    text(host, "host")
    flag(allow_remote, "allow_remote")
    if not allow_remote and not is_loopback(host):
        raise ConfigurationError(
            f"host: {host!r} is not a loopback address, and every machine that reaches this server can get tokens; "
            "use 127.0.0.1, or, if that is what you want, allow_remote=True (--allow-remote)"
        )
    if not authority.is_settled and not is_loopback(host):
        raise ConfigurationError(
            f"issuer: other machines cannot reach this server as {host!r}; set the URL that they use, as in "
            "http://devserver:9000 (--issuer)"
        )


def _check_port(port: int) -> None:
    if whole(port, "port", least=0) > 65535:
        raise ConfigurationError("port: must be 65535 at most")


def _build_server(authority: Authority, listener: socket.socket, host: str, *, control: bool) -> Serving:
    try:
        from scopeguard.devserver.uvicorn_server import Serving  # noqa: PLC0415 - uvicorn is an extra
    except ImportError:
        raise ConfigurationError(f"devserver: needs uvicorn; {install_command('devserver')}") from None
    port = listener.getsockname()[1]
    authority.settle(f"http://{join_host_port(host, port)}")
    log.warning(
        "%s: %s can get tokens from this authorization server: %s",
        WARNING,
        "every user of this machine" if is_loopback(host) else "every machine that reaches it",
        authority.issuer,
    )
    return Serving(create_app(authority, control=control), listener)
