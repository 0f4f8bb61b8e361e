"""Where a client command finds its server."""

from __future__ import annotations

import argparse
import os

from quota.client import ADMIN_SERVER, SERVER


def add_server(parser: argparse.ArgumentParser) -> None:
    """Let a command of the data port be told where that is."""
    _add(parser, "--server", "QUOTAD_SERVER", SERVER, "data port")


def add_admin_server(parser: argparse.ArgumentParser) -> None:
    """Let a command of the control port be told where that is."""
    _add(parser, "--admin-server", "QUOTAD_ADMIN_SERVER", ADMIN_SERVER, "control port")


def _add(parser: argparse.ArgumentParser, flag: str, variable: str, default: str, port: str) -> None:
    parser.add_argument(
        flag,
        dest="address",
        metavar="HOST:PORT",
        default=os.environ.get(variable) or default,
        help=f"the server's {port} (default ${variable}, else {default})",
    )
    parser.set_defaults(address_from=f"{flag} or ${variable}")
