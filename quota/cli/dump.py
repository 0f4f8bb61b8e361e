"""`quotad dump` and `quotad load`: accounts with what they have used, as JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quota.cli.connection import add_admin_server, control_client
from quota.cli.dump_file import DumpFile, line_of
from quota.cli.failure import Failure
from quota.cli.files import new_file, progress
from quota.cli.lines import report

DUMP = """Write all accounts of a running server with what they have used, one JSON object a line: subscription and own
limits, figures to read, and the server's own record, from which `quotad load` restores everything. Each account is as
of the moment it is read; the server goes on. Deleted accounts are left out, and catalogs are not in it: a backup has
both."""

LOAD = """Put the accounts of a file that `quotad dump` has written, in place of what they are now, with all that they had
used. Their catalogs must be there. Where a line's subscription differs from its record, because somebody has edited it, the
line holds; without a record the account is put as `accounts put` would, and keeps what it has used.
Bad lines are named by number on stderr, and the good ones are loaded; exit status 1 if there are bad ones."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    dump = commands.add_parser(
        "dump",
        help="write accounts with what they have used, as JSON lines",
        description=DUMP,
        epilog="example: quotad dump accounts.jsonl",
    )
    dump.add_argument("file", metavar="FILE.jsonl", type=Path, help="- for stdout")
    dump.add_argument("--replace", action="store_true", help="overwrite a file that is there")
    dump.set_defaults(run=_dump)
    load = commands.add_parser("load", help="put the accounts of a dump", description=LOAD)
    load.add_argument("file", metavar="FILE.jsonl", type=Path)
    load.add_argument("--json", action="store_true", help="print the answer as JSON")
    load.set_defaults(run=_load)
    for parser in (dump, load):
        add_admin_server(parser)


def _dump(arguments: argparse.Namespace) -> int:
    count = 0
    with (
        control_client(arguments) as client,
        _output(arguments.file, replace=arguments.replace) as file,
        progress() as bar,
    ):
        task = bar.add_task(arguments.file.name, total=None)
        for part in client.dump_accounts():
            for record in part.accounts:
                file.write(line_of(record).encode() + b"\n")
            count += len(part.accounts)
            bar.update(task, completed=count, total=part.accounts_total)
    print(f"{count} accounts dumped", file=sys.stderr)
    return 0


@contextmanager
def _output(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    with new_file(path, replace=replace) as file:
        yield file


def _load(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    try:
        with path.open("rb") as opened, progress() as bar, control_client(arguments) as client:
            file = DumpFile(bar.wrap_file(opened, total=path.stat().st_size, description=path.name))
            response = client.load_accounts(file)
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}") from error
    return report(path, file, response, as_json=arguments.json)
