# cython: cdivision=True
"""Census: how many holds, prompts and request ids all accounts have, counted one account after the other.

Holds close, prompts end and ids are forgotten by the time alone, without anybody who could keep a count; so whoever wants one asks everybody.
It is taken in steps, some chunks of the table in one hold of the mutex. Steps are ranges of hashes, which an account never leaves: none is
counted twice, though the table grows meanwhile.
"""
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t

from admission cimport admission_forgotten
from prompt cimport prompt_open
from record cimport DELETED, record_t
from rules cimport in_force_t, plan_t, rules_plan
from side cimport PREFETCH, known_t, side_holds_open, side_t
from table cimport CHUNK_RECORDS, chunk_home, chunk_t, chunks_t

cdef enum:
    CHUNKS_AT_ONCE = 64             # of the table, in one hold of the mutex: some 300 accounts, 5 us

cdef struct census_t:
    uint64_t holds
    uint64_t prompts
    uint64_t request_ids            # those of open holds among them


cdef inline uint64_t census_end(const chunks_t* chunks, uint64_t start) noexcept nogil:
    """The last hash of a step that begins at `start`."""
    cdef uint64_t i = chunk_home(chunks, start) + CHUNKS_AT_ONCE
    return UINT64_MAX if i >= (<uint64_t>1) << chunks.bits else (i << (64 - chunks.bits)) - 1


cdef inline uint64_t known_remembered(const known_t* self, int64_t now) noexcept nogil:
    cdef uint64_t count = 0
    cdef int i
    for i in range(self.first, self.first + self.count):
        count += not admission_forgotten(self.at[i], now)
    return count


cdef inline void census_side(census_t* self, const side_t* side, const plan_t* plan, int64_t now) noexcept nogil:
    cdef int i
    self.holds += side_holds_open(side, now)
    self.request_ids += known_remembered(&side.holds, now) + known_remembered(&side.ids, now)
    for i in range(side.prompt_count):
        self.prompts += prompt_open(&side.prompts[i], plan, now)


cdef inline void census_take(
    census_t* self, const chunks_t* chunks, const in_force_t* in_force, uint64_t start, uint64_t end, int64_t now
) noexcept nogil:
    """Count the accounts whose hash is in the range; `in_force` are the catalogs by their number. With the mutex held."""
    cdef uint64_t mask = ((<uint64_t>1) << chunks.bits) - 1
    cdef uint64_t first = chunk_home(chunks, start), last = chunk_home(chunks, end), i = first
    cdef const chunk_t* chunk
    cdef const record_t* record
    cdef bint runs_over = False     # into the next chunk
    cdef int slot
    while i <= last or (runs_over and i - first <= mask):   # a small table's last chunk may run over into one that has been seen
        chunk = &chunks.at[i & mask]
        for slot in range(CHUNK_RECORDS):
            PREFETCH(chunks.at[(i + 1) & mask].records[slot])
        for slot in range(CHUNK_RECORDS):
            record = chunk.records[slot]
            if chunk.tags[slot] and start <= record.hash <= end and record.side != NULL and not record.flags & DELETED:
                census_side(self, record.side, rules_plan(in_force[record.catalog].rules, record.plan), max(now, record.seen_at))
        runs_over = chunk.overflow != 0
        i += 1
