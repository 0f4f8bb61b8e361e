"""The tables in scenarios/, told to the engine and to the oracle: both must answer as written.

A scenario is a text file. Lines that begin with # are for the reader. The others are tables with | between the columns:

    catalog glm-2026
    2026-03-02 09:00 | ada takes lite
    2026-03-02 15:00 | ada draws 80 prompt on glm-4.7 | ALLOWED                       | prompts-5h 80/80
    2026-03-02 15:00 | ada draws 1 prompt on glm-4.7  | LIMIT_EXHAUSTED by prompts-5h | again 2026-03-02 20:00

A catalog is a shipped one or a file of scenarios/, perhaps edited on the way in: `catalog shop.yaml, limit: 5 -> limit: 6`. The same
name again replaces it. `takes` may add `since TIME` and `until TIME`. A request may add `with TOOL` (else the catalog's first one) and
`at ENDPOINT`; draws are joined by `+`; `0 prompt` is a check; `ada peeks 1 prompt` asks without drawing; `ada looks` asks nothing.
Times are wall-clock readings of the catalog's zone; `2nd` after one that comes twice means its second coming. The last columns hold
any number of:

    LIMIT USED/LIMIT       as the usage page shows it afterwards
    LIMIT resets TIME      when something comes back, or the period ends
    LIMIT full TIME        when everything is back
    again TIME, no wait    when the same request will be admitted
    charged POOL AMOUNT, weight W, model NAME, code C, says TEXT
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from oracle import Ask
from worlds import EngineWorld, OracleWorld

import quota.catalog
from quota.catalog import SHIPPED, parse

FOLDER = Path(__file__).parent / "scenarios"
SHIPPED_FOLDER = Path(quota.catalog.__file__).parent / "shipped"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: 2nd)?"
REQUEST = re.compile(r"(?P<draws>.+?)(?: on (?P<model>\S+))?(?: with (?P<tool>\S+))?(?: at (?P<endpoint>\S+))?")


def micro(text: str) -> int:
    return int(Decimal(text) * 1_000_000)


class Telling:
    """One scenario told to one world."""

    def __init__(self, world) -> None:
        self.world, self.catalog, self.now, self.answer = world, None, 0, None

    def tell(self, line: str) -> None:
        columns = [column.strip() for column in line.split("|")]
        if columns[0].startswith("catalog "):
            self.load(*columns[0].removeprefix("catalog ").split(", "))
            return
        self.now = self.time(columns[0])
        who, verb, what = (columns[1] + " ").split(" ", 2)
        self.answer = None
        getattr(self, verb)(who, what.strip())
        for column in columns[2:]:
            for expectation in [column] if column.startswith("says ") else column.split(", "):
                self.expect(who, expectation)

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

    def takes(self, who: str, what: str) -> None:
        match = re.fullmatch(rf"(\S+)(?: since ({TIME}))?(?: until ({TIME}))?", what)
        assert match, what
        plan, since, until = match.groups()
        times = {"subscribed_at": self.time(since) if since else 0, "expires_at": self.time(until) if until else 0}
        self.world.put(who, catalog=self.catalog.name, plan=plan, now=self.now, **times)

    def draws(self, who: str, what: str) -> None:
        self.answer = self.world.admit(self.ask(who, what), self.now)

    def peeks(self, who: str, what: str) -> None:
        self.answer = self.world.peek(self.ask(who, what), self.now)

    def ask(self, who: str, what: str) -> Ask:
        match = REQUEST.fullmatch(what)
        assert match, what
        draws = {meter: int(amount) for amount, meter in (draw.split() for draw in match["draws"].split(" + "))}
        tool = match["tool"] or (self.catalog.tools[0].name if self.catalog.tools else "")
        return Ask(who, model=match["model"] or "", tool=tool, endpoint=match["endpoint"] or "", draws=draws)

    def looks(self, who: str, what: str) -> None:
        assert what == ""

    def expect(self, who: str, text: str) -> None:
        if match := re.fullmatch(r"([A-Z_]+)(?: by (\S+))?", text):
            assert (match[1], match[2] or "") == (self.answer.verdict.name, self.answer.rule)
        elif match := re.fullmatch(r"charged (\S+) (\S+)", text):
            assert micro(match[2]) == self.answer.charged.get(match[1], 0)
        elif match := re.fullmatch(r"weight (\S+)", text):
            assert micro(match[1]) == self.answer.weight_micro
        elif match := re.fullmatch(r"model (\S+)", text):
            assert match[1] == self.answer.model
        elif match := re.fullmatch(r"code (\S+)", text):
            assert match[1] == self.answer.vendor.code
        elif match := re.fullmatch(r"says (.+)", text):
            assert match[1] == self.answer.vendor.message
        elif text == "no wait":
            assert self.answer.retry_after_ms is None
        elif match := re.fullmatch(rf"again ({TIME})", text):
            assert self.time(match[1]) // 1000 == self.answer.resets_at_ms
            assert self.answer.retry_after_ms == self.answer.resets_at_ms - self.now // 1000
        else:
            self.expect_usage(who, text)

    def expect_usage(self, who: str, text: str) -> None:
        match = re.fullmatch(rf"(\S+) (?:(resets|full) )?({TIME}|never|\S+/\S+)", text)
        assert match, text
        limit = next(limit for limit in self.world.usage(who, self.now) if limit.id == match[1])
        if match[2] is None:
            used, of = match[3].split("/")
            assert (micro(used), micro(of)) == (limit.used_micro, limit.limit_micro)
        else:
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
