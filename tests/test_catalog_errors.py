"""Wrong catalogs: each problem is named with its line, its key and what is allowed, and all of them at once."""

from __future__ import annotations

import pytest

from quota.catalog import parse
from quota.errors import CatalogError

# A catalog that is right; a case puts its own line in place of the one of that number.
GOOD = """\
catalog: t
time_zone: Europe/Berlin
meters: {call: {pool: calls, weighted: true}, search: {pool: web}}
default_meter: call
schedules: {day: [{daily: "08:00-20:00"}]}
models: {Big: {aliases: [b, big-*]}, Small: {}}
endpoints: [/v1]
tools: [quill, anvil]
refusals: {BURST: {code: 5}}
plans:
  one:
    level: 1
    pools:
      calls: [{id: c5, window: {sliding: 5h}, limit: 10}]
      web: []
    burst: {id: pace, pool: calls, rate: 10/1m, depth: 30}
    concurrency: [{id: calls, limit: 4}]
    calls_per_prompt: 20
    prompt_idle: 10m
    hold_default: 15m
  two: {pools: {calls: []}}
"""


def meter(more: str) -> str:
    return f"meters: {{call: {{{more}}}, search: {{pool: [calls, web]}}}}"


def schedule(entries: str) -> str:
    return f"schedules: {{day: [{entries}]}}"


def plans(entry: str) -> str:
    return f"models: {{Big: {{plans: [{entry}]}}}}"


def weight(entry: str) -> str:
    return f"models: {{Big: {{weights: [{{{entry}}}]}}}}"


def refusal(more: str) -> str:
    return f"refusals: {{BURST: {{{more}}}}}"


def window(text: str) -> str:
    return f"      calls: [{{id: c5, window: {text}, limit: 10}}]"


def limit(more: str) -> str:
    return f"      calls: [{{id: c, window: {{sliding: 1h}}, {more}}}]"


def burst(more: str) -> str:
    return f"    burst: {{id: pace, {more}}}"


KEYS = [
    (1, "catalogue: t", ":1: catalogue: unknown key 'catalogue' (did you mean 'catalog'?); allowed: catalog, meters"),
    (1, "# none", ":2: the key 'catalog' is missing; allowed: a mapping with catalog, meters, plans"),
    (1, "catalog: [t]", ":1: catalog: a list where a single value belongs"),
    (1, "catalog:", ":1: catalog: nothing where a single value belongs"),
    (1, "catalog: " + "x" * 129, "is too long: 129 bytes; allowed: 1 to 128 bytes"),
    (1, 'catalog: "a\\nb"', r":1: catalog: 'a\nb' is not a name"),
    (1, 'catalog: " a"', ":1: catalog: ' a' is not a name"),
    (1, 'catalog: ""', ":1: catalog: '' is not a name"),
    (1, 'catalog: "\\ud800"', r":1: catalog: '\ud800' is not a name"),
    (8, "catalog: u", ":8: the key 'catalog' stands twice; allowed: once; it is on line 1 too"),
    (8, "tools: !set [a]", ":8: tools: the tag !set is not known"),
    (8, "? [a]\n: b", ":8: a key must be a single value"),
    (8, "tools: {a: b}", ":8: tools: a mapping where a list belongs"),
    (8, "tools: quill", ":8: tools: 'quill' where a list belongs"),
    (2, "time_zone: Europe/Berln", "'Europe/Berln' is not a known time zone (did you mean 'Europe/Berlin'?)"),
    (2, "time_zone: Europe", ":2: time_zone: 'Europe' is not a known time zone"),
    (2, "time_zone: localtime", ":2: time_zone: 'localtime' is not a known time zone"),
    (2, "time_zone: ../etc/passwd", ":2: time_zone: '../etc/passwd' is not a known time zone"),
    (7, "endpoints: [/v1, /v1/]", ":7: endpoints[1]: the endpoint '/v1' is defined twice"),
    (7, "endpoints: [/]", ":7: endpoints[0]: '/' is not an endpoint"),
    (8, "tools: [quill, QUILL]", ":8: tools[1]: the tool 'QUILL' is defined twice"),
    (8, "tools: [{name: q, endpoints: [/v2]}]", ":8: tools[0].endpoints[0]: unknown endpoint '/v2'"),
]

