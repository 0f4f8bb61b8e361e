"""The archive: accounts as bytes, for a store. One as a blob; all that changed, packed; and back."""


@cython.internal
cdef class Archive(Accounts):

    def encode(self, str account not None, uint64_t tag):
        """The account's record as a blob that bears `tag`; None if there is no such account."""
        cdef bytes id = id_sought(account)
        cdef uint8_t* at = NULL
        cdef uint64_t size = 0
        pthread_mutex_lock(&self._mutex)
        where = self.find(id)
        if where != NULL:
            at = encode_record(where[0], self._catalogs, tag, &size)
        pthread_mutex_unlock(&self._mutex)
        if where == NULL:
            return None
        if at == NULL:
            raise MemoryError
        try:
            return at[:size]
        finally:
            free(at)

    def decode(self, str account not None, bytes blob not None):
        """Put the account as the blob has it, in place of the one of that id. Raises CorruptRecord; nothing is changed then."""
        cdef bytes id = text_bytes("account", account, 1, ACCOUNT_BYTES_MAX)
        self.place(name_in(id), <const uint8_t*>PyBytes_AS_STRING(blob), len(blob))

    @cython.final
    cdef int place(self, name_t id, const uint8_t* at, uint64_t size) except -1:
        """Put an account as a blob has it, tracked or not."""
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
        stored = track_reserve(&self._track)
        if stored and where != NULL:
            before = where[0]
            record.flags |= before.flags & CHANGED
            where[0] = record
        elif stored:
            stored = table_add(&self._table, record)
        if stored:
            track_note(&self._track, record)
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

    def take(self, uint64_t bytes_max):
        """The accounts changed since they were last taken, packed, about `bytes_max` of them at most; and the ticket up to which every change
        is in what was taken so far. Packed: u16 size, id, u32 size, blob; a blob of size 0 says that the account is gone."""
        cdef packed_t packed
        cdef uint64_t covered = 0
        cdef bint more = True
        packed.at, packed.size, packed.room = NULL, 0, 0
        with nogil:
            while more:             # some at a time: decisions go on in between
                pthread_mutex_lock(&self._mutex)
                more = take_some(&packed, &self._track, &self._table, self._catalogs, bytes_max, &covered)
                pthread_mutex_unlock(&self._mutex)
        try:
            if packed.failed:
                raise MemoryError
            return packed.at[:packed.size], covered
        finally:
            free(packed.at)

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
                self.place(id, blob.at, blob.end - blob.at)
            count += 1
        return count
