"""The report's part about the store: its tables and bars, of what store.py measured."""

from __future__ import annotations

from typing import Any

from tables import spread, table

RESTART_ACCOUNTS = 1_000_000  # what the bars are about
CACHES = {"cold": "the file not in memory", "warm": "the file in memory"}


# ---- Bars ----


def bars_of(results: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
    """As in report.py: what the store does with the disk."""
    rows: list[tuple[str, str, bool | None]] = []
    if "store" not in results:
        return rows
    store, restart = results["store"], results["store"]["restart"]
    for part in store["parts"]:
        for row in part["rows"]:
            if row["barred"]:
                asked = (
                    f"strict, {row['waiting']}: at least {store['ratio_min']}x the fdatasync rate, or {store['rate_min']:,}/s; "
                    f"{part['logs']} logs"
                )
                met = row["ratio"] >= store["ratio_min"] or row["rate"] >= store["rate_min"]
                rows.append((asked, f"{spread(row)}, {row['rate']:,.0f}/s", met))
    enough = restart["accounts"] >= RESTART_ACCOUNTS
    for cache, words in CACHES.items():
        asked = f"restart with {RESTART_ACCOUNTS:,} accounts within {restart['seconds_max']:.0f} s, {words}"
        rows.append(
            (asked, start_of(restart[cache]), restart[cache]["s"] <= restart["seconds_max"] if enough else None)
        )
    ratio = restart["file_bytes"] / restart["blob_bytes"]
    asked = f"file at most {restart['ratio_max']:.0f}x the live blobs, folded; {RESTART_ACCOUNTS:,} accounts"
    return [*rows, (asked, f"{ratio:.2f}x", ratio <= restart["ratio_max"] if enough else None)]


def start_of(row: dict[str, float]) -> str:
    return f"{row['s']:.2f} s ({row['s_min']:.2f} to {row['s_max']:.2f})"


# ---- Tables ----


def disk_table(results: dict[str, Any]) -> str:
    rows = [
        (it["name"], part["logs"], f"{it['rate']:,.0f}", f"{it['p50_ms']:.3f}", f"{it['p99_ms']:.3f}")
        for part in results["store"]["parts"]
        for it in part["disk"]
    ]
    return table(("then fdatasync", "in the run of logs", "a second", "p50, ms", "p99, ms"), rows)


def durable_table(results: dict[str, Any]) -> str:
    head = (
        "strict",
        "logs",
        "in flight",
        "charges/s",
        "folded too",
        "p50, ms",
        "p99, ms",
        "a commit",
        "of fdatasync's rate",
    )
    rows = [
        [
            it["waiting"],
            part["logs"],
            it["in_flight"],
            *speeds(it),
            f"{it['decisions'] / it['commits']:,.1f}",
            spread(it),
        ]
        for part in results["store"]["parts"]
        for it in part["rows"]
        if it["mode"] == "strict"
    ]
    return table(head, rows)


def durable_cost_table(results: dict[str, Any]) -> str:
    """Processor time of a charge in every mode, and how many times that of keeping nothing."""
    parts = results["store"]["parts"]
    modes = list(dict.fromkeys(it["mode"] for it in parts[0]["rows"]))
    rows = []
    for part in parts:
        found = {(it["waiting"], it["mode"]): it["cpu_ns"] for it in part["rows"]}
        for waiting in dict.fromkeys(name for name, _ in found):
            rows.append([waiting, part["logs"], *(f"{found[waiting, mode]:,.0f}" for mode in modes)])
    return table(["CPU, ns a charge", "logs", *modes], rows)


def restart_table(results: dict[str, Any]) -> str:
    it = results["store"]["restart"]
    head = [
        "accounts",
        *(f"start, {words}" for words in CACHES.values()),
        "bytes each",
        "blobs alone",
        "ids alone",
        "ratio",
    ]
    each = [f"{it[key] / it['accounts']:.0f}" for key in ("file_bytes", "blob_bytes", "id_bytes")]
    starts = [start_of(it[cache]) for cache in CACHES]
    return table(head, [[f"{it['accounts']:,}", *starts, *each, f"{it['file_bytes'] / it['blob_bytes']:.2f}x"]])


def speeds(row: dict[str, Any]) -> list[str]:
    rates = [f"{row[key]:,.0f}" for key in ("rate", "settled_rate")]
    return rates + [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms")]
