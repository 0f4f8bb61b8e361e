# cython: cdivision=True
"""Blobs: a record as bytes, to be kept outside of the process.

    u64 tag | u8 schema | varint seen_at, subscribed_at, expires_at (0 = no end) | u8 period | name catalog | name plan
    | sections | u64 checksum

    name      varint length, bytes                     section  u8 kind, varint length, payload
    sliding   name id, varint count, then per entry varint 2 * time since the one before, + 1 if its micro-units are those of the one before
              (0 before the first); varint micro-units if they are not
    others    name id, varint used, varint end
    override  name id, varint units
    deleted   nothing: the account is a tombstone
    prompt    u64 hash, u64 hash, varint last call, number, calls, then count, and per pool name, varint paid
    admission name id, u8 flags, varint admitted at, until since then, hold until since then if held, u64 fingerprint, u64 settlement if
              settled, varint weight (2), number, prompt, name catalog, version, plan, model, tool; then count, and per limit name id, u8 kind,
              name pool, u8 part, varint micro-units, end; then count, and per pool name, u8 part, varint micro-units

In schema 1, which is still read, an entry is varint time since the one before, varint micro-units.

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
from buffer cimport buffer_put, buffer_reserve, buffer_t
from log cimport ENTRIES_MAX_MAX, entry_t
from names cimport name_t
from prompt cimport prompt_t
from record cimport DELETED, record_carried, record_id, record_log, record_slots, record_t
from rules cimport version_t
from side cimport known_t, override_t, side_t
from siphash cimport siphash
from window cimport NEVER, SLIDING, slot_t

cdef extern from *:
    """
    /* Most varints of a log have 4 or 5 bytes, as it falls: a loop over them is mispredicted every other time. */
    #define VARINT_SPREAD_MAX 0xFFFFFFFFFFFFFFULL               /* 8 groups of 7 bits */
    static inline int varint_size(unsigned long long value) { return (70 - __builtin_clzll(value)) / 7; }   /* of 1 or more */
    static inline unsigned long long varint_spread(unsigned long long value, int size) {
        value = (value & 0xFFFFFFF0000000ULL) << 4 | (value & 0xFFFFFFFULL);
        value = (value & 0x0FFFC0000FFFC000ULL) << 2 | (value & 0x00003FFF00003FFFULL);
        value = (value & 0x3F803F803F803F80ULL) << 1 | (value & 0x007F007F007F007FULL);
        return value | (0x80808080808080ULL & ((1ULL << (8 * size - 8)) - 1));
    }
    """
    const uint64_t VARINT_SPREAD_MAX
    int varint_size(uint64_t value) noexcept nogil
    uint64_t varint_spread(uint64_t value, int size) noexcept nogil     # as bytes, lowest first


cdef enum section_t:                # 1 to 5 are slots, by the window's kind
    OVERRIDE = 16
    PROMPT = 17
    ADMISSION = 18
    TOMBSTONE = 19

cdef enum:
    BLOB_SCHEMA = 2
    BLOB_SCHEMA_MIN = 1
    BLOB_BYTES_MIN = 8 + 1 + 3 + 1 + 2 + 8
    VARINT_BYTES_MAX = 10
    PLAIN_BYTES_MAX = 80            # of what is no name in a header, a section or a part, and no entry of a log; and 8 to spare
    SHORT = 1                       # bytes of a section's length: up to 127, an id and two numbers are less
    LONG = 3                        # up to 2 MiB

cdef struct reader_t:               # a span to read; `bad` once anything did not fit
    const uint8_t* at
    const uint8_t* end
    bint bad


cdef inline uint64_t blob_checksum(const uint8_t* id, uint32_t id_size, const uint8_t* at, uint64_t size) noexcept nogil:
    return siphash(siphash(0, 0, id, id_size), id_size, at, size)


cdef inline uint8_t* put_bytes(uint8_t* at, const void* source, uint64_t size) noexcept nogil:
    """Write, where there is room, and for 8 bytes more; where it ends. So do all that are called put."""
    memcpy(at, source, size)
    return at + size


cdef inline uint8_t* put_byte(uint8_t* at, uint8_t value) noexcept nogil:
    at[0] = value
    return at + 1


cdef inline uint8_t* put_u64(uint8_t* at, uint64_t value) noexcept nogil:
    return put_bytes(at, &value, 8)


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    cdef uint64_t spread
    cdef int size
    if value < 128:
        return put_byte(at, <uint8_t>value)
    while value > VARINT_SPREAD_MAX:
        at = put_byte(at, <uint8_t>(value & 127) | 128)
        value >>= 7
    size = varint_size(value)
    spread = varint_spread(value, size)
    memcpy(at, &spread, 8)
    return at + size


cdef inline uint8_t* put_name(uint8_t* at, name_t name) noexcept nogil:
    return put_bytes(put_varint(at, name.size), name.at, name.size)


cdef inline uint8_t* put_log(uint8_t* at, const entry_t* log, int count) noexcept nogil:
    cdef int64_t time = 0, micro = 0
    cdef bint alike
    cdef int i
    at = put_varint(at, count)
    for i in range(count):
        alike = log[i].micro == micro
        at = put_varint(at, <uint64_t>(log[i].time - time) << 1 | alike)
        if not alike:
            at = put_varint(at, log[i].micro)
        time, micro = log[i].time, log[i].micro
    return at


# ---- Writing a record ----
#
# Each section has room for all that it could be before it is begun. Its length is not known then, but for its `width` in bytes.

cdef inline void section_end(buffer_t* self, uint8_t* start, uint8_t kind, int width, const uint8_t* end) noexcept nogil:
    """A section's payload stands from `start` + 1 + `width` to `end`: put before it what it is, its length as a varint of just that width
    (a shorter one is filled up with zeros), and count it in."""
    cdef uint64_t length = end - start - 1 - width
    cdef int i
    start[0] = kind
    for i in range(width):
        start[1 + i] = <uint8_t>(length & 127) | (128 if i + 1 < width else 0)
        length >>= 7
    self.size += end - start


cdef inline void write_slot(buffer_t* self, const record_t* record, const slot_t* slot, const name_t* labels) noexcept nogil:
    cdef name_t id = labels[slot.key >> 3]
    cdef bint sliding = slot.key & 7 == SLIDING
    cdef int width = LONG if sliding else SHORT
    cdef uint8_t* start = buffer_reserve(self, PLAIN_BYTES_MAX + id.size + 2 * VARINT_BYTES_MAX * slot.count)
    cdef uint8_t* at
    if start == NULL:
        return
    at = put_name(start + 1 + width, id)
    if sliding:
        at = put_log(at, record_log(record, slot), slot.count)
    else:
        at = put_varint(put_varint(at, slot.used), slot.end)
    section_end(self, start, slot.key & 7, width, at)


cdef inline void write_override(buffer_t* self, const override_t* override, const name_t* labels) noexcept nogil:
    cdef name_t rule = labels[override.rule]
    cdef uint8_t* start = buffer_reserve(self, PLAIN_BYTES_MAX + rule.size)
    if start != NULL:
        section_end(self, start, OVERRIDE, SHORT, put_varint(put_name(start + 1 + SHORT, rule), override.limit))


cdef inline void write_prompt(buffer_t* self, const prompt_t* prompt, const name_t* labels) noexcept nogil:
    cdef uint64_t size = PLAIN_BYTES_MAX
    cdef uint8_t* start
    cdef uint8_t* at
    cdef int i
    for i in range(prompt.paid_count):
        size += 2 * VARINT_BYTES_MAX + labels[prompt.pools[i]].size
    start = buffer_reserve(self, size)
    if start == NULL:
        return
    at = put_u64(put_u64(start + 1 + LONG, prompt.id[0]), prompt.id[1])
    at = put_varint(put_varint(put_varint(at, prompt.last_call_at), prompt.number), prompt.calls)
    at = put_varint(at, prompt.paid_count)
    for i in range(prompt.paid_count):
        at = put_varint(put_name(at, labels[prompt.pools[i]]), prompt.paid[i])
    section_end(self, start, PROMPT, LONG, at)


cdef inline uint64_t admission_bytes_max(const admission_t* it, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef const drawn_t* drawn = admission_drawn(it)
    cdef const moved_t* moved = admission_moved(it)
    cdef uint64_t size = 3 * PLAIN_BYTES_MAX + it.id_size + versions[it.version].catalog.size + versions[it.version].text.size
    cdef int i
    size += labels[it.plan].size + labels[it.model].size + labels[it.tool].size
    for i in range(it.drawn_count):
        size += PLAIN_BYTES_MAX + labels[drawn[i].key >> 3].size + labels[drawn[i].pool].size
    for i in range(it.moved_count):
        size += PLAIN_BYTES_MAX + labels[moved[i].pool].size
    return size


cdef inline uint8_t* put_admission_head(uint8_t* at, const admission_t* it, const name_t* labels, const version_t* versions) noexcept nogil:
    """What stands before an admission's parts."""
    at = put_bytes(put_varint(at, it.id_size), admission_id(it), it.id_size)
    at = put_byte(at, it.flags)
    at = put_varint(put_varint(at, it.admitted_at), it.until - it.admitted_at)
    if it.flags & HELD:
        at = put_varint(at, it.hold_until - it.admitted_at)
    at = put_u64(at, it.fingerprint)
    if it.flags & SETTLED:
        at = put_u64(at, it.settlement)
    at = put_varint(put_varint(at, it.weight_num), it.weight_den)
    at = put_varint(put_varint(at, it.number), it.prompt)
    at = put_name(put_name(at, versions[it.version].catalog), versions[it.version].text)
    return put_name(put_name(put_name(at, labels[it.plan]), labels[it.model]), labels[it.tool])


