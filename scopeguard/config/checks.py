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
MOST_SECONDS: Final = 1_000_000_000
"""31 years. Locks and sockets do not take much longer time limits, and raise when they are used."""

_MOST_BYTES: Final = 2**63 - 1


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
        # Without a scheme it may be a secret that was written in the wrong place.
        raise ConfigurationError(f"{setting}: {repr(url) if '://' in url else 'the value'} is not an https URL")
    if "#" in url or (not query and "?" in url):
        raise ConfigurationError(f"{setting}: {url!r} must not have a {'fragment' if query else 'query or fragment'}")
    return parts


def host_and_port(url: str) -> str:
    """Return ``"name:port"`` of *url*, a valid one, in lower case and with the default port of its scheme."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def insecure_hosts(values: object) -> frozenset[str]:
    """Return *values*, a list of ``"name:port"``, in lower case.

    Raises :class:`ConfigurationError` for a string (which would be taken for a list of letters), a URL, a name without
    a port and anything that looks like a pattern: every host is named on its own.
    """
    setting = "insecure_http_dangerously"
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
    """Return whether *host* is a loopback address or ``localhost``. Names are compared, never looked up."""
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
    """*typ* for comparison: lower case, without ``application/`` (RFC 7515 section 4.1.9)."""
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
    """Raise :class:`ConfigurationError` unless *value* is a string, which may be *empty*, and can be encoded."""
    instance(value, str, setting, "a string")
    if not (value or empty):
        raise ConfigurationError(f"{setting}: must not be empty")
    if not is_encodable(cast("str", value)):
        raise ConfigurationError(f"{setting}: must not have half of a surrogate pair, which UTF-8 cannot encode")


def is_encodable(value: str) -> bool:
    """Whether UTF-8 can encode *value*. Half of a surrogate pair would fail with every request that sends it."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def path(value: object, setting: str, wanted: str = "the path of a file") -> None:
    """Raise :class:`ConfigurationError` unless *value* is a path. A number is not: ``open`` would read a descriptor."""
    given = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(given, str):
        raise ConfigurationError(f"{setting}: {wanted} is needed, not {type(given).__name__}")
    if not given or "\0" in given or not is_encodable(given):
        problem = "text that cannot be a path" if given else "an empty string"
        raise ConfigurationError(f"{setting}: {wanted} is needed, not {problem}")


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


def items(values: object, setting: str, wanted: str, kind: type = object) -> tuple[Any, ...]:
    """Return *values*, a list or another iterable of *kind* but no string, as a tuple. *wanted* describes it."""
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(values).__name__}")
    found = tuple(values)
    for item in found:
        if not isinstance(item, kind):
            raise ConfigurationError(
                f"{setting}: every item is a {kind.__name__}, not {type(item).__name__}; write {wanted}"
            )
    return found


def strings(values: object, setting: str, *, empty: bool = True) -> tuple[str, ...]:
    """Return *values*, one string or several, as a tuple. *empty*: a string in it may be empty."""
    given = (values,) if isinstance(values, str) else values
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | Mapping):
        raise ConfigurationError(f"{setting}: a string or a list of strings, not {type(values).__name__}")
    found = tuple(given)
    for item in found:
        if not isinstance(item, str):
            raise ConfigurationError(f"{setting}: holds a {type(item).__name__}; every item is a string")
        if not (item or empty):
            raise ConfigurationError(f"{setting}: must not hold an empty string; leave it out")
        if not is_encodable(item):
            text(item, setting)
    return found


def mapping(values: object, setting: str) -> Mapping[str, Any]:
    """Return *values*, a table whose names are strings. Raises :class:`ConfigurationError`."""
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{setting}: a table of names and values, not {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise ConfigurationError(f"{setting}: a name in it must be a string, not {type(name).__name__}")
    return values


def member(kind: type[E], value: str, setting: str) -> E:
    """The member of *kind* that *value* names."""
    try:
        return kind(value)
    except (ValueError, TypeError):
        choices = ", ".join(repr(item.value) for item in kind)
        raise ConfigurationError(f"{setting}: {value!r} is not one of {choices}") from None


def number(value: object, setting: str, *, most: float = MOST_SECONDS) -> float:
    """Return *value*, a finite number of at most *most*, and no boolean. Raises :class:`ConfigurationError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        raise ConfigurationError(f"{setting}: a number is needed, not {type(value).__name__}")
    if not -most <= value <= most:
        if isinstance(value, float) and math.isinf(value):
            raise ConfigurationError(f"{setting}: a number is needed, not float")
        raise ConfigurationError(f"{setting}: a number of at most {most:,} is needed")
    return float(value)


def flag(value: object, setting: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a boolean; the string ``"false"`` is truthy."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{setting}: true or false, not {type(value).__name__}")


def positive(value: object, setting: str, *, most: float = MOST_SECONDS) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a number greater than 0 and at most *most*."""
    if number(value, setting, most=most) <= 0:
        raise ConfigurationError(f"{setting}: {value} must be greater than 0")


def whole(value: object, setting: str, *, least: int = 1) -> int:
    """Return *value*, a whole number of at least *least*. Raises :class:`ConfigurationError`."""
    if least == 1:
        positive(value, setting, most=_MOST_BYTES)
    elif number(value, setting, most=_MOST_BYTES) < least:
        raise ConfigurationError(f"{setting}: {value} must be at least {least}")
    if not isinstance(value, int):
        raise ConfigurationError(f"{setting}: must be a whole number, not {type(value).__name__}")
    return value


def accepted(values: object, setting: str, kind: str) -> frozenset[str | bool]:
    """The accepted *values* of one member; only claims can be true or false, and an empty prefix fits everything."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | bytearray | Mapping)
    given = tuple(cast("Iterable[Any]", values)) if is_list else (values,)
    flags = frozenset(item for item in given if isinstance(item, bool) and kind == "expected_claims")
    texts = strings((item for item in given if not (flags and isinstance(item, bool))), setting)
    return flags | frozenset(text for text in texts if text or kind != "claim_prefixes")
