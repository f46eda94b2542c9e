"""The client has the settings and limits that docs/client.md lists."""

from __future__ import annotations

import re

from environment import ROOT
from scopeguard.client import ClientSettings
from scopeguard.client.repeated_token_requests import LONGEST_RETRY_AFTER
from scopeguard.client.settings import ExchangePolicy, ExchangeSettings, Policy
from scopeguard.config.answer_limits import LARGEST_ANSWER, LARGEST_TOKEN_RESPONSE

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")


def test_the_page_lists_every_setting_with_its_default():
    (table,) = re.findall(r"\n## Settings\n.*?\n(\| setting .*?)\n\n", PAGE, re.DOTALL)
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    shown = {name.strip(" `"): default.strip(" `") for name, default in rows}
    assert list(shown) == list(ClientSettings.__annotations__)
    policy = Policy(token_url="https://as.example", issuer=None, client_id="a", client_secret="b")
    texts = {"auth_method", "narrower_scope", "key_algorithm", "assertion_typ"}
    for name in shown.keys() - {"origins", "transport", "clock", *texts}:
        assert shown[name] == repr(getattr(policy, name)), name
    for name in texts:
        assert shown[name] == f'"{getattr(policy, name)}"'


def test_the_page_states_the_limits_of_the_code():
    assert f"at most {LARGEST_TOKEN_RESPONSE // 1024} KiB, metadata {LARGEST_ANSWER // 1024} KiB" in PAGE
    assert f"{LONGEST_RETRY_AFTER / 60:.0f} minutes at most" in PAGE


def test_nothing_of_a_machine_is_on_the_page():
    assert not re.search(r"/work|/tmp|/home|pypi\.|pythonhosted", PAGE)


def test_the_page_on_exchanges_lists_every_setting_of_its_own_with_its_default():
    page = (ROOT / "docs" / "downstream.md").read_text("utf-8")
    (table,) = re.findall(r"\n## Settings\n.*?\n(\| setting .*?)\n\n", page, re.DOTALL)
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    shown = {name.strip(" `"): default.strip(" `").replace('"', "'") for name, default in rows}
    own = [name for name in ExchangeSettings.__annotations__ if name not in ClientSettings.__annotations__]
    assert list(shown) == own
    policy = ExchangePolicy(token_url="https://as.example", issuer=None, client_id="a", client_secret="b")
    assert shown == {name: repr(getattr(policy, name)) for name in own}
    assert "`retries` is 1 by default" in page
    assert policy.retries == 1
