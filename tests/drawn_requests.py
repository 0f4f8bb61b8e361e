"""Requests drawn by lot, and what may be told of them later: repeated, settled, overridden.

Ids of requests and prompts are few, so that they meet again: as retries, as the same id with other content, as calls of one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from drawn_catalogs import DRAWS, ENDPOINTS, IDS, IN_FLIGHT, MODELS, TOOLS, Dice, chance
from oracle import Ask

from quota.types import Bounds, Mode, Outcome

ACCOUNTS = ("ada", "ben")
REQUEST_IDS = ("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10")
PROMPT_IDS = ("p1", "p2", "p3", "p4", "p5")
HOLDS_MS = (0, 0, 0, 1, 999, 60_000, 600_000, 3_600_000)
KEPT = 8

ToSettle = tuple[str, str, Outcome, Mapping[str, int] | None]


def drawn_bounds(dice: Dice) -> Bounds:
    """Often so small that they bite."""
    return Bounds(
        hold_ms_max=dice.pick([3_600_000, 3_600_000, 3_600_000, 600_000, 60_000]),
        holds_max=dice.pick([1024, 5, 2]),
        request_ids_max=dice.pick([256, 6, 2]),
        prompts_max=dice.pick([64, 3, 2]),
    )


class DrawnRequests:
    """Draws requests, and remembers the latest."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.asked: list[Ask] = []
        """Those with an id: good ones to repeat and to settle."""
        self.settlements: list[ToSettle] = []

    def draws(self, folded: bool) -> dict[str, int] | None:
        dice = self.dice
        if not chance(dice, 80):
            return None
        amounts = [0, 1, 1, 1, 2, 3, 5, 8, 30, 10**9] if chance(dice, 30) else [1, 1, 2]
        if folded and chance(dice, 85):
            amounts = [0, 1, 1, 1, 1]
        return {meter: dice.pick(amounts) for meter in dice.pick(DRAWS if chance(dice, 30) else DRAWS[:4])}

    def ask(self) -> Ask:
        if self.asked and chance(self.dice, 20):
            return self.asked_again()
        dice = self.dice
        request_id = dice.pick(REQUEST_IDS) if chance(dice, 50) else ""
        prompt_id = dice.pick(PROMPT_IDS) if chance(dice, 40) else ""
        ask = Ask(
            dice.pick(ACCOUNTS) if chance(dice, 98) else "eve",
            model=dice.pick(MODELS if chance(dice, 20) else MODELS[:4]),
            tool=dice.pick(TOOLS if chance(dice, 10) else TOOLS[:3]),
            endpoint=dice.pick(ENDPOINTS) if chance(dice, 10) else "",
            draws=self.draws(bool(prompt_id)),
            explain=chance(dice, 30),
            mode=Mode.RECORD if chance(dice, 8) else Mode.ENFORCE,
            request_id=request_id,
            prompt_id=prompt_id,
            hold_ms=dice.pick(HOLDS_MS) if request_id or chance(dice, 2) else 0,
            client=dice.pick(["", "laptop"]) if chance(dice, 10) else "",
        )
        if request_id:
            self.asked = [*self.asked[-KEPT:], ask]
        return ask

    def asked_again(self) -> Ask:
        """An earlier request; now and then with the same id and other content."""
        ask = self.dice.pick(self.asked)
        other = {
            "draws": self.draws(bool(ask.prompt_id)), "model": self.dice.pick(MODELS), "client": "phone",
            "hold_ms": self.dice.pick(HOLDS_MS), "prompt_id": self.dice.pick(PROMPT_IDS), "mode": Mode.RECORD,
            "endpoint": self.dice.pick(ENDPOINTS), "explain": not ask.explain, "account": self.dice.pick(ACCOUNTS),
        }  # fmt: skip
        field = self.dice.pick(list(other))
        return replace(ask, **{field: other[field]}) if chance(self.dice, 30) else ask

    def stream(self) -> Ask:
        """A request with an id, most often with a hold, on what every plan may have."""
        dice, prompt_id = self.dice, self.dice.pick(["", *PROMPT_IDS])
        ask = Ask(
            dice.pick(ACCOUNTS), dice.pick(MODELS[:3]), dice.pick(TOOLS[:2]), draws=self.draws(bool(prompt_id)),
            request_id=dice.pick(REQUEST_IDS), prompt_id=prompt_id, hold_ms=dice.pick(HOLDS_MS),
            mode=dice.pick([Mode.ENFORCE, Mode.ENFORCE, Mode.RECORD]),
        )  # fmt: skip
        self.asked = [*self.asked[-KEPT:], ask]
        return ask

    def settlement(self, ask: Ask | None = None) -> ToSettle:
        """Of that request, or of any known; now and then one told before."""
        dice = self.dice
        if self.settlements and chance(dice, 15):
            return dice.pick(self.settlements)
        account, request_id, folded = self.known_id(ask)
        outcome = dice.pick([*[Outcome.COMMIT] * 8, *[Outcome.CANCEL] * 8, Outcome.UNSPECIFIED])
        draws = self.draws(folded) if outcome is Outcome.COMMIT or chance(dice, 3) else None
        self.settlements = [*self.settlements[-KEPT:], (account, request_id, outcome, draws)]
        return self.settlements[-1]

    def known_id(self, ask: Ask | None = None) -> tuple[str, str, bool]:
        """An account, an id, and whether it is a call of a prompt."""
        if ask is None and self.asked and chance(self.dice, 95):
            ask = self.dice.pick(self.asked)
        if ask is None:
            return self.dice.pick(["eve", *ACCOUNTS]), self.dice.pick(REQUEST_IDS), False
        return ask.account, ask.request_id, bool(ask.prompt_id)

    def overrides(self) -> dict[str, int]:
        if not chance(self.dice, 25):
            return {}
        ids = [*IDS, "pace", *IN_FLIGHT]
        units = [0, 1, 3, 10, 10**12]
        found = {self.dice.pick(ids): self.dice.pick(units) for _ in range(self.dice.whole(1, 3))}
        return {**found, "nosuch": 1} if chance(self.dice, 5) else found
