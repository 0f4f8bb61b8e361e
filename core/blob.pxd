# cython: cdivision=True
"""Blobs: a record as bytes, to be kept outside of the process.

    u64 tag | u8 schema | varint seen_at, subscribed_at, expires_at (0 = no end) | u8 period | name catalog | name plan
    | sections | u64 checksum

    name     varint length, bytes                      section  u8 kind, varint length, payload
    sliding  name id, varint count, then per entry varint time since the one before, varint micro-units
    others   name id, varint used, varint end

Names stand in full, since the numbers they have in one process mean nothing in another. A section whose kind this version does
not know is carried along untouched. The tag is the writer's, random, for compare-and-swap. The checksum covers everything
before it and the account's id, so that a flipped bit and another account's blob are noticed alike. Whatever does not decode to the last byte
is an error, never an empty record.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from amounts cimport amount_add
from log cimport ENTRIES_MAX_MAX, entry_t
from siphash cimport siphash

cdef enum:
    BLOB_SCHEMA = 1
    BLOB_BYTES_MIN = 8 + 1 + 3 + 1 + 2 + 8
    VARINT_BYTES_MAX = 10

cdef struct writer_t:               # a span to fill; `at` NULL: only count
    uint8_t* at
    uint64_t size

cdef struct reader_t:               # a span to read; `bad` once anything did not fit
    const uint8_t* at
    const uint8_t* end
    bint bad


cdef inline uint64_t blob_checksum(const uint8_t* id, uint32_t id_size, const uint8_t* at, uint64_t size) noexcept nogil:
    return siphash(siphash(0, 0, id, id_size), id_size, at, size)


cdef inline void write_bytes(writer_t* self, const void* at, uint64_t size) noexcept nogil:
    if self.at != NULL:
        memcpy(self.at + self.size, at, size)
    self.size += size


cdef inline void write_byte(writer_t* self, uint8_t value) noexcept nogil:
    write_bytes(self, &value, 1)


cdef inline void write_varint(writer_t* self, uint64_t value) noexcept nogil:
    while value >= 128:
        write_byte(self, <uint8_t>(value & 127) | 128)
        value >>= 7
    write_byte(self, <uint8_t>value)


cdef inline void write_log(writer_t* self, const entry_t* log, int count) noexcept nogil:
    cdef int64_t before = 0
    cdef int i
    write_varint(self, count)
    for i in range(count):
        write_varint(self, log[i].time - before)
        write_varint(self, log[i].micro)
        before = log[i].time


cdef inline uint64_t read_u64(reader_t* self) noexcept nogil:
    cdef uint64_t value = 0
    if self.end - self.at < 8:
        self.bad = True
        return 0
    memcpy(&value, self.at, 8)
    self.at += 8
    return value


cdef inline uint8_t read_byte(reader_t* self) noexcept nogil:
    if self.at == self.end:
        self.bad = True
        return 0
    self.at += 1
    return (self.at - 1)[0]


cdef inline int64_t read_varint(reader_t* self) noexcept nogil:
    """A number from 0 to 2^63 - 1."""
    cdef uint64_t value = 0
    cdef uint8_t byte
    cdef int i
    for i in range(VARINT_BYTES_MAX - 1):
        byte = read_byte(self)
        value |= <uint64_t>(byte & 127) << (7 * i)
        if byte < 128:
            return <int64_t>value
    self.bad = True
    return 0


cdef inline reader_t read_span(reader_t* self, uint64_t size) noexcept nogil:
    """The next `size` bytes as a span of their own; an empty one if there are not as many."""
    cdef reader_t span
    span.bad = False
    if <uint64_t>(self.end - self.at) < size:
        self.bad = True
        size = 0
    span.at = self.at
    self.at += size
    span.end = self.at
    return span


cdef inline int read_log(reader_t* self, entry_t* log, int64_t* used) noexcept nogil:
    """Entries into `log`, which has room for ENTRIES_MAX_MAX, and their sum; how many. Times must ascend."""
    cdef int64_t count = read_varint(self)
    cdef int64_t time = 0, since
    cdef int i
    used[0] = 0
    if count > ENTRIES_MAX_MAX:
        self.bad = True
        count = 0
    for i in range(<int>count):
        since = read_varint(self)
        log[i].micro = read_varint(self)
        if self.bad or since == 0 or since > INT64_MAX - time:
            self.bad = True
            return 0
        time += since
        log[i].time = time
        used[0] = amount_add(used[0], log[i].micro)
    return <int>count
