"""The forms of the arguments of presets, the checks of them, and claims that several providers have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scopeguard.config.checks import strings
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import ScopeClaim, ScopeForm
from scopeguard.config.machines import SUBJECT_IS_CLIENT, MachineSign
from scopeguard.config.validation import Validation
from scopeguard.errors import ConfigurationError

SCOPE: Final = ScopeClaim("scope")
SCOPE_ANY_FORM: Final = ScopeClaim("scope", ScopeForm.SPACE_OR_LIST)
SCOPE_LIST: Final = ScopeClaim("scope", ScopeForm.LIST)
SCP_LIST: Final = ScopeClaim("scp", ScopeForm.LIST)
PERMISSIONS: Final = ScopeClaim("permissions", ScopeForm.LIST)

RFC9068_OR_JWT: Final = ("at+jwt", "JWT")
JWT_OR_NONE: Final = ("JWT", None)
ANY_JWT: Final = ("at+jwt", "JWT", None)

# Signs by which machines and users are distinguished. The first sign that applies to a token decides.
ALWAYS_A_MACHINE: Final = (MachineSign(machine=True),)
ALWAYS_A_USER: Final = (MachineSign(machine=False),)
CLIENT_OR_USER: Final = (SUBJECT_IS_CLIENT, MachineSign(machine=False, present={"sub": ".+"}))
NO_SUBJECT_NO_USER: Final = (MachineSign(machine=True, absent=("sub",)), MachineSign(machine=False))
GOOGLE_ACCOUNT: Final = MachineSign(machine=True, present={"email": r".+@.+\.gserviceaccount\.com"})

GOOGLE_SCOPES: Final = "https://www.googleapis.com/auth/"

_LONGEST: Final = 255  # characters of an argument with a form
_LONGEST_NAME: Final = 2048  # characters of an audience and the like, which may be a long URL
LABEL: Final = r"[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?"  # of a host name (RFC 1123 section 2.1)
# The last label has a letter, because no provider has an IP address as its host.
_HOST: Final = re.compile(
    rf"(?:{LABEL}\.)+(?=[0-9\-]*[a-z]){LABEL}(?::[0-9]{{1,5}})?|localhost(?::[0-9]{{1,5}})?|{LABEL}:[0-9]{{1,5}}"
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
    """The form of an argument. *description* and *example* are for messages. *ignore_case*: convert to lower case."""

    pattern: re.Pattern[str]
    description: str
    example: str
    ignore_case: bool = False


GUID: Final = Form(
    re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "a GUID",
    "8eaef023-2b34-4da1-9baa-8bc8c9d6a490",
    ignore_case=True,
)
EMAIL: Final = Form(_EMAIL, "an e-mail address", "ingest@acme-prod.iam.gserviceaccount.com")
NUMBER: Final = Form(_NUMBER, "a number", "258000000000000456")
AWS_REGION: Final = Form(
    re.compile(r"[a-z]{2,3}(?:-[a-z]+)+-[0-9]+"), "a region of AWS", "eu-central-1", ignore_case=True
)
ORGANIZATION: Final = Form(re.compile(r"org_[0-9A-Za-z]+"), "an organization id", "org_01H945H0YD4F97JN9MATX7BYAG")
# RFC 6749 allows any visible characters, but the providers use only these. A path, a query or an address is a mistake.
CLIENT_ID: Final = Form(
    re.compile(rf"(?!{IP_ADDRESS}$)[A-Za-z0-9][A-Za-z0-9._~+=:@|\-]*"), "a client id", "57cbishk4j24pabc1234567890"
)


def fit(value: str, setting: str, form: Form) -> str:
    """Return *value* if it has *form*, else raise :class:`ConfigurationError`."""
    text = value.lower() if form.ignore_case and isinstance(value, str) else value
    if not isinstance(text, str) or len(text) > _LONGEST or not form.pattern.fullmatch(text):
        raise form_error(value, setting, form.description, form.example)
    return text


def fit_all(values: str | Iterable[str], setting: str, form: Form) -> tuple[str, ...]:
    """Return *values* as a tuple, if there is at least one and each has *form*."""
    return tuple(fit(value, setting, form) for value in nonempty(values, setting))


def form_error(value: object, setting: str, description: str, example: str) -> ConfigurationError:
    """Return the error for *value*. It names the kind of value only, because a misplaced value may be a secret."""
    return ConfigurationError(f"{setting}: {description} is needed, as in {example!r}, not {kind_of(value)}")


def kind_of(value: object) -> str:
    """Return the kind of *value* for messages, such as ``"a URL"``."""
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
    """Return *value*, a host name or its https URL, as a host name in lower case, with its port if it has one.

    A name without a domain is refused, because it is probably the name of a tenant.
    """
    name = value.lower().removeprefix("https://").removesuffix("/") if isinstance(value, str) else ""
    if len(name) > _LONGEST or not _HOST.fullmatch(name) or not _is_port(name.partition(":")[2]):
        raise form_error(value, setting, "a host name with its domain, and no path", example)
    return name


def _is_port(text: str) -> bool:
    return not text or 0 < int(text) < 65536


def subdomain(value: str, setting: str, form: Form, domain: str) -> str:
    """Return the name in *value*, which is the name, its host name in *domain*, or the https URL of that host."""
    name = (
        value.lower().removeprefix("https://").removesuffix("/").removesuffix(domain) if isinstance(value, str) else ""
    )
    if len(name) > _LONGEST or not form.pattern.fullmatch(name):
        raise form_error(value, setting, form.description, form.example)
    return name


def url(value: str, setting: str, example: str) -> str:
    """Return *value* unchanged, if it is a URL without credentials, query, fragment and ``/.well-known/``.

    :class:`~scopeguard.Issuer` checks whether it may be ``http``.
    """
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise form_error(value, setting, "a URL", example)
    if "/.well-known/" in value:
        raise ConfigurationError(
            f"{setting}: needs the issuer itself, as in {example!r}; leave out /.well-known/ and everything after it"
        )
    return value


def segment(value: str, setting: str, example: str) -> str:
    """Return *value* if it can be a path segment of a URL without encoding."""
    if not isinstance(value, str) or len(value) > _LONGEST or not _SEGMENT.fullmatch(value) or not value.strip("."):
        raise form_error(value, setting, "a name of letters, digits and . _ ~ @ - only", example)
    return value


def check_not_swapped(domain: str, audience: tuple[str, ...], setting: str, suffixes: tuple[str, ...]) -> None:
    """Raise :class:`ConfigurationError` if *domain* and *audience* seem to be swapped.

    That is so if *domain* is not a host of the provider (it has none of *suffixes*), and an audience is one, or is a
    host name while *domain* is a URL.
    """
    if host(domain, setting, "").endswith(suffixes):
        return
    for identifier in audience:
        bare = _HOST.fullmatch(identifier.lower()) is not None
        name = identifier.lower().removeprefix("https://").rstrip("/")
        if name.endswith(suffixes) or (bare and "://" in domain):
            raise ConfigurationError(
                f"audience: needs the identifier of this API, not a host name, and {setting} is not a host of the "
                f"provider; swap the two, or, if they are correct, write {setting} without https://"
            )


def nonempty(values: str | Iterable[str], setting: str) -> tuple[str, ...]:
    """Return *values* as a tuple, if there is at least one and none is empty."""
    if isinstance(values, Mapping):  # iterating it would give its keys
        raise form_error(values, setting, "a string or a list of strings", "value")
    found = strings(values, setting)
    if not found or not all(found):
        raise ConfigurationError(f"{setting}: must have at least one value, and none may be empty")
    if not all(value.isprintable() and value == value.strip() and len(value) <= _LONGEST_NAME for value in found):
        raise ConfigurationError(
            f"{setting}: needs text without control characters and spaces at its ends, of at most {_LONGEST_NAME} "
            "characters"
        )
    return found


def binding_settings(audience: str | Iterable[str] | None, client_ids: str | Iterable[str] | None) -> dict[str, Any]:
    """Return settings that bind tokens to this API: by ``aud``, or without it by the clients that may call."""
    if (audience is None) == (client_ids is None):
        raise ConfigurationError("audience, client_ids: give exactly one; client_ids is for tokens without an audience")
    if audience is not None:
        return {"audience": nonempty(audience, "audience")}
    return {"audience": nonempty(client_ids or (), "client_ids"), "audience_claims": ("client_id",)}


def also_introspect(introspection: Introspection | None, *prefixes: str) -> dict[str, Any]:
    """Return settings that verify JWTs locally, and introspect other tokens (with *prefixes*) if *introspection* is
    given."""
    if introspection is None:
        return {}
    check_introspection(introspection)
    return {"validate": Validation.AUTO, "introspection": introspection, "opaque_prefixes": prefixes}


def check_introspection(introspection: Introspection) -> Introspection:
    """Return *introspection*. Raise :class:`ConfigurationError` if it is not an ``Introspection``."""
    if not isinstance(introspection, Introspection):
        raise ConfigurationError(
            f"introspection: needs an Introspection, as in Introspection(client_id=..., client_secret=...), not "
            f"{kind_of(introspection)}"
        )
    return introspection
