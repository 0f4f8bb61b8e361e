"""`quotad usage`: an account's limits, and what it has in flight, as bars."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quota.cli import show
from quota.cli.connection import add_server, data_client
from quota.v1 import quota_pb2

BAR_CELLS: Final = 14  # so that the table fits 80 columns
HOLDS_SHOWN_MAX: Final = 20


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "usage",
        help="show an account's limits as bars",
        description="Show every limit of an account's plan: how much is used, and when it comes back, in local time; then "
        "the requests in flight.",
        epilog="example: quotad usage demo-lite",
    )
    parser.add_argument("account", metavar="ACCOUNT")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_server(parser)
    parser.set_defaults(run=_usage)


def _usage(arguments: argparse.Namespace) -> int:
    with data_client(arguments) as client:
        usage = client.usage(arguments.account)
    if arguments.json:
        print(show.as_json(usage))
        return 0
    console = Console()
    console.print(Text(f"{usage.account}: plan {usage.plan} of {usage.catalog.name}"))
    console.print(limits_table(usage.limits) if usage.limits else Text("The plan has no limits."))
    if usage.concurrency:
        console.print()
        console.print(_concurrency_table(usage.concurrency))
    if usage.holds:
        console.print()
        console.print(_holds_table(usage.holds[:HOLDS_SHOWN_MAX]))
    if len(usage.holds) > HOLDS_SHOWN_MAX:
        console.print(Text(f"and {len(usage.holds) - HOLDS_SHOWN_MAX} more (--json shows all)"))
    return 0


def limits_table(limits: Iterable[quota_pb2.LimitState]) -> Table:
    """Return a table of limits, each with a bar."""
    table = _table()
    for title in ("limit", "window"):
        table.add_column(title, no_wrap=True)
    table.add_column("used", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column(f"comes back ({show.zone()})", no_wrap=True)
    for limit in limits:
        table.add_row(
            Text(limit.id),
            Text(limit.window),
            _bar(limit.percent),
            Text(f"{limit.percent}%"),
            Text(f"{show.units(limit.used_micro)} of {show.units(limit.limit_micro)}"),
            Text(_comes_back(limit)),
        )
    return table


def _concurrency_table(states: Iterable[quota_pb2.ConcurrencyState]) -> Table:
    """Return a table of concurrency limits, each with a bar of the places taken."""
    table = _table()
    for title in ("concurrency", "in flight", "", ""):
        table.add_column(title, no_wrap=True)
    for state in states:
        percent = state.in_flight * 100 // state.limit if state.limit else 100
        count = Text(f"{state.in_flight} of {state.limit}")
        table.add_row(Text(state.id), _bar(percent), Text(f"{percent:3}%"), count)
    return table


def _holds_table(holds: Iterable[quota_pb2.OpenHold]) -> Table:
    """Return a table of requests in flight."""
    table = _table()
    table.add_column("hold", overflow="fold")
    for title in ("model", f"since ({show.zone()})", "closes by itself"):
        table.add_column(title, no_wrap=True)
    for hold in holds:
        times = (show.wall_time(ms) for ms in (hold.admitted_at_ms, hold.expires_at_ms))
        table.add_row(Text(hold.request_id), Text(hold.model), *map(Text, times))
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="bold")


def _bar(percent: int) -> Text:
    full = min(BAR_CELLS, percent * BAR_CELLS // 100)
    if percent > 0:
        full = max(1, full)  # what is used at all is seen
    style = "red" if percent >= 100 else "yellow" if percent >= 80 else "green"
    return Text("█" * full, style=style) + Text("░" * (BAR_CELLS - full), style="dim")


def _comes_back(limit: quota_pb2.LimitState) -> str:
    """Say when it comes back; where not all at once, also when all of it is back."""
    if not limit.HasField("resets_at_ms"):
        return "nothing drawn"
    lines = [show.from_now(limit.resets_at_ms), show.wall_time(limit.resets_at_ms)]
    if limit.HasField("full_at_ms") and limit.full_at_ms != limit.resets_at_ms:
        lines += [f"all {show.from_now(limit.full_at_ms)}", show.wall_time(limit.full_at_ms)]
    return "\n".join(lines)
