"""What a call costs from end to end: our server, native and on grpcio, beside the floor and the rivals on the PATH.

    make bench-front, or: python benchmarks/front.py [--turns 3] [--seconds 2] [--json FILE]

Each server has one core, the generator another. In every turn each cell (a server, what it is asked, how) is measured once, all in
a row, while the other servers stand still; figures are medians of the turns, ratios are taken within a turn. Every status of every
answer is checked, and that nearly all answers allow. CPU time is that of the server's whole process, all threads, Redis included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import front_page
import machine
import rivals
from asked import BATCHES, POPULATIONS, Ask, asks
from generator import CORES, Generator, compile_into, make_certificate
from served import Quotad, Served
from workload import ALLOWED_SHARE_MIN, WorkloadError

SHAPES = ((1, 1), (8, 4), (16, 100))  # connections, streams of each
RATES = {"floor": (1_000, 10_000, 100_000), "native": (1_000, 10_000, 50_000, 100_000), "grpcio": (500, 1_000, 2_000)}
RATE_SHAPE = (8, 100)  # an open loop wants more streams than are ever used
FRONTS = ("native", "grpcio")
FAULTLESS = ("floor", "native")  # of the others the page says how many calls failed: grpcio turns away some of 16x100
IMPORT_ACCOUNTS = 5_000  # in one import of those that disturb
SOAK_CALLS = 10_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure: `part` of the page, the server's name, what it is asked, and how."""

    part: str
    server: str
    ask: str
    connections: int
    streams: int
    rate: float = 0
    disturbed: bool = False


def cells_of(only: list[str], parts: list[str]) -> list[Cell]:
    """The cells of these servers and parts; none named are all."""
    found = [Cell("calls", "floor", "five", *shape) for shape in SHAPES]
    for front in FRONTS:
        found += [Cell("calls", front, ask, *shape) for ask in ("one", "five", "five, id") for shape in SHAPES]
    for name, (ask, _) in rivals.RIVALS.items():
        found += [Cell("calls", name, ask, *shape) for shape in SHAPES]
    found += [Cell("tls", f"{name} TLS", "five", *shape) for name in ("floor", *FRONTS) for shape in SHAPES]
    found += [Cell("strict", f"{front} strict", "five", *shape) for front in FRONTS for shape in SHAPES]
    for front in FRONTS:
        found += [Cell("batch", front, f"batch {size}", *SHAPES[1]) for size in BATCHES]
    for name, rates in RATES.items():
        found += [Cell("rate", name, "five", *RATE_SHAPE, rate=rate) for rate in rates]
    found += [Cell("disturbed", "native", "five", *SHAPES[1], disturbed=True)]
    found += [Cell("disturbed", "native", "five", *RATE_SHAPE, rate=10_000, disturbed=True)]
    return [
        cell for cell in found if (not only or cell.server.split()[0] in only) and (not parts or cell.part in parts)
    ]


# ---- Servers ----


def start_servers(names: Iterable[str], directory: Path) -> list[Served]:
    """Start those that are there, each left at a standstill. Says what is skipped."""
    tls = make_certificate(directory)
    found: list[Served] = []
    try:
        for name in names:
            if name.endswith("TLS") and not tls:
                print(f"{name}: skipped, there is no openssl command")
            elif name in rivals.RIVALS and rivals.missing(name):
                print(f"{name}: skipped, not on the PATH: {', '.join(rivals.missing(name))}")
            else:
                print(f"starting {name}", flush=True)
                found.append(start(name, directory))
                found[-1].pause()
    except BaseException:
        close(found)
        raise
    return found


def start(name: str, directory: Path) -> Served:
    """Start the server of that name, such as `native`, `native strict`, `floor TLS` or `limitador`."""
    server, _, kind = name.partition(" ")
    if name in rivals.RIVALS:
        return rivals.start(name, directory)
    if server == "floor":
        return start_floor(name, directory)
    populations = ("five",) if kind else tuple(POPULATIONS)
    return Quotad(name, directory, front=server, strict=kind == "strict", tls=kind == "TLS", populations=populations)


def start_floor(name: str, directory: Path) -> Served:
    served = Served(name, directory, tls=name.endswith("TLS"))
    keys = ["--cert", str(directory / "cert.pem"), "--key", str(directory / "key.pem")] if served.tls else []
    served.start([str(directory / "floor"), str(served.port), *keys])
    return served


def close(servers: list[Served]) -> None:
    for served in servers:
        served.close()


# ---- Measuring ----


