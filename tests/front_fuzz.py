"""Feed the native front conversations that real clients had, damaged: `python tests/front_fuzz.py --seconds 600 --seed 1`.

tests/corpus has what clients sent, one connection a file. A case takes one, damages it as HTTP/2, as gRPC and as bytes, and sends
it in pieces. Nothing is expected of the answers; the server has to go on: between cases somebody else is served, connections that
were closed are gone, and at the end nothing is held and the ledger's memory is sound. `make fuzz` runs it with sanitizers, which see
the rest.

Every case can be had again: its number is the seed of its dice. The number of the case that runs is in --state, should the process
die.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from conftest import HandTime, Running
from http2_peer import Peer, framed

from quota.client import admit_request
from quota.server.server import Server
from quota.settings import Settings

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.bin"))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
NUMBERS = (0, 1, 2, 4, 5, 0x7F, 0x80, 0xFF, 0x3FFF, 0x4000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
CASES_BETWEEN_LOOKS = 100
CONNECTIONS_AT_ONCE = 20

Dice = random.Random


def frames_of(conversation: bytes) -> list[bytes]:
    """The frames behind the preface."""
    at, frames = len(PREFACE), []
    while at < len(conversation):
        size = FRAME_HEADER + int.from_bytes(conversation[at : at + 3], "big")
        frames.append(conversation[at : at + size])
        at += size
    return frames


# ---- Damage to a frame: header kept or broken ----


def other_type(dice: Dice, frame: bytes) -> bytes:
    return frame[:3] + bytes([dice.choice((*range(11), 0x10, 0xFA))]) + frame[4:]


def other_flags(dice: Dice, frame: bytes) -> bytes:
    return frame[:4] + bytes([frame[4] ^ dice.choice((1, 4, 8, 0x20, 0xFF))]) + frame[5:]


def other_stream(dice: Dice, frame: bytes) -> bytes:
    stream = dice.choice((*NUMBERS, dice.randint(0, 21)))
    return frame[:5] + (stream & 0xFFFFFFFF).to_bytes(4, "big") + frame[9:]


def other_size(dice: Dice, frame: bytes) -> bytes:
    return dice.choice(NUMBERS).to_bytes(4, "big")[1:] + frame[3:]


def other_number(dice: Dice, frame: bytes) -> bytes:
    """Four bytes of the payload are a number of some meaning: an increment, an error, a message's length."""
    payload = bytearray(frame[FRAME_HEADER:])
    if payload:
        at = dice.choice((0, 1, 2, dice.randrange(len(payload))))
        payload[at : at + 4] = dice.choice(NUMBERS).to_bytes(4, "big")
    return with_payload(frame, bytes(payload))


