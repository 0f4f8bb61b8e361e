"""Texts that are no catalog at all, and catalogs past their bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quota.catalog import compile_catalog, load, parse
from quota.errors import CatalogError

CATALOGS = Path(__file__).parent / "catalogs"
ONE_PLAN = "catalog: t\nmeters: {m: {pool: p}}\nplans: {one: {pools: {p: []}}}\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse(text, "own.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "own.yaml:1: the file is empty"),
        ("# nothing\n", "own.yaml:1: the file is empty"),
        ("[]", "own.yaml:1: a list where a mapping belongs"),
        ("catalog: t\nmeters: [", "own.yaml:2: not YAML: while parsing a flow node"),
        ("a: 1\n---\nb: 2\n", "own.yaml:2: not YAML: expected a single document"),
        ("a: 1\nb: \x01", "own.yaml:2: not YAML: the character U+0001"),
        ("a: *nowhere", "own.yaml:1: not YAML: found undefined alias 'nowhere'"),
        ("a: " + "[" * 5000, "own.yaml:1: nested too deeply"),
        ("a: " + "x" * (1 << 18), "own.yaml:1: the file has 262147 bytes; allowed: at most 262144"),
    ],
    ids=range(9),
)
def test_no_catalog_at_all(text: str, expected: str) -> None:
    """A text that is no YAML mapping is refused with the line at fault."""
    assert problems_of(text)[0].startswith(expected)


def test_anchors() -> None:
    """A part of the file may be used again, and an anchor set anew; one that holds itself ends as a wrong type."""
    shared = "[&a {id: l, window: {cycle: 5h}, limit: 1}]}}, two: {pools: {p: [*a]}}, three: {pools: {p: [&a []]}}}"
    found = problems_of(ONE_PLAN.replace("[]}}}", shared))

    assert ["own.yaml:3: plans.three.pools.p[0]: a list where a mapping belongs"] == [
        problem.partition(";")[0] for problem in found
    ]
    assert (
        "own.yaml:3: plans.one.pools.p[0]: a list where a mapping" in problems_of(ONE_PLAN.replace("[]", "&x [*x]"))[0]
    )


def test_problems_are_bounded() -> None:
    """A file that is wrong all over is given up after a hundred problems."""
    found = problems_of(ONE_PLAN + "".join(f"key-{number}: 1\n" for number in range(500)))

    assert 101 == len(found)
    assert "own.yaml:103: too many problems; only the first 100 are given" == found[-1]


BOUNDS = [
    ("meters", 65, "{", "a%d: {pool: p}", "}", 64),
    ("models", 4097, "{", "a%d: {}", "}", 4096),
    ("schedules", 257, "{", "a%d: [{daily: '1:00-2:00'}]", "}", 256),
    ("tools", 257, "[", "a%d", "]", 256),
    ("endpoints", 65, "[", "/a%d", "]", 64),
    ("plans", 65, "{", "a%d: {pools: {}}", "}", 64),
]


@pytest.mark.parametrize(("key", "count", "first", "entry", "last", "most"), BOUNDS, ids=[bound[0] for bound in BOUNDS])
def test_bounds(key: str, count: int, first: str, entry: str, last: str, most: int) -> None:
    """Every part of a catalog has a bound, and the error names it."""
    parts = {"meters": "{a1: {pool: p}}", "plans": "{one: {pools: {}}}", "default_meter": "a1"}
    parts[key] = first + ", ".join(entry % number for number in range(count)) + last

    found = problems_of("catalog: t\n" + "".join(f"{name}: {value}\n" for name, value in parts.items()))

    assert [f"{key}: {count} entries are too many; allowed: at most {most}"] == [
        problem.partition(": ")[2] for problem in found
    ]


def test_bounds_within_a_plan() -> None:
    """A plan holds at most 64 limits over all its pools and bursts; a catalog has at most 32 pools."""
    limits = ", ".join(f"{{id: l{number}, window: {{cycle: 5h}}, limit: 1}}" for number in range(64))
    pace = "{id: pace, pool: p, rate: 1/1s, depth: 1}"
    pools = ", ".join(f"p{number}" for number in range(32))

    assert ["own.yaml:3: plans.one: 65 limits and bursts; allowed: at most 64 in a plan"] == problems_of(
        ONE_PLAN.replace("{p: []}", f"{{p: [{limits}]}}, burst: {pace}")
    )
    assert ["own.yaml:2: meters: the meters name 33 pools; allowed: at most 32"] == problems_of(
        ONE_PLAN.replace("{m: {pool: p}}", f"{{m: {{pool: p}}, n: {{pool: [{pools}]}}}}\ndefault_meter: m")
    )


def test_spoiled_files() -> None:
    """A file that has lost any one of its lines still loads, or is refused with places; nothing else happens."""
    lines = (CATALOGS / "lumen.yaml").read_text(encoding="utf-8").splitlines()

    found: list[str] = []
    for lost in range(len(lines)):
        try:
            compile_catalog(parse("\n".join(lines[:lost] + lines[lost + 1 :]), "own.yaml"))
        except CatalogError as error:
            found += error.problems

    assert [] == [problem for problem in found if not re.match(r"own\.yaml:[0-9]+: ", problem)]
    assert found


def test_a_bad_key_cannot_break_the_message() -> None:
    """Keys that are long or unprintable are quoted and cut, so that a problem stays one short line."""
    found = problems_of(ONE_PLAN + '"a\\nb": 1\n' + "x" * 900 + ": 1\n")

    assert [True, True] == [len(problem.splitlines()) == 1 and len(problem) < 400 for problem in found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("glm-2027", "glm-2027: No such file or directory (did you mean 'glm-2026'?); allowed: the path of a file, or"),
        ("/", "/: Is a directory; allowed: the path of a file, or a shipped catalog: glm-2025, glm-2026, zai-2025"),
        ("a\0b", "allowed: the path of a file"),
    ],
    ids=["near", "directory", "null byte"],
)
def test_no_such_file(source: str, expected: str) -> None:
    """A source that cannot be read is a CatalogError that names what can."""
    with pytest.raises(CatalogError) as caught:
        load(source)

    assert expected in str(caught.value)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused with their line."""
    file = tmp_path / "own.yaml"
    file.write_bytes(b"catalog: t\n# \xff\n")

    with pytest.raises(CatalogError) as caught:
        load(file)

    assert [f"{file}:2: not UTF-8: the byte 0xff; allowed: UTF-8"] == caught.value.problems


def test_a_file_too_large(tmp_path: Path) -> None:
    """A file past 256 KiB is refused before it is read to its end."""
    file = tmp_path / "own.yaml"
    file.write_bytes(b"#" * (1 << 21))

    with pytest.raises(CatalogError, match="allowed: at most 262144"):
        load(file)
