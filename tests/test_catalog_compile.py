"""Catalogs as the core gets them: zones, schedules of a week, anchors, indices."""

from __future__ import annotations

import datetime
import random
import zoneinfo
from pathlib import Path

import pytest

from quota.catalog import FOREVER_US, SHIPPED, compile_catalog, load, parse
from quota.catalog.spec import CatalogSpec, LimitSpec
from quota.catalog.zone import find_zone
from quota.types import Verdict

CATALOGS = Path(__file__).parent / "catalogs"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
ZONES = [
    "UTC",
    "Asia/Shanghai",  # no change since 2000
    "Asia/Kathmandu",  # +05:45
    "America/New_York",
    "Australia/Lord_Howe",  # changes by half an hour
    "Africa/Casablanca",  # Morocco: back by an hour for Ramadan
    "America/St_Johns",  # changed one minute past midnight until 2011
    "Pacific/Apia",  # left out 2011-12-30
    "Europe/Istanbul",  # permanent summer time since 2016
    "Antarctica/Troll",  # changes by two hours
]


def instant_us(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1)


def limits_of(spec: CatalogSpec, name: str) -> dict[str, LimitSpec]:
    return {limit.id: limit for plan in spec.plans if plan.name == name for limit in plan.limits}


def compiled(*, zone: str = "UTC", schedule: str = "[{daily: '1:00-2:00'}]", limits: str = "[]") -> CatalogSpec:
    """A small catalog with this zone, schedule and list of limits."""
    return compile_catalog(
        parse(
            f"catalog: t\ntime_zone: {zone}\nmeters: {{m: {{pool: p}}}}\n"
            f"schedules: {{s: {schedule}}}\nplans: {{one: {{pools: {{p: {limits}}}}}}}\n"
        )
    )


@pytest.mark.parametrize("name", ZONES)
def test_offsets_agree_with_the_zone(name: str) -> None:
    """At random moments and around every change the table gives the zone's own offset."""
    zone, info, chance = find_zone(name), zoneinfo.ZoneInfo(name), random.Random(name)
    moments = [chance.randrange(instant_us("2000-01-01T00:00Z"), instant_us("2101-01-01T00:00Z")) for _ in range(3000)]
    moments += [since_us + shift for since_us, _ in zone.offsets[1:] for shift in (-1_000_000, 0, 1_000_000)]

    expected = [(EPOCH + datetime.timedelta(microseconds=moment)).astimezone(info).utcoffset() for moment in moments]

    assert expected == [datetime.timedelta(microseconds=zone.offset_us(moment)) for moment in moments]


def test_offsets_of_zones_without_changes() -> None:
    """A zone that never changes is one entry, since for ever."""
    assert ((-FOREVER_US, 8 * HOUR_US),) == find_zone("Asia/Shanghai").offsets
    assert ((-FOREVER_US, 0),) == compiled().zone


