"""Rules for the operations of an MCP server: which one decides, and which ones are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard import AUTHENTICATED, DENIED, OPTIONAL, PUBLIC, ConfigurationError, all_of
from scopeguard.mcp import McpPolicy, Method, Prompt, ResourceUri, Tool
from scopeguard.rules.mcp import OperationRule, canonical_uri
from scopeguard.spec.mcp import Message

# For arguments that a type checker refuses.
ANY_TOOL: Any = Tool
ANY_POLICY: Any = McpPolicy


def find_pattern(policy: McpPolicy, method: str, name: str | None = None) -> str | None:
    rule = policy.find(Message(method=method, name=name))
    return None if rule is None else rule.pattern


def tool(name: str, *patterns: str) -> str | None:
    return find_pattern(McpPolicy(rules=[Tool(pattern, "scope") for pattern in patterns]), "tools/call", name)


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("add", ["add"], "add"),
        ("add", ["*"], "*"),
        ("", ["*"], "*"),
        ("add", ["sub", "*"], "*"),
        ("add", ["a*", "b*"], "a*"),
        ("add", ["add", "a*"], "add"),
        ("add_x", ["*_x", "add_y"], "*_x"),
        ("a.b.c", ["a*b*c"], "a*b*c"),
        ("abc", ["a*b*c"], "a*b*c"),
        ("aXc", ["a*b*c"], None),
        ("ab", ["ab*b"], None),  # the two ends of a pattern do not overlap
        ("add", ["Add"], None),
        ("Add", ["add"], None),
        ("add ", ["add"], None),
        ("add\n", ["*"], None),
        ("a\u200bdd", ["*"], None),
        ("ADD", ["add", "*"], None),  # the server may ignore case
        ("Delete_x", ["delete_*", "*"], None),
        ("\uff44elete_x", ["delete_*", "*"], None),
        ("getUser", ["getUser", "*"], "getUser"),
        ("getUser", ["get*", "*"], "get*"),
        ("getuser", ["getUser", "*"], None),
        ("GET", ["GET", "get"], "GET"),
        ("get", ["GET", "get"], "get"),  # both are named exactly
    ],
)
def test_first_rule_that_matches_decides(name: str, patterns: list[str], expected: str | None):
    assert tool(name, *patterns) == expected


@pytest.mark.parametrize(
    ("uri", "patterns", "expected"),
    [
        ("file:///a/b", ["file:///a/*"], "file:///a/*"),
        ("file:///a/b/c", ["file:///a/*"], None),
        ("file:///a/b/c", ["file:///a/**"], "file:///a/**"),
        ("file:///a", ["file:///a/**"], None),
        ("file:///a/b-x", ["file:///a/*-x"], "file:///a/*-x"),
        ("db://one/schema", ["db://*/schema"], "db://*/schema"),
        ("db://one/two/schema", ["db://*/schema"], None),
        ("anything:x", ["**"], "**"),
        ("nothing", ["**"], None),
        ("nothing", ["nothing", "**"], "nothing"),
        ("a b", ["a b"], "a b"),
        ("HTTPS://Example.COM:443/a", ["https://example.com/*"], "https://example.com/*"),
        ("https://example.com", ["https://example.com/"], "https://example.com/"),
        ("file:///a%20b", ["file:///a b"], "file:///a b"),
        ("file:///a b", ["file:///a%20b"], "file:///a%20b"),
        ("file:///%C3%A9", ["file:///\u00e9"], "file:///\u00e9"),
        ("file:///%E9", ["**"], None),
        ("file:///a/../b", ["file:///a/../b"], "file:///a/../b"),
        ("file:///a/../b", ["file:///**"], None),
        ("file:///a%3Fb", ["**"], None),
        ("file:///a%23b", ["**"], None),
        ("file:///a%25b", ["**"], None),
        ("file:///a%00b", ["**"], None),
        ("../secret", ["**"], None),
        ("x:../secret", ["**"], None),
        ("http://user@host/a", ["**"], None),
        ("http://host./a", ["**"], None),
        ("http://h%6fst/a", ["**"], None),
        ("http://h\u00f6st/a", ["**"], None),
        ("mailto:a@example.com", ["mailto:*"], "mailto:*"),
    ],
)
def test_uris_are_compared_in_one_form(uri: str, patterns: list[str], expected: str | None):
    policy = McpPolicy(rules=[ResourceUri(pattern, "scope") for pattern in patterns])
    for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
        assert find_pattern(policy, method, uri) == expected


def test_kinds_have_rules_of_their_own():
    policy = McpPolicy(rules=[Tool("a", "t"), Prompt("a", "p"), ResourceUri("a", "r"), Method("a", "m")])
    for method, kind in (("tools/call", Tool), ("prompts/get", Prompt), ("resources/read", ResourceUri), ("a", Method)):
        assert isinstance(policy.find(Message(method=method, name="a")), kind)
    assert find_pattern(McpPolicy(rules=[Method("*", AUTHENTICATED)]), "tools/call", "a") is None
    assert find_pattern(McpPolicy(rules=[Method("*", AUTHENTICATED)]), "ping") == "*"
    assert find_pattern(McpPolicy(), "ping") == "ping"
    assert find_pattern(McpPolicy(), "tools/list") is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tool("", "a"), "must not be empty"),
        (lambda: ANY_TOOL(7, "a"), "must be a string"),
        (lambda: ANY_TOOL("a", 7), r"Tool\('a'\): access: must be a requirement"),
        (lambda: Tool("a", PUBLIC), "needs a token; write AUTHENTICATED, not PUBLIC"),
        (lambda: Tool("a", OPTIONAL), "needs a token"),
        (lambda: Tool("a", "public"), "write PUBLIC"),
        (lambda: Tool("a", "a b"), "several scopes"),
        (lambda: ANY_TOOL("a", ["a"]), "must be a requirement"),
        (lambda: ANY_TOOL("a", dict), "must be a requirement"),
        (lambda: Method("tools/call", "a"), "write Tool"),
        (lambda: Method("prompts/get", "a"), "write Prompt"),
        (lambda: Method("resources/read", "a"), "write ResourceUri"),
        (lambda: ResourceUri("file:///**/x", "a"), "after the last slash"),
        (lambda: ResourceUri("file:///x**", "a"), "after the last slash"),
        (lambda: ResourceUri("*", "a"), "not an unambiguous URI"),
        (lambda: ResourceUri("file:///../*", "a"), "not an unambiguous URI"),
        (lambda: ANY_POLICY(rules=Tool("a", "a")), "rules: "),
        (lambda: ANY_POLICY(rules=["a"]), "rules: "),
        (lambda: McpPolicy(rules=[Tool("a", "a"), Tool("a", "b")]), "can never decide"),
        (lambda: McpPolicy(rules=[Tool("*", "a"), Tool("b", "b")]), "can never decide"),
        (lambda: McpPolicy(rules=[Tool("a*", "a"), Tool("ab*", "b")]), "can never decide"),
        (lambda: McpPolicy(rules=[ResourceUri("a:/**", "a"), ResourceUri("a:/b/*", "b")]), "can never decide"),
        (lambda: McpPolicy(allowed_origins=["app.test"]), "is not an origin"),
        (lambda: McpPolicy(allowed_origins=["https://app.test/path"]), "is not an origin"),
        (lambda: McpPolicy(allowed_origins=["null"]), "is not an origin"),
        (lambda: McpPolicy(allowed_origins=["https://a@app.test"]), "is not an origin"),
        (lambda: McpPolicy(max_body_bytes=0), "max_body_bytes"),
        (lambda: McpPolicy(body_timeout=0), "body_timeout"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_wider_rules_may_follow():
    McpPolicy(rules=[ResourceUri("a:/b/*", "a"), ResourceUri("a:/b/**", "b"), ResourceUri("**", "c")])
    McpPolicy(rules=[Tool("ab*", "a"), Tool("a*", "b"), Tool("*", "c"), Prompt("ab", "d")])


def test_asynchronous_function_is_refused():
    async def decide(arguments: Any) -> Any: ...

    class Decider:
        async def __call__(self, arguments: Any) -> Any: ...

    wrong: list[Any] = [decide, Decider()]
    for function in wrong:
        with pytest.raises(ConfigurationError, match="must not be asynchronous"):
            Tool("a", function)


@pytest.mark.filterwarnings("error")
def test_coroutine_of_a_function_is_closed_and_denies():
    async def later() -> str:
        return "scope"

    function: Any = lambda arguments: later()  # noqa: E731
    rule = Tool("a", function)
    with pytest.raises(Exception, match="rule_failed"):
        rule.find_requirement(Message(method="tools/call", name="a"))


def test_function_gets_the_arguments():
    def decide(arguments: Any) -> Any:
        return DENIED if arguments.get("force") else "scope"

    for kind, method in ((Tool, "tools/call"), (Prompt, "prompts/get")):
        rule = kind("a", decide)
        assert rule.find_requirement(Message(method=method, name="a")) == all_of("scope")
        forced = Message(method=method, name="a", params={"name": "a", "arguments": {"force": True}})
        assert rule.find_requirement(forced) is DENIED
    listed = Method("tools/list", lambda params: params["cursor"])
    assert listed.find_requirement(Message(method="tools/list", params={"cursor": "x"})) == all_of("x")


PATTERNS = st.text("ab*", min_size=1, max_size=5)


@given(st.lists(PATTERNS, min_size=1, max_size=4), st.text("ab", max_size=5))
def test_result_is_that_of_a_linear_search(patterns: list[str], name: str):
    try:
        policy = McpPolicy(rules=[Tool(pattern, "scope") for pattern in patterns])
    except ConfigurationError:
        return  # a rule that could never decide
    matching = [p for p in patterns if re.fullmatch(".*".join(map(re.escape, p.split("*"))), name)]
    assert find_pattern(policy, "tools/call", name) == (matching[0] if matching else None)


@given(st.text("aA/.%25fF\\:\u00e9", max_size=12))
def test_one_form_of_a_uri_is_its_own_form(rest: str):
    form = canonical_uri(f"x://h/{rest}")
    if form is not None and "%" not in form:
        assert canonical_uri(form) == form
    assert form is None or "/../" not in form + "/"


def test_rules_are_compared_and_shown():
    rule: OperationRule = Tool("a", "scope")
    other: OperationRule = Prompt("a", all_of("scope"))
    assert rule == Tool("a", all_of("scope"))
    assert rule != other
    assert repr(rule) == "Tool(pattern='a', access=all_of('scope'))"
