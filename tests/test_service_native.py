"""The native service: the same bytes as the reference handlers, or a call handed to them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from drawn_catalogs import ZONES, RandomDice, base_time, catalog_text, chance
from drawn_requests import ACCOUNTS, DrawnRequests, drawn_bounds
from fronts import BATCH_ITEMS_MAX, Fronts
from google.protobuf.message import Message
from oracle import Ask
from oracle.wall import DAY, HOUR, SECOND, wall_clock
from plans import START_MS
from plans import catalog_text as small_catalog
from shelf import Shelf

from quota import FailedPrecondition, InvalidArgument, Verdict
from quota._core import SERVED_METHODS
from quota.envoy import rls_pb2
from quota.v1 import quota_pb2

PACES = (0, 0, 0, 1, 999, 1000, SECOND, SECOND, 30 * SECOND, 600 * SECOND, HOUR, 5 * HOUR, DAY)
LIMITS = "[{id: s, window: {sliding: 1h}, limit: 50}, {id: c, window: {cycle: 2h}, limit: 40}]"
ODD: tuple[dict[str, Any], ...] = (
    {"account": ""}, {"account": "a" * 257}, {"model": "m" * 257}, {"tool": "t" * 300}, {"endpoint": "/" * 257},
    {"request_id": "r" * 257}, {"prompt_id": "p" * 257}, {"client": "c" * 257}, {"mode": 2}, {"mode": -1},
    {"hold_ms": -1, "request_id": "r"}, {"hold_ms": 3_600_001, "request_id": "r"}, {"hold_ms": 1, "request_id": ""},
    {"draws": [quota_pb2.Draw(meter="piece", amount=10**9 + 1)]}, {"draws": [quota_pb2.Draw(amount=1)]},
    {"draws": [quota_pb2.Draw(meter="x" * 257)]}, {"draws": [quota_pb2.Draw(meter="piece")] * 2},
    {"draws": [quota_pb2.Draw(meter=f"m{i}") for i in range(17)]},
)  # fmt: skip
EVEN: tuple[dict[str, Any], ...] = (
    {"account": "ü" * 128}, {"model": "松" * 85}, {"model": "${meter} ${number}"}, {"endpoint": "/"}, {"endpoint": "//"},
    {"client": "c" * 256}, {"request_id": "🌲" * 64}, {"draws": [quota_pb2.Draw(meter="${unit}", amount=1)]},
    {"draws": [quota_pb2.Draw(meter=f"m{i}") for i in range(16)]}, {"tool": "Säge"}, {"explain": True},
)  # fmt: skip


NOT_YET = {"UNSPECIFIED", "ACCOUNT_BANNED", "ACCOUNT_SUSPENDED", "ACCOUNT_RESTRICTED"}


def message_of(ask: Ask) -> quota_pb2.AdmitRequest:
    return quota_pb2.AdmitRequest(
        account=ask.account, model=ask.model, tool=ask.tool, endpoint=ask.endpoint,
        mode=quota_pb2.Mode.ValueType(ask.mode),
        draws=[quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in (ask.draws or {}).items()],
        request_id=ask.request_id, prompt_id=ask.prompt_id, hold_ms=ask.hold_ms, client=ask.client, explain=ask.explain,
    )  # fmt: skip


def entries_of(entries: dict[str, str]) -> list[rls_pb2.RateLimitDescriptor.Entry]:
    return [rls_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries.items()]


class Messages:
    """A history of messages, told to both fronts."""

    def __init__(self, seed: int) -> None:
        self.dice = RandomDice(seed)
        self.zones = {"first": self.dice.pick(ZONES), "second": self.dice.pick(ZONES)}
        self.base = base_time(self.dice, wall_clock(self.zones["first"]))
        self.drawn = DrawnRequests(self.dice)
        self.fronts = Fronts([self.catalog(name) for name in self.zones], drawn_bounds(self.dice))
        self.fronts.hands.us = self.base
        for account in ACCOUNTS:
            self.put(account)

    def catalog(self, name: str) -> str:
        return catalog_text(self.dice, name, self.zones[name], self.base)

    def step(self) -> None:
        dice, fronts = self.dice, self.fronts
        fronts.hands.us += dice.pick(PACES) * dice.whole(-1, 8)
        what = dice.whole(1, 100)
        if what <= 35:
            fronts.ask("Admit" if chance(dice, 80) else "Peek", self.message())
        elif what <= 45:
            fronts.ask("Admit", message_of(self.drawn.stream()))
        elif what <= 60:
            items = [self.message() for _ in range(dice.whole(0, BATCH_ITEMS_MAX + 1))]
            fronts.ask("AdmitBatch", quota_pb2.AdmitBatchRequest(requests=items))
        elif what <= 75:
            fronts.ask("Settle", self.settlement())
        elif what <= 80:
            account, request_id, _ = self.drawn.known_id()
            hold_ms = dice.pick([0, -1, 1, 1000, 60_000, 600_000, 3_600_000, 3_600_001])
            fronts.ask("Renew", quota_pb2.RenewRequest(account=account, request_id=request_id, hold_ms=hold_ms))
        elif what <= 85:
            fronts.ask("ShouldRateLimit", self.descriptors())
        elif what <= 92:
            account = dice.pick(["eve", "", "a" * 257, *ACCOUNTS * 3])
            fronts.ask("GetUsage", quota_pb2.GetUsageRequest(account=account))
        else:
            self.change()

    def message(self) -> quota_pb2.AdmitRequest:
        message = message_of(self.drawn.ask())
        if chance(self.dice, 10):
            for field, value in self.dice.pick(ODD if chance(self.dice, 15) else EVEN).items():
                message.ClearField(field)
                getattr(message, field).extend(value) if field == "draws" else setattr(message, field, value)
        return message

    def descriptors(self) -> Message:
        """A request as Envoy would put it, or odd."""
        dice, drawn = self.dice, self.drawn.ask()
        entries = {
            "account": drawn.account, "model": drawn.model, "tool": drawn.tool, "endpoint": drawn.endpoint, "client": drawn.client,
            "request_id": drawn.request_id, "prompt_id": drawn.prompt_id, "phase": dice.pick(["", "", "start", "done"]),
            "path": dice.pick(["", "/v1/messages?beta", "/v1/chat/completions", "/"]),
            "style": dice.pick(["", "", "", "openai", "anthropic", "vendor", "plain"]),
        }  # fmt: skip
        if chance(dice, 20):
            account, request_id, _ = self.drawn.known_id()
            entries |= {"account": account, "request_id": request_id, "phase": "done"}
        draws = list((drawn.draws or {"": 1}).items())
        if chance(dice, 30):
            draws.append((dice.pick([meter for meter, _ in draws]), dice.whole(0, 2)))
        made = rls_pb2.RateLimitRequest(
            domain="quotad" if chance(dice, 98) else "other", hits_addend=dice.pick([0, 0, 1, 3])
        )
        for meter, amount in draws:
            some = made.descriptors.add(entries=entries_of({**entries, "meter": meter, "other": "entry"}))
            if chance(dice, 80):
                some.hits_addend.value = amount
            if chance(dice, 5):
                some.entries.extend(
                    entries_of(dice.pick([{"account": "eve"}, {"model": "m"}, {"account": ""}, {"phase": "done"}]))
                )
        return made

    def settlement(self) -> Message:
        account, request_id, outcome, draws = self.drawn.settlement()
        return quota_pb2.SettleRequest(
            account=account, request_id=request_id, outcome=quota_pb2.Outcome.ValueType(outcome),
            draws=[quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in (draws or {}).items()],
        )  # fmt: skip

    def change(self) -> None:
        """Something beside the data port, the same to both engines."""
        what = self.dice.whole(1, 4)
        if what == 1:
            self.put(self.dice.pick(ACCOUNTS))
        elif what == 2:
            factor = self.dice.pick(["0", "0.25", "0.5", "1", "1"])
            for engine in self.fronts.engines:
                engine.set_capacity(factor)
        else:
            self.both("load_catalog", self.catalog(self.dice.pick(list(self.zones))))

    def put(self, account: str) -> None:
        now_ms = self.fronts.hands.us // 1000
        start, length = self.dice.pick([0, 0, now_ms - 86_400_000, now_ms + 3_600_000]), self.dice.pick([0, 0, 0, 7])
        self.both(
            "put_account", account, catalog=self.dice.pick(list(self.zones)), plan=self.dice.pick(["bench", "hall"]),
            subscribed_at_ms=start, expires_at_ms=length and max(start, now_ms) + length * 3_600_000,
            overrides=self.drawn.overrides(),
        )  # fmt: skip

    def both(self, method: str, *values: Any, **more: Any) -> None:
        outcomes = []
        for engine in self.fronts.engines:
            try:
                outcomes.append(getattr(engine, method)(*values, **more))
            except (InvalidArgument, FailedPrecondition) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_the_same_bytes_as_the_reference():
    """Random messages of every method, good and bad: the same bytes, and handed over is what raises and nothing else.

    Every method and every verdict is among them."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        history = Messages(seed)
        for _ in range(150):
            history.step()
        history.fronts.compare_states()
        seen.update(history.fronts.seen)
    due = {"OK", "OVER_LIMIT", "ShouldRateLimit AlreadyExists", "ShouldRateLimit InvalidArgument"}
    due |= {f"{method} served" for method in SERVED_METHODS} | {verdict.name for verdict in Verdict} - NOT_YET

    assert set() == {what for what in due if not seen[what]}


