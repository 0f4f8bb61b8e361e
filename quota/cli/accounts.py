"""`quotad accounts`: put, get, list, adjust, delete, import."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from rich.console import Console

from quota.cli import show, values
from quota.cli.accounts_file import COLUMNS, AccountsFile, overrides_cell
from quota.cli.connection import add_admin_server, control_client
from quota.cli.failure import Failure
from quota.cli.files import progress
from quota.cli.lines import report
from quota.cli.usage import limits_table
from quota.types import PERIODS
from quota.v1 import admin_pb2

IMPORT = f"""Put the accounts of a CSV file. The first line names the columns:
{", ".join(COLUMNS)}.
id and plan are needed; what is left out or empty means the same as with `accounts put`. Moments are
{values.WHEN}.
A cell of overrides reads `prompts-5h=200;calls=8`.
Bad lines are named by number on stderr, and the good ones are loaded; exit status 1 if there are bad ones.
`quotad accounts list` writes such a file."""

ADJUST = """Give an account back what it has used, or take from it, at once: on every limit of a pool, or on one limit. What is
taken may go past a limit; given back is the latest use first, at most what counts now, and nothing to a burst. Each call
moves anew. The audit log has it with the reason."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    accounts = commands.add_parser("accounts", help="put, get, list, adjust, delete, import accounts")
    actions = accounts.add_subparsers(title="commands", metavar="COMMAND", required=True)

    put = actions.add_parser(
        "put",
        help="create or change an account",
        description="Create or change an account, at once; what was drawn stays drawn. "
        "What is not given takes its default.",
        epilog="example: quotad accounts put ada --plan pro --override prompts-5h=200",
    )
    put.add_argument("id", metavar="ACCOUNT")
    put.add_argument("--plan", required=True)
    put.add_argument("--catalog", default="", help="default: the server's catalog_default")
    put.add_argument(
        "--subscribed-at",
        metavar="WHEN",
        type=values.moment,
        default=0,
        help=f"{values.WHEN}; default: now, or unchanged",
    )
    put.add_argument("--period", choices=PERIODS, default=PERIODS[0], help=f"default: {PERIODS[0]}")
    put.add_argument("--expires-at", metavar="WHEN", type=values.moment, default=0, help="likewise; default: no end")
    put.add_argument(
        "--override",
        metavar="LIMIT=UNITS",
        type=values.override,
        action="append",
        default=[],
        help="a limit, burst or concurrency limit of its own, in place of the plan's; 0 blocks; may be repeated "
        "(default: none, also those it had)",
    )
    put.set_defaults(run=_put)

    get = actions.add_parser("get", help="show an account")
    get.add_argument("id", metavar="ACCOUNT")
    get.set_defaults(run=_get)

    listing = actions.add_parser(
        "list", help="list all accounts", description="List all accounts, as CSV or JSON lines."
    )
    listing.set_defaults(run=_list)

    _add_adjust(actions)

    delete = actions.add_parser("delete", help="remove an account")
    delete.add_argument("id", metavar="ACCOUNT")
    delete.add_argument("--purge", action="store_true", help="forget at once what was drawn")
    delete.set_defaults(run=_delete)

    loading = actions.add_parser(
        "import",
        help="put the accounts of a CSV file",
        description=IMPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    loading.add_argument("file", metavar="FILE.csv", type=Path)
    loading.set_defaults(run=_import)

    for parser in (put, get, listing, loading):
        parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    for parser in (put, get, listing, delete, loading):
        add_admin_server(parser)


def _add_adjust(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    adjust = actions.add_parser(
        "adjust",
        help="give back what was used, or take",
        description=ADJUST,
        epilog="example: quotad accounts adjust ada --pool prompts --give-back 5 --reason outage",
    )
    adjust.add_argument("id", metavar="ACCOUNT")
    target = adjust.add_mutually_exclusive_group(required=True)
    target.add_argument("--pool", default="", help="every limit of this pool of the plan")
    target.add_argument("--limit", default="", help="this limit alone")
    amount = adjust.add_mutually_exclusive_group(required=True)
    amount.add_argument("--give-back", metavar="UNITS", type=values.units, help="such as 5 or 0.25")
    amount.add_argument("--take", metavar="UNITS", type=values.units, help="likewise")
    adjust.add_argument("--reason", metavar="TEXT", required=True, help="for whoever asks later")
    adjust.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_admin_server(adjust)
    adjust.set_defaults(run=_adjust)


def _put(arguments: argparse.Namespace) -> int:
    account = admin_pb2.Account(
        id=arguments.id,
        catalog=arguments.catalog,
        plan=arguments.plan,
        subscribed_at_ms=arguments.subscribed_at,
        period=arguments.period,
        expires_at_ms=arguments.expires_at,
        overrides=arguments.override,
    )
    with control_client(arguments) as client:
        _print_account(client.put_account(account), as_json=arguments.json)
    return 0


def _get(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        _print_account(client.get_account(arguments.id), as_json=arguments.json)
    return 0


def _print_account(account: admin_pb2.Account, *, as_json: bool) -> None:
    if as_json:
        print(show.as_json(account))
        return
    end = f"expires {show.moment(account.expires_at_ms)}" if account.expires_at_ms else "without an end"
    print(
        f"{account.id}: plan {account.plan} of {account.catalog}, by the {account.period}, "
        f"subscribed {show.moment(account.subscribed_at_ms)}, {end}"
        + (f", overrides {overrides_cell(account)}" if account.overrides else "")
    )


def _list(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        if arguments.json:
            for account in client.list_accounts():
                print(show.as_json(account))
            return 0
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("id", "catalog", "plan", "subscribed_at", "period", "expires_at", "overrides"))
        for account in client.list_accounts():
            expires_at = show.moment_iso(account.expires_at_ms) if account.expires_at_ms else ""
            subscribed_at = show.moment_iso(account.subscribed_at_ms)
            subscription = (account.id, account.catalog, account.plan, subscribed_at, account.period, expires_at)
            writer.writerow((*subscription, overrides_cell(account)))
    return 0


def _adjust(arguments: argparse.Namespace) -> int:
    micro = arguments.take or -arguments.give_back
    with control_client(arguments) as client:
        response = client.adjust_usage(
            arguments.id, pool=arguments.pool, limit_id=arguments.limit, micro=micro, reason=arguments.reason
        )
    if arguments.json:
        print(show.as_json(response))
        return 0
    verb = "taken" if arguments.take else "given back"
    moved = (f"{movement.limit_id} {show.units(abs(movement.micro))} {verb}" for movement in response.moved)
    print(", ".join(moved) or "nothing moved")
    if response.limits:
        Console().print(limits_table(response.limits))
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        client.delete_account(arguments.id, purge=arguments.purge)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    try:
        with path.open("rb") as opened, progress() as bar, control_client(arguments) as client:
            file = AccountsFile(bar.wrap_file(opened, total=path.stat().st_size, description=path.name))
            response = client.import_accounts(file)
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}") from error
    return report(path, file, response, as_json=arguments.json)
