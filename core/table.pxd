# cython: cdivision=True
"""The table: account id -> record.

A chunk is one cache line: seven tags (a byte of the hash each, 0 = free), a count of ids that wanted this chunk and had to go on to a later
one, and seven pointers to records. A look-up compares all tags of a chunk at once and follows a pointer only where one matches; it
goes on to the next chunk only if something once overflowed here. So a hit costs two cache misses, chunk and record.

The chunk an id belongs to is given by the highest bits of its hash: doubling the table splits each chunk in two, and the order of
chunks is the order of hashes, which is what lets ListAccounts page through a table that grows meanwhile.

Growth is paid in small coins: a doubled table starts empty, every insert moves one chunk of the old one over, and until that is
done both are looked at. New pages are touched as they are filled, never all at once.

Invariants: a record is in exactly one place; `overflow` of a chunk is at least the number of records stored past it on their
way from their home (255 sticks); while `old` exists its chunks below `moved` are empty.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from amounts cimport ctz
from record cimport record_id, record_t
from side cimport PREFETCH

cdef extern from *:
    """
    #define TAG_ONES 0x0001010101010101ULL      /* one in each of the seven tags; the eighth byte is `overflow` */
    #define TAG_HIGHS 0x0080808080808080ULL
    """
    const uint64_t TAG_ONES
    const uint64_t TAG_HIGHS

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void*, size_t, int, int, int, long)
    int munmap(void*, size_t)
    int madvise(void*, size_t, int)
    const int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MADV_HUGEPAGE
    void* MAP_FAILED

cdef enum:
    PAGE_BYTES = 2097152            # of a huge page
    CHUNK_RECORDS = 7
    CHUNK_BYTES = 64
    BITS_MIN = 4                    # of the first table: 16 chunks
    FULL_PERCENT = 80               # from here on it grows

cdef struct chunk_t:                # 64 bytes
    uint8_t tags[7]
    uint8_t overflow
    record_t* records[7]

cdef struct chunks_t:
    int bits                        # 2^bits chunks; 0: none
    void* block                     # what was mapped; `at` is aligned within it
    chunk_t* at

cdef struct table_t:
    chunks_t new
    chunks_t old                    # being moved over, or none
    uint64_t moved                  # chunks of `old` that have been
    uint64_t count


cdef inline uint8_t hash_tag(uint64_t hash) noexcept nogil:
    return <uint8_t>(hash & 127) | 128


cdef inline uint64_t chunk_home(const chunks_t* self, uint64_t hash) noexcept nogil:
    return hash >> (64 - self.bits)


cdef inline uint64_t chunk_match(const chunk_t* chunk, uint8_t tag) noexcept nogil:
    """A bit in every byte whose tag may match (never misses one; may err just above one that does)."""
    cdef uint64_t word
    memcpy(&word, chunk.tags, 8)
    word ^= TAG_ONES * tag
    return (word - TAG_ONES) & ~word & TAG_HIGHS


cdef inline uint64_t chunks_bytes(int bits) noexcept nogil:
    """Address space for 2^bits chunks, with a page to align them in."""
    return ((<uint64_t>1) << bits) * CHUNK_BYTES + PAGE_BYTES


cdef inline bint chunks_init(chunks_t* self, int bits) noexcept nogil:
    """Map empty chunks. The kernel is asked for pages of 2 MB: a fault and a TLB entry for 32,768 chunks and not for 64."""
    cdef uint64_t bytes = chunks_bytes(bits)
    cdef void* block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if block == MAP_FAILED:
        return False
    self.block = block
    self.bits = bits
    self.at = <chunk_t*>((<uint64_t>block + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1))
    if bytes >= 2 * PAGE_BYTES:
        madvise(self.at, bytes - PAGE_BYTES, MADV_HUGEPAGE)     # where it is refused small pages do
    return True


cdef inline void chunks_free(chunks_t* self) noexcept nogil:
    munmap(self.block, chunks_bytes(self.bits))
    self.block = NULL
    self.at = NULL
    self.bits = 0


cdef inline record_t** chunks_find(const chunks_t* self, const uint8_t* id, uint32_t size, uint64_t hash) noexcept nogil:
    """Where the record's pointer is kept, or NULL."""
    cdef uint64_t mask = ((<uint64_t>1) << self.bits) - 1
    cdef uint64_t i = chunk_home(self, hash)
    cdef uint64_t matches
    cdef chunk_t* chunk
    cdef record_t* record
    cdef int slot
    while True:
        chunk = &self.at[i]
        matches = chunk_match(chunk, hash_tag(hash))
        while matches:
            slot = ctz(matches) >> 3
            record = chunk.records[slot]
            if (
                chunk.tags[slot] == hash_tag(hash) and record.hash == hash and record.id_size == size
                and memcmp(record_id(record), id, size) == 0
            ):
                return &chunk.records[slot]
            matches &= matches - 1
        if chunk.overflow == 0:
            return NULL
        i = (i + 1) & mask