def test_a_hold_shows_one_charge_a_pool():
    """What its own draws cost the pool and its share of the prompt are one figure."""
    fronts = small()
    draws = [quota_pb2.Draw(meter="unit", amount=1), quota_pb2.Draw(meter="tenth", amount=5)]
    fronts.ask("Admit", ask(request_id="r", prompt_id="p", hold_ms=60_000, draws=draws))
    usage = fronts.ask("GetUsage", quota_pb2.GetUsageRequest(account="ada"))

    assert [("p", 1_500_000)] == [(charge.pool, charge.micro) for charge in usage.holds[0].charged]


def test_long_answers():
    """Many holds of long ids, wide batches: lengths of one, two and three bytes, one inside the other."""
    fronts = small()
    for i in range(70):
        fronts.ask(
            "Admit", ask(request_id=f"{i:0256}", hold_ms=60_000, draws=[quota_pb2.Draw(meter="tenth", amount=0)])
        )
    usage = fronts.ask("GetUsage", quota_pb2.GetUsageRequest(account="ada"))
    wide = items(*[ask(explain=True, draws=[quota_pb2.Draw(meter=f"{i:0256}") for i in range(16)])] * 20)
    words = fronts.ask("AdmitBatch", wide).results[0].response.vendor.message

    assert 70 == len(usage.holds)
    assert ", ".join(f"{i:0256}" for i in range(16)) in words


