"""The README and the pages: the targets of their links exist, their commands exist, and the README stays short."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest

from documentation import MANUAL, PAGES, README, anchors, links, target_of
from environment import ROOT
from scopeguard.cli.commands import cli


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: str):
    for link in links(PAGES[page]):
        if re.match(r"https?:", link):
            continue
        path, anchor = target_of(page, link)
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(path.read_text("utf-8")), link


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('# A page\n## What "valid" means\n', {"a-page", "what-valid-means"}),
        ("## The command line and `scopeguard.toml`\n", {"the-command-line-and-scopeguardtoml"}),
        ("## Same\n## Same\n", {"same", "same-1"}),
        ("## [A link](x.md), too\n", {"a-link-too"}),
        ("```toml\n# a comment\n```\n    # and a command\n", set()),
    ],
)
def test_anchors_are_those_that_github_makes(text: str, found: set[str]):
    assert anchors(text) == found


def test_links_are_found_outside_of_code():
    assert links("[a](b.md#c), ![d](e.svg)\n```python\nx[0](y)\n```\n    z[0](q)\n") == ["b.md#c", "e.svg"]


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        paths = [target_of(page, link)[0] for link in links(PAGES[page]) if not re.match(r"https?:", link)]
        waiting += [name for path in paths if (name := str(path.relative_to(ROOT))) in PAGES]
    assert {name for name in PAGES if not name.startswith("examples/")} <= reached


GUIDES = [page for page in PAGES if page.startswith("docs/guides/") or page == "docs/deployment/lambda.md"]
# What follows the first example: an authorization server to try it with, tests, checks, and what to watch.
STEPS = {"command-line.md#the-development-server", "testing.md", "doctor.md", "explain.md", "logging.md"}


@pytest.mark.parametrize("page", GUIDES)
def test_every_guide_leads_on_to_running_testing_checking_deploying_and_watching(page: str):
    linked = {link.removeprefix("../") for link in links(PAGES[page])}
    assert linked >= STEPS
    assert page == "docs/guides/grpc.md" or "audit.md" in linked  # the audit knows no services
    assert "lambda.md" in page or any(link.startswith("deployment/") or link == "servers.md" for link in linked)


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/deployment/")])
def test_every_page_on_deployment_leads_on_to_checking_and_watching(page: str):
    assert {link.removeprefix("../") for link in links(PAGES[page])} >= {"doctor.md", "explain.md", "logging.md"}


def test_every_file_that_contributing_names_exists():
    named = re.findall(r"`((?:tests|docs|scopeguard)/[\w/.]+)`", PAGES["CONTRIBUTING.md"])
    assert named
    assert all((ROOT / name).exists() for name in named)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_machine_and_no_registry(page: str):
    text = PAGES[page]
    assert str(ROOT) not in text
    assert not re.search(r"/tmp/|/home/|pypi\.|pythonhosted", text)


COMMANDS = [
    (page, line)
    for page, text in MANUAL.items()
    for line in re.findall(r"^    (?:TOKEN=\$\(.*\| )?scopeguard (\w.*?)(?: \| curl .*)?\)?$", text, re.MULTILINE)
]


def test_every_command_is_shown():
    assert {line.split()[0] for _, line in COMMANDS} == set(cli.commands)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_line_is_understood(page: str, line: str):
    name, *arguments = shlex.split(line)
    cli.commands[name].make_context(name, arguments).close()


def _options(name: str) -> set[str]:
    return {
        option for parameter in cli.commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize(
    ("command", "section"),
    [
        ("serve", "Serving an app"),
        ("token", "A development server and tokens"),
        ("devserver", "The development server"),
    ],
)
def test_every_option_in_the_table_of_a_command_exists(command: str, section: str):
    text = MANUAL["docs/command-line.md"].partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (`--.*?) \|", text, re.MULTILINE)
    assert len(table) > 5
    assert {option for cell in table for option in re.findall(r"`(--[a-z-]+)", cell)} <= _options(command)


def test_every_make_target_and_extra_that_a_page_names_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {
        (page, "".join(target))
        for page, text in PAGES.items()
        if page != "CHANGELOG.md"
        for target in re.findall(r"^    make ([a-z-]+)|`make ([a-z-]+)", text, re.MULTILINE)
    }
    assert ("README.md", "demo") in targets
    assert ("README.md", "test") in targets
    for page, target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for text in PAGES.values():
        for named in re.findall(r'"\.\[([\w,]+)\]"', text):
            assert set(named.split(",")) <= set(extras)


def test_the_page_on_servers_names_each_server_of_the_suite():
    text = PAGES["docs/servers.md"]
    commands = re.findall(
        r'^    Kind\(\s*"(\w+)', (ROOT / "tests/servers/test_servers.py").read_text("utf-8"), re.MULTILINE
    )
    assert commands
    for server in (*commands, "gunicorn", "cheroot", "daphne", "uWSGI", "mod_wsgi", "nginx"):
        assert server in text
    assert "WSGIPassAuthorization On" in text
