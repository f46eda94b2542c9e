"""Compare the URI of a request with the ``htu`` of a proof: RFC 9449 §4.3, RFC 3986 §6.2.2 and §6.2.3."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_URI: Final = re.compile(r"[\x21-\x7E]+")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEBSOCKETS: Final = {"ws": "http", "wss": "https"}

PATH_CHARACTERS: Final = "/:@!$&'()*+,;=~"
"""The characters, besides those that are never escaped, that a path contains as they are (RFC 3986 §3.3)."""


def normalise_uri(uri: str, *, strict: bool = False) -> str | None:
    """Return *uri* in its normal form, without query and fragment; ``None`` if it is not an absolute http(s) URI.

    RFC 9449 §4.3: "servers SHOULD employ syntax-based normalization (Section 6.2.2 of RFC 3986) and scheme-based
    normalization (Section 6.2.3)". Scheme and host are compared in lower case, and the path in its own case. ``%2F`` is
    not a slash. ``ws`` and ``wss`` stand for ``http`` and ``https``, as in the handshake of a websocket. *strict*
    refuses a query and a fragment.
    """
    if not _URI.fullmatch(uri):
        return None
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = _WEBSOCKETS.get(parts.scheme, parts.scheme)
    if scheme not in DEFAULT_PORTS or not host or "@" in parts.netloc:
        return None
    if strict and ("?" in uri or "#" in uri):
        return None
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[scheme]:
        authority += f":{port}"
    return f"{scheme}://{authority}{normalise_path(parts.path)}"


def normalise_path(path: str) -> str:
    """Return *path* with escapes in their normal form and without dot segments; ``/`` if it is empty."""
    return _remove_dot_segments(_ESCAPE.sub(_normalise_escape, path)) or "/"


def _normalise_escape(match: re.Match[str]) -> str:
    # RFC 3986 §6.2.2.2: octets of unreserved characters are decoded. Others keep their escape, in capitals.
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _remove_dot_segments(path: str) -> str:
    """Return *path* without the segments ``.`` and ``..`` (RFC 3986 §5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
