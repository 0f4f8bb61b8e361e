"""What peers may do to the native front: each abuse is refused or bounded, memory stays flat, and others are served meanwhile."""

from __future__ import annotations

import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from abused import ASK, PEEK, Abused
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from http2_peer import GRPC_HEADERS, Peer, framed
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from quota.client import admit_request
from quota.v1 import quota_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
CALMED = "quotad_front_connections_calmed_total"
REFUSED = "quotad_front_connections_refused_total"
CONNECTIONS = "quotad_front_connections"
BATCH = "/quota.v1.QuotaService/AdmitBatch"
USAGE = "/quota.v1.QuotaService/GetUsage"
STREAMS_MAX = 200
CONNECTIONS_MAX = 64
MESSAGE_BYTES_MAX = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Abused]:
    """A server of little patience, that has served a little already."""
    with Abused(
        connections_max=CONNECTIONS_MAX, streams_max=STREAMS_MAX, message_bytes_max=MESSAGE_BYTES_MAX,
        input_bytes_max=4_000_000, output_bytes_max=1_000_000, handshake_ms_max=400, idle_ms_max=1500, stalled_ms_max=600,
        keepalive_ms=600, keepalive_timeout_ms=400, grace_ms=300,
    ) as server:  # fmt: skip
        with server.bystander():
            time.sleep(0.3)
        yield server


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Abused) -> Iterator[None]:
    """After every abuse the server has no connection that it should have closed."""
    yield
    assert 0 == server.wait_for(CONNECTIONS, 0)
    assert server.process.poll() is None


def literal(name: str, value: str) -> bytes:
    """A header as HPACK has it without any table, so that the same bytes can be sent again."""
    return b"\0" + b"".join(size_of(text.encode()) + text.encode() for text in (name, value))


def size_of(text: bytes) -> bytes:
    size, more = len(text), bytearray()
    if size < 127:
        return bytes([size])
    size -= 127
    while size > 127:
        more.append(size & 127 | 128)
        size >>= 7
    return bytes([127, *more, size])


def block(path: str) -> bytes:
    return b"\x83\x86" + b"".join(literal(*pair) for pair in ((":path", path), (":authority", "q"), *GRPC_HEADERS))


def headers(stream: int, *flags: str, path: str = PEEK, more: bytes = b"") -> bytes:
    return HeadersFrame(stream, block(path) + more, flags=flags or ("END_HEADERS",)).serialize()


def reset(stream: int) -> bytes:
    return RstStreamFrame(stream, ErrorCodes.CANCEL).serialize()


def flood(server: Abused, *, first: bytes = b"", piece: bytes, count: int, at_once: int = 100) -> Peer:
    """Send a piece again and again without reading, until all is out or the server has had enough."""
    peer = server.peer(greet=False)
    peer.send(PREFACE + first)
    for _ in range(0, count, at_once):
        if peer.cut_off:
            break
        peer.send(piece * at_once)
    peer.read_raw_to_end()
    return peer


# ---- Floods ----


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", PingFrame(0, b"12345678").serialize()),
        (b"", SettingsFrame(0, {SettingCodes.ENABLE_PUSH: 0}).serialize()),
        (b"", PriorityFrame(1, depends_on=3, stream_weight=1).serialize()),
        (headers(1), DataFrame(1).serialize()),
        (headers(1), RstStreamFrame(1, ErrorCodes.CANCEL).serialize()),
    ],
    ids=["ping", "settings", "priority", "empty data", "reset of a closed stream"],
)
def test_floods_of_frames(server: Abused, first: bytes, piece: bytes) -> None:
    """100,000 frames that ask for nothing: the connection ends with ENHANCE_YOUR_CALM."""
    before = server.figure(CALMED)
    with server.bystander(), flood(server, first=first, piece=piece, count=100_000) as peer:
        assert peer.closed

    assert before + 1 == server.figure(CALMED)


def test_a_flood_is_told_why(server: Abused) -> None:
    """a peer that still reads gets a GOAWAY with ENHANCE_YOUR_CALM."""
    with server.peer() as peer:
        peer.send(PingFrame(0, b"12345678").serialize() * 1500)
        assert peer.read_to_end()

    assert [ErrorCodes.ENHANCE_YOUR_CALM] == [code for code, _ in peer.goaways]


