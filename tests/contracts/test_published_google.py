"""Google's discovery documents: all of them load, and eight of them are enforced over HTTP.

What a document says is read here once more, straight from its JSON and from ``flatPath``, which the contract does not
use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from enforced import Enforced, discovery_documents
from scopeguard import AUTHENTICATED, ConfigurationError, Rules
from scopeguard.contracts import google_discovery
from scopeguard.rules import DENIED

APIS = (
    "bigquery.v2",
    "storage.v1",
    "bigquerydatatransfer.v1",
    "calendar.v3",
    "drive.v3",
    "gmail.v1",
    "pubsub.v1",
    "sheets.v4",
)
UNRELATED = "https://www.googleapis.com/auth/unrelated"


def _methods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for inner in resource.get("resources", {}).values():
        yield from _methods(inner)


def _some(template: str) -> str:
    return re.sub(r"\{\+?[^}]*\}", "some-1", template)


def _places(document: dict[str, Any], method: dict[str, Any]) -> Iterator[str]:
    """Return the paths at which *method* is served, with a value for each parameter."""
    flat = _some(method.get("flatPath", method["path"]))
    yield f"/{document['servicePath']}{flat}"
    if method.get("useMediaDownloadService"):
        yield f"/download/{document['servicePath']}{flat}"
    patterns = {name: about.get("pattern") for name, about in method.get("parameters", {}).items()}
    for protocol in method.get("mediaUpload", {}).get("protocols", {}).values():
        path = protocol["path"]
        for name, pattern in patterns.items():
            if pattern and "{+" + name + "}" in path:
                path = path.replace("{+" + name + "}", pattern.strip("^$").replace("[^/]+", "some-1"))
        yield _some(path)


@pytest.mark.timeout(300)  # All 600 of them.
def test_each_discovery_document_loads_and_each_method_has_its_rule():
    documents = methods = 0
    for path in sorted(discovery_documents().glob("*.json")):
        document = json.loads(path.read_text("utf-8"))
        if document["kind"] == "discovery#directoryList":
            continue  # The list of the others.
        if not any(_methods(document)):  # Only schemas: not a contract.
            with pytest.raises(ConfigurationError, match="describes no operation"):
                google_discovery(path, undeclared="authenticated")
            continue
        rules = Rules(google_discovery(path, undeclared="authenticated").rules)
        documents += 1
        for method in _methods(document):
            methods += 1
            scopes = {frozenset((scope,)) for scope in method.get("scopes", ())} or set(AUTHENTICATED.alternatives)
            for place in _places(document, method):
                rule = rules.find(method["httpMethod"].upper(), place)
                assert rule is not None, (path.name, method["id"], place)
                assert set(getattr(rule.access, "alternatives", ())) == scopes, (path.name, method["id"], place)
                assert path.name in str(rule.source)
    assert documents > 500
    assert methods > 25_000


@pytest.mark.parametrize("api", APIS)
@pytest.mark.timeout(300)  # thousands of requests, on busy machines
def test_a_method_is_allowed_exactly_with_the_scopes_its_document_lists(api: str):
    path = discovery_documents() / f"{api}.json"
    document = json.loads(path.read_text("utf-8"))
    declared = sorted(document["auth"]["oauth2"]["scopes"])
    contract = google_discovery(path, undeclared="deny")
    requests = 0
    with Enforced(contract).serve() as api_server:
        for method in _methods(document):
            verb, listed = method["httpMethod"], method.get("scopes", [])
            for place in _places(document, method):
                for scope in (*declared, UNRELATED):
                    status = api_server.status(verb, place, (scope,))
                    assert status == (200 if scope in listed else 403), (method["id"], place, scope, status)
                    requests += 1
                assert api_server.status(verb, place, None) == 401, (method["id"], place)
                assert api_server.status(verb, place, ()) == 403, (method["id"], place)
        batch = "/" + document["batchPath"]
        assert [api_server.status("POST", batch, (scope,)) for scope in declared] == [403] * len(declared)
        assert api_server.status("GET", "/no/such/operation", tuple(declared)) == 403
    assert requests >= len(list(_methods(document))) * (len(declared) + 1)
    assert set(contract.catalog.names) == set(declared)
    assert any(rule.access is DENIED for rule in contract.rules)
