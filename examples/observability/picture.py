"""Draws the panels of the dashboard with matplotlib, where Grafana would show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter
from PIL import Image

if TYPE_CHECKING:
    from run import Series

COLUMNS = 24  # of Grafana's grid
WIDTH, ROW = 15.0, 0.36  # inches
INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"
COLOURS = ("#1a7f4b", "#b3261e", "#3b6fb6", "#c77d0a", "#7b4fa3", "#168a8a", "#8b9bb4", "#a04668", "#6b7d1e", "#444444")


def seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs" if value else "0"


NAMED = {"green": "#1a7f4b", "blue": "#3b6fb6", "orange": "#c77d0a", "red": "#b3261e"}
UNITS: Mapping[str, Callable[[float], str]] = {
    "s": seconds,
    "reqps": lambda value: f"{value:.3g}/s",
    "percentunit": lambda value: f"{100 * value:.3g} %",
    "bool_yes_no": lambda value: "yes" if value else "no",
    "short": lambda value: f"{value:.4g}",
}


def draw(dashboard: Mapping[str, Any], found: Mapping[int, list[Series]], path: Path, *, note: str) -> None:
    """Draw *dashboard* with the series *found* of each panel into *path*. *note* is written below."""
    mpl.rcParams.update({"font.size": 8, "text.color": INK, "axes.edgecolor": GRID, "xtick.color": INK})
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = rows * ROW + 0.7
    figure = plt.figure(figsize=(WIDTH, height), facecolor=PAPER)
    begin = min(series.times[0] for all_series in found.values() for series in all_series)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left = (place["x"] + 0.9) / COLUMNS
        bottom = 1 - (0.4 + (place["y"] + place["h"] - 1.9) * ROW) / height
        box = (left, bottom, (place["w"] - 1.4) / COLUMNS, (place["h"] - 2.7) * ROW / height)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
        show = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
        if panel["type"] == "stat":
            _draw_stat(axes, found[panel["id"]], show)
        else:
            _draw_lines(axes, panel, found[panel["id"]], show, begin)
    figure.text(0.5 / COLUMNS, 1 - 0.2 / height, dashboard["title"], fontsize=12, fontweight="bold", va="center")
    figure.text(
        1 - 0.5 / COLUMNS, 0.12 / height, f"{note}, drawn with matplotlib", ha="right", fontsize=7, color="#666666"
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the size


def _draw_stat(axes: Any, series: list[Series], show: Callable[[float], str]) -> None:
    axes.set_axis_off()
    text = show(series[0].values[-1]) if series else "no data"
    axes.text(0.0, 0.45, text, transform=axes.transAxes, fontsize=20, color=COLOURS[0], va="center")


def _draw_lines(
    axes: Any, panel: Mapping[str, Any], series: list[Series], show: Callable[[float], str], begin: float
) -> None:
    colours = _colours(panel, series)
    if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
        times = sorted({at for each in series for at in each.times})
        values = [dict(zip(each.times, each.values, strict=True)) for each in series]
        heights = [[each.get(at, 0.0) for at in times] for each in values]
        names = [each.name for each in series]
        axes.stackplot([at - begin for at in times], heights, labels=names, colors=colours)
    else:
        for each, colour in zip(series, colours, strict=True):
            axes.plot([at - begin for at in each.times], each.values, label=each.name, color=colour, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 4 if panel["gridPos"]["w"] > 8 else 2
    place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.12), "borderaxespad": 0}
    axes.legend(fontsize=6.5, frameon=False, ncols=columns, handlelength=1.2, columnspacing=1.2, **place)


def _colours(panel: Mapping[str, Any], series: list[Series]) -> list[str]:
    """Return the colour of each series: that which the panel gives its name, or the next one."""
    fixed = {
        override["matcher"]["options"]: NAMED[override["properties"][0]["value"]["fixedColor"]]
        for override in panel["fieldConfig"]["overrides"]
    }
    return [fixed.get(each.name, COLOURS[number % len(COLOURS)]) for number, each in enumerate(series)]
