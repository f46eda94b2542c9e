"""The metrics of a guard in a registry of prometheus_client."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from environment import ROOT
from scopeguard import (
    ApiKey,
    ApiKeys,
    AuthorityUnavailable,
    AuthZen,
    ConfigurationError,
    DPoP,
    Guard,
    HeaderList,
    Introspection,
    IssuerResolver,
    Reason,
    RequestView,
    RevocationPolicy,
    Rule,
    metrics,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.guard import engine_of
from scopeguard.metrics.instruments import GAUGES, INSTRUMENTS, Kind
from scopeguard.metrics.recorder import MOST_ROUTES
from scopeguard.spec.api_key import make_key
from scopeguard.starlette import requires
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority, FakeDecisionPoint, Network


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    settings = {"transport": authority.transport, "clock": authority.clock, **settings}
    return Guard(settings.pop("issuer", authority.issuer), **settings)


class Scene:
    """A guard with metrics in a registry of its own."""

    def __init__(self, authority: FakeAuthority | None = None, **settings: Any) -> None:
        self.authority = authority or FakeAuthority()
        self.guard = guard_of(self.authority, **settings)
        self.registry = CollectorRegistry()
        metrics.prometheus(self.guard, registry=self.registry)

    def check(self, token: str | None, **options: Any) -> None:
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        self.guard.check(RequestView(method="GET", path="/secret", headers=HeaderList(headers)), **options)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"scopeguard_{name}", labels)

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of the metric *name* by the values of its labels, in alphabetical order of the labels."""
        text = generate_latest(self.registry).decode()
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"scopeguard_{name}"
        }


# -- decisions


def test_decisions_are_counted_by_outcome_reason_adapter_issuer_and_route():
    scene = Scene()

    @requires("x")
    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse({})

    client = TestClient(
        Starlette(
            routes=[Route("/x/{name}", endpoint)],
            middleware=[Middleware(GuardMiddleware, guard=scene.guard, rules=[Rule("/x/{name}")])],
        )
    )
    for _ in range(3):
        client.get("/x/7", headers=scene.authority.bearer("x"))
    client.get("/x/8", headers=scene.authority.bearer("y"))
    client.get("/x/9")
    url = scene.authority.url
    assert scene.series("decisions_total") == {
        ("starlette", "token", url, "granted", "", "/x/{name}"): 3.0,
        ("starlette", "token", url, "denied", "insufficient_scope", "/x/{name}"): 1.0,
        ("asgi", "", "", "denied", "no_credentials", "/x/{name}"): 1.0,
    }
    assert scene.series("decision_duration_seconds_count") == {
        ("granted", "fetched"): 1.0,
        ("granted", "verified"): 2.0,
        ("denied", "verified"): 1.0,
        ("denied", ""): 1.0,
    }


def test_duration_and_cache_hits_are_measured():
    scene = Scene()
    transport = scene.authority.transport

    class Slow:
        def send(self, request: Any) -> Any:
            scene.authority.clock.advance(0.3)
            return transport.send(request)

        def close(self) -> None: ...

    scene = Scene(scene.authority, transport=Slow())
    token = scene.authority.mint()
    for _ in range(3):
        scene.check(token)
    assert scene.value("decision_duration_seconds_sum", outcome="granted", token_check="fetched") == pytest.approx(0.6)
    assert scene.value("decision_duration_seconds_count", outcome="granted", token_check="cached") == 2.0
    slow = {"outcome": "granted", "token_check": "fetched"}
    assert scene.value("decision_duration_seconds_bucket", le="0.5", **slow) == 0.0
    assert scene.value("decision_duration_seconds_bucket", le="1.0", **slow) == 1.0


def test_anonymous_caller_and_outage_are_counted():
    scene = Scene()
    scene.check(None, optional=True)
    with scene.authority.outage():
        scene.check(scene.authority.mint())
    assert scene.series("decisions_total") == {
        ("guard", "", "", "anonymous", "", ""): 1.0,
        ("guard", "token", scene.authority.url, "unavailable", "authority_unreachable", ""): 1.0,
    }


