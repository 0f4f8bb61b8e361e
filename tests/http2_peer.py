"""A plain HTTP/2 peer over a socket: what no gRPC client would send, and what a server really answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import Frame

ADMIT = "/quota.v1.QuotaService/Admit"
GRPC_HEADERS = (("te", "trailers"), ("content-type", "application/grpc"))
PATIENCE_S = 10.0
GOAWAY = 7

Headers = Iterable[tuple[str, str]]


def framed(message: bytes, flag: int = 0) -> bytes:
    """The message as gRPC cuts it: a flag, its length, its bytes."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@dataclass
class Reply:
    """What came on one stream. `reset` is the error code of a RST_STREAM, `ended` says that no more will come."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    ended: bool = False

    @property
    def http_status(self) -> int:
        return int(self.headers[":status"])

    @property
    def status(self) -> int | None:
        """gRPC's, wherever it stands; None if it was never said."""
        said = {**self.headers, **self.trailers}.get("grpc-status")
        return None if said is None else int(said)

    @property
    def message(self) -> bytes:
        """The answer without its prefix, which is checked."""
        assert self.body == framed(self.body[5:])
        return self.body[5:]

    @property
    def text(self) -> str:
        """The status text as it travels, percent-encoded."""
        return {**self.headers, **self.trailers}.get("grpc-message", "")


class Peer:
    """One connection as a client: `begin`, `say` and `reply` by h2's rules, `send` and `send_frames` against them."""

    def __init__(self, address: str, *, receive_bytes: int | None = None, greet: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.http = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
        self.replies: dict[int, Reply] = {}
        self.goaways: list[tuple[int, int]] = []  # (error code, last stream)
        self.unread = b""
        self.pongs = 0
        self.cut_off = False  # it takes nothing more
        self.closed = False  # it says nothing more
        self.reads_answers = True  # whether windows are opened again
        if greet:
            self.http.initiate_connection()
            self.flush()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # ---- Out ----

    def flush(self) -> None:
        self.send(self.http.data_to_send())

    def send(self, data: bytes) -> None:
        """Send bytes as they are. A server that has closed may refuse them: what it said before is still to be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.cut_off = True

    def send_frames(self, *frames: Frame) -> None:
        self.send(b"".join(frame.serialize() for frame in frames))

    def begin(
        self, path: str = ADMIT, headers: Headers = GRPC_HEADERS, *, method: str = "POST", end: bool = False
    ) -> int:
        """Send the headers of a request; return its stream."""
        stream = self.http.get_next_available_stream_id()
        self.replies[stream] = Reply()
        pseudo = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "quotad"))
        self.http.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def say(self, stream: int, *pieces: bytes, end: bool = True) -> None:
        """Send the pieces as a DATA frame each."""
        for place, piece in enumerate(pieces):
            self.http.send_data(stream, piece, end_stream=end and place == len(pieces) - 1)
            self.flush()

    def pour(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Send as much as the windows take, until all is out or the server has answered."""
        reply = self.replies[stream]
        while data and not reply.ended:
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if room == 0 and not self.read_until(
                lambda: reply.ended or self.http.local_flow_control_window(stream) > 0
            ):
                return
            if room:
                self.say(stream, data[:room], end=end and len(data) <= room)
                data = data[room:]

    def ask(self, body: bytes, path: str = ADMIT, headers: Headers = GRPC_HEADERS, *, method: str = "POST") -> Reply:
        """Make a call whose DATA are these bytes, and return what came of it."""
        stream = self.begin(path, headers, method=method)
        if body:
            self.pour(stream, body)
        else:
            self.say(stream, b"")
        return self.reply(stream)

    # ---- In ----

    def reply(self, stream: int, seconds: float = PATIENCE_S) -> Reply:
        """Wait for the end of a stream."""
        self.read_until(lambda: self.replies[stream].ended, seconds)
        return self.replies[stream]

    def read_until(self, done: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        """Read until it is done, or the connection closed, or the time over; whether it is done."""
        until = time.monotonic() + seconds
        while not done() and not self.closed:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                break
            self.take_bytes(data)
            self.flush()
        self.socket.settimeout(PATIENCE_S)
        return done()

    def read_raw_to_end(self, seconds: float = PATIENCE_S) -> None:
        """Read until the server closes, and look at nothing."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        self.closed = True

    def read_to_end(self, seconds: float = PATIENCE_S) -> bool:
        """Read until the server closes; whether it did."""
        self.read_until(lambda: False, seconds)
        return self.closed

    def take_bytes(self, data: bytes) -> None:
        """Give h2 whole frames, but keep every GOAWAY from it: after the first it would hear nothing more."""
        self.unread += data
        while len(self.unread) >= 9:
            size = 9 + int.from_bytes(self.unread[:3], "big")
            if len(self.unread) < size:
                return
            frame, self.unread = self.unread[:size], self.unread[size:]
            if frame[3] == GOAWAY:
                self.goaways.append((int.from_bytes(frame[13:17], "big"), int.from_bytes(frame[9:13], "big")))
                continue
            for event in self.http.receive_data(frame):
                self.take(event)

    def take(self, event: Event) -> None:
        if isinstance(event, PingAckReceived):
            self.pongs += 1
        elif isinstance(event, ResponseReceived | TrailersReceived | DataReceived | StreamEnded | StreamReset):
            self.take_reply(event, self.replies.setdefault(event.stream_id, Reply()))

    def take_reply(self, event: Event, reply: Reply) -> None:
        if isinstance(event, ResponseReceived):
            reply.headers.update(texts(event.headers))
        elif isinstance(event, TrailersReceived):
            reply.trailers.update(texts(event.headers))
        elif isinstance(event, DataReceived):
            reply.body += event.data
            if self.reads_answers:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamReset):
            reply.reset, reply.ended = int(event.error_code), True
        else:
            reply.ended = True


def texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