METERS = [
    (3, "meters: []", ":3: meters: a list where a mapping belongs"),
    (3, "meters: {}", ":3: meters: no meter is defined; allowed: at least one"),
    (3, meter("pool: calls, per_unit: 0"), ":3: meters.call.per_unit: 0 is out of range"),
    (3, meter("pool: calls, per_unit: 1/0"), ":3: meters.call.per_unit: 1/0 divides by 0"),
    (3, meter("pool: calls, per_unit: 1/9999999999"), "per_unit: 1/9999999999 is out of range"),
    (3, meter("pool: calls, weighted: yes"), "weighted: 'yes' is neither true nor false"),
    (3, meter("pool: []"), ":3: meters.call.pool: the list is empty"),
    (3, meter("pool: [calls, calls]"), "meters.call.pool[1]: the pool 'calls' stands twice"),
    (3, meter("pool: calls, plans: [on]"), "plans[0]: unknown plan 'on' (did you mean 'one'?)"),
    (3, meter(""), ":3: meters.call: the key 'pool' is missing"),
    (4, "default_meter: cal", ":4: default_meter: unknown meter 'cal' (did you mean 'call'?); allowed: call, search"),
    (4, "# none", ":1: the key 'default_meter' is missing; allowed: one of the meters: call, search"),
]

SCHEDULES = [
    (5, schedule(""), ":5: schedules.day: the schedule is empty"),
    (5, schedule("{daily: 8-20}"), ":5: schedules.day[0].daily: '8' is not a time of day"),
    (5, schedule("{daily: '08:00-24:01'}"), "daily: 24:01 is not a time of day; allowed: 00:00 to 24:00"),
    (5, schedule("{daily: '08:61-10:00'}"), "daily: 08:61 is not a time of day"),
    (5, schedule("{daily: '24:00-10:00'}"), "daily: '24:00-10:00' starts at 24:00"),
    (5, schedule("{daily: '08:00'}"), "daily: '08:00' is no part of a day"),
    (5, schedule("{daily: '1:00-2:00', on: [mon]}"), ":5: schedules.day[0].on[0]: 'mon' is no weekday"),
    (5, schedule("{daily: '1:00-2:00', on: []}"), ":5: schedules.day[0].on: the list is empty"),
    (5, schedule("{daily: '1:00-2:00', on: [friday, friday]}"), "on[1]: friday stands twice"),
    (
        5,
        schedule("\n  {daily: '08:00-12:00'},\n  {daily: '11:59-13:00'}"),
        ":7: schedules.day[1]: overlaps the entry on line 6",
    ),
    (5, schedule("{daily: '22:00-06:00'}, {daily: '05:00-07:00'}"), "day[1]: overlaps the entry on line 5"),
    (5, schedule("{daily: '20:00-02:00', on: [sunday]}, {daily: '1:00-3:00', on: [monday]}"), "day[1]: overlaps"),
    (5, schedule("{daily: '00:00-24:00'}, {daily: '10:00-10:00', on: [monday]}"), "day[1]: overlaps"),
]

