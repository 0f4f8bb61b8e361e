"""QuotaService: messages to requests, decisions to messages. What is decided is the engine's business.

The data port's methods are served here for reference: a native front answers the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TypeVar

from quota import Decision, LimitState, Mode, OpenHold, Outcome, Request
from quota.engine import Engine
from quota.errors import AlreadyExists, InvalidArgument, QuotaError
from quota.server.names import checked_id
from quota.server.rpc import Method
from quota.server.status import details, status_number
from quota.server.traces import UNTRACED, Traces
from quota.store import Store
from quota.v1 import quota_pb2

Named = TypeVar("Named", bound=IntEnum)


class QuotaService:
    """Serves QuotaService from an engine. With a store, what acknowledges a change waits until it is kept."""

    def __init__(
        self, engine: Engine, *, batch_items_max: int, store: Store | None = None, traces: Traces = UNTRACED
    ) -> None:
        self._engine = engine
        self._batch_items_max = batch_items_max
        self._store = store
        self._traces = traces

    def methods(self) -> Mapping[str, Method]:
        """Return what is served, by the method's name in the proto."""
        return {
            "Admit": self.admit,
            "AdmitBatch": self.admit_batch,
            "Peek": self.peek,
            "Settle": self.settle,
            "Renew": self.renew,
            "GetUsage": self.get_usage,
        }

    def admit(self, message: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        request = request_of(message)
        self._check()
        decision = self._engine.admit(request)
        self._wait(decision.ticket)
        return decision_message(decision)

    def peek(self, message: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        return decision_message(self._engine.peek(request_of(message)))

    def admit_batch(self, message: quota_pb2.AdmitBatchRequest) -> quota_pb2.AdmitBatchResponse:
        if len(message.requests) > self._batch_items_max:
            raise InvalidArgument(
                "requests", f"{len(message.requests)} items", f"at most {self._batch_items_max} (batch_items_max)"
            )
        requests = [_request_or_error(item) for item in message.requests]
        self._check()
        results = self._engine.admit_many(requests)
        self._wait(max((result.ticket for result in results if not isinstance(result, QuotaError)), default=0))
        return quota_pb2.AdmitBatchResponse(results=map(_result_message, results))

    def settle(self, message: quota_pb2.SettleRequest) -> quota_pb2.SettleResponse:
        self._check()
        settlement = self._engine.settle(
            checked_id("account", message.account),
            checked_id("request_id", message.request_id),
            outcome=_named(Outcome, "outcome", message.outcome),
            draws=_draws(message.draws) or None,
        )
        self._wait(self._engine.ledger.ticket)
        return quota_pb2.SettleResponse(
            charged=_charge_messages(settlement.charged),
            refunded=_charge_messages(settlement.refunded),
            late=settlement.late,
        )

    def renew(self, message: quota_pb2.RenewRequest) -> quota_pb2.RenewResponse:
        self._check()
        hold_expires_at_ms = self._engine.renew(
            checked_id("account", message.account),
            checked_id("request_id", message.request_id),
            hold_ms=message.hold_ms,
        )
        self._wait(self._engine.ledger.ticket)
        return quota_pb2.RenewResponse(hold_expires_at_ms=hold_expires_at_ms)

    def get_usage(self, message: quota_pb2.GetUsageRequest) -> quota_pb2.Usage:
        usage = self._engine.usage(checked_id("account", message.account))
        return quota_pb2.Usage(
            account=usage.account,
            catalog=quota_pb2.CatalogVersion(name=usage.catalog.name, version=usage.catalog.version),
            plan=usage.plan,
            limits=limit_messages(usage.limits),
            holds=map(_hold_message, usage.holds),
            concurrency=(
                quota_pb2.ConcurrencyState(id=state.id, limit=state.limit, in_flight=state.in_flight)
                for state in usage.concurrency
            ),
        )

    def _check(self) -> None:
        """Raise Unavailable rather than charge what cannot be kept."""
        if self._store is not None:
            self._store.check()

    def _wait(self, ticket: int) -> None:
        """Return once an answer that rests on this change may leave. Raises Unavailable; the charge then stays."""
        if self._store is not None:
            with self._traces.step("store.wait"):
                self._store.wait(ticket)


def request_of(message: quota_pb2.AdmitRequest) -> Request:
    """Return the engine's request. Raises InvalidArgument with the field at fault."""
    return Request(
        message.account,
        model=message.model,
        tool=message.tool,
        endpoint=message.endpoint,
        mode=_named(Mode, "mode", message.mode),
        draws=_draws(message.draws),
        request_id=message.request_id,
        prompt_id=message.prompt_id,
        hold_ms=message.hold_ms,
        client=message.client,
        explain=message.explain,
    )


def _draws(messages: Iterable[quota_pb2.Draw]) -> dict[str, int]:
    draws: dict[str, int] = {}
    for index, draw in enumerate(messages):
        if draw.meter in draws:
            raise InvalidArgument(f"draws[{index}].meter", draw.meter, "each meter once in a request")
        draws[draw.meter] = draw.amount
    return draws


def _named(words: type[Named], field: str, number: int) -> Named:
    try:
        return words(number)
    except ValueError:
        allowed = ", ".join(f"{word.name} ({word.value})" for word in words)
        raise InvalidArgument(field, int(number), allowed) from None


def _request_or_error(message: quota_pb2.AdmitRequest) -> Request | InvalidArgument:
    try:
        return request_of(message)
    except InvalidArgument as error:
        return error


def decision_message(decision: Decision) -> quota_pb2.AdmitResponse:
    """Return the decision as it goes over the wire."""
    message = quota_pb2.AdmitResponse(
        verdict=quota_pb2.Verdict.ValueType(decision.verdict),
        model=decision.model,
        rule=decision.rule,
        charged=_charge_messages(decision.charged),
        weight_micro=decision.weight_micro,
        retry_after_ms=decision.retry_after_ms,
        resets_at_ms=decision.resets_at_ms,
        limits=limit_messages(decision.limits),
        hold_expires_at_ms=decision.hold_expires_at_ms,
    )
    if decision.catalog is not None:
        message.catalog.name = decision.catalog.name
        message.catalog.version = decision.catalog.version
    if decision.vendor is not None:
        message.vendor.code = decision.vendor.code
        message.vendor.http_status = decision.vendor.http_status
        message.vendor.message = decision.vendor.message
    return message


def _result_message(result: Decision | InvalidArgument | AlreadyExists) -> quota_pb2.AdmitResult:
    if isinstance(result, InvalidArgument | AlreadyExists):
        field = result.field if isinstance(result, InvalidArgument) else "request_id"
        error = quota_pb2.ItemError(code=status_number(result), field=field, message=details(result))
        return quota_pb2.AdmitResult(error=error)
    return quota_pb2.AdmitResult(response=decision_message(result))


def _charge_messages(charges: Mapping[str, int]) -> Iterable[quota_pb2.Charge]:
    return (quota_pb2.Charge(pool=pool, micro=micro) for pool, micro in charges.items())


def _hold_message(hold: OpenHold) -> quota_pb2.OpenHold:
    return quota_pb2.OpenHold(
        request_id=hold.request_id,
        model=hold.model,
        admitted_at_ms=hold.admitted_at_ms,
        expires_at_ms=hold.expires_at_ms,
        charged=_charge_messages(hold.charged),
    )


def limit_messages(limits: Iterable[LimitState]) -> Iterable[quota_pb2.LimitState]:
    return (
        quota_pb2.LimitState(
            id=limit.id,
            pool=limit.pool,
            window=limit.window,
            limit_micro=limit.limit_micro,
            used_micro=limit.used_micro,
            remaining_micro=limit.remaining_micro,
            percent=limit.percent,
            resets_at_ms=limit.resets_at_ms,
            full_at_ms=limit.full_at_ms,
        )
        for limit in limits
    )
