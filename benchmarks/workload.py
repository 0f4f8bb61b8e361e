"""The workload that every benchmark shares: accounts whose logs have a past, who asks next, and a time that goes on.

An account asks for one prompt of a model at a time; the request counts against the five limits of catalog.yaml. Time rises by a
small step with every decision, so that on average as many charges come back as are made and the logs stay as full as
they began. What is timed is laid out by `Way.prepare` beforehand: names, times and batches are ready, and the decision alone is left.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quota import Decision, Engine, Request
from quota._core import PackedRequests
from quota.clock import Clock

CATALOG = Path(__file__).with_name("catalog.yaml")
LIMITS = ("prompts-5h", "prompts-week", "prompts-month", "large-1h", "pace")  # in plan order, the bucket last
START_US = (
    1_772_424_000_000_000  # 2026-03-02 05:00 in the catalog's zone: what fills the logs comes before the peak hours
)
WINDOW_US = 5 * 3_600_000_000
COST_MICRO = 2_000_000  # of one request off-peak
BATCH = 256  # requests of one batch
ROUND = 80 * BATCH  # decisions that are timed together
ALLOWED_SHARE_MIN = 0.99

# Time is what all threads of this process spend on a processor: it does not grow when other processes want one too. Waking a
# thread of its own every 10 ms, as one of the others does, costs many times as much by the wall clock of a busy machine.
cpu_time_ns = time.process_time_ns

LOGS = {"full": (64, 80), "light": (3, 3)}  # kind of past: entries in a log at first, mean of charges alive later on
CHOICES = ("uniform", "zipf")


class WorkloadError(Exception):
    """Raised when what was or would be timed is not what it is said to be."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask. `prepare` lays out a round of `decisions`, `run` is timed, `allowed` runs it and counts the yes among them."""

    name: str
    decisions: int
    prepare: Callable[[], list[Any]]
    run: Callable[[list[Any]], None]
    allowed: Callable[[list[Any]], int]

    def check(self) -> None:
        """Run one round untimed. Raises WorkloadError unless nearly all of it is allowed."""
        share = self.allowed(self.prepare()) / self.decisions
        if share < ALLOWED_SHARE_MIN:
            raise WorkloadError(
                f"{self.name}: {share:.1%} of a round was allowed, at least {ALLOWED_SHARE_MIN:.0%} should be"
            )

    def time_ns(self) -> float:
        """Nanoseconds per decision of one round."""
        round_ = self.prepare()
        begin_ns = cpu_time_ns()
        self.run(round_)
        return (cpu_time_ns() - begin_ns) / self.decisions


