# cython: cdivision=True
"""Waiting: calls whose answer must first be on disk, calls in Python's hands, and when each gives up.

Answers parked for the disk stand in one queue: tickets rise with time, so those that may leave are at its front.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from buffer cimport buffer_put
from call cimport (
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE, call_answer, call_fail, call_free, call_prefix, call_refuse, call_wait,
)
from front cimport PEER_BYTES, PREFIX_BYTES, call_t, front_t, pthread_cond_t, pthread_mutex_t, worker_t
from watermark cimport bell_ring, watermark_durable, watermark_failed, watermark_may_leave, watermark_park

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_signal(pthread_cond_t*)


# ---- For the disk ----

cdef inline void call_park(call_t* self, uint64_t ticket) noexcept nogil:
    cdef worker_t* worker = self.worker
    cdef int64_t patience = worker.monotonic + worker.front.limits.disk_ns_max
    self.ticket, self.parked, self.queued = ticket, True, NULL
    if worker.parked_last != NULL:
        worker.parked_last.queued = self
    else:
        worker.parked_first = self
    worker.parked_last = self
    worker.figures.waiting += 1
    if self.deadline == 0 or patience < self.deadline:
        self.deadline, self.impatient = patience, True
    call_wait(self)


cdef inline void call_answer_or_park(call_t* self, uint64_t ticket) noexcept nogil:
    """Send the answer once what it rests on is on disk."""
    cdef worker_t* worker = self.worker
    if ticket == 0 or worker.front.watermark == NULL or watermark_may_leave(worker.front.watermark, ticket, worker.monotonic):
        call_answer(self)
    elif worker.figures.waiting >= worker.front.limits.waiting_max:
        call_refuse(self, UNAVAILABLE, "Too many answers wait for the disk; this one may yet be kept")
    else:
        call_park(self, ticket)


cdef inline void worker_release(worker_t* self) noexcept nogil:
    """Let those go that may. Once the store has failed, all: with an error."""
    cdef call_t* call = self.parked_first
    cdef bint failed
    if call == NULL:
        return
    failed = watermark_failed(self.front.watermark)
    while call != NULL and (failed or watermark_durable(self.front.watermark, call.ticket)):
        self.parked_first = call.queued
        if self.parked_first == NULL:
            self.parked_last = NULL
        self.figures.waiting -= 1
        call.parked = False
        if call.session == NULL or call.answered:
            if call.session == NULL:
                call_free(call)
        elif failed:
            call_refuse(call, UNAVAILABLE, "the store has failed and takes nothing any more")
        else:
            call_answer(call)
        call = self.parked_first


cdef inline bint worker_may_sleep(worker_t* self) noexcept nogil:
    """Say what is waited for, just before sleeping; false if some of it has come meanwhile."""
    cdef bint waits = self.parked_first != NULL
    if not (waits or self.has_waited):
        return True
    self.has_waited = waits
    return not watermark_park(self.front.watermark, self.listener, self.parked_first.ticket if waits else 0, self.figures.waiting)


# ---- For Python ----

cdef inline void worker_post(worker_t* self, call_t* call) noexcept nogil:
    """Give a call back that Python had, from any thread; the worker frees it, or sends its answer."""
    cdef bint first
    pthread_mutex_lock(&self.inbox_mutex)
    first = self.inbox == NULL
    call.queued, self.inbox = self.inbox, call
    pthread_mutex_unlock(&self.inbox_mutex)
    if first:
        bell_ring(self.bell)


cdef inline void call_hand(call_t* self) noexcept nogil:
    """Put it into the queue that Python's threads take from."""
    cdef front_t* front = self.worker.front
    cdef bint full
    memcpy(&self.peer[0], &self.session.peer[0], PEER_BYTES)
    pthread_mutex_lock(&front.mutex)
    full = front.handed_count >= front.limits.handed_max or front.closed
    if not full:
        front.handed_count += 1
        self.handed, self.queued = True, NULL
        if front.handed_last != NULL:
            front.handed_last.queued = self
        else:
            front.handed_first = self
        front.handed_last = self
        pthread_cond_signal(&front.filled)
    pthread_mutex_unlock(&front.mutex)
    if full:
        call_refuse(self, RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    else:
        call_wait(self)


cdef inline call_t* front_take(front_t* self) noexcept nogil:
    """The next call for Python, under the front's mutex; NULL where there is none. Those for which nobody waits any more go back at once."""
    cdef call_t* call = self.handed_first
    while call != NULL:
        self.handed_first = call.queued
        if self.handed_first == NULL:
            self.handed_last = NULL
        if call.session != NULL and not call.answered:      # its worker may say so just now: then the answer is for nobody
            break
        self.handed_count -= 1
        worker_post(call.worker, call)
        call = self.handed_first
    return call


cdef inline bint call_extend_answer(call_t* self, const uint8_t* at, size_t size) noexcept nogil:
    """Add Python's bytes to what is there of the answer; false without memory."""
    cdef size_t before = self.answer_size if self.answer_size else <size_t>PREFIX_BYTES
    cdef uint8_t* answer = <uint8_t*>malloc(before + size)
    if answer == NULL:
        return False
    memcpy(answer, self.answer, before)
    memcpy(answer + before, at, size)
    if self.answer != &self.short_answer[0]:
        free(self.answer)
    self.answer, self.answer_size = answer, before + size
    call_prefix(self)
    return True


cdef inline void worker_collect(worker_t* self) noexcept nogil:
    """Send what Python has answered."""
    cdef call_t* call
    cdef call_t* following
    pthread_mutex_lock(&self.inbox_mutex)
    call, self.inbox = self.inbox, NULL
    pthread_mutex_unlock(&self.inbox_mutex)
    while call != NULL:
        following = call.queued
        call.handed = False
        if call.session == NULL:
            call_free(call)
        elif not call.answered:
            if call.status:
                call_fail(call, call.status, <const char*>call.status_text.at, call.status_text.size)
            else:
                call_answer_or_park(call, call.ticket)
        call = following


# ---- For too long ----

cdef inline void worker_expire(worker_t* self) noexcept nogil:
    """Answer those whose deadline has come."""
    cdef call_t* call = self.waiting
    cdef call_t* following
    if self.deadline == 0 or self.monotonic < self.deadline:
        return
    self.deadline = 0
    while call != NULL:
        following = call.waiting_next
        if call.deadline and call.deadline <= self.monotonic and call.impatient:
            call_refuse(call, UNAVAILABLE, "the disk has not answered in time; the change may yet be kept")
        elif call.deadline and call.deadline <= self.monotonic:
            call_refuse(call, DEADLINE_EXCEEDED, "Deadline Exceeded")
        elif call.deadline and (self.deadline == 0 or call.deadline < self.deadline):
            self.deadline = call.deadline
        call = following