@pytest.mark.parametrize(
    "piece",
    [
        PingFrame(0, b"12345678", flags=("ACK",)).serialize(),
        WindowUpdateFrame(0, window_increment=1).serialize(),
        b"\0\0\x04\xfa\0\0\0\0\0what",
    ],
    ids=["answers to no ping", "window updates", "unknown frames"],
)
def test_floods_that_ask_for_nothing(server: Abused, piece: bytes) -> None:
    """100,000 frames that cost a look each are looked at, and nothing comes of them."""
    with server.bystander(), server.peer() as peer:
        for _ in range(100):
            peer.send(piece * 1000)
        assert 0 == peer.ask(ASK, PEEK).status


def test_rapid_reset(server: Abused) -> None:
    """20,000 streams, each opened and reset at once: the connection ends."""
    before = server.figure(CALMED)
    with server.bystander(), server.peer(greet=False) as peer:
        peer.send(PREFACE)
        for first in range(1, 40_001, 200):
            peer.send(b"".join(headers(stream) + reset(stream) for stream in range(first, first + 200, 2)))
        peer.read_raw_to_end()

    assert before + 1 == server.figure(CALMED)


@pytest.mark.parametrize("message", [ASK, framed(b"\xff")], ids=["decided", "left to Python"])
def test_rapid_reset_of_whole_calls(server: Abused, message: bytes) -> None:
    """20,000 calls that are reset before their answer can be sent: they cost what calls cost, and no more."""
    with server.bystander(), server.peer(greet=False) as peer:
        peer.send(PREFACE)
        for first in range(1, 40_001, 200):
            peer.send(
                b"".join(
                    headers(stream) + DataFrame(stream, message, flags=("END_STREAM",)).serialize() + reset(stream)
                    for stream in range(first, first + 200, 2)
                )
            )
    assert 0 == server.wait_for("quotad_front_calls_handed", 0)


def test_resets_that_we_are_made_to_send(server: Abused) -> None:
    """20,000 calls that HTTP/2 forbids, so that we reset them: the same as if the peer did."""
    malformed = literal("connection", "close")
    with server.bystander(), server.peer(greet=False) as peer:
        peer.send(PREFACE)
        for stream in range(1, 40_001, 2):
            if not peer.cut_off:
                peer.send(headers(stream, more=malformed))
        peer.read_raw_to_end()
        assert peer.cut_off


# ---- Headers ----


@pytest.mark.parametrize("more", [b"", literal("x", "y" * 50)], ids=["empty", "with headers"])
def test_a_flood_of_continuations(server: Abused, more: bytes) -> None:
    """headers that never end: the connection does."""
    first = HeadersFrame(1, block(PEEK)).serialize()
    with (
        server.bystander(),
        flood(server, first=first, piece=ContinuationFrame(1, more).serialize(), count=10_000) as peer,
    ):
        assert peer.closed


def test_headers_of_90_kilobytes(server: Abused) -> None:
    """the call is refused, and its connection serves on; at eight times the limit the connection ends."""
    before = server.figure("quotad_front_headers_refused_total")
    with server.bystander(), server.peer() as peer:
        large = [*GRPC_HEADERS, *((f"x-{number}", "a" * 1000) for number in range(90))]
        stream = peer.begin(PEEK, large, end=True)
        refused = peer.reply(stream)
        assert (8, "The header list is longer than header_bytes_max") == (refused.status, refused.text)
        assert 0 == peer.ask(ASK, PEEK).status
        assert before + 1 == server.figure("quotad_front_headers_refused_total")


def test_a_header_bomb(server: Abused) -> None:
    """a header of 4 KB in the table, called again by one byte each: 40 KB of them end the connection."""
    table = b"\x40" + size_of(b"x") + b"x" + size_of(b"a" * 4000) + b"a" * 4000
    before = server.figure(CALMED)
    with server.bystander(), server.peer() as peer:
        peer.send(headers(1, "END_HEADERS", "END_STREAM", more=table + b"\xbe" * 12_000))
        assert peer.read_to_end()

    assert [ErrorCodes.ENHANCE_YOUR_CALM] == [code for code, _ in peer.goaways]
    assert before + 1 == server.figure(CALMED)


# ---- Patience ----


