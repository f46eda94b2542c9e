"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "scopeguard.devserver.authority",
    "scopeguard.testing.clock",
    "scopeguard.testing.fake",
    "scopeguard.testing.hostile_keys",
    "scopeguard.testing.hostile_tokens",
    "scopeguard.testing.transport",
]


@pytest.mark.parametrize("name", MODULES)
def test_example_does_what_its_text_says(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted
    assert not failed
