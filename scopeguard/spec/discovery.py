"""Locate and check authorization server metadata: RFC 8414, OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from scopeguard.config.hosts import canonical_host, host_and_port, is_loopback
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError
from scopeguard.spec.special_hosts import is_special
from scopeguard.spec.strict_json import MalformedJSON, parse_object

METADATA_LIFETIME: Final = 3600.0
"""Seconds for which the client and policy decisions use metadata; ``KeySetPolicy.max_ttl`` says it for issuers."""


class MalformedMetadata(ValueError):
    """The document is not the metadata of this issuer, or names an endpoint that must not be called."""


class NotMetadata(MalformedMetadata):
    """The document is not metadata at all: it is not a JSON object, or has no ``issuer``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metadata:
    """The members of the metadata that are used, and the whole document as ``raw``. It never widens the policy."""

    issuer: str
    jwks_uri: str | None
    token_endpoint: str | None
    introspection_endpoint: str | None
    raw: Mapping[str, Any] = field(repr=False)


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return the URLs where the metadata of *issuer* may be, in the order to try them.

    The first two have ``oauth-authorization-server`` and ``openid-configuration`` between host and path (RFC 8414
    sections 3.1 and 5), and the last one has ``openid-configuration`` after the path (OpenID Connect Discovery section
    4).
    """
    parts = urlsplit(issuer)
    # RFC 8414 section 3.1: "If the issuer identifier value contains a path component, any terminating "/" MUST be
    # removed before inserting "/.well-known/" and the well-known URI suffix between the host component and the path
    # component." OpenID Connect Discovery section 4.1: "If the Issuer value contains a path component, any terminating
    # / MUST be removed before appending /.well-known/openid-configuration."
    path = parts.path.removesuffix("/")

    def at(location: str) -> str:
        return urlunsplit((parts.scheme, parts.netloc, location, "", ""))

    oauth, openid = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    return tuple(dict.fromkeys((at(oauth + path), at(openid + path), at(path + openid))))


def parse_metadata(
    document: bytes, issuer: str, internal_hosts: Collection[str] = (), insecure: Collection[str] = ()
) -> Metadata:
    """Parse *document* as the metadata of *issuer*.

    Checked: it is a strict JSON object; ``issuer`` equals *issuer* code point by code point; every endpoint is https
    and has no credentials; no endpoint has a special address or name (:mod:`scopeguard.spec.special_hosts`). http is
    allowed on loopback and for a ``"name:port"`` in *insecure*. A special host is allowed if it is the issuer's own, is
    in *internal_hosts* or *insecure*, or is loopback like the issuer's.

    NOT checked: whether the endpoints answer, and which addresses their names resolve to. ``signed_metadata`` and lists
    of algorithms are ignored.

    Raises :class:`MalformedMetadata` with a description of the problem, or :class:`NotMetadata` if the document is not
    metadata at all.
    """
    try:
        members = parse_object(document)
    except MalformedJSON as error:
        raise NotMetadata(f"the metadata is {error}") from None
    found = members.get("issuer")
    # RFC 8414 section 3.3: "The "issuer" value returned MUST be identical to the authorization server's issuer
    # identifier value into which the well-known URI string was inserted to create the URL used to retrieve the
    # metadata. If these values are not identical, the data contained in the response MUST NOT be used."
    if found != issuer:
        shown = repr(found) if isinstance(found, str) else type(found).__name__
        kind = MalformedMetadata if isinstance(found, str) else NotMetadata
        raise kind(
            f"the issuer in the metadata is {shown[:200]}, but {issuer!r} is configured; they must be exactly equal"
        )
    return Metadata(
        issuer=issuer,
        jwks_uri=check_endpoint(members, "jwks_uri", issuer, internal_hosts, insecure),
        token_endpoint=check_endpoint(members, "token_endpoint", issuer, internal_hosts, insecure),
        introspection_endpoint=check_endpoint(members, "introspection_endpoint", issuer, internal_hosts, insecure),
        raw=members,
    )


def check_endpoint(
    members: Mapping[str, Any],
    name: str,
    issuer: str,
    internal_hosts: Collection[str],
    insecure: Collection[str],
) -> str | None:
    """Return the URL that *members* have under *name*, or ``None`` if there is none.

    *issuer*, *internal_hosts* and *insecure* are as for :func:`parse_metadata`. Raises :class:`MalformedMetadata` if
    the URL must not be called.
    """
    url = members.get(name)
    if url is None:
        return None
    try:
        check_url(url, name, insecure=insecure)
    except ConfigurationError as error:
        raise MalformedMetadata(f"in the metadata, {error}") from None
    if host_and_port(url) in insecure:
        return str(url)
    issuer_host, host = _host(issuer), _host(url)
    allowed = host == issuer_host or host in internal_hosts or (is_loopback(issuer_host) and is_loopback(host))
    if not allowed and is_special(host):
        raise MalformedMetadata(
            f"in the metadata, {name} points to an internal address ({host!r}); if that is intended, configure the URL "
            "itself, or add the host to internal_hosts"
        )
    return str(url)


def _host(url: str) -> str:
    try:
        return canonical_host(urlsplit(url).hostname or "")
    except ValueError:  # an issuer need not be a URL if metadata_url is configured
        return ""
