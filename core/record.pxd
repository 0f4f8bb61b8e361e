# cython: cdivision=True
"""Records: all that is known of one account, as one block of memory.

    record_t | id, padded to 8 bytes | slots | logs of the sliding slots | sections carried from a blob

One block means one or two cache misses for a decision, and a copy (Peek decides on one) by memcpy: positions inside are offsets, never
pointers. A block is as large as it needs to be. When a slot is added or a log outgrows its room, the record is remade in a new
block and slots that say nothing any more are left out. What most accounts never need (holds, ids, prompts, limits of their own) is at the
record's side, in memory of its own, which goes along when the block is remade and which a copy shares.

Limits and weights are not in it: they are the plan's, so that an upgrade acts at once and keeps what was drawn.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from log cimport ENTRIES_MIN, entry_t
from side cimport override_t, side_free, side_new, side_set_overrides, side_t
from window cimport BUCKET, SLIDING, seen_t, slot_t, sliding_room, window_t
from zone cimport DAY_US, zone_t

cdef enum:
    SLOTS_MAX = 4096
    WINDOW_DAYS_MAX = 367           # no window is longer (the catalog's bound), so older draws count nowhere

cdef struct record_t:               # 56 bytes
    uint64_t hash                   # of its id, by the ledger's key
    side_t* side                    # NULL: none
    int64_t seen_at                 # time of the last change: the account's time never goes back before it
    int64_t subscribed_at
    int64_t expires_at              # NEVER: no end
    uint32_t size                   # of the block
    uint16_t catalog                # which of the ledger's catalogs
    uint16_t plan                   # label of the plan's name
    uint16_t id_size
    uint16_t slot_count
    uint16_t carried_size           # at the end of the block
    uint8_t period                  # index into quota.types.PERIODS
    uint8_t flags                   # and, in the upper half, the era that it was last taken in

cdef enum record_flag_t:
    CHANGED = 1                     # and marked (track.pxd)
    DELETED = 2                     # a tombstone: nobody sees it, but what was drawn is found again if the account is put again
    DEMOTED = 4                     # a stub: header and id, the rest is in the store
    RECENT = 8                      # asked for since the demoting hand last came by
    FLAG_BITS = 4

cdef struct need_t:                 # what a charge needs to find in the record
    uint32_t key
    uint16_t room                   # log entries; 0 where the kind has no log


cdef inline uint32_t padded(uint32_t size) noexcept nogil:
    return (size + 7) & ~<uint32_t>7


cdef inline uint8_t* record_id(const record_t* self) noexcept nogil:
    return <uint8_t*>self + sizeof(record_t)


cdef inline int record_era(const record_t* self) noexcept nogil:
    """In which era of the journal the record was last taken, 1 to 15; 0: not known."""
    return self.flags >> FLAG_BITS


cdef inline void record_taken(record_t* self, int era) noexcept nogil:
    """The record was taken, as it stands."""
    self.flags = <uint8_t>(self.flags & ((1 << FLAG_BITS) - 1) & ~CHANGED | era << FLAG_BITS)


cdef inline slot_t* record_slots(const record_t* self) noexcept nogil:
    return <slot_t*>(<uint8_t*>self + sizeof(record_t) + padded(self.id_size))


cdef inline uint8_t* record_carried(const record_t* self) noexcept nogil:
    return <uint8_t*>self + self.size - padded(self.carried_size)


cdef inline slot_t* record_slot(const record_t* self, uint32_t key) noexcept nogil:
    """The slot of that limit and kind, or NULL."""
    cdef slot_t* slots = record_slots(self)
    cdef int i
    for i in range(self.slot_count):
        if slots[i].key == key:
            return &slots[i]
    return NULL


cdef inline seen_t record_seen(const record_t* self, const zone_t* zone, int64_t now) noexcept nogil:
    """How the account's windows are looked at: its time is the caller's or its last change's, whichever is later."""
    cdef seen_t seen
    seen.zone = zone
    seen.now = max(now, self.seen_at)
    seen.subscribed_at = self.subscribed_at
    return seen


cdef inline slot_t* record_slot_after(const record_t* self, uint32_t key, int* place) noexcept nogil:
    """The same, but looked for from `place` on first, which is then moved past it: slots mostly lie in the order they are asked for."""
    cdef slot_t* slots = record_slots(self)
    cdef slot_t* slot
    if place[0] < self.slot_count and slots[place[0]].key == key:
        place[0] += 1
        return &slots[place[0] - 1]
    slot = record_slot(self, key)
    if slot != NULL:
        place[0] = <int>(slot - slots) + 1
    return slot


cdef inline entry_t* record_log(const record_t* self, const slot_t* slot) noexcept nogil:
    """A sliding slot's log; meaningless for other kinds."""
    return <entry_t*>(<uint8_t*>self + slot.end)


cdef inline record_t* record_new(const uint8_t* id, uint16_t id_size, uint64_t hash, uint16_t carried_size) noexcept nogil:
    """A record without slots, with space for what it carries; NULL without memory. Owned by the caller."""
    cdef uint32_t size = sizeof(record_t) + padded(id_size) + padded(carried_size)
    cdef record_t* self = <record_t*>malloc(size)
    if self == NULL:
        return NULL
    self.hash = hash
    self.side = NULL
    self.seen_at = 0
    self.size = size
    self.id_size = id_size
    self.slot_count = 0
    self.carried_size = carried_size
    self.flags = 0
    memcpy(record_id(self), id, id_size)
    return self


