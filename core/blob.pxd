# cython: cdivision=True
"""Blobs: a record as bytes, to be kept outside of the process.

    u64 tag | u8 schema | varint seen_at, subscribed_at, expires_at (0 = no end) | u8 period | name catalog | name plan
    | sections | u64 checksum

    name      varint length, bytes                     section  u8 kind, varint length, payload
    sliding   name id, varint count, then per entry varint time since the one before, varint micro-units
    others    name id, varint used, varint end
    override  name id, varint units
    deleted   nothing: the account is a tombstone
    prompt    u64 hash, u64 hash, varint last call, number, calls, then count, and per pool name, varint paid
    admission name id, u8 flags, varint admitted at, until since then, hold until since then if held, u64 fingerprint, u64 settlement if
              settled, varint weight (2), number, prompt, name catalog, version, plan, model, tool; then count, and per limit name id, u8 kind,
              name pool, u8 part, varint micro-units, end; then count, and per pool name, u8 part, varint micro-units

Names stand in full, since the numbers they have in one process mean nothing in another. A section whose kind this version does
not know is carried along untouched. The tag is the writer's, random, for compare-and-swap. The checksum covers everything
before it and the account's id, so that a flipped bit and another account's blob are noticed alike. Whatever does not decode to the last byte
is an error, never an empty record.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from admission cimport (
    HELD, SETTLED, admission_drawn, admission_id, admission_moved, admission_t, drawn_t, moved_t,
)
from amounts cimport amount_add
from log cimport ENTRIES_MAX_MAX, entry_t
from names cimport name_t
from prompt cimport prompt_t
from record cimport DELETED, record_carried, record_log, record_slots, record_t
from rules cimport version_t
from side cimport known_t, side_t
from siphash cimport siphash
from window cimport NEVER, SLIDING, slot_t

cdef enum section_t:                # 1 to 5 are slots, by the window's kind
    OVERRIDE = 16
    PROMPT = 17
    ADMISSION = 18
    TOMBSTONE = 19

cdef enum:
    BLOB_SCHEMA = 1
    BLOB_BYTES_MIN = 8 + 1 + 3 + 1 + 2 + 8
    VARINT_BYTES_MAX = 10
    SHORT = 1                       # bytes of a section's length: up to 127, an id and two numbers are less
    LONG = 3                        # up to 2 MiB

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


cdef inline void write_u64(writer_t* self, uint64_t value) noexcept nogil:
    write_bytes(self, &value, 8)


cdef inline void write_name(writer_t* self, name_t name) noexcept nogil:
    write_varint(self, name.size)
    write_bytes(self, name.at, name.size)


# ---- Writing a record ----

cdef inline void write_slot(writer_t* self, const record_t* record, const slot_t* slot, const name_t* labels) noexcept nogil:
    write_name(self, labels[slot.key >> 3])
    if slot.key & 7 == SLIDING:
        write_log(self, record_log(record, slot), slot.count)
    else:
        write_varint(self, slot.used)
        write_varint(self, slot.end)


cdef inline void write_prompt(writer_t* self, const prompt_t* prompt, const name_t* labels) noexcept nogil:
    cdef int i
    write_u64(self, prompt.id[0])
    write_u64(self, prompt.id[1])
    write_varint(self, prompt.last_call_at)
    write_varint(self, prompt.number)
    write_varint(self, prompt.calls)
    write_varint(self, prompt.paid_count)
    for i in range(prompt.paid_count):
        write_name(self, labels[prompt.pools[i]])
        write_varint(self, prompt.paid[i])


cdef inline void write_admission(writer_t* self, const admission_t* it, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef const drawn_t* drawn = admission_drawn(it)
    cdef const moved_t* moved = admission_moved(it)
    cdef int i
    write_varint(self, it.id_size)
    write_bytes(self, admission_id(it), it.id_size)
    write_byte(self, it.flags)
    write_varint(self, it.admitted_at)
    write_varint(self, it.until - it.admitted_at)
    if it.flags & HELD:
        write_varint(self, it.hold_until - it.admitted_at)
    write_u64(self, it.fingerprint)
    if it.flags & SETTLED:
        write_u64(self, it.settlement)
    write_varint(self, it.weight_num)
    write_varint(self, it.weight_den)
    write_varint(self, it.number)
    write_varint(self, it.prompt)
    write_name(self, versions[it.version].catalog)
    write_name(self, versions[it.version].text)
    write_name(self, labels[it.plan])
    write_name(self, labels[it.model])
    write_name(self, labels[it.tool])
    write_varint(self, it.drawn_count)
    for i in range(it.drawn_count):
        write_name(self, labels[drawn[i].key >> 3])
        write_byte(self, drawn[i].key & 7)
        write_name(self, labels[drawn[i].pool])
        write_byte(self, drawn[i].part)
        write_varint(self, drawn[i].micro)
        write_varint(self, drawn[i].end)
    write_varint(self, it.moved_count)
    for i in range(it.moved_count):
        write_name(self, labels[moved[i].pool])
        write_byte(self, moved[i].part)
        write_varint(self, moved[i].micro)


cdef inline uint64_t section_begin(writer_t* self, uint8_t kind, int width) noexcept nogil:
    """Begin a section whose length is not known yet, but for its `width` in bytes; where its payload begins."""
    cdef int _i
    write_byte(self, kind)
    for _i in range(width):
        write_byte(self, 0)
    return self.size


cdef inline void section_end(writer_t* self, uint64_t start, int width) noexcept nogil:
    """Put the length in its place, as a varint of just that width: a shorter one is filled up with zeros."""
    cdef uint64_t length = self.size - start
    cdef int i
    if self.at == NULL:
        return
    for i in range(width):
        self.at[start - width + i] = <uint8_t>(length & 127) | (128 if i + 1 < width else 0)
        length >>= 7


cdef inline void write_known(writer_t* self, const known_t* known, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef uint64_t start
    cdef int i
    for i in range(known.first, known.first + known.count):
        start = section_begin(self, ADMISSION, LONG)
        write_admission(self, known.at[i], labels, versions)
        section_end(self, start, LONG)


cdef inline void write_side(writer_t* self, const side_t* side, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef uint64_t start
    cdef int i
    for i in range(side.override_count):
        start = section_begin(self, OVERRIDE, SHORT)
        write_name(self, labels[side.overrides[i].rule])
        write_varint(self, side.overrides[i].limit)
        section_end(self, start, SHORT)
    for i in range(side.prompt_count):
        start = section_begin(self, PROMPT, LONG)
        write_prompt(self, &side.prompts[i], labels)
        section_end(self, start, LONG)
    write_known(self, &side.holds, labels, versions)
    write_known(self, &side.ids, labels, versions)


cdef inline void write_record(
    writer_t* self, const record_t* record, name_t catalog, const name_t* labels, const version_t* versions, uint64_t tag
) noexcept nogil:
    """All but the checksum."""
    cdef const slot_t* slots = record_slots(record)
    cdef uint64_t start
    cdef int i, width
    write_u64(self, tag)
    write_byte(self, BLOB_SCHEMA)
    write_varint(self, record.seen_at)
    write_varint(self, record.subscribed_at)
    write_varint(self, 0 if record.expires_at == NEVER else record.expires_at)
    write_byte(self, record.period)
    write_name(self, catalog)
    write_name(self, labels[record.plan])
    for i in range(record.slot_count):
        if slots[i].key & 7 == SLIDING and slots[i].count == 0:
            continue
        width = LONG if slots[i].key & 7 == SLIDING else SHORT
        start = section_begin(self, slots[i].key & 7, width)
        write_slot(self, record, &slots[i], labels)
        section_end(self, start, width)
    if record.flags & DELETED:
        section_end(self, section_begin(self, TOMBSTONE, SHORT), SHORT)
    if record.side != NULL:
        write_side(self, record.side, labels, versions)
    write_bytes(self, record_carried(record), record.carried_size)


# ---- Reading ----

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
