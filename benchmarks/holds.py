"""What ids, holds and prompts add to a decision: each kind of request in a world of its own, all kinds in turn in one process.

    python benchmarks/holds.py --json holds.json [--turns 31]

A decision is that of every benchmark, over five limits. An account asks once in GAP_S on average, so that a realistic number of ids
is remembered and holds are open: each world runs for as long as an id is remembered before it is timed, and what it then remembers is
counted. Requests bear a new id each, of ID_BYTES; they are ready, and what making one takes is timed apart, as is Settle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from workload import ALLOWED_SHARE_MIN, BATCH, ROUND, WorkloadError, World, cpu_time_ns

from quota import Outcome, Request
from quota._core import PackedRequests
from quota.errors import AlreadyExists

ACCOUNTS = 100  # in the processor's cache, as the few are who ask at the same time; larger numbers are shown beside
GAP_S = 6  # between two requests of an account, on average
GAP_FULL_S = 0.4  # at which more ids than an account may have would be remembered
HOLD_MS = 60_000
REMEMBERED_S = 120  # an id, after its admission, the end of its hold or its settlement
IDS_MAX = 256
ID_BYTES = 36
SETTLED_AFTER = 1  # batches: some seconds
OPEN_SOON = SETTLED_AFTER * BATCH / ACCOUNTS  # holds that an account then has open
PROMPTS = 2  # that an account has open at a time where calls join them: most calls then find theirs alive
PACKED, ADMIT = "Ledger.admit_packed", "Engine.admit, time given"
BESIDE = ("Request", "Engine.settle")  # what else a round notes: making a Request, and its settlement
RATIO_MAX = 2  # of a decision with a hold to one without
SAMPLE = 50  # accounts that are looked at
TOLERANCE = 0.25  # of what should be remembered or open, and what is; accounts are chosen at random


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request. `open` and `remembered` are what an account should have on average, holds and ids without an open one."""

    name: str
    open: float = 0
    remembered: float = 0
    gap_s: float = GAP_S
    ready: bool = False  # the same Request object again and again
    has_id: bool = False
    hold_ms: int = 0
    prompt: str = ""  # "first": of a prompt of its own; "paid": of one that another has paid for
    outcome: Outcome | None = None  # of its settlement; None: nobody settles it


IDS, OPEN = REMEMBERED_S / GAP_S, HOLD_MS / 1000 / GAP_S
WITHOUT, READY, HELD = "no id", "no id, same Request again", "hold"
KINDS = [
    Kind(WITHOUT),
    Kind(READY, ready=True),
    Kind("request_id", 0, IDS, has_id=True),
    Kind(HELD, OPEN, IDS, has_id=True, hold_ms=HOLD_MS),
    Kind("hold, COMMIT soon", OPEN_SOON, IDS, has_id=True, hold_ms=HOLD_MS, outcome=Outcome.COMMIT),
    Kind("hold, CANCEL soon", OPEN_SOON, IDS, has_id=True, hold_ms=HOLD_MS, outcome=Outcome.CANCEL),
    Kind("prompt, first call", prompt="first"),
    Kind("prompt, paid call", prompt="paid"),
    Kind("hold, prompt's paid call", OPEN, IDS, has_id=True, hold_ms=HOLD_MS, prompt="paid"),
    Kind("request_id, all 256", 0, IDS_MAX, GAP_FULL_S, has_id=True),
    Kind("hold, all 256", HOLD_MS / 1000 / GAP_FULL_S, IDS_MAX, GAP_FULL_S, has_id=True, hold_ms=HOLD_MS),
]


