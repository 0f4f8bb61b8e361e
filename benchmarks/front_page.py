"""What front.py measured as tables: on the terminal, or as docs/benchmarks-front.md and its plot.

python benchmarks/front_page.py FIGURES.json [--docs]

With --docs the figures are kept in benchmarks/front/results.json and the page is made of them; without a file, of those kept.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import shutil
import sqlite3
import ssl
import statistics
import subprocess
from pathlib import Path
from string import Template
from typing import Any

import machine
from tables import spread, table

HERE = Path(__file__).with_name("front")
RESULTS = HERE / "results.json"
DOCS = machine.ROOT / "docs"
RSS_GROWTH_MAX = 0.05
# (what is fast, what is slow, at which shape, how many times as many calls a second)
RATE_BARS = (
    ("native", "limitador", "8x4", 3),
    ("native", "grpcio", "8x4", 25),
    ("native", "limitador", "16x100", 6),
    ("native", "floor", "8x4", 0.5),
    ("native", "floor", "16x100", 0.5),
)
STRICT_CPU_MAX = 2.5  # times that of ephemeral, a call
ITEM_CPU_SHARE_MAX = 0.2  # of a unary call's
WHAT = {"five": "five limits", "one": "one limit", "five, id": "five limits, request_id"}
ONE_LIMIT = {"descriptor": "one limit", "rate limit": "one limit"}
NAMES = {"native": "quotad", "grpcio": "quotad on grpcio", "floor": "the floor"}
SHAPES = ("1x1", "8x4", "16x100")


# ---- What it was measured with ----


def versions(names: list[str]) -> dict[str, str]:
    """Versions of what the page compares; `names` are the servers that ran."""
    packages = {"grpcio": machine.version_of("grpcio"), "nghttp2": nghttp2_version(), "SQLite": sqlite3.sqlite_version}
    found = {"front": ", ".join(f"{name} {version}" for name, version in packages.items()) + f", {ssl.OPENSSL_VERSION}"}
    rivals = [f"{name} {version_of(name)}" for name in ("limitador", "gubernator", "ratelimit") if name in names]
    return found | ({"rivals": ", ".join(rivals)} if rivals else {})


def nghttp2_version() -> str:
    class Info(ctypes.Structure):
        _fields_ = (("age", ctypes.c_int), ("number", ctypes.c_int), ("text", ctypes.c_char_p))

    ask = ctypes.CDLL("libnghttp2.so.14").nghttp2_version
    ask.restype = ctypes.POINTER(Info)
    return str(ask(0).contents.text.decode())


def version_of(rival: str) -> str:
    """What limitador says of itself, and what Go keeps in the file of the others."""
    if rival == "limitador":
        return next(iter(re.findall(r"v[0-9][^ ]*", run("limitador-server", "--version"))), "?")
    found = run("go", "version", "-m", shutil.which(rival) or "")
    return next(iter(re.findall(r"^\tmod\t\S+\t(\S+)", found, re.M)), "?")


def run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


# ---- Figures ----


def shape_of(row: dict[str, Any]) -> str:
    return f"{row['connections']}x{row['streams']}"


def find(results: dict[str, Any], part: str, server: str, shape: str = "", ask: str = "") -> dict[str, Any] | None:
    """The row of a part by server and, where given, shape and ask."""
    for row in results["rows"]:
        if (row["part"], row["server"]) == (part, server) and shape in ("", shape_of(row)) and ask in ("", row["ask"]):
            return dict(row)
    return None


def ratio(above: dict[str, Any], below: dict[str, Any], key: str, *, per_item: bool = False) -> dict[str, Any]:
    """How many times `below`'s figure `above`'s is: in the median turn, the least and the greatest."""
    scale = below["items"] / above["items"] if per_item else 1
    found = [scale * one[key] / other[key] for one, other in zip(above["turns"], below["turns"], strict=True)]
    return {"ratio": statistics.median(found), "ratio_min": min(found), "ratio_max": max(found)}


def bars_of(results: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(what was asked, what was measured, met) of every bar that was measured."""
    rows: list[tuple[str, str, bool]] = []
    for fast, slow, shape, least in RATE_BARS:
        one = find(results, "calls", fast, shape, "five")
        other = find(results, "calls", slow, shape, "five" if slow in ("floor", "grpcio") else "")
        if one and other:
            found = ratio(one, other, "rate")
            asked = f"{fast}, five limits: at least {least}x the calls/s of {slow} at {shape}"
            rows.append((asked, precise(found), found["ratio"] >= least))
    strict = find(results, "strict", "native strict", "16x100")
    plain = find(results, "calls", "native", "16x100", "five")
    if strict and plain:
        found = ratio(strict, plain, "cpu_us")
        asked = f"strict: at most {STRICT_CPU_MAX}x the CPU a call of ephemeral at 16x100"
        rows.append((asked, precise(found), found["ratio"] <= STRICT_CPU_MAX))
    batch = find(results, "batch", "native", ask="batch 100")
    unary = find(results, "calls", "native", "8x4", "five")
    if batch and unary:
        found = ratio(batch, unary, "cpu_us", per_item=True)
        asked = f"an item of AdmitBatch(100): at most {ITEM_CPU_SHARE_MAX}x the CPU of a unary call at 8x4"
        rows.append((asked, precise(found), found["ratio"] <= ITEM_CPU_SHARE_MAX))
    if "soak" in results:
        soak = results["soak"]
        growth = soak["rss_after_bytes"] / soak["rss_before_bytes"] - 1
        asked = f"resident memory flat within {RSS_GROWTH_MAX:.0%} over {soak['calls'] / 1e6:.0f} M calls"
        measured = f"{growth:+.1%} ({soak['rss_before_bytes'] / 1e6:.0f} to {soak['rss_after_bytes'] / 1e6:.0f} MB)"
        rows.append((asked, measured, abs(growth) <= RSS_GROWTH_MAX))
    return rows


