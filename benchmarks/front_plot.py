"""The figure of docs/benchmarks-front.md: calls a second of every server, and times at fixed rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import front_page
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"floor": "#999999", "native": "#1b6ca8", "grpcio": "#3fa7d6"}
RIVAL = "#e07a1f"
SHAPES = ("8x4", "16x100")
PERCENTILES = {"p50_us": "-", "p99_us": "--"}


def draw(results: dict[str, Any], target: Path) -> None:
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "quotad", "font.size": 9})  # the same figures give the same file
    figure, (calls, times) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(1.5, 1))
    draw_calls(calls, results)
    draw_times(times, results)
    for axes in (calls, times):
        axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def draw_calls(axes: Axes, results: dict[str, Any]) -> None:
    """A pair of bars for each server and what it is asked: 8x4 and 16x100."""
    rows = [row for row in results["rows"] if row["part"] == "calls"]
    names = list(dict.fromkeys((row["server"], row["ask"]) for row in rows))
    for at, (server, ask) in enumerate(names):
        for shift, shape in ((-0.2, SHAPES[0]), (0.2, SHAPES[1])):
            row = front_page.find(results, "calls", server, shape, ask)
            if row is not None:
                rate, colour = row["median"]["rate"], COLOURS.get(server, RIVAL)
                axes.barh(at + shift, rate, 0.36, color=colour, alpha=1 if shape == SHAPES[1] else 0.6)
                axes.annotate(f" {shape}: {rate:,.0f}", (rate, at + shift), va="center", fontsize=7)
    labels = [front_page.name_of(next(row for row in rows if (row["server"], row["ask"]) == name)) for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="calls per second, server on one core")
    axes.set_xlim(1_000, axes.get_xlim()[1] * 4)
    axes.set_title("Unary calls; connections x streams", fontsize=10)


def draw_times(axes: Axes, results: dict[str, Any]) -> None:
    """Times of calls by their rate."""
    rows = [row for row in results["rows"] if row["part"] == "rate"]
    for server in dict.fromkeys(row["server"] for row in rows):
        for key, style in PERCENTILES.items():
            line = sorted((row["rate"], row["median"][key]) for row in rows if row["server"] == server)
            label = f"{front_page.NAMES[server]}, {key.removesuffix('_us')}"
            axes.plot(*zip(*line, strict=True), style, color=COLOURS[server], marker="o", markersize=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="calls per second, asked for", ylabel="µs until the answer")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("Times at fixed rates", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
