"""What an engine may be told, and the errors for the rest."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from quota import Account, Bounds, Engine, InvalidArgument, NotFound, Outcome, Request
from quota.ranges import BOUNDS_MOST

NOW_MS = 1_783_321_200_000


@pytest.fixture
def engine() -> Engine:
    engine = Engine(["glm-2026"])
    engine.put_account("ada", plan="lite", now_ms=NOW_MS)
    return engine


@pytest.mark.parametrize("name", ["hold_ms_max", "holds_max", "request_ids_max", "prompts_max"])
def test_bounds_have_bounds(name: str) -> None:
    """from 1 to what each may be at most; the error names the field."""
    most = getattr(BOUNDS_MOST, name)
    for value in (1, most):
        Engine(["glm-2026"], bounds=Bounds(**{name: value}))
    for value in (0, most + 1):
        with pytest.raises(InvalidArgument, match=rf"^{name}: {value} is not allowed; allowed: .* 1 to {most}$"):
            Engine(["glm-2026"], bounds=Bounds(**{name: value}))


@pytest.mark.parametrize(
    ("factor", "micro"),
    [
        (1, 1_000_000),
        (0, 0),
        (0.1, 100_000),
        (0.7, 700_000),
        (1e-6, 1),
        ("0.333333", 333_333),
        ("1/4", 250_000),
        (Fraction(1, 8), 125_000),
        (Decimal("0.999999"), 999_999),
    ],
)
def test_a_factor_is_what_is_written(engine: Engine, factor: float | str | Fraction | Decimal, micro: int) -> None:
    """no float comes near it."""
    engine.set_capacity(factor)

    assert micro == engine.capacity_micro


@pytest.mark.parametrize("factor", [-1, 1.000001, "nan", "inf", "", "half", "1/0", Fraction(1, 3), "0.0000001", True])
def test_what_is_no_factor(engine: Engine, factor: object) -> None:
    """named, and the old one stays."""
    with pytest.raises(InvalidArgument, match=r"^factor: .* is not allowed; allowed: 0 to 1, with at most 6 decimals$"):
        engine.set_capacity(factor)

    assert 1_000_000 == engine.capacity_micro


def test_overrides_are_whole_units_of_known_limits(engine: Engine) -> None:
    """a limit of any plan of the catalog, bursts and concurrency too; everything else is refused, and nothing changes."""
    own = {"prompts-5h": 0, "mcp-month": 10**12, "calls": 3}
    account = engine.put_account("ada", plan="lite", overrides=own)

    assert isinstance(account, Account)
    assert own == account.overrides == engine.get_account("ada").overrides
    for wrong in ({"nosuch": 1}, {"calls": -1}, {"calls": 10**12 + 1}, {"calls": 1.5}, {"calls": True}):
        with pytest.raises(InvalidArgument, match=r"^overrides: "):
            engine.put_account("ada", plan="lite", overrides=wrong)
    assert own == engine.get_account("ada").overrides
    assert {} == engine.put_account("ada", plan="lite").overrides


def test_a_call_in_process(engine: Engine) -> None:
    """the same verbs without a server: admit with a hold, renew, look, settle, adjust."""
    admitted = engine.admit(
        Request("ada", model="glm-4.7", tool="cline", request_id="r1", hold_ms=60_000), now_ms=NOW_MS
    )
    renewed_ms = engine.renew("ada", "r1", hold_ms=60_000, now_ms=NOW_MS + 30_000)
    holds = engine.usage("ada", now_ms=NOW_MS + 30_000).holds
    settled = engine.settle("ada", "r1", outcome=Outcome.COMMIT, draws={"prompt": 3}, now_ms=NOW_MS + 40_000)
    adjusted = engine.adjust_usage("ada", pool="prompts", micro=-500_000, reason="x", now_ms=NOW_MS + 50_000)

    assert NOW_MS + 60_000 == admitted.hold_expires_at_ms
    assert NOW_MS + 90_000 == renewed_ms
    assert [("r1", "GLM-4.7", NOW_MS, NOW_MS + 90_000)] == [
        (hold.request_id, hold.model, hold.admitted_at_ms, hold.expires_at_ms) for hold in holds
    ]
    assert ({"prompts": 2_000_000}, {}, False) == (settled.charged, settled.refunded, settled.late)
    assert {"prompts-5h": -500_000, "prompts-week": -500_000} == adjusted.moved
    assert [2_500_000, 2_500_000] == [limit.used_micro for limit in adjusted.limits]
    with pytest.raises(NotFound):
        engine.adjust_usage("nobody", pool="prompts", micro=1, reason="x")
