"""`quotad check`: catalogs, configuration and Envoy's domains, without a server."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from quota.catalog import compile_catalog, load
from quota.errors import CatalogError
from quota.server.domains import read_domains
from quota.settings import check_file
from quota.yaml_file import YamlFileError


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="check catalogs, configuration files and Envoy's domains",
        description="Check files as `serve` would. One with a key `catalog` is a catalog, one with a key `domains` has Envoy's "
        "domains, any other is a configuration.",
        epilog="Prints FILE:LINE and what is allowed for every problem; exit status 1 if there is any.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    problems_count = 0
    for file in arguments.files:
        problems = _check_file(file)
        problems_count += len(problems)
        for problem in problems:
            print(problem)
    return 1 if problems_count else 0


def _check_file(file: str) -> list[str]:
    """Look for keys by their text, so that a file which is no YAML is still checked as what it means to be."""
    try:
        text = Path(file).read_bytes()
    except OSError:
        text = b""
    found = re.search(rb"^[\"']?(catalog|domains)[\"']?[ \t]*:", text, re.MULTILINE)
    if found is None:
        return _check_configuration(file)
    return _check_catalog(file) if found[1] == b"catalog" else _check_domains(file)


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


def _check_domains(file: str) -> list[str]:
    try:
        domains = read_domains(Path(file))
    except YamlFileError as error:
        return [str(error)]
    print(f"{file}: domains {', '.join(domain.name for domain in domains)}: good")
    return []


def _check_configuration(file: str) -> list[str]:
    problems = check_file(file)
    if not problems:
        print(f"{file}: configuration: good")
    return problems
