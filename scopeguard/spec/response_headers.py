"""Header fields that are added to the responses of the app: the next nonce, and how long caches may keep them."""

from __future__ import annotations


def add_proof_headers(nonce: str | None, vary: str | None, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers* of a response with the next *nonce* for the client's proofs (RFC 9449 section 8.2).

    It replaces a nonce of the app, because there must be only one. The response must not be stored by a cache, which
    would give the nonce to other clients.

    *vary*: the field in which a proxy has sent the certificate. A cache must not give the response to a request with
    another certificate (RFC 9440 section 2.4).
    """
    if vary is not None:
        headers = [*headers, ("vary", vary)]
    if nonce is None:
        return headers
    kept = [(name, value) for name, value in headers if name.lower() not in ("dpop-nonce", "cache-control")]
    return [*kept, ("dpop-nonce", nonce), ("cache-control", "no-store")]


def uncached_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers* of a response that no shared cache may store.

    ``Cache-Control`` gets ``private``, and loses ``public`` and ``s-maxage``.
    """
    kept = [(name, value) for name, value in headers if name.lower() != "cache-control"]
    given = ",".join(value for name, value in headers if name.lower() == "cache-control").split(",")
    wanted = [directive for directive in map(str.strip, given) if directive]
    wanted = [d for d in wanted if d.lower() != "public" and not d.lower().startswith("s-maxage")]
    if not any(directive.lower() in ("private", "no-store") for directive in wanted):
        wanted.append("private")
    return [*kept, ("cache-control", ", ".join(wanted))]


def private_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers* of a response to a request whose URL contained a token, with two changes.

    RFC 6750 section 2.3: "Server success (2XX status) responses to these requests SHOULD contain a Cache-Control header
    with the "private" option." ``Referrer-Policy: no-referrer`` keeps the token out of the ``Referer`` of later
    requests.
    """
    kept = [(name, value) for name, value in headers if name.lower() != "referrer-policy"]
    return [*uncached_headers(kept), ("referrer-policy", "no-referrer")]