def test_api_keys_are_counted_by_their_own_kind_and_issuer():
    identifier, text, digest = make_key("acme", lambda size: b"x" * size)
    key = ApiKey(id=identifier, sha256=digest, subject="a", expires_at=None)
    keys = ApiKeys(prefix="acme", lookup=lambda _: key, issuer="https://api.test/keys")
    scene = Scene(api_keys=keys, token_sources=["api_key"])
    for value in (text, "bad"):
        fields = HeaderList([(b"x-api-key", value.encode())])
        scene.guard.check(RequestView(method="GET", path="/", headers=fields))
    assert scene.series("decisions_total") == {
        ("guard", "api_key", "https://api.test/keys", "granted", "", ""): 1.0,
        ("guard", "", "", "denied", "api_key_malformed", ""): 1.0,
    }


def test_labels_hold_nothing_that_a_client_chooses():
    """Neither the path, the client and the subject, nor the issuers that a resolver finds."""
    authority, tenant = FakeAuthority(), FakeAuthority("https://tenant-7.test")
    resolver = IssuerResolver(accepts=lambda name: name == tenant.url, resolve=lambda name: tenant.issuer)
    scene = Scene(authority, resolver=resolver, transport=Network(authority, tenant), clock=authority.clock)
    for each in (authority, tenant):
        scene.check(each.mint("read", client_id="client-7", subject="subject-7"))
    scene.check("garbage-7")
    text = generate_latest(scene.registry).decode()
    assert "-7" not in text
    assert "secret" not in text
    assert {issuer for _, _, issuer, *_ in scene.series("decisions_total")} == {authority.url, "other", ""}
    assert {authority for authority, *_ in scene.series("exchange_duration_seconds_count")} == {authority.url, "other"}


def test_route_below_a_mount_with_a_parameter_is_that_of_the_rule():
    scene = Scene()

    async def endpoint(request: Request) -> JSONResponse:
        return JSONResponse({})

    inner = Mount("/{tenant}", routes=[Route("/rows", endpoint)])
    app = Starlette(
        routes=[inner], middleware=[Middleware(GuardMiddleware, guard=scene.guard, rules=[Rule("/{rest:path}")])]
    )
    for tenant in ("a7", "b7"):
        assert TestClient(app).get(f"/{tenant}/rows", headers=scene.authority.bearer()).status_code == 200
    assert {route for *_, route in scene.series("decisions_total")} == {"/{rest:path}"}


def test_routes_that_an_app_makes_up_are_bounded():
    scene = Scene()
    listener: Any = engine_of(scene.guard).reporter.listeners[0]
    recorder = listener.__self__
    assert [recorder._route(f"/r{number}") for number in range(MOST_ROUTES)][-1] == f"/r{MOST_ROUTES - 1}"
    assert (recorder._route("/one-more"), recorder._route("/r0")) == ("", "/r0")


# -- outbound requests and state


def test_fetches_are_timed_by_result_and_a_failing_fetch_pauses():
    scene = Scene()
    url = scene.authority.url
    scene.check(scene.authority.mint())
    assert scene.series("exchange_duration_seconds_count") == {(url, "keys", "ok"): 1.0}
    assert scene.value("pause_seconds", kind="keys", authority=url) == 0.0
    with scene.authority.outage():
        scene.check(scene.authority.mint(headers={"kid": "new"}))
    assert scene.series("exchange_duration_seconds_count")[url, "keys", "authority_unreachable"] == 1.0
    assert (scene.value("pause_seconds", kind="keys", authority=url) or 0.0) > 0.0


def test_age_of_the_key_set_is_read_at_the_scrape():
    scene = Scene()
    url = scene.authority.url
    assert scene.value("key_set_age_seconds", issuer=url) is None
    scene.check(scene.authority.mint())
    scene.authority.clock.advance(100)
    assert scene.value("key_set_age_seconds", issuer=url) == 100.0
    configured = replace(scene.authority.issuer, keys={"keys": [scene.authority.key().public_jwk()]})
    static = Scene(scene.authority, issuer=configured)
    assert static.value("key_set_age_seconds", issuer=url) is None
    assert static.value("issuer_ready", issuer=url) == 1.0


