"""The scenarios in the idioms of Starlette, FastAPI and Flask; test_scenarios.py claims their rules."""

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
def test_each_framework_answers_alike(api: Api, scenario: Scenario):
    api.run(scenario)


@pytest.mark.parametrize("door", FRAMEWORK_DOORS, ids=lambda door: door.name)
def test_omitted_scenarios_of_a_door_exist(door: Door):
    assert door.without.keys() <= {scenario.name for scenario in SCENARIOS}
