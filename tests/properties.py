"""What the tests of properties share."""

from __future__ import annotations

from dataclasses import replace

from drawn_catalogs import RandomDice
from drawn_requests import ACCOUNTS
from histories import History
from hypothesis import HealthCheck, Phase, settings
from oracle import Answer, Ask
from worlds import EngineWorld

from quota.types import Bounds

histories = settings(
    max_examples=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # A history is read faster than it is shrunk.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def begun(seed: int, bounds: Bounds | None = None) -> History:
    """A history some way on, whose engine and oracles agree."""
    history = History(RandomDice(seed), bounds)
    history.run(30)
    return history


def usages(history: History, now: int):
    return [history.engine.usage(account, now) for account in ACCOUNTS]


def used(world: EngineWorld, account: str, now: int) -> dict[str, int]:
    return {state.id: state.used_micro for state in world.usage(account, now).limits}


def alone(ask: Ask) -> Ask:
    """The same request without an id that may be known, and without a prompt that may have paid."""
    return replace(ask, request_id="", prompt_id="", hold_ms=0)


def allowed(answer) -> bool:
    return isinstance(answer, Answer) and answer.allowed
