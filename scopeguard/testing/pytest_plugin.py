"""A pytest plugin with the fixture ``authority``. An entry point registers it where scopeguard is installed.

Every run of pytest imports it, so it imports the rest of the package only when the fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority() -> FakeAuthority:
    """Return a new :class:`~scopeguard.testing.FakeAuthority` for each test.

    Its issuer is ``https://as.test``, and its audience ``https://api.test``. Override the fixture in ``conftest.py`` if
    your API has another audience:

        @pytest.fixture
        def authority():
            return FakeAuthority(audience="https://api.example.com")
    """
    from scopeguard.testing import FakeAuthority

    return FakeAuthority()
