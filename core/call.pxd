# cython: cdivision=True
"""Calls: one unary gRPC call from its headers to its trailers.

    headers -> message, in pieces of any size -> decided -> answered
                                              -> parked until the disk has it -> answered
                                              -> handed to Python -> inbox -> answered

A call that cannot be served is answered at once, trailers only; what the peer still sends of it is let go by, and once the answer is out
its stream is reset with NO_ERROR. A message is kept as it arrives: memory grows with what came, never with what was announced.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen

from buffer cimport buffer_free, buffer_put, buffer_reserve, buffer_t
from front cimport (
    ANSWER_BYTES, BUCKETS, HANDED, HEALTH, INLINE_BYTES, PREFIX_BYTES, PYTHON, call_t, front_t, method_t, session_t, worker_t,
)
from nghttp2 cimport (
    NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_NV_FLAG_NONE, NGHTTP2_NV_FLAG_NO_COPY_NAME,
    NGHTTP2_NV_FLAG_NO_COPY_VALUE, nghttp2_data_provider, nghttp2_data_source, nghttp2_nv, nghttp2_session, nghttp2_submit_response,
    nghttp2_submit_trailer, ssize_t,
)
from traced cimport traces_add
from watermark cimport watermark_failed, watermark_may_leave

cdef enum status_t:                 # gRPC's
    OK = 0
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

cdef enum:
    SPARES_MAX = 4096               # calls kept for reuse, a worker
    GRPC_MESSAGE_BYTES_MAX = 6144   # of a percent-encoded status text

cdef extern from *:
    """
    static const char *const STATUS_TEXTS[17] = {
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};
    static const char HEX_DIGITS[] = "0123456789ABCDEF";
    /* Upper ends of a histogram's buckets, nanoseconds: those of quota/server/front_metrics.py. */
    static const int64_t TIMES[16] = {
        10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000, 250000000,
        1000000000, 5000000000LL};
    """
    const char* const* STATUS_TEXTS
    const char* HEX_DIGITS
    const int64_t* TIMES


# ---- Memory ----

cdef inline call_t* call_new(session_t* session, int32_t stream) noexcept nogil:
    """A call of a stream that has just begun; NULL without memory."""
    cdef worker_t* worker = session.worker
    cdef call_t* self = worker.spare
    if self != NULL:
        worker.spare = self.queued
        worker.spare_count -= 1
    else:
        self = <call_t*>malloc(sizeof(call_t))
        if self == NULL:
            return NULL
    memset(self, 0, <uint8_t*>&self.short_message[0] - <uint8_t*>self)
    self.session, self.worker, self.stream = session, worker, stream
    self.method = worker.front.method_count
    self.arrived = worker.began
    self.message, self.message_room = &self.short_message[0], INLINE_BYTES
    self.answer = &self.short_answer[0]
    self.next = session.calls
    if self.next != NULL:
        self.next.previous = self
    session.calls = self
    session.call_count += 1
    worker.figures.streams += 1
    return self


cdef inline void call_drop_message(call_t* self) noexcept nogil:
    if self.message != &self.short_message[0]:
        free(self.message)
        self.message, self.message_room = &self.short_message[0], INLINE_BYTES


cdef inline void call_free(call_t* self) noexcept nogil:
    cdef worker_t* worker = self.worker
    call_drop_message(self)
    if self.answer != &self.short_answer[0]:
        free(self.answer)
    buffer_free(&self.status_text)
    buffer_free(&self.metadata)
    if worker.spare_count < SPARES_MAX:
        self.queued = worker.spare
        worker.spare = self
        worker.spare_count += 1
    else:
        free(self)


cdef inline void call_wait(call_t* self) noexcept nogil:
    """List it among those that wait, for its deadline."""
    cdef worker_t* worker = self.worker
    if not self.listed:
        self.listed = True
        self.waiting_previous, self.waiting_next = NULL, worker.waiting
        if worker.waiting != NULL:
            worker.waiting.waiting_previous = self
        worker.waiting = self
    if self.deadline and (worker.deadline == 0 or self.deadline < worker.deadline):
        worker.deadline = self.deadline


cdef inline void call_unwait(call_t* self) noexcept nogil:
    if not self.listed:
        return
    self.listed = False
    if self.waiting_previous != NULL:
        self.waiting_previous.waiting_next = self.waiting_next
    else:
        self.worker.waiting = self.waiting_next
    if self.waiting_next != NULL:
        self.waiting_next.waiting_previous = self.waiting_previous


cdef inline void call_leave(call_t* self) noexcept nogil:
    """Its stream has closed."""
    cdef session_t* session = self.session
    if self.previous != NULL:
        self.previous.next = self.next
    else:
        session.calls = self.next
    if self.next != NULL:
        self.next.previous = self.previous
    session.call_count -= 1
    self.worker.figures.streams -= 1
    session.input_bytes -= self.message_room - INLINE_BYTES
    if not self.answered:
        self.worker.figures.streams_reset += 1
    elif self.sending:
        session.output_bytes -= self.answer_size - self.answer_sent
    if self.answered and not self.ended:
        session.unended -= 1
    if session.current == self:
        session.current = NULL
    self.session = NULL
    call_unwait(self)
    if not (self.gathered or self.deferred or self.parked or self.handed):
        call_free(self)


# ---- Answering ----

cdef inline nghttp2_nv header(const char* name, size_t name_size, const char* value, size_t value_size, uint8_t flags) noexcept nogil:
    cdef nghttp2_nv made
    made.name, made.namelen = <uint8_t*>name, name_size
    made.value, made.valuelen = <uint8_t*>value, value_size
    made.flags = flags
    return made


cdef inline nghttp2_nv fixed_header(const char* name, size_t name_size, const char* value, size_t value_size) noexcept nogil:
    """One whose texts live as long as the program."""
    return header(name, name_size, value, value_size, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)


cdef inline void call_count(call_t* self, int status) noexcept nogil:
    """Note how it ended and how long that took."""
    cdef int64_t taken = self.worker.monotonic - self.arrived
    cdef int bucket = 0
    while bucket < BUCKETS and taken > TIMES[bucket]:
        bucket += 1
    self.worker.figures.calls[self.method][status] += 1
    self.worker.figures.times[self.method][bucket] += 1
    self.worker.figures.times_sum[self.method] += taken
    if self.traced:
        traces_add(&self.worker.traces, &self.trace_parent[0], self.method, status, self.arrived, self.worker.monotonic)


cdef inline void call_settled(call_t* self) noexcept nogil:
    """It has its answer; whatever may come of it is not heard any more."""
    cdef session_t* session = self.session
    self.answered = True
    session.active = self.worker.monotonic
    if not self.handed:             # whose message Python may be reading
        session.input_bytes -= self.message_room - INLINE_BYTES
        call_drop_message(self)
    call_unwait(self)
    if not self.ended:
        session.unended += 1
    if not session.is_dirty:
        session.is_dirty = True
        session.dirty_next = self.worker.dirty
        self.worker.dirty = session


cdef inline ssize_t call_read(
    nghttp2_session* http, int32_t stream, uint8_t* at, size_t room, uint32_t* flags, nghttp2_data_source* source, void* session
) noexcept nogil:
    """Give libnghttp2 what it asks for of the answer; the trailers follow the last of it."""
    cdef call_t* self = <call_t*>source.ptr
    cdef size_t size = min(room, self.answer_size - self.answer_sent)
    cdef nghttp2_nv trailer
    memcpy(at, self.answer + self.answer_sent, size)
    self.answer_sent += size
    (<session_t*>session).output_bytes -= size
    (<session_t*>session).fetched = self.worker.monotonic
    if self.answer_sent == self.answer_size:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        trailer = fixed_header("grpc-status", 11, "0", 1)
        nghttp2_submit_trailer(http, stream, &trailer, 1)
    return <ssize_t>size


cdef inline void call_answer(call_t* self) noexcept nogil:
    """Send the answer that it has."""
    cdef nghttp2_nv headers[2]
    cdef nghttp2_data_provider provider
    headers[0] = fixed_header(":status", 7, "200", 3)
    headers[1] = fixed_header("content-type", 12, "application/grpc", 16)
    provider.source.ptr = self
    provider.read_callback = call_read
    self.sending = True
    if self.session.output_bytes == 0:
        self.session.fetched = self.worker.monotonic
    self.session.output_bytes += self.answer_size
    call_settled(self)
    call_count(self, OK)
    nghttp2_submit_response(self.session.http, self.stream, &headers[0], 2, &provider)


cdef inline size_t percent_encode(const char* text, size_t size, char* at) noexcept nogil:
    """As gRPC wants a status text: printable ASCII but `%`, all else as %XX. At most GRPC_MESSAGE_BYTES_MAX."""
    cdef size_t i, end = 0
    cdef uint8_t byte
    for i in range(size):
        byte = <uint8_t>text[i]
        if end + 3 > GRPC_MESSAGE_BYTES_MAX:
            break
        if 0x20 <= byte <= 0x7e and byte != 0x25:
            at[end] = <char>byte
            end += 1
        else:
            at[end], at[end + 1], at[end + 2] = 0x25, HEX_DIGITS[byte >> 4], HEX_DIGITS[byte & 15]
            end += 3
    return end


cdef inline void call_fail(call_t* self, int status, const char* text, size_t size) noexcept nogil:
    """Answer with a status alone."""
    cdef nghttp2_nv headers[5]
    cdef char encoded[GRPC_MESSAGE_BYTES_MAX]
    cdef int count = 3
    if self.answered:
        return
    headers[0] = fixed_header(":status", 7, "200", 3)
    headers[1] = fixed_header("content-type", 12, "application/grpc", 16)
    headers[2] = fixed_header("grpc-status", 11, STATUS_TEXTS[status], strlen(STATUS_TEXTS[status]))
    if size:
        headers[count] = header("grpc-message", 12, &encoded[0], percent_encode(text, size, &encoded[0]), NGHTTP2_NV_FLAG_NONE)
        count += 1
    if self.encoded and status == UNIMPLEMENTED:
        headers[count] = fixed_header("grpc-accept-encoding", 20, "identity, deflate, gzip", 23)
        count += 1
    call_settled(self)
    call_count(self, status)
    nghttp2_submit_response(self.session.http, self.stream, &headers[0], count, NULL)


cdef inline void call_refuse(call_t* self, int status, const char* text) noexcept nogil:
    call_fail(self, status, text, strlen(text))


cdef inline void call_turn_away(call_t* self, const char* http_status) noexcept nogil:
    """Answer what is no gRPC by HTTP's means."""
    cdef nghttp2_nv status = fixed_header(":status", 7, http_status, 3)
    if self.answered:
        return
    call_settled(self)
    call_count(self, INTERNAL)
    nghttp2_submit_response(self.session.http, self.stream, &status, 1, NULL)


