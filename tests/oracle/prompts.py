"""Prompts: calls that cost one unit together.

A prompt is opened by its first admitted call, joined by the next ones, and ends when it has been idle too long or has had all its
calls. What it has paid, by pool, its later calls need not pay again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from oracle.values import Record
from quota.catalog.model import Plan


@dataclass(frozen=True)
class Prompt:
    id: str
    number: int
    """How many prompts the account had opened before: an id may be used again, a number is not."""
    calls: int
    last_call_at: int
    paid: Mapping[str, int]
    """Pool to micro-units: the most that a call has cost in it."""

    def idle(self, plan: Plan, t: int) -> bool:
        return t - self.last_call_at > plan.prompt_idle_us

    def alive(self, plan: Plan, t: int) -> bool:
        return not self.idle(plan, t) and (plan.calls_per_prompt is None or self.calls < plan.calls_per_prompt)

    def dies_at(self, plan: Plan) -> int:
        """The first instant at which it has ended, if it is alive now and has no more calls."""
        return self.last_call_at + plan.prompt_idle_us + 1


def find_prompt(record: Record, id: str) -> Prompt | None:
    return next((prompt for prompt in record.prompts if prompt.id == id), None)


def called(record: Record, plan: Plan, id: str, units: Mapping[str, int], now: int, prompts_max: int) -> Record:
    """The record after an admitted call that was worth `units` by pool: it joins its prompt or opens one."""
    prompt = find_prompt(record, id)
    if prompt is None or not prompt.alive(plan, now):
        return opened(record, plan, Prompt(id, record.prompts_opened, 1, now, units), now, prompts_max)
    paid = {pool: max(prompt.paid.get(pool, 0), units.get(pool, 0)) for pool in {*prompt.paid, *units}}
    joined = replace(prompt, calls=prompt.calls + 1, last_call_at=now, paid=paid)
    return replace(
        record,
        prompts=tuple(joined if it is prompt else it for it in record.prompts),
        admissions=tuple(
            replace(it, joined=True) if it.prompt_opened == prompt.number else it for it in record.admissions
        ),
    )


def opened(record: Record, plan: Plan, prompt: Prompt, now: int, prompts_max: int) -> Record:
    """With a new prompt in place of an ended one of its id; else in place of all idle ones. Past the bound others are forgotten."""
    prompts, forgotten = [it for it in record.prompts if it.id != prompt.id], 0
    if len(prompts) == len(record.prompts):
        prompts = [it for it in prompts if not it.idle(plan, now)]
    while len(prompts) >= prompts_max:
        prompts.remove(min(prompts, key=lambda it: it.last_call_at))  # Of several the one opened first.
        forgotten += 1
    return replace(
        record,
        prompts=(*prompts, prompt),
        prompts_opened=record.prompts_opened + 1,
        forgotten_prompts=record.forgotten_prompts + forgotten,
    )


def without_prompt(record: Record, number: int) -> Record:
    return replace(record, prompts=tuple(it for it in record.prompts if it.number != number))
