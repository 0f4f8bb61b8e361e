# cython: cdivision=True
"""Admissions: what a record remembers of an admitted request that bore an id.

It makes a retry an answer instead of a second charge, and lets Settle correct what was charged: per limit the slot, the
micro-units and the moment, with the weight frozen, so that a refund can go back where it came from or nowhere. One block of
memory each:

    admission_t | drawn_t, one per limit and part | moved_t, one per pool and part | id, padded to 8 bytes

`until` says how long it stands: an open hold's end; then, closed, the moment of closing (settled, or past its hold), or that of admission where
there was no hold. It is remembered for REMEMBER_US longer. A hold needs nobody to close it: past `until` it simply is.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from names cimport name_t

cdef enum:
    REMEMBER_S = 120                # past `until`; retries of a client that waits are over by then
    ID_BYTES_MAX = 256

cdef extern from *:
    """
    #define REMEMBER_US 120000000LL
    """
    const int64_t REMEMBER_US

cdef enum admission_flag_t:
    HELD = 1                        # a hold was opened
    SETTLED = 2
    LATE = 4                        # it was settled when its hold had closed, or without one
    CALL = 8                        # of a prompt
    JOINED = 16                     # that prompt has other calls: what it paid is not given back
    PROMPTED = 32                   # it bore a prompt's id, call or not

cdef enum part_t:                   # what a movement belongs to
    UNUSED = 0                      # space that a settlement did not need
    OWN = 1                         # the request's own draws
    FOLDED = 2                      # its share of the prompt
    TOPPED = 3                      # charged on top by the settlement
    REFUNDED = 4                    # given back by it

cdef struct drawn_t:                # what one limit was charged at admission
    uint32_t key                    # of its slot
    uint16_t pool                   # label
    uint8_t part                    # OWN or FOLDED
    int64_t micro
    int64_t end                     # cycle, period: the end it had right after the charge

cdef struct moved_t:                # what one pool was charged, or got back
    int64_t micro
    uint16_t pool                   # label
    uint8_t part

cdef struct admission_t:
    int64_t admitted_at
    int64_t until
    int64_t hold_until              # meaningful if HELD
    uint64_t id_hash
    uint64_t fingerprint            # of the request
    uint64_t settlement             # of the Settle that closed it
    int32_t weight_num
    int32_t weight_den
    uint32_t version                # of the catalog that decided
    uint32_t number                 # order of admission in this record
    uint32_t prompt                 # number of the prompt it is a call of; 0: none
    uint16_t plan                   # labels
    uint16_t model
    uint16_t tool
    uint16_t id_size
    uint16_t room                   # bytes of the block
    uint8_t drawn_count
    uint8_t moved_count
    uint8_t flags

cdef enum:
    SPARES_MAX = 32
    SPARE_BYTES_MIN = 256           # a block is at least so large, so that nearly any can take the place of any other

cdef struct spares_t:               # blocks that were let go, the ledger's: the next admission has one that is still in the cache
    int count
    admission_t* at[SPARES_MAX]


cdef inline drawn_t* admission_drawn(const admission_t* self) noexcept nogil:
    return <drawn_t*>(<uint8_t*>self + sizeof(admission_t))


cdef inline moved_t* admission_moved(const admission_t* self) noexcept nogil:
    return <moved_t*>(<uint8_t*>self + sizeof(admission_t) + self.drawn_count * sizeof(drawn_t))


cdef inline uint8_t* admission_id(const admission_t* self) noexcept nogil:
    return <uint8_t*>(admission_moved(self) + self.moved_count)


cdef inline admission_t* admission_block(size_t size, spares_t* spares) noexcept nogil:
    """At least so many bytes, a spare block's if one will do; NULL without memory."""
    cdef admission_t* self
    cdef size_t room = max((size + 31) & ~<size_t>31, <size_t>SPARE_BYTES_MIN)
    if spares != NULL and spares.count and spares.at[spares.count - 1].room >= size:
        spares.count -= 1
        return spares.at[spares.count]
    self = <admission_t*>malloc(room)
    if self != NULL:
        self.room = <uint16_t>room
    return self


cdef inline admission_t* admission_new(name_t id, uint64_t id_hash, int drawn_count, int moved_count, spares_t* spares) noexcept nogil:
    """With its id, zeroed but for the parts; NULL without memory. Owned by the caller."""
    cdef size_t size = sizeof(admission_t) + drawn_count * sizeof(drawn_t) + moved_count * sizeof(moved_t)
    cdef admission_t* self = admission_block(size + id.size, spares)
    cdef uint16_t room
    if self == NULL:
        return NULL
    room = self.room
    memset(self, 0, sizeof(admission_t))
    self.room = room
    self.id_hash = id_hash
    self.drawn_count = <uint8_t>drawn_count
    self.moved_count = <uint8_t>moved_count
    self.id_size = <uint16_t>id.size
    memcpy(admission_id(self), id.at, id.size)
    return self


cdef inline void admission_release(admission_t* self, spares_t* spares) noexcept nogil:
    """Let go of a block."""
    if self == NULL or spares == NULL or spares.count == SPARES_MAX:
        free(self)
        return
    spares.at[spares.count] = self
    spares.count += 1


cdef inline admission_t* admission_copy(const admission_t* self) noexcept nogil:
    """A copy, the caller's; NULL without memory."""
    cdef size_t size = <size_t>(admission_id(self) - <const uint8_t*>self) + self.id_size
    cdef admission_t* copy = <admission_t*>malloc(size)
    if copy != NULL:
        memcpy(copy, self, size)
    return copy


cdef inline bint admission_is(const admission_t* self, name_t id, uint64_t id_hash) noexcept nogil:
    return self.id_hash == id_hash and self.id_size == id.size and memcmp(admission_id(self), id.at, id.size) == 0


cdef inline bint admission_open(const admission_t* self, int64_t now) noexcept nogil:
    """Whether its hold is open: neither settled nor past."""
    return self.flags & HELD and not self.flags & SETTLED and now < self.until


cdef inline bint admission_forgotten(const admission_t* self, int64_t now) noexcept nogil:
    return now > self.until + REMEMBER_US


cdef inline bint admission_outlives(const admission_t* self, const admission_t* other) noexcept nogil:
    """Whether `other` is to be forgotten before this one."""
    if self.until != other.until:
        return self.until > other.until
    if self.admitted_at != other.admitted_at:
        return self.admitted_at > other.admitted_at
    return <int32_t>(self.number - other.number) > 0
