"""Checks of settings: each returns the value, or raises :class:`ConfigurationError` naming the setting and the fix."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from scopeguard.errors import ConfigurationError

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")
Given_contra = TypeVar("Given_contra", contravariant=True)
Kept_co = TypeVar("Kept_co", covariant=True)

# RFC 3986 section 2. A backslash is a slash to some readers of URLs and a part of the host to others.
_URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*:[0-9a-f:.]*")
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9\-]+")


class Converted(Protocol[Given_contra, Kept_co]):
    """The type of a setting that is given as one thing and read back as another: ``Converted[str, Validation]`` takes
    ``"auto"`` and gives ``Validation.AUTO``.

    For type checkers, which know it as a descriptor. At run time there is none: ``__post_init__`` puts what is read
    back in the place of what was given.
    """

    def __get__(self, instance: object, owner: type[object] | None = None, /) -> Kept_co: ...

    def __set__(self, instance: Any, value: Given_contra, /) -> None: ...


def converted(default: T) -> Converted[Any, T]:
    """*default* itself, as the default of such a setting."""
    return cast("Converted[Any, T]", default)


def checked_url(url: str, setting: str, *, query: bool = True, insecure: Collection[str] | None = None) -> str:
    """Return *url* if it is an https URL, without credentials and fragment; raise :class:`ConfigurationError` if not.

    http is accepted for loopback addresses, where development happens and no other machine listens in, and for the
    hosts of *insecure*: ``"name:port"`` as :func:`insecure_hosts` returns them, compared exactly. ``None`` says that
    there is no such setting for *url*, so that the message does not recommend it.
    """
    parts = checked_form(url, setting, query=query)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and host_and_port(url) not in (insecure or ()):
        fix = "use https (http is for loopback addresses only)"
        if insecure is not None:
            fix = (
                "use https; for a network on which every machine is trusted, "
                f'set insecure_http_dangerously = ["{host_and_port(url)}"]'
            )
        raise ConfigurationError(f"{setting}: {url!r} is cleartext; {fix}")
    return url


def checked_form(url: str, setting: str, *, query: bool = True) -> SplitResult:
    """Return the parts of *url*: checked as by :func:`checked_url`, except that any host may be reached by http."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{setting}: a URL is a string, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{setting}: not a URL") from None
    if "@" in parts.netloc or (not parts.netloc and "@" in url):  # before any message that would show them
        raise ConfigurationError(f"{setting}: credentials do not belong into a URL")
    if not host or parts.scheme not in ("https", "http") or not _URL_CHARACTERS.fullmatch(url):
        raise ConfigurationError(f"{setting}: {url!r} is not an https URL")
    if "#" in url or (not query and "?" in url):
        raise ConfigurationError(f"{setting}: {url!r} must not have a {'fragment' if query else 'query or fragment'}")
    return parts


def host_and_port(url: str) -> str:
    """Return ``"name:port"`` of *url*, a valid one, in lower case and with the default port of its scheme."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def insecure_hosts(values: object, setting: str = "insecure_http_dangerously") -> frozenset[str]:
    """Return *values*, a list of ``"name:port"``, in lower case.

    Raises :class:`ConfigurationError` for a string (which would be taken for a list of letters), a URL, a name without
    a port and anything that looks like a pattern: every host is named on its own.
    """
    if isinstance(values, str):
        raise ConfigurationError(f'{setting}: write a list, as in ["keycloak:8080"], not one string')
    found = strings(values, setting)
    for item in found:
        if not _HOST_AND_PORT.fullmatch(item) or not 0 < int(item.rpartition(":")[2]) < 65536:
            raise ConfigurationError(
                f'{setting}: {item!r} is not a host and its port; write them as in "keycloak:8080", without a scheme, '
                "a path or a wildcard"
            )
    return frozenset(item.lower() for item in found)


def is_loopback(host: str) -> bool:
    """Whether *host* is the loopback interface by its very name: no look-up that somebody could answer."""
    if host in ("127.0.0.1", "::1", "localhost"):
        return True
    octets = host.removeprefix("::ffff:").split(".")  # what a socket for both families calls 127.0.0.1
    return len(octets) == 4 and octets[0] == "127" and all(o.isascii() and o.isdigit() for o in octets)


def canonical_host(host: str) -> str:
    """*host* of a URL for comparison: lower case, without the dot at the end, an address in its shortest form."""
    lowered = host.lower().rstrip(".")
    try:
        address = ip_address(lowered)
    except ValueError:
        return lowered
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"


def host_names(values: object, setting: str) -> tuple[str, ...]:
    """*values*, names of hosts or addresses, in their canonical form."""
    hosts = strings(values, setting)
    for host in hosts:
        if not _HOST.fullmatch(canonical_host(host.removeprefix("[").removesuffix("]"))):
            raise ConfigurationError(
                f"{setting}: {host!r} is not a host: a name or an address, without scheme and port"
            )
    return tuple(dict.fromkeys(canonical_host(host.removeprefix("[").removesuffix("]")) for host in hosts))


def media_type(typ: str) -> str:
    """*typ* for comparison: lower case, without ``application/`` (RFC 7515 section 4.1.9, J-43)."""
    lowered = typ.lower() if typ.isascii() else typ
    short = lowered.removeprefix("application/")
    return short if "/" not in short else lowered


def field_name(name: object, setting: str) -> str:
    """*name* of a header field, in lower case (RFC 9110 section 5.1). ``Authorization`` is no such field: it has a
    scheme, and is read anyway."""
    if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name) or name.lower() == "authorization":
        raise ConfigurationError(f"{setting}: the name of a header field other than Authorization")
    return name.lower()


def instance(value: object, kind: type | tuple[type, ...], setting: str, wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* is of *kind*. *wanted* describes it, as in ``"an Issuer"``."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(value).__name__}")


def text(value: object, setting: str, *, empty: bool = True) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a string, which may be *empty*."""
    instance(value, str, setting, "a string")
    if not (value or empty):
        raise ConfigurationError(f"{setting}: must not be empty")


