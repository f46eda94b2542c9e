"""The strictest of several access declarations: rules, views, contracts and readings of a path."""

from __future__ import annotations

from itertools import product

import pytest

from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access
from scopeguard.rules.rule import strictest
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of

GIVEN = (PUBLIC, OPTIONAL, DENIED, AUTHENTICATED, all_of("a"), any_of("a", "b"), all_of("b", "c"))
TOKENS: tuple[frozenset[str] | None, ...] = (None, frozenset(), *map(frozenset, ("a", "b", "c", "bc", "abc")))


def admits(access: Requirement | Access, token: frozenset[str] | None) -> bool:
    if isinstance(access, Requirement):
        return token is not None and access.allows(token)
    return access is not DENIED


@pytest.mark.parametrize("given", list(product(GIVEN, repeat=2)))
def test_strictest_access_admits_exactly_what_all_admit(given: tuple[Requirement | Access, ...]):
    for token in TOKENS:
        assert admits(strictest(*given), token) == all(admits(each, token) for each in given)


def test_bad_token_is_refused_if_one_of_two_open_accesses_refuses_it():
    assert strictest(PUBLIC, OPTIONAL) is strictest(OPTIONAL, PUBLIC) is OPTIONAL


def test_single_access_is_returned_unchanged():
    for access in GIVEN:
        assert strictest(access) is access


def test_too_many_alternatives_are_an_error():
    many = [any_of(*(f"{letter}{number}" for number in range(40))) for letter in "ab"]
    with pytest.raises(ConfigurationError, match="alternatives"):
        strictest(*many)
    assert strictest(*many, DENIED) is DENIED