def test_offsets_of_lord_howe() -> None:
    """Lord Howe moves its clock by half an hour, at 02:00 local time."""
    spec = compile_catalog(load(CATALOGS / "tidewater.yaml"))
    start_us, end_us = instant_us("2026-01-01T00:00Z"), instant_us("2027-01-01T00:00Z")

    assert [
        (instant_us("2026-04-04T15:00Z"), 21 * HOUR_US // 2),
        (instant_us("2026-10-03T15:30Z"), 11 * HOUR_US),
    ] == [entry for entry in spec.zone if start_us < entry[0] < end_us]


def test_offsets_of_morocco() -> None:
    """Morocco goes back for Ramadan and forth after it, on dates of another calendar."""
    spec = compiled(zone="Africa/Casablanca")
    start_us, end_us = instant_us("2026-01-01T00:00Z"), instant_us("2027-01-01T00:00Z")

    assert [(instant_us("2026-02-15T02:00Z"), 0), (instant_us("2026-03-22T02:00Z"), HOUR_US)] == [
        entry for entry in spec.zone if start_us < entry[0] < end_us
    ]


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        ("UTC", "2026-06-01T00:00", "2026-06-01T00:00Z"),
        ("Asia/Shanghai", "2026-06-01T00:00", "2026-05-31T16:00Z"),
        ("Europe/Berlin", "2026-03-29T01:59:59", "2026-03-29T00:59:59Z"),
        ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00Z"),  # does not exist: the first after the gap
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00Z"),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00Z"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30Z"),  # exists twice: the first
        ("Europe/Berlin", "2026-10-25T03:00", "2026-10-25T02:00Z"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30Z"),
        ("Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30Z"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00Z"),  # a day left out
    ],
)
def test_local_moments(zone: str, local: str, expected: str) -> None:
    """A wall-clock time is the first moment that shows it, or the end of the gap that hides it."""
    local_us = instant_us(local + "+00:00")

    assert instant_us(expected) == find_zone(zone).instant_us(local_us)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("[{daily: '14:00-18:00', on: [monday]}]", [(14, 18)]),
        ("[{daily: '22:00-06:00', on: [monday]}]", [(22, 30)]),
        ("[{daily: '22:00-06:00', on: [sunday]}]", [(0, 6), (166, 168)]),
        ("[{daily: '00:00-24:00', on: [saturday, sunday]}]", [(120, 168)]),
        ("[{daily: '18:00-24:00', on: [tuesday]}, {daily: '00:00-08:00', on: [wednesday]}]", [(42, 56)]),
        ("[{daily: '00:00-24:00'}]", [(0, 168)]),
        ("[{daily: '10:00-10:00'}]", [(0, 168)]),
        ("[{daily: '10:00-10:00', on: [sunday]}]", [(0, 10), (154, 168)]),
        ("[{daily: '06:00-12:00', on: [friday]}, {daily: '00:00-06:00', on: [friday]}]", [(96, 108)]),
    ],
)
def test_schedules_of_a_week(schedule: str, expected: list[tuple[int, int]]) -> None:
    """Entries become parts of the week: sorted, cut at its end, joined where they touch."""
    hours = [(start_us // HOUR_US, end_us // HOUR_US) for start_us, end_us in compiled(schedule=schedule).schedules[0]]

    assert expected == hours


def test_off_peak_is_what_peak_is_not() -> None:
    """The shipped peak and off-peak hours fill the week between them."""
    peak, off_peak = compile_catalog(load("glm-2026")).schedules
    merged = sorted(peak + off_peak)

    assert (0, 7 * DAY_US) == (merged[0][0], merged[-1][1])
    assert [end_us for _, end_us in merged[:-1]] == [start_us for start_us, _ in merged[1:]]


@pytest.mark.parametrize(
    ("window", "anchor", "length_us", "months", "number", "unit"),
    [
        ("{calendar: hour}", "1970-01-01T00:00Z", HOUR_US, 0, 1, "hour"),
        ("{calendar: hour, at: '0:20'}", "1970-01-01T00:20Z", HOUR_US, 0, 1, "hour"),
        ("{calendar: day, at: '10:00'}", "1970-01-01T10:00Z", DAY_US, 0, 1, "day"),
        ("{calendar: week}", "1970-01-05T00:00Z", 7 * DAY_US, 0, 1, "week"),
        ("{calendar: week, on: Sunday, at: '23:59:59'}", "1970-01-11T23:59:59Z", 7 * DAY_US, 0, 1, "week"),
        ("{calendar: month}", "1970-01-01T00:00Z", 0, 1, 1, "month"),
        ("{calendar: month, on: 31, at: '10:00'}", "1970-01-31T10:00Z", 0, 1, 1, "month"),
        ("{anniversary: 36h}", "1970-01-01T00:00Z", 36 * HOUR_US, 0, 36, "hour"),
        ("{anniversary: 7d}", "1970-01-01T00:00Z", 7 * DAY_US, 0, 7, "day"),
        ("{anniversary: 2w}", "1970-01-01T00:00Z", 14 * DAY_US, 0, 2, "week"),
        ("{anniversary: 3mo}", "1970-01-01T00:00Z", 0, 3, 3, "month"),
        ("{anniversary: 1y}", "1970-01-01T00:00Z", 0, 12, 1, "year"),
        ("{cycle: 90s}", "1970-01-01T00:00Z", 90_000_000, 0, 90, "second"),
        ("{sliding: 366d}", "1970-01-01T00:00Z", 366 * DAY_US, 0, 366, "day"),
    ],
)
def test_windows(window: str, anchor: str, length_us: int, months: int, number: int, unit: str) -> None:
    """A window's length, one boundary of a calendar one, and its words for vendor messages."""
    limit = compiled(limits=f"[{{id: l, window: {window}, limit: 1}}]").plans[0].limits[0]
    actual = (limit.anchor_us, limit.length_us, limit.months, limit.number, limit.unit)

    assert (instant_us(anchor), length_us, months, number, unit) == actual


def test_buckets_and_stepped_windows() -> None:
    """A rate is reduced to micro-units per microseconds; only sliding windows have entries, steps only where asked."""
    limits = limits_of(compile_catalog(load(CATALOGS / "lumen.yaml")), "studio")

    assert {"pace": (1, 6, 60_000_000), "pace-tokens": (1, 2, 1_000_000)} == {
        limit.id: (limit.rate_num, limit.rate_den, limit.length_us) for limit in limits.values() if limit.kind == 5
    }
    assert {"credits-4h": 1_800_000_000} == {limit.id: limit.step_us for limit in limits.values() if limit.step_us}
    assert {"credits-4h": 64, "large-3d": 12} == {
        limit.id: limit.entries_max for limit in limits.values() if limit.entries_max
    }


def test_names_and_patterns() -> None:
    """Names and aliases are lower case; patterns have lost their star and come longest first."""
    spec = compile_catalog(load("glm-2026"))

    assert {"glm-5": 0, "glm-4.7": 1, "glm-4.6": 2, "glm-4.5": 3, "glm-4.5-air": 4} == {
        name: index for name, index in spec.names if name.startswith("glm-")
    }
    assert {("opus", 1), ("sonnet", 1), ("haiku", 4)} == {entry for entry in spec.names if "glm-" not in entry[0]}
    assert (("claude-sonnet-", 1), ("claude-haiku-", 4), ("claude-opus-", 1)) == spec.patterns
    assert (("lumen-l", 0), ("", 1)) == compile_catalog(load(CATALOGS / "lumen.yaml")).patterns


def test_case_folding_is_ascii_only() -> None:
    """Letters beyond A-Z keep their case."""
    text = "catalog: t\nmeters: {m: {pool: p}}\nplans: {one: {pools: {}}}\nmodels: {ÉCLAIR: {aliases: [éclair]}}\n"

    assert (("Éclair", 0), ("éclair", 0)) == compile_catalog(parse(text)).names


def test_indices() -> None:
    """References become positions in the same spec, and open ends stand for for ever."""
    spec = compile_catalog(load(CATALOGS / "lumen.yaml"))
    large, small = spec.models[:2]
    studio = limits_of(spec, "studio")

    assert (67, 100, 0, (0,)) == large.weights[0][:4]
    assert (5, 2, 0, (0, 1), -FOREVER_US, FOREVER_US) == large.weights[1]
    assert (1, 3, -1, None, -FOREVER_US, FOREVER_US) == small.weights[0]
    assert (
        (2, -FOREVER_US, FOREVER_US),
        (1, instant_us("2026-05-31T22:00Z"), instant_us("2026-07-01T10:00Z")),
    ) == large.plans
    assert (None, ()) == (spec.models[2].plans, spec.models[3].plans)
    assert [("call", (0,), 1, 1), ("review", (0, 1), 5, 2), ("kilotok", (2,), 1, 1000), ("turn", (0,), 1, 1)] == [
        meter[:4] for meter in spec.meters
    ]
    assert {"trial": (0,), "solo": (0, 1), "studio": (0, 1, 2)} == {plan.name: plan.pools for plan in spec.plans}
    assert ((2, 3), None, None) == (studio["code-cycle"].models, studio["code-cycle"].tools, studio["pace"].meters)
    assert ((0,), (0,), (0, 1)) == (studio["large-3d"].models, studio["large-3d"].tools, studio["large-3d"].meters)


def test_tools_and_endpoints() -> None:
    """A bound tool has its endpoints; without a list of tools or endpoints any will do."""
    lumen = compile_catalog(load(CATALOGS / "lumen.yaml"))
    tidewater = compile_catalog(load(CATALOGS / "tidewater.yaml"))

    assert (("/v1/code", "/v1/chat"), (0, 1), False) == (lumen.endpoints, lumen.open_endpoints, lumen.any_tool)
    assert (("quill", None), ("Anvil", None), ("bellows", (0,))) == lumen.tools
    assert ((), None, True) == (tidewater.endpoints, tidewater.open_endpoints, tidewater.any_tool)
    assert (("Oar", None), ("sail", None)) == tidewater.tools
    assert (1,) == limits_of(tidewater, "ebb")["day"].tools


@pytest.mark.parametrize("name", SHIPPED)
def test_every_verdict_has_a_refusal(name: str) -> None:
    """The core finds a refusal for every verdict that refuses."""
    refusals = compile_catalog(load(name)).refusals

    assert {verdict.value for verdict in Verdict if verdict > Verdict.ALLOWED} == {number for number, _ in refusals}
