"""The archive: accounts as bytes, for a store. One as a blob; all that changed, packed; and back."""


cdef int demote_chunk(chunk_t* chunk, int64_t now, spares_t* spares) noexcept nogil:
    """Leave stubs of a chunk's records, but of those asked for since the last time; how many."""
    cdef record_t* record
    cdef record_t* stub
    cdef int slot, count = 0
    for slot in range(CHUNK_RECORDS):
        record = chunk.records[slot]
        if chunk.tags[slot] == 0 or record.flags & (CHANGED | DEMOTED):
            continue
        if record.flags & RECENT:
            record.flags &= ~RECENT
            continue
        if record.side != NULL and not side_empty(record.side, now, spares):
            continue
        stub = record_stub(record)
        if stub == NULL:
            continue
        chunk.records[slot] = stub
        record_free(record)
        count += 1
    return count


@cython.internal
cdef class Archive(Accounts):

    cdef object _fetch              # id -> blob, both bytes: where demoted accounts are
    cdef object _recalling          # one at a time, so that nobody puts back what another has changed since
    cdef spares_t _spares
    cdef uint64_t _hand             # the chunk that the demoting hand has come to

    def __cinit__(self, bytes hash_key not None):
        self._recalling = threading.Lock()

    def __dealloc__(self):
        cdef int i
        for i in range(self._spares.count):
            free(self._spares.at[i])

    def encode(self, str account not None, uint64_t tag):
        """The account's record as a blob that bears `tag`; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef buffer_t blob
        buffer_init(&blob)
        where = self.lock_find(id, False)
        if where != NULL:
            blob_write(&blob, where[0], self._catalogs, tag)
        pthread_mutex_unlock(&self._mutex)
        if where == NULL:
            return None
        try:
            if blob.failed:
                raise MemoryError
            return blob.at[:blob.size]
        finally:
            buffer_free(&blob)

    def decode(self, str account not None, bytes blob not None):
        """Put the account as the blob has it, in place of the one of that id. Raises CorruptRecord; nothing is changed then."""
        cdef bytes id = text_bytes("account", account, 1, ACCOUNT_BYTES_MAX)
        self.place(name_in(id), <const uint8_t*>PyBytes_AS_STRING(blob), len(blob), False)

    @cython.final
    cdef int place(self, name_t id, const uint8_t* at, uint64_t size, bint recalled) except -1:
        """Put an account as a blob has it: a change, or what a demoted one was."""
        cdef uint64_t hash = self.hash_of(id.at, id.size)
        cdef record_t* record = decode_record(id, hash, at, size, self._catalogs, &self._mutex)
        cdef record_t* before = NULL
        cdef record_t** where
        cdef bint stored
        if rules_plan(self._catalogs.in_force[record.catalog].rules, record.plan) == NULL:
            plan = self._catalogs.labels.name(record.plan)
            record_free(record)
            raise corrupt(id, f"its catalog has no plan {plan!r}")
        pthread_mutex_lock(&self._mutex)
        where = table_find(&self._table, id.at, id.size, hash)
        if recalled and (where == NULL or not where[0].flags & DEMOTED):
            pthread_mutex_unlock(&self._mutex)      # somebody else was faster
            record_free(record)
            return 0
        stored = track_reserve(&self._track)
        if stored and where != NULL:
            before = where[0]
            self._demoted -= before.flags & DEMOTED != 0
            record.flags |= before.flags & CHANGED
            where[0] = record
        elif stored:
            stored = table_add(&self._table, record)
        if stored and not recalled:
            track_note(&self._track, record)
        if recalled:
            record.flags |= RECENT
        pthread_mutex_unlock(&self._mutex)
        if not stored:
            record_free(record)
            raise MemoryError
        self.count_record(record, 1)
        if before != NULL:
            self.count_record(before, -1)
        record_free(before)
        return 0

    @cython.final
    cdef int count_record(self, const record_t* record, int by) except -1:
        """Count an account, or a tombstone, in or out."""
        if record.flags & DELETED:
            self._deleted += by
        else:
            self.count_plan((record.catalog, record.plan), by)
        return 0

    # ---- Tracking: for a store ----

    def track(self):
        """Note changes from now on."""
        self._track.on = True

    @property
    def ticket(self):
        """Number of the latest change."""
        return self._track.ticket

    def take(self, uint64_t bytes_max, int era=0):
        """The accounts changed since they were last taken, packed, about `bytes_max` of them at most; and the ticket up to which every change
        is in what was taken so far. Packed: u16 size, id, u32 size, blob; a blob of size 0 says that the account is gone. `era`, 1 to 15, is
        for `latest`."""
        cdef buffer_t packed
        cdef uint64_t covered = 0
        cdef bint more = True
        buffer_init(&packed)
        with nogil:
            while more:             # some at a time: decisions go on in between
                pthread_mutex_lock(&self._mutex)
                more = take_some(&packed, &self._track, &self._table, self._catalogs, era & 15, bytes_max, &covered)
                pthread_mutex_unlock(&self._mutex)
        try:
            if packed.failed:
                raise MemoryError
            return packed.at[:packed.size], covered
        finally:
            buffer_free(&packed)

    def latest(self, bytes packed not None, int era):
        """What was taken in an era, without the accounts that were taken since in another. At most fifteen eras are told apart: none may be
        asked about by a number that was given out again. `era` 0: before this process. Raises CorruptRecord."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(packed)
        cdef entry_span_t entries[TAKE_AT_ONCE]
        cdef reader_t reader
        cdef buffer_t kept
        cdef int count
        reader.at, reader.end, reader.bad = at, at + len(packed), False
        buffer_init(&kept)
        try:
            while reader.at < reader.end:
                count = unpack_some(&reader, entries)
                if reader.bad:
                    raise CorruptRecord(f"packed records: damaged at byte {reader.at - at} of {len(packed)}")
                self.keep_latest(entries, count, era, &kept)
            if kept.failed:
                raise MemoryError
            return kept.at[:kept.size]
        finally:
            buffer_free(&kept)

    @cython.final
    cdef void keep_latest(self, entry_span_t* entries, int count, int era, buffer_t* kept) noexcept nogil:
        cdef int i
        for i in range(count):
            entries[i].hash = self.hash_of(entries[i].id.at, entries[i].id.size)
        pthread_mutex_lock(&self._mutex)
        for i in range(count):
            table_prefetch(&self._table, entries[i].hash)
        for i in range(count):
            if is_latest(&self._table, &entries[i], era):
                buffer_put(kept, entries[i].at, entries[i].end - entries[i].at)
        pthread_mutex_unlock(&self._mutex)

    def restore(self, bytes packed not None):
        """Put every account of a packed row, later ones in place of earlier; how many. Raises CorruptRecord; those before it are put."""
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(packed)
        cdef reader_t reader
        cdef reader_t blob
        cdef name_t id
        cdef Py_ssize_t count = 0
        reader.at, reader.end, reader.bad = at, at + len(packed), False
        while reader.at < reader.end:
            id = unpack_id(&reader)
            blob = unpack_blob(&reader)
            if reader.bad or not 0 < id.size <= ID_BYTES_MAX:
                raise CorruptRecord(f"packed records: damaged at byte {reader.at - at} of {len(packed)}")
            if blob.at == blob.end:
                self.delete(text_of(id), 0, True)
            else:
                self.place(id, blob.at, blob.end - blob.at, False)
            count += 1
        return count

    # ---- Demotion: memory for those who ask ----

    def recall_by(self, fetch):
        """Say where demoted accounts are: `fetch(id)` returns a blob, both bytes."""
        self._fetch = fetch

    cdef int recall(self, bytes id) except -1:
        with self._recalling:
            blob = self._fetch(id)
            self.place(name_in(id), <const uint8_t*>PyBytes_AS_STRING(<bytes?>blob), len(blob), True)
        return 0

    @property
    def in_memory_count(self):
        """Accounts, and tombstones, that are in memory as a whole."""
        return self._table.count - self._demoted

    @property
    def demoted_count(self):
        """Accounts of which only a stub is in memory."""
        return self._demoted

    def demote(self, uint64_t count, int64_t now):
        """Leave a stub of about `count` accounts that nobody has asked for lately; how many. Only what has been taken is left, and nothing
        with ids, holds or prompts that still count; all that was taken must be where `recall_by` finds it."""
        cdef uint64_t demoted = 0, looked = 0, gone, size
        cdef bint more = True
        with nogil:
            while more and demoted < count:
                pthread_mutex_lock(&self._mutex)
                size = (<uint64_t>1) << self._table.new.bits
                more = looked < 2 * size        # once round to see who is asked for, once more to demote
                if self._table.old.bits:        # left half moved by the last inserts
                    table_move(&self._table)
                elif more:
                    gone = demote_chunk(&self._table.new.at[self._hand & (size - 1)], now, &self._spares)
                    demoted += gone
                    self._demoted += gone
                    self._hand += 1
                    looked += 1
                pthread_mutex_unlock(&self._mutex)
        return demoted

    # ---- Tombstones ----

    def drop_tombstones(self, int64_t now):
        """Forget deleted accounts whose longest window has ended; how many."""
        cdef uint64_t i = 0, size = 1, dropped = 0
        with nogil:
            while i < size:
                pthread_mutex_lock(&self._mutex)
                size = (<uint64_t>1) << self._table.new.bits
                if self._table.old.bits:        # tombstones may stand in either
                    table_move(&self._table)
                else:
                    dropped += self.drop_in(&self._table.new.at[i], now)
                    i += 1
                pthread_mutex_unlock(&self._mutex)
        return dropped

    @cython.final
    cdef uint64_t drop_in(self, chunk_t* chunk, int64_t now) noexcept nogil:
        cdef record_t* record
        cdef uint64_t count = 0
        cdef int slot
        for slot in range(CHUNK_RECORDS):
            record = chunk.records[slot]
            if chunk.tags[slot] == 0 or not record.flags & DELETED or now - record.seen_at < WINDOW_DAYS_MAX * DAY_US:
                continue
            if not track_purge_reserve(&self._track):
                break
            self._deleted -= 1
            self._demoted -= record.flags & DEMOTED != 0
            table_remove(&self._table, &chunk.records[slot])
            track_purge(&self._track, record)
            count += 1
        return count
