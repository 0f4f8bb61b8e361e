"""`quotad catalogs`: list, load, check, on a running server."""

from __future__ import annotations

import argparse
from pathlib import Path

from quota.cli import show
from quota.cli.connection import add_admin_server, control_client
from quota.cli.failure import Failure
from quota.client import AdminClient


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    catalogs = commands.add_parser("catalogs", help="list, load, check catalogs of a running server")
    actions = catalogs.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = actions.add_parser("list", help="list the catalogs that decide")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    listing.set_defaults(run=_list)
    loading = actions.add_parser(
        "load",
        help="let a catalog decide from now on",
        description="Check a catalog and let it decide from now on. With any error the old one goes on deciding.",
    )
    checking = actions.add_parser("check", help="say what load would find; changes nothing")
    for parser, run in ((loading, _load), (checking, _check)):
        parser.add_argument("file", metavar="FILE.yaml", type=Path)
        parser.set_defaults(run=run)
    for parser in (listing, loading, checking):
        add_admin_server(parser)


def _list(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        for catalog in client.list_catalogs():
            if arguments.json:
                print(show.as_json(catalog))
                continue
            owner = "shipped or from a file" if catalog.from_file else "loaded by command"
            print(
                f"{catalog.name} {catalog.version}: plans {', '.join(catalog.plans)}; {catalog.accounts} accounts; "
                f"{owner} {show.moment(catalog.loaded_at_ms)}"
            )
    return 0


def _load(arguments: argparse.Namespace) -> int:
    yaml = _read(arguments.file)
    with control_client(arguments) as client:
        if _report(client, arguments.file, yaml):
            return 1
        catalog = client.load_catalog(yaml).catalog
    print(f"{catalog.name} decides, version {catalog.version}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    with control_client(arguments) as client:
        if _report(client, arguments.file, _read(arguments.file)):
            return 1
    print(f"{arguments.file}: good")
    return 0


def _report(client: AdminClient, file: Path, yaml: str) -> bool:
    """Print what the server finds in the text, under the file's name. Return whether it would be refused."""
    found = client.check_catalog(yaml)
    for problem in found.problems:
        print(problem.replace("<yaml>", str(file), 1))
    for warning in found.warnings:
        print(f"{warning.replace('<yaml>', str(file), 1)} (a warning)")
    return bool(found.problems)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Failure(f"{file}: not UTF-8") from None
