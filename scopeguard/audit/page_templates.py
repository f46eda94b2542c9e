"""The templates, the style sheet and the script of the HTML page.

Every ``$name`` is a value of :func:`scopeguard.audit.page.fill`. The style sheet and the script are constants, so that
the content security policy of the page can name their hashes.
"""

from __future__ import annotations

from string import Template
from typing import Final

PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Audit of $target</title>
<style>$style</style>
</head>
<body>
<header>
<p class="kicker">scopeguard audit</p>
<h1>$target</h1>
$provenance<ul class="summary $verdict">$counts</ul>
$guards
</header>
<main>
$findings$matrix$scopes</main>
<script>$script</script>
</body>
</html>
""")

PROVENANCE: Final = Template("""<p class="provenance"><time datetime="$day">$day</time> · scopeguard $version · \
configuration: $configuration</p>
""")
COUNT: Final = Template('<li class="$kind"><b>$number</b> $noun</li>')
GUARDS: Final = Template("<dl>$guards</dl>")
GUARD: Final = Template("<dt>Guard <q>$realm</q></dt><dd>$issuers</dd>")
CODE: Final = Template("<code>$text</code>")

NO_FINDINGS: Final = """<section aria-labelledby="findings"><h2 id="findings">Findings</h2>\
<p class="clean">There are no findings: every route is guarded or declared public.</p></section>
"""
FINDINGS: Final = Template("""<section aria-labelledby="findings"><h2 id="findings">Findings</h2>
<ul class="findings">
$groups</ul></section>
""")
ANY_TOKEN: Final = Template("""<section aria-labelledby="any-token"><h2 id="any-token">Any valid token</h2>
<p>$message $fix</p><ul>$routes</ul></section>
""")
FINDING_GROUP: Final = Template("""<li class="$severity"><span class="tag">$severity</span>\
<div><h3>$title$count</h3>$message<p class="fix">$fix</p><ul>$shown</ul>$more</div></li>
""")
GROUP_COUNT: Final = Template(' <span class="count">$number</span>')
MESSAGE: Final = Template("<p>$message</p>")
FINDING: Final = Template("<li><code>$where</code><span>$message</span></li>")
MORE_FINDINGS: Final = Template("<details><summary>$number more</summary><ul>$findings</ul></details>")

MATRIX: Final = Template("""<section aria-labelledby="matrix"><h2 id="matrix">Routes and scopes</h2>
<div class="tools">\
<label>Filter <input type="search" id="filter" placeholder="path, method, scope, kind" autocomplete="off"></label>\
<span id="shown" role="status"></span>\
<ul class="legend"><li><i class="dot all"></i> required</li><li><i class="dot any"></i> one of several ways</li></ul>\
</div>
<div class="scroll" role="region" aria-labelledby="matrix" tabindex="0"><table>
<caption>The scopes that each route requires. Routes with errors come first.</caption>
<colgroup><col><col>$columns</colgroup>
<thead><tr><th scope="col" class="route">Route</th><th scope="col" class="access">Open to</th>$headings</tr></thead>
<tbody>
$rows</tbody></table></div></section>
""")
HEADING: Final = Template('<th scope="col" class="scope" title="$scope"><div><span>$label</span></div></th>')
ROW: Final = Template("""<tr class="$kind $state"><th scope="row"><div class="cell">\
<span class="method m-$method_class">$method</span><div>\
<code class="path" title="$endpoint">$path</code>$opaque$tag\
<ul class="notes">$notes</ul></div></div></th>\
<td class="access"><span class="kind">$access</span>$needs</td>$cells</tr>
""")
NEEDS: Final = Template('<span class="needs">$text</span>')
OPAQUE: Final = "<span class=opaque>opaque app</span>"
TAG: Final = Template("<span class=tag>$severity</span>")
NOTE: Final = Template("<li>$text</li>")
REQUIRED: Final = '<td><i class="dot all"></i><span class="unseen">required</span></td>'
ALTERNATIVE: Final = '<td><i class="dot any"></i><span class="unseen">one way</span></td>'
NOT_REQUIRED: Final = "<td></td>"

SCOPES: Final = Template("""<section aria-labelledby="scopes"><h2 id="scopes">Scopes</h2>
<div class="scroll short" role="region" aria-labelledby="scopes" tabindex="0"><table class="plain"><thead><tr>\
<th scope="col">Scope</th><th scope="col">Routes that name it</th><th scope="col">Routes for which it suffices</th>\
</tr></thead>
<tbody>
$rows</tbody></table></div></section>
""")
SCOPE: Final = Template("""<tr><th scope="row"><code>$scope</code></th><td>$named</td><td>$alone</td></tr>
""")

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfaf8; --card: #fff; --ink: #1d2327; --soft: #5c666e; --line: #dfe3e6;
  --faint: #f1f3f4; --hover: #eef4fb; --accent: #1f5fa8; --bad: #b3261e; --bad-soft: #fdecea; --odd: #8a5a00;
  --odd-soft: #fff4dc; --good: #1b6e3c; --good-soft: #e5f4ea;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --card: #1b2024; --ink: #e6eaed; --soft: #9aa6ae;
  --line: #313a41; --faint: #20262b; --hover: #22303d; --accent: #7db4f0; --bad: #ff8a80; --bad-soft: #3a1f1e;
  --odd: #f0c05a; --odd-soft: #352b14; --good: #7fd39b; --good-soft: #17301f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 var(--sans); }
header, main { padding: 0 clamp(16px, 3vw, 48px); }
header { padding-top: 32px; }
h1 { margin: 0 0 14px; font-size: 28px; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 36px 0 12px; font-size: 18px; }
.kicker { margin: 0 0 4px; color: var(--soft); font-size: 12px; letter-spacing: .08em; text-transform: uppercase; }
.provenance { margin: -8px 0 14px; color: var(--soft); font-size: 13.5px; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: 0; }
code { font-family: var(--mono); font-size: .93em; overflow-wrap: anywhere; }
.summary { display: flex; flex-wrap: wrap; gap: 8px; }
.summary li { padding: 4px 12px; border: 1px solid var(--line); border-radius: 999px; background: var(--card); }
.summary .errors { color: var(--bad); background: var(--bad-soft); border-color: transparent; }
.summary .warnings { color: var(--odd); background: var(--odd-soft); border-color: transparent; }
.summary li.none { color: var(--good); background: var(--good-soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 16px 0 0; color: var(--soft); }
dt { font-weight: 600; } dd { margin: 0; }
.clean { margin: 0; padding: 12px 16px; border-radius: 8px; color: var(--good); background: var(--good-soft); }
.findings { display: grid; gap: 8px; }
.findings > li { display: grid; grid-template-columns: 76px 1fr; gap: 14px; padding: 10px 16px; background: var(--card);
  border: 1px solid var(--line); border-left: 4px solid var(--odd); border-radius: 8px; break-inside: avoid; }
.findings > li.error { border-left-color: var(--bad); }
.findings h3 { margin: 0; font-size: 15px; }
.findings .count { margin-left: 4px; padding: 0 8px; border-radius: 999px; background: var(--faint); color: var(--soft);
  font-size: 12.5px; font-weight: 600; }
.findings p { margin: 0 0 6px; }
.findings .fix { color: var(--soft); }
.findings ul li { display: block; padding: 5px 0; border: 0; border-top: 1px solid var(--faint); border-radius: 0; }
.findings ul code { font-weight: 600; margin-right: 10px; }
.findings ul span { color: var(--soft); }
summary { padding: 6px 0 2px; color: var(--accent); cursor: pointer; }
.tag { justify-self: start; align-self: start; padding: 1px 8px; border-radius: 4px; font-size: 12px; font-weight: 600;
  color: var(--odd); background: var(--odd-soft); }
.error > .tag, tr.error .tag { color: var(--bad); background: var(--bad-soft); }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: 12px 24px; margin-bottom: 10px; }
.tools label { color: var(--soft); }
input { width: min(340px, 60vw); margin-left: 6px; padding: 7px 10px; font: inherit; color: inherit;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
input:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
#shown { color: var(--soft); }
.legend { display: flex; gap: 18px; margin-left: auto; color: var(--soft); font-size: 13.5px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.scroll { position: relative; max-height: 88vh; overflow: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.scroll.short { max-height: none; width: fit-content; max-width: 100%; margin-bottom: 48px; }
table { border-collapse: separate; border-spacing: 0; }
caption, .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); text-align: left; vertical-align: middle; font-weight: 400; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--faint); vertical-align: bottom; padding: 10px 14px;
  font-weight: 600; font-size: 13px; }
thead th.route { left: 0; z-index: 3; }
th.route, tbody th { width: 420px; min-width: 400px; max-width: 460px; border-right: 1px solid var(--line); }
tbody th { position: sticky; left: 0; z-index: 1; padding: 7px 14px 8px; background: var(--card); }
td.access, th.access { padding: 7px 14px; white-space: nowrap; border-right: 1px solid var(--line); }
th.scope { width: 34px; min-width: 34px; padding: 10px 0; }
th.scope div { display: flex; justify-content: center; }
th.scope span { writing-mode: vertical-rl; transform: rotate(180deg); font: 500 12.5px/1.2 var(--mono);
  white-space: nowrap; }
td { position: relative; height: 40px; }
tbody td:not(.access) { padding: 0; text-align: center; border-right: 1px solid var(--faint); }
tbody tr:hover td, tbody tr:hover th { background: var(--hover); }
tbody td.lit, thead th.lit { background: var(--hover); }
.dot { display: inline-block; width: 14px; height: 14px; border-radius: 50%; border: 2.5px solid var(--accent);
  vertical-align: middle; }
.dot.all { background: var(--accent); }
.method { padding-top: 5px; font: 700 11.5px/1 var(--mono);
  color: var(--soft); }
.cell { display: grid; grid-template-columns: 66px minmax(0, 1fr); }
.m-post, .m-put, .m-patch, .m-delete, .m-any { color: var(--accent); }
.path { font-size: 13.5px; font-weight: 600; }
tbody .tag, .opaque { margin-left: 8px; font-size: 11px; }
.opaque { padding: 1px 7px; border: 1px solid var(--line); border-radius: 4px; color: var(--soft); }
.notes { display: flex; flex-wrap: wrap; margin: 2px 0 0; color: var(--soft); font-size: 12.5px;
  line-height: 1.4; }
.notes li { overflow-wrap: anywhere; }
.notes li:not(:last-child)::after { content: "\\b7"; margin: 0 6px; }
.kind { padding: 2px 9px; border-radius: 4px; font-size: 12.5px; background: var(--faint); color: var(--soft); }
tr.unguarded .kind { color: var(--bad); background: var(--bad-soft); font-weight: 700; }
tr.public .kind, tr.optional .kind { color: var(--odd); background: var(--odd-soft); }
tr.authenticated .kind { color: var(--good); background: var(--good-soft); }
tr.error > th { box-shadow: inset 4px 0 0 var(--bad); }
tr.warning > th { box-shadow: inset 4px 0 0 var(--odd); }
table.plain thead th, table.plain tbody th, table.plain tbody td { position: static; width: auto; max-width: none;
  min-width: 0; padding: 6px 18px 6px 14px; border-right: 0; text-align: left; height: auto; }
table.plain tbody td { text-align: right; font-variant-numeric: tabular-nums; }
[hidden] { display: none !important; }
@media (max-width: 800px) { th.route, tbody th { width: 240px; min-width: 200px; max-width: 240px; }
  .cell { grid-template-columns: 1fr; } .findings > li { grid-template-columns: 1fr; gap: 4px; } }
.needs { display: none; }
@media screen and (max-width: 600px) { .legend, th.scope, tbody td:not(.access) { display: none; }
  .scroll { max-height: none; } .scroll:not(.short) table { width: 100%; table-layout: fixed; }
  th.route, tbody th { width: 50%; min-width: 0; max-width: none; } col:nth-child(n+3) { display: none; }
  td.access { white-space: normal; border-right: 0; }
  .needs { display: block; margin-top: 5px; font: 12px/1.4 var(--mono);
  overflow-wrap: anywhere; } table.plain tbody td { display: table-cell; padding: 6px 10px; }
  .tools label { flex: 1; } input { width: 100%; margin: 4px 0 0; } }
@media print { @page { size: landscape; margin: 12mm; }
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --faint: #f3f3f3; --accent: #1f5fa8;
    --bad: #b3261e; --bad-soft: #fdecea; --odd: #8a5a00; --odd-soft: #fff4dc; --good: #1b6e3c; --good-soft: #e5f4ea; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10px; } header, main { padding: 0; } .tools input, .tools label, #shown { display: none; }
  .scroll { max-height: none; overflow: visible; border: 0; } thead th, tbody th { position: static; }
  th.route, tbody th { width: auto; min-width: 0; max-width: 90mm; } tr { break-inside: avoid; }
  th.scope { width: 5mm; min-width: 5mm; } td { height: 6mm; } .dot { width: 8px; height: 8px; border-width: 2px; } }
"""

