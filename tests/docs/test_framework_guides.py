"""The blocks of the guides for Falcon, aiohttp and gRPC run, and do what the text around them says."""

from __future__ import annotations

from typing import Any

import falcon
import falcon.testing
import pytest

from documentation import run
from scopeguard.falcon import protect
from scopeguard.testing import FakeAuthority


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    made = FakeAuthority("https://auth.example.com", audience="https://api.example.com")
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: made.transport)
    return made


def test_falcon_responders_need_their_scopes(authority: FakeAuthority):
    client = falcon.testing.TestClient(run("falcon")["app"])
    assert client.simulate_get("/healthz").json == "ok"
    assert client.simulate_post("/rows").status_code == 401
    assert client.simulate_post("/rows", headers=authority.bearer("read")).status_code == 403
    assert client.simulate_post("/rows", headers=authority.bearer("bigquery")).json == {"client": "client"}
    assert client.simulate_get("/rows", headers=authority.bearer("", subject="ann")).json == {"subject": "ann"}


def test_falcon_hooks_cover_classes_suffixes_and_sinks(authority: FakeAuthority):
    api: Any = falcon.App()
    run("falcon_sink", api=api)
    client: Any = falcon.testing.TestClient(protect(api, guard=run("falcon")["guard"]))

    def status(method: str, path: str, scope: str) -> int:
        code: int = client.simulate_request(method, path, headers=authority.bearer(scope)).status_code
        return code

    assert [status("GET", "/rows", scope) for scope in ("rows.read", "other")] == [200, 403]
    scopes = ("rows.read rows.insert", "rows.read", "rows.insert")
    assert [status("POST", "/rows:batch", scope) for scope in scopes] == [200, 403, 403]
    assert [status("GET", "/files/a", scope) for scope in ("files.read", "rows.read")] == [200, 403]
