"""Records to blobs and back, where label numbers and names meet."""

cdef enum:
    PARTS_MAX = 255                 # of an admission, of each kind


cdef uint8_t* encode_record(const record_t* record, Catalogs catalogs, uint64_t tag, uint64_t* size) noexcept nogil:
    """A record as a blob, the caller's to free; NULL without memory. With the mutex held: the side is shared."""
    cdef writer_t writer
    cdef uint64_t checksum
    cdef name_t catalog = catalogs.in_force[record.catalog].name
    writer.at, writer.size = NULL, 0
    write_record(&writer, record, catalog, catalogs.labels.at, catalogs.versions, tag)
    writer.at = <uint8_t*>malloc(writer.size + 8)
    if writer.at == NULL:
        return NULL
    writer.size = 0
    write_record(&writer, record, catalog, catalogs.labels.at, catalogs.versions, tag)
    checksum = blob_checksum(record_id(record), record.id_size, writer.at, writer.size)
    write_bytes(&writer, &checksum, 8)
    size[0] = writer.size
    return writer.at


cdef str read_name(reader_t* reader):
    cdef reader_t span = read_span(reader, read_varint(reader))
    return span.at[:span.end - span.at].decode()


cdef uint16_t read_label(reader_t* reader, Labels labels) except? 0:
    return <uint16_t>labels.number(read_name(reader))


@cython.final
@cython.internal
cdef class Section:
    """One section of a blob: a slot to be, a piece of the side, or bytes to carry along."""

    cdef uint8_t kind
    cdef need_t need                # of a slot
    cdef reader_t payload           # of a slot: what follows the name
    cdef bytes carried


cdef list read_sections(reader_t* reader, Labels labels):
    cdef list sections = []
    cdef Section section
    cdef const uint8_t* start
    cdef reader_t counted
    while reader.at < reader.end and not reader.bad:
        section = Section.__new__(Section)
        start = reader.at
        section.kind = read_byte(reader)
        section.payload = read_span(reader, read_varint(reader))
        if SLIDING <= section.kind <= BUCKET:
            section.need.key = <uint32_t>read_label(&section.payload, labels) << 3 | section.kind
            if section.kind == SLIDING:
                counted = section.payload
                section.need.room = <uint16_t>min(read_varint(&counted), <int64_t>ENTRIES_MAX_MAX)
                reader.bad = reader.bad or section.need.room == 0
        elif not OVERRIDE <= section.kind <= ADMISSION:
            section.carried = start[:reader.at - start]
        reader.bad = reader.bad or section.payload.bad
        sections.append(section)
    return sections


cdef bint fill_slot(record_t* record, Section section, entry_t* log) noexcept:
    """Read a section's payload, to its last byte, into the slot made for it; whether it could be."""
    cdef slot_t* slot = record_slot(record, section.need.key)
    cdef reader_t* payload = &section.payload
    if slot.count or slot.used or (section.kind != SLIDING and slot.end):
        return False                # a second section of one slot
    if section.kind == SLIDING:
        slot.count = read_log(payload, log, &slot.used)
        if slot.count > slot.room:
            return False
        memcpy(record_log(record, slot), log, slot.count * sizeof(entry_t))
    else:
        slot.used = read_varint(payload)
        slot.end = read_varint(payload)
    return not payload.bad and payload.at == payload.end


# ---- The side ----

cdef bint read_prompt(side_t* side, reader_t* reader, Labels labels) except? True:
    """Append a prompt; whether it could be read."""
    cdef prompt_t* prompt
    cdef int i
    if side.prompt_count == UINT16_MAX or not side_reserve_prompt(side):
        raise MemoryError
    prompt = &side.prompts[side.prompt_count]
    memset(prompt, 0, sizeof(prompt_t))
    prompt.id[0], prompt.id[1] = read_u64(reader), read_u64(reader)
    prompt.last_call_at = read_varint(reader)
    prompt.number, prompt.calls = <uint32_t>read_varint(reader), <uint32_t>read_varint(reader)
    count = read_varint(reader)
    if reader.bad or count > PROMPT_POOLS_MAX:
        return False
    prompt.paid_count = <uint8_t>count
    for i in range(<int>count):
        prompt.pools[i] = read_label(reader, labels)
        prompt.paid[i] = read_varint(reader)
    side.prompt_count += 1
    side.prompt_number = max(side.prompt_number, prompt.number)
    return not reader.bad and reader.at == reader.end


