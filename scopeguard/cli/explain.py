"""``scopeguard explain``: every check of an access token, passed or failed, by the settings of a file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scopeguard.adapter.declarations import Layer, ServeLayer
from scopeguard.audit.route import Surroundings
from scopeguard.audit.route_requirements import rules_of
from scopeguard.audit.walk import find_routes
from scopeguard.config.file import read_settings
from scopeguard.config.file.place import Place
from scopeguard.config.file.references import resolve
from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError, InvalidToken
from scopeguard.explanation import Check, Explanation, Outcome, Verdict
from scopeguard.explanation.explainer import Explainer
from scopeguard.explanation.route import Route
from scopeguard.flow.credentials import Credential
from scopeguard.flow.issuers import parse
from scopeguard.guard import Guard, engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.rules import Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import all_of
from scopeguard.server.serve import load

STATUS: Final = {Verdict.ACCEPTED: 0, Verdict.REFUSED: 1, Verdict.UNDECIDED: 3}
"""The exit status of each verdict. 2 is a usage error."""

_WIDTH: Final = 120
_MOST_CHARACTERS: Final = 1_000_000
_STYLES: Final = {
    Outcome.PASSED: ("passed", "green"),
    Outcome.FAILED: ("failed", "bold red"),
    Outcome.UNDECIDED: ("undecided", "bold yellow"),
    Outcome.NOT_CHECKED: ("not checked", "dim"),
}
_VERDICTS: Final = {
    Verdict.ACCEPTED: ("Accepted", "bold green"),
    Verdict.REFUSED: ("Refused", "bold red"),
    Verdict.UNDECIDED: ("Not decided", "bold yellow"),
}


def run(
    token: str | None,
    *,
    config: str | None,
    app: str | None,
    factory: bool,
    method: str | None,
    path: str | None,
    proof: str | None,
    jwks: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Explain the token and return the exit status.

    Raises :class:`ConfigurationError` for wrong options or settings.
    """
    if path is None and (method is not None or proof is not None):
        name = "--method" if method is not None else "--proof"
        raise ConfigurationError(f"{name}: needs --path, the path of the request, as in --path /rows/7")
    if path is not None and not path.startswith("/"):
        raise ConfigurationError(f"--path: must begin with a slash, as in /rows/7, not {path!r}")
    if app is None and config is None:
        raise ConfigurationError("--config: name the TOML file, or with --app the app that has the guard")
    if app is not None and jwks is not None:
        raise ConfigurationError("--jwks: works only with --config; the guard of an app has its own keys")
    method = (method or "GET").upper()
    is_open = False
    if app is None:
        guard = _guard(str(config), jwks)
        rules = guard.rules
    else:
        layer = _layer_of(app, config, factory=factory)
        guard = layer.guard
        rules, is_open = _rules_for(layer, method, unquote((path or "/").partition("?")[0]))
    engine = engine_of(guard)
    text = _text_of(token)
    proof = None if proof is None else resolve(proof, _place(), "--proof")
    request = _request(engine, text, proof, method, path or "/")
    rules = None if path is None else rules
    sources = _sources(engine, rules, request, is_key=_is_key(text, engine))
    explainer = Explainer(engine, request, rules=rules, sources=sources, offline=offline)
    try:
        explanation = explainer.explain()
    finally:
        guard.close()
    if path is None:
        explanation = replace(explanation, method=None, path=None)
    elif is_open:
        explanation = replace(explanation, requires="nothing")
    if as_json:
        click.echo(json.dumps(explanation.as_json(), indent=2))
    else:
        _print(explanation, _limit_of(explanation, app, is_open=is_open), offline=offline, has_proof=proof is not None)
    return STATUS[explanation.verdict]


def _place() -> Place:
    return Place("scopeguard explain", "command line", Path(), os.environ)


def _guard(config: str, jwks: str | None) -> Guard:
    """Return the guard of the file *config*, whose issuers have their keys in the file *jwks* if it is given."""
    issuers, arguments = read_settings(config)
    if jwks is not None:
        issuers = tuple(_with_keys(issuer, jwks) for issuer in issuers)
    return Guard(*issuers, **{**arguments, "audit": "off"})


