"""What no compiler says about our own files."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted([*ROOT.glob("core/*.pxd"), *ROOT.glob("core/*.pyx")])
HEADERS = [path for path in CORE if path.suffix == ".pxd"]
OURS = [
    path
    for pattern in ("core/*.p*", "quota/**/*.py", "tests/**/*.py", "benchmarks/**/*.py", "proto/**/*.proto")
    for path in ROOT.glob(pattern)
    if path.name != "test_tidy.py" and ("v1" not in path.parts or path.suffix == ".proto")
]
C_STRING = re.compile(r'"""(?:.|\n)*?"""')
STRING = re.compile(r'"[^"\n]*"')
COMMENT = re.compile(r"#.*")


def code(path: Path) -> str:
    """The file without docstrings, verbatim C, strings and comments."""
    return COMMENT.sub("", STRING.sub('""', C_STRING.sub("", path.read_text())))


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_headers_divide_as_c_does(path):
    """A .pxd does not inherit cdivision: each says it in its first line."""
    assert path.read_text().startswith("# cython: cdivision=True\n")


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_never_divides_by_a_slash(path):
    """`/` on C integers is a division of doubles in Cython 3, and loses units."""
    assert [] == re.findall(r"[^/]/[^/]", code(path))


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_has_no_literal_that_becomes_a_python_object(path):
    """Literals past 31 bits belong into verbatim C, where they have a type."""
    numbers = re.findall(r"\b(0x[0-9a-fA-F]+|\d+)\b", code(path))

    assert [] == [number for number in numbers if int(number, 0) >= 2**31]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_reads_no_clock_file_or_environment(path):
    """Time is an argument, and so is everything else."""
    assert [] == re.findall(r"\b(time\(|clock_gettime|getenv|environ|fopen|open\()", code(path))


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_do(path):
    """No marker of unfinished work stands in a file."""
    assert [] == re.findall(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())


def test_changelog_is_on_top_of_the_version():
    """The newest entry of the changelog is unreleased work or the version that is installed."""
    first = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert first is not None
    assert first[1] in ("Unreleased", version("quotad"))