def test_a_slow_preface(server: Abused) -> None:
    """who says nothing, or half a preface, is gone after handshake_ms_max."""
    with server.bystander():
        began = time.monotonic()
        for start in (b"", PREFACE[:10], PREFACE[:24]):
            with server.peer(greet=False) as peer:
                peer.send(start)
                peer.read_raw_to_end()
        assert 1.1 < time.monotonic() - began < 5


def test_a_peer_that_answers_no_ping(server: Abused) -> None:
    """silence is asked about by a PING, and ends the connection if that has no answer."""
    began = time.monotonic()
    with server.peer(greet=False) as peer:
        peer.send(PREFACE)
        peer.read_raw_to_end()

    assert 0.9 < time.monotonic() - began < 3


def test_an_idle_connection(server: Abused) -> None:
    """who answers pings and asks for nothing is told to go, in two steps."""
    began = time.monotonic()
    with server.peer() as peer:
        assert peer.read_to_end()

    assert [(0, 2**31 - 1), (0, 0)] == peer.goaways
    assert 1.4 < time.monotonic() - began < 5


def test_streams_that_never_end(server: Abused) -> None:
    """as many as are allowed may stay open without a byte, until the connection counts as idle; one more is refused."""
    with server.bystander(), server.peer() as peer:
        for _ in range(STREAMS_MAX):
            peer.begin(PEEK)
        one_more = peer.http.get_next_available_stream_id()
        peer.send(headers_after(peer, one_more))
        assert peer.read_until(lambda: one_more in peer.replies or peer.closed)
        assert ErrorCodes.REFUSED_STREAM == peer.replies[one_more].reset
        assert peer.read_to_end()
        assert not [reply for stream, reply in peer.replies.items() if stream != one_more and reply.headers]


def headers_after(peer: Peer, stream: int) -> bytes:
    """Headers of a stream that h2 itself would not open."""
    peer.http.streams.clear()
    peer.http.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", PEEK), *GRPC_HEADERS])
    return peer.http.data_to_send()


# ---- Answers that nobody fetches ----


def usage(account: str = "demo-max") -> bytes:
    return framed(quota_pb2.GetUsageRequest(account=account).SerializeToString())


def batch(count: int) -> bytes:
    item = admit_request("demo-max", model="glm-4.7", tool="cline", explain=True)
    return framed(quota_pb2.AdmitBatchRequest(requests=[item] * count).SerializeToString())


def test_zero_windows(server: Abused) -> None:
    """answers that the peer gives no window for are kept for stalled_ms_max."""
    with server.bystander(), server.peer() as peer:
        peer.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        peer.flush()
        began = time.monotonic()
        for _ in range(STREAMS_MAX):
            peer.say(peer.begin(USAGE), usage())
        assert peer.read_to_end()
        assert 0.5 < time.monotonic() - began < 4
        assert {b""} == {reply.body for reply in peer.replies.values()}


def test_a_connection_window_that_stays_shut(server: Abused) -> None:
    """64 KB of long answers, and no more: the same end."""
    with server.bystander(), server.peer() as peer:
        peer.reads_answers = False
        streams = [peer.begin(BATCH) for _ in range(20)]
        for stream in streams:
            peer.say(stream, batch(100))
        assert peer.read_to_end()
        assert 65_535 == sum(len(reply.body) for reply in peer.replies.values())


def test_a_slow_reader(server: Abused) -> None:
    """all windows wide open and a socket that is not read: nothing more is read from there, and then it ends."""
    body = batch(400)
    windows = SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}).serialize()
    with server.bystander(), server.peer(greet=False, receive_bytes=4096) as peer:
        peer.send(PREFACE + windows + WindowUpdateFrame(0, window_increment=2**31 - 1 - 65535).serialize())
        began = time.monotonic()
        sent = 0
        while not peer.cut_off and time.monotonic() - began < 8:
            stream = 2 * sent + 1
            sent += 1
            peer.send(headers(stream, path=BATCH) + DataFrame(stream, body, flags=("END_STREAM",)).serialize())
        assert peer.cut_off
        assert sent < 1000  # what two sockets hold


# ---- No HTTP/2 ----


