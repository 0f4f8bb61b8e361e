"""The watermark as the writing thread has it, and whoever waits in Python. core/watermark.pxd has the protocol."""

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int count, int flags)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long count, int timeout_ms)
    short POLLIN


cdef bint bell_wait(int bell, int timeout_ms) noexcept nogil:
    """Sleep until an eventfd is rung, and take the ring; false after a time out, or a signal's handler."""
    cdef uint64_t rings
    cdef pollfd waiting
    waiting.fd, waiting.events = bell, POLLIN
    return poll(&waiting, 1, timeout_ms) > 0 and read(bell, &rings, sizeof(rings)) > 0


@cython.final
@cython.auto_pickle(False)
cdef class Watermark:
    """Up to which ticket everything is durable. `interval_ns` 0: an answer never leaves before its change is; times are monotonic."""

    cdef watermark_t c

    def __cinit__(self, int64_t interval_ns):
        cdef int i
        memset(&self.c, 0, sizeof(watermark_t))
        self.c.interval_ns = interval_ns
        for i in range(LISTENERS_MAX):
            self.c.listeners[i].bell = -1
        self.c.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.c.bell < 0:
            raise OSError("no eventfd can be made")

    def __dealloc__(self):
        if self.c.bell >= 0:
            close(self.c.bell)

    @property
    def interval_ns(self):
        return self.c.interval_ns

    @property
    def durable(self):
        return atomic_read(&self.c.durable)

    @property
    def failed(self):
        return watermark_failed(&self.c)

    @property
    def awaited(self):
        """Whether an answer that is parked, or was, waits for a change that is not durable."""
        return not watermark_durable(&self.c, atomic_read(&self.c.wanted))

    @property
    def parked_count(self):
        """Answers that loops have parked, as of their last turn."""
        return sum([self.c.listeners[i].parked for i in range(LISTENERS_MAX)])

    @property
    def unwritten_since_ns(self):
        """When the oldest change was answered that is neither written nor being written; 0: there is none."""
        return atomic_read(&self.c.unwritten_since_ns)

    @property
    def oldest_ns(self):
        """When the oldest change was answered that is not durable; 0: there is none."""
        return watermark_oldest_ns(&self.c)

    # ---- For those who answer ----

    def may_leave(self, uint64_t ticket, int64_t monotonic_ns):
        """Whether an answer that rests on the change `ticket`, made just now, may leave."""
        return watermark_may_leave(&self.c, ticket, monotonic_ns)

    def listen(self, int bell):
        """A place for a loop that sleeps on this eventfd, which stays open until `leave`. Raises ValueError past 64 of them."""
        cdef int i
        for i in range(LISTENERS_MAX):
            if self.c.listeners[i].bell < 0:
                self.c.listeners[i].bell = bell
                return i
        raise ValueError(f"{LISTENERS_MAX} loops listen, and no more may")

    def leave(self, int listener):
        """Give the place back. The loop has ended."""
        watermark_park(&self.c, listener, 0, 0)
        self.c.listeners[listener].bell = -1

    def park(self, int listener, uint64_t ticket, uint64_t parked):
        """Say what a loop sleeps for; whether it must not. core/watermark.pxd has the rest."""
        return watermark_park(&self.c, listener, ticket, parked)

    def wait(self, int listener, uint64_t ticket, int64_t monotonic_ns, int timeout_ms):
        """Wait as a loop does that has one answer; whether it may leave. False after a failure, or `timeout_ms` without a ring."""
        cdef bint leaves, rung = True
        with nogil:
            leaves = watermark_may_leave(&self.c, ticket, monotonic_ns)
            while not leaves and rung and not watermark_failed(&self.c):
                if not watermark_park(&self.c, listener, ticket, 1):
                    rung = bell_wait(self.c.listeners[listener].bell, timeout_ms)
                leaves = watermark_durable(&self.c, ticket)
            watermark_park(&self.c, listener, 0, 0)
        return leaves

    def ring(self):
        """Wake the writer, if it sleeps. Whoever wants something of it has said so before."""
        watermark_ring(&self.c)

    # ---- For the writer ----

    def lie_down(self):
        """Say that sleep comes next. Whoever wants something from now on rings: what was wanted before is to be looked at after this."""
        atomic_write(&self.c.asleep, 1)

    def sleep(self, double seconds):
        """Sleep until somebody rings, so long at most; not at all with 0 or less."""
        cdef int timeout_ms = <int>(min(seconds, 86_400.0) * 1000 + 0.999)
        if seconds > 0:
            with nogil:
                bell_wait(self.c.bell, timeout_ms)
        atomic_write(&self.c.asleep, 0)

    def begin(self):
        """A commit begins. To be called before the ledger is asked what there is to write."""
        watermark_begin(&self.c)

    def end(self, uint64_t ticket, bint all_written, int64_t monotonic_ns):
        """A commit is done. Everything up to `ticket` is durable; without `all_written` there was more than one commit takes."""
        watermark_end(&self.c, ticket, all_written, monotonic_ns)

    def fail(self):
        """Nothing will be durable any more: those who wait are woken."""
        watermark_fail(&self.c)
