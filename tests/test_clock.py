"""The clock: what it follows, what it makes up, and what it never does."""

from __future__ import annotations

import logging
import threading

import pytest
from conftest import HandTime
from hypothesis import given
from hypothesis import strategies as st

from quota.clock import Clock
from quota.errors import FailedPrecondition


def test_time_passes_with_boot_time(hand_time: HandTime) -> None:
    """between comparisons only the boot time counts."""
    clock = hand_time.clock()
    began_us = clock.now_us()
    hand_time.boot_ns += 400_000_000

    assert began_us == hand_time.wall_ns // 1000
    assert began_us + 400_000 == clock.now_us()


@pytest.mark.parametrize("difference_s", [3.0, -3.0, 5.0, -5.0])
def test_small_differences_are_made_up_slowly(hand_time: HandTime, difference_s: float) -> None:
    """a difference of up to 5 s is made up at 5 % of the pace, and no alarm is raised."""
    clock = hand_time.clock()
    hand_time.set_wall(difference_s)
    hand_time.advance(1)
    clock.now_us()  # compares, and begins
    behind_us = hand_time.wall_ns // 1000 - clock.now_us()

    hand_time.advance(10)
    after_ten_s = hand_time.wall_ns // 1000 - clock.now_us()
    for _ in range(100):
        hand_time.advance(1)
        clock.now_us()

    assert round(difference_s * 1e6) == behind_us
    assert behind_us - round(500_000 * difference_s / abs(difference_s)) == after_ten_s
    assert hand_time.wall_ns // 1000 == clock.now_us()
    assert 0 == clock.alarms_count


@pytest.mark.parametrize("step_s", [5.1, -5.1, 86_400.0, -86_400.0])
def test_steps_are_not_followed(hand_time: HandTime, caplog: pytest.LogCaptureFixture, step_s: float) -> None:
    """a step of more than 5 s raises one alarm, and time goes on by the boot time."""
    clock = hand_time.clock()
    began_us = clock.now_us()
    hand_time.set_wall(step_s)
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            hand_time.advance(1)
            clock.now_us()

    assert began_us + 100_000_000 == clock.now_us()
    assert 1 == clock.alarms_count
    assert 1 == len(caplog.records)
    assert round(step_s * 1e6) == clock.read().step_us


def test_a_second_step_is_a_second_alarm(hand_time: HandTime) -> None:
    """each step counts; going back to where the clock is counts as none."""
    clock = hand_time.clock()
    for step_s in (60, 60, -120):
        hand_time.set_wall(step_s)
        clock.read()

    assert 2 == clock.alarms_count
    assert 0 == clock.read().step_us


def test_a_clock_that_drifts_during_a_step_raises_no_alarm(hand_time: HandTime) -> None:
    """while a step stands, slow drift on top of it is nothing new."""
    clock = hand_time.clock()
    hand_time.set_wall(60)
    for _ in range(100):
        hand_time.advance(1)
        hand_time.set_wall(0.1)
        clock.now_us()

    assert 1 == clock.alarms_count
    assert 70_000_000 == clock.read().step_us


def test_accept_adopts_a_forward_step(hand_time: HandTime) -> None:
    """accept jumps to the wall clock, says how far, and has nothing to do the second time."""
    clock = hand_time.clock()
    clock.now_us()
    hand_time.set_wall(3600)

    assert 3_600_000_000 == clock.accept()
    assert hand_time.wall_ns // 1000 == clock.now_us()
    assert 0 == clock.accept()
    assert 0 == clock.read().step_us


def test_accept_never_goes_back(hand_time: HandTime) -> None:
    """a backward step is refused with what stands in the way, and time goes on."""
    clock = hand_time.clock()
    began_us = clock.now_us()
    hand_time.set_wall(-3600)

    with pytest.raises(FailedPrecondition, match=r"set back by 3600.0 s"):
        clock.accept()
    assert began_us == clock.now_us()


def test_a_stopped_process_sees_no_step(hand_time: HandTime) -> None:
    """if the process stood still between the two readings, the comparison says nothing and is tried again."""
    stalls_ns = [8_000_000_000]

    def wall_ns() -> int:
        if stalls_ns and hand_time.boot_ns > HandTime.boot_ns:
            hand_time.advance(stalls_ns.pop() / 1e9)
        return hand_time.wall_ns

    clock = Clock(lambda: hand_time.boot_ns, wall_ns)
    hand_time.advance(2)
    clock.now_us()
    clock.now_us()

    assert [] == stalls_ns
    assert 0 == clock.alarms_count
    assert hand_time.wall_ns // 1000 == clock.now_us()


@given(
    st.lists(
        st.tuples(st.integers(0, 20_000_000_000), st.integers(-7_000_000_000, 7_000_000_000), st.booleans()),
        max_size=50,
    )
)
def test_time_never_goes_back(moves: list[tuple[int, int, bool]]) -> None:
    """whatever the wall clock does, time goes on, at 95 to 105 % of the boot time's pace unless a step is accepted."""
    time = HandTime()
    clock = time.clock()
    before_us = clock.now_us()
    for passed_ns, set_ns, accept in moves:
        time.boot_ns += passed_ns
        time.wall_ns += passed_ns + set_ns
        now_us = clock.now_us()
        passed_us = passed_ns / 1000
        assert passed_us * 0.95 - 2 <= now_us - before_us <= passed_us * 1.05 + 2
        if accept and clock.read().step_us >= 0:
            clock.accept()
            assert now_us <= clock.now_us()
        before_us = clock.now_us()


def test_time_never_goes_back_between_threads() -> None:
    """with a wall clock that swings to and fro, no thread sees time before what another has seen before."""
    real = Clock()
    began_us = real.now_us()
    swings = iter(range(10_000_000))

    def boottime_ns() -> int:
        return (real.now_us() - began_us) * 100_000  # a second passes in 10 ms, so that it compares often

    def wall_ns() -> int:
        return began_us * 1000 + boottime_ns() + (next(swings) % 3 - 1) * 4_000_000_000

    clock = Clock(boottime_ns, wall_ns)
    seen_us = [0]
    backward_us: list[int] = []

    def read() -> None:
        for _ in range(100_000):
            before_us = seen_us[0]
            now_us = clock.now_us()
            if now_us < before_us:
                backward_us.append(before_us - now_us)
            seen_us[0] = now_us

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == backward_us
    assert next(swings) > 3
