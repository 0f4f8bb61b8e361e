"""`quotad capacity`: how much of their concurrency accounts may have."""

from __future__ import annotations

import argparse
import functools

from quota.cli import show, values
from quota.cli.connection import add_admin_server, control_client

DESCRIPTION = """Show what part of their concurrency limits all accounts may have, or set it where the platform is short.
Limits are multiplied by it and rounded down, but 1 remains of each. It holds at once, for new holds, until it is set
anew. What it refuses is OVERLOADED, what the plan refuses CONCURRENCY."""

EXAMPLES = """examples:
  quotad capacity
  quotad capacity set 0.5
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "capacity",
        help="show or set the part of their concurrency that accounts may have",
        usage="quotad capacity [-h] [--json] [--admin-server HOST:PORT] [show | set FACTOR]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=("show", "set"), default="show", help="default: show")
    parser.add_argument("factor", metavar="FACTOR", nargs="?", type=values.factor, help="0 to 1, such as 0.8")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_admin_server(parser)
    parser.set_defaults(run=functools.partial(_capacity, parser))


def _capacity(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.action == "set" and arguments.factor is None:
        parser.error("set needs a FACTOR, such as 0.8")
    if arguments.action == "show" and arguments.factor is not None:
        parser.error("show takes no FACTOR")
    with control_client(arguments) as client:
        state = client.get_capacity() if arguments.action == "show" else client.set_capacity(arguments.factor)
    if arguments.json:
        print(show.as_json(state))
    else:
        print(f"capacity factor {show.units(state.factor_micro)}")
    return 0