def _layer_of(target: str, config: str | None, *, factory: bool) -> Layer:
    """Return the layer that guards the app *target*: its middleware or extension.

    With the file *config*, it is the layer that ``scopeguard serve`` would add. Raises :class:`ConfigurationError` if
    the app has no guard, or several.
    """
    app = load(target, factory=factory)
    if config is not None:
        return ServeLayer(app, Guard.from_file(config))
    routes = find_routes(app, Surroundings())
    layers = {id(layer.guard): (layer, at) for route in reversed(routes) for layer, at in reversed(route.around.layers)}
    guards = {id(item.guard): item.guard for route in routes for item in route.declared if item.guard is not None}
    if not layers and not guards:
        raise ConfigurationError(
            f"--app: {target} has no guard, so nothing checks tokens; add one, or name a file with --config"
        )
    if len(layers.keys() | guards.keys()) != 1:
        raise ConfigurationError(
            f"--app: {target} has several guards; write a file with the settings of one, and use --config"
        )
    if not layers:
        (guard,) = guards.values()
        return _DependencyLayer(app, guard)
    ((layer, at),) = layers.values()
    if at:
        raise ConfigurationError(f"--app: the guard in {target} is mounted at {at}; name the app that is mounted there")
    return layer


class _DependencyLayer(Layer):
    """The layer of *app* without middleware: only its dependencies check tokens, with *guard*."""

    views_decide = True

    def __init__(self, app: Any, guard: Guard) -> None:
        self.app = app
        self.guard = guard
        self.rules: Rules = Rules()


def _rules_for(layer: Layer, method: str, path: str) -> tuple[Rules, bool]:
    """Return rules that combine the requirement of *layer* and that of the route in its app.

    The second value is whether requests reach the route without any check.
    """
    rule = layer.rules.find(method, path)
    declared = _find_declared(layer.app, method, path)
    if declared is None:
        return layer.rules, isinstance(layer, _DependencyLayer)
    if not layer.views_decide and (declared.requirement is None or (rule is None and layer.rules.deny_unmatched)):
        return layer.rules, False
    if rule is None:
        return Rules([declared]), False
    if rule.requirement is None or declared.requirement is None:  # public, optional, or denied
        return layer.rules, False
    return Rules([replace(rule, access=all_of(rule.requirement, declared.requirement))]), False


def _find_declared(app: Any, method: str, path: str) -> Rule | None:
    """Return what the decorators and dependencies of a route declare, as a rule, or ``None`` if it has none."""
    for route in find_routes(app, Surroundings()):
        rule = Rules(rules_of(route)).find(method, path)
        if rule is not None:
            accesses = [item.access for item in route.declared]
            return replace(rule, access=strictest(*accesses)) if accesses else None
    return None


def _with_keys(issuer: Issuer, jwks: str) -> Issuer:
    if issuer.validate is Validation.INTROSPECTION:
        return issuer
    return replace(
        issuer, jwks_file=jwks, jwks_seed=None, keys=None, jwks_uri=None, key_url_template=None, metadata_url=None,
        jwks_ca_file=None, jwks_bearer_file=None,
    )  # fmt: skip


def _text_of(token: str | None) -> str:
    """Return the token in the argument *token*, from a prompt, or from standard input.

    A header line and a scheme before the token are removed. Raises :class:`ConfigurationError` if nothing is left.
    """
    if token is None and sys.stdin.isatty():
        token = str(click.prompt("Access token (not shown)", hide_input=True, err=True))
    elif token in (None, "-"):
        token = sys.stdin.read(_MOST_CHARACTERS)
    text = (token or "").strip()
    name, colon, rest = text.partition(":")
    if colon and name.strip().lower() == "authorization":
        text = rest.strip()
    scheme, space, rest = text.partition(" ")
    if space and scheme.lower() in ("bearer", "dpop"):
        text = rest.strip()
    if not text:
        raise ConfigurationError("TOKEN: there is none; pipe a token in, or answer the prompt")
    return text


def _request(engine: Engine, token: str, proof: str | None, method: str, path: str) -> RequestView:
    """Return a request with *token* in the field in which its issuer expects it."""
    path, method = path.partition("?")[0], method.upper()
    field = next((header for header in engine.issuers.headers if _belongs(token, header, engine)), None)
    if field is None and None not in engine.issuers.headers:
        field = engine.issuers.headers[0]
    scheme = "Bearer" if proof is None else "DPoP"
    pairs = [("authorization", f"{scheme} {token}") if field is None else (field.lower(), token)]
    keys = engine.settings.api_keys
    if keys is not None and _is_key(token, engine):
        pairs = [(keys.header_field, token)]
    pairs += [] if proof is None else [("dpop", proof.strip())]
    encoded = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs]
    return RequestView(
        method=method, path=unquote(path), raw_path=path.encode("utf-8", "surrogateescape"), headers=HeaderList(encoded)
    )


def _is_key(text: str, engine: Engine) -> bool:
    """Return whether *text* is an API key and not a token."""
    keys = engine.settings.api_keys
    return keys is not None and text.startswith(f"{keys.prefix}_")


