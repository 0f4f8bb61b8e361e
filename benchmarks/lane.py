"""A world and the store that keeps it, and one round of charges that wait for the disk."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import restart
from workload import CATALOG, WorkloadError, World, cpu_time_ns

from quota import Decision, Engine, Request
from quota.clock import Clock
from quota.store import Durability, Store

WARM_UP = 1024  # charges in a batch
COMPARED = 10_000  # accounts that are on disk as in memory, of all


@dataclass(frozen=True, slots=True)
class Waiting:
    """`threads` callers, each with `batch` charges in flight; `rounds` of that make a round."""

    name: str
    threads: int
    batch: int
    rounds: int
    barred: bool = False

    @property
    def decisions(self) -> int:
        return self.threads * self.batch * self.rounds


@dataclass(slots=True)
class Round:
    """What one round took: charges a second until all were answered, and until nothing was left to write or fold; CPU of each."""

    rate: float
    settled_rate: float
    cpu_ns: float
    commits: int
    p50_ms: float
    p99_ms: float


class Lane:
    """A world whose charges are kept in one mode; in none, if that is `ephemeral`."""

    def __init__(self, mode: str, logs: str, accounts_count: int, directory: Path) -> None:
        self.mode = mode
        self.directory = directory
        self.world = World(accounts_count, logs)
        self.world.check()
        self.store: Store | None = None
        if mode != "ephemeral":
            self.store = Store.open(directory, durability=Durability.parse(mode))
            self.store.start(
                self.world.engine.ledger, lambda: self.world.engine.clock.now_us(), on_failure=restart.stop
            )

    def warm_up(self, journal_bytes: int) -> None:
        """Charge until as much is in the journal as the store leaves there: from then on it folds."""
        while self.store is not None and self.store.folder.journal_bytes <= journal_bytes:
            self._go_on(20 * WARM_UP)
            for _ in range(20):
                self._ask(self._choose(WARM_UP))
            self.store.wait_all()
        self._settle()

    def check(self) -> None:
        """Raise WorkloadError unless a charge is on disk once its wait has returned, if the mode says so."""
        self._go_on(50)
        for request in self._choose(50):
            decision = self.world.engine.admit(request)
            if not decision.allowed or (self.store and not decision.ticket):
                raise WorkloadError(f"{self.mode}: a charge is {decision.verdict}, with ticket {decision.ticket}")
            if self.store is not None:
                before = self.store.writer.commits_count
                self.store.wait(decision.ticket)
                if self.mode == "strict" and self.store.writer.commits_count != before + 1:
                    raise WorkloadError("a charge alone did not have a commit of its own")

    def close(self) -> None:
        self.world.verify()
        self.world.close()
        if self.store is not None:
            self.store.close()

    def compare_kept(self) -> int:
        """Close, and open what is on disk: its accounts are as in memory. How many there are. Raises WorkloadError."""
        assert self.store is not None
        self.close()
        engine, now_ms = Engine([CATALOG]), self.world.engine.clock.now_us() // 1000 + 1
        with closing(Store.open(self.directory)) as store:
            store.restore(engine.ledger)
        kept = engine.accounts_count
        for id in self.world.ids[:: max(1, len(self.world.ids) // COMPARED)]:
            if engine.ledger.get(id) is None:  # not charged since the store was started
                continue
            if engine.usage(id, now_ms=now_ms).limits != self.world.engine.usage(id, now_ms=now_ms).limits:
                raise WorkloadError(f"{id} is not on disk as it is in memory")
        if kept == 0:
            raise WorkloadError("nothing is on disk")
        return kept

    # ---- Rounds ----

    def time(self, waiting: Waiting) -> Round:
        """One round. Nothing of the one before is left to do."""
        store = self.store
        self._go_on(waiting.decisions)
        asks = self._choose(waiting.decisions)
        batches = [asks[i : i + waiting.batch] for i in range(0, len(asks), waiting.batch)]
        shares = [batches[i :: waiting.threads] for i in range(waiting.threads)]
        commits = store.writer.commits_count if store else 0
        cpu_ns = cpu_time_ns()
        begin_ns, end_ns, times_ns = self._run(shares, one=waiting.batch == 1)
        self._settle()
        settled_ns, cpu_ns = time.perf_counter_ns(), cpu_time_ns() - cpu_ns
        percentiles = statistics.quantiles(times_ns, n=100, method="inclusive")
        return Round(
            rate=waiting.decisions / (end_ns - begin_ns) * 1e9,
            settled_rate=waiting.decisions / (settled_ns - begin_ns) * 1e9,
            cpu_ns=cpu_ns / waiting.decisions,
            commits=store.writer.commits_count - commits if store else 0,
            p50_ms=percentiles[49] / 1e6,
            p99_ms=percentiles[98] / 1e6,
        )

    def _go_on(self, decisions: int) -> None:
        """Start the engine's clock where the world's time is, and that goes on past so many decisions."""
        ahead_ns = int(self.world.now_us) * 1000 - time.time_ns()
        self.world.engine.clock = Clock(wall_ns=lambda: time.time_ns() + ahead_ns)
        self.world.now_us += max(decisions * self.world.step_us, 60e6)

    def _run(self, shares: list[list[list[Request]]], *, one: bool) -> tuple[int, int, list[int]]:
        call = self._ask_one if one else self._ask
        times_ns: list[list[int]] = [[] for _ in shares]
        clock_ns = time.perf_counter_ns

        def work(share: list[list[Request]], times: list[int]) -> None:
            for batch in share:
                begin_ns = clock_ns()
                call(batch)
                times.append(clock_ns() - begin_ns)

        if len(shares) == 1:
            begin_ns = clock_ns()
            work(shares[0], times_ns[0])
            return begin_ns, clock_ns(), times_ns[0]
        gate = threading.Barrier(len(shares) + 1)

        def wait_and_work(share: list[list[Request]], times: list[int]) -> None:
            gate.wait()
            work(share, times)

        threads = [threading.Thread(target=wait_and_work, args=each) for each in zip(shares, times_ns, strict=True)]
        for thread in threads:
            thread.start()
        begin_ns = clock_ns()  # before the first of them can begin
        gate.wait()
        for thread in threads:
            thread.join()
        end_ns = clock_ns()
        found = [one for times in times_ns for one in times]
        if len(found) != sum(map(len, shares)):
            raise WorkloadError(f"{self.mode}: a caller failed")
        return begin_ns, end_ns, found

    def _ask_one(self, batch: list[Request]) -> None:
        decision = self.world.engine.admit(batch[0])
        if self.store is not None:
            self.store.wait(decision.ticket)

    def _ask(self, batch: list[Request]) -> None:
        last = self.world.engine.admit_many(batch)[-1]
        if not isinstance(last, Decision) or not last.allowed:
            raise WorkloadError(f"{self.mode}: a batch ended with {last}")
        if self.store is not None:
            self.store.wait(last.ticket)

    def _choose(self, count: int) -> list[Request]:
        return self.world.choose("uniform", count)

    def _settle(self) -> None:
        """Return once all is on disk, and as much folded as is due."""
        if self.store is not None:
            self.store.wait_all()
            while self.store.folder.due(idle=True):
                self.store.check()
                time.sleep(0.001)
