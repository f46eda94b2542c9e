"""The client certificate of a connection whose TLS ends at the server of the app.

Only a guard that checks proofs of possession asks for it. Such a guard imported the module that reads certificates
when it was constructed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def certificate_in_scope(scope: Mapping[str, Any]) -> str | None:
    """Return the thumbprint of the certificate in the TLS extension of an ASGI *scope*, or ``None``.

    The extension has a list of PEM certificates, that of the client first. A header cannot set it.
    """
    extension = (scope.get("extensions") or {}).get("tls")
    chain = extension.get("client_cert_chain") if isinstance(extension, Mapping) else None
    first = next(iter(chain), None) if chain else None
    if not isinstance(first, str):
        return None
    from scopeguard.spec.certificate_fields import from_pem

    return from_pem(first)


def certificate_in_environ(environ: Mapping[str, Any]) -> str | None:
    """Return the thumbprint of the certificate of a WSGI request, or ``None``.

    ``SSL_CLIENT_CERT`` is PEM text from servers such as Apache. A header cannot set it, because its name does not begin
    with ``HTTP_``. gunicorn puts the socket of the connection into the environ.
    """
    from scopeguard.spec.certificate_fields import from_pem, thumbprint

    text = environ.get("SSL_CLIENT_CERT")
    if isinstance(text, str) and text:
        return from_pem(text)
    read = getattr(environ.get("gunicorn.socket"), "getpeercert", None)
    if read is None:
        return None
    with suppress(OSError, ValueError):  # the handshake failed, or the connection is closed
        der = read(binary_form=True)
        return thumbprint(der) if der else None
    return None
