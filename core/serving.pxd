# cython: cdivision=True
"""Serving: calls whose message is whole, and how each gets its answer.

Calls of Admit that came in one read are gathered and decided together: the memory of their accounts is fetched while others are still looked at,
and the ledger's mutex is taken once. All other calls are decided as they come, after those gathered before them. What the service hands over is
put into Python's queue, and while a peer does not fetch its answers its calls are deferred.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp

from buffer cimport buffer_reserve, buffer_t
from call cimport (
    DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, call_answer, call_free, call_refuse, call_take_answer,
)
from clocks cimport CLOCK_MONOTONIC, clock_ns
from front cimport (
    BUCKETS, GATHERED, GATHERED_MAX, HANDED, HEALTH, PREFIX_BYTES, SAMPLE_DECISIONS, SERVED, asking_t, call_t, figures_t, front_t, session_t,
    worker_t,
)
from health cimport health_read, health_write
from names cimport name_t
from waiting cimport call_answer_or_park, call_hand
from watermark cimport watermark_failed

cdef extern from *:
    """
    /* Upper ends of a histogram's buckets, nanoseconds: those of quota/server/front_metrics.py. */
    static const int64_t DECISION_TIMES[16] = {
        100, 250, 500, 1000, 1500, 2000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 1000000, 2500000, 10000000};
    """
    const int64_t* DECISION_TIMES


cdef inline void call_end(call_t* self) noexcept nogil:
    """The peer has said all."""
    self.ended = True
    if self.answered:
        self.session.unended -= 1
    elif self.prefix_size < PREFIX_BYTES or self.message_have < self.message_size:
        call_refuse(self, INTERNAL, "The call ended before its message was whole")
    elif self.deadline and self.deadline <= self.worker.monotonic:
        call_refuse(self, DEADLINE_EXCEEDED, "Deadline Exceeded")
    elif session_full(self.session):
        call_defer(self)
    elif self.worker.front.methods[self.method].kind == GATHERED and not self.compressed:
        call_gather(self)
    else:
        worker_decide(self.worker)
        call_decide(self)


# ---- Together ----

cdef inline void call_gather(call_t* self) noexcept nogil:
    cdef worker_t* worker = self.worker
    self.gathered = True
    worker.gathered[worker.gathered_count] = self
    worker.gathered_count += 1
    if worker.gathered_count == GATHERED_MAX:
        worker_decide(worker)


cdef inline void worker_serve(worker_t* self, asking_t* askings, int count) noexcept nogil:
    """Have them answered, and once in a while take the time, which would cost a tenth of a decision if it were always taken."""
    cdef int64_t began
    self.unsampled += count
    if self.unsampled < SAMPLE_DECISIONS:
        self.front.serve_all(self.front.service, askings, count, self.now, &self.out)
        return
    self.unsampled = 0
    began = clock_ns(CLOCK_MONOTONIC)
    self.front.serve_all(self.front.service, askings, count, self.now, &self.out)
    figures_decided(&self.figures, (clock_ns(CLOCK_MONOTONIC) - began) // count)


cdef inline void figures_decided(figures_t* self, int64_t taken) noexcept nogil:
    cdef int bucket = 0
    while bucket < BUCKETS and taken > DECISION_TIMES[bucket]:
        bucket += 1
    self.decision_times[bucket] += 1
    self.decision_times_sum += taken


cdef inline void worker_decide(worker_t* self) noexcept nogil:
    """Decide what is gathered, in the order it came."""
    cdef asking_t askings[GATHERED_MAX]
    cdef call_t* calls[GATHERED_MAX]
    cdef call_t* call
    cdef bint failed
    cdef int i, count = 0
    for i in range(self.gathered_count):
        call = self.gathered[i]
        call.gathered = False
        if call.session == NULL:
            call_free(call)         # given up since
        else:
            calls[count] = call
            askings[count].at, askings[count].size = call.message, call.message_size
            count += 1
    self.gathered_count = 0
    if count == 0:
        return
    self.out.failed, self.out.size = False, 0
    failed = self.front.watermark != NULL and watermark_failed(self.front.watermark)
    if not failed:
        worker_serve(self, &askings[0], count)
    for i in range(count):
        if failed or askings[i].served == HANDED:
            call_hand(calls[i])
        else:
            call_give(calls[i], self.out.at + askings[i].start, askings[i].end - askings[i].start, askings[i].ticket)


cdef inline void call_give(call_t* self, const uint8_t* made, size_t size, uint64_t ticket) noexcept nogil:
    """Answer with what was made, once it may leave."""
    if call_take_answer(self, made, size):
        call_answer_or_park(self, ticket)
    else:
        call_refuse(self, RESOURCE_EXHAUSTED, "Out of memory; it may have been charged")


# ---- Alone ----

cdef inline bint call_health(call_t* self) noexcept nogil:
    """grpc.health.v1: a service's status by its name. False, and nothing done, for what has to be refused."""
    cdef front_t* front = self.worker.front
    cdef buffer_t* out = &self.worker.out
    cdef name_t name
    cdef int i
    if not health_read(self.message, self.message_size, &name):
        return False
    for i in range(front.health_count):
        if front.health[i].size == name.size and memcmp(front.health[i].name, name.at, name.size) == 0:
            health_write(front.health[i].status, out)
            call_give(self, out.at, out.size, 0)
            return True
    return False


