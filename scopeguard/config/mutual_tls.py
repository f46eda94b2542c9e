"""Certificate-bound tokens (RFC 8705): where the certificate of the client is found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from scopeguard.config.checks import Converted, converted, field_name, member, strings
from scopeguard.config.trusted_proxies import Proxies
from scopeguard.errors import ConfigurationError


class CertificateSource(StrEnum):
    """Where the certificate of the client is found. The format of a header field is part of the setting."""

    CONNECTION = "connection"  # the server ends TLS: the ASGI extension "tls", SSL_CLIENT_CERT, the socket of gunicorn
    CLIENT_CERT = "client-cert"  # Client-Cert (RFC 9440): the DER as a byte sequence, ":base64:"
    NGINX = "nginx"  # $ssl_client_escaped_cert: a PEM certificate, percent-encoded
    ENVOY = "envoy"  # X-Forwarded-Client-Cert: the last element, with Cert or Hash
    HAPROXY = "haproxy"  # %[ssl_c_der,base64]: the DER in base64


FIELDS: Final = {
    CertificateSource.CLIENT_CERT: "client-cert",
    CertificateSource.NGINX: "x-ssl-client-cert",
    CertificateSource.ENVOY: "x-forwarded-client-cert",
    CertificateSource.HAPROXY: "x-ssl-client-der",
}
"""The header field of each format unless *header* names another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualTLS:
    """Accept tokens that are bound to a client certificate (``x5t#S256``): ``Guard(..., mutual_tls=MutualTLS())``.

    * *source*: where the certificate is found: a :class:`CertificateSource` or its value. A certificate of the
      connection itself is used before one in a header field.
    * *header*: the name of the field, instead of the usual one of the format.
    * *trusted_proxies*: the senders whose field is read: IP addresses, networks, or ``"unix"``. Required for every
      source but the connection. The proxy must remove the field from the requests of its clients, in every spelling:
      WSGI servers treat ``Client_Cert`` as ``Client-Cert``.

    Checked: the SHA-256 digest of the certificate is the one to which the token is bound. NOT checked: the chain of the
    certificate, and its dates. The server or proxy that ends TLS proves that the client holds its key; RFC 8705 section
    6.2 lets a resource server leave the rest out.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
    """

    source: Converted[str, CertificateSource] = converted(CertificateSource.CONNECTION)
    header: str | None = None
    trusted_proxies: Converted[Iterable[str], tuple[str, ...]] = converted(())
    _proxies: Proxies = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        source = member(CertificateSource, self.source, "mutual_tls: source")
        object.__setattr__(self, "source", source)
        senders = strings(self.trusted_proxies, "mutual_tls: trusted_proxies")
        object.__setattr__(self, "trusted_proxies", senders)
        object.__setattr__(self, "_proxies", Proxies(senders, "mutual_tls: trusted_proxies"))
        if source is CertificateSource.CONNECTION:
            for name, is_set in (("header", self.header is not None), ("trusted_proxies", bool(senders))):
                if is_set:
                    raise ConfigurationError(f"mutual_tls: {name}: has no effect with source 'connection'; remove it")
            return
        if not senders:
            raise ConfigurationError(
                f"mutual_tls: trusted_proxies: must name the proxies that send the certificate, as in "
                f'MutualTLS(source="{source.value}", trusted_proxies=["10.0.0.0/8"])'
            )
        header = FIELDS[source] if self.header is None else self.header
        object.__setattr__(self, "header", field_name(header, "mutual_tls: header"))

    def trusts(self, sender: str | None) -> bool:
        """Return whether the field is read from *sender*. ``None`` is a Unix socket."""
        return self._proxies.trusts(sender)