MODELS = [
    (6, "models: {Big: {alias: [b]}}", ":6: models.Big.alias: unknown key 'alias' (did you mean 'aliases'?)"),
    (
        6,
        "models: {Big: {aliases: [b]}, Small: {aliases: [B]}}",
        ":6: models.Small.aliases[0]: the alias 'B' is claimed twice",
    ),
    (
        6,
        "models: {Big: {aliases: [SMALL]}, Small: {}}",
        "the alias 'SMALL' is claimed twice; allowed: each once; Small",
    ),
    (6, "models: {Big: {aliases: [b, b]}}", "models.Big.aliases[1]: the alias 'b' is claimed twice"),
    (6, "models: {Big: {}, BIG: {}}", ":6: models.BIG: the name 'BIG' is claimed twice"),
    (6, "models: {Big: {aliases: [x-*]}, Small: {aliases: [X-*]}}", "the pattern 'X-*' is claimed twice"),
    (6, "models: {Big: {aliases: ['x*y']}}", ":6: models.Big.aliases[0]: 'x*y': '*' stands only at the end"),
    (6, "models: {Big: {aliases: ['*x*']}}", "'*x*': '*' stands only at the end"),
    (6, "models: {Big*: {}}", ":6: models.Big*: 'Big*': a model's own name holds no '*'"),
    (6, plans("gold"), ":6: models.Big.plans[0]: unknown plan 'gold'; allowed: one, two"),
    (6, plans("one, one"), ":6: models.Big.plans[1]: the plan 'one' stands twice"),
    (6, plans("{plan: one, from: 2026-02-30}"), "plans[0].from: 2026-02-30 is no moment: day"),
    (6, plans("{plan: one, from: 2026-02-03T25:00}"), "from: 25:00 is not a time of day"),
    (6, plans("{plan: one, from: 1999-12-31}"), "from: 1999-12-31 is out of range"),
    (6, plans("{plan: one, from: 2026-02-03T10:00Z}"), "from: '2026-02-03T10:00Z' is no moment"),
    (6, plans("{plan: one, from: 2026-02-03, until: 2026-02-03}"), ":6: models.Big.plans[0].until: not after 'from'"),
    (6, weight("weight: 0"), ":6: models.Big.weights[0].weight: 0 is out of range; allowed: 0.001 to 1000"),
    (6, weight("weight: 0.0009"), "weight: 0.0009 is out of range"),
    (6, weight("weight: 1000.1"), "weight: 1000.1 is out of range"),
    (6, weight("weight: -1"), "weight: -1 is out of range"),
    (6, weight("weight: 1/1000001"), "weight: 1/1000001 is out of range"),
    (6, weight("weight: 1e2"), "weight: '1e2' is not a number"),
    (6, weight("when: day"), ":6: models.Big.weights[0]: the key 'weight' is missing"),
    (6, weight("weight: 2, when: days"), "when: unknown schedule 'days' (did you mean 'day'?); allowed: day"),
    (6, weight("weight: 2, tool: quil"), "tool: unknown tool 'quil' (did you mean 'quill'?); allowed: quill, anvil"),
    (6, weight("weight: 2, tools: []"), "tools: the list is empty"),
    (6, weight("weight: 2, tool: quill, tools: [anvil]"), "tools: 'tool' and 'tools' together"),
    (6, weight("weight: 2, from: 2026-02-03, until: 2026-02-02"), "until: not after 'from'"),
]

REFUSALS = [
    (9, "refusals: {BURSTS: {}}", ":9: refusals.BURSTS: unknown verdict 'BURSTS' (did you mean 'BURST'?)"),
    (9, "refusals: {ALLOWED: {}}", ":9: refusals.ALLOWED: unknown verdict 'ALLOWED'"),
    (9, refusal("http_status: 99"), "refusals.BURST.http_status: 99 is out of range; allowed: 200 to 599"),
    (9, refusal("retry_after: 2d"), "refusals.BURST.retry_after: 2d is out of range; allowed: 1s to 1d"),
    (9, refusal("message: 'at ${reset}'"), "message: unknown placeholder ${reset}; allowed: ${number}, ${unit}"),
    (9, refusal("message: 'at ${unit'"), "message: unknown placeholder ${unit"),
]

