"""The native service and the reference handlers side by side: two engines that live through the same, and every answer compared.

What the service hands over is asked of handlers on its own engine, as a front does; so both engines go on alike.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from google.protobuf.message import DecodeError, Message
from worlds import Hands

from quota import Engine, _core
from quota._core import SERVED_METHODS, Service
from quota.envoy import rls_pb2
from quota.errors import QuotaError
from quota.server.domains import DEFAULT, Domain
from quota.server.quota_service import QuotaService
from quota.server.rate_limit_service import RateLimitService
from quota.types import Bounds
from quota.v1 import quota_pb2

BATCH_ITEMS_MAX = 20
REQUESTS: dict[str, type[Message]] = {
    "Admit": quota_pb2.AdmitRequest,
    "AdmitBatch": quota_pb2.AdmitBatchRequest,
    "Peek": quota_pb2.AdmitRequest,
    "Settle": quota_pb2.SettleRequest,
    "Renew": quota_pb2.RenewRequest,
    "GetUsage": quota_pb2.GetUsageRequest,
    "ShouldRateLimit": rls_pb2.RateLimitRequest,
}


class Fronts:
    """`native` is served by the service, `plain` by the handlers alone."""

    def __init__(
        self, catalogs: list[str], bounds: Bounds | None = None, domains: tuple[Domain, ...] = (DEFAULT,)
    ) -> None:
        self.hands = Hands()
        self.hands.us = 1_783_000_000_000_000
        self.native, self.plain = (
            Engine(catalogs=catalogs, clock=self.hands, bounds=bounds or Bounds()) for _ in range(2)
        )
        self.service = Service(self.native.ledger, BATCH_ITEMS_MAX)
        self.service.set_domains(_core.Domains(domains))
        self.handlers, self.reference = (handlers(engine, domains) for engine in (self.native, self.plain))
        self.seen: Counter[str] = Counter()
        """How often each method was served or handed over, and each verdict was served."""

    @property
    def engines(self) -> tuple[Engine, Engine]:
        return self.native, self.plain

    def ask(self, method: str, message: Message, *, may_hand: bool = False) -> Any:
        return self.ask_raw(method, message.SerializeToString(), may_hand=may_hand)

    def ask_raw(self, method: str, raw: bytes, *, may_hand: bool = False) -> Any:
        """Ask both, and compare; the answer, or the error. Only errors are handed over, unless told that more may be."""
        served, out, ticket, rest = self.service.answer(SERVED_METHODS.index(method), raw, self.hands.us)
        try:
            message = REQUESTS[method].FromString(raw)
        except DecodeError as error:
            assert (False, b"", 0, 0) == (served, out, ticket, rest), f"{method} served what is no message: {raw!r}"
            self.seen[f"{method} no message"] += 1
            return error
        given: bytes | QuotaError = out
        if not served:
            given = answered(self.handlers[method], REQUESTS[method].FromString(raw[rest:]))
            given = out + given if isinstance(given, bytes) else given
        due = answered(self.reference[method], message)
        if isinstance(due, QuotaError):
            assert (False, b"", 0, 0) == (served, out, ticket, rest), f"{method} served what raises {due!r}: {message}"
            assert (type(due), str(due)) == (type(given), str(given))
            self.seen[f"{method} {type(due).__name__}"] += 1
            return due
        assert due == given, f"{method}:\n{message}\ngiven {given!r}\ndue   {due!r}"
        answer = answer_of(method, due)
        assert served or may_hand or has_error(answer), f"{method} was handed over: {raw!r} {message}"
        self.note(method, served, answer)
        return answer

    def note(self, method: str, served: bool, answer: Message) -> None:
        self.seen[f"{method} {'served' if served else 'handed'}"] += 1
        if served and isinstance(answer, quota_pb2.AdmitResponse):
            self.seen[quota_pb2.Verdict.Name(answer.verdict)] += 1
        if served and isinstance(answer, rls_pb2.RateLimitResponse):
            self.seen[rls_pb2.RateLimitResponse.Code.Name(answer.overall_code)] += 1

    def compare_states(self) -> None:
        """The accounts are the same to the last byte, and so are the counts."""
        native, plain = self.native.ledger, self.plain.ledger
        for account in self.native.list_accounts()[0]:
            assert native.encode(account.id, 0) == plain.encode(account.id, 0), account
        assert sorted(native.decisions()) == sorted(plain.decisions())
        assert (native.replay_count, native.behind_count) == (plain.replay_count, plain.behind_count)
        native.check()


def handlers(engine: Engine, domains: tuple[Domain, ...]) -> dict[str, Any]:
    rate_limit_service = RateLimitService(engine)
    rate_limit_service.set_domains(domains)
    return {**QuotaService(engine, batch_items_max=BATCH_ITEMS_MAX).methods(), **rate_limit_service.methods()}


def answered(handler: Any, message: Message) -> bytes | QuotaError:
    try:
        raw: bytes = handler(message).SerializeToString()
    except QuotaError as error:
        return error
    return raw


def answer_of(method: str, raw: bytes) -> Message:
    made = {
        "Admit": quota_pb2.AdmitResponse, "AdmitBatch": quota_pb2.AdmitBatchResponse, "Peek": quota_pb2.AdmitResponse,
        "Settle": quota_pb2.SettleResponse, "Renew": quota_pb2.RenewResponse, "GetUsage": quota_pb2.Usage,
        "ShouldRateLimit": rls_pb2.RateLimitResponse,
    }[method]  # fmt: skip
    return made.FromString(raw)


def has_error(answer: Message) -> bool:
    """Whether some item of a batch is answered by an error."""
    return isinstance(answer, quota_pb2.AdmitBatchResponse) and any(it.HasField("error") for it in answer.results)