cdef bint read_override(side_t* side, reader_t* reader, Labels labels) except? True:
    cdef override_t* at
    if side.overrides == NULL:
        side.overrides = <override_t*>calloc(OVERRIDES_MAX, sizeof(override_t))
        if side.overrides == NULL:
            raise MemoryError
    if side.override_count == OVERRIDES_MAX:
        return False
    at = &side.overrides[side.override_count]
    at.rule = read_label(reader, labels)
    at.limit = read_varint(reader)
    side.override_count += 1
    return not reader.bad and reader.at == reader.end


cdef bint read_admission(record_t* record, reader_t* reader, Catalogs catalogs, pthread_mutex_t* mutex) except? True:
    """Append an admission to the queue it belongs to; whether it could be read."""
    cdef side_t* side = record.side
    cdef admission_t head
    cdef admission_t* admission
    cdef reader_t id = read_span(reader, read_varint(reader))
    cdef name_t name
    cdef list drawn = [], moved = []
    cdef int _i
    memset(&head, 0, sizeof(head))
    head.flags = read_byte(reader)
    head.admitted_at = read_varint(reader)
    head.until = head.admitted_at + read_varint(reader)
    if head.flags & HELD:
        head.hold_until = head.admitted_at + read_varint(reader)
    head.fingerprint = read_u64(reader)
    if head.flags & SETTLED:
        head.settlement = read_u64(reader)
    head.weight_num, head.weight_den = <int32_t>read_varint(reader), <int32_t>read_varint(reader)
    head.number, head.prompt = <uint32_t>read_varint(reader), <uint32_t>read_varint(reader)
    catalog, version = read_name(reader), read_name(reader)
    head.plan, head.model, head.tool = (
        read_label(reader, catalogs.labels), read_label(reader, catalogs.labels), read_label(reader, catalogs.labels))
    drawn_count = read_varint(reader)
    for _i in range(<int>min(drawn_count, PARTS_MAX)):
        drawn.append((
            read_label(reader, catalogs.labels), read_byte(reader), read_label(reader, catalogs.labels), read_byte(reader),
            read_varint(reader), read_varint(reader),
        ))
    moved_count = read_varint(reader)
    for _i in range(<int>min(moved_count, PARTS_MAX)):
        moved.append((read_label(reader, catalogs.labels), read_byte(reader), read_varint(reader)))
    name.at, name.size = id.at, <uint32_t>(id.end - id.at)
    if reader.bad or reader.at != reader.end or max(drawn_count, moved_count) > PARTS_MAX:
        return False
    if not 0 < name.size <= ID_BYTES_MAX or head.weight_den <= 0:
        return False
    head.version = catalogs.version_number(catalog, version, mutex)
    admission = admission_new(name, request_id_hash(name), <int>len(drawn), <int>len(moved))
    if admission == NULL or not side_reserve(side):
        free(admission)
        raise MemoryError
    fill_admission(admission, &head, drawn, moved)
    side.admission_number = max(side.admission_number, head.number)
    side.prompt_number = max(side.prompt_number, head.prompt)
    if admission_open(&head, record.seen_at):
        known_append(&side.holds, admission)
    else:
        known_insert(&side.ids, admission)
    return True


cdef void fill_admission(admission_t* self, const admission_t* head, list drawn, list moved) noexcept:
    cdef int i
    self.admitted_at, self.until, self.hold_until = head.admitted_at, head.until, head.hold_until
    self.fingerprint, self.settlement = head.fingerprint, head.settlement
    self.weight_num, self.weight_den = head.weight_num, head.weight_den
    self.version, self.number, self.prompt = head.version, head.number, head.prompt
    self.plan, self.model, self.tool, self.flags = head.plan, head.model, head.tool, head.flags
    for i, (limit, kind, pool, part, micro, end) in enumerate(drawn):
        admission_drawn(self)[i].key = <uint32_t>limit << 3 | (<uint32_t>kind & 7)
        admission_drawn(self)[i].pool, admission_drawn(self)[i].part = pool, part
        admission_drawn(self)[i].micro, admission_drawn(self)[i].end = micro, end
    for i, (pool, part, micro) in enumerate(moved):
        admission_moved(self)[i].pool, admission_moved(self)[i].part = pool, part
        admission_moved(self)[i].micro = micro


