"""Authorization server metadata: where it lies and whether it may be used. RFC 8414, OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from scopeguard.config.checks import canonical_host, checked_url, host_and_port, is_loopback
from scopeguard.errors import ConfigurationError
from scopeguard.spec.special_hosts import is_special
from scopeguard.spec.strict_json import MalformedJSON, parse_object


class MalformedMetadata(ValueError):
    """The document is not the metadata of this issuer, or names an endpoint that must not be called."""


class NotMetadata(MalformedMetadata):
    """The document is not the metadata of any issuer: not a JSON object, or one without an ``issuer``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the document says, as far as this project uses it. It never widens policy."""

    issuer: str
    jwks_uri: str | None
    token_endpoint: str | None
    introspection_endpoint: str | None
    raw: Mapping[str, Any] = field(repr=False)


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """The places to look, in order: RFC 8414 section 3.1 inserted, the same for OpenID, OpenID appended.

    A slash at the end of the issuer is dropped for the URL and kept for the comparison.
    """
    parts = urlsplit(issuer)
    path = parts.path.removesuffix("/")

    def at(location: str) -> str:
        return urlunsplit((parts.scheme, parts.netloc, location, "", ""))

    oauth, openid = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    return tuple(dict.fromkeys((at(oauth + path), at(openid + path), at(path + openid))))


def judge_metadata(
    document: bytes, issuer: str, internal_hosts: Collection[str] = (), insecure: Collection[str] = ()
) -> Metadata:
    """*document* as the metadata of *issuer*; :class:`MalformedMetadata` tells what is wrong with it, and
     :class:`NotMetadata` that it is nobody's.

     Checked: strict JSON object; ``issuer`` equal to *issuer* code point by code point (RFC 8414 section 3.3); every
     endpoint https, or on loopback where the issuer is as well, or at one of the hosts *insecure* (``"name:port"``, by
     http too), without credentials, and not at an address or name that is special
     (:mod:`scopeguard.spec.special_hosts`), unless it is the issuer's own, among *internal_hosts* or *insecure*.
    Not checked: whether the endpoints answer, and where their names lead; ``signed_metadata`` is ignored
    , and lists of algorithms have no effect.
    """
    try:
        members = parse_object(document)
    except MalformedJSON as error:
        raise NotMetadata(f"the metadata is {error}") from None
    named = members.get("issuer")
    if named != issuer:
        shown = repr(named) if isinstance(named, str) else type(named).__name__
        kind = MalformedMetadata if isinstance(named, str) else NotMetadata
        raise kind(
            f"the metadata names the issuer {shown[:200]}, configured is {issuer!r}; they must be equal to the letter"
        )
    return Metadata(
        issuer=issuer,
        jwks_uri=checked_endpoint(members, "jwks_uri", issuer, internal_hosts, insecure),
        token_endpoint=checked_endpoint(members, "token_endpoint", issuer, internal_hosts, insecure),
        introspection_endpoint=checked_endpoint(members, "introspection_endpoint", issuer, internal_hosts, insecure),
        raw=members,
    )


def checked_endpoint(
    members: Mapping[str, Any],
    name: str,
    issuer: str,
    internal_hosts: Collection[str] = (),
    insecure: Collection[str] = (),
) -> str | None:
    """The URL *name* of *members*, if it may be called; :class:`MalformedMetadata` if not."""
    url = members.get(name)
    if url is None:
        return None
    try:
        checked_url(url, name, insecure=insecure)
    except ConfigurationError as error:
        raise MalformedMetadata(f"in the metadata, {error}") from None
    if host_and_port(url) in insecure:
        return str(url)
    home, host = _host(issuer), _host(url)
    known = host == home or host in internal_hosts or (is_loopback(home) and is_loopback(host))
    if not known and is_special(host):
        raise MalformedMetadata(
            f"in the metadata, {name} points to an internal address ({host!r}); if that is right, configure the URL "
            "itself, or name the host in internal_hosts"
        )
    return str(url)


def _host(url: str) -> str:
    try:
        return canonical_host(urlsplit(url).hostname or "")
    except ValueError:  # an issuer need not be a URL where metadata_url is configured
        return ""