# ---- What is handed over ----


def items(*requests: quota_pb2.AdmitRequest) -> quota_pb2.AdmitBatchRequest:
    return quota_pb2.AdmitBatchRequest(requests=requests)


def ask(account: str = "ada", **more: Any) -> quota_pb2.AdmitRequest:
    return quota_pb2.AdmitRequest(account=account, model="m", **more)


def limited(amount: int = 1, **entries: str) -> rls_pb2.RateLimitRequest:
    descriptor = rls_pb2.RateLimitDescriptor(
        entries=entries_of({"meter": "unit", "model": "m", **entries}), hits_addend={"value": amount}
    )
    return rls_pb2.RateLimitRequest(domain="quotad", descriptors=[descriptor])


def small(*accounts: str) -> Fronts:
    """Two engines that have `ada` and these accounts; changes of the native one are tracked."""
    fronts = Fronts([small_catalog(LIMITS)])
    fronts.native.ledger.track()
    fronts.hands.us = START_MS * 1000
    for engine in fronts.engines:
        for account in ("ada", *accounts):
            engine.put_account(account, plan="only")
    return fronts


def answer(fronts: Fronts, method: str, message: Message) -> tuple[bool, bytes, int, int]:
    return fronts.service.answer(SERVED_METHODS.index(method), message.SerializeToString(), fronts.hands.us)


def used(fronts: Fronts) -> int:
    """Whole units that the native engine has charged."""
    return fronts.native.usage("ada").limits[0].used_micro // 1_000_000