def _sources(engine: Engine, rules: Rules | None, request: RequestView, *, is_key: bool) -> TokenSources:
    """Return the token sources of the route. A token is explained as if it were sent in a header."""
    sources = Route.find(rules, None, request).sources(engine.sources)
    if is_key:
        return sources if rules is not None else sources.with_methods([TokenSource.API_KEY])
    return sources if sources.only_api_keys else sources.with_methods([TokenSource.HEADER])


def _belongs(token: str, header: str | None, engine: Engine) -> bool:
    """Return whether *token* is from a configured issuer whose tokens come in the field *header*."""
    try:
        record, _ = parse(Credential(token=token, source=TokenSource.HEADER, header=header), engine.issuers)
    except InvalidToken:
        return False
    return record is not None


def _print(explanation: Explanation, limit: str, *, offline: bool, has_proof: bool) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    word, style = _VERDICTS[explanation.verdict]
    head = Text(word, style=style)
    if explanation.reason is not None:
        head.append(f": {explanation.reason.value}")
        head.append(f"   HTTP {explanation.status}", "dim")
    console.print(head)
    if explanation.verdict is Verdict.UNDECIDED and offline:
        has_fault = any(check.outcome is Outcome.FAILED for check in explanation.checks)
        found = "A fault was found, see below" if has_fault else "No fault was found"
        console.print(f"{found}. Checks that need the network were left out (--offline).", style="dim")
    for name, value in _facts(explanation):
        console.print(Text(f"  {name:9}", style="dim") + Text(value))
    if limit:
        console.print(Text(f"  {limit}", style="yellow"))
    console.print()
    console.print(_table(explanation, has_references=console.width >= _WIDTH))
    for check in explanation.failed:
        console.print()
        _print_failure(console, check)
        if check.name == "proof" and not has_proof:
            console.print("  The token needs a proof of possession: pass it with --proof.")


def _limit_of(explanation: Explanation, app: str | None, *, is_open: bool) -> str:
    """Return a sentence about what was not checked, or ``""`` if a rule or an app decides.

    *is_open*: requests reach the route of *app* without any check.
    """
    if is_open and explanation.path is not None:
        return f"No dependency guards this route, so it needs no token. See: scopeguard audit {app}"
    if explanation.verdict is not Verdict.ACCEPTED:
        return ""
    if explanation.path is None:
        return "Not checked: what the route requires. Name it: --path, --method."
    if explanation.rule is None and app is None:
        return "Not checked: what decorators and dependencies of the app require. Name it: --app module:app."
    return ""


def _facts(explanation: Explanation) -> list[tuple[str, str]]:
    kinds = {"jwt": "a JWT", "opaque": "an opaque token", "api_key": "an API key"}
    facts = []
    if explanation.fingerprint is not None:
        kind = kinds.get(explanation.kind or "", "not readable")
        facts.append(("token", f"{kind}, fingerprint {explanation.fingerprint}"))
    if explanation.issuer is not None:
        facts.append(("issuer", explanation.issuer))
    elif explanation.nearest is not None:
        facts.append(("issuer", f"not trusted; compared with the nearest one, {explanation.nearest}"))
    if explanation.path is not None:
        facts.append(("request", f"{explanation.method} {explanation.path}"))
        facts.append(("rule", explanation.rule or "none"))
        facts.append(("requires", explanation.requires or "a valid token"))
    return facts


def _table(explanation: Explanation, *, has_references: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=1)
    table.add_column("wanted", overflow="fold", ratio=1)
    if has_references:
        table.add_column("standard", no_wrap=True, style="dim")
    for check in explanation.checks:
        word, style = _STYLES[check.outcome]
        rest = "dim" if check.outcome is Outcome.NOT_CHECKED else ""
        found = check.found or (check.note if check.outcome is Outcome.NOT_CHECKED else "")
        cells = [Text(word, style), Text(check.title, rest), Text(found, rest), Text(check.wanted, rest)]
        table.add_row(*cells, *([_short(check.reference)] if has_references else []))
    return table


def _short(reference: str) -> str:
    return reference.replace(" section ", " §") if _can_show("§") else reference


def _can_show(text: str) -> bool:
    """Return whether the encoding of standard output has *text*."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _print_failure(console: Console, check: Check) -> None:
    line = Text(check.title, style="bold")
    line.append(f"  {'' if check.reason is None else check.reason.value}", _STYLES[check.outcome][1])
    if check.decides:
        line.append("  decides", "dim")
    if check.reference:
        line.append(f"  {check.reference}", "dim")
    console.print(line)
    for text in (check.cause, check.note, check.fix):
        if text:
            console.print(Padding(Text(text), (0, 0, 0, 2)))
