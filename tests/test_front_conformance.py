"""Both fronts are asked the same, good, bad and strange, under one frozen clock: same bytes, same status, same text.

Where they differ it is on purpose, and stands in a table of docs/front.md; tests/strange_requests.py has the cases and the same rows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import HandTime, Running
from google.protobuf.message import Message
from h2.errors import ErrorCodes
from http2_peer import Peer, Reply, framed
from strange_requests import ASK, BY_CHANCE, CASES, DIFFERENCES, MESSAGE_BYTES_MAX, PEEK, SERVICE, timeout

from quota.client import admit_request
from quota.server.front_metrics import STATUS_NAMES
from quota.server.server import Server
from quota.settings import Settings
from quota.v1 import admin_pb2, quota_pb2

ROOT = Path(__file__).parent.parent
FRONTS = ("native", "grpcio")


def told(reply: Reply) -> str:
    """What a caller learns: `OK`, a status and its text, or how else the stream ended."""
    if reply.status is not None:
        return f"{STATUS_NAMES[reply.status]} {reply.text}".rstrip()
    if reply.headers:
        return f"HTTP {reply.http_status}"
    return f"RST {ErrorCodes(reply.reset).name}" if reply.reset is not None else "nothing"


def said(reply: Reply) -> tuple[str, bytes]:
    """What the caller learns, with the answer's bytes if it is one."""
    return told(reply), reply.message if reply.status == 0 else b""


# ---- Two servers that live through the same ----


class Pair:
    """A native server and one on grpcio, by one clock."""

    def __init__(self, time: HandTime, stack: ExitStack) -> None:
        self.time = time
        self.servers: list[Running] = []
        for front in FRONTS:
            settings = Settings(
                port=0, admin_port=0, http_port=0, demo=True, ephemeral=True, grace_ms=100, front=front,
                catalogs=(str(ROOT / "tests/catalogs"),), message_bytes_max=MESSAGE_BYTES_MAX, batch_items_max=50,
            )  # fmt: skip
            server = Server(settings, clock=time.clock())
            running = Running(server, server.start(), time)
            for ending in (server.stop, running.data.close, running.admin.close):
                stack.callback(ending)
            self.servers.append(running)
        self.peers = [stack.enter_context(Peer(running.addresses.data)) for running in self.servers]

    def ask(self, method: str, message: Message) -> tuple[str, bytes]:
        """Ask both, and compare; what they said."""
        native, grpcio = (said(peer.ask(framed(message.SerializeToString()), SERVICE + method)) for peer in self.peers)
        assert grpcio == native
        return native

    def admit(self, account: str = "demo-max", **fields: object) -> quota_pb2.AdmitResponse:
        """Ask both for a decision, each way; what Admit answered."""
        message = admit_request(account, **fields)
        self.ask("Peek", message)
        what, answer = self.ask("Admit", message)
        assert "OK" == what
        return quota_pb2.AdmitResponse.FromString(answer)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        pair = Pair(HandTime(), stack)
        pair.admit(model="glm-4.7", tool="cline", request_id="🌲")
        yield pair


@pytest.mark.parametrize("name", CASES)
def test_strange_requests(pair: Pair, name: str) -> None:
    """each gets the same from both fronts, or what the table of differences says; an answer's bytes are the same."""
    case = CASES[name]
    replies = []
    for running in pair.servers:
        with Peer(running.addresses.data) as peer:
            replies.append(peer.ask(case.body, case.path, case.headers, method=case.method))
    native, grpcio = replies

    assert case.told == told(native)
    assert (case.grpcio or case.told) in (told(grpcio), BY_CHANCE)
    if native.status == grpcio.status == 0:
        assert grpcio.message == native.message


def test_the_table_of_differences() -> None:
    """docs/front.md has a row for every difference that a case needs, and no other."""
    text = (ROOT / "docs/front.md").read_text()
    rows = re.findall(
        r"^\| ([A-Z][^|]*?) \|", text.partition("## What differs from grpcio")[2].partition("\n## ")[0], re.M
    )

    assert rows == ["What", *DIFFERENCES]
    assert set(DIFFERENCES) == {case.row for case in CASES.values()} - {""}
    assert all((case.row == "") == (case.grpcio == "") for case in CASES.values())


# ---- Every method and every verdict ----


