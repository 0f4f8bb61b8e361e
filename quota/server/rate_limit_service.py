"""RateLimitService: Envoy's descriptors to requests, decisions to Envoy's answers. docs/envoy.md says what they mean.

Like QuotaService it is served here for reference, and for what the native front hands over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from quota import Decision, InvalidArgument, Mode, Outcome, Request
from quota._core import AMOUNT_MAX, NAME_BYTES_MAX
from quota.engine import Engine
from quota.envoy import rls_pb2
from quota.errors import AlreadyExists
from quota.server.domains import DESCRIPTORS_MAX, FIELDS, STYLES, Domain, Style
from quota.server.names import checked_id
from quota.server.rpc import Method
from quota.server.traces import UNTRACED, Traces
from quota.store import Store

METER: Final = FIELDS.index("meter")
OK: Final = rls_pb2.RateLimitResponse.OK


@dataclass(slots=True)
class Asked:
    """One call: what its descriptors come to. `draws` has the amount of each meter, `places` which of them each descriptor draws."""

    domain: Domain
    fields: dict[str, str] = field(default_factory=dict)
    draws: dict[str, int] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    records: bool = False
    holds: bool = False

    @property
    def style(self) -> Style:
        style = self.fields.get("style", "")
        try:
            return self.domain.style_of(style, self.fields.get("path", ""))
        except KeyError:
            raise InvalidArgument("style", style, ", ".join(STYLES)) from None

    @property
    def checks(self) -> bool:
        """Whether nothing is to be charged or held."""
        return not (self.records or self.holds or any(self.draws.values()))

    def request(self) -> Request:
        """Return the engine's request. Raises InvalidArgument."""
        if self.records and self.holds:
            raise InvalidArgument(
                "descriptors", "both", f"the entry of record or that of hold of domain {self.domain.name}"
            )
        draws = self.draws
        if "" in draws:
            if len(self.places) > 1 or draws[""] != 1:
                allowed = (
                    f"1 without a meter, by one descriptor alone; name one by an entry or in domain {self.domain.name}"
                )
                raise InvalidArgument("hits_addend", draws[""], allowed)
            draws = {}
        return Request(
            checked_id("account", self.fields["account"]),
            model=self.fields.get("model", ""),
            tool=self.fields.get("tool", ""),
            endpoint=self.fields.get("endpoint", ""),
            client=self.fields.get("client", ""),
            request_id=self.fields.get("request_id", ""),
            prompt_id=self.fields.get("prompt_id", ""),
            mode=Mode.RECORD if self.records else Mode.ENFORCE,
            hold_ms=self.domain.hold_ms if self.holds else 0,
            draws=draws,
            explain=True,
        )


class RateLimitService:
    """Serves RateLimitService from an engine. With a store, what acknowledges a change waits until it is kept."""

    def __init__(self, engine: Engine, *, store: Store | None = None, traces: Traces = UNTRACED) -> None:
        self._engine = engine
        self._store = store
        self._traces = traces
        self._domains: dict[str, Domain] = {}

    def set_domains(self, domains: tuple[Domain, ...]) -> None:
        """Read descriptors under these domains from now on."""
        self._domains = {domain.name: domain for domain in domains}

    def methods(self) -> Mapping[str, Method]:
        """Return what is served, by the method's name in the proto."""
        return {"ShouldRateLimit": self.should_rate_limit}

    def should_rate_limit(self, message: rls_pb2.RateLimitRequest) -> rls_pb2.RateLimitResponse:
        asked = self._asked(message)
        request, style = asked.request(), asked.style
        if asked.checks:
            return _answer(self._engine.peek(request), asked, style)
        if self._store is not None:
            self._store.check()
        decision = self._record(request) if asked.records else self._engine.admit(request)
        if self._store is not None:
            with self._traces.step("store.wait"):
                self._store.wait(self._engine.ledger.ticket if decision is None or asked.records else decision.ticket)
        return _answer(decision, asked, style)

    def _record(self, request: Request) -> Decision | None:
        """Charge what already happened. An id that stands for an admission settles that, and there is no decision."""
        try:
            decision = self._engine.admit(request)
        except AlreadyExists:
            self._settle(request, request.draws)
            return None
        if decision.hold_expires_at_ms is not None:  # opened by the plan: what has happened keeps no place
            self._settle(request, {})
        return decision

    def _settle(self, request: Request, draws: Mapping[str, int]) -> None:
        self._engine.settle(request.account, request.request_id, outcome=Outcome.COMMIT, draws=draws or None)

    def _asked(self, message: rls_pb2.RateLimitRequest) -> Asked:
        domain = self._domains.get(message.domain)
        if domain is None:
            raise InvalidArgument("domain", message.domain, ", ".join(self._domains))
        count = len(message.descriptors)
        if not 1 <= count <= DESCRIPTORS_MAX:
            raise InvalidArgument("descriptors", f"{count} descriptors", f"1 to {DESCRIPTORS_MAX}")
        asked = Asked(domain)
        for index, descriptor in enumerate(message.descriptors):
            has_own = descriptor.HasField("hits_addend")
            amount = descriptor.hits_addend.value if has_own else message.hits_addend or 1
            _add(asked, f"descriptors[{index}]", descriptor, amount)
        return asked


def _add(asked: Asked, place: str, descriptor: rls_pb2.RateLimitDescriptor, amount: int) -> None:
    """Take one descriptor in. Raises InvalidArgument."""
    domain, named = asked.domain, False
    own: dict[str, str] = {}
    for entry in descriptor.entries:
        asked.records |= domain.record is not None and (entry.key, entry.value) == (
            domain.record.entry,
            domain.record.value,
        )
        asked.holds |= domain.hold is not None and (entry.key, entry.value) == (domain.hold.entry, domain.hold.value)
        index = domain.entries.get(entry.key)
        if index is None or not entry.value:
            continue
        fields = own if index == METER else asked.fields
        before = fields.setdefault(FIELDS[index], entry.value)
        if before != entry.value:
            raise InvalidArgument(
                f"{place}.{entry.key}", entry.value, f"one {FIELDS[index]} in a call; {before!r} came before"
            )
        named |= FIELDS[index] == "account"
    if not named:
        keys = ", ".join(key for key, index in domain.entries.items() if FIELDS[index] == "account")
        raise InvalidArgument(place, "no account", f"an entry {keys} in every descriptor")
    meter = own.get("meter", domain.meter)
    if len(meter.encode()) > NAME_BYTES_MAX:
        raise InvalidArgument(f"{place}.meter", meter, f"at most {NAME_BYTES_MAX} bytes of UTF-8")
    total = asked.draws.get(meter, 0) + amount
    if total > AMOUNT_MAX:
        raise InvalidArgument(f"{place}.hits_addend", amount, f"at most {AMOUNT_MAX} of one meter in a call")
    asked.draws[meter] = total
    asked.places.append(list(asked.draws).index(meter))


def _answer(decision: Decision | None, asked: Asked, style: Style) -> rls_pb2.RateLimitResponse:
    if decision is None:
        statuses = [rls_pb2.RateLimitResponse.DescriptorStatus(code=OK) for _ in asked.places]
        return rls_pb2.RateLimitResponse(overall_code=OK, statuses=statuses)
    return rls_pb2.RateLimitResponse.FromString(decision.limited(style, asked.domain.headers, asked.places))
