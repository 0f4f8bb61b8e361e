"""`quotad repair`: a damaged store, without its server, made one that starts again."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from quota.catalog import SHIPPED, load
from quota.engine import Engine
from quota.store.repair import repair

DESCRIPTION = """Set aside what is damaged in a server's store, and keep the rest. The server must not be running. What is
damaged goes into a report in the directory, one JSON object a line, and the old file stays under another name. Where an
account's latest state is damaged, the one before it holds, and what was used in between is given back.
Exit status 0 also where something was damaged."""

TOLD_MAX = 20


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "repair",
        help="set aside what is damaged in a store, keep the rest",
        description=DESCRIPTION,
        epilog="example: quotad repair /var/lib/quotad",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument(
        "--catalogs",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="a catalog file of the server's, or a directory of them; may be repeated. Without it the accounts on it are "
        "kept all the same",
    )
    parser.set_defaults(run=_repair)


def _repair(arguments: argparse.Namespace) -> int:
    engine = Engine(_catalogs(arguments.catalogs))
    when = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    done = repair(arguments.directory, engine.load_catalog, engine.ledger.decode, when)
    for finding in done.findings[:TOLD_MAX]:
        print(f"{finding.table} {finding.key}: {finding.reason}")
    if len(done.findings) > TOLD_MAX:
        print(f"and {len(done.findings) - TOLD_MAX} more")
    for unknown in sorted(done.unknown):
        print(f"{unknown}: its accounts are kept")
    print(f"{arguments.directory}: {done.accounts_count} accounts; ", end="")
    print(f"{len(done.findings)} damaged, told in {done.report}; the old file is now {done.old}" if done.findings else
          "nothing is damaged")  # fmt: skip
    return 0


def _catalogs(paths: list[Path]) -> list[str | Path]:
    files = [file for path in paths for file in (sorted(path.glob("*.y*ml")) if path.is_dir() else [path])]
    names = {load(file).name for file in files}
    return [*(name for name in SHIPPED if name not in names), *files]