def other_bytes(dice: Dice, frame: bytes) -> bytes:
    payload = bytearray(frame[FRAME_HEADER:])
    for _ in range(dice.randint(1, 4)):
        if payload:
            payload[dice.randrange(len(payload))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return with_payload(frame, bytes(payload))


def shorter(dice: Dice, frame: bytes) -> bytes:
    return with_payload(frame, frame[FRAME_HEADER : dice.randint(FRAME_HEADER, len(frame))])


def longer(dice: Dice, frame: bytes) -> bytes:
    return with_payload(frame, frame[FRAME_HEADER:] + dice.randbytes(dice.choice((1, 4, 100, 16_000))))


def cut_in_two(dice: Dice, frame: bytes) -> bytes:
    """The same payload as two frames, which DATA may be at any place."""
    at = dice.randint(FRAME_HEADER, len(frame))
    first = with_payload(frame, frame[FRAME_HEADER:at])
    return first[:4] + bytes([first[4] & ~1]) + first[5:] + with_payload(frame, frame[at:])


def with_payload(frame: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + frame[3:FRAME_HEADER] + payload


DAMAGES: tuple[Callable[[Dice, bytes], bytes], ...] = (
    other_type, other_flags, other_stream, other_size, other_number, other_bytes, shorter, longer, cut_in_two,
)  # fmt: skip


def invented(dice: Dice) -> bytes:
    """A frame that nobody sent: reset, ping, settings, window update, goaway, continuation, or any."""
    type_, size = dice.choice(((3, 4), (6, 8), (4, 6 * dice.randint(0, 3)), (8, 4), (7, 8), (9, 20), (2, 5), (0, 10)))
    stream = dice.choice((0, 1, 3, 5, 7))
    return (
        size.to_bytes(3, "big")
        + bytes([type_, dice.choice((0, 1, 4, 5))])
        + stream.to_bytes(4, "big")
        + dice.randbytes(size)
    )


def damaged(dice: Dice) -> bytes:
    """A conversation with a few damages; now and then one that is whole."""
    preface, frames = PREFACE, frames_of(dice.choice(CORPUS).read_bytes())
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(frames))
        what = dice.randrange(10)
        if what < 5:
            frames[at] = dice.choice(DAMAGES)(dice, frames[at])
        elif what == 5:
            frames.insert(at, invented(dice))
        elif what == 6:
            frames.insert(at, dice.choice(frames))
        elif what == 7:
            frames.insert(at, dice.choice(frames_of(dice.choice(CORPUS).read_bytes())))
        elif what == 8 and len(frames) > 1:
            frames.pop(at)
        else:
            frames[at] *= dice.choice((2, 10, 300))
    if dice.random() < 0.02:
        preface = other_bytes(dice, bytes(FRAME_HEADER) + preface)[FRAME_HEADER:]
    conversation = preface + b"".join(frames)
    return conversation[: dice.randint(0, len(conversation))] if dice.random() < 0.2 else conversation


# ---- Sending it ----


def send(dice: Dice, address: tuple[str, int], conversation: bytes) -> socket.socket:
    """Send it in pieces of any size, perhaps read a little, and leave the connection open, half closed, or reset."""
    connection = socket.create_connection(address, timeout=5)
    try:
        at = 0
        while at < len(conversation):
            size = dice.choice((1, 9, 30, 200, 4096, len(conversation)))
            connection.sendall(conversation[at : at + size])
            at += size
            if dice.random() < 0.1:
                connection.settimeout(0.001)
                connection.recv(4096)
        ending = dice.randrange(4)
        if ending == 0:
            connection.shutdown(socket.SHUT_WR)
        elif ending == 1:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    except (OSError, TimeoutError):
        pass  # the server has had enough, or had nothing to say
    return connection


class Target:
    """A server with a strict store, two loops and little patience, in this process."""

    def __init__(self, directory: str) -> None:
        settings = Settings(
            port=0, admin_port=0, http_port=0, demo=True, grace_ms=300, data=directory, durability="strict", front_threads=2,
            message_bytes_max=65_536, input_bytes_max=200_000, output_bytes_max=200_000, batch_items_max=20, rpc_pending_max=20,
            rpc_threads=4, waiting_max=50, handshake_ms_max=300, idle_ms_max=500, stalled_ms_max=300, keepalive_ms=300,
            keepalive_timeout_ms=200, connections_max=200,
        )  # fmt: skip
        server = Server(settings)
        self.running = Running(server, server.start(), HandTime())
        host, _, port = self.running.addresses.data.rpartition(":")
        self.address = (host, int(port))

    def stop(self) -> None:
        self.running.data.close()
        self.running.admin.close()
        self.running.server.stop()

    def serves(self) -> bool:
        """Whether somebody else gets an answer."""
        ask = framed(admit_request("demo-pro", model="glm-4.7", tool="cline").SerializeToString())
        with Peer(self.running.addresses.data) as peer:
            return peer.ask(ask).status == 0

    def settled(self) -> dict[str, int]:
        """What is still held, a little after the last connection was closed: nothing."""
        until = time.monotonic() + 5
        while True:
            held = {
                name: self.running.metric(f"quotad_front_{name}")
                for name in ("connections", "answers_waiting", "calls_handed")
            }
            if not any(held.values()) or time.monotonic() > until:
                return held
            time.sleep(0.01)


def fuzz(cases: range, seconds: float, state: Path | None = None) -> int:
    """Run cases until the time is over; how many were run. Raises AssertionError if the server is worse for it."""
    began = time.monotonic()
    done = 0
    with tempfile.TemporaryDirectory() as directory:
        target = Target(directory)
        try:
            open_ones: list[socket.socket] = []
            for number in cases:
                if time.monotonic() - began > seconds:
                    break
                if state is not None:
                    state.write_text(str(number))
                dice = Dice(number)
                open_ones.append(send(dice, target.address, damaged(dice)))
                if len(open_ones) > CONNECTIONS_AT_ONCE:
                    open_ones.pop(dice.randrange(len(open_ones))).close()
                done += 1
                if done % CASES_BETWEEN_LOOKS == 0:
                    assert target.serves(), f"not served after case {number}"
            for connection in open_ones:
                connection.close()
            held = target.settled()
            assert not any(held.values()), held
            target.running.server.engine.ledger.check()
        finally:
            target.stop()
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1, help="number of the first case")
    parser.add_argument("--cases", type=int, default=10**9, help="how many cases, at most")
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir(), "quotad-fuzz-case"))
    options = parser.parse_args()
    done = fuzz(range(options.seed, options.seed + options.cases), options.seconds, options.state)
    print(f"{done:,} cases, the first {options.seed}: the server serves on, holds nothing, and its ledger is sound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
