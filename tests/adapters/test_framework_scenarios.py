"""The table of scenarios in the idioms of Starlette, FastAPI and Flask; its rules are claimed in test_scenarios.py."""

from __future__ import annotations

import pytest

from doors import Api, Door, apis
from framework_doors import FRAMEWORK_DOORS
from scenarios import SCENARIOS, Scenario

APIS = apis(FRAMEWORK_DOORS)


@pytest.fixture(scope="module", params=APIS.values(), ids=list(APIS))
def api(request: pytest.FixtureRequest) -> Api:
    door, remembers = request.param
    return Api(door, remembers=remembers)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_framework_answers_alike(api: Api, scenario: Scenario):
    api.run(scenario)


@pytest.mark.parametrize("door", FRAMEWORK_DOORS, ids=lambda door: door.name)
def test_a_door_leaves_out_only_scenarios_that_exist(door: Door):
    assert door.without.keys() <= {scenario.name for scenario in SCENARIOS}
