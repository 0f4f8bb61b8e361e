"""`quotad serve`: settings from everywhere, then the server until a signal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from quota import settings
from quota.server.config_file import ConfigFile
from quota.server.http import open_http
from quota.server.logs import write_logs
from quota.server.server import Addresses, Server, run
from quota.settings import SETTINGS, Configuration, Settings
from quota.store import StoreFailed
from quota.version import VERSION

DESCRIPTION = """Run the server until Ctrl-C or SIGTERM. SIGHUP has it read its files again, as it does when they change.

Each setting is taken from its flag, else from its variable QUOTAD_..., else from the file of --config (YAML, one
`key: value` a line), else from its default. Without any it runs: shipped catalogs, loopback."""

EXAMPLES = """examples:
  quotad serve --demo
  quotad serve --config quotad.yaml --print-config
  QUOTAD_PORT=0 QUOTAD_ADMIN_PORT=0 quotad serve --http-port 0
  quotad serve --catalogs /etc/quotad/catalogs --listen 0.0.0.0
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings in force, with the origin of each, and end"
    )
    for setting in SETTINGS:
        default = getattr(Settings(), setting.key)
        if isinstance(default, bool):
            parser.add_argument(setting.flag, action=argparse.BooleanOptionalAction, default=None, help=setting.help)
        elif isinstance(default, tuple):
            parser.add_argument(setting.flag, metavar="VALUE", action="append", help=setting.help + "; may be repeated")
        else:
            metavar = "N" if isinstance(default, int) else "VALUE"
            parser.add_argument(
                setting.flag, metavar=metavar, help=f"{setting.help} (default {'none' if default == '' else default})"
            )
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    flags = {setting.key: getattr(arguments, setting.key) for setting in SETTINGS}

    def load() -> Configuration:
        return settings.load(flags, os.environ, arguments.config)

    config_file = ConfigFile(Path(arguments.config), load, _take) if arguments.config else None
    configuration = load()
    if arguments.print_config:
        sys.stdout.write(settings.print_config(configuration))
        return 0
    chosen = configuration.settings
    _take(chosen)
    try:
        run(
            lambda stop: Server(chosen, http=open_http(chosen), config_file=config_file, on_failure=stop),
            _announce,
        )
    except StoreFailed as failure:
        print(f"quotad: {failure}", file=sys.stderr, flush=True)
        os._exit(1)  # an orderly end would close the file, and SQLite would write to it once more
    return 0


def _take(chosen: Settings) -> None:
    write_logs(chosen.log_level, chosen.log_format)


def _announce(addresses: Addresses) -> None:
    print(f"quotad {VERSION} data {addresses.data} control {addresses.control} http {addresses.http}", flush=True)