def precise(found: dict[str, Any]) -> str:
    """As `spread`, with two digits after the point where one would say too little."""
    if found["ratio"] >= 10:
        return spread(found)
    return f"{found['ratio']:.2f}x ({found['ratio_min']:.2f} to {found['ratio_max']:.2f})"


# ---- Tables ----


def name_of(row: dict[str, Any]) -> str:
    server = NAMES.get(row["server"].split()[0], row["server"])
    what = "" if row["server"].startswith("floor") else ", " + (WHAT | ONE_LIMIT).get(row["ask"], row["ask"])
    return server + what


def shapes_table(results: dict[str, Any], part: str) -> str:
    """A line for each server and what it is asked; calls/s and CPU for each shape, and the share of the floor."""
    rows = [row for row in results["rows"] if row["part"] == part]
    names = list(dict.fromkeys((row["server"], row["ask"]) for row in rows))
    floor = "floor TLS" if part == "tls" else "floor"
    lines = []
    for server, ask in names:
        found = {shape_of(row): row for row in rows if (row["server"], row["ask"]) == (server, ask)}
        line: list[object] = [name_of(next(iter(found.values())))]
        for shape in SHAPES:
            line += [calls(found[shape]), cpu(found[shape])]
        for shape in SHAPES[1:]:
            below = find(results, "tls" if part == "tls" else "calls", floor, shape)
            line.append(f"{ratio(found[shape], below, 'rate')['ratio']:.3f}" if below else "")
        lines.append([*line, f"{found['1x1']['median']['p50_us']:.0f}"])
    head = ["", *(text for shape in SHAPES for text in (f"{shape} calls/s", "CPU µs"))]
    return table([*head, "of the floor 8x4", "16x100", "serial p50 µs"], lines)


def calls(row: dict[str, Any]) -> str:
    failed = row["median"]["failed"]
    return f"{row['median']['rate']:,.0f}" + (f", {failed:,.0f} failed" if failed else "")


