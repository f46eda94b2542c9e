"""The laws that can be checked in the source: imports, places of generators and locks, lengths of functions and files.

``docs/architecture.md`` lists the laws. The tables below are complete: a module or a library that is not in them is
refused, so that each addition is a deliberate decision.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

from environment import ADAPTERS, ROOT, plain_environment

PACKAGE = ROOT / "scopeguard"

# Imports run one way: a layer imports itself and the layers above it in this list. "" is scopeguard/__init__.py.
LAYERS = (
    ("extras", "numeric_date", "reasons", "log_values"),
    ("refusal_texts", "errors"),
    ("config.checks",),
    ("tokens", "conditions", "user_authentication", "authorization_details", "scopes", "request", "inbound_tokens"),
    ("config",),
    ("spec",),
    ("state",),
    ("flow",),
    ("edge",),
    ("stores", "transport"),
    (
        "config.api_documents",
        "config.catalog",
        "rules",
        "contracts",
        "presets",
        "config.file",
        "core",
        "explanation",
        "guard",
    ),
    ("adapter",),
    ("audit",),
    ("",),
    ADAPTERS,
    ("security_events", "mcp", "metrics", "aws_lambda"),
    ("client", "testing", "devserver", "server", "doctor", "cli", "__main__"),
)
CONVENIENCES = LAYERS[-1]
VOCABULARY = (*LAYERS[0], *LAYERS[1], *LAYERS[3])

# Laws 1 and 10: the modules that the vocabulary, spec/, state/ and flow/ may import. None of them reads a clock, a
# random number, a file, the environment or the network, starts a thread or writes a log.
PURE = {
    "__future__", "abc", "base64", "binascii", "collections", "contextlib", "contextvars", "dataclasses", "difflib",
    "email.utils", "enum", "functools", "hashlib", "heapq", "hmac", "http", "ipaddress", "itertools", "json", "math",
    "operator", "re", "reprlib", "string", "struct", "tomllib", "types", "typing", "urllib.parse", "weakref", "zlib",
}  # fmt: skip
PURE_LAYERS = (*VOCABULARY, "config", "spec", "state", "flow")

# Modules on a different level from their folder: three read files, and the checks of arguments need only the errors.
ON_ANOTHER_LEVEL = ("config.file", "config.api_documents", "config.catalog", "config.checks")

# The layers that may import each library and each impure module of the standard library.
PLACES = {
    "jwt": ("spec", *CONVENIENCES),
    "cryptography": ("config", "spec", "core", *CONVENIENCES),  # config/ only looks whether it has ML-DSA
    "awscrt": ("core",),
    "nacl": ("core",),
    "orjson": ("core",),
    "pybase64": ("core",),
    "httpx": ("edge", *CONVENIENCES),
    "httpx2": ("edge", *CONVENIENCES),
    "httpcore": ("edge",),
    "anyio": ("edge", "adapter", "fastapi", *CONVENIENCES),
    "asyncio": ("edge", "adapter", "aiohttp", *CONVENIENCES),
    "trio": ("adapter",),  # only to start a task, where it runs
    "threading": ("state", "edge", "stores", "audit", "metrics", *CONVENIENCES),  # state/ uses only its Lock
    "concurrent": ("edge", *CONVENIENCES),
    "time": ("edge", *CONVENIENCES),
    "datetime": ("explanation", *CONVENIENCES),
    "random": ("edge", "core", *CONVENIENCES),
    "secrets": ("core", "stores", *CONVENIENCES),
    "redis": ("stores",),
    "yaml": ("config.api_documents",),
    "socket": ("edge", *CONVENIENCES),
    "ssl": ("edge", *CONVENIENCES),
    "warnings": (
        *VOCABULARY,
        "config",
        "config.file",
        *CONVENIENCES,
    ),  # warnings are about settings, never about a request
    "starlette": ("audit", "starlette", "fastapi", "testing", "devserver", "cli"),  # FastAPI is Starlette underneath
    "fastapi": ("audit", "fastapi"),
    "flask": ("audit", "flask"),
    "falcon": ("audit", "falcon"),
    "grpc": ("grpc",),
    "aiohttp": ("audit", "aiohttp"),
    "multidict": ("aiohttp",),  # this and yarl are parts of the interface of aiohttp
    "yarl": ("aiohttp",),
    "werkzeug": ("flask", "quart"),
    "litestar": ("audit", "litestar"),
    "quart": ("quart",),
    "django": ("audit", "django"),
    "rest_framework": ("django",),
    "drf_spectacular": ("django",),
    "asgiref": ("django",),  # Django's own, for sync and async
    "mcp": ("mcp",),
    "fastmcp": ("mcp",),
    "opentelemetry": ("metrics",),
    "prometheus_client": ("metrics",),
    "click": ("server", "doctor", "cli"),
    "rich": ("cli",),
    "uvicorn": ("server", "cli", "devserver", "testing"),
    "waitress": (
        "server",
        "cli",
    ),
    "pytest": ("testing",),
}
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_FILE = 400
MOST_EFFECTS = 7


@dataclass(frozen=True)
class Module:
    name: str  # relative to scopeguard: "spec.jwt", "" for scopeguard/__init__.py
    path: Path

    @property
    def layer(self) -> str:
        for higher in ON_ANOTHER_LEVEL:
            if self.name == higher or self.name.startswith(f"{higher}."):
                return higher
        return self.name.partition(".")[0]

    @cached_property
    def source(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def at(self, node: ast.stmt | ast.expr | ast.keyword) -> str:
        return f"scopeguard/{self.path.relative_to(PACKAGE)}:{node.lineno}"

    @cached_property
    def imports(self) -> list[tuple[ast.stmt, str]]:
        """Yield the statement and the full module name of each import, lazy and type-checking ones too."""
        found: list[tuple[ast.stmt, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                found += [
                    (node, inner if (inner := f"{origin}.{alias.name}") in OURS else origin) for alias in node.names
                ]
        return found


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [Module(_name(path), path) for path in sorted(PACKAGE.rglob("*.py"))]
OURS = {f"scopeguard.{module.name}".rstrip("."): module for module in MODULES}
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}


@pytest.fixture(scope="module", autouse=True)
def trees() -> Iterator[None]:
    """Forget the syntax trees at the end: in the tests that follow, each garbage collection would traverse them."""
    yield
    for module in MODULES:
        for name in ("tree", "nodes", "imports"):
            vars(module).pop(name, None)


def _pure() -> list[Module]:
    return [module for module in MODULES if module.layer in PURE_LAYERS]


def _report(wrong: Iterator[str]) -> None:
    lines = sorted(set(wrong))
    assert not lines, "\n" + "\n".join(lines)


# -- the direction of imports


def test_each_module_has_a_layer():
    _report(f"scopeguard/{m.path.relative_to(PACKAGE)} has no layer" for m in MODULES if m.layer not in RANKS)


def test_imports_run_one_way():
    def find_wrong() -> Iterator[str]:
        for module in (m for m in MODULES if m.layer in RANKS):
            for node, name in module.imports:
                if name in OURS and RANKS.get(OURS[name].layer, 0) > RANKS[module.layer]:
                    yield f"{module.at(node)} imports {name}, which stands above it"

    _report(find_wrong())


def test_imports_are_absolute_and_name_their_module():
    def find_wrong() -> Iterator[str]:
        for module in MODULES:
            for node, name in module.imports:
                if name.startswith("."):
                    yield f"{module.at(node)}: a relative import"
                elif name.partition(".")[0] == "scopeguard" and name not in OURS:
                    yield f"{module.at(node)}: there is no {name}"

    _report(find_wrong())


def test_imports_have_no_cycle():
    graph = {
        name: {other for _, other in module.imports if other in OURS and other != name} for name, module in OURS.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def test_packages_hold_no_code_of_their_own():
    """The file tree says where code is only if no ``__init__.py`` has any: it describes, imports and lists names.

    Allowed exception: Python calls ``__getattr__`` and ``__dir__`` of the package itself (PEP 562).
    """
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    _report(
        f"{module.at(node)}: move {getattr(node, 'name', 'a lambda')} to a file that is named after it"
        for module in MODULES
        if module.path.name == "__init__.py"
        for node in module.nodes
        if isinstance(node, kinds) and getattr(node, "name", "") not in ("__getattr__", "__dir__")
    )


def test_private_names_stay_in_their_file():
    _report(
        f"{module.at(node)} imports {alias.name}"
        for module in MODULES
        for node in module.nodes
        if isinstance(node, ast.ImportFrom) and node.module in OURS and node.module != "__future__"
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    )


def test_pure_layers_import_only_pure_modules():
    def find_wrong() -> Iterator[str]:
        for module in _pure():
            for node, name in module.imports:
                top = name.partition(".")[0]
                if (module.name, name) == ("state.fork", "os"):
                    continue  # only register_at_fork, which renews locks in a child; a test below checks that
                if top != "scopeguard" and name not in PURE and top not in PURE and top not in PLACES:
                    yield f"{module.at(node)} imports {name}; it is not in the list of pure modules"
            impure = {"open", "print", "input", "exec", "eval"}
            for call in module.nodes:
                if isinstance(call, ast.Call) and ast.unparse(call.func) in impure:
                    yield f"{module.at(call)} calls {ast.unparse(call.func)}"

    _report(find_wrong())


def test_libraries_are_imported_only_in_their_layers():
    def find_wrong() -> Iterator[str]:
        for module in MODULES:
            for node, name in module.imports:
                top = name.partition(".")[0]
                if top in PLACES and module.layer not in PLACES[top]:
                    yield f"{module.at(node)} imports {top}, which only {', '.join(PLACES[top])} may import"
                elif top not in PLACES and top != "scopeguard" and top not in sys.stdlib_module_names:
                    yield f"{module.at(node)} imports {top}, which is not in PLACES"

    _report(find_wrong())


def test_state_uses_only_lock_of_threading():
    def find_wrong() -> Iterator[str]:
        for module in (m for m in MODULES if m.layer == "state"):
            for node in module.nodes:
                if isinstance(node, ast.ImportFrom) and node.module == "threading":
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "threading":
                    names = [node.attr]
                else:
                    continue
                if names != ["Lock"]:
                    yield f"{module.at(node)} uses {', '.join(names)} of threading"

    _report(find_wrong())


def test_only_state_fork_handles_forks():
    """That module uses nothing else of ``os``."""

    def find_wrong() -> Iterator[str]:
        for module in MODULES:
            for node in module.nodes:
                if not isinstance(node, ast.Attribute) or not _is_named(node.value, "os"):
                    continue
                if module.name == "state.fork" and node.attr != "register_at_fork":
                    yield f"{module.at(node)} uses os.{node.attr}"
                if module.name != "state.fork" and node.attr == "register_at_fork":
                    yield f"{module.at(node)}: derive from state.fork.Locked, or call renew_after_fork()"

    _report(find_wrong())


def _is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


# -- generators and locks (law 2)


def _generators(nodes: list[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the generator functions. A ``yield`` in a nested function counts only for the nested one."""
    for function in nodes:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            todo: list[ast.AST] = list(function.body)
            while todo:
                node = todo.pop()
                if isinstance(node, ast.Yield | ast.YieldFrom):
                    yield function
                    break
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
                    todo += ast.iter_child_nodes(node)


