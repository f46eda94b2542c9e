"""Draws the plots of ``docs/benchmarks`` from the results that ``python -m benchmarks.run`` wrote there.

    python -m benchmarks.plots

There is one plot for each question, and none for parts without results. Bars of ratios begin at one, the bare app, so a
bar shows what protection adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

from benchmarks import measuring

mpl.use("agg")
mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "svg.hashsalt": "scopeguard",  # the same figures give the same file
    }
)

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of a backend

OURS, THEIRS, PLAIN, TARGET = "#1a7f4b", "#8b9bb4", "#d0d4da", "#b3261e"
Rows = Mapping[str, Mapping[str, Any]]


def colour(name: str, row: Mapping[str, Any]) -> str:
    return OURS if "scopeguard" in name else THEIRS if row.get("peer", True) else PLAIN


def bars(axes: Any, rows: Rows, *, start: float = 0.0, more: bool = False, target: float | None = None) -> None:
    """Draw horizontal bars of the ratios in *rows*, from *start*, with their middle half. The best is on top: the
    smallest ratio, or the largest if *more* is better.
    """
    order = sorted(rows, key=lambda name: rows[name]["ratio"], reverse=not more)
    for place, name in enumerate(order):
        row = rows[name]
        ratio, low, high = row["ratio"], max(start, row["low"]), row["high"]
        axes.barh(place, ratio - start, left=start, color=colour(name, row), height=0.68)
        axes.plot([low, high], [place, place], color="#333333", linewidth=0.9)
        end = (max(ratio, high), place)
        axes.annotate(f"{ratio:.2f}", end, (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), order)
    axes.tick_params(axis="y", length=0)
    if target is not None:
        axes.axvline(target, color=TARGET, linewidth=0.9, linestyle="--", zorder=0)


def save(figure: Any, name: str, machine: Mapping[str, str]) -> None:
    python, processor = machine["python"], f"{machine['processor']}, {machine['cores']} cores"
    note = f"{processor}, Python {python}, {machine['date']}"
    figure.supxlabel(note, fontsize=7, color="#666666", x=0.99, ha="right")
    figure.savefig(measuring.RESULTS / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def of_base(rows: Rows, base: str) -> dict[str, Mapping[str, Any]]:
    """Return the contestants that are compared with *base*, without the common beginning of their names."""
    framework = base.partition(",")[0]
    return {
        name.removeprefix(framework).removeprefix(",").removeprefix(" + ").removeprefix(" in ").strip(): row
        for name, row in rows.items()
        if row["base"] == base and name != base
    }


FRAMEWORKS = (
    ("Starlette", "Starlette", 1.25),
    ("FastAPI, empty dependency", "FastAPI (beside an empty dependency)", 1.1),
    ("Flask", "Flask", 1.2),
)


def plot_in_process(results: Mapping[str, Any]) -> None:
    """Plot warm and cold requests in process, by framework."""
    for kind, title in (
        ("warm", "a token that was seen before"),
        ("cold", "a token that is not cached"),
    ):
        rows: Rows = results[f"{kind}_RS256"]
        groups = [(of_base(rows, base), label, target) for base, label, target in FRAMEWORKS]
        heights = [len(group) for group, _, _ in groups]
        figure, axes = plt.subplots(
            len(groups),
            1,
            figsize=(7.4, 0.28 * sum(heights) + 1.7),
            height_ratios=heights,
            sharex=True,
            layout="constrained",
        )
        highest = max(row["high"] for group, _, _ in groups for row in group.values()) * 1.25
        for axis, (group, label, target) in zip(axes, groups, strict=True):
            bars(axis, group, start=1.0, target=target if kind == "warm" else None)
            axis.set_title(label)
            axis.set_xscale("log")
            axis.minorticks_off()
        axes[-1].set_xlim(1.0, highest)
        ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50, 100) if tick <= highest]
        axes[-1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[-1].set_xlabel("time of a request ÷ that of the bare app (logarithmic; less is better)")
        bound = "; dashed: our target" if kind == "warm" else ""
        heading = f"How much longer a request takes with protection: {title} (signed with RS256{bound})"
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11)
        save(figure, f"requests_{kind}", results["machine"])


def plot_cold(results: Mapping[str, Any]) -> None:
    """Plot the verification of a new token, by algorithm."""
    bounds = {"RS256": 1.75, "ES256": 1.25, "EdDSA": 1.2}
    names = {
        "scopeguard, which remembers it": "scopeguard, and caching it",
        "scopeguard, which remembers it, fast=True": "scopeguard, fast=True, and caching it",
    }
    groups = {
        algorithm: {names.get(name, name): row for name, row in results[algorithm].items() if row["ratio"] != 1.0}
        for algorithm in bounds
    }
    figure, axes = plt.subplots(3, 1, figsize=(7.4, 5.8), sharex=True, layout="constrained")
    highest = max(row["high"] for group in groups.values() for row in group.values())
    for axis, (algorithm, group) in zip(axes, groups.items(), strict=True):
        bars(axis, group, target=bounds[algorithm])
        axis.axvline(1.0, color="#333333", linewidth=0.8)
        verify = results[algorithm]["cryptography, one verify"]["median"]
        axis.set_title(f"{algorithm} (one verify: {verify * 1e6:.0f} µs)")
    axes[-1].set_xlim(0.0, highest * 1.1)
    axes[-1].set_xlabel("time ÷ one verify of cryptography (the line at 1; less is better)")
    title = "Checking a new access token of 980 bytes, compared with its signature alone (dashed: our target)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    save(figure, "cold_judgement", results["machine"])


LOADS = (
    ("known", "the same token again and again"),
    ("new", "a new token in each request"),
    ("mixed", "95 % known, 5 % new tokens"),
)
# The share of the processor time of a protected request that the app alone needs, which scopeguard has to reach.
SOCKET_TARGETS = {("uvicorn", "known"): 0.85, ("uvicorn", "new"): 0.45}


def plot_sockets(results: Mapping[str, Any]) -> None:
    """Plot the processor time of requests through servers."""
    servers = [
        (server, base)
        for server, base in (("uvicorn", "Starlette"), ("granian", "Starlette"), ("gunicorn", "Flask"))
        if server in results
    ]
    if not servers:
        return
    heights = [len(of_base(results[server]["known"], base)) + 1 for server, base in servers]
    figure, grid = plt.subplots(
        len(servers),
        len(LOADS),
        figsize=(12.5, 0.3 * sum(heights) + 1.8),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for line, (server, base) in zip(grid, servers, strict=True):
        for axis, (load, label) in zip(line, LOADS, strict=True):
            rows = of_base(results[server][load], base)
            bars(axis, rows, more=True, target=SOCKET_TARGETS.get((server, load)))
            bare = results[server][load][base]["processor"]
            axis.set_title(
                f"{base} on {server}: {label}\n(without protection: {bare * 1e6:.0f} µs a request)", fontsize=9
            )
            axis.set_xlim(0.0, 1.15)
            axis.axvline(1.0, color="#333333", linewidth=0.8)
    for axis in grid[-1]:
        axis.set_xlabel("1: protection costs nothing; 0.5: it doubles the processor time")
    title = "Requests over HTTP: processor time without protection ÷ with it (longer is better; dashed: our target)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    save(figure, "sockets", results["machine"])


def series(times: Mapping[str, Any], pattern: str) -> tuple[list[float], list[float]]:
    """Return the number in each name that matches *pattern*, and the microseconds. Thousands may have commas."""
    points = []
    for name, row in times.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            seconds = row["smallest"] if isinstance(row, Mapping) else row
            points.append((float(match[1].replace(",", "")), seconds * 1e6))
    return [x for x, _ in sorted(points)], [y for _, y in sorted(points)]


# The title, the label and the lines of each panel.
SCALES: tuple[tuple[str, str, str, Sequence[tuple[str, str, str]]], ...] = (
    (
        "Size of the token",
        "KB",
        "times",
        (("seen before", r"token of ([\d.]+) KB, warm", OURS), ("new", r"token of ([\d.]+) KB, cold", THEIRS)),
    ),
    (
        "Scopes in the token",
        "scopes",
        "times",
        (("seen before", r"(\d+) scopes, warm", OURS), ("new", r"(\d+) scopes, cold", THEIRS)),
    ),
    ("Keys of the issuer", "keys", "times", (("new", r"(\d+) keys, cold", THEIRS),)),
    (
        "Rules of routes",
        "rules",
        "rules",
        (("literal", r"literal, ([\d,]+) rules", OURS), ("parameters", r"parameters, ([\d,]+) rules", THEIRS)),
    ),
    (
        "Remembered tokens",
        "tokens",
        "finding",
        (("one used lately", r"ready (\d+)", OURS), ("any other", r"packed (\d+)", THEIRS)),
    ),
    (
        "Remembered tokens: a full collection",
        "tokens",
        "pause",
        (("what they add to it", r"pause (\d+)", OURS),),
    ),
)


def cache_costs(results: Mapping[str, Any], part: str) -> dict[str, float]:
    """Plot the cost of the token cache by the number of its tokens, without pauses that are too short to see."""
    kinds = ("ready", "packed") if part == "finding" else ("pause",)
    rows = results["remembered"].items()
    return {f"{kind} {count}": row[kind] for count, row in rows for kind in kinds if row[kind] > 0}


def plot_scaling(results: Mapping[str, Any]) -> None:
    """Plot which costs grow with size, and which do not."""
    figure, grid = plt.subplots(2, 3, figsize=(11.0, 5.6), layout="constrained")
    results = {**results, "finding": cache_costs(results, "finding"), "pause": cache_costs(results, "pause")}
    for axis, (title, label, part, lines) in zip(grid.flat, SCALES, strict=True):
        for name, pattern, shade in lines:
            x, y = series(results[part], pattern)
            axis.plot(x, y, marker="o", markersize=4, color=shade, label=name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(low / 5, high * 5)  # a wide range, so that noise in a flat line stays small
        axis.set_title(title)
        axis.set_xlabel(label)
        axis.set_ylabel({"times": "µs a check", "pause": "µs"}.get(part, "µs to find one"))
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(lambda value, position: f"{value:,g}" if value < 1e6 else f"{value:.0e}")
        axis.minorticks_off()
        axis.grid(visible=True, which="major", color="#e6e6e6", linewidth=0.6)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(
        "How the time of a check grows with tokens, keys and rules (signed with ES256; both axes logarithmic)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    save(figure, "scaling", results["machine"])


PLOTS = {"in_process": plot_in_process, "cold": plot_cold, "sockets": plot_sockets, "scaling": plot_scaling}


def main() -> None:
    for part, draw in PLOTS.items():
        path = measuring.RESULTS / f"{part}.json"
        if path.exists():
            draw(json.loads(path.read_text("utf-8")))
            print(f"drawn: {part}")
        else:
            print(f"{part}: not run yet, see benchmarks/run.py")


if __name__ == "__main__":
    main()