def test_every_verdict(pair: Pair) -> None:
    """each verdict that there is, by Peek and by Admit, with the vendor's words."""
    verdicts = quota_pb2.Verdict
    day_ms = 86_400_000
    for running in pair.servers:
        accounts = [
            admin_pb2.Account(id="early", plan="pro", subscribed_at_ms=pair.time.now_ms + day_ms),
            admin_pb2.Account(id="late", plan="pro", expires_at_ms=pair.time.now_ms + 1, subscribed_at_ms=pair.time.now_ms),
            admin_pb2.Account(id="solo", catalog="lumen", plan="solo"),
            admin_pb2.Account(id="trial", catalog="lumen", plan="trial"),
            admin_pb2.Account(id="松" * 85, plan="lite"),
        ]  # fmt: skip
        for account in accounts:
            running.admin.put_account(account)
    pair.time.advance(1)
    plain = {"model": "glm-4.7", "tool": "cline"}
    hold = {**plain, "hold_ms": 60_000}
    steps: list[tuple[str, dict[str, object], int]] = [
        ("nobody", plain, verdicts.ACCOUNT_UNKNOWN),
        ("early", plain, verdicts.ACCOUNT_INACTIVE),
        ("late", plain, verdicts.SUBSCRIPTION_EXPIRED),
        ("demo-lite", {**plain, "tool": "Säge ${unit}"}, verdicts.TOOL_UNSUPPORTED),
        ("demo-lite", {**plain, "endpoint": "/x"}, verdicts.ENDPOINT_UNSUPPORTED),
        ("demo-lite", {**plain, "model": "松"}, verdicts.MODEL_UNKNOWN),
        ("demo-lite", {**plain, "model": "glm-5"}, verdicts.MODEL_NOT_IN_PLAN),
        ("demo-lite", {**plain, "draws": {"coffee": 1}}, verdicts.METER_NOT_IN_PLAN),
        ("demo-lite", {**plain, "draws": {"prompt": 81}}, verdicts.AMOUNT_TOO_LARGE),
        ("demo-lite", {**plain, "draws": {"prompt": 80}, "explain": True}, verdicts.ALLOWED),
        ("demo-lite", {**plain, "explain": True}, verdicts.LIMIT_EXHAUSTED),
        ("demo-lite", {**plain, "mode": quota_pb2.RECORD}, verdicts.ALLOWED),
        ("trial", {"model": "small", "tool": "quill", "draws": {"call": 9}}, verdicts.ALLOWED),
        ("trial", {"model": "small", "tool": "quill"}, verdicts.BURST),
        *(("松" * 85, {**hold, "request_id": f"r{number}"}, verdicts.ALLOWED) for number in range(4)),
        ("松" * 85, {**hold, "request_id": "r4"}, verdicts.CONCURRENCY),
        ("demo-pro", {**hold, "request_id": "r0", "prompt_id": "p", "client": "c"}, verdicts.ALLOWED),
        ("demo-pro", {**hold, "request_id": "r0", "prompt_id": "p", "client": "c"}, verdicts.ALLOWED),
    ]  # fmt: skip
    seen = {pair.admit(account, **fields).verdict: verdict for account, fields, verdict in steps}
    for running in pair.servers:
        running.admin.set_capacity(0)
    seen[pair.admit("demo-pro", **hold, request_id="r1").verdict] = verdicts.OVERLOADED
    for running in pair.servers:
        running.admin.set_capacity(1_000_000)

    unknown_so_far = {
        verdicts.VERDICT_UNSPECIFIED,
        verdicts.ACCOUNT_BANNED,
        verdicts.ACCOUNT_SUSPENDED,
        verdicts.ACCOUNT_RESTRICTED,
    }
    assert all(answered == expected for answered, expected in seen.items())
    assert set(verdicts.values()) - unknown_so_far == set(seen)


