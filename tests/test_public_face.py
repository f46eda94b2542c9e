"""The public attributes of a guard, the internal access to its engine, and the public names of the modules."""

from __future__ import annotations

import ast
import importlib
import inspect
from importlib.util import find_spec
from types import ModuleType

import pytest

import scopeguard
import scopeguard.tokens
from scopeguard import Guard, Issuer
from scopeguard.core.engine import Engine
from scopeguard.guard import engine_of

GUARD = Guard(Issuer("https://as.example", audience="https://api.example"), audit="off")


def test_a_guard_has_these_public_names_and_no_others():
    """Adapters and endpoints use the engine: names that only they need do not belong here."""
    assert {name for name in dir(GUARD) if not name.startswith("_")} == {
        *("acheck", "aclose", "arevoke", "authorize", "awarm", "check", "close", "from_file", "revoke", "warm"),
        *("ready", "stop_waiting", "explain", "aexplain"),
        *("catalog", "issuers", "mcp", "profile", "resource", "rules", "sources", "style"),
    }


def test_each_pair_of_sync_and_async_methods_takes_the_same_arguments():
    for name in ("check", "revoke", "warm", "close", "explain"):
        sync, other = (inspect.signature(getattr(Guard, each)) for each in (name, f"a{name}"))
        assert set(other.parameters) - set(sync.parameters) <= {"client_gone"}
        assert set(sync.parameters) <= set(other.parameters)


def test_settings_and_engine_of_a_guard_are_read_only():
    for name in ("catalog", "issuers", "resource", "rules", "sources", "style"):
        assert isinstance(inspect.getattr_static(Guard, name), property)
    assert isinstance(engine_of(GUARD), Engine)
    assert engine_of(GUARD) is engine_of(GUARD)


PUBLIC_MODULES = (
    "scopeguard",
    *(
        f"scopeguard.{name}"
        for name in ("asgi", "client", "contracts", "falcon", "fastapi", "flask", "litestar", "mcp", "presets", "quart")
    ),
    *("scopeguard.aws_lambda", "scopeguard.starlette", "scopeguard.transport"),
    *("scopeguard.mcp.verifier", "scopeguard.security_events", "scopeguard.testing", "scopeguard.wsgi"),
)
# Each adapter has a form of these for its framework.
ONE_FOR_EACH_FRAMEWORK = {
    *("AccessRefused", "GuardMiddleware", "ResourceMetadataMiddleware", "ScopeGuard", "Send", "Settings"),
    *("optional", "protect", "public", "renew", "requires"),
}


def public_names(module: ModuleType) -> set[str]:
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    return set(getattr(module, "__all__", {name for name in own if not name.startswith("_")}))


def test_a_public_name_has_the_same_meaning_in_each_module():
    meanings: dict[str, set[int]] = {}
    for module in map(importlib.import_module, PUBLIC_MODULES):
        for name in public_names(module) - ONE_FOR_EACH_FRAMEWORK:
            meanings.setdefault(name, set()).add(id(getattr(module, name)))
    assert len(meanings) > 150
    assert {name for name, objects in meanings.items() if len(objects) > 1} == set()


@pytest.mark.parametrize(
    "module", ["", ".aiohttp", ".falcon", ".fastapi", ".flask", ".litestar", ".quart", ".starlette"]
)
def test_the_accessor_of_the_token_is_one_function_and_not_a_module(module):
    assert importlib.import_module(f"scopeguard{module}").access_token is scopeguard.tokens.access_token
    assert importlib.import_module(f"scopeguard{module}").access_token_or_none is scopeguard.tokens.access_token_or_none


@pytest.mark.parametrize(
    "module", ["scopeguard", "scopeguard.client", "scopeguard.contracts", "scopeguard.presets", "scopeguard.testing"]
)
def test_no_public_name_is_also_that_of_a_submodule(module):
    """``from package import name`` would give one or the other, depending on what has been imported before."""
    names = public_names(importlib.import_module(module))
    assert {name for name in names if find_spec(f"{module}.{name}") is not None} == set()


def test_type_checkers_know_the_names_that_are_imported_at_their_first_use():
    tree = ast.parse(inspect.getsource(scopeguard))
    conditions = {ast.unparse(node.test): node.body for node in tree.body if isinstance(node, ast.If)}
    imports = [node for node in conditions["TYPE_CHECKING"] if isinstance(node, ast.ImportFrom)]
    known = {alias.name: node.module for node in imports for alias in node.names}
    assert known == {name: f"scopeguard.{module}" for name, module in scopeguard._LATER.items()}
    assert known.keys() <= set(dir(scopeguard))
    with pytest.raises(AttributeError, match="module 'scopeguard' has no attribute 'Gaurd'"):
        getattr(scopeguard, "Gaurd")  # noqa: B009 - type checkers would refuse the attribute
