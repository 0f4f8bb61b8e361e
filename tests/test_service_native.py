"""The native service: the same bytes as the reference handlers, or a call handed to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drawn_catalogs import ZONES, RandomDice, base_time, catalog_text, chance
from drawn_requests import ACCOUNTS, DrawnRequests, drawn_bounds
from fronts import BATCH_ITEMS_MAX, Fronts
from google.protobuf.message import Message
from oracle import Ask
from oracle.wall import DAY, HOUR, SECOND, wall_clock
from plans import START_MS
from plans import catalog_text as small_catalog
from shelf import Shelf

from quota import FailedPrecondition, InvalidArgument, Mode, Outcome
from quota._core import SERVED_METHODS, Service
from quota.v1 import quota_pb2

PACES = (0, 1, 999, 1000, SECOND, 30 * SECOND, 600 * SECOND, HOUR, 5 * HOUR, DAY)
LIMITS = "[{id: s, window: {sliding: 1h}, limit: 50}, {id: c, window: {cycle: 2h}, limit: 40}]"
ODD: tuple[dict[str, Any], ...] = (
    {"account": ""}, {"account": "a" * 257}, {"model": "m" * 257}, {"tool": "t" * 300}, {"endpoint": "/" * 257},
    {"request_id": "r" * 257}, {"prompt_id": "p" * 257}, {"client": "c" * 257}, {"mode": 2}, {"mode": -1},
    {"hold_ms": -1, "request_id": "r"}, {"hold_ms": 3_600_001, "request_id": "r"}, {"hold_ms": 1, "request_id": ""},
    {"draws": [quota_pb2.Draw(meter="piece", amount=10**9 + 1)]}, {"draws": [quota_pb2.Draw(amount=1)]},
    {"draws": [quota_pb2.Draw(meter="x" * 257)]}, {"draws": [quota_pb2.Draw(meter="piece")] * 2},
    {"draws": [quota_pb2.Draw(meter=f"m{i}") for i in range(17)]},
)  # fmt: skip
EVEN: tuple[dict[str, Any], ...] = (
    {"account": "ü" * 128}, {"model": "松" * 85}, {"model": "${meter} ${number}"}, {"endpoint": "/"}, {"endpoint": "//"},
    {"client": "c" * 256}, {"request_id": "🌲" * 64}, {"draws": [quota_pb2.Draw(meter="${unit}", amount=1)]},
    {"draws": [quota_pb2.Draw(meter=f"m{i}") for i in range(16)]}, {"tool": "Säge"}, {"explain": True},
)  # fmt: skip


def message_of(ask: Ask) -> quota_pb2.AdmitRequest:
    return quota_pb2.AdmitRequest(
        account=ask.account, model=ask.model, tool=ask.tool, endpoint=ask.endpoint,
        mode=quota_pb2.Mode.ValueType(ask.mode),
        draws=[quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in (ask.draws or {}).items()],
        request_id=ask.request_id, prompt_id=ask.prompt_id, hold_ms=ask.hold_ms, client=ask.client, explain=ask.explain,
    )  # fmt: skip


class Messages:
    """A history of messages, told to both fronts."""

    def __init__(self, seed: int) -> None:
        self.dice = RandomDice(seed)
        self.zones = {"first": self.dice.pick(ZONES), "second": self.dice.pick(ZONES)}
        self.base = base_time(self.dice, wall_clock(self.zones["first"]))
        self.drawn = DrawnRequests(self.dice)
        self.fronts = Fronts([self.catalog(name) for name in self.zones], drawn_bounds(self.dice))
        self.fronts.hands.us = self.base
        for account in ACCOUNTS:
            self.put(account)

    def catalog(self, name: str) -> str:
        return catalog_text(self.dice, name, self.zones[name], self.base)

    def step(self) -> None:
        dice, fronts = self.dice, self.fronts
        fronts.hands.us += dice.pick(PACES) * dice.whole(-1, 8)
        what = dice.whole(1, 100)
        if what <= 35:
            fronts.ask("Admit" if chance(dice, 80) else "Peek", self.message())
        elif what <= 45:
            fronts.ask("Admit", message_of(self.drawn.stream()))
        elif what <= 60:
            items = [self.message() for _ in range(dice.whole(0, BATCH_ITEMS_MAX + 1))]
            fronts.ask("AdmitBatch", quota_pb2.AdmitBatchRequest(requests=items))
        elif what <= 75:
            fronts.ask("Settle", self.settlement())
        elif what <= 80:
            account, request_id, _ = self.drawn.known_id()
            hold_ms = dice.pick([0, -1, 1, 1000, 60_000, 600_000, 3_600_000, 3_600_001])
            fronts.ask("Renew", quota_pb2.RenewRequest(account=account, request_id=request_id, hold_ms=hold_ms))
        elif what <= 90:
            account = dice.pick(["eve", "", "a" * 257, *ACCOUNTS * 3])
            fronts.ask("GetUsage", quota_pb2.GetUsageRequest(account=account))
        else:
            self.change()

    def message(self) -> quota_pb2.AdmitRequest:
        message = message_of(self.drawn.ask())
        if chance(self.dice, 10):
            for field, value in self.dice.pick(ODD if chance(self.dice, 30) else EVEN).items():
                message.ClearField(field)
                getattr(message, field).extend(value) if field == "draws" else setattr(message, field, value)
        return message

    def settlement(self) -> Message:
        account, request_id, outcome, draws = self.drawn.settlement()
        return quota_pb2.SettleRequest(
            account=account, request_id=request_id, outcome=quota_pb2.Outcome.ValueType(outcome),
            draws=[quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in (draws or {}).items()],
        )  # fmt: skip

    def change(self) -> None:
        """Something beside the data port, the same to both engines."""
        what = self.dice.whole(1, 4)
        if what == 1:
            self.put(self.dice.pick(ACCOUNTS))
        elif what == 2:
            factor = self.dice.pick(["0", "0.25", "0.5", "1", "1"])
            for engine in self.fronts.engines:
                engine.set_capacity(factor)
        else:
            self.both("load_catalog", self.catalog(self.dice.pick(list(self.zones))))

    def put(self, account: str) -> None:
        now_ms = self.fronts.hands.us // 1000
        start, length = self.dice.pick([0, 0, now_ms - 86_400_000, now_ms + 3_600_000]), self.dice.pick([0, 0, 0, 7])
        self.both(
            "put_account", account, catalog=self.dice.pick(list(self.zones)), plan=self.dice.pick(["bench", "hall"]),
            subscribed_at_ms=start, expires_at_ms=length and max(start, now_ms) + length * 3_600_000,
            overrides=self.drawn.overrides(),
        )  # fmt: skip

    def both(self, method: str, *values: Any, **more: Any) -> None:
        outcomes = []
        for engine in self.fronts.engines:
            try:
                outcomes.append(getattr(engine, method)(*values, **more))
            except (InvalidArgument, FailedPrecondition) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


SEEN: dict[str, int] = {}


@pytest.mark.parametrize("seed", range(40))
def test_the_same_bytes_as_the_reference(seed):
    """Random messages of every method, good and bad: the same bytes, and handed over is what raises and nothing else."""
    history = Messages(seed)
    for _ in range(150):
        history.step()
    history.fronts.compare_states()
    for what, count in history.fronts.seen.items():
        SEEN[what] = SEEN.get(what, 0) + count


def test_histories_meet_every_verdict_and_method():
    """The histories above would not say much otherwise."""
    history = Messages(1)
    seeds = iter(range(1000, 1060))
    due = {
        "ALLOWED", "ACCOUNT_UNKNOWN", "ACCOUNT_INACTIVE", "SUBSCRIPTION_EXPIRED", "TOOL_UNSUPPORTED", "ENDPOINT_UNSUPPORTED", "MODEL_UNKNOWN",
        "MODEL_NOT_IN_PLAN", "METER_NOT_IN_PLAN", "AMOUNT_TOO_LARGE", "LIMIT_EXHAUSTED", "BURST", "CONCURRENCY", "OVERLOADED",
    }  # fmt: skip
    print(SEEN)
