"""A pytest plugin, found by its entry point wherever scopeguard is installed: the fixture ``authority``.

It is imported in every run of pytest, so it imports nothing itself until the fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority() -> FakeAuthority:
    """A :class:`~scopeguard.testing.FakeAuthority` of the test's own: ``https://as.test`` for ``https://api.test``.

    Override it in ``conftest.py`` where your API has another audience:

        @pytest.fixture
        def authority():
            return FakeAuthority(audience="https://api.example.com")
    """
    from scopeguard.testing import FakeAuthority

    return FakeAuthority()
