# cython: cdivision=True
"""Buffers: bytes that grow at their end. Without memory a buffer fails once and for all, so that whoever writes asks at the end alone."""
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef struct buffer_t:
    uint8_t* at
    size_t size
    size_t room
    bint failed


cdef inline void buffer_init(buffer_t* self) noexcept nogil:
    self.at, self.size, self.room, self.failed = NULL, 0, 0, False


cdef inline void buffer_free(buffer_t* self) noexcept nogil:
    free(self.at)
    buffer_init(self)


cdef inline bint buffer_grow(buffer_t* self, size_t size) noexcept nogil:
    """Have room for `size` bytes in all; false without memory."""
    cdef size_t room = max(2 * self.room, <size_t>256)
    cdef uint8_t* at
    if self.failed:
        return False
    while room < size:
        room *= 2
    at = <uint8_t*>realloc(self.at, room)
    if at == NULL:
        self.failed = True
        return False
    self.at, self.room = at, room
    return True


cdef inline uint8_t* buffer_reserve(buffer_t* self, size_t more) noexcept nogil:
    """Where the next `more` bytes go; NULL without memory. Whoever writes them adds to `size`."""
    if self.room - self.size < more and not buffer_grow(self, self.size + more):
        return NULL
    return self.at + self.size


cdef inline void buffer_put(buffer_t* self, const void* at, size_t size) noexcept nogil:
    cdef uint8_t* end = buffer_reserve(self, size)
    if end != NULL and size:
        memcpy(end, at, size)
        self.size += size
