"""The template, the style sheet and the script of the page that shows decisions.

The style sheet and the script are constants, so that the content security policy can name their hashes. The script
writes all texts with ``textContent``, so that no value of a request becomes markup.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from string import Template
from typing import Final

HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title - scopeguard</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
"""
_PAGE: Final = Template(
    HEAD
    + """<body data-base="$base">
<header>
<div class="top">
<div><p class="kicker">scopeguard, for development</p><h1>Decisions</h1></div>
<p id="state" role="status" class="state"><i></i><span>connecting</span></p>
<div class="actions"><button type="button" id="pause" aria-pressed="false">Pause</button>\
<button type="button" id="clear">Clear</button></div>
</div>
<p class="about">What the guard decided about the last requests. Trusted issuers: <code>$issuers</code></p>
<figure aria-hidden="true"><div id="chart"></div>\
<figcaption><span>older</span><span>a bar for each request; its height is the time of the guard</span>\
<span>newer</span></figcaption></figure>
</header>
<div class="tools" role="search">
<div class="filters" role="group" aria-label="Show">\
<button type="button" data-kind="" aria-pressed="true">All <b>0</b></button>\
<button type="button" data-kind="accepted" aria-pressed="false">Accepted <b>0</b></button>\
<button type="button" data-kind="refused" aria-pressed="false">Refused <b>0</b></button>\
<button type="button" data-kind="undecided" aria-pressed="false">Undecided <b>0</b></button></div>
<label><span class="unseen">Filter</span>\
<input type="search" id="search" placeholder="Filter by path, reason, client" autocomplete="off" spellcheck="false">\
</label>
</div>
<main>
<h2 class="unseen">Requests, the newest first</h2>
<ol id="list"></ol>
<div id="empty"><p><strong>No decision yet.</strong> Send a request to your app, and it appears here at once:</p>
<pre>curl -i <span id="origin"></span>/</pre>
<p>Public routes have no decision. Without a token, expect 401 and the reason <code>no_credentials</code>.</p></div>
<p id="none" hidden>No decision matches the filter.</p>
</main>
<script>$script</script>
</body>
</html>
"""
)

