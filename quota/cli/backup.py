"""`quotad backup` and `quotad restore`: a copy of a running server's store, and a store made from one."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

from quota.cli.connection import add_admin_server, control_client
from quota.cli.failure import Failure
from quota.cli.files import new_file, progress
from quota.store.backup import check_store, restore_store

BACKUP = """Write a copy of a running server's store into a file: accounts with what they have used, catalogs, capacity and
audit log as of now, in one piece. The server goes on; everything acknowledged before the call is in it."""

RESTORE = """Make a backup the store of a directory, for a server that is then started on it. What was used since the backup
is not in it: those quotas are given back. With --replace a store that is there is put aside, under another name."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backup = commands.add_parser(
        "backup",
        help="copy a running server's store into a file",
        description=BACKUP,
        epilog="example: quotad backup quotad-2026-07-06.backup",
    )
    backup.add_argument("file", metavar="FILE", type=Path)
    backup.add_argument("--replace", action="store_true", help="overwrite a file that is there")
    add_admin_server(backup)
    backup.set_defaults(run=_backup)
    restore = commands.add_parser(
        "restore",
        help="make a backup the store of a directory",
        description=RESTORE,
        epilog="example: quotad restore quotad-2026-07-06.backup --data /var/lib/quotad",
    )
    restore.add_argument("file", metavar="FILE", type=Path)
    restore.add_argument("--data", metavar="DIR", type=Path, required=True, help="made if need be, else empty")
    restore.add_argument("--replace", action="store_true", help="put the store that is in DIR aside")
    restore.set_defaults(run=_restore)


def _backup(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    count = total = 0
    with control_client(arguments) as client, new_file(path, replace=arguments.replace) as file:
        with progress() as bar:
            copying, sending = bar.add_task("copying", total=100), bar.add_task(path.name, total=None)
            for part in client.backup():
                total = part.bytes_total
                count += file.write(part.data)
                bar.update(copying, completed=100 if total else part.copied_percent)
                bar.update(sending, completed=count, total=total or None)
        if count != total:
            raise Failure(f"{path}: {count} bytes came of {total}")
        file.flush()
        check_store(Path(file.name))
    print(f"{path}: {count} bytes")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    aside = f".before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    old = restore_store(arguments.file, arguments.data, replace=arguments.replace, aside=aside)
    print(f"{arguments.data}: restored" + (f"; the store that was there is now {old}" if old else ""))
    return 0
