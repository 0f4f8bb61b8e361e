"""Small catalogs for tests of the core: one pool, two meters, the limits that the test names."""

from __future__ import annotations

from quota import Engine

START_MS = 1_772_323_200_000  # 2026-03-01 00:00 UTC, a Sunday


def catalog_text(limits: str, *, name: str = "small", extra: str = "", zone: str = "UTC", models: str = "m: {}") -> str:
    """A catalog whose plan `only` has these limits on pool `p`, drawn on by meters `unit` and `tenth`."""
    return f"""catalog: {name}
time_zone: {zone}
meters:
  unit: {{pool: p, weighted: true, per_prompt: true}}
  tenth: {{pool: p, per_unit: 1/10, weighted: true}}
default_meter: unit
models:
  {models}
{extra}
plans:
  only:
    level: 1
    pools:
      p: {limits}
"""


def engine_with(limits: str, **more: str) -> Engine:
    """An engine with that catalog and account `ada` on its plan since START_MS."""
    engine = Engine([catalog_text(limits, **more)])
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS, now_ms=START_MS)
    return engine
