"""Records to blobs and back, where label numbers and names meet."""

cdef enum:
    PARTS_MAX = 255                 # of an admission, of each kind


cdef void blob_write(buffer_t* out, const record_t* record, Catalogs catalogs, uint64_t tag) noexcept nogil:
    """Add a record's blob. With the mutex held."""
    write_record(out, record, catalogs.in_force[record.catalog].name, catalogs.labels.at, catalogs.versions, tag)


cdef name_t read_name(reader_t* reader) noexcept:
    """A name as bytes within the blob; its hash is not set."""
    cdef reader_t span = read_span(reader, read_varint(reader))
    cdef name_t name
    name.at, name.size, name.hash = span.at, <uint32_t>(span.end - span.at), 0
    return name


cdef int read_label(reader_t* reader, Labels labels) except -1:
    cdef name_t name = read_name(reader)
    return labels.number_of(name.at, name.size)


cdef str text_of(name_t name):
    return name.at[:name.size].decode()


cdef struct section_t:
    uint8_t kind
    need_t need                     # of a slot
    reader_t payload                # of a slot: what follows the name
    const uint8_t* start            # of the whole
    const uint8_t* end


cdef struct sections_t:
    int schema
    int count
    int slot_count
    size_t carried_size
    section_t* at


cdef section_t read_section(reader_t* reader) noexcept:
    cdef section_t section
    section.start = reader.at
    section.kind = read_byte(reader)
    section.payload = read_span(reader, read_varint(reader))
    section.end = reader.at
    return section


cdef int read_sections(reader_t* reader, Labels labels, sections_t* sections) except -1:
    """All sections; `sections.at` is the caller's to free. What the slots need is read."""
    cdef reader_t counted = reader[0]
    cdef int i
    sections.count = sections.slot_count = 0
    sections.carried_size = 0
    while counted.at < counted.end and not counted.bad:
        read_section(&counted)
        sections.count += 1
    sections.at = <section_t*>calloc(sections.count + 1, sizeof(section_t))
    if sections.at == NULL:
        raise MemoryError
    for i in range(sections.count):
        sections.at[i] = read_section(reader)
        reader.bad = reader.bad or sections.at[i].payload.bad
        if SLIDING <= sections.at[i].kind <= BUCKET:
            read_need(reader, &sections.at[i], labels)
            sections.slot_count += 1
        elif not OVERRIDE <= sections.at[i].kind <= TOMBSTONE:
            sections.carried_size += sections.at[i].end - sections.at[i].start
    return 0


cdef int read_need(reader_t* reader, section_t* section, Labels labels) except -1:
    """Which slot a section is of, and the room that its log needs."""
    cdef reader_t counted
    section.need.key = <uint32_t>read_label(&section.payload, labels) << 3 | section.kind
    section.need.room = 0
    if section.kind == SLIDING:
        counted = section.payload
        section.need.room = <uint16_t>min(read_varint(&counted), <int64_t>ENTRIES_MAX_MAX)
        reader.bad = reader.bad or section.need.room == 0
    return 0


