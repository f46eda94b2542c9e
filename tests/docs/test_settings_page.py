"""docs/settings.md lists every setting, with the default that the code has, and every key of the file."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from typing import Any

import pytest

import scopeguard
from documentation import PAGES
from scopeguard import (
    ApiKey,
    ApiKeys,
    AuthZen,
    DPoP,
    Guard,
    Introspection,
    Issuer,
    IssuerResolver,
    KeySetPolicy,
    MutualTLS,
    RefusalLog,
    Resource,
    RevocationPolicy,
    StatusListPolicy,
    TokenCachePolicy,
    TokenSources,
)
from scopeguard.config.file.tables import TABLES
from scopeguard.mcp import McpPolicy
from scopeguard.stores.redis import RedisStore

SETTINGS = PAGES["docs/settings.md"]


def _rows() -> dict[tuple[str, str], str]:
    """Return the default that each row of the tables shows, by the class or function and the name of the setting."""
    text = SETTINGS
    found: dict[tuple[str, str], str] = {}
    home = ""
    for heading, names, default in re.findall(r"^`(\w+)\(|^\| (`[^|]*`) \| ([^|]+) \| ", text, re.MULTILINE):
        home = heading or home
        found |= {(home, name): default for name in re.findall(r"`(\w+)`", names)}
    return found


ROWS = _rows()
CLASSES = (
    ApiKey,
    ApiKeys,
    MutualTLS,
    DPoP,
    Issuer,
    TokenSources,
    KeySetPolicy,
    Introspection,
    StatusListPolicy,
    IssuerResolver,
    RevocationPolicy,
    RefusalLog,
    Resource,
    TokenCachePolicy,
    AuthZen,
    McpPolicy,
)
CALLABLES = (Guard, RedisStore)
TAKEN = {"issuers", "url"}  # named in the heading of their table


def _documented_default(home: str, name: str) -> Any:
    default = ROWS[home, name]
    return MISSING if default == "required" else eval(default.strip("`"), vars(scopeguard).copy())


@pytest.mark.parametrize(
    ("home", "name"),
    [
        pytest.param(home, name, id=f"{home.__name__} {name}")
        for home in CALLABLES
        for name in inspect.signature(home).parameters
        if name not in TAKEN
    ],
)
def test_the_arguments_are_there_with_their_defaults(home: Any, name: str):
    assert _documented_default(home.__name__, name) == inspect.signature(home).parameters[name].default


@pytest.mark.parametrize(
    ("home", "name"),
    [
        pytest.param(home, setting.name, id=f"{home.__name__}.{setting.name}")
        for home in CLASSES
        for setting in fields(home)
        if setting.name not in TAKEN and setting.init
    ],
)
def test_the_settings_are_there_with_their_defaults(home: Any, name: str):
    (setting,) = [setting for setting in fields(home) if setting.name == name]
    default = setting.default if setting.default_factory is MISSING else setting.default_factory()
    assert _documented_default(home.__name__, name) == default


# These tables of the file have no class in Python, so the page describes them in a section of its own.
OF_THE_FILE = ("[[rules]]", "[contract]", "[scopes]", "[challenge]", "[transport]", "[mcp]")


def _first_cells(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("table", OF_THE_FILE)
def test_every_table_of_the_file_is_there_with_all_its_keys(table: str):
    (rows,) = re.findall(rf"^`{re.escape(table)}`: .*\n\n((?:\|.*\n)+)", SETTINGS, re.MULTILINE)
    assert _first_cells(rows) == set(TABLES[table])


@pytest.mark.parametrize(
    ("table", "key"), [pytest.param(table, key, id=f"{table} {key}") for table, keys in TABLES.items() for key in keys]
)
def test_every_key_of_the_file_is_on_the_page(table: str, key: str):
    elsewhere = {"url": "`Issuer(url, ...)`", "any_audience_dangerously": "`any_audience_dangerously = true`"}
    elsewhere |= {"uri": "`[[mcp.resources]]`, each with `uri`", "name": "each with `name`"}
    elsewhere["redis"] = "with the URL as `redis`"
    assert key in _first_cells(SETTINGS) or elsewhere[key] in SETTINGS


def test_no_table_has_a_setting_that_is_gone():
    known = {(home.__name__, setting.name) for home in CLASSES for setting in fields(home) if setting.init}
    known |= {(home.__name__, name) for home in CALLABLES for name in inspect.signature(home).parameters}
    assert set(ROWS) <= known
