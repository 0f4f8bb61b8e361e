"""Turn what the benchmarks measured into tables: on the terminal, or as docs/benchmarks.md and its plot.

    python benchmarks/report.py [FOLDER] [--docs]

FOLDER has the JSON files of PARTS (decisions.json and so on), or some of them. With --docs all must be there: the figures are
kept in benchmarks/results.json, and the page is made from that; without FOLDER it is made from those kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from string import Template
from typing import Any

import holds
import kept
from tables import short, spread, table
from workload import BATCH, LOGS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DOCS = HERE.parent / "docs"
PACKED_ACCOUNTS = MEMORY_ACCOUNTS = 1_000_000  # what the bars are about; with fewer, figures are shown and not judged
GROWTH_ACCOUNTS = 3_000_000
OTHERS_SHARE_MAX = 0.05  # of the processors, used by other processes, from which on to say so
PARTS = ("decisions", "bars", "holds", "memory", "remembered", "growth", "store")


# ---- Figures ----


def gather(folder: Path) -> dict[str, Any]:
    """The figures of one run. Raises SystemExit if they are of several commits or machines."""
    parts = {name: json.loads(path.read_text()) for name in PARTS if (path := folder / f"{name}.json").exists()}
    if not parts:
        raise SystemExit(f"no figures in {folder}")
    described = [part.pop("described") for part in parts.values()]
    date = min(one.pop("date") for one in described)
    if any(one != described[0] for one in described):
        raise SystemExit("these figures are of different commits or machines: measure all of them again")
    results: dict[str, Any] = {"described": described[0] | {"date": date}}
    results["others_share"] = max(part.pop("others_share") for part in parts.values())
    if "decisions" in parts:
        results["decisions"] = [decision_of(benchmark) for benchmark in parts["decisions"]["benchmarks"]]
    return results | {name: part for name, part in parts.items() if name != "decisions"}


def decision_of(benchmark: dict[str, Any]) -> dict[str, Any]:
    extra, stats = benchmark["extra_info"], benchmark["stats"]
    scale = 1e9 / extra["decisions"]
    figures = {"ns": stats["median"], "ns_q1": stats["q1"], "ns_q3": stats["q3"]}
    named = {key: extra[key] for key in ("way", "limits", "accounts", "logs", "choice")}
    return named | {key: round(value * scale, 1) for key, value in figures.items()} | {"rounds": stats["rounds"]}


def bars_of(results: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
    """(what was asked, what was measured, met) of every bar that was measured; None where it takes more accounts to say."""
    rows: list[tuple[str, str, bool | None]] = []
    for row in results.get("bars", {}).get("rows", []):
        if row["bar"]:
            what = f"{row['fast']} at least {row['bar']}x as fast as {row['slow']}"
            accounts = PACKED_ACCOUNTS if row["fast"] == "Ledger.admit_packed" else row["accounts"]
            met = row["ratio"] >= row["bar"] if row["accounts"] >= accounts else None
            rows.append((f"{what}; {accounts:,} accounts, {row['logs']} logs", spread(row), met))
    rows += hold_bars(results)
    if "memory" in results:
        mixed, most = results["memory"]["kinds"]["mixed"], results["memory"]["bytes_max"]
        met = mixed["bytes_per_account"] <= most if mixed["accounts"] >= MEMORY_ACCOUNTS else None
        asked = f"at most {most} bytes an account; {MEMORY_ACCOUNTS:,} accounts, 1 of 10 with a full log"
        rows.append((asked, f"{mixed['bytes_per_account']:.0f} bytes", met))
    if "growth" in results:
        growth = results["growth"]
        ratio, most = growth["p999_ns"] / growth["median_ns"], growth["ratio_max"]
        met = ratio <= most if growth["accounts"] >= GROWTH_ACCOUNTS else None
        asked = f"p99.9 of an insert at most {most}x its median, growing to {GROWTH_ACCOUNTS:,} accounts"
        rows.append((asked, f"{ratio:.1f}x", met))
    return rows + kept.bars_of(results)


def hold_bars(results: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
    """As bars_of: what a hold adds to a decision."""
    rows: list[tuple[str, str, bool | None]] = []
    for row in results.get("holds", {}).get("rows", []):
        for name, way in row["ways"].items() if row["kind"] == holds.HELD else ():
            most = results["holds"]["ratio_max"]
            if "ratio" in way:
                asked = f"{name} with a hold at most {most}x as long as without an id; {row['accounts']:,} accounts, full logs"
                rows.append((asked, spread(way), way["ratio"] <= most))
    return rows


# ---- Tables ----


def decisions_table(results: dict[str, Any]) -> str:
    figures = results["decisions"]
    columns = sorted({(it["logs"], it["choice"], it["accounts"]) for it in figures})
    ways = sorted({it["way"]: -it["limits"] for it in figures}.items(), key=lambda it: it[1])
    found = {(it["way"], it["logs"], it["choice"], it["accounts"]): f"{it['ns']:,.0f}" for it in figures}
    head = ["", "limits", *(f"{logs}, {choice}, {short(accounts)}" for logs, choice, accounts in columns)]
    rows = [[way, -limits, *(found.get((way, *column), "") for column in columns)] for way, limits in ways]
    return table(head, rows)


def ratios_table(results: dict[str, Any]) -> str:
    rows = [
        (
            it["fast"],
            it["logs"],
            short(it["accounts"]),
            round(it["fast_ns"]),
            it["slow"],
            round(it["slow_ns"]),
            spread(it),
        )
        for it in results["bars"]["rows"]
    ]
    return table(("", "logs", "accounts", "ns", "beside", "ns", "ratio (least to greatest)"), rows)


def holds_table(results: dict[str, Any]) -> str:
    head = ["", "accounts", "open", "remembered"]
    for through in (holds.PACKED, holds.ADMIT):
        head += [f"{through.split(',')[0]}, ns", "to no id", "to the same again"]
    rows = [
        [row["kind"], short(row["accounts"]), f"{row['open']:.0f}", f"{row['remembered']:.0f}"]
        + [figure for through in (holds.PACKED, holds.ADMIT) for figure in hold_figures(row["ways"][through])]
        for row in results["holds"]["rows"]
    ]
    return table(head, rows)


def hold_figures(way: dict[str, Any]) -> list[str]:
    return [f"{way['ns']:,.0f}", spread(way), f"{way['ratio_again']:.1f}x"]


def beside_holds_table(results: dict[str, Any]) -> str:
    """What stands beside the decisions of holds_table: making a Request, and Settle."""
    rows = [
        (row["kind"], *(f"{row['ways'][way]['ns']:,.0f}" if way in row["ways"] else "" for way in holds.BESIDE))
        for row in results["holds"]["rows"]
        if row["accounts"] == holds.ACCOUNTS and row["gap_s"] == holds.GAP_S and len(row["ways"]) > 2
    ]
    return table(("", "making a Request, ns", "Engine.settle, ns"), rows)


def remembered_table(results: dict[str, Any]) -> str:
    words = {"hold": "open hold", "id": "request id without a hold", "prompt": "open prompt"}
    found = {(it["kind"], it["each"]): f"{it['bytes']:.0f}" for it in results["remembered"]["rows"]}
    each = sorted({each for _, each in found})
    return table(
        ["bytes each"] + [f"{n} an account" for n in each], [[words[k], *(found[k, n] for n in each)] for k in words]
    )


def memory_table(results: dict[str, Any]) -> str:
    words = {
        "mixed": "9 of 10 with three charges alive, 1 of 10 with a full log",
        "full": "all with a full log",
        "idle": "never charged",
    }
    kinds = results["memory"]["kinds"]
    rows = [(words[kind], f"{kinds[kind]['accounts']:,}", round(kinds[kind]["bytes_per_account"])) for kind in words]
    return table(("accounts", "number", "bytes each"), rows)


def growth_table(results: dict[str, Any]) -> str:
    names = {"median_ns": "median, ns", "p99_ns": "p99, ns", "p999_ns": "p99.9, ns", "max_ns": "max, ns"}
    return table(names.values(), [[f"{results['growth'][key]:,}" for key in names]])


def bars_table(results: dict[str, Any]) -> str:
    words = {True: "met", False: "**not met**", None: "measured with fewer accounts"}
    rows = [(asked, measured, words[met]) for asked, measured, met in bars_of(results)]
    return table(("bar", "measured", ""), rows)


def page(results: dict[str, Any]) -> str:
    described = results["described"] | {
        "other processes": f"used {results['others_share']:.0%} of the processors meanwhile"
    }
    return Template((HERE / "page.md").read_text()).substitute(
        machine="\n".join(f"- {key}: {value}" for key, value in described.items()),
        decisions=decisions_table(results),
        alive=LOGS["full"][1],
        batch=BATCH,
        turns=statistics.mode(row["turns"] for row in results["bars"]["rows"]),
        ratios=ratios_table(results),
        gap=holds.GAP_S,
        gap_full=holds.GAP_FULL_S,
        hold=holds.HOLD_MS // 1000,
        id_bytes=results["remembered"]["id_bytes"],
        holds_turns=statistics.mode(row["turns"] for row in results["holds"]["rows"]),
        holds=holds_table(results),
        beside_holds=beside_holds_table(results),
        memory=memory_table(results),
        remembered=remembered_table(results),
        growth_accounts=f"{results['growth']['accounts']:,}",
        growth=growth_table(results),
        store_disk=f"{results['store']['disk']}, SQLite {results['store']['SQLite']}",
        store_accounts=f"{results['store']['parts'][0]['accounts']:,}",
        store_turns=results["store"]["parts"][0]["turns"],
        disk=kept.disk_table(results),
        durable=kept.durable_table(results),
        durable_cost=kept.durable_cost_table(results),
        restart=kept.restart_table(results),
        bars=bars_table(results),
    )


def summary(results: dict[str, Any]) -> str:
    """What there is, for the terminal."""
    tables = [
        ("decisions", decisions_table),
        ("bars", ratios_table),
        ("holds", holds_table),
        ("holds", beside_holds_table),
    ]
    tables += [("memory", memory_table), ("remembered", remembered_table), ("growth", growth_table)]
    tables += [
        ("store", make) for make in (kept.disk_table, kept.durable_table, kept.durable_cost_table, kept.restart_table)
    ]
    parts = [make(results) for name, make in tables if name in results]
    return "\n\n".join([*parts, bars_table(results)] if bars_of(results) else parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--docs", action="store_true", help="Keep the figures, and write the page and its plot.")
    options = parser.parse_args()
    results: dict[str, Any] = gather(options.folder) if options.folder else json.loads(RESULTS.read_text())
    print(summary(results))
    if results["others_share"] > OTHERS_SHARE_MAX:
        print(
            f"\nOther processes used {results['others_share']:.0%} of the processors meanwhile: these figures say little."
        )
    if options.docs:
        missing = [name for name in PARTS if name not in results]
        if missing:
            raise SystemExit(f"not measured: {', '.join(missing)}")
        import plot  # the one part that needs matplotlib

        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        (DOCS / "benchmarks.md").write_text(page(results))
        plot.draw(results, DOCS / "benchmarks.svg")


if __name__ == "__main__":
    main()