def test_introspection_is_timed_and_its_breaker_shown():
    authority = FakeAuthority()
    asking = Introspection(client_id="api", client_secret=authority.api.secret)
    issuer = replace(authority.issuer, validate="introspection", introspection=asking)
    scene = Scene(authority, issuer=issuer)
    scene.check(authority.mint(token_format="opaque"))
    assert scene.series("exchange_duration_seconds_count") == {(authority.url, "introspection", "ok"): 1.0}
    assert scene.value("pause_seconds", kind="introspection", authority=authority.url) == 0.0
    assert scene.value("issuer_ready", issuer=authority.url) == 1.0
    with authority.outage():
        for _ in range(5):
            scene.check(authority.mint(token_format="opaque"))
    assert (scene.value("pause_seconds", kind="introspection", authority=authority.url) or 0.0) > 0.0
    # Three failures open the breaker. It prevents the others, which are refused without an exchange.
    failed = authority.url, "introspection", "authority_unreachable"
    assert scene.series("exchange_duration_seconds_count")[failed] == 3.0
    assert {result for *_, result in scene.series("exchange_duration_seconds_count")} == {"ok", failed[-1]}
    assert scene.value("issuer_ready", issuer=authority.url) == 0.0
    assert scene.value("ready") == 0.0


def test_metrics_of_questions_name_the_decision_point():
    authority, pdp = FakeAuthority(), FakeDecisionPoint()
    scene = Scene(authority, transport=Network(authority, pdp))
    app = GuardMiddleware(_app, guard=scene.guard, rules=[Rule("/x", decide=pdp.authzen())])
    TestClient(app).get("/x", headers=authority.bearer())
    assert scene.series("exchange_duration_seconds_count")[pdp.url, "decisions", "ok"] == 1.0
    assert scene.value("pause_seconds", kind="decisions", authority=pdp.url) == 0.0
    assert isinstance(pdp.authzen(), AuthZen)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await JSONResponse({})(scope, receive, send)


def test_shared_store_is_timed_and_its_failures_counted(monkeypatch: pytest.MonkeyPatch):
    authority = FakeAuthority()
    store = MemoryStore(authority.clock)
    scene = Scene(authority, store=store, revocation=RevocationPolicy(max_lag=1.0))
    scene.check(scene.authority.mint())
    assert scene.series("exchange_duration_seconds_count")["", "store", "ok"] >= 1.0
    assert scene.value("revocation_log_age_seconds") == 0.0
    assert scene.value("pause_seconds", kind="store", authority="") == 0.0

    def fail(after: str | None) -> Any:
        raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store")

    monkeypatch.setattr(store, "read", fail)
    scene.authority.clock.advance(10)
    scene.check(scene.authority.mint())
    assert scene.series("exchange_duration_seconds_count")["", "store", "store_unavailable"] == 1.0
    assert scene.value("ready") == 0.0
    scene.guard.revoke(jti="1", issuer=scene.authority.url)
    assert scene.value("revocations") == 1.0


def test_cache_and_replay_memory_show_their_size():
    scene = Scene(dpop=DPoP(base_url="https://api.test"))
    assert (scene.value("token_cache_entries"), scene.value("replay_memory_proofs")) == (0.0, 0.0)
    for _ in range(2):
        scene.check(scene.authority.mint())
    assert scene.value("token_cache_entries") == 2.0
    without = Scene(token_cache="off")
    assert (without.value("token_cache_entries"), without.value("replay_memory_proofs")) == (None, None)


def test_exception_of_a_hook_is_counted_as_failed(caplog: pytest.LogCaptureFixture):
    scene = Scene()

    class Broken:
        def send(self, request: Any) -> Any:
            raise ZeroDivisionError

        def close(self) -> None: ...

    scene = Scene(scene.authority, transport=Broken())
    with pytest.raises(ZeroDivisionError):
        scene.check(scene.authority.mint())
    assert scene.series("exchange_duration_seconds_count") == {(scene.authority.url, "keys", "failed"): 1.0}

    def fail(exchange: Any) -> None:
        raise RuntimeError("a bug in a watcher")

    watching = Scene()
    engine_of(watching.guard).runtime.watchers = (fail, *engine_of(watching.guard).runtime.watchers)
    watching.check(watching.authority.mint())
    assert "a bug in a watcher" in caplog.text
    assert watching.value("ready") == 1.0
    assert len(watching.series("exchange_duration_seconds_count")) == 1


# -- guards and registries


def test_several_guards_share_the_metrics_of_a_registry():
    first = Scene()
    second = guard_of(first.authority)
    metrics.prometheus(second, registry=first.registry)
    for guard in (first.guard, second):
        request = HeaderList([(b"authorization", f"Bearer {first.authority.mint()}".encode())])
        guard.check(RequestView(method="GET", path="/", headers=request))
        first.authority.clock.advance(10)
    assert first.value("token_cache_entries") == 2.0
    assert (first.value("ready"), first.value("issuer_ready", issuer=first.authority.url)) == (1.0, 1.0)
    assert first.value("key_set_age_seconds", issuer=first.authority.url) == 20.0
    assert list(first.series("decisions_total").values()) == [2.0]


