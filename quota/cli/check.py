"""`quotad check`: catalogs and configuration files, without a server."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from quota.catalog import compile_catalog, load
from quota.errors import CatalogError
from quota.settings import check_file


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="check catalogs and configuration files",
        description="Check files as `serve` would. One with a key `catalog` is a catalog, any other a configuration.",
        epilog="Prints FILE:LINE and what is allowed for every problem; exit status 1 if there is any.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    problems_count = 0
    for file in arguments.files:
        problems = _check_catalog(file) if _is_catalog(file) else _check_configuration(file)
        problems_count += len(problems)
        for problem in problems:
            print(problem)
    return 1 if problems_count else 0


def _is_catalog(file: str) -> bool:
    """Look for the key by its text, so that a file which is no YAML is still checked as what it means to be."""
    try:
        text = Path(file).read_bytes()
    except OSError:
        return False
    return re.search(rb"^[\"']?catalog[\"']?[ \t]*:", text, re.MULTILINE) is not None


def _check_catalog(file: str) -> list[str]:
    try:
        catalog = load(Path(file))
        compile_catalog(catalog)
    except CatalogError as error:
        return error.problems
    for warning in catalog.warnings:
        print(f"{warning} (a warning)")
    print(f"{file}: catalog {catalog.name}, plans {', '.join(plan.name for plan in catalog.plans)}: good")
    return []


def _check_configuration(file: str) -> list[str]:
    problems = check_file(file)
    if not problems:
        print(f"{file}: configuration: good")
    return problems