@pytest.mark.parametrize("bad", ODD, ids=str)
def test_a_batch_with_a_bad_item_is_handed_over_whole(bad):
    """Wherever it stands, nothing before it has been decided."""
    fronts = small()
    odd = ask()
    odd.MergeFrom(quota_pb2.AdmitRequest(**bad))
    for field in bad:
        if not bad[field]:
            odd.ClearField(field)

    assert (False, b"", 0, 0) == answer(fronts, "AdmitBatch", items(*[ask()] * 18, odd))
    assert 0 == used(fronts)


def test_a_batch_too_long_is_handed_over_whole():
    """By one item."""
    fronts = small()

    assert (False, b"", 0, 0) == answer(fronts, "AdmitBatch", items(*[ask()] * (BATCH_ITEMS_MAX + 1)))
    assert 0 == used(fronts)
    assert answer(fronts, "AdmitBatch", items(*[ask()] * BATCH_ITEMS_MAX))[0]
    assert BATCH_ITEMS_MAX == used(fronts)


@pytest.mark.parametrize("place", [0, 1, 15, 16, 17, 19])
def test_the_rest_of_a_batch_is_handed_over(place):
    """From the item on that only words can answer; those before it are decided, and their results given."""
    fronts = small()
    fronts.ask("Admit", ask(request_id="r"))
    requests = [ask()] * place + [ask(request_id="r", client="other")] + [ask()] * (19 - place)
    raw = items(*requests).SerializeToString()
    served, out, ticket, rest = fronts.service.answer(SERVED_METHODS.index("AdmitBatch"), raw, fronts.hands.us)

    assert not served
    assert [quota_pb2.ALLOWED] * place == [
        it.response.verdict for it in quota_pb2.AdmitBatchResponse.FromString(out).results
    ]
    assert 1 + place == used(fronts)
    assert (2 + place if place else 0) == ticket
    assert requests[place:] == list(quota_pb2.AdmitBatchRequest.FromString(raw[rest:]).requests)


# ---- Tickets ----


def test_answers_wait_for_the_change_they_rest_on():
    """A charge for its own, an answer given again for all so far, refusals, looks and errors for none."""
    fronts = small("ben")

    def ticket(method: str, message: Message) -> int:
        return answer(fronts, method, message)[2]

    assert 3 == ticket("Admit", ask())
    assert 4 == ticket("Admit", ask(request_id="r", hold_ms=60_000))
    assert 6 == ticket("AdmitBatch", items(ask("nobody"), ask(), ask("ben"), ask(draws=[quota_pb2.Draw(meter="x")])))
    assert 0 == ticket("AdmitBatch", items(ask("nobody")))
    assert 6 == ticket("Admit", ask(request_id="r", hold_ms=60_000))
    assert 0 == ticket("Admit", ask("nobody"))
    assert 0 == ticket("Admit", ask(request_id="r", client="other"))
    assert 0 == ticket("Peek", ask())
    assert 7 == ticket("Renew", quota_pb2.RenewRequest(account="ada", request_id="r", hold_ms=120_000))
    settle = quota_pb2.SettleRequest(account="ada", request_id="r", outcome=quota_pb2.COMMIT)
    assert 8 == ticket("Settle", settle)
    assert 9 == ticket("Settle", settle)
    assert 0 == ticket("Settle", quota_pb2.SettleRequest(account="ada", request_id="no", outcome=quota_pb2.COMMIT))
    assert 0 == ticket("GetUsage", quota_pb2.GetUsageRequest(account="ada"))
    assert 10 == ticket("ShouldRateLimit", limited(account="ada", request_id="s", phase="start"))
    assert 11 == ticket("ShouldRateLimit", limited(account="ada", request_id="s", phase="done"))
    assert 12 == ticket("ShouldRateLimit", limited(account="ada", request_id="t", phase="done"))
    assert 12 == ticket("ShouldRateLimit", limited(account="ada", request_id="t", phase="done"))
    assert 0 == ticket("ShouldRateLimit", limited(0, account="ada", request_id="u"))
    assert 0 == ticket("ShouldRateLimit", limited(account="nobody"))


# ---- Demotion ----