class World:
    """`accounts_count` accounts on the plan of five limits, with a past of the kind `logs`, and one ready Request each."""

    def __init__(self, accounts_count: int, logs: str = "full") -> None:
        self.accounts_count = accounts_count
        self.logs = logs
        self.entries, alive = LOGS[logs]
        self.step_us = WINDOW_US / alive / accounts_count
        self.now_us: float = START_US
        self.engine = Engine([CATALOG])
        self.ids = [account_id(i) for i in range(accounts_count)]
        subscribed_at_ms = START_US // 1000 - 40 * 86_400_000
        for id in self.ids:
            self.engine.put_account(id, plan="five", now_ms=subscribed_at_ms)
        self.requests = [request_of(id) for id in self.ids]
        self._random = random.Random(1)
        self._by_rank = self._random.sample(self.requests, accounts_count)
        self._cumulated = list(itertools.accumulate(1 / rank for rank in range(1, accounts_count + 1)))
        self._fill()
        # What lives as long as the world is not walked by the collector in every round; what a round makes still is.
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        gc.unfreeze()

    def _fill(self) -> None:
        """Give every account its charges of the last five hours, account by account: each has a time of its own."""
        group = 1000
        for begin in range(0, self.accounts_count, group):
            packed = PackedRequests(self.requests[begin : begin + group])
            for entry in range(self.entries):
                late = (entry + (begin + 1) / (self.accounts_count + 1)) / self.entries
                self.engine.ledger.admit_packed(packed, int(START_US - WINDOW_US + late * WINDOW_US))

    # ---- Checks ----

    def check(self) -> None:
        """Before the timing: five limits are touched, and the logs hold what they should. Raises WorkloadError."""
        for id in self._random.sample(self.ids, min(100, self.accounts_count)):
            decision = self.engine.peek(request_of(id, explain=True), now_ms=START_US // 1000)
            touched = tuple(limit.id for limit in decision.limits)
            if touched != LIMITS:
                raise WorkloadError(f"{id}: the limits touched are {touched}, not {LIMITS}")
            used_micro = self.engine.usage(id, now_ms=START_US // 1000).limits[0].used_micro
            if used_micro != self.entries * COST_MICRO:
                raise WorkloadError(
                    f"{id}: {used_micro} micro-units are alive, not {self.entries} charges of {COST_MICRO}"
                )

    def verify(self) -> None:
        """After the timing: all decisions that were made, timed or not. Raises WorkloadError."""
        counts = {True: 0, False: 0}
        for *_, verdict, _, count in self.engine.decisions():
            counts[verdict == "ALLOWED"] += count
        share = counts[True] / max(1, counts[True] + counts[False])
        if share < ALLOWED_SHARE_MIN:
            raise WorkloadError(
                f"{share:.1%} of the decisions were allowed, at least {ALLOWED_SHARE_MIN:.0%} should be"
            )
        if self.engine.clock_behind_count:
            raise WorkloadError(f"time went back for {self.engine.clock_behind_count} decisions")

    # ---- Rounds ----

    def choose(self, choice: str, count: int = ROUND) -> list[Request]:
        """Who asks in the next round: any account alike, or the account of rank r with a chance of 1/r."""
        if choice == "uniform":
            return self._random.choices(self.requests, k=count)
        return self._random.choices(self._by_rank, cum_weights=self._cumulated, k=count)

    def moments_us(self) -> list[int]:
        """When the decisions of the next round are made; time goes on past them."""
        begin_us = self.now_us
        self.now_us += ROUND * self.step_us
        return [int(begin_us + i * self.step_us) for i in range(ROUND)]

    def admit_clock(self, choice: str) -> Way:
        admit = self.engine.admit

        def prepare() -> list[Request]:
            # The engine's own clock, started at the world's time: it runs at life's pace, the step is made up between rounds.
            ahead_ns = int(self.now_us) * 1000 - time.time_ns()
            self.engine.clock = Clock(wall_ns=lambda: time.time_ns() + ahead_ns)
            self.now_us += max(ROUND * self.step_us, 60e6)
            return self.choose(choice)

        def run(asks: list[Request]) -> None:
            for request in asks:
                admit(request)

        return Way("Engine.admit", ROUND, prepare, run, lambda asks: sum(admit(request).allowed for request in asks))

    def admit(self, choice: str) -> Way:
        admit = self.engine.admit

        def prepare() -> list[tuple[Request, int]]:
            return list(zip(self.choose(choice), [moment // 1000 for moment in self.moments_us()], strict=True))

        def run(asks: list[tuple[Request, int]]) -> None:
            for request, now_ms in asks:
                admit(request, now_ms=now_ms)

        return Way(
            "Engine.admit, time given",
            ROUND,
            prepare,
            run,
            lambda asks: sum(admit(ask, now_ms=at).allowed for ask, at in asks),
        )

    def admit_many(self, choice: str) -> Way:
        admit_many = self.engine.admit_many

        def prepare() -> list[tuple[list[Request], int]]:
            asks, moments = self.choose(choice), self.moments_us()
            return [(asks[i : i + BATCH], moments[i + BATCH - 1] // 1000) for i in range(0, ROUND, BATCH)]

        def run(batches: list[tuple[list[Request], int]]) -> None:
            for batch, now_ms in batches:
                admit_many(batch, now_ms=now_ms)

        def allowed(batches: list[tuple[list[Request], int]]) -> int:
            answers = itertools.chain.from_iterable(admit_many(batch, now_ms=now_ms) for batch, now_ms in batches)
            return sum(1 for answer in answers if isinstance(answer, Decision) and answer.allowed)

        return Way("Engine.admit_many", ROUND, prepare, run, allowed)

    def admit_packed(self, choice: str) -> Way:
        admit_packed = self.engine.ledger.admit_packed

        def prepare() -> list[tuple[PackedRequests, int]]:
            asks, moments = self.choose(choice), self.moments_us()
            return [(PackedRequests(asks[i : i + BATCH]), moments[i + BATCH - 1]) for i in range(0, ROUND, BATCH)]

        def run(batches: list[tuple[PackedRequests, int]]) -> None:
            for batch, now_us in batches:
                admit_packed(batch, now_us)

        def allowed(batches: list[tuple[PackedRequests, int]]) -> int:
            return sum(admit_packed(batch, now_us).count(1) for batch, now_us in batches)

        return Way("Ledger.admit_packed", ROUND, prepare, run, allowed)


def account_id(i: int) -> str:
    return f"account-{i:08d}"


def request_of(id: str, explain: bool = False) -> Request:
    return Request(id, model="large", tool="bench", explain=explain)