cdef inline bint call_take_answer(call_t* self, const uint8_t* made, size_t size) noexcept nogil:
    """Keep an answer of `size` bytes, room for its prefix among them; false without memory."""
    cdef uint8_t* at = self.answer
    if size > ANSWER_BYTES:
        at = <uint8_t*>malloc(size)
        if at == NULL:
            return False
    memcpy(at + PREFIX_BYTES, made + PREFIX_BYTES, size - PREFIX_BYTES)
    self.answer, self.answer_size = at, size
    call_prefix(self)
    return True


cdef inline void call_prefix(call_t* self) noexcept nogil:
    """Write gRPC's prefix of an answer."""
    cdef uint8_t* at = self.answer
    cdef size_t size = self.answer_size - PREFIX_BYTES
    at[0] = 0
    at[1], at[2], at[3], at[4] = size >> 24 & 0xff, size >> 16 & 0xff, size >> 8 & 0xff, size & 0xff


# ---- Receiving ----

cdef inline void call_room(call_t* self) noexcept nogil:
    """The message's length is known: see that it may come."""
    cdef uint8_t* prefix = &self.prefix[0]
    self.message_size = <uint32_t>prefix[1] << 24 | <uint32_t>prefix[2] << 16 | <uint32_t>prefix[3] << 8 | prefix[4]
    if prefix[0] > 1:
        call_refuse(self, INTERNAL, "Invalid gRPC frame flag")
    elif prefix[0] == 1 and not self.encoded:
        call_refuse(self, INTERNAL, "Compressed message without grpc-encoding")
    elif self.message_size > self.worker.front.limits.message_bytes_max:
        call_refuse(self, RESOURCE_EXHAUSTED, "The message is longer than message_bytes_max")
    self.compressed = prefix[0] == 1