STYLE: Final = """
:root { --paper: #f6f6f4; --card: #fff; --ink: #1b2126; --soft: #5a646c; --line: #dcdfe1; --faint: #eef0f1;
  --accent: #1f5fa8; --good: #1b6e3c; --good-soft: #e3f3e9; --bad: #b3261e; --bad-soft: #fde9e7; --odd: #805300;
  --odd-soft: #fff1d2; --shade: 0 1px 2px #1b212612, 0 4px 14px #1b21260d;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161a; --card: #1a2025; --ink: #e6eaed; --soft: #9ba7af;
  --line: #2e373e; --faint: #222a30; --accent: #82b7f2; --good: #7fd39b; --good-soft: #16301f; --bad: #ff9a91;
  --bad-soft: #3c2020; --odd: #f0c05a; --odd-soft: #362b12; --shade: 0 1px 2px #0006; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; max-width: 1180px; padding: 0 clamp(14px, 3vw, 40px) 64px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 var(--sans); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
p, h1, h2, figure, ol, dl, dd, pre { margin: 0; }
code, pre, .path, .method, dd { font-family: var(--mono); font-size: 13px; }
code { overflow-wrap: anywhere; }
button, input { font: inherit; color: inherit; }
button { padding: 5px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 7px;
  cursor: pointer; }
button:hover { border-color: var(--soft); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.top { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 18px; padding-top: 28px; }
.kicker { color: var(--soft); font-size: 12.5px; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -.015em; }
.state { display: flex; align-items: center; gap: 8px; align-self: end; padding-bottom: 5px; color: var(--soft);
  font-size: 14px; }
.state i { width: 9px; height: 9px; border-radius: 50%; background: var(--soft); }
.state.live { color: var(--good); } .state.live i { background: currentColor; animation: beat 2s ease-out infinite; }
.state.lost { color: var(--bad); } .state.lost i { background: currentColor; }
@keyframes beat { 0% { box-shadow: 0 0 0 0 color-mix(in srgb, currentColor 55%, transparent); }
  70%, 100% { box-shadow: 0 0 0 8px transparent; } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
.actions { display: flex; gap: 8px; margin-left: auto; align-self: end; }
.about { margin-top: 8px; color: var(--soft); }
figure { margin-top: 18px; padding: 14px 16px 8px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; box-shadow: var(--shade); }
#chart { display: flex; align-items: end; gap: 2px; height: 64px; border-bottom: 1px solid var(--line); }
#chart i { flex: 1 1 0; min-width: 1px; max-width: 14px; border-radius: 2px 2px 0 0; background: var(--faint);
  height: 3px; }
#chart i:first-child { margin-left: auto; }
#chart i.accepted { background: var(--good); } #chart i.refused { background: var(--bad); }
#chart i.undecided { background: var(--odd); } #chart i.away { opacity: .2; }
#chart i[data-number] { cursor: pointer; } #chart i[data-number]:hover { background: var(--accent); }
figcaption { display: flex; justify-content: space-between; gap: 10px; padding-top: 5px; color: var(--soft);
  font-size: 12.5px; }
.tools { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 10px 16px;
  justify-content: space-between; margin: 8px -6px 0; padding: 12px 6px; background: var(--paper); }
.filters { display: flex; flex-wrap: wrap; gap: 6px; }
.filters button { padding: 5px 12px; border-radius: 999px; font-size: 14px; }
.filters b { margin-left: 3px; font-weight: 600; font-variant-numeric: tabular-nums; color: var(--soft); }
.filters [aria-pressed=true] { background: var(--ink); border-color: var(--ink); color: var(--paper); }
.filters [aria-pressed=true] b { color: inherit; }
#pause[aria-pressed=true] { background: var(--odd-soft); border-color: transparent; color: var(--odd); }
.tools label { flex: 0 1 300px; min-width: 220px; }
input { width: 100%; padding: 6px 12px; background: var(--card); border: 1px solid var(--line); border-radius: 999px; }
input::placeholder { color: var(--soft); opacity: 1; }
ol { list-style: none; padding: 4px 0 0; display: grid; gap: 8px; }
ol > li { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--mark);
  border-radius: 10px; box-shadow: var(--shade); overflow: hidden; }
li.accepted { --mark: var(--good); --tint: var(--good-soft); }
li.refused { --mark: var(--bad); --tint: var(--bad-soft); }
li.undecided { --mark: var(--odd); --tint: var(--odd-soft); }
li.new { animation: arrive .5s ease-out; }
@keyframes arrive { from { opacity: 0; transform: translateY(-8px); background: var(--tint); } }
summary { display: grid; align-items: center; gap: 2px 14px; padding: 10px 16px 10px 12px; cursor: pointer;
  grid-template-columns: 52px minmax(0, 1fr) minmax(0, 215px) minmax(0, 130px) 72px 64px 14px; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: color-mix(in srgb, var(--faint) 55%, transparent); }
summary::after { content: ""; width: 7px; height: 7px; margin: 0 0 3px 4px; border: solid var(--soft);
  border-width: 0 1.5px 1.5px 0; transform: rotate(45deg); transition: transform .15s; }
details[open] summary::after { transform: rotate(225deg); margin-bottom: -3px; }
.status { padding: 2px 0; border-radius: 6px; background: var(--tint); color: var(--mark); text-align: center;
  font-weight: 650; font-size: 13px; font-variant-numeric: tabular-nums; }
.request { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.method { margin-right: 8px; font-weight: 700; color: var(--soft); }
.path { font-weight: 600; }
.reason { color: var(--mark); font-weight: 600; font-size: 14px; overflow: hidden; text-overflow: ellipsis; }
.client { color: var(--soft); font-size: 13.5px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.took, time { color: var(--soft); font-size: 13px; text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.more { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 18px 32px;
  padding: 14px 18px 18px; border-top: 1px solid var(--line); }
.more h3 { margin: 0 0 6px; font-size: 13px; color: var(--soft); font-weight: 600; }
.fix { grid-column: 1 / -1; padding: 10px 14px; border-radius: 8px; background: var(--tint); }
.fix h3 { color: var(--mark); } .fix a { color: inherit; font-weight: 600; white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(84px, max-content) minmax(0, 1fr); gap: 4px 14px; }
dt { color: var(--soft); font-size: 13.5px; } dd { overflow-wrap: anywhere; padding-top: 1px; }
#empty { max-width: 640px; margin: 40px auto; padding: 26px 30px; background: var(--card);
  border: 1px dashed var(--line); border-radius: 14px; color: var(--soft); } #empty strong { color: var(--ink); }
pre { margin: 12px 0; padding: 12px 16px; background: var(--faint); color: var(--ink); border-radius: 8px;
  overflow: auto; }
#none { margin: 40px 0; text-align: center; color: var(--soft); }
.reasons { max-width: 860px; } .reasons header { padding-top: 28px; }
.reasons h2 { margin: 34px 0 10px; font-size: 18px; }
article { margin-bottom: 8px; padding: 14px 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; scroll-margin-top: 20px; --tint: var(--faint); }
article:target { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
article h3 { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin: 0 0 4px; font-size: 15px; }
article h3 code { font-size: 14.5px; } article h3 a, article h3 span { font-size: 13px; font-weight: 400; }
article h3 a { color: var(--accent); } article h3 span, .seen { color: var(--soft); }
article .fix { margin: 8px 0; } .seen { font-size: 13.5px; }
@media (max-width: 760px) {
  .actions { margin-left: 0; width: 100%; } .actions button { flex: 1; } .state { margin-left: auto; }
  .filters { display: grid; grid-template-columns: repeat(2, 1fr); width: 100%; } .tools label { flex: 1 1 100%; }
  .tools { position: static; } figcaption span:nth-child(2) { display: none; }
  summary { grid-template-columns: 48px minmax(0, 1fr) auto 14px; gap: 6px 10px; }
  .request { grid-column: 2 / 4; white-space: normal; overflow-wrap: anywhere; }
  summary::after { grid-row: 1; grid-column: 4; }
  .status { align-self: start; } .reason, .client { grid-column: 2; overflow-wrap: anywhere; }
  .reason { font-size: 13px; letter-spacing: -.01em; }
  .reason:empty, .client:empty { display: none; }
  .took { display: none; } time { grid-column: 3; grid-row: 2; } .reason:empty + .client { grid-row: 2; }
  .reason:not(:empty) + .client { grid-row: 3; } }
"""

