"""Catalogs as loaded: the shipped facts, and what the syntax of a file means."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import pytest

import quota.catalog
from quota.catalog import SHIPPED, Catalog, Limit, Membership, Model, Plan, Refusal, Tool, load, parse
from quota.types import Verdict

CATALOGS = Path(__file__).parent / "catalogs"

ALL_TOOLS = (
    "claude-code",
    "roo-code",
    "kilo-code",
    "cline",
    "opencode",
    "crush",
    "goose",
    "cursor",
    "factory-droid",
    "cherry-studio",
)

# catalog, plan, limit id -> pool, window in words, units
SHIPPED_LIMITS = {
    ("glm-2025", "lite", "prompts-5h"): ("prompts", "sliding 5h", 120),
    ("glm-2025", "lite", "mcp-month"): ("mcp", "anniversary 1mo", 100),
    ("glm-2025", "pro", "prompts-5h"): ("prompts", "sliding 5h", 600),
    ("glm-2025", "pro", "mcp-month"): ("mcp", "anniversary 1mo", 1000),
    ("glm-2025", "max", "prompts-5h"): ("prompts", "sliding 5h", 2400),
    ("glm-2025", "max", "mcp-month"): ("mcp", "anniversary 1mo", 4000),
    ("glm-2026", "lite", "prompts-5h"): ("prompts", "sliding 5h", 80),
    ("glm-2026", "lite", "prompts-week"): ("prompts", "anniversary 7d", 400),
    ("glm-2026", "lite", "mcp-month"): ("mcp", "anniversary 1mo", 100),
    ("glm-2026", "pro", "prompts-5h"): ("prompts", "sliding 5h", 400),
    ("glm-2026", "pro", "prompts-week"): ("prompts", "anniversary 7d", 2000),
    ("glm-2026", "pro", "mcp-month"): ("mcp", "anniversary 1mo", 1000),
    ("glm-2026", "max", "prompts-5h"): ("prompts", "sliding 5h", 1600),
    ("glm-2026", "max", "prompts-week"): ("prompts", "anniversary 7d", 8000),
    ("glm-2026", "max", "mcp-month"): ("mcp", "anniversary 1mo", 4000),
    ("zai-2025", "lite", "prompts-5h"): ("prompts", "sliding 5h", 120),
    ("zai-2025", "pro", "prompts-5h"): ("prompts", "sliding 5h", 600),
    ("zai-2025", "pro", "mcp-month"): ("mcp", "anniversary 1mo", 1000),
    ("zai-2025", "max", "prompts-5h"): ("prompts", "sliding 5h", 2400),
    ("zai-2025", "max", "mcp-month"): ("mcp", "anniversary 1mo", 4000),
}

# catalog -> model -> which of Claude Code's names stand for it
SHIPPED_MODELS = {
    "glm-2025": {"GLM-4.6": ("opus", "sonnet"), "GLM-4.5": (), "GLM-4.5-Air": ("haiku",)},
    "glm-2026": {"GLM-5": (), "GLM-4.7": ("opus", "sonnet"), "GLM-4.6": (), "GLM-4.5": (), "GLM-4.5-Air": ("haiku",)},
    "zai-2025": {"GLM-4.6": ("opus", "sonnet"), "GLM-4.5": (), "GLM-4.5-Air": ("haiku",)},
}

# verdict -> code, HTTP status, message; the same in all three
SHIPPED_REFUSALS = {
    "ACCOUNT_UNKNOWN": ("1111", 401, "Your account does not exist"),
    "ACCOUNT_INACTIVE": ("1110", 429, "Your account is currently inactive"),
    "ACCOUNT_SUSPENDED": ("1112", 429, "Your account has been locked"),
    "ACCOUNT_BANNED": ("1121", 429, "Account has irregular activities and has been locked"),
    "TOOL_UNSUPPORTED": ("1113", 429, "Your account is in arrears: insufficient balance"),
    "ENDPOINT_UNSUPPORTED": ("1113", 429, "Your account is in arrears: insufficient balance"),
    "MODEL_UNKNOWN": ("1211", 400, "Model does not exist"),
    "METER_NOT_IN_PLAN": ("1311", 429, "the current subscription does not include ${meter}"),
    "AMOUNT_TOO_LARGE": ("1210", 400, "Invalid API parameter: the request exceeds the plan's limit"),
    "CONCURRENCY": ("1302", 429, "High concurrency usage of this API"),
    "BURST": ("1303", 429, "High frequency usage of this API"),
    "OVERLOADED": ("1305", 429, "rate limit triggered"),
    "LIMIT_EXHAUSTED": (
        "1308",
        429,
        "Usage limit reached for ${number} ${unit}. Your limit will reset at ${next_flush_time}",
    ),
    "SUBSCRIPTION_EXPIRED": ("1309", 429, "Your GLM Coding Plan package has expired"),
    "MODEL_NOT_IN_PLAN": ("1311", 429, "the current subscription does not include ${model_name}"),
    "ACCOUNT_RESTRICTED": ("1313", 429, "usage pattern does not comply with the fair use policy, rate restricted"),
}


def plan_of(catalog: Catalog, name: str) -> Plan:
    return next(plan for plan in catalog.plans if plan.name == name)


def limit_of(catalog: Catalog, plan: str, limit_id: str) -> Limit:
    return next(limit for limit in plan_of(catalog, plan).limits if limit.id == limit_id)


def model_of(catalog: Catalog, name: str) -> Model:
    return next(model for model in catalog.models if model.name == name)


def one_plan(*, limits: str = "[]", more: str = "") -> str:
    """A catalog with one meter, one pool and one plan."""
    return f"catalog: t\nmeters: {{m: {{pool: p}}}}\nplans: {{one: {{pools: {{p: {limits}}}}}}}\n{more}"


def test_shipped_limits() -> None:
    """The shipped plans have exactly the limits that the vendor's documents give."""
    actual = {
        (name, plan.name, limit.id): (limit.pool, str(limit.window), limit.limit_micro / 1_000_000)
        for name in SHIPPED
        for plan in load(name).plans
        for limit in plan.limits
    }

    assert SHIPPED_LIMITS == actual


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_in_common(name: str) -> None:
    """Zone, plans, tools, endpoints, prompt rules and peak hours are the same in all three."""
    catalog = load(name)
    facts = (catalog.name, catalog.time_zone, catalog.default_meter, catalog.warnings)

    assert (name, "Asia/Shanghai", "prompt", ()) == facts
    assert [("lite", 1, 20), ("pro", 2, 20), ("max", 3, 20)] == [
        (plan.name, plan.level, plan.calls_per_prompt) for plan in catalog.plans
    ]
    assert tuple(Tool(tool) for tool in ALL_TOOLS) == catalog.tools
    assert ("/api/anthropic", "/api/coding/paas/v4") == catalog.endpoints
    assert {"peak": (14, 18), "off_peak": (18, 14)} == {
        schedule.name: (span.start_us // 3_600_000_000, span.end_us // 3_600_000_000)
        for schedule in catalog.schedules
        for span in schedule.spans
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models(name: str) -> None:
    """Models by catalog; Claude Code's names, short and full, lead to the vendor's."""
    expected = {
        model: (*short, *(f"claude-{alias}-*" for alias in short)) for model, short in SHIPPED_MODELS[name].items()
    }

    assert expected == {model.name: model.aliases for model in load(name).models}


def test_shipped_weights_and_membership() -> None:
    """GLM-5 alone weighs more than 1, and is for Pro and Max."""
    glm_5 = model_of(load("glm-2026"), "GLM-5")
    others = [model for name in SHIPPED for model in load(name).models if model.name != "GLM-5"]

    assert [(Fraction(3), "peak"), (Fraction(2), None)] == [(weight.value, weight.when) for weight in glm_5.weights]
    assert (Membership("pro"), Membership("max")) == glm_5.plans
    assert [] == [model.name for model in others if model.weights or model.plans is not None]


def test_shipped_meters() -> None:
    """Vision draws a prompt, search and reader share a pool; zai-2025 has vision for Pro and Max, and no reader."""
    everyone = {
        "prompt": (("prompts",), Fraction(1), True, True, None),
        "model_call": (("prompts",), Fraction(1, 20), True, True, None),
        "vision": (("prompts",), Fraction(1), False, False, None),
        "web_search": (("mcp",), Fraction(1), False, False, None),
        "web_reader": (("mcp",), Fraction(1), False, False, None),
    }
    z_ai = {
        "prompt": everyone["prompt"],
        "model_call": everyone["model_call"],
        "vision": (("prompts",), Fraction(1), False, False, (Membership("pro"), Membership("max"))),
        "web_search": everyone["web_search"],
    }

    for name, expected in {"glm-2025": everyone, "glm-2026": everyone, "zai-2025": z_ai}.items():
        assert expected == {
            meter.name: (meter.pools, meter.per_unit, meter.weighted, meter.per_prompt, meter.plans)
            for meter in load(name).meters
        }
    assert ("prompts",) == plan_of(load("zai-2025"), "lite").pools


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_refusals(name: str) -> None:
    """Every verdict has the vendor's code, status and words; limits of a day or more have 1310."""
    catalog = load(name)
    message = "Weekly/Monthly limit exhausted, resets at ${next_flush_time}"
    long = Refusal(code="1310", http_status=429, message=message)

    assert SHIPPED_REFUSALS == {
        verdict: (refusal.code, refusal.http_status, refusal.message) for verdict, refusal in catalog.refusals.items()
    }
    for plan in catalog.plans:
        for limit in plan.limits:
            assert (None if limit.id == "prompts-5h" else long) == limit.refusal


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_concurrency(name: str) -> None:
    """A higher plan may have more calls in flight, and every plan more off-peak."""
    assert {
        "lite": [("off_peak", 8), (None, 4)],
        "pro": [("off_peak", 16), (None, 8)],
        "max": [("off_peak", 32), (None, 16)],
    } == {plan.name: [(entry.when, entry.limit) for entry in plan.concurrency] for plan in load(name).plans}


def test_one_word_turns_sliding_into_cycle() -> None:
    """The 5-hour limit becomes a cycle by one word of the file."""
    text = (Path(quota.catalog.__file__).parent / "shipped" / "glm-2026.yaml").read_text(encoding="utf-8")

    changed = parse(text.replace("{sliding: 5h}", "{cycle: 5h}"))

    assert "cycle 5h" == str(limit_of(changed, "lite", "prompts-5h").window)


def test_windows_of_our_own_vendor() -> None:
    """All kinds of window, in words."""
    lumen = load(CATALOGS / "lumen.yaml")

    assert {
        "credits-4h": "sliding 4h step 30m",
        "credits-day": "calendar day at 10:00",
        "credits-week": "calendar week on wednesday at 06:30",
        "code-cycle": "cycle 90m",
        "large-3d": "sliding 3d",
        "reviews-quarter": "anniversary 3mo",
        "pace": "bucket 10/1m",
        "pace-tokens": "bucket 0.5/1s",
    } == {limit.id: str(limit.window) for limit in plan_of(lumen, "studio").limits}
    assert {
        "credits-4h": "sliding 4h step 30m",
        "credits-hour": "calendar hour at 00:15",
        "credits-month": "calendar month on 31 at 23:59:30",
        "reviews-year": "anniversary 1y",
    } == {limit.id: str(limit.window) for limit in plan_of(lumen, "solo").limits}


def test_weights_are_exact() -> None:
    """Decimals and fractions are read exactly, and tools by the catalog's spelling."""
    large = model_of(load(CATALOGS / "lumen.yaml"), "Lumen-Large")

    assert [
        (Fraction(67, 100), "work", ("quill",)),
        (Fraction(5, 2), "work", ("quill", "Anvil")),
        (Fraction(1), "night", None),
        (Fraction(2), None, None),
    ] == [(weight.value, weight.when, weight.tools) for weight in large.weights]


def test_dates_are_in_the_zone_of_the_catalog() -> None:
    """A date is midnight, a date-time the wall clock's; one that exists twice is the first."""
    large = model_of(load(CATALOGS / "lumen.yaml"), "Lumen-Large")

    assert (
        Membership("studio"),
        Membership("solo", 1_780_264_800_000_000, 1_782_900_000_000_000),  # 2026-05-31T22:00Z, 2026-07-01T10:00Z
    ) == large.plans
    assert 1_792_888_200_000_000 == large.weights[2].until_us  # 2026-10-25T00:30Z; 02:30 comes again an hour later


def test_plan_keys() -> None:
    """Plans come in order of level, with prompt, hold and concurrency rules and their defaults."""
    lumen = load(CATALOGS / "lumen.yaml")
    studio = plan_of(lumen, "studio")

    assert [("trial", 1), ("solo", 10), ("studio", 20)] == [(plan.name, plan.level) for plan in lumen.plans]
    assert [(None, 600_000_000, 0), (12, 300_000_000, 900_000_000)] == [
        (plan.calls_per_prompt, plan.prompt_idle_us, plan.hold_default_us) for plan in lumen.plans[1:]
    ]
    assert [("calls", 6, "night", None), ("calls", 3, None, None), ("large", 1, None, ("Lumen-Large",))] == [
        (entry.id, entry.limit, entry.when, entry.models) for entry in studio.concurrency
    ]
    assert ("credits", "reviews", "tokens") == studio.pools


def test_narrowed_limits() -> None:
    """Patterns become the models they cover, and references take the catalog's spelling."""
    lumen = load(CATALOGS / "lumen.yaml")
    large = limit_of(lumen, "studio", "large-3d")

    assert ("Lumen-Code-1", "Lumen-Code-2") == limit_of(lumen, "studio", "code-cycle").models
    assert (("Lumen-Large",), ("quill",), ("call", "review")) == (large.models, large.tools, large.meters)


def test_refusals_fill_up() -> None:
    """What a refusal leaves out is the catalog's or the generic wording."""
    lumen = load(CATALOGS / "lumen.yaml")
    burst, model = lumen.refusals["BURST"], lumen.refusals["MODEL_NOT_IN_PLAN"]
    message = "Code models rest until ${next_flush_time}"
    own = Refusal(code="E-CODE", http_status=402, message=message)
    own_burst = Refusal(code="4290", http_status=429, message="Please slow down")

    assert {verdict.name for verdict in Verdict if verdict > Verdict.ALLOWED} == set(lumen.refusals)
    assert ("slow_down", 429, "Please slow down") == (burst.code, burst.http_status, burst.message)
    assert ("7", 403) == (model.code, model.http_status)
    assert 3_000_000 == lumen.refusals["CONCURRENCY"].retry_after_us
    assert own == limit_of(lumen, "studio", "code-cycle").refusal
    assert own_burst == limit_of(lumen, "studio", "pace-tokens").refusal


def test_keys_left_out() -> None:
    """A key left out means no such rule."""
    catalog = parse(one_plan())
    plan = catalog.plans[0]

    assert ("UTC", "m") == (catalog.time_zone, catalog.default_meter)
    assert (None, None, (), ()) == (catalog.tools, catalog.endpoints, catalog.models, catalog.schedules)
    assert (1, ("p",), (), None, ()) == (plan.level, plan.pools, plan.limits, plan.calls_per_prompt, plan.concurrency)


def test_quotes_make_no_difference() -> None:
    """A value is what its text says, quoted or not."""
    plain = parse(one_plan(limits="[{id: l, window: {sliding: 5h}, limit: 0.1}]"))
    quoted = parse(one_plan(limits="[{'id': 'l', window: {sliding: '5h'}, limit: '0.1'}]"))

    assert 100_000 == limit_of(plain, "one", "l").limit_micro
    assert plain.plans == quoted.plans


def test_entries_of_a_stepped_window() -> None:
    """A sliding log counted by steps holds at least one entry more than there are steps."""
    fine = parse(one_plan(limits="[{id: l, window: {sliding: 5h, step: 1m}, limit: 1}]"))
    coarse = parse(one_plan(limits="[{id: l, window: {sliding: 5h, step: 1h}, limit: 1}]"))

    assert (301, 64) == (limit_of(fine, "one", "l").entries, limit_of(coarse, "one", "l").entries)


@pytest.mark.parametrize(("entries", "warned"), [(21, True), (22, False)])
def test_lateness_warning(entries: int, warned: bool) -> None:
    """A log so short that a unit may come back more than a tenth of the window late is legal, with a warning."""
    catalog = parse(one_plan(limits=f"[\n{{id: l, window: {{sliding: 5h}}, limit: 1, entries: {entries}}}]"))
    place, late = "<text>:4: plans.one.pools.p[0]", "a unit may come back up to 1894 s late, 11 % of 5h"

    assert [f"{place}: with 21 entries {late}; 22 entries keep it within 10 %"] * warned == [*catalog.warnings]


def test_unreachable_weight_warning() -> None:
    """A weight after one that always holds is legal, with a warning."""
    catalog = parse(one_plan(more="models:\n  a:\n    weights:\n      - {weight: 2}\n      - {weight: 3}\n"))

    assert ["<text>:8: models.a.weights[1]: never holds: the entry on line 7 always does"] == [
        warning.partition(",")[0] for warning in catalog.warnings
    ]


def test_content_hash() -> None:
    """The hash is of the text: any change gives another."""
    text = one_plan()

    assert hashlib.sha256(text.encode()).hexdigest()[:12] == parse(text).content_hash
    assert parse(text).content_hash != parse(text + "# other\n").content_hash


def test_load_takes_names_and_paths(tmp_path: Path) -> None:
    """A shipped name, a path, and a path as text are all taken; a byte order mark is skipped."""
    file = tmp_path / "own.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + one_plan().encode())

    assert "t" == load(file).name
    assert load(file) == load(str(file))
    assert "zai-2025" == load("zai-2025").name


def test_the_example_of_the_documentation() -> None:
    """The worked example of docs/catalog.md loads, and without warnings."""
    page = (Path(__file__).parent.parent / "docs" / "catalog.md").read_text(encoding="utf-8")
    example = parse(page.partition("```yaml\n")[2].partition("```")[0])

    assert ("acme", ()) == (example.name, example.warnings)
    assert {
        "credits-5h": "sliding 5h",
        "credits-week": "calendar week on monday at 00:00",
        "large-day": "calendar day at 00:00",
        "pace": "bucket 6/1m",
    } == {limit.id: str(limit.window) for limit in example.plans[0].limits}
