"""The challenges in a response of the API, for the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scopeguard.spec.challenge_parser import ParsedChallenge, parse_challenges

if TYPE_CHECKING:
    import httpx
    import httpx2


def required_scopes(response: httpx.Response | httpx2.Response) -> tuple[str, ...]:
    """Return the scopes in the ``insufficient_scope`` challenges of *response* (RFC 6750 section 3).

    The result is empty if there are none. After ``response.raise_for_status()``, use
    ``required_scopes(error.response)``.
    """
    values = (challenge.parameters.get("scope", "") for challenge in challenges(response, "insufficient_scope"))
    return tuple(dict.fromkeys(scope for value in values for scope in value.split()))


def challenges(response: Any, error: str) -> list[ParsedChallenge]:
    """Return the Bearer and DPoP challenges of *response* with the error code *error*."""
    found = parse_challenges(response.headers.get_list("www-authenticate"))
    return [c for c in found if c.scheme in ("bearer", "dpop") and c.parameters.get("error") == error]