cdef inline void chunks_add(chunks_t* self, record_t* record) noexcept nogil:
    """Store a record that is not there yet. There must be a free place."""
    cdef uint64_t mask = ((<uint64_t>1) << self.bits) - 1
    cdef uint64_t i = chunk_home(self, record.hash)
    cdef uint64_t frees
    cdef chunk_t* chunk
    while True:
        chunk = &self.at[i]
        frees = chunk_match(chunk, 0)
        if frees:
            chunk.tags[ctz(frees) >> 3] = hash_tag(record.hash)
            chunk.records[ctz(frees) >> 3] = record
            return
        if chunk.overflow < 255:
            chunk.overflow += 1
        i = (i + 1) & mask


cdef inline bint chunks_remove(chunks_t* self, record_t** where) noexcept nogil:
    """Forget the record that `where`, from chunks_find on these chunks, points at; false if it is not one of theirs."""
    cdef uint64_t mask = ((<uint64_t>1) << self.bits) - 1
    cdef uint64_t place = (<uint64_t>where - <uint64_t>self.at) // CHUNK_BYTES
    cdef uint64_t i
    if self.bits == 0 or <uint64_t>where < <uint64_t>self.at or place > mask:
        return False
    i = chunk_home(self, where[0].hash)
    while i != place:
        if self.at[i].overflow < 255:
            self.at[i].overflow -= 1
        i = (i + 1) & mask
    self.at[place].tags[where - self.at[place].records] = 0
    return True


cdef inline bint table_init(table_t* self) noexcept nogil:
    self.old.block = NULL
    self.old.bits = 0
    self.moved = self.count = 0
    return chunks_init(&self.new, BITS_MIN)


cdef inline void table_move(table_t* self) noexcept nogil:
    """Move one chunk of the old table over, and fetch the next one's records for the next time."""
    cdef chunk_t* chunk = &self.old.at[self.moved]
    cdef int slot
    for slot in range(CHUNK_RECORDS):
        if chunk.tags[slot]:
            chunk.tags[slot] = 0
            chunks_add(&self.new, chunk.records[slot])
    self.moved += 1
    if self.moved >> self.old.bits:
        chunks_free(&self.old)
        return
    for slot in range(CHUNK_RECORDS):
        if chunk[1].tags[slot]:
            PREFETCH(chunk[1].records[slot])


cdef inline record_t** table_find(table_t* self, const uint8_t* id, uint32_t size, uint64_t hash) noexcept nogil:
    """Where the record of that id is kept (valid until the next insert or removal), or NULL."""
    cdef record_t** where = chunks_find(&self.new, id, size, hash)
    if where == NULL and self.old.bits:
        where = chunks_find(&self.old, id, size, hash)
    return where


cdef inline bint table_add(table_t* self, record_t* record) noexcept nogil:
    """Store a record whose id is not there yet; false without memory, and nothing is changed."""
    cdef chunks_t grown
    if self.old.bits:
        table_move(self)
    elif (self.count + 1) * 100 > ((<uint64_t>1) << self.new.bits) * CHUNK_RECORDS * FULL_PERCENT:
        if not chunks_init(&grown, self.new.bits + 1):
            return False
        self.old = self.new
        self.new = grown
        self.moved = 0
    chunks_add(&self.new, record)
    self.count += 1
    return True


cdef inline void table_remove(table_t* self, record_t** where) noexcept nogil:
    """Forget the record at `where`, which table_find has given. The record itself stays the caller's."""
    if not chunks_remove(&self.new, where):
        chunks_remove(&self.old, where)
    self.count -= 1


cdef inline void table_prefetch(const table_t* self, uint64_t hash) noexcept nogil:
    PREFETCH(&self.new.at[chunk_home(&self.new, hash)])


cdef inline const record_t* table_probable(const table_t* self, uint64_t hash) noexcept nogil:
    """The record that a hash probably belongs to, judged by its chunk alone, or NULL."""
    cdef const chunk_t* chunk = &self.new.at[chunk_home(&self.new, hash)]
    cdef uint64_t matches = chunk_match(chunk, hash_tag(hash))
    return chunk.records[ctz(matches) >> 3] if matches else NULL


cdef inline void record_prefetch(const record_t* record, uint32_t start, uint32_t end) noexcept nogil:
    """Have the processor fetch these bytes of a record."""
    while start < end:
        PREFETCH(<const uint8_t*>record + start)
        start += CHUNK_BYTES