SCRIPT: Final = """
(() => {
  const table = document.querySelector(".scroll table"), field = document.getElementById("filter");
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  const first = 2, shown = document.getElementById("shown");
  const needed = rows.map(row => [...row.cells].slice(first).map(cell => cell.childElementCount > 0));
  const words = rows.map((row, index) => {
    const scopes = heads.slice(first).filter((_, column) => needed[index][column]).map(head => head.title);
    const said = [...row.querySelectorAll("th, .access")].map(cell => cell.textContent);
    return [...said, ...scopes, row.className].join(" ").toLowerCase();
  });
  const filter = () => {
    const terms = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let count = 0;
    const used = new Set();
    rows.forEach((row, index) => {
      const found = terms.every(term => words[index].includes(term));
      row.hidden = !found;
      count += found;
      if (found) needed[index].forEach((is, column) => is && used.add(column));
    });
    heads.slice(first).forEach((head, column) => {
      const hide = terms.length > 0 && !used.has(column);
      if (head.hidden !== hide) {
        head.hidden = hide;
        rows.forEach(row => { row.cells[column + first].hidden = hide; });
      }
    });
    shown.textContent = terms.length ? `${count} of ${rows.length} routes` : "";
  };
  field.addEventListener("input", filter);
  let lit = -1;
  const light = column => {
    if (column === lit) return;
    for (const [at, on] of [[lit, false], [column, true]]) {
      if (at < first) continue;
      heads[at].classList.toggle("lit", on);
      rows.forEach(row => row.cells[at].classList.toggle("lit", on));
    }
    lit = column;
  };
  table.addEventListener("mouseover", event => {
    const cell = event.target.closest("td, th");
    light(cell && cell.cellIndex >= first ? cell.cellIndex : -1);
  });
  table.addEventListener("mouseleave", () => light(-1));
})();
"""