def function(value: object, setting: str, wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* can be called. *wanted* describes the function."""
    if not callable(value):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(value).__name__}")


def app(value: object, wanted: str) -> None:
    """Raise :class:`ConfigurationError` for an app that is plain data. Whether it can be called shows when it is."""
    if value is None or isinstance(value, str | bytes | int | float | list | tuple | Mapping):
        raise ConfigurationError(f"app: must be {wanted}, not {type(value).__name__}")


def methods(value: object, names: Iterable[str], setting: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* is an object, of any class, with the methods *names*."""
    names = tuple(names)
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in names):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ConfigurationError(f"{setting}: must be an object with the methods {', '.join(names)}, not {given}")


def items(values: object, setting: str, wanted: str) -> tuple[Any, ...]:
    """Return *values*, a list or another iterable but no string, as a tuple. *wanted* describes it."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(values).__name__}")
    return tuple(values)


def strings(values: object, setting: str) -> tuple[str, ...]:
    """*values*, one string or several, as a tuple."""
    given = (values,) if isinstance(values, str) else values
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise ConfigurationError(f"{setting}: a string or a list of strings, not {type(values).__name__}")
    found = tuple(given)
    for item in found:
        if not isinstance(item, str):
            raise ConfigurationError(f"{setting}: holds a {type(item).__name__}; every item is a string")
    return found


def mapping(values: object, setting: str) -> Mapping[str, Any]:
    """*values*, which is a table."""
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{setting}: a table of names and values, not {type(values).__name__}")
    return values


def member(kind: type[E], value: str, setting: str) -> E:
    """The member of *kind* that *value* names."""
    try:
        return kind(value)
    except (ValueError, TypeError):
        choices = ", ".join(repr(item.value) for item in kind)
        raise ConfigurationError(f"{setting}: {value!r} is not one of {choices}") from None


def number(value: object, setting: str) -> float:
    """*value*, a finite number and no boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigurationError(f"{setting}: a number is needed, not {type(value).__name__}")
    return float(value)


def flag(value: object, setting: str) -> None:
    """Nothing, where *value* is a boolean; ``"false"`` is true, and none."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{setting}: true or false, not {type(value).__name__}")


def positive(value: object, setting: str) -> None:
    """Nothing, where *value* is a number greater than 0."""
    if number(value, setting) <= 0:
        raise ConfigurationError(f"{setting}: {value} must be greater than 0")


def whole(value: object, setting: str) -> int:
    """Return *value*, a whole number greater than 0. Raises :class:`ConfigurationError`."""
    positive(value, setting)
    if not isinstance(value, int):
        raise ConfigurationError(f"{setting}: must be a whole number, not {type(value).__name__}")
    return value


def accepted(values: object, setting: str, kind: str) -> frozenset[str | bool]:
    """The accepted *values* of one member; only claims can be true or false, and an empty prefix fits everything."""
    given = (values,) if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    flags = frozenset(item for item in given if isinstance(item, bool) and kind == "expected_claims")
    texts = strings((item for item in given if not (flags and isinstance(item, bool))), setting)
    return flags | frozenset(text for text in texts if text or kind != "claim_prefixes")