def test_guard_that_a_test_takes_over_keeps_its_metrics():
    scene = Scene()
    other = FakeAuthority(scene.authority.url, audience=scene.authority.audience)
    with other.takes_over(scene.guard):
        scene.check(other.mint())
        assert scene.series("exchange_duration_seconds_count") == {(other.url, "keys", "ok"): 1.0}
        assert scene.value("token_cache_entries") == 1.0
    assert scene.value("token_cache_entries") == 0.0
    assert list(scene.series("decisions_total").values()) == [1.0]


def test_guard_that_is_gone_is_exported_no_more():
    scene = Scene()
    other = guard_of(scene.authority)
    metrics.prometheus(other, registry=scene.registry)
    headers = HeaderList([(b"authorization", f"Bearer {scene.authority.mint()}".encode())])
    other.check(RequestView(method="GET", path="/", headers=headers))
    assert scene.value("token_cache_entries") == 1.0
    other.close()
    del other
    gc.collect()
    assert scene.value("token_cache_entries") == 0.0


def test_second_call_for_the_same_guard_changes_nothing():
    scene = Scene()
    metrics.prometheus(scene.guard, registry=scene.registry)
    scene.check(None)
    assert list(scene.series("decisions_total").values()) == [1.0]


def test_default_registry_is_that_of_the_library():
    scene = Scene()
    guard = guard_of(scene.authority)
    metrics.prometheus(guard)
    assert prometheus_client.REGISTRY.get_sample_value("scopeguard_ready") is not None


def test_every_metric_is_exported_under_its_name():
    authority = FakeAuthority()
    settings = {"dpop": DPoP(base_url="https://api.test"), "revocation": RevocationPolicy(), "token_cache": "off"}
    scene = Scene(authority, store=MemoryStore(authority.clock), **settings)
    scene.check(scene.authority.mint())
    found = {family.name for family in text_string_to_metric_families(generate_latest(scene.registry).decode())}
    wanted = {each.prometheus_name.removesuffix("_total") for each in INSTRUMENTS}
    assert wanted - found == {"scopeguard_token_cache_entries"}
    assert {name for name in found if not name.endswith("_created")} <= wanted
    assert all(gauge.kind is Kind.GAUGE for gauge in GAUGES)


@pytest.mark.parametrize("wrong", [None, "guard", 3])
def test_arguments_of_the_wrong_kind_are_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="guard"):
        metrics.prometheus(wrong)
    if wrong is not None:
        with pytest.raises(ConfigurationError, match="registry"):
            metrics.prometheus(guard_of(FakeAuthority()), registry=wrong)


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "scopeguard.metrics.with_prometheus", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"scopeguard-oauth2\[prometheus\]"):
        metrics.prometheus(guard_of(FakeAuthority()))


# -- several processes


def test_multiprocess_mode_adds_up_the_counts_of_all_workers(tmp_path: Path):
    """The workers are forked after the app was loaded, as gunicorn does with ``--preload``."""
    script = """
    import os
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess
    from scopeguard import Guard, HeaderList, RequestView, metrics
    from scopeguard.testing import FakeAuthority

    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    metrics.prometheus(guard)
    headers = HeaderList([(b"authorization", f"Bearer {authority.mint()}".encode())])
    for _ in range(2):
        if os.fork() == 0:
            for _ in range(3):
                guard.check(RequestView(method="GET", path="/", headers=headers))
            os._exit(0)
    for _ in range(2):
        assert os.wait()[1] == 0
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    print(generate_latest(registry).decode())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    samples = {
        (sample.name, sample.labels.get("token_check")): sample.value
        for family in text_string_to_metric_families(run.stdout)
        for sample in family.samples
    }
    assert samples["scopeguard_decisions_total", None] == 6.0
    assert samples["scopeguard_decision_duration_seconds_count", "fetched"] == 2.0
    assert samples["scopeguard_decision_duration_seconds_count", "cached"] == 4.0
    assert samples["scopeguard_exchange_duration_seconds_count", None] == 2.0
