"""Records to blobs and back, where label numbers and names meet."""

cdef bytes encode_record(const record_t* record, Labels labels, str catalog, uint64_t tag):
    """A record, not shared with anybody, as a blob."""
    cdef writer_t counted, writer
    cdef uint64_t checksum
    counted.at = NULL
    write_record(&counted, record, labels, catalog, tag)
    blob = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>counted.size + 8)
    writer.at = <uint8_t*>PyBytes_AS_STRING(blob)
    write_record(&writer, record, labels, catalog, tag)
    checksum = blob_checksum(record_id(record), record.id_size, writer.at, writer.size)
    write_bytes(&writer, &checksum, 8)
    return blob


cdef int write_name(writer_t* writer, bytes name) except -1:
    write_varint(writer, len(name))
    write_bytes(writer, PyBytes_AS_STRING(name), len(name))
    return 0


cdef int write_record(writer_t* writer, const record_t* record, Labels labels, str catalog, uint64_t tag) except -1:
    cdef const slot_t* slots = record_slots(record)
    cdef writer_t payload
    cdef int i
    writer.size = 0
    write_bytes(writer, &tag, 8)
    write_byte(writer, BLOB_SCHEMA)
    write_varint(writer, record.seen_at)
    write_varint(writer, record.subscribed_at)
    write_varint(writer, 0 if record.expires_at == NEVER else record.expires_at)
    write_byte(writer, record.period)
    write_name(writer, catalog.encode())
    write_name(writer, labels.encoded(record.plan))
    for i in range(record.slot_count):
        if slots[i].key & 7 == SLIDING and slots[i].count == 0:
            continue
        payload.at = NULL
        payload.size = 0
        write_slot(&payload, record, &slots[i], labels)
        write_byte(writer, slots[i].key & 7)
        write_varint(writer, payload.size)
        write_slot(writer, record, &slots[i], labels)
    write_bytes(writer, record_carried(record), record.carried_size)
    return 0


cdef int write_slot(writer_t* writer, const record_t* record, const slot_t* slot, Labels labels) except -1:
    write_name(writer, labels.encoded(slot.key >> 3))
    if slot.key & 7 == SLIDING:
        write_log(writer, record_log(record, slot), slot.count)
    else:
        write_varint(writer, slot.used)
        write_varint(writer, slot.end)
    return 0


cdef str read_name(reader_t* reader):
    cdef reader_t span = read_span(reader, read_varint(reader))
    return span.at[:span.end - span.at].decode()


@cython.final
@cython.internal
cdef class Section:
    """One section of a blob: a slot to be, or bytes to carry along."""

    cdef need_t need                # key 0: carried
    cdef reader_t payload           # what follows the name
    cdef bytes carried


cdef list read_sections(reader_t* reader, Labels labels):
    cdef list sections = []
    cdef Section section
    cdef const uint8_t* start
    cdef reader_t counted
    cdef uint8_t kind
    while reader.at < reader.end and not reader.bad:
        section = Section.__new__(Section)
        start = reader.at
        kind = read_byte(reader)
        section.payload = read_span(reader, read_varint(reader))
        if SLIDING <= kind <= BUCKET:
            section.need.key = <uint32_t>labels.number(read_name(&section.payload)) << 3 | kind
            if kind == SLIDING:
                counted = section.payload
                section.need.room = <uint16_t>min(read_varint(&counted), <int64_t>ENTRIES_MAX_MAX)
                reader.bad = reader.bad or section.need.room == 0
        else:
            section.carried = start[:reader.at - start]
        reader.bad = reader.bad or section.payload.bad
        sections.append(section)
    return sections


