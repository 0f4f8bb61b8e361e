"""Catalogs drawn by lot: small limits, short logs, odd zones, and dates near the time at which a history plays.

`Dice` says how a choice is made; hypothesis and a plain random generator both can. A drawing with the same name and another
outcome is the same catalog changed: the limit ids stay, their windows, limits and places do not.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from oracle.wall import SECOND, WallClock, utc_us

ZONES = ("Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "Africa/Casablanca")
MODELS = ("Oak", "oak", "PINE", "wood-1", "wood-light", "Fir", "gpt-9", "")
TOOLS = ("Saw", "plane", "hammer", "curl", "")
ENDPOINTS = ("", "", "/shop", "/saw/", "/nowhere")
DRAWS = (("piece",), ("sliver",), ("order",), ("stamp",), ("piece", "stamp"), ("sliver", "order"), ("crate",), ("ghost",),
         ("piece", "sliver", "order", "stamp"), ("piece", "ghost"))  # fmt: skip
REFUSALS = (
    "ACCOUNT_UNKNOWN",
    "ACCOUNT_INACTIVE",
    "MODEL_NOT_IN_PLAN",
    "METER_NOT_IN_PLAN",
    "AMOUNT_TOO_LARGE",
    "LIMIT_EXHAUSTED",
    "BURST",
    "CONCURRENCY",
    "OVERLOADED",
)
IDS = ("fast", "slow", "long", "pine", "stamps")
IN_FLIGHT = ("flight", "woods")
SLIDING = (
    ("1h", ""),
    ("5h", ""),
    ("5h", ""),
    ("100s", ""),
    ("7d", ""),
    ("5h", "1h"),
    ("3h", "30m"),
    ("2d", "6h"),
    ("7d", "1d"),
    ("2h", "40m"),
)


class Dice(Protocol):
    def pick(self, faces: Sequence[Any]) -> Any: ...

    def whole(self, low: int, high: int) -> int: ...


class RandomDice:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, faces: Sequence[Any]) -> Any:
        return self.random.choice(faces)

    def whole(self, low: int, high: int) -> int:
        return self.random.randint(low, high)


def chance(dice: Dice, percent: int) -> bool:
    return dice.whole(1, 100) > 100 - percent


def some(dice: Dice, things: Sequence[Any]) -> list[Any]:
    """At least one of them, in their order."""
    return [thing for thing in things if chance(dice, 50)] or [dice.pick(things)]


def base_time(dice: Dice, clock: WallClock) -> int:
    """When a history begins: often shortly before clocks change, or at the end of a short month."""
    changes = [change for change in clock.changes if utc_us(2024, 1, 1) < change < utc_us(2030, 1, 1)]
    plain = [utc_us(2026, 1, 30), utc_us(2027, 12, 31), utc_us(2028, 2, 28), utc_us(2026, 3, 2)]
    return dice.pick(changes + plain if chance(dice, 70) else plain) - dice.whole(0, 72) * 1800 * SECOND


def moment(dice: Dice, base: int) -> str:
    """A date within a few days of the history's beginning, as a catalog writes it."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=base) + timedelta(hours=dice.whole(-48, 400))
    return at.strftime(dice.pick(["%Y-%m-%d", "%Y-%m-%dT%H:00", "%Y-%m-%dT02:30"]))


def dates(dice: Dice, base: int) -> dict[str, str]:
    bounds = sorted([moment(dice, base), moment(dice, base)])
    chosen = dice.pick(["", "from", "until", "both"])
    found = {"from": bounds[0]} if chosen in ("from", "both") else {}
    if chosen == "until" or (chosen == "both" and bounds[0][:10] < bounds[1][:10]):
        found["until"] = bounds[1]
    return found


def members(dice: Dice, base: int) -> list[Any]:
    return [dice.pick([plan, {"plan": plan, **dates(dice, base)}]) for plan in some(dice, ["bench", "hall"])]


def sliding(dice: Dice) -> dict[str, Any]:
    length, step = dice.pick(SLIDING)
    return {"sliding": length, "step": step} if step else {"sliding": length}


def periodic(dice: Dice, kind: str) -> dict[str, Any]:
    if kind == "cycle":
        return {"cycle": dice.pick(["10m", "5h", "1d", "7d"])}
    if kind == "anniversary":
        return {"anniversary": dice.pick(["5h", "1d", "7d", "1mo", "3mo", "1y"])}
    unit = dice.pick(["hour", "day", "week", "month"])
    window: dict[str, Any] = {
        "calendar": unit,
        "at": dice.pick(["00:00", "00:30"] if unit == "hour" else ["00:00", "02:30", "10:00"]),
    }
    if unit == "week":
        window["on"] = dice.pick(["monday", "sunday"])
    if unit == "month":
        window["on"] = dice.pick([1, 30, 31])
    return window


