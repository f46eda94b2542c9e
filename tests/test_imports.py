"""The modules that an import loads, before and during requests. No times: benchmarks/imports.py measures them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from environment import ROOT, plain_environment

# Libraries and parts of the standard library that most programs do not need, or not at the start.
LATER = {
    "anyio", "asyncio", "click", "concurrent.futures", "cryptography.hazmat.primitives.serialization", "difflib",
    "django", "email.utils", "fastapi", "flask", "httpx", "httpx2", "jwt", "msgspec", "multiprocessing", "orjson",
    "pathlib", "pytest", "redis", "rich", "sniffio", "socket", "sqlite3", "ssl", "starlette", "tomllib", "trio",
    "unittest", "uvicorn", "werkzeug", "yaml",
}  # fmt: skip
OURS_LATER = {
    "adapter.asgi_messages", "audit.findings", "audit.report", "audit.startup", "authorization_details", "cli",
    "client", "config.api_documents", "config.api_keys", "config.authzen", "config.client_authentication",
    "config.dpop", "config.file", "config.introspection", "config.mutual_tls", "config.profiles", "config.resolver",
    "config.resource", "config.status_list", "contracts", "core.resource_metadata", "core.revoking",
    "core.signature_backends",
    "devserver", "edge.aio", "explanation", "flow.authzen", "flow.introspection", "flow.key_by_id", "flow.packed_keys",
    "flow.possession", "flow.status_list", "presets", "rules.mcp", "security_events", "spec.certificate_fields",
    "spec.challenge_parser", "spec.client_authentication", "spec.dpop", "spec.key_by_id", "spec.mcp",
    "spec.packed_keys", "spec.resource_metadata", "spec.security_event", "spec.status_list", "state.authzen",
    "state.introspection", "state.key_by_id", "state.proofs", "state.readiness", "state.status_list", "stores",
    "testing", "user_authentication",
}  # fmt: skip
LIBRARIES = "cryptography.hazmat.primitives.asymmetric.padding"


def run_in_a_new_process(script: str) -> set[str]:
    """Return the words that *script* prints."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("imported", ["scopeguard", "scopeguard.asgi", "scopeguard.wsgi"])
def test_import_loads_only_what_each_request_needs(imported):
    loaded = run_in_a_new_process(
        f"""
        import sys, {LIBRARIES}
        before = set(sys.modules)
        import scopeguard, {imported}
        print(*set(sys.modules) - before)
        """
    )
    assert imported in loaded
    assert not loaded & LATER
    assert not loaded & {f"scopeguard.{name}" for name in OURS_LATER}


def test_helpers_import_their_frameworks_lazily():
    loaded = run_in_a_new_process("import sys, scopeguard.testing; print(*sys.modules)")
    expected = {"concurrent.futures", "difflib", "email.utils", "jwt", "pathlib", "socket", "ssl", "tomllib"}
    assert not loaded & (LATER - expected - {"cryptography.hazmat.primitives.serialization"})


# Defines app, key, public and token(), and runs requests with their values of Authorization.
REQUESTS = """
import asyncio, json, sys, time
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scopeguard import Guard, HttpxTransport, Issuer
from scopeguard.asgi import GuardMiddleware
from scopeguard.flow.effects import Answer

key = Ed25519PrivateKey.generate()
public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
keys = {"keys": [{**public, "kid": "1", "alg": "EdDSA", "use": "sig"}]}
claims = {"iss": "https://as.example", "aud": "https://api.example", "exp": time.time() + 60}
claims |= {"sub": "ann", "client_id": "app", "iat": time.time(), "jti": "1"}
token = jwt.encode(claims, key, "EdDSA", {"typ": "at+jwt", "kid": "1"})
statuses = []

class Transport(HttpxTransport):
    def send(self, request):
        return Answer(200, json.dumps(keys).encode(), {"content-type": "application/json"})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})

async def send(message):
    statuses.append(message.get("status"))

async def requests(guarded, *values):
    before = set(sys.modules)
    for value in values:
        headers = [(b"authorization", value.encode())] if value else []
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
        await guarded({**scope, "scheme": "https", "client": ("127.0.0.1", 1)}, None, send)
    print(*sorted(set(sys.modules) - before))

def issuer(**settings):
    return Issuer("https://as.example", audience="https://api.example", algorithms=("EdDSA",), **settings)
"""


