"""The blocks of the how-to pages run and do what the pages say: deployments, migrations, and further guides."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from documentation import BLOCKS, MANUAL, NAMED, run
from environment import plain_environment, skip_or_fail
from loopback import Certificates
from scopeguard import Guard, Issuer, presets
from scopeguard.asgi import GuardMiddleware
from scopeguard.config.file import settings_from
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority, Network

ISSUER, API = "https://auth.example.com", "https://api.example.com"


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """The authorization server of the pages, which new guards reach."""
    authority = FakeAuthority(ISSUER, audience=API)
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: authority.transport)
    return authority


@pytest.fixture
def unload() -> Iterator[None]:
    """Remove the modules that a block has created, after the test."""
    yield
    for name in ("app", "myproject"):
        sys.modules.pop(name, None)


async def hello(_: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


# -- servers


def test_lifespan_on_uvicorn_fetches_the_keys_and_survives_an_outage(authority: FakeAuthority):
    names = run("uvicorn_lifespan")
    with TestClient(names["app"]):
        assert authority.transport.count("jwks") == 1
    with authority.outage(), TestClient(run("uvicorn_lifespan")["app"]) as client:
        assert client.get("/rows", headers=authority.bearer()).status_code == 503


def test_hooks_of_gunicorn_fetch_the_keys_and_close(authority: FakeAuthority, unload: None):
    names = run("gunicorn")
    app = ModuleType("app")
    app.__dict__["guard"] = guard = Guard(authority.issuer)
    sys.modules["app"] = app
    warned: list[str] = []
    server = SimpleNamespace(log=SimpleNamespace(warning=lambda text, problem: warned.append(text % problem)))
    with authority.outage():
        names["post_fork"](server, None)
    assert [text.partition(" (")[0] for text in warned] == ["no keys yet: authority_unreachable"]
    authority.clock.advance(60)
    names["post_fork"](server, None)
    assert guard.ready().ready
    names["worker_exit"](server, None)


def test_settings_of_gunicorn_exist():
    config = importlib.import_module("gunicorn.config")
    known = config.Config().settings
    for name, value in run("gunicorn").items():
        if not name.startswith("__"):
            assert name in known, name
            known[name].set(value)


def test_configuration_of_nginx_is_valid(tmp_path: Path):
    if shutil.which("nginx") is None:
        skip_or_fail("no nginx: make system installs it")
    [block] = [block for block in BLOCKS if block.language == "nginx"]
    pem = Certificates(tmp_path).issue("api.example.com")
    text = block.source.replace("/etc/ssl/api.pem", str(pem)).replace("/etc/ssl/api.key", str(pem))
    text = re.sub(r"listen 443", "listen 127.0.0.1:8443", text)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {text} }}", "utf-8")
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


# -- containers


def yaml_of(page: str) -> list[Any]:
    """Return the documents of the one block of YAML on *page*."""
    [block] = [block for block in BLOCKS if block.page == page and block.language == "yaml"]
    return list(yaml.safe_load_all(block.source))


def check_serve_line(arguments: list[str]) -> None:
    from scopeguard.cli.commands import cli

    program, command, *rest = arguments
    assert program == "scopeguard"
    cli.commands[command].make_context(command, rest).close()


def test_compose_file_fits_its_configuration(tmp_path: Path):
    [document] = yaml_of("docs/deployment/docker-compose.md")
    api = document["services"]["api"]
    check_serve_line(api["command"].split())
    assert set(api["depends_on"]) <= set(document["services"])
    assert {config["source"] for config in api["configs"]} == set(document["configs"])
    assert set(api["secrets"]) == set(document["secrets"])
    text = NAMED["compose_file"].source
    for secret in api["secrets"]:
        assert f"file:/run/secrets/{secret}" in text
        (tmp_path / secret).write_text("sg-secret", "utf-8")
    text = text.replace("/run/secrets", str(tmp_path))
    issuers, arguments = settings_from(tomllib.loads(text), tmp_path, environment=api["environment"])
    guard = Guard(*issuers, **arguments)
    assert guard.rules is not None
    assert document["services"]["redis"]["command"].split()[:3] == ["redis-server", "--maxmemory-policy", "noeviction"]


def test_manifests_of_kubernetes_fit_each_other(tmp_path: Path):
    config, deployment = yaml_of("docs/deployment/kubernetes.md")
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [container] = pod["spec"]["containers"]
    check_serve_line(container["args"])
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    text = config["data"]["scopeguard.toml"]
    assert f"file:{mounts['secrets']}/introspection-secret" in text
    assert f"{mounts['config']}/scopeguard.toml" in container["args"]
    (tmp_path / "introspection-secret").write_text("sg-secret", "utf-8")
    document = tomllib.loads(text.replace(mounts["secrets"], str(tmp_path)))
    issuers, arguments = settings_from(document, tmp_path, environment={})
    assert Guard(*issuers, **arguments).resource is not None
    grace = int(container["args"][container["args"].index("--grace") + 1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace
    assert container["readinessProbe"]["httpGet"]["path"] in container["args"]


@pytest.fixture
def current_loop() -> Iterator[None]:
    """Set an event loop for this thread. Mangum would make one, and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("current_loop")
