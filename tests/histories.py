"""Random histories, told to the engine and to both oracles at once: every answer is compared, and all usage after every step.

A step is one request, settlement or renewal, or one change to an account, a catalog, the capacity or the clock. What happened is kept
as lines of text, so that a failure shows the whole history, and a smaller one can be made of it by hand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from typing import Any

from drawn_catalogs import IDS, ZONES, Dice, base_time, catalog_text, chance
from drawn_requests import ACCOUNTS, REQUEST_IDS, DrawnRequests, drawn_bounds
from oracle import Answer, Ask, FullLogs, Invalid, Wrong
from oracle.admissions import REMEMBERED_FOR
from oracle.wall import DAY, HOUR, SECOND, wall_clock
from worlds import EngineWorld, OracleWorld

from quota.types import Bounds, Settlement

PACES = (0, 1, 999, 1000, SECOND, 30 * SECOND, 600 * SECOND, HOUR, 5 * HOUR, DAY, 8 * DAY, 40 * DAY)
PROMISES_KEPT = 20
LIFE = 7000 * DAY


class Disagreement(AssertionError):
    """The engine and an oracle do not agree. The message holds the history that led there."""


class History:
    """One engine, one oracle, one set of full logs, and the time; moved on step by step as the dice say."""

    def __init__(self, dice: Dice, bounds: Bounds | None = None) -> None:
        self.dice = dice
        self.bounds = bounds or drawn_bounds(dice)
        self.engine, self.oracle = EngineWorld(self.bounds), OracleWorld(self.bounds)
        self.full_logs = FullLogs(self.oracle.oracle)
        self.lines: list[str] = [str(self.bounds)]
        self.verdicts: Counter[str] = Counter()
        self.steps = 0
        self.zones = {"first": dice.pick(ZONES), "second": dice.pick(ZONES)}
        self.base = self.now = base_time(dice, wall_clock(self.zones["first"]))
        self.promises = [self.base]
        """Instants that answers spoke of, in microseconds: good times to be at."""
        self.drawn = DrawnRequests(dice)
        for name in self.zones:
            self.change_catalog(name)
        for account in ACCOUNTS:
            self.put_account(account)

    def run(self, steps: int) -> None:
        while self.steps < steps:
            self.step()

    def step(self) -> None:
        self.steps += 1
        self.pass_time()
        action = self.dice.whole(1, 100)
        if action <= 40:
            self.request(self.drawn.ask())
        elif action <= 50:
            self.rush()
        elif action <= 55:
            self.batch()
        elif action <= 75:
            self.stream()
        elif action <= 80:
            self.settle()
        elif action <= 82:
            self.renew()
        elif action <= 85:
            self.adjust()
        elif action <= 87:
            self.change_capacity()
        elif action <= 94:
            self.put_account(self.dice.pick(ACCOUNTS))
        else:
            self.change_catalog(self.dice.pick(list(self.zones)))
        self.compare_usage()

    # ---- What may happen ----

    def pass_time(self) -> None:
        way = self.dice.whole(1, 10)
        if way <= 5:
            self.now += self.dice.whole(0, 10) * self.dice.pick(
                PACES[:9] if self.now - self.base < 400 * DAY else PACES[:7]
            )
        elif way <= 8:
            self.now = max(
                self.now - DAY, self.dice.pick(self.promises) + self.dice.pick([-1000, -1, 0, 0, 0, 1, 1000])
            )
        elif way == 9:
            self.now -= self.dice.pick(PACES[:8])
        else:
            self.now += self.dice.pick(PACES)

    def request(self, ask: Ask) -> None:
        look = self.full_logs.look(ask, self.now)
        charge = not chance(self.dice, 15)
        self.note(f"{'admit' if charge else 'peek'} {ask}")
        if charge:
            given, due = self.engine.admit(ask, self.now), self.oracle.admit(ask, self.now)
        else:
            given, due = self.engine.peek(ask, self.now), self.oracle.peek(ask, self.now)
        self.compare_answers(ask, look, given, due, charge=charge)

    def rush(self) -> None:
        """The same request again and again, a little later each time: logs fill and are merged."""
        ask, pace = self.drawn.ask(), self.dice.pick(PACES[:7])
        for i in range(self.dice.whole(2, 12)):
            self.steps += 1
            self.now += self.dice.whole(0, 20) * pace
            self.request(replace(ask, request_id=REQUEST_IDS[i % len(REQUEST_IDS)]) if ask.request_id else ask)

    def stream(self) -> None:
        """A call with an id, what happens while it is in flight, and its end."""
        ask, pace = self.drawn.stream(), self.dice.pick(PACES[:6])
        self.request(ask)
        for _ in range(self.dice.whole(0, 4)):
            self.steps += 1
            self.now += self.dice.whole(0, 4) * pace
            meanwhile = self.dice.whole(1, 10)
            if meanwhile <= 4:
                self.renew(ask)
            elif meanwhile <= 8:
                self.request(replace(self.drawn.ask(), account=ask.account, prompt_id=ask.prompt_id))
            else:
                self.adjust()
        for _ in range(self.dice.pick([1, 1, 2])):
            self.settle(ask)

    def batch(self) -> None:
        asks = [self.drawn.ask() for _ in range(self.dice.whole(1, 5))]
        self.note(f"admit_many {asks}")
        for ask, given in zip(asks, self.engine.admit_many(asks, self.now), strict=True):
            look = self.full_logs.look(ask, self.now)
            self.compare_answers(ask, look, given, self.oracle.admit(ask, self.now), charge=True)

    def settle(self, ask: Ask | None = None) -> None:
        account, request_id, outcome, draws = self.drawn.settlement(ask)
        self.note(f"settle {account} {request_id} {outcome!r} {draws}")
        given = self.engine.settle(account, request_id, outcome, draws, self.now)
        self.compare(given, self.oracle.settle(account, request_id, outcome, draws, self.now))
        if isinstance(given, Settlement):
            self.promise(self.now // 1000, REMEMBERED_FOR)
            self.full_logs.settle(account, self.oracle.oracle.moves)

    def renew(self, ask: Ask | None = None) -> None:
        account, request_id, _ = self.drawn.known_id(ask)
        hold_ms = self.dice.pick([0, 1, 1000, 60_000, 600_000, 3_600_000])
        self.note(f"renew {account} {request_id} {hold_ms}")
        given = self.engine.renew(account, request_id, hold_ms, self.now)
        self.compare(given, self.oracle.renew(account, request_id, hold_ms, self.now))
        if isinstance(given, int):
            self.promise(given)

    def adjust(self) -> None:
        dice = self.dice
        account = dice.pick(ACCOUNTS)
        where = (
            {"pool": dice.pick(["pieces", "stamps"])} if chance(dice, 50) else {"limit_id": dice.pick([*IDS, "pace"])}
        )
        micro = dice.pick([1, 500_000, 1_000_000, 3_000_000, 50_000_000]) * dice.pick([-1, -1, 1])
        self.note(f"adjust {account} {micro} {where}")
        given = self.engine.adjust(account, micro, "drawn", self.now, **where)
        self.compare(given, self.oracle.adjust(account, micro, "drawn", self.now, **where))
        if not isinstance(given, Wrong):
            self.full_logs.adjust(account, self.oracle.oracle.moves)

    def change_capacity(self) -> None:
        factor_micro = self.dice.pick([0, 250_000, 333_333, 500_000, 999_999, 1_000_000, 1_000_000])
        self.note(f"capacity {factor_micro}")
        self.engine.set_capacity(factor_micro)
        self.oracle.set_capacity(factor_micro)

    def put_account(self, id: str) -> None:
        dice = self.dice
        subscribed_at = dice.pick([0, 0, self.base, self.now - 3 * DAY, self.now, self.now + HOUR]) // 1000 * 1000
        expires_at = dice.pick([0] * 6 + [self.now + 2 * HOUR, self.now + 20 * DAY]) // 1000 * 1000
        old = self.oracle.oracle.subscribers.get(id)
        if expires_at <= (subscribed_at or (old.subscribed_at if old else self.now)):
            expires_at = 0
        change = {"catalog": dice.pick(list(self.zones)), "plan": dice.pick(["bench", "hall"]), "now": self.now,
                  "subscribed_at": subscribed_at, "expires_at": expires_at, "overrides": self.drawn.overrides()}  # fmt: skip
        self.note(f"put {id} {change}")
        given, due = self.engine.put(id, **change), self.oracle.put(id, **change)
        self.compare(given, due)
        if due is not None and old is None:
            self.put_account(id)  # Refused for its overrides; the histories need the account.

    def change_catalog(self, name: str) -> None:
        text = catalog_text(self.dice, name, self.zones[name], self.base)
        self.note(f"load {text}")
        self.oracle.load(text, self.engine.load(text))

    # ---- What must hold ----

    def note(self, line: str) -> None:
        self.lines.append(f"at {self.now}: {line}")

    def compare(self, given: Any, due: Any) -> None:
        if given != due:
            self.fail(differences(given, due))
        if given is not None:
            self.verdicts[in_words(given)] += 1

    def compare_answers(self, ask: Ask, look, given: Answer | Wrong, due: Answer | Wrong, *, charge: bool) -> None:
        self.compare(given, due)
        if isinstance(given, Wrong):
            return
        if given.resets_at_ms is not None:
            self.promise(given.resets_at_ms)
        if given.hold_expires_at_ms is not None:
            self.promise(given.hold_expires_at_ms)
        if given.allowed and charge:
            self.promise_ends(ask, given)
        try:
            self.full_logs.follow(look, given, charge=charge)
        except AssertionError as error:
            self.fail(f"full log: {error}")

    def promise_ends(self, ask: Ask, given: Answer) -> None:
        """When an id is forgotten, and when a prompt dies."""
        oracle = self.oracle.oracle
        if ask.request_id and chance(self.dice, 30):
            self.promise(given.hold_expires_at_ms or oracle.account_now(ask.account, self.now) // 1000, REMEMBERED_FOR)
        if ask.prompt_id and chance(self.dice, 30):
            inquiry = oracle.inquiry(ask)
            if inquiry.prompt is not None:
                self.promise(0, inquiry.prompt.dies_at(inquiry.plan) - 1)

    def compare_usage(self) -> None:
        for account in ACCOUNTS:
            given, due = self.engine.usage(account, self.now), self.oracle.usage(account, self.now)
            if given != due:
                self.fail(f"usage of {account}:\n{differences(given, due)}")
            for state in given.limits:
                if state.resets_at_ms is not None and chance(self.dice, 10):
                    self.promise(self.dice.pick([state.resets_at_ms, state.full_at_ms]))
        if self.engine.forgotten() != self.oracle.forgotten():
            self.fail(f"forgotten: engine {self.engine.forgotten()}, oracle {self.oracle.forgotten()}")

    def promise(self, at_ms: int, later: int = 0) -> None:
        if at_ms * 1000 < self.base + LIFE:  # A debt may last for thousands of years.
            self.promises = [*self.promises[-PROMISES_KEPT:], at_ms * 1000 + later]

    def fail(self, what: str) -> None:
        raise Disagreement("\n".join([*self.lines, what]))


def in_words(given: Any) -> str:
    """What the campaign counts it as."""
    if isinstance(given, Answer):
        return given.verdict.name
    return f"INVALID {given.field}" if isinstance(given, Invalid) else type(given).__name__


def differences(given: Any, due: Any) -> str:
    if type(given) is not type(due) or not is_dataclass(given):
        return f"  engine {given}\n  oracle {due}"
    return "\n".join(
        f"  {field.name}: engine {getattr(given, field.name)}, oracle {getattr(due, field.name)}"
        for field in fields(given)
        if getattr(given, field.name) != getattr(due, field.name)
    )
