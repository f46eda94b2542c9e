"""Advice about failed exchanges with an authorization server. Does no I/O."""

from __future__ import annotations

from typing import Final

from scopeguard.errors import AuthorityUnavailable
from scopeguard.reasons import Reason

# The words of an error message, in lower case, and the fix. The first match decides.
_BY_PROBLEM: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("certificate has expired",), "renew the certificate of the server"),
    (("certificate is not yet valid",), "correct the clock of this machine"),
    (("hostname mismatch", "ip address mismatch"), "use a host name in the URL that the server's certificate contains"),
    (
        ("unable to get local issuer", "self-signed", "self signed", "certificate_verify_failed"),
        "set ca_file in [transport] to the certificates of the private authority that issued the server's certificate",
    ),
    (("wrong_version_number", "ssl:", "ssl."), "check that the server speaks TLS 1.2 or newer at this port"),
    (
        ("name or service", "not known", "name resolution", "nodename", "no address", "does not resolve"),
        "correct the host name, or make this machine able to resolve it",
    ),
    (("looked up in time",), "check the name servers of this machine"),
    (("refused",), "start the server, or correct the port; in a container, 127.0.0.1 is the container itself"),
    (("unreachable", "no route"), "allow this machine to connect to the host, or set proxy in [transport]"),
    (("must be exactly equal",), "set url to the issuer in the metadata, if that is your authorization server"),
    (("internal address",), "add the host to internal_hosts if that is intended"),
    (("without a usable key",), "have the authorization server publish an RSA, EC or Ed25519 signing key"),
    (("content type",), "correct the URL, or the content type that the server sends"),
    (("no metadata at",), "correct url, or set jwks_uri or metadata_url"),
    (("names no jwks_uri",), "set jwks_uri"),
    (("no introspection_endpoint",), "set introspection.endpoint, if the server can introspect"),
    (("introspection.auth",), "set introspection.auth to a method that the server supports"),
    (("bearer_token",), "look into the function or the file of bearer_token"),
    (("jwks_bearer_file",), "put one token into the file, and nothing else"),
    (("larger than",), "check that the URL leads to the right document; key_set.max_bytes raises the limit"),
)
_BY_STATUS: Final = {
    401: "the server requires credentials; set jwks_bearer_file if it takes a bearer token, or another URL",
    403: "the server forbids the request; check the network rules in front of it, and the credentials",
    404: "correct the URL: there is no such document",
    405: "correct the URL: the server does not take such requests there",
    429: "the server limits the rate of requests; try again later",
}


def advise(outage: AuthorityUnavailable) -> str:
    """Return what to do about *outage*."""
    if outage.reason is Reason.AUTHORITY_TIMED_OUT:
        return (
            "allow this machine to connect to the host, or set proxy in [transport]; if the server is slow, raise "
            "key_set.timeout"
        )
    problem = outage.detail.get("problem", "").lower()
    for words, fix in _BY_PROBLEM:
        if any(word in problem for word in words):
            return fix
    status = outage.detail.get("status", "")
    if status.isdigit():
        if int(status) in _BY_STATUS:
            return _BY_STATUS[int(status)]
        if 300 <= int(status) < 400:
            return "set the URL that the redirect leads to; redirects are not followed"
        if int(status) >= 500:
            return "look into the log of the authorization server, or of the gateway in front of it"
    return "check that the URL leads to the authorization server, and not to a proxy or a login page"


def describe(outage: AuthorityUnavailable) -> str:
    """Return what went wrong as one line, with the reason code of *outage* at the end."""
    details = [value if name == "problem" else f"{name} {value}" for name, value in reversed(outage.detail.items())]
    return f"{', '.join(details)} ({outage.reason.value})" if details else outage.reason.value