cdef bint fill_slot(record_t* record, Section section, entry_t* log) noexcept:
    """Read a section's payload, to its last byte, into the slot made for it; whether it could be."""
    cdef slot_t* slot = record_slot(record, section.need.key)
    cdef reader_t* payload = &section.payload
    if slot.count or slot.used or (section.need.key & 7 != SLIDING and slot.end):
        return False                # a second section of one slot
    if section.need.key & 7 == SLIDING:
        slot.count = read_log(payload, log, &slot.used)
        if slot.count > slot.room:
            return False
        memcpy(record_log(record, slot), log, slot.count * sizeof(entry_t))
    else:
        slot.used = read_varint(payload)
        slot.end = read_varint(payload)
    return not payload.bad and payload.at == payload.end


cdef record_t* decode_record(bytes id, uint64_t hash, bytes blob, Labels labels, dict catalogs) except NULL:
    """A new record of that id, the caller's. `catalogs`: name to number. Raises CorruptRecord, naming the account."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(blob)
    cdef uint64_t size = len(blob), checksum
    cdef reader_t reader
    if size < BLOB_BYTES_MIN:
        raise CorruptRecord(f"record of {id.decode()!r}: {size} bytes, too few for a record")
    memcpy(&checksum, at + size - 8, 8)
    if checksum != blob_checksum(<const uint8_t*>PyBytes_AS_STRING(id), <uint32_t>len(id), at, size - 8):
        raise CorruptRecord(f"record of {id.decode()!r}: the checksum does not match")
    reader.at, reader.end, reader.bad = at + 8, at + size - 8, False
    if read_byte(&reader) != BLOB_SCHEMA:
        raise CorruptRecord(f"record of {id.decode()!r}: schema {at[8]}, this version reads {BLOB_SCHEMA}")
    try:
        return read_record(&reader, id, hash, labels, catalogs)
    except UnicodeDecodeError:
        raise CorruptRecord(f"record of {id.decode()!r}: a name is not UTF-8") from None


cdef record_t* read_record(reader_t* reader, bytes id, uint64_t hash, Labels labels, dict catalogs) except NULL:
    cdef int64_t seen_at = read_varint(reader), subscribed_at = read_varint(reader), expires_at = read_varint(reader)
    cdef uint8_t period = read_byte(reader)
    cdef str catalog = read_name(reader), plan = read_name(reader)
    cdef list sections = read_sections(reader, labels)
    cdef list slots = [section for section in sections if (<Section>section).carried is None]
    cdef bytes carried = b"".join([(<Section>section).carried for section in sections if (<Section>section).carried is not None])
    cdef need_t* needs = NULL
    cdef entry_t log[ENTRIES_MAX_MAX]
    cdef record_t* bare
    cdef record_t* record
    cdef int i
    cdef bint good = True
    name = id.decode()
    if reader.bad or period >= len(types.PERIODS) or len(slots) > SLOTS_MAX or len(carried) > UINT16_MAX:
        raise CorruptRecord(f"record of {name!r}: it does not decode")
    if catalog not in catalogs:
        raise CorruptRecord(f"record of {name!r}: no catalog {catalog!r} is loaded")
    needs = <need_t*>malloc((len(slots) + 1) * sizeof(need_t))
    bare = record_new(<const uint8_t*>PyBytes_AS_STRING(id), <uint16_t>len(id), hash, <uint16_t>len(carried))
    record = NULL
    if needs != NULL and bare != NULL:
        for i in range(<int>len(slots)):
            needs[i] = (<Section>slots[i]).need
        record = record_remake(bare, needs, <int>len(slots), 0)
    free(needs)
    free(bare)
    if record == NULL:
        raise MemoryError
    record.seen_at, record.subscribed_at, record.period = seen_at, subscribed_at, period
    record.expires_at = expires_at if expires_at else NEVER
    record.catalog, record.plan = catalogs[catalog], labels.number(plan)
    memcpy(record_carried(record), PyBytes_AS_STRING(carried), len(carried))
    for section in slots:
        good = good and fill_slot(record, <Section>section, log)
    if not good:
        free(record)
        raise CorruptRecord(f"record of {name!r}: a section does not decode")
    return record