class Lane:
    """One kind of request in a world of its own, whose time goes on while it is asked."""

    def __init__(self, kind: Kind, accounts_count: int) -> None:
        self.kind = kind
        self.world = World(accounts_count)
        self.world.check()
        self.world.step_us = kind.gap_s * 1e6 / accounts_count
        self.engine = self.world.engine
        self.make_ns = self.settle_ns = 0.0  # of the last round, each
        self._random = random.Random(2)
        self._issued: dict[str, list[str]] = {
            id: [] for id in self._random.sample(self.world.ids, min(SAMPLE, accounts_count))
        }
        self._asked_count = 0
        self._waiting: deque[list[Request]] = deque()  # batches to be settled

    # ---- Rounds ----

    def requests(self) -> list[Request]:
        """Those of the next round, any account alike; notes what making one took."""
        kind = self.kind
        if kind.ready:
            return self.world.choose("uniform")
        accounts = self._random.choices(self.world.ids, k=ROUND)
        numbers = range(self._asked_count, self._asked_count + ROUND)
        self._asked_count += ROUND
        ids = [request_id(number) if kind.has_id else "" for number in numbers]
        prompts = [""] * ROUND
        if kind.prompt:
            prompts = [request_id(n if kind.prompt == "first" else self._random.randrange(PROMPTS)) for n in numbers]
        begin_ns = cpu_time_ns()
        made = [
            Request(account, model="large", tool="bench", request_id=id, prompt_id=prompt, hold_ms=kind.hold_ms)
            for account, id, prompt in zip(accounts, ids, prompts, strict=True)
        ]
        self.make_ns = (cpu_time_ns() - begin_ns) / ROUND
        for account, id in zip(accounts, ids, strict=True):
            if account in self._issued:
                self._issued[account].append(id)
        return made

    def time_ns(self, through: str) -> float:
        """Nanoseconds per decision of one round; notes those per settlement."""
        requests, moments_us = self.requests(), self.world.moments_us()
        spent_ns = settling_ns = settled_count = 0
        for i in range(0, ROUND, BATCH):
            batch, until_us = requests[i : i + BATCH], moments_us[i + BATCH - 1]
            if through == PACKED:
                spent_ns += self._admit_packed(PackedRequests(batch), until_us)
            else:
                spent_ns += self._admit(batch, [moment // 1000 for moment in moments_us[i : i + BATCH]])
            if self.kind.outcome is not None:
                self._waiting.append(batch)
            if len(self._waiting) > SETTLED_AFTER:
                settling_ns += self._settle(self._waiting.popleft(), until_us // 1000)
                settled_count += BATCH
        self.settle_ns = settling_ns / max(1, settled_count)
        return spent_ns / ROUND

    def _admit_packed(self, batch: PackedRequests, now_us: int) -> int:
        admit_packed = self.engine.ledger.admit_packed
        begin_ns = cpu_time_ns()
        admit_packed(batch, now_us)
        return cpu_time_ns() - begin_ns

    def _admit(self, batch: list[Request], moments_ms: list[int]) -> int:
        admit, asks = self.engine.admit, list(zip(batch, moments_ms, strict=True))
        begin_ns = cpu_time_ns()
        for request, now_ms in asks:
            admit(request, now_ms=now_ms)
        return cpu_time_ns() - begin_ns

    def _settle(self, batch: list[Request], now_ms: int) -> int:
        settle, outcome = self.engine.settle, self.kind.outcome
        asks = [(request.account, request.request_id) for request in batch]
        begin_ns = cpu_time_ns()
        for account, id in asks:
            settle(account, id, outcome=outcome, now_ms=now_ms)
        return cpu_time_ns() - begin_ns

    # ---- Checks ----

    def warm_up(self) -> None:
        """Let as much time pass as an id is remembered, so that as many are forgotten as come."""
        remembered_us = REMEMBERED_S * 1e6 + self.kind.hold_ms * 1000
        for _ in range(math.ceil(remembered_us / (ROUND * self.world.step_us))):
            self.time_ns(PACKED)

    def check(self) -> dict[str, float]:
        """What accounts have on average. Raises WorkloadError unless it is what they should have."""
        self.world.verify()
        now_ms = int(self.world.now_us) // 1000
        usages = [self.engine.usage(account, now_ms=now_ms) for account in self._issued]
        open_ = statistics.mean(len(usage.holds) for usage in usages)
        remembered = statistics.mean(self._remembered(account, now_ms) for account in self._issued) - open_
        for what, found, due in (("open", open_, self.kind.open), ("remembered", remembered, self.kind.remembered)):
            if abs(found - due) > 1 + TOLERANCE * due:
                raise WorkloadError(f"{self.kind.name}: {found:.1f} {what} an account, {due:.1f} there should be")
        if self.engine.replays_count:
            raise WorkloadError(f"{self.kind.name}: {self.engine.replays_count} ids were not new")
        self._check_prompts(now_ms)
        return {"open": round(open_, 1), "remembered": round(remembered, 1)}

    def _remembered(self, account: str, now_ms: int) -> int:
        """Of the ids that an account had lately, those that are known: under another content they are refused."""
        known = 0
        for id in self._issued[account][-4 * IDS_MAX :] if self.kind.has_id else ():
            try:
                self.engine.peek(Request(account, model="small", request_id=id), now_ms=now_ms)
            except AlreadyExists:
                known += 1
        return known

    def _check_prompts(self, now_ms: int) -> None:
        """First calls pay and joining ones do not, nearly all."""
        peeked = [self.engine.peek(request, now_ms=now_ms).charged for request in self.requests()[:1000]]
        share = sum(charged != {} for charged in peeked) / len(peeked)
        if self.kind.prompt == "paid":
            share = sum(charged == {} for charged in peeked) / len(peeked)
        if share < ALLOWED_SHARE_MIN - 0.02:
            raise WorkloadError(f"{self.kind.name}: {share:.1%} of the requests are charged as they should be")


LARGE = [kind for kind in KINDS if kind.name in (WITHOUT, READY, "request_id", HELD)]  # with more accounts


def request_id(number: int) -> str:
    return f"01936c2e-5d4b-7a10-8f00-{number:012x}"


def measure(kinds: list[Kind], turns: int, accounts_count: int) -> list[dict[str, Any]]:
    """A row for every kind of request: its times, and its ratios to a decision without an id."""
    with contextlib.ExitStack() as stack:
        lanes = []
        for kind in kinds:
            lanes.append(Lane(kind, accounts_count))
            stack.enter_context(contextlib.closing(lanes[-1].world))
            lanes[-1].warm_up()
        found = [lane.check() for lane in lanes]
        columns = [(lane, through) for lane in lanes for through in (PACKED, ADMIT)]
        times: dict[tuple[str, str], list[float]] = {}
        for turn in range(turns):
            begin = turn * 2 % len(columns)
            for lane, through in columns[begin:] + columns[:begin]:
                name = lane.kind.name
                times.setdefault((name, through), []).append(lane.time_ns(through))
                for beside, ns in zip(BESIDE, (lane.make_ns, lane.settle_ns), strict=True):
                    times.setdefault((name, beside), []).append(ns)
        for lane in lanes:
            lane.check()
    return [
        {"kind": lane.kind.name, "accounts": accounts_count, "gap_s": lane.kind.gap_s, "turns": turns}
        | (has | {"ways": ways_of(lane.kind, times)})
        for lane, has in zip(lanes, found, strict=True)
    ]


def ways_of(kind: Kind, times: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, Any]]:
    """Per way nanoseconds, and for decisions the ratios to those without an id, of new Requests and of the same ones again."""
    ways: dict[str, dict[str, Any]] = {}
    for through in (PACKED, ADMIT, *BESIDE):
        own = times[kind.name, through]
        if statistics.median(own) == 0:
            continue
        ways[through] = {"ns": statistics.median(own)}
        if through in (PACKED, ADMIT):
            ratios = [mine / other for mine, other in zip(own, times[WITHOUT, through], strict=True)]
            again = [mine / other for mine, other in zip(own, times[READY, through], strict=True)]
            ways[through] |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
            ways[through] |= {"ratio_again": statistics.median(again)}
    return ways


def line_of(way: dict[str, Any]) -> str:
    ratio = f" {way['ratio']:.2f}x ({way['ratio_min']:.2f} to {way['ratio_max']:.2f})" if "ratio" in way else ""
    return f"{way['ns']:.0f} ns{ratio}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--accounts", type=int, default=ACCOUNTS)
    parser.add_argument("--large-accounts", type=int, nargs="*", default=[], help="Time some kinds with so many too.")
    options = parser.parse_args()
    machine.announce()
    others = machine.Others()
    rows = measure(KINDS, options.turns, options.accounts)
    for accounts_count in options.large_accounts:
        rows += measure(LARGE, options.turns, accounts_count)
    for row in rows:
        has = f"{row['accounts']:7,} accounts{row['open']:6.1f} open{row['remembered']:6.1f} remembered"
        print(f"{row['kind']:27}{has}   " + "   ".join(f"{name} {line_of(way)}" for name, way in row["ways"].items()))
    print(f"bar: {HELD} at most {RATIO_MAX}x {WITHOUT}")
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share(), "ratio_max": RATIO_MAX}
        options.json.write_text(json.dumps(extra | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
