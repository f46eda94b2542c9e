"""Third-party apps as published on PyPI: ``wrapped_apps:app``, chosen and configured by the environment.

``WRAPPED_APP`` names one, ``WRAPPED_FOLDER`` is where it keeps its things, and with ``WRAPPED_JWKS`` it stands behind
the middleware, which asks for the scope ``use`` everywhere. It runs in the environment that ``make apps`` makes. What
is written here is what an operator writes to configure such an app; none of their code is touched.

Annotations are evaluated here: strawberry and FastMCP read them.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from scopeguard import Guard, Issuer, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware as GuardASGI
from scopeguard.wsgi import GuardMiddleware as GuardWSGI

AUDIENCE: Final = "https://api.test"
AUTHORITY: Final = "https://as.test"
PASSWORD: Final = "sg-secret-of-the-admin"
ROWS: Final = 3000
AT: Final = 1_700_000_000
"""When files were last changed, in seconds since the epoch: the same for the app with and without the guard."""

_FOLDER: Final = Path(os.environ.get("WRAPPED_FOLDER", "."))


def _datasette() -> Any:
    database = _FOLDER / "things.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table things (id integer primary key, name text, size real)")
        rows = ((number, f"thing {number} é", number / 7) for number in range(ROWS))
        connection.executemany("insert into things values (?, ?, ?)", rows)
    connection.close()
    settings = {"num_sql_threads": 1, "max_csv_mb": 0}
    return import_module("datasette.app").Datasette([str(database)], settings=settings, secret="made-up").app()


def _django(*, asynchronous: bool) -> Any:
    django: Any = import_module("django")
    settings: Any = import_module("django.conf").settings
    contrib = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")]
    middleware = ("sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware")
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _FOLDER / "admin.db"}},
        INSTALLED_APPS=[*contrib, "django.contrib.staticfiles"],
        MIDDLEWARE=[
            "django.middleware.gzip.GZipMiddleware",
            *(f"django.contrib.{name}" for name in middleware),
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # the others are slow on purpose
        ROOT_URLCONF="django_admin_urls",
        SECRET_KEY="made-up",
        STATIC_URL="/static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
    )
    django.setup()
    import_module("django.core.management").call_command("migrate", verbosity=0)
    users: Any = import_module("django.contrib.auth.models").User.objects
    if not users.filter(username="admin").exists():
        users.create_superuser("admin", "", PASSWORD)
    kind = "asgi" if asynchronous else "wsgi"
    return getattr(import_module(f"django.core.{kind}"), f"get_{kind}_application")()


def _pypiserver() -> Any:
    packages = _FOLDER / "packages"
    packages.mkdir()
    for version, size in (("1.0", 1000), ("2.0", 5_000_000)):
        package = packages / f"example-{version}.tar.gz"
        package.write_bytes(bytes(range(250)) * (size // 250))
        os.utime(package, (AT, AT))
    return import_module("pypiserver").app(roots=[packages], authenticate=[], password_file=".", disable_fallback=True)


def _radicale() -> Any:
    settings = {
        "auth": {"type": "none"},
        "rights": {"type": "from_file", "file": str(_FOLDER / "rights")},
        "storage": {"filesystem_folder": str(_FOLDER / "collections")},
    }
    (_FOLDER / "rights").write_text("[all]\nuser = .*\ncollection = .*\npermissions = RrWw\n")
    configuration = import_module("radicale.config").load()
    configuration.update(settings, "here")
    return import_module("radicale").Application(configuration)


def _strawberry() -> Any:
    strawberry: Any = import_module("strawberry")
    uploads: Any = import_module("strawberry.file_uploads")

    def echo(text: str) -> str:
        return text

    async def size(file: uploads.Upload) -> int:
        return len(await file.read())

    async def count(target: int) -> AsyncIterator[int]:
        for number in range(target):
            yield number

    tools: Any = import_module("strawberry.tools")
    schema = strawberry.Schema(
        query=tools.create_type("Query", [strawberry.field(echo, name="echo")]),
        mutation=tools.create_type("Mutation", [strawberry.mutation(size, name="size")]),
        subscription=tools.create_type("Subscription", [strawberry.subscription(count, name="count")]),
    )
    return import_module("strawberry.asgi").GraphQL(schema, multipart_uploads_enabled=True)


def _fastmcp() -> Any:
    anyio: Any = import_module("anyio")
    fastmcp: Any = import_module("fastmcp")
    server = fastmcp.FastMCP("wrapped", version="1")

    def add(a: int, b: int) -> int:
        return a + b

    async def wait(ctx: fastmcp.Context) -> str:
        """Tell of progress, wait until the test has heard of it, and end."""
        await ctx.report_progress(1, 2)
        while not (_FOLDER / "go-on").exists():
            await anyio.sleep(0.01)
        return "done"

    server.tool(add)
    server.tool(wait)
    return server.http_app(path="/mcp")


def _quart() -> Any:
    return import_module("finitelycomputable.helloworld_quart").application


class _Operator:
    """What the admin of a Litestar app asks of its operator: users, an audit trail and a cache."""

    def __init__(self) -> None:
        self._cached: dict[str, Any] = {}

    async def authenticate(self, session: Any, username: str, password: str) -> str | None:
        return username if password == PASSWORD else None

    def identity_of(self, user: str) -> str:
        return user

    async def is_valid(self, session: Any, actor_id: Any) -> bool:
        return True

    async def write(self, *_: Any, **__: Any) -> None: ...

    async def get(self, key: str) -> Any:
        return self._cached.get(key)

    async def set(self, key: str, value: Any, ttl: int) -> None:
        self._cached[key] = value

    async def delete(self, key: str) -> None:
        self._cached.pop(key, None)


def _litestar() -> Any:
    admin_litestar: Any = import_module("admin_litestar")
    database: Any = import_module("sqlalchemy.ext.asyncio")
    operator = _Operator()
    admin = admin_litestar.Admin(
        config=admin_litestar.AdminConfig(path="/admin"),
        specs=[],
        auth=operator,
        audit=operator,
        cache=lambda _: operator,
        session_factory=database.async_sessionmaker(database.create_async_engine("sqlite+aiosqlite://")),
        csrf_secret="made-up" * 5,
    )
    sessions = import_module("litestar.stores.memory").MemoryStore()
    return import_module("litestar").Litestar(
        [admin.router()],
        template_config=admin.template_config(),
        middleware=[admin.session_config(sessions).middleware],
    )


def _httpbin() -> Any:
    return import_module("httpbin").app


APPS: Final[dict[str, tuple[str, Callable[[], Any]]]] = {
    "datasette": ("asgi", _datasette),
    "django-asgi": ("asgi", lambda: _django(asynchronous=True)),
    "django-wsgi": ("wsgi", lambda: _django(asynchronous=False)),
    "fastmcp": ("asgi", _fastmcp),
    "httpbin": ("wsgi", _httpbin),
    "litestar": ("asgi", _litestar),
    "pypiserver": ("wsgi", _pypiserver),
    "quart": ("asgi", _quart),
    "radicale": ("wsgi", _radicale),
    "strawberry": ("asgi", _strawberry),
}


def _choose_app() -> Any:
    kind, make = APPS[os.environ["WRAPPED_APP"]]
    if "WRAPPED_JWKS" not in os.environ:
        return make()
    guard = Guard(Issuer(AUTHORITY, audience=AUDIENCE, jwks_file=os.environ["WRAPPED_JWKS"]), audit="off")
    rules = Rules([Rule("/{rest:path}", all_of("use"))])
    if os.environ["WRAPPED_APP"] in ("litestar", "quart"):
        extended = make()
        import_module(f"scopeguard.{os.environ['WRAPPED_APP']}").ScopeGuard(extended, guard, rules=rules)
        return extended
    return (GuardASGI if kind == "asgi" else GuardWSGI)(make(), guard=guard, rules=rules)


if "WRAPPED_APP" in os.environ:
    app = _choose_app()