cdef inline bint call_grow(call_t* self, uint32_t size) noexcept nogil:
    """Have room for `size` bytes of the message; false if there is none."""
    cdef uint32_t room = min(max(2 * self.message_room, size), self.message_size)
    cdef bint short = self.message == &self.short_message[0]
    cdef uint8_t* at
    cdef session_t* session = self.session
    if session.input_bytes + (room - self.message_room) > self.worker.front.limits.input_bytes_max:
        return False
    at = <uint8_t*>realloc(NULL if short else self.message, room)
    if at == NULL:
        return False
    if short:
        memcpy(at, self.message, self.message_have)
    session.input_bytes += room - self.message_room
    self.message, self.message_room = at, room
    return True


cdef inline void call_receive(call_t* self, const uint8_t* at, size_t size) noexcept nogil:
    """Take bytes of the stream, however they are cut."""
    cdef uint32_t part
    while size and not self.answered:
        if self.prefix_size < PREFIX_BYTES:
            self.prefix[self.prefix_size] = at[0]
            self.prefix_size += 1
            at += 1
            size -= 1
            if self.prefix_size == PREFIX_BYTES:
                call_room(self)
            continue
        part = <uint32_t>min(size, <size_t>(self.message_size - self.message_have))
        if part == 0:
            call_refuse(self, INTERNAL, "More than one message in a unary call")
            return
        if self.message_have + part > self.message_room and not call_grow(self, self.message_have + part):
            call_refuse(self, RESOURCE_EXHAUSTED, "More is arriving on this connection than input_bytes_max")
            return
        memcpy(self.message + self.message_have, at, part)
        self.message_have += part
        at += part
        size -= part