def test_app_on_lambda_answers_an_event(authority: FakeAuthority):
    if importlib.util.find_spec("mangum") is None:
        skip_or_fail("no mangum: the extra dev installs it")
    handler = run("lambda")["handler"]

    def call(headers: dict[str, str]) -> dict[str, Any]:
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/rows",
            "rawQueryString": "",
            "headers": {"host": "api.example.com", **{name.lower(): value for name, value in headers.items()}},
            "requestContext": {
                "http": {"method": "GET", "path": "/rows", "sourceIp": "203.0.113.7", "protocol": "HTTP/1.1"},
                "stage": "$default",
            },
            "isBase64Encoded": False,
        }
        answer: dict[str, Any] = handler(event, SimpleNamespace())
        return answer

    refused = call({})
    assert (refused["statusCode"], refused["headers"]["www-authenticate"]) == (401, 'Bearer realm="api"')
    assert call(authority.bearer("read"))["body"] == '{"client":"client"}'


def lambda_event(path: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {"http": {"method": "GET", "path": path, "sourceIp": "203.0.113.7"}},
    }


def test_handler_on_lambda_answers_an_event(authority: FakeAuthority):
    handler = run("lambda_handler")["handler"]
    assert handler(lambda_event("/healthz", {}), None)["body"] == "ok"
    assert handler(lambda_event("/rows", {}), None)["statusCode"] == 401
    assert handler(lambda_event("/rows", authority.bearer("rows.read")), None)["body"] == "client"


def test_authorizer_on_lambda_answers_an_event(authority: FakeAuthority):
    handler = run("lambda_authorizer")["handler"]
    for scope, allowed in (("rows.read", True), ("other", False)):
        event = {"type": "REQUEST", "routeArn": "arn", **lambda_event("/rows", authority.bearer(scope))}
        assert handler(event, None)["isAuthorized"] is allowed


# -- guides


def test_several_issuers_are_named_together():
    guard = run("issuers")["guard"]
    assert [issuer.url for issuer in guard.issuers] == [
        "https://login.microsoftonline.com/8eaef023-2b34-4da1-9baa-8bc8c9d6a490/v2.0",
        "https://customers.example.com",
    ]


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    """The authorization server of the tenant "acme"."""
    authority = FakeAuthority("https://login.example.com/tenants/acme", audience=API)
    monkeypatch.setattr("scopeguard.guard.HttpxTransport", lambda: Network(authority))
    return authority


