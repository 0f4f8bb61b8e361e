"""Fronts as Python sees them: what a server tells its front, and the calls that the front hands to Python."""


cdef enum:
    RESETS_FREE = 1000000000        # libnghttp2's own limit, 33 a second, is out of the way: session.pxd counts what costs us
    ACKS_BEYOND = 1000              # control_frames_max: then libnghttp2 would end what our own count has let pass
    DISK_SECONDS_MAX = 30           # as the store lets its threads wait


cdef int no_service(
    void* service, int method, const uint8_t* at, size_t size, int64_t now, buffer_t* out, uint64_t* ticket, size_t* rest
) noexcept nogil:
    return HANDED


cdef void no_service_all(void* service, asking_t* askings, int count, int64_t now, buffer_t* out) noexcept nogil:
    cdef int i
    for i in range(count):
        askings[i].served = HANDED


@cython.final
cdef class Front:
    """What all loops of one server share. `methods` are (path, kind, role), with kinds and roles as numbers of front.pxd; `settings` has the
    limits, as a quota.settings.Settings. Health knows no service until told."""

    cdef front_t c
    cdef list _kept                 # bytes that C points into
    cdef object _service
    cdef object _watermark
    cdef readonly tuple methods     # paths, by index

    def __cinit__(self):
        self._kept = []
        pthread_mutex_init(&self.c.mutex, NULL)
        pthread_cond_init(&self.c.filled, NULL)
        self.c.callbacks = callbacks_new()
        if self.c.callbacks == NULL or nghttp2_option_new(&self.c.option) != 0:
            raise MemoryError
        nghttp2_option_set_no_closed_streams(self.c.option, 1)
        nghttp2_option_set_stream_reset_rate_limit(self.c.option, RESETS_FREE, RESETS_FREE)

    def __dealloc__(self):
        nghttp2_option_del(self.c.option)
        nghttp2_session_callbacks_del(self.c.callbacks)
        pthread_cond_destroy(&self.c.filled)
        pthread_mutex_destroy(&self.c.mutex)

    def __init__(self, methods, settings, *, Service service=None, Watermark watermark=None):
        cdef int i
        if len(methods) > METHODS_MAX:
            raise ValueError(len(methods))
        self.methods = tuple([path for path, _, _ in methods])
        for i, (path, kind, role) in enumerate(methods):
            self.c.methods[i].path, self.c.methods[i].size = self.keep(path), len(path.encode())
            self.c.methods[i].kind, self.c.methods[i].role = kind, role
        self.c.method_count = <int>len(methods)
        self.take_limits(&self.c.limits, settings)
        nghttp2_option_set_max_outbound_ack(self.c.option, self.c.limits.control_burst_max + ACKS_BEYOND)
        self._service, self._watermark = service, watermark
        self.c.serve, self.c.serve_all = no_service, no_service_all
        if service is not None:
            self.c.serve, self.c.serve_all, self.c.service = service_serve, service_serve_all, <void*>service
        if watermark is not None:
            self.c.watermark = &watermark.c

    cdef int take_limits(self, limits_t* limits, object settings) except -1:
        limits.streams_max = settings.streams_max
        limits.header_bytes_max = settings.header_bytes_max
        limits.message_bytes_max = settings.message_bytes_max
        limits.input_bytes_max = settings.input_bytes_max
        limits.output_bytes_max = settings.output_bytes_max
        limits.handed_max = settings.rpc_pending_max
        limits.waiting_max = settings.waiting_max
        limits.control_burst_max = settings.control_frames_max
        limits.control_ns = MS
        limits.disk_ns_max = DISK_SECONDS_MAX * NS_PER_SECOND
        return 0

    cdef const uint8_t* keep(self, str text):
        """The text as bytes that stay where they are."""
        self._kept.append(text.encode())
        return <const uint8_t*>PyBytes_AS_STRING(self._kept[len(self._kept) - 1])

    def set_health(self, statuses):
        """Say how services are: name -> grpc.health.v1's number. Always the same names, in the same order."""
        cdef int i
        if len(statuses) > HEALTH_MAX:
            raise ValueError(len(statuses))
        for i, (name, status) in enumerate(statuses.items()):
            if i >= self.c.health_count:
                self.c.health[i].name, self.c.health[i].size = self.keep(name), len(name.encode())
                self.c.health_count = i + 1
            self.c.health[i].status = status

    def set_tokens(self, tokens, bytes key not None):
        """Ask every caller for one of (token bytes, role); none at all lets everybody in. `key` is 16 secret random bytes."""
        cdef tokens_t* made = NULL
        cdef int i
        if len(tokens) > TOKENS_MAX:
            raise ValueError(len(tokens))
        if tokens:
            block = bytearray(sizeof(tokens_t))
            self._kept.append(block)
            made = <tokens_t*>PyByteArray_AS_STRING(block)
            made.key[0], made.key[1] = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
            made.count = <int>len(tokens)
            for i, (token, role) in enumerate(tokens):
                self._kept.append(token)
                made.at[i].at, made.at[i].size, made.at[i].role = <const uint8_t*>PyBytes_AS_STRING(token), len(token), role
                made.at[i].hash = siphash(made.key[0], made.key[1], made.at[i].at, made.at[i].size)
        self.c.tokens = made

    def next(self):
        """Wait, without the GIL, for a call that Python is to answer; None once the front is closed and nothing is left."""
        cdef call_t* call
        cdef Handed handed
        with nogil:
            pthread_mutex_lock(&self.c.mutex)
            call = front_take(&self.c)
            while call == NULL and not self.c.closed:
                pthread_cond_wait(&self.c.filled, &self.c.mutex)
                call = front_take(&self.c)
            pthread_mutex_unlock(&self.c.mutex)
        if call == NULL:
            return None
        handed = Handed.__new__(Handed)
        handed._call, handed._front = call, self
        return handed

    def close(self):
        """Hand over no more calls; those who wait for one return."""
        pthread_mutex_lock(&self.c.mutex)
        self.c.closed = True
        pthread_cond_broadcast(&self.c.filled)
        pthread_mutex_unlock(&self.c.mutex)

    @property
    def handed_count(self):
        return self.c.handed_count