def test_generators_are_only_in_flow():
    """Allowed exceptions, each with its reason.

    * Context managers outside ``spec`` and ``state``: ``yield`` is only their notation.
    * ``__call__`` in ``scopeguard.fastapi``: FastAPI calls it to start and to end a request.
    * ``__await__`` in ``scopeguard.adapter.asgi_messages``: Python has no other notation for an awaitable of its own.
    * The client, the test tools, the servers and the command: they are not part of a decision.
    """
    allowed = (("fastapi.protected", "__call__"), ("adapter.asgi_messages", "__await__"))

    def find_wrong() -> Iterator[str]:
        for module in MODULES:
            if module.layer in ("flow", *CONVENIENCES):
                continue
            for function in _generators(module.nodes):
                decorators = {ast.unparse(d).rpartition(".")[2] for d in function.decorator_list}
                manages_a_context = decorators & {"contextmanager", "asynccontextmanager"}
                if manages_a_context and module.layer not in ("spec", "state"):
                    continue
                if (module.name, function.name) not in allowed:
                    yield f"{module.at(function)}: {function.name} is a generator"

    _report(find_wrong())


def test_no_lock_of_state_is_held_across_a_yield_or_an_await():
    def find_wrong() -> Iterator[str]:
        for module in (m for m in MODULES if m.layer == "state"):
            for block in module.nodes:
                if isinstance(block, ast.With) and any("lock" in ast.unparse(i).lower() for i in block.items):
                    for node in ast.walk(block):
                        if isinstance(node, ast.Yield | ast.YieldFrom | ast.Await):
                            yield f"{module.at(node)} pauses while it holds a lock"
                elif isinstance(block, ast.AsyncWith | ast.AsyncFunctionDef | ast.Await):
                    yield f"{module.at(block)} is asynchronous"

    _report(find_wrong())