cdef bint fill_side(record_t* record, list sections, Catalogs catalogs, pthread_mutex_t* mutex) except? True:
    """Read what belongs to the side; whether it could be."""
    cdef Section section
    cdef bint good = True
    for section in sections:
        if not OVERRIDE <= section.kind <= ADMISSION:
            continue
        if record.side == NULL:
            record.side = side_new()
            if record.side == NULL:
                raise MemoryError
        if section.kind == OVERRIDE:
            good = read_override(record.side, &section.payload, catalogs.labels) and good
        elif section.kind == PROMPT:
            good = read_prompt(record.side, &section.payload, catalogs.labels) and good
        else:
            good = read_admission(record, &section.payload, catalogs, mutex) and good
    return good


# ---- A whole record ----

cdef record_t* decode_record(bytes id, uint64_t hash, bytes blob, Catalogs catalogs, pthread_mutex_t* mutex) except NULL:
    """A new record of that id, the caller's. Raises CorruptRecord, naming the account."""
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
        return read_record(&reader, id, hash, catalogs, mutex)
    except UnicodeDecodeError:
        raise CorruptRecord(f"record of {id.decode()!r}: a name is not UTF-8") from None


cdef record_t* record_with(bytes id, uint64_t hash, list slots, Py_ssize_t carried_size) except NULL:
    """An empty record with the slots that those sections need."""
    cdef need_t* needs = <need_t*>malloc((len(slots) + 1) * sizeof(need_t))
    cdef record_t* bare = record_new(<const uint8_t*>PyBytes_AS_STRING(id), <uint16_t>len(id), hash, <uint16_t>carried_size)
    cdef record_t* record = NULL
    cdef int i
    if needs != NULL and bare != NULL:
        for i in range(<int>len(slots)):
            needs[i] = (<Section>slots[i]).need
        record = record_remake(bare, needs, <int>len(slots), 0)
    free(needs)
    free(bare)
    if record == NULL:
        raise MemoryError
    return record


cdef record_t* read_record(reader_t* reader, bytes id, uint64_t hash, Catalogs catalogs, pthread_mutex_t* mutex) except NULL:
    cdef int64_t seen_at = read_varint(reader), subscribed_at = read_varint(reader), expires_at = read_varint(reader)
    cdef uint8_t period = read_byte(reader)
    cdef str catalog = read_name(reader), plan = read_name(reader)
    cdef list sections = read_sections(reader, catalogs.labels)
    cdef list slots = [section for section in sections if SLIDING <= (<Section>section).kind <= BUCKET]
    cdef bytes carried = b"".join([(<Section>section).carried for section in sections if (<Section>section).carried is not None])
    cdef entry_t log[ENTRIES_MAX_MAX]
    cdef record_t* record
    cdef bint good = True
    name = id.decode()
    if reader.bad or period >= len(types.PERIODS) or len(slots) > SLOTS_MAX or len(carried) > UINT16_MAX:
        raise CorruptRecord(f"record of {name!r}: it does not decode")
    if catalog not in catalogs.numbers:
        raise CorruptRecord(f"record of {name!r}: no catalog {catalog!r} is loaded")
    record = record_with(id, hash, slots, len(carried))
    record.seen_at, record.subscribed_at, record.period = seen_at, subscribed_at, period
    record.expires_at = expires_at if expires_at else NEVER
    record.catalog, record.plan = catalogs.numbers[catalog], catalogs.labels.number(plan)
    memcpy(record_carried(record), PyBytes_AS_STRING(carried), len(carried))
    try:
        for section in slots:
            good = good and fill_slot(record, <Section>section, log)
        good = fill_side(record, sections, catalogs, mutex) and good
    except BaseException:
        record_free(record)
        raise
    if not good:
        record_free(record)
        raise CorruptRecord(f"record of {name!r}: a section does not decode")
    return record
