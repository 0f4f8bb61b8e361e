"""Bytes that an open hold, a remembered request id and an open prompt take, all told.

    python benchmarks/remembered.py --json remembered.json

Each figure is from a process of its own: resident memory before and after every account has got EACH of them, divided by their
number. Accounts have been charged until their logs are full, so that records no longer grow. A request counts against five
limits, and its id has ID_BYTES; what is remembered of one per limit is in the figure, as are the queues it stands in and the
allocator's waste.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import machine
from holds import ID_BYTES, request_id
from memory import rss_bytes
from workload import START_US, WorkloadError, World

from quota import Request
from quota._core import PackedRequests

KINDS = ("hold", "id", "prompt")
EACH = (1, 10)  # of an account; the first one also pays for what they stand in
GROUP = 1000
HOLD_MS = 3_600_000
STEP_US = 1000  # between two groups: nothing is closed or forgotten meanwhile


def request_of_kind(kind: str, account: str, number: int) -> Request:
    id = request_id(number)
    if kind == "prompt":
        return Request(account, model="large", tool="bench", prompt_id=id)
    return Request(account, model="large", tool="bench", request_id=id, hold_ms=HOLD_MS if kind == "hold" else 0)


def measure(kind: str, each: int, accounts_count: int) -> dict[str, float]:
    world = World(accounts_count)
    admit_packed = world.engine.ledger.admit_packed
    numbers, now_us = iter(range(each * accounts_count)), START_US
    before = rss_bytes()
    for _ in range(each):
        for begin in range(0, accounts_count, GROUP):
            accounts = world.ids[begin : begin + GROUP]
            asks = PackedRequests([request_of_kind(kind, id, next(numbers)) for id in accounts])
            now_us += STEP_US
            if admit_packed(asks, now_us).count(1) != len(accounts):
                raise WorkloadError(f"{kind}: not all are allowed")
    after = rss_bytes()
    check(world, kind, each, now_us // 1000)
    bytes_each = (after - before) / (each * accounts_count)
    return {"kind": kind, "each": each, "accounts": accounts_count, "bytes": bytes_each}


def check(world: World, kind: str, each: int, now_ms: int) -> None:
    """All of them are there. Raises WorkloadError."""
    engine, last = world.engine, (each - 1) * world.accounts_count
    forgotten = engine.forgotten_ids_count + engine.forgotten_prompts_count
    for i in range(0, world.accounts_count, 997):
        holds = len(engine.usage(world.ids[i], now_ms=now_ms).holds)
        if forgotten or holds != (each if kind == "hold" else 0):
            raise WorkloadError(f"{kind}: {forgotten} are forgotten, {world.ids[i]} has {holds} open holds")
        again = [request_of_kind(kind, world.ids[i], number) for number in (i, last + i)]
        if any(engine.peek(request, now_ms=now_ms).charged for request in again if kind == "prompt"):
            raise WorkloadError(f"{kind}: {world.ids[i]} would pay for a prompt again")
        for request in again if kind != "prompt" else ():
            engine.admit(request, now_ms=now_ms)
    asked_again = 0 if kind == "prompt" else 2 * len(range(0, world.accounts_count, 997))
    if engine.replays_count != asked_again:
        raise WorkloadError(f"{kind}: {engine.replays_count} of {asked_again} ids are remembered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--kind", choices=KINDS, help="Measure this one, in this process.")
    parser.add_argument("--each", type=int, default=EACH[0])
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure(options.kind, options.each, options.accounts)))
        return
    machine.announce()
    others = machine.Others()
    rows = []
    for kind in KINDS:
        for each in EACH:
            command = [
                sys.executable,
                __file__,
                "--kind",
                kind,
                "--each",
                str(each),
                "--accounts",
                str(options.accounts),
            ]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            print(f"{kind:8}{each:3} an account{options.accounts:10,} accounts{rows[-1]['bytes']:8.0f} bytes each")
    if options.json:
        extra = {"described": machine.describe(), "others_share": others.share(), "id_bytes": ID_BYTES}
        options.json.write_text(json.dumps(extra | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