cdef bint fill_slot(record_t* record, section_t* section, int schema, entry_t* log) noexcept:
    """Read a section's payload, to its last byte, into the slot made for it; whether it could be."""
    cdef slot_t* slot = record_slot(record, section.need.key)
    cdef reader_t* payload = &section.payload
    if slot.count or slot.used or (section.kind != SLIDING and slot.end):
        return False                # a second section of one slot
    if section.kind == SLIDING:
        slot.count = read_log(payload, schema, log, &slot.used)
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
    cdef drawn_t drawn[PARTS_MAX]
    cdef moved_t moved[PARTS_MAX]
    cdef name_t id = read_name(reader)
    read_head(reader, &head, catalogs, mutex)
    drawn_count = read_varint(reader)
    if drawn_count > PARTS_MAX:
        return False
    read_drawn(reader, drawn, <int>drawn_count, catalogs.labels)
    moved_count = read_varint(reader)
    if moved_count > PARTS_MAX:
        return False
    read_moved(reader, moved, <int>moved_count, catalogs.labels)
    if reader.bad or reader.at != reader.end or not 0 < id.size <= ID_BYTES_MAX or head.weight_den <= 0:
        return False
    admission = admission_new(id, request_id_hash(id), <int>drawn_count, <int>moved_count, NULL)
    if admission == NULL or not side_reserve(side):
        free(admission)
        raise MemoryError
    head.id_hash, head.id_size = admission.id_hash, admission.id_size
    head.drawn_count, head.moved_count = admission.drawn_count, admission.moved_count
    head.room = admission.room
    admission[0] = head
    memcpy(admission_drawn(admission), drawn, <size_t>drawn_count * sizeof(drawn_t))
    memcpy(admission_moved(admission), moved, <size_t>moved_count * sizeof(moved_t))
    side.admission_number = max(side.admission_number, head.number)
    side.prompt_number = max(side.prompt_number, head.prompt)
    if admission_open(admission, record.seen_at):
        side_hold(side, admission)
    else:
        known_insert(&side.ids, admission)
    return True


cdef int read_head(reader_t* reader, admission_t* head, Catalogs catalogs, pthread_mutex_t* mutex) except -1:
    """What stands between an admission's id and its parts."""
    memset(head, 0, sizeof(admission_t))
    head.flags = read_byte(reader)
    head.admitted_at = read_varint(reader)
    head.until = head.admitted_at + read_varint(reader)
    if head.flags & HELD:
        head.hold_until = head.admitted_at + read_varint(reader)
    head.fingerprint = read_u64(reader)
    if head.flags & SETTLED:
        head.settlement = read_u64(reader)
    head.weight_num = <int32_t>read_varint(reader)
    head.weight_den = <int32_t>read_varint(reader)
    head.number = <uint32_t>read_varint(reader)
    head.prompt = <uint32_t>read_varint(reader)
    catalog = read_name(reader)
    version = read_name(reader)
    head.version = catalogs.version_number(text_of(catalog), text_of(version), mutex)
    head.plan = read_label(reader, catalogs.labels)
    head.model = read_label(reader, catalogs.labels)
    head.tool = read_label(reader, catalogs.labels)
    return 0


cdef int read_drawn(reader_t* reader, drawn_t* drawn, int count, Labels labels) except -1:
    cdef int i
    for i in range(count):
        drawn[i].key = <uint32_t>read_label(reader, labels) << 3
        drawn[i].key |= read_byte(reader) & 7
        drawn[i].pool = read_label(reader, labels)
        drawn[i].part = read_byte(reader)
        drawn[i].micro = read_varint(reader)
        drawn[i].end = read_varint(reader)
    return 0


cdef int read_moved(reader_t* reader, moved_t* moved, int count, Labels labels) except -1:
    cdef int i
    for i in range(count):
        moved[i].pool = read_label(reader, labels)
        moved[i].part = read_byte(reader)
        moved[i].micro = read_varint(reader)
    return 0


cdef bint fill_side(record_t* record, sections_t* sections, Catalogs catalogs, pthread_mutex_t* mutex) except? True:
    """Read what belongs to the side; whether it could be."""
    cdef section_t* section
    cdef bint good = True
    cdef int i
    for i in range(sections.count):
        section = &sections.at[i]
        if section.kind == TOMBSTONE:
            record.flags |= DELETED
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

cdef object corrupt(name_t id, str what):
    return CorruptRecord(f"record of {id.at[:id.size].decode(errors='replace')!r}: {what}")


