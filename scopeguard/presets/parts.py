"""What the presets have in common: checks of their arguments, and shapes of claims that several providers share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from scopeguard.checks import strings
from scopeguard.config import ScopeClaim, ScopeForm
from scopeguard.errors import ConfigurationError
from scopeguard.introspection import Introspection, Validation
from scopeguard.machines import SUBJECT_IS_CLIENT, MachineSign

SCOPE: Final = ScopeClaim("scope")
SCOPE_ANY_FORM: Final = ScopeClaim("scope", ScopeForm.SPACE_OR_LIST)
SCOPE_LIST: Final = ScopeClaim("scope", ScopeForm.LIST)
SCP_LIST: Final = ScopeClaim("scp", ScopeForm.LIST)
PERMISSIONS: Final = ScopeClaim("permissions", ScopeForm.LIST)

RFC9068_OR_JWT: Final = ("at+jwt", "JWT")
JWT_OR_NONE: Final = ("JWT", None)
ANY_JWT: Final = ("at+jwt", "JWT", None)

# What tells a machine from a user (MachineSign); the first that a token shows decides.
ALWAYS_A_MACHINE: Final = (MachineSign(machine=True),)
ALWAYS_A_USER: Final = (MachineSign(machine=False),)
CLIENT_OR_USER: Final = (SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": ".+"}))
NO_SUBJECT_NO_USER: Final = (MachineSign(machine=True, absent=("sub",)), MachineSign(machine=False))
GOOGLE_ACCOUNT: Final = MachineSign(machine=True, present={"email": r".+@.+\.gserviceaccount\.com"})

GOOGLE_SCOPES: Final = "https://www.googleapis.com/auth/"

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~@\-]+")


def host(value: str, setting: str) -> str:
    """*value* if it is the name of a host, without scheme and path: it becomes a part of URLs."""
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ConfigurationError(f"{setting}: the name of a host alone, without https:// and without a slash")
    return value


def segment(value: str, setting: str) -> str:
    """*value* if it can stand between two slashes of a URL as it is."""
    if not isinstance(value, str) or not _SEGMENT.fullmatch(value) or not value.strip("."):
        raise ConfigurationError(f"{setting}: letters, digits and . _ ~ @ - only; it becomes a part of a URL")
    return value


def some(values: str | Iterable[str], setting: str) -> tuple[str, ...]:
    """*values*, at least one, none of them empty."""
    found = strings(values, setting)
    if not found or not all(found):
        raise ConfigurationError(f"{setting}: name at least one, and none that is empty")
    return found


def bound(
    audience: str | Iterable[str] | None, client_ids: str | Iterable[str] | None, *, claim: str = "client_id"
) -> dict[str, Any]:
    """The binding to this API: by ``aud``, or, where tokens have none, by the clients that may call."""
    if (audience is None) == (client_ids is None):
        raise ConfigurationError("audience and client_ids: give exactly one; the other is for tokens without the first")
    if audience is not None:
        return {"audience": some(audience, "audience")}
    return {"audience": some(client_ids or (), "client_ids"), "audience_claims": (claim,)}


def asked(introspection: Introspection | None, *prefixes: str) -> dict[str, Any]:
    """JWTs judged here, and, with *introspection*, all other tokens (of *prefixes*) by asking."""
    if introspection is None:
        return {}
    return {"validate": Validation.AUTO, "introspection": introspection, "opaque_prefixes": prefixes}
