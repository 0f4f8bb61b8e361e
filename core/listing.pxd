# cython: cdivision=True
"""Listing: accounts copied out of the table, a page at a time, while the mutex is held.

What is copied is a struct, so that no Python object is made under the mutex: making one may run somebody's finalizer, which may
let another thread in, which would wait for the mutex with the GIL in its hands.

Pages follow the order of hashes, which is the table's own: an account stays where it is while the table grows, so a page's end is
simply a hash.
"""
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from admission cimport ID_BYTES_MAX
from record cimport DELETED, record_id, record_t
from side cimport OVERRIDES_MAX, override_t
from table cimport CHUNK_RECORDS, chunk_home, chunk_t, chunks_t

cdef struct account_t:              # an account as it is listed, copied out while the mutex is held
    uint64_t hash
    int64_t subscribed_at
    int64_t expires_at
    uint16_t catalog
    uint16_t plan
    uint16_t id_size
    uint8_t period
    uint8_t id[ID_BYTES_MAX]
    int override_count
    override_t overrides[OVERRIDES_MAX]

cdef struct gathered_t:
    account_t* at
    size_t count
    size_t room


cdef inline void account_copy(account_t* self, const record_t* record) noexcept nogil:
    self.hash = record.hash
    self.subscribed_at = record.subscribed_at
    self.expires_at = record.expires_at
    self.catalog = record.catalog
    self.plan = record.plan
    self.period = record.period
    self.id_size = record.id_size
    memcpy(self.id, record_id(record), record.id_size)
    self.override_count = record.side.override_count if record.side != NULL else 0
    if self.override_count:
        memcpy(self.overrides, record.side.overrides, self.override_count * sizeof(override_t))


cdef inline bint gathered_add(gathered_t* self, const record_t* record) noexcept nogil:
    """Append a record; false without memory."""
    cdef account_t* grown
    if self.count == self.room:
        grown = <account_t*>realloc(self.at, (2 * self.room + 16) * sizeof(account_t))
        if grown == NULL:
            return False
        self.at = grown
        self.room = 2 * self.room + 16
    account_copy(&self.at[self.count], record)
    self.count += 1
    return True


cdef inline uint64_t gather(gathered_t* self, const chunks_t* chunks, uint64_t start, size_t count) noexcept nogil:
    """Append at least `count` records of hash `start` and above, if there are as many; up to which hash they are complete.

    The first chunks are seen twice where the last one ran over into them. 0 without memory.
    """
    cdef uint64_t size = (<uint64_t>1) << chunks.bits
    cdef uint64_t i = chunk_home(chunks, start)
    cdef size_t enough = self.count + count
    cdef const chunk_t* chunk
    cdef int slot
    while True:
        chunk = &chunks.at[i & (size - 1)]
        for slot in range(CHUNK_RECORDS):
            if (
                chunk.tags[slot] and chunk.records[slot].hash >= start and not chunk.records[slot].flags & DELETED
                and not gathered_add(self, chunk.records[slot])
            ):
                return 0
        # Where nothing went on to a later chunk, everything that belongs here or before has been seen.
        if chunk.overflow == 0 and i + 1 >= size:
            return UINT64_MAX
        if chunk.overflow == 0 and self.count >= enough:
            return ((i + 1) << (64 - chunks.bits)) - 1
        i += 1