cdef inline void write_admission(buffer_t* self, const admission_t* it, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef const drawn_t* drawn = admission_drawn(it)
    cdef const moved_t* moved = admission_moved(it)
    cdef uint8_t* start = buffer_reserve(self, admission_bytes_max(it, labels, versions))
    cdef uint8_t* at
    cdef int i
    if start == NULL:
        return
    at = put_admission_head(start + 1 + LONG, it, labels, versions)
    at = put_varint(at, it.drawn_count)
    for i in range(it.drawn_count):
        at = put_byte(put_name(at, labels[drawn[i].key >> 3]), drawn[i].key & 7)
        at = put_byte(put_name(at, labels[drawn[i].pool]), drawn[i].part)
        at = put_varint(put_varint(at, drawn[i].micro), drawn[i].end)
    at = put_varint(at, it.moved_count)
    for i in range(it.moved_count):
        at = put_varint(put_byte(put_name(at, labels[moved[i].pool]), moved[i].part), moved[i].micro)
    section_end(self, start, ADMISSION, LONG, at)


cdef inline void write_known(buffer_t* self, const known_t* known, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef int i
    for i in range(known.first, known.first + known.count):
        write_admission(self, known.at[i], labels, versions)


cdef inline void write_side(buffer_t* self, const side_t* side, const name_t* labels, const version_t* versions) noexcept nogil:
    cdef int i
    for i in range(side.override_count):
        write_override(self, &side.overrides[i], labels)
    for i in range(side.prompt_count):
        write_prompt(self, &side.prompts[i], labels)
    write_known(self, &side.holds, labels, versions)
    write_known(self, &side.ids, labels, versions)


cdef inline void write_header(buffer_t* self, const record_t* record, name_t catalog, name_t plan, uint64_t tag) noexcept nogil:
    cdef uint8_t* at = buffer_reserve(self, PLAIN_BYTES_MAX + catalog.size + plan.size)
    if at == NULL:
        return
    at = put_byte(put_u64(at, tag), BLOB_SCHEMA)
    at = put_varint(put_varint(at, record.seen_at), record.subscribed_at)
    at = put_varint(at, 0 if record.expires_at == NEVER else record.expires_at)
    at = put_name(put_name(put_byte(at, record.period), catalog), plan)
    self.size = at - self.at


cdef inline void write_record(
    buffer_t* self, const record_t* record, name_t catalog, const name_t* labels, const version_t* versions, uint64_t tag
) noexcept nogil:
    """A record's blob at the buffer's end."""
    cdef const slot_t* slots = record_slots(record)
    cdef size_t begin = self.size
    cdef uint64_t checksum
    cdef int i
    write_header(self, record, catalog, labels[record.plan], tag)
    for i in range(record.slot_count):
        if slots[i].key & 7 != SLIDING or slots[i].count:
            write_slot(self, record, &slots[i], labels)
    if record.flags & DELETED and buffer_reserve(self, 1 + SHORT) != NULL:
        section_end(self, self.at + self.size, TOMBSTONE, SHORT, self.at + self.size + 1 + SHORT)
    if record.side != NULL:
        write_side(self, record.side, labels, versions)
    buffer_put(self, record_carried(record), record.carried_size)
    if not self.failed:
        checksum = blob_checksum(record_id(record), record.id_size, self.at + begin, self.size - begin)
        buffer_put(self, &checksum, 8)


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


cdef inline int read_log(reader_t* self, int schema, entry_t* log, int64_t* used) noexcept nogil:
    """Entries into `log`, which has room for ENTRIES_MAX_MAX, and their sum; how many. Times must ascend."""
    cdef int64_t count = read_varint(self)
    cdef int64_t time = 0, micro = 0, since
    cdef bint alike = False
    cdef int i
    used[0] = 0
    if count > ENTRIES_MAX_MAX:
        self.bad = True
        count = 0
    for i in range(<int>count):
        since = read_varint(self)
        if schema > 1:
            alike = since & 1
            since >>= 1
        if not alike:
            micro = read_varint(self)
        log[i].micro = micro
        if self.bad or since == 0 or since > INT64_MAX - time:
            self.bad = True
            return 0
        time += since
        log[i].time = time
        used[0] = amount_add(used[0], log[i].micro)
    return <int>count