def test_half_closed(server: Abused) -> None:
    """who asks and says that nothing follows gets an answer; half a call goes with its connection."""
    with server.bystander(), server.peer() as whole, server.peer() as half:
        stream = whole.begin(PEEK)
        whole.say(stream, ASK)
        whole.socket.shutdown(socket.SHUT_WR)
        assert 0 == whole.reply(stream).status
        half.say(half.begin(PEEK), ASK[:9], end=False)
        half.socket.shutdown(socket.SHUT_WR)
        assert half.read_to_end()
        assert whole.read_to_end()


def test_http_1(server: Abused) -> None:
    """closed at once."""
    with server.bystander():
        for text in (
            b"GET / HTTP/1.1\r\nHost: q\r\n\r\n",
            b"POST /quota.v1.QuotaService/Admit HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\2\0",
        ):
            with server.peer(greet=False) as peer:
                began = time.monotonic()
                peer.send(text)
                peer.read_raw_to_end()
                assert time.monotonic() - began < 0.3


def test_random_bytes(server: Abused) -> None:
    """after a preface or without one: every connection ends, by an error or for its silence."""
    dice = random.Random(6)
    with server.bystander():
        peers = [server.peer(greet=False) for _ in range(50)]
        for number, peer in enumerate(peers):
            peer.send((PREFACE if number % 2 else b"") + dice.randbytes(dice.randint(1, 5000)))
        for peer in peers:
            with peer:
                peer.read_raw_to_end()


# ---- Messages ----


def test_a_message_that_claims_4_gigabytes(server: Abused) -> None:
    """refused by its first five bytes, thousands of times on one connection."""
    with server.bystander(memory_bytes_max=8_000_000), server.peer() as peer:
        for _ in range(500):
            stream = peer.begin(PEEK)
            peer.say(stream, b"\0\xff\xff\xff\xff", end=False)
            reply = peer.reply(stream)
            assert (8, "The message is longer than message_bytes_max") == (reply.status, reply.text)
            assert ErrorCodes.NO_ERROR == reply.reset


def test_messages_that_announce_more_than_comes(server: Abused) -> None:
    """memory is taken for what has come, not for what was announced: 200 MB of promises cost nothing."""
    with server.bystander(memory_bytes_max=4_000_000), server.peer() as peer:
        for _ in range(STREAMS_MAX):
            peer.say(peer.begin(PEEK), b"\0" + MESSAGE_BYTES_MAX.to_bytes(4, "big") + b"only", end=False)
        peer.read_until(lambda: False, 0.3)
        assert not peer.closed


def test_more_messages_at_once_than_allowed(server: Abused) -> None:
    """past input_bytes_max calls are refused, each with its reason; the connection serves on."""
    piece = b"\0" + MESSAGE_BYTES_MAX.to_bytes(4, "big") + bytes(100_000)
    with server.bystander(), server.peer() as peer:
        streams = [peer.begin(PEEK) for _ in range(100)]
        for stream in streams:
            peer.pour(stream, piece, end=False)
        peer.read_until(lambda: peer.replies[streams[-1]].ended)
        texts = {reply.text for reply in peer.replies.values() if reply.status == 8}
        assert {"More is arriving on this connection than input_bytes_max"} == texts
        for stream in streams:
            if not peer.replies[stream].ended:
                peer.http.reset_stream(stream)
        peer.flush()
        assert 0 == peer.ask(ASK, PEEK).status


# ---- Connections ----


def test_more_connections_than_allowed(server: Abused) -> None:
    """those past connections_max are closed at once; the others, and those that come later, are served."""
    before = server.figure(REFUSED)
    with server.bystander():
        peers = [server.peer() for _ in range(CONNECTIONS_MAX + 10)]
        answers = []
        for peer in peers:
            with peer:
                stream = peer.begin(PEEK)
                peer.say(stream, ASK)
                answers.append(peer.reply(stream).status)
    assert [0] * (CONNECTIONS_MAX - 1) + [None] * 11 == sorted(answers, key=lambda status: (status is None, status))
    assert before + 11 == server.figure(REFUSED)


def test_no_descriptors_left(server: Abused) -> None:
    """who cannot be accepted waits; who is connected is served; with descriptors again, so is everybody."""
    in_use = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    with server.bystander():
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (in_use + 5, before[1]))
        try:
            peers = [server.peer() for _ in range(20)]
            time.sleep(0.2)
        finally:
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        for peer in peers:
            with peer:
                assert 0 == peer.ask(ASK, PEEK).status
