"""The tables in scenarios/, told to the engine and to the oracle: both must answer as written.

A scenario is a text file. Lines that begin with # are for the reader. The others are tables with | between the columns:

    catalog glm-2026
    2026-03-02 09:00 | ada takes lite
    2026-03-02 15:00 | ada draws 80 prompt on glm-4.7 | ALLOWED                       | prompts-5h 80/80
    2026-03-02 15:00 | ada draws 1 prompt on glm-4.7  | LIMIT_EXHAUSTED by prompts-5h | again 2026-03-02 20:00

A catalog is a shipped one or a file of scenarios/, perhaps edited on the way in: `catalog shop.yaml, limit: 5 -> limit: 6`. The same
name again replaces it. Times are wall-clock readings of the catalog's zone; `2nd` after one that comes twice means its second coming.

What may happen:

    ada takes lite                     and perhaps: with LIMIT UNITS and LIMIT UNITS (overrides), since TIME, until TIME
    ada draws 1 prompt + 2 vision      and perhaps, in this order: on MODEL, with TOOL (else the catalog's first one), at ENDPOINT,
                                       as REQUEST_ID, in PROMPT_ID, for 5m (a hold), by CLIENT; `0 prompt` is a check
    ada peeks ..., ada records ...     asks without drawing; tells of use that already happened (mode RECORD)
    ada commits r1, ada cancels r1     settles; `commits r1 using 2 prompt + 1 vision` says what was really used
    ada renews r1 for 10m
    support gives ada 5 of prompts back, support takes 5 of prompts-5h from ada
    capacity 0.5                       of the platform, from now on
    ada looks                          nothing; only to show how things stand

The last columns hold any number of:

    ALLOWED, VERDICT by RULE           or CONFLICT, NOT_FOUND, ENDED, INVALID FIELD
    LIMIT USED/LIMIT                   as the usage page shows it afterwards; for a concurrency limit: in flight/limit
    LIMIT resets TIME                  when something comes back, or the period ends
    LIMIT full TIME                    when everything is back
    LIMIT unlimited                    a concurrency limit that does not hold now
    N in flight                        open holds
    again TIME, no wait                when the same request will be admitted
    again in 1s                        a hint, no promise
    hold until TIME, no hold           when the hold closes by itself
    charged POOL AMOUNT                by a request, or on top by a settlement
    refunded POOL AMOUNT, late, in time    by a settlement
    moved LIMIT AMOUNT                 by support, below 0 if it was given back
    weight W, model NAME, code C, says TEXT
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from oracle import Ask, Conflict, Ended, Invalid, Unknown, Wrong
from worlds import EngineWorld, OracleWorld

import quota.catalog
from quota.catalog import SHIPPED, parse
from quota.types import Mode, Outcome

FOLDER = Path(__file__).parent / "scenarios"
SHIPPED_FOLDER = Path(quota.catalog.__file__).parent / "shipped"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: 2nd)?"
REQUEST = re.compile(
    r"(?P<draws>.+?)(?: on (?P<model>\S+))?(?: with (?P<tool>\S+))?(?: at (?P<endpoint>\S+))?(?: as (?P<id>\S+))?"
    r"(?: in (?P<prompt>\S+))?(?: for (?P<hold>\S+))?(?: by (?P<client>\S+))?"
)
UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
WORDS = {Conflict: "CONFLICT", Unknown: "NOT_FOUND", Ended: "ENDED"}


def micro(text: str) -> int:
    return int(Decimal(text) * 1_000_000)


def milliseconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * UNITS_MS[unit]


def read_draws(text: str) -> dict[str, int]:
    return {meter: int(amount) for amount, meter in (draw.split() for draw in text.split(" + "))}


class Telling:
    """One scenario told to one world."""

    def __init__(self, world) -> None:
        self.world, self.catalog, self.now, self.who, self.answer = world, None, 0, "", None

    def tell(self, line: str) -> None:
        columns = [column.strip() for column in line.split("|")]
        if columns[0].startswith("catalog "):
            self.load(*columns[0].removeprefix("catalog ").split(", "))
            return
        self.now = self.time(columns[0])
        self.who, verb, what = (columns[1] + " ").split(" ", 2)
        self.answer = None
        if self.who == "capacity":
            self.world.set_capacity(micro(verb))
        else:
            getattr(self, verb)(self.who, what.strip())
        for column in columns[2:]:
            for expectation in [column] if column.startswith("says ") else column.split(", "):
                self.expect(expectation)

    def load(self, name: str, *edits: str) -> None:
        text = (SHIPPED_FOLDER / f"{name}.yaml" if name in SHIPPED else FOLDER / name).read_text()
        for edit in edits:
            old, new = edit.split(" -> ")
            assert text.count(old) == 1, edit
            text = text.replace(old, new)
        self.catalog = parse(text)
        self.world.load(text)

    def time(self, text: str) -> int:
        fold = 1 if text.endswith(" 2nd") else 0
        moment = datetime.fromisoformat(text.removesuffix(" 2nd")).replace(
            tzinfo=ZoneInfo(self.catalog.time_zone), fold=fold
        )
        return round(Decimal(str(moment.timestamp())) * 1000) * 1000

    # ---- What may happen ----

    def takes(self, who: str, what: str) -> None:
        if who == "support":
            self.adjust(what, r"(\S+) of (\S+) from (\S+)", 1)
            return
        match = re.fullmatch(
            rf"(\S+)(?: with (\S+ \d+(?: and \S+ \d+)*))?(?: since ({TIME}))?(?: until ({TIME}))?", what
        )
        assert match, what
        plan, overrides, since, until = match.groups()
        times = {"subscribed_at": self.time(since) if since else 0, "expires_at": self.time(until) if until else 0}
        pairs = [pair.split() for pair in overrides.split(" and ")] if overrides else []
        self.answer = self.world.put(
            who, catalog=self.catalog.name, plan=plan, now=self.now, overrides={id: int(n) for id, n in pairs}, **times
        )

    def draws(self, who: str, what: str) -> None:
        self.answer = self.world.admit(self.ask(who, what), self.now)

    def records(self, who: str, what: str) -> None:
        self.answer = self.world.admit(self.ask(who, what, Mode.RECORD), self.now)

    def peeks(self, who: str, what: str) -> None:
        self.answer = self.world.peek(self.ask(who, what), self.now)

    def ask(self, who: str, what: str, mode: Mode = Mode.ENFORCE) -> Ask:
        match = REQUEST.fullmatch(what)
        assert match, what
        tool = match["tool"] or (self.catalog.tools[0].name if self.catalog.tools else "")
        return Ask(
            who, match["model"] or "", tool, match["endpoint"] or "", read_draws(match["draws"]), mode=mode,
            request_id=match["id"] or "", prompt_id=match["prompt"] or "", client=match["client"] or "",
            hold_ms=milliseconds(match["hold"]) if match["hold"] else 0,
        )  # fmt: skip

    def commits(self, who: str, what: str) -> None:
        request_id, _, used = what.partition(" using ")
        draws = read_draws(used) if used else None
        self.answer = self.world.settle(who, request_id, Outcome.COMMIT, draws, self.now)

    def cancels(self, who: str, what: str) -> None:
        self.answer = self.world.settle(who, what, Outcome.CANCEL, None, self.now)

    def renews(self, who: str, what: str) -> None:
        request_id, length = what.split(" for ")
        self.answer = self.world.renew(who, request_id, milliseconds(length), self.now)

    def gives(self, who: str, what: str) -> None:
        assert who == "support"
        account, what = what.split(" ", 1)
        self.adjust(f"{what} {account}", r"(\S+) of (\S+) back (\S+)", -1)

    def adjust(self, what: str, form: str, sign: int) -> None:
        match = re.fullmatch(form, what)
        assert match, what
        amount, place, self.who = match.groups()
        where = {"pool": place} if place in self.catalog.pools else {"limit_id": place}
        self.answer = self.world.adjust(self.who, sign * micro(amount), "as the table says", self.now, **where)

    def looks(self, who: str, what: str) -> None:
        assert what == ""

    # ---- What is expected ----

    def expect(self, text: str) -> None:
        answer = self.answer
        if match := re.fullmatch(r"[A-Z_]+(?: \S+| by \S+)?", text):
            assert text == self.in_words()
        elif match := re.fullmatch(r"(charged|refunded) (\S+) (\S+)", text):
            assert micro(match[3]) == getattr(answer, match[1]).get(match[2], 0)
        elif match := re.fullmatch(r"moved (\S+) (\S+)", text):
            assert micro(match[2]) == answer.moved.get(match[1], 0)
        elif text in ("late", "in time"):
            assert answer.late is (text == "late")
        elif match := re.fullmatch(r"weight (\S+)", text):
            assert micro(match[1]) == answer.weight_micro
        elif match := re.fullmatch(r"model (\S+)", text):
            assert match[1] == answer.model
        elif match := re.fullmatch(r"code (\S+)", text):
            assert match[1] == answer.vendor.code
        elif match := re.fullmatch(r"says (.+)", text):
            assert match[1] == answer.vendor.message
        else:
            self.expect_time(text)

    def in_words(self) -> str:
        if isinstance(self.answer, Invalid):
            return f"INVALID {self.answer.field}"
        if isinstance(self.answer, Wrong):
            return WORDS[type(self.answer)]
        return self.answer.verdict.name + (f" by {self.answer.rule}" if self.answer.rule else "")

    def expect_time(self, text: str) -> None:
        answer = self.answer
        if text == "no wait":
            assert answer.retry_after_ms is None
        elif match := re.fullmatch(r"again in (\S+)", text):
            assert (milliseconds(match[1]), None) == (answer.retry_after_ms, answer.resets_at_ms)
        elif match := re.fullmatch(rf"again ({TIME})", text):
            assert self.time(match[1]) // 1000 == answer.resets_at_ms
            assert answer.retry_after_ms == answer.resets_at_ms - self.now // 1000
        elif text == "no hold":
            assert answer.hold_expires_at_ms is None
        elif match := re.fullmatch(rf"hold until ({TIME})", text):
            assert self.time(match[1]) // 1000 == (answer if isinstance(answer, int) else answer.hold_expires_at_ms)
        else:
            self.expect_usage(text)

    def expect_usage(self, text: str) -> None:
        usage = self.world.usage(self.who, self.now)
        if match := re.fullmatch(r"(\d+) in flight", text):
            assert int(match[1]) == len(usage.holds)
        elif match := re.fullmatch(r"(\S+) unlimited", text):
            assert match[1] not in [state.id for state in usage.concurrency]
        elif match := re.fullmatch(r"(\S+) (\S+)/(\S+)", text):
            shown = {it.id: (it.used_micro, it.limit_micro) for it in usage.limits}
            shown |= {it.id: (it.in_flight * 1_000_000, it.limit * 1_000_000) for it in usage.concurrency}
            assert (micro(match[2]), micro(match[3])) == shown[match[1]]
        else:
            match = re.fullmatch(rf"(\S+) (resets|full) ({TIME}|never)", text)
            assert match, text
            limit = next(limit for limit in usage.limits if limit.id == match[1])
            at = None if match[3] == "never" else self.time(match[3]) // 1000
            assert at == (limit.resets_at_ms if match[2] == "resets" else limit.full_at_ms)


@pytest.mark.parametrize("world", [OracleWorld, EngineWorld])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_it_goes_as_written(path, world):
    """Every line of the table holds."""
    telling = Telling(world())
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            try:
                telling.tell(line)
            except AssertionError as error:
                raise AssertionError(f"{path.name}:{number}: {line.strip()}\n{error}") from error
