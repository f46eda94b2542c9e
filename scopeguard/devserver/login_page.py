"""The login page of the development server, which needs no JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.devserver.html import Html, fill

_FRAME: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1c1e21; --muted: #5a5f66; --page: #f3f4f6; --card: #fff; --line: #c9ccd1;
  --action: #1f5fbf; --on-action: #fff; --warning: #b00020; --on-warning: #fff }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8eaed; --muted: #a9afb8; --page: #15171a; --card: #212429; --line: #4a4f57;
    --action: #8ab4f8; --on-action: #10151c; --warning: #ffb4ab; --on-warning: #45000a }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0; padding: 1rem }
main { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; margin: 2rem auto;
  max-width: 28rem; overflow: hidden; overflow-wrap: anywhere }
.warning { background: var(--warning); color: var(--on-warning); font-size: .875rem; font-weight: 600; margin: 0;
  padding: .5rem 1.5rem }
.content { padding: 1rem 1.5rem 1.5rem }
h1 { font-size: 1.375rem; line-height: 1.3; margin: .25rem 0 .5rem }
fieldset { border: 0; margin: 1.25rem 0 0; min-width: 0; padding: 0 }
legend { font-weight: 600; padding: 0 }
label { border: 1px solid var(--line); border-radius: .5rem; cursor: pointer; display: flex; gap: .75rem;
  margin-top: .5rem; padding: .5rem .75rem }
label span { min-width: 0 }
input { accent-color: var(--action); flex: none; height: 1.125rem; margin: .1875rem 0; width: 1.125rem }
small, .muted { color: var(--muted); font-size: .875rem }
small { display: block }
code { font-size: .9375rem }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin-top: 1.5rem }
button { background: var(--action); border: 1px solid var(--action); border-radius: .5rem; color: var(--on-action);
  cursor: pointer; flex: 1; font: inherit; font-weight: 600; padding: .625rem 1rem }
button.second { background: none; color: var(--action) }
:focus-visible { outline: 3px solid var(--action); outline-offset: 2px }
</style>
</head>
<body>
<main>
<p class="warning">FOR DEVELOPMENT ONLY: no password is needed</p>
<div class="content">
$content
</div>
</main>
</body>
</html>
"""
_LOGIN: Final = """<h1>Sign in to allow <code>$client_id</code></h1>
<p class="muted">It asks for access to $audiences. You return to <code>$redirect_uri</code>.</p>
<form method="post">
$hidden
<fieldset>
<legend>User</legend>
$users
</fieldset>
$scopes
<div class="buttons">
<button name="login_decision" value="allow">Allow</button>
<button name="login_decision" value="deny" class="second">Deny</button>
</div>
</form>"""
_HIDDEN: Final = '<input type="hidden" name="$name" value="$value">'
_USER: Final = '<label><input type="radio" name="login_user" value="$user" required$checked><span>$user</span></label>'
_SCOPES: Final = """<fieldset>
<legend>Scopes</legend>
$scopes
</fieldset>"""
_SCOPE: Final = (
    '<label><input type="checkbox" name="login_scope" value="$scope" checked>'
    "<span><code>$scope</code>$description</span></label>"
)
_DESCRIPTION: Final = "<small>$text</small>"
_ERROR: Final = """<h1>This request cannot be answered</h1>
<p>$problem</p>"""


def login_page(
    *,
    client_id: str,
    redirect_uri: str,
    audiences: Iterable[str],
    users: Sequence[str],
    scopes: Sequence[tuple[str, str]],
    hidden: Iterable[tuple[str, str]],
) -> str:
    """Return a page on which one of *users* grants the client some of *scopes*, pairs of a name and a description.

    *hidden* are fields that the form sends as they are.
    """
    boxes = [
        fill(_SCOPE, scope=scope, description=fill(_DESCRIPTION, text=text) if text else Html())
        for scope, text in scopes
    ]
    content = fill(
        _LOGIN,
        client_id=client_id,
        redirect_uri=redirect_uri.partition("?")[0],
        audiences=Html(" and ".join(fill("<code>$audience</code>", audience=audience) for audience in audiences)),
        hidden=_lines(fill(_HIDDEN, name=name, value=value) for name, value in hidden),
        users=_lines(
            fill(_USER, user=user, checked=Html(" checked") if user == users[0] else Html()) for user in users
        ),
        scopes=fill(_SCOPES, scopes=_lines(boxes)) if boxes else Html(),
    )
    return fill(_FRAME, title=f"Sign in to allow {client_id}", content=content)


def error_page(problem: str) -> str:
    """Return a page that says why there is no login page."""
    return fill(_FRAME, title="This request cannot be answered", content=fill(_ERROR, problem=problem))


def _lines(parts: Iterable[Html]) -> Html:
    return Html("\n".join(parts))