def test_settling_and_renewing(pair: Pair) -> None:
    """Settle, Renew and GetUsage: what they return, and every way in which they refuse."""
    pair.admit(model="glm-4.7", tool="cline", request_id="a", hold_ms=60_000)
    pair.admit(model="glm-4.7", tool="cline", request_id="b", hold_ms=60_000)
    draws = [quota_pb2.Draw(meter="prompt", amount=3), quota_pb2.Draw(meter="web_search", amount=1)]

    def settle(request_id: str, outcome: int = quota_pb2.COMMIT, account: str = "demo-max", **more: object) -> str:
        value = quota_pb2.Outcome.ValueType(outcome)
        return pair.ask(
            "Settle", quota_pb2.SettleRequest(account=account, request_id=request_id, outcome=value, **more)
        )[0]

    def renew(request_id: str, hold_ms: int, account: str = "demo-max") -> str:
        return pair.ask("Renew", quota_pb2.RenewRequest(account=account, request_id=request_id, hold_ms=hold_ms))[0]

    def usage(account: str) -> str:
        return pair.ask("GetUsage", quota_pb2.GetUsageRequest(account=account))[0]

    assert ["OK", "OK"] == [usage("demo-max"), renew("a", 120_000)]
    assert ["OK", "OK", "OK"] == [settle("a", draws=draws), settle("a", draws=draws), settle("b", quota_pb2.CANCEL)]
    assert {"INVALID_ARGUMENT"} == {
        text.split()[0] for text in (
            settle("a", 0), settle("a", 9), settle(""), settle("a", draws=draws * 2), settle("ü" * 129), settle("a", account=""),
            renew("a", -1), renew("", 1), renew("a", 2**62), usage(""), usage("ü" * 129),
        )
    }  # fmt: skip
    assert {"NOT_FOUND"} == {
        text.split()[0] for text in (settle("松%"), renew("z", 1), usage("nobody"), settle("a", account="x"))
    }
    assert {"FAILED_PRECONDITION"} == {text.split()[0] for text in (renew("a", 1000), renew("b", 1000))}
    assert "ALREADY_EXISTS" == settle("b", draws=draws).split()[0]
    pair.time.advance(61)
    assert "OK" == usage("demo-max")


def test_batches(pair: Pair) -> None:
    """good and bad items in place, an id in use for something else in the middle, too many, and none."""
    good = admit_request("demo-pro", model="glm-4.7", tool="cline", explain=True)
    first = admit_request("demo-pro", model="glm-4.7", tool="cline", request_id="batch")
    conflict = admit_request("demo-pro", model="glm-4.6", tool="cline", request_id="batch")
    bad = admit_request("", model="ü" * 200)
    broken = quota_pb2.AdmitBatchRequest(requests=[good]).SerializeToString() + b"\x0a\x01\xff"

    for items in (
        [good] * 40,
        [good, first, conflict, good],
        [good] * 20 + [first, conflict, bad] + [good] * 20,
        [bad],
        [],
        [first] * 2,
    ):
        assert "OK" == pair.ask("AdmitBatch", quota_pb2.AdmitBatchRequest(requests=items))[0]
    assert (
        "INVALID_ARGUMENT requests: '51 items' is not allowed; allowed: at most 50 (batch_items_max)"
        == (pair.ask("AdmitBatch", quota_pb2.AdmitBatchRequest(requests=[good] * 51))[0])
    )
    native, grpcio = (said(peer.ask(framed(broken), SERVICE + "AdmitBatch")) for peer in pair.peers)
    assert native == grpcio
    assert "OK" == pair.ask("GetUsage", quota_pb2.GetUsageRequest(account="demo-pro"))[0]


# ---- How a call is cut, and how it ends ----


def test_cuts_and_many_streams(pair: Pair) -> None:
    """a message cut into single bytes, with empty frames between, on twenty streams at once whose frames alternate."""
    body = framed(ASK)
    pieces = [piece for place in range(len(body)) for piece in (body[place : place + 1], b"")]
    answers = []
    for running in pair.servers:
        with Peer(running.addresses.data) as peer:
            streams = [peer.begin(PEEK) for _ in range(20)]
            for place, piece in enumerate(pieces):
                for stream in streams:
                    peer.http.send_data(stream, piece, end_stream=place == len(pieces) - 1)
                peer.flush()
            answers.append({said(peer.reply(stream)) for stream in streams})

    assert answers[0] == answers[1]
    assert ["OK"] == [what for what, _ in answers[0]]


def test_a_deadline_ends_half_a_call(pair: Pair) -> None:
    """a call that is not whole when its time is over gets DEADLINE_EXCEEDED, and its stream ends."""
    for running in pair.servers:
        with Peer(running.addresses.data) as peer:
            stream = peer.begin(PEEK, timeout("50m"))
            peer.say(stream, framed(ASK)[:9], end=False)
            began = time.monotonic()
            reply = peer.reply(stream)
            assert reply.ended
            assert "DEADLINE_EXCEEDED Deadline Exceeded" == told(reply)
            assert 0.04 < time.monotonic() - began < 2
            assert "OK" == told(peer.ask(framed(ASK), PEEK))
