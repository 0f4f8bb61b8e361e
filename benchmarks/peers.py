"""The limiters on PyPI that run beside ours, each as its manual shows it: in memory, one limit, one key an account.

They read their own clocks, so their time is the real one. The limits are so high that nothing is refused, as for ours. The window is a
second: at the rate they are asked, their logs then hold some tens of charges, as ours do, and drop what is past, as ours do.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pyrate_limiter import (
    AbstractBucket,
    BucketFactory,
    Duration,
    InMemoryBucket,
    Limiter,
    MonotonicClock,
    Rate,
    RateItem,
)
from throttled import MemoryStore, RateLimiterType, Throttled, per_duration
from workload import LOGS, Way, account_id

# Decisions timed together. Long enough for what a limiter does beside its calls: `limits` has a thread that looks through all logs
# every now and then and clears what is past. Our own clearing is part of our decisions, so its is part of its round; in shorter rounds
# it falls into some and not into others, and the median misses it.
ROUND = 131_072
UNITS = 10_000_000  # of the limit, in one second
NAMES = {
    "limits": "limits, moving window",
    "throttled-py": "throttled-py, GCRA",
    "pyrate-limiter": "pyrate-limiter, sliding log",
}


class Peer:
    """One limiter over `accounts_count` accounts. `hit` charges a key; `quiet` waits for threads that would run on into our rounds."""

    def __init__(
        self, name: str, hit: Callable[[str], Any], is_yes: Callable[[Any], bool], quiet: Callable[[], object]
    ) -> None:
        self.name = NAMES[name]
        self.hit = hit
        self.is_yes = is_yes
        self.quiet = quiet

    def way(self, accounts_count: int, logs: str) -> Way:
        """Ask for accounts chosen uniformly, once every log holds what those of `logs` hold."""
        hit, is_yes = self.hit, self.is_yes
        ids = [account_id(i) for i in range(accounts_count)]
        for _ in range(LOGS[logs][0]):
            for id in ids:
                hit(id)
        chance = random.Random(1)

        def run(asks: list[str]) -> None:
            for id in asks:
                hit(id)

        return Way(
            self.name,
            ROUND,
            lambda: chance.choices(ids, k=ROUND),
            run,
            lambda asks: sum(is_yes(hit(id)) for id in asks),
        )


class BucketPerAccount(BucketFactory):
    """pyrate-limiter leaves it to its users how names find their buckets: here, by a dict."""

    def __init__(self) -> None:
        self._rates = [Rate(UNITS, Duration.SECOND)]
        self._clock = MonotonicClock()
        self._buckets: dict[str, AbstractBucket] = {}

    def wrap_item(self, name: str, weight: int = 1) -> RateItem:
        return RateItem(name, self._clock.now(), weight=weight)

    def get(self, item: RateItem) -> AbstractBucket:
        bucket = self._buckets.get(item.name)
        if bucket is None:
            bucket = self._buckets[item.name] = self.create(InMemoryBucket, self._rates)
        return bucket


@contextlib.contextmanager
def peer(name: str, accounts_count: int) -> Iterator[Peer]:
    """One of NAMES, for as long as it is needed; its threads end with it."""
    if name == "limits":
        storage = MemoryStorage()
        moving, item = MovingWindowRateLimiter(storage), RateLimitItemPerSecond(UNITS)
        yield Peer(name, functools.partial(moving.hit, item), bool, lambda: storage.timer.join())
        storage.timer.join()
    elif name == "throttled-py":
        quota = per_duration(timedelta(seconds=1), UNITS, burst=UNITS)
        store = MemoryStore(options={"MAX_SIZE": accounts_count})
        gcra = Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=store)
        yield Peer(name, gcra.limit, lambda result: not result.limited, lambda: None)
    else:
        limiter = Limiter(BucketPerAccount())
        yield Peer(name, functools.partial(limiter.try_acquire, blocking=False), bool, lambda: None)
        limiter.close()
