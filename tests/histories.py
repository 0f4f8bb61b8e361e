"""Random histories, told to the engine and to both oracles at once: every answer is compared, and all usage after every step.

A step is one request, or one change to an account, a catalog or the clock. What happened is kept as lines of text, so that a failure
shows the whole history, and a smaller one can be made of it by hand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from drawn_catalogs import DRAWS, ENDPOINTS, MODELS, TOOLS, ZONES, Dice, base_time, catalog_text, chance
from oracle import Answer, Ask, FullLogs, Invalid
from oracle.wall import DAY, HOUR, SECOND, wall_clock
from worlds import EngineWorld, OracleWorld

ACCOUNTS = ("ada", "ben")
PACES = (0, 1, 999, 1000, SECOND, 30 * SECOND, 600 * SECOND, HOUR, 5 * HOUR, DAY, 8 * DAY, 40 * DAY)
PROMISES_KEPT = 20


class Disagreement(AssertionError):
    """The engine and an oracle do not agree. The message holds the history that led there."""


class History:
    """One engine, one oracle, one set of full logs, and the time; moved on step by step as the dice say."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.engine, self.oracle = EngineWorld(), OracleWorld()
        self.full_logs = FullLogs(self.oracle.oracle)
        self.lines: list[str] = []
        self.verdicts: Counter[str] = Counter()
        self.steps = 0
        self.zones = {"first": dice.pick(ZONES), "second": dice.pick(ZONES)}
        self.base = self.now = base_time(dice, wall_clock(self.zones["first"]))
        self.promises = [self.base]
        """Instants that answers spoke of, in microseconds: good times to be at."""
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
        if action <= 60:
            self.request(self.ask())
        elif action <= 75:
            self.rush()
        elif action <= 82:
            self.batch()
        elif action <= 92:
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
            self.now = max(self.now - DAY, self.dice.pick(self.promises) + self.dice.pick([-1000, -1, 0, 0, 0, 1000]))
        elif way == 9:
            self.now -= self.dice.pick(PACES[:8])
        else:
            self.now += self.dice.pick(PACES)

    def ask(self) -> Ask:
        dice = self.dice
        draws = None
        if chance(dice, 80):
            amounts = [0, 1, 1, 1, 2, 3, 5, 8, 30, 10**9] if chance(dice, 30) else [1, 1, 2]
            draws = {meter: dice.pick(amounts) for meter in dice.pick(DRAWS if chance(dice, 30) else DRAWS[:4])}
        return Ask(
            dice.pick(ACCOUNTS) if chance(dice, 98) else "eve",
            model=dice.pick(MODELS if chance(dice, 20) else MODELS[:4]),
            tool=dice.pick(TOOLS if chance(dice, 10) else TOOLS[:3]),
            endpoint=dice.pick(ENDPOINTS) if chance(dice, 10) else "",
            draws=draws,
            explain=chance(dice, 30),
        )

    def request(self, ask: Ask) -> None:
        if chance(self.dice, 15):
            self.note(f"peek {ask}")
            self.compare(ask, self.engine.peek(ask, self.now), self.oracle.peek(ask, self.now), charge=False)
        else:
            self.note(f"admit {ask}")
            self.compare(ask, self.engine.admit(ask, self.now), self.oracle.admit(ask, self.now), charge=True)

    def rush(self) -> None:
        """The same request again and again, a little later each time: logs fill and are merged."""
        ask, pace = self.ask(), self.dice.pick(PACES[:7])
        for _ in range(self.dice.whole(2, 12)):
            self.steps += 1
            self.now += self.dice.whole(0, 20) * pace
            self.request(ask)

    def batch(self) -> None:
        asks = [self.ask() for _ in range(self.dice.whole(1, 5))]
        self.note(f"admit_many {asks}")
        for ask, given in zip(asks, self.engine.admit_many(asks, self.now), strict=True):
            self.compare(ask, given, self.oracle.admit(ask, self.now), charge=True)

    def put_account(self, id: str) -> None:
        dice = self.dice
        subscribed_at = dice.pick([0, 0, self.base, self.now - 3 * DAY, self.now, self.now + HOUR]) // 1000 * 1000
        expires_at = dice.pick([0, 0, 0, self.now + 2 * HOUR, self.now + 20 * DAY]) // 1000 * 1000
        old = self.oracle.oracle.subscribers.get(id)
        if expires_at <= (subscribed_at or (old.subscribed_at if old else self.now)):
            expires_at = 0
        change = {"catalog": dice.pick(list(self.zones)), "plan": dice.pick(["bench", "hall"]), "now": self.now,
                  "subscribed_at": subscribed_at, "expires_at": expires_at}  # fmt: skip
        self.note(f"put {id} {change}")
        self.engine.put(id, **change)
        self.oracle.put(id, **change)

    def change_catalog(self, name: str) -> None:
        text = catalog_text(self.dice, name, self.zones[name], self.base)
        self.note(f"load {text}")
        self.oracle.load(text, self.engine.load(text))

    # ---- What must hold ----

    def note(self, line: str) -> None:
        self.lines.append(f"at {self.now}: {line}")

    def compare(self, ask: Ask, given: Answer | Invalid, due: Answer | Invalid, *, charge: bool) -> None:
        if given != due:
            self.fail(differences(given, due))
        if isinstance(given, Invalid):
            self.verdicts["INVALID"] += 1
            return
        self.verdicts[given.verdict.name] += 1
        if given.resets_at_ms is not None:
            self.promise(given.resets_at_ms)
        if ask.account in self.oracle.oracle.subscribers:
            try:
                self.full_logs.follow(ask, self.now, given, charge=charge)
            except AssertionError as error:
                self.fail(f"full log: {error}")

    def compare_usage(self) -> None:
        for account in ACCOUNTS:
            given, due = self.engine.usage(account, self.now), self.oracle.usage(account, self.now)
            if given != due:
                self.fail(f"usage of {account}:\n  engine {given}\n  oracle {due}")
            for state in given:
                if state.resets_at_ms is not None and chance(self.dice, 10):
                    self.promise(self.dice.pick([state.resets_at_ms, state.full_at_ms]))

    def promise(self, at_ms: int) -> None:
        self.promises = [*self.promises[-PROMISES_KEPT:], at_ms * 1000]

    def fail(self, what: str) -> None:
        raise Disagreement("\n".join([*self.lines, what]))


def differences(given: Answer | Invalid, due: Answer | Invalid) -> str:
    if isinstance(given, Invalid) or isinstance(due, Invalid):
        return f"  engine {given}\n  oracle {due}"
    return "\n".join(
        f"  {field.name}: engine {getattr(given, field.name)}, oracle {getattr(due, field.name)}"
        for field in fields(Answer)
        if getattr(given, field.name) != getattr(due, field.name)
    )
