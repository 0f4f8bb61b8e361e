"""Where a client command finds its server, and what it shows there."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from quota.cli.failure import Failure
from quota.client import ADMIN_SERVER, SERVER, AdminClient, QuotaClient, Secrets

FILES: Final = (
    ("--token-file", "QUOTAD_TOKEN_FILE", "file with the token that the server asks for, alone in it"),
    ("--ca", "QUOTAD_CA", "certificates, PEM, that may have signed the server's; with it, TLS is spoken"),
    ("--cert", "QUOTAD_CERT", "our certificate, PEM, for a server that asks for one; with it, TLS is spoken"),
    ("--key", "QUOTAD_KEY", "its key, PEM"),
)


def add_server(parser: argparse.ArgumentParser) -> None:
    """Let a command of the data port be told where that is."""
    _add(parser, "--server", "QUOTAD_SERVER", SERVER, "data port")


def add_admin_server(parser: argparse.ArgumentParser) -> None:
    """Let a command of the control port be told where that is."""
    _add(parser, "--admin-server", "QUOTAD_ADMIN_SERVER", ADMIN_SERVER, "control port")


def data_client(arguments: argparse.Namespace) -> QuotaClient:
    """Return a client of the data port that a command was told of. Raises Failure."""
    return QuotaClient(arguments.address, secrets=_secrets(arguments))


def control_client(arguments: argparse.Namespace) -> AdminClient:
    """Return a client of the control port that a command was told of. Raises Failure."""
    return AdminClient(arguments.address, secrets=_secrets(arguments))


def _add(parser: argparse.ArgumentParser, flag: str, variable: str, default: str, port: str) -> None:
    parser.add_argument(
        flag,
        dest="address",
        metavar="HOST:PORT",
        default=os.environ.get(variable) or default,
        help=f"the server's {port} (default ${variable}, else {default})",
    )
    parser.set_defaults(address_from=f"{flag} or ${variable}")
    secured = parser.add_argument_group("what the server asks for")
    secured.add_argument(
        "--tls",
        action="store_true",
        default=os.environ.get("QUOTAD_TLS", "").lower() in ("1", "true", "yes"),
        help="speak TLS, and trust whom the system trusts (default $QUOTAD_TLS)",
    )
    for name, named_by, meaning in FILES:
        secured.add_argument(
            name, metavar="FILE", default=os.environ.get(named_by) or None, help=f"{meaning} (default ${named_by})"
        )


def _secrets(arguments: argparse.Namespace) -> Secrets:
    token = _read(arguments.token_file, "--token-file") or b""
    try:
        shown = token.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Failure(f"{arguments.token_file}: no token") from None
    cert, key = _read(arguments.cert, "--cert"), _read(arguments.key, "--key")
    if (cert is None) != (key is None):
        raise Failure("--cert and --key go together")
    return Secrets(token=shown, tls=arguments.tls, ca=_read(arguments.ca, "--ca"), cert=cert, key=key)


def _read(path: str | None, flag: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{flag} {path}: cannot be read: {error.strerror}") from error
