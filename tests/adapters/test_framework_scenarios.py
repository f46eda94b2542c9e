"""The table of scenarios in the idioms of Starlette, FastAPI and Flask; its rules are claimed in test_scenarios.py."""

from __future__ import annotations

import pytest

from doors import Door
from framework_doors import FRAMEWORK_DOORS
from scenarios import SCENARIOS, Scenario, tokens, verify
from scopeguard.testing import FakeAuthority


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("door", FRAMEWORK_DOORS, ids=lambda door: door.name)
def test_every_framework_answers_alike(door: Door, scenario: Scenario):
    if scenario.name in door.without:
        return
    authority = FakeAuthority()
    filled = tokens(authority)
    answer = door.opened(authority)(scenario.send.filled(filled))
    verify(scenario, answer, filled, knows_route=door.knows_route)


@pytest.mark.parametrize("door", FRAMEWORK_DOORS, ids=lambda door: door.name)
def test_a_door_leaves_out_only_scenarios_that_exist(door: Door):
    assert door.without.keys() <= {scenario.name for scenario in SCENARIOS}