def test_a_demoted_account_is_handed_over():
    """Whatever is asked of it, until it has been recalled; the answers are those of one that never was away."""
    dice = random.Random(11)
    fronts = small(*[f"a{i}" for i in range(8)])
    shelf = Shelf(fronts.native)
    for step in range(600):
        fronts.hands.us += dice.choice([0, 1_000_000, 60_000_000])
        account = f"a{dice.randrange(9)}"
        message, method = dice.choice([
            (ask(account), "Admit"),
            (ask(account, request_id=f"r{step}"), "Admit"),
            (ask(account), "Peek"),
            (items(*[ask(f"a{i}") for i in range(9)]), "AdmitBatch"),
            (limited(account=account, phase="done", request_id=f"r{step - 1}"), "ShouldRateLimit"),
            (limited(account=account, phase="start", request_id=f"r{step}"), "ShouldRateLimit"),
            (limited(account=account), "ShouldRateLimit"),
            (quota_pb2.GetUsageRequest(account=account), "GetUsage"),
            (quota_pb2.SettleRequest(account=account, request_id=f"r{step - 1}", outcome=quota_pb2.CANCEL), "Settle"),
            (quota_pb2.RenewRequest(account=account, request_id=f"r{step - 1}", hold_ms=1), "Renew"),
        ])  # fmt: skip
        fronts.ask(method, message, may_hand=True)
        if dice.random() < 0.5:
            shelf.put_away(fronts.hands.us // 1000)
    for i in range(
        8
    ):  # not the bytes: who is put away loses ids whose time is over, and counts new ones from the start
        fronts.ask("GetUsage", quota_pb2.GetUsageRequest(account=f"a{i}"), may_hand=True)
    assert sorted(fronts.native.ledger.decisions()) == sorted(fronts.plain.ledger.decisions())
    fronts.native.ledger.check()

    assert shelf.fetched > 200
    assert set() == {
        f"{method} {how}" for method in ("Admit", "AdmitBatch", "Peek", "GetUsage", "ShouldRateLimit") for how in ("served", "handed")
        if not fronts.seen[f"{method} {how}"]
    }  # fmt: skip


def test_nothing_is_decided_of_a_demoted_account():
    """It is handed over without a charge, by itself and within a batch."""
    fronts = small("ben")
    shelf = Shelf(fronts.native)
    shelf.put_away(START_MS)
    assert 2 == fronts.native.ledger.demoted_count

    for method, message in (
        ("Admit", ask()), ("Peek", ask()), ("AdmitBatch", items(ask(), ask("ben"))),
        ("GetUsage", quota_pb2.GetUsageRequest(account="ada")),
        ("Settle", quota_pb2.SettleRequest(account="ada", request_id="r", outcome=quota_pb2.COMMIT)),
        ("Renew", quota_pb2.RenewRequest(account="ada", request_id="r", hold_ms=1)),
    ):  # fmt: skip
        assert (False, b"", 0, 0) == answer(fronts, method, message)
    assert 0 == used(fronts)


# ---- Lifetimes ----


def test_catalogs_change_while_others_are_served():
    """Names and words of a version are written whole, also while so many follow it that it is let go."""
    fronts = small()
    raw = ask(explain=True).SerializeToString()
    unknown = ask("nobody").SerializeToString()
    done = threading.Event()

    def serve() -> set[tuple[str, ...]]:
        seen = set()
        while not done.is_set():
            for message in (raw, unknown):
                served, out, _, _ = fronts.service.answer(0, message, fronts.hands.us)
                assert served
                told = quota_pb2.AdmitResponse.FromString(out)
                seen.add((told.catalog.name, *(limit.window for limit in told.limits), told.vendor.message))
        return seen

    with ThreadPoolExecutor(2) as threads:
        serving = [threads.submit(serve) for _ in range(2)]
        for turn in range(150):
            length = "1h" if turn % 2 else "100s"
            fronts.native.load_catalog(small_catalog(LIMITS.replace("sliding: 1h", f"sliding: {length}")))
        done.set()
        seen = serving[0].result() | serving[1].result()

    assert {("small", "sliding 1h", "cycle 2h"), ("small", "sliding 100s", "cycle 2h")} <= {it[:3] for it in seen}
    assert {"", "small"} == {it[0] for it in seen}
