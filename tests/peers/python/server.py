"""Django OAuth Toolkit on loopback, ruled by its parent: one JSON object a line on standard input, one answer a line
on standard output, as with ``../node/server.mjs``. Ends when its parent does.

    {"do": "start", "database": "/a/new/file"}  ->  {"port": 12345, "bearer": "a token that may introspect"}
    {"do": "count"}                             ->  {"counts": {"POST /introspect/": 3, ...}}
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from waitress.server import create_server

counts: Counter[str] = Counter()


def start(database: str) -> dict[str, Any]:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
        LOGGING_CONFIG=None,
        MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "oauth2_provider")),  # tables, and not their history
        OAUTH2_PROVIDER={"SCOPES": {"read": "read", "write": "write", "introspection": "introspect"}},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # the others are slow on purpose
        ROOT_URLCONF=None,
        SECRET_KEY=secrets.token_urlsafe(),
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    settings.ROOT_URLCONF = _routes()
    bearer = _populate()
    from django.core.wsgi import get_wsgi_application

    app = get_wsgi_application()

    def count_and_call(environ: Any, start_response: Any) -> Iterable[bytes]:
        counts[f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"] += 1
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    server: Any = create_server(count_and_call, host="127.0.0.1", port=0, threads=4, clear_untrusted_proxy_headers=True)
    threading.Thread(target=server.run, daemon=True).start()
    return {"port": int(server.effective_port), "bearer": bearer}


def _routes() -> tuple[Any, ...]:
    """Two issuers: ``/o``, mounted as its manual shows, whose metadata is at a place that no RFC defines; and
    ``/realm``, whose metadata is at the place of RFC 8414. The endpoints are the same.
    """
    from django.urls import include, path
    from oauth2_provider.views import OAuthServerMetadataView

    view = OAuthServerMetadataView.as_view()
    return (
        path("o/", include("oauth2_provider.urls")),
        path(".well-known/oauth-authorization-server/realm", view),
    )


def _populate() -> str:
    """A machine, an API, and a token by which another API may introspect."""
    from django.utils import timezone
    from oauth2_provider.models import AccessToken, Application

    for client_id in ("machine:1", "api:basic"):
        Application.objects.create(
            client_id=client_id,
            client_secret=f"sg-secret-{client_id} :%+/&=~",
            client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
        )
    until = timezone.now() + dt.timedelta(hours=1)
    bearer = f"sg-opaque-{secrets.token_urlsafe()}"
    AccessToken.objects.create(token=bearer, expires=until, scope="introspection")
    return bearer


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "start":
                answer = start(**command)
            case "count":
                answer = {"counts": counts}
            case unknown:
                raise SystemExit(f"no such command: {unknown}")
        print(json.dumps(answer), flush=True)


main()