cdef inline void call_decide(call_t* self) noexcept nogil:
    """Decide it, or have Python do so."""
    cdef worker_t* worker = self.worker
    cdef front_t* front = worker.front
    cdef buffer_t* out = &worker.out
    cdef int kind = front.methods[self.method].kind
    cdef uint64_t ticket = 0
    cdef int served
    out.failed, out.size = False, 0
    if buffer_reserve(out, PREFIX_BYTES) == NULL:
        call_refuse(self, RESOURCE_EXHAUSTED, "Out of memory")
        return
    out.size = PREFIX_BYTES
    if kind == HEALTH and not self.compressed and call_health(self):
        return
    if kind >= HEALTH or self.compressed or (front.watermark != NULL and watermark_failed(front.watermark)):
        call_hand(self)
        return
    served = front.serve(front.service, kind, self.message, self.message_size, worker.now, out, &ticket, &self.rest)
    if served == SERVED:
        call_give(self, out.at, out.size, ticket)
    elif out.size == PREFIX_BYTES:
        call_hand(self)
    elif call_take_answer(self, out.at, out.size):
        self.ticket = ticket        # of a batch's beginning; the rest is Python's
        call_hand(self)
    else:
        call_refuse(self, RESOURCE_EXHAUSTED, "Out of memory; it may have been charged")


# ---- Later ----

cdef inline bint session_full(const session_t* self) noexcept nogil:
    """Whether so many answers are not fetched that no more are to be made."""
    return self.output_bytes > self.worker.front.limits.output_bytes_max


cdef inline void call_defer(call_t* self) noexcept nogil:
    """Leave it undecided until the peer has fetched what it has. What it sends is still read: its window updates are among that."""
    cdef session_t* session = self.session
    self.deferred, self.queued = True, NULL
    if session.deferred_last != NULL:
        session.deferred_last.queued = self
    else:
        session.deferred_first = self
    session.deferred_last = self


cdef inline bint session_resume(session_t* self) noexcept nogil:
    """Decide what was deferred, as far as there is room for answers; whether anything was."""
    cdef call_t* call = self.deferred_first
    if call == NULL or session_full(self):
        return False
    while call != NULL and not session_full(self):
        self.deferred_first = call.queued
        if self.deferred_first == NULL:
            self.deferred_last = NULL
        call.deferred = False
        if call.session == NULL:
            call_free(call)
        elif not call.answered:
            call_end(call)
        call = self.deferred_first
    worker_decide(self.worker)
    return True
