"""Checks of the URLs in settings. They raise :class:`ConfigurationError` with the name of the setting and the fix."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from scopeguard.config.hosts import host_and_port, is_loopback
from scopeguard.errors import ConfigurationError

# RFC 3986 §2. Other characters are refused because parsers disagree about them: some read a backslash as a slash.
_URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def check_url(url: str, setting: str, *, query: bool = True, insecure: Collection[str] | None = None) -> str:
    """Return *url*. Raises :class:`ConfigurationError` unless it is an https URL without credentials and fragment.

    http is accepted for loopback addresses, whose traffic does not leave the machine, and for the hosts in *insecure*:
    ``"name:port"`` as ``insecure_hosts()`` returns them, compared exactly. ``None`` means that there is no such setting
    for *url*, so the message does not recommend it. Unless *query* is true, the URL must not have a query.
    """
    parts = check_form(url, setting, query=query)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and host_and_port(url) not in (insecure or ()):
        fix = "use https (http is for loopback addresses only)"
        if insecure is not None:
            fix = (
                "use https; for a network on which every machine is trusted, "
                f'set insecure_http_dangerously = ["{host_and_port(url)}"]'
            )
        raise ConfigurationError(f"{setting}: {url!r} is cleartext; {fix}")
    return url


def check_form(url: str, setting: str, *, query: bool = True) -> SplitResult:
    """Return the parts of *url*, with the checks of :func:`check_url` except that any host may be reached by http."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{setting}: must be a URL, a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{setting}: the value is not a URL; write it as in https://host/path") from None
    if "@" in parts.netloc or (not parts.netloc and "@" in url):  # first, because later messages show the URL
        raise ConfigurationError(f"{setting}: the URL must not contain credentials; remove the part before @")
    if not host or parts.scheme not in ("https", "http") or not _URL_CHARACTERS.fullmatch(url):
        # Without a scheme, the value may be a secret that was given in the wrong place. So it is not shown.
        shown, fix = (repr(url), "write it") if "://" in url else ("the value", "write it with its scheme,")
        raise ConfigurationError(f"{setting}: {shown} is not an https URL; {fix} as in https://host/path")
    if "#" in url or (not query and "?" in url):
        raise ConfigurationError(f"{setting}: {url!r} must not have a {'fragment' if query else 'query or fragment'}")
    return parts