def test_tenants_are_found_by_the_issuer_of_the_token(tenant: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    names = run("tenants", is_customer=lambda name: name == "acme")
    resolver = engine_of(names["guard"]).issuers.resolved
    assert resolver is not None
    rules = run("tenant_rule", TENANT=names["TENANT"])["rules"]
    users = run("tenant_of", TENANT=names["TENANT"])
    seen: list[tuple[str, tuple[str, str]]] = []

    async def show(_: Any) -> PlainTextResponse:
        seen.append((users["tenant"](), users["user"]()))
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/tenants/{tenant}/rows", show)])
    guarded = Guard(resolver=resolver.resolver, clock=tenant.clock, rules=rules)
    client = TestClient(GuardMiddleware(app, guard=guarded))
    headers = tenant.bearer("rows.read", subject="ann")
    assert client.get("/tenants/acme/rows", headers=headers).status_code == 200
    assert seen == [("acme", ("https://login.example.com/tenants/acme", "ann"))]
    assert client.get("/tenants/other/rows", headers=headers).status_code == 403
    stranger = FakeAuthority("https://login.example.com/tenants/none", audience=API, clock=tenant.clock)
    assert client.get("/tenants/none/rows", headers=stranger.bearer("rows.read")).status_code == 401
    evil = FakeAuthority("https://login.example.com/tenants/acme/../x", audience=API, clock=tenant.clock)
    assert client.get("/tenants/acme/rows", headers=evil.bearer("rows.read")).status_code == 401


def test_organizations_are_a_claim(authority: FakeAuthority):
    issuer = run("organization", Issuer=Issuer)["issuer"]
    client = TestClient(
        GuardMiddleware(Starlette(routes=[Route("/", hello)]), guard=Guard(issuer, clock=authority.clock))
    )
    assert client.get("/", headers=authority.bearer(claims={"org_id": "org_01"})).status_code == 200
    assert client.get("/", headers=authority.bearer(claims={"org_id": "org_03"})).status_code == 401
    assert client.get("/", headers=authority.bearer()).status_code == 401


@pytest.mark.parametrize(("block", "library"), [("graphql", "strawberry"), ("graphql_ariadne", "ariadne")])
def test_fields_of_graphql_need_their_scopes(
    block: str, library: str, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
):
    if importlib.util.find_spec(library) is None:
        skip_or_fail(f"no {library}: the extra dev installs it")
    # Strawberry looks up the types there.
    monkeypatch.setitem(sys.modules, f"block_{block}", ModuleType(f"block_{block}"))
    client = TestClient(run(block)["app"])

    def ask(query: str, scope: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/", json={"query": query}, headers=authority.bearer(scope)).json()
        return answer

    assert client.post("/", json={"query": "{caller}"}).status_code == 401
    assert ask("{caller rows}", "rows.read")["data"] == {"caller": "client", "rows": ["Mendlesham", "Wattisham"]}
    [error] = ask("{rows}", "other")["errors"]
    assert error["extensions"]["code"] == "insufficient_scope"
    assert error["extensions"]["scope"] == "rows.read"
    assert ask('mutation {insert(name: "Cromer")}', "rows.write")["data"] == {"insert": "Cromer"}
    assert "errors" in ask('mutation {insert(name: "Cromer")}', "rows.read")


def test_django_project_is_protected(tmp_path: Path):
    """In a process of its own, because the settings of Django are global."""
    script = f"""
import sys, types
import httpx
from django.conf import settings
settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], SECRET_KEY="made-up", DEBUG=False)
from scopeguard.testing import FakeAuthority
import scopeguard.guard
authority = FakeAuthority({ISSUER!r}, audience={API!r})
scopeguard.guard.HttpxTransport = lambda: authority.transport
from django.http import HttpResponse
from django.urls import path
views, wsgi = types.ModuleType("views"), types.ModuleType("wsgi")
exec({NAMED["django_view"].source!r}, vars(views))
urls = types.ModuleType("urls")
healthz = path("healthz/", lambda request: HttpResponse("ok"))
urls.urlpatterns = [path("rows/", views.rows), path("rows/<name>/", views.insert), healthz]
sys.modules["urls"] = urls
exec({NAMED["django_wsgi"].source!r}, vars(wsgi))
with authority.takes_over(wsgi.guard):
    client = httpx.Client(transport=httpx.WSGITransport(app=wsgi.application), base_url={API!r})
    read, write = authority.bearer("rows.read", subject="ann"), authority.bearer("rows.write")
    answers = client.get("/healthz/"), client.get("/rows/"), client.get("/other/", headers=read)
    print(*(answer.status_code for answer in answers))
    print(client.get("/rows/", headers=read).json())
    print(client.post("/rows/Cromer/", headers=read).status_code, client.post("/rows/Cromer/", headers=write).json())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "200 401 403",
        "{'rows': ['Mendlesham'], 'for': 'ann'}",
        "403 {'inserted': 'Cromer', 'by': 'client'}",
    ], done.stderr


# -- migrations


def test_guard_replaces_pyjwt(authority: FakeAuthority):
    names: dict[str, Any] = {}

    async def who(_: Any) -> PlainTextResponse:
        return PlainTextResponse(names["current_user"]())

    names |= run("from_pyjwt", app=Starlette(routes=[Route("/", who), Route("/healthz", hello)]))
    authority.key("RS256")
    client = TestClient(names["app"])
    assert client.get("/", headers=authority.bearer(subject="ann", algorithm="RS256")).text == "ann"
    assert client.get("/", headers=authority.bearer(subject="ann")).status_code == 401  # ES256
    assert client.get("/", headers=authority.bearer(algorithm="RS256", claims={"aud": None})).status_code == 401
    assert client.get("/healthz").status_code == 200


def _flask(name: str) -> tuple[Any, dict[str, Any]]:
    names = run(name)
    return names["app"].test_client(), names


def test_guard_replaces_authlib(authority: FakeAuthority):
    client, _ = _flask("from_authlib")
    assert client.get("/rows").status_code == 401
    assert client.get("/rows", headers=authority.bearer("other")).status_code == 403
    assert client.get("/rows", headers=authority.bearer("rows.read", subject="ann")).json == {"subject": "ann"}


def test_guard_replaces_flask_jwt_extended(authority: FakeAuthority):
    client, _ = _flask("from_flask_jwt")
    assert client.get("/rows").status_code == 401
    assert client.get("/rows", headers=authority.bearer(subject="ann")).json == {"user": "ann"}
    assert client.get("/news").json == {"personal": False}
    assert client.get("/news", headers=authority.bearer()).json == {"personal": True}


def test_guard_replaces_fastapi_azure_auth(monkeypatch: pytest.MonkeyPatch):
    tenant = re.search(r'TENANT, APP = "(.*?)", "(.*?)"', MANUAL["docs/migration/fastapi-azure-auth.md"])
    assert tenant is not None
    issuer = presets.entra(tenant[1], tenant[2])
    authority = FakeAuthority(issuer.url, audience=tenant[2], algorithm="RS256")
    names = run("from_azure")
    claims = {"ver": "2.0", "tid": tenant[1], "azp": "client", "oid": "o", "name": "Ann", "scp": "rows.read"}
    claims["nbf"] = int(authority.clock.wall())
    headers = {"typ": "JWT"}
    client = TestClient(names["app"])
    assert client.get("/rows").status_code == 401
    assert client.get("/docs").status_code == 200
    [guarded] = names["guard"].issuers
    assert guarded.url == issuer.url
    token = {"claims": claims, "headers": headers, "algorithm": "RS256", "subject": "s"}
    with authority.takes_over(names["guard"]):
        assert client.get("/rows", headers=authority.bearer(**token)).json() == {"name": "Ann"}
        token["claims"] = {**claims, "scp": "other"}
        assert client.get("/rows", headers=authority.bearer(**token)).status_code == 403
