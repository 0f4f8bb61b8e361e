"""The engine and the oracle behind the same few methods, so that a test can ask either, or both.

Times are microseconds. A request is an `Ask`; an answer an `Answer`, or `Invalid` where the engine raises InvalidArgument.
"""

from __future__ import annotations

from dataclasses import fields

from oracle import Answer, Ask, Invalid, Oracle, Unsuitable

from quota import Engine, FailedPrecondition, InvalidArgument, Request
from quota.catalog import parse
from quota.types import CatalogVersion, LimitState


class Hands:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        return self.us


def request_of(ask: Ask) -> Request:
    return Request(
        ask.account, model=ask.model, tool=ask.tool, endpoint=ask.endpoint,
        draws=None if ask.draws is None else dict(ask.draws), explain=ask.explain,
    )  # fmt: skip


def answer_of(decision) -> Answer | Invalid:
    if isinstance(decision, InvalidArgument):
        return Invalid(decision.field)
    return Answer(**{field.name: getattr(decision, field.name) for field in fields(Answer)})


class EngineWorld:
    def __init__(self) -> None:
        self.hands = Hands()
        self.engine: Engine | None = None

    def at(self, now: int) -> int | None:
        """Whole milliseconds are passed along; anything finer is read from the clock."""
        self.hands.us = now
        return None if now % 1000 else now // 1000

    def load(self, text: str) -> CatalogVersion:
        if self.engine is None:  # An engine has a catalog from the beginning.
            self.engine = Engine(catalogs=[text], clock=self.hands)
        try:
            return self.engine.load_catalog(text)
        except FailedPrecondition as error:
            raise Unsuitable from error

    def put(self, id: str, *, catalog: str, plan: str, now: int, subscribed_at: int = 0, expires_at: int = 0) -> None:
        self.engine.put_account(
            id, catalog=catalog, plan=plan, now_ms=self.at(now),
            subscribed_at_ms=subscribed_at // 1000, expires_at_ms=expires_at // 1000,
        )  # fmt: skip

    def admit(self, ask: Ask, now: int) -> Answer | Invalid:
        return self.attempt(self.engine.admit, ask, now)

    def peek(self, ask: Ask, now: int) -> Answer | Invalid:
        return self.attempt(self.engine.peek, ask, now)

    def attempt(self, method, ask: Ask, now: int) -> Answer | Invalid:
        try:
            return answer_of(method(request_of(ask), now_ms=self.at(now)))
        except InvalidArgument as error:
            return answer_of(error)

    def admit_many(self, asks: list[Ask], now: int) -> list[Answer | Invalid]:
        return [answer_of(item) for item in self.engine.admit_many(list(map(request_of, asks)), now_ms=self.at(now))]

    def usage(self, id: str, now: int) -> tuple[LimitState, ...]:
        return self.engine.usage(id, now_ms=self.at(now)).limits


class OracleWorld:
    def __init__(self) -> None:
        self.oracle = Oracle()
        self.admit, self.peek, self.usage, self.put = (
            self.oracle.admit, self.oracle.peek, self.oracle.usage, self.oracle.put_account,
        )  # fmt: skip

    def load(self, text: str, version: CatalogVersion | None = None) -> None:
        self.oracle.load_catalog(parse(text), version)

    def admit_many(self, asks: list[Ask], now: int) -> list[Answer | Invalid]:
        return [self.admit(ask, now) for ask in asks]