WINDOWS = [
    (14, window("{}"), ":14: plans.one.pools.calls[0].window: no kind of window; allowed: exactly one: {sliding: 5h}"),
    (14, window("{sliding: 5h, cycle: 5h}"), "window: 2 kinds of window"),
    (14, window("{slide: 5h}"), "window.slide: unknown key 'slide'"),
    (14, window("{sliding: 0s}"), "window.sliding: 0s is out of range; allowed: 1s to 366d"),
    (14, window("{sliding: 10y}"), "window.sliding: 10y is no exact length"),
    (14, window("{sliding: 1mo}"), "window.sliding: 1mo is no exact length"),
    (14, window("{sliding: 367d}"), "window.sliding: 367d is out of range"),
    (14, window("{cycle: 5 h}"), "window.cycle: '5 h' is not a duration"),
    (14, window("{cycle: 5}"), "window.cycle: '5' is not a duration"),
    (14, window("{anniversary: 10y}"), "window.anniversary: 10y is out of range; allowed: 1s to 366d"),
    (14, window("{anniversary: 0mo}"), "window.anniversary: 0mo is out of range"),
    (14, window("{anniversary: 13mo}"), "window.anniversary: 13mo is out of range"),
    (14, window("{calendar: year}"), "'year' is no calendar window; allowed: hour, day, week, month"),
    (14, window("{calendar: day, at: '24:00'}"), "window.at: 24:00 is the next day"),
    (14, window("{calendar: hour, at: '01:00'}"), "window.at: 01:00 is more than an hour"),
    (14, window("{calendar: day, on: monday}"), "window.on: 'on' does not go with a calendar day"),
    (14, window("{calendar: week, on: 1}"), "window.on: '1' is no weekday"),
    (14, window("{calendar: month, on: 32}"), "window.on: 32 is out of range; allowed: 1 to 31"),
    (14, window("{cycle: 5h, step: 1h}"), "window.step: 'step' does not go with 'cycle'"),
    (14, window("{sliding: 5h, at: '10:00'}"), "window.at: 'at' does not go with 'sliding'"),
    (14, window("{sliding: 5h, step: 7m}"), "window.step: 7m does not divide both the day and 5h"),
    (14, window("{sliding: 5h, step: 2h}"), "window.step: 2h does not divide both the day and 5h"),
    (14, window("{sliding: 5h, step: 1s}"), "window.step: 5h has 18000 steps of 1s; allowed: at most 1023 steps"),
]

LIMITS = [
    (14, limit("limit: 0"), ":14: plans.one.pools.calls[0].limit: 0 is out of range"),
    (14, limit("limit: -1"), "limit: -1 is out of range"),
    (14, limit("limit: many"), "limit: 'many' is not a number"),
    (14, limit("limit: 1000000000001"), "limit: 1000000000001 is out of range"),
    (14, limit("limit: 1/3"), "limit: 1/3 is out of range"),
    (14, limit("limit: 1").replace("id: c", "id: " + "x" * 65), "is too long: 65 bytes; allowed: 1 to 64 bytes"),
    (14, limit("limit: 1").replace("id: c, ", ""), ":14: plans.one.pools.calls[0]: the key 'id' is missing"),
    (14, "      calls: {id: c5}", ":14: plans.one.pools.calls: a mapping where a list belongs"),
    (14, "      calls:", ":14: plans.one.pools.calls: nothing where a list belongs; allowed: a list of limits; [] for"),
    (14, "      calls: []\n      cals: []", ":15: plans.one.pools.cals: unknown pool 'cals' (did you mean 'calls'?)"),
    (
        14,
        window("{cycle: 1h}, limit: 1}, {id: c5, window: {cycle: 1h}"),
        "calls[1]: the limit id 'c5' stands twice in this plan",
    ),
    (
        14,
        limit("limit: 1").replace("id: c", "id: pace"),
        "the id 'pace' is used for two kinds: burst, and sliding on line 14",
    ),
    (
        21,
        "  two: {pools: {calls: [{id: c5, window: {cycle: 5h}, limit: 1}]}}",
        "'c5' is used for two kinds: cycle, and sliding",
    ),
    (17, "    concurrency: [{id: c5, limit: 1}]", ":17: plans.one.concurrency[0]: the id 'c5' is used for two kinds"),
    (14, limit("limit: 1, models: [b]"), "models[0]: 'b' is an alias of Big; limits go by"),
    (14, limit("limit: 1, models: [Bi]"), "models[0]: unknown model 'Bi' (did you mean 'Big'?)"),
    (14, limit("limit: 1, models: [z*]"), "models[0]: the pattern 'z*' matches no model"),
    (14, limit("limit: 1, models: ['*g']"), "models[0]: '*g': '*' stands only at the end"),
    (14, limit("limit: 1, models: []"), "models: the list is empty"),
    (14, limit("limit: 1, tools: [saw]"), "tools[0]: unknown tool 'saw'; allowed: quill, anvil"),
    (14, limit("limit: 1, meters: [search]"), "the meter 'search' does not draw from the pool 'calls'"),
    (14, limit("limit: 1, meters: [x]"), "meters[0]: unknown meter 'x'"),
    (14, limit("limit: 1, entries: 3"), "entries: 3 is out of range; allowed: 4 to 1024"),
    (14, window("{sliding: 5h, step: 1h}, entries: 5"), "entries: 5 is out of range; allowed: 6 to 1024"),
    (14, window("{cycle: 5h}, entries: 8"), "entries: a cycle window has no entries"),
    (14, limit(f"limit: 1, refusal: {{code: {'9' * 65}}}"), "refusal.code: "),
]

