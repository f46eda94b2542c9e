"""The pages of the API reference: one for each public module, and several for the names of ``scopeguard`` itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

FOLDER: Final = "reference/api"

# The names of ``scopeguard``, by topic. A public name that is in none of them fails the build.
TOPICS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "guard": (
        "Guard",
        "The object that checks tokens, and the decisions that it makes.",
        ("Guard", "Decision", "Granted", "Denied", "Unavailable", "TokenCheck", "CredentialKind", "DecisionEvent",
         "Adapter", "RequestView", "HeaderList", "Response", "Readiness", "IssuerReadiness", "Obstacle"),
    ),
    "issuers": (
        "Issuers",
        "The authorization servers that a guard trusts, and how their tokens are verified.",
        ("Issuer", "ANY_AUDIENCE_DANGEROUSLY", "ScopeClaim", "ScopeForm", "MachineSign", "KeySetPolicy", "Validation",
         "Introspection", "ClientAuthentication", "StatusListPolicy", "IssuerResolver"),
    ),
    "requirements": (
        "Rules and requirements",
        "What a route requires of a token.",
        ("Rule", "Rules", "Access", "PUBLIC", "OPTIONAL", "DENIED", "Requirement", "all_of", "any_of", "AUTHENTICATED",
         "Condition", "UserAuthentication", "AuthorizationDetail", "DelegatedTo", "NOT_DELEGATED", "USER", "MACHINE",
         "AuthZen", "PolicyRequest", "ScopeCatalog"),
    ),
    "tokens": (
        "Tokens in an app",
        "What an app gets about the token of its request.",
        ("AccessToken", "Actor", "Anonymous", "ANONYMOUS", "InboundToken", "access_token",
         "access_token_or_none", "inbound_token"),
    ),
    "settings": (
        "Further settings",
        "Settings of a guard beside its issuers and rules.",
        ("Profile", "Resource", "TokenSource", "TokenSources", "StrayQueryToken", "TokenCachePolicy",
         "RevocationPolicy", "ApiKeys", "ApiKey", "DPoP", "DPoPMode", "MutualTLS", "CertificateSource",
         "ChallengeStyle", "ErrorBody", "Problem", "Preflight", "RefusalLog", "HttpxTransport"),
    ),
    "errors": (
        "Errors",
        "Exceptions, and the codes for the reasons of refusals and outages.",
        ("ConfigurationError", "AccessDenied", "MissingCredentials", "InvalidRequest", "RequestTooLarge",
         "RequestTimedOut", "InvalidToken", "InvalidProof", "NonceRequired", "InsufficientUserAuthentication",
         "InsufficientScope", "InsufficientAuthorizationDetails", "Forbidden", "PolicyDenied", "AuthorityUnavailable",
         "PolicyUnavailable", "InvalidApiKey", "ApiKeysUnavailable", "Reason"),
    ),
}  # fmt: skip
# The other public modules. Those without ``__all__`` have their names here.
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "scopeguard.asgi": (),
    "scopeguard.wsgi": ("GuardMiddleware",),
    "scopeguard.starlette": (),
    "scopeguard.fastapi": (),
    "scopeguard.flask": (),
    "scopeguard.falcon": (),
    "scopeguard.aiohttp": (),
    "scopeguard.grpc": (),
    "scopeguard.litestar": (),
    "scopeguard.quart": (),
    "scopeguard.mcp": (),
    "scopeguard.client": (),
    "scopeguard.presets": (),
    "scopeguard.contracts": (),
    "scopeguard.explanation": (),
    "scopeguard.metrics": (),
    "scopeguard.security_events": (),
    "scopeguard.aws_lambda": (),
    "scopeguard.testing": (),
    "scopeguard.stores.redis": ("RedisStore",),
    "scopeguard.transport": (),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A public name. ``same`` is the path under which the same object is documented already, if it is."""

    path: str
    same: str | None = None


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of *module*."""
    names = getattr(module, "__all__", None) or MODULES[module.__name__]
    return [name for name in names if not name.startswith("_")]


def _collect() -> dict[str, list[Entry]]:
    """Return the entries of each page, in their order. Raises :class:`ValueError` for a name without a topic."""
    root = importlib.import_module("scopeguard")
    listed = [name for _, _, names in TOPICS.values() for name in names]
    lost = set(public_names(root)) ^ set(listed)
    if lost or len(listed) != len(set(listed)):
        raise ValueError(f"website/reference.py: TOPICS and scopeguard.__all__ differ in {sorted(lost)}")
    seen: dict[int, str] = {}
    pages: dict[str, list[Entry]] = {}
    for topic, (_, _, names) in TOPICS.items():
        pages[topic] = [_entry(root, name, seen) for name in names]
    for name in MODULES:
        module = importlib.import_module(name)
        pages[name.removeprefix("scopeguard.")] = [_entry(module, each, seen) for each in public_names(module)]
    return pages


def _entry(module: ModuleType, name: str, seen: dict[int, str]) -> Entry:
    path, value = f"{module.__name__}.{name}", getattr(module, name)
    return Entry(path, None if (first := seen.setdefault(id(value), path)) == path else first)


PAGES: Final = _collect()


def _canonical() -> Iterator[tuple[str, str]]:
    """Yield the path at which each public object is defined, and its public path."""
    for entries in PAGES.values():
        for entry in entries:
            module, _, name = entry.path.rpartition(".")
            value: Any = getattr(importlib.import_module(module), name)
            home, own = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
            if entry.same is None:
                yield entry.path, entry.path
                if isinstance(home, str) and isinstance(own, str):
                    yield f"{home}.{own}", entry.path


CANONICAL: Final = dict(_canonical())


@cache
def members_of(path: str) -> frozenset[str]:
    """Return the public members of the class with the public path *path*."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return (
        frozenset(member for member in vars(value) if not member.startswith("_"))
        if isinstance(value, type)
        else frozenset()
    )


def write(target: Path) -> list[str]:
    """Write the pages into the folder *target*, and return their names."""
    (target / FOLDER).mkdir(parents=True)
    names: list[str] = []
    for page, entries in PAGES.items():
        if page in TOPICS:
            title, text, _ = TOPICS[page]
            parts = [f"# {title}\n", f"{text} Everything here is imported from `scopeguard`.\n"]
        else:
            module = f"scopeguard.{page}"
            first = (importlib.import_module(module).__doc__ or "").strip().partition("\n\n")[0]
            parts = [f"# {module}\n", " ".join(first.replace("::", ":").split()) + "\n"]
        parts += [_block(entry) for entry in entries]
        name = f"{FOLDER}/{page}.md"
        (target / name).write_text("\n".join(parts), "utf-8")
        names.append(name)
    return names


def _block(entry: Entry) -> str:
    if entry.same is None:
        return f"::: {entry.path}\n"
    name = entry.path.rpartition(".")[2]
    return f"## `{name}` {{ #{entry.path} }}\n\nThe same object as [`{entry.same}`][{entry.same}].\n"
