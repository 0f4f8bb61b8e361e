"""Run many random histories against both oracles: python tests/campaign.py --steps 1000000 --seed 1

Every history has a seed of its own, printed when it fails: --seed N --histories 1 runs just that one again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from drawn_catalogs import RandomDice
from histories import Disagreement, History

STEPS_PER_HISTORY = 300
REPORT_S = 10


def main() -> int:
    options = parse_options()
    started = reported = time.monotonic()
    steps = histories = 0
    verdicts: Counter[str] = Counter()
    while steps < options.steps and histories < options.histories:
        seed = options.seed + histories
        try:
            history = History(RandomDice(seed))
            history.run(STEPS_PER_HISTORY)
        except Disagreement as disagreement:
            print(f"{disagreement}\nthe history of seed {seed} fails, after {steps} steps of others")
            return 1
        steps, histories = steps + history.steps, histories + 1
        verdicts += history.verdicts
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            print(f"{steps} steps, {steps / (reported - started):.0f}/s", flush=True)
    took = time.monotonic() - started
    print(
        f"{steps} steps in {took:.0f} s ({steps / took:.0f}/s), {histories} histories from seed {options.seed}: all agree"
    )
    for verdict, count in verdicts.most_common():
        print(f"  {verdict:22} {count}")
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="how many steps in all (1000000)")
    parser.add_argument("--seed", type=int, default=1, help="of the first history; each later one counts up (1)")
    parser.add_argument("--histories", type=int, default=sys.maxsize, help="how many histories at most")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