_SCRIPT: Final = """
(() => {
  const $ = id => document.getElementById(id), list = $("list"), chart = $("chart"), search = $("search");
  const base = document.body.dataset.base, most = 100, pause = $("pause");
  const filters = [...document.querySelectorAll(".filters button")];
  const kinds = { granted: "accepted", anonymous: "accepted", denied: "refused", unavailable: "undecided" };
  const checks = { cached: "from the cache", verified: "signature verified", fetched: "waited for the network" };
  let run = null, last = 0, cleared = 0, shown = [], kind = "", paused = false, first = true;

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  };
  const took = ms => ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms >= 10 ? 0 : 2)} ms`;
  const pairs = entries => {
    const found = make("dl");
    for (const [name, value] of entries) {
      if (value === null || value === undefined || value === "") continue;
      found.append(make("dt", "", name), make("dd", "", value));
    }
    return found;
  };
  const withCode = (name, text) => {
    const element = make(name);
    text.split("`").forEach((part, number) => element.append(number % 2 ? make("code", "", part) : part));
    return element;
  };
  const section = (title, content, className) => {
    const block = make("section", className), heading = withCode("h3", title);
    block.append(heading, content);
    return block;
  };
  const details = record => {
    const more = make("div", "more");
    if (record.fix) {
      const text = withCode("p", `${record.fix} `), link = make("a", "", `About ${record.reason}`);
      link.href = `${base}/reasons#${record.reason}`;
      text.append(link);
      more.append(section(record.cause, text, "fix"));
    }
    const facts = Object.entries(record.facts);
    if (facts.length) more.append(section("What the guard found", pairs(facts)));
    more.append(section("The request", pairs([
      ["route", record.route], ["issuer", record.issuer], ["client", record.client], ["scopes", record.scopes],
      ["token", record.fingerprint], ["check", checks[record.check]], ["guard took", took(record.milliseconds)],
      ["adapter", record.adapter], ["client sees", record.answer && `${record.status}: ${record.answer}`],
    ])));
    return more;
  };
  const row = record => {
    const item = make("li", kinds[record.decision]), fold = make("details"), head = make("summary");
    item.id = `decision-${record.number}`;
    const request = make("span", "request");
    request.append(make("span", "method", record.method || "?"), make("span", "path", record.path || ""));
    request.title = record.path || "";
    const when = make("time", "", new Date(record.time * 1000).toLocaleTimeString([], { hour12: false }));
    when.dateTime = new Date(record.time * 1000).toISOString();
    const state = record.decision === "anonymous" ? "anon" : record.status === null ? "ok" : record.status;
    head.append(make("span", "status", state), request, make("span", "reason", record.reason || ""),
      make("span", "client", record.client || ""), make("span", "took", took(record.milliseconds)), when);
    fold.append(head);
    fold.addEventListener("toggle", () => {
      if (fold.open && fold.children.length === 1) fold.append(details(record));
    });
    item.append(fold);
    return item;
  };
  const matches = record => {
    const text = [record.method, record.path, record.route, record.reason, record.client, record.issuer, record.status,
      record.fingerprint].join(" ").toLowerCase();
    return (!kind || kinds[record.decision] === kind) &&
      search.value.toLowerCase().split(/\\s+/).every(term => text.includes(term));
  };
  const draw = () => {
    let count = 0;
    for (const { record, item, bar } of shown) {
      const fits = matches(record);
      item.hidden = !fits;
      bar.classList.toggle("away", !fits);
      count += fits;
    }
    for (const button of filters) {
      const of = button.dataset.kind;
      button.querySelector("b").textContent = shown.filter(({ record }) => !of || kinds[record.decision] === of).length;
    }
    $("empty").hidden = shown.length > 0;
    $("none").hidden = shown.length === 0 || count > 0;
  };
  const add = record => {
    const item = row(record), bar = make("i", kinds[record.decision]);
    bar.style.height = `${Math.min(100, 10 + 22 * Math.log10(1 + 10 * record.milliseconds))}%`;
    bar.dataset.number = record.number;
    if (!first) item.classList.add("new");
    list.prepend(item);
    chart.append(bar);
    shown.push({ record, item, bar });
    while (shown.length > most) {
      const old = shown.shift();
      old.item.remove();
      old.bar.remove();
    }
  };
  const clear = () => {
    shown = [];
    list.replaceChildren();
    chart.replaceChildren();
  };
  const say = (name, text) => {
    $("state").className = `state ${name}`;
    if ($("state").lastChild.textContent !== text) $("state").lastChild.textContent = text;
  };
  const poll = async () => {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(`${base}/decisions?after=${last}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const document = await answer.json();
      if (run !== null && run !== document.run) {
        clear();
        run = document.run;
        last = 0;
        return poll();
      }
      run = document.run;
      for (const record of document.decisions) {
        last = record.number;
        add(record);
      }
      if (document.decisions.length || first) draw();
      first = false;
      say("live", "live");
    } catch {
      say("lost", "no answer from the app");
    }
  };
  for (const button of filters) {
    button.addEventListener("click", () => {
      kind = button.dataset.kind;
      for (const other of filters) other.setAttribute("aria-pressed", other === button);
      draw();
    });
  }
  search.addEventListener("input", draw);
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Continue" : "Pause";
    if (paused) say("", "paused"); else poll();
  });
  $("clear").addEventListener("click", () => { clear(); draw(); });
  chart.addEventListener("click", event => {
    const item = $(`decision-${event.target.dataset.number}`);
    if (!item) return;
    item.querySelector("details").open = true;
    item.scrollIntoView({ behavior: "smooth", block: "center" });
  });
  $("origin").textContent = location.origin;
  document.addEventListener("visibilitychange", poll);
  poll();
  setInterval(poll, 1000);
})();
"""


def decisions_page(base: str, issuers: str) -> tuple[bytes, str]:
    """Return the page with the decisions, and its content security policy.

    *base* is the last segment of its path, and *issuers* are the URLs of the trusted issuers.
    """
    content = _PAGE.substitute(
        title="Decisions", base=escape(base), issuers=escape(issuers), style=STYLE, script=_SCRIPT
    )
    return content.encode("utf-8"), content_policy(f"script-src '{_hash(_SCRIPT)}'; connect-src 'self'; ")


def content_policy(more: str = "") -> str:
    """Return the content security policy of a page with :data:`HEAD`. *more*: further directives."""
    return (
        f"default-src 'none'; style-src '{_hash(STYLE)}'; {more}img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(content: str) -> str:
    """Return the source expression of *content* for a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
