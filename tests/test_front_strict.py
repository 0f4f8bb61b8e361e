"""Answers that wait for the disk: they hold up nobody, may be given up, and are told if the disk fails.

The disk is held up by a lock on the store's file, as another program could hold it.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from abused import Abused
from conftest import Running
from held_up import held_up
from http2_peer import GRPC_HEADERS, Peer, framed

from quota.client import admit_request
from quota.v1 import quota_pb2

Serve = Callable[..., Running]
SERVICE = "/quota.v1.QuotaService/"
WAITING = "quotad_front_answers_waiting"


def ask(request_id: str = "", account: str = "demo-max") -> bytes:
    return framed(admit_request(account, model="glm-4.7", tool="cline", request_id=request_id).SerializeToString())


def send(peer: Peer, body: bytes, method: str = "Admit", *headers: tuple[str, str]) -> int:
    stream = peer.begin(SERVICE + method, (*GRPC_HEADERS, *headers))
    peer.say(stream, body)
    return stream


def used(running: Running, account: str = "demo-max") -> int:
    return running.data.usage(account).limits[0].used_micro // 1_000_000


def test_a_waiting_answer_holds_up_nobody(serve: Serve, tmp_path: Path) -> None:
    """what needs no commit is answered meanwhile, on its connection and on others; then it is answered itself."""
    running = serve(data=str(tmp_path), durability="strict")
    with Peer(running.addresses.data) as peer, Peer(running.addresses.data) as other:
        with held_up(tmp_path):
            waiting = send(peer, ask())
            for asker in (peer, other):
                assert 0 == asker.ask(ask(), SERVICE + "Peek").status
                assert 0 == asker.ask(ask(account="nobody")).status
                assert (
                    0
                    == asker.ask(
                        framed(quota_pb2.GetUsageRequest(account="demo-max").SerializeToString()), SERVICE + "GetUsage"
                    ).status
                )
                assert 3 == asker.ask(framed(b"")).status
            assert 1 == running.metric(WAITING)
            assert not peer.replies[waiting].headers
        assert 0 == peer.reply(waiting).status

    assert 1 == used(running)


def test_a_thousand_wait_for_one_commit(serve: Serve, tmp_path: Path) -> None:
    """all that is asked for while one commit lasts shares the next."""
    running = serve(data=str(tmp_path), durability="strict")
    commits = "quotad_store_commit_seconds_count"
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            before = running.metric(commits)
            streams = [send(peer, ask()) for _ in range(1000)]
            running.wait_for(WAITING, 1000)
        assert {0} == {peer.reply(stream).status for stream in streams}

    assert running.metric(commits) - before <= 3
    assert 1000 == used(running)
    assert 0 == running.metric(WAITING)


def test_more_may_not_wait(serve: Serve, tmp_path: Path) -> None:
    """past waiting_max an answer is UNAVAILABLE at once, and says that it may have been charged."""
    running = serve(data=str(tmp_path), durability="strict", waiting_max=10)
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            streams = [send(peer, ask(f"r{number}")) for number in range(12)]
            late = [peer.reply(stream) for stream in streams[10:]]
            assert [(14, "Too many answers wait for the disk; this one may yet be kept")] * 2 == [
                (reply.status, reply.text) for reply in late
            ]
        assert {0} == {peer.reply(stream).status for stream in streams[:10]}
        assert 0 == peer.ask(ask("r11")).status

    assert 12 == used(running)


def test_given_up_while_waiting(serve: Serve, tmp_path: Path) -> None:
    """a call that is reset and a connection that is closed take their answer with them; the charge stays, the rest is served."""
    running = serve(data=str(tmp_path), durability="strict")
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            kept, given_up = send(peer, ask("a")), send(peer, ask("b"))
            running.wait_for(WAITING, 2)  # a reset that comes before the decision would leave nothing charged
            peer.http.reset_stream(given_up)
            peer.flush()
            with Peer(running.addresses.data) as leaving:
                send(leaving, ask("c"))
                running.wait_for(WAITING, 3)
            running.wait_for("quotad_front_calls_reset_total", 2)
        assert 0 == peer.reply(kept).status
        running.wait_for(WAITING, 0)
        assert not peer.replies[given_up].headers
        assert [0, 0] == [peer.ask(ask(request_id)).status for request_id in ("b", "c")]

    assert 3 == used(running)


def test_a_deadline_while_waiting(serve: Serve, tmp_path: Path) -> None:
    """DEADLINE_EXCEEDED when its time has come, whatever the disk does; its id finds the charge afterwards."""
    running = serve(data=str(tmp_path), durability="strict")
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            began = time.monotonic()
            patient, hasty = send(peer, ask("a")), send(peer, ask("b"), "Admit", ("grpc-timeout", "100m"))
            reply = peer.reply(hasty)
            assert (4, "Deadline Exceeded") == (reply.status, reply.text)
            assert 0.09 < time.monotonic() - began < 1
            assert not peer.replies[patient].headers
        assert 0 == peer.reply(patient).status
        assert 0 == peer.ask(ask("b")).status

    assert 2 == used(running)


def test_a_batch_of_both_kinds_waits(serve: Serve, tmp_path: Path) -> None:
    """items that the core decides and one that Python has to refuse: one answer, after the commit."""
    running = serve(data=str(tmp_path), durability="strict")
    items = [admit_request("demo-max", model=model, tool="cline", request_id="r") for model in ("glm-4.7", "glm-4.6")]
    body = framed(quota_pb2.AdmitBatchRequest(requests=[*items, *items[:1]]).SerializeToString())
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            stream = send(peer, body, "AdmitBatch")
            assert 0 == peer.ask(ask(), SERVICE + "Peek").status
            peer.read_until(lambda: peer.replies[stream].ended, 0.1)
            assert not peer.replies[stream].headers
        results = quota_pb2.AdmitBatchResponse.FromString(peer.reply(stream).message).results

    assert ["response", "error", "response"] == [result.WhichOneof("result") for result in results]
    assert 1 == used(running)


def test_an_interval(serve: Serve, tmp_path: Path) -> None:
    """answers leave at once until the oldest unwritten change is as old as allowed; then they wait."""
    running = serve(data=str(tmp_path), durability="interval:200ms")
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            assert 0 == peer.ask(ask()).status
            time.sleep(0.25)
            waiting = send(peer, ask())
            assert not peer.read_until(lambda: peer.replies[waiting].ended, 0.1)
        assert 0 == peer.reply(waiting).status

    assert 2 == used(running)


def test_the_end_waits_for_the_disk(serve: Serve, tmp_path: Path) -> None:
    """a server that is told to stop sends the answers that wait, within its grace."""
    running = serve(data=str(tmp_path), durability="strict", grace_ms=5000)
    with Peer(running.addresses.data) as peer:
        with held_up(tmp_path):
            waiting = send(peer, ask())
            running.wait_for(WAITING, 1)
            stopping = threading.Thread(target=running.server.stop)
            stopping.start()
            assert peer.read_until(lambda: len(peer.goaways) == 2)
            assert not peer.replies[waiting].headers
        assert 0 == peer.reply(waiting).status
        assert peer.read_to_end()
        stopping.join()


@pytest.fixture
def bad_sync(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file whose existence lets every fsync fail, and the environment in which it does."""
    library, trigger = tmp_path / "bad_sync.so", tmp_path / "fail-now"
    source = Path(__file__).with_name("bad_sync.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    preloads = f"{os.environ.get('LD_PRELOAD', '')} {library}"  # behind a sanitizer's
    return trigger, {**os.environ, "LD_PRELOAD": preloads, "BAD_SYNC": str(trigger)}


def test_the_disk_fails_while_they_wait(bad_sync: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """all who wait get UNAVAILABLE, so does who comes then, and the process ends with status 1."""
    trigger, environment = bad_sync
    directory = tmp_path / "store"
    with Abused(environment, data=directory, durability="strict", grace_ms=300) as server, server.peer() as peer:
        with held_up(directory):
            streams = [send(peer, ask(f"r{number}")) for number in range(20)]
            assert 20 == server.wait_for(WAITING, 20)
            trigger.touch()
        replies = [peer.reply(stream) for stream in streams]

        assert {(14, "the store has failed and takes nothing any more")} == {
            (reply.status, reply.text) for reply in replies
        }
        assert 1 == server.process.wait(10)