@contextlib.contextmanager
def disturbing(served: Quotad) -> Iterator[dict[str, int]]:
    """A scrape every second and imports one after the other, meanwhile; counts both."""
    ended = threading.Event()
    counts = {"scrapes": 0, "imported": 0}

    def scrape() -> None:
        while not ended.is_set():
            served.scrape()
            counts["scrapes"] += 1
            ended.wait(1)

    def import_() -> None:
        while not ended.is_set():
            served.import_accounts("imported.", IMPORT_ACCOUNTS, "five")
            counts["imported"] += IMPORT_ACCOUNTS

    threads = [threading.Thread(target=work) for work in (scrape, import_)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def measure(cell: Cell, served: Served, ask: Ask, generator: Generator, seconds: float) -> dict[str, Any]:
    """One figure. Raises WorkloadError unless nearly all answers allow, and if a call fails where none may."""
    meanwhile = disturbing(served) if cell.disturbed and isinstance(served, Quotad) else contextlib.nullcontext({})
    with served.awake(), meanwhile as counts:
        figure = generator.run(
            ask, served.port, served.pids, connections=cell.connections, streams=cell.streams, seconds=seconds,
            rate=cell.rate, tls=served.tls,
        )  # fmt: skip
    if figure["failed"] and cell.server.split()[0] in FAULTLESS:
        raise WorkloadError(f"{cell}: {figure['failed']} calls failed: {figure['why']}")
    if figure["wanted"] < ALLOWED_SHARE_MIN * figure["calls"] or not figure["calls"]:
        raise WorkloadError(f"{cell}: of {figure['calls']} answers {figure['wanted']} allowed")
    return figure | dict(counts)


def measure_all(
    cells: list[Cell], servers: list[Served], generator: Generator, turns: int, seconds: float
) -> list[Any]:
    """Every cell once a turn. Returns the rows: a cell with its figures and their medians."""
    by_name, kinds = {served.name: served for served in servers}, asks()
    figures: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in cells}
    for turn in range(turns):
        for cell in cells:
            figures[cell].append(measure(cell, by_name[cell.server], kinds[cell.ask], generator, seconds))
            show(turn, cell, figures[cell][-1])
    for served in servers:
        if isinstance(served, Quotad):
            with served.awake():
                served.verify()
    return [row_of(cell, kinds[cell.ask].items, figures[cell]) for cell in cells]


def row_of(cell: Cell, items: int, figures: list[dict[str, Any]]) -> dict[str, Any]:
    row = {key: getattr(cell, key) for key in Cell.__dataclass_fields__} | {"items": items}
    keys = [key for key, value in figures[0].items() if isinstance(value, int | float)]
    row["median"] = {key: round(statistics.median(figure[key] for figure in figures), 4) for key in keys}
    row["turns"] = [{key: figure[key] for key in ("rate", "cpu_us", "cpu_share", "own_share")} for figure in figures]
    return row


def show(turn: int, cell: Cell, figure: dict[str, Any]) -> None:
    how = f"{cell.connections}x{cell.streams}" + (f" at {cell.rate:,.0f}/s" if cell.rate else "")
    print(
        f"{turn + 1} {cell.part:10}{cell.server:16}{cell.ask:11}{how:18}{figure['rate']:12,.0f}/s {figure['cpu_us']:9.2f} us CPU  "
        f"p50 {figure['p50_us']:9,.1f}  p99 {figure['p99_us']:9,.1f} us   cores {figure['cpu_share']:.2f}, {figure['own_share']:.2f}"
        + (f"   {figure['failed']} failed: {figure['why']}" if figure["failed"] else ""),
        flush=True,
    )


def soak(served: Served, generator: Generator, calls: int) -> dict[str, Any]:
    """Resident memory before and after so many calls; a tenth as many go before, so that everything is in place."""
    ask, shape = asks()["five"], dict(zip(("connections", "streams"), SHAPES[2], strict=True))
    found: dict[str, Any] = {"calls": 0}
    with served.awake():
        first = generator.run(ask, served.port, served.pids, seconds=2, **shape)
        generator.run(ask, served.port, served.pids, seconds=max(0.1, calls / 10 / first["rate"]), **shape)
        found["rss_before_bytes"] = served.rss_bytes
        while found["calls"] < calls:
            figure = generator.run(ask, served.port, served.pids, seconds=min(10, calls / first["rate"]), **shape)
            found["calls"] += figure["calls"]
            if figure["failed"]:
                raise WorkloadError(f"{figure['failed']} calls failed: {figure['why']}")
        found["rss_after_bytes"] = served.rss_bytes
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="Of one measurement; a quarter more goes before.")
    parser.add_argument("--only", nargs="+", default=[], help="Servers: floor, native, grpcio, limitador, ...")
    parser.add_argument("--parts", nargs="+", default=[], help="Parts of the page: calls, tls, batch, rate, ...")
    parser.add_argument("--soak-calls", type=int, default=SOAK_CALLS, help="While which memory is watched; 0: none.")
    parser.add_argument("--directory", type=Path, default=machine.ROOT / ".benchmarks", help="On the disk to measure.")
    options = parser.parse_args()
    options.directory.mkdir(exist_ok=True)
    machine.announce()
    if len(CORES) == 1:
        print("There is one core: server and generator share it, and these figures say little.")
    others = machine.Others()
    with tempfile.TemporaryDirectory(prefix="front-", dir=options.directory) as name:
        directory = Path(name)
        compile_into(directory)
        cells = cells_of(options.only, options.parts)
        servers = start_servers(dict.fromkeys(cell.server for cell in cells), directory)
        try:
            generator, names = Generator(directory), [served.name for served in servers]
            cells = [cell for cell in cells if cell.server in names]
            results: dict[str, Any] = {"described": machine.describe() | front_page.versions(names)}
            results["rows"] = measure_all(cells, servers, generator, options.turns, options.seconds)
            if options.soak_calls and "native" in names:
                results["soak"] = soak(servers[names.index("native")], generator, options.soak_calls)
        finally:
            close(servers)
    results |= {"seconds": options.seconds, "turns": options.turns, "others_share": others.share()}
    print("\n" + front_page.summary(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
