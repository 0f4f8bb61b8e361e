# cython: cdivision=True
"""Sessions: one connection's HTTP/2, bytes in and bytes out.

libnghttp2 has the protocol: preface, HPACK, stream states, flow control. What gRPC asks beside it is here and in call.pxd. What a peer
may make us do without a call is bounded: control frames by a bucket that calls refill, header lists by their size, messages that arrive and
answers that are not fetched by bytes. Past a bound the peer gets ENHANCE_YOUR_CALM, or its call an error; other peers notice nothing.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from buffer cimport buffer_put, buffer_reserve, buffer_t
from call cimport (
    DEADLINE_EXCEEDED, INTERNAL, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAUTHENTICATED, UNIMPLEMENTED, call_answer, call_free, call_leave,
    call_new, call_receive, call_refuse, call_take_answer, call_turn_away, call_wait,
)
from front cimport HANDED, HEALTH, PREFIX_BYTES, PYTHON, ROLE_NONE, call_t, front_t, method_t, session_t, tokens_t, worker_t
from health cimport health_read, health_write
from names cimport name_t
from nghttp2 cimport (
    NGHTTP2_DATA, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE, NGHTTP2_FLAG_ACK,
    NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE, NGHTTP2_HCAT_REQUEST, NGHTTP2_HEADERS, NGHTTP2_NO_ERROR, NGHTTP2_PING, NGHTTP2_PRIORITY,
    NGHTTP2_RST_STREAM, NGHTTP2_SETTINGS, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, nghttp2_frame, nghttp2_session, nghttp2_session_callbacks,
    nghttp2_session_callbacks_new, nghttp2_session_callbacks_set_on_begin_headers_callback,
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback, nghttp2_session_callbacks_set_on_frame_recv_callback,
    nghttp2_session_callbacks_set_on_frame_send_callback, nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_del, nghttp2_session_get_last_proc_stream_id,
    nghttp2_session_get_stream_user_data, nghttp2_session_mem_recv, nghttp2_session_mem_send, nghttp2_session_server_new2,
    nghttp2_session_set_local_window_size, nghttp2_session_set_stream_user_data, nghttp2_session_terminate_session,
    nghttp2_session_want_read, nghttp2_session_want_write, nghttp2_settings_entry, nghttp2_submit_goaway, nghttp2_submit_ping,
    nghttp2_submit_rst_stream, nghttp2_submit_settings, nghttp2_submit_shutdown_notice, ssize_t,
)
from siphash cimport siphash
from waiting cimport call_answer_or_park, call_hand
from watermark cimport watermark_failed

cdef enum:
    WINDOW_BYTES = 1048576          # of a connection's flow control, and of a stream's: messages are small
    HEADER_OVERHEAD = 32            # of each header in a list's size (RFC 9113, 6.5.2)
    HEADERS_FLOOD = 8               # a list so many times as long as allowed ends the connection

cdef extern from *:
    """
    static const uint8_t NO_OPAQUE[8] = {0};
    #define MS 1000000LL
    #define NS_PER_SECOND 1000000000LL
    #define NS_FOREVER 4000000000000000000LL
    """
    const uint8_t* NO_OPAQUE
    const int64_t MS
    const int64_t NS_PER_SECOND
    const int64_t NS_FOREVER


# ---- Headers ----

cdef inline bint is_text(const uint8_t* at, size_t size, const char* text, size_t text_size) noexcept nogil:
    return size == text_size and memcmp(at, text, text_size) == 0


cdef inline int method_find(const front_t* front, const uint8_t* path, size_t size) noexcept nogil:
    """Index of the method of that path; `method_count` if none is."""
    cdef int i
    for i in range(front.method_count):
        if front.methods[i].size == size and memcmp(front.methods[i].path, path, size) == 0:
            return i
    return front.method_count


cdef inline bint is_grpc(const uint8_t* at, size_t size) noexcept nogil:
    """application/grpc, also with +proto or parameters."""
    if size < 16 or memcmp(at, <const char*>"application/grpc", 16) != 0:
        return False
    return size == 16 or at[16] == 0x3b or is_text(at + 16, min(size - 16, <size_t>6), "+proto", 6)


cdef inline int64_t timeout_ns(const uint8_t* at, size_t size) noexcept nogil:
    """A grpc-timeout: up to 8 digits and a unit, one of HMSmun. -1 if it is none."""
    cdef int64_t value = 0
    cdef int64_t unit
    cdef size_t i
    if not 2 <= size <= 9:
        return -1
    for i in range(size - 1):
        if not 0x30 <= at[i] <= 0x39:
            return -1
        value = value * 10 + (at[i] - 0x30)
    if at[size - 1] == 0x48:        # H
        unit = 3600 * NS_PER_SECOND
    elif at[size - 1] == 0x4d:      # M
        unit = 60 * NS_PER_SECOND
    elif at[size - 1] == 0x53:      # S
        unit = NS_PER_SECOND
    elif at[size - 1] == 0x6d:      # m
        unit = 1000000
    elif at[size - 1] == 0x75:      # u
        unit = 1000
    elif at[size - 1] == 0x6e:      # n
        unit = 1
    else:
        return -1
    return value * unit if value < NS_FOREVER // unit else NS_FOREVER


cdef inline int token_role(const front_t* front, const uint8_t* at, size_t size) noexcept nogil:
    """What the bearer of an authorization header may do. Found by a keyed hash, so that the time it takes tells nothing of a token."""
    cdef const tokens_t* tokens = front.tokens
    cdef uint64_t hash
    cdef int i
    if size < 7 or not (is_text(at, 7, "Bearer ", 7) or is_text(at, 7, "bearer ", 7)):
        return ROLE_NONE
    at, size = at + 7, size - 7
    hash = siphash(tokens.key[0], tokens.key[1], at, <uint32_t>size)
    for i in range(tokens.count):
        if tokens.at[i].hash == hash and tokens.at[i].size == size and memcmp(tokens.at[i].at, at, size) == 0:
            return tokens.at[i].role
    return ROLE_NONE


cdef inline void call_header(call_t* self, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size) noexcept nogil:
    """Take one header of the request. Refusals are kept until all have come."""
    cdef worker_t* worker = self.worker
    cdef int64_t timeout
    if is_text(name, name_size, ":path", 5):
        self.method = method_find(worker.front, value, value_size)
    elif is_text(name, name_size, ":method", 7):
        self.is_post = is_text(value, value_size, "POST", 4)
    elif is_text(name, name_size, "content-type", 12):
        self.is_grpc = is_grpc(value, value_size)
    elif is_text(name, name_size, "grpc-timeout", 12):
        timeout = timeout_ns(value, value_size)
        if timeout >= 0:
            self.deadline = min(self.arrived, NS_FOREVER) + timeout
        else:
            self.refused, self.refusal = INTERNAL, "Error parsing 'grpc-timeout' metadata"
    elif is_text(name, name_size, "grpc-encoding", 13):
        self.encoded = not is_text(value, value_size, "identity", 8)
        self.gzip = is_text(value, value_size, "gzip", 4)
        if self.encoded and not (self.gzip or is_text(value, value_size, "deflate", 7)):
            self.refused, self.refusal = UNIMPLEMENTED, "This grpc-encoding is not known"
    elif worker.front.tokens != NULL and is_text(name, name_size, "authorization", 13):
        self.role = token_role(worker.front, value, value_size)
    if self.method < worker.front.method_count and worker.front.methods[self.method].kind >= PYTHON and name[0] != 0x3a:
        buffer_put(&self.metadata, name, name_size)
        buffer_put(&self.metadata, <const char*>"\0", 1)
        buffer_put(&self.metadata, value, value_size)
        buffer_put(&self.metadata, <const char*>"\0", 1)


cdef inline void call_begin(call_t* self) noexcept nogil:
    """All headers have come: refuse now what is not going to be served."""
    cdef front_t* front = self.worker.front
    if not self.is_post:
        call_turn_away(self, "405")
    elif not self.is_grpc:
        call_turn_away(self, "415")
    elif self.method == front.method_count:
        call_refuse(self, UNIMPLEMENTED, "Method not found!")
    elif self.refused:
        call_refuse(self, self.refused, self.refusal)
    elif front.tokens == NULL or self.role >= front.methods[self.method].role:
        if self.deadline:
            call_wait(self)         # for the rest of it
    elif self.role == ROLE_NONE:
        call_refuse(self, UNAUTHENTICATED, "authorization: a bearer token that the server knows is needed")
    else:
        call_refuse(self, PERMISSION_DENIED, "authorization: the token's role is read; this method needs write")


# ---- Deciding ----

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
            if call_take_answer(self, out):
                call_answer(self)
            else:
                call_refuse(self, RESOURCE_EXHAUSTED, "Out of memory")
            return True
    return False


cdef inline void call_decide(call_t* self) noexcept nogil:
    """The request is whole: decide it, or have Python do so."""
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
    if served == HANDED and out.size == PREFIX_BYTES:
        call_hand(self)
    elif not call_take_answer(self, out):
        call_refuse(self, RESOURCE_EXHAUSTED, "Out of memory; it may have been charged")
    elif served == HANDED:
        self.ticket = ticket
        call_hand(self)
    else:
        call_answer_or_park(self, ticket)


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
    else:
        call_decide(self)


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
    return True


# ---- What libnghttp2 tells ----

cdef inline bint session_bears(session_t* self) noexcept nogil:
    """Whether one more control frame may pass. Each fills a bucket, which time empties."""
    cdef worker_t* worker = self.worker
    self.control_since = max(self.control_since, worker.monotonic) + worker.front.limits.control_ns
    return self.control_since - worker.monotonic <= worker.front.limits.control_burst_max * worker.front.limits.control_ns


cdef inline int session_calm(session_t* self) noexcept nogil:
    """What a callback returns to end the connection: nothing more that was read of it is looked at, and a GOAWAY says why."""
    self.worker.figures.sessions_calmed += 1
    nghttp2_session_terminate_session(self.http, NGHTTP2_ENHANCE_YOUR_CALM)
    return NGHTTP2_ERR_CALLBACK_FAILURE


cdef inline int on_begin_headers(nghttp2_session* http, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef session_t* self = <session_t*>user
    cdef call_t* call
    if frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        self.current = NULL         # trailers: nothing in them is for us
        return 0
    call = call_new(self, frame.hd.stream_id)
    if call == NULL:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    self.current = call
    self.active = self.worker.monotonic
    nghttp2_session_set_stream_user_data(http, frame.hd.stream_id, call)
    return 0


cdef inline int on_header(
    nghttp2_session* http, const nghttp2_frame* frame, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
    uint8_t flags, void* user,
) noexcept nogil:
    cdef session_t* self = <session_t*>user
    cdef call_t* call = self.current
    cdef uint32_t size_max = self.worker.front.limits.header_bytes_max
    if call == NULL:
        return 0
    call.header_bytes += <uint32_t>(name_size + value_size) + HEADER_OVERHEAD
    if call.header_bytes <= size_max:
        call_header(call, name, name_size, value, value_size)
    elif call.header_bytes > HEADERS_FLOOD * size_max:
        return session_calm(self)
    return 0


cdef inline int on_frame_recv(nghttp2_session* http, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef session_t* self = <session_t*>user
    cdef uint8_t type = frame.hd.type
    cdef call_t* call
    if type == NGHTTP2_HEADERS or type == NGHTTP2_DATA:
        call = self.current
        if call == NULL or call.stream != frame.hd.stream_id:
            call = <call_t*>nghttp2_session_get_stream_user_data(http, frame.hd.stream_id)
        if call == NULL:
            return 0
        if type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
            if call.header_bytes > self.worker.front.limits.header_bytes_max:
                self.worker.figures.headers_refused += 1
                call_refuse(call, RESOURCE_EXHAUSTED, "The header list is longer than header_bytes_max")
            else:
                call_begin(call)
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            call_end(call)
        elif type == NGHTTP2_DATA and frame.hd.length == 0 and not session_bears(self):
            return session_calm(self)
        return 0
    if type == NGHTTP2_SETTINGS:
        self.greeted = True
    if type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        self.pinged = 0
        return 0
    if (type == NGHTTP2_PING or type == NGHTTP2_SETTINGS or type == NGHTTP2_PRIORITY or type == NGHTTP2_RST_STREAM) and not session_bears(self):
        return session_calm(self)
    return 0


cdef inline int on_data_chunk_recv(
    nghttp2_session* http, uint8_t flags, int32_t stream, const uint8_t* at, size_t size, void* user
) noexcept nogil:
    cdef session_t* self = <session_t*>user
    cdef call_t* call = self.current
    if call == NULL or call.stream != stream:
        call = <call_t*>nghttp2_session_get_stream_user_data(http, stream)
        self.current = call
    if call != NULL:
        call_receive(call, at, size)
    return 0


cdef inline int on_frame_send(nghttp2_session* http, const nghttp2_frame* frame, void* user) noexcept nogil:
    """An answer is out before the request was whole: nobody needs the rest of it. Resets that a peer has us send count as its own."""
    cdef session_t* self = <session_t*>user
    cdef call_t* call
    if frame.hd.type == NGHTTP2_RST_STREAM and frame.rst_stream.error_code != NGHTTP2_NO_ERROR and not session_bears(self):
        return session_calm(self)
    if self.unended == 0 or frame.hd.type != NGHTTP2_HEADERS or not frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        return 0
    call = <call_t*>nghttp2_session_get_stream_user_data(http, frame.hd.stream_id)
    if call != NULL and not call.ended:
        nghttp2_submit_rst_stream(http, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef inline int on_stream_close(nghttp2_session* http, int32_t stream, uint32_t error, void* user) noexcept nogil:
    cdef session_t* self = <session_t*>user
    cdef call_t* call = <call_t*>nghttp2_session_get_stream_user_data(http, stream)
    if call != NULL:
        if call.answered and self.control_since > 0:
            self.control_since -= self.worker.front.limits.control_ns       # a call served makes up for a control frame
        call_leave(call)
    return 0


cdef inline nghttp2_session_callbacks* callbacks_new() noexcept nogil:
    cdef nghttp2_session_callbacks* made = NULL
    if nghttp2_session_callbacks_new(&made) == 0:
        nghttp2_session_callbacks_set_on_begin_headers_callback(made, on_begin_headers)
        nghttp2_session_callbacks_set_on_header_callback(made, on_header)
        nghttp2_session_callbacks_set_on_frame_recv_callback(made, on_frame_recv)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, on_data_chunk_recv)
        nghttp2_session_callbacks_set_on_frame_send_callback(made, on_frame_send)
        nghttp2_session_callbacks_set_on_stream_close_callback(made, on_stream_close)
    return made


# ---- For whoever has the connection ----

cdef inline session_t* session_new(worker_t* worker) noexcept nogil:
    """A connection that has just been made; NULL without memory."""
    cdef const front_t* front = worker.front
    cdef session_t* self = <session_t*>calloc(1, sizeof(session_t))
    cdef nghttp2_settings_entry settings[3]
    if self == NULL:
        return NULL
    self.worker = worker
    self.opened = self.active = self.heard = self.fetched = worker.monotonic
    settings[0].settings_id, settings[0].value = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, front.limits.streams_max
    settings[1].settings_id, settings[1].value = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES
    settings[2].settings_id, settings[2].value = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, front.limits.header_bytes_max
    if nghttp2_session_server_new2(&self.http, front.callbacks, self, front.option) != 0:
        free(self)
        return NULL
    if nghttp2_submit_settings(self.http, NGHTTP2_FLAG_NONE, &settings[0], 3) != 0 or \
            nghttp2_session_set_local_window_size(self.http, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES) != 0:
        nghttp2_session_del(self.http)
        free(self)
        return NULL
    worker.figures.sessions_opened += 1
    return self


cdef inline void session_free(session_t* self) noexcept nogil:
    """The connection is gone. It must not be among the dirty ones any more."""
    cdef call_t* call
    while self.calls != NULL:
        call_leave(self.calls)
    while self.deferred_first != NULL:
        call = self.deferred_first
        self.deferred_first = call.queued
        call_free(call)
    nghttp2_session_del(self.http)
    self.worker.figures.sessions_closed += 1
    free(self)


cdef inline bint session_feed(session_t* self, const uint8_t* at, size_t size) noexcept nogil:
    """Take what has arrived; false if the connection is to be closed at once."""
    self.heard = self.worker.monotonic
    self.worker.figures.bytes_in += size
    return nghttp2_session_mem_recv(self.http, at, size) == <ssize_t>size


cdef inline bint session_fetch(session_t* self, buffer_t* out, size_t size_max) noexcept nogil:
    """Add what is to be sent to `out`, until it holds about `size_max`; false if the connection is to be closed."""
    cdef const uint8_t* at
    cdef ssize_t size
    while out.size < size_max:
        size = nghttp2_session_mem_send(self.http, &at)
        if size < 0:
            return False
        if size == 0:
            break
        buffer_put(out, at, <size_t>size)
    return not out.failed


cdef inline bint session_over(session_t* self) noexcept nogil:
    """Whether there is nothing more to read or write."""
    return not nghttp2_session_want_read(self.http) and not nghttp2_session_want_write(self.http)


cdef inline void session_warn(session_t* self) noexcept nogil:
    """First step of leaving: no new streams, please. Those on their way are still served."""
    nghttp2_submit_shutdown_notice(self.http)


cdef inline void session_leave(session_t* self) noexcept nogil:
    """Second step: this was the last stream. The connection ends with the last call."""
    if not self.leaving:
        self.leaving = True
        nghttp2_submit_goaway(
            self.http, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.http), NGHTTP2_NO_ERROR, NULL, 0)


cdef inline void session_ping(session_t* self) noexcept nogil:
    self.pinged = self.worker.monotonic
    nghttp2_submit_ping(self.http, NGHTTP2_FLAG_NONE, NO_OPAQUE)
