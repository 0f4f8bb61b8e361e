"""The watermark: who answers without the GIL is woken when what he waits for is on disk, and nobody sleeps through it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_store import Begin, Process, begin, copied

from quota._core import Watermark
from quota.store import Durability, StoreFailed

__all__ = ["begin"]

MS = 1_000_000
PATIENCE_MS = 10_000  # a test that waits so long has failed
Loop = Callable[[Watermark], int]


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Make listeners, each with an eventfd of its own."""
    bells: list[int] = []

    def listen(watermark: Watermark) -> int:
        bells.append(os.eventfd(0, os.EFD_NONBLOCK))
        return watermark.listen(bells[-1])

    yield listen
    for bell in bells:
        os.close(bell)


def begun(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


# ---- The mark ----


def test_strict_answers_leave_once_they_are_durable() -> None:
    """and what stands above the mark is awaited until then."""
    watermark = Watermark(0)

    assert [True, False, False] == [watermark.may_leave(ticket, 1) for ticket in (0, 5, 3)]
    assert watermark.awaited
    watermark.begin()
    watermark.end(4, False, 1)
    assert ([True, False], True) == ([watermark.may_leave(ticket, 1) for ticket in (4, 5)], watermark.awaited)
    watermark.end(5, True, 1)
    assert (True, False, 5) == (watermark.may_leave(5, 1), watermark.awaited, watermark.durable)


def test_interval_answers_leave_while_the_oldest_change_is_young() -> None:
    """young in a commit that is on its way, too; and what is answered meanwhile counts anew."""
    watermark = Watermark(50 * MS)

    assert (0, True, 1) == (watermark.oldest_ns, watermark.may_leave(1, 1), watermark.unwritten_since_ns)
    assert [True, False] == [watermark.may_leave(2, at_ns) for at_ns in (50 * MS, 50 * MS + 1)]
    watermark.begin()
    assert (1, 0) == (watermark.oldest_ns, watermark.unwritten_since_ns)
    assert not watermark.may_leave(3, 60 * MS)
    assert (1, 60 * MS) == (watermark.oldest_ns, watermark.unwritten_since_ns)
    watermark.end(2, True, 70 * MS)
    assert (60 * MS, True) == (watermark.oldest_ns, watermark.awaited)
    assert [True, False] == [watermark.may_leave(4, at_ns) for at_ns in (110 * MS - 1, 110 * MS)]


def test_a_commit_that_leaves_some_behind_keeps_their_age() -> None:
    """What it could not take is as old as what it took."""
    watermark = Watermark(50 * MS)
    watermark.may_leave(9, 7)
    watermark.begin()
    watermark.end(8, False, 40 * MS)

    assert (7, 7) == (watermark.unwritten_since_ns, watermark.oldest_ns)


@pytest.mark.parametrize("interval_ns", [0, 50 * MS])
def test_nothing_leaves_after_a_failure(interval_ns: int) -> None:
    """but what was durable before."""
    watermark = Watermark(interval_ns)
    watermark.begin()
    watermark.end(3, True, 1)
    watermark.fail()

    assert [True, False] == [watermark.may_leave(ticket, 2) for ticket in (3, 4)]
    assert (True, False) == (watermark.failed, watermark.awaited)


# ---- Bells ----


def test_a_bell_is_rung_once_a_sleep_and_only_for_those_whose_time_has_come(loop: Loop) -> None:
    """Who waits for a later ticket sleeps on."""
    watermark = Watermark(0)
    early, late = loop(watermark), loop(watermark)
    left: dict[str, bool] = {}
    threads = [
        begun(lambda: left.update(early=watermark.wait(early, 1, 0, PATIENCE_MS))),
        begun(lambda: left.update(late=watermark.wait(late, 2, 0, PATIENCE_MS))),
    ]
    until(lambda: watermark.parked_count == 2)
    watermark.begin()
    watermark.end(1, False, 0)
    threads[0].join()
    assert ({"early": True}, 1) == (left, watermark.parked_count)
    watermark.end(2, True, 0)
    threads[1].join()

    assert ({"early": True, "late": True}, 0) == (left, watermark.parked_count)


def test_who_does_not_wait_is_not_rung(loop: Loop) -> None:
    """An eventfd costs a system call."""
    watermark = Watermark(0)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    watermark.listen(bell)
    watermark.begin()
    watermark.end(1, True, 0)
    watermark.fail()

    with pytest.raises(BlockingIOError):
        os.eventfd_read(bell)
    os.close(bell)


def test_a_failure_wakes_everybody(loop: Loop) -> None:
    """with nothing that may leave."""
    watermark = Watermark(0)
    left: list[bool] = []
    places = [loop(watermark) for _ in range(4)]
    threads = [begun(lambda at=at: left.append(watermark.wait(at, 1, 0, PATIENCE_MS))) for at in places]
    until(lambda: watermark.parked_count == 4)
    watermark.fail()
    for thread in threads:
        thread.join(PATIENCE_MS / 1000)

    assert [False] * 4 == left


def test_places_are_limited_and_given_back(loop: Loop) -> None:
    """64 loops listen at most."""
    watermark = Watermark(0)
    places = [loop(watermark) for _ in range(64)]
    with pytest.raises(ValueError, match="64 loops listen"):
        loop(watermark)
    watermark.leave(places[7])

    assert places[7] == loop(watermark)


def test_the_writer_sleeps_until_it_is_rung() -> None:
    """once for each time that it lay down; a ring before that is no sleep lost, and without one its time runs out."""
    watermark = Watermark(0)
    watermark.ring()
    watermark.lie_down()
    began = time.monotonic()
    watermark.sleep(0.02)
    assert time.monotonic() - began >= 0.02
    watermark.lie_down()
    watermark.ring()
    watermark.ring()
    watermark.sleep(PATIENCE_MS / 1000)
    watermark.lie_down()
    watermark.sleep(0.02)

    assert 0.04 <= time.monotonic() - began < PATIENCE_MS / 1000


def test_a_commit_between_an_answer_and_its_sleep_is_noticed(loop: Loop) -> None:
    """The loop must not sleep; nor after a failure at that moment."""
    watermark = Watermark(0)
    listener = loop(watermark)
    assert not watermark.may_leave(1, 0)
    watermark.begin()
    watermark.end(1, True, 0)
    assert watermark.park(listener, 1, 1)
    assert not watermark.may_leave(2, 0)
    assert not watermark.park(listener, 2, 1)
    watermark.fail()

    assert watermark.park(listener, 2, 1)


def test_a_loop_that_sleeps_before_the_writer_does_is_seen(loop: Loop) -> None:
    """by the look that comes after lying down; one that comes later rings."""
    watermark = Watermark(0)
    listener = loop(watermark)
    watermark.may_leave(1, 0)
    watermark.park(listener, 1, 1)
    watermark.lie_down()
    assert watermark.awaited
    watermark.end(1, True, 0)
    watermark.lie_down()
    assert not watermark.awaited
    watermark.may_leave(2, 0)
    watermark.park(listener, 2, 1)
    began = time.monotonic()
    watermark.sleep(PATIENCE_MS / 1000)

    assert time.monotonic() - began < 1


def test_no_wake_up_is_lost(loop: Loop) -> None:
    """A writer that sleeps whenever it may, and loops that sleep whenever they must: all get through, however their steps meet."""
    watermark, rounds, mutex = Watermark(0), 3_000, threading.Lock()
    ticket, done = 0, 0
    late: list[int] = []

    def change() -> int:
        nonlocal ticket
        with mutex:
            ticket += 1
            return ticket

    def answer(listener: int, dice: random.Random) -> None:
        nonlocal done
        for _ in range(rounds):
            mine = change()
            if not watermark.wait(listener, mine, 0, PATIENCE_MS):
                late.append(mine)
            if dice.random() < 0.05:
                time.sleep(0.0001)
        with mutex:
            done += 1
        watermark.ring()

    def write() -> None:
        while done < 4:
            watermark.lie_down()
            watermark.sleep(0 if watermark.awaited or done == 4 else PATIENCE_MS / 1000)
            if watermark.awaited:
                watermark.begin()
                watermark.end(ticket, True, 0)

    threads = [begun(write)]
    threads += [begun(lambda n=n: answer(loop(watermark), random.Random(n))) for n in range(4)]
    for thread in threads:
        thread.join()

    assert ([], 4 * rounds) == (late, ticket)


# ---- With a store ----


def test_loops_and_threads_share_commits(begin: Begin, loop: Loop, tmp_path: Path) -> None:
    """What either was told is on disk, and there are fewer commits than charges."""
    process = begin(tmp_path / "a")
    for number in range(8):
        process.put(f"account-{number}")
    left: list[bool] = []

    def in_a_loop(account: str, listener: int) -> None:
        for _ in range(50):
            ticket = process.charge(account)
            left.append(process.store.watermark.wait(listener, ticket, time.monotonic_ns(), PATIENCE_MS))

    def in_a_thread(account: str) -> None:
        for _ in range(50):
            process.store.wait(process.charge(account))

    threads = []
    for number in range(0, 8, 2):
        listener = loop(process.store.watermark)
        threads.append(begun(lambda n=number, at=listener: in_a_loop(f"account-{n}", at)))
        threads.append(begun(lambda n=number + 1: in_a_thread(f"account-{n}")))
    for thread in threads:
        thread.join()

    assert [True] * 200 == left
    assert process.store.writer.commits_count < 400
    assert 0 == process.store.writer.waiting_count
    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


def test_a_loop_alone_is_written_for(begin: Begin, loop: Loop, tmp_path: Path) -> None:
    """A parked answer wakes the writer, with no thread that waits beside."""
    process = begin(tmp_path / "a")
    listener = loop(process.store.watermark)
    process.put("ada")
    before = process.charge("ada", "r1")

    assert not process.store.watermark.may_leave(before, time.monotonic_ns())
    assert process.store.watermark.wait(listener, before, time.monotonic_ns(), PATIENCE_MS)
    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


def test_a_change_that_only_an_interval_noted_is_written(begin: Begin, loop: Loop, tmp_path: Path) -> None:
    """Its answer has left; nobody waits, and half the interval later it is on disk."""
    process = begin(tmp_path / "a", Durability(20))
    process.put("ada")
    ticket = process.charge("ada")

    assert process.store.watermark.may_leave(ticket, time.monotonic_ns())
    until(lambda: process.store.watermark.durable >= ticket)
    assert process.states() == begin(copied(tmp_path / "a", tmp_path / "b")).states()


def test_every_change_of_an_interval_is_written_while_they_go_on(begin: Begin, loop: Loop, tmp_path: Path) -> None:
    """A change made just as a commit begins is in that one or noted for the next."""
    process = begin(tmp_path, Durability(2))
    process.put("ada")
    watermark = process.store.watermark
    for _ in range(300):
        ticket = process.charge("ada")
        while not watermark.may_leave(ticket, time.monotonic_ns()):
            time.sleep(0.0002)
        until(lambda ticket=ticket: watermark.oldest_ns or watermark.durable >= ticket)

    until(lambda: watermark.durable >= ticket)


def test_a_failing_store_wakes_its_loops(begin: Begin, loop: Loop, tmp_path: Path) -> None:
    """and they are told that nothing will be kept."""
    process: Process = begin(tmp_path)
    process.put("ada")
    process.store.wait_all()
    listener = loop(process.store.watermark)
    process.store.journal.close()  # what a disk that is gone looks like

    assert not process.store.watermark.wait(listener, process.charge("ada"), time.monotonic_ns(), PATIENCE_MS)
    assert process.store.watermark.failed
    with pytest.raises(StoreFailed):
        process.store.close()
    assert process.failures
