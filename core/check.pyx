"""What must always hold of the ledger's memory, asserted for the tests after every step."""


cdef int check_record(const record_t* record) except -1:
    cdef const slot_t* slots = record_slots(record)
    cdef const entry_t* log
    cdef uint64_t end = sizeof(record_t) + padded(record.id_size) + record.slot_count * sizeof(slot_t)
    cdef int64_t used
    cdef int i, j
    keys = set()
    for i in range(record.slot_count):
        keys.add(slots[i].key)
        if slots[i].key & 7 != SLIDING:
            assert slots[i].used >= 0 and slots[i].end >= 0, "a period has an end and an amount"
            continue
        assert slots[i].end == <int64_t>end, "logs lie one after the other"
        assert slots[i].count <= slots[i].room, "a log is within its room"
        end += slots[i].room * sizeof(entry_t)
        log = record_log(record, &slots[i])
        used = 0
        for j in range(slots[i].count):
            used = amount_add(used, log[j].micro)
            assert log[j].micro >= 0, "an entry's amount is at or above 0"
            assert j == 0 or log[j - 1].time < log[j].time, "an entry is later than the one before"
            assert log[j].time <= record.seen_at, "nothing was drawn after the account was last seen"
        assert used == slots[i].used, "the sum of a log is kept"
    assert len(keys) == record.slot_count, "a limit and kind has one slot"
    assert end + padded(record.carried_size) == record.size, "a record is as large as what is in it"
    if record.side != NULL:
        check_side(record.side, record.seen_at)
    return 0


cdef int check_known(const known_t* known, int64_t seen_at, bint sorted) except -1:
    cdef const admission_t* admission
    cdef const admission_t* before = NULL
    cdef int i
    assert known.first + known.count <= known.room, "a queue is within its room"
    for i in range(known.first, known.first + known.count):
        admission = known.at[i]
        assert known.tags[i] == <uint32_t>admission.id_hash and known.until[i] == admission.until, "what stands aside is the admission's"
        assert admission.admitted_at <= seen_at, "nothing was admitted after the account was last seen"
        assert not sorted or before == NULL or not admission_outlives(before, admission), "what is forgotten first is in front"
        before = admission
    return 0


cdef int check_side(const side_t* side, int64_t seen_at) except -1:
    cdef int i
    check_known(&side.holds, seen_at, False)
    check_known(&side.ids, seen_at, True)
    for i in range(side.holds.first, side.holds.first + side.holds.count):
        assert side.holds.at[i].flags & (HELD | SETTLED) == HELD, "holds are not settled"
        assert side.closes_at <= side.holds.until[i], "no hold closes before the first that may"
    for i in range(side.prompt_count):
        assert 0 < side.prompts[i].number <= side.prompt_number, "prompts are numbered"
        assert side.prompts[i].calls > 0, "a prompt has a call"
    return 0


cdef int check_table(table_t* table) except -1:
    cdef const chunks_t* chunks
    cdef const chunk_t* chunk
    cdef const record_t* record
    cdef uint64_t i, count = 0
    cdef int which, slot
    for which in range(2):
        chunks = &table.old if which else &table.new
        if chunks.bits == 0:
            continue
        for i in range((<uint64_t>1) << chunks.bits):
            chunk = &chunks.at[i]
            for slot in range(CHUNK_RECORDS):
                if chunk.tags[slot] == 0:
                    continue
                assert not (which and i < table.moved), "chunks that were moved are empty"
                record = chunk.records[slot]
                assert chunk.tags[slot] == hash_tag(record.hash), "a tag is its record's"
                assert table_find(table, record_id(record), record.id_size, record.hash) == &chunk.records[slot], "a record is found where it is"
                check_record(record)
                count += 1
    assert count == table.count, "records are counted"
    return 0