def test_number_of_effects_is_limited():
    effects = [
        node.name
        for node in ast.walk(OURS["scopeguard.flow.effects"].tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Effect[") for base in node.bases)
    ]
    assert 1 <= len(effects) <= MOST_EFFECTS, f"a further effect needs a page in docs/decisions: {effects}"


# -- forbidden code


def _switches_off(node: ast.AST) -> str | None:
    match node:
        case ast.keyword(arg="verify", value=ast.Constant(value=False)):
            return "verify=False"
        case ast.Assign(targets=[ast.Name(id="verify")], value=ast.Constant(value=False)):
            return "verify = False"
        case ast.Attribute(attr="CERT_NONE" | "check_hostname"):
            return node.attr
        case ast.Constant(value="verify_signature"):
            return "verify_signature"
    return None


def test_adapters_are_short():
    """An adapter translates and decides nothing, so each of its files has fewer than 300 lines."""
    short = ("aiohttp", "aws_lambda", "django", "falcon", "grpc", "litestar", "quart", "starlette")
    files = [path for name in short for path in (*PACKAGE.glob(f"{name}.py"), *PACKAGE.glob(f"{name}/*.py"))]
    assert len(files) > 2 * len(short)
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in files}
    _report(f"{name}: {length} lines" for name, length in lengths.items() if length >= 300)


def test_no_check_is_an_assert_statement():
    """``python -O`` removes asserts."""
    _report(f"{m.at(node)}: assert" for m in MODULES for node in m.nodes if isinstance(node, ast.Assert))


def test_no_type_error_is_ignored():
    """Write an annotation instead, ``Any`` if necessary: it is visible and hides no other error."""
    marks = re.compile(r"#\s*(?:type|pyright|mypy):\s*ignore")
    files = [path for folder in ("scopeguard", "tests", "benchmarks", "examples") for path in _sources(ROOT / folder)]
    assert len(files) > 300
    _report(
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if marks.search(line)
    )


def _sources(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "node_modules" not in path.parts]


def test_verification_is_not_switched_off():
    """The verification of TLS and signatures can be switched off only with ``dangerously_skip_tls_verification``.

    Allowed exception: the development server reads the issuer of an assertion once before it verifies the signature,
    because the issuer selects the key.
    """

    def find_wrong() -> Iterator[str]:
        for module in (m for m in MODULES if m.layer != "devserver"):
            asked_for = {
                inner
                for node in module.nodes
                if isinstance(node, ast.If) and ast.unparse(node.test) == "self._skip_verification"
                for statement in node.body
                for inner in ast.walk(statement)
            }
            for node in module.nodes:
                what = _switches_off(node)
                if what is not None and node not in asked_for:
                    yield f"scopeguard/{module.path.relative_to(PACKAGE)}: {what}"

    _report(find_wrong())


def test_core_has_no_coverage_exclusions():
    _report(
        f"scopeguard/{m.path.relative_to(PACKAGE)} excuses lines from coverage"
        for m in MODULES
        if m.layer in ("spec", "state", "flow") and "pragma: no" in m.source
    )


def test_edge_and_core_do_not_depend_on_asgi_or_wsgi():
    """Messages and environs are read in ``adapter/`` and above it, so that one core serves every door."""
    lowest = RANKS["adapter"]
    protocol = re.compile(
        r"(http|websocket|lifespan)\.(request|response|disconnect|accept|close|receive|startup)|wsgi\."
    )
    known = {m.name for m in MODULES for node in m.nodes if _is_text(node, protocol)}
    assert {"asgi", "wsgi", "adapter.asgi_messages"} <= known
    _report(f"scopeguard.{m.name} knows a protocol" for m in MODULES if m.name in known and RANKS[m.layer] < lowest)


def _is_text(node: ast.AST, pattern: re.Pattern[str]) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.match(node.value) is not None


# -- lengths


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first, last = function.body[0], function.end_lineno or function.lineno
    docstring = ast.get_docstring(function, clean=False)
    of_docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if docstring is not None else 0
    return last - function.lineno + 1 - of_docstring


def test_functions_have_a_maximum_length():
    _report(
        f"{module.at(node)}: {node.name} has {_lines(node)} lines, at most {MOST_LINES_OF_A_FUNCTION} without docstring"
        for module in MODULES
        for node in module.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_LINES_OF_A_FUNCTION
    )


def test_long_files_state_a_reason():
    _report(
        f"scopeguard/{module.path.relative_to(PACKAGE)} has {lines} lines: split it, or let its docstring say "
        f'"Longer than {MOST_LINES_OF_A_FILE} lines because ..."'
        for module in MODULES
        if (lines := len(module.source.splitlines())) > MOST_LINES_OF_A_FILE
        and f"Longer than {MOST_LINES_OF_A_FILE} lines because"
        not in " ".join((ast.get_docstring(module.tree) or "").split())
    )


# -- imports without side effects (law 10)


def _run_in_a_new_process(script: str, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_scopeguard_loads_no_framework_and_no_client():
    loaded = _run_in_a_new_process(
        """
        import sys
        import scopeguard
        print(*sorted({name.partition(".")[0] for name in sys.modules}))
        """
    ).split()
    slow = "anyio asyncio click fastapi flask httpx httpx2 jwt pytest rich starlette uvicorn"
    assert not set(slow.split()) & set(loaded)


def test_imports_and_constructors_start_no_thread_and_open_no_file_or_socket():
    """Libraries are imported first, so that later events come from scopeguard. Only Python files may be read."""
    names = [name for name in OURS if not name.endswith("__main__")]
    seen = _run_in_a_new_process(
        """
        import importlib, sys, threading
        libraries, names = sys.argv[1].split(), sys.argv[2].split()
        for name in libraries:
            importlib.import_module(name)
        watched = ("socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "open")

        def watch(event, arguments):
            if event.startswith(watched) and not str(arguments[0]).endswith((".py", ".pyc", ".so")):
                print(event, arguments[0])

        sys.dont_write_bytecode = True
        sys.addaudithook(watch)
        threading.Thread.start = lambda thread: print("a thread", thread.name)
        for name in names:
            importlib.import_module(name)
        from scopeguard import Guard, Issuer
        Guard(Issuer("https://as.example", audience="https://api.example"))
        """,
        " ".join(
            # aiohttp.web reads the types of files, and opentelemetry.metrics the entry points of all distributions. The
            # packages alone do not import them.
            sorted(
                {
                    *("aiohttp.web", "opentelemetry.metrics"),
                    *(name for name in PLACES if name not in sys.stdlib_module_names and find_spec(name)),
                }
            )
        ),
        " ".join(names),
    )
    assert seen == ""


FRAMEWORKS = frozenset(
    (
        *("starlette", "fastapi", "flask", "werkzeug", "django", "click", "rich", "uvicorn", "pytest"),
        *("aiohttp", "falcon", "grpc", "litestar", "quart"),
    )
)
FRAMEWORKS_OF = {
    "starlette": {"starlette"},
    "fastapi": {"starlette", "fastapi"},
    "flask": {"flask", "werkzeug", "click"},
    "django": {"django"},
    "falcon": {"falcon"},
    "grpc": {"grpc"},
    "aiohttp": {"aiohttp"},
    "litestar": {"litestar"},
    "quart": {"quart", "flask", "werkzeug", "click"},  # Quart is built on Flask
}


@pytest.fixture(scope="module")
def failed_imports() -> dict[str, str]:
    """The adapters that cannot be imported without the frameworks of others, each with the error.

    Each is imported in a fork of a process that has imported scopeguard, without any framework.
    """
    output = _run_in_a_new_process(
        """
        import importlib, json, os, sys

        class Absent:
            def __init__(self, names):
                self.names = names

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in self.names:
                    raise ModuleNotFoundError(f"{name} is not installed here")

        frameworks, of_adapters = json.loads(sys.argv[1]), json.loads(sys.argv[2])
        sys.meta_path.insert(0, Absent(frameworks))
        import scopeguard

        for adapter in sys.argv[3:]:
            child = os.fork()
            if child == 0:
                sys.meta_path[0] = Absent(set(frameworks) - set(of_adapters.get(adapter, ())))
                error = ""
                try:
                    importlib.import_module(f"scopeguard.{adapter}")
                except BaseException as failure:
                    error = repr(failure)
                print(json.dumps([adapter, error]), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        """,
        json.dumps(sorted(FRAMEWORKS)),
        json.dumps({adapter: sorted(names) for adapter, names in FRAMEWORKS_OF.items()}),
        *ADAPTERS,
    )
    return dict(map(json.loads, output.splitlines()))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapter_imports_no_other_framework(failed_imports: dict[str, str], adapter: str):
    assert failed_imports[adapter] == ""


def test_spec_lists_its_modules():
    source = ast.get_docstring(ast.parse((PACKAGE / "spec" / "__init__.py").read_text("utf-8"))) or ""
    listed = re.findall(r"^``(\w+)``", source, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in PACKAGE.glob("spec/[a-z]*.py"))


def test_architecture_page_names_existing_files():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:scopeguard|tests|docs)/[\w/.]*|pyproject\.toml)`", page))
    assert len(named) > 50
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing, f"docs/architecture.md names files that are gone: {', '.join(sorted(missing))}"
