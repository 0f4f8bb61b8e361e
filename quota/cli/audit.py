"""`quotad audit`: what was changed through the control port."""

from __future__ import annotations

import argparse
from itertools import islice

from quota.cli import show
from quota.cli.connection import add_admin_server, control_client

DESCRIPTION = """List what was changed through the control port, the latest first: when, by whom, which method, and what
was asked for or came of it as JSON."""

COUNT_DEFAULT = 50
PAGE_MAX = 1_000


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "audit",
        help="list what was changed through the control port",
        description=DESCRIPTION,
        epilog="example: quotad audit -n 10",
    )
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument("-n", dest="count", metavar="N", type=int, default=COUNT_DEFAULT, help="default: %(default)s")
    how_many.add_argument("--all", action="store_true", help="back to the first")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_admin_server(parser)
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    count = None if arguments.all else max(arguments.count, 0)
    with control_client(arguments) as client:
        for entry in islice(client.list_audit(PAGE_MAX if count is None else min(count, PAGE_MAX)), count):
            if arguments.json:
                print(show.as_json(entry))
            else:
                print(f"{entry.number} {show.moment(entry.at_ms)} {entry.who} {entry.what} {entry.details}")
    return 0
