"""What the presets have in common: checks of their arguments, and shapes of claims that several providers share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scopeguard.config.checks import strings
from scopeguard.config.introspection import Introspection, Validation
from scopeguard.config.issuer import ScopeClaim, ScopeForm
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.errors import ConfigurationError

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

_LONGEST: Final = 255  # characters of any argument that has a form
_LONGEST_NAME: Final = 2048  # characters of an audience and the like, which may be a long URL
_LABEL: Final = r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?"
# The last label has a letter: an IP address is no host of a provider.
_HOST: Final = re.compile(
    rf"(?:{_LABEL}\.)+(?=[0-9\-]*[a-z]){_LABEL}(?::[0-9]{{1,5}})?|localhost(?::[0-9]{{1,5}})?|{_LABEL}:[0-9]{{1,5}}"
)
IP_ADDRESS: Final = r"(?:[0-9]+\.){3}[0-9]+(?::[0-9]+)?"
_URL: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?"
)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~@\-]+")
_EMAIL: Final = re.compile(r"[^\s@/:]+@[^\s@/:]+\.[^\s@/:]+")
_NUMBER: Final = re.compile(r"[0-9]{1,40}")


@dataclass(frozen=True, slots=True)
class Form:
    """What an argument looks like. *wanted* and *example* are for messages; *folded*: capitals mean the same."""

    pattern: re.Pattern[str]
    wanted: str
    example: str
    folded: bool = False


GUID: Final = Form(
    re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "a GUID",
    "8eaef023-2b34-4da1-9baa-8bc8c9d6a490",
    folded=True,
)
EMAIL: Final = Form(_EMAIL, "an e-mail address", "ingest@acme-prod.iam.gserviceaccount.com")
NUMBER: Final = Form(_NUMBER, "a number", "258000000000000456")
AWS_REGION: Final = Form(re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-[0-9]+"), "a region of AWS", "eu-central-1", folded=True)
ORGANIZATION: Final = Form(re.compile(r"org_[0-9A-Za-z]+"), "an organization id", "org_01H945H0YD4F97JN9MATX7BYAG")
# RFC 6749 allows any visible characters. The providers use these; a path, a query and an address are mistakes.
CLIENT_ID: Final = Form(
    re.compile(rf"(?!{IP_ADDRESS}$)[A-Za-z0-9][A-Za-z0-9._~+=:@|\-]*"), "a client id", "57cbishk4j24pabc1234567890"
)


def fit(value: str, setting: str, form: Form) -> str:
    """*value* if it has *form*, in lower case where capitals mean the same; else :class:`ConfigurationError`."""
    given = value.lower() if form.folded and isinstance(value, str) else value
    if not isinstance(given, str) or len(given) > _LONGEST or not form.pattern.fullmatch(given):
        raise misfit(value, setting, form.wanted, form.example)
    return given


def fit_all(values: str | Iterable[str], setting: str, form: Form) -> tuple[str, ...]:
    """*values*, at least one, each of *form*."""
    return tuple(fit(value, setting, form) for value in some(values, setting))


def misfit(value: object, setting: str, wanted: str, example: str) -> ConfigurationError:
    """The error for *value*, of which it names only the kind: what was written in the wrong place may be a secret."""
    return ConfigurationError(f"{setting}: {wanted} is needed, as in {example!r}, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """What *value* looks like, for messages."""
    if not isinstance(value, str):
        return f"a value of type {type(value).__name__}"
    kinds = (
        ("an empty string", not value),
        ("a URL with a path", bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/]*/.+", value))),
        ("a URL", "://" in value),
        ("a GUID", bool(GUID.pattern.fullmatch(value.lower()))),
        ("an e-mail address", bool(_EMAIL.fullmatch(value))),
        ("a path", "/" in value),
        ("a number", bool(_NUMBER.fullmatch(value))),
        ("a host name", "." in value and bool(_HOST.fullmatch(value.lower()))),
    )
    return next((kind for kind, fits in kinds if fits), "another kind of text")


def host(value: str, setting: str, example: str) -> str:
    """The host name that *value* is, or that it is the URL of, in lower case; with a port where it has one.

    A name without a domain is refused: a tenant is not a host.
    """
    name = value.lower().removeprefix("https://").removesuffix("/") if isinstance(value, str) else ""
    if len(name) > _LONGEST or not _HOST.fullmatch(name) or not _is_port(name.partition(":")[2]):
        raise misfit(value, setting, "a host name with its domain, and no path", example)
    return name


def _is_port(text: str) -> bool:
    return not text or 0 < int(text) < 65536


def subdomain(value: str, setting: str, form: Form, domain: str) -> str:
    """The name of *form* that *value* is, or that stands before *domain* in the host name or URL that *value* is."""
    given = (
        value.lower().removeprefix("https://").removesuffix("/").removesuffix(domain) if isinstance(value, str) else ""
    )
    if len(given) > _LONGEST or not form.pattern.fullmatch(given):
        raise misfit(value, setting, form.wanted, form.example)
    return given


def url(value: str, setting: str, example: str) -> str:
    """*value*, exactly as it is, if it is a URL without credentials, query and fragment, and no place of metadata.

    Whether it may be ``http`` is for :class:`~scopeguard.Issuer` to say: it knows whether anything is fetched from it.
    """
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise misfit(value, setting, "a URL", example)
    if "/.well-known/" in value:
        raise ConfigurationError(
            f"{setting}: needs the issuer itself, as in {example!r}; leave out /.well-known/ and the rest"
        )
    return value


def segment(value: str, setting: str, example: str) -> str:
    """*value* if it can stand between two slashes of a URL as it is."""
    if not isinstance(value, str) or len(value) > _LONGEST or not _SEGMENT.fullmatch(value) or not value.strip("."):
        raise misfit(value, setting, "a name of letters, digits and . _ ~ @ - only", example)
    return value


def not_swapped(domain: str, audience: tuple[str, ...], setting: str, suffixes: tuple[str, ...]) -> None:
    """Refuse an *audience* that is a host of the provider (*suffixes*) where *domain* is none, or one that is a bare
    host name where *domain* was written as a URL: the two were exchanged, or cannot be told apart."""
    if host(domain, setting, "").endswith(suffixes):
        return
    for identifier in audience:
        bare = _HOST.fullmatch(identifier.lower()) is not None
        name = identifier.lower().removeprefix("https://").rstrip("/")
        if name.endswith(suffixes) or (bare and "://" in domain):
            raise ConfigurationError(
                f"audience: needs the identifier of this API, not a host name, and {setting} is not a host of the "
                f"provider; if the two are swapped, exchange them, else write {setting} without https://"
            )


def some(values: str | Iterable[str], setting: str) -> tuple[str, ...]:
    """*values*, at least one, none of them empty."""
    if isinstance(values, Mapping):  # its keys could be taken for a list
        raise misfit(values, setting, "a string or a list of strings", "value")
    found = strings(values, setting)
    if not found or not all(found):
        raise ConfigurationError(f"{setting}: name at least one, and none that is empty")
    if not all(value.isprintable() and value == value.strip() and len(value) <= _LONGEST_NAME for value in found):
        raise ConfigurationError(
            f"{setting}: needs text without control characters and spaces at its ends, of at most {_LONGEST_NAME} "
            "characters"
        )
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
    checked_introspection(introspection)
    return {"validate": Validation.AUTO, "introspection": introspection, "opaque_prefixes": prefixes}


def checked_introspection(introspection: Introspection) -> Introspection:
    """*introspection*, if it is that."""
    if not isinstance(introspection, Introspection):
        raise ConfigurationError(
            f"introspection: needs an Introspection, as in Introspection(client_id=..., client_secret=...), not "
            f"{kind_of(introspection)}"
        )
    return introspection
