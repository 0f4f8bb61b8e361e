"""The gate: a ledger and a clock behind the verbs of a gateway, in milliseconds.

It is here and not in Python because a frame of Python's costs as much as a decision. The clock is the caller's.
"""

cdef extern from *:
    """
    #define TIME_MS_MIN 946684800000LL          /* 2000-01-01 */
    #define TIME_MS_MAX 4102444800000LL         /* 2100-01-01 */
    """
    const int64_t TIME_MS_MIN
    const int64_t TIME_MS_MAX


cpdef int64_t time_us(object time_ms, str field="now_ms") except -1:
    """Milliseconds as the core's microseconds. Raises InvalidArgument outside the years 2000 to 2100."""
    cdef int64_t ms = time_ms if -1 < time_ms <= TIME_MS_MAX else 0
    if ms < TIME_MS_MIN:
        raise InvalidArgument(field, time_ms, f"{TIME_MS_MIN} to {TIME_MS_MAX}, the years 2000 to 2100 in Unix milliseconds")
    return ms * 1000


cdef class Gate:
    """Decide for whoever asks. `now_ms` is Unix time; left out, `clock` is asked, whose `now_us()` gives microseconds."""

    cdef readonly Ledger ledger
    cdef object _clock
    cdef Line _line                 # the clock's, if it has one

    def __init__(self, clock, bytes hash_key not None):
        self.clock = clock
        self.ledger = Ledger(hash_key)

    @property
    def clock(self):
        return self._clock

    @clock.setter
    def clock(self, clock):
        self._clock = clock
        self._line = getattr(clock, "line", None)

    def now_us(self, now_ms):
        """`now_ms` as the core's microseconds; None asks the clock. Raises InvalidArgument."""
        return self.moment_us(now_ms)

    @cython.final
    cdef int64_t moment_us(self, object now_ms) except -1:
        """The same for C. Apart, because a cpdef would ask each time whether the engine, a class of Python's, overrides it."""
        cdef int64_t now
        if now_ms is not None:
            return time_us(now_ms)
        now = self._line.now_us() if self._line is not None else 0
        return now if now else self._clock.now_us()

    def admit(self, Request request not None, *, now_ms=None):
        """Decide and, if allowed, charge. A refusal is a Decision too. Raises InvalidArgument for a draw of more than 10^12 units."""
        return self.ledger.admit(request, self.moment_us(now_ms))

    def admit_many(self, requests, *, now_ms=None):
        """Decide each in turn at one moment. A bad item is answered by its InvalidArgument in its place; the others go on."""
        return self.ledger.admit_many(requests, self.moment_us(now_ms))

    def peek(self, Request request not None, *, now_ms=None):
        """Return what admit would say. Nothing is charged, no window starts."""
        return self.ledger.peek(request, self.moment_us(now_ms))

    def settle(self, str account not None, str request_id not None, *, outcome, draws=None, now_ms=None):
        """Close an admission: COMMIT with what was really used (`draws`, meter to amount; none keeps the charge), or CANCEL.

        Idempotent. Returns a Settlement. Raises NotFound if the id is not remembered, AlreadyExists if it was settled with other
        content, InvalidArgument.
        """
        return self.ledger.settle(account, request_id, outcome, draws, self.moment_us(now_ms))

    def renew(self, str account not None, str request_id not None, *, hold_ms, now_ms=None):
        """Keep a hold open for `hold_ms` from now; never shortens it. Returns when it closes by itself, in Unix milliseconds.

        Raises NotFound if the id is not remembered, FailedPrecondition if its hold has ended or none was opened, InvalidArgument.
        """
        return self.ledger.renew(account, request_id, hold_ms, self.moment_us(now_ms))
