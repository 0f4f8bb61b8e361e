# cython: cdivision=True
"""The watermark: up to which ticket everything is durable, between the one thread that writes and loops that answer without the GIL.

An answer whose ticket is above the mark is parked by its loop and leaves when the mark has risen. The protocol of a loop:

    for every answer    watermark_may_leave; an answer that may not is parked
    before it sleeps    watermark_park with the lowest ticket parked (0: none). True: it must not sleep, somebody may leave
    when its bell rang  those whose ticket is watermark_durable leave; after watermark_failed none that are not

The writer is rung by watermark_park and not by each answer, so that everything decided in one turn of the loop shares one commit.

No wake-up is lost, because both sides first say what they want and then look, and all of it is in one order (sequentially consistent):
  - the writer sets `asleep`, then looks whether anybody waits (`wanted` above `durable`); a loop raises `wanted`, then looks at
    `asleep` and rings. Whichever comes second sees the other. The same goes for threads of Python, whose list stands for `wanted`.
  - a loop puts its ticket into its listener, then looks at `durable`; the writer raises `durable`, then looks at the listeners.
Who takes a flag down (`asleep`, a listener's ticket) by a swap is the one who writes to the eventfd, so each sleep is rung once. A
bell may ring for somebody who has just woken by himself: he then looks once in vain. Nobody looks again without a bell or a time out.

In interval mode an answer leaves at once, and says since when something is unwritten. The writer moves that to `writing_since`
*before* it asks the ledger what there is to write, and an answer looks at it *after* its change was made: whoever found the
field set has his change in that commit, and whoever found it empty sets it anew, so no change stays behind unnoticed.

Times are CLOCK_MONOTONIC, the caller's. Listeners come, go and are rung with the GIL held: no bell is rung after it was closed.
"""
from libc.stdint cimport int64_t, uint64_t
from posix.unistd cimport write

from atomic cimport atomic_claim, atomic_fence, atomic_raise, atomic_read, atomic_swap, atomic_write

cdef enum:
    LISTENERS_MAX = 64              # loops

cdef struct listener_t:
    int bell                        # eventfd of a loop; -1: free
    uint64_t waits                  # lowest ticket that it sleeps for; 0: it sleeps for none, or is awake
    uint64_t parked                 # answers; to be shown

cdef struct watermark_t:
    uint64_t durable                # everything up to this ticket is
    uint64_t wanted                 # the highest ticket that a parked answer waits for
    uint64_t failed                 # nothing will be durable any more
    int64_t interval_ns             # how old an unwritten change may be while answers leave; 0: strict
    uint64_t unwritten_since_ns     # the oldest change answered and not yet taken; 0: none
    uint64_t writing_since_ns       # the oldest of those on their way; 0: none
    uint64_t asleep                 # the writer, or about to be
    int bell                        # eventfd that the writer sleeps on
    listener_t listeners[LISTENERS_MAX]


# ---- For loops ----

cdef inline bint watermark_durable(watermark_t* self, uint64_t ticket) noexcept nogil:
    return ticket <= atomic_read(&self.durable)


cdef inline bint watermark_failed(watermark_t* self) noexcept nogil:
    """Whether nothing can be kept any more: to be asked before anything is charged."""
    return atomic_read(&self.failed) != 0


cdef inline bint watermark_may_leave(watermark_t* self, uint64_t ticket, int64_t monotonic_ns) noexcept nogil:
    """Whether an answer that rests on the change `ticket`, made just now, may leave. If not, it is to be parked."""
    cdef uint64_t since
    if watermark_durable(self, ticket):
        return True
    if watermark_failed(self):
        return False
    if self.interval_ns:
        atomic_fence()              # the change comes before the look
        if atomic_read(&self.unwritten_since_ns) == 0 and atomic_claim(&self.unwritten_since_ns, <uint64_t>monotonic_ns):
            watermark_ring(self)
        since = watermark_oldest_ns(self)
        if since == 0 or monotonic_ns - <int64_t>since < self.interval_ns:
            return True
    atomic_raise(&self.wanted, ticket)
    return False


cdef inline bint watermark_park(watermark_t* self, int listener, uint64_t ticket, uint64_t parked) noexcept nogil:
    """A loop is about to sleep with `parked` answers, whose lowest ticket is `ticket`. Whether it must not: some may leave, or it failed."""
    cdef listener_t* it = &self.listeners[listener]
    atomic_write(&it.parked, parked)
    atomic_write(&it.waits, ticket)
    if ticket == 0:
        return False
    watermark_ring(self)
    if not watermark_durable(self, ticket) and not watermark_failed(self):
        return False
    atomic_write(&it.waits, 0)
    return True


# ---- For both ----

cdef inline void bell_ring(int bell) noexcept nogil:
    """Add to an eventfd, which cannot block or fail: it would take 2^64 rings."""
    cdef uint64_t one = 1
    write(bell, &one, sizeof(one))


cdef inline void watermark_ring(watermark_t* self) noexcept nogil:
    """Wake the writer, if it sleeps. Whoever wants something of it has said so before."""
    if atomic_read(&self.asleep) and atomic_swap(&self.asleep, 0):
        bell_ring(self.bell)


cdef inline uint64_t watermark_oldest_ns(watermark_t* self) noexcept nogil:
    """Since when the oldest change that was answered is unwritten; 0: none is. It may say so of one that has just been written."""
    cdef uint64_t unwritten = atomic_read(&self.unwritten_since_ns), writing = atomic_read(&self.writing_since_ns)
    if writing:
        return writing
    return atomic_read(&self.unwritten_since_ns) or unwritten     # moved to `writing` between two looks, or back


# ---- For the writer ----

cdef inline void watermark_begin(watermark_t* self) noexcept nogil:
    """A commit begins: what is unwritten is on its way. To be called before the ledger is asked what there is."""
    cdef uint64_t since = atomic_read(&self.unwritten_since_ns)
    atomic_write(&self.writing_since_ns, since)
    atomic_write(&self.writing_since_ns, atomic_swap(&self.unwritten_since_ns, 0))    # somebody may have set it since
    atomic_fence()


cdef inline void watermark_end(watermark_t* self, uint64_t ticket, bint all_written, int64_t monotonic_ns) noexcept nogil:
    """A commit is done: everything up to `ticket` is durable. Without `all_written` there was more than one commit takes."""
    if not all_written:
        atomic_write(&self.unwritten_since_ns, atomic_read(&self.writing_since_ns) or <uint64_t>monotonic_ns)
    atomic_write(&self.writing_since_ns, 0)
    atomic_write(&self.durable, ticket)
    watermark_let_go(self)


cdef inline void watermark_fail(watermark_t* self) noexcept nogil:
    atomic_write(&self.failed, 1)
    watermark_let_go(self)


cdef inline void watermark_let_go(watermark_t* self) noexcept nogil:
    """Wake the loops that sleep for what is durable now, or for what never will be."""
    cdef uint64_t waits
    cdef int i
    for i in range(LISTENERS_MAX):
        waits = atomic_read(&self.listeners[i].waits)
        if waits and (watermark_durable(self, waits) or watermark_failed(self)) and atomic_swap(&self.listeners[i].waits, 0):
            bell_ring(self.listeners[i].bell)
