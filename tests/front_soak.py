"""Ten million calls, while others come, go and send what they should not: resident memory stays flat. `make soak` runs it.

The calls are those of benchmarks/front.py (five limits, full logs, 16 connections with 100 streams each) and every answer is
checked. Beside them damaged conversations (tests/front_fuzz.py) and short visits whose calls are left to Python. A
tenth as many calls go before.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
from pathlib import Path

from asked import asks
from front_fuzz import damaged, send
from generator import Generator, compile_into
from http2_peer import Peer, framed
from served import Quotad

CALLS = 10_000_000
GROWTH_MAX = 0.05
SECONDS = 5  # of one run of the generator
SHAPE = {"connections": 16, "streams": 100}
OPEN_AT_ONCE = 20


class Churn(threading.Thread):
    """Somebody who comes, misbehaves, and goes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.done = threading.Event()
        self.visits = 0

    def run(self) -> None:
        dice = random.Random(6)
        guests = []
        while not self.done.is_set():
            guests.append(send(dice, ("127.0.0.1", self.port), damaged(dice)))
            if len(guests) > OPEN_AT_ONCE:
                guests.pop(dice.randrange(len(guests))).close()
            with Peer(f"127.0.0.1:{self.port}") as peer:
                assert peer.ask(framed(b"\xff")).status == 3
            self.visits += 2
        for guest in guests:
            guest.close()


def soak(directory: Path, calls: int, *, strict: bool) -> tuple[int, int, int]:
    """Resident bytes before and after so many calls, and how many visits there were beside them."""
    compile_into(directory)
    generator, ask, done = Generator(directory), asks()["five"], 0
    served = Quotad("soak", directory, front="native", strict=strict, tls=False, populations=["five"])
    try:
        churn = Churn(served.port)
        churn.start()
        before = 0
        while done < calls * 1.1:
            figures = generator.run(ask, served.port, served.pids, seconds=SECONDS, **SHAPE)
            if figures["failed"] or not churn.is_alive():
                raise SystemExit(f"{figures['failed']} calls failed: {figures['why']}")
            done += figures["calls"]
            print(f"{done:,} calls, {figures['rate']:,.0f} a second, {served.rss_bytes / 1e6:.1f} MB", flush=True)
            if not before and done >= calls / 10:
                before = served.rss_bytes
        churn.done.set()
        churn.join()
        served.verify()
        return before, served.rss_bytes, churn.visits
    finally:
        served.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--strict", action="store_true", help="with a store on disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        before, after, visits = soak(Path(name), options.calls, strict=options.strict)
    growth = after / before - 1
    print(
        f"{options.calls:,} calls and {visits:,} visits: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after, {growth:+.1%}"
    )
    return 0 if growth <= GROWTH_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
