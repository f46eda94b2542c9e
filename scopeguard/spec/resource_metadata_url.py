"""OAuth 2.0 Protected Resource Metadata (RFC 9728): the place of the document."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


def metadata_url(resource: str) -> str:
    """Return the URL of the metadata of *resource*.

    RFC 9728 section 3.1: "If the resource identifier value contains a path or query component, any terminating slash
    (/) following the host component MUST be removed before inserting /.well-known/ and the well-known URI path suffix
    between the host component and the path and/or query components."
    """
    parts = urlsplit(resource)
    path = "" if parts.path == "/" else parts.path
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{path}{query}"


def metadata_paths(resource: str) -> tuple[tuple[str, str], ...]:
    """Return the paths and queries at which the metadata of *resource* is served.

    The first is the one that RFC 9728 defines. The second is the well-known path alone, which clients try when the
    challenge names no URL (MCP 2026-07-28). A path that ends in a slash is served without it, too.
    """
    parts = urlsplit(resource)
    path = "" if parts.path == "/" else parts.path
    found = [(WELL_KNOWN + path, parts.query), (WELL_KNOWN, ""), (WELL_KNOWN + path.rstrip("/"), parts.query)]
    return tuple(dict.fromkeys(found))
