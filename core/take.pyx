"""Taking: what has changed, packed for a store. C alone, with the mutex held for a few records at a time.

A store writes what is taken into a journal, whose parts it calls eras. A record knows the era that it was last taken in. So when the
journal's beginning is read again, to be folded, those are told apart whose later state stands further on: folding them would be in vain.
"""

cdef enum:
    TAKE_AT_ONCE = 64               # records encoded in one hold of the mutex


cdef size_t pack_begin(buffer_t* packed, const record_t* record) noexcept nogil:
    """Begin an account; where the size of its blob stands, which follows."""
    cdef uint32_t none = 0
    buffer_put(packed, &record.id_size, 2)
    buffer_put(packed, record_id(record), record.id_size)
    buffer_put(packed, &none, 4)
    return packed.size - 4


cdef bint pack_gone(buffer_t* packed, const record_t* record) noexcept nogil:
    """Pack that an account is gone; false without memory, and nothing is packed."""
    if buffer_reserve(packed, 6 + record.id_size) == NULL:
        return False
    pack_begin(packed, record)
    return True


cdef bint pack_record(buffer_t* packed, const record_t* record, Catalogs catalogs, uint64_t tag) noexcept nogil:
    """Pack an account; false without memory, and nothing is packed."""
    cdef size_t before = packed.size, size_at
    cdef uint32_t size
    size_at = pack_begin(packed, record)
    blob_write(packed, record, catalogs, tag)
    if packed.failed:
        packed.size = before
        return False
    size = <uint32_t>(packed.size - size_at - 4)
    memcpy(packed.at + size_at, &size, 4)
    return True


cdef bint take_mark(buffer_t* self, track_t* track, table_t* table, Catalogs catalogs, int era) noexcept nogil:
    """Pack the records of the first mark; false without memory, and they stay marked."""
    cdef uint64_t hash = track.marks[track.first].hash
    cdef record_t* record
    cdef chunks_t* tables[2]
    cdef uint64_t i
    cdef int which, slot
    tables[0], tables[1] = &table.new, &table.old
    for which in range(2):
        if tables[which].bits == 0:
            continue
        i = chunk_home(tables[which], hash)
        while True:
            for slot in range(CHUNK_RECORDS):
                record = tables[which].at[i].records[slot]
                if tables[which].at[i].tags[slot] and record.hash == hash and record.flags & CHANGED:
                    if not pack_record(self, record, catalogs, track.ticket):
                        return False
                    record_taken(record, era)
            if tables[which].at[i].overflow == 0:
                break
            i = (i + 1) & (((<uint64_t>1) << tables[which].bits) - 1)
    track.first += 1
    track.count -= 1
    return True


cdef bint take_some(
    buffer_t* self, track_t* track, table_t* table, Catalogs catalogs, int era, uint64_t bytes_max, uint64_t* covered
) noexcept nogil:
    """Pack some of what is marked; whether to come again. With the mutex held."""
    cdef int _i
    while track.purged_count:       # before an account of the same id that was put since
        if not pack_gone(self, track.purged[track.purged_count - 1]):
            return False
        track.purged_count -= 1
        record_free(track.purged[track.purged_count])
    for _i in range(TAKE_AT_ONCE):
        if track.count == 0 or self.size >= bytes_max:
            break
        if not take_mark(self, track, table, catalogs, era):
            break
    covered[0] = track.marks[track.first].ticket - 1 if track.count else track.ticket
    return track.count > 0 and self.size < bytes_max and not self.failed


cdef name_t unpack_id(reader_t* reader) noexcept:
    cdef reader_t span = read_span(reader, 2)
    cdef name_t id
    cdef uint16_t size = 0
    if not reader.bad:
        memcpy(&size, span.at, 2)
    span = read_span(reader, size)
    id.at, id.size, id.hash = span.at, <uint32_t>(span.end - span.at), 0
    return id


cdef reader_t unpack_blob(reader_t* reader) noexcept:
    cdef reader_t span = read_span(reader, 4)
    cdef uint32_t size = 0
    if not reader.bad:
        memcpy(&size, span.at, 4)
    return read_span(reader, size)


# ---- What was taken, seen again ----

cdef struct entry_span_t:           # an account in a packed row
    name_t id
    uint64_t hash                   # by the ledger's key
    const uint8_t* at
    const uint8_t* end


cdef int unpack_some(reader_t* reader, entry_span_t* entries) noexcept:
    """The next accounts of a packed row, TAKE_AT_ONCE at most; how many."""
    cdef reader_t blob
    cdef int count = 0
    while count < TAKE_AT_ONCE and reader.at < reader.end:
        entries[count].at = reader.at
        entries[count].id = unpack_id(reader)
        blob = unpack_blob(reader)
        if reader.bad:
            break
        entries[count].end = blob.end
        count += 1
    return count


cdef bint is_latest(table_t* table, const entry_span_t* entry, int era) noexcept nogil:
    """Whether an account that was taken in an era may not have been taken since in another. With the mutex held."""
    cdef record_t** where = table_find(table, entry.id.at, entry.id.size, entry.hash)
    return where == NULL or record_era(where[0]) in (0, era)
