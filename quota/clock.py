"""The one clock: Unix time carried by CLOCK_BOOTTIME, so that no quota comes back because somebody set the wall clock.

Once a second at most, and only when asked for the time, the clock compares itself with the wall clock. A difference
of up to 5 s is drift: it is made up by running at most 5 % faster or slower, so that time never goes back. A larger one
is a step, in either direction: it is not followed, because a step forward would free quota that cannot be taken back.
The step raises an alarm, and an operator may adopt it if it goes forward. CLOCK_BOOTTIME goes on while the machine
sleeps, so that waking up is no step.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quota._core import Line
from quota.errors import FailedPrecondition

COMPARE_EVERY_NS = 1_000_000_000
STEP_NS = 5_000_000_000  # differences up to this are slewed, larger ones are steps
SLEW_DIVISOR = 20  # a slew changes the clock's pace by at most 1/20
READING_NS_MAX = 100_000_000  # a comparison whose readings lie further apart says nothing

logger = logging.getLogger(__name__)


class TimeSource(Protocol):
    """Whatever tells the time. Tests give one that stands still."""

    def now_us(self) -> int:
        """Return Unix time in microseconds; it never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The clock beside the wall clock. Times in Unix microseconds; `step_us` is 0 unless a step is not followed."""

    now_us: int
    wall_us: int
    step_us: int
    alarms_count: int


class Clock:
    """Unix time in microseconds that never goes back, whichever thread asks.

    `boottime_ns` and `wall_ns` are the sources, in nanoseconds; tests give their own.
    """

    def __init__(self, boottime_ns: Callable[[], int] | None = None, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._boottime_ns = boottime_ns or functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        # The line that time runs on: epoch_ns at boot_ns, one to one but for what of slew_ns is still to be made up.
        self._boot_ns = self._boottime_ns()
        self._epoch_ns = self._wall_ns()
        self._slew_ns = 0
        self._compare_at_ns = self._boot_ns + COMPARE_EVERY_NS
        self.line = Line(self._boottime_ns, is_boottime=boottime_ns is None)
        """Answers without the lock while nothing is being made up."""
        self.line.lay(self._boot_ns, self._compare_at_ns, self._epoch_ns - self._boot_ns)
        self._step_ns = 0
        self._alarms_count = 0

    @property
    def alarms_count(self) -> int:
        """Steps of the wall clock seen so far."""
        return self._alarms_count

    def now_us(self) -> int:
        """Return the time, in Unix microseconds."""
        now_us = self.line.now_us()
        if now_us:
            return now_us
        with self._lock:
            return self._advance() // 1000

    def go_on_from(self, kept_us: int) -> None:
        """Tell no time before this one, which has been told before a restart. If it is far ahead, that is a step back."""
        with self._lock:
            self._advance()
            self._epoch_ns = max(self._epoch_ns, kept_us * 1000)
            self._advance(compare=True)

    def read(self) -> ClockReading:
        """Compare with the wall clock now and show both."""
        with self._lock:
            now_ns = self._advance(compare=True)
            return ClockReading(now_ns // 1000, self._wall_ns() // 1000, self._step_ns // 1000, self._alarms_count)

    def accept(self) -> int:
        """Adopt a forward step of the wall clock. Return how far the time went forward, in microseconds; 0 = no step.

        Raises FailedPrecondition if the wall clock was set back: time that has passed is not given back.
        """
        with self._lock:
            self._advance(compare=True)
            step_ns = self._step_ns
            if step_ns < 0:
                raise FailedPrecondition(
                    f"the wall clock was set back by {-step_ns / 1e9:.1f} s, and a backward step is never adopted: "
                    "set the wall clock right, or restart the server"
                )
            self._epoch_ns += step_ns
            self._step_ns = 0
        if step_ns:
            logger.warning("a forward step of the wall clock was adopted", extra={"step_seconds": step_ns / 1e9})
        return step_ns // 1000

    def _advance(self, compare: bool = False) -> int:
        """Move the line's beginning to now, compare if due or asked, return the time in ns. The lock must be held."""
        # Readers without the lock are turned away before the boot time is read: none can be ahead of what follows.
        self.line.lay(0, 0, 0)
        boot_ns = self._boottime_ns()
        elapsed_ns = boot_ns - self._boot_ns
        made_up_ns = max(-elapsed_ns // SLEW_DIVISOR, min(elapsed_ns // SLEW_DIVISOR, self._slew_ns))
        self._epoch_ns += elapsed_ns + made_up_ns
        self._slew_ns -= made_up_ns
        self._boot_ns = boot_ns
        if compare or boot_ns >= self._compare_at_ns:
            self._compare()
        if self._slew_ns == 0 and not compare:
            self.line.lay(boot_ns, self._compare_at_ns, self._epoch_ns - boot_ns)
        return self._epoch_ns

    def _compare(self) -> None:
        wall_ns = self._wall_ns()
        reading_ns = self._boottime_ns() - self._boot_ns
        if reading_ns > READING_NS_MAX:  # the process was stopped between the two readings: the next call tries again
            return
        self._compare_at_ns = self._boot_ns + COMPARE_EVERY_NS
        difference_ns = wall_ns - self._epoch_ns
        if abs(difference_ns) <= STEP_NS:
            self._slew_ns, self._step_ns = difference_ns, 0
            return
        if abs(difference_ns - self._step_ns) > STEP_NS:
            self._alarms_count += 1
            logger.error(
                "the wall clock was set %s, which is not followed: time goes on by CLOCK_BOOTTIME%s",
                "forward" if difference_ns > 0 else "back",
                " (`quotad clock accept` adopts it)" if difference_ns > 0 else "",
                extra={"step_seconds": difference_ns / 1e9},
            )
        self._slew_ns, self._step_ns = 0, difference_ns