cdef record_t* decode_record(
    name_t id, uint64_t hash, const uint8_t* at, uint64_t size, Catalogs catalogs, pthread_mutex_t* mutex
) except NULL:
    """A new record of that id, the caller's. Raises CorruptRecord, naming the account."""
    cdef uint64_t checksum
    cdef reader_t reader
    cdef sections_t sections
    if size < BLOB_BYTES_MIN:
        raise corrupt(id, f"{size} bytes, too few for a record")
    memcpy(&checksum, at + size - 8, 8)
    if checksum != blob_checksum(id.at, id.size, at, size - 8):
        raise corrupt(id, "the checksum does not match")
    reader.at, reader.end, reader.bad = at + 8, at + size - 8, False
    sections.schema = read_byte(&reader)
    if not BLOB_SCHEMA_MIN <= sections.schema <= BLOB_SCHEMA:
        raise corrupt(id, f"schema {sections.schema}, this version reads {BLOB_SCHEMA_MIN} to {BLOB_SCHEMA}")
    sections.at = NULL
    try:
        return read_record(&reader, id, hash, &sections, catalogs, mutex)
    except UnicodeDecodeError:
        raise corrupt(id, "a name is not UTF-8") from None
    finally:
        free(sections.at)


cdef record_t* record_with(name_t id, uint64_t hash, const sections_t* sections) except NULL:
    """An empty record with the slots that those sections need."""
    cdef need_t* needs = <need_t*>malloc((sections.slot_count + 1) * sizeof(need_t))
    cdef record_t* bare = record_new(id.at, <uint16_t>id.size, hash, <uint16_t>sections.carried_size)
    cdef record_t* record = NULL
    cdef int i, count = 0
    if needs != NULL and bare != NULL:
        for i in range(sections.count):
            if SLIDING <= sections.at[i].kind <= BUCKET:
                needs[count] = sections.at[i].need
                count += 1
        record = record_remake(bare, needs, count, 0)
    free(needs)
    free(bare)
    if record == NULL:
        raise MemoryError
    return record


cdef bint fill_record(record_t* record, sections_t* sections) noexcept:
    """Read the slots, and copy what is carried along; whether it could be."""
    cdef entry_t log[ENTRIES_MAX_MAX]
    cdef uint8_t* carried = record_carried(record)
    cdef section_t* section
    cdef bint good = True
    cdef int i
    for i in range(sections.count):
        section = &sections.at[i]
        if SLIDING <= section.kind <= BUCKET:
            good = good and fill_slot(record, section, sections.schema, log)
        elif not OVERRIDE <= section.kind <= TOMBSTONE:
            memcpy(carried, section.start, section.end - section.start)
            carried += section.end - section.start
    return good


cdef record_t* read_record(
    reader_t* reader, name_t id, uint64_t hash, sections_t* sections, Catalogs catalogs, pthread_mutex_t* mutex
) except NULL:
    cdef int64_t seen_at = read_varint(reader)
    cdef int64_t subscribed_at = read_varint(reader)
    cdef int64_t expires_at = read_varint(reader)
    cdef uint8_t period = read_byte(reader)
    cdef int catalog_label = read_label(reader, catalogs.labels)
    cdef int plan = read_label(reader, catalogs.labels)
    cdef int catalog = catalogs.number_of(catalog_label)
    cdef record_t* record
    cdef bint good = False
    read_sections(reader, catalogs.labels, sections)
    if reader.bad or period >= PERIOD_COUNT or sections.slot_count > SLOTS_MAX or sections.carried_size > UINT16_MAX:
        raise corrupt(id, "it does not decode")
    if catalog < 0:
        raise corrupt(id, f"no catalog {catalogs.labels.name(catalog_label)!r} is loaded")
    record = record_with(id, hash, sections)
    record.seen_at, record.subscribed_at, record.period = seen_at, subscribed_at, period
    record.expires_at = expires_at if expires_at else NEVER
    record.catalog, record.plan = <uint16_t>catalog, <uint16_t>plan
    try:
        good = fill_record(record, sections) and fill_side(record, sections, catalogs, mutex)
    finally:
        if not good:
            record_free(record)
    if not good:
        raise corrupt(id, "a section does not decode")
    return record