cdef inline void record_free(record_t* self) noexcept nogil:
    """Free it and its side; free() alone is for copies, and for blocks that were remade."""
    if self != NULL:
        side_free(self.side)
    free(self)


cdef inline record_t* record_copy(const record_t* self) noexcept nogil:
    """A copy that shares the side; free() it."""
    cdef record_t* copy = <record_t*>malloc(self.size)
    if copy != NULL:
        memcpy(copy, self, self.size)
    return copy


cdef inline bint slot_says_nothing(const record_t* record, const slot_t* slot, int64_t now) noexcept nogil:
    """Whether the slot counts the same as a missing one from `now` on."""
    if slot.key & 7 == SLIDING:
        return slot.count == 0 or record_log(record, slot)[slot.count - 1].time + WINDOW_DAYS_MAX * DAY_US <= now
    if slot.key & 7 == BUCKET:
        return slot.end < now
    return slot.end <= now


cdef inline const need_t* need_of(const need_t* needs, int count, uint32_t key) noexcept nogil:
    cdef int i
    for i in range(count):
        if needs[i].key == key:
            return &needs[i]
    return NULL


cdef inline uint16_t room_for(uint16_t room, const need_t* need) noexcept nogil:
    """The room a log gets: what it has, or as much more as is needed, by doubling from ENTRIES_MIN."""
    if need == NULL or need.room <= room:
        return room
    room = max(room, <uint16_t>ENTRIES_MIN)
    while room < need.room:
        room *= 2
    return room


cdef inline void record_place(record_t* self, slot_t slot, const entry_t* log, uint16_t room, uint32_t* log_end) noexcept nogil:
    """Append a slot, its log copied to *log_end. The block has been sized for it."""
    slot.room = room
    if slot.key & 7 == SLIDING:
        slot.end = log_end[0]
        if slot.count:
            memcpy(<uint8_t*>self + log_end[0], log, slot.count * sizeof(entry_t))
        log_end[0] += room * sizeof(entry_t)
    record_slots(self)[self.slot_count] = slot
    self.slot_count += 1


cdef inline record_t* record_remake(const record_t* old, const need_t* needs, int count, int64_t now) noexcept nogil:
    """A new block with every slot that still says something and all that is needed; NULL without memory. The old one stays."""
    cdef slot_t* slots = record_slots(old)
    cdef slot_t fresh
    cdef const need_t* need
    cdef uint32_t size = sizeof(record_t) + padded(old.id_size) + padded(old.carried_size)
    cdef uint32_t log_end
    cdef int i, placed = 0
    cdef record_t* self
    for i in range(old.slot_count):
        need = need_of(needs, count, slots[i].key)
        if need != NULL or not slot_says_nothing(old, &slots[i], now):
            placed += 1
            size += room_for(slots[i].room, need) * sizeof(entry_t)
    for i in range(count):
        if record_slot(old, needs[i].key) == NULL:
            placed += 1
            size += room_for(0, &needs[i]) * sizeof(entry_t)
    size += placed * sizeof(slot_t)
    self = <record_t*>malloc(size)
    if self == NULL:
        return NULL
    memcpy(self, old, sizeof(record_t) + padded(old.id_size))
    self.size = size
    self.slot_count = 0
    log_end = sizeof(record_t) + padded(old.id_size) + placed * sizeof(slot_t)
    for i in range(old.slot_count):
        need = need_of(needs, count, slots[i].key)
        if need != NULL or not slot_says_nothing(old, &slots[i], now):
            record_place(self, slots[i], record_log(old, &slots[i]), room_for(slots[i].room, need), &log_end)
    for i in range(count):
        if record_slot(old, needs[i].key) == NULL:
            fresh.key = needs[i].key
            fresh.count = fresh.room = 0
            fresh.used = fresh.end = 0
            record_place(self, fresh, NULL, room_for(0, &needs[i]), &log_end)
    memcpy(record_carried(self), record_carried(old), padded(old.carried_size))
    return self


cdef inline bint record_override(record_t* self, const override_t* overrides, int count) noexcept nogil:
    """Give the account these limits of its own and no others; false without memory, and nothing is changed."""
    if count == 0 and self.side == NULL:
        return True
    if self.side == NULL:
        self.side = side_new()
    return self.side != NULL and side_set_overrides(self.side, overrides, count)


cdef inline record_t* record_stub(const record_t* self) noexcept nogil:
    """What stands for a demoted record, in memory of its own; NULL without memory."""
    cdef uint32_t size = sizeof(record_t) + padded(self.id_size)
    cdef record_t* stub = <record_t*>malloc(size)
    if stub == NULL:
        return NULL
    memcpy(stub, self, size)
    stub.side = NULL
    stub.size = size
    stub.slot_count = stub.carried_size = 0
    stub.flags |= DEMOTED
    return stub


# ---- Room for charges ----

cdef inline bint need_note(
    need_t* self, const record_t* record, const window_t* window, uint32_t key, const seen_t* seen
) noexcept nogil:
    """What a charge under this window needs to find; whether the record must grow for it."""
    cdef const slot_t* slot = record_slot(record, key)
    self.key = key
    self.room = 0
    if window.kind == SLIDING:
        self.room = 1 if slot == NULL else sliding_room(window, seen, slot, record_log(record, slot))
    return slot == NULL or self.room > slot.room


cdef inline bint record_grow(record_t** where, const need_t* needs, int count, int64_t now) noexcept nogil:
    """Remake the record with room for what is needed; false without memory."""
    cdef record_t* remade = record_remake(where[0], needs, count, now)
    if remade == NULL:
        return False
    free(where[0])
    where[0] = remade
    return True
