"""The engine and the oracle behind the same few methods, so that a test can ask either, or both.

Times are microseconds. A request is an `Ask`; an answer an `Answer`, or one of `Wrong` where the engine raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Any

from oracle import Answer, Ask, Conflict, Ended, Invalid, Oracle, Unknown, Unsuitable, Wrong

from quota import AlreadyExists, Engine, FailedPrecondition, InvalidArgument, NotFound, Request
from quota.catalog import parse
from quota.types import Adjustment, Bounds, CatalogVersion, Outcome, Settlement, Usage


class Hands:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        return self.us


def request_of(ask: Ask) -> Request:
    values = {field.name: getattr(ask, field.name) for field in fields(Ask)}
    return Request(values.pop("account"), **{**values, "draws": None if ask.draws is None else dict(ask.draws)})


def answer_of(decision) -> Answer | Wrong:
    if isinstance(decision, Exception):
        return wrong_of(decision)
    return Answer(**{field.name: getattr(decision, field.name) for field in fields(Answer)})


def wrong_of(error: Exception) -> Wrong:
    if isinstance(error, InvalidArgument):
        return Invalid(error.field)
    return {AlreadyExists: Conflict, NotFound: Unknown, FailedPrecondition: Ended}[type(error)]()


def attempt(method: Callable[..., Any], *values: Any, **more: Any) -> Any:
    """What the method returns, or what the oracle says in place of what it raises."""
    try:
        return method(*values, **more)
    except (InvalidArgument, AlreadyExists, NotFound, FailedPrecondition) as error:
        return wrong_of(error)


class EngineWorld:
    def __init__(self, bounds: Bounds | None = None) -> None:
        self.hands = Hands()
        self.engine: Engine | None = None
        self.bounds = bounds or Bounds()

    def at(self, now: int) -> int | None:
        """Whole milliseconds are passed along; anything finer is read from the clock."""
        self.hands.us = now
        return None if now % 1000 else now // 1000

    def load(self, text: str) -> CatalogVersion:
        if self.engine is None:  # An engine has a catalog from the beginning.
            self.engine = Engine(catalogs=[text], clock=self.hands, bounds=self.bounds)
        try:
            return self.engine.load_catalog(text)
        except FailedPrecondition as error:
            raise Unsuitable from error

    def put(
        self, id: str, *, catalog: str, plan: str, now: int, subscribed_at: int = 0, expires_at: int = 0,
        overrides: Mapping[str, int] | None = None,
    ) -> Invalid | None:  # fmt: skip
        put = attempt(
            self.engine.put_account, id, catalog=catalog, plan=plan, now_ms=self.at(now), overrides=overrides,
            subscribed_at_ms=subscribed_at // 1000, expires_at_ms=expires_at // 1000,
        )  # fmt: skip
        return put if isinstance(put, Invalid) else None

    def set_capacity(self, factor_micro: int) -> None:
        self.engine.set_capacity(Fraction(factor_micro, 1_000_000))

    def admit(self, ask: Ask, now: int) -> Answer | Wrong:
        return self.decided(self.engine.admit, ask, now)

    def peek(self, ask: Ask, now: int) -> Answer | Wrong:
        return self.decided(self.engine.peek, ask, now)

    def decided(self, method, ask: Ask, now: int) -> Answer | Wrong:
        decision = attempt(lambda: method(request_of(ask), now_ms=self.at(now)))
        return decision if isinstance(decision, Wrong) else answer_of(decision)

    def admit_many(self, asks: list[Ask], now: int) -> list[Answer | Wrong]:
        """What is no request is answered in its place; the engine sees the others."""
        requests = [attempt(request_of, ask) for ask in asks]
        given = iter(self.engine.admit_many([it for it in requests if isinstance(it, Request)], now_ms=self.at(now)))
        return [answer_of(next(given)) if isinstance(it, Request) else it for it in requests]

    def settle(
        self, account: str, request_id: str, outcome: Outcome, draws: Mapping[str, int] | None, now: int
    ) -> Settlement | Wrong:
        return attempt(self.engine.settle, account, request_id, outcome=outcome, draws=draws, now_ms=self.at(now))

    def renew(self, account: str, request_id: str, hold_ms: int, now: int) -> int | Wrong:
        return attempt(self.engine.renew, account, request_id, hold_ms=hold_ms, now_ms=self.at(now))

    def adjust(
        self, account: str, micro: int, reason: str, now: int, *, pool: str = "", limit_id: str = ""
    ) -> Adjustment | Wrong:
        return attempt(self.engine.adjust_usage, account, pool=pool, limit_id=limit_id, micro=micro, reason=reason,
                       now_ms=self.at(now))  # fmt: skip

    def usage(self, id: str, now: int) -> Usage:
        return self.engine.usage(id, now_ms=self.at(now))

    def forgotten(self) -> tuple[int, int]:
        return self.engine.ledger.forgotten_ids_count, self.engine.ledger.forgotten_prompts_count


class OracleWorld:
    def __init__(self, bounds: Bounds | None = None) -> None:
        self.oracle = oracle = Oracle(bounds)
        self.admit, self.peek, self.usage, self.put = oracle.admit, oracle.peek, oracle.usage, oracle.put_account
        self.settle, self.renew, self.adjust = oracle.settle, oracle.renew, oracle.adjust
        self.set_capacity, self.forgotten = oracle.set_capacity, oracle.forgotten

    def load(self, text: str, version: CatalogVersion | None = None) -> None:
        self.oracle.load_catalog(parse(text), version)

    def admit_many(self, asks: list[Ask], now: int) -> list[Answer | Wrong]:
        return [self.admit(ask, now) for ask in asks]
