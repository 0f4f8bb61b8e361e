"""QuotaService: messages to requests, decisions to messages. What is decided is the engine's business.

The data port's methods are served here for reference: a native front answers the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from quota import Decision, LimitState, Mode, Request
from quota.engine import Engine
from quota.errors import InvalidArgument
from quota.server.names import account_name
from quota.server.rpc import Method
from quota.server.status import details, status_number
from quota.v1 import quota_pb2


class QuotaService:
    """Serves QuotaService from an engine. Settle and Renew are not served yet and answer UNIMPLEMENTED."""

    def __init__(self, engine: Engine, *, batch_items_max: int) -> None:
        self._engine = engine
        self._batch_items_max = batch_items_max

    def methods(self) -> Mapping[str, Method]:
        """Return what is served, by the method's name in the proto."""
        return {
            "Admit": self.admit,
            "AdmitBatch": self.admit_batch,
            "Peek": self.peek,
            "GetUsage": self.get_usage,
        }

    def admit(self, message: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        return decision_message(self._engine.admit(request_of(message)))

    def peek(self, message: quota_pb2.AdmitRequest) -> quota_pb2.AdmitResponse:
        return decision_message(self._engine.peek(request_of(message)))

    def admit_batch(self, message: quota_pb2.AdmitBatchRequest) -> quota_pb2.AdmitBatchResponse:
        if len(message.requests) > self._batch_items_max:
            raise InvalidArgument(
                "requests", f"{len(message.requests)} items", f"at most {self._batch_items_max} (batch_items_max)"
            )
        results = self._engine.admit_many([_request_or_error(item) for item in message.requests])
        return quota_pb2.AdmitBatchResponse(results=map(_result_message, results))

    def get_usage(self, message: quota_pb2.GetUsageRequest) -> quota_pb2.Usage:
        usage = self._engine.usage(account_name("account", message.account))
        return quota_pb2.Usage(
            account=usage.account,
            catalog=quota_pb2.CatalogVersion(name=usage.catalog.name, version=usage.catalog.version),
            plan=usage.plan,
            limits=_limit_messages(usage.limits),
        )


def request_of(message: quota_pb2.AdmitRequest) -> Request:
    """Return the engine's request. Raises InvalidArgument with the field at fault."""
    try:
        mode = Mode(message.mode)
    except ValueError:
        allowed = ", ".join(f"{mode.name} ({mode.value})" for mode in Mode)
        raise InvalidArgument("mode", int(message.mode), allowed) from None
    draws: dict[str, int] = {}
    for index, draw in enumerate(message.draws):
        if draw.meter in draws:
            raise InvalidArgument(f"draws[{index}].meter", draw.meter, "each meter once in a request")
        draws[draw.meter] = draw.amount
    return Request(
        message.account,
        model=message.model,
        tool=message.tool,
        endpoint=message.endpoint,
        mode=mode,
        draws=draws,
        request_id=message.request_id,
        prompt_id=message.prompt_id,
        hold_ms=message.hold_ms,
        client=message.client,
        explain=message.explain,
    )


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
        charged=(quota_pb2.Charge(pool=pool, micro=micro) for pool, micro in decision.charged.items()),
        weight_micro=decision.weight_micro,
        retry_after_ms=decision.retry_after_ms,
        resets_at_ms=decision.resets_at_ms,
        limits=_limit_messages(decision.limits),
    )
    if decision.catalog is not None:
        message.catalog.name = decision.catalog.name
        message.catalog.version = decision.catalog.version
    if decision.vendor is not None:
        message.vendor.code = decision.vendor.code
        message.vendor.http_status = decision.vendor.http_status
        message.vendor.message = decision.vendor.message
    return message


def _result_message(result: Decision | InvalidArgument) -> quota_pb2.AdmitResult:
    if isinstance(result, InvalidArgument):
        error = quota_pb2.ItemError(code=status_number(result), field=result.field, message=details(result))
        return quota_pb2.AdmitResult(error=error)
    return quota_pb2.AdmitResult(response=decision_message(result))


def _limit_messages(limits: Iterable[LimitState]) -> Iterable[quota_pb2.LimitState]:
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