cdef tuple metadatum_of(str name, bytes value):
    """A header as gRPC's metadata has it."""
    if name.endswith("-bin"):
        return name, binascii.a2b_base64(value + b"=" * (-len(value) % 4))
    return name, value.decode("latin-1")


@cython.final
cdef class Handed:
    """A call in Python's hands: `answer` it or `fail` it, once."""

    cdef call_t* _call
    cdef Front _front

    def __init__(self):
        raise TypeError("a Front hands them out")

    def __dealloc__(self):
        if self._call != NULL:
            self.give_back(INTERNAL, b"The handler has dropped the call")

    cdef int check(self) except -1:
        if self._call == NULL:
            raise ValueError("the call has its answer")
        return 0

    @property
    def path(self):
        self.check()
        return self._front.methods[self._call.method]

    @property
    def message(self):
        """The bytes that are left for Python: of a batch that was begun, those of the items that come."""
        self.check()
        return self._call.message[self._call.rest:self._call.message_size]

    @property
    def encoding(self):
        """How the message is compressed: `gzip`, `deflate`, or empty."""
        self.check()
        return ("gzip" if self._call.gzip else "deflate") if self._call.compressed else ""

    def peer(self):
        """The caller's address, as `127.0.0.1:51234`."""
        self.check()
        return (<bytes>self._call.peer).decode()

    def time_remaining(self):
        """Seconds until the caller's deadline; None without one."""
        self.check()
        return (self._call.deadline - clock_ns(CLOCK_MONOTONIC)) * 1e-9 if self._call.deadline else None

    def invocation_metadata(self):
        """(name, value) pairs, for methods that are Python's; values of names in `-bin` are bytes."""
        self.check()
        parts = self._call.metadata.at[:self._call.metadata.size].split(b"\0") if self._call.metadata.size else []
        return tuple([metadatum_of(parts[i].decode("ascii"), parts[i + 1]) for i in range(0, len(parts) - 1, 2)])

    def answer(self, bytes message not None):
        """Answer with a message, behind what is there of one."""
        self.check()
        if call_extend_answer(self._call, <const uint8_t*>PyBytes_AS_STRING(message), len(message)):
            self.give_back(0, b"")
        else:
            self.give_back(RESOURCE_EXHAUSTED, b"Out of memory")

    def fail(self, int status, str text not None):
        """Answer with a status of gRPC's, 1 to 16."""
        self.check()
        if not 0 < status < STATUSES:
            raise ValueError(status)
        self.give_back(status, text.encode("utf-8", "replace"))

    cdef void give_back(self, int status, bytes text):
        cdef call_t* call = self._call
        cdef front_t* front = &self._front.c
        cdef worker_t* worker = call.worker
        self._call = NULL
        call.status = status
        buffer_put(&call.status_text, PyBytes_AS_STRING(text), len(text))
        pthread_mutex_lock(&front.mutex)
        front.handed_count -= 1
        pthread_mutex_unlock(&front.mutex)
        worker_post(worker, call)
