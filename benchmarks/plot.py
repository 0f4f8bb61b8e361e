"""The plot of docs/benchmarks.md: nanoseconds per decision by number of accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

COLOURS = {
    "Engine.admit": "#1b6ca8",
    "Engine.admit, time given": "#3fa7d6",
    "Engine.admit_many": "#2a9d4a",
    "Ledger.admit_packed": "#e07a1f",
}
OTHERS = "#777777"


def draw(results: dict[str, Any], target: Path) -> None:
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "quotad", "font.size": 10})  # the same figures give the same file
    figures = [it for it in results["decisions"] if it["logs"] == "full"]
    figure, axes = plt.subplots(figsize=(8.5, 5.2), layout="constrained")
    sizes = sorted({it["accounts"] for it in figures})
    for way, colour in COLOURS.items():
        for choice, style in (("uniform", "-"), ("zipf", "--")):
            line = sorted((it["accounts"], it["ns"]) for it in figures if (it["way"], it["choice"]) == (way, choice))
            label = f"{way}, {choice}"
            axes.plot(*zip(*line, strict=True), style, color=colour, marker="o", markersize=4, label=label)
    for it in figures:
        if it["limits"] == 1:
            axes.axhline(it["ns"], color=OTHERS, linewidth=1, linestyle=":")
            axes.annotate(
                f"{it['way']}: one limit, {it['accounts']:,} accounts", (sizes[-1], it["ns"]), color=OTHERS, fontsize=9,
                ha="right", va="bottom", xytext=(0, 1), textcoords="offset points",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="accounts", ylabel="ns per decision")
    axes.set_title("A decision over five limits, all or nothing; logs full", fontsize=11)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if str(value)[0] in "25" else "")
    axes.minorticks_on()
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