def imported_late(script: str) -> set[str]:
    """Return the modules that *script* prints, of those that take long."""
    late = run_in_a_new_process(REQUESTS + textwrap.dedent(script))
    return {name for name in late if name.partition(".")[0] in ("scopeguard", "anyio", "httpx", "httpcore", "ssl")}


def test_requests_import_nothing_in_their_event_loop():
    """The middleware performs all deferred imports: an import during a request would block all others."""
    late = imported_late(
        """
        guarded = GuardMiddleware(app, guard=Guard(issuer(keys=keys)))
        values = ("", "Bearer " + token, "Bearer " + token, "Bearer " + token[:-8] + "AAAAAAAA", "Basic x")
        asyncio.run(requests(guarded, *values))
        wanted = [401, 200, 200, 401, 401]
        assert [status for status in statuses if status] == wanted, statuses
        """
    )
    assert not late


def test_first_fetch_of_keys_imports_nothing_after_the_lifespan_has_begun():
    """An import of anyio's part for asyncio took 30 ms, in the event loop."""
    late = imported_late(
        """
        async def main():
            guarded = GuardMiddleware(app, guard=Guard(issuer(jwks_uri="https://as.example/k"), transport=Transport()))
            await guarded({"type": "lifespan"}, None, send)
            await requests(guarded, "Bearer " + token)

        asyncio.run(main())
        assert [status for status in statuses if status] == [200], statuses
        """
    )
    assert not late


def test_guard_imports_the_parts_that_its_settings_need_before_the_first_request():
    script = """
    from scopeguard import AuthZen, Introspection, MutualTLS, Rule, Rules, StatusListPolicy

    opaque = Introspection(client_id="api", client_secret="secret")
    decided = Rules([Rule("/", decide=AuthZen("https://decisions.example"))])
    for part, arguments, settings in (
        ("flow.introspection", {}, {"validate": "introspection", "introspection": opaque}),
        ("flow.status_list", {}, {"keys": keys, "experimental_status_list": StatusListPolicy()}),
        ("flow.possession", {"mutual_tls": MutualTLS()}, {"keys": keys}),
        ("flow.authzen", {"rules": decided}, {"keys": keys}),
        ("flow.key_by_id", {}, {"key_url_template": "https://as.example/keys/{kid}"}),
        ("flow.packed_keys", {}, {"jwks_uri": "https://as.example/keys", "jwks_seed": "keys.json"}),
        ("core.resource_metadata", {"resource": "https://api.example"}, {"keys": keys}),
    ):
        assert f"scopeguard.{part}" not in sys.modules, part
        GuardMiddleware(app, guard=Guard(issuer(**settings), audit="off", **arguments))
        assert f"scopeguard.{part}" in sys.modules, part
    assert "scopeguard.spec.certificate_fields" in sys.modules
    assert "scopeguard.spec.dpop" in sys.modules
    """
    run_in_a_new_process(REQUESTS + textwrap.dedent(script))


def test_start_of_an_app_without_mcp_imports_nothing_of_mcp():
    """The audit of the routes imported it."""
    script = """
    guarded = GuardMiddleware(app, guard=Guard(issuer(keys=keys)))
    asyncio.run(requests(guarded, "Bearer " + token))
    print("after", *(name for name in sys.modules if name.startswith("scopeguard")))
    """
    loaded = run_in_a_new_process(REQUESTS + textwrap.dedent(script))
    assert "scopeguard.audit.findings" in loaded
    assert not loaded & {"scopeguard.rules.mcp", "scopeguard.spec.mcp"}
