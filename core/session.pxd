# cython: cdivision=True
"""Sessions: one connection's HTTP/2, bytes in and bytes out.

libnghttp2 has the protocol: preface, HPACK, stream states, flow control. What gRPC asks beside it is in metadata.pxd, call.pxd and
serving.pxd. What a peer may make us do without a call is bounded: control frames by a bucket that calls refill, header lists by their
size, messages that arrive and answers that are not fetched by bytes. Past a bound the peer gets ENHANCE_YOUR_CALM, or its call an error;
other peers notice nothing.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from buffer cimport buffer_put, buffer_t
from call cimport RESOURCE_EXHAUSTED, call_free, call_leave, call_new, call_receive, call_refuse
from front cimport call_t, front_t, session_t, worker_t
from metadata cimport call_begin, call_header
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
from serving cimport call_end, worker_decide

cdef enum:
    WINDOW_BYTES = 1048576          # of a connection's flow control, and of a stream's: messages are small
    HEADER_OVERHEAD = 32            # of each header in a list's size (RFC 9113, 6.5.2)
    HEADERS_FLOOD = 8               # a list so many times as long as allowed ends the connection

cdef extern from *:
    """
    static const uint8_t NO_OPAQUE[8] = {0};
    """
    const uint8_t* NO_OPAQUE


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
    cdef bint good
    self.heard = self.worker.monotonic
    self.worker.figures.bytes_in += size
    good = nghttp2_session_mem_recv(self.http, at, size) == <ssize_t>size
    worker_decide(self.worker)
    return good


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
