"""Taking: what has changed, packed for a store. C alone, with the mutex held for a few records at a time."""

cdef enum:
    TAKE_AT_ONCE = 64               # records encoded in one hold of the mutex


cdef struct packed_t:
    uint8_t* at
    uint64_t size
    uint64_t room
    bint failed                     # no memory: what is here is whole, but not all


cdef bint packed_reserve(packed_t* self, uint64_t more) noexcept nogil:
    cdef uint64_t room = max(self.room, <uint64_t>4096)
    cdef uint8_t* grown
    while room < self.size + more:
        room *= 2
    if room > self.room:
        grown = <uint8_t*>realloc(self.at, room)
        if grown == NULL:
            self.failed = True
            return False
        self.at, self.room = grown, room
    return True


cdef uint8_t* packed_add(packed_t* self, const record_t* record, uint32_t size) noexcept nogil:
    """Add an account whose blob has that size; where the blob goes, NULL without memory."""
    cdef uint8_t* blob
    if not packed_reserve(self, 6 + record.id_size + size):
        return NULL
    memcpy(self.at + self.size, &record.id_size, 2)
    memcpy(self.at + self.size + 2, record_id(record), record.id_size)
    memcpy(self.at + self.size + 2 + record.id_size, &size, 4)
    blob = self.at + self.size + 6 + record.id_size
    self.size += 6 + record.id_size + size
    return blob


cdef bint pack_record(packed_t* self, const record_t* record, Catalogs catalogs, uint64_t tag) noexcept nogil:
    cdef uint8_t* blob = packed_add(self, record, <uint32_t>blob_size(record, catalogs))
    if blob == NULL:
        return False
    blob_write(blob, record, catalogs, tag)
    return True


cdef bint take_mark(packed_t* self, track_t* track, table_t* table, Catalogs catalogs) noexcept nogil:
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
                    record.flags &= ~CHANGED
            if tables[which].at[i].overflow == 0:
                break
            i = (i + 1) & (((<uint64_t>1) << tables[which].bits) - 1)
    track.first += 1
    track.count -= 1
    return True


cdef bint take_some(
    packed_t* self, track_t* track, table_t* table, Catalogs catalogs, uint64_t bytes_max, uint64_t* covered
) noexcept nogil:
    """Pack some of what is marked; whether to come again. With the mutex held."""
    cdef int _i
    if self.size == 0:
        self.failed = False
    while track.purged_count:       # before an account of the same id that was put since
        if packed_add(self, track.purged[track.purged_count - 1], 0) == NULL:
            return False
        track.purged_count -= 1
        record_free(track.purged[track.purged_count])
    for _i in range(TAKE_AT_ONCE):
        if track.count == 0 or self.size >= bytes_max:
            break
        if not take_mark(self, track, table, catalogs):
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