def cpu(row: dict[str, Any]) -> str:
    us = row["median"]["cpu_us"]
    return f"{us:.2f}" if us < 10 else f"{us:.0f}"


def batch_table(results: dict[str, Any]) -> str:
    rows = [
        (
            name_of(row).split(",")[0],
            row["items"],
            f"{row['median']['rate']:,.0f}",
            f"{row['median']['rate'] * row['items']:,.0f}",
            f"{row['median']['cpu_us'] / row['items']:.3f}",
        )
        for row in results["rows"]
        if row["part"] == "batch"
    ]
    return table(("", "items", "calls/s", "items/s", "CPU µs an item"), rows)


def times_table(results: dict[str, Any], parts: tuple[str, ...]) -> str:
    """Times at fixed rates; what could not keep up says how far behind it was at the end."""
    rows = [
        (
            name_of(row) + (", disturbed" if row["disturbed"] else ""),
            f"{row['rate']:,.0f}",
            *(f"{row['median'][key]:,.0f}" for key in ("p50_us", "p99_us", "p999_us")),
            cpu(row),
            f"{row['median']['behind_s']:.1f} s behind" if row["median"]["behind_s"] > 0.05 else "",
        )
        for row in results["rows"]
        if row["part"] in parts and row["rate"]
    ]
    return table(("", "calls/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", " "), rows)


def disturbed_table(results: dict[str, Any]) -> str:
    rows = []
    for row in results["rows"]:
        quiet = find(results, "calls", row["server"], shape_of(row), row["ask"])
        if row["part"] == "disturbed" and not row["rate"] and quiet:
            for name, one in (("undisturbed", quiet), ("scrapes and imports", row)):
                figures = [f"{one['median'][key]:,.0f}" for key in ("rate", "p50_us", "p99_us")]
                rows.append((name, *figures, cpu(one)))
    return table((f"quotad, five limits, {SHAPES[1]}", "calls/s", "p50 µs", "p99 µs", "CPU µs"), rows)


def bars_table(results: dict[str, Any]) -> str:
    words = {True: "met", False: "**not met**"}
    return table(("bar", "measured", ""), [(asked, measured, words[met]) for asked, measured, met in bars_of(results)])


TABLES = {
    "calls": lambda results: shapes_table(results, "calls"),
    "tls": lambda results: shapes_table(results, "tls"),
    "strict": lambda results: shapes_table(results, "strict"),
    "batch": batch_table,
    "rate": lambda results: times_table(results, ("rate", "disturbed")),
    "disturbed": disturbed_table,
}


def summary(results: dict[str, Any]) -> str:
    """What there is, for the terminal."""
    parts = dict.fromkeys(row["part"] for row in results["rows"])
    return "\n\n".join([*(f"{part}\n{TABLES[part](results)}" for part in parts), bars_table(results)])


def page(results: dict[str, Any]) -> str:
    described = results["described"] | {
        "other processes": f"used {results['others_share']:.0%} of the processors meanwhile"
    }
    parts = {part: make(results) for part, make in TABLES.items()}
    disturbed = [row["median"] for row in results["rows"] if row["disturbed"]]
    return Template((HERE / "page.md").read_text()).substitute(
        parts,
        machine="\n".join(f"- {key}: {value}" for key, value in described.items()),
        bars=bars_table(results),
        turns=results["turns"],
        seconds=f"{results['seconds']:g}",
        imported=f"{statistics.mean(one['imported'] for one in disturbed) / results['seconds']:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--docs", action="store_true", help="Keep the figures, and write the page and its plot.")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.figures.read_text())
    print(summary(results))
    if options.docs:
        missing = [part for part in TABLES if not any(row["part"] == part for row in results["rows"])]
        if missing:
            raise SystemExit(f"not measured: {', '.join(missing)}")
        import front_plot  # the one part that needs matplotlib

        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        (DOCS / "benchmarks-front.md").write_text(page(results))
        front_plot.draw(results, DOCS / "benchmarks-front.svg")


if __name__ == "__main__":
    main()