PLANS = [
    (16, burst("pool: calls, rate: 10, depth: 30"), ":16: plans.one.burst.rate: '10' is not a rate"),
    (16, burst("pool: calls, rate: 10/0s, depth: 30"), "burst.rate: 0s is out of range"),
    (16, burst("pool: calls, rate: 0/1m, depth: 30"), "burst.rate: 0 is out of range"),
    (16, burst("pool: calls, rate: 1/1d, depth: 367"), "burst.depth: takes more than 366 days to drain"),
    (16, burst("pool: cals, rate: 1/1d, depth: 3"), "burst.pool: unknown pool 'cals'"),
    (
        16,
        "    burst: [{id: c5, pool: calls, rate: 1/1d, depth: 3}]",
        "burst[0]: the id 'c5' is used for two kinds: burst",
    ),
    (14, "      # none", ":16: plans.one.burst.pool: the pool 'calls' is not in this plan"),
    (
        17,
        "    concurrency: [{id: calls, limit: 0}]",
        ":17: plans.one.concurrency[0].limit: 0 is out of range; allowed: 1 to",
    ),
    (17, "    concurrency: [{id: calls, limit: 1, when: peak}]", "concurrency[0].when: unknown schedule 'peak'"),
    (12, "    level: high", ":12: plans.one.level: 'high' is not a whole number; allowed: 0 to 1000"),
    (18, "    calls_per_prompt: 0", ":18: plans.one.calls_per_prompt: 0 is out of range"),
    (19, "    prompt_idle: 2d", ":19: plans.one.prompt_idle: 2d is out of range; allowed: 1s to 1d"),
    (20, "    hold_default: 61m", ":20: plans.one.hold_default: 61m is out of range; allowed: 1s to 1h"),
    (21, "  two: {}", ":21: plans.two: the key 'pools' is missing"),
    (21, "  two:", ":21: plans.two: nothing where a mapping belongs"),
]

CASES = KEYS + METERS + SCHEDULES + MODELS + REFUSALS + WINDOWS + LIMITS + PLANS


def problems_of(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse(text, "own.yaml")
    assert "\n".join(caught.value.problems) == str(caught.value)
    return caught.value.problems


def replaced(line: int, own: str) -> str:
    lines = GOOD.splitlines()
    lines[line - 1] = own
    return "\n".join(lines) + "\n"


def test_the_good_one_is_good() -> None:
    """What the cases spoil is right as it stands."""
    assert () == parse(GOOD).warnings


@pytest.mark.parametrize(("line", "own", "expected"), CASES, ids=[case[2] for case in CASES])
def test_one_wrong_line(line: int, own: str, expected: str) -> None:
    """Each wrong line is reported at its place, with what is wrong and what is allowed."""
    found = [problem for problem in problems_of(replaced(line, own)) if expected in problem]

    assert 1 == len(found)
    assert found[0].startswith("own.yaml:")
    assert "; allowed: " in found[0]


def test_all_problems_at_once() -> None:
    """One run shows every problem, in the order of the file."""
    text = replaced(14, "      calls: [{id: c5, window: {sliding: 0s}, limit: 0, colour: red}]")
    text = text.replace("Europe/Berlin", "Nowhere").replace("[quill, anvil]", "[quill, quill]")

    assert [
        "own.yaml:2: time_zone",
        "own.yaml:8: tools[1]",
        "own.yaml:14: plans.one.pools.calls[0].colour",
        "own.yaml:14: plans.one.pools.calls[0].window.sliding",
        "own.yaml:14: plans.one.pools.calls[0].limit",
    ] == [": ".join(problem.split(": ")[:2]) for problem in problems_of(text)]