def limit(dice: Dice, id: str, kind: str, scale: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": id, "window": sliding(dice) if kind == "sliding" else periodic(dice, kind)}
    entry["limit"] = dice.pick([scale, 2 * scale, 10 * scale, f"{scale}.5"])
    if kind == "sliding":
        entry["entries"] = dice.pick([4, 5, 8, 8, 64]) if "step" not in entry["window"] else dice.pick([16, 64])
    if chance(dice, 15):
        entry["models"] = dice.pick([["Oak"], ["P*"], ["Oak", "Fir"]])
    if chance(dice, 15):
        entry["tools"] = dice.pick([["saw"], ["Plane", "hammer"]])
    if chance(dice, 15):
        entry["refusal"] = {"code": f"OWN-{id}", "message": "${number} ${unit} until ${next_flush_time}"}
    return entry


def plan(dice: Dice, level: int, kinds: dict[str, str]) -> dict[str, Any]:
    pools: dict[str, Any] = {}
    for pool, ids in (("pieces", IDS[:4]), ("stamps", IDS[4:])):
        if chance(dice, 90):
            pools[pool] = [limit(dice, id, kinds[id], level * dice.whole(3, 8)) for id in ids if chance(dice, 60)]
    found: dict[str, Any] = {"level": level, "pools": pools}
    if chance(dice, 40) and "pieces" in pools:
        rate = dice.pick(["10/1m", "1/7s", "0.3/1h", "7/13s", "100/1d"])
        found["burst"] = {"id": "pace", "pool": "pieces", "rate": rate, "depth": dice.whole(3, 12)}
    return found | prompts_and_holds(dice) | ({"concurrency": concurrency(dice)} if chance(dice, 60) else {})


def prompts_and_holds(dice: Dice) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chance(dice, 50):
        found["calls_per_prompt"] = dice.pick([1, 2, 3, 5])
    if chance(dice, 60):
        found["prompt_idle"] = dice.pick(["1s", "30s", "10m", "3h", "1d"])
    if chance(dice, 30):
        found["hold_default"] = dice.pick(["1s", "2m", "15m", "1h"])
    return found


def concurrency(dice: Dice) -> list[dict[str, Any]]:
    """Alternatives of one id need not stand together."""
    found = []
    for _ in range(dice.whole(1, 5)):
        entry: dict[str, Any] = {"id": dice.pick(IN_FLIGHT), "limit": dice.pick([1, 2, 2, 3, 5])}
        if chance(dice, 40):
            entry["models"] = dice.pick([["Oak"], ["P*"], ["Oak", "Fir"]])
        if chance(dice, 40):
            entry["when"] = dice.pick(["peak", "night", "weekend"])
        found.append(entry)
    return found


def weights(dice: Dice, base: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(dice.whole(0, 4)):
        entry: dict[str, Any] = {"weight": dice.pick([1, 2, 3, 0.5, 0.67, "2/3", 1.5, 40])}
        if chance(dice, 60):
            entry["when"] = dice.pick(["peak", "night", "weekend"])
        if chance(dice, 25):
            entry["tool"] = dice.pick(["saw", "plane"])
        if chance(dice, 50):
            entry |= dates(dice, base)
        found.append(entry)
    return found


def catalog_text(dice: Dice, name: str, zone: str, base: int) -> str:
    """One catalog as JSON, which is YAML too. It has the same plans and limit ids whatever the dice say."""
    folded = dice.pick([(), ("piece",), ("piece", "sliver"), ("order",), ("piece", "sliver", "order", "crate")])
    kinds = {id: dice.pick(["sliding", "sliding", "cycle", "calendar", "anniversary"]) for id in IDS}
    catalog: dict[str, Any] = {
        "catalog": name,
        "time_zone": zone,
        "meters": {
            "piece": {"pool": "pieces", "weighted": True},
            "sliver": {"pool": "pieces", "per_unit": dice.pick(["1/3", "1/20", "1/1000000", "0.7"]), "weighted": True},
            "order": {"pool": ["pieces", "stamps"], "per_unit": dice.pick([1, 2])},
            "stamp": {"pool": "stamps", **({"plans": members(dice, base)} if chance(dice, 25) else {})},
            "crate": {"pool": "pieces", "per_unit": 5000, "weighted": True},
        },
        "default_meter": "piece",
        "schedules": {
            "peak": [{"daily": dice.pick(["14:00-18:00", "02:15-02:45", "01:30-03:10"])}],
            "night": [{"daily": "22:00-06:00"}],
            "weekend": [{"daily": "00:00-24:00", "on": ["saturday", "sunday"]}],
        },
        "models": {
            "Oak": {"aliases": ["wood-*", "timber"], "weights": weights(dice, base)},
            "Pine": {"aliases": ["wood-light", "wood-l*"], "weights": weights(dice, base)},
            "Fir": {"weights": weights(dice, base)},
        },
        "plans": {"bench": plan(dice, 1, kinds), "hall": plan(dice, 3, kinds)},
    }
    for meter in folded:
        catalog["meters"][meter]["per_prompt"] = True
    for model in ("Pine", "Fir"):
        if chance(dice, 40):
            catalog["models"][model]["plans"] = members(dice, base)
    if chance(dice, 70):
        catalog["endpoints"] = ["/shop", "/saw"]
        catalog["tools"] = ["Hammer", "plane", {"name": "saw", "endpoints": ["/saw"]}]
    if chance(dice, 50):
        words = "${number} ${unit} of ${model_name} at ${next_flush_time}"
        catalog["refusals"] = {
            verdict: {"code": f"OWN-{verdict}", "message": f"{verdict} {words}"} for verdict in REFUSALS
        }
        catalog["refusals"]["CONCURRENCY"]["retry_after"] = dice.pick(["1s", "3s", "1m"])
    if "refusals" in catalog:
        catalog["refusals"]["METER_NOT_IN_PLAN"]["message"] = "no ${meter} until ${next_flush_time}"
    return json.dumps(catalog, indent=1)
