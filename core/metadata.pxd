# cython: cdivision=True
"""Metadata: what a call's headers ask for, and whether it may have that.

Headers come one by one; what is wrong with one is kept until all are there, so that a call is refused once, and for the first reason in
gRPC's order: the protocol, the method, the encoding, who asks.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from buffer cimport buffer_put
from call cimport (
    INTERNAL, PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED, call_refuse, call_turn_away, call_wait,
)
from front cimport PYTHON, ROLE_NONE, call_t, front_t, tokens_t, worker_t
from siphash cimport siphash
from traced cimport TRACEPARENT_BYTES, is_sampled

cdef extern from *:
    """
    #define MS 1000000LL
    #define NS_PER_SECOND 1000000000LL
    #define NS_FOREVER 4000000000000000000LL
    """
    const int64_t MS
    const int64_t NS_PER_SECOND
    const int64_t NS_FOREVER


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
    elif is_text(name, name_size, "traceparent", 11) and worker.traces.at != NULL and is_sampled(value, value_size):
        self.traced = True
        memcpy(&self.trace_parent[0], value, TRACEPARENT_BYTES)
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
